"""The table that ``meshsieve classify --by request`` shows: first the requests that were denied, then what was decided
by whom."""

from __future__ import annotations

from meshsieve.reports.text import bold, table_text
from meshsieve.walk.captured import RequestRows, RequestTotals
from meshsieve.walk.verdict import ALLOW

_RIGHT = frozenset({1})


class RequestTable:
    """Collects rows, at most ``limit`` that are allowed and as many that are not; ``text`` shows them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._denied: list[list[str]] = []
        self._allowed: list[list[str]] = []

    def add(self, rows: RequestRows) -> None:
        for i in range(len(rows)):
            kept = self._allowed if rows.verdicts.action(i) == ALLOW else self._denied
            if len(kept) < self._limit:
                kept.append(_cells(rows, i))

    def text(self, totals: RequestTotals, *, columns: int | None, colours: bool) -> str:
        """The rows, then the totals by rule and by verdict."""
        shown = (self._denied + self._allowed)[: self._limit]
        count = sum(totals.by_rule.values())
        heads = ["VERDICT", "SOURCE", "DESTINATION", "METHOD", "AUTHORITY AND PATH", "SEEN", "LAYER", "RULE OR REASON"]
        parts = [_table(heads, shown, frozenset(), columns, colours)]
        if count > len(shown):
            parts.append(bold(f"({len(shown)} of {count:,} requests; --limit N shows more, -o ndjson all)", colours))
        rules = [
            [action, f"{n:,}", layer, rule or "", source or ""]
            for (action, layer, rule, source), n in totals.by_rule.items()
        ]
        parts += ["", _table(["BY RULE", "REQUESTS", "LAYER", "RULE", "WRITTEN AT"], rules, _RIGHT, columns, colours)]
        verdicts = [[action, f"{n:,}"] for action, n in totals.by_action.items()]
        parts += ["", _table(["BY VERDICT", "REQUESTS"], [*verdicts, ["all", f"{count:,}"]], _RIGHT, columns, colours)]
        return "\n".join(parts)


def _table(heads: list[str], rows: list[list[str]], right: frozenset[int], columns: int | None, colours: bool) -> str:
    actions = {i: row[0] for i, row in enumerate(rows)}
    return table_text(heads, rows, right=right, actions=actions, columns=columns, colours=colours)


def _cells(rows: RequestRows, i: int) -> list[str]:
    seen, decider = rows.seen.row(i, masked=True), rows.verdicts.deciding(i)
    status = str(seen["observed"].get("status", ""))
    return [
        rows.verdicts.action(i),
        str(seen["source_ip"]),
        f"{seen['destination_ip']}:{seen['destination_port']}",
        seen["method"],
        f"{seen['authority']}{seen['path']}",
        status,
        decider.layer if decider else "",
        (decider.rule or decider.reason) if decider else "",
    ]
