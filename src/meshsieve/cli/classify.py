"""Show which rule decides each flow, packet or request of a capture, or each request of a log, through all layers.
A flow is judged once, by its first packet.

Exit status: 0 when everything was read to its end, whatever the verdicts; 2 for wrong usage, a policy or capture that
cannot be read, a capture that ends badly, or lines of a log that are no requests (all other rows are written, and the
reason goes to standard error).
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Literal

from meshsieve.cli.options import (
    FLOW_FORMATS,
    add_capture,
    add_output,
    add_policy,
    add_signatures,
    capture_choice,
    load_engine,
    take_trailing_words,
)
from meshsieve.cli.request_files import add_logs, check_traffic, classify_logs, end_of_logs
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.engine import Engine

EXAMPLES = """\
examples:
  meshsieve classify -r traffic.pcap -p nsx.json
  meshsieve classify -r traffic.pcap -p rules.v4 --chain INPUT --iif eth0 'tcp and dst port 22'
  meshsieve classify -r 1.pcap.zst 2.pcap.zst -p policies/ -o ndjson | jq -c 'select(.action != "ALLOW")'
  tcpdump -w - | meshsieve classify -r - -p nsx.json --by packet -o csv
  meshsieve classify -r traffic.pcap -p nsx.json -o parquet --output verdicts.parquet
  meshsieve classify -r traffic.pcap -p nsx.json istio/ --by request --assume-mtls
  meshsieve classify --requests access.log.gz -p nsx.json istio/ -o ndjson
  meshsieve classify -r traffic.pcap -p nsx.json -o ipfix --output verdicts.ipfix   # tshark -r verdicts.ipfix
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser, required=False)
    add_logs(parser)
    add_signatures(parser)
    add_policy(parser)
    add_output(parser, FLOW_FORMATS)
    parser.add_argument(
        "--by",
        choices=("flow", "packet", "request"),
        help="what a row is (default: flow, of --requests request); requests are judged by the mesh's policy, too",
    )


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures", "requests", "policies"), "filter")
    check_traffic(options)
    if options.requests and (options.captures or expression or options.by in ("flow", "packet")):
        raise UsageError(
            "--requests gives rows of requests; it goes without -r, a capture filter and --by flow or packet"
        )
    engine = load_engine(options)
    if options.requests or options.by == "request":
        return _classify_requests(engine, options, expression)

    by: Literal["flow", "packet"] = "packet" if options.by == "packet" else "flow"

    from meshsieve.apps import load_signatures
    from meshsieve.cli.sink import open_sink, print_text
    from meshsieve.cli.stderr import Progress, show_open, warn

    with Progress() as progress:
        result = engine.classify_pcap(
            options.captures,
            by=by,
            **capture_choice(options, expression),
            iif=options.iif,
            oif=options.oif,
            progress=progress,
            signatures=load_signatures(options.signatures) if options.signatures else None,
        )
        if options.format == "table":
            from meshsieve.cli.terminal import colours, columns
            from meshsieve.reports.flow_table import RowsTable

            table = RowsTable(engine.tables, by, options.limit)
            for batch in result:
                table.add(batch)
            wide, coloured = (columns(), colours()) if options.output is None else (None, False)
            text = table.text(result.summary(), columns=wide, colours=coloured)
            print_text(text, options.output)
        else:
            with open_sink(options, result.empty_columns()) as sink:
                for batch in result:
                    sink.write(batch.columns)
                sink.end(result.summary().to_dict())
    if options.format not in ("table", "json"):
        show_open(result.summary())
    if result.problem:
        sys.stdout.flush()
        warn(result.problem)
        return 2
    return 0


def _classify_requests(engine: Engine, options: argparse.Namespace, expression: str) -> int:
    from meshsieve.cli.sink import open_sink, print_text
    from meshsieve.cli.stderr import Progress, warn
    from meshsieve.cli.terminal import colours, columns
    from meshsieve.reports.request_table import RequestTable

    with Progress() as progress:
        if options.requests:
            result = classify_logs(engine, options, progress)
        else:
            result = engine.classify_requests(
                options.captures,
                assume_mtls=options.assume_mtls,
                **capture_choice(options, expression),
                progress=progress,
            )
        if options.format == "table":
            table = RequestTable(options.limit)
            for rows in result:
                table.add(rows)
            wide, coloured = (columns(), colours()) if options.output is None else (None, False)
            print_text(table.text(result.totals(), columns=wide, colours=coloured), options.output)
        else:
            with open_sink(options, result.empty_columns()) as sink:
                for rows in result:
                    sink.write(rows.columns)
                sink.end(result.totals().to_dict())
    sys.stdout.flush()
    if options.requests:
        return end_of_logs(result)
    if result.problem:
        warn(result.problem)
        return 2
    return 0
