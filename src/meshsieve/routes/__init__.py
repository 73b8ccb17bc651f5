"""L7 routing: which route takes a request, and what becomes of it.

>>> router = from_envoy({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
...     {"name": "home", "match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]})
>>> router.match(Request(authority="example.com", path="/a")).route
'home'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions
from meshsieve.routes.router import Match, Router, from_envoy

if TYPE_CHECKING:
    from meshsieve.mesh.router import MeshRouter, from_kubernetes
else:

    def __getattr__(name: str) -> Any:
        # The mesh builds on this room, so it is imported when first asked for.
        if name in ("MeshRouter", "from_kubernetes"):
            from meshsieve.mesh import router

            return getattr(router, name)
        raise AttributeError(f"module 'meshsieve.routes' has no attribute '{name}'")


__all__ = ["HttpOptions", "Match", "MeshRouter", "Request", "Router", "from_envoy", "from_kubernetes"]
