"""Segments and gateways: which gateways a packet crosses between two addresses.

What    A Tier-1 knows its segments, interfaces and static routes, and hands the rest to its Tier-0; a Tier-0 knows its
        own and those of its Tier-1s. Longest prefix first, then the lower administrative distance. Addresses that NAT
        rules of a gateway answer for belong to the gateway. Two addresses on one segment meet no gateway. What nobody
        knows is outside, behind the Tier-0s.
Stages  A Tier-1 is met on the way up (from its own networks) or down (to them), a Tier-0 once; so the points of all
        gateways have one order: Tier-1s up, Tier-0s, Tier-1s down.
Sides   A packet enters and leaves a gateway by the interface whose network its address is in, else by the next hop of
        the route to it, else by the uplinks: the external interfaces of a Tier-0, the link of a Tier-1 to its Tier-0.
        Where there are several, it is one of them, and nobody knows which. ``side_text`` names such a set.
Cost    One look-up an address in a table of all prefixes; addresses with one longest prefix share their way, so a way
        is worked out once for each pair of prefixes that occurs.
Limits  Dynamic routing (BGP, OSPF) is not known. Equal-cost routes of one gateway all leave through it, so they cross
        the same points. What a Tier-1 does not advertise is not held against it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from meshsieve.columns import PacketColumns
from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.addresses import Range
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.fields import Fields
from meshsieve.model import ValueSet
from meshsieve.prefix_table import PrefixTable

UP, THROUGH, DOWN = "up", "through", "down"
DEFAULT_DISTANCE = 1  # of static routes, as NSX has it


@dataclass(frozen=True, slots=True)
class Home:
    """Where a prefix lives: at a gateway ("" = at none), on which segment ("" = behind or at the gateway), and behind
    which of the gateway's interfaces (paths; none = not known)."""

    gateway: str
    segment: str = ""
    distance: int = 0
    interfaces: frozenset[str] = frozenset()


OUTSIDE = Home("")


