"""What part of the key space each host owns, and what part moves between two configurations: counted, not sampled.

A placement is a hash balancer cut into *lanes*: with priorities the hash mod 100 names the lane, and each lane has one
table: slots (Maglev), arcs (ring) or bounds (cumulative weights).

Two lanes with tables of one structure are counted piece by piece: slot against slot (same M), arc against arc, bound
against bound. Another prime M, or a ring against Maglev, are independent of each other, so a pair of hosts shares the
product of their parts. So is the lane of the slot or arc, except for M of 2 and 5, which divide 100 and are counted
residue by residue. A split or IP hash and a hash table do not read the same hash: only their shares are compared.

``error`` bounds what is not counted exactly: the remainder of 2**64 by the moduli, and the ends of arcs. It is below
1e-11 for all but the largest tables.

Source: arithmetic only; independence is the Chinese remainder theorem.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.balance.cluster import ChancePolicy, Cluster
from meshsieve.balance.hosts import Health
from meshsieve.balance.rotation import Random, RoundRobin
from meshsieve.balance.tables import HashBalancer, IpHash, KatranMaglev, Maglev, RingHash, WeightedClusters
from meshsieve.errors import BalanceError

Codes = npt.NDArray[np.int64]
NOBODY = "(no host)"
RESIDUES = 100
SPACE = 2**64


@dataclass(frozen=True)
class Slots:
    """Owner of every residue mod len(owners)."""

    owners: Codes

    def parts(self) -> dict[int, Fraction]:
        return _counted(self.owners, np.ones(len(self.owners), np.uint64), len(self.owners))


@dataclass(frozen=True)
class Arcs:
    """Owner of the hashes after the previous entry up to and with this one; the first entry also owns those past the
    last."""

    hashes: npt.NDArray[np.uint64]
    owners: Codes

    def parts(self) -> dict[int, Fraction]:
        return _counted(self.owners, _arc_lengths(self.hashes), SPACE)


@dataclass(frozen=True)
class Bounds:
    """Cumulative weights: owner i has the residues mod the total from bounds[i-1] up to bounds[i]."""

    weights: tuple[int, ...]
    owners: tuple[int, ...]

    def parts(self) -> dict[int, Fraction]:
        total = sum(self.weights)
        parts: dict[int, Fraction] = defaultdict(Fraction)
        for owner, weight in zip(self.owners, self.weights, strict=True):
            parts[owner] += Fraction(weight, total)
        return dict(parts)


Table = Slots | Arcs | Bounds


@dataclass(frozen=True)
class Placement:
    """names: of the owners, by code; -1 is nobody. lane_of: the lane of every residue of the hash mod 100."""

    names: tuple[str, ...]
    lanes: tuple[Table, ...]
    lane_of: tuple[int, ...]

    def shares(self) -> list[Fraction]:
        """Share of the key space of every owner, by code; what is missing to 1 gets no host."""
        shares = [Fraction(0)] * len(self.names)
        for lane, table in enumerate(self.lanes):
            weight = Fraction(self.lane_of.count(lane), RESIDUES)
            for owner, part in table.parts().items() if weight else ():
                if owner >= 0:
                    shares[owner] += weight * part
        return shares


@dataclass(frozen=True)
class Movement:
    """What a change of configuration moves.

    share     of the key space that gets another host
    minimum   the least that any placement with the new shares would have to move
    flows     (from, to) -> share, the largest first
    kind      "exact": counted; "distribution": the balancer has no keys, so share = minimum
    error     bound on what share and flows may be off
    """

    share: Fraction
    minimum: Fraction
    flows: dict[tuple[str, str], Fraction]
    kind: str
    error: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "share": float(self.share),
            "minimum": float(self.minimum),
            "kind": self.kind,
            "error": self.error,
            "flows": [{"from": a, "to": b, "share": float(part)} for (a, b), part in self.flows.items()],
        }


Balancer = HashBalancer | RoundRobin


def placement_of(balancer: HashBalancer) -> Placement:
    """The placement behind a hash balancer.

    raises  BalanceError for a balancer whose picks do not follow from a key
    """
    if isinstance(balancer, WeightedClusters):
        bounds = Bounds(balancer.weights, tuple(range(len(balancer.names))))
        return Placement(balancer.names, (bounds,), (0,) * RESIDUES)
    names = tuple(host.name for host in balancer.hosts)
    if isinstance(balancer, IpHash):
        bounds = Bounds(tuple(host.weight for host in balancer.hosts), tuple(range(len(names))))
        return Placement(names, (bounds,), (0,) * RESIDUES)
    if isinstance(balancer, Maglev | KatranMaglev | RingHash):
        return _with_lanes(names, [_table(balancer.table)], [0] * RESIDUES)
    if isinstance(balancer, Cluster) and not isinstance(balancer.policy, ChancePolicy):
        lane_of = [level for level, _ in balancer.loads.residues()]
        return _with_lanes(names, [_table(table) for table in balancer.level_tables], lane_of)
    raise BalanceError(f"{balancer!r} does not place keys; compare its shares instead")


def placement_diff(old: Balancer, new: Balancer) -> Movement:
    """Which share of the key space moves from which host to which, hosts compared by name.

    For balancers without keys (round robin, random, least request), or of unlike keys, the answer is the least share of
    requests that must go elsewhere.
    """
    if isinstance(old, HashBalancer) and isinstance(new, HashBalancer) and _has_keys(old) and _has_keys(new):
        before, after = placement_of(old), placement_of(new)
        if isinstance(before.lanes[0], Bounds) == isinstance(after.lanes[0], Bounds):
            return _movement(before, after)
    minimum = _distance(shares_by_name(old), shares_by_name(new))
    return Movement(minimum, minimum, {}, "distribution", 0.0)


def shares_by_name(balancer: Balancer) -> dict[str, Fraction]:
    """Share of every host by name; what is missing to 1 is NOBODY's."""
    if isinstance(balancer, RoundRobin | Random):
        shares: Iterable[Fraction] = balancer.shares
        names: Sequence[str] = [host.name for host in balancer.hosts]
    elif isinstance(balancer, Cluster):
        shares, names = balancer.shares, [host.name for host in balancer.hosts]
    else:
        placement = placement_of(balancer)
        shares, names = placement.shares(), placement.names
    out: dict[str, Fraction] = defaultdict(Fraction)
    for name, share in zip(names, shares, strict=True):
        out[name] += share
    if rest := 1 - sum(out.values(), Fraction(0)):
        out[NOBODY] = rest
    return dict(out)


