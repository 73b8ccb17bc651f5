"""Which locality: Istio's distribute, failover and failoverPriority, and Envoy's zone-aware routing.

Istio turns locality settings into Envoy priorities and locality weights; the functions here do the same to hosts.

Source: Istio API (LocalityLoadBalancerSetting), istio/istio pilot/pkg/networking/core/loadbalancer; envoyproxy/envoy
load_balancer_impl.cc for zone-aware routing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from meshsieve.balance.hosts import Host, Locality
from meshsieve.errors import BalanceError

REGION, ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
SUBZONE, NETWORK = "topology.istio.io/subzone", "topology.istio.io/network"
HOSTNAME = "kubernetes.io/hostname"
SAME_ZONE = (NETWORK, REGION, ZONE)
SAME_NODE = (NETWORK, REGION, ZONE, SUBZONE, HOSTNAME)


@dataclass(frozen=True)
class Proxy:
    """The client's sidecar or gateway: what locality and rule look-ups depend on."""

    namespace: str = "default"
    locality: Locality = field(default_factory=Locality)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    node: str = ""


@dataclass(frozen=True)
class LocalitySetting:
    """distribute: (from pattern, {to pattern: weight}) entries; failover: (from region, to region) pairs."""

    distribute: tuple[tuple[str, Mapping[str, int]], ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    failover_priority: tuple[str, ...] = ()
    enabled: bool = True


def matches(pattern: str, locality: Locality) -> bool:
    """``region[/zone[/subzone]]``; a part may be ``*``, and a shorter pattern covers what is below it."""
    if pattern == "*":
        return True
    parts = pattern.split("/")
    return len(parts) <= 3 and all(want in ("*", have) for want, have in zip(parts, locality, strict=False))


def distribute(
    hosts: Sequence[Host], proxy: Proxy, entries: Sequence[tuple[str, Mapping[str, int]]]
) -> tuple[list[Host], dict[tuple[int, Locality], int] | None]:
    """Hosts and locality weights after the first entry whose ``from`` matches the proxy; unchanged if none does.

    The localities that match one ``to`` share its weight by their own: ceil(own * weight / own of all of them). A
    locality that no ``to`` matches loses its hosts.
    """
    entry = next((to for source, to in entries if matches(source, proxy.locality)), None)
    if entry is None:
        return list(hosts), None
    own: dict[tuple[int, Locality], int] = {}
    for host in hosts:
        place = (host.priority, host.locality)
        own[place] = own.get(place, 0) + host.weight
    weights: dict[tuple[int, Locality], int] = {}
    for pattern, weight in entry.items():
        matching = [place for place in own if place not in weights and matches(pattern, place[1])]
        total = sum(own[place] for place in matching)
        for place in matching:
            weights[place] = -(-own[place] * weight // total)
    return [host for host in hosts if (host.priority, host.locality) in weights], weights


def failover(hosts: Sequence[Host], proxy: Proxy, regions: Sequence[tuple[str, str]] = ()) -> list[Host]:
    """Priority by distance: 0 same subzone, 1 same zone, 2 same region, 3 elsewhere; with a failover for the proxy's
    region, 4 for every other region than its target. Then priorities are made gapless."""
    target = next((to for source, to in regions if source == proxy.locality.region), None)

    def distance(host: Host) -> int:
        if host.locality == proxy.locality:
            return 0
        if host.locality[:2] == proxy.locality[:2]:
            return 1
        if host.locality.region == proxy.locality.region:
            return 2
        return 4 if target is not None and host.locality.region != target else 3

    return _reprioritised(hosts, distance, 5)


def failover_priority(hosts: Sequence[Host], proxy: Proxy, labels: Sequence[str]) -> list[Host]:
    """Priority N - j where label j (from 0) is the first of N that differs from the proxy's, 0 if none does.

    ``key=value`` compares with the value instead. Is the network the first label, a difference there adds N and the
    comparison goes on.
    """
    own = _labels(proxy.labels, proxy.locality, proxy.network, proxy.node)
    n = len(labels)

    def distance(host: Host) -> int:
        theirs = _labels(host.labels, host.locality, host.labels.get(NETWORK, ""), host.node)
        extra = 0
        for j, label in enumerate(labels):
            key, equals, value = label.partition("=")
            if theirs.get(key, "") == (value if equals else own.get(key, "")):
                continue
            if j == 0 and key == NETWORK:
                extra = n
                continue
            return extra + n - j
        return extra

    return _reprioritised(hosts, distance, 2 * n + 1)


def _labels(labels: Mapping[str, str], locality: Locality, network: str, node: str) -> dict[str, str]:
    return {
        REGION: locality.region,
        ZONE: locality.zone,
        SUBZONE: locality.subzone,
        NETWORK: network,
        HOSTNAME: node,
    } | {key: value for key, value in labels.items() if value}


def _reprioritised(hosts: Sequence[Host], distance: Callable[[Host], int], step: int) -> list[Host]:
    raw = [host.priority * step + distance(host) for host in hosts]
    dense = {value: rank for rank, value in enumerate(sorted(set(raw)))}
    return [replace(host, priority=dense[value]) for host, value in zip(hosts, raw, strict=True)]


def zone_aware(
    local: Mapping[Locality, int], upstream: Mapping[Locality, int], own: Locality, *, min_cluster_size: int = 6
) -> dict[Locality, Fraction]:
    """Envoy's zone-aware routing: the share of a proxy's requests that each upstream locality gets.

    local      healthy hosts of the proxy's own cluster, by locality;  upstream: those of the cluster asked for
    own        the proxy's locality

    Percentages are whole, of 10,000. The own locality takes all if its part of the upstream hosts is at least its part
    of the clients; else that fraction, and the rest goes where upstream has more than clients.
    Routing by zone is off, and shares follow the hosts, with less than ``min_cluster_size`` upstream hosts, fewer than
    two localities on either side, or no upstream host in the own one.
    """
    total_local, total_upstream = sum(local.values()), sum(upstream.values())
    if not total_upstream:
        return {}
    by_hosts = {place: Fraction(n, total_upstream) for place, n in upstream.items()}
    filled = [place for place, n in upstream.items() if n]
    if total_upstream < min_cluster_size or len(upstream) < 2 or len(local) < 2 or not total_local or own not in filled:
        return by_hosts
    here = {place: 10_000 * local.get(place, 0) // total_local for place in upstream}
    there = {place: 10_000 * n // total_upstream for place, n in upstream.items()}
    if there[own] >= here[own]:
        return {place: Fraction(int(place == own)) for place in upstream}
    direct = Fraction(there[own] * 10_000 // here[own], 10_000)
    room = {place: max(0, there[place] - here[place]) if place != own else 0 for place in upstream}
    total_room = sum(room.values())
    if not total_room:
        # Rounding left nobody with room: Envoy then draws among the other localities that have hosts.
        others = [place for place in filled if place != own]
        if not others:
            return {place: Fraction(int(place == own)) for place in upstream}
        room = {place: int(place in others) for place in upstream}
        total_room = len(others)
    shares = {place: (1 - direct) * Fraction(n, total_room) for place, n in room.items()}
    shares[own] += direct
    return shares


def parse_weights(to: Mapping[str, int]) -> dict[str, int]:
    """The ``to`` of a distribute entry: weights of 0 to 100 that sum to 100.

    raises  BalanceError otherwise, as Istio's validation does
    """
    if any(not 0 < weight <= 100 for weight in to.values()) or sum(to.values()) != 100:
        raise BalanceError(f"distribute weights must be 1 to 100 and sum to 100, not {sum(to.values())}")
    return dict(to)