@dataclass(slots=True)
class Gateway:
    """routes: prefix -> where it leads; connected networks have distance 0."""

    path: str
    name: str
    tier: int
    tier0: str = ""
    routes: dict[str, Home] = field(default_factory=dict)
    interfaces: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # path -> (type, networks)

    @property
    def uplinks(self) -> frozenset[str]:
        """External interfaces of a Tier-0, if they are known; the link of a Tier-1 to its Tier-0."""
        external = frozenset(path for path, (kind, _) in self.interfaces.items() if kind == "EXTERNAL")
        return external if self.tier == 0 and external else frozenset({f"{self.path} uplink"})

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
                networks = _interface_prefixes(obj, path)
                kind = Fields(obj, "interface", path).text("type", "EXTERNAL")
                gateway.interfaces[path] = (kind, networks)
                for prefix in networks:
                    gateway.learn(prefix, Home(gateway.path, interfaces=frozenset({path})))
        for path, obj in catalogue.static_routes.items():
            if gateway := self.owner(path):
                network, distance, through = _static_route(obj, path, gateway)
                gateway.learn(network, Home(gateway.path, distance=distance, interfaces=through))
        for path, (version, low, high) in held:
            if gateway := self.gateways.get(path):
                make = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
                for net in ipaddress.summarize_address_range(make(low), make(high)):
                    gateway.learn(str(net), Home(gateway.path))
        self._tables = {path: self._table(gateway) for path, gateway in self.gateways.items()}
        self._classes = _Table({p: home for g in self.gateways.values() for p, home in g.routes.items()} | self.loose)
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

    def sides(self, gateway: Gateway, stage: str, src: str, dst: str) -> tuple[str, str]:
        """``side_text`` of where a packet enters the gateway and where it leaves."""
        enters = gateway.uplinks if stage == DOWN else self._side(gateway, src)
        return side_text(enters), side_text(self._side(gateway, dst))

    def _side(self, gateway: Gateway, address: str) -> frozenset[str]:
        found = self._tables[gateway.path].find(address)
        if found == OUTSIDE:
            return gateway.uplinks
        if found.gateway != gateway.path:
            return frozenset({f"{found.gateway} uplink"})
        return found.interfaces or frozenset({found.segment or f"{gateway.path} itself"})

    def possible_sides(self, gateway: Gateway) -> set[frozenset[str]]:
        """Every set of interfaces that packets may enter or leave by."""
        homes = gateway.routes.values()
        own = {home.interfaces or frozenset({home.segment or f"{gateway.path} itself"}) for home in homes}
        links = {frozenset({f"{other.path} uplink"}) for other in self.gateways.values() if other.tier == 1}
        return own | links | {gateway.uplinks}

    def networks(self) -> list[ValueSet]:
        """A set of addresses for each class of them that goes other ways than the rest."""
        by_home: dict[Home, list[str]] = {}
        for prefix, home in self._classes.homes():
            by_home.setdefault(home, []).append(prefix)
        return [ValueSet.addresses(prefixes) for prefixes in by_home.values()]

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
            key = (int(pair) >> 32, int(pair) & 0xFFFFFFFF)
            if key not in self._ways:
                self._ways[key] = frozenset(self.way(*_ends(headers, int(rows[0]))))
            out[rows] = (gateway, stage) in self._ways[key]
        return out

    def sides_of(self, headers: PacketColumns, gateway: str, stage: str) -> dict[str, npt.NDArray[np.object_]]:
        """``sides`` of every packet, as {"iif": texts, "oif": texts}."""
        texts = {name: np.full(len(headers), "", object) for name in ("iif", "oif")}
        if "src_ip" not in headers or "dst_ip" not in headers:
            return texts
        ends = [self._classes.numbers(headers, name) for name in ("src_ip", "dst_ip")]
        pairs = ends[0] << 32 | ends[1]
        for pair in np.unique(pairs):
            rows = np.flatnonzero(pairs == pair)
            found = self.sides(self.gateways[gateway], stage, *_ends(headers, int(rows[0])))
            texts["iif"][rows], texts["oif"][rows] = found
        return texts


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

    def sides(self, headers: PacketColumns) -> dict[str, npt.NDArray[np.object_]]:
        return self.topology.sides_of(headers, self.gateway, self.stage)

    def sides_between(self, version: int, src: int, dst: int) -> dict[str, str]:
        make = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
        gateway = self.topology.gateways[self.gateway]
        iif, oif = self.topology.sides(gateway, self.stage, str(make(src)), str(make(dst)))
        return {"iif": iif, "oif": oif}

    def networks(self) -> list[ValueSet]:
        return self.topology.networks()


def side_text(interfaces: frozenset[str]) -> str:
    """One name for a set of interfaces by one of which a packet comes."""
    return " or ".join(sorted(interfaces))


def _ends(headers: PacketColumns, row: int) -> tuple[str, str]:
    return _address(headers, "src_ip", row), _address(headers, "dst_ip", row)


class _Table:
    """Longest prefix to a home."""

    def __init__(self, homes: dict[str, Home]) -> None:
        self._texts, self._list = list(homes), list(homes.values())
        self._prefixes = PrefixTable((prefix, number) for number, prefix in enumerate(homes))

    def homes(self) -> Iterator[tuple[str, Home]]:
        """Every prefix and where it lives."""
        return zip(self._texts, self._list, strict=True)

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


def _static_route(obj: Object, label: str, gateway: Gateway) -> tuple[str, int, frozenset[str]]:
    """(network, distance, interfaces through which its nearest next hops are reached)"""
    f = Fields(obj, "StaticRoutes", label)
    hops = [Fields(hop, "next_hop", label) for hop in f.objects("next_hops")]
    distances = [hop.number("admin_distance", 1, 255) or DEFAULT_DISTANCE for hop in hops]
    nearest = min(distances, default=DEFAULT_DISTANCE)
    through: set[str] = set()
    for hop, distance in zip(hops, distances, strict=True):
        if distance == nearest:
            through |= set(hop.texts("scope")) & gateway.interfaces.keys() or _towards(hop.text("ip_address"), gateway)
    return _network(f.text("network"), obj, "network", label), nearest, frozenset(through)


def _towards(hop: str, gateway: Gateway) -> set[str]:
    """The interfaces in whose network the next hop is."""
    try:
        address = ipaddress.ip_address(hop)
    except ValueError:
        return set()
    return {
        path
        for path, (_, networks) in gateway.interfaces.items()
        if any(address in ipaddress.ip_network(network) for network in networks)
    }
