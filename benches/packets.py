"""``python -m benches packets``: the L3/L4 classifier against DPDK's rte_acl and a plain scan."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches import data, duel, machine, prefixes, report
from benches.data import Case
from benches.options import Options
from benches.process import Peer, Running, Unavailable
from benches.report import Row

AVX2_KERNELS = {"BENCH_KERNELS": "scalar,sse,avx2"}
AVX512_KERNELS = {"BENCH_KERNELS": "avx512x16,avx512x32"}
OWN = "benches.peers.own"

LINEAR_SCAN = Peer("linear_scan", source="linear_scan.c")
RTE_ACL = Peer("rte_acl", source="rte_acl.c", packages=("libdpdk",), environment=AVX2_KERNELS)
RTE_ACL_AVX512 = Peer("rte_acl_avx512", source="rte_acl.c", packages=("libdpdk",), environment=AVX512_KERNELS)
# Few, very large tries: faster, for hundreds of megabytes and seconds at a thousand rules. Only on demand.
RTE_ACL_LARGE = Peer(
    "rte_acl_large", source="rte_acl.c", packages=("libdpdk",), environment={"BENCH_MAX_SIZE": str(1 << 30)}
)
PEERS = {peer.name: peer for peer in (LINEAR_SCAN, RTE_ACL, RTE_ACL_AVX512, RTE_ACL_LARGE)}
DEFAULT_PEERS = ("linear_scan", "rte_acl", "rte_acl_avx512")

BUILD_LIMIT_GB = 12

PREFIX_TABLES = "benches.peers.prefix_tables"
PREFIX_PEERS = ("pytricia", "py-radix")
PREFIX_WAYS = ("batch", "scalar", "text", "hot", "change", "bulk")  # of benches/peers/prefix_tables.py


def cases(options: Options) -> Iterator[Case]:
    """What is run: everything, or less with ``--quick``, ``--suite``, ``--sizes``, ``--only``."""
    if options.data:
        yield from data.given(options.data)
        return
    headers = 20_000 if options.quick else 100_000
    sizes = options.sizes or ([1_000, 10_000] if options.quick else [1_000, 10_000, 100_000])
    names = ["acl1", "fw1", "ipc1"] if options.quick else None
    yield from data.families(sizes, headers, names)
    if not options.quick:
        yield from data.skewed(sizes, headers)
        yield from data.ipv6(sizes, headers)
    yield from data.hard(headers)
    if options.quick:
        yield from list(data.group_policies([2_000], headers))[:1]
        yield from prefixes.cases([10_000], headers, versions=(4,))
    else:
        yield from data.group_policies([2_000, 10_000], headers)
        yield from prefixes.cases([1_000, 10_000, 100_000, 1_000_000], headers)
    if not options.quick:
        yield from data.updates([10_000, 100_000], headers)
        growing = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
        yield from data.growth(growing, headers)


def sides(options: Options) -> list[Peer]:
    from meshsieve import _core

    own = [Peer("ours", module=OWN)]
    if not options.quick:
        engines = [name for name, _ in _core.engines() if name != "linear"]  # the reference, microseconds a packet
        own += [Peer(f"ours_{name}", module=OWN, arguments=("--engine", name)) for name in engines]
        own += [Peer("ours_scalar_backend", module=OWN, arguments=("--backend", "scalar"))]
    return own + [PEERS[name] for name in options.peers or DEFAULT_PEERS]


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``; progress goes to stderr."""
    cache = data.cache_folder()
    facts = machine.describe()
    rows: list[Row] = []
    seen: set[str] = set()
    with machine.huge_pages(4 << 30) as huge, options.until_interrupted(facts):
        facts["huge_pages"] = huge
        for case in cases(options):
            if case.name in seen or not options.wants(case.suite, case.name):
                continue
            seen.add(case.name)
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            if case.suite == "prefixes":
                rows += _prefix_rows(case, options, cache)
            else:
                rows.append(_row(case, options, cache, huge))
    return report.document("packets", facts, rows, _summaries(rows))


