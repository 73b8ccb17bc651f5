"""Seeded rule sets in the manner of ClassBench, of any size.

What     ``rules(family, n, seed)`` gives at most n boxes, highest priority first. The same arguments give the same
         boxes on every machine (numpy PCG64 and integer arithmetic only).
How      1. a pair of prefix lengths a rule, from the family's table;
         2. both addresses by a walk down a random binary tree. The tree is never stored: what a node looks like
            (does it branch, which child is the heavy one) is a hash of seed, level and prefix, so rules that reach a
            node agree on it. Prefixes of different lengths therefore nest, as those of real sites do;
         3. protocol and port classes together from the family's table; single ports and ranges from a pool shared by
            the rule set, the n-th most popular used 1/n as often;
         4. duplicates are dropped, which ClassBench's generator does too, and more are drawn until n rules stand or a
            round brings almost nothing new (a family can be exhausted: ``len(rules)`` says how many there are);
         5. smaller boxes first (by volume, ties at random), so that no rule hides behind one rule that covers it.
Cost     about 5 us a rule.
Limits   no correlation between the two sides' addresses; no flags field.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from benches.boxes import LARGEST, Boxes
from benches.families import FAMILIES, LENGTHS, Family, Tree

ROUNDS = 12
EXHAUSTED = 0.002  # a round that brings fewer new rules than this share of n is the last


def rules(family: str, n: int, seed: int = 1) -> Boxes:
    """uint32 (at most n, 10) boxes (benches/boxes.py), highest priority first.

    raises  KeyError for an unknown family
    """
    shape = FAMILIES[family]
    rng = np.random.default_rng([seed, n, *family.encode()])
    tree_seeds = rng.integers(0, 2**63, 2, dtype=np.uint64)
    pools = [_port_pool(rng, shape.exact[side], shape.ranges[side]) for side in range(2)]
    found = np.empty((0, 10), np.uint32)
    for _ in range(ROUNDS):
        missing = n - len(found)
        batch = _draw(shape, n, missing + missing // 4 + 16, rng, tree_seeds, pools)
        together = np.concatenate([found, batch])
        _, first = np.unique(together.view([("row", np.void, 40)]).ravel(), return_index=True)
        grown = together[np.sort(first)][:n]
        few = len(grown) - len(found) < EXHAUSTED * n
        found = grown
        if len(found) == n or few:
            break
    return _smallest_first(found, rng)


def _draw(
    shape: Family,
    n: int,
    count: int,
    rng: np.random.Generator,
    tree_seeds: npt.NDArray[np.uint64],
    pools: list[npt.NDArray[np.uint32]],
) -> Boxes:
    """``count`` boxes of a set that is to hold n, duplicates among them."""
    boxes = np.empty((count, 10), np.uint32)
    kinds = list(shape.lengths)
    kind = _pick(rng, list(shape.lengths.values()), count)
    for side, tree in enumerate((shape.source, shape.destination)):
        lengths = np.zeros(count, np.uint32)
        for k, pair in enumerate(kinds):
            rows = np.flatnonzero(kind == k)
            weights = LENGTHS[pair[side]]
            lengths[rows] = np.array(list(weights), np.uint32)[_pick(rng, list(weights.values()), len(rows))]
        boxes[:, 2 * side : 2 * side + 2] = _prefixes(tree, n, lengths, int(tree_seeds[side]), rng)
    services = list(shape.ports)
    service = _pick(rng, list(shape.ports.values()), count)
    for k, (proto, *classes) in enumerate(services):
        rows = np.flatnonzero(service == k)
        boxes[rows, 8:] = (0, LARGEST[4]) if proto < 0 else (proto, proto)
        for side, port_class in enumerate(classes):
            boxes[rows, 4 + 2 * side : 6 + 2 * side] = _ports(
                port_class, pools[side], shape.exact[side], len(rows), rng
            )
    return boxes


def _pick(rng: np.random.Generator, weights: list[float], count: int) -> npt.NDArray[np.int64]:
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")


# --- ports --------------------------------------------------------------------------------------------------------


def _port_pool(rng: np.random.Generator, exact: int, ranges: int) -> npt.NDArray[np.uint32]:
    """uint32 (exact + ranges, 2): the single ports of a side, most popular first, then its ranges. Two thirds of the
    ports are well known ones, as services are; a range starts at a port and spans up to some thousands."""
    low = rng.integers(1, 1024, exact)
    high = rng.integers(1024, 49152, exact)
    single = np.where(rng.random(exact) < 2 / 3, low, high)
    start = np.where(rng.random(ranges) < 1 / 2, rng.integers(1, 1024, ranges), rng.integers(1024, 60000, ranges))
    width = np.exp(rng.random(ranges) * math.log(8000)).astype(np.int64) + 1
    pool = np.stack(
        [np.concatenate([single, start]), np.concatenate([single, np.minimum(start + width, 65535)])], axis=1
    )
    return pool.astype(np.uint32)


def _ports(
    port_class: str, pool: npt.NDArray[np.uint32], exact: int, count: int, rng: np.random.Generator
) -> npt.NDArray[np.uint32] | tuple[int, int]:
    fixed = {"W": (0, 65535), "H": (1024, 65535), "L": (0, 1023)}
    if port_class in fixed:
        return fixed[port_class]
    some = pool[:exact] if port_class == "E" else pool[exact:]
    return some[_pick(rng, [1 / (rank + 1) for rank in range(len(some))], count)]


# --- addresses ----------------------------------------------------------------------------------------------------


def _prefixes(
    tree: Tree, n: int, lengths: npt.NDArray[np.uint32], seed: int, rng: np.random.Generator
) -> npt.NDArray[np.uint32]:
    """uint32 (len(lengths), 2): low and high end of one prefix of each given length."""
    branching = _branching(tree, n)
    prefix = np.zeros(len(lengths), np.uint64)
    for level in range(32):
        # 48 hash bits a node: does it branch (16), how uneven (16), which child is the heavier or only one (1).
        node = _mix(prefix ^ np.uint64((seed + level * 0x9E3779B97F4A7C15) % 2**64))
        branches = (node & np.uint64(0xFFFF)) < np.uint64(int(branching[level] * 0x10000))
        uneven = (node >> np.uint64(16) & np.uint64(0xFFFF)).astype(np.int64) * int(tree.skew * 0x8000) >> 16
        heavy = node >> np.uint64(32) & np.uint64(1)
        lighter = branches & (rng.integers(0, 0x10000, len(lengths)) < 0x8000 - uneven)
        prefix = prefix << np.uint64(1) | (heavy ^ lighter.astype(np.uint64))
    low_bits = (np.uint64(1) << (np.uint64(32) - lengths.astype(np.uint64))) - np.uint64(1)
    return np.stack([prefix & ~low_bits, prefix | low_bits], axis=1).astype(np.uint32)


def _branching(tree: Tree, n: int) -> list[float]:
    """Share of the nodes of each level that have two children, such that about tree.distinct addresses exist.

    The shares add up to the logarithm of their number, in proportion to tree.octets, none above 1."""
    scale, power = tree.distinct
    wanted = min(30.0, math.log2(scale * n**power))
    shares = [0.0] * 32
    weights = [tree.octets[level // 8] for level in range(32)]
    for _ in range(8):  # what a full level cannot take goes to the others
        free = [level for level in range(32) if shares[level] < 1]
        left, total = wanted - sum(shares), sum(weights[level] for level in free)
        if left < 1e-6 or not total:
            break
        for level in free:
            shares[level] = min(1.0, shares[level] + left * weights[level] / total)
    return shares


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection that spreads every bit."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def _smallest_first(boxes: Boxes, rng: np.random.Generator) -> Boxes:
    spans = (boxes[:, 1::2].astype(np.uint64) - boxes[:, 0::2] + np.uint64(1)).astype(np.float64)
    volume = np.log2(spans).sum(axis=1)
    # A box inside another has a strictly smaller volume, but port ranges are no powers of two: round to what a sum of
    # five logarithms can be wrong by, so that equal volumes tie on every machine.
    return boxes[np.lexsort((rng.random(len(boxes)), np.round(volume, 6)))]
