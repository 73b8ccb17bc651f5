"""A mesh under Istio: what a proxy does with a connection or a request.

    request -> connection (address, port, SNI, what the first bytes look like) -> listener -> filter chain
      -> forwarded as it is, or route configuration -> virtual host -> route

A client in the mesh that names no address is taken to have resolved the host: to a Service's or ServiceEntry's own
address where the name is one's, else to nobody's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from meshsieve.authz.settings import read_settings
from meshsieve.errors import UsageError
from meshsieve.mesh.istio.config import IstioConfig, MeshOptions, read_istio
from meshsieve.mesh.istio.gateway import GatewayProxy
from meshsieve.mesh.istio.http_routes import JWT_FILTER
from meshsieve.mesh.istio.inbound import SidecarInbound
from meshsieve.mesh.istio.model import Gateway
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import HostService
from meshsieve.mesh.istio.sidecar import SidecarOutbound, short_names
from meshsieve.mesh.listeners import PLAIN, TLS, Connection, FilterChain, HttpHandler, TcpHandler
from meshsieve.mesh.match import MeshMatch
from meshsieve.mesh.objects import ObjectStore
from meshsieve.policy import Diagnostic
from meshsieve.request import Request
from meshsieve.routes.router import Router

DEFAULT_PORTS = {"http": 80, "https": 443}
MISSING_CLUSTER_STATUS = 503
# The listener that takes what no other claims.
UNCLAIMED = {"sidecar": "virtualOutbound", "inbound": "virtualInbound"}
# Claims that hold several words, which are lists to matchers.
WORD_LIST_CLAIMS = ("scope", "permission")


State = SidecarOutbound | SidecarInbound | GatewayProxy
STATES: Mapping[str, Callable[[IstioConfig, Proxy], State]] = {
    "sidecar": SidecarOutbound, "inbound": SidecarInbound, "gateway": GatewayProxy,
}  # fmt: skip


@dataclass(frozen=True)
class _Entrance:
    """A connection with the request on it, if it carries one that can be seen."""

    connection: Connection
    request: Request
    presented: bool | None  # the client's certificate; None: not known


class IstioMesh:
    """Routes of all proxies; what a proxy needs is built when first asked for, and kept."""

    def __init__(self, store: ObjectStore, options: MeshOptions | None = None) -> None:
        self.config: IstioConfig = read_istio(store, options)
        self.http = read_settings(store, self.config.options.root_namespace).http
        self._states: dict[object, State] = {}
        self._routers: dict[tuple[object, str], Router | None] = {}

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        """What was dropped or is not evaluated; of gateways, those of every Gateway's own workload."""
        out = list(self.config.findings)
        for gateway in self.config.gateways:
            state = self.gateway(self.gateway_proxy(gateway.key))
            assert state.listeners is not None  # made here, so that what they drop is found
            out += [f for f in state.findings if f not in out]
        return tuple(out)

    # --- proxies

    def gateway_proxy(self, name: str) -> Proxy:
        """The workload that runs the Gateway ``namespace/name``: a pod that its selector fits, else one that only the
        selector describes.

        raises  UsageError if there is no such Gateway
        """
        found = next((g for g in self.config.gateways if g.key == name), None)
        if found is None:
            known = ", ".join(g.key for g in self.config.gateways) or "none"
            raise UsageError(f"no Istio Gateway is called {name}; there are: {known}")
        for workload in self.config.workloads:
            if found.selector and workload.selected_by(found.selector):
                return Proxy("gateway", workload.namespace, workload.labels, workload.addresses, workload)
        return Proxy("gateway", self._home(found), found.selector or {})

    def _home(self, gateway: Gateway) -> str:
        """Where the workload of a Gateway without pods is: with the Service of the same selector, else with it."""
        services = self.config.registry.services
        for service in services:
            own = service.selector.items() if service.kubernetes else ()
            selected = own and gateway.selector and own <= gateway.selector.items()
            if selected or service.host in (gateway.services or ()):
                return service.namespace
        return gateway.namespace

    def sidecar(self, proxy: Proxy) -> SidecarOutbound:
        """What a sidecar does with what its application sends."""
        state = self.state(replace(proxy, kind="sidecar"))
        assert isinstance(state, SidecarOutbound)
        return state

    def gateway(self, proxy: Proxy) -> GatewayProxy:
        state = self.state(replace(proxy, kind="gateway"))
        assert isinstance(state, GatewayProxy)
        return state

    def state(self, proxy: Proxy) -> State:
        key = self.configuration_key(proxy)
        if key not in self._states:
            self._states[key] = STATES[proxy.kind](self.config, proxy)
        return self._states[key]

    def configuration_key(self, proxy: Proxy) -> object:
        """Equal for proxies with the same configuration. Clients are told apart by few of their labels, if at all."""
        if proxy.kind != "sidecar":
            return proxy.key
        labels = tuple(sorted(item for item in proxy.labels.items() if item[0] in self.config.client_labels))
        own = tuple(address for address in proxy.addresses if address in self.config.headless_addresses)
        return proxy.kind, proxy.namespace, labels, own

    # --- requests

    def match(self, request: Request, proxy: Proxy) -> MeshMatch:
        """What the proxy does with a request. ``destination_port``: of the listener; without one the URL's port, which
        a gateway's Service may translate."""
        return self.answer(request, proxy)[0]

    def answer(self, request: Request, proxy: Proxy) -> tuple[MeshMatch, Router | None]:
        """The same, with the table that the request came to, if it came to one."""
        host, port = split_authority(request.authority)
        port = request.destination_port or port or DEFAULT_PORTS.get(request.scheme, 80)
        address = request.destination_ip or ""
        if proxy.kind == "gateway":
            ports = self.gateway(proxy)
            if request.destination_port is None and ports.bound is not None:
                port = min(ports.external_ports.get(port, {port}))
        elif proxy.kind == "sidecar" and not address:
            address = self._resolve(host, proxy)
        encrypted = request.scheme == "https" or request.sni is not None
        # A client of https names the host, unless it is an address; sni "" says that it names none.
        name = request.sni if request.sni is not None else host if encrypted and not _is_address(host) else ""
        if encrypted:
            protocols = tuple(p for p in (request.alpn or "").split(",") if p)
        else:
            # What HTTP inspection finds; gRPC runs over HTTP/2.
            protocols = ("h2c",) if is_grpc(request) else ("http/1.1",)
        transport = TLS if encrypted else PLAIN
        try:
            address = str(ipaddress.ip_address(address)) if address else ""
        except ValueError as error:
            return MeshMatch(False, action="refused", reason=f"destination address: {error}"), None
        connection = Connection(address, port, name, transport, protocols)
        presented = None if request.tls is None else bool(request.tls.get("presented"))
        return self._enter(_Entrance(connection, with_claims(request), presented), proxy)

    def connect(
        self, connection: Connection, proxy: Proxy, *, presented: bool | None = None, random_value: int | None = None
    ) -> MeshMatch:
        """What the proxy does with a connection whose bytes are not HTTP."""
        return self._enter(_Entrance(connection, Request(random_value=random_value), presented), proxy)[0]

    def _enter(self, entrance: _Entrance, proxy: Proxy) -> tuple[MeshMatch, Router | None]:
        state = self.state(proxy)
        connection = entrance.connection
        listener = state.places.choose(connection.address, connection.port)
        if listener is not None:
            chain = listener.chain(connection)
            where: dict[str, Any] = {"listener": listener.name}
        elif not isinstance(state, GatewayProxy):
            chain, where = state.nobody, {"listener": UNCLAIMED[proxy.kind]}
        else:
            ports = ", ".join(map(str, dict.fromkeys(found.port for found in state.listeners))) or "none"
            reason = f"the gateway does not listen on port {connection.port}; its ports: {ports}"
            return MeshMatch(False, action="no_listener", reason=reason), None
        if chain is None:
            name = f"server name {connection.server_name}" if connection.server_name else "a connection without SNI"
            reason = f"no filter chain takes {name}"
            return MeshMatch(False, action="no_filter_chain", reason=reason, **where), None
        where["filter_chain"] = chain.name
        problem = _handshake(chain, connection, entrance.presented)
        if problem is not None:
            return MeshMatch(False, action=problem[0], reason=problem[1], **where), None
        if isinstance(chain.handler, TcpHandler):
            return self._forwarded(chain.handler, entrance, state.missing, where), None
        return self._routed(chain.handler, entrance.request, state, proxy, where)

    @staticmethod
    def _forwarded(
        handler: TcpHandler, entrance: _Entrance, missing: Mapping[str, str], where: Mapping[str, Any]
    ) -> MeshMatch:
        action = "tls" if entrance.connection.transport == TLS else "tcp"
        chosen = _by_weight(handler.clusters, entrance.request.random_value)
        reason = missing.get(chosen or "", "")
        if reason:
            action = "closed"
        return MeshMatch(
            True,
            action=action,
            cluster=chosen,
            clusters=handler.clusters,
            source=handler.source,
            reason=reason,
            **where,
        )

    def _routed(
        self, handler: HttpHandler, request: Request, state: State, proxy: Proxy,
        where: dict[str, Any],
    ) -> tuple[MeshMatch, Router | None]:  # fmt: skip
        router = self._router(state, proxy, handler.route_config)
        where["route_config"] = handler.route_config
        if router is None:
            return MeshMatch(False, status=404, reason="no route configuration of that name", **where), None
        answer = MeshMatch.of(router.match(request), **where)
        if answer.cluster is not None and answer.cluster in state.missing:
            answer = replace(answer, status=MISSING_CLUSTER_STATUS, reason=state.missing[answer.cluster])
        return answer, router

    def _router(self, state: State, proxy: Proxy, name: str) -> Router | None:
        key = (self.configuration_key(proxy), name)
        if key not in self._routers:
            found = state.route_configuration(name)
            self._routers[key] = None if found is None else Router(found, self.http)
        return self._routers[key]

    # --- names

    def _resolve(self, host: str, proxy: Proxy) -> str:
        """The address that a name leads to, "" for none of its own (a shared listener may still take it)."""
        if _is_address(host):
            return host
        found = self.service_named(host, proxy)
        if found is None:
            return ""
        return next((a for a in found.addresses if "/" not in a), _first_of_prefix(found))

    def service_named(self, host: str, proxy: Proxy) -> HostService | None:
        """The service that a client means by a name, short or full."""
        host = host.lower().removesuffix(".")
        domain = self.config.options.domain
        own = f"{proxy.namespace}.svc.{domain}"
        registry = self.config.registry
        found = registry.named(host, proxy.namespace)
        # The full names that have the host as a short form for this client.
        for full in (f"{host}.{own}", f"{host}.svc.{domain}", f"{host}.{domain}") if domain else ():
            if found is None and host in short_names(full, own):
                found = registry.named(full, proxy.namespace)
        if found is not None and found.alias_of:
            return registry.named(found.alias_of, proxy.namespace)
        return found


