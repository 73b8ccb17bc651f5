"""What ``python -m benches balance`` prints for people."""

from __future__ import annotations

from typing import Any

from benches.balance import PEERS
from benches.packets_tables import notes, time_of
from benches.report import table


def tables(result: dict[str, Any]) -> str:
    """One line a row: ns a pick, and ns a table for builds; beside it how even and stable our table is."""
    rows = result["rows"]
    lines = [
        {
            "case": row["case"],
            "ours ns": row["ours_ns"],
            **{f"{name} ns": time_of(row["peers"].get(name)) for name in PEERS},
            "ratio": row["ratio"],
            "wrong": row["wrong"],
            "max/mean": row["max_over_mean"],
            "extra moved": row["extra_moved"],
        }
        for row in rows
    ]
    return f"{table(lines)}\n\n{notes(rows)}"
