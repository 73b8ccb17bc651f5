"""L7 routing: which route takes a request, and what becomes of it.

>>> router = from_envoy({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
...     {"name": "home", "match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]})
>>> router.match(Request(authority="example.com", path="/a")).route
'home'
"""

from __future__ import annotations

from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions
from meshsieve.routes.router import Match, Router, from_envoy

__all__ = ["HttpOptions", "Match", "Request", "Router", "from_envoy"]
