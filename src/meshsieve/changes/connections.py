"""Which connections two sets of layers judge differently: exact, by set algebra over the rules.

What    Addresses fall into classes that no rule of either side can tell apart (``connectivity``). For a pair of classes
        each side cuts all connections into parts by who decides them, over all its points in order; where two parts
        of unlike verdict meet, something changes, and both rules are known.
Why     A capture shows what changes for traffic that was there; a change for traffic that was not there yet is found
        only this way.
Cost    Only pairs of classes are looked at for which a rule applies that is not the same, in the same order, on both
        sides; what two pairs share (the rules that apply) is compared once.
Limits  As for ``connectivity``: a connection is judged by its first packet, and what depends on more is undecided.
        Beyond ``MAX_PAIRS`` pairs of classes the question is refused, not answered in part.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Literal

from meshsieve.changes.model import Answer, Change, change_kind
from meshsieve.connectivity import (
    ICMP_PROTOCOLS,
    NO_RULE,
    PORT_PROTOCOLS,
    Connections,
    Endpoint,
    PointWalk,
    Region,
    Sides,
    everything,
    intersect,
    merge,
    outside_endpoints,
    rewrite_matters,
)
from meshsieve.decision import EXCLUDED
from meshsieve.errors import UsageError
from meshsieve.model import Action, ValueSet
from meshsieve.policy import Layer, Verdict, owner_name
from meshsieve.protocols import PROTOCOL_NAMES

MAX_PAIRS = 2_000_000
CLIENT_PORT = 40_000
ROLES: tuple[Literal["src"], Literal["dst"]] = "src", "dst"
NAMED = 400  # members of a class that a change names

# By point the entries that can apply, as bits; None: it does not judge this; PASSES: it lets its interface pass.
Applying = tuple[int | None, ...]
Asked = tuple[Applying, tuple[Sides, ...]]  # and through which interfaces the way leads to each point
PASSES = -1
Decider = tuple[int, Verdict, int, int]  # weight, verdict, position of the point, rule
NOBODY: Decider = (0, Verdict.NO_MATCH, -1, NO_RULE)
_DENIED, _UNDECIDED = 6, 5
# As in ``decision``: what of several points' answers is named.
_WEIGHT = {Verdict.ALLOW: 2, Verdict.NO_MATCH: 3, Verdict.PENDING: 4, Verdict.UNDECIDED: _UNDECIDED,
           Verdict.DROP: _DENIED, Verdict.REJECT: _DENIED}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Connections from any member of one class to any of another that the two sides judge differently, by who decides
    them."""

    sources: tuple[Endpoint, ...]
    destinations: tuple[Endpoint, ...]
    connections: Connections
    old: Answer
    new: Answer

    def change(self) -> Change:
        kind = change_kind(self.old, self.new)
        assert kind is not None
        witness = _packet(self.connections, *_ends(self.sources, self.destinations))
        names = _names(self.sources), _names(self.destinations)
        return Change(kind, "connections", *names, str(self.connections), self.old, self.new, witness)


def connection_changes(old: Sequence[Layer], new: Sequence[Layer]) -> Iterator[Change]:
    """Every change, grouped by who asks whom and by both deciders, in a fixed order.

    raises  UsageError where the two sides differ too much to be compared pair by pair
    """
    return (difference.change() for difference in differences(old, new))


def differences(old: Sequence[Layer], new: Sequence[Layer]) -> Iterator[Difference]:
    """The same as sets.

    raises  UsageError as above
    """
    sides = _Side(old), _Side(new)
    unlike = _mark_changed(*sides)
    classes = _classes(sides)
    known: dict[object, list[tuple[Connections, Decider, Decider]]] = {}
    for src, dst in _pairs(classes, sides, unlike):
        asked = sides[0].asked(0, src, dst), sides[1].asked(1, src, dst)
        if not any(bits is not None for applying, _ in asked for bits in applying):
            continue
        if not unlike and sides[0].sameness(asked[0]) == sides[1].sameness(asked[1]):
            continue
        key = (src.version, *asked)
        if key not in known:
            known[key] = list(_unlike_cells(sides, asked, src.version))
        for connections, before, after in known[key]:
            answers = sides[0].answer(before), sides[1].answer(after)
            yield Difference(src.members, dst.members, connections, *answers)


