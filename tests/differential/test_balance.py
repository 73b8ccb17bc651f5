"""Every balancer of the core against the plain reference, over random hosts, weights, health and hashes."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve import _core
from meshsieve.balance import (
    Cluster,
    ClusterSettings,
    Health,
    Host,
    KatranMaglev,
    LevelCounts,
    Locality,
    Maglev,
    MaglevPolicy,
    RingHash,
    RingHashPolicy,
    RoundRobin,
    WeightedClusters,
    hash_keys,
    priority_loads,
)
from tests.reference import balance as reference

HASHES = st.integers(0, 2**64 - 1)
PRIMES = st.sampled_from([2, 3, 7, 11, 251, 1009])
WEIGHTS = st.lists(st.one_of(st.integers(1, 9), st.integers(1, 2**20)), min_size=1, max_size=12)
BYTES = st.binary(max_size=80)


def hosts_with(weights: list[int]) -> list[Host]:
    return [Host(f"10.{i % 3}.0.{i * 7 % 200}", 80 + i, weight) for i, weight in enumerate(weights)]


def shares(weights: list[int]) -> list[float]:
    return [weight * 1.0 / sum(weights) for weight in weights]


@given(BYTES, HASHES)
def test_xxhash_is_the_written_one(data: bytes, seed: int) -> None:
    assert _core.xxh64(data, seed) == reference.xxh64(data, seed)


@given(BYTES, HASHES)
def test_murmur2_is_the_written_one(data: bytes, seed: int) -> None:
    assert _core.murmur2_64a(data, seed) == reference.murmur2(data, seed)


@given(HASHES, HASHES, st.integers(0, 2**32 - 1))
def test_murmur3_is_the_written_one(a: int, b: int, seed: int) -> None:
    assert _core.murmur3_pair(a, b, seed) == reference.murmur3_pair(a, b, seed)


@given(st.lists(BYTES.map(lambda b: b.rstrip(b"\0")), max_size=40))
def test_a_key_column_hashes_like_its_keys(keys: list[bytes]) -> None:
    wanted = [reference.xxh64(key) for key in keys]
    assert hash_keys(keys).tolist() == wanted
    assert hash_keys(np.array(keys, "S80")).tolist() == wanted


@settings(deadline=None)
@given(WEIGHTS, PRIMES, st.lists(HASHES, min_size=1), st.integers(0, 5))
def test_maglev(weights: list[int], size: int, hashes: list[int], attempt: int) -> None:
    hosts = hosts_with(weights)
    ours = Maglev(hosts, size)
    table = reference.maglev([host.name for host in hosts], shares(weights), size)
    assert ours.slots.tolist() == table
    wanted = [reference.maglev_pick(table, h, attempt) for h in hashes]
    assert [ours.pick(h, attempt) for h in hashes] == wanted
    assert ours.pick_batch(np.array(hashes, np.uint64), attempt=attempt).tolist() == wanted


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=9),
    st.integers(1, 600),
    st.integers(0, 600),
    st.booleans(),
    st.lists(HASHES, min_size=1),
    st.integers(0, 5),
)
def test_ring_hash(weights: list[int], minimum: int, more: int, murmur: bool, hashes: list[int], attempt: int) -> None:
    hosts = hosts_with(weights)
    ours = RingHash(hosts, minimum, minimum + more, "murmur_hash_2" if murmur else "xx_hash")
    entries = reference.ring([host.name for host in hosts], shares(weights), minimum, minimum + more, murmur)
    got_hashes, got_hosts = ours.ring
    assert list(zip(got_hashes.tolist(), got_hosts.tolist(), strict=True)) == entries
    edges = [(entry + step) % 2**64 for entry, _ in entries[:5] for step in (-1, 0, 1)]
    for h in hashes + edges:
        assert ours.pick(h, attempt) == reference.ring_pick(entries, h, attempt)


@settings(deadline=None)
@given(st.lists(st.tuples(HASHES, st.integers(1, 6)), min_size=1, max_size=9), PRIMES)
def test_katran_maglev(endpoints: list[tuple[int, int]], size: int) -> None:
    hashes, weights = [h for h, _ in endpoints], [w for _, w in endpoints]
    assert KatranMaglev(hosts_with(weights), size, hashes=hashes).slots.tolist() == reference.katran(
        hashes, weights, size
    )


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(0, 30))
def test_both_round_robins(weights: list[int], start: int) -> None:
    for variant, plain in (("edf", reference.edf), ("smooth", reference.smooth)):
        ours = RoundRobin(hosts_with(weights), variant=variant, start=start)
        copy = ours.copy()
        wanted = plain(weights, start + 50)[start:]
        assert ours.take(20).tolist() + [ours.pick() for _ in range(30)] == wanted
        assert copy.take(50).tolist() == wanted


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any), HASHES)
def test_weighted_clusters(weights: list[int], value: int) -> None:
    rest, wanted = value % sum(weights), 0
    while rest >= weights[wanted]:
        rest -= weights[wanted]
        wanted += 1
    assert WeightedClusters([(str(i), w) for i, w in enumerate(weights)]).pick(value) == wanted


LEVELS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).map(lambda t: (t[0], t[1], sum(t))),
    min_size=1,
    max_size=5,
)


@settings(max_examples=500)
@given(LEVELS, st.integers(1, 300), st.integers(0, 100), HASHES)
def test_priority_loads(levels: list[tuple[int, int, int]], overprovisioning: int, threshold: int, h: int) -> None:
    got = priority_loads(
        [LevelCounts(*level) for level in levels], overprovisioning=overprovisioning, panic_threshold=threshold
    )
    healthy, degraded, panic = reference.loads(levels, overprovisioning, threshold)
    assert (list(got.healthy), list(got.degraded), list(got.panic)) == (healthy, degraded, panic)
    assert sum(got.healthy) + sum(got.degraded) == 100
    assert got.choose(h) == reference.choose_level(healthy, degraded, h)


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans(), st.sampled_from([0, 30, 50]))
def test_a_cluster_with_priorities_health_and_localities(
    draw: random.Random, maglev: bool, weigh_localities: bool, threshold: int
) -> None:
    hosts = [
        Host(
            f"10.0.0.{i}",
            80,
            draw.randint(1, 4),
            draw.choice([Health.HEALTHY, Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY]),
            draw.randint(0, 2),
            Locality(zone=draw.choice("abc")),
        )
        for i in range(draw.randint(0, 12))
    ]
    weights = {(level, Locality(zone=zone)): draw.randint(0, 3) for level in range(3) for zone in "abc"}
    policy = MaglevPolicy(251) if maglev else RingHashPolicy(64)
    ours = Cluster(
        hosts,
        policy,
        ClusterSettings(panic_threshold=threshold, locality_weights=weights if weigh_localities else None),
    )
    for h in [draw.getrandbits(64) for _ in range(40)]:
        assert ours.pick(h) == _cluster_pick(hosts, weights if weigh_localities else None, threshold, maglev, h)


def _cluster_pick(
    hosts: list[Host], locality_weights: dict[tuple[int, Locality], int] | None, threshold: int, maglev: bool, h: int
) -> int:
    depth = 1 + max((host.priority for host in hosts), default=0)
    levels = []
    for level in range(depth):
        healths = [host.health for host in hosts if host.priority == level]
        levels.append((healths.count(Health.HEALTHY), healths.count(Health.DEGRADED), len(healths)))
    healthy, degraded, panic = reference.loads(levels, 140, threshold)
    level, _ = reference.choose_level(healthy, degraded, h)
    ids = [
        i for i, host in enumerate(hosts) if host.priority == level and (panic[level] or host.health is Health.HEALTHY)
    ]
    parts: list[tuple[int, float]] = []
    if locality_weights is None:
        total = sum(hosts[i].weight for i in ids)
        parts = [(i, hosts[i].weight * 1.0 / total) for i in ids]
    else:
        weights = {place: weight for (at, place), weight in locality_weights.items() if at == level and weight}
        for place in sorted(weights):
            members = [i for i in ids if hosts[i].locality == place]
            total = sum(hosts[i].weight for i in members)
            share = weights[place] / sum(weights.values())
            parts += [(i, hosts[i].weight * share / total) for i in members]
    if not parts:
        return -1
    keys, shares_ = [hosts[i].name for i, _ in parts], [w for _, w in parts]
    if maglev:
        return parts[reference.maglev_pick(reference.maglev(keys, shares_, 251), h)][0]
    return parts[reference.ring_pick(reference.ring(keys, shares_, 64, 8388608), h)][0]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 40)), min_size=1, max_size=9), HASHES, st.integers(100, 300)
)
def test_bounded_loads(hosts: list[tuple[int, int]], h: int, factor: int) -> None:
    weights, active = [w for w, _ in hosts], [a for _, a in hosts]
    ours = Maglev(hosts_with(weights), 251)
    assert ours.pick_bounded(h, active, factor) == reference.bounded(ours.pick(h), shares(weights), active, factor, h)


@pytest.mark.parametrize("hosts", [3, 70_000])
def test_batches_of_any_size_agree_with_single_picks(hosts: int) -> None:
    """Both slot widths of the table (two bytes below 65,536 hosts), and a batch beyond one chunk of the core."""
    table = Maglev([f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80" for i in range(hosts)], 655_373)
    hashes = np.random.default_rng(8).integers(0, 2**64, 300_000, np.uint64)
    whole = table.pick_batch(hashes)
    assert np.array_equal(whole, table.slots[(hashes % np.uint64(655_373)).astype(np.int64)])
    parts = np.concatenate([table.pick_batch(part) for part in np.array_split(hashes[:5000], 77)])
    assert np.array_equal(whole[:5000], parts)
    assert [table.pick(int(h)) for h in hashes[:500]] == whole[:500].tolist()
