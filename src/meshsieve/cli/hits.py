"""Count what each rule decided of captures and logs: hits, sessions, packets, bytes, first and last hit. Hits are flows
at layers 2-4, and requests at routes and authorization policies where the policy has any (of logs, everywhere).

A rule without hits was not exercised by this traffic; whether it can match at all is what `meshsieve lint` says.

Exit status: 0 when everything was read to its end; 2 for wrong usage, a policy or capture that cannot be read, a
capture that ends badly, or lines of a log that are no requests (the counts are written, and the reason goes to standard
error).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_capture, add_policy, capture_choice, load_engine, take_trailing_words
from meshsieve.cli.request_files import add_logs, check_traffic, classify_logs, end_of_logs

if TYPE_CHECKING:
    from meshsieve.engine import Engine
    from meshsieve.observability.rule_statistics import RuleStatistics

EXAMPLES = """\
examples:
  meshsieve hits -r traffic.pcap -p nsx.json
  meshsieve hits -r traffic.pcap -p nsx.json --unused
  meshsieve hits --requests access.log -p istio/ --unused
  meshsieve hits -r traffic.pcap -p nsx.json -o json | jq '.results[].statistics.results[] | select(.hit_count == 0)'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser, required=False)
    add_logs(parser)
    add_policy(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--format",
        choices=("table", "json", "ndjson"),
        default="table",
        help="json is the document of NSX's statistics calls, a list for each enforcement point (default: table)",
    )
    group.add_argument("--output", metavar="FILE", help="write here instead of to standard output; whole or not at all")
    group.add_argument("--unused", action="store_true", help="only rules that decided nothing")


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures", "requests", "policies"), "filter")
    check_traffic(options)
    engine = load_engine(options)

    from meshsieve.observability.rule_statistics import not_exercised

    rows: list[RuleStatistics] = []
    statuses = [0]
    if options.captures:
        rows += _of_captures(engine, options, expression, statuses)
    if options.requests:
        rows += _of_logs(engine, options, statuses)
    if options.unused:
        rows = not_exercised(rows)
    _print(rows, options)
    sys.stdout.flush()
    return max(statuses)


def _of_captures(
    engine: Engine, options: argparse.Namespace, expression: str, statuses: list[int]
) -> list[RuleStatistics]:
    """Rules of layers 2-4 by flows, and those of layer 7 by requests; an exit status is added to ``statuses``."""
    from meshsieve.cli.stderr import Progress, show_open, warn
    from meshsieve.observability.rule_statistics import RuleCounter

    counter = RuleCounter(engine.tables)
    choice = capture_choice(options, expression)
    with Progress() as progress:
        result = engine.classify_pcap(options.captures, **choice, iif=options.iif, oif=options.oif, progress=progress)
        for batch in result:
            counter.add(batch)
        rows = list(counter.rows())
        if engine.mesh is not None and "-" not in options.captures:  # standard input cannot be read a second time
            from meshsieve.observability.request_statistics import RequestRuleCounter

            requests = RequestRuleCounter(engine.mesh)
            for judged in engine.classify_requests(
                options.captures, assume_mtls=options.assume_mtls, **choice, progress=progress
            ):
                requests.add(judged)
            rows += requests.rows()
    show_open(result.summary())
    if result.problem:
        warn(result.problem)
        statuses.append(2)
    return rows


def _of_logs(engine: Engine, options: argparse.Namespace, statuses: list[int]) -> list[RuleStatistics]:
    from meshsieve.cli.stderr import Progress
    from meshsieve.observability.request_statistics import RequestRuleCounter

    with Progress() as progress:
        result = classify_logs(engine, options, progress)
        assert engine.mesh is not None
        requests = RequestRuleCounter(engine.mesh, points=True)
        for judged in result:
            requests.add(judged)
    statuses.append(end_of_logs(result))
    return list(requests.rows())


def _print(rows: list[RuleStatistics], options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import print_text
    from meshsieve.observability.rule_statistics import statistics_document

    if options.format == "table":
        from meshsieve.cli.terminal import columns

        print_text(_table(rows, columns() if options.output is None else None), options.output)
    elif options.format == "json":
        print_text(json.dumps(statistics_document(rows), indent=1), options.output)
    else:
        from dataclasses import asdict

        print_text("\n".join(json.dumps(asdict(row)) for row in rows), options.output)


def _table(rows: list[RuleStatistics], width: int | None) -> str:
    from meshsieve.reports.text import byte_text, table_text

    cells = [
        [row.point, f"{row.hit_count:,}", f"{row.packet_count:,}", byte_text(row.byte_count), row.rule, row.source]
        for row in rows
    ]
    unused = sum(row.hit_count == 0 for row in rows)
    heads = ["POINT", "HITS", "PACKETS", "BYTES", "RULE", "WRITTEN AT"]
    text = table_text(heads, cells, right=frozenset({1, 2, 3}), columns=width)
    return f"{text}\n\n{len(rows):,} rules, {unused:,} of them decided nothing of this traffic"
