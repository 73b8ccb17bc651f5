"""Write what a capture amounts to under a policy as one page: map, timeline, rules, services, findings.

The page needs no network and no scripts; with scripts its tables can be searched and sorted and the map explored.

Exit status: 0 when the report was written; 2 for wrong usage, a policy or capture that cannot be read, or a capture
that ends badly (the report of what could be read is written, and the reason goes to standard error and into it).
"""

from __future__ import annotations

import argparse
import shlex
import sys

from meshsieve.cli.options import add_capture, add_policy, capture_choice, load_engine, take_trailing_words
from meshsieve.errors import UsageError

EXAMPLES = """\
examples:
  meshsieve report -r traffic.pcap -p nsx.json -o report.html
  meshsieve report -r traffic.pcap -p nsx.json istio/ --assume-mtls -o report.html
  meshsieve report -r traffic.pcap -p nsx.json edge.rules -o report.md --title 'Release 7 under the new policy'
"""
_WRITERS = (".html", ".htm", ".md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser)
    add_policy(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="report.html, or report.md; whole or not at all"
    )
    group.add_argument(
        "--assume-mtls",
        action="store_true",
        help="requests between workloads with proxies have the identity of the client's service account",
    )
    group.add_argument("--title", default="Traffic under policy", help="the report's title")


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures", "policies"), "filter")
    if not options.output.endswith(_WRITERS):
        raise UsageError(f"{options.output}: the name must end in {', '.join(_WRITERS)}, which says what to write")
    engine = load_engine(options)

    from meshsieve.cli.sink import print_text
    from meshsieve.cli.stderr import Progress, warn
    from meshsieve.reports.page.gather import Gatherer
    from meshsieve.reports.page.html import report_html
    from meshsieve.reports.page.markdown import report_markdown

    gatherer = Gatherer(engine.tables)
    with Progress() as progress:
        result = engine.classify_pcap(
            options.captures,
            **capture_choice(options, expression),
            iif=options.iif,
            oif=options.oif,
            progress=progress,
        )
        for batch in result:
            gatherer.add(batch)
        if engine.mesh is not None and "-" not in options.captures:  # standard input cannot be read a second time
            for rows in engine.classify_requests(
                options.captures,
                assume_mtls=options.assume_mtls,
                filter=expression or None,
                count=options.count,
                strict=options.strict_capture,
                progress=progress,
            ):
                gatherer.add_requests(rows)
    report = gatherer.report(
        result.summary(),
        engine.diagnostics,
        title=options.title,
        captures=options.captures,
        policies=options.policies,
        command=_command(options, expression),
    )
    print_text(report_markdown(report) if options.output.endswith(".md") else report_html(report), options.output)
    if result.problem:
        sys.stdout.flush()
        warn(result.problem)
        return 2
    return 0


def _command(options: argparse.Namespace, expression: str) -> str:
    words = ["meshsieve", "report", "-r", *options.captures, "-p", *options.policies]
    for name in ("lenient", "strict_capture", "assume_mtls"):
        words += [f"--{name.replace('_', '-')}"] if getattr(options, name) else []
    for name, default in (("mode", "strict"), ("chain", "auto"), ("iif", None), ("oif", None), ("count", None)):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value != default else []
    for address in options.local:
        words += ["--local", address]
    words += ["-o", options.output]
    return shlex.join([*words, *([expression] if expression else [])])
