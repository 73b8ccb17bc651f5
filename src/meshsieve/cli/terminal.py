"""What standard output is: a terminal of some width, with colours, or something else."""

from __future__ import annotations

import os
import shutil
import sys


def columns() -> int | None:
    """Width of the terminal; None where output is not one, so that nothing is cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def colours() -> bool:
    """Colours only on a terminal that has them, and not against NO_COLOR (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
