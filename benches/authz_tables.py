"""What ``python -m benches authz`` prints for people."""

from __future__ import annotations

from typing import Any

from benches.authz import PEERS
from benches.packets_tables import notes, time_of
from benches.report import Row, table


def tables(result: dict[str, Any]) -> str:
    rows: list[Row] = result["rows"]
    parts = [_against_peers(rows, way) for way in ("batch", "one")]
    return "\n\n".join([*filter(None, parts), _builds(rows), _growth(rows), notes(rows)])


def _against_peers(rows: list[Row], way: str) -> str:
    """One line a case: ns a decision."""
    lines = [
        {
            "case": row["case"],
            "ours ns": row["ours_ns"],
            **{f"{name} ns": time_of(row["peers"].get(name)) for name in PEERS},
            "ratio": row["ratio"],
            "wrong": row["wrong"],
            "checked": row["checked"],
        }
        for row in rows
        if row["way"] == way
    ]
    return table(lines)


def _builds(rows: list[Row]) -> str:
    lines = [
        {
            "case": row["case"],
            "ours ms": _ms(row["ours_ns"]),
            **{f"{name} ms": _ms(time_of(row["peers"].get(name))) for name in PEERS if name != "plain_loop"},
            "B/policy": row["bytes_per_rule"],
        }
        for row in rows
        if row["way"] == "build"
    ]
    return f"Compiling:\n{table(lines)}" if lines else ""


def _ms(ns: Any) -> Any:
    return ns / 1e6 if isinstance(ns, float | int) else ns


def _growth(rows: list[Row]) -> str:
    """What ten times the policies cost a decision of ours."""
    ns = {(row["suite"], row["way"], row["rules"]): row["ours_ns"] for row in rows if row["way"] != "build"}
    lines = [
        {"family": family, "way": way, "policies": f"{n:,} to {10 * n:,}", "times": ns[family, way, 10 * n] / time}
        for (family, way, n), time in ns.items()
        if time and ns.get((family, way, 10 * n))
    ]
    return f"Growth:\n{table(lines)}" if lines else ""
