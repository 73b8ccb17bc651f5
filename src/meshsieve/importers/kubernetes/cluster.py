"""Manifests read into what policy needs: namespaces, pods (and workloads that stand for pods), nodes, policies.

Many documents, ``List`` and typed lists (``PodList``, whose items carry no kind) are flattened. Of pods and workloads
only the fields that policy can see are read; the rest of their large schema is left alone. Policies are read strictly
by the modules of their kinds.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from meshsieve.errors import PolicyError
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping, load_documents
from meshsieve.inventory import Inventory, Vnic
from meshsieve.policy import SourceFile

# ObjectMeta of the Kubernetes API; a misspelt "labels" would take an object out of every selector.
OBJECT_META = tuple(
    """name generateName namespace labels annotations uid resourceVersion generation creationTimestamp deletionTimestamp
    deletionGracePeriodSeconds ownerReferences finalizers managedFields selfLink clusterName initializers""".split()  # noqa: SIM905
)
NAME_LABEL = "kubernetes.io/metadata.name"
POLICY_KINDS = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy")
WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}

Address = tuple[int, int]  # IP version and integer


@dataclass(frozen=True, slots=True)
class ContainerPort:
    name: str
    number: int
    protocol: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, or a workload that stands for pods with the labels of its template.

    owner  ``namespace/name[Kind]`` of the controlling owner, else of the object itself
    """

    namespace: str
    name: str
    labels: dict[str, str]
    addresses: tuple[Address, ...]
    ports: tuple[ContainerPort, ...]
    host_network: bool
    host_addresses: tuple[Address, ...]
    owner: str
    where: str


@dataclass(frozen=True, slots=True)
class ServiceObject:
    """A Service, or an EndpointSlice under the name of its Service."""

    namespace: str
    name: str
    node: Node


@dataclass(slots=True)
class Cluster:
    """namespaces: labels by name, always with the name label; ignored: objects by kind that no L4 policy depends on."""

    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    nodes: list[tuple[dict[str, str], tuple[Address, ...]]] = field(default_factory=list)
    policies: list[Node] = field(default_factory=list)
    services: list[ServiceObject] = field(default_factory=list)
    endpoint_slices: list[ServiceObject] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def inventory(self) -> Inventory:
        return Inventory(Vnic(f"{p.namespace}/{p.name}", p.owner, p.addresses) for p in self.pods)

    def with_addresses(self) -> Cluster:
        """The same cluster with an IPv4 address of its own for every pod that has none or shares one (hostNetwork), so
        that questions about workloads ("may A reach B?") can be asked as questions about packets. Real packets are
        never traced to these."""
        used = Counter(address for pod in self.pods for address in pod.addresses)
        # Class E space: no capture holds it as a unicast source (RFC 1112), so it is free for stand-ins.
        free = (value for value in range(int(ipaddress.IPv4Address("250.0.0.1")), 2**32) if (4, value) not in used)
        pods = [
            pod
            if pod.addresses and all(used[address] == 1 for address in pod.addresses)
            else replace(pod, addresses=((4, next(free)),))
            for pod in self.pods
        ]
        return replace(self, pods=pods)


def read_cluster(sources: Iterable[SourceFile]) -> Cluster:
    """raises  PolicyError with file:line:column and the object"""
    cluster = Cluster()
    for source in sources:
        for document in load_documents(source.text, source.name):
            if not isinstance(document, Mapping):
                raise PolicyError("expected a Kubernetes object", where=source.name)
            for kind, node in objects(Node(document, "")):
                _add(cluster, kind, node)
    for pod in cluster.pods:
        cluster.namespaces.setdefault(pod.namespace, {NAME_LABEL: pod.namespace})
    _refuse_duplicates(cluster)
    return cluster


def objects(node: Node) -> Iterator[tuple[str, Node]]:
    """(kind, object) of a document; lists are flattened."""
    kind = node.required_text("kind")
    items = node.nodes("items") if kind.endswith("List") else None
    if items is None:
        yield kind, node
        return
    for item in items:
        if "kind" in item.data:
            yield from objects(item)
        else:
            yield kind.removesuffix("List"), item


