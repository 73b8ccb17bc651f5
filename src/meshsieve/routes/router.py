"""The router as people use it: build it from a configuration, ask what takes a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.model import Source
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, Refusal, RequestView, view
from meshsieve.routes.model import NOWHERE, Route, RouteConfiguration, Tree, VirtualHost
from meshsieve.routes.outcome import Outcome, outcome
from meshsieve.routes.read_envoy import read_route_configuration
from meshsieve.routes.reference import choose_route, choose_virtual_host

GRPC_ERROR_STATUS = 200  # a gRPC client reads grpc-status; Envoy's own answers carry HTTP 200


@dataclass(frozen=True, slots=True)
class Match:
    """What takes a request.

    matched       a route took it
    virtual_host  name of the virtual host that was chosen, None if none fits
    route         name of the route ("" if it has none); route_index: its position in ``router.routes``, -1 without
    action        "route", "redirect", "direct_response", "filter_action", "non_forwarding_action"; "refused" for an
                  answer before routing, "redirect_to_https" for require_tls, "no_route"
    cluster       the cluster chosen; None where chance decides and the request names no random_value
    clusters      (cluster, weight) pairs that can be chosen
    status        of an answer that the proxy gives itself, else None
    location      of a redirect
    path, authority   as sent upstream
    source        where the route is written
    reason        why there is no route
    settings      timeout, retries, fault, mirrors and the like, as data
    """

    matched: bool
    virtual_host: str | None = None
    route: str | None = None
    route_index: int = -1
    action: str = "no_route"
    cluster: str | None = None
    clusters: tuple[tuple[str, int], ...] = ()
    status: int | None = None
    location: str | None = None
    path: str | None = None
    authority: str | None = None
    virtual_cluster: str = ""
    source: Source = NOWHERE
    reason: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Router:
    """One route configuration. ``routes``: every route of every virtual host, in order; those of a match tree in order
    of appearance."""

    def __init__(self, config: RouteConfiguration, options: HttpOptions | None = None) -> None:
        self.config = config
        self.options = options or HttpOptions()
        self.routes: tuple[Route, ...] = tuple(r for host in config.virtual_hosts for r in host_routes(host))
        self._index = {id(route): i for i, route in enumerate(self.routes)}

    def match(self, request: Request) -> Match:
        """What takes the request. Never raises for what a request contains: a bad one is refused, as a value."""
        seen = view(request, self.options)
        if isinstance(seen, Refusal):
            location = None if seen.location is None else _text(seen.location)
            return Match(False, action="refused", status=seen.status, location=location, reason=seen.reason)
        host = choose_virtual_host(self.config, seen)
        if host is None:
            return self._miss(seen, None, "no virtual host has a domain that fits")
        if (early := self._require_tls(host, seen)) is not None:
            return early
        route = choose_route(self.config, host, seen)
        if route is None:
            return self._miss(seen, host.name, "no route of the virtual host matches")
        return self._hit(host, route, outcome(self.config, host, route, seen))

    def match_batch(self, requests: Iterable[Request]) -> npt.NDArray[np.int32]:
        """int32 (n,): position in ``routes`` of what takes each request, -1 for none."""
        return np.fromiter((self.match(request).route_index for request in requests), np.int32)

    def _hit(self, host: VirtualHost, route: Route, found: Outcome) -> Match:
        return Match(
            True,
            host.name,
            route.name,
            self._index[id(route)],
            found.action,
            found.cluster,
            found.clusters,
            found.status,
            None if found.location is None else _text(found.location),
            None if found.path is None else _text(found.path),
            None if found.authority is None else _text(found.authority),
            found.virtual_cluster,
            route.source,
            settings=route.settings,
        )

    def _miss(self, seen: RequestView, host: str | None, reason: str) -> Match:
        return Match(False, host, status=GRPC_ERROR_STATUS if seen.is_grpc else 404, reason=reason)

    def _require_tls(self, host: VirtualHost, seen: RequestView) -> Match | None:
        """The redirect of ``require_tls``, before any route is looked at."""
        if host.require_tls == "NONE" or seen.scheme == b"https":
            return None
        if not seen.scheme:
            return self._miss(seen, host.name, "the request has no scheme")
        internal = b"true" in seen.lines(b"x-envoy-internal")
        if host.require_tls == "EXTERNAL_ONLY" and internal:
            return None
        location = b"https://" + (seen.authority or b"") + seen.target
        status = GRPC_ERROR_STATUS if seen.is_grpc else 301
        return Match(False, host.name, action="redirect_to_https", status=status, location=_text(location))


def host_routes(host: VirtualHost) -> Iterator[Route]:
    yield from host.routes
    if host.tree is not None:
        yield from _tree_routes(host.tree)


def _tree_routes(tree: Tree) -> Iterator[Route]:
    for on_match in (*(hit for _, hit in tree.entries), *tree.table.values(), tree.no_match):
        if on_match is not None:
            yield from on_match.routes or ()
            if on_match.nested is not None:
                yield from _tree_routes(on_match.nested)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def from_envoy(config: Any, options: HttpOptions | None = None, *, file: str = "<route configuration>") -> Router:
    """A router from an Envoy RouteConfiguration (v3): a mapping, or YAML or JSON text.

    ``options``: what the HTTP connection manager does before routing. ``file``: the name that errors show.

    raises  PolicyError naming the place, the field's path, and what Envoy refuses as well
    """
    return Router(read_route_configuration(config, file), options)
