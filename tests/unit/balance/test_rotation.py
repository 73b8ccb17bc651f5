"""Round robin by variant, least request, random, slow start."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from meshsieve.balance import LeastRequest, Random, RoundRobin, SlowStart
from meshsieve.errors import BalanceError

CYCLES = [
    #  variant  weights       first cycle
    ("edf", (5, 1, 1), "aaaabca"),
    ("edf", (3, 2, 1), "abacba"),
    ("edf", (7, 3), "aabaabaaba"),
    ("edf", (1, 2, 3), "cbcabc"),
    ("edf", (1, 1, 1, 1), "abcd"),
    ("smooth", (5, 1, 1), "aabacaa"),
    ("smooth", (3, 2, 1), "abacba"),
    ("smooth", (7, 3), "abaaabaaba"),
    ("smooth", (1, 2, 3), "cbacbc"),
]


@pytest.mark.parametrize(("variant", "weights", "cycle"), CYCLES)
def test_cycles(variant: str, weights: tuple[int, ...], cycle: str) -> None:
    rotation = RoundRobin(dict(zip("abcd", weights, strict=False)), variant=variant)
    assert "".join("abcd"[i] for i in rotation.take(len(cycle))) == cycle


def test_shares_of_a_long_run_are_the_weights() -> None:
    rotation = RoundRobin({"a": 10, "b": 20, "c": 70})
    assert np.bincount(rotation.take(1000)).tolist() == [100, 200, 700]
    assert rotation.shares == [Fraction(1, 10), Fraction(1, 5), Fraction(7, 10)]


def test_huge_weights_keep_their_order_exact() -> None:
    rotation = RoundRobin({"a": 2**32 - 1, "b": 2**32 - 2})
    assert np.bincount(rotation.take(100_000)).tolist() == [50_000, 50_000]


def test_hashes_count_requests_and_choose_nothing() -> None:
    rotation = RoundRobin(["a", "b", "c"])
    assert [rotation.pick(7), *rotation.pick_batch([7, 7, 7])] == [0, 1, 2, 0]


def test_a_start_drops_picks() -> None:
    weights = {"a": 3, "b": 2, "c": 1}
    assert RoundRobin(weights, start=4).take(6).tolist() == RoundRobin(weights).take(10).tolist()[4:]


def test_least_request_takes_the_less_busy_of_two_draws_and_the_first_on_a_tie() -> None:
    balancer = LeastRequest(["a", "b", "c"])
    assert balancer.pick([5, 1, 1], [0, 1]) == 1
    assert balancer.pick([5, 1, 1], [2, 1]) == 2
    assert balancer.pick([5, 1, 1], [3, 3]) == 0


@pytest.mark.parametrize("active", [(0, 0, 0), (5, 1, 1), (3, 2, 1), (0, 9, 9)])
@pytest.mark.parametrize("choices", [2, 3])
def test_least_request_chances_are_the_count_of_all_draws(active: tuple[int, ...], choices: int) -> None:
    balancer = LeastRequest(["a", "b", "c"], choices)
    draws = list(itertools.product(range(3), repeat=choices))
    picks = [balancer.pick(active, draw) for draw in draws]
    assert balancer.shares(active) == [Fraction(picks.count(host), len(draws)) for host in range(3)]


def test_least_request_samples_follow_its_chances() -> None:
    balancer = LeastRequest(["a", "b", "c"])
    active, n = (5, 1, 1), 20_000
    counts = np.bincount(balancer.sample(active, n, seed=1), minlength=3)
    expected = np.array([float(share) * n for share in balancer.shares(active)])
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square, 2 degrees: 0.1 %


def test_weighted_least_request_is_weighted_round_robin_while_nobody_is_busy() -> None:
    queue = LeastRequest({"a": 3, "b": 1}).replay()
    picks = []
    for _ in range(8):
        picks.append(queue.start())
        queue.end(picks[-1])
    assert picks == RoundRobin({"a": 3, "b": 1}).take(8).tolist()


def test_weighted_least_request_avoids_the_busy() -> None:
    queue = LeastRequest({"a": 2, "b": 1}).replay()
    picks = [queue.start() for _ in range(30)]
    assert queue.active == [picks.count(0), picks.count(1)]
    # in balance when 2 / (a + 1) = 1 / (b + 1) in rate: fewer for a than its 20 by weight alone
    assert picks.count(0) < 20


def test_random_is_the_value_mod_the_hosts_and_ignores_weights() -> None:
    balancer = Random({"a": 9, "b": 1})
    assert [balancer.pick(h) for h in range(4)] == [0, 1, 0, 1]
    counts = np.bincount(balancer.sample(20_000, seed=3))
    assert abs(counts[0] - 10_000) < 3.3 * 71  # standard deviation 71


SLOW = [
    #  age, aggression, min percent -> factor, window 60 s
    (0, 1.0, 10, 0.1),
    (30, 1.0, 10, 0.5),
    (60, 1.0, 10, 1.0),
    (600, 1.0, 10, 1.0),
    (15, 2.0, 10, 0.5),
    (3, 1.0, 0, 0.05),
    (0, 1.0, 0, 0.001 / 60),
]


@pytest.mark.parametrize(("age", "aggression", "minimum", "factor"), SLOW)
def test_slow_start(age: float, aggression: float, minimum: float, factor: float) -> None:
    assert SlowStart(60, minimum, aggression).factor(age) == pytest.approx(factor)


def test_slow_start_shares() -> None:
    assert SlowStart(60).shares(["a", "b"], {1: 30}) == pytest.approx([2 / 3, 1 / 3])


REFUSED = [
    ("no hosts", lambda: RoundRobin([]), "no hosts"),
    ("an unknown variant", lambda: RoundRobin(["a"], variant="fair"), "there are: edf, smooth"),
    ("a negative start", lambda: RoundRobin(["a"], start=-1), "at least 0"),
    ("a negative number of picks", lambda: RoundRobin(["a"]).take(-1), "cannot take"),
    ("one choice", lambda: LeastRequest(["a"], 1), "at least 2"),
    ("too few counts", lambda: LeastRequest(["a", "b"]).shares([1]), "one count"),
    ("chances of a queue", lambda: LeastRequest({"a": 1, "b": 2}).shares([0, 0]), "replay"),
    ("an end without a start", lambda: LeastRequest({"a": 1, "b": 2}).replay().end(0), "no active request"),
    ("a window of 0", lambda: SlowStart(0), "slow start needs"),
]


@pytest.mark.parametrize(("build", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(build: object, reason: str) -> None:
    with pytest.raises(BalanceError, match=reason):
        build()  # type: ignore[operator]
