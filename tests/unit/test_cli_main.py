"""The command line's frame: start-up, exit statuses, closed pipes, hostile text."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from meshsieve import __version__
from meshsieve.cli.main import VERBS, main
from meshsieve.reports.escape import printable

# A child finds the package where this process did.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meshsieve", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )


def test_version_is_printed() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"meshsieve {__version__}\n")


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys; from meshsieve.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'rich', 'pyarrow', 'yaml', 'meshsieve._core'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["--nonsense"], ["doctor", "--nonsense"]])
def test_wrong_usage_is_2_and_says_so_on_standard_error(words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage: meshsieve" in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_has_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([verb, "--help"])
    assert leaving.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"meshsieve {verb}" in out.split("examples:")[1]


HOSTILE = [
    # what it shows                text             shown
    ("colour escape", "\x1b[31mred", "\\x1b[31mred"),
    ("new line", "a\nb", "a\\x0ab"),
    ("C1 control", "a\x9bb", "a\\x9bb"),
    ("delete", "a\x7fb", "a\\x7fb"),
    ("right-to-left override", "a\u202eb", "a\\u202eb"),
    ("isolate", "a\u2066b", "a\\u2066b"),
    ("line separator", "a\u2028b", "a\\u2028b"),
    ("lone surrogate from a file name", "a\udcffb", "a\\udcffb"),
    ("zero width joiner", "a\u200db", "a\\u200db"),
    ("tag character", "a\U000e0041b", "a\\U000e0041b"),
    ("plain text stays", "naïve 東京 rule_1", "naïve 東京 rule_1"),
]


@pytest.mark.parametrize(("text", "shown"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_text_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_every_control_character_is_escaped() -> None:
    acting = [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0))]
    assert all(printable(c).isprintable() and printable(c) != c for c in acting)
