"""A sidecar's outbound side: its listeners and their route configurations.

Listener  HTTP services of a port share one on any address, with the route configuration named after the port. TCP, TLS
          and undetermined services have one on each of their addresses (prefixes become filter chains of the shared
          one). An undetermined port looks at the first bytes: requests go to the configuration ``host:port``, the rest
          is forwarded.
Virtual host  One a service of the port, under all names that the proxy may use for it; hosts of virtual services that
          are no service get one on port 80 only.
Nobody's  Traffic that nothing claims passes through, or is refused with outboundTrafficPolicy REGISTRY_ONLY.

Source: istio/istio pilot/pkg/networking/core (listener.go, httproute.go, tls.go).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from meshsieve.mesh.istio.config import IstioConfig
from meshsieve.mesh.istio.destination_rules import hash_policy
from meshsieve.mesh.istio.http_routes import EVERYTHING, RouteBuilder, cluster_name
from meshsieve.mesh.istio.model import MESH, Destination, L4Match, L4Rule, VirtualService
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import HostService
from meshsieve.mesh.istio.scope import Egress, Scope, scope_of
from meshsieve.mesh.istio.tcp_routes import tcp_handler
from meshsieve.mesh.listeners import ANY_ADDRESS, PLAIN, FilterChain, HttpHandler, Listener, Listeners, TcpHandler
from meshsieve.mesh.names import covers
from meshsieve.mesh.services import AUTO, HTTP_PROTOCOLS, TLS_PROTOCOLS, ServicePort
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import DirectResponse, Forward, Route, RouteConfiguration, VirtualHost

PLAIN_HTTP = ("http/1.0", "http/1.1", "h2c")
PASSTHROUGH, BLACK_HOLE = "PassthroughCluster", "BlackHoleCluster"
NOBODY_STATUS = 502
SERVER_FIRST = frozenset({"mysql", "mongo"})


@dataclass
class _Entry:
    """A listener in the making. family: http, tcp, or auto where the first bytes decide. locked: of a Sidecar's own
    port, to which the catch-all adds nothing."""

    address: str
    port: int
    family: str
    protocol: str
    chains: list[FilterChain]
    locked: bool = False


class SidecarOutbound:
    """Everything outbound of one sidecar; route configurations are built when asked for."""

    def __init__(self, config: IstioConfig, proxy: Proxy) -> None:
        self.config, self.proxy = config, proxy
        self.scope: Scope = scope_of(config, proxy)
        self.missing: dict[str, str] = {}
        self._hosts: dict[int, list[VirtualHost]] = {}
        self._configurations: dict[str, RouteConfiguration] = {}

    # --- listeners

    @cached_property
    def listeners(self) -> tuple[Listener, ...]:
        entries: dict[tuple[str, int], _Entry] = {}
        for egress in self.scope.egress:
            listener = egress.listener
            bind = listener.bind or ("127.0.0.1" if listener.capture == "NONE" else "")
            if listener.port is None:
                for entry in entries.values():
                    entry.locked = True
            for service in egress.services:
                for port in self._ports(egress, service):
                    for address in self._headless_addresses(service, port, bind) or (bind,):
                        self._add(entries, egress, service, port, address)
        return tuple(self._finished(entry) for entry in entries.values())

    @staticmethod
    def _ports(egress: Egress, service: HostService) -> Iterable[ServicePort]:
        if egress.listener.port is None:
            return service.ports
        number, protocol = egress.listener.port
        return (ServicePort("", number, protocol or AUTO),)

    def _headless_addresses(self, service: HostService, port: ServicePort, bind: str) -> tuple[str, ...]:
        """A headless service's TCP ports listen on the addresses of its endpoints."""
        tcp = _listens_as(port) in ("tcp", "auto")
        if bind or service.addresses or service.resolution != "passthrough" or not tcp:
            return ()
        found = [e.address for e in service.endpoints]
        if service.kubernetes and not found:
            chosen = [w for w in self.config.workloads if w.namespace == service.namespace and service.selector]
            found = [a for w in chosen if w.selected_by(service.selector) for a in w.addresses]
        return tuple(a for a in found if a not in self.proxy.addresses)

    def _add(
        self,
        entries: dict[tuple[str, int], _Entry],
        egress: Egress,
        service: HostService,
        port: ServicePort,
        bind: str,
    ) -> None:
        family = _listens_as(port)
        if service.alias_of or not family:
            return
        places = [(bind, "")] if bind else [(ANY_ADDRESS, "")] if family == "http" else _places(service)
        for address, prefix in places:
            entry = entries.get((address, port.number))
            if entry is not None and entry.locked:
                continue
            chains = self._chains(egress, service, port, family, address, prefix)
            if entry is None:
                # The shared HTTP listener lets other traffic of its port pass, so it looks at the first bytes, too.
                seen_as = "auto" if family == "http" and address == ANY_ADDRESS else family
                entries[address, port.number] = _Entry(address, port.number, seen_as, port.protocol, chains)
            else:
                self._join(entry, family, port.protocol, chains)

    @staticmethod
    def _join(entry: _Entry, family: str, protocol: str, chains: list[FilterChain]) -> None:
        """Another service on the same address and port. HTTP is there once; TCP chains are added where their match is
        new; a mixture is told apart by the first bytes, which protocols whose servers speak first do not allow."""
        if protocol != entry.protocol and SERVER_FIRST & {protocol, entry.protocol}:
            return
        if family == "auto" and entry.family == "http":
            entry.family, entry.chains = family, chains
        elif family == "tcp" or entry.family == "tcp":
            entry.chains += [c for c in chains if not any(c.same_match(known) for known in entry.chains)]
            entry.family = family if family == entry.family else "auto"

    def _chains(
        self, egress: Egress, service: HostService, port: ServicePort, family: str, address: str, prefix: str
    ) -> list[FilterChain]:
        out: list[FilterChain] = []
        if family in ("tcp", "auto"):
            prefixes = (prefix,) if prefix else ()
            bound = egress.bound_to(service.host)
            if port.protocol in TLS_PROTOCOLS:
                out += self._tls_chains(bound, service, port, address, prefixes)
            else:
                out += self._tcp_chains(bound, service, port, prefixes)
        if family in ("http", "auto"):
            sniffed = family == "auto" and address != ANY_ADDRESS
            handler = HttpHandler(f"{service.host}:{port.number}" if sniffed else str(port.number))
            looks = family == "auto" or address == ANY_ADDRESS
            out.append(FilterChain(handler, transport=PLAIN, protocols=PLAIN_HTTP) if looks else FilterChain(handler))
        return out

    def _finished(self, entry: _Entry) -> Listener:
        """A chain that matches everything is the default; without one, unclaimed traffic is nobody's."""
        default = next((c for c in entry.chains if c.matches_all), None)
        chains = tuple(c for c in entry.chains if c is not default)
        name = f"{entry.address}_{entry.port}"
        return Listener(name, entry.address, entry.port, chains, default or self.nobody)

    @cached_property
    def nobody(self) -> FilterChain:
        """What takes a connection that no listener or chain claims."""
        name = PASSTHROUGH if self.scope.allow_any else BLACK_HOLE
        if self.scope.allow_any and self.scope.egress_proxy is not None:
            name = cluster_name(self.scope.egress_proxy, None, 0)[0]
        return FilterChain(TcpHandler(((name, 1),)), name="PassthroughFilterChain")

    @cached_property
    def places(self) -> Listeners:
        return Listeners(self.listeners)

    # --- tls and tcp rules

    def _applies(self, match: L4Match, port: int) -> bool:
        labels = self.proxy.labels
        return (
            (not match.gateways or MESH in match.gateways)
            and all(labels.get(key) == value for key, value in match.source_labels.items())
            and match.port in (0, port)
            and match.source_namespace in ("", self.proxy.namespace)
        )

    def _tls_chains(
        self, bound: Sequence[VirtualService], service: HostService, port: ServicePort, address: str,
        prefixes: tuple[str, ...],
    ) -> Iterator[FilterChain]:  # fmt: skip
        """By SNI; of rules with one SNI and subnet the first wins. Without a rule the service's own name, where the
        listener is shared and only the name tells services apart."""
        seen: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        for virtual_service in bound:
            for rule in virtual_service.tls:
                for match in rule.matches:
                    if not self._applies(match, port.number):
                        continue
                    prefixes = match.subnets or prefixes
                    if (match.sni, match.subnets) not in seen:
                        yield FilterChain(self._tcp_handler(rule, port), _narrow(prefixes), _names(match.sni))
                    seen.add((match.sni, match.subnets))
        if not seen:
            names: tuple[str, ...] = ()
            if prefixes or address == ANY_ADDRESS:
                extra = (n for alias in service.aliases for n in (alias, *short_names(alias, self._dns_domain)))
                names = _names((service.host, *extra))
            yield FilterChain(self._own_handler(service, port), prefixes, names)

    def _tcp_chains(
        self, bound: Sequence[VirtualService], service: HostService, port: ServicePort, prefixes: tuple[str, ...]
    ) -> Iterator[FilterChain]:
        """First match wins; a match without subnets ends the list."""
        for virtual_service in bound:
            for rule in virtual_service.tcp:
                applying = [m for m in rule.matches if self._applies(m, port.number)]
                if not rule.matches or any(not m.subnets for m in applying):
                    # Subnets that stand before the free match of the same rule lead to the same place.
                    yield FilterChain(self._tcp_handler(rule, port), prefixes)
                    return
                subnets = tuple(dict.fromkeys(s for m in applying for s in m.subnets))
                if subnets:
                    yield FilterChain(self._tcp_handler(rule, port), _narrow(subnets))
                    if sorted(subnets) == sorted(prefixes):
                        return
        yield FilterChain(self._own_handler(service, port), prefixes)

    def _tcp_handler(self, rule: L4Rule, port: ServicePort) -> TcpHandler:
        return tcp_handler(rule, port.number, self.config, self.proxy, self.missing)

    def _own_handler(self, service: HostService, port: ServicePort) -> TcpHandler:
        number = service.ports[0].number if len(service.ports) == 1 else port.number
        return TcpHandler(((f"outbound|{number}||{service.host}", 1),), service.object.source)

    # --- routes

    def route_configuration(self, name: str) -> RouteConfiguration | None:
        """By the name that a listener gives: ``80`` for a shared port, ``host:81`` for one service's."""
        if name not in self._configurations:
            host, _, number = name.rpartition(":")
            if not number.isascii() or not number.isdigit():
                return None
            found = self._virtual_hosts(int(number))
            if found is None:
                return None
            if host:
                wanted = encoded(host)
                found = [replace(h, domains=(b"*",)) for h in found if wanted in h.domains][:1]
            else:
                found = [*sorted(found, key=lambda h: h.name), self._catch_all]
            self._configurations[name] = RouteConfiguration(name, tuple(found), ignore_port=True)
        return self._configurations[name]

    @cached_property
    def _catch_all(self) -> VirtualHost:
        if not self.scope.allow_any:
            refusal = Route("block_all", EVERYTHING, DirectResponse(NOBODY_STATUS))
            return VirtualHost("block_all", (b"*",), (refusal,))
        handler = self.nobody.handler
        assert isinstance(handler, TcpHandler)
        route = Route("allow_any", EVERYTHING, Forward(handler.clusters[0][0]))
        return VirtualHost("allow_any", (b"*",), (route,))

    def _virtual_hosts(self, port: int) -> list[VirtualHost] | None:
        if port not in self._hosts:
            egress = self.scope.for_port(port)
            if egress is None:
                return None
            self._hosts[port] = _PortHosts(self, egress, port).hosts()
        return self._hosts[port]

    @property
    def _dns_domain(self) -> str:
        domain = self.config.options.domain
        return f"{self.proxy.namespace}.svc.{domain}" if domain else ""


