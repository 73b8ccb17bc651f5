"""Gateway API objects as data: what Gateways, listener sets and routes say, each with where it stands.

Source: kubernetes-sigs/gateway-api, apis/v1 (tree of August 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from meshsieve.mesh.objects import GATEWAY_API
from meshsieve.model import Source

NOWHERE = Source()
# The experimental group holds XListenerSet, which ListenerSet comes from.
PARENT_GROUPS = (GATEWAY_API, "gateway.networking.x-k8s.io")
HTTP_KINDS = ("HTTPRoute", "GRPCRoute")
ROUTE_KINDS = (*HTTP_KINDS, "TLSRoute", "TCPRoute", "UDPRoute")
# Which kinds a listener of a protocol takes; TLS depends on its mode.
KINDS_OF = {
    "HTTP": HTTP_KINDS,
    "HTTPS": HTTP_KINDS,
    "TLS/Passthrough": ("TLSRoute",),
    "TLS/Terminate": ("TLSRoute", "TCPRoute"),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
    "HBONE": (),  # Istio's waypoints, which mesh routes reach by their Services
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What Gateway API leaves to implementations, or what one of them does differently.

    path_order   kinds of path match, the one that wins first. The API ranks only Exact before PathPrefix
    kind_clash   an HTTPRoute and a GRPCRoute that claim one hostname on one listener: the API refuses the newer; some
                 implementations merge them
    bad_mirror   a RequestMirror whose backend cannot be used: left out by the API's text, 500 with some
    fall_through a request that no route of its most specific hostname takes may go to a less specific hostname
    misdirected  HTTPS: 421 for a Host that another listener of the connection's port would take (GEP-3567)
    """

    path_order: tuple[str, str, str] = ("Exact", "RegularExpression", "PathPrefix")
    kind_clash: Literal["refuse", "merge"] = "refuse"
    bad_mirror: bool = False
    fall_through: bool = False
    misdirected: bool = True


STANDARD = Dialect()
ENVOY_GATEWAY = Dialect(kind_clash="merge", bad_mirror=True)
ISTIO = Dialect(path_order=("Exact", "PathPrefix", "RegularExpression"), kind_clash="merge")
DIALECTS = {"standard": STANDARD, "envoy-gateway": ENVOY_GATEWAY, "istio": ISTIO}


@dataclass(frozen=True, slots=True)
class Ref:
    """One object by name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Condition:
    """One status condition, with the reasons that the API defines."""

    status: bool
    reason: str
    message: str = ""


ACCEPTED = Condition(True, "Accepted")
RESOLVED = Condition(True, "ResolvedRefs")
INVALID_KINDS = "InvalidRouteKinds"
NOT_PERMITTED = "RefNotPermitted"


# --- what listens


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener of a Gateway or ListenerSet.

    gateway     the Gateway that it serves; owner: the object that defines it
    hostname    "" takes every name
    mode        "Terminate" or "Passthrough" of TLS and HTTPS, else ""
    kinds       route kinds that it takes
    namespaces  whether routes of a namespace may attach
    certificates   (group, kind, namespace, name) of what ``certificateRefs`` name
    accepted, resolved   its conditions
    """

    gateway: Ref
    owner: Ref
    name: str
    port: int
    protocol: str
    hostname: str
    mode: str
    kinds: tuple[str, ...]
    namespaces: Callable[[str], bool]
    source: Source
    certificates: tuple[tuple[str, str, str, str], ...] = ()
    accepted: Condition = ACCEPTED
    resolved: Condition = RESOLVED

    @property
    def title(self) -> str:
        """``namespace/gateway/listener``; a ListenerSet's listener names the set as well."""
        set_name = "" if self.owner == self.gateway else f"/{self.owner.namespace}.{self.owner.name}"
        return f"{self.gateway.namespace}/{self.gateway.name}{set_name}/{self.name}"

    @property
    def encrypted(self) -> bool:
        return self.protocol in ("HTTPS", "TLS")

    @property
    def serves(self) -> bool:
        """Whether it takes traffic: kinds that it cannot take keep out routes, not requests."""
        return self.accepted.status and (self.resolved.status or self.resolved.reason == INVALID_KINDS)


