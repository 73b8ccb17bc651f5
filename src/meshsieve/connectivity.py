"""Who may reach whom, on what: exact, by set algebra over the rules.

What    Addresses fall into classes that no rule can tell apart: the ends of every interval of every rule cut the
        address space into atoms; atoms with the same memberships are one class, and each inventory owner is a class
        of its own. For a pair of classes the rules that can apply are known; what is left of the walk is a question
        about protocols and ports, answered once for every distinct list of rules.
Why     Sampling packets misses corners; listing all of them is impossible; a walk of sets is exact and small.
Cost    classes^2 intersections of bit sets (one bit a rule), plus one walk for each distinct list of rules.
Limits  A connection is judged by its first packet: TCP with SYN alone, connection state NEW, not a fragment. A rule
        that needs something the question does not say (an interface, a clause nobody can interpret) leaves its share
        of the connections *undecided*; so does a translation (NAT) on whose outcome a later point depends.
Example web -> db: rules [allow TCP 5432 from web, deny all] leave TCP 5432 allowed and the rest denied.
Source  The idea of address atoms: Yang and Lam, "Real-time verification of network properties using atomic predicates",
        ICNP 2013.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from meshsieve.inventory import NO_VNIC
from meshsieve.model import Action, Match, RuleSet, ValueSet
from meshsieve.policy import ACTION_VERDICT, Layer, Point, Verdict
from meshsieve.value_sets import MAX_V4, MAX_V6, Span, range_text

PORT_PROTOCOLS = {6: "TCP", 17: "UDP", 33: "DCCP", 132: "SCTP", 136: "UDP-Lite"}
ICMP_PROTOCOLS = {1: "ICMP", 58: "ICMPv6"}
ALL_PORTS = ValueSet.numbers((0, 65535))
ALL_BYTES = ValueSet.numbers((0, 255))
OTHER_PROTOCOLS = ValueSet.numbers((0, 255)).intersection(
    ValueSet.numbers(*PORT_PROTOCOLS, *ICMP_PROTOCOLS).complement("proto")
)
# The first packet of a connection, as far as a question fixes it.
FIRST_PACKET = {"tcp_flags": 2, "ct_state": 1, "fragment": 0}
# Which two sets describe a protocol's connections, and their whole space. "Other" protocols have numbers only.
SPACES: dict[int | None, tuple[tuple[str, str], tuple[ValueSet, ValueSet]]] = {
    **dict.fromkeys(PORT_PROTOCOLS, (("sport", "dport"), (ALL_PORTS, ALL_PORTS))),
    **dict.fromkeys(ICMP_PROTOCOLS, (("icmp_type", "icmp_code"), (ALL_BYTES, ALL_BYTES))),
    None: (("proto", ""), (OTHER_PROTOCOLS, ValueSet.numbers(0))),
}

NO_RULE = -1
Box = tuple[ValueSet, ValueSet]
Region = tuple[Box, ...]  # disjoint boxes


def _subtract(region: Region, box: Box) -> Region:
    out: list[Box] = []
    for first, second in region:
        a, b = first.intersection(box[0]), second.intersection(box[1])
        if not (a and b):
            out.append((first, second))
            continue
        if rest := _without(first, a):
            out.append((rest, second))
        if rest := _without(second, b):
            out.append((a, rest))
    return tuple(out)


def _without(whole: ValueSet, part: ValueSet) -> ValueSet:
    return whole.intersection(part.complement("ip_length"))  # any 16-bit field: every space here fits 16 bits


def intersect(region: Region, box: Box) -> Region:
    cut = ((first.intersection(box[0]), second.intersection(box[1])) for first, second in region)
    return tuple((a, b) for a, b in cut if a and b)


def merge(region: Iterable[Box]) -> Region:
    """The same region with boxes of equal first side joined, in a fixed order."""
    by_first: dict[ValueSet, ValueSet] = {}
    for first, second in region:
        by_first[first] = by_first.get(first, ValueSet()).union(second)
    return tuple(sorted(by_first.items(), key=lambda box: (box[1].v4, box[0].v4)))


@dataclass(frozen=True)
class Connections:
    """A set of connections over one IP version: for every protocol number disjoint boxes of two sets, source and
    destination ports, or ICMP types and codes; for None (protocols without either) protocol numbers and a dummy."""

    regions: Mapping[int | None, Region]
    version: int

    def __bool__(self) -> bool:
        return any(self.regions.values())

    @property
    def everything(self) -> bool:
        return all(merge(self.regions.get(p, ())) == whole for p, whole in everything(self.version).items())

    def contains(self, proto: int, first: int = 0, second: int = 0) -> bool:
        """Whether it holds ``proto`` with source and destination port, or ICMP type and code."""
        key = proto if proto in SPACES else None
        a, b = (first, second) if key is not None else (proto, 0)
        return any(x.contains(a) and y.contains(b) for x, y in self.regions.get(key, ()))

    def __str__(self) -> str:
        if self.everything:
            return "all"
        return "; ".join(part for p, region in self.regions.items() if region for part in _texts(p, region)) or "none"


def _texts(proto: int | None, region: Region) -> Iterator[str]:
    for first, second in merge(region):
        if proto is None:
            yield f"IP protocols {_numbers(first)}"
            continue
        space = SPACES[proto][1]
        if proto in ICMP_PROTOCOLS:
            words = [ICMP_PROTOCOLS[proto]]
            words += [f"type {_numbers(first)}"] if first != space[0] else []
            words += [f"code {_numbers(second)}"] if second != space[1] else []
        else:
            words = [PORT_PROTOCOLS[proto]]
            words += [_numbers(second)] if second != space[1] else []
            words += [f"from ports {_numbers(first)}"] if first != space[0] else []
        yield " ".join(words)


def _numbers(values: ValueSet) -> str:
    return ",".join(str(lo) if lo == hi else f"{lo}-{hi}" for lo, hi in values.v4)


@dataclass(frozen=True)
class Endpoint:
    """A class of addresses that no rule tells apart: one owner's, or outside ranges."""

    name: str
    version: int
    addresses: Span
    owned: bool

    @property
    def address(self) -> int:
        """One address that stands for all."""
        return self.addresses[0][0]


