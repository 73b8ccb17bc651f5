"""A gateway workload: its Gateways merged into listeners, and their route configurations.

Merging   Gateways oldest first, then by name and namespace. On one listener the first server decides: plain HTTP joins
          plain HTTP, TLS joins TLS (told apart by SNI), anything else is dropped, with a finding.
Port      The listener's is the target port to which a Service of the gateway's namespace maps the server's, else the
          server's own.
Routes    Virtual services of one host are concatenated, oldest first; routes that take everything go to the end.
Source: istio/istio pilot/pkg/model/gateway.go, pilot/pkg/networking/core/gateway.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from meshsieve.mesh.istio.config import IstioConfig
from meshsieve.mesh.istio.http_routes import RouteBuilder, takes_everything
from meshsieve.mesh.istio.model import Gateway, L4Match, L4Rule, Server, VirtualService
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import HostService
from meshsieve.mesh.istio.tcp_routes import tcp_handler
from meshsieve.mesh.listeners import ANY_ADDRESS, FilterChain, HttpHandler, Listener, Listeners, TcpHandler
from meshsieve.mesh.names import covers, intersection, overlap
from meshsieve.policy import Diagnostic
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import Route, RouteConfiguration, VirtualHost

NO_TRANSLATION_LABEL = "experimental.istio.io/disable-gateway-port-translation"
ISTIO_ALPN = ("istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2")


@dataclass
class _Bound:
    """Servers of one address and port. plain: not TLS; protocol: the first server's."""

    port: int
    bind: str
    protocol: str
    plain: bool
    servers: list[Server] = field(default_factory=list)


