"""Priority loads and panic: the arithmetic by its written sentences."""

from __future__ import annotations

import pytest

from meshsieve.balance import Cluster, ClusterSettings, Health, Host, LevelCounts, MaglevPolicy, priority_loads
from meshsieve.balance.priority import panic_threshold_of

CASES = [
    #  what it shows, levels (healthy, degraded, total), threshold, healthy loads, degraded loads, panic
    ("all healthy: the first takes all", [(3, 0, 3), (3, 0, 3)], 50, (100, 0), (0, 0), (0, 0)),
    ("overprovisioning hides one of four", [(3, 0, 4), (1, 0, 1)], 50, (100, 0), (0, 0), (0, 0)),
    ("half gone: 70 percent stay", [(1, 0, 2), (2, 0, 2)], 50, (70, 30), (0, 0), (0, 0)),
    ("rounding is down: 1 of 3 is 46", [(1, 0, 3), (9, 0, 9)], 0, (46, 54), (0, 0), (0, 0)),
    ("an empty priority gets nothing", [(0, 0, 0), (1, 0, 1)], 50, (0, 100), (0, 0), (0, 0)),
    ("below 100 loads are normalised", [(1, 0, 5), (1, 0, 5)], 0, (50, 50), (0, 0), (0, 0)),
    ("what rounding leaves goes to the first", [(1, 0, 7), (1, 0, 7), (1, 0, 7)], 0, (34, 33, 33), (0,) * 3, (0,) * 3),
    ("degraded hosts come after the healthy", [(1, 1, 2)], 50, (70,), (30,), (0,)),
    ("only degraded: they take all", [(0, 2, 4)], 50, (0,), (100,), (0,)),
    ("nobody healthy, no panic: level 0, no host", [(0, 0, 3), (0, 0, 2)], 0, (100, 0), (0, 0), (0, 0)),
    ("total panic: by size, the rest to the first", [(0, 0, 1), (0, 0, 2)], 50, (34, 66), (0, 0), (1, 1)),
    ("loads of 100 in all mean no panic", [(1, 0, 5), (3, 0, 5)], 50, (28, 72), (0, 0), (0, 0)),
    ("one level in panic keeps the loads", [(1, 0, 5), (2, 0, 4)], 50, (29, 71), (0, 0), (1, 0)),
    ("exactly at the threshold is no panic", [(1, 0, 2), (0, 0, 9)], 50, (100, 0), (0, 0), (0, 1)),
]


@pytest.mark.parametrize(
    ("levels", "threshold", "loads"), [(c[1], c[2], c[3:]) for c in CASES], ids=[c[0] for c in CASES]
)
def test_loads(levels: list[tuple[int, int, int]], threshold: int, loads: tuple[object, ...]) -> None:
    got = priority_loads([LevelCounts(*level) for level in levels], panic_threshold=threshold)
    assert (got.healthy, got.degraded, got.panic) == loads


def test_the_threshold_is_cut_like_envoys_double() -> None:
    assert [panic_threshold_of(percent) for percent in (0, 29, 33.9, 50, 100)] == [0, 28, 33, 50, 100]


def test_a_cluster_without_hosts_answers_nobody() -> None:
    assert Cluster([]).pick(7) == -1


def test_nobody_healthy_and_no_panic_is_no_endpoint() -> None:
    down = [Host("10.0.0.1", 80, health=Health.UNHEALTHY)]
    assert Cluster(down, MaglevPolicy(7), ClusterSettings(panic_threshold=0)).pick(7) == -1
    assert Cluster(down, MaglevPolicy(7)).pick(7) == 0


def test_explain_says_which_priority_and_why() -> None:
    hosts = [Host("10.0.0.1", 80), Host("10.0.0.2", 80, health=Health.UNHEALTHY), Host("10.0.1.1", 80, priority=1)]
    cluster = Cluster(hosts, MaglevPolicy(7))
    assert cluster.loads.healthy == (70, 30)
    assert cluster.explain(69)[1:] == (0, False, False)
    assert cluster.explain(70) == (2, 1, False, False)