@dataclass(frozen=True)
class Reach:
    """What ``src`` may open to ``dst``: connections allowed for certain, and those that cannot be decided."""

    src: Endpoint
    dst: Endpoint
    allowed: Connections
    undecided: Connections

    def to_dict(self) -> dict[str, Any]:
        out = {"src": self.src.name, "dst": self.dst.name, "ip_version": self.src.version, "allowed": str(self.allowed)}
        return {**out, "undecided": str(self.undecided)} if self.undecided else out


def connectivity(layers: Sequence[Layer]) -> Iterator[Reach]:
    """Every ordered pair of distinct endpoints of one IP version with at least one owner among them, in a fixed order:
    what may pass every point of every layer."""
    walks = [PointWalk(layer, point) for layer in layers for point in layer.points if point.role != "advise"]
    endpoints = _endpoints(layers, walks)
    as_src = [[walk.side("src", e) for walk in walks] for e in endpoints]
    as_dst = [[walk.side("dst", e) for walk in walks] for e in endpoints]
    # Only gateways tell their interfaces; without any that asks there is nothing to look up for each pair.
    by_side = [walk.sides for walk in walks] if any(walk.asks_side for walk in walks) else []
    # Pairs share few distinct lists of rules; None stands for a point that does not judge the pair.
    answers: dict[tuple[int, tuple[int | None, ...], tuple[Sides, ...]], tuple[Connections, Connections]] = {}
    for i, src in enumerate(endpoints):
        for j, dst in enumerate(endpoints):
            if i == j or src.version != dst.version or not (src.owned or dst.owned):
                continue
            applying = tuple(
                None if s is None or d is None or not walk.comes(src, dst) else s & d
                for walk, s, d in zip(walks, as_src[i], as_dst[j], strict=True)
            )
            sides: tuple[Sides, ...] = ()
            if by_side:
                parts = zip(by_side, applying, strict=True)
                sides = tuple(() if entries is None else side(src, dst) for side, entries in parts)
            key = (src.version, applying, sides)
            if key not in answers:
                answers[key] = _combined(walks, applying, sides, src.version)
            yield Reach(src, dst, *answers[key])


