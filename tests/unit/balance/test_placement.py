"""Shares and movements are counted: compared with brute force over hashes that stand for all of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve.balance import (
    RANDOM,
    Cluster,
    Health,
    Host,
    IpHash,
    KatranMaglev,
    Maglev,
    MaglevPolicy,
    Random,
    RingHash,
    RingHashPolicy,
    RoundRobin,
    WeightedClusters,
)
from meshsieve.balance.placement import NOBODY, host_down, moved_keys, placement_diff, placement_of, shares_by_name
from meshsieve.balance.tables import HashBalancer
from meshsieve.errors import BalanceError


def cluster(policy: object, *healths: str) -> Cluster:
    """One host a letter: h healthy, d degraded, u unhealthy; one word a priority."""
    kinds = {"h": Health.HEALTHY, "d": Health.DEGRADED, "u": Health.UNHEALTHY}
    hosts = [
        Host(f"10.{level}.0.{i}", 80, health=kinds[letter], priority=level)
        for level, word in enumerate(healths)
        for i, letter in enumerate(word)
    ]
    return Cluster(hosts, policy)  # type: ignore[arg-type]


BALANCERS: list[tuple[str, HashBalancer]] = [
    ("Maglev 251", Maglev(["a", "b", "c", "d"], 251)),
    ("Maglev 251 without d", Maglev(["a", "b", "c"], 251)),
    ("Maglev 241", Maglev({"a": 3, "b": 1, "e": 1}, 241)),
    ("Maglev 2", Maglev(["a", "b"], 2)),
    ("Katran 251", KatranMaglev(["a", "b", "c"], 251)),
    ("ring", RingHash(["a", "b", "c", "d"], 64)),
    ("ring without a", RingHash(["b", "c", "d"], 64)),
    ("ring of one entry", RingHash(["a"], 1, 1)),
    ("IP hash", IpHash({"a": 2, "b": 3})),
    ("IP hash of another total", IpHash({"a": 2, "b": 3, "c": 5})),
    ("Maglev cluster with two priorities", cluster(MaglevPolicy(251), "hu", "hh")),
    ("Maglev cluster, healthy", cluster(MaglevPolicy(251), "hh", "hh")),
    ("small Maglev cluster with two priorities", cluster(MaglevPolicy(5), "hu", "hh")),
    ("ring cluster with two priorities", cluster(RingHashPolicy(64), "huu", "hh")),
    ("cluster without hosts", Cluster([])),
]
IDS = [name for name, _ in BALANCERS]
SAMPLE = np.random.default_rng(8).integers(0, 2**64, 200_000, np.uint64)


def names_of(balancer: HashBalancer) -> np.ndarray:
    names = np.array([*(host.name for host in balancer.hosts), NOBODY])
    return names[balancer.pick_batch(SAMPLE)]


@pytest.mark.parametrize("balancer", [b for _, b in BALANCERS], ids=IDS)
def test_shares_are_what_hashes_get(balancer: HashBalancer) -> None:
    shares = shares_by_name(balancer)
    assert sum(shares.values()) == 1
    picked, counts = np.unique(names_of(balancer), return_counts=True)
    assert set(picked) == {name for name, share in shares.items() if share}
    for name, count in zip(picked, counts, strict=True):
        assert count / len(SAMPLE) == pytest.approx(float(shares[name]), abs=0.006)


@pytest.mark.parametrize("new", [b for _, b in BALANCERS], ids=IDS)
@pytest.mark.parametrize("old", [b for _, b in BALANCERS], ids=IDS)
def test_movements_are_what_hashes_do(old: HashBalancer, new: HashBalancer) -> None:
    movement = placement_diff(old, new)
    if isinstance(old, IpHash) != isinstance(new, IpHash):
        assert (movement.kind, movement.share) == ("distribution", movement.minimum)
        return
    before, after = names_of(old), names_of(new)
    assert float(movement.share) == pytest.approx(np.mean(before != after), abs=0.006)
    assert 0 <= movement.minimum <= movement.share <= 1
    assert sum(movement.flows.values()) == movement.share
    assert movement.error < 1e-9
    for (a, b), part in movement.flows.items():
        assert np.mean((before == a) & (after == b)) == pytest.approx(float(part), abs=0.006)


@pytest.mark.parametrize("balancer", [b for _, b in BALANCERS], ids=IDS)
def test_nothing_moves_to_the_same(balancer: HashBalancer) -> None:
    assert placement_diff(balancer, balancer).share == 0


def test_ring_shares_are_exact() -> None:
    ring = RingHash(["a", "b"], 4, 4)
    hashes, hosts = (column.tolist() for column in ring.ring)
    arcs = [(h - hashes[i - 1]) % 2**64 for i, h in enumerate(hashes)]
    wanted = [Fraction(sum(a for a, host in zip(arcs, hosts, strict=True) if host == who), 2**64) for who in (0, 1)]
    assert placement_of(ring).shares() == wanted


SPLIT = st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(any)


@settings(deadline=None)
@given(SPLIT, SPLIT)
def test_splits_are_counted_over_their_least_common_multiple(a: list[int], b: list[int]) -> None:
    old = WeightedClusters([(f"c{i}", w) for i, w in enumerate(a)])
    new = WeightedClusters([(f"c{i}", w) for i, w in enumerate(b)])
    period = int(np.lcm(sum(a), sum(b)))
    moved = sum(old.pick_name(v) != new.pick_name(v) for v in range(period))
    assert placement_diff(old, new).share == Fraction(moved, period)


def test_a_canary_step_of_one_percent_moves_what_it_must() -> None:
    movement = placement_diff(
        WeightedClusters({"stable": 100, "canary": 0}), WeightedClusters({"stable": 99, "canary": 1})
    )
    assert movement.share == movement.minimum == Fraction(1, 100)
    assert movement.flows == {("stable", "canary"): Fraction(1, 100)}


def test_balancers_without_keys_compare_their_shares() -> None:
    assert placement_diff(RoundRobin({"a": 1, "b": 1}), RoundRobin({"a": 3, "b": 1})).share == Fraction(1, 4)
    assert placement_diff(Random(["a", "b"]), Random(["a", "b", "c"])).share == Fraction(1, 3)
    movement = placement_diff(cluster(RANDOM, "hh"), cluster(RANDOM, "hu", "hh"))
    assert (movement.kind, movement.share) == ("distribution", Fraction(1, 2))


def test_moved_keys_names_every_key() -> None:
    old, new = Maglev(["a", "b", "c"], 251), Maglev(["a", "b"], 251)
    keys = [f"user-{i}" for i in range(500)]
    moved = moved_keys(old, new, keys)
    assert {key for key, _, _ in moved} >= {key for key in keys if old.pick_key(key) == 2}
    for key, a, b in moved:
        assert (a, b) == ("abc"[old.pick_key(key)], "ab"[new.pick_key(key)])


def test_a_die_places_nothing() -> None:
    with pytest.raises(BalanceError, match="does not place keys"):
        placement_of(Random(["a"]))


def test_a_host_that_goes_down_gives_its_keys_away() -> None:
    movement = host_down(cluster(MaglevPolicy(251), "hhhhh"), "10.0.0.2:80")
    assert {a for (a, _), part in movement.flows.items() if part > Fraction(1, 100)} == {"10.0.0.2:80"}
    assert movement.share >= movement.minimum == placement_of(cluster(MaglevPolicy(251), "hhhhh")).shares()[2]


def test_a_host_too_many_moves_keys_to_the_next_priority() -> None:
    movement = host_down(cluster(MaglevPolicy(251), "hhh", "hh"), "10.0.0.2:80")
    # 2 of 3 healthy still serve 93 percent; 7 percent go to the second priority
    moved_on = sum(part for (_, b), part in movement.flows.items() if b.startswith("10.1."))
    assert moved_on == Fraction(7, 100)
    with pytest.raises(BalanceError, match="no host is called x"):
        host_down(cluster(MaglevPolicy(251), "h"), "x")
