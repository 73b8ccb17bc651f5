"""A report's figures as charts, SVG or PNG, for slides and papers. Needs the ``charts`` extra (matplotlib).

Names from captures and policies are text and nothing else: mathematical markup is off, what does not print is escaped,
and the SVG is made of paths and escaped text. The same report gives the same bytes.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from meshsieve.extras import require
from meshsieve.reports.escape import printable
from meshsieve.reports.files import atomic_file
from meshsieve.reports.page.model import SEVERITY, Report
from meshsieve.reports.page.service_map import service_map
from meshsieve.reports.text import byte_text, fit

COLOURS = {
    "ALLOW": "#2f855a", "DROP": "#c53030", "REJECT": "#dd6b20", "UNDECIDED": "#b7791f", "PENDING": "#d69e2e",
    "NO_MATCH": "#718096", "NONE": "#a0aec0",
}  # fmt: skip
CLASS_COLOURS = {
    "conflict": "#c53030", "hole": "#dd6b20", "neither": "#d69e2e", "L4 only": "#3182ce", "L7 only": "#805ad5",
    "both": "#2f855a", "undecided": "#a0aec0",
}  # fmt: skip
BARS = 12
_NAME = 42  # characters of a name
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "meshsieve",
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
}
_UNSTAMPED: dict[str, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}


def chart_sheet(report: Report, form: str) -> bytes:
    """All charts on one sheet.

    form    svg or png
    raises  MissingExtraError without matplotlib
    """
    figure_of = require("matplotlib.figure", "charts").Figure
    with _drawing():
        charts = _charts(report)
        figure = figure_of(figsize=(14, 4.6 * ((len(charts) + 1) // 2)), layout="constrained")
        figure.suptitle(_text(report.title), x=0.01, ha="left", fontsize=14, fontweight="bold")
        axes = figure.subplots((len(charts) + 1) // 2, 2, squeeze=False).flat
        for ax, (_, draw) in zip(axes, charts, strict=False):
            draw(report, ax)
        for ax in list(axes)[len(charts) :]:
            ax.set_axis_off()
        return _saved(figure, form)


def write_charts(report: Report, folder: str, form: str) -> list[str]:
    """Each chart as a file ``verdicts.svg``, ``rules.svg``, ...; returns their paths.

    raises  MissingExtraError without matplotlib, OutputError for a folder that cannot be written
    """
    figure_of = require("matplotlib.figure", "charts").Figure
    os.makedirs(folder, exist_ok=True)
    paths = []
    with _drawing():
        for name, draw in _charts(report):
            figure = figure_of(figsize=(9, 5.2), layout="constrained")
            draw(report, figure.subplots())
            paths.append(os.path.join(folder, f"{name}.{form}"))
            with atomic_file(paths[-1]) as file:
                file.write(_saved(figure, form))
    return paths


@contextmanager
def _drawing() -> Iterator[None]:
    matplotlib = require("matplotlib", "charts")
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fonts without some letters show boxes
        yield


def _saved(figure: Any, form: str) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format=form, dpi=130, metadata=_UNSTAMPED[form])
    return out.getvalue()


Draw = Callable[[Report, Any], None]


def _charts(report: Report) -> list[tuple[str, Draw]]:
    """The charts for which the report has something to say."""
    out: list[tuple[str, Draw]] = []
    if report.times.series:
        out.append(("verdicts", _verdicts))
    if report.summary.rules:
        out.append(("rules", _rules))
    if report.apps:
        out.append(("applications", _applications))
    if report.requests is not None:
        out.append(("requests", _requests))
    if report.links:
        out.append(("services", _services))
    if report.overlap is not None and report.overlap.rows:
        out.append(("overlap", _overlap))
    return out


def _text(text: str) -> str:
    return fit(printable(text), _NAME)


def _verdicts(report: Report, ax: Any) -> None:
    times, seconds = report.times, report.times.width_ns / 1e9
    names = [name for name in reversed(SEVERITY) if name in times.series]  # what is denied lies on top
    starts = [(start - times.start_ns[0]) / 1e9 for start in times.start_ns]
    below = [0.0] * len(starts)
    for name in names:
        rates = [amount / seconds for amount in times.series[name]]
        ax.bar(starts, rates, width=seconds, bottom=below, align="edge", color=COLOURS[name], label=name)
        below = [a + b for a, b in zip(below, rates, strict=True)]
    ax.set_title("Packets a second by verdict")
    ax.set_xlabel(f"seconds since {_time(times.start_ns[0])}")
    ax.legend(frameon=False, ncols=len(names), loc="lower right", bbox_to_anchor=(1, 1))


def _time(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{ns} ns"


def _bars(ax: Any, rows: Sequence[tuple[str, float, str, str]]) -> None:
    """(label, amount, its words, colour), the first on top."""
    shown = rows[:BARS]
    places = range(len(shown), 0, -1)
    drawn = ax.barh(places, [row[1] for row in shown], color=[row[3] for row in shown])
    ax.bar_label(drawn, labels=[row[2] for row in shown], padding=3)
    ax.set_yticks(places, [_text(row[0]) for row in shown])
    ax.margins(x=0.15)


def _rules(report: Report, ax: Any) -> None:
    _bars(
        ax,
        [
            (rule.rule or f"({rule.point}: default)", rule.count.flows, f"{rule.count.flows:,}", COLOURS[rule.action])
            for rule in sorted(report.summary.rules, key=lambda r: -r.count.flows)
        ],
    )
    ax.set_title("Flows by deciding rule")


def _applications(report: Report, ax: Any) -> None:
    _bars(ax, [(name, octets, byte_text(octets), "#2b6cb0") for name, _, _, octets in report.apps])
    ax.xaxis.set_major_formatter(lambda value, _: byte_text(int(value)))
    ax.set_title("Bytes by application")


def _requests(report: Report, ax: Any) -> None:
    assert report.requests is not None
    _bars(
        ax,
        [
            (f"{g.method} {g.target}", g.count, f"{g.count:,} {g.action}", COLOURS[g.action])
            for g in sorted(report.requests.groups, key=lambda g: -g.count)
        ],
    )
    ax.set_title("Requests")


def _services(report: Report, ax: Any) -> None:
    path_of, patch = require("matplotlib.path", "charts").Path, require("matplotlib.patches", "charts").PathPatch
    drawn = service_map(report.links)
    for edge in drawn.edges:
        codes = [path_of.MOVETO] + [path_of.CURVE4] * 3
        curve = path_of(edge.points, codes)
        ax.add_patch(patch(curve, fill=False, edgecolor=COLOURS[edge.verdict], linewidth=edge.width, alpha=0.65))
    for node in drawn.nodes:
        ax.plot(node.x, node.y, "o", color="#2b6cb0" if node.known else "white", markeredgecolor="#1c2430", zorder=3)
        align = {"start": "left", "middle": "center", "end": "right"}[node.anchor]
        ax.text(node.label_x, node.label_y, node.label, fontsize=8, ha=align, va="center", zorder=4)
    ax.set_xlim(0, drawn.width)
    ax.set_ylim(drawn.height, 0)
    ax.set_axis_off()
    ax.set_title("Who talks to whom, by verdict")


def _overlap(report: Report, ax: Any) -> None:
    matrix = report.overlap
    assert matrix is not None
    for i, row in enumerate(matrix.cells):
        for j, kind in enumerate(row):
            if kind:
                ax.barh(i, 0.92, left=j - 0.46, height=0.92, color=CLASS_COLOURS[kind])
    ax.set_yticks(range(len(matrix.sources)), [_text(name) for name in matrix.sources], fontsize=7)
    ax.set_xticks(range(len(matrix.destinations)), [_text(name) for name in matrix.destinations], fontsize=7)
    ax.tick_params(axis="x", rotation=60)
    for label in ax.get_xticklabels():
        label.set_horizontalalignment("right")
    ax.set_xlim(-0.6, len(matrix.destinations) - 0.4)
    ax.set_ylim(len(matrix.sources) - 0.4, -0.6)
    handle = require("matplotlib.patches", "charts").Patch
    kinds = [row[0] for row in matrix.totals]
    ax.legend(
        [handle(color=CLASS_COLOURS[kind]) for kind in kinds], kinds, frameon=False, fontsize=7,
        ncols=len(kinds), loc="lower left", bbox_to_anchor=(0, 1),
    )  # fmt: skip
    ax.set_title("Which layer protects: rows ask, columns answer", pad=22)
