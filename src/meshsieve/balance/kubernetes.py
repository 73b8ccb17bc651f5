"""Kubernetes Services: which endpoints a connection may get, as kube-proxy chooses.

A Service is matched by cluster IP, external IP, load-balancer ingress or node address and port; its endpoints come from
EndpointSlices. kube-proxy chooses uniformly at random (iptables mode: rule i of n with chance 1 / (n - i), which is the
same), so the answer is a distribution, narrowed to one host only by session affinity or a single endpoint.

Source: Kubernetes API reference (Service, EndpointSlice), KEPs 2086 and 4444 (traffic policies and distribution).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from meshsieve.balance.decision import Decision, Outcome, Snat, among
from meshsieve.balance.hosts import Host, Locality, canonical_address
from meshsieve.errors import BalanceError, PolicyError
from meshsieve.importers.kubernetes.cluster import objects
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping as YamlMapping
from meshsieve.importers.yaml_source import load_documents
from meshsieve.policy import SourceFile

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
TOPOLOGY_ANNOTATION = "service.kubernetes.io/topology-mode"
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
DEFAULT_AFFINITY_SECONDS = 10800


@dataclass(frozen=True)
class ServicePort:
    name: str
    protocol: str
    port: int
    node_port: int | None
    app_protocol: str


@dataclass(frozen=True)
class Endpoint:
    """One address of an EndpointSlice. labels: of its Pod, None if the Pod is not among the objects."""

    address: str
    ports: Mapping[str, int]
    ready: bool
    serving: bool
    terminating: bool
    node: str
    locality: Locality
    for_zones: tuple[str, ...]
    for_nodes: tuple[str, ...]
    labels: Mapping[str, str] | None


@dataclass(frozen=True)
class Service:
    namespace: str
    name: str
    cluster_ips: tuple[str, ...]
    external_ips: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    internal_policy: str
    external_policy: str
    affinity_seconds: int | None
    distribution: str
    where: str
    endpoints: list[Endpoint] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{self.name}.{self.namespace}.svc.cluster.local"

    @property
    def headless(self) -> bool:
        return "None" in self.cluster_ips

    def usable(self, port: ServicePort, *, node: str | None = None) -> list[Endpoint]:
        """Ready endpoints that have the port; if there are none, those that terminate but still serve. node: only those
        on it."""
        mine = [e for e in self.endpoints if port.name in e.ports and node in (None, e.node)]
        return [e for e in mine if e.ready] or [e for e in mine if e.serving and e.terminating]


@dataclass(frozen=True)
class Connection:
    """A new connection to a Service. node, zone: where kube-proxy handles it."""

    destination_ip: str
    destination_port: int
    protocol: str = "TCP"
    source_ip: str = ""
    node: str = ""
    zone: str = ""


@dataclass
class Services:
    """All Services of a set of manifests."""

    services: list[Service] = field(default_factory=list)
    node_addresses: dict[str, str] = field(default_factory=dict)  # address -> node

    def named(self, namespace: str, name: str) -> Service:
        """raises  BalanceError if there is no such Service"""
        for service in self.services:
            if (service.namespace, service.name) == (namespace, name):
                return service
        raise BalanceError(f"no Service is called {namespace}/{name}")

    def resolve(self, namespace: str, name: str) -> list[str]:
        """What DNS answers for the Service's name: its cluster IPs, for a headless one the usable endpoints."""
        service = self.named(namespace, name)
        if not service.headless:
            return list(service.cluster_ips)
        return sorted({e.address for port in service.ports for e in service.usable(port)})

    def decide(
        self, connection: Connection, affinity: AffinityTable | None = None, time: float = 0.0
    ) -> Decision | None:
        """The decision for a connection, None if it is to no Service.

        affinity   remembers clients of Services with sessionAffinity; an entry found narrows the answer to one host.
                   The table is only read; ``AffinityTable.remember`` records what was chosen
        """
        found = self._match(connection)
        if found is None:
            return None
        service, port, external = found
        steps = [f"Service {service.namespace}/{service.name} port {port.name or port.port} ({service.where})"]
        policy = service.external_policy if external else service.internal_policy
        snat = Snat("node" if external and policy == "Cluster" else "client")
        if policy == "Local":
            endpoints = service.usable(port, node=connection.node)
            steps.append(f"traffic policy Local: {len(endpoints)} on node {connection.node or '(unknown)'}")
            if not endpoints:
                return Decision(Outcome.DROP, snat=snat, explain=tuple(steps), source=service.where)
        else:
            endpoints, step = _near(service.usable(port), service.distribution, connection)
            steps += step
        hosts = [endpoint_host(e, port) for e in endpoints]
        if affinity is not None and service.affinity_seconds is not None:
            remembered = affinity.host(service, port, connection.source_ip, time)
            if remembered is not None and remembered in hosts:
                steps.append(f"session affinity: {connection.source_ip} went to {remembered.name}")
                return Decision(
                    **among([remembered]), snat=snat, persistence="hit", explain=tuple(steps), source=service.where
                )
        persistence = "none" if service.affinity_seconds is None else "new"
        steps.append(f"uniform among {len(hosts)}")
        return Decision(**among(hosts), snat=snat, persistence=persistence, explain=tuple(steps), source=service.where)

    def _match(self, connection: Connection) -> tuple[Service, ServicePort, bool] | None:
        address = canonical_address(connection.destination_ip)
        for service in self.services:
            for port in service.ports:
                if port.protocol != connection.protocol:
                    continue
                if port.port == connection.destination_port:
                    if address in service.cluster_ips:
                        return service, port, False
                    if address in service.external_ips:
                        return service, port, True
                if port.node_port == connection.destination_port and address in self.node_addresses:
                    return service, port, True
        return None


