"""meshsieve: what a network and a service mesh would do with a packet, a flow or a request, and why.

Everything is imported when first used, so that ``import meshsieve`` costs nothing:

>>> import meshsieve
>>> engine = meshsieve.load(["nsx.json"])  # doctest: +SKIP
>>> print(engine.classify_pcap("traffic.pcap").summary())  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Rooms that may be reached as attributes: meshsieve.packets and so on.
_ROOMS = frozenset(
    {
        "authz",
        "capture",
        "columns",
        "engine",
        "errors",
        "flows",
        "http_requests",
        "importers",
        "inventory",
        "model",
        "packets",
        "routes",
    }
)
# Public names and the room that each lives in.
_NAMES = {
    "backend": "packets",
    "Engine": "engine",
    "load": "engine",
    "ImportOptions": "policy",
    "PacketColumns": "columns",
    "Request": "request",
}

__all__ = ["Engine", "ImportOptions", "PacketColumns", "Request", "__version__", "backend", "load"]

if TYPE_CHECKING:
    from meshsieve.columns import PacketColumns
    from meshsieve.engine import Engine, load
    from meshsieve.packets import backend
    from meshsieve.policy import ImportOptions
    from meshsieve.request import Request


if not TYPE_CHECKING:  # type checkers see the imports above

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(importlib.import_module(f"meshsieve.{_NAMES[name]}"), name)
        if name in _ROOMS:
            return importlib.import_module(f"meshsieve.{name}")
        raise AttributeError(f"module 'meshsieve' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_NAMES, *_ROOMS})
