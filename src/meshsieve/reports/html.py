"""Results as HTML for notebooks: text nodes only, everything escaped, no scripts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshsieve.reports.escape import printable
from meshsieve.reports.text import counts, explanation_text

if TYPE_CHECKING:
    from meshsieve.explanation import Explanation
    from meshsieve.summary import Summary
    from meshsieve.walk.verdict import RequestVerdict


def summary_html(summary: Summary) -> str:
    """Two tables: by rule, by verdict; and the reasons of what stayed open."""
    rules = [
        [rule.action, *counts(rule.count), rule.point, rule.rule or "(default)", rule.source or ""]
        for rule in summary.rules
    ]
    verdicts = [[action, *counts(count)] for action, count in summary.verdicts.items()]
    reasons = [[*counts(count), reason] for reason, count in summary.open.items()]
    parts = [_table(["verdict", "flows", "packets", "bytes", "point", "rule", "source"], rules)] if rules else []
    parts.append(_table(["verdict", "flows", "packets", "bytes"], verdicts))
    if reasons:
        parts.append(_table(["flows", "packets", "bytes", "not decided because"], reasons))
    parts += [f"<p>{_escaped(note)}</p>" for note in summary.notes]
    return "".join(parts)


def explanation_html(explanation: Explanation) -> str:
    """The tree as preformatted text."""
    return f"<pre>{html.escape(explanation_text(explanation))}</pre>"


def request_verdict_html(found: RequestVerdict) -> str:
    """A row for each layer."""
    rows = [
        [v.layer, v.verdict, v.reason, v.source or "", ", ".join(f"{k}: {t}" for k, t in v.facts)] for v in found.layers
    ]
    head = f"<p><code>{_escaped(found.request)}</code> <b>{_escaped(found.action)}</b></p>"
    return head + _table(["layer", "verdict", "why", "source", "facts"], rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_escaped(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
