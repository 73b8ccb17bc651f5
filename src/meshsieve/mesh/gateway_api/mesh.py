"""Mesh routes (GAMMA): routes whose parent is a Service act on traffic that clients send to the Service.

The Service and port that a request was sent to choose the routes; the Host header and the routes' host names do not. A
route in the Service's own namespace is a producer's and counts for every client; one elsewhere is a consumer's, counts
for clients of its own namespace only, and there takes the producer's place. Where kinds meet, the most specific kind
counts (GRPCRoute, HTTPRoute, TLSRoute, TCPRoute). A Service without a route takes its traffic itself.
Source: GEP-1294, GEP-1426; Gateway API's mesh conformance tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshsieve.errors import UsageError
from meshsieve.mesh.gateway_api.backends import Backends
from meshsieve.mesh.gateway_api.model import (
    ACCEPTED,
    HTTP_KINDS,
    BackendRef,
    Condition,
    Dialect,
    ParentRef,
    Route,
)
from meshsieve.mesh.gateway_api.streams import StreamRoute, backends_of_first_rule
from meshsieve.mesh.gateway_api.tables import TableBuilder
from meshsieve.mesh.objects import CORE, ISTIO_NETWORKING
from meshsieve.mesh.services import Service
from meshsieve.model import Source
from meshsieve.request import Request
from meshsieve.routes import model
from meshsieve.routes.http_options import HttpOptions
from meshsieve.routes.model import Forward, PathMatch, RouteConfiguration, RouteMatch, VirtualHost
from meshsieve.routes.router import Match, Router

PARENT_KINDS = ((CORE, "Service"), (ISTIO_NETWORKING, "ServiceEntry"))
BY_SPECIFICITY = ("GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute")


def is_mesh(parent: ParentRef) -> bool:
    return (parent.group, parent.kind) in PARENT_KINDS


@dataclass(frozen=True, slots=True)
class MeshTable:
    """What clients of one namespace meet at one port of a Service: an HTTP table, or a route of connections."""

    router: Router | None
    stream: StreamRoute | None


class MeshRoutes:
    """All mesh routes of a cluster; tables are made when they are first asked for."""

    def __init__(self, routes: Sequence[Route], backends: Backends, dialect: Dialect, options: HttpOptions) -> None:
        self.attached = [(route, parent) for route in routes for parent in route.parents if is_mesh(parent)]
        self._backends = backends
        self._options = options
        self._dialect = dialect
        self._builder = TableBuilder(dialect, self._check)
        self._tables: dict[tuple[str, int, str], MeshTable] = {}

    def match(self, request: Request, *, service: str, port: int = 80, client_namespace: str | None = None) -> Match:
        """What becomes of a request that a client in a namespace sends to a Service.

        service           ``namespace/name``
        client_namespace  default: the Service's own
        raises            UsageError for a Service that is neither an object nor any route's parent
        """
        namespace = service.partition("/")[0]
        table = self.table(service, port, client_namespace or namespace)
        if table.router is not None:
            return table.router.match(request)
        assert table.stream is not None
        return table.stream.match(request.random_value, f"{service}:{port}")

    def table(self, service: str, port: int, client_namespace: str) -> MeshTable:
        """raises  UsageError"""
        key = (service, port, client_namespace)
        if key not in self._tables:
            self._tables[key] = self._make(service, port, client_namespace)
        return self._tables[key]

    def status(self, parent: ParentRef) -> Condition:
        """Whether a parent reference to a Service means one that is there."""
        if parent.kind != "Service" or self._backends.assumed:
            return ACCEPTED
        service = self._backends.services.get((parent.namespace, parent.name))
        if service is None:
            return Condition(False, "NoMatchingParent", f"{parent} not found")
        if parent.port is not None and service.port(parent.port) is None:
            return Condition(False, "NoMatchingParent", f"Service has no port {parent.port}")
        return ACCEPTED

    def _make(self, service: str, port: int, client: str) -> MeshTable:
        namespace, _, name = service.partition("/")
        found = self._backends.services.get((namespace, name))
        mine = [(r, p) for r, p in self.attached if (p.namespace, p.name) == (namespace, name)]
        if found is None and not mine:
            known = ", ".join(f"{ns}/{n}" for ns, n in list(self._backends.services)[:10]) or "none"
            raise UsageError(f"no Service is called {service}; there are: {known}")
        here = list({id(r): r for r, p in mine if p.port in (None, port)}.values())
        consumers = [r for r in here if r.ref.namespace == client != namespace]
        routes = self._of_one_kind(consumers or [r for r in here if r.ref.namespace == namespace])
        label = f"{service}:{port}"
        if not routes:
            return MeshTable(Router(_to_itself(label, found), self._options), None)
        if routes[0].kind in HTTP_KINDS:
            config = self._builder.service_table(label, port, routes, found.object.source if found else Source())
            return MeshTable(Router(config, self._options), None)
        route = min(routes, key=lambda r: r.age)
        return MeshTable(None, StreamRoute(route, "", backends_of_first_rule(route, self._check)))

    def _of_one_kind(self, routes: list[Route]) -> list[Route]:
        kinds = {route.kind for route in routes}
        if self._dialect.kind_clash == "merge" and kinds & set(HTTP_KINDS):
            return [route for route in routes if route.kind in HTTP_KINDS]
        best = next((kind for kind in BY_SPECIFICITY if kind in kinds), None)
        return [route for route in routes if route.kind == best]

    def _check(self, route: Route, backend: BackendRef) -> Condition:
        return self._backends.check(backend, route, mesh=True)


def _to_itself(label: str, service: Service | None) -> RouteConfiguration:
    source = service.object.source if service else Source()
    route = model.Route(f"service/{label}", RouteMatch(PathMatch("prefix", b"/")), Forward(label), source=source)
    return RouteConfiguration(label, (VirtualHost(label, (b"*",), (route,), source=source),), ignore_port=True)
