"""Results as HTML for notebooks, and as pages of their own: text nodes only, everything escaped, no scripts."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from meshsieve.reports.escape import printable
from meshsieve.reports.text import SHOWN_TRIALS, counts

if TYPE_CHECKING:
    from meshsieve.explanation import Explanation, PointExplanation
    from meshsieve.summary import Summary
    from meshsieve.walk.flow_walk import FlowExplanation
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
    """The verdict, then a foldable table for each point: every rule tested, and why it did or did not match."""
    by = f" by rule <b>{_escaped(explanation.rule)}</b>" if explanation.rule is not None else ""
    source = f" <code>{_escaped(explanation.source)}</code>" if explanation.source else ""
    head = f"<p><code>{_escaped(explanation.packet)}</code> {_verdict(explanation.action)}{by}{source}</p>"
    points = "".join(_point_html(point) for point in explanation.points)
    return f"<div>{head}{points}<p>{_escaped(explanation.reason)}</p></div>"


def _point_html(point: PointExplanation) -> str:
    verdict = _verdict(point.verdict) if point.verdict else "not judged here"
    summary = f"<summary>{_escaped(point.title)}: {verdict}, {_escaped(point.reason)}</summary>"
    marks = {"no": "", "unknown": "?", "yes": "matches"}
    rows = [
        [str(t.index), t.name, t.action, marks[t.truth], "; ".join(t.why), t.source]
        for t in point.trials[-SHOWN_TRIALS:]
    ]
    rows += [["", name, action, "hidden by it", "", source] for name, action, source in point.shadowed]
    hidden = len(point.trials) - SHOWN_TRIALS
    more = f"<p>{hidden:,} rules before these did not match</p>" if hidden > 0 else ""
    table = _table(["#", "rule", "action", "", "why", "written at"], rows) if rows else ""
    return f"<details{' open' if point.trials else ''}>{summary}{more}{table}</details>"


def observations_html(observations: Sequence[Mapping[str, object]]) -> str:
    """A trace in Traceflow's words."""
    rows = [
        [
            str(one["resource_type"]),
            str(one["component_type"]),
            str(one.get("component_sub_type", "")),
            str(one["component_name"]),
            str(one.get("reason", "")),
            str(one.get("rule", "")),
            str(one.get("source", "")),
        ]
        for one in observations
    ]
    return _table(["observation", "component", "sub type", "name", "reason", "rule", "written at"], rows)


def request_verdict_html(found: RequestVerdict) -> str:
    """A row for each layer."""
    rows = [
        [v.layer, v.verdict, v.reason, v.source or "", ", ".join(f"{k}: {t}" for k, t in v.facts)] for v in found.layers
    ]
    head = f"<p><code>{_escaped(found.request)}</code> {_verdict(found.action)}</p>"
    return f"<div>{head}{_table(['layer', 'verdict', 'why', 'source', 'facts'], rows)}</div>"


def flow_explanation_html(found: FlowExplanation) -> str:
    """What the flow is, its first packet, its requests."""
    facts = [[name, str(value)] for name, value in found.flow.items() if value is not None]
    parts = [f"<details><summary>flow {_escaped(str(found.flow['flow']))}</summary>{_table(['field', 'value'], facts)}"]
    parts += ["</details>", explanation_html(found.packet), *map(request_verdict_html, found.requests)]
    if found.more:
        parts.append(f"<p>{found.more:,} more requests</p>")
    return "".join(parts)


def page_html(title: str, body: str) -> str:
    """A page of its own around HTML that was escaped here: no scripts, no network."""
    style = resources.files("meshsieve.reports.page").joinpath("report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escaped(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<h1>{_escaped(title)}</h1>\n"
        f"{body}\n</body>\n</html>"
    )


def _verdict(action: str) -> str:
    return f'<b class="v-{_escaped(action)}">{_escaped(action)}</b>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_escaped(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
