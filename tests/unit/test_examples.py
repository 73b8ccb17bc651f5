"""Every script of examples/ runs and says what it should."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_cli_main import ENVIRONMENT

ROOT = Path(__file__).parents[2]
DEMO = "examples/demo"
SCRIPTS = {
    "denied_flows.py": (
        [f"{DEMO}/demo.pcap", f"{DEMO}/nsx.json"],
        "REJECT    udp    82.239.54.117 > 250.58.23.113:443",
    ),
    "own_rules.py": ([], "one packet: web"),
    "who_may_call.py": (
        ["examples/bookinfo/policy/cluster.yaml", "examples/bookinfo/policy/authorization.yaml"],
        "freezing takes",
    ),
    "what_if.py": ([f"{DEMO}/demo.pcap", f"{DEMO}/nsx.json", f"{DEMO}/edge.rules"], "flows change"),
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_example(script: str) -> None:
    words, said = SCRIPTS[script]
    done = subprocess.run(
        [sys.executable, f"examples/{script}", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_notebook_runs_and_shows_what_the_tutorial_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    nbformat = pytest.importorskip("nbformat", reason="pip install nbformat nbclient ipykernel")
    client = pytest.importorskip("nbclient", reason="pip install nbformat nbclient ipykernel")
    folder = ROOT / "examples" / "bookinfo"
    notebook = nbformat.read(folder / "bookinfo.ipynb", as_version=4)
    client.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    shown = "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "everything-else" in shown
    assert "ns[bookinfo]-policy[ratings-for-reviews]-rule[0]" in shown
    assert "would be allowed by" in shown
    assert "kind='hole'" in shown
    assert "closed tools/curl" in shown
    assert "opened bookinfo/bookinfo-productpage" in shown


def tutorial_commands() -> list[str]:
    """Commands of the tutorial, one a line, continued lines joined."""
    text = (ROOT / "docs" / "tutorial.md").read_text().replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.startswith("    meshsieve ")]


@pytest.mark.parametrize("command", tutorial_commands())
def test_every_command_of_the_tutorial_runs(command: str, tmp_path: Path) -> None:
    words = shlex.split(command.replace("-o report.html", f"-o {tmp_path / 'report.html'}"))
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT / "examples" / "bookinfo",
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr


def readme_blocks(language: str) -> list[str]:
    """What stands between ```language and ```, and what is indented by four spaces where ``language`` is "shell"."""
    text = (ROOT / "README.md").read_text()
    if language == "shell":
        lines = text.replace("\\\n", " ").splitlines()
        return [line.split("  # ")[0].strip() for line in lines if line.startswith("    meshsieve ")]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = readme_blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "DROP by rule 'everything-else'" in printed
    assert "ALLOW by authorization: ns[bookinfo]-policy[reviews-for-page]-rule[0]" in printed


def test_options_that_the_readme_writes_exist() -> None:
    commands = readme_blocks("shell")
    assert len(commands) >= 4
    for command in commands:
        verb, *words = shlex.split(command.split("|")[0])[1:]
        parser = argparse.ArgumentParser()
        importlib.import_module(f"meshsieve.cli.{verb}").add_arguments(parser)
        parser.parse_intermixed_args(words)
