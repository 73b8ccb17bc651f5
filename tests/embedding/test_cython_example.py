"""The example extension builds against the shipped headers and ``_fast.pxd``, and its look-ups are right."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meshsieve import packets
from meshsieve.model import Rule, ValueSet

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_another_extension_looks_up_without_the_gil(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples" / "cython_lookup", tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CFLAGS": "-O0"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    built = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    monkeypatch.syspath_prepend(str(tmp_path))
    from count_hits import count_hits

    lan = Rule({"src_ip": ValueSet.addresses(["10.0.0.0/24"]), "dport": ValueSet.numbers(80)})
    lookup = packets.compile([lan]).lookup
    assert count_hits(lookup, 0x0A000000 - 10, 0x0A000000 + 300, 80) == 256
    assert count_hits(lookup, 0x0A000000 - 10, 0x0A000000 + 300, 81) == 0
