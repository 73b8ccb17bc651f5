"""Kubernetes Services as the mesh sees them: a host name, ports with protocols, addresses, which pods answer.

Protocol of a port: ``appProtocol``, else the port's name, each up to the first ``-``; a name that says none leaves the
protocol to be detected from the first bytes ("auto"), as Istio does. UDP stays UDP whatever the name says.
Source: istio/istio pkg/config/kube (ConvertProtocol), pkg/config/protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshsieve.importers.typed import Node
from meshsieve.mesh.names import CLUSTER_DOMAIN
from meshsieve.mesh.objects import CORE, MeshObject, ObjectStore

AUTO = "auto"
HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc", "grpc-web", "http_proxy"})
TLS_PROTOCOLS = frozenset({"https", "tls"})
TCP_PROTOCOLS = frozenset({"tcp", "mongo", "redis", "mysql"})
PROTOCOLS = HTTP_PROTOCOLS | TLS_PROTOCOLS | TCP_PROTOCOLS | {"udp", "hbone", "doublehbone"}
# appProtocol values that Kubernetes defines beyond plain names.
_APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
# Ports whose clients wait for the server to speak first: detection would wait for ever, so Istio takes them as TCP.
SERVER_FIRST_PORTS = frozenset({25, 53, 3306, 27017})


@dataclass(frozen=True, slots=True)
class ServicePort:
    """target: number or name of the pods' port; None where it is the port itself."""

    name: str
    number: int
    protocol: str
    target: int | str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One Service. selector {}: no pods of its own. addresses: cluster IPs, none for a headless one."""

    host: str
    namespace: str
    name: str
    ports: tuple[ServicePort, ...]
    addresses: tuple[str, ...]
    headless: bool
    external_name: str | None
    selector: Mapping[str, str]
    object: MeshObject

    def port(self, number: int) -> ServicePort | None:
        return next((p for p in self.ports if p.number == number), None)


def read_services(store: ObjectStore, domain: str = CLUSTER_DOMAIN) -> list[Service]:
    """Every Service of the store.

    raises  PolicyError
    """
    return [_service(found, domain) for found in store.of("Service", CORE)]


def protocol_of(name: str, app_protocol: str | None, transport: str, number: int) -> str:
    """The mesh protocol of a Service's port, in lower case; "auto" where it has to be detected.

    >>> protocol_of("http-web", None, "TCP", 80), protocol_of("web", None, "TCP", 80), protocol_of("", "grpc", "TCP", 1)
    ('http', 'auto', 'grpc')
    """
    if transport == "UDP":
        return "udp"
    if app_protocol in _APP_PROTOCOLS:
        return _APP_PROTOCOLS[app_protocol]
    word = (app_protocol or name).lower()
    word = "grpc-web" if word.startswith("grpc-web") else word.split("-")[0]
    if word in PROTOCOLS:
        return word
    return "tcp" if number in SERVER_FIRST_PORTS else AUTO


def _service(found: MeshObject, domain: str) -> Service:
    spec = found.spec
    single = spec.text("clusterIP")
    addresses = spec.texts("clusterIPs") or ([single] if single else [])
    external = spec.text("externalName") if spec.text("type") == "ExternalName" else None
    suffix = f".svc.{domain}" if domain else ""
    return Service(
        f"{found.name}.{found.namespace}{suffix}",
        found.namespace,
        found.name,
        tuple(_port(port) for port in spec.nodes("ports") or []),
        tuple(a for a in addresses if a and a != "None"),
        "None" in addresses,
        external,
        spec.text_map("selector"),
        found,
    )


def _port(port: Node) -> ServicePort:
    number = port.integer("port", 1, 65535)
    if number is None:
        raise port.error("is missing", "port")
    name = port.text("name") or ""
    transport = port.choice("protocol", ("TCP", "UDP", "SCTP"), "TCP")
    target = port.data.get("targetPort")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | str)):
        raise port.error(f"expected a port's number or name, got {target!r}", "targetPort")
    return ServicePort(name, number, protocol_of(name, port.text("appProtocol"), transport, number), target or None)
