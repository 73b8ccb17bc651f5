"""Heavy hitters: exact while there is room, and within the stated error beyond."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from meshsieve.observability.talkers import HeavyHitters

pairs = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 100)), max_size=200)


@given(pairs)
def test_with_room_for_every_key_sums_are_exact(stream: list[tuple[int, int]]) -> None:
    hitters: HeavyHitters[int] = HeavyHitters(64)
    hitters.add(stream)
    truth: Counter[int] = Counter()
    for key, amount in stream:
        truth[key] += amount
    assert hitters.exact
    assert {h.key: h.total for h in hitters.top(64)} == dict(truth)


@given(pairs, st.integers(1, 8))
def test_beyond_sums_are_off_by_no_more_than_the_error_and_no_heavy_key_is_missing(
    stream: list[tuple[int, int]], capacity: int
) -> None:
    hitters: HeavyHitters[int] = HeavyHitters(capacity)
    hitters.add(stream)
    truth: Counter[int] = Counter()
    for key, amount in stream:
        truth[key] += amount
    found = {h.key: h for h in hitters.top(capacity)}
    for key, heavy in found.items():
        assert heavy.total - heavy.error <= truth[key] <= heavy.total
    for key, total in truth.items():
        assert key in found or total <= truth.total() / capacity


def test_the_largest_come_first_and_equal_ones_in_their_order() -> None:
    hitters: HeavyHitters[str] = HeavyHitters()
    hitters.add([("b", 2), ("a", 2), ("c", 5)])
    assert [h.key for h in hitters.top(2)] == ["c", "b"]
