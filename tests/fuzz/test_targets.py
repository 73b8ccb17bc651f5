"""The fuzz targets compile against the core as it is: they run for minutes on demand, so nothing else would notice."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.__main__ import ROOT, targets

COMPILER = shlex.split(os.environ.get("CXX", "c++"))


@pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", targets())
def test_a_target_compiles(name: str) -> None:
    source = Path("tests/fuzz/targets") / f"{name}.cpp"
    flags = ["-fsyntax-only", "-std=c++20", "-Icsrc/include", "-Icsrc/src"]
    done = subprocess.run([*COMPILER, *flags, str(source)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
