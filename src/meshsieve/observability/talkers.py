"""The heaviest keys of a stream, in bounded memory.

What     Space-Saving: as many counters as asked for; a new key takes over the smallest counter and its count.
Why      A capture has millions of pairs of addresses; only the largest are wanted.
Limits   Exact while the distinct keys are fewer than the counters. Beyond, a count is too high by at most ``error``,
         and no key whose true count exceeds total / counters is missing.
Source   Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data streams",
         ICDT 2005.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Heavy(NamedTuple, Generic[Key]):
    """A key, its sum, and by how much that may be too high."""

    key: Key
    total: int
    error: int


class HeavyHitters(Generic[Key]):
    """Sums by key, for at most ``capacity`` keys."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._counts: dict[Key, int] = {}
        self._errors: dict[Key, int] = {}
        self._heap: list[tuple[int, int, Key]] = []  # may hold old counts; the true one decides when it is taken
        self._stamp = 0

    @property
    def exact(self) -> bool:
        """Nothing has been pushed out so far."""
        return not self._errors

    def __len__(self) -> int:
        """Number of keys that are counted."""
        return len(self._counts)

    def add(self, pairs: Iterable[tuple[Key, int]]) -> None:
        """Counts of keys; a key may come more than once."""
        counts = self._counts
        for key, amount in pairs:
            known = counts.get(key)
            if known is not None:
                counts[key] = known + amount
            elif len(counts) < self._capacity:
                self._insert(key, amount)
            else:
                smallest, lowest = self._take_smallest()
                del counts[smallest]
                self._errors.pop(smallest, None)
                self._insert(key, lowest + amount)
                self._errors[key] = lowest

    def top(self, n: int) -> list[Heavy[Key]]:
        """The n largest, largest first; equal counts in the order in which their keys came."""
        best = heapq.nlargest(n, self._counts.items(), key=lambda item: item[1])
        return [Heavy(key, count, self._errors.get(key, 0)) for key, count in best]

    def _insert(self, key: Key, count: int) -> None:
        self._counts[key] = count
        self._stamp += 1  # keys need not be comparable
        heapq.heappush(self._heap, (count, self._stamp, key))

    def _take_smallest(self) -> tuple[Key, int]:
        while True:
            count, stamp, key = heapq.heappop(self._heap)
            current = self._counts.get(key)
            if current is None:
                continue
            if current == count:
                return key, count
            heapq.heappush(self._heap, (current, stamp, key))
