"""Where tests find the heavy data that is not part of the repository."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


PACKETS = int(os.environ.get("MESHSIEVE_PACKETS", "0"))
_PART, _PARTS = (int(n) for n in os.environ.get("MESHSIEVE_PART", "1/1").split("/"))


def packets_each(policies: int, usual: int) -> int:
    """How many random packets a test draws for each of so many policies: MESHSIEVE_PACKETS over all of them, else
    ``usual``."""
    return -(-PACKETS // policies) if PACKETS else usual


def part(listed: Sequence[T]) -> Sequence[T]:
    """Those that a run looks at: MESHSIEVE_PART=2/4 is the second quarter, for long runs in slices."""
    return listed[_PART - 1 :: _PARTS]


def shared_data(path: str) -> Path:
    """A path below the shared data: ``MESHSIEVE_SHARED``, else ``../shared/data`` beside the repository. Skips the test
    where it is absent."""
    root = Path(os.environ.get("MESHSIEVE_SHARED") or Path(__file__).parents[2] / "shared" / "data")
    found = root / path
    if not found.exists():
        pytest.skip(f"shared data is not here: {path}; set MESHSIEVE_SHARED to its folder")
    return found
