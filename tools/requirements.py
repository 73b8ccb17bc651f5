"""Prints what pyproject.toml requires, one shell word each: ``base`` (build and run) or the name of an extra.

Lets the Makefile install a group's packages without rebuilding the package itself, as ``pip install -e .[dev]`` would.
Runs on the bare interpreter, before anything is installed.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements(group: str) -> list[str]:
    settings = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    extras = settings["project"]["optional-dependencies"]
    if group == "base":
        wanted = [*settings["build-system"]["requires"], *settings["project"]["dependencies"]]
    else:
        wanted = extras[group]
    return [requirement.replace(" ", "") for requirement in wanted]


if __name__ == "__main__":
    print(*requirements(sys.argv[1]))
