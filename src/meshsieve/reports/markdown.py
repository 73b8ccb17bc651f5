"""Markdown whose text stays text: CommonMark tables of escaped cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshsieve.reports.escape import printable


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table and an empty one; heads are ours, cells are escaped here."""
    lines = ["| " + " | ".join(markdown_cell(cell) for cell in row) + " |" for row in rows]
    if not lines:
        return ["None.", ""]
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines, ""]


def markdown_cell(text: str) -> str:
    """Text that stays text: every character that Markdown or HTML could read is escaped."""
    return "".join(
        f"\\{c}" if c in r"\`*_{}[]()#+-.!|~>$^:@/=" else "&lt;" if c == "<" else "&amp;" if c == "&" else c
        for c in printable(text)
    )
