"""Count what each rule decided of a capture's traffic: hits, sessions, packets, bytes, first and last hit.

A rule without hits was not exercised by this traffic; whether it can match at all is what `meshsieve lint` says.

Exit status: 0 when the capture was read to its end; 2 for wrong usage, a policy or capture that cannot be read, or a
capture that ends badly (the counts so far are written, and the reason goes to standard error).
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_capture, add_policy, capture_choice, load_engine, take_trailing_words

if TYPE_CHECKING:
    from meshsieve.observability.rule_statistics import RuleStatistics

EXAMPLES = """\
examples:
  meshsieve hits -r traffic.pcap -p nsx.json
  meshsieve hits -r traffic.pcap -p nsx.json --unused
  meshsieve hits -r traffic.pcap -p nsx.json -o json | jq '.results[].statistics.results[] | select(.hit_count == 0)'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser)
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
    expression = take_trailing_words(options, ("captures", "policies"), "filter")
    engine = load_engine(options)

    from meshsieve.cli.sink import print_text
    from meshsieve.cli.stderr import Progress, show_open, warn
    from meshsieve.observability.rule_statistics import RuleCounter, not_exercised, statistics_document

    counter = RuleCounter(engine.tables)
    with Progress() as progress:
        result = engine.classify_pcap(
            options.captures,
            **capture_choice(options, expression),
            iif=options.iif,
            oif=options.oif,
            progress=progress,
        )
        for batch in result:
            counter.add(batch)
    rows = list(counter.rows())
    if options.unused:
        rows = not_exercised(rows)
    if options.format == "table":
        from meshsieve.cli.terminal import columns

        print_text(_table(rows, columns() if options.output is None else None), options.output)
    elif options.format == "json":
        print_text(json.dumps(statistics_document(rows), indent=1), options.output)
    else:
        from dataclasses import asdict

        print_text("\n".join(json.dumps(asdict(row)) for row in rows), options.output)
    show_open(result.summary())
    if result.problem:
        sys.stdout.flush()
        warn(result.problem)
        return 2
    return 0


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
