"""Where the C++ headers are, for extensions that cimport ``meshsieve._fast`` (examples/cython_lookup)."""

from __future__ import annotations

from pathlib import Path


def get_include() -> str:
    """The folder to add to ``include_dirs``: part of an installation, csrc/include in a source tree."""
    here = Path(__file__).resolve().parent
    installed = here / "include"
    return str(installed if installed.is_dir() else here.parents[1] / "csrc" / "include")
