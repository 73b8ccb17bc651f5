"""Show who calls whom in captures and logs: workloads, protocols, rates, errors, mutual TLS, and what policy says.

-o openmetrics gives Istio's standard metrics, -o graph the service graph as Kiali shows it (JSON). Captures are read
twice, so standard input cannot be one.

Exit status: 0 when the captures were read to their ends; 2 for wrong usage, or a policy or capture that cannot be read.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_capture, add_policy, load_engine, take_trailing_words
from meshsieve.cli.request_files import add_logs, check_traffic, classify_logs, end_of_logs
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.observability.service_graph import ServiceGraph
    from meshsieve.walk.calls import CallCounter

EXAMPLES = """\
examples:
  meshsieve services -r traffic.pcap -p cluster/ nsx.json --assume-mtls
  meshsieve services -r traffic.pcap -p cluster/ -o openmetrics > traffic.prom
  meshsieve services --requests access.log -p cluster/ -o openmetrics
  meshsieve services -r traffic.pcap -p cluster/ -o graph --type app | jq '.elements.edges[].data.traffic'
"""
GRAPH_TYPES = ("workload", "app", "versionedApp", "service")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser, required=False)
    add_logs(parser)
    add_policy(parser)
    parser.add_argument(
        "-o", "--format", choices=("table", "graph", "openmetrics"), default="table", help="default: table"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write here instead of to standard output; whole or not at all"
    )
    parser.add_argument("--type", choices=GRAPH_TYPES, default="workload", help="what a node is (default: workload)")
    parser.add_argument("--service-nodes", action="store_true", help="services stand between callers and workloads")


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures", "requests", "policies"), "filter")
    check_traffic(options)
    if "-" in options.captures:
        raise UsageError("captures are read twice; standard input cannot be one: write it to a file first")
    engine = load_engine(options)

    from meshsieve.cli.stderr import Progress
    from meshsieve.walk.calls import count_calls

    with Progress() as progress:
        logs = classify_logs(engine, options, progress) if options.requests else None
        counter = count_calls(
            engine,
            options.captures,
            assume_mtls=options.assume_mtls,
            logs=logs or (),
            progress=progress,
            filter=expression or None,
            count=options.count,
            strict=options.strict_capture,
        )
    _print(counter, options)
    return end_of_logs(logs) if logs is not None else 0


def _print(counter: CallCounter, options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import print_text
    from meshsieve.observability.service_graph import ServiceGraph
    from meshsieve.observability.service_metrics import ServiceMetrics

    calls = list(counter.calls())
    if options.format == "openmetrics":
        metrics = ServiceMetrics()
        metrics.add(call for call, _ in calls)
        print_text(metrics.text().rstrip("\n"), options.output)
        return
    graph = ServiceGraph(options.type, service_nodes=options.service_nodes)
    graph.add(calls)
    if options.format == "graph":
        print_text(json.dumps(graph.to_dict(counter.seconds), indent=1), options.output)
    else:
        print_text(_table(graph, options), options.output)


def _table(graph: ServiceGraph, options: argparse.Namespace) -> str:
    from meshsieve.cli.terminal import columns
    from meshsieve.reports.text import byte_text, table_text

    cells = []
    for edge in sorted(graph.edges.values(), key=lambda e: (-e.count, e.source, e.target)):
        source, target = graph.nodes[edge.source], graph.nodes[edge.target]
        codes = ", ".join(f"{code}: {n:,}" for code, n in sorted(edge.codes.items()))
        verdicts = ", ".join(f"{n:,} {name}" for name, n in sorted(edge.verdicts.items()))
        mtls = f"{100 * edge.mtls // edge.count} %" if edge.count and edge.protocol != "tcp" else ""
        volume = byte_text(edge.request_bytes + edge.response_bytes)
        ends = [f"{node.namespace}/{node.title}" for node in (source, target)]
        cells.append([*ends, edge.protocol, f"{edge.count:,}", volume, codes, mtls, verdicts])
    heads = ["FROM", "TO", "PROTOCOL", "CALLS", "BYTES", "ANSWERS", "MTLS", "POLICY"]
    return table_text(heads, cells, right=frozenset({3, 4}), columns=columns() if options.output is None else None)
