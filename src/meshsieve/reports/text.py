"""Tables for people: aligned columns of escaped text, coloured where the stream is a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from meshsieve.reports.escape import printable

if TYPE_CHECKING:
    from meshsieve.explanation import Explanation, PointExplanation, Trial
    from meshsieve.summary import Count, Summary
    from meshsieve.walk.flow_walk import FlowExplanation
    from meshsieve.walk.verdict import RequestVerdict

# ANSI colours (ECMA-48 SGR) by verdict.
_COLOURS = {
    "ALLOW": "32",
    "DROP": "31",
    "REJECT": "31",
    "UNDECIDED": "33",
    "PENDING": "33",
    "NONE": "2",
    "NO_MATCH": "2",
}
_TRIAL_MARK = {"no": " ", "unknown": "?", "yes": "*"}
# Rules that the tree shows of one point; Explanation.to_dict() has them all.
SHOWN_TRIALS = 20
_NARROWEST = 12


def colour(action: str, text: str, on: bool) -> str:
    """``text`` in the colour of a verdict."""
    code = _COLOURS.get(action)
    return f"\x1b[{code}m{text}\x1b[0m" if on and code else text


def bold(text: str, on: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if on else text


def width(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


def fit(text: str, columns: int) -> str:
    """``text`` cut to so many columns, with an ellipsis where something is missing."""
    if width(text) <= columns:
        return text
    kept = ""
    for character in text:
        if width(kept + character) > columns - 1:
            break
        kept += character
    return kept + "…"


def byte_text(count: int) -> str:
    """A number of bytes with three significant digits: ``987 B``, ``1.23 MB`` (powers of 1000)."""
    value, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, bigger
    if unit == "B":
        return f"{count} B"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def table_text(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: frozenset[int] = frozenset(),
    actions: Mapping[int, str] | None = None,
    columns: int | None = None,
    colours: bool = False,
) -> str:
    """Aligned lines. Cells are escaped here.

    right    positions of columns aligned to the right
    actions  row -> verdict, in whose colour its first cell is shown
    columns  width of the terminal: the widest columns are cut to fit; None = as wide as need be
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max([width(head), *(width(row[i]) for row in cells)]) for i, head in enumerate(heads)]
    if columns is not None:
        _narrow(widths, columns - 2 * (len(heads) - 1))
    lines = [bold(_line(heads, widths, right), colours)]
    for number, row in enumerate(cells):
        line = _line(row, widths, right)
        action = (actions or {}).get(number)
        if action is not None:
            line = colour(action, line[: len(row[0])], colours) + line[len(row[0]) :]
        lines.append(line)
    return "\n".join(lines)


