"""Every script of examples/ runs and says what it should."""

from __future__ import annotations

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
