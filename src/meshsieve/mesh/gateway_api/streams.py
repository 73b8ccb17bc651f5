"""TLSRoute, TCPRoute, UDPRoute: which backend a connection gets, by port and server name.

A TLSRoute is chosen by SNI, exact before the longest wildcard; a connection without a fitting name is closed. A TCP or
UDP listener, and one that ends TLS for TCPRoutes, has one route: the oldest that is attached. Of every route only the
first rule counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from meshsieve.mesh.gateway_api.attachment import Attachment
from meshsieve.mesh.gateway_api.model import BackendRef, Condition, Listener, Route
from meshsieve.mesh.names import covers
from meshsieve.routes.router import Match

Check = Callable[[Route, BackendRef], Condition]


@dataclass(frozen=True, slots=True)
class StreamRoute:
    """One route of a listener. hostname: "" for every connection; backends: (name, weight, usable)."""

    route: Route
    hostname: str
    backends: tuple[tuple[str, int, bool], ...]

    def match(self, random_value: int | None, where: str) -> Match:
        """An unusable backend's share, and a route without any weight, is a connection that is closed."""
        total = sum(weight for _, weight, _ in self.backends)
        clusters = tuple((name, weight) for name, weight, _ in self.backends)
        kind = {"TLSRoute": "tls", "TCPRoute": "tcp", "UDPRoute": "udp"}[self.route.kind]
        name = f"{self.route.kind.lower()}/{self.route.ref.namespace}/{self.route.ref.name}"
        found = Match(True, where, name, -1, kind, None, clusters, source=self.route.source)
        if total == 0:
            return replace(found, action="closed", reason="no backend has any weight")
        if len(self.backends) > 1 and random_value is None and any(usable for _, _, usable in self.backends):
            return found
        point = (random_value or 0) % total
        for backend, weight, usable in self.backends:
            if point < weight:
                if usable:
                    return replace(found, cluster=backend)
                return replace(found, action="closed", reason=f"backend {backend} cannot be used")
            point -= weight
        raise AssertionError("a point below the sum of weights lies in some weight")


def stream_routes(listener: Listener, attached: Sequence[Attachment], check: Check) -> list[StreamRoute]:
    """Routes of a listener in the order in which a connection is compared with them."""
    out = []
    for attachment in sorted(attached, key=lambda a: a.route.age):
        route = attachment.route
        backends = backends_of_first_rule(route, check)
        out += [StreamRoute(route, name, backends) for name in attachment.hostnames]
    return sorted(out, key=lambda r: (not r.hostname, r.hostname.startswith("*"), -len(r.hostname)))


def backends_of_first_rule(route: Route, check: Check) -> tuple[tuple[str, int, bool], ...]:
    """(name, weight, usable) of every backend."""
    rule = route.rules[0] if route.rules else None
    return tuple((str(b), b.weight, check(route, b).status) for b in rule.backends) if rule else ()


def choose_stream(routes: Sequence[StreamRoute], sni: str | None) -> StreamRoute | None:
    for route in routes:
        if not route.hostname or (sni is not None and covers(route.hostname, sni)):
            return route
    return None
