"""Which listeners take which routes, and the status of those that are refused.

A route attaches to a listener when a parent reference names the listener's Gateway or ListenerSet (and its name and
port, where given), the listener takes the route's kind and namespace, and their host names intersect. What fails
nearest to success is the reason: port and name, then kind, then host names, then namespace.
Sources: Gateway API's documentation of Gateway, ListenerSet and RouteParentStatus, and its conformance tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from meshsieve.mesh.gateway_api.model import (
    ACCEPTED,
    HTTP_KINDS,
    PARENT_GROUPS,
    Condition,
    Dialect,
    Gateway,
    Listener,
    ListenerSet,
    ParentRef,
    Ref,
    Route,
)
from meshsieve.mesh.names import covers, intersection, overlap
from meshsieve.mesh.objects import GATEWAY_API

# Listeners of one family can share a port, told apart by host name (HTTP: Host, TLS: SNI).
FAMILIES = {"HTTP": "http", "HTTPS": "tls", "TLS": "tls", "TCP": "tcp", "UDP": "udp", "HBONE": "hbone"}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A route on a listener with the host names that both have; "" stands for every name."""

    route: Route
    listener: Listener
    hostnames: tuple[str, ...]


@dataclass(slots=True)
class ParentResult:
    """One parent of a route: what it says about the route, and where the route is attached."""

    parent: ParentRef
    accepted: Condition
    attachments: list[Attachment] = field(default_factory=list)


def all_listeners(gateways: Iterable[Gateway], sets: Iterable[ListenerSet]) -> list[Listener]:
    """Listeners of every Gateway, its own first, then those of its sets, oldest first; a listener that conflicts with
    an earlier one of its Gateway is not accepted."""
    out: list[Listener] = []
    by_gateway: dict[Ref, list[ListenerSet]] = {}
    for one in sorted(sets, key=lambda s: (s.created, s.ref.namespace, s.ref.name)):
        by_gateway.setdefault(one.parent, []).append(one)
    for gateway in gateways:
        here: list[Listener] = []
        for listener in gateway.listeners:
            here.append(_without_conflict(listener, here))
        for one in by_gateway.get(gateway.ref, ()):
            for listener in one.listeners:
                if not gateway.takes_set(one.ref.namespace):
                    refused = Condition(False, "NotAllowed", f"{gateway.ref} takes no listeners of {one.ref}")
                    here.append(replace(listener, accepted=refused))
                else:
                    here.append(_without_conflict(listener, here))
        out += here
    return out


def _without_conflict(listener: Listener, earlier: Sequence[Listener]) -> Listener:
    if not listener.accepted.status:
        return listener
    for other in earlier:
        if not other.accepted.status or other.port != listener.port:
            continue
        mine, theirs = FAMILIES[listener.protocol], FAMILIES[other.protocol]
        if mine != theirs:
            if "udp" in (mine, theirs):
                continue
            message = f"port {listener.port} already carries {other.protocol} ({other.title})"
            return replace(listener, accepted=Condition(False, "ProtocolConflict", message))
        if mine in ("tcp", "udp") or other.hostname == listener.hostname:
            message = f"port {listener.port} already has the host name {other.hostname or '*'} ({other.title})"
            return replace(listener, accepted=Condition(False, "HostnameConflict", message))
    return listener


def hostnames_on(route: Route, listener: Listener) -> tuple[str, ...]:
    """Effective host names of a route on a listener, () if they do not intersect; ("",) is every name."""
    if route.kind in ("TCPRoute", "UDPRoute"):
        return ("",)
    if not listener.hostname:
        return route.hostnames or ("",)
    if not route.hostnames:
        return (listener.hostname,)
    return tuple(intersection(route.hostnames, [listener.hostname]))


def attach(route: Route, parent: ParentRef, listeners: Sequence[Listener]) -> ParentResult:
    """The route on every listener of ``listeners`` that the parent reference reaches."""
    mine = [li for li in listeners if _is_parent(parent, li)]
    named = [li for li in mine if parent.section in (None, li.name) and parent.port in (None, li.port)]
    if not named:
        return ParentResult(parent, Condition(False, "NoMatchingParent", "No listeners match this parent ref"))
    kind = [li for li in named if route.kind in li.kinds]
    if not kind:
        return _refused(parent, "NotAllowedByListeners", named, f"kind {route.kind}")
    meeting = [Attachment(route, li, names) for li in kind if (names := hostnames_on(route, li))]
    if not meeting:
        message = f"There were no hostname intersections between the {route.kind} and this parent ref's Listener(s)."
        return ParentResult(parent, Condition(False, "NoMatchingListenerHostname", message))
    found = [a for a in meeting if a.listener.namespaces(route.ref.namespace)]
    if not found:
        reached = [a.listener for a in meeting]
        return _refused(parent, "NotAllowedByListeners", reached, f"namespace {route.ref.namespace}")
    return ParentResult(parent, ACCEPTED, found)


def _refused(parent: ParentRef, reason: str, listeners: Sequence[Listener], what: str) -> ParentResult:
    message = f"{', '.join(li.title for li in listeners)} does not take routes of {what}"
    return ParentResult(parent, Condition(False, reason, message))


def _is_parent(parent: ParentRef, listener: Listener) -> bool:
    owner = listener.owner
    named = (parent.kind, parent.namespace, parent.name) == (owner.kind, owner.namespace, owner.name)
    return named and parent.group in PARENT_GROUPS


def default_parents(route: Route, gateways: Iterable[Gateway]) -> list[ParentRef]:
    """Gateways that a route with ``useDefaultGateways`` attaches to besides its own parents."""
    if not route.default_gateways:
        return []
    chosen = [g.ref for g in gateways if g.default_scope == "All"]
    return [ParentRef(GATEWAY_API, ref.kind, ref.namespace, ref.name) for ref in chosen]


def refuse_clashes(results: Sequence[tuple[Route, ParentResult]], dialect: Dialect) -> None:
    """An HTTPRoute and a GRPCRoute never share a host name on a listener: the older stays, then the first by name."""
    if dialect.kind_clash == "merge":
        return
    kept: dict[str, list[Attachment]] = {}
    for _, result in sorted(results, key=lambda item: item[0].age):
        left = []
        for attachment in result.attachments:
            here = kept.setdefault(attachment.listener.title, [])
            rival = next((other for other in here if _clash(attachment, other)), None)
            if rival is None:
                left.append(attachment)
                here.append(attachment)
            else:
                message = f"{rival.route.ref} is attached to {rival.listener.title} with the same host names"
                result.accepted = Condition(False, "HostnameConflict", message)
        result.attachments = left
        if left:
            result.accepted = ACCEPTED


def _clash(one: Attachment, other: Attachment) -> bool:
    kinds = {one.route.kind, other.route.kind}
    if kinds != set(HTTP_KINDS):
        return False
    pairs = ((a or "*", b or "*") for a in one.hostnames for b in other.hostnames)
    return any(overlap(a, b) for a, b in pairs)


def most_specific_listener(name: str, listeners: Sequence[Listener]) -> Listener | None:
    """The listener whose host name fits best: exact, then the longest wildcard, then the one without a name."""
    fitting = [li for li in listeners if not li.hostname or covers(li.hostname, name)]
    return max(
        fitting, key=lambda li: (bool(li.hostname), not li.hostname.startswith("*"), len(li.hostname)), default=None
    )