class GatewayProxy:
    """Everything that one gateway workload listens to."""

    def __init__(self, config: IstioConfig, proxy: Proxy) -> None:
        self.config, self.proxy = config, proxy
        self.missing: dict[str, str] = {}
        self.findings: list[Diagnostic] = []
        self.routes: dict[str, list[Server]] = {}
        self.external_ports: dict[int, set[int]] = {}  # server port -> listener ports
        self._configurations: dict[str, RouteConfiguration] = {}

    # --- merging

    @cached_property
    def bound(self) -> list[_Bound]:
        out: dict[tuple[int, str], _Bound] = {}
        plain: dict[int, _Bound] = {}
        tls_hosts: dict[tuple[int, str], set[str]] = {}
        for gateway in self.config.gateways:
            targets = self._targets(gateway)
            if targets is None:
                continue
            for server in gateway.servers:
                for port in self._resolved(server, targets, gateway):
                    self._place(server, port, out, plain, tls_hosts)
        return list(out.values())

    def _targets(self, gateway: Gateway) -> list[HostService] | None:
        """Services that may translate the Gateway's ports; None: it is not for this workload."""
        workload = self.proxy.as_workload()
        mine = [
            s
            for s in self.config.registry.services
            if s.namespace == self.proxy.namespace and any(s.target(p, workload) is not None for p in s.ports)
        ]
        if gateway.services is not None:
            named = [s for s in mine if s.host in gateway.services]
            return named or None
        if gateway.selector is not None and not workload.selected_by(gateway.selector):
            return None
        return [s for s in mine if NO_TRANSLATION_LABEL not in s.object.labels]

    def _resolved(self, server: Server, targets: list[HostService], gateway: Gateway) -> list[int]:
        found: dict[int, None] = {}
        for service in targets:
            port = service.port(server.port)
            target = service.target(port, self.proxy.as_workload()) if port is not None else None
            if target is not None:
                found[target] = None
        if gateway.services is not None:
            return list(found)
        # With a selector the first translation counts, and no translation is the port itself.
        return list(found)[:1] or [server.port]

    def _place(
        self, server: Server, port: int, out: dict[tuple[int, str], _Bound], plain: dict[int, _Bound],
        tls_hosts: dict[tuple[int, str], set[str]],
    ) -> None:  # fmt: skip
        name = route_name(server, port)
        if server.tls is not None:
            known = tls_hosts.setdefault((port, server.bind), set())
            if twice := sorted(known & set(server.hosts)):
                self._dropped(server, f"host {', '.join(twice)} is already taken by another server of port {port}")
                return
            known |= set(server.hosts)
        first = out.get((port, server.bind))
        if first is None:
            bound = _Bound(port, server.bind, server.protocol, server.family in ("http", "tcp"))
            out[port, server.bind] = bound
            if bound.plain:
                plain.setdefault(port, bound)
        elif first.plain:
            if not (server.family == "http" and first.servers[0].family == "http"):
                self._dropped(server, f"port {port} already serves {first.protocol.upper()}")
                return
        elif server.tls is None or server.family == "http":
            self._dropped(server, f"port {port} already serves TLS")
            return
        elif server.family == "https" and name in self.routes:
            self._dropped(server, f"port name {server.port_name} is already used by another server of port {port}")
            return
        out[port, server.bind].servers.append(server)
        self.external_ports.setdefault(server.port, set()).add(port)
        if name:
            self.routes.setdefault(name, []).append(server)

    def _dropped(self, server: Server, why: str) -> None:
        text = f"server {server.port_name or server.port} of Gateway {server.gateway} is dropped: {why}"
        self.findings.append(Diagnostic("gateway-server-conflict", text, str(server.source), server.gateway))

    # --- listeners

    @cached_property
    def listeners(self) -> tuple[Listener, ...]:
        out = []
        for bound in self.bound:
            taken: set[str] = set()  # SNI hosts of passthrough rules: the first rule of a name wins
            chains: list[FilterChain] = []
            if bound.servers[0].family == "http":
                chains = [FilterChain(HttpHandler(route_name(bound.servers[0], bound.port)))]
            else:
                for server in bound.servers:
                    chains += self._chains(server, bound.port, taken)
            address = bound.bind or ANY_ADDRESS
            if chains:
                out.append(Listener(f"{address}_{bound.port}", address, bound.port, tuple(chains)))
        return tuple(out)

    @cached_property
    def places(self) -> Listeners:
        return Listeners(self.listeners)

    def _chains(self, server: Server, port: int, taken: set[str]) -> Iterator[FilterChain]:
        names = _sni(server)
        tls = server.tls
        if tls is not None and tls.passthrough:
            if tls.mode == "AUTO_PASSTHROUGH":
                yield from self._auto_passthrough(server)
            else:
                yield from self._passthrough(server, taken)
            return
        asks = ""
        if tls is not None:
            asks = "mutual" if tls.mode in ("MUTUAL", "ISTIO_MUTUAL") else "tls"
        if server.family == "https":
            yield FilterChain(HttpHandler(route_name(server, port)), server_names=names, tls=asks)  # type: ignore[arg-type]
            return
        handler = self._tcp(server)
        if handler is not None:
            yield FilterChain(handler, server_names=names, tls=asks)  # type: ignore[arg-type]
        else:
            self._dropped(server, "no tcp rule is bound to it, so it has no filter chain")

    def _virtual_services(self, server: Server) -> list[VirtualService]:
        return self.config.virtual_services_for(self.proxy.namespace, server.gateway)

    def _tcp(self, server: Server) -> TcpHandler | None:
        """The first tcp rule that fits: opaque bytes leave nothing to choose by."""
        for service in self._virtual_services(server):
            if not any(overlap(host, h) for host in service.hosts for h in server_hosts(server, service.namespace)):
                continue
            for rule in service.tcp:
                if not rule.matches or any(_fits(m, server) for m in rule.matches):
                    return self._handler(rule, server)
        return None

    def _passthrough(self, server: Server, taken: set[str]) -> Iterator[FilterChain]:
        for service in self._virtual_services(server):
            if not any(overlap(host, h) for host in service.hosts for h in server_hosts(server, service.namespace)):
                continue
            for rule in service.tls:
                for match in rule.matches:
                    if not _fits(match, server):
                        continue
                    if taken & set(match.sni):
                        text = f"SNI {', '.join(sorted(taken & set(match.sni)))} is already taken by an earlier rule"
                        self.findings.append(Diagnostic("duplicate-sni", text, str(rule.source), service.object.title))
                        continue
                    taken |= set(match.sni)
                    yield FilterChain(self._handler(rule, server), server_names=_without_star(match.sni))

    def _auto_passthrough(self, server: Server) -> Iterator[FilterChain]:
        """SNI names the cluster itself: one chain for each service port and subset that the server's hosts cover."""
        for service in self.config.registry.visible(self.proxy.namespace):
            hosts = [host.rpartition("/")[2] for host in server.hosts]
            if service.external or not any(covers(host, service.host) for host in hosts):
                continue
            rule = self.config.rule(service.host, self.proxy)
            for port in service.ports:
                if port.protocol == "udp":
                    continue
                for subset in ("", *(rule.subsets if rule is not None else ())):
                    name = f"outbound_.{port.number}_.{subset}_.{service.host}"
                    handler = TcpHandler(((name, 1),), service.object.source)
                    yield FilterChain(handler, server_names=(name,), protocols=ISTIO_ALPN)

    def _handler(self, rule: L4Rule, server: Server) -> TcpHandler:
        return tcp_handler(rule, server.port, self.config, self.proxy, self.missing)

    # --- routes

    def route_configuration(self, name: str) -> RouteConfiguration | None:
        servers = self.routes.get(name) if self.bound else None
        if not servers:
            return None
        if name not in self._configurations:
            self._configurations[name] = RouteConfiguration(name, self._hosts(servers), ignore_port=True)
        return self._configurations[name]

    def _hosts(self, servers: list[Server]) -> tuple[VirtualHost, ...]:
        hosts: dict[str, _Host] = {}
        built: dict[tuple[str, str], tuple[Route, ...]] = {}
        for server in servers:
            redirects = server.tls is not None and server.tls.https_redirect
            for service in self._virtual_services(server):
                common = intersection(server_hosts(server, service.namespace), service.hosts)
                if not common:
                    continue
                # As in Istio, the routes of a virtual service are built once for a gateway, with its first server.
                key = (server.gateway, service.key)
                if key not in built or not built[key]:
                    built[key] = self._builder(server, service).routes(service)
                if not built[key]:
                    continue
                for host in common:
                    entry = hosts.setdefault(host, _Host(f"{_domain(host)}:{server.port}"))
                    entry.routes += built[key]
                    entry.redirects |= redirects
            for host in server.hosts if redirects else ():
                hosts.setdefault(host, _Host(f"{_domain(host)}:{server.port}")).redirects = True
        if not hosts:
            return (VirtualHost(f"blackhole:{servers[0].port}", (b"*",), (), source=servers[0].source),)
        return tuple(_collapsed(hosts, servers[0]))

    def _builder(self, server: Server, service: VirtualService) -> RouteBuilder:
        def lookup(host: str) -> HostService | None:
            return self.config.registry.named(host, self.proxy.namespace, prefer=service.namespace)

        return RouteBuilder(
            self.config,
            self.proxy,
            server.port,
            frozenset({server.gateway}),
            server.tls is not None,
            lookup,
            self.missing,
        )


