"""What ``python -m benches engine`` prints for people."""

from __future__ import annotations

from typing import Any

from benches.packets_tables import notes, time_of
from benches.report import Row, table


def tables(result: dict[str, Any]) -> str:
    rows: list[Row] = result["rows"]
    return "\n\n".join(filter(None, [_requests(rows), _captures(rows), _growth(rows), notes(rows)]))


def _requests(rows: list[Row]) -> str:
    lines = [
        {
            "case": row["case"],
            "routes, policies": row["routes"],
            "ours us": _us(row["ours_ns"]),
            "plain us": _us(time_of(row["peers"].get("plain"))),
            "ratio": row["ratio"],
            "wrong": row["wrong"],
            "checked": row["checked"],
        }
        for row in rows
        if row["suite"] == "requests"
    ]
    return f"A request through all layers:\n{table(lines)}" if lines else ""


def _captures(rows: list[Row]) -> str:
    lines = [
        {
            "case": row["case"],
            "packets": row["packets"],
            "ours M packets/s": 1e3 / row["ours_ns"] if row["ours_ns"] else None,
            "plain M packets/s": _rate(time_of(row["peers"].get("plain"))),
            "peak MB": row["ours"].get("peak_bytes", 0) / 1e6,
            "compiled MB": row["ours"].get("compiled_bytes", 0) / 1e6,
            "wrong": row["wrong"],
        }
        for row in rows
        if row["suite"] == "capture"
    ]
    return f"Whole captures under {10_000:,} rules:\n{table(lines)}" if lines else ""


def _growth(rows: list[Row]) -> str:
    """What ten times the routes and policies cost a request of ours."""
    ns = {(r["hosts"], r["way"], r["routes"]): r["ours_ns"] for r in rows if r["suite"] == "requests"}
    lines = [
        {
            "hosts": hosts,
            "way": way,
            "routes and policies": f"{n:,} to {10 * n:,}",
            "times": ns[hosts, way, 10 * n] / at,
        }
        for (hosts, way, n), at in ns.items()
        if at and ns.get((hosts, way, 10 * n))
    ]
    return f"Growth:\n{table(lines)}" if lines else ""


def _us(ns: Any) -> Any:
    return ns / 1e3 if isinstance(ns, float | int) else ns


def _rate(ns: Any) -> Any:
    return 1e3 / ns if isinstance(ns, float | int) and ns else ns
