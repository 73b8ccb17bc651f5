"""Random rule lists and packets that meet: both families, absent fields, alternatives, skips, uncertain rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from meshsieve import _core
from meshsieve.columns import PacketColumns
from meshsieve.model import FIELD_INDEX, Action, Match, Rule, RuleSet, ValueSet

FIVE_TUPLE = ("src_ip", "dst_ip", "sport", "dport", "proto")
ALL_FIELDS = tuple(FIELD_INDEX)


class World:
    """A seeded pool of value sets for some fields, and rules and packets drawn from it."""

    def __init__(self, seed: int, fields: Sequence[str] = ALL_FIELDS, sets_a_field: int = 12, v6: bool = True) -> None:
        self.random = np.random.default_rng(seed)
        self.fields = tuple(fields)
        self.v6 = v6
        self.pool = {name: [self._values(name) for _ in range(sets_a_field)] for name in fields}

    def _bits(self, name: str) -> int:
        return _core.FIELDS[FIELD_INDEX[name]].bits

    def _spans(self, bits: int) -> list[tuple[int, int]]:
        """Prefixes, ranges and single values, near each other so that they nest and touch."""
        spans = []
        for _ in range(int(self.random.integers(1, 5))):
            size = (
                int(self.random.integers(0, bits + 1))
                if self.random.random() < 0.3
                else int(self.random.integers(0, min(bits, 12) + 1))
            )
            base = int(self.random.integers(0, 1 << min(bits, 14)))
            if bits > 14 and self.random.random() < 0.8:  # a few shared high parts
                base |= int(self.random.integers(0, 4)) << (bits - 3)
                base |= int(self.random.integers(0, 3)) << (bits // 2)
            if self.random.random() < 0.7:
                low = base >> size << size
                high = low + (1 << size) - 1
            else:
                low, high = base, min(base + int(self.random.integers(0, 1 << min(size, 20))), (1 << bits) - 1)
            spans.append((low, high))
        return spans

    def _values(self, name: str) -> ValueSet:
        if _core.FIELDS[FIELD_INDEX[name]].kind != "address":
            values = ValueSet.numbers(*self._spans(self._bits(name)))
        else:
            v4 = ValueSet.numbers(*self._spans(32)).v4 if not self.v6 or self.random.random() < 0.8 else ()
            v6 = ValueSet.numbers(*self._spans(128)).v4 if self.v6 and self.random.random() < 0.6 else ()
            values = ValueSet(v4, v6)
        if self.random.random() < 0.1:
            values = values.complement(name)
        return ValueSet() if self.random.random() < 0.02 else values

    def _match(self, fields: Sequence[str], share: float) -> Match:
        return {name: self._pick(self.pool[name]) for name in fields if self.random.random() < share}

    def _pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.random.integers(0, len(items)))]

    def rules(self, n: int, share: float = 0.4, skips: float = 0.0, uncertain: float = 0.05) -> RuleSet:
        services = [name for name in self.fields if not name.endswith("_ip")]
        rules = []
        for i in range(n):
            alternatives: tuple[Match, ...] = ()
            if services and self.random.random() < 0.3:
                alternatives = tuple(self._match(services, 0.3) for _ in range(int(self.random.integers(1, 4))))
            skip = self.random.random() < skips
            rules.append(
                Rule(
                    match=self._match(self.fields, share),
                    alternatives=alternatives,
                    action=Action.SKIP if skip else self._pick((Action.ALLOW, Action.DROP)),
                    skip_to=int(self.random.integers(i + 1, n + 1)) if skip else -1,
                    unknown=("clause",) if self.random.random() < uncertain else (),
                )
            )
        return RuleSet(rules)

    def _column(self, name: str, n: int) -> Any:
        """Ends of the sets' intervals, one beside them, and random values."""
        bits = self._bits(name)
        edges = [e for values in self.pool[name] for span in (values.v4, values.v6) for pair in span for e in pair]
        edges = edges or [0]
        picked = [
            min(max(self._pick(edges) + int(self.random.integers(-1, 2)), 0), (1 << bits) - 1)
            if self.random.random() < 0.8
            else int.from_bytes(self.random.bytes(16)) >> (128 - bits)
            for _ in range(n)
        ]
        if bits == 128:
            return np.array([(v >> 64, v & (2**64 - 1)) for v in picked], np.uint64)
        return np.array(picked, np.uint64)

    def packets(self, n: int, absent: float = 0.1) -> PacketColumns:
        """n packets with every field of the world, of both families, and each field missing with chance ``absent``."""
        columns = {name: self._column(name, n) for name in self.fields}
        if "proto" in columns:  # protocols that have ports, flags and ICMP fields
            columns["proto"] = np.where(
                self.random.random(n) < 0.7, self.random.choice([6, 17, 1, 58], n).astype(np.uint64), columns["proto"]
            )
        if not self.v6:
            for name in ("src_ip", "dst_ip"):
                if name in columns:
                    columns[name] = (columns[name][:, 1] & 0xFFFFFFFF).astype(np.uint32)
            return PacketColumns(columns, present=self._present(n, absent))
        columns["ip_ver"] = self.random.choice([4, 6, 0], n, p=[0.45, 0.5, 0.05]).astype(np.uint8)
        for name in ("src_ip", "dst_ip"):
            if name in columns:
                four = (columns["ip_ver"] != 6) & (self.random.random(n) < 0.98)  # a few "IPv4" beyond 32 bits
                columns[name][four, 0] = 0
                columns[name][four, 1] &= np.uint64(0xFFFFFFFF)
        return PacketColumns(columns, present=self._present(n, absent))

    def _present(self, n: int, absent: float) -> Any:
        if absent == 0:
            return None
        bits = self.random.random((n, len(FIELD_INDEX))) >= absent
        return (bits << np.arange(len(FIELD_INDEX))).sum(axis=1).astype(np.uint32)