@dataclass
class _PortHosts:
    """The virtual hosts of one port: first those of virtual services, then services that none claims."""

    outbound: SidecarOutbound
    egress: Egress
    port: int
    names: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)

    def hosts(self) -> list[VirtualHost]:
        outbound = self.outbound
        # Only the port asked for is known of a service here, as in Istio: a destination without a port gets it.
        known = {
            s.host: replace(s, ports=(port,)) for s in self.egress.services if (port := s.port(self.port)) is not None
        }
        builder = RouteBuilder(
            outbound.config, outbound.proxy, self.port, frozenset({MESH}), False, known.get, outbound.missing
        )
        plans: list[tuple[list[str], list[HostService], tuple[Route, ...], VirtualService | None]] = []
        claimed: set[str] = set()
        # Other ports than 80 have only virtual services that are for some service of the port.
        bound = {s.key for host in known for s in self.egress.bound_to(host)}
        for virtual_service in self.egress.virtual_services:
            if self.port != 80 and virtual_service.key not in bound:
                continue
            routes = builder.routes(virtual_service)
            if not routes:
                continue
            own, services = self._claims(virtual_service, known)
            carrying = [s for s in services if _carries_http(s.ports[0])]
            if carrying or self.port == 80:
                plans.append((own, carrying, routes, virtual_service))
                claimed |= {s.host for s in carrying}
        for service in known.values():
            if service.host not in claimed and not service.alias_of and _carries_http(service.ports[0]):
                plans.append(([], [service], (self._own_route(service),), None))
        exact = {s.host for _, services, _, _ in plans for s in services}
        out = []
        for own, services, routes, by in plans:
            for host in own:
                out += self._host(host, [_domain(host)], [], exact, routes, by)
            for service in services:
                full, short = self._domains(service)
                out += self._host(service.host, full, short, exact, routes, by)
        return out

    def _claims(
        self, virtual_service: VirtualService, known: dict[str, HostService]
    ) -> tuple[list[str], list[HostService]]:
        """Hosts that are no service, and the services that the virtual service is for: named ones, and those that its
        wildcard covers unless another virtual service is more specific."""
        own, services = [], []
        for host in virtual_service.hosts:
            if not host.startswith("*"):
                if host in known:
                    services.append(known[host])
                else:
                    own.append(host)
                continue
            covered = [s for s in known.values() if covers(host, s.host)]
            if not covered:
                own.append(host)
            for service in covered:
                if self.egress.wildcard_owner(service.host) is virtual_service and service not in services:
                    services.append(service)
        return own, services

    def _own_route(self, service: HostService) -> Route:
        """Without a rule a service's requests go to itself."""
        to = Destination(service.host, "", self.port)
        rule = self.outbound.config.rule(service.host, self.outbound.proxy)
        action = Forward(f"outbound|{self.port}||{service.host}", hash_policy=hash_policy(rule, to))
        return Route("default", EVERYTHING, action, source=service.object.source)

    def _host(
        self, host: str, full: list[str], short: list[str], exact: set[str], routes: tuple[Route, ...],
        by: VirtualService | None,
    ) -> list[VirtualHost]:  # fmt: skip
        """A virtual host with the domains that are still free. A short name gives way to a service of that name."""
        name = f"{_domain(host)}:{self.port}"
        if name in self.names:
            return []
        self.names.add(name)
        free = []
        for domain in full:
            if domain not in self.domains and not (domain in short and domain in exact):
                free.append(domain)
                self.domains.add(domain)
        source = by.object.source if by is not None else routes[0].source
        return [VirtualHost(name, tuple(map(encoded, free)), routes, source=source)] if free else []

    def _domains(self, service: HostService) -> tuple[list[str], list[str]]:
        """All names of a service, and which of them are short forms."""
        full: list[str] = []
        short: list[str] = []
        for host in (service.host, *service.aliases):
            shorter = short_names(host, self.outbound._dns_domain)
            full += [_domain(host), *shorter]
            short += shorter
        if service.kubernetes and service.resolution == "passthrough":
            full += [f"*.{name}" for name in full]
        return full + [_domain(a) for a in service.addresses if "/" not in a], short


