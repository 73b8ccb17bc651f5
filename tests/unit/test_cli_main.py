"""The command line's frame: start-up, exit statuses, closed pipes, hostile text."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

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


def examples() -> list[list[str]]:
    """The words of every example in every help text, pipes cut."""
    found = []
    for verb in VERBS:
        text = importlib.import_module(f"meshsieve.cli.{verb}").EXAMPLES.replace("\\\n", " ")
        found += [
            shlex.split(part, comments=True) for part in re.findall(r"\bmeshsieve [^|\n]*(?:'[^']*'[^|\n]*)*", text)
        ]
    return found


@pytest.mark.parametrize("words", examples(), ids=" ".join)
def test_examples_of_help_texts_are_understood(words: list[str]) -> None:
    verb = words[1]
    parser = argparse.ArgumentParser()
    importlib.import_module(f"meshsieve.cli.{verb}").add_arguments(parser)
    parser.parse_intermixed_args(words[2:])


def test_a_bench_outside_the_source_tree_says_where_to_go(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "packets"]) == 2
    assert "run this in the root of meshsieve's source tree" in capsys.readouterr().err


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
