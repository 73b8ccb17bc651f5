"""Istio's networking objects as typed data, short names expanded, in the order of their lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from meshsieve.mesh.objects import MeshObject
from meshsieve.model import Source

MESH = "mesh"  # the gateway name that stands for all sidecars


@dataclass(frozen=True, slots=True)
class StringTest:
    """A StringMatch; kind "" is the empty one, which asks for presence only."""

    kind: Literal["", "exact", "prefix", "regex"]
    value: str = ""

    @property
    def presence(self) -> bool:
        # Istio reads the regex "*", which is none, as "present".
        return self.kind == "" or (self.kind == "regex" and self.value == "*")


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """An HTTPMatchRequest. port 0: any."""

    name: str = ""
    uri: StringTest | None = None
    scheme: StringTest | None = None
    method: StringTest | None = None
    authority: StringTest | None = None
    headers: Mapping[str, StringTest] = field(default_factory=dict)
    without_headers: Mapping[str, StringTest] = field(default_factory=dict)
    query: Mapping[str, StringTest] = field(default_factory=dict)
    ignore_uri_case: bool = False
    port: int = 0
    source_labels: Mapping[str, str] = field(default_factory=dict)
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()
    stat_prefix: str = ""


@dataclass(frozen=True, slots=True)
class HeaderOperations:
    """set and add by name, remove; of requests or of responses."""

    set: Mapping[str, str] = field(default_factory=dict)
    add: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Headers:
    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


@dataclass(frozen=True, slots=True)
class Destination:
    host: str
    subset: str = ""
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """One destination of several, by weight."""

    destination: Destination
    weight: int = 0
    headers: Headers = Headers()


@dataclass(frozen=True, slots=True)
class Rewrite:
    uri: str = ""
    authority: str = ""
    regex: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class HttpRedirect:
    """port: a number, "request" (the port that the route is for), "protocol" (the scheme's own), None (kept)."""

    uri: str = ""
    uri_prefix: str = ""
    regex: tuple[str, str] | None = None
    authority: str = ""
    scheme: str = ""
    port: int | Literal["request", "protocol"] | None = None
    status: int = 301


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Mirror:
    destination: Destination
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class HttpRule:
    """An HTTPRoute. ``settings``: timeout, retries, fault, corsPolicy, as they are written."""

    name: str
    matches: tuple[HttpMatch, ...]
    shares: tuple[Share, ...]
    redirect: HttpRedirect | None
    response: Response | None
    delegate: tuple[str, str] | None  # namespace, name
    rewrite: Rewrite | None
    mirrors: tuple[Mirror, ...]
    headers: Headers | None
    settings: Mapping[str, Any]
    source: Source


@dataclass(frozen=True, slots=True)
class L4Match:
    """A match of a TLS or TCP rule; sni only of TLS."""

    sni: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    port: int = 0
    source_labels: Mapping[str, str] = field(default_factory=dict)
    source_namespace: str = ""
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class L4Rule:
    """A TLSRoute or TCPRoute."""

    matches: tuple[L4Match, ...]
    shares: tuple[Share, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class VirtualService:
    """gateways ``namespace/name`` or "mesh"; no hosts: a delegate."""

    namespace: str
    name: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...]
    http: tuple[HttpRule, ...]
    tls: tuple[L4Rule, ...]
    tcp: tuple[L4Rule, ...]
    export_to: tuple[str, ...]
    object: MeshObject

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ServerTls:
    mode: str = "PASSTHROUGH"
    https_redirect: bool = False
    credential: str = ""

    @property
    def passthrough(self) -> bool:
        return self.mode in ("PASSTHROUGH", "AUTO_PASSTHROUGH")


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a Gateway. protocol in lower case; hosts as ``namespace/host`` or ``host`` (any namespace)."""

    port: int
    port_name: str
    protocol: str
    hosts: tuple[str, ...]
    bind: str
    tls: ServerTls | None
    name: str
    gateway: str  # namespace/name
    source: Source

    @property
    def family(self) -> Literal["http", "https", "tls", "tcp"]:
        """http: plain; https: terminated TLS with HTTP inside; tls: other TLS; tcp: plain and opaque."""
        if self.protocol in ("http", "http2", "grpc", "grpc-web", "http_proxy"):
            return "http"
        if self.tls is None:
            return "tcp"
        return "https" if self.protocol == "https" and not self.tls.passthrough else "tls"


@dataclass(frozen=True, slots=True)
class Gateway:
    namespace: str
    name: str
    selector: Mapping[str, str] | None
    services: tuple[str, ...] | None  # of the annotation that names Services instead of a selector
    servers: tuple[Server, ...]
    object: MeshObject

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class EgressListener:
    """hosts (namespace, DNS name), "*" and "~" as written, "." resolved when used. port None: catch-all."""

    hosts: tuple[tuple[str, str], ...]
    port: tuple[int, str] | None = None
    bind: str = ""
    capture: str = "DEFAULT"


@dataclass(frozen=True, slots=True)
class IngressListener:
    port: int
    protocol: str
    name: str
    bind: str
    default_endpoint: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """outbound "" leaves the mesh's policy; egress_proxy: where traffic to nobody goes."""

    namespace: str
    name: str
    selector: Mapping[str, str]
    egress: tuple[EgressListener, ...]
    ingress: tuple[IngressListener, ...]
    outbound: str
    egress_proxy: Destination | None
    object: MeshObject