@dataclass(frozen=True, slots=True)
class Gateway:
    """``takes_set``: whether listener sets of a namespace may add listeners."""

    ref: Ref
    class_name: str
    listeners: tuple[Listener, ...]
    takes_set: Callable[[str], bool]
    default_scope: str
    created: datetime
    source: Source


@dataclass(frozen=True, slots=True)
class ListenerSet:
    ref: Ref
    parent: Ref
    listeners: tuple[Listener, ...]
    created: datetime
    source: Source


# --- routes


@dataclass(frozen=True, slots=True)
class ParentRef:
    group: str
    kind: str
    namespace: str
    name: str
    section: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        section = f"/{self.section}" if self.section is not None else ""
        return f"{self.kind} {self.namespace}/{self.name}{section}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class HeaderModifier:
    """Lists of (name, value), and names."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathModifier:
    kind: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    value: str


@dataclass(frozen=True, slots=True)
class RequestRedirect:
    scheme: str | None = None
    hostname: str | None = None
    port: int | None = None
    path: PathModifier | None = None
    status: int = 302


@dataclass(frozen=True, slots=True)
class UrlRewrite:
    hostname: str | None = None
    path: PathModifier | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """``numerator`` of ``denominator`` requests are copied."""

    backend: BackendRef
    numerator: int = 100
    denominator: int = 100


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a rule or a backend. other: those that do not change where a request goes (CORS, ExternalAuth), as
    written; unknown: extension references, which no one here can resolve; problems: what an implementation refuses."""

    request: tuple[HeaderModifier, ...] = ()
    response: tuple[HeaderModifier, ...] = ()
    redirect: RequestRedirect | None = None
    rewrite: UrlRewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    other: tuple[Mapping[str, object], ...] = ()
    unknown: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True)
class BackendRef:
    group: str
    kind: str
    namespace: str
    name: str
    port: int | None
    weight: int
    filters: Filters
    source: Source

    def __str__(self) -> str:
        kind = "" if self.kind == "Service" else f"{self.kind} "
        return f"{kind}{self.namespace}/{self.name}" + (f":{self.port}" if self.port is not None else "")


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A header or query parameter match: type Exact or RegularExpression."""

    name: str
    type: Literal["Exact", "RegularExpression"]
    value: str


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """One entry of an HTTPRoute's ``matches``; conditions on names that occur before are left out, as the API says."""

    path_type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    path: str = "/"
    headers: tuple[ValueMatch, ...] = ()
    queries: tuple[ValueMatch, ...] = ()
    method: str | None = None
    source: Source = NOWHERE


@dataclass(frozen=True, slots=True)
class GrpcMatch:
    """One entry of a GRPCRoute's ``matches``. type: of both service and method."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: str = ""
    method: str = ""
    headers: tuple[ValueMatch, ...] = ()
    source: Source = NOWHERE


@dataclass(frozen=True, slots=True)
class Rule:
    """backends None: the field is absent. timeouts, retry, session: as written."""

    name: str
    matches: tuple[HttpMatch | GrpcMatch, ...]
    filters: Filters
    backends: tuple[BackendRef, ...]
    source: Source
    timeouts: Mapping[str, str] | None = None
    retry: Mapping[str, object] | None = None
    session: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of any kind."""

    ref: Ref
    parents: tuple[ParentRef, ...]
    hostnames: tuple[str, ...]
    rules: tuple[Rule, ...]
    created: datetime
    default_gateways: bool
    source: Source

    @property
    def kind(self) -> str:
        return self.ref.kind

    @property
    def age(self) -> tuple[datetime, str]:
        """Sorts oldest first, then by ``namespace/name``."""
        return self.created, f"{self.ref.namespace}/{self.ref.name}"


@dataclass(frozen=True, slots=True)
class Grant:
    """A ReferenceGrant: (group, kind, namespace) that may refer, to (group, kind, name or None)."""

    namespace: str
    sources: tuple[tuple[str, str, str], ...]
    targets: tuple[tuple[str, str, str | None], ...]


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """How one parent of a route took it. listeners: titles of those that it is attached to."""

    route: Ref
    parent: ParentRef
    accepted: Condition
    resolved: Condition
    listeners: tuple[str, ...]
    source: Source
