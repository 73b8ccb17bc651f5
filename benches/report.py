"""Rows into tables, summaries and result files; nothing here measures anything."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
RESULTS = Path(__file__).resolve().parent / "results"


def geometric_mean(values: Sequence[float]) -> float | None:
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def ratio(peers_ns: dict[str, float | None], ours_ns: float | None) -> float | None:
    """Best peer / ours, above 1 where we are faster; None where either side has no valid time."""
    valid = [ns for ns in peers_ns.values() if ns]
    return min(valid) / ours_ns if valid and ours_ns else None


def summary(rows: list[Row], key: str = "ratio") -> dict[str, Any]:
    """Smallest and geometric mean ratio of the rows that have one, and how many rows are lost or wrong."""
    ratios = [row[key] for row in rows if row.get(key)]
    return {
        "rows": len(rows),
        "min_ratio": min(ratios, default=None),
        "geomean_ratio": geometric_mean(ratios),
        "losing_rows": sum(r < 1 for r in ratios),
        "wrong": sum(row["wrong"] or 0 for row in rows),
    }


def document(subject: str, machine: dict[str, Any], rows: list[Row], summaries: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a run, as docs/architecture.md promises it."""
    return {
        "subject": subject,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "rows": rows,
        "summary": summaries,
    }


def save(result: dict[str, Any], folder: Path = RESULTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = result["finished"].replace("-", "").replace(":", "")
    path = folder / f"{result['subject']}-{stamp}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def number(value: Any, digits: int = 3) -> str:
    """A figure for people: three significant digits, a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or not math.isfinite(value):
        return str(value)
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{places}f}"


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table that also reads well as text, the first column to the left."""
    if not rows:
        return ""
    cells = [list(rows[0]), *([number(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]

    def line(row: list[str]) -> str:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        return "| " + " | ".join([first.strip().ljust(widths[0]), *others]) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])
