"""What one sidecar imports: the egress listeners of its Sidecar, each with services and virtual services.

Sidecar   The first of the proxy's namespace whose workloadSelector fits, else the one there without a selector, else
          the root namespace's, else everything that is exported to the namespace.
Services  A service is imported if an entry ``namespace/host`` covers its namespace and its whole name.
Virtual services  One is imported if its namespace fits and any of its hosts overlaps the entry; all of its hosts come
          along (Istio's own behaviour).
Source: istio/istio pilot/pkg/model/sidecar.go, virtualservice.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from meshsieve.mesh.istio.config import IstioConfig
from meshsieve.mesh.istio.model import MESH, Destination, EgressListener, Sidecar, VirtualService
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import HostService, first_definition
from meshsieve.mesh.names import HostIndex, covers, overlap, specificity

EVERYTHING = EgressListener((("*", "*"),))


@dataclass(frozen=True)
class Egress:
    """One egress listener with what it imports. services: one definition a host, in order of age."""

    listener: EgressListener
    services: tuple[HostService, ...]
    virtual_services: tuple[VirtualService, ...]

    @cached_property
    def _by_host(self) -> HostIndex[tuple[str, VirtualService]]:
        return HostIndex((host, (host, s)) for s in self.virtual_services for host in s.hosts)

    def bound_to(self, host: str) -> list[VirtualService]:
        """Virtual services with a host that overlaps a service's name, in their order."""
        return list({s.key: s for _, s in self._by_host.overlapping(host)}.values())

    def wildcard_owner(self, host: str) -> VirtualService | None:
        """The virtual service whose host is the most specific for a service's name; of one host the oldest."""
        found = self._by_host.covering(host)
        if not found:
            return None
        best = max(specificity(pattern) for pattern, _ in found)
        return min((s for pattern, s in found if specificity(pattern) == best), key=lambda s: s.object.created)


@dataclass(frozen=True)
class Scope:
    """A sidecar's view of the mesh."""

    sidecar: Sidecar | None
    egress: tuple[Egress, ...]
    allow_any: bool
    egress_proxy: Destination | None

    def for_port(self, port: int) -> Egress | None:
        """The egress listener that serves a port."""
        return next((e for e in self.egress if e.listener.port is None or e.listener.port[0] == port), None)


def scope_of(config: IstioConfig, proxy: Proxy) -> Scope:
    sidecar = choose_sidecar(config, proxy)
    virtual_services = config.virtual_services_for(proxy.namespace, MESH)
    visible = config.registry.visible(proxy.namespace)
    allow_any, to = config.allow_any, None
    if sidecar is not None:
        to = sidecar.egress_proxy
        if sidecar.outbound:
            allow_any = sidecar.outbound == "ALLOW_ANY"
    listeners = (sidecar.egress if sidecar is not None else ()) or (EVERYTHING,)
    egress = tuple(
        Egress(
            listener,
            tuple(_services(visible, listener, proxy.namespace, by_sidecar=sidecar is not None)),
            tuple(s for s in virtual_services if _imports(listener, s, proxy.namespace)),
        )
        for listener in listeners
    )
    return Scope(sidecar, egress, allow_any, to)


def choose_sidecar(config: IstioConfig, proxy: Proxy) -> Sidecar | None:
    own = [s for s in config.sidecars if s.namespace == proxy.namespace]
    labels = proxy.labels
    for sidecar in own:
        if sidecar.selector and all(labels.get(key) == value for key, value in sidecar.selector.items()):
            return sidecar
    root = [s for s in config.sidecars if s.namespace == config.options.root_namespace]
    return next((s for s in [*own, *root] if not s.selector), None)


def _hosts(listener: EgressListener, namespace: str, of: str) -> list[str]:
    """DNS parts of the entries that fit objects of namespace ``of``; "." is the proxy's own."""
    return [name for home, name in listener.hosts if (namespace if home == "." else home) in (of, "*")]


def _imports(listener: EgressListener, service: VirtualService, namespace: str) -> bool:
    names = _hosts(listener, namespace, service.namespace)
    return any(overlap(host, name) for host in service.hosts for name in names)


def _services(
    visible: Iterable[HostService], listener: EgressListener, namespace: str, by_sidecar: bool
) -> Iterable[HostService]:
    by_host: dict[str, list[HostService]] = {}
    for service in visible:
        names = _hosts(listener, namespace, service.namespace)
        if any(covers(name, host) for name in names for host in (service.host, *service.aliases)):
            by_host.setdefault(service.host, []).append(service)
    for found in by_host.values():
        own = [s for s in found if s.namespace == namespace]
        chosen = first_definition(own if by_sidecar and own else found)
        if chosen is None:
            continue
        if listener.port is not None:
            port = chosen.port(listener.port[0])
            if port is None:
                continue
            chosen = replace(chosen, ports=(port,))
        yield chosen
