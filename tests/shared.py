"""Where tests find the heavy data that is not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_data(path: str) -> Path:
    """A path below the shared data: ``MESHSIEVE_SHARED``, else ``../shared/data`` beside the repository. Skips the test
    where it is absent."""
    root = Path(os.environ.get("MESHSIEVE_SHARED") or Path(__file__).parents[2] / "shared" / "data")
    found = root / path
    if not found.exists():
        pytest.skip(f"shared data is not here: {path}; set MESHSIEVE_SHARED to its folder")
    return found