class _Side:
    """One of the two policies."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self.walks = [PointWalk(layer, p) for layer in layers for p in layer.points if p.role != "advise"]
        # What each entry says, and what of it is left to say when its addresses are known; equal texts of both sides
        # are equal objects.
        self.contents = [_contents(walk) for walk in self.walks]
        self.rests = [[(c[0], c[2]) for c in contents] for contents in self.contents]
        self.skips = [bool((walk.point.rules.actions == Action.SKIP).any()) for walk in self.walks]
        self.changed = [0] * len(self.walks)
        self._same: list[dict[int, tuple[object, ...]]] = [{} for _ in self.walks]
        self._cells: dict[tuple[Asked, int], list[tuple[int | None, Region, Decider]]] = {}

    def structure(self) -> list[object]:
        return [
            (
                w.point.role,
                w.point.default,
                sorted(w.point.constants.items()),
                w.point.vnic_of,
                w.layer.families,
                w.point.crossing,
            )
            for w in self.walks
        ]

    def asked(self, number: int, src: _Class, dst: _Class) -> Asked:
        """For each point the entries that can apply to the pair, and the interfaces by which it leads there."""
        ends = _ends(src.members, dst.members)
        applying = tuple(
            None if s is None or d is None or not walk.comes(*ends) else PASSES if PASSES in (s, d) else s & d
            for walk, s, d in zip(self.walks, src.as_src[number], dst.as_dst[number], strict=True)
        )
        sides = (() if bits is None else walk.sides(*ends) for walk, bits in zip(self.walks, applying, strict=True))
        return applying, tuple(sides)

    def sameness(self, asked: Asked) -> object:
        """Equal for both sides only if they decide the pair alike."""
        applying, sides = asked
        return sides, tuple(None if bits is None else self._rest(number, bits) for number, bits in enumerate(applying))

    def _rest(self, number: int, bits: int) -> tuple[object, ...]:
        if bits == PASSES:
            return ("passes",)
        if self.skips[number] and self.changed[number]:
            return (id(self),)  # where a jump leads cannot be told from these entries alone
        known = self._same[number].get(bits)
        if known is None:
            known = self._same[number][bits] = tuple(self.rests[number][i] for i in _bits(bits))
        return known

    def cells(self, asked: Asked, version: int) -> list[tuple[int | None, Region, Decider]]:
        """All connections cut into disjoint parts by who decides them, over all points."""
        key = (asked, version)
        if key not in self._cells:
            self._cells[key] = self._decided(*asked, version)
        return self._cells[key]

    def _decided(
        self, applying: Applying, sides: tuple[Sides, ...], version: int
    ) -> list[tuple[int | None, Region, Decider]]:
        cells: dict[tuple[int | None, Decider], Region] = {(p, NOBODY): r for p, r in everything(version).items()}
        for number, (walk, entries) in enumerate(zip(self.walks, applying, strict=True)):
            if entries is None:
                continue
            if entries == PASSES:
                parts = {p: [(r, (1, Verdict.ALLOW, number, EXCLUDED))] for p, r in everything(version).items()}
                cells = _joined(cells, parts)
                continue
            idle = walk.point.role == "translate" and not rewrite_matters(
                walk, self.walks[number + 1 :], applying[number + 1 :]
            )
            parts = {proto: [] for proto in everything(version)}
            for part in walk.parts(entries, sides[number], version):
                weight = _weight(walk, part.verdict, part.rule, idle)
                parts[part.proto].append((part.region, (weight, part.verdict, number, part.rule)))
            cells = _joined(cells, parts)
        return [(proto, region, best) for (proto, best), region in cells.items()]

    def answer(self, decider: Decider) -> Answer:
        weight, verdict, number, rule = decider
        if not weight:
            return Answer("NONE", reason="no enforcement point applies")
        walk = self.walks[number]
        title = f"{walk.layer.name} {walk.point.name}"
        if rule == EXCLUDED:
            return Answer(verdict.name, title, reason="the vNIC is excluded from filtering")
        if rule == NO_RULE:
            return Answer(verdict.name, title, reason=f"no rule matched, default {verdict.name}")
        name, source = walk.point.rules.label(rule)
        return Answer(verdict.name, title, name or f"#{rule}", str(source) or None)


def _joined(
    cells: dict[tuple[int | None, Decider], Region], parts: Mapping[int | None, list[tuple[Region, Decider]]]
) -> dict[tuple[int | None, Decider], Region]:
    """What is decided by the points so far, and then by the parts of one more."""
    after: dict[tuple[int | None, Decider], list[Region]] = defaultdict(list)
    for (proto, best), region in cells.items():
        if best[0] == _DENIED:  # nothing behind the first denial is asked
            after[proto, best].append(region)
            continue
        for other, own in parts[proto]:
            if both := tuple(box for part in other for box in intersect(region, part)):
                after[proto, own if own[0] > best[0] else best].append(both)
    return {key: merge(box for r in regions for box in r) for key, regions in after.items()}


def _weight(walk: PointWalk, verdict: Verdict, rule: int, idle: bool) -> int:
    if idle and rule in walk.point.rewrites:
        return 0
    weight = 1 if verdict == Verdict.ALLOW and rule == NO_RULE else _WEIGHT[verdict]
    return weight if walk.point.role == "filter" or weight >= _UNDECIDED else 0


Content = tuple[object, object, object]


def _contents(walk: PointWalk) -> list[Content]:
    """What each entry says: of everything but addresses, of addresses, and what it does. Names stand as codes of their
    rule list, so that list belongs to what is said."""
    rules = walk.point.rules
    codes: dict[str, object] = {name: tuple(known.cuts) for name, known in rules.names.items()}
    codes["mark"] = repr(rules.marks)
    places = ("src_ip", "dst_ip", "vnic")
    out: list[Content] = []
    for entry in walk.entries:
        action, rewrite = Action(int(rules.actions[entry.rule])), walk.point.rewrites.get(entry.rule)
        target = rules.skip_target(entry.rule) if action == Action.SKIP else -1
        out.append(
            (
                frozenset((name, v, codes.get(name)) for name, v in entry.match.items() if name not in places),
                frozenset((name, v) for name, v in entry.match.items() if name in places),
                (action, entry.certain, target, "" if rewrite is None else repr(rewrite)),
            )
        )
    return out


def _mark_changed(old: _Side, new: _Side) -> bool:
    """Sets the bits of entries that are not the same, in the same order, on both sides. True: points themselves differ,
    so that entries cannot be compared one by one."""
    if old.structure() != new.structure():
        return True
    for number, (a, b) in enumerate(zip(old.contents, new.contents, strict=True)):
        if a == b:
            continue
        if old.skips[number] or new.skips[number]:  # a jump may pass over other entries than before
            old.changed[number], new.changed[number] = (1 << len(a)) - 1, (1 << len(b)) - 1
            continue
        ids: dict[Content, int] = {}
        before, after = ([ids.setdefault(content, len(ids)) for content in contents] for contents in (a, b))
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
            if tag != "equal":
                old.changed[number] |= (1 << i2) - (1 << i1)
                new.changed[number] |= (1 << j2) - (1 << j1)
    return False


@dataclass(frozen=True)
class _Class:
    """Endpoints that no rule of either side tells apart.

    as_src, as_dst  by side, for each point the entries that do not refuse them in this role
    moved           another interface owns them on the new side than on the old one
    """

    version: int
    moved: bool
    members: tuple[Endpoint, ...]
    as_src: tuple[Applying, ...]
    as_dst: tuple[Applying, ...]


def _classes(sides: tuple[_Side, _Side]) -> list[_Class]:
    walks = [walk for side in sides for walk in side.walks]
    layers = [layer for side in sides for layer in side.layers]
    apart = any(walk.point.crossing is not None for walk in walks)  # whose way leads where depends on the address
    groups: dict[tuple[_Class, int | None], list[Endpoint]] = {}
    for version in (4, 6):
        owned = list(_owned(sides, walks, layers, version))
        for number, end in enumerate([*owned, *outside_endpoints(walks, version, owned)]):
            roles = [tuple(tuple(_role(walk, role, end) for walk in side.walks) for side in sides) for role in ROLES]
            owners = [[walk.layer.inventory.owner(version, end.address) for walk in side.walks] for side in sides]
            key = _Class(version, owners[0] != owners[1], (), roles[0], roles[1]), number if apart else None
            groups.setdefault(key, []).append(end)
    return [replace(shape, members=tuple(members)) for (shape, _), members in groups.items()]


def _role(walk: PointWalk, role: Literal["src", "dst"], end: Endpoint) -> int | None:
    """The entries of a point that do not refuse the endpoint in a role."""
    if walk.point.vnic_of == role and end.version in walk.layer.families:
        owner = walk.layer.inventory.owner(end.version, end.address)
        if owner in walk.point.excluded:
            return PASSES
    return walk.side(role, end)


def _owned(
    sides: tuple[_Side, _Side], walks: Sequence[PointWalk], layers: Sequence[Layer], version: int
) -> Iterator[Endpoint]:
    """One endpoint for each machine and set of memberships; an address has the name that the new side gives it."""
    groups: dict[tuple[str, object], list[int]] = {}
    for layer in (*sides[1].layers, *sides[0].layers):
        for vnic in layer.inventory.vnics:
            for family, address in vnic.addresses:
                if family == version:
                    name = owner_name((*sides[1].layers, *sides[0].layers), version, address) or vnic.id
                    same = (
                        tuple(w.members(f, version, address) for w in walks for f in ("src_ip", "dst_ip")),
                        tuple(other.inventory.owner(version, address) for other in layers),
                    )
                    found = groups.setdefault((name, same), [])
                    if address not in found:
                        found.append(address)
    seen: set[int] = set()
    for (name, _), addresses in groups.items():
        fresh = [a for a in addresses if a not in seen]
        seen.update(fresh)
        if fresh:
            yield Endpoint(name, version, ValueSet.numbers(*fresh).v4, True)


def _pairs(classes: Sequence[_Class], sides: tuple[_Side, _Side], unlike: bool) -> Iterator[tuple[_Class, _Class]]:
    """Pairs of classes between which something may change: a changed entry applies to both, or a point judges one of
    them on one side only."""

    def moved(c: _Class, roles: tuple[Applying, ...]) -> bool:
        shapes = [[bits if bits is None or bits == PASSES else 0 for bits in role] for role in roles]
        return unlike or c.moved or shapes[0] != shapes[1]

    def touched(roles: tuple[Applying, ...]) -> bool:
        return any(
            bits is not None and bits & changed
            for side, own in zip(sides, roles, strict=True)
            for bits, changed in zip(own, side.changed, strict=True)
        )

    destinations = [(c, moved(c, c.as_dst), touched(c.as_dst)) for c in classes]
    some = [c for c, everywhere, there in destinations if everywhere or there]
    always = [c for c, everywhere, _ in destinations if everywhere]
    chosen = [(src, classes if moved(src, src.as_src) else some if touched(src.as_src) else always) for src in classes]
    count = sum(len(others) for _, others in chosen)
    if count > MAX_PAIRS:
        raise UsageError(
            f"the two policies differ for {count:,} pairs of classes of addresses; more than {MAX_PAIRS:,} are not "
            "compared from the rules alone: give traffic with -r or --requests"
        )
    for src, others in chosen:
        only = src.members[0]
        single = len(src.members) == 1 and only.addresses == ((only.address, only.address),)
        for dst in others:
            if src.version == dst.version and not (src is dst and single):
                yield src, dst


def _ends(src: Sequence[Endpoint], dst: Sequence[Endpoint]) -> tuple[Endpoint, Endpoint]:
    """One of each, not the same machine."""
    return src[0], dst[1 if len(dst) > 1 and dst[0] is src[0] else 0]


def _names(members: Sequence[Endpoint]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(e.name for e in members))[:NAMED]


def _unlike_cells(
    sides: tuple[_Side, _Side], asked: tuple[Asked, Asked], version: int
) -> Iterator[tuple[Connections, Decider, Decider]]:
    found: dict[tuple[Decider, Decider], dict[int | None, Region]] = {}
    after = defaultdict(list)
    for proto, region, decider in sides[1].cells(asked[1], version):
        after[proto].append((region, decider))
    for proto, region, before in sides[0].cells(asked[0], version):
        for other, then in after[proto]:
            if _action(before) != _action(then) and (
                both := tuple(b for part in other for b in intersect(region, part))
            ):
                regions = found.setdefault((before, then), {})
                regions[proto] = merge((*regions.get(proto, ()), *both))
    for (before, then), regions in found.items():
        order = [p for p in everything(version) if p in regions]
        yield Connections({p: regions[p] for p in order}, version), before, then


def _action(decider: Decider) -> str:
    return decider[1].name if decider[0] else "NONE"


def _bits(number: int) -> Iterator[int]:
    while number:
        yield (number & -number).bit_length() - 1
        number &= number - 1


def _packet(connections: Connections, src: Endpoint, dst: Endpoint) -> str:
    """One connection of the set, written down."""
    proto, region = next((p, r) for p, r in connections.regions.items() if r)
    first, second = region[0]
    source, destination = _address(src.version, src.address), _address(dst.version, _other_address(dst, src))
    if proto in PORT_PROTOCOLS:
        sport = CLIENT_PORT if first.contains(CLIENT_PORT) else first.v4[-1][1]
        dport = next((n for low, high in second.v4 for n in (low, low + 1) if 0 < n <= high), 0)
        return f"{PROTOCOL_NAMES[proto]} {_end(source, sport)} > {_end(destination, dport)}"
    if proto in ICMP_PROTOCOLS:
        echo = {1: 8, 58: 128}[proto]
        kind, code = echo if first.contains(echo) else first.v4[0][0], second.v4[0][0]
        return f"{PROTOCOL_NAMES[proto]} {source} > {destination} icmp_type {kind} icmp_code {code}"
    return f"{PROTOCOL_NAMES[first.v4[0][0]]} {source} > {destination}"


def _other_address(end: Endpoint, than: Endpoint) -> int:
    """An address of the class, another than the first of ``than`` if there is one."""
    candidates = (n for low, high in end.addresses for n in (low, low + 1) if n <= high and n != than.address)
    return next(candidates, end.address)


def _address(version: int, number: int) -> str:
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
