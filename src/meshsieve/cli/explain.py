"""Show every rule that one packet meets, at every enforcement point, and why each does or does not match; every layer
that a request meets, from the packet filters to the authorization policies; or both for a flow of a capture.

A flow is named by its number, its community_id, or its ends, with -r and --flow. --traceflow tells the walk in the
words of NSX Traceflow; so does "observations" in the JSON.

A packet is written as PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [FIELD VALUE]...; what is not written is that of the
first packet of a new connection (TCP SYN, ICMP echo request). A request is written as METHOD URL; of an Envoy route
configuration alone, every route of the virtual host is shown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from meshsieve.cli.options import add_policy, load_engine, take_trailing_words
from meshsieve.cli.sink import print_text
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.engine import Engine
    from meshsieve.routes import Router

EXAMPLES = """\
examples:
  meshsieve explain -p nsx.json 'tcp 10.0.0.1:4242 > 10.0.0.2:443'
  meshsieve explain -p rules.v4 --chain INPUT --iif eth0 'icmp 192.0.2.7 > 10.0.0.1 icmp_type 8'
  meshsieve explain -p policies/ 'udp [2001:db8::1]:5353 > [ff02::fb]:5353' --json
  meshsieve explain -p nsx.json 'tcp 10.0.0.1:4242 > 10.0.0.2:443' --traceflow
  meshsieve explain -p nsx.json istio/ -r traffic.pcap --flow 17 --assume-mtls
  meshsieve explain -p nsx.json -r traffic.pcap --flow 'tcp 10.0.0.1:4242 > 10.0.0.2:443' -o html --output why.html
  meshsieve explain -p routes.yaml 'GET http://shop.example/cart' -H 'x-version: 2'
  meshsieve explain -p bookinfo/policy/ 'DELETE http://ratings:9080/ratings/0' \\
      --from bookinfo/productpage-v1 --to bookinfo/ratings-v1 --assume-mtls
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    group = parser.add_argument_group("request", "who asks whom, where a request is explained")
    group.add_argument("--from", dest="client", metavar="NS/WORKLOAD", help="the pod or workload that sends it")
    group.add_argument("--to", dest="server", metavar="NS/WORKLOAD", help="the pod or workload that gets it")
    group.add_argument("--from-address", metavar="ADDRESS", help="the client's address, where it is no workload's")
    group.add_argument("--to-port", metavar="PORT", type=int, help="the server's port (default: the URL's)")
    group.add_argument("--principal", metavar="ID", help="the client's verified identity, without spiffe://")
    group.add_argument(
        "--assume-mtls", action="store_true", help="workloads with proxies have the identity of their service account"
    )
    group.add_argument("-H", dest="headers", metavar="'NAME: VALUE'", action="append", default=[], help="a header line")
    flow = parser.add_argument_group("flow", "a flow of a capture, in place of a packet")
    flow.add_argument("-r", dest="captures", metavar="CAPTURE", nargs="+", action="extend", default=[],
                      help="captures that hold the flow; read twice")  # fmt: skip
    flow.add_argument("--flow", metavar="FLOW", help="its number, its community_id, or its ends as a packet is written")
    output = parser.add_argument_group("output")
    output.add_argument("-o", "--format", choices=("tree", "json", "html", "traceflow"), default="tree",
                        help="traceflow is the document of NSX's calls (default: tree)")  # fmt: skip
    output.add_argument("--json", action="store_const", const="json", dest="format", help="the same as -o json")
    output.add_argument("--traceflow", action="store_true", help="show the walk as a table of observations")
    output.add_argument(
        "--output", metavar="FILE", help="write here instead of to standard output; whole or not at all"
    )
    parser.add_argument("packet", metavar="PACKET", nargs="*", help="the packet or request, as one word or several")


