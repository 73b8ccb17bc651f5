"""Consistent hashing under test: ``python -m benches.peers.balancers LIBRARY WAY FOLDER``.

LIBRARY  ours, plain_maglev (with xxhash), uhashring (ketama), jump (jump-consistent-hash, with xxhash)
WAY      build  the table of all hosts; a pass is one build
         keys   a column of keys; ours by pick_keys over a numpy 'S' array, others by one call a key
         one    one call a key whose hash is known; uhashring takes the key, it has no other way
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches import data
from benches.peers import plain_maglev
from benches.peers.serve import Answers, headers_a_pass, timed_passes

Pick = Callable[[int], Sequence[int]]  # the picks of the first n keys


def main() -> None:
    answers = Answers()
    library, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    facts = data.about(folder)
    hosts = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80" for i in range(facts["hosts"])]
    keys = np.fromfile(folder / "keys.u8", np.uint8).view(f"S{facts['key_bytes']}")
    expected = data.load_expected(folder)
    try:
        build, pick_of, is_maglev = LIBRARIES[library](hosts, keys, facts["table_size"], way)
    except ImportError as error:
        answers.give_up(str(error))
    start = time.perf_counter()
    made = build()
    build_seconds = time.perf_counter() - start
    if way == "build":
        count, work = 1, build
    else:
        pick = pick_of(made)
        count = headers_a_pass(pick, len(keys))

        def work() -> object:
            return pick(count)

    def wrong(_: int) -> dict[str, Any]:
        found = np.array(pick_of(made)(min(len(keys), 20_000)), np.int64)
        # Another algorithm places keys elsewhere; of it only hosts that do not exist are wrong.
        bad = found != expected[: len(found)] if is_maglev else (found < 0) | (found >= len(hosts))
        return {"wrong": int(bad.sum()), "checked": len(found)}

    answers.say({"build_s": round(build_seconds, 6), "headers": count})
    answers.serve({"pass": lambda passes: timed_passes(work, passes, count), "wrong": wrong})


Made = tuple[Callable[[], Any], Callable[[Any], Pick], bool]


def _ours(hosts: list[str], keys: Any, size: int, way: str) -> Made:
    balance = importlib.import_module("meshsieve.balance")
    hashes = balance.hash_keys(keys).tolist()

    def pick_of(table: Any) -> Pick:
        if way == "one":
            pick = table.pick
            return lambda n: [pick(h) for h in hashes[:n]]
        return lambda n: table.pick_keys(keys[:n])

    return lambda: balance.Maglev(hosts, size), pick_of, True


def _plain_maglev(hosts: list[str], keys: Any, size: int, way: str) -> Made:
    xxh64 = importlib.import_module("xxhash").xxh64_intdigest
    texts = keys.tolist()
    hashes = [xxh64(key) for key in texts]

    def pick_of(slots: list[int]) -> Pick:
        if way == "one":
            return lambda n: [slots[h % size] for h in hashes[:n]]
        return lambda n: [slots[xxh64(key) % size] for key in texts[:n]]

    return lambda: plain_maglev.table(hosts, size, xxh64), pick_of, True


def _uhashring(hosts: list[str], keys: Any, size: int, way: str) -> Made:
    ring = importlib.import_module("uhashring").HashRing
    texts = [key.decode() for key in keys.tolist()]
    number = {host: i for i, host in enumerate(hosts)}

    def pick_of(made: Any) -> Pick:
        find = made.get_node
        return lambda n: [number[find(key)] for key in texts[:n]]

    return lambda: ring(nodes=hosts), pick_of, False


def _jump(hosts: list[str], keys: Any, size: int, way: str) -> Made:
    jump = importlib.import_module("jump").hash
    xxh64 = importlib.import_module("xxhash").xxh64_intdigest
    texts = keys.tolist()
    hashes = [xxh64(key) for key in texts]
    count = len(hosts)

    def pick_of(_: Any) -> Pick:
        if way == "one":
            return lambda n: [jump(h, count) for h in hashes[:n]]
        return lambda n: [jump(xxh64(key), count) for key in texts[:n]]

    return lambda: count, pick_of, False


LIBRARIES: dict[str, Callable[[list[str], Any, int, str], Made]] = {
    "ours": _ours,
    "plain_maglev": _plain_maglev,
    "uhashring": _uhashring,
    "jump": _jump,
}

if __name__ == "__main__":
    main()