def _narrow(widths: list[int], room: int) -> None:
    while sum(widths) > room:
        widest = max(range(len(widths)), key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _line(cells: Sequence[str], widths: Sequence[int], right: frozenset[int]) -> str:
    out = []
    for i, (cell, columns) in enumerate(zip(cells, widths, strict=True)):
        shown = fit(cell, columns)
        pad = " " * (columns - width(shown))
        out.append(pad + shown if i in right else shown + pad)
    return "  ".join(out).rstrip()


def counts(count: Count) -> list[str]:
    """flows, packets, bytes as cells."""
    return [f"{count.flows:,}", f"{count.packets:,}", byte_text(count.bytes)]


def summary_text(summary: Summary, *, columns: int | None = None, colours: bool = False) -> str:
    """The counts by rule, by verdict, and what stayed open with why."""
    parts = []
    if summary.rules:
        rules = [
            [rule.action, *counts(rule.count), rule.point, rule.rule or "(default)", rule.place]
            for rule in summary.rules
        ]
        parts.append(
            table_text(
                ["BY RULE", "FLOWS", "PACKETS", "BYTES", "POINT", "RULE", "WRITTEN AT"],
                rules,
                right=frozenset({1, 2, 3}),
                actions={i: rule.action for i, rule in enumerate(summary.rules)},
                columns=columns,
                colours=colours,
            )
        )
    verdicts = [[action, *counts(count)] for action, count in summary.verdicts.items()]
    parts.append(
        table_text(
            ["BY VERDICT", "FLOWS", "PACKETS", "BYTES"],
            [*verdicts, ["all", *counts(summary.total)]],
            right=frozenset({1, 2, 3}),
            actions=dict(enumerate(summary.verdicts)),
            columns=columns,
            colours=colours,
        )
    )
    if summary.open:
        parts.append(
            table_text(
                ["OPEN", "FLOWS", "PACKETS", "BYTES", "BECAUSE"],
                [["", *counts(count), reason] for reason, count in summary.open.items()],
                right=frozenset({1, 2, 3}),
                columns=columns,
                colours=colours,
            )
        )
    parts.extend(f"note: {printable(note)}" for note in summary.notes)
    return "\n\n".join(parts)


def explanation_text(explanation: Explanation, *, colours: bool = False) -> str:
    """The verdict, then a tree: each point, the rules tested there, why each did not match."""
    verdict = colour(explanation.action, explanation.action, colours)
    by = f" by rule '{printable(explanation.rule)}'" if explanation.rule is not None else ""
    source = f" ({printable(explanation.source)})" if explanation.source else ""
    lines = [bold(printable(explanation.packet), colours), f"{verdict}{by}{source}"]
    for number, point in enumerate(explanation.points):
        last = number == len(explanation.points) - 1
        lines += _point_lines(point, "└─ " if last else "├─ ", "   " if last else "│  ", colours)
    if not any(point.verdict for point in explanation.points):
        lines.append(printable(explanation.reason))
    return "\n".join(lines)


def request_verdict_text(found: RequestVerdict, *, colours: bool = False) -> str:
    """The verdict and who decided, then a line for each layer and one for each thing it found out."""
    decider = found.decider
    by = f" by {printable(decider.layer)}: {printable(decider.why)}" if decider is not None else ""
    lines = [bold(printable(found.request), colours), f"{colour(found.action, found.action, colours)}{by}"]
    for number, layer in enumerate(found.layers):
        last = number == len(found.layers) - 1
        head, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        verdict = colour(layer.verdict, layer.verdict, colours) if layer.verdict != "NONE" else "not asked"
        status = f" {layer.status}" if layer.status is not None else ""
        lines.append(f"{head}{printable(layer.layer)}: {verdict}{status}, {printable(layer.reason)}")
        if layer.source:
            lines.append(f"{below}     {printable(layer.source)}")
        lines += [f"{below}     {name}: {printable(text)}" for name, text in layer.facts]
    return "\n".join(lines)


def observations_text(
    observations: Sequence[Mapping[str, object]], *, columns: int | None = None, colours: bool = False
) -> str:
    """A trace in Traceflow's words, a line an observation."""
    rows, actions = [], {}
    for number, one in enumerate(observations):
        kind = str(one["resource_type"]).removeprefix("TraceflowObservation")
        translated = [f"{k.removeprefix('translated_')} {v}" for k, v in one.items() if k.startswith("translated_")]
        why = [str(one.get("reason", "")), *translated, str(one.get("why", ""))]
        parts = " ".join(str(one[name]) for name in ("component_type", "component_sub_type") if name in one)
        rows.append(
            [kind, parts, str(one["component_name"]), "; ".join(w for w in why if w), str(one.get("source", ""))]
        )
        colour_of = {"Delivered": "ALLOW", "DroppedLogical": "DROP"}.get(kind)
        if colour_of is not None or one.get("verdict") == "UNDECIDED":
            actions[number] = colour_of or "UNDECIDED"
    heads = ["OBSERVATION", "COMPONENT", "NAME", "WHY", "WRITTEN AT"]
    return table_text(heads, rows, actions=actions, columns=columns, colours=colours)


def flow_explanation_text(found: FlowExplanation, *, colours: bool = False) -> str:
    """The flow in one line, its first packet's tree, then that of each request."""
    flow = found.flow
    about = [f"flow {flow['flow']}", f"{flow['packets']:,} packets", byte_text(flow["bytes"])]
    about += [f"app {flow['app']}"] if flow["app"] else []
    about += [f"{name} {flow[name]}" for name in ("sni", "http_host", "dns_name") if flow.get(name)]
    parts = [printable(", ".join(about)), explanation_text(found.packet, colours=colours)]
    parts += [request_verdict_text(request, colours=colours) for request in found.requests]
    if found.more:
        parts.append(f"({found.more:,} more requests)")
    return "\n\n".join(parts)


def _point_lines(point: PointExplanation, head: str, below: str, colours: bool) -> list[str]:
    verdict = colour(point.verdict, point.verdict, colours) if point.verdict else "not judged here"
    lines = [f"{head}{printable(point.title)}: {verdict}, {printable(point.reason)}"]
    hidden = len(point.trials) - SHOWN_TRIALS
    if hidden > 0:
        lines.append(f"{below}     ({hidden} more before these did not match)")
    trials = point.trials[max(0, hidden) :]
    names = max((width(printable(t.name)) for t in trials), default=0)
    lines += [below + _trial_line(trial, min(names, 40), colours) for trial in trials]
    for name, action, source in point.shadowed:
        lines.append(f"{below}     hides '{printable(name)}': {action}  {printable(source)}")
    return lines


def _trial_line(trial: Trial, names: int, colours: bool) -> str:
    name = fit(printable(trial.name), names)
    line = f"{_TRIAL_MARK[trial.truth]} {trial.index:>4}  {name}{' ' * (names - width(name))}"
    why = "; ".join(printable(reason) for reason in trial.why)
    if trial.truth == "no":
        return colour("NONE", f"{line}  {why}", colours)
    action = trial.action if trial.truth == "yes" else "UNDECIDED"
    end = f"matches: {trial.action}" if trial.truth == "yes" else f"cannot be decided: {why}"
    return f"{colour(action, line, colours)}  {end}  {printable(trial.source)}"
