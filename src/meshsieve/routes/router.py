"""The router as people use it: build it from a configuration, ask what takes a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meshsieve._fast_routes import RouteLookup
from meshsieve.model import Source
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.compiled import compile_routes
from meshsieve.routes.http_options import HttpOptions, Refusal, RequestView, view
from meshsieve.routes.model import NOWHERE, Route, RouteConfiguration, VirtualHost, host_routes
from meshsieve.routes.outcome import Outcome, outcome
from meshsieve.routes.read_envoy import read_route_configuration

if TYPE_CHECKING:
    from meshsieve.explanation import Explanation

# Answers of find, below 0 (csrc/include/meshsieve/route_table.h).
NO_ROUTE, NO_VIRTUAL_HOST, REFUSED, HTTPS_REDIRECT = -1, -2, -3, -4
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


@dataclass(frozen=True, slots=True)
class RouteStats:
    """What a compiled table holds.

    nodes         of the path trees
    predicates    different conditions besides the path
    regexes       regular expressions of paths; regex_sets: automata that look for many of them at once
    fans          places where routes are told apart by hashing a header, query parameter or cookie
    longest_list  most routes at one place that are tested one after another
    bytes         of what look-ups read, without RE2's programs
    """

    hosts: int
    routes: int
    nodes: int
    predicates: int
    regexes: int
    regex_sets: int
    fans: int
    longest_list: int
    bytes: int


class _Version:
    """One configuration and its compiled table; never changed."""

    def __init__(self, config: RouteConfiguration, options: HttpOptions) -> None:
        self.config = config
        self.routes: tuple[Route, ...] = tuple(r for host in config.virtual_hosts for r in host_routes(host))
        self.table, self.facts = compile_routes(config, options)
        self.lookup = RouteLookup()
        self.lookup._publish(self.table.capsule)

    def choose(self, seen: RequestView) -> tuple[int, VirtualHost | None]:
        """The route's position or why there is none, and the virtual host."""
        request = seen.request
        tls = request.tls or {}
        bits = (1 if tls.get("presented") else 0) | (2 if tls.get("validated") else 0)
        route, host = self.lookup._lookup(
            seen.method,
            seen.scheme,
            seen.authority,
            seen.target,
            seen.headers,
            request.random_value or 0,
            bits,
            self.facts.of([request])[0],
        )
        return route, self.config.virtual_hosts[host] if host >= 0 else None


class Router(RouteLookup):
    """One route configuration, compiled. ``routes``: every route of every virtual host, in order; those of a match tree
    in order of appearance. ``find`` takes host, path, method and headers and costs least.

    Threads  any number may ask; ``replace`` may be called meanwhile, each call answers wholly from one configuration
    raises   CompileError for a configuration beyond the table's limits (csrc/include/meshsieve/route_table.h)
    """

    def __init__(self, config: RouteConfiguration, options: HttpOptions | None = None) -> None:
        self.options = options or HttpOptions()
        self.replace(config)

    def replace(self, config: RouteConfiguration) -> None:
        """Answer from another configuration from now on. Nothing changes if it cannot be compiled."""
        version = _Version(config, self.options)
        self._publish(version.table.capsule)
        self._version = version

    @property
    def config(self) -> RouteConfiguration:
        return self._version.config

    @property
    def routes(self) -> tuple[Route, ...]:
        return self._version.routes

    @property
    def stats(self) -> RouteStats:
        return RouteStats(**self._version.table.stats)

    def match(self, request: Request) -> Match:
        """What takes the request. Never raises for what a request contains: a bad one is refused, as a value."""
        version = self._version
        seen = view(request, self.options)
        if isinstance(seen, Refusal):
            location = None if seen.location is None else _text(seen.location)
            return Match(False, action="refused", status=seen.status, location=location, reason=seen.reason)
        route, host = version.choose(seen)
        if host is None:
            return _miss(seen, None, "no virtual host has a domain that fits")
        if route == HTTPS_REDIRECT:
            location = _text(b"https://" + (seen.authority or b"") + seen.target)
            status = GRPC_ERROR_STATUS if seen.is_grpc else 301
            return Match(False, host.name, action="redirect_to_https", status=status, location=location)
        if route >= 0:
            taken = version.routes[route]
            return _hit(host, taken, route, outcome(version.config, host, taken, seen))
        no_scheme = host.require_tls != "NONE" and not seen.scheme
        return _miss(
            seen, host.name, "the request has no scheme" if no_scheme else "no route of the virtual host matches"
        )

    def explain(self, request: Request) -> Explanation:
        """Why the request takes its route: each route of the virtual host in order, and the conditions that fail.
        ``str()`` is a tree, ``to_dict()`` plain values."""
        from meshsieve.routes import explanation

        return explanation.explain(self.config, view(request, self.options), request, self.match(request))

    def match_batch(self, requests: Any) -> npt.NDArray[np.int32]:
        """int32 (n,): position in ``routes`` of what takes each request, -1 for none.

        requests  what ``RequestColumns.of`` takes: columns, or an iterable of ``Request``. The GIL is released.
        raises    ColumnError for columns that do not fit together
        """
        found = self.find_batch(requests)
        return np.maximum(found, NO_ROUTE, out=found)

    def find_batch(self, requests: Any) -> npt.NDArray[np.int32]:
        """As ``match_batch``, with the numbers of ``find`` for requests that no route takes."""
        columns = RequestColumns.of(requests)
        routes = np.empty(len(columns), np.int32)
        self.find_rows(columns, None, routes, None)
        return routes

    def find_rows(
        self,
        columns: RequestColumns,
        rows: npt.NDArray[np.int64] | None,
        routes: npt.NDArray[np.int32],
        hosts: npt.NDArray[np.int32] | None,
    ) -> None:
        """``find_batch`` of some rows, into arrays of a number a row: ``routes``, and ``hosts``, the positions of the
        virtual hosts. rows: None for all.

        raises  ColumnError for arrays of other lengths, rows that are none
        """
        version = self._version
        version.lookup._lookup_batch(columns.native, version.facts.of(columns.contexts), routes, hosts, rows)


def _hit(host: VirtualHost, route: Route, index: int, found: Outcome) -> Match:
    return Match(
        True,
        host.name,
        route.name,
        index,
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


def _miss(seen: RequestView, host: str | None, reason: str) -> Match:
    return Match(False, host, status=GRPC_ERROR_STATUS if seen.is_grpc else 404, reason=reason)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def from_envoy(config: Any, options: HttpOptions | None = None, *, file: str = "<route configuration>") -> Router:
    """A router from an Envoy RouteConfiguration (v3): a mapping, or YAML or JSON text.

    ``options``: what the HTTP connection manager does before routing. ``file``: the name that errors show.

    raises  PolicyError naming the place, the field's path, and what Envoy refuses as well
    """
    return Router(read_route_configuration(config, file), options)