def moved_keys(old: HashBalancer, new: HashBalancer, keys: Sequence[str | bytes]) -> list[tuple[str | bytes, str, str]]:
    """(key, old host, new host) of every key of the list that moves, in its order."""
    before, after = old.pick_keys(keys), new.pick_keys(keys)
    names = _owner_names(old), _owner_names(new)
    moved = []
    for key, a, b in zip(keys, before, after, strict=True):
        pair = names[0][a] if a >= 0 else NOBODY, names[1][b] if b >= 0 else NOBODY
        if pair[0] != pair[1]:
            moved.append((key, *pair))
    return moved


def _has_keys(balancer: Balancer) -> bool:
    if isinstance(balancer, Cluster):
        return not isinstance(balancer.policy, ChancePolicy)
    return isinstance(balancer, HashBalancer) and not isinstance(balancer, Random)


def _owner_names(balancer: HashBalancer) -> tuple[str, ...]:
    return balancer.names if isinstance(balancer, WeightedClusters) else tuple(h.name for h in balancer.hosts)


def _table(table: _core.HostTable) -> Table:
    if isinstance(table, _core.RingTable):
        if len(table.hashes):
            return Arcs(table.hashes, table.hosts.astype(np.int64))
    elif isinstance(table, _core.MaglevTable) and len(table.slots):
        return Slots(table.slots.astype(np.int64))
    return Slots(np.array([-1]))


def _with_lanes(names: tuple[str, ...], tables: list[Table], lane_of: list[int]) -> Placement:
    lanes: list[Table] = []
    number: dict[tuple[int, int], int] = {}
    out = []
    for residue, level in enumerate(lane_of):
        table = tables[level]
        splits = isinstance(table, Slots) and len(table.owners) in (2, 5)
        key = (level, residue % len(table.owners) if splits else 0)
        if key not in number:
            number[key] = len(lanes)
            lanes.append(Slots(table.owners[key[1] : key[1] + 1]) if splits and isinstance(table, Slots) else table)
        out.append(number[key])
    return Placement(names, tuple(lanes), tuple(out))


def _movement(old: Placement, new: Placement) -> Movement:
    flows: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    pairs: dict[tuple[int, int], int] = defaultdict(int)
    for pair in zip(old.lane_of, new.lane_of, strict=True):
        pairs[pair] += 1
    error = 0.0
    for (a, b), residues in pairs.items():
        for owners, part in _joint(old.lanes[a], new.lanes[b]).items():
            flows[owners] += Fraction(residues, RESIDUES) * part
        error = max(error, _error(old.lanes[a], new.lanes[b]))
    named: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
    for (i, j), part in flows.items():
        named[old.names[i] if i >= 0 else NOBODY, new.names[j] if j >= 0 else NOBODY] += part
    moving = sorted(((p, pair) for pair, p in named.items() if pair[0] != pair[1] and p), key=lambda x: (-x[0], x[1]))
    before: dict[str, Fraction] = defaultdict(Fraction)
    after: dict[str, Fraction] = defaultdict(Fraction)
    for (name_a, name_b), part in named.items():
        before[name_a] += part
        after[name_b] += part
    share = sum((part for part, _ in moving), Fraction(0))
    return Movement(share, _distance(before, after), {pair: part for part, pair in moving}, "exact", error)


