"""Optional libraries, imported only when something asks for them."""

from __future__ import annotations

import importlib
from typing import Any

from meshsieve.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """The imported ``module``.

    raises  MissingExtraError naming what to install
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(f"this needs {module}; install it with: pip install 'meshsieve[{extra}]'") from None
