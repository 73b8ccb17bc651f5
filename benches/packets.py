"""``python -m benches packets``: the L3/L4 classifier against DPDK's rte_acl and a plain scan."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benches import data, duel, machine, report
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
SUITES = ("families", "traces", "hard", "groups", "growth", "boundary", "updates")


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
    yield from data.hard(headers)
    yield from data.group_policies([2_000] if options.quick else [2_000, 10_000], headers)
    if not options.quick:
        growing = [1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000]
        yield from data.growth(growing, headers)


def sides(options: Options) -> list[Peer]:
    from meshsieve import _core

    own = [Peer("ours", module=OWN)]
    if not options.quick:
        own += [Peer(f"ours_{name}", module=OWN, arguments=("--engine", name)) for name, _ in _core.engines()]
        own += [Peer("ours_scalar_backend", module=OWN, arguments=("--backend", "scalar"))]
    return own + [PEERS[name] for name in options.peers or DEFAULT_PEERS]


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``; progress goes to stderr."""
    cache = data.cache_folder()
    facts = machine.describe()
    rows: list[Row] = []
    seen: set[str] = set()
    with machine.huge_pages(4 << 30) as huge:
        facts["huge_pages"] = huge
        for case in cases(options):
            if case.name in seen or not options.wants(case.suite, case.name):
                continue
            seen.add(case.name)
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            rows.append(_row(case, options, cache, huge))
    return report.document("packets", facts, rows, _summaries(rows))


def _row(case: Case, options: Options, cache: Path, huge: bool) -> Row:
    folder = data.materialise(case, cache)
    facts = data.about(folder)
    peers = sides(options)
    boxes = (folder / "rules.u32").exists()

    def extras(peer: Peer, running: Running) -> dict[str, Any]:
        return _calls_and_updates(peer, running, options) if peer.name == "ours" else {}

    entries = duel.run(
        [peer for peer in peers if boxes or peer.module],
        folder,
        cache=cache,
        rounds=3 if options.quick else 9,
        patience=20 if options.quick else options.patience,
        environment=lambda peer: {"BENCH_HUGE": str(int(huge)), "BENCH_LIMIT_GB": str(BUILD_LIMIT_GB)},
        extras=extras,
    )
    for peer in peers:
        if peer.name not in entries:
            why = f"takes five-tuples, and this policy written out is {facts['five_tuples']:,} of them"
            entries[peer.name] = {"unavailable": why}
    return _finished(case, facts, entries)


def _calls_and_updates(peer: Peer, running: Running, options: Options) -> dict[str, Any]:
    found = running.ask("boundary 3") if not options.quick else running.ask("boundary 1")
    try:
        found |= running.ask("updates 1")
    except Unavailable as why:
        found["updates"] = str(why)
    return found


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
        "wrong": ours.get("wrong"),
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
    """The round number that was asked for; generators may drop some rules."""
    asked = row.get("asked") or row["rules"]
    for limit, name in ((1_500, "1k"), (3_000, "2k"), (15_000, "10k"), (150_000, "100k")):
        if asked <= limit:
            return name
    return "beyond"


def tables(result: dict[str, Any]) -> str:
    """What is printed for people."""
    rows = result["rows"]
    shown = [
        *DEFAULT_PEERS,
        *(name for name in PEERS if name not in DEFAULT_PEERS and any(name in r["peers"] for r in rows)),
    ]
    head = [
        "case",
        "rules",
        "ours ns",
        "engine",
        *[f"{name} ns" for name in shown],
        "ratio",
        "",
        "wrong",
        "build s",
        "B/rule",
        "peak MB",
    ]
    lines = []
    for row in rows:
        mark = "" if row["ratio"] is None else "LOSES" if row["ratio"] < 1 else ""
        mark = "WRONG" if row["wrong"] else "FAILED" if row["ours_ns"] is None else mark
        lines.append(
            [
                row["case"],
                f"{row['rules']:,}",
                row["ours_ns"],
                row["engine"] or "-",
                *[_peer_cell(row["peers"].get(name)) for name in shown],
                row["ratio"],
                mark,
                row["wrong"],
                row["build_seconds"],
                row["bytes_per_rule"],
                row["build_peak_bytes"] / 1e6 if row["build_peak_bytes"] is not None else None,
            ]
        )
    parts = [
        report.table(head, lines),
        _own_engines(rows),
        _calls(rows),
        _notes(rows),
        _summary_table(result["summary"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _peer_cell(entry: duel.Entry | None) -> Any:
    if entry is None:
        return "not run"
    if "unavailable" in entry:
        return "n/a"
    return f"WRONG {entry['wrong']:,}" if entry["wrong"] else entry["ns"]


def _own_engines(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["own_engines"]))
    if not names:
        return ""
    lines = [[row["case"], *[_peer_cell(row["own_engines"].get(name)) for name in names]] for row in rows]
    return "Our engines, each by itself (ns):\n" + report.table(["case", *names], lines)


def _calls(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        by_batch = row["ours"].get("ns_by_batch")
        if by_batch:
            overhead = by_batch["4096"] - by_batch["whole"]
            updates = row["ours"].get("updates_a_second")
            lines.append([row["case"], *by_batch.values(), overhead, updates, row["ours"].get("lookup_slowdown")])
            names = list(by_batch)
    if not lines:
        return ""
    head = ["case", *[f"batch {n}" if n.isdigit() else n for n in names], "4096 - whole", "updates/s", "slower by"]
    return "Calls (ns a packet by batch size, one call over all, scalar call) and live updates:\n" + report.table(
        head, lines
    )


def _notes(rows: list[Row]) -> str:
    """Every peer that did not run, with the reason, and how those that ran were set, once each."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        for name, entry in {
            **row["peers"],
            **{f"ours_{n}": e for n, e in row["own_engines"].items()},
            "ours": row["ours"],
        }.items():
            if "unavailable" in entry:
                notes.setdefault(f"{name} not available: {entry['unavailable']}", []).append(row["case"])
            elif name in row["peers"] and entry.get("note"):
                notes.setdefault(f"{name}: {entry['note']}", []).append(row["case"])
    return "\n".join(
        f"{note} [{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}]" for note, names in notes.items()
    )


def _summary_table(summary: dict[str, Any]) -> str:
    lines = [
        [
            name,
            part["rows"],
            part["min_ratio"],
            part["geomean_ratio"],
            part["avx2_peers"]["min_ratio"],
            part["avx2_peers"]["geomean_ratio"],
            part["losing_rows"],
            part["wrong"],
        ]
        for name, part in [*summary["by_size"].items(), ("all", summary)]
    ]
    head = [
        "suite and size",
        "rows",
        "min ratio",
        "geomean",
        "min, AVX2 peers",
        "geomean, AVX2 peers",
        "losing",
        "wrong",
    ]
    return report.table(head, lines)