def _combined(
    walks: list[PointWalk], applying: tuple[int | None, ...], sides: tuple[Sides, ...], version: int
) -> tuple[Connections, Connections]:
    """Allowed and undecided over all points: a denial anywhere is final; else undecided anywhere is undecided."""
    allowed, undecided = everything(version), _nothing()
    for number, (walk, entries) in enumerate(zip(walks, applying, strict=True)):
        if entries is None:
            continue
        if walk.point.role == "translate" and not rewrite_matters(walk, walks[number + 1 :], applying[number + 1 :]):
            continue
        passed, unsure = walk.judge(entries, sides[number] if sides else (), version)
        undecided = _combine(_both(undecided, _combine(passed, unsure)), _both(allowed, unsure))
        allowed = _both(allowed, passed)
    return Connections(allowed, version), Connections(undecided, version)


def rewrite_matters(translation: PointWalk, later: Sequence[PointWalk], applying: Sequence[int | None]) -> bool:
    """Whether what the point rewrites bears on the points behind it: a destination always, as the way depends on it."""
    touched = {name for rewrite in translation.point.rewrites.values() for name in rewrite.touches}
    touched |= {"mark"} if touched & {"ct_mark", "ct_nat"} else set()  # the field mark stands for all registers
    skips = any(rewrite.skips for rewrite in translation.point.rewrites.values())
    if skips or touched & {"dst_ip"}:
        return True
    return any(
        walk.point.vnic_of == "src" or any(touched & walk.entries[i].match.keys() for i in _bits(entries))
        for walk, entries in zip(later, applying, strict=True)
        if entries is not None
    )


def _bits(number: int) -> Iterator[int]:
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1


Regions = dict[int | None, Region]
Sides = tuple[tuple[str, int], ...]  # field and its code at one point


def everything(version: int) -> Regions:
    absent = 58 if version == 4 else 1  # ICMPv6 is not spoken over IPv4, nor ICMP over IPv6
    return {p: (space,) for p, (_, space) in SPACES.items() if p != absent}


def _nothing() -> Regions:
    return {}


def _both(a: Regions, b: Regions) -> Regions:
    return {p: tuple(box for part in b[p] for box in intersect(a[p], part)) for p in a if p in b}


def _combine(a: Regions, b: Regions) -> Regions:
    """Union of two disjoint regions, or of one with what the other lacks."""
    out = dict(a)
    for p, region in b.items():
        rest = region
        for box in a.get(p, ()):
            rest = _subtract(rest, box)
        out[p] = merge((*a.get(p, ()), *rest))
    return out


@dataclass(frozen=True)
class Part:
    """Connections of one protocol that a rule of a point decides, or its default (rule ``NO_RULE``)."""

    proto: int | None
    region: Region
    verdict: Verdict
    rule: int


@dataclass(frozen=True)
class _Entry:
    """One rule with one of its alternatives: what it says of addresses, and of the rest."""

    rule: int
    match: Match
    certain: bool


