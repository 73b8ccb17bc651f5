"""Hosts as balancers see them: address, weight, health, priority, locality."""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from meshsieve.errors import BalanceError

MAX_WEIGHT = 2**32 - 1


class Health(enum.Enum):
    """Envoy's coarse health; DRAINING and TIMEOUT of its API count as UNHEALTHY, UNKNOWN as HEALTHY."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


class Locality(NamedTuple):
    """Where a host stands. Sorted as Envoy sorts localities: by region, then zone, then subzone."""

    region: str = ""
    zone: str = ""
    subzone: str = ""

    @staticmethod
    def parse(text: str) -> Locality:
        """``region[/zone[/subzone]]``."""
        parts = text.split("/")
        if len(parts) > 3:
            raise BalanceError(f"locality '{text}' has more than three parts; write region/zone/subzone")
        return Locality(*parts)

    def __str__(self) -> str:
        return "/".join(self).rstrip("/")


NOWHERE = Locality()


@dataclass(frozen=True, slots=True)
class Host:
    """One endpoint.

    address     IP address, or any name in a table of names
    weight      1 .. 2^32-1
    priority    0 is used first
    hash_key    what consistent hashing hashes instead of ``address:port`` (Envoy's ``envoy.lb`` metadata)
    labels      subset labels
    name        ``address:port``, ``[v6]:port``, or the address alone where there is no port
    """

    address: str
    port: int = 0
    weight: int = 1
    health: Health = Health.HEALTHY
    priority: int = 0
    locality: Locality = NOWHERE
    hostname: str = ""
    hash_key: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    name: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _name(self.address, self.port))
        if not self.address:
            raise BalanceError("a host needs an address or a name")
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise BalanceError(f"host {self.name} has weight {self.weight}; a weight is 1 to {MAX_WEIGHT}")
        if not 0 <= self.port <= 65535:
            raise BalanceError(f"host {self.address} has port {self.port}; a port is 0 to 65535")
        if not 0 <= self.priority <= 127:
            raise BalanceError(f"host {self.name} has priority {self.priority}; a priority is 0 to 127")

    def key(self, *, use_hostname: bool = False) -> str:
        """The text that Maglev and ring hash hash: hash_key, else the hostname if asked for, else the name."""
        return self.hash_key or (self.hostname if use_hostname and self.hostname else self.name)

    @staticmethod
    def of(value: Host | str | tuple[str, int]) -> Host:
        """A host from ``"ip:port"``, ``"[v6]:port"``, any other text (a name), or a (text, weight) pair."""
        if isinstance(value, Host):
            return value
        if isinstance(value, tuple):
            text, weight = value
            host = Host.of(text)
            return Host(host.address, host.port, weight)
        head, colon, tail = value.rpartition(":")
        if colon and tail.isascii() and tail.isdigit() and len(tail) <= 5 and int(tail) <= 65535:
            if head.startswith("[") and head.endswith("]"):
                return Host(head[1:-1], int(tail))
            if ":" not in head:
                return Host(head, int(tail))
        return Host(value)


def _name(address: str, port: int) -> str:
    if not port:
        return address
    if ":" in address:
        return f"[{canonical_address(address)}]:{port}"
    return f"{address}:{port}"


HostLike = Host | str | tuple[str, int]
Hosts = Iterable[HostLike] | Mapping[str, int]


def hosts_of(values: Hosts) -> tuple[Host, ...]:
    """``values`` as hosts; a mapping gives name -> weight.

    raises  BalanceError if two hosts of one priority are the same address and port
    """
    hosts = tuple(Host.of(v) for v in (values.items() if isinstance(values, Mapping) else values))
    first: dict[Any, int] = {}
    for i, host in enumerate(hosts):
        known = first.setdefault((host.name, host.priority), i)
        if known != i:
            raise BalanceError(f"hosts {known} and {i} are both {host.name}; a host may stand in a priority only once")
    return hosts


def some_hosts(values: Hosts) -> tuple[Host, ...]:
    """``hosts_of``, and there must be one.

    raises  BalanceError also for an empty list: a balancer without hosts can answer nothing
    """
    hosts = hosts_of(values)
    if not hosts:
        raise BalanceError("no hosts: a balancer needs at least one")
    return hosts


def canonical_address(text: str) -> str:
    """An IP address as inet_ntop writes it, as Envoy does; any other text unchanged.

    >>> canonical_address("2001:DB8:0::1")
    '2001:db8::1'
    """
    if ":" in text:
        try:
            return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text))
        except (OSError, ValueError):
            return text
    return text


class Shares(NamedTuple):
    """What a hash table is built from: one entry a host that may be picked."""

    keys: list[str]
    weights: list[float]  # share of the keys; sums to 1 unless a locality has no usable host
    ids: list[int]  # index into the cluster's hosts


def equal_or_weighted(hosts: Sequence[Host], ids: Sequence[int], *, use_hostname: bool = False) -> Shares:
    """weight_i / sum of weights, in doubles as Envoy divides them."""
    return _normalised(hosts, ids, 1.0, use_hostname)


def locality_weighted(
    hosts: Sequence[Host],
    ids: Sequence[int],
    locality_weights: Mapping[Locality, int],
    *,
    use_hostname: bool = False,
) -> Shares:
    """weight_i * (locality's share) / (sum of weights in the locality).

    ``locality_weights`` names every locality of the priority, those without a usable host included: their share is
    given to nobody. A locality without weight, or weight 0, is left out.
    """
    total = sum(locality_weights.values())
    if total > MAX_WEIGHT:
        raise BalanceError(f"the sum of weights of all localities at the same priority exceeds {MAX_WEIGHT}")
    shares = Shares([], [], [])
    for locality in sorted(locality_weights):
        weight = locality_weights[locality]
        members = [i for i in ids if hosts[i].locality == locality]
        if weight and members:
            part = _normalised(hosts, members, weight / total, use_hostname)
            shares.keys.extend(part.keys)
            shares.weights.extend(part.weights)
            shares.ids.extend(part.ids)
    return shares


def _normalised(hosts: Sequence[Host], ids: Sequence[int], part: float, use_hostname: bool) -> Shares:
    total = sum(hosts[i].weight for i in ids)
    if total > MAX_WEIGHT:
        raise BalanceError(f"the sum of weights of all upstream hosts in a locality exceeds {MAX_WEIGHT}")
    keys = [hosts[i].key(use_hostname=use_hostname) for i in ids]
    return Shares(keys, [hosts[i].weight * part / total for i in ids], list(ids))