def short_names(host: str, dns_domain: str) -> list[str]:
    """The shorter names under which a proxy of ``NAMESPACE.svc.DOMAIN`` reaches a Kubernetes host.

    >>> short_names("a.ns.svc.cluster.local", "ns.svc.cluster.local")
    ['a', 'a.ns.svc', 'a.ns']
    >>> short_names("a.ns.svc.cluster.local", "other.svc.cluster.local"), short_names("a.com", "ns.svc.cluster.local")
    (['a.ns', 'a.ns.svc'], [])
    """
    own, separator, domain = dns_domain.partition(".svc.")
    if not separator or not host.endswith(f".svc.{domain}"):
        return []
    front = host.removesuffix(f".svc.{domain}")
    name, dot, namespace = front.partition(".")
    if not (name and dot and namespace):
        return []
    return [name, f"{front}.svc", front] if namespace == own else [front, f"{front}.svc"]


def _places(service: HostService) -> list[tuple[str, str]]:
    """(listener address, prefix that its chain matches) of a TCP service."""
    places = [(ANY_ADDRESS, a) if "/" in a else (a, "") for a in service.addresses]
    return places or [(ANY_ADDRESS, "")]


def _listens_as(port: ServicePort) -> str:
    """http, tcp, auto, or "" for what no listener is made for (UDP)."""
    if port.protocol in HTTP_PROTOCOLS:
        return "http"
    return {"auto": "auto", "udp": ""}.get(port.protocol, "tcp")


def _carries_http(port: ServicePort) -> bool:
    return port.protocol in HTTP_PROTOCOLS or port.protocol == AUTO


def _narrow(prefixes: tuple[str, ...]) -> tuple[str, ...]:
    """Prefixes of everything are no condition."""
    return tuple(p for p in prefixes if not p.startswith(("0.0.0.0", "::/")))


def _names(names: Iterable[str]) -> tuple[str, ...]:
    """Server names of a filter chain: ``*`` among them is no condition."""
    found = tuple(dict.fromkeys(names))
    return () if "*" in found else found


def _domain(host: str) -> str:
    return f"[{host}]" if ":" in host else host
