"""The table that ``meshsieve classify`` shows: the rows most worth seeing, then the summary.

By flow the largest flows of each verdict are kept, so that a few large allowed ones do not hide what was denied; by
packet the first ones. Memory: at most ``limit`` rows a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from meshsieve.classification import ClassifiedBatch
from meshsieve.decision import ACTION_NAMES, NOT_JUDGED, DecisionTables
from meshsieve.flows import FlowColumns
from meshsieve.policy import Verdict
from meshsieve.reports.escape import printable
from meshsieve.reports.text import bold, byte_text, summary_text, table_text
from meshsieve.summary import Summary
from meshsieve.traffic_columns import flow_columns

# What people look for first; what nobody judged comes last and only where there is room.
_JUDGED = (Verdict.DROP, Verdict.REJECT, Verdict.UNDECIDED, Verdict.PENDING, Verdict.ALLOW, Verdict.NO_MATCH)


@dataclass(frozen=True, slots=True)
class _Row:
    size: int
    cells: tuple[str, ...]


class RowsTable:
    """Collects the rows of a result batch by batch; ``text`` shows them."""

    def __init__(self, tables: DecisionTables, by: Literal["flow", "packet"], limit: int) -> None:
        self._tables = tables
        self._by = by
        self._limit = limit
        self._rows: dict[int, list[_Row]] = {}
        self._count = 0

    def add(self, batch: ClassifiedBatch) -> None:
        """One batch of the result."""
        self._count += len(batch)
        actions = batch.decisions.action
        if self._by == "packet":
            room = self._limit - sum(map(len, self._rows.values()))
            for i in range(min(room, len(batch))):
                self._rows.setdefault(0, []).append(self._row(batch, i))
            return
        sizes = batch["bytes"]
        for action in np.unique(actions):
            these = np.flatnonzero(actions == action)
            largest = these[np.argsort(-sizes[these].astype(np.int64), kind="stable")][: self._limit]
            kept = self._rows.get(int(action), []) + [self._row(batch, int(i)) for i in largest]
            self._rows[int(action)] = sorted(kept, key=lambda row: -row.size)[: self._limit]

    def text(self, summary: Summary, *, columns: int | None, colours: bool) -> str:
        """The rows, then the summary."""
        rows = self._rows.get(0, []) if self._by == "packet" else self._fair_share()
        heads = ["VERDICT", "PROTO", "SOURCE", "DESTINATION", "PACKETS", "BYTES", "RULE", "WRITTEN AT"]
        right = frozenset({4, 5})
        if self._by == "packet":
            heads = ["VERDICT", "NUMBER", "PROTO", "SOURCE", "DESTINATION", "LENGTH", "RULE", "WRITTEN AT"]
            right = frozenset({1, 5})
        parts = [
            table_text(
                heads,
                [row.cells for row in rows],
                right=right,
                actions={i: row.cells[0] for i, row in enumerate(rows)},
                columns=columns,
                colours=colours,
            )
        ]
        if self._count > len(rows):
            what = "largest of each verdict" if self._by == "flow" else "first"
            hint = f"({len(rows)} of {self._count:,} {self._by}s, the {what}; --limit N shows more, -o ndjson all)"
            parts.append(bold(hint, colours))
        parts += ["", summary_text(summary, columns=columns, colours=colours)]
        return "\n".join(parts)

    def _fair_share(self) -> list[_Row]:
        """At most ``limit`` rows: every verdict gets the same room, and what one does not need goes to the others."""
        share: dict[int, int] = dict.fromkeys(self._rows, 0)
        room = self._limit
        for actions in (tuple(map(int, _JUDGED)), (NOT_JUDGED,)):
            while room:
                hungry = [a for a in actions if share.get(a, 0) < len(self._rows.get(a, []))]
                if not hungry:
                    break
                for action in hungry[:room]:
                    share[action] += 1
                    room -= 1
        return [row for action in (*_JUDGED, NOT_JUDGED) for row in self._rows.get(action, [])[: share.get(action, 0)]]

    def _row(self, batch: ClassifiedBatch, i: int) -> _Row:
        one = batch.row(i)
        decisions = batch.decisions
        rule, place = str(one["rule"] or f"({one['reason']})"), ""
        if decisions.rule[i] >= 0:
            rules = self._tables.points[int(decisions.point[i])].point.rules
            place = rules.label(int(decisions.rule[i]))[1].place
        if decisions.action[i] in (Verdict.UNDECIDED, Verdict.PENDING) and one["rule"]:
            rule = f"{rule} ({str(one['reason']).partition(': ')[2]})"
        ends = tuple(_end(one["src" if s == "sport" else "dst"], one[s]) for s in ("sport", "dport"))
        verdict = ACTION_NAMES[int(decisions.action[i])]
        proto = str(one["proto"] or "-")
        if self._by == "packet":
            return _Row(0, (verdict, str(one["number"]), proto, *ends, str(one["length"]), rule, place))
        size = int(one["bytes"])
        return _Row(size, (verdict, proto, *ends, f"{one['packets']:,}", byte_text(size), rule, place))


def largest_flows_text(batches: Iterable[FlowColumns], limit: int, *, columns: int | None, colours: bool) -> str:
    """The largest flows, without verdicts; ``batches`` come from a flow table."""
    kept: list[_Row] = []
    count = 0
    for batch in batches:
        count += len(batch)
        fields = {column.name: column for column in flow_columns(batch)}
        sizes = fields["bytes"].data.astype(np.int64)
        for i in np.argsort(-sizes, kind="stable")[:limit]:
            one = {name: column.value(int(i)) for name, column in fields.items()}
            ends = (_end(one["src"], one["sport"]), _end(one["dst"], one["dport"]))
            seconds = f"{(one['last_ns'] - one['first_ns']) / 1e9:.3f}"
            volume = (f"{one['packets']:,}", byte_text(one["bytes"]))
            name = one["sni"] or one["http_host"] or one["dns_name"]
            about = (str(one["app"] or "-"), printable(str(name)) if name else "-")
            kept.append(_Row(one["bytes"], (str(one["proto"] or "-"), *ends, *about, *volume, seconds)))
        kept = sorted(kept, key=lambda row: -row.size)[:limit]
    heads = ["PROTO", "SOURCE", "DESTINATION", "APP", "NAME", "PACKETS", "BYTES", "SECONDS"]
    text = table_text(heads, [row.cells for row in kept], right=frozenset({5, 6, 7}), columns=columns, colours=colours)
    if count > len(kept):
        text += "\n" + bold(
            f"({len(kept)} of {count:,} flows, the largest; --limit N shows more, -o ndjson all)", colours
        )
    return text


def _end(address: object, port: object) -> str:
    if address is None:
        return "-"
    if not port:
        return str(address)
    return f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