class AffinityTable:
    """Session affinity: client address and Service port -> host, until ``timeoutSeconds`` after the last use."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, int], tuple[Host, float]] = {}

    def host(self, service: Service, port: ServicePort, client: str, time: float) -> Host | None:
        entry = self._entries.get((service.namespace, service.name, client, port.port))
        if entry is None or service.affinity_seconds is None or time - entry[1] > service.affinity_seconds:
            return None
        return entry[0]

    def remember(self, service: Service, port: ServicePort, client: str, host: Host, time: float) -> None:
        self._entries[service.namespace, service.name, client, port.port] = (host, time)


def _near(endpoints: Sequence[Endpoint], distribution: str, connection: Connection) -> tuple[list[Endpoint], list[str]]:
    """Endpoints with a hint for this node or zone first, else all. Hints count where the Service asks for them and
    every endpoint has one."""
    if not distribution or not all(e.for_zones or e.for_nodes for e in endpoints):
        return list(endpoints), []
    if distribution == "PreferSameNode" and connection.node:
        same = [e for e in endpoints if connection.node in e.for_nodes]
        if same:
            return same, [f"hints: {len(same)} for node {connection.node}"]
    same = [e for e in endpoints if connection.zone and connection.zone in e.for_zones]
    if same:
        return same, [f"hints: {len(same)} for zone {connection.zone}"]
    return list(endpoints), ["hints: none here, so all"]


def endpoint_host(endpoint: Endpoint, port: ServicePort) -> Host:
    # An EndpointSlice names its ports as the Service does; a single unnamed port is "".
    return Host(
        endpoint.address,
        endpoint.ports[port.name],
        locality=endpoint.locality,
        labels=endpoint.labels or {},
        node=endpoint.node,
    )


def read_services(sources: Iterable[SourceFile]) -> Services:
    """Services with their endpoints, from manifests of any mix of kinds.

    raises  PolicyError with file:line:column and the object
    """
    found: dict[str, list[Node]] = {kind: [] for kind in ("Service", "EndpointSlice", "Pod", "Node")}
    for kind, node in documents(sources):
        if kind in found:
            found[kind].append(node)
    return services_of(found)


def documents(sources: Iterable[SourceFile]) -> list[tuple[str, Node]]:
    """(kind, object) of every object, lists flattened; the object's name is in its errors."""
    out = []
    for source in sources:
        for document in load_documents(source.text, source.name):
            if not isinstance(document, YamlMapping):
                raise PolicyError("expected a Kubernetes object", where=source.name)
            for kind, node in objects(Node(document, "")):
                metadata = node.node("metadata")
                name = metadata.text("name") if metadata else None
                namespace = (metadata.text("namespace") if metadata else None) or "default"
                out.append((kind, Node(node.data, f"{kind} {namespace}/{name or '?'}")))
    return out


def services_of(found: Mapping[str, Sequence[Node]]) -> Services:
    """Services from objects by kind."""
    regions = {_name(node)[1]: _node_locality(node) for node in found["Node"]}
    labels = {_name(pod): _labels(pod) for pod in found["Pod"]}
    services = Services([_service(node) for node in found["Service"]])
    by_name = {(s.namespace, s.name): s for s in services.services}
    if len(by_name) != len(services.services):
        raise BalanceError("a Service is defined twice; keep one")
    for node in found["Node"]:
        status = node.node("status")
        for entry in (status.nodes("addresses") if status else None) or []:
            if entry.text("type") in ("InternalIP", "ExternalIP"):
                services.node_addresses[canonical_address(entry.required_text("address"))] = _name(node)[1]
    for slice_ in found["EndpointSlice"]:
        namespace, _ = _name(slice_)
        service = by_name.get((namespace, _labels(slice_).get(SERVICE_NAME_LABEL, "")))
        if service is not None:
            service.endpoints.extend(_endpoints(slice_, namespace, regions, labels))
    return services


