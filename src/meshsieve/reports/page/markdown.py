"""The report as Markdown, for a merge request or a ticket: the same facts, tables of the largest rows."""

from __future__ import annotations

from collections.abc import Sequence

from meshsieve.reports.escape import printable
from meshsieve.reports.markdown import markdown_cell, markdown_table
from meshsieve.reports.page.model import Report, Talker
from meshsieve.reports.page.timeline_chart import time_text
from meshsieve.reports.text import byte_text

SHOWN = 40


def report_markdown(report: Report) -> str:
    """CommonMark with tables. Text from captures and policies cannot become markup or leave its cell."""
    total = report.summary.total
    lines = [f"# {markdown_cell(report.title)}", ""]
    if report.last_ns:
        lines += [f"{time_text(report.first_ns)} to {time_text(report.last_ns)}", ""]
    lines += [markdown_cell(report.headline), ""]
    lines += [f"{total.flows:,} flows, {total.packets:,} packets, {byte_text(total.bytes)}.", ""]
    lines += markdown_table(
        ["verdict", "flows", "packets", "bytes"],
        ([name, f"{c.flows:,}", f"{c.packets:,}", byte_text(c.bytes)] for name, c in report.summary.verdicts.items()),
    )
    lines += ["## Rules", ""]
    lines += markdown_table(
        ["verdict", "flows", "packets", "point", "rule", "written at", "most traffic"],
        (
            [
                r.action,
                f"{r.count.flows:,}",
                f"{r.count.packets:,}",
                r.point,
                r.rule or "(default)",
                r.place,
                _talker(report.talkers_of(r)),
            ]
            for r in report.summary.rules[:SHOWN]
        ),
    )
    lines += _more(report, "rules", len(report.summary.rules))
    if report.requests is not None:
        lines += [
            "## Requests",
            "",
            ", ".join(f"{n:,} {name}" for name, n in report.requests.by_action.items()) + ".",
            "",
        ]
        lines += markdown_table(
            ["verdict", "requests", "from", "to", "request", "layer", "rule or reason"],
            (
                [g.action, f"{g.count:,}", g.client.name, g.server.name, f"{g.method} {g.target}", g.layer, g.rule]
                for g in report.requests.groups[:SHOWN]
            ),
        )
        lines += _more(report, "requests", len(report.requests.groups))
    if report.overlap is not None:
        lines += ["## Which layer protects whom", ""]
        lines += markdown_table(
            ["class", "pairs", "flows", "bytes", "requests", "meaning"],
            (
                [kind, f"{pairs:,}", f"{flows:,}", byte_text(octets), f"{requests:,}", meaning]
                for kind, meaning, pairs, flows, octets, requests in report.overlap.totals
            ),
        )
        lines += markdown_table(
            ["class", "from", "to", "port", "bytes", "requests", "witness", "rules"],
            (
                [
                    o.kind, o.source, o.destination, str(o.port or "any"), byte_text(o.bytes), f"{o.requests:,}",
                    o.request or o.packet, "; ".join(rule for _, rule, _ in o.rules),
                ]
                for o in report.overlap.rows[:SHOWN]
            ),
        )  # fmt: skip
    lines += ["## Services", ""]
    lines += markdown_table(
        ["server", "port", "application", "flows", "bytes", "verdicts"],
        (
            [s.peer.name, f"{s.proto} {s.port}", s.app or "-", f"{s.flows:,}", byte_text(s.bytes), _counted(s.verdicts)]
            for s in report.services[:SHOWN]
        ),
    )
    lines += _more(report, "services", len(report.services))
    lines += ["## Top talkers", ""]
    lines += markdown_table(
        ["from", "to", "flows", "bytes", "verdicts"],
        (
            [k.source.name, k.target.name, f"{k.flows:,}", byte_text(k.bytes), _counted(k.verdicts)]
            for k in report.links[:SHOWN]
        ),
    )
    lines += _more(report, "pairs", len(report.links))
    lines += ["## Findings", ""]
    lines += markdown_table(["level", "finding", "where"], ([f.level, f.what, f.where] for f in report.findings))
    lines += ["## How to repeat it", "", f"    {printable(report.command)}", ""]
    return "\n".join(lines)


def _talker(talkers: Sequence[Talker]) -> str:
    """The first, in words."""
    if not talkers:
        return ""
    first = talkers[0]
    port = f":{first.port}" if first.port else ""
    return f"{first.source.name} to {first.target.name}{port}, {byte_text(first.bytes)}"


def _more(report: Report, section: str, rows: int) -> list[str]:
    """How many rows a table leaves out."""
    left = max(0, rows - SHOWN) + report.more.get(section, 0)
    return [f"and {'' if report.exact else 'at least '}{left:,} more", ""] if left else []


def _counted(verdicts: dict[str, int]) -> str:
    return ", ".join(f"{flows:,} {name}" for name, flows in sorted(verdicts.items()))
