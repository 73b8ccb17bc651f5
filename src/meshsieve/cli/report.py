"""Write what captures and logs amount to under a policy as one page: map, timeline, rules, services, requests, which
layer protects whom, findings.

The page needs no network and no scripts; with scripts its tables can be searched and sorted and the map explored. A
name that ends in .md gives Markdown, .svg or .png a sheet of charts (needs matplotlib); --charts writes each chart as a
file of its own.

Exit status: 0 when the report was written; 2 for wrong usage, a policy or capture that cannot be read, a capture that
ends badly, or lines of a log that are no requests (the report of all else is written, and the reason goes to standard
error and into it).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_capture, add_policy, capture_choice, load_engine, take_trailing_words
from meshsieve.cli.request_files import add_logs, check_traffic, classify_logs, end_of_logs
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.engine import Engine
    from meshsieve.reports.page.model import Report
    from meshsieve.walk.overlap import Traffic

EXAMPLES = """\
examples:
  meshsieve report -r traffic.pcap -p nsx.json -o report.html
  meshsieve report -r traffic.pcap -p nsx.json istio/ --assume-mtls -o report.html
  meshsieve report -r traffic.pcap -p nsx.json edge.rules -o report.md --title 'Release 7 under the new policy'
  meshsieve report --requests access.log -p istio/ --assume-mtls -o report.html
  meshsieve report -r traffic.pcap -p nsx.json -o charts.svg
  meshsieve report -r traffic.pcap -p nsx.json -o report.html --charts figures/ --chart-format png
"""
PAGES, CHARTS = (".html", ".htm", ".md"), (".svg", ".png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser, required=False)
    add_logs(parser)
    add_policy(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", metavar="FILE", help="report.html, report.md, charts.svg or charts.png; whole or not at all"
    )
    group.add_argument("--charts", metavar="DIR", help="a folder that gets each chart as a file of its own")
    group.add_argument("--chart-format", choices=("svg", "png"), default="svg", help="of --charts (default: svg)")
    group.add_argument("--no-overlap", action="store_true", help="leave out which layer protects whom")
    group.add_argument("--title", default="Traffic under policy", help="the report's title")


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures", "requests", "policies"), "filter")
    check_traffic(options)
    if options.output is None and options.charts is None:
        raise UsageError("where to? name a file with -o, or a folder with --charts")
    if options.output is not None and not options.output.endswith((*PAGES, *CHARTS)):
        ends = ", ".join((*PAGES, *CHARTS))
        raise UsageError(f"{options.output}: the name must end in {ends}, which says what to write")
    engine = load_engine(options)
    report, status = _gathered(engine, options, expression)
    _write(report, options)
    return status


def _gathered(engine: Engine, options: argparse.Namespace, expression: str) -> tuple[Report, int]:
    """Everything that the report says, and the exit status that the reading of traffic asks for."""
    from meshsieve.cli.stderr import Progress, warn
    from meshsieve.reports.page.gather import Gatherer
    from meshsieve.summary import Count, Summary

    gatherer = Gatherer(engine.tables)
    traffic = _overlap_traffic(engine, options)
    summary, status = Summary(Count(), {}, (), {}), 0
    choice = capture_choice(options, expression)
    with Progress() as progress:
        if options.captures:
            result = engine.classify_pcap(
                options.captures, **choice, iif=options.iif, oif=options.oif, progress=progress
            )
            for batch in result:
                gatherer.add(batch)
                if traffic is not None:
                    traffic.add_flows(batch)
            summary = result.summary()
            if result.problem:
                warn(result.problem)
                status = 2
        rows_of = []
        if options.captures and engine.mesh is not None and "-" not in options.captures:  # it cannot be read twice
            rows_of.append(
                engine.classify_requests(options.captures, assume_mtls=options.assume_mtls, **choice, progress=progress)
            )
        logs = classify_logs(engine, options, progress) if options.requests else None
        for rows in (rows for found in (*rows_of, *([logs] if logs is not None else [])) for rows in found):
            gatherer.add_requests(rows)
            if traffic is not None:
                traffic.add_requests(rows)
    if logs is not None:
        status = max(status, end_of_logs(logs))
        summary = Summary(
            summary.total, summary.verdicts, summary.rules, summary.open, (*summary.notes, *logs.totals().notes)
        )
    overlap = None
    if traffic is not None:
        from meshsieve.reports.page.overlap import overlap_matrix
        from meshsieve.walk.overlap import overlaps

        overlap = overlap_matrix(traffic.of(pair) for pair in overlaps(engine))
    report = gatherer.report(
        summary,
        engine.diagnostics,
        title=options.title,
        captures=options.captures,
        policies=options.policies,
        command=_command(options, expression),
        logs=options.requests,
        overlap=overlap,
    )
    return report, status


def _overlap_traffic(engine: Engine, options: argparse.Namespace) -> Traffic | None:
    """What counts the traffic of pairs; None where there is no second layer to compare with."""
    if options.no_overlap or engine.mesh is None or engine.mesh.topology is None or not engine.layers:
        return None
    from meshsieve.walk.overlap import Traffic

    return Traffic(engine)


def _write(report: Report, options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import open_output, print_text

    if options.charts is not None:
        from meshsieve.reports.charts import write_charts

        write_charts(report, options.charts, options.chart_format)
    if options.output is None:
        return
    if options.output.endswith(CHARTS):
        from meshsieve.reports.charts import chart_sheet

        with open_output(options.output) as file:
            file.write(chart_sheet(report, options.output.rpartition(".")[2]))
    elif options.output.endswith(".md"):
        from meshsieve.reports.page.markdown import report_markdown

        print_text(report_markdown(report), options.output)
    else:
        from meshsieve.reports.page.html import report_html

        print_text(report_html(report), options.output)
    sys.stdout.flush()


def _command(options: argparse.Namespace, expression: str) -> str:
    words = ["meshsieve", "report", *(["-r", *options.captures] if options.captures else [])]
    words += ["--requests", *options.requests] if options.requests else []
    words += ["-p", *options.policies]
    for name in ("lenient", "strict_capture", "assume_mtls", "no_overlap"):
        words += [f"--{name.replace('_', '-')}"] if getattr(options, name) else []
    for name, default in (("mode", "strict"), ("chain", "auto"), ("iif", None), ("oif", None), ("count", None)):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value != default else []
    for address in options.local:
        words += ["--local", address]
    for field in options.log_headers:
        words += ["--log-header", field]
    words += ["-o", options.output] if options.output is not None else []
    words += ["--charts", options.charts] if options.charts is not None else []
    return shlex.join([*words, *([expression] if expression else [])])
