"""Show versions, engines, SIMD backends and optional libraries: everything that a bug report needs in one paste."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
import sys

from meshsieve import __version__

EXAMPLES = """\
examples:
  meshsieve doctor
  meshsieve doctor --json
"""

# Optional library -> the extra that brings it.
OPTIONAL = {"pyarrow": "arrow", "pandas": "pandas", "polars": "polars", "matplotlib": "charts"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def facts() -> dict[str, object]:
    """What ``doctor`` knows, by name."""
    import numpy as np

    from meshsieve import _core, packets
    from meshsieve.errors import BackendError

    try:
        backend = packets.backend()
    except BackendError as error:  # of MESHSIEVE_BACKEND
        backend = str(error)
    return {
        "meshsieve": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "numpy": np.__version__,
        "engines": [name for name, _ in _core.engines()],
        "backends": list(_core.backends()),
        "backend": backend,
        "extras": {module: _version(module) for module in OPTIONAL},
    }


def _version(module: str) -> str | None:
    if importlib.util.find_spec(module) is None:
        return None
    return importlib.metadata.version(module)


def run(options: argparse.Namespace) -> int:
    known = facts()
    if options.json:
        import json

        json.dump(known, sys.stdout, indent=2)
        print()
        return 0
    for name, value in known.items():
        if isinstance(value, dict):
            for module, version in value.items():
                print(f"{module:<12}{version or f'not installed (pip install meshsieve[{OPTIONAL[module]}])'}")
        else:
            print(f"{name:<12}{', '.join(value) if isinstance(value, list) else value}")
    return 0
