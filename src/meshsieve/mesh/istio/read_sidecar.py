"""Reads Sidecars strictly: what a workload imports, and its own listeners."""

from __future__ import annotations

from meshsieve.importers.typed import Node
from meshsieve.mesh.istio.model import Destination, EgressListener, IngressListener, Sidecar
from meshsieve.mesh.names import full_name
from meshsieve.mesh.objects import MeshObject

CAPTURE_MODES = ("DEFAULT", "IPTABLES", "NONE")


def read_sidecar(found: MeshObject, domain: str) -> Sidecar:
    """raises  PolicyError with file:line:column for what Istio refuses or cannot be expressed"""
    spec = found.spec.only("workloadSelector", "ingress", "egress", "outboundTrafficPolicy", "inboundConnectionPool")
    selector = spec.node("workloadSelector")
    policy = spec.node("outboundTrafficPolicy")
    outbound, proxy = "", None
    if policy is not None:
        policy.only("mode", "egressProxy")
        outbound = policy.choice("mode", ("REGISTRY_ONLY", "ALLOW_ANY"), "REGISTRY_ONLY")
        to = policy.node("egressProxy")
        if to is not None:
            to.only("host", "subset", "port")
            port = to.node("port")
            number = port.only("number").integer("number", 1, 65535) if port else None
            if number is None:
                raise to.error("is missing", "port")
            host = full_name(to.required_text("host"), found.namespace, domain)
            proxy = Destination(host, to.text("subset") or "", number)
    egress = [_egress(entry) for entry in spec.nodes("egress") or []]
    for entry, listener in zip((spec.nodes("egress") or [])[:-1], egress, strict=False):
        if listener.port is None:
            raise entry.error("an egress listener without port takes all that is left, so it must be the last")
    return Sidecar(
        found.namespace,
        found.name,
        selector.only("labels").text_map("labels") if selector else {},
        tuple(egress),
        tuple(_ingress(entry) for entry in spec.nodes("ingress") or []),
        outbound,
        proxy,
        found,
    )


def _egress(node: Node) -> EgressListener:
    node.only("port", "bind", "captureMode", "hosts")
    names = node.texts("hosts")
    if not names:
        raise node.error("needs at least one host", "hosts")
    hosts = []
    for text in names:
        home, slash, name = text.partition("/")
        if not (home and slash and name):
            raise node.error(f"expected namespace/host, got {text!r}", "hosts")
        hosts.append((home, name.lower()))
    port, bind = node.node("port"), node.text("bind") or ""
    if bind.startswith("unix://"):
        raise node.error("a unix socket has no port to match", "bind")
    listen = None
    if port is not None:
        port.only("number", "protocol", "name", "targetPort")
        number = port.integer("number", 1, 65535)
        if number is None:
            raise port.error("is missing", "number")
        protocol = (port.text("protocol") or "").lower()
        if protocol == "http_proxy":
            raise port.error("an explicit HTTP proxy is not evaluated", "protocol")
        listen = (number, protocol)
    return EgressListener(tuple(hosts), listen, bind, node.choice("captureMode", CAPTURE_MODES, "DEFAULT"))


def _ingress(node: Node) -> IngressListener:
    node.only("port", "bind", "captureMode", "defaultEndpoint", "tls", "connectionPool")
    port = node.node("port")
    if port is None:
        raise node.error("is missing", "port")
    number = port.only("number", "protocol", "name", "targetPort").integer("number", 1, 65535)
    if number is None:
        raise port.error("is missing", "number")
    endpoint = node.text("defaultEndpoint") or ""
    return IngressListener(
        number, (port.text("protocol") or "").lower(), port.text("name") or "", node.text("bind") or "", endpoint
    )
