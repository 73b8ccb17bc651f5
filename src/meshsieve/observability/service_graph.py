"""Who calls whom: a graph of workloads, apps or services, with the node ids and edge meanings of Kiali.

What     Calls are grouped by the identities at both ends; an edge carries rates, error share, protocol, share of mutual
         TLS, and what policy said. Services can stand between caller and workload as nodes of their own.
Source   Kiali's graph/types.go (node ids) and its Istio telemetry appenders, as described in spec form by the project.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from meshsieve.observability.calls import UNKNOWN, Call, Service, Workload

GraphType = Literal["workload", "app", "versionedApp", "service"]
_EGRESS = ("PassthroughCluster", "BlackHoleCluster")


@dataclass(slots=True)
class GraphNode:
    """kind: workload, app, service or unknown."""

    id: str
    kind: str
    namespace: str = UNKNOWN
    workload: str = ""
    app: str = ""
    version: str = ""
    service: str = ""
    outside: bool = False

    @property
    def title(self) -> str:
        name = self.workload if self.kind == "workload" else self.app or self.service or self.workload or UNKNOWN
        return f"{name} {self.version}".strip()


@dataclass(slots=True)
class GraphEdge:
    """Calls between two nodes. verdicts: how many had each final verdict, by name."""

    source: str
    target: str
    protocol: str
    count: int = 0
    errors: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    mtls: int = 0
    codes: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)


class ServiceGraph:
    """A graph that grows by calls."""

    def __init__(self, kind: GraphType = "workload", *, service_nodes: bool = False) -> None:
        self.kind = kind
        self.nodes: dict[str, GraphNode] = {}
        self.edges: dict[tuple[str, str, str], GraphEdge] = {}
        self._service_nodes = service_nodes

    def add(self, calls: Iterable[tuple[Call, str]]) -> None:
        """Calls, each with the name of its final verdict ("" where no policy was asked)."""
        for call, verdict in calls:
            source = self._node(call.source, Service())
            target = self._node(call.destination, call.service)
            service = call.service
            if self._service_nodes and target.kind != "service" and _known(service.name):
                middle = self._keep(_service_node(service, call.destination.cluster))
                self._count(source, middle, call, verdict)
                self._count(middle, target, call, verdict)
            else:
                self._count(source, target, call, verdict)

    def _node(self, workload: Workload, service: Service) -> GraphNode:
        return self._keep(graph_node(workload, service, self.kind))

    def _keep(self, node: GraphNode) -> GraphNode:
        return self.nodes.setdefault(node.id, node)

    def _count(self, source: GraphNode, target: GraphNode, call: Call, verdict: str) -> None:
        key = (source.id, target.id, call.protocol)
        edge = self.edges.setdefault(key, GraphEdge(*key))
        edge.count += call.count
        edge.errors += call.count if call.failed else 0
        edge.request_bytes += call.request_bytes
        edge.response_bytes += call.response_bytes
        edge.mtls += call.count if call.security == "mutual_tls" else 0
        if call.protocol != "tcp":
            code = call.grpc_status if call.protocol == "grpc" and call.grpc_status else str(call.response_code)
            edge.codes[code] = edge.codes.get(code, 0) + call.count
        if verdict:
            edge.verdicts[verdict] = edge.verdicts.get(verdict, 0) + call.count

    def to_dict(self, seconds: float) -> dict[str, Any]:
        """The graph as plain values in the shape of Kiali's: elements.nodes and elements.edges, each with ``data``.

        seconds  that the traffic covers; rates are per second, rounded to a thousandth
        """
        nodes = [
            {
                "data": {
                    "id": node.id,
                    "nodeType": node.kind,
                    "namespace": node.namespace,
                    **({"workload": node.workload} if node.workload else {}),
                    **({"app": node.app} if node.app else {}),
                    **({"version": node.version} if node.version else {}),
                    **({"service": node.service} if node.service else {}),
                    **({"isOutside": True} if node.outside else {}),
                }
            }
            for node in self.nodes.values()
        ]
        span = max(seconds, 1e-9)
        edges = [
            {
                "data": {
                    "id": f"{edge.source}->{edge.target}:{edge.protocol}",
                    "source": edge.source,
                    "target": edge.target,
                    "traffic": {
                        "protocol": edge.protocol,
                        "rate": round(edge.count / span, 3),
                        "errorShare": round(edge.errors / edge.count, 4) if edge.count else 0.0,
                        "responses": dict(sorted(edge.codes.items())),
                        "requestBytes": edge.request_bytes,
                        "responseBytes": edge.response_bytes,
                    },
                    "isMTLS": round(100 * edge.mtls / edge.count) if edge.count else 0,
                    "verdicts": dict(sorted(edge.verdicts.items())),
                }
            }
            for edge in self.edges.values()
        ]
        return {"graphType": self.kind, "elements": {"nodes": nodes, "edges": edges}}


def graph_node(workload: Workload, service: Service, kind: GraphType) -> GraphNode:
    """The node that one end of a call belongs to; its id follows Kiali's rules."""
    cluster = workload.cluster
    namespace = workload.namespace if _known(workload.namespace) else service.namespace
    named = _known(workload.name)
    if service.name in _EGRESS:
        return GraphNode(f"svc_{cluster}_{namespace}_{service.name}", "service", namespace, service=service.name)
    if not (named or _known(workload.app) or _known(service.name)):
        if service.host not in ("", UNKNOWN):
            return GraphNode(
                f"svc_{cluster}_{UNKNOWN}_{service.host}", "service", UNKNOWN, service=service.host, outside=True
            )
        return GraphNode(f"{cluster}_unknown_source", "unknown", namespace)
    if kind == "service" and _known(service.name):
        return _service_node(service, cluster)
    if kind in ("workload", "service"):
        return _workload_node(workload, namespace) if named else _service_node(service, cluster)
    app, version = workload.app, workload.version
    versioned = _known(version) and version != "latest"
    if kind == "versionedApp" and _known(app) and (named or versioned):
        tail = workload.name if named else f"{app}_{version}"
        node_id = f"vapp_{cluster}_{namespace}_{tail}"
        shown = version if versioned else ""
        return GraphNode(node_id, "app", namespace, workload.name if named else "", app, shown)
    if kind == "app" and _known(app):
        return GraphNode(f"app_{cluster}_{namespace}_{app}", "app", namespace, app=app)
    return _workload_node(workload, namespace) if named else _service_node(service, cluster)


def _workload_node(workload: Workload, namespace: str) -> GraphNode:
    app = workload.app if _known(workload.app) else ""
    version = workload.version if _known(workload.version) else ""
    node_id = f"wl_{workload.cluster}_{namespace}_{workload.name}"
    return GraphNode(node_id, "workload", namespace, workload.name, app, version)


def _service_node(service: Service, cluster: str) -> GraphNode:
    return GraphNode(
        f"svc_{cluster}_{service.namespace}_{service.name}", "service", service.namespace, service=service.name
    )


def _known(text: str) -> bool:
    return bool(text) and text != UNKNOWN
