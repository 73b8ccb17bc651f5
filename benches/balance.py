"""``python -m benches balance``: consistent hashing against uhashring, jump-consistent-hash and plain Python Maglev."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches import data, duel, rows
from benches.data import Case, Material
from benches.options import Options
from benches.peers import plain_maglev
from benches.process import Peer
from benches.report import Row

MODULE = "benches.peers.balancers"
PEERS = ("plain_maglev", "uhashring", "jump")
WAYS = ("build", "keys", "one")
KEY_BYTES = 16
# Hosts -> table size: Envoy's default, and ten times that for ten thousand hosts.
SIZES = {10: 65537, 100: 65537, 1_000: 65537, 10_000: 655_373}
# A jump table is the number of hosts, so there is nothing to build; a ring of this many hosts takes half a minute.
NOT_BUILT = {"jump"}
SLOW_RINGS = 10_000


def cases(options: Options) -> Iterator[Case]:
    keys = 100_000 if options.quick else 1_000_000
    wanted = options.sizes or ([100, 1_000] if options.quick else list(SIZES))
    for hosts in wanted:
        facts = {"hosts": hosts, "table_size": SIZES.get(hosts, 65537), "key_bytes": KEY_BYTES, "seed": 8}
        yield Case(f"maglev_{hosts}_{keys}", "balance", facts, lambda h=hosts, k=keys: _material(h, k))


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``."""
    return rows.collect("balance", cases(options), WAYS, _row, options)


def _row(case: Case, way: str, folder: Path, cache: Path, options: Options) -> Row:
    facts = data.about(folder)
    names = [
        name
        for name in options.peers or PEERS
        if not (way == "build" and name in NOT_BUILT) and not (name == "uhashring" and facts["hosts"] >= SLOW_RINGS)
    ]
    peers = [Peer(name, module=MODULE, arguments=(name, way)) for name in ("ours", *names)]
    rounds = 3 if options.quick else 9
    entries = duel.run(peers, folder, cache=cache, rounds=rounds, patience=options.patience)
    return rows.beside_peers(f"{facts['hosts']} hosts, {way}", case, facts, entries, way=way)


def _material(hosts: int, keys: int) -> Material:
    """Keys of user ids, what the plain Maglev makes of the first of them, and how even and stable our table is."""
    from meshsieve._core import xxh64
    from meshsieve.balance import Maglev, hash_key

    names = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80" for i in range(hosts)]
    size = SIZES.get(hosts, 65537)
    slots = plain_maglev.table(names, size, xxh64)
    rng = np.random.default_rng(8)
    column = np.array([b"user-%d" % value for value in rng.integers(0, 10**9, keys)], f"S{KEY_BYTES}")
    expected = np.full(keys, -1, np.int32)
    judged = min(keys, 20_000)
    expected[:judged] = [slots[hash_key(key) % size] for key in column[:judged].tolist()]
    ours = Maglev(names, size).slots
    counts = np.bincount(ours, minlength=hosts)
    gone = hosts // 2
    rest = Maglev(names[:gone] + names[gone + 1 :], size).slots
    same_number = np.where(rest >= gone, rest + 1, rest)
    stayed = ours != gone
    facts = {
        "rules": hosts,
        "max_over_mean": round(float(counts.max() / counts.mean()), 4),
        "extra_moved": round(float(np.mean(ours[stayed] != same_number[stayed])), 4),
    }
    return Material({"keys.u8": column.view(np.uint8), "expected.i32": expected}, facts)
