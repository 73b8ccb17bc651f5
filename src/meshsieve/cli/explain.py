"""Show every rule that one packet meets, at every enforcement point, and why each does or does not match; or every
layer that a request meets, from the packet filters to the authorization policies.

A packet is written as PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [FIELD VALUE]...; what is not written is that of the
first packet of a new connection (TCP SYN, ICMP echo request). A request is written as METHOD URL; of an Envoy route
configuration alone, every route of the virtual host is shown.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_policy, load_engine, take_trailing_words
from meshsieve.cli.sink import print_text
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.engine import Engine
    from meshsieve.explanation import Explanation
    from meshsieve.routes import Router

EXAMPLES = """\
examples:
  meshsieve explain -p nsx.json 'tcp 10.0.0.1:4242 > 10.0.0.2:443'
  meshsieve explain -p rules.v4 --chain INPUT --iif eth0 'icmp 192.0.2.7 > 10.0.0.1 icmp_type 8'
  meshsieve explain -p policies/ 'udp [2001:db8::1]:5353 > [ff02::fb]:5353' --json
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
    parser.add_argument("packet", metavar="PACKET", nargs="*", help="the packet or request, as one word or several")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every rule tested")


def run(options: argparse.Namespace) -> int:
    packet = take_trailing_words(options, ("policies",), "packet")
    if not packet:
        raise UsageError("which packet? write it last, such as 'tcp 10.0.0.1:4242 > 10.0.0.2:443'")
    from meshsieve.request_text import looks_like_request

    if looks_like_request(packet) and (router := _route_configuration(options)) is not None:
        from meshsieve.request_text import parse_request

        return _print(router.explain(parse_request(packet, options.headers)), options)
    engine = load_engine(options)
    if looks_like_request(packet):
        return _explain_request(engine, options, packet)
    return _print(engine.explain(packet, iif=options.iif, oif=options.oif), options)


def _print(explanation: Explanation, options: argparse.Namespace) -> int:
    if options.json:
        print_text(json.dumps(explanation.to_dict(), indent=1))
        return 0

    from meshsieve.cli.terminal import colours
    from meshsieve.reports.text import explanation_text

    print_text(explanation_text(explanation, colours=colours()))
    return 0


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

    from meshsieve.cli.terminal import colours
    from meshsieve.mesh.istio.mesh import DEFAULT_PORTS, split_authority
    from meshsieve.reports.text import request_verdict_text
    from meshsieve.request_text import parse_request

    request = parse_request(words, options.headers)
    port = options.to_port or split_authority(request.authority)[1] or DEFAULT_PORTS.get(request.scheme)
    request = replace(request, source_ip=options.from_address, destination_port=port, principal=options.principal)
    verdict = engine.judge_request(
        request, client=options.client, server=options.server, assume_mtls=options.assume_mtls
    )
    text = json.dumps(verdict.to_dict(), indent=1) if options.json else request_verdict_text(verdict, colours=colours())
    print_text(text)
    return 0