@dataclass
class _Host:
    name: str
    routes: list[Route] = field(default_factory=list)
    redirects: bool = False


def _collapsed(hosts: dict[str, _Host], first: Server) -> Iterator[VirtualHost]:
    """Hosts with the very same routes are one virtual host, called after the first: longest names first, wildcards
    last."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for host in sorted(hosts, key=lambda h: (h.startswith("*"), -len(h), h)):
        entry = hosts[host]
        groups.setdefault((entry.redirects, *map(id, entry.routes)), []).append(host)
    for names in groups.values():
        entry = hosts[names[0]]
        ordered = [r for r in entry.routes if not takes_everything(r)]
        ordered += [r for r in entry.routes if takes_everything(r)]
        yield VirtualHost(
            entry.name,
            tuple(encoded(_domain(name)) for name in names),
            tuple(ordered),
            require_tls="ALL" if entry.redirects else "NONE",
            source=entry.routes[0].source if entry.routes else first.source,
        )


def route_name(server: Server, port: int) -> str:
    """The route configuration of a server, "" if it carries no requests for us to see."""
    bind = f".{server.bind}" if server.bind else ""
    if server.family == "http":
        return f"http.{port}{bind}"
    if server.family == "https":
        namespace, _, name = server.gateway.partition("/")
        return f"https.{port}.{server.port_name}.{name}.{namespace}{bind}"
    return ""


def server_hosts(server: Server, namespace: str) -> list[str]:
    """Hosts of a server that virtual services of a namespace may use."""
    out = []
    for text in server.hosts:
        home, slash, host = text.rpartition("/")
        if not slash or home == namespace:
            out.append(host)
    return out


def _fits(match: L4Match, server: Server) -> bool:
    """Of a match only port and gateway count on a gateway."""
    return match.port in (0, server.port) and (not match.gateways or server.gateway in match.gateways)


def _sni(server: Server) -> tuple[str, ...]:
    return _without_star(host.rpartition("/")[2] for host in server.hosts) if server.tls is not None else ()


def _without_star(names: Iterator[str] | tuple[str, ...]) -> tuple[str, ...]:
    """``*`` among server names is no condition at all."""
    found = tuple(dict.fromkeys(names))
    return () if "*" in found else found


def _domain(host: str) -> str:
    return f"[{host}]" if host.count(":") > 1 else host
