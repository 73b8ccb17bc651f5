"""What ``python -m benches packets`` prints for people."""

from __future__ import annotations

from typing import Any

from benches.duel import Entry
from benches.report import Row, table


def tables(result: dict[str, Any]) -> str:
    rows: list[Row] = result["rows"]
    parts = [
        _against_peers([row for row in rows if row["suite"] != "prefixes"]),
        _against_peers([row for row in rows if row["suite"] == "prefixes"]),
        _own_engines(rows),
        _calls(rows),
        _files(rows),
        notes(rows),
        _summary(result["summary"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _against_peers(rows: list[Row]) -> str:
    peers = dict.fromkeys(name for row in rows for name in row["peers"])
    return table(
        [
            {
                "case": row["case"],
                "rules": row["rules"],
                "ours ns": row["ours_ns"],
                "engine": row["engine"],
                **{f"{name} ns": time_of(row["peers"].get(name)) for name in peers},
                "ratio": row["ratio"],
                "": mark(row),
                "wrong": row["wrong"],
                "build s": row["build_seconds"],
                "B/rule": row["bytes_per_rule"],
                "peak MB": row["build_peak_bytes"] / 1e6 if row["build_peak_bytes"] is not None else None,
            }
            for row in rows
        ]
    )


def mark(row: Row) -> str:
    if row["wrong"]:
        return "WRONG"
    if row["ours_ns"] is None:
        return "FAILED"
    return "LOSES" if row["ratio"] is not None and row["ratio"] < 1 else ""


def time_of(entry: Entry | None) -> Any:
    """Of a side in a row; None where the row does not ask it."""
    if entry is None:
        return None
    if "unavailable" in entry:
        return "n/a"
    return f"WRONG {entry['wrong']:,}" if entry["wrong"] else entry["ns"]


def _own_engines(rows: list[Row]) -> str:
    names = dict.fromkeys(name for row in rows for name in row["own_engines"])
    lines = [
        {"case": row["case"], **{name: time_of(row["own_engines"].get(name)) for name in names}}
        for row in rows
        if row["own_engines"]
    ]
    return f"Our engines, each by itself (ns):\n{table(lines)}" if lines else ""


def _calls(rows: list[Row]) -> str:
    lines = [
        {
            "case": row["case"],
            **{f"batch {name}" if name.isdigit() else name: ns for name, ns in row["ours"]["ns_by_batch"].items()},
            "4096 - whole": row["ours"]["ns_by_batch"]["4096"] - row["ours"]["ns_by_batch"]["whole"],
            **{f"{n} threads": ns for n, ns in row["ours"].get("ns_by_threads", {}).items() if n != "1"},
            "updates/s": row["ours"].get("updates_a_second"),
            "in bulk": row["ours"].get("bulk_updates_a_second"),
            "look-ups slower by": row["ours"].get("lookup_slowdown"),
        }
        for row in rows
        if "ns_by_batch" in row["ours"]
    ]
    return (
        f"Calls (ns a packet by batch size, one call over all, scalar calls), updates:\n{table(lines)}" if lines else ""
    )


def _files(rows: list[Row]) -> str:
    lines = [
        {
            "case": row["case"],
            "tables MB": row["ours"]["bytes"] / 1e6,
            "file MB": file["bytes"] / 1e6,
            "compile ms": row["build_seconds"] * 1e3,
            "save ms": file["save_s"] * 1e3,
            "load ms": file["load_s"] * 1e3,
            "map ms": file["load_mapped_s"] * 1e3,
        }
        for row in rows
        if (file := row["ours"].get("file"))
    ]
    return f"The tables as files:\n{table(lines)}" if lines else ""


def notes(rows: list[Row]) -> str:
    """Whatever did not run, with the reason, and how those peers that ran were set; once each."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        own = {f"ours_{name}": entry for name, entry in row.get("own_engines", {}).items()}
        for name, entry in {"ours": row["ours"], **own, **row["peers"]}.items():
            if "unavailable" in entry:
                notes.setdefault(f"{name} not available: {entry['unavailable']}", []).append(row["case"])
            elif name in row["peers"] and entry.get("note"):
                notes.setdefault(f"{name}: {entry['note']}", []).append(row["case"])
            if "updates" in entry:
                notes.setdefault(f"{name}, updates not available: {entry['updates']}", []).append(row["case"])
    return "\n".join(
        f"{note} [{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}]"
        for note, names in notes.items()
    )


def _summary(summary: dict[str, Any]) -> str:
    return table(
        [
            {
                "suite and size": name,
                "rows": part["rows"],
                "min ratio": part["min_ratio"],
                "geomean": part["geomean_ratio"],
                "min, AVX2 peers": part["avx2_peers"]["min_ratio"],
                "geomean, AVX2 peers": part["avx2_peers"]["geomean_ratio"],
                "losing": part["losing_rows"],
                "wrong": part["wrong"],
            }
            for name, part in [*summary["by_size"].items(), ("all", summary)]
        ]
    )