class PointWalk:
    """One point of one layer: which entries can apply to a pair of addresses, and what they leave."""

    def __init__(self, layer: Layer, point: Point) -> None:
        self.layer, self.point = layer, point
        self.entries = list(_entries(point.rules))
        self._free: dict[str, int] = {}
        self._by_set: dict[str, dict[ValueSet, int]] = {"src_ip": {}, "dst_ip": {}, "vnic": {}}
        for field, by_set in self._by_set.items():
            free = 0
            for i, entry in enumerate(self.entries):
                if field in entry.match:
                    by_set[entry.match[field]] = by_set.get(entry.match[field], 0) | 1 << i
                else:
                    free |= 1 << i
            self._free[field] = free
        self._members: dict[tuple[str, int, int], int] = {}
        self._results: dict[tuple[int, Sides, int], tuple[Regions, Regions]] = {}
        self.asks_side = point.crossing is not None and bool({"iif", "oif"} & point.rules.fields)
        self._networks = tuple(point.crossing.networks()) if point.crossing is not None else ()

    def comes(self, src: Endpoint, dst: Endpoint) -> bool:
        """Whether the way between the two leads here."""
        crossing = self.point.crossing
        return crossing is None or crossing.between(src.version, src.address, dst.address)

    def sides(self, src: Endpoint, dst: Endpoint) -> Sides:
        """Through which interfaces the way between the two leads here, where rules ask."""
        crossing = self.point.crossing
        if crossing is None or not self.asks_side:
            return ()
        texts = crossing.sides_between(src.version, src.address, dst.address)
        codes = self.point.rules.names
        return tuple((name, codes[name].code(text)) for name, text in texts.items() if name in codes)

    def sets(self) -> Iterator[ValueSet]:
        """Every set of addresses that some entry or the way names."""
        for field in ("src_ip", "dst_ip"):
            yield from self._by_set[field]
        yield from self._networks

    def place(self, version: int, value: int) -> int:
        """Bit i set where the address is in network i of the way."""
        key = ("way", version, value)
        if key not in self._members:
            self._members[key] = sum(1 << i for i, n in enumerate(self._networks) if n.contains(value, version))
        return self._members[key]

    def members(self, field: str, version: int, value: int) -> int:
        """Bit i set where entry i does not refuse the value of the field."""
        key = (field, version, value)
        if key not in self._members:
            bits = self._free[field]
            for values, entries in self._by_set[field].items():
                if values.contains(value, version):
                    bits |= entries
            self._members[key] = bits
        return self._members[key]

    def side(self, role: Literal["src", "dst"], end: Endpoint) -> int | None:
        """The entries that do not refuse ``end`` in this role; None where the point judges nothing of it."""
        if end.version not in self.layer.families:
            return None
        bits = self.members(f"{role}_ip", end.version, end.address)
        if self.point.vnic_of == role:
            vnic = self.layer.inventory.owner(end.version, end.address)
            if vnic == NO_VNIC or vnic in self.point.excluded:
                return None
            bits &= self.members("vnic", 4, vnic)
        return bits

    def judge(self, applying: int, sides: Sides, version: int) -> tuple[Regions, Regions]:
        """Connections that the entries in ``applying`` allow here, and those that they leave undecided."""
        key = (applying, sides, version)
        if key not in self._results:
            allowed: dict[int | None, list[Box]] = {proto: [] for proto in everything(version)}
            undecided: dict[int | None, list[Box]] = {proto: [] for proto in everything(version)}
            for part in self.parts(applying, sides, version):
                if part.verdict == Verdict.ALLOW:
                    allowed[part.proto] += part.region
                elif part.verdict == Verdict.UNDECIDED:
                    undecided[part.proto] += part.region
            self._results[key] = (
                {proto: merge(boxes) for proto, boxes in allowed.items()},
                {proto: merge(boxes) for proto, boxes in undecided.items()},
            )
        return self._results[key]

    def parts(self, applying: int, sides: Sides, version: int) -> Iterator[Part]:
        """All connections, cut into disjoint parts by what the entries in ``applying`` make of them here."""
        entries = [entry for i, entry in enumerate(self.entries) if applying >> i & 1]
        known = {**FIRST_PACKET, **self.point.constants, **dict(sides), "ip_ver": version}
        return _parts(self.point, entries, known, version)


def _entries(rules: RuleSet) -> Iterator[_Entry]:
    for index, rule in enumerate(rules):
        for alternative in rule.alternatives or ({},):
            match = dict(rule.match)
            for name, values in alternative.items():
                match[name] = match[name].intersection(values) if name in match else values
            yield _Entry(index, match, rule.certain)


def _parts(point: Point, entries: list[_Entry], known: Mapping[str, int], version: int) -> Iterator[Part]:
    boxes = {proto: list(_boxes(entries, proto, known)) for proto in SPACES}
    for proto, whole in everything(version).items():
        waiting: list[tuple[int, Region]] = [(0, whole)]
        while waiting:
            start, region = waiting.pop()
            for rule, box, certain in boxes[proto]:
                if rule < start or not (taken := intersect(region, box)):
                    continue
                region = _subtract(region, box)
                action = Action(int(point.rules.actions[rule]))
                if certain and action == Action.SKIP and rule not in point.rewrites:
                    waiting.append((point.rules.skip_target(rule), taken))
                    continue
                certain = certain and rule not in point.rewrites
                yield Part(proto, taken, ACTION_VERDICT[action] if certain else Verdict.UNDECIDED, rule)
            if region:
                yield Part(proto, region, point.default, NO_RULE)


