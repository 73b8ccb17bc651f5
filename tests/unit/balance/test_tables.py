"""Exact balancers: known tables, keys of every kind, and what is refused."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from meshsieve import _core
from meshsieve.balance import Host, IpHash, KatranMaglev, Maglev, RingHash, WeightedClusters, hash_key, hash_keys
from meshsieve.errors import BalanceError, ColumnError


def test_check_values_of_the_hashes() -> None:
    assert _core.xxh64(b"") == 0xEF46DB3751D8E999
    assert _core.xxh64(b"10.0.0.1:80_0") == 0x75041381E7371A08
    assert _core.murmur2_64a(b"10.0.0.1:80_0") == 0xBD8F6461ECFFB28C


def test_maglev_tables_of_envoys_own_tests() -> None:
    ports = [f"127.0.0.1:{port}" for port in range(90, 96)]
    assert Maglev(ports, 7).slots.tolist() == [2, 4, 0, 1, 5, 0, 3]
    assert Maglev([str(port) for port in range(90, 96)], 7).slots.tolist() == [2, 5, 0, 3, 4, 1, 0]
    weighted = Maglev({"127.0.0.1:90": 1, "127.0.0.1:91": 2}, 17).slots.tolist()
    assert weighted == [1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1]


KEYS = [
    #  what it shows                            host                                                   key
    ("IPv4 with port", Host("10.0.0.1", 80), "10.0.0.1:80"),
    ("IPv6 in brackets", Host("2001:db8::1", 80), "[2001:db8::1]:80"),
    ("IPv6 in its shortest form", Host("2001:DB8:0:0::1", 443), "[2001:db8::1]:443"),
    ("IPv4 inside IPv6 keeps its dots", Host("::ffff:10.0.0.1", 80), "[::ffff:10.0.0.1]:80"),
    ("hostname unless asked for is not used", Host("10.0.0.1", 80, hostname="a.example"), "10.0.0.1:80"),
    ("hash_key wins", Host("10.0.0.1", 80, hash_key="host-0"), "host-0"),
]


@pytest.mark.parametrize(("host", "key"), [case[1:] for case in KEYS], ids=[case[0] for case in KEYS])
def test_the_key_of_a_host(host: Host, key: str) -> None:
    assert host.key() == key


def test_a_hostname_is_the_key_when_asked_for() -> None:
    assert Host("10.0.0.1", 80, hostname="a.example").key(use_hostname=True) == "a.example"
    assert Host("10.0.0.1", 80).key(use_hostname=True) == "10.0.0.1:80"


def test_hosts_are_sorted_by_the_bytes_of_their_keys_not_by_their_order() -> None:
    names = ["10.0.0.2:80", "10.0.0.10:80", "10.0.0.1:80"]
    by_name = [names[i] for i in Maglev(names, 251).slots]
    turned = names[::-1]
    assert [turned[i] for i in Maglev(turned, 251).slots] == by_name


def test_one_host_always_gets_it() -> None:
    assert set(Maglev(["10.0.0.1:80"], 7).slots.tolist()) == {0}


def test_a_retry_of_maglev_mixes_the_attempt_into_the_hash() -> None:
    table = Maglev([f"h{i}" for i in range(20)], 1009)
    assert table.pick(5, 2) == table.slots[(5 ^ (2**64 - 2)) % 1009]


def test_a_retry_of_a_ring_goes_on_around_the_circle() -> None:
    ring = RingHash(["a", "b", "c"], 12, 12)
    _, hosts = ring.ring
    at = hosts.tolist()
    assert [ring.pick(0, attempt) for attempt in range(15)] == (at + at)[:15]


def test_a_ring_wraps_past_its_last_entry() -> None:
    ring = RingHash(["a", "b", "c"], 12)
    hashes, hosts = ring.ring
    assert ring.pick(int(hashes[-1]) + 1) == hosts[0]
    assert ring.pick(2**64 - 1) == hosts[0]


def test_removing_a_host_moves_few_keys_of_the_others() -> None:
    hosts = [f"10.0.{i // 250}.{i % 250}:80" for i in range(100)]
    before = np.array(hosts)[Maglev(hosts, 65537).slots]
    rest = hosts[:40] + hosts[41:]
    after = np.array(rest)[Maglev(rest, 65537).slots]
    stayed = before != hosts[40]
    assert np.mean(before[stayed] != after[stayed]) <= 0.01


def test_slots_are_even() -> None:
    counts = np.bincount(Maglev([f"10.0.{i // 250}.{i % 250}:80" for i in range(1000)]).slots)
    assert counts.max() / counts.mean() <= 1.01


def test_katran_weights_count_in_the_first_round_only() -> None:
    counts = np.bincount(KatranMaglev({"a": 5, "b": 1}, 251).slots)
    assert counts.tolist() == [128, 123]


def test_katran_hash_is_said_to_be_assumed() -> None:
    assert KatranMaglev(["a", "b"], 7).hash_assumed
    assert not KatranMaglev(["a", "b"], 7, hashes=[1, 2]).hash_assumed


def test_ip_hash_walks_cumulative_weights() -> None:
    table = IpHash({"a": 2, "b": 1})
    assert [table.pick(h) for h in range(6)] == [0, 0, 1, 0, 0, 1]
    assert table.pick_address(b"\x0a\0\0\1") == table.pick(hash_key(b"\x0a\0\0\1"))
    assert table.hash_assumed


REFUSED: list[tuple[str, Callable[[], Any], str]] = [
    ("no hosts", lambda: Maglev([]), "no hosts"),
    ("no hosts in a ring", lambda: RingHash([]), "no hosts"),
    (
        "a host twice",
        lambda: Maglev(["10.0.0.1:80", "a", "10.0.0.1:80"]),
        "hosts 0 and 2 are both 10.0.0.1:80",
    ),
    ("one IPv6 address spelled twice", lambda: Maglev(["[::1]:80", "[0::1]:80"]), r"both \[::1\]:80"),
    ("a host without a name", lambda: Maglev([""]), "needs an address or a name"),
    ("weight 0", lambda: Maglev({"a": 0}), "weight 0; a weight is 1 to 4294967295"),
    ("weight beyond 32 bits", lambda: Maglev({"a": 2**32}), "a weight is 1 to 4294967295"),
    ("weights that overflow together", lambda: Maglev({"a": 2**32 - 1, "b": 1}), "exceeds 4294967295"),
    ("a table size that is not prime", lambda: Maglev(["a"], 65536), "must be a prime number, not 65536"),
    ("table size 1", lambda: Maglev(["a"], 1), "must be a prime number"),
    ("table size 0", lambda: Maglev(["a"], 0), "must be a prime number"),
    ("negative table size", lambda: Maglev(["a"], -7), "table size must be"),
    ("a prime beyond Envoy's limit", lambda: Maglev(["a"], 5000081), "at most 5000011"),
    ("a ring smaller than its minimum", lambda: RingHash(["a"], 10, 5), r"minimum_ring_size \(10\) is above"),
    ("a ring beyond Envoy's limit", lambda: RingHash(["a"], 10, 8388609), "at most 8388608"),
    ("an unknown ring hash", lambda: RingHash(["a"], hash_function="md5"), "there are: xx_hash, murmur_hash_2"),
    ("a split without clusters", lambda: WeightedClusters([]), "no clusters"),
    ("a split of zeros", lambda: WeightedClusters({"a": 0, "b": 0}), "must be greater than 0"),
    ("a split that overflows", lambda: WeightedClusters({"a": 2**32 - 1, "b": 1}), "exceeds 4294967295"),
    ("a negative weight", lambda: WeightedClusters({"a": -1, "b": 2}), "weight is at least 0"),
    ("a cluster twice", lambda: WeightedClusters([("a", 1), ("a", 2)]), "named twice"),
    ("a balance factor of 99", lambda: Maglev(["a"], 7).pick_bounded(1, [0], 99), "at least 100"),
    ("an active count too few", lambda: Maglev(["a", "b"], 7).pick_bounded(1, [0], 150), "one count a host"),
    ("a port beyond 16 bits", lambda: Host("10.0.0.1", 65536), "a port is 0 to 65535"),
    ("a priority beyond Envoy's", lambda: Host("10.0.0.1", 80, priority=128), "a priority is 0 to 127"),
]


@pytest.mark.parametrize(("build", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused_with_the_reason(build: Callable[[], Any], reason: str) -> None:
    with pytest.raises(BalanceError, match=reason):
        build()


def test_limits_are_inside() -> None:
    assert len(Maglev(["a", "b"], 5000011).slots) == 5000011
    assert Maglev({"a": 2**32 - 2, "b": 1}, 7).slots.tolist().count(1) == 1
    assert WeightedClusters({"a": 2**32 - 2, "b": 1}).pick(2**32 - 2) == 1


COLUMNS: list[tuple[str, Any]] = [
    ("floats", np.array([1.0])),
    ("negative numbers", np.array([-1])),
    ("two dimensions", np.zeros((2, 2), np.uint64)),
    ("text", np.array(["a"])),
]


@pytest.mark.parametrize("column", [case[1] for case in COLUMNS], ids=[case[0] for case in COLUMNS])
def test_a_column_that_is_no_column_of_hashes_is_refused(column: Any) -> None:
    with pytest.raises(ColumnError):
        Maglev(["a"], 7).pick_batch(column)


def test_out_is_filled_and_checked() -> None:
    table = Maglev(["a", "b"], 7)
    out = np.full(3, 9, np.int32)
    assert table.pick_batch(np.arange(3), out=out) is out
    assert out.tolist() == table.slots[:3].tolist()
    for bad in (np.zeros(2, np.int32), np.zeros(3, np.int64), np.zeros(6, np.int32)[::2], [0, 0, 0]):
        with pytest.raises(ColumnError, match="out must be"):
            table.pick_batch(np.arange(3), out=bad)


def test_key_columns_of_every_kind_hash_alike() -> None:
    pa = pytest.importorskip("pyarrow")
    keys = ["user-1", "", "ü", "user-4711"]
    wanted = [hash_key(key) for key in keys]
    arrow = pa.array(keys)
    assert hash_keys(keys).tolist() == wanted
    assert hash_keys(np.array([key.encode() for key in keys])).tolist() == wanted
    assert hash_keys(arrow).tolist() == wanted
    assert hash_keys(arrow.slice(2)).tolist() == wanted[2:]
    assert hash_keys(pa.chunked_array([arrow.slice(0, 1), arrow.slice(1)])).tolist() == wanted
    assert hash_keys([]).tolist() == []
    with pytest.raises(ColumnError, match="nulls"):
        hash_keys(pa.array(["a", None]))
    with pytest.raises(ColumnError, match="text or bytes"):
        hash_keys([1])
    with pytest.raises(ColumnError, match="a column of text"):
        hash_keys("user-1")


def test_a_table_outlives_its_neighbours() -> None:
    pick = Maglev(["a", "b", "c"], 7).pick
    assert [pick(h) for h in range(7)] == Maglev(["a", "b", "c"], 7).slots.tolist()


def test_a_long_build_listens_to_signals() -> None:
    """A handler that Python could only run after the build would run once; in the build it runs again and again."""
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        Maglev([f"h{i}" for i in range(300)], 5000011)
        count = len(heard)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # 76 looks in a build; hosts are read before it, in Python, which hears signals too
    assert count >= 10


def test_readers_see_one_table_or_the_other_while_it_is_replaced() -> None:
    """Tables are immutable and replaced by one assignment: a batch comes wholly from one of them."""
    names = [f"h{i}" for i in range(50)]
    tables = [Maglev(names, 1009), Maglev(names[::-1], 1009)]
    hashes = np.random.default_rng(8).integers(0, 2**64, 20_000, np.uint64)
    wanted = [table.pick_batch(hashes).tobytes() for table in tables]
    current = [tables[0]]
    done = threading.Event()
    mixed = []

    def read() -> None:
        while not done.is_set():
            if current[0].pick_batch(hashes).tobytes() not in wanted:
                mixed.append(1)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for i in range(2000):
        current[0] = tables[i % 2] if i % 100 else Maglev(names if i % 2 == 0 else names[::-1], 1009)
    done.set()
    for reader in readers:
        reader.join()
    assert not mixed


def test_ctrl_c_leaves_no_table() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            [Maglev(["a", "b"], 5000011) for _ in range(1000)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
