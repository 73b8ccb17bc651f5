"""The service registry: host names with ports and addresses, from Kubernetes Services and ServiceEntries.

One host may be defined several times. A proxy sees those that are exported to its namespace; of one host it takes the
Kubernetes Service, else the oldest, and further ports of the same namespace are added. An ExternalName Service is an
alias: it adds its name to the Service that it stands for.
Source: istio/istio pilot/pkg/serviceregistry, pilot/pkg/model (push_context, sidecar).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from meshsieve.importers.typed import Node
from meshsieve.mesh.names import CLUSTER_DOMAIN
from meshsieve.mesh.objects import ISTIO_NETWORKING, MeshObject, ObjectStore
from meshsieve.mesh.services import AUTO, PROTOCOLS, ServicePort, read_services
from meshsieve.mesh.workloads import Workload

EXPORT_ANNOTATION = "networking.istio.io/exportTo"
Resolution = Literal["vip", "passthrough", "dns", "alias"]
RESOLUTIONS: Mapping[str, Resolution] = {
    "NONE": "passthrough", "STATIC": "vip", "DNS": "dns", "DNS_ROUND_ROBIN": "dns", "DYNAMIC_DNS": "dns",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address of a service with its ports by name; labels of what runs there."""

    address: str
    ports: Mapping[str, int]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HostService:
    """One host of the registry.

    addresses   where it listens: cluster IPs, ServiceEntry addresses and prefixes; none: any address
    selector    labels of its workloads in its namespace, {} for none
    external    outside of the mesh
    alias_of    host that an ExternalName stands for
    aliases     ExternalName hosts that stand for this one
    """

    host: str
    namespace: str
    ports: tuple[ServicePort, ...]
    addresses: tuple[str, ...]
    resolution: Resolution
    kubernetes: bool
    external: bool
    export_to: tuple[str, ...]
    selector: Mapping[str, str]
    endpoints: tuple[Endpoint, ...]
    alias_of: str
    aliases: tuple[str, ...]
    object: MeshObject

    def port(self, number: int) -> ServicePort | None:
        return next((p for p in self.ports if p.number == number), None)

    def visible(self, namespace: str) -> bool:
        scopes = self.export_to or ("*",)
        return "*" in scopes or namespace in scopes or ("." in scopes and namespace == self.namespace)

    def target(self, port: ServicePort, workload: Workload) -> int | None:
        """The port of the workload that the service's port leads to, None if the workload does not answer for it or a
        named port is not among its own."""
        if self.kubernetes:
            if self.namespace != workload.namespace or not self.selector or not workload.selected_by(self.selector):
                return None
            return workload.ports.get(port.target) if isinstance(port.target, str) else port.target or port.number
        default = port.target if isinstance(port.target, int) else port.number
        for endpoint in self.endpoints:
            if endpoint.address in workload.addresses:
                return endpoint.ports.get(port.name, default)
        if self.selector and self.namespace == workload.namespace and workload.selected_by(self.selector):
            return default
        return None


class Registry:
    """All services, oldest first. entries: those of ServiceEntries (``read_service_entry``). exports: who sees a
    service that does not say it."""

    def __init__(
        self,
        store: ObjectStore,
        entries: Iterable[HostService],
        domain: str = CLUSTER_DOMAIN,
        exports: tuple[str, ...] = ("*",),
    ) -> None:
        self.domain = domain
        every = [*_kubernetes(store, domain), *entries]
        found = [s if s.export_to else replace(s, export_to=exports) for s in every]
        found.sort(key=lambda s: s.object.age)
        self.services: tuple[HostService, ...] = tuple(_with_aliases(found))
        self._by_host: dict[str, list[HostService]] = {}
        for service in self.services:
            self._by_host.setdefault(service.host, []).append(service)
        self._by_address = {a: s for s in reversed(self.services) for a in s.addresses}

    def visible(self, namespace: str) -> list[HostService]:
        """What a namespace sees, every definition by itself, oldest first."""
        return [s for s in self.services if s.visible(namespace)]

    def named(self, host: str, namespace: str, prefer: str = "") -> HostService | None:
        """The definition of a host that a proxy of ``namespace`` uses; ``prefer``: a namespace whose definition goes
        first, as for destinations of a VirtualService on a gateway."""
        fitting = [s for s in self._by_host.get(host, ()) if s.visible(namespace)]
        if prefer and (own := [s for s in fitting if s.namespace == prefer]):
            fitting = own
        return first_definition(fitting)

    def knows(self, host: str) -> bool:
        return host in self._by_host

    @property
    def spellings(self) -> list[str]:
        """Every host, and every shorter form in which some client of the cluster may name it."""
        out: dict[str, None] = {}
        for host, services in self._by_host.items():
            ends = ["", *([f".{self.domain}", f".svc.{self.domain}"] if self.domain else [])]
            ends += [f".{s.namespace}.svc.{self.domain}" for s in services if self.domain]
            out |= dict.fromkeys(host.removesuffix(end) for end in ends)
        return [name.removesuffix(".") for name in out if name]

    def at_address(self, address: str) -> HostService | None:
        """The oldest service that listens on an address."""
        return self._by_address.get(address)


def first_definition(services: Iterable[HostService]) -> HostService | None:
    """Of several definitions of one host: Kubernetes' before others, then the oldest; ports of its namespace added."""
    found = list(services)
    if not found:
        return None
    first = next((s for s in found if s.kubernetes), found[0])
    ports = list(first.ports)
    for other in found:
        if other.namespace == first.namespace:
            ports += [p for p in other.ports if all(p.number != known.number for known in ports)]
    return replace(first, ports=tuple(ports))


