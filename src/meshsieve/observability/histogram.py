"""How values spread over Envoy's buckets: what stands for the values themselves, however many there are.

Source   bucket bounds of Envoy's statistics.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

BUCKETS: tuple[float, ...] = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000),
    *(600_000, 1_800_000, 3_600_000),
)


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts: values up to each of BUCKETS and above the one before, then those above the last; () is none at all."""

    counts: tuple[int, ...] = ()
    total: float = 0.0

    @staticmethod
    def of(values: Iterable[float]) -> Histogram:
        counter = HistogramCounter()
        for value in values:
            counter.add(value)
        return counter.histogram

    @property
    def count(self) -> int:
        return sum(self.counts)


NO_VALUES = Histogram()


class HistogramCounter:
    """Values as they come."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(BUCKETS, value)] += 1
        self._total += value

    def merge(self, other: Histogram) -> None:
        for i, count in enumerate(other.counts):
            self._counts[i] += count
        self._total += other.total

    @property
    def histogram(self) -> Histogram:
        return Histogram(tuple(self._counts), self._total) if any(self._counts) else Histogram()
