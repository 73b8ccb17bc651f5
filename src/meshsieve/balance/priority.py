"""Which priority serves a request: Envoy's overprovisioning, panic and load arithmetic.

All of it is integer arithmetic that rounds down, except panic, which compares plain percentages (doubles in Envoy, and
here). ``x = h mod 100 + 1`` takes the first priority whose cumulative load is at least x, healthy before degraded.

Source: envoyproxy/envoy load_balancer_impl.cc (recalculatePerPriorityState, recalculatePerPriorityPanic).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

OVERPROVISIONING = 140
PANIC_THRESHOLD = 50


class LevelCounts(NamedTuple):
    """Hosts of one priority."""

    healthy: int
    degraded: int
    total: int


@dataclass(frozen=True)
class PriorityLoads:
    """Percent of the requests that each priority gets, for its healthy and for its degraded hosts; and who panics.

    Loads sum to 100. A priority in panic uses all of its hosts.
    """

    healthy: tuple[int, ...]
    degraded: tuple[int, ...]
    panic: tuple[bool, ...]

    def choose(self, key_hash: int) -> tuple[int, bool]:
        """(priority, whether its degraded hosts are meant) for a hash or random value."""
        return self.residues()[key_hash % 100]

    def residues(self) -> list[tuple[int, bool]]:
        """The choice for every residue of the hash mod 100."""
        healthy = [(level, False) for level, load in enumerate(self.healthy) for _ in range(load)]
        degraded = [(level, True) for level, load in enumerate(self.degraded) for _ in range(load)]
        return healthy + degraded


def priority_loads(
    levels: Sequence[LevelCounts], *, overprovisioning: int = OVERPROVISIONING, panic_threshold: int = PANIC_THRESHOLD
) -> PriorityLoads:
    """Loads of the priorities, first to last. Without levels, one empty level is assumed.

    >>> priority_loads([LevelCounts(1, 0, 2), LevelCounts(2, 0, 2)]).healthy
    (70, 30)
    """
    levels = levels or [LevelCounts(0, 0, 0)]
    healthy = [_availability(level.healthy, level.total, overprovisioning) for level in levels]
    degraded = [_availability(level.degraded, level.total, overprovisioning) for level in levels]
    norm = min(100, sum(healthy) + sum(degraded))

    panic = [norm != 100 and _percent(level) < panic_threshold for level in levels]
    if all(panic):
        return PriorityLoads(_loads_in_total_panic(levels), (0,) * len(levels), tuple(panic))
    if norm == 0:
        return PriorityLoads((100, *(0,) * (len(levels) - 1)), (0,) * len(levels), tuple(panic))

    healthy_loads, left = _share_out(healthy, norm, 100)
    degraded_loads, left = _share_out(degraded, norm, left)
    for availability, loads in ((healthy, healthy_loads), (degraded, degraded_loads)):
        first = next((i for i, value in enumerate(availability) if value), None)
        if first is not None:
            loads[first] += left
            break
    return PriorityLoads(tuple(healthy_loads), tuple(degraded_loads), tuple(panic))


def panic_threshold_of(percent: float) -> int:
    """Envoy's whole-number threshold of a configured percentage: 100 * (percent / 100) in doubles, rounded down."""
    return min(100, int(100 * (percent / 100.0)))


def _availability(hosts: int, total: int, overprovisioning: int) -> int:
    return min(100, overprovisioning * hosts // total) if total else 0


def _percent(level: LevelCounts) -> float:
    if not level.total:
        return 0.0
    return 100.0 * level.healthy / level.total + 100.0 * level.degraded / level.total


def _share_out(availability: Sequence[int], norm: int, left: int) -> tuple[list[int], int]:
    loads = []
    for value in availability:
        load = min(left, value * 100 // norm)
        loads.append(load)
        left -= load
    return loads, left


def _loads_in_total_panic(levels: Sequence[LevelCounts]) -> tuple[int, ...]:
    total = sum(level.total for level in levels)
    if not total:
        return (100, *(0,) * (len(levels) - 1))
    loads = [100 * level.total // total for level in levels]
    first = next(i for i, level in enumerate(levels) if level.total)
    loads[first] += 100 - sum(loads)
    return tuple(loads)