def split_authority(authority: str) -> tuple[str, int | None]:
    """``host:8080`` and ``[::1]:8080`` in their parts.

    >>> split_authority("[::1]:80"), split_authority("a.com")
    (('::1', 80), ('a.com', None))
    """
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.endswith("]")):
        host, port = authority, ""
    number = int(port) if port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 else None
    return host.removeprefix("[").removesuffix("]"), number


def _first_of_prefix(service: HostService) -> str:
    for text in service.addresses:
        return str(ipaddress.ip_network(text)[0])
    return ""


def _handshake(chain: FilterChain, connection: Connection, presented: bool | None) -> tuple[str, str] | None:
    encrypted = connection.transport == TLS
    if chain.tls in ("tls", "mutual") and not encrypted:
        return "tls_error", "the server expects TLS and the connection is plain"
    if chain.tls == "mutual" and presented is False:
        return "mtls_error", "the server asks for a client certificate and the client presents none"
    if isinstance(chain.handler, HttpHandler) and not chain.tls and encrypted:
        return "protocol_error", "the server expects plain HTTP and the connection is TLS"
    return None


def _by_weight(clusters: tuple[tuple[str, int], ...], random_value: int | None) -> str | None:
    if len(clusters) == 1:
        return clusters[0][0]
    if random_value is None or not clusters:
        return None
    point = random_value % sum(weight for _, weight in clusters)
    for name, weight in clusters:
        if point < weight:
            return name
        point -= weight
    return None


def with_claims(request: Request) -> Request:
    """The claims of a token where matchers look for them: the metadata of the JWT filter."""
    if request.claims is None or JWT_FILTER in request.dynamic_metadata:
        return request
    claims = dict(request.claims)
    for name in WORD_LIST_CLAIMS:
        if isinstance(claims.get(name), str):
            claims[name] = claims[name].split(" ")
    return replace(request, dynamic_metadata={**request.dynamic_metadata, JWT_FILTER: {"payload": claims}})


def is_grpc(request: Request) -> bool:
    return is_grpc_type(next(iter(request.header("content-type")), ""))


def is_grpc_type(content_type: str) -> bool:
    kind = content_type.strip(" \t")
    return kind == "application/grpc" or kind.startswith("application/grpc+")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
