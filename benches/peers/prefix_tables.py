"""Longest-prefix tables under test: ``python -m benches.peers.prefix_tables LIBRARY FOLDER``.

LIBRARY  ours_batch    meshsieve.packets.PrefixTable, lookup_batch over an array, 4,096 addresses a call
         ours_scalar   the same, one lookup a call
         pytricia, py-radix
Every scalar call is given its address in the form that is fastest for that library, made beforehand; what it returns is
the number of the prefix.
"""

from __future__ import annotations

import importlib
import ipaddress
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benches import data
from benches.peers.serve import Answers, headers_a_pass, peak_rss, reset_peak_rss, timed_passes

BATCH = 4096
Find = Callable[[Any], Any]
Prefixes = list[tuple[str, int]]


def main() -> None:
    answers = Answers()
    library, folder = sys.argv[1], Path(sys.argv[2])
    version = data.about(folder)["version"]
    prefixes, addresses = _load(folder, version)
    expected = data.load_expected(folder)
    reset_peak_rss()
    before = peak_rss()
    start = time.perf_counter()
    try:
        look_up, size, note = LIBRARIES[library](prefixes, addresses, version)
    except (ImportError, AttributeError) as error:
        answers.give_up(str(error))
    build_seconds = time.perf_counter() - start
    count = headers_a_pass(look_up, len(addresses))

    def wrong(_: int) -> dict[str, Any]:
        found = np.fromiter(look_up(count), np.int64, count)
        return {"wrong": int((found != expected[:count]).sum()), "checked": count}

    answers.say(
        {
            "build_s": round(build_seconds, 6),
            "bytes": size() or peak_rss() - before,
            "peak_bytes": peak_rss() - before,
            "headers": count,
            "engine": "PrefixTable",
            "note": note,
        }
    )
    answers.serve({"pass": lambda passes: timed_passes(lambda: look_up(count), passes, count), "wrong": wrong})


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


LookUp = Callable[[int], Iterable[int]]
Made = tuple[LookUp, Callable[[], int], str]


def _ours_batch(prefixes: Prefixes, addresses: list[int], version: int) -> Made:
    table = _our_table(prefixes)
    if version == 4:
        column = np.array(addresses, np.uint32)
    else:
        column = np.array([(a >> 64, a & 2**64 - 1) for a in addresses], np.uint64)

    def look_up(count: int) -> Iterable[int]:
        return np.concatenate([table.lookup_batch(column[i : min(i + BATCH, count)]) for i in range(0, count, BATCH)])

    return look_up, lambda: table.nbytes, f"lookup_batch, {BATCH} a call"


def _ours_scalar(prefixes: Prefixes, addresses: list[int], version: int) -> Made:
    table = _our_table(prefixes)
    find = table.lookup
    keys = addresses if version == 4 else [a.to_bytes(16, "big") for a in addresses]
    return lambda count: [find(key) for key in keys[:count]], lambda: table.nbytes, "lookup"


def _our_table(prefixes: Prefixes) -> Any:
    return importlib.import_module("meshsieve.packets").PrefixTable(dict(prefixes))


def _pytricia(prefixes: Prefixes, addresses: list[int], version: int) -> Made:
    library = importlib.import_module("pytricia")
    table = library.PyTricia(32) if version == 4 else library.PyTricia(128, socket.AF_INET6)
    for prefix, value in prefixes:
        table[prefix] = value
    table.freeze()
    find = table.get
    keys = addresses if version == 4 else [a.to_bytes(16, "big") for a in addresses]
    return lambda count: [find(key, -1) for key in keys[:count]], lambda: 0, f"get({type(keys[0]).__name__}), frozen"


def _py_radix(prefixes: Prefixes, addresses: list[int], version: int) -> Made:
    table = importlib.import_module("radix").Radix()
    for prefix, value in prefixes:
        table.add(prefix).data["value"] = value
    find = table.search_best
    make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    keys = [str(make(address)) for address in addresses]

    def look_up(count: int) -> list[int]:
        return [node.data["value"] if (node := find(key)) else -1 for key in keys[:count]]

    return look_up, lambda: 0, "search_best(str)"


LIBRARIES: dict[str, Callable[[Prefixes, list[int], int], Made]] = {
    "ours_batch": _ours_batch,
    "ours_scalar": _ours_scalar,
    "pytricia": _pytricia,
    "py-radix": _py_radix,
}

if __name__ == "__main__":
    main()
