"""Segments and gateways: which gateways a packet crosses between two addresses.

What    A Tier-1 knows its segments, interfaces and static routes, and hands the rest to its Tier-0; a Tier-0 knows its
        own and those of its Tier-1s. Longest prefix first, then the lower administrative distance. Addresses that NAT
        rules of a gateway answer for belong to the gateway. Two addresses on one segment meet no gateway. What nobody
        knows is outside, behind the Tier-0s.
Stages  A Tier-1 is met on the way up (from its own networks) or down (to them), a Tier-0 once; so the points of all
        gateways have one order: Tier-1s up, Tier-0s, Tier-1s down.
Cost    One look-up an address in a table of all prefixes; addresses with one longest prefix share their way, so a way
        is worked out once for each pair of prefixes that occurs.
Limits  Dynamic routing (BGP, OSPF) is not known. Equal-cost routes of one gateway all leave through it, so they cross
        the same points. What a Tier-1 does not advertise is not held against it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from meshsieve.columns import PacketColumns
from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.addresses import Range
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.fields import Fields
from meshsieve.prefix_table import PrefixTable

UP, THROUGH, DOWN = "up", "through", "down"
DEFAULT_DISTANCE = 1  # of static routes, as NSX has it


@dataclass(frozen=True, slots=True)
class Home:
    """Where a prefix lives: at a gateway ("" = at none), and on which segment ("" = behind or at the gateway)."""

    gateway: str
    segment: str = ""
    distance: int = 0


OUTSIDE = Home("")


@dataclass(slots=True)
class Gateway:
    """routes: prefix -> where it leads; connected networks have distance 0."""

    path: str
    name: str
    tier: int
    tier0: str = ""
    routes: dict[str, Home] = field(default_factory=dict)

    def learn(self, prefix: str, home: Home) -> None:
        known = self.routes.get(prefix)
        if known is None or home.distance < known.distance:
            self.routes[prefix] = home


class Topology:
    """The gateways and segments of a catalogue."""

    def __init__(self, catalogue: Catalogue, held: Iterable[tuple[str, Range]] = ()) -> None:
        """held: (gateway, addresses that its NAT rules answer for)"""
        self.gateways: dict[str, Gateway] = {}
        for path, (kind, obj) in catalogue.gateways.items():
            tier = 0 if kind == "Tier0" else 1
            tier0 = obj.get("tier0_path")
            name = obj.get("display_name") or path.rpartition("/")[2]
            self.gateways[path] = Gateway(path, str(name), tier, tier0 if isinstance(tier0, str) else "")
        # Segments of no gateway hold addresses as well: frames between two of them cross nothing.
        self.loose: dict[str, Home] = {}
        for path, segment in catalogue.segments.items():
            gateway = self.gateways.get(str(segment.obj.get("connectivity_path") or "")) or self.owner(path)
            for prefix in _segment_prefixes(segment.obj, path):
                if gateway is None:
                    self.loose[prefix] = Home("", path)
                else:
                    gateway.learn(prefix, Home(gateway.path, path))
        for path, obj in catalogue.gateway_interfaces.items():
            if gateway := self.owner(path):
                for prefix in _interface_prefixes(obj, path):
                    gateway.learn(prefix, Home(gateway.path))
        for path, obj in catalogue.static_routes.items():
            if gateway := self.owner(path):
                network, distance = _static_route(obj, path)
                gateway.learn(network, Home(gateway.path, distance=distance))
        for path, (version, low, high) in held:
            if gateway := self.gateways.get(path):
                make = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
                for net in ipaddress.summarize_address_range(make(low), make(high)):
                    gateway.learn(str(net), Home(gateway.path))
        self._tables = {path: self._table(gateway) for path, gateway in self.gateways.items()}
        self._classes = _Table({p: OUTSIDE for g in self.gateways.values() for p in g.routes} | self.loose)
        everything = dict(self.loose)
        for gateway in self.gateways.values():
            for prefix, home in gateway.routes.items():
                if prefix not in ("0.0.0.0/0", "::/0"):  # a default route owns nobody
                    known = everything.get(prefix)
                    if known is None or home.distance < known.distance:
                        everything[prefix] = home
        self._homes = _Table(everything)
        self._ways: dict[tuple[int, int], frozenset[tuple[str, str]]] = {}

    def owner(self, path: str) -> Gateway | None:
        """The gateway below whose path the object stands."""
        return next((g for p, g in self.gateways.items() if path == p or path.startswith(p + "/")), None)

    def _table(self, gateway: Gateway) -> _Table:
        routes = dict(gateway.routes)
        if gateway.tier == 0:
            for other in self.gateways.values():
                if other.tier == 1 and other.tier0 == gateway.path:
                    for prefix, home in other.routes.items():
                        if prefix not in ("0.0.0.0/0", "::/0"):
                            routes.setdefault(prefix, home)
        return _Table(routes)

    def way(self, src: str, dst: str) -> list[tuple[str, str]]:
        """(gateway, stage) in the order in which a packet crosses them."""
        home, target = self._homes.find(src), self._homes.find(dst)
        if home.segment and home.segment == target.segment:
            return []
        gateway = self.gateways.get(home.gateway)
        if gateway is None:
            return self._from_outside(home, target)
        if gateway.tier == 0:
            return [(gateway.path, THROUGH), *self._below(gateway, dst)]
        up = [(gateway.path, UP)]
        tier0 = self.gateways.get(gateway.tier0)
        if self._tables[gateway.path].find(dst) != OUTSIDE or tier0 is None:
            return up
        return [*up, (tier0.path, THROUGH), *self._below(tier0, dst)]

    def _from_outside(self, home: Home, target: Home) -> list[tuple[str, str]]:
        gateway = self.gateways.get(target.gateway)
        if gateway is None or home.segment:  # outside to outside; or a segment that no gateway serves
            return []
        if gateway.tier == 0:
            return [(gateway.path, THROUGH)]
        tier0 = [(gateway.tier0, THROUGH)] if gateway.tier0 in self.gateways else []
        return [*tier0, (gateway.path, DOWN)]

    def _below(self, tier0: Gateway, dst: str) -> list[tuple[str, str]]:
        found = self._tables[tier0.path].find(dst)
        return [(found.gateway, DOWN)] if found.gateway not in ("", tier0.path) else []

    def crosses(self, headers: PacketColumns, gateway: str, stage: str) -> npt.NDArray[np.bool_]:
        """bool (n,): packets that cross the gateway at this stage. Reads what the address columns hold even where the
        address counts as unknown: a pool's address is then one of the pool, which is all that routing asks."""
        n = len(headers)
        if "src_ip" not in headers or "dst_ip" not in headers:
            return np.zeros(n, np.bool_)
        ends = [self._classes.numbers(headers, name) for name in ("src_ip", "dst_ip")]
        pairs = ends[0] << 32 | ends[1]
        out = np.zeros(n, np.bool_)
        for pair in np.unique(pairs):
            rows = np.flatnonzero(pairs == pair)
            out[rows] = (gateway, stage) in self._way_of(int(pair), headers, int(rows[0]))
        return out

    def _way_of(self, pair: int, headers: PacketColumns, row: int) -> frozenset[tuple[str, str]]:
        key = (pair >> 32, pair & 0xFFFFFFFF)
        if key not in self._ways:
            src, dst = (_address(headers, name, row) for name in ("src_ip", "dst_ip"))
            self._ways[key] = frozenset(self.way(src, dst))
        return self._ways[key]


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway at one stage of the way, as points are told who comes there."""

    topology: Topology
    gateway: str
    stage: str

    def comes(self, headers: PacketColumns) -> npt.NDArray[np.bool_]:
        return self.topology.crosses(headers, self.gateway, self.stage)

    def between(self, version: int, src: int, dst: int) -> bool:
        make = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
        return (self.gateway, self.stage) in self.topology.way(str(make(src)), str(make(dst)))


class _Table:
    """Longest prefix to a home."""

    def __init__(self, homes: dict[str, Home]) -> None:
        self._list = list(homes.values())
        self._prefixes = PrefixTable((prefix, number) for number, prefix in enumerate(homes))

    def find(self, address: str) -> Home:
        number = self._prefixes.lookup(address)
        return OUTSIDE if number < 0 else self._list[number]

    def numbers(self, headers: PacketColumns, name: str) -> npt.NDArray[np.int64]:
        """int64 (n,): a number for the longest prefix and the family."""
        n = len(headers)
        column = headers[name]
        if column.ndim == 1:
            numbers = self._prefixes.lookup_batch(column)
            return np.broadcast_to((numbers + 1) * 2, (n,))
        column = np.ascontiguousarray(np.broadcast_to(column, (n, 2)))
        versions = np.broadcast_to(headers["ip_ver"] if "ip_ver" in headers else np.full(n, 6, np.uint8), (n,))
        # IPv4 and IPv6 never share a class, even where no prefix holds them.
        numbers = (self._prefixes.lookup_batch(column, ip_ver=versions) + 1) * 2
        numbers[versions == 6] += 1
        return numbers


def _address(headers: PacketColumns, name: str, row: int) -> str:
    column = headers[name]
    cell = column[0 if len(column) == 1 else row]
    if column.ndim == 1:
        return str(ipaddress.IPv4Address(int(cell)))
    value = int(cell[0]) << 64 | int(cell[1])
    if "ip_ver" in headers and int(headers["ip_ver"][0 if len(headers["ip_ver"]) == 1 else row]) == 4:
        return str(ipaddress.IPv4Address(value))
    return str(ipaddress.IPv6Address(value))


def _network(text: str, obj: Object, key: str, label: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError as error:
        raise PolicyError(
            f"'{text}' is no network: {error}", where=obj.where(key), obj=label, hint="correct it"
        ) from None


def _segment_prefixes(segment: Object, label: str) -> list[str]:
    out = []
    for subnet in Fields(segment, "Segment", label).objects("subnets"):
        f = Fields(subnet, "subnet", label)
        if text := f.text("network") or f.text("gateway_address"):
            out.append(_network(text, subnet, "network" if subnet.get("network") else "gateway_address", label))
    return out


def _interface_prefixes(interface: Object, label: str) -> list[str]:
    out = []
    for subnet in Fields(interface, "interface", label).objects("subnets"):
        f = Fields(subnet, "subnet", label)
        length = f.number("prefix_len", 0, 128)
        out += [
            _network(f"{text}/{length}" if length is not None else text, subnet, "ip_addresses", label)
            for text in f.texts("ip_addresses")
        ]
    return out


def _static_route(obj: Object, label: str) -> tuple[str, int]:
    f = Fields(obj, "StaticRoutes", label)
    hops = [Fields(hop, "next_hop", label).number("admin_distance", 1, 255) for hop in f.objects("next_hops")]
    return _network(f.text("network"), obj, "network", label), min((h or DEFAULT_DISTANCE for h in hops), default=1)