def _boxes(entries: list[_Entry], proto: int | None, known: Mapping[str, int]) -> Iterator[tuple[int, Box, bool]]:
    """(rule, box, certain) in the order of the walk. Where one alternative of a rule holds for certain, it does not
    matter that another cannot be decided, so within a rule the certain ones come first."""
    for rule, same in groupby(entries, key=lambda entry: entry.rule):
        found = [_box(entry, proto, known) for entry in same]
        for box, certain in sorted(found, key=lambda pair: not pair[1]):
            if box is not None:
                yield rule, box, certain


def _box(entry: _Entry, proto: int | None, known: Mapping[str, int]) -> tuple[Box | None, bool]:
    """What an entry takes of a protocol's connections (None: nothing), and whether it does so for certain."""
    certain = entry.certain
    (first, second), space = SPACES[proto]
    sides = list(space)
    for name, values in entry.match.items():
        if name in ("src_ip", "dst_ip", "vnic"):
            continue
        if name in (first, second):
            sides[0 if name == first else 1] = values.intersection(sides[0 if name == first else 1])
        elif name == "proto":
            if proto is None or not values.contains(proto):
                return None, True
        elif name in ("sport", "dport", "icmp_type", "icmp_code", "vlan") or (name == "tcp_flags" and proto != 6):
            return None, True  # the packet has no such field
        elif name in known:
            if not values.contains(known[name]):
                return None, True
        else:
            certain = False
    return (sides[0], sides[1]), certain


def _endpoints(layers: Sequence[Layer], walks: list[PointWalk]) -> list[Endpoint]:
    out = [e for version in (4, 6) for e in _owned(layers, walks, version)]
    return out + [
        e for version in (4, 6) for e in outside_endpoints(walks, version, [o for o in out if o.version == version])
    ]


def _signature(walks: list[PointWalk], version: int, address: int) -> tuple[int, ...]:
    return tuple(
        bits
        for walk in walks
        for bits in (
            walk.members("src_ip", version, address),
            walk.members("dst_ip", version, address),
            walk.place(version, address),
        )
    )


def _owned(layers: Sequence[Layer], walks: list[PointWalk], version: int) -> Iterator[Endpoint]:
    """One endpoint an owner and signature: an owner whose addresses are in different groups is several."""
    owners: dict[str, dict[tuple[int, ...], list[int]]] = {}
    for layer in layers:
        for vnic in layer.inventory.vnics:
            for family, address in vnic.addresses:
                if family == version:
                    groups = owners.setdefault(vnic.machine or vnic.id, {})
                    key = (*_signature(walks, version, address), layer.inventory.owner(family, address))
                    same = groups.setdefault(key, [])
                    if address not in same:
                        same.append(address)
    for name, groups in owners.items():
        for addresses in groups.values():
            label = name if len(groups) == 1 else f"{name} ({range_text(addresses[0], addresses[0], version)})"
            yield Endpoint(label, version, ValueSet.numbers(*addresses).v4, True)


def outside_endpoints(walks: list[PointWalk], version: int, owned: list[Endpoint]) -> Iterator[Endpoint]:
    """The unowned addresses, grouped by signature."""
    largest = MAX_V6 if version == 6 else MAX_V4
    taken = ValueSet.numbers(*(span for e in owned for span in e.addresses)).v4
    cuts = {0}
    for walk in walks:
        for values in walk.sets():
            for low, high in values.v6 if version == 6 else values.v4:
                cuts |= {low, high + 1}
    if len(cuts) == 1 and version == 6 and not owned:
        return  # nobody speaks of IPv6
    starts = sorted(cut for cut in cuts if cut <= largest)
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for low, high in _gaps(taken, largest):
        inside = starts[bisect_right(starts, low) : bisect_left(starts, high + 1)]
        ends = [cut - 1 for cut in inside] + [high]
        for start, end in zip([low, *inside], ends, strict=True):
            groups.setdefault(_signature(walks, version, start), []).append((start, end))
    for spans in groups.values():
        merged = ValueSet.numbers(*spans).v4
        yield Endpoint(", ".join(range_text(lo, hi, version) for lo, hi in merged), version, merged, False)


def _gaps(taken: Span, largest: int) -> Iterator[tuple[int, int]]:
    start = 0
    for low, high in taken:
        if low > start:
            yield start, low - 1
        start = high + 1
    if start <= largest:
        yield start, largest