def _row(case: Case, options: Options, cache: Path, huge: bool) -> Row:
    folder = data.materialise(case, cache)
    facts = data.about(folder)
    peers = sides(options)
    if case.suite == "updates":  # which no peer and no engine of ours by itself does
        peers = peers[:1]
    rounds = 3 if options.quick else 9
    why_not = _beyond_the_peers(facts)

    def extras(peer: Peer, running: Running) -> dict[str, Any]:
        if peer.name != "ours" or (options.quick and case.suite not in ("families", "updates")):
            return {}
        return _calls(running, rounds) | ({} if "five_tuples" in facts else _updates(running))

    entries = duel.run(
        [peer for peer in peers if peer.module or not why_not],
        folder,
        cache=cache,
        rounds=rounds,
        patience=60 if options.quick else options.patience,
        environment=lambda peer: {"BENCH_HUGE": str(int(huge)), "BENCH_LIMIT_GB": str(BUILD_LIMIT_GB)},
        extras=extras,
    )
    for peer in peers:
        entries.setdefault(peer.name, {"unavailable": why_not})
    return _finished(case, facts, entries)


def _beyond_the_peers(facts: dict[str, Any]) -> str:
    """Why programs that take lists of IPv4 five-tuples cannot take part in a case; empty where they can."""
    if "five_tuples" in facts:
        return f"takes five-tuples, and this policy written out is {facts['five_tuples']:,} of them"
    return "its driver takes IPv4 five-tuples" if facts.get("version") == 6 else ""


def _prefix_rows(case: Case, options: Options, cache: Path) -> Iterator[Row]:
    """A row for each way of asking and changing; the peers have single calls only."""
    folder = data.materialise(case, cache)
    for way in PREFIX_WAYS:
        ours, *peers = (Peer(name, module=PREFIX_TABLES, arguments=(name, way)) for name in ("ours", *PREFIX_PEERS))
        rounds, patience = (3, 60) if options.quick else (9, options.patience)
        entries = duel.run([ours, *peers], folder, cache=cache, rounds=rounds, patience=patience)
        yield _finished(case, data.about(folder), entries) | {"case": f"{case.name}_{way}"}


def _calls(running: Running, rounds: int) -> dict[str, Any]:
    return running.ask(f"boundary {rounds}") | running.ask("files 3") | running.ask(f"threads {rounds}")


def _updates(running: Running) -> dict[str, Any]:
    """Of lists of ranges: a policy of groups has no such rules that could be put in again."""
    try:
        return running.ask("updates 1")
    except Unavailable as why:
        return {"updates": str(why)}


def _finished(case: Case, facts: dict[str, Any], entries: dict[str, duel.Entry]) -> Row:
    ours = entries.pop("ours")
    own = {name.removeprefix("ours_"): entries.pop(name) for name in list(entries) if name.startswith("ours_")}
    peers_ns = {name: entry.get("ns") for name, entry in entries.items()}
    on_avx2 = {name: ns for name, ns in peers_ns.items() if name != "rte_acl_avx512"}
    return {
        "case": case.name,
        "suite": case.suite,
        **facts,
        "ours_ns": ours.get("ns"),
        "ours_median_ns": ours.get("median_ns"),
        "engine": ours.get("engine"),
        "backend": ours.get("backend"),
        "peers_ns": peers_ns,
        "ratio": report.ratio(peers_ns, ours.get("ns")),
        "ratio_avx2": report.ratio(on_avx2, ours.get("ns")),
        "wrong": ours["wrong"] + ours.get("wrong_after_updates", 0) if "wrong" in ours else None,
        "checked": ours.get("checked"),
        "build_seconds": ours.get("build_s"),
        "bytes_per_rule": ours["bytes"] / facts["rules"] if "bytes" in ours else None,
        "build_peak_bytes": ours.get("peak_bytes"),
        "ours": ours,
        "own_engines": own,
        "peers": entries,
    }


def _summaries(rows: list[Row]) -> dict[str, Any]:
    """Over everything, and by suite and size."""
    found = report.summary(rows)
    found["avx2_peers"] = report.summary(rows, "ratio_avx2")
    by_size: dict[str, list[Row]] = {}
    for row in rows:
        by_size.setdefault(f"{row['suite']} {_size_class(row)}", []).append(row)
    found["by_size"] = {
        name: {**report.summary(some), "avx2_peers": report.summary(some, "ratio_avx2")}
        for name, some in by_size.items()
    }
    return found


def _size_class(row: Row) -> str:
    """The number of rules that was asked for (generators may drop some); of given sets, the nearest power of ten."""
    asked = row.get("asked") or row["rules"]
    return data.short(10 ** round(math.log10(asked)) if row["suite"] == "given" else asked)
