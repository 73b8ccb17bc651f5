"""What a change of policy does, as tables for a terminal and as Markdown for a merge request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshsieve.changes.comparison import Comparison
from meshsieve.changes.model import KINDS, MEANING, Answer, Change
from meshsieve.reports.markdown import markdown_cell, markdown_table
from meshsieve.reports.text import bold, byte_text, fit, table_text

_NAME = 44  # columns of a list of names
_COLOUR = {"opened": "DROP", "closed": "UNDECIDED"}  # what opens wants attention more than what closes
_TITLES = {
    "connections": "From the rules: connections",
    "requests": "From the policies: who may call whom",
    "routes": "From the route tables: requests",
    "flows": "In the traffic: flows",
    "logged requests": "In the traffic: requests",
}


def changes_text(found: Comparison, limit: int, *, columns: int | None = None, colours: bool = False) -> str:
    """A table for each kind of subject, then the counts by kind and the notes."""
    parts = []
    for subject, title in _TITLES.items():
        rows = _rows(found, subject)
        if not rows:
            continue
        actions = {i: _COLOUR.get(row[0], "NONE") for i, row in enumerate(rows[:limit])}
        heads, right = [head.upper() for head in _HEADS[subject]], _right(subject)
        parts.append(bold(title, colours))
        parts.append(table_text(heads, rows[:limit], right=right, actions=actions, columns=columns, colours=colours))
        if len(rows) > limit:
            parts.append(f"({limit} of {len(rows):,}; --limit N shows more, -o ndjson all)")
        parts.append("")
    summary = [[kind, f"{found.count(kind):,}", MEANING[kind]] for kind in KINDS if found.count(kind)]
    if summary:
        parts.append(table_text(["CHANGE", "HOW MANY", "MEANING"], summary, right=frozenset({1}), columns=columns))
    else:
        parts.append("Nothing changes.")
    parts += [f"compared: {_compared(found)}"] if found.compared else []
    return "\n".join(parts)


def changes_markdown(found: Comparison, title: str, *, limit: int = 40) -> str:
    """The same for a merge request or a ticket; text from policies and traffic stays text."""
    lines = [f"# {markdown_cell(title)}", ""]
    summary = [[kind, f"{found.count(kind):,}", MEANING[kind]] for kind in KINDS if found.count(kind)]
    lines += markdown_table(["change", "how many", "meaning"], summary) if summary else ["Nothing changes.", ""]
    for subject, heading in _TITLES.items():
        rows = _rows(found, subject)
        if rows:
            lines += [f"## {heading}", "", *markdown_table(_HEADS[subject], rows[:limit])]
            if len(rows) > limit:
                lines += [f"{len(rows) - limit:,} more.", ""]
    if found.compared:
        lines += [f"Compared: {_compared(found)}.", ""]
    lines += [f"- {markdown_cell(note)}" for note in found.notes]
    return "\n".join(lines)


def _compared(found: Comparison) -> str:
    return ", ".join(byte_text(n) if what == "bytes" else f"{n:,} {what}" for what, n in found.compared)


_HEADS = {
    "connections": ["change", "pairs", "from", "to", "what", "old", "new", "one of them"],
    "requests": ["change", "pairs", "from", "to", "what", "old", "new", "one of them"],
    "routes": ["change", "tables", "seen at", "requests", "old", "new"],
    "flows": ["change", "flows", "packets", "bytes", "from", "to", "old", "new", "the largest of them"],
    "logged requests": ["change", "requests", "from", "to", "old", "new", "one of them"],
}
_NUMBERS = frozenset({"pairs", "tables", "flows", "packets", "bytes"})


def _right(subject: str) -> frozenset[int]:
    numbers = {i for i, head in enumerate(_HEADS[subject]) if head in _NUMBERS}
    return frozenset(numbers | ({1} if subject == "logged requests" else set()))


def _rows(found: Comparison, subject: str) -> list[list[str]]:
    """What changes alike between several pairs is one row, with the first of them."""
    groups: dict[tuple[str, str, Answer, Answer], list[Change]] = {}
    for number, change in enumerate(found.changes):
        if change.subject == subject:
            what = change.what if subject in ("connections", "requests") else str(number)
            groups.setdefault((change.kind, what, change.old, change.new), []).append(change)
    return [_row(subject, changes) for changes in groups.values()]


def _row(subject: str, changes: Sequence[Change]) -> list[str]:
    first = changes[0]
    answers = [_answer(first.old), _answer(first.new)]
    if subject == "routes":
        return [first.kind, f"{len(first.sources):,}", _names(first.sources), first.what, *answers]
    if subject == "flows":
        amounts = [f"{first.flows:,}", f"{first.packets:,}", byte_text(first.bytes)]
    elif subject == "logged requests":
        amounts = [f"{first.requests:,}"]
    else:
        amounts = [f"{sum(len(c.sources) * len(c.destinations) for c in changes):,}"]
    sources = dict.fromkeys(name for c in changes for name in c.sources)
    destinations = dict.fromkeys(name for c in changes for name in c.destinations)
    what = [first.what] if subject in ("connections", "requests") else []
    return [first.kind, *amounts, _names(sources), _names(destinations), *what, *answers, first.witness]


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    shown = fit(listed[0], _NAME) if listed else ""
    return f"{shown} and {len(listed) - 1} more" if len(listed) > 1 else shown


def _answer(answer: Answer) -> str:
    place = (answer.source or "").split(" ", 1)[0].rsplit("/", 1)[-1]
    return f"{answer}{f' ({place})' if place else ''}"