def _joint(a: Table, b: Table) -> dict[tuple[int, int], Fraction]:
    """Share of every (old owner, new owner)."""
    if isinstance(a, Slots) and isinstance(b, Slots) and len(a.owners) == len(b.owners):
        return _pairs(a.owners, b.owners, np.ones(len(a.owners), np.uint64), len(a.owners))
    if isinstance(a, Arcs) and isinstance(b, Arcs):
        ends = np.union1d(a.hashes, b.hashes)
        return _pairs(_owner_at(a, ends), _owner_at(b, ends), _arc_lengths(ends), SPACE)
    if isinstance(a, Bounds) and isinstance(b, Bounds):
        return _joint_bounds(a, b)
    return {(i, j): p * q for i, p in a.parts().items() for j, q in b.parts().items()}


def _joint_bounds(a: Bounds, b: Bounds) -> dict[tuple[int, int], Fraction]:
    """v mod T1 and v mod T2 meet whenever they agree mod g = gcd(T1, T2), each such pair equally often. The number of
    residues of an owner that are c mod g changes with c only at its bounds mod g."""
    totals = sum(a.weights), sum(b.weights)
    g = math.gcd(*totals)
    cuts = sorted({0, g} | {bound % g for table in (a, b) for bound in _cumulative(table.weights)})
    joint: dict[tuple[int, int], Fraction] = defaultdict(Fraction)
    for low, high in itertools.pairwise(cuts):
        left, right = _residues(a, low, g), _residues(b, low, g)
        for i, n in left.items():
            for j, m in right.items():
                joint[i, j] += Fraction((high - low) * n * m * g, totals[0] * totals[1])
    return dict(joint)


def _residues(table: Bounds, c: int, g: int) -> dict[int, int]:
    """Owner -> how many of its residues are c mod g."""
    counts: dict[int, int] = defaultdict(int)
    low = 0
    for owner, high in zip(table.owners, _cumulative(table.weights), strict=True):
        if n := (high - 1 - c) // g - (low - 1 - c) // g:
            counts[owner] += n
        low = high
    return dict(counts)


def _cumulative(weights: Sequence[int]) -> list[int]:
    return [int(bound) for bound in np.cumsum(np.array(weights, np.int64))]


def _error(a: Table, b: Table) -> float:
    """Pieces whose ends are counted as if they had full periods, each at most one period of 2**64."""
    if isinstance(a, Arcs) and isinstance(b, Arcs):
        return RESIDUES * (_size(a) + _size(b)) / SPACE
    return RESIDUES * _size(a) * (1 if type(a) is type(b) and _size(a) == _size(b) else _size(b)) / SPACE


def _size(table: Table) -> int:
    return sum(table.weights) if isinstance(table, Bounds) else len(table.owners)


def _owner_at(arcs: Arcs, hashes: npt.NDArray[np.uint64]) -> Codes:
    at = np.searchsorted(arcs.hashes, hashes, "left")
    return arcs.owners[np.where(at == len(arcs.hashes), 0, at)]


def _arc_lengths(ends: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hashes that end at each entry; of a single entry it is 2**64, which wraps to 0 (see _counted)."""
    return ends - np.roll(ends, 1)


def _pairs(a: Codes, b: Codes, lengths: npt.NDArray[np.uint64], whole: int) -> dict[tuple[int, int], Fraction]:
    width = int(max(b.max(), 0)) + 2
    counted = _counted((a + 1) * width + b + 1, lengths, whole)
    return {(code // width - 1, code % width - 1): part for code, part in counted.items()}


def _counted(codes: Codes, lengths: npt.NDArray[np.uint64], whole: int) -> dict[int, Fraction]:
    """Sum of lengths by code, as shares of ``whole``. Exact: three columns of bits, each summed below 2**53.
    A single owner has the whole."""
    kinds, index = np.unique(codes, return_inverse=True)
    if len(kinds) == 1:
        return {int(kinds[0]): Fraction(1)}
    sums = [0] * len(kinds)
    for shift, bits in ((0, 24), (24, 24), (48, 16)):
        column = (lengths >> np.uint64(shift)) & np.uint64(2**bits - 1)
        for k, part in enumerate(np.bincount(index, weights=column.astype(np.float64))):
            sums[k] += int(part) << shift
    return {int(kind): Fraction(total, whole) for kind, total in zip(kinds, sums, strict=True)}


def _distance(before: Mapping[str, Fraction], after: Mapping[str, Fraction]) -> Fraction:
    """Share that has to change hands: half the sum of the differences."""
    names = set(before) | set(after)
    zero = Fraction(0)
    return sum((abs(before.get(n, zero) - after.get(n, zero)) for n in names), zero) / 2


def host_down(cluster: Cluster, name: str) -> Movement:
    """What moves when a host turns unhealthy: its keys, and those that other priorities or panic take over.

    raises  BalanceError if no host has the name
    """
    hosts = cluster.hosts
    if all(host.name != name for host in hosts):
        raise BalanceError(f"no host is called {name}; there are: {', '.join(host.name for host in hosts[:10])}")
    after = [replace(host, health=Health.UNHEALTHY) if host.name == name else host for host in hosts]
    return placement_diff(cluster, Cluster(after, cluster.policy, cluster.settings))
