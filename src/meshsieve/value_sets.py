"""Sets of one field's values, as intervals: made from numbers and texts, combined, and laid out for the core."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.errors import ModelError

Span = tuple[tuple[int, int], ...]

MAX_V4 = 2**32 - 1
MAX_V6 = 2**128 - 1
FIELD_INDEX: dict[str, int] = {info.name: i for i, info in enumerate(_core.FIELDS)}


def _canonical(pairs: Iterable[tuple[int, int]]) -> Span:
    merged: list[list[int]] = []
    for lo, hi in sorted(pairs):
        if hi < lo:
            raise ModelError(f"range {lo}-{hi} ends before it starts")
        if merged and lo <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], hi)
        else:
            merged.append([lo, hi])
    return tuple((lo, hi) for lo, hi in merged)


def _intersect(a: Span, b: Span) -> Span:
    out, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        lo, hi = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if lo <= hi:
            out.append((lo, hi))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)


def _complement(span: Span, largest: int) -> Span:
    out, start = [], 0
    for lo, hi in span:
        if lo > start:
            out.append((start, lo - 1))
        start = hi + 1
    if start <= largest:
        out.append((start, largest))
    return tuple(out)


@dataclass(frozen=True, slots=True)
class ValueSet:
    """An immutable set of one field's values: sorted, disjoint, non-touching inclusive intervals.

    v4  intervals of IPv4 addresses or, for a number field, of its numbers
    v6  intervals of IPv6 addresses; empty for number fields

    >>> ValueSet.addresses(["10.0.0.0/8", "10.5.0.1"])
    ValueSet(10.0.0.0-10.255.255.255)
    """

    v4: Span = ()
    v6: Span = ()

    @staticmethod
    def numbers(*items: int | tuple[int, int]) -> ValueSet:
        """The given numbers and inclusive ``(low, high)`` ranges."""
        return ValueSet(_canonical((i, i) if isinstance(i, int) else i for i in items))

    @staticmethod
    def addresses(items: Iterable[str]) -> ValueSet:
        """Addresses, prefixes and ``low-high`` ranges, IPv4 and IPv6 mixed. Host bits of a prefix are an error.

        raises  ModelError naming the text
        """
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for text in items:
            version, lo, hi = parse_address_range(text)
            (v4 if version == 4 else v6).append((lo, hi))
        return ValueSet(_canonical(v4), _canonical(v6))

    def union(self, *others: ValueSet) -> ValueSet:
        return ValueSet(
            _canonical(i for s in (self, *others) for i in s.v4), _canonical(i for s in (self, *others) for i in s.v6)
        )

    def intersection(self, other: ValueSet) -> ValueSet:
        return ValueSet(_intersect(self.v4, other.v4), _intersect(self.v6, other.v6))

    def complement(self, field_name: str) -> ValueSet:
        """Every other value of the field; for addresses, of both families."""
        if _core.FIELDS[FIELD_INDEX[field_name]].kind == "address":
            return ValueSet(_complement(self.v4, MAX_V4), _complement(self.v6, MAX_V6))
        return ValueSet(_complement(self.v4, 2 ** _core.FIELDS[FIELD_INDEX[field_name]].bits - 1))

    def contains(self, value: int, version: int = 4) -> bool:
        return any(lo <= value <= hi for lo, hi in (self.v6 if version == 6 else self.v4))

    def __bool__(self) -> bool:
        """False for the empty set, which matches nothing (it is not "any")."""
        return bool(self.v4 or self.v6)

    def __repr__(self) -> str:
        shown = [f"{lo}" if lo == hi else f"{lo}-{hi}" for lo, hi in self.v4[:8]]
        if self.v6 or any(hi > 0xFFFF for _, hi in self.v4):
            shown = [range_text(lo, hi, 4) for lo, hi in self.v4[:8]] + [
                range_text(lo, hi, 6) for lo, hi in self.v6[:8]
            ]
        more = len(self.v4) + len(self.v6) - len(shown)
        return f"ValueSet({', '.join(shown)}{f', ... {more} more' if more > 0 else ''})"


def range_text(lo: int, hi: int, version: int) -> str:
    """``10.0.0.1`` or ``10.0.0.1-10.0.0.9``."""
    make = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
    return str(make(lo)) if lo == hi else f"{make(lo)}-{make(hi)}"


def parse_address_range(text: str) -> tuple[int, int, int]:
    """``(version, low, high)`` of an address, a prefix (``/8`` or ``/255.0.0.0``) or a ``low-high`` range.

    Strict: leading zeros, host bits below the prefix, mixed families and inverted ranges are refused.

    raises  ModelError naming the text
    """
    try:
        if "-" in text:
            low, high = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
            if low.version != high.version:
                raise ValueError("the two ends differ in family")
            if int(high) < int(low):
                raise ValueError("the range ends before it starts")
            return low.version, int(low), int(high)
        net = ipaddress.ip_network(text.strip())
        return net.version, int(net.network_address), int(net.broadcast_address)
    except ValueError as error:
        raise ModelError(f"'{text}' is not an address, prefix or range: {error}") from None


class FlatSets(Sequence[ValueSet]):
    """Sets made when they are looked at, from the columns of ``_core.RuleSet``."""

    def __init__(self, offsets: npt.NDArray[np.uint64], intervals: npt.NDArray[np.uint64]) -> None:
        self._offsets, self._intervals = offsets, intervals

    def __len__(self) -> int:
        return len(self._offsets) // 2

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = 2 * range(len(self))[index]
        begin, middle, end = (int(v) for v in self._offsets[at : at + 3])
        return ValueSet(self._span(begin, middle), self._span(middle, end))

    def _span(self, begin: int, end: int) -> tuple[tuple[int, int], ...]:
        return tuple((a << 64 | b, c << 64 | d) for a, b, c, d in self._intervals[begin:end].tolist())


def flatten(sets: Sequence[ValueSet]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Sets as two arrays: offsets (2 * len + 1: the v4 span of set 0, its v6 span, ...), intervals (m, 4: hi and lo
    words of the low end, then of the high end)."""
    mask = 2**64 - 1
    spans = [span for s in sets for span in (s.v4, s.v6)]
    offsets = np.zeros(len(spans) + 1, np.uint64)
    np.cumsum([len(span) for span in spans], out=offsets[1:])
    words = [(lo >> 64, lo & mask, hi >> 64, hi & mask) for span in spans for lo, hi in span]
    return offsets, np.array(words, np.uint64).reshape(-1, 4)
