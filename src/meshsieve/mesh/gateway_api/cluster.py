"""Gateways and mesh Services of a set of objects, and the routes behind each: the answer to a request or connection.

>>> from meshsieve.mesh.objects import read_objects
>>> api = GatewayApi(read_objects('''
... {apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: front},
...  spec: {gatewayClassName: any, listeners: [{name: web, port: 80, protocol: HTTP}]}}
... ---
... {apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop},
...  spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: web, port: 8080}]}]}}
... '''))
>>> api.match(Request(authority="shop.example"), gateway="default/front").cluster
'default/web:8080'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from meshsieve.errors import UsageError
from meshsieve.mesh.gateway_api.attachment import (
    Attachment,
    ParentResult,
    all_listeners,
    attach,
    default_parents,
    most_specific_listener,
    refuse_clashes,
)
from meshsieve.mesh.gateway_api.backends import Backends
from meshsieve.mesh.gateway_api.mesh import MeshRoutes, is_mesh
from meshsieve.mesh.gateway_api.model import (
    ENVOY_GATEWAY,
    ISTIO,
    NOT_PERMITTED,
    PARENT_GROUPS,
    RESOLVED,
    ROUTE_KINDS,
    STANDARD,
    BackendRef,
    Condition,
    Dialect,
    Listener,
    ParentRef,
    Route,
    RouteStatus,
)
from meshsieve.mesh.gateway_api.read_gateway import read_gateway, read_grant, read_listener_set
from meshsieve.mesh.gateway_api.read_route import read_route
from meshsieve.mesh.gateway_api.streams import StreamRoute, choose_stream, stream_routes
from meshsieve.mesh.gateway_api.tables import TableBuilder, rule_problems
from meshsieve.mesh.objects import GATEWAY_API, ISTIO_NETWORKING, ISTIO_SECURITY, ObjectStore
from meshsieve.policy import Diagnostic
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions
from meshsieve.routes.router import Match, Router

# Classes that Istio makes itself, so that their objects may be missing.
ISTIO_CLASSES = ("istio", "istio-remote", "istio-waypoint")


@dataclass(frozen=True, slots=True)
class Port:
    """One port of one Gateway: listeners that share it, told apart by name.

    routers  HTTP tables: one for all plaintext listeners (key ""), or one a TLS listener, by its title
    streams  routes of TLS, TCP and UDP listeners, by title
    """

    gateway: str
    number: int
    transport: str
    listeners: tuple[Listener, ...]
    routers: dict[str, Router]
    streams: dict[str, list[StreamRoute]]

    def listener(self, sni: str | None) -> Listener | None:
        """The listener that a connection reaches; of plaintext ones, which the Host header tells apart, the first."""
        if self.transport != "tls":
            return self.listeners[0]
        if sni is None:
            return next((li for li in self.listeners if not li.hostname), None)
        return most_specific_listener(sni, self.listeners)

    def router(self, listener: Listener) -> Router | None:
        """The HTTP table behind a listener; None where connections are routed."""
        return self.routers.get("" if self.transport == "http" else listener.title)


class GatewayApi:
    """What the Gateway API objects of a store say.

    listeners    every listener, also those that are refused (``accepted``, ``resolved``)
    statuses     every parent of every route, and how it took the route
    ports        what listens, by Gateway and port
    mesh         routes whose parent is a Service
    diagnostics  what to know about the reading

    raises  PolicyError for an object that cannot be read
    """

    def __init__(self, store: ObjectStore, dialect: Dialect = STANDARD, options: HttpOptions | None = None) -> None:
        self.dialect = dialect
        self.options = options or HttpOptions()
        namespaces = store.namespaces
        self.gateways = [read_gateway(o, namespaces) for o in store.of("Gateway", GATEWAY_API)]
        sets = [read_listener_set(o, namespaces) for o in store.objects if o.kind in ("ListenerSet", "XListenerSet")]
        self.grants = [read_grant(o) for o in store.of("ReferenceGrant", GATEWAY_API)]
        self.backends = Backends(store, self.grants)
        self.routes = [read_route(o) for kind in ROUTE_KINDS for o in store.of(kind, GATEWAY_API)]
        self.listeners = [self._with_certificates(li) for li in all_listeners(self.gateways, sets)]
        self._results = self._attach_all()
        self.attachments = [a for _, result in self._results for a in result.attachments if a.listener.serves]
        builder = TableBuilder(dialect, self._check)
        self.ports = tuple(self._ports(builder))
        self.mesh = MeshRoutes(self.routes, self.backends, dialect, self.options)
        self.statuses = tuple(self._statuses())
        self.diagnostics = self._diagnostics(store)

    # --- answers

    def match(self, request: Request, *, gateway: str, listener: str | None = None) -> Match:
        """What a Gateway does with a request or connection.

        gateway   ``namespace/name``
        listener  name of the listener that the client connects to, for its port; else ``request.destination_port``
                  decides, else the port of the first HTTP listener
        raises    UsageError for a gateway or listener that does not exist
        """
        port = self._port(gateway, listener, request.destination_port)
        if port is None:
            return Match(False, action="closed", reason=f"gateway {gateway} listens on no such port")
        chosen = port.listener(request.sni)
        if chosen is None:
            return Match(False, action="closed", reason=f"no listener takes the server name {request.sni or '(none)'}")
        router = port.router(chosen)
        if router is not None:
            return router.match(replace(request, scheme="https") if chosen.encrypted else request)
        route = choose_stream(port.streams[chosen.title], request.sni)
        if route is None:
            return Match(False, chosen.title, action="closed", reason="no route of the listener takes the connection")
        return route.match(request.random_value, chosen.title)

    def router(self, request: Request, *, gateway: str, listener: str | None = None) -> Router | None:
        """The HTTP table that the request meets; arguments as for ``match``."""
        port = self._port(gateway, listener, request.destination_port)
        chosen = port.listener(request.sni) if port is not None else None
        return port.router(chosen) if port is not None and chosen is not None else None

    def _port(self, gateway: str, listener: str | None, number: int | None) -> Port | None:
        mine = [p for p in self.ports if p.gateway == gateway]
        if not any(f"{g.ref.namespace}/{g.ref.name}" == gateway for g in self.gateways):
            known = ", ".join(f"{g.ref.namespace}/{g.ref.name}" for g in self.gateways) or "none"
            raise UsageError(f"no Gateway is called {gateway}; there are: {known}")
        if listener is not None:
            named = [li for li in self.listeners if _gateway_of(li) == gateway and li.name == listener]
            if not named:
                raise UsageError(f"Gateway {gateway} has no listener called {listener}")
            families = {(li.port, li.protocol == "UDP") for li in named}
            return next((p for p in mine if (p.number, p.transport == "udp") in families), None)
        if number is not None:
            return next((p for p in mine if p.number == number), None)
        return next((p for p in mine if p.transport == "http"), mine[0] if mine else None)

    # --- building

    def _with_certificates(self, li: Listener) -> Listener:
        source = (GATEWAY_API, li.owner.kind, li.owner.namespace)
        bad = [c for c in li.certificates if not self.backends.granted(source, c)]
        if not bad:
            return li
        message = f"no ReferenceGrant lets {li.owner} use {', '.join(f'{kind} {ns}/{n}' for _, kind, ns, n in bad)}"
        return replace(li, resolved=Condition(False, NOT_PERMITTED, message))

    def _attach_all(self) -> list[tuple[Route, ParentResult]]:
        results = []
        for route in self.routes:
            for parent in (*route.parents, *default_parents(route, self.gateways)):
                if not is_mesh(parent) and self._manages(parent):
                    results.append((route, attach(route, parent, self.listeners)))
        refuse_clashes(results, self.dialect)
        return results

    def _manages(self, parent: ParentRef) -> bool:
        """Whether the parent is here: what no controller knows gets no status."""
        owners = {li.owner for li in self.listeners} | {g.ref for g in self.gateways}
        return parent.group in PARENT_GROUPS and any(
            (parent.kind, parent.namespace, parent.name) == (o.kind, o.namespace, o.name) for o in owners
        )

    def _statuses(self) -> Iterator[RouteStatus]:
        for route, result in self._results:
            yield self._status(route, result, self._resolved(route, mesh=False))
        for route, parent in self.mesh.attached:
            yield self._status(route, ParentResult(parent, self.mesh.status(parent)), self._resolved(route, mesh=True))

    def _status(self, route: Route, result: ParentResult, resolved: Condition) -> RouteStatus:
        accepted = result.accepted
        problems = [rule_problems(rule) for rule in route.rules]
        if accepted.status and problems and all(problems):
            accepted = Condition(False, "UnsupportedValue", "; ".join(p for each in problems for p in each))
        titles = tuple(a.listener.title for a in result.attachments)
        return RouteStatus(route.ref, result.parent, accepted, resolved, titles, route.source)

    def _check(self, route: Route, backend: BackendRef) -> Condition:
        return self.backends.check(backend, route)

    def _resolved(self, route: Route, *, mesh: bool) -> Condition:
        failed = [c for b in _backends_of(route) if not (c := self.backends.check(b, route, mesh=mesh)).status]
        return failed[0] if failed else RESOLVED

    def _ports(self, builder: TableBuilder) -> Iterator[Port]:
        groups: dict[tuple[str, int, str], list[Listener]] = {}
        for li in self.listeners:
            if li.serves and li.protocol != "HBONE":
                transport = {"HTTP": "http", "TCP": "tcp", "UDP": "udp"}.get(li.protocol, "tls")
                groups.setdefault((_gateway_of(li), li.port, transport), []).append(li)
        for (gateway, number, transport), listeners in groups.items():
            name = f"{gateway}:{number}"
            port = Port(gateway, number, transport, tuple(listeners), {}, {})
            if transport == "http":
                config = builder.port_table(name, listeners, self.attachments)
                port.routers[""] = Router(config, self.options)
            else:
                for li in listeners:
                    self._encrypted(builder, port, li, [a for a in self.attachments if a.listener is li])
            yield port

    def _encrypted(self, builder: TableBuilder, port: Port, li: Listener, attached: Sequence[Attachment]) -> None:
        if li.protocol == "HTTPS":
            https = [other for other in port.listeners if other.protocol == "HTTPS"]
            config = builder.listener_table(li.title, li, https, attached)
            port.routers[li.title] = Router(config, self.options)
        else:
            port.streams[li.title] = stream_routes(li, attached, self._check)

    def _diagnostics(self, store: ObjectStore) -> tuple[Diagnostic, ...]:
        out = []
        if self.backends.assumed and self.routes:
            message = "the objects hold no Service, so every Service that a route names is taken as existing"
            out.append(Diagnostic("services-assumed", message, level="note"))
        classes = {o.name for o in store.of("GatewayClass", GATEWAY_API)}
        for gateway in self.gateways:
            if classes and gateway.class_name not in classes:
                message = f"no GatewayClass is called {gateway.class_name!r}; {gateway.ref} is read all the same"
                out.append(Diagnostic("gateway-class", message, str(gateway.source)))
        for li in self.listeners:
            for condition in (li.accepted, li.resolved):
                if not condition.status:
                    message = f"listener {li.title} takes no traffic: {condition.reason}: {condition.message}"
                    out.append(Diagnostic("listener-refused", message, str(li.source)))
        return tuple(out)


def dialect_of(store: ObjectStore) -> Dialect:
    """The dialect of the controller that the objects show: by GatewayClass, else by Istio's own objects, else the API's
    text."""
    classes = {o.name: o.spec.text("controllerName") or "" for o in store.of("GatewayClass", GATEWAY_API)}
    used = [o.spec.text("gatewayClassName") or "" for o in store.of("Gateway", GATEWAY_API)]
    for name in used:
        controller = classes.get(name, "")
        if controller.startswith("istio.io/") or (not controller and name in ISTIO_CLASSES):
            return ISTIO
        if controller.startswith("gateway.envoyproxy.io/"):
            return ENVOY_GATEWAY
    if not used and any(o.group in (ISTIO_NETWORKING, ISTIO_SECURITY) for o in store.objects):
        return ISTIO
    return STANDARD


def _gateway_of(listener: Listener) -> str:
    return f"{listener.gateway.namespace}/{listener.gateway.name}"


def _backends_of(route: Route) -> Iterator[BackendRef]:
    for rule in route.rules:
        yield from rule.backends
        for filters in (rule.filters, *(b.filters for b in rule.backends)):
            yield from (m.backend for m in filters.mirrors)
