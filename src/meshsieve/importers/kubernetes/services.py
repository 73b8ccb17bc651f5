"""Service addresses as translations: policy is judged behind them, on the pod's address and target port.

What    Each port of a Service is one rule per IP version over its cluster, external and load balancer addresses, and
        over the nodes' addresses for its node port. Backends are the ready endpoints of its EndpointSlices where the
        cluster lists some, else the pods that its selector picks. Which backend takes a connection nobody knows: the
        verdict is that of all of them, or undecided. A Service without a backend refuses, as kube-proxy does.
Limits  Headless and ExternalName services have no address to translate. Traffic policies (Local), session affinity
        and topology hints only narrow the choice.
Source  Kubernetes API reference: Service, EndpointSlice; kube-proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import PROTOCOLS, Address, Cluster, Pod, ServiceObject, address_of
from meshsieve.importers.kubernetes.selectors import address_set
from meshsieve.importers.typed import Node
from meshsieve.model import Action, Rule, RuleSet, Source, ValueSet
from meshsieve.policy import Point, Rewrite

Backend = tuple[Address, int]  # address and port


@dataclass(frozen=True, slots=True)
class _Port:
    name: str
    number: int
    protocol: int
    target: int | str
    node_port: int | None


def service_points(cluster: Cluster) -> list[Point]:
    """The point "services", if some Service has an address.

    raises  PolicyError
    """
    rules: list[Rule] = []
    rewrites: dict[int, Rewrite] = {}
    for service in cluster.services:
        for match, backends, name in _ports(cluster, service):
            source = Source(service.node.data.file, service.node.data.position[0], service.node.obj)
            if backends:
                choices = tuple(Rewrite({"dst_ip": value, "dport": port}) for (_, value), port in backends)
                rewrites[len(rules)] = choices[0] if len(choices) == 1 else Rewrite(choices=choices)
            rules.append(Rule(match, Action.ALLOW if backends else Action.REJECT, name=name, source=source))
    return [Point("services", RuleSet(rules), role="translate", rewrites=rewrites)] if rules else []


def _ports(cluster: Cluster, service: ServiceObject) -> Iterator[tuple[dict[str, ValueSet], list[Backend], str]]:
    """(match, backends, name of the rule) of each port, IP version and kind of address."""
    addresses = _addresses(service.node)
    nodes = [address for _, listed in cluster.nodes for address in listed]
    if not addresses and not nodes:
        return
    for node in (service.node.node("spec") or service.node).nodes("ports") or []:
        port = _port(node)
        for version in (4, 6):
            backends = [b for b in _backends(cluster, service, port) if b[0][0] == version]
            for own, number in ((addresses, port.number), (nodes, port.node_port)):
                mine = [address for address in own if address[0] == version]
                if mine and number is not None:
                    match = {
                        "dst_ip": address_set(mine),
                        "proto": ValueSet.numbers(port.protocol),
                        "dport": ValueSet.numbers(number),
                    }
                    yield match, backends, f"{service.node.obj} port {number}"


def _port(node: Node) -> _Port:
    number = node.integer("port", 1, 65535)
    if number is None:
        raise node.error("is missing", "port")
    protocol = PROTOCOLS[node.choice("protocol", tuple(PROTOCOLS), "TCP")]
    target = node.data.get("targetPort")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | str)):
        raise node.error(f"expected a port's number or name, got {target!r}", "targetPort")
    return _Port(node.text("name") or "", number, protocol, target or number, node.integer("nodePort", 1, 65535))


def _addresses(service: Node) -> list[Address]:
    spec = service.node("spec")
    if spec is None or spec.text("type") == "ExternalName":
        return []
    single = spec.text("clusterIP")
    texts = [*(spec.texts("clusterIPs") or ([single] if single else [])), *(spec.texts("externalIPs") or [])]
    balancer = (service.node("status") or spec).node("loadBalancer")
    texts += [ip for entry in (balancer.nodes("ingress") if balancer else None) or [] if (ip := entry.text("ip"))]
    return [address_of(spec, "clusterIP", text) for text in texts if text not in ("None", "")]


def _backends(cluster: Cluster, service: ServiceObject, port: _Port) -> list[Backend]:
    slices = [
        found.node for found in cluster.endpoint_slices
        if (found.namespace, found.name) == (service.namespace, service.name)
    ]  # fmt: skip
    if slices:
        return sorted({backend for node in slices for backend in _endpoints(node, port)})
    spec = service.node.node("spec")
    selector = spec.text_map("selector") if spec else {}
    if not selector:
        return []
    chosen = [
        pod for pod in cluster.pods
        if pod.namespace == service.namespace and all(pod.labels.get(k) == v for k, v in selector.items())
    ]  # fmt: skip
    return sorted({(a, number) for pod in chosen for number in _targets(pod, port) for a in pod.addresses})


def _targets(pod: Pod, port: _Port) -> Sequence[int]:
    if isinstance(port.target, int):
        return [port.target]
    return [p.number for p in pod.ports if p.name == port.target and p.protocol == port.protocol]


def _endpoints(node: Node, port: _Port) -> Iterator[Backend]:
    numbers = [
        number for entry in node.nodes("ports") or []
        if (entry.text("name") or "") == port.name and (number := entry.integer("port", 1, 65535)) is not None
        and PROTOCOLS[entry.choice("protocol", tuple(PROTOCOLS), "TCP")] == port.protocol
    ]  # fmt: skip
    for endpoint in node.nodes("endpoints") or []:
        conditions = endpoint.node("conditions")
        if conditions is not None and conditions.data.get("ready") is False:
            continue
        for text in endpoint.texts("addresses") or []:
            try:
                address = ipaddress.ip_address(text)
            except ValueError as error:
                raise PolicyError(str(error), where=endpoint.data.where("addresses"), obj=node.obj) from None
            for number in numbers:
                yield (address.version, int(address)), number
