"""The linear reference, answering as ``Router.find`` does: a position in ``Router.routes``, or why there is none."""

from __future__ import annotations

from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, Refusal, view
from meshsieve.routes.model import Route, RouteConfiguration, host_routes
from meshsieve.routes.reference import choose_route, choose_virtual_host
from meshsieve.routes.router import HTTPS_REDIRECT, NO_ROUTE, NO_VIRTUAL_HOST, REFUSED


def find(config: RouteConfiguration, options: HttpOptions, request: Request) -> int:
    seen = view(request, options)
    if isinstance(seen, Refusal):
        return REFUSED
    host = choose_virtual_host(config, seen)
    if host is None:
        return NO_VIRTUAL_HOST
    if host.require_tls != "NONE" and seen.scheme != b"https":
        if not seen.scheme:
            return NO_ROUTE
        if host.require_tls == "ALL" or b"true" not in seen.lines(b"x-envoy-internal"):
            return HTTPS_REDIRECT
    route = choose_route(config, host, seen)
    return NO_ROUTE if route is None else position(config, host.name, route)


def position(config: RouteConfiguration, host_name: str, route: Route) -> int:
    """Where the very object stands; a route that stands in several hosts is found in the one of that name first."""
    at, first = 0, None
    for host in config.virtual_hosts:
        for candidate in host_routes(host):
            if candidate is route:
                if host.name == host_name:
                    return at
                first = at if first is None else first
            at += 1
    assert first is not None
    return first
