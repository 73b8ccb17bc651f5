"""What ``python -m benches captures`` prints for people."""

from __future__ import annotations

from typing import Any

from benches.packets_tables import mark, notes, time_of
from benches.report import table


def tables(result: dict[str, Any]) -> str:
    rows = result["rows"]
    peers = dict.fromkeys(name for row in rows for name in row["peers"])
    lines = [
        {
            "capture, step": row["case"],
            "packets": row["packets"],
            "ours ns": row["ours_ns"],
            "Mpackets/s": row["million_packets_a_second"],
            **{f"{name} ns": time_of(row["peers"].get(name)) for name in peers},
            "ratio": row["ratio"],
            "": mark(row),
            "wrong": row["wrong"],
            "RSS MB": row["peak_bytes"] / 1e6 if row["peak_bytes"] else None,
        }
        for row in rows
    ]
    return f"{table(lines)}\n\n{notes(rows)}"
