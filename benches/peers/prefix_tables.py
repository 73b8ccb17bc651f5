"""Longest-prefix tables under test: ``python -m benches.peers.prefix_tables LIBRARY WAY FOLDER``.

LIBRARY  ours, pytricia, py-radix
WAY      batch    ours: lookup_batch over an array, 4,096 addresses a call; the others as ``scalar``
         scalar   a call an address, in the form that is fastest for the library, made beforehand
         text     a call an address, as text
         hot      as ``scalar``, one address again and again
         change   a call a change: prefixes out, and in again
         bulk     ours: the same in two calls of ``update``; the others as ``change``
What a look-up returns is the number of the prefix. After changes all prefixes are there again.
"""

from __future__ import annotations

import importlib
import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benches import data
from benches.peers.serve import Answers, headers_a_pass, peak_rss, reset_peak_rss, timed_passes

BATCH = 4096
CHECKED = 2000  # addresses, at least, of which the answers are compared
Prefixes = list[tuple[str, int]]


def main() -> None:
    answers = Answers()
    library, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    version = data.about(folder)["version"]
    prefixes, addresses = _load(folder, version)
    expected = data.load_expected(folder)
    reset_peak_rss()
    before = peak_rss()
    start = time.perf_counter()
    try:
        made = LIBRARIES[library](prefixes, addresses, version, way)
    except (ImportError, AttributeError) as error:
        answers.give_up(str(error))
    build_seconds = time.perf_counter() - start
    most = min(len(addresses), max(1, len(prefixes) // 2)) if made.change is not None else len(addresses)
    timed = made.change or made.look_up
    count = headers_a_pass(timed, most, min(256, most))
    checked = min(len(addresses), max(count, CHECKED))

    def wrong(_: int) -> dict[str, Any]:
        found = np.fromiter(made.look_up(checked), np.int64, checked)
        wanted = np.repeat(expected[:1], checked) if way == "hot" else expected[:checked]
        return {"wrong": int((found != wanted).sum()), "checked": checked}

    answers.say(
        {
            "build_s": round(build_seconds, 6),
            "bytes": made.size() or peak_rss() - before,
            "peak_bytes": peak_rss() - before,
            "headers": count,
            "engine": "PrefixTable",
            "note": made.note,
        }
    )
    answers.serve({"pass": lambda passes: timed_passes(lambda: timed(count), passes, count), "wrong": wrong})


def _load(folder: Path, version: int) -> tuple[Prefixes, list[int]]:
    make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    networks = np.fromfile(folder / "networks.u64", np.uint64).reshape(-1, 2).tolist()
    lengths = np.fromfile(folder / "lengths.i64", np.int64).tolist()
    addresses = np.fromfile(folder / "addresses.u64", np.uint64).reshape(-1, 2).tolist()
    return (
        [
            (f"{make(high << 64 | low)}/{length}", i)
            for i, ((high, low), length) in enumerate(zip(networks, lengths, strict=True))
        ],
        [high << 64 | low for high, low in addresses],
    )


@dataclass
class Made:
    look_up: Callable[[int], Iterable[int]]
    note: str
    change: Callable[[int], object] | None = None  # as many changes as it is told
    size: Callable[[], int] = lambda: 0


def _texts(addresses: list[int], version: int) -> list[str]:
    make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    return [str(make(address)) for address in addresses]


def _packed(addresses: list[int], version: int) -> list[Any]:
    return list(addresses) if version == 4 else [a.to_bytes(16, "big") for a in addresses]


def _keys(addresses: list[int], version: int, way: str, quickest: Callable[[list[int], int], list[Any]]) -> list[Any]:
    if way == "hot":
        addresses = addresses[:1] * len(addresses)
    return (_texts if way == "text" else quickest)(addresses, version)


def _changed(prefixes: Prefixes) -> Prefixes:
    """In the order in which they are taken out and put in."""
    order = np.random.default_rng(7).permutation(len(prefixes)).tolist()
    return [prefixes[i] for i in order]


def _ours(prefixes: Prefixes, addresses: list[int], version: int, way: str) -> Made:
    table = importlib.import_module("meshsieve.packets").PrefixTable(dict(prefixes))
    if way == "batch":
        column = np.array(
            addresses if version == 4 else [(a >> 64, a & 2**64 - 1) for a in addresses],
            np.uint32 if version == 4 else np.uint64,
        )

        def look_up(count: int) -> Iterable[int]:
            return np.concatenate(
                [table.lookup_batch(column[i : min(i + BATCH, count)]) for i in range(0, count, BATCH)]
            )

        return Made(look_up, f"lookup_batch, {BATCH} a call", size=lambda: table.nbytes)
    keys = _keys(addresses, version, way, _packed)
    find = table.lookup

    def singly(count: int) -> Iterable[int]:
        return [find(key) for key in keys[:count]]

    if way not in ("change", "bulk"):
        return Made(singly, f"lookup({type(keys[0]).__name__})", size=lambda: table.nbytes)
    order = _changed(prefixes)
    singly(1)  # a table in use

    def change(count: int) -> None:
        for prefix, _ in order[: count // 2]:
            del table[prefix]
        for prefix, value in order[: count // 2]:
            table[prefix] = value

    def bulk(count: int) -> None:
        some = order[: count // 2]
        table.update(remove=[prefix for prefix, _ in some])
        table.update(some)

    return Made(singly, way, bulk if way == "bulk" else change, size=lambda: table.nbytes)


def _pytricia(prefixes: Prefixes, addresses: list[int], version: int, way: str) -> Made:
    library = importlib.import_module("pytricia")
    table = library.PyTricia(32) if version == 4 else library.PyTricia(128, socket.AF_INET6)
    for prefix, value in prefixes:
        table[prefix] = value
    changes = way in ("change", "bulk")
    if not changes:
        table.freeze()
    find = table.get
    keys = _keys(addresses, version, way, _packed)
    order = _changed(prefixes)

    def look_up(count: int) -> Iterable[int]:
        return [find(key, -1) for key in keys[:count]]

    def change(count: int) -> None:
        for prefix, _ in order[: count // 2]:
            del table[prefix]
        for prefix, value in order[: count // 2]:
            table[prefix] = value

    note = "del, []=" if changes else f"get({type(keys[0]).__name__}), frozen"
    return Made(look_up, note, change if changes else None)


def _py_radix(prefixes: Prefixes, addresses: list[int], version: int, way: str) -> Made:
    table = importlib.import_module("radix").Radix()
    for prefix, value in prefixes:
        table.add(prefix).data["value"] = value
    find = table.search_best
    keys = _keys(addresses, version, way, _texts)
    order = _changed(prefixes)

    def look_up(count: int) -> list[int]:
        return [node.data["value"] if (node := find(key)) else -1 for key in keys[:count]]

    def change(count: int) -> None:
        for prefix, _ in order[: count // 2]:
            table.delete(prefix)
        for prefix, value in order[: count // 2]:
            table.add(prefix).data["value"] = value

    changes = way in ("change", "bulk")
    return Made(look_up, "delete, add" if changes else "search_best(str)", change if changes else None)


LIBRARIES: dict[str, Callable[[Prefixes, list[int], int, str], Made]] = {
    "ours": _ours,
    "pytricia": _pytricia,
    "py-radix": _py_radix,
}

if __name__ == "__main__":
    main()
