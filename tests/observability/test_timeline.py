"""Timelines: totals are exact, time is covered whatever comes, and the spread is even."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from meshsieve.observability.timeline import Timeline

SECOND = 1_000_000_000


def filled(flows: list[tuple[int, int, int, int]], batch: int = 3, bins: int = 16) -> Timeline:
    timeline = Timeline(2, bins)
    for start in range(0, len(flows), batch):
        series, first, length, amount = (np.array(c) for c in zip(*flows[start : start + batch], strict=True))
        timeline.add(series, first.astype(np.int64), (first + length).astype(np.int64), amount)
    return timeline


times = st.integers(0, 2**61)
flow = st.tuples(st.integers(0, 1), times, st.integers(0, 2**60), st.integers(0, 10**9))


@example([(0, 0, 0, 0), (0, 35184372088831, 1, 257)], 1)  # shorter than a double can tell, across an edge
@given(st.lists(flow, min_size=1, max_size=20), st.integers(1, 7))
def test_no_volume_is_lost_and_none_is_made_up(flows: list[tuple[int, int, int, int]], batch: int) -> None:
    _, amounts = filled(flows, batch).bins()
    for series in (0, 1):
        expected = sum(f[3] for f in flows if f[0] == series)
        assert abs(amounts[series].sum() - expected) <= 1e-6 * max(1, sum(f[3] for f in flows))
    assert (amounts >= -1e-3).all()


@example([(0, 0, 0, 0), (0, 18014398509481983, 0, 0)], 1)  # the last nanosecond of the last bin
@given(st.lists(flow, min_size=1, max_size=20), st.integers(1, 7))
def test_the_bins_cover_the_flows_and_stay_few(flows: list[tuple[int, int, int, int]], batch: int) -> None:
    timeline = filled([(s, f, n, a + 1) for s, f, n, a in flows], batch)
    starts, amounts = timeline.bins()
    assert amounts.shape[1] == len(starts) <= 16
    assert starts[0] <= min(f[1] for f in flows) + timeline.width_ns
    assert starts[-1] <= max(f[1] + f[2] for f in flows)


def test_a_long_flow_is_spread_evenly_and_a_short_one_is_not() -> None:
    timeline = filled([(0, 0, 100 * SECOND, 1000), (1, 50 * SECOND, 0, 7)], bins=240)
    _, amounts = timeline.bins()
    inner = amounts[0][1:-1]
    assert inner.max() - inner.min() < 1e-6 * inner.max()
    assert (amounts[1] > 1e-9).sum() == 1


def test_an_empty_timeline_has_no_bins() -> None:
    starts, amounts = Timeline(3).bins()
    assert len(starts) == 0
    assert amounts.shape == (3, 0)