def _service(node: Node) -> Service:
    namespace, name = _name(node)
    spec = node.node("spec")
    if spec is None:
        raise node.error("is missing", "spec")
    spec = Node(spec.data, node.obj, "spec")
    single = spec.text("clusterIP")
    cluster_ips = tuple(spec.texts("clusterIPs") or ([single] if single else []))
    status = node.node("status")
    balancer = status.node("loadBalancer") if status else None
    ingress = [entry.text("ip") for entry in (balancer.nodes("ingress") if balancer else None) or []]
    external = [*(spec.texts("externalIPs") or []), *(ip for ip in ingress if ip)]
    affinity = spec.choice("sessionAffinity", ("None", "ClientIP"), "None")
    config = spec.node("sessionAffinityConfig")
    client_ip = config.node("clientIP") if config else None
    seconds = client_ip.integer("timeoutSeconds", 1, 86400) if client_ip else None
    return Service(
        namespace,
        name,
        tuple(ip if ip == "None" else canonical_address(ip) for ip in cluster_ips),
        tuple(canonical_address(ip) for ip in external),
        tuple(_service_port(port) for port in spec.nodes("ports") or []),
        spec.choice("internalTrafficPolicy", ("Cluster", "Local"), "Cluster"),
        spec.choice("externalTrafficPolicy", ("Cluster", "Local"), "Cluster"),
        (seconds or DEFAULT_AFFINITY_SECONDS) if affinity == "ClientIP" else None,
        _distribution(node, spec),
        node.data.where(),
    )


def _distribution(node: Node, spec: Node) -> str:
    """trafficDistribution; the older annotation for topology-aware routing means the same as PreferSameZone."""
    if spec.text("trafficDistribution") is not None:
        return spec.choice("trafficDistribution", DISTRIBUTIONS)
    metadata = node.node("metadata")
    annotations = metadata.node("annotations") if metadata else None
    mode = annotations.text(TOPOLOGY_ANNOTATION) if annotations else None
    return "PreferSameZone" if mode in ("Auto", "auto") else ""


def _service_port(port: Node) -> ServicePort:
    number = port.integer("port", 1, 65535)
    if number is None:
        raise port.error("is missing", "port")
    return ServicePort(
        port.text("name") or "",
        port.choice("protocol", ("TCP", "UDP", "SCTP"), "TCP"),
        number,
        port.integer("nodePort", 0, 65535) or None,
        port.text("appProtocol") or "",
    )


def _endpoints(
    slice_: Node,
    namespace: str,
    regions: Mapping[str, Locality],
    labels: Mapping[tuple[str, str], Mapping[str, str]],
) -> Iterable[Endpoint]:
    ports: dict[str, int] = {}
    for port in slice_.nodes("ports") or []:
        number = port.integer("port", 1, 65535)
        if number is not None:
            ports[port.text("name") or ""] = number
    for entry in slice_.nodes("endpoints") or []:
        conditions = entry.node("conditions")
        # An absent "ready" means ready; an absent "serving" is the same as ready; "terminating" is false unless said.
        ready = _condition(conditions, "ready", True)
        terminating = _condition(conditions, "terminating", False)
        target = entry.node("targetRef")
        pod = (target.text("namespace") or namespace, target.text("name") or "") if target else ("", "")
        node = entry.text("nodeName") or ""
        place = regions.get(node, Locality())
        hints = entry.node("hints")
        for address in entry.texts("addresses") or []:
            yield Endpoint(
                canonical_address(address),
                ports,
                ready,
                _condition(conditions, "serving", ready),
                terminating,
                node,
                place._replace(zone=entry.text("zone") or place.zone),
                _hint_names(hints, "forZones"),
                _hint_names(hints, "forNodes"),
                labels.get(pod),
            )


def _condition(conditions: Node | None, name: str, default: bool) -> bool:
    if conditions is None or conditions.data.get(name) is None:
        return default
    return conditions.boolean(name)


def _hint_names(hints: Node | None, key: str) -> tuple[str, ...]:
    return tuple(entry.required_text("name") for entry in (hints.nodes(key) if hints else None) or [])


def _name(node: Node) -> tuple[str, str]:
    metadata = node.node("metadata")
    if metadata is None:
        raise node.error("is missing", "metadata")
    return metadata.text("namespace") or "default", metadata.required_text("name")


def _labels(node: Node) -> dict[str, str]:
    metadata = node.node("metadata")
    return metadata.text_map("labels") if metadata else {}


def _node_locality(node: Node) -> Locality:
    labels = _labels(node)
    return Locality(
        labels.get("topology.kubernetes.io/region", ""),
        labels.get("topology.kubernetes.io/zone", ""),
        labels.get("topology.istio.io/subzone", ""),
    )
