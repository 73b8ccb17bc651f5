"""What ``python -m benches routes`` prints for people."""

from __future__ import annotations

from typing import Any

from benches.packets_tables import notes, time_of
from benches.report import table
from benches.routes import PEERS


def tables(result: dict[str, Any]) -> str:
    """One line a row: ns a request."""
    rows = result["rows"]
    lines = [
        {
            "case": row["case"],
            "ours ns": row["ours_ns"],
            **{f"{name} ns": time_of(row["peers"].get(name)) for name in PEERS},
            "ratio": row["ratio"],
            "wrong": row["wrong"],
            "build s": row["build_s"],
        }
        for row in rows
    ]
    return f"{table(lines)}\n\n{notes(rows)}"