def run(options: argparse.Namespace) -> int:
    packet = take_trailing_words(options, ("policies", "captures"), "packet")
    if options.flow is not None or options.captures:
        return _explain_flow(options, packet)
    if not packet:
        raise UsageError("which packet? write it last, such as 'tcp 10.0.0.1:4242 > 10.0.0.2:443'")
    from meshsieve.reports.text import explanation_text
    from meshsieve.request_text import looks_like_request

    if looks_like_request(packet) and (router := _route_configuration(options)) is not None:
        from meshsieve.request_text import parse_request

        if options.traceflow or options.format == "traceflow":
            raise UsageError("a route configuration alone has no walk that Traceflow could tell of")
        return _print(router.explain(parse_request(packet, options.headers)), options, explanation_text)
    engine = load_engine(options)
    if looks_like_request(packet):
        return _explain_request(engine, options, packet)
    return _print(engine.explain(packet, iif=options.iif, oif=options.oif), options, explanation_text)


class Explained(Protocol):
    """Of a packet, a request, a flow."""

    def to_dict(self) -> dict[str, Any]: ...
    def _repr_html_(self) -> str: ...


def _print(found: Explained, options: argparse.Namespace, tree: Callable[..., str]) -> int:
    from meshsieve.cli.terminal import colours, columns
    from meshsieve.reports.html import observations_html, page_html
    from meshsieve.reports.text import observations_text

    coloured = colours() if options.output is None else False
    traces = _traces(found)
    if options.format == "json":
        text = json.dumps(found.to_dict(), indent=1)
    elif options.format == "html":
        told = "".join(f"<h2>Traceflow</h2>{observations_html(trace['results'])}" for trace in traces)
        text = page_html("meshsieve explain", found._repr_html_() + (told if options.traceflow else ""))
    elif options.format == "traceflow":
        text = json.dumps(traces[0] if len(traces) == 1 else traces, indent=1)
    elif options.traceflow:
        wide = columns() if options.output is None else None
        tables = [observations_text(trace["results"], columns=wide, colours=coloured) for trace in traces]
        text = "\n\n".join(tables)
    else:
        text = tree(found, colours=coloured)
    print_text(text, options.output)
    return 0


def _traces(found: Any) -> list[dict[str, Any]]:
    """The Traceflow documents of a packet or request, or of the first packet of a flow and its requests."""
    parts = [found.packet, *found.requests] if hasattr(found, "requests") else [found]
    return [part.traceflow() for part in parts]


def _explain_flow(options: argparse.Namespace, packet: str) -> int:
    from meshsieve.reports.text import flow_explanation_text

    if options.flow is None or not options.captures:
        raise UsageError("a flow of a capture is asked for with both -r CAPTURE and --flow FLOW")
    if packet:
        raise UsageError(f"'{packet}' is neither a file, nor is a packet asked for beside --flow")
    engine = load_engine(options)
    found = engine.explain_flow(
        options.captures, options.flow, iif=options.iif, oif=options.oif, assume_mtls=options.assume_mtls
    )
    return _print(found, options, flow_explanation_text)


def _route_configuration(options: argparse.Namespace) -> Router | None:
    """The router, if -p names one Envoy route configuration and nothing else."""
    from meshsieve.importers.sources import find_files, read_source
    from meshsieve.importers.yaml_source import load_documents
    from meshsieve.routes import from_envoy

    paths = list(find_files(options.policies))
    if len(paths) != 1:
        return None
    source = read_source(paths[0])
    if "virtual_hosts" not in source.text:
        return None
    documents = load_documents(source.text, source.name)
    if not documents or not isinstance(documents[0], dict) or "virtual_hosts" not in documents[0]:
        return None
    return from_envoy(source.text, file=source.name)


def _explain_request(engine: Engine, options: argparse.Namespace, words: str) -> int:
    from dataclasses import replace

    from meshsieve.mesh.istio.mesh import DEFAULT_PORTS, split_authority
    from meshsieve.reports.text import request_verdict_text
    from meshsieve.request_text import parse_request

    request = parse_request(words, options.headers)
    port = options.to_port or split_authority(request.authority)[1] or DEFAULT_PORTS.get(request.scheme)
    request = replace(request, source_ip=options.from_address, destination_port=port, principal=options.principal)
    verdict = engine.judge_request(
        request, client=options.client, server=options.server, assume_mtls=options.assume_mtls
    )
    return _print(verdict, options, request_verdict_text)
