"""Every header of a small world against random rule sets of a grammar: nothing is sampled on the header side.

A world has a few bits a field, 9 to 12 in all. Its bits are the low bits of the real fields, or the high bits of the
addresses, where trees begin to look. The grammar draws prefixes, ranges, sets of both and free fields. The truth is the
linear scan that shares nothing with the core.
``python -m tests.differential.large`` runs the same with more sets.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from meshsieve import _core, packets
from meshsieve.columns import PacketColumns
from meshsieve.errors import CompileError
from meshsieve.model import FIELD_INDEX, Rule, RuleSet, ValueSet
from tests.reference.linear_scan import LinearScan

ENGINES = [name for name, _ in _core.engines()]
BACKENDS = _core.backends()


@dataclass(frozen=True)
class SmallWorld:
    """``bits`` a field; addresses are shifted up by ``shift``; with ``gaps`` a packet may also lack the field."""

    name: str
    bits: dict[str, int]
    shift: int = 0
    gaps: bool = False

    def shift_of(self, field: str) -> int:
        return self.shift if field.endswith("_ip") else 0

    def headers(self) -> PacketColumns:
        grid = np.array(list(itertools.product(*(range((1 << b) + self.gaps) for b in self.bits.values()))), np.uint64)
        lacks = grid == np.array([1 << b for b in self.bits.values()], np.uint64)
        grid[lacks] = 0
        columns = {f: grid[:, i] << np.uint64(self.shift_of(f)) for i, f in enumerate(self.bits)}
        present = (~lacks << np.array([FIELD_INDEX[f] for f in self.bits])).sum(axis=1)
        return PacketColumns(columns, present=present if self.gaps else None, length=len(grid))

    def values(self, field: str, random: np.random.Generator) -> ValueSet:
        bits, shift = self.bits[field], self.shift_of(field)
        spans = []
        for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
            if random.random() < 0.5:
                free = int(random.integers(0, bits + 1))
                low = int(random.integers(0, 1 << bits)) >> free << free
                high = low + (1 << free) - 1
            else:
                low, high = sorted(int(v) for v in random.integers(0, 1 << bits, 2))
            spans.append((low << shift, (high + 1 << shift) - 1))
        return ValueSet.numbers(*spans)

    def rules(self, random: np.random.Generator) -> RuleSet:
        def match(share: float) -> dict[str, ValueSet]:
            return {f: self.values(f, random) for f in self.bits if random.random() < share}

        return RuleSet(
            [
                Rule(
                    match(0.6),
                    alternatives=tuple(match(0.5) for _ in range(int(random.choice([0, 0, 0, 1, 2])))),
                    unknown=("clause",) if random.random() < 0.05 else (),
                )
                for _ in range(int(random.integers(1, 30)))
            ]
        )


WORLDS = [
    SmallWorld("the low bits", {"src_ip": 3, "dst_ip": 3, "sport": 1, "dport": 2, "proto": 1}),
    SmallWorld("the high bits of addresses", {"src_ip": 4, "dst_ip": 4, "dport": 2}, shift=28),
    SmallWorld("one long field", {"dport": 11}),
    SmallWorld("fields of every width", {"src_ip": 2, "vnic": 2, "ip_length": 2, "dscp": 2, "direction": 2}, shift=15),
    SmallWorld("packets with gaps", {"src_ip": 2, "dst_ip": 2, "dport": 2, "tcp_flags": 1, "proto": 3}, gaps=True),
]


def wrong_answers(world: SmallWorld, engines: Sequence[str], sets: int, seed: int) -> Counter[str]:
    """Headers that an engine answers otherwise than the linear scan, in ``sets`` rule sets, each on one backend."""
    headers = world.headers()
    random = np.random.default_rng(seed)
    wrong = Counter(dict.fromkeys(engines, 0))
    for i in range(sets):
        rules = world.rules(random)
        expected = LinearScan(rules)(headers)
        for engine in engines:
            try:
                clf = packets.compile(rules, engine=engine, backend=BACKENDS[i % len(BACKENDS)])
            except CompileError:
                continue
            wrong[engine] += int((clf.classify_batch(headers) != expected).sum())
    return wrong


@pytest.mark.parametrize("world", WORLDS, ids=[w.name for w in WORLDS])
def test_every_header_of_a_small_world(world: SmallWorld) -> None:
    assert set(world.bits) <= set(FIELD_INDEX)
    assert 9 <= sum(world.bits.values()) <= 12
    assert wrong_answers(world, ENGINES, sets=60, seed=1) == dict.fromkeys(ENGINES, 0)
