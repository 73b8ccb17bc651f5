"""The overlap of layers for a report: totals by class, a matrix of the ends that matter most, the pairs to look at."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from meshsieve.reports.page.model import OverlapMatrix
from meshsieve.walk.overlap import CLASSES, MEANING, Overlap, totals

MAX_PAIRS = 50_000
SHOWN_ENDS = 24  # of a side of the matrix
SHOWN_ROWS = 200


def overlap_matrix(pairs: Iterable[Overlap]) -> OverlapMatrix:
    """At most ``MAX_PAIRS`` pairs are taken; ``left_out`` of the result says how many of them have no row."""
    found = sorted(islice(pairs, MAX_PAIRS), key=_attention)
    sums = tuple((t.kind, MEANING[t.kind], t.pairs, t.flows, t.bytes, t.requests) for t in totals(found))
    worst: dict[tuple[str, str], str] = {}
    for one in found:  # in the order of attention, so the first of a pair of ends is its worst
        worst.setdefault((one.source, one.destination), one.kind)
    sources, destinations = (tuple(_first(pair[side] for pair in worst)) for side in (0, 1))
    cells = tuple(tuple(worst.get((source, to), "") for to in destinations) for source in sources)
    return OverlapMatrix(sums, sources, destinations, cells, tuple(found[:SHOWN_ROWS]), max(0, len(found) - SHOWN_ROWS))


def _attention(one: Overlap) -> tuple[object, ...]:
    """Pairs with traffic first, then by class, then by volume."""
    seen = one.flows + one.requests > 0
    return (not seen, CLASSES.index(one.kind), -one.bytes, -one.requests, one.source, one.destination, one.port or 0)


def _first(names: Iterable[str]) -> list[str]:
    return list(islice(dict.fromkeys(names), SHOWN_ENDS))
