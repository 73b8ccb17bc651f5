"""Reads Gateways strictly. What routing needs is kept; certificates and ciphers are accepted by name."""

from __future__ import annotations

from meshsieve.importers.typed import Node
from meshsieve.mesh.istio.model import Gateway, Server, ServerTls
from meshsieve.mesh.names import full_name
from meshsieve.mesh.objects import MeshObject

SERVICE_ANNOTATION = "internal.istio.io/gateway-service"
TLS_MODES = ("PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL")
PROTOCOLS = ("http", "https", "grpc", "grpc-web", "http2", "mongo", "tcp", "tls", "mysql", "redis", "http_proxy")
TLS_UNREAD = (
    "serverCertificate", "privateKey", "caCertificates", "credentialNames", "subjectAltNames", "verifyCertificateSpki",
    "verifyCertificateHash", "minProtocolVersion", "maxProtocolVersion", "cipherSuites", "caCrl",
    "caCertCredentialName", "tlsCertificates",
)  # fmt: skip


def read_gateway(found: MeshObject, domain: str) -> Gateway:
    """raises  PolicyError with file:line:column for what Istio refuses"""
    spec = found.spec.only("servers", "selector")
    entries = spec.nodes("servers")
    if not entries:
        raise spec.error("needs at least one server", "servers")
    services = None
    if SERVICE_ANNOTATION in found.annotations:
        names = found.annotations[SERVICE_ANNOTATION].split(",")
        services = tuple(full_name(name.strip(), found.namespace, domain) for name in names if name.strip())
    selector = spec.text_map("selector") if spec.data.get("selector") is not None else None
    servers = tuple(_server(entry, found) for entry in entries)
    _check_port_names(entries, servers)
    return Gateway(found.namespace, found.name, selector, services, servers, found)


def _check_port_names(entries: list[Node], servers: tuple[Server, ...]) -> None:
    seen: set[str] = set()
    for entry, server in zip(entries, servers, strict=True):
        if server.port_name in seen:
            raise entry.error(f"port name {server.port_name} is given twice in one Gateway", "port")
        seen.add(server.port_name)


def _server(node: Node, found: MeshObject) -> Server:
    node.only("port", "bind", "hosts", "tls", "defaultEndpoint", "name")
    port = node.node("port")
    if port is None:
        raise node.error("is missing", "port")
    port.only("number", "protocol", "name", "targetPort")
    number = port.integer("number", 1, 65535)
    if number is None:
        raise port.error("is missing", "number")
    protocol = (port.text("protocol") or "").lower()
    if protocol not in PROTOCOLS:
        raise port.error(f"expected one of {', '.join(PROTOCOLS).upper()}, got {protocol!r}", "protocol")
    bind = node.text("bind") or ""
    if bind.startswith("unix://"):
        raise node.error("a unix socket has no port to match", "bind")
    hosts = node.texts("hosts")
    if not hosts:
        raise node.error("needs at least one host", "hosts")
    tls_node = node.node("tls")
    tls = None if tls_node is None else _tls(tls_node)
    if protocol in ("https", "tls") and tls is None:
        raise node.error(f"a server of protocol {protocol.upper()} needs TLS settings", "tls")
    if protocol not in ("http", "http2", "grpc", "grpc-web") and tls is not None and tls.https_redirect:
        raise node.error("httpsRedirect is for servers of protocol HTTP", "tls")
    return Server(
        number,
        port.text("name") or "",
        protocol,
        _hosts(node, hosts, found.namespace),
        bind,
        tls,
        node.text("name") or "",
        f"{found.namespace}/{found.name}",
        found.source_of(node),
    )


def _hosts(node: Node, hosts: list[str], namespace: str) -> tuple[str, ...]:
    """``./x`` in the Gateway's own namespace, ``*/x`` anywhere; ``*/*`` is everything by itself."""
    out = []
    for text in hosts:
        home, slash, name = text.rpartition("/")
        if not name or "/" in home or (slash and not home):
            raise node.error(f"expected host or namespace/host, got {text!r}", "hosts")
        if "*" in name.removeprefix("*") or (name.startswith("*") and name[1:2] not in ("", ".")):
            raise node.error(f"{name!r} is no host name; a star stands for whole labels at the front", "hosts")
        name = name.lower()
        if home == "*" and name == "*":
            return ("*",)
        home = namespace if home == "." else "" if home == "*" else home
        out.append(f"{home}/{name}" if home else name)
    return tuple(out)


def _tls(node: Node) -> ServerTls:
    node.only("httpsRedirect", "mode", "credentialName", *TLS_UNREAD)
    mode = node.choice("mode", TLS_MODES, "PASSTHROUGH")
    return ServerTls(mode, node.boolean("httpsRedirect"), node.text("credentialName") or "")