def _kubernetes(store: ObjectStore, domain: str) -> Iterable[HostService]:
    slices: dict[tuple[str, str], list[Endpoint]] = {}
    for found in store.of("EndpointSlice"):
        name = found.labels.get("kubernetes.io/service-name", "")
        slices.setdefault((found.namespace, name), []).extend(_slice_endpoints(found.node))
    for service in read_services(store, domain):
        annotation = service.object.annotations.get(EXPORT_ANNOTATION, "")
        resolution: Resolution = "passthrough" if service.headless else "vip"
        yield HostService(
            service.host,
            service.namespace,
            service.ports,
            tuple(_address(service.object.node, a) for a in service.addresses),
            "alias" if service.external_name else resolution,
            True,
            False,
            tuple(part.strip() for part in annotation.split(",") if part.strip()),
            service.selector,
            tuple(slices.get((service.namespace, service.name), ())),
            service.external_name or "",
            (),
            service.object,
        )


def _slice_endpoints(node: Node) -> Iterable[Endpoint]:
    ports = {p.text("name") or "": p.integer("port", 1, 65535) or 0 for p in node.nodes("ports") or []}
    for entry in node.nodes("endpoints") or []:
        for address in entry.texts("addresses") or []:
            yield Endpoint(_address_or_name(address), ports, {})


def _with_aliases(services: list[HostService]) -> Iterable[HostService]:
    names: dict[str, list[str]] = {}
    for service in services:
        if service.alias_of:
            names.setdefault(service.alias_of, []).append(service.host)
    return (replace(s, aliases=tuple(sorted(names[s.host]))) if s.host in names else s for s in services)


def read_service_entry(found: MeshObject, store: ObjectStore) -> list[HostService]:
    """One definition for each of its hosts; endpoints by workloadSelector come from the WorkloadEntries of the store.

    raises  PolicyError with file:line:column for what Istio refuses
    """
    return list(_service_entry(found, [(w, w.spec) for w in store.of("WorkloadEntry", ISTIO_NETWORKING)]))


def _service_entry(found: MeshObject, workloads: list[tuple[MeshObject, Node]]) -> Iterable[HostService]:
    spec = found.spec.only("hosts", "addresses", "ports", "location", "resolution", "endpoints", "workloadSelector",
                           "exportTo", "subjectAltNames")  # fmt: skip
    hosts = spec.texts("hosts")
    if not hosts:
        raise spec.error("needs at least one host", "hosts")
    resolution = spec.choice("resolution", tuple(RESOLUTIONS), "NONE")
    selector = spec.node("workloadSelector")
    labels = selector.only("labels").text_map("labels") if selector else {}
    own = spec.nodes("endpoints") or []
    if selector is not None and own:
        raise spec.error("excludes endpoints", "workloadSelector")
    endpoints = [_endpoint(entry) for entry in own]
    if selector is not None:
        chosen = [w for w in workloads if w[0].namespace == found.namespace]
        endpoints += [e for _, s in chosen if labels.items() <= (e := _endpoint(s)).labels.items()]
    addresses = [_address(spec, text) for text in spec.texts("addresses") or []] or _allocated(found.node)
    for host in hosts:
        if not host or "*" in host.removeprefix("*") or (host.startswith("*") and not host.startswith("*.")):
            raise spec.error(f"{host!r} is no host of a ServiceEntry", "hosts")
        yield HostService(
            host.lower(),
            found.namespace,
            _ports(spec),
            tuple(addresses),
            RESOLUTIONS[resolution],
            False,
            spec.choice("location", ("MESH_EXTERNAL", "MESH_INTERNAL"), "MESH_EXTERNAL") == "MESH_EXTERNAL",
            tuple(spec.texts("exportTo") or ()),
            labels,
            tuple(endpoints),
            "",
            (),
            found,
        )


def _allocated(node: Node) -> list[str]:
    """Addresses that the control plane allocated and wrote into the status."""
    status = node.node("status")
    entries = (status.nodes("addresses") if status else None) or []
    return [_address(entry, entry.required_text("value")) for entry in entries]


def _address(node: Node, text: str) -> str:
    try:
        return canonical(text)
    except ValueError as error:
        raise node.error(str(error), "addresses") from None


def canonical(text: str) -> str:
    """An address or prefix in its one form; a prefix of a single address is that address."""
    network = ipaddress.ip_network(text, strict=False)
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _ports(spec: Node) -> tuple[ServicePort, ...]:
    out: list[ServicePort] = []
    for node in spec.nodes("ports") or []:
        node.only("number", "protocol", "name", "targetPort")
        number, name = node.integer("number", 1, 65535), node.required_text("name")
        if number is None:
            raise node.error("is missing", "number")
        if any(number == p.number for p in out):
            raise node.error(f"port {number} is given twice", "number")
        word = (node.text("protocol") or "").lower()
        if word and word not in PROTOCOLS:
            raise node.error(f"{word!r} is no protocol of a ServiceEntry", "protocol")
        out.append(ServicePort(name, number, word or AUTO, node.integer("targetPort", 1, 65535)))
    return tuple(out)


def _endpoint(node: Node) -> Endpoint:
    """An entry of endpoints, or a WorkloadEntry's spec: they are the same message."""
    node.only("address", "ports", "labels", "network", "locality", "weight", "serviceAccount")
    address = node.text("address") or ""
    own = node.node("ports")
    ports = {name: own.integer(name, 1, 65535) or 0 for name in own.data} if own else {}
    return Endpoint(_address_or_name(address), ports, node.text_map("labels"))


def _address_or_name(text: str) -> str:
    """Endpoints may be names, for DNS to resolve."""
    try:
        return canonical(text)
    except ValueError:
        return text.lower()