def _add(cluster: Cluster, kind: str, node: Node) -> None:
    metadata = node.node("metadata")
    if kind not in ("Namespace", "Pod", "Node", "Service", "EndpointSlice", *WORKLOAD_KINDS, *POLICY_KINDS):
        cluster.ignored[kind] += 1
        return
    if metadata is None:
        raise node.error("is missing", "metadata")
    if kind not in POLICY_KINDS:  # which are read one by one, so that --lenient can keep their place
        metadata.only(*OBJECT_META)
    name = metadata.required_text("name")
    namespace = metadata.text("namespace") or "default"
    node = Node(node.data, f"{kind} {name}" if kind in ("Namespace", "Node") else f"{kind} {namespace}/{name}")
    if kind == "Namespace":
        if name in cluster.namespaces:
            raise node.error(f"namespace {name} is defined twice")
        cluster.namespaces[name] = {**metadata.text_map("labels"), NAME_LABEL: name}
    elif kind == "Node":
        cluster.nodes.append((metadata.text_map("labels"), _node_addresses(node)))
    elif kind == "Service":
        cluster.services.append(ServiceObject(namespace, name, node))
    elif kind == "EndpointSlice":
        service = metadata.text_map("labels").get("kubernetes.io/service-name", "")
        cluster.endpoint_slices.append(ServiceObject(namespace, service, node))
    elif kind in POLICY_KINDS:
        cluster.policies.append(Node(node.data, node.obj))
    else:
        cluster.pods.append(pod_of(kind, namespace, name, node))


def _refuse_duplicates(cluster: Cluster) -> None:
    seen: dict[str, Node] = {}
    for policy in cluster.policies:
        first = seen.setdefault(policy.obj, policy)
        if first is not policy:
            raise policy.error(
                f"defined twice, first at {first.data.where()}", hint="a cluster holds one object of a name: keep one"
            )


def pod_of(kind: str, namespace: str, name: str, node: Node) -> Pod:
    template = node
    if kind == "CronJob":
        template = _below(_below(template, "spec"), "jobTemplate")
    if kind != "Pod":
        template = _below(_below(template, "spec"), "template")
    metadata = template.node("metadata")
    if metadata is not None:
        metadata.only(*OBJECT_META)
    spec = template.node("spec")
    status = node.node("status") if kind == "Pod" else None
    return Pod(
        namespace,
        name,
        metadata.text_map("labels") if metadata else {},
        _addresses(status, "podIPs", "podIP"),
        tuple(_container_ports(spec)) if spec else (),
        spec.boolean("hostNetwork") if spec else False,
        _addresses(status, "hostIPs", "hostIP"),
        _owner(kind, namespace, name, node),
        node.data.where(),
    )


def _below(node: Node, key: str) -> Node:
    child = node.node(key)
    if child is None:
        raise node.error("is missing", key)
    return child


def _owner(kind: str, namespace: str, name: str, node: Node) -> str:
    metadata = node.node("metadata")
    for reference in (metadata.nodes("ownerReferences") if metadata else None) or []:
        if reference.boolean("controller") and reference.text("kind") != "Node":
            return f"{namespace}/{reference.required_text('name')}[{reference.text('kind') or 'Pod'}]"
    return f"{namespace}/{name}[{kind}]"


def _container_ports(spec: Node) -> Iterator[ContainerPort]:
    for container in spec.nodes("containers") or []:
        for port in container.nodes("ports") or []:
            number = port.integer("containerPort", 1, 65535)
            if number is None:
                continue
            protocol = port.choice("protocol", tuple(PROTOCOLS), "TCP")
            yield ContainerPort(port.text("name") or "", number, PROTOCOLS[protocol])


def _addresses(status: Node | None, many: str, one: str) -> tuple[Address, ...]:
    if status is None:
        return ()
    texts = [n.text("ip") for n in status.nodes(many) or []] or [status.text(one)]
    return tuple(address_of(status, one, text) for text in texts if text)


def _node_addresses(node: Node) -> tuple[Address, ...]:
    status = node.node("status")
    entries = (status.nodes("addresses") if status else None) or []
    wanted = [e for e in entries if e.text("type") in ("InternalIP", "ExternalIP")]
    return tuple(address_of(e, "address", e.required_text("address")) for e in wanted)


def address_of(node: Node, key: str, text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise node.error(str(error), key) from None
    return address.version, int(address)
