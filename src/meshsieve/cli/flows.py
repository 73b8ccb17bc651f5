"""List the flows of a capture: endpoints (the initiator first), packets, bytes, times.

Exit status: 0 when the capture was read to its end, 2 for wrong usage or a capture that cannot be read (further).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from meshsieve.cli.options import (
    FLOW_FORMATS,
    add_capture,
    add_output,
    add_signatures,
    capture_choice,
    take_trailing_words,
)

if TYPE_CHECKING:
    from meshsieve import flows

EXAMPLES = """\
examples:
  meshsieve flows -r traffic.pcap
  meshsieve flows -r traffic.pcapng.zst -o ndjson 'udp port 53' | jq -c '[.src, .dst]'
"""

_BATCH = 16384  # flows written at a time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser)
    add_signatures(parser)
    add_output(parser, FLOW_FORMATS)


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures",), "filter")

    from meshsieve import apps, capture, flows
    from meshsieve.cli.sink import open_sink, print_text
    from meshsieve.cli.stderr import Progress, warn
    from meshsieve.traffic_columns import flow_columns

    signatures = apps.load_signatures(options.signatures) if options.signatures else None
    table = flows.FlowTable(flows.FlowOptions(signatures=signatures))
    reader = capture.read(options.captures, flows=table, **capture_choice(options, expression))

    def finished() -> Iterator[flows.FlowColumns]:
        while reader.follow():
            progress(reader)
            if table.finished >= _BATCH:
                yield table.take_finished()
        yield table.finish()

    with Progress() as progress:
        if options.format == "table":
            from meshsieve.cli.terminal import colours, columns
            from meshsieve.reports.flow_table import largest_flows_text

            wide, coloured = (columns(), colours()) if options.output is None else (None, False)
            text = largest_flows_text(finished(), options.limit, columns=wide, colours=coloured)
            print_text(text, options.output)
        else:
            with open_sink(options, flow_columns(flows.FlowTable().finish(), apps.ATTRIBUTES)) as sink:
                for batch in finished():
                    sink.write(flow_columns(batch, apps.ATTRIBUTES))
                sink.end({"stats": table.stats})
    lost = table.stats["packets_without_flow"]
    if lost:
        warn(f"{lost:,} packets belong to no flow (no IP, or headers that cannot be read)")
    if reader.problem:
        sys.stdout.flush()
        warn(reader.problem)
        return 2
    return 0
