"""Show which route takes a request, where it is written, and what becomes of the request.

CONFIG is an Envoy RouteConfiguration (v3), YAML or JSON, or the objects of a cluster (Istio, Gateway API, core
Kubernetes, mixed; files and folders). Of a cluster, say where the request is seen: at a gateway, or by the sidecar of a
client. The request is written as METHOD URL, or many stand in a file: NDJSON, an access log of Envoy or Istio, or HAR
(docs/request-logs.md). Exit status: 0; 2 for wrong usage, a refused configuration, or lines that are no requests
(all others are answered).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from meshsieve.cli.options import take_trailing_words
from meshsieve.cli.request_files import add_requests, answer_all
from meshsieve.cli.terminal import colours
from meshsieve.errors import UsageError
from meshsieve.explanation import Explanation
from meshsieve.importers.sources import find_files, read_source
from meshsieve.importers.yaml_source import load_documents
from meshsieve.policy import SourceFile
from meshsieve.reports.escape import printable
from meshsieve.reports.text import explanation_text
from meshsieve.request import Request
from meshsieve.request_text import parse_request
from meshsieve.routes import HttpOptions, Match, from_envoy, from_kubernetes

EXAMPLES = """\
examples:
  meshsieve route -p routes.yaml 'GET http://shop.example/cart?id=7' -H 'x-version: 2'
  meshsieve route -p routes.yaml --normalize-path --merge-slashes 'GET http://shop.example//a/../b'
  meshsieve route -p bookinfo/ 'GET http://reviews.default:9080/reviews/0' --from default/productpage-v1
  meshsieve route -p bookinfo/ 'GET http://shop.example/cart' --gateway istio-system/edge
  meshsieve route -p bookinfo/ 'GET http://shop.example/cart' --gateway istio-system/edge --explain
  meshsieve route -p bookinfo/ --gateway istio-system/edge --requests access.log
  meshsieve route -p routes.yaml --requests requests.ndjson | jq -c '[.route, .cluster, .status]'
"""
ESCAPED_SLASHES = ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", dest="config", metavar="CONFIG", action="append", required=True,
                        help="route configuration, or objects of a cluster; may be repeated")  # fmt: skip
    add_requests(parser)
    parser.add_argument(
        "-H", dest="headers", metavar="'NAME: VALUE'", action="append", default=[], help="a header line"
    )
    parser.add_argument("--random", type=int, metavar="N", help="the random number that weights and fractions take")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--explain", action="store_true", help="show each route in order and the conditions that fail")
    place = parser.add_argument_group("place", "where the request is seen, for objects of a cluster")
    place.add_argument("--gateway", metavar="NS/NAME", help="the Gateway that the request comes to")
    place.add_argument("--from", dest="source", metavar="NS/WORKLOAD", help="the pod or workload that sends it")
    place.add_argument("--to", dest="receiver", metavar="NS/WORKLOAD", help="the pod or workload that receives it")
    place.add_argument("--from-namespace", metavar="NS", help="namespace of a client that is not among the objects")
    place.add_argument("--from-label", metavar="KEY=VALUE", action="append", default=[], help="a label of that client")
    manager = parser.add_argument_group("HTTP connection manager", "what happens before routing; Envoy's defaults")
    manager.add_argument("--normalize-path", action="store_true")
    manager.add_argument("--merge-slashes", action="store_true")
    manager.add_argument("--escaped-slashes", choices=ESCAPED_SLASHES, default="KEEP_UNCHANGED")
    manager.add_argument("--strip-any-host-port", action="store_true")
    parser.add_argument("request", metavar="REQUEST", nargs="*", help="METHOD URL, as one word or two")


def run(options: argparse.Namespace) -> int:
    words = take_trailing_words(options, (), "request")
    if bool(words) == bool(options.requests):
        raise UsageError("which request? write it last, such as 'GET http://host/path', or give --requests FILE")
    if options.requests and options.explain:
        raise UsageError("--explain is for one request")
    ask, explain = _asker(options)
    if options.requests:
        return answer_all(options, lambda request, _: _answer(ask(request)))
    request = parse_request(words, options.headers, options.random)
    if options.explain:
        told = explain(request)
        print(json.dumps(told.to_dict(), indent=1) if options.json else explanation_text(told, colours=colours()))
        return 0
    found = ask(request)
    print(json.dumps(_answer(found), indent=1) if options.json else _text(found))
    return 0


def _asker(options: argparse.Namespace) -> tuple[Callable[[Request], Match], Callable[[Request], Explanation]]:
    """What answers and what explains by the configuration, bound to the place that the options name."""
    sources = [read_source(path) for path in find_files(options.config)]
    if not sources:
        raise UsageError("-p names no file")
    place = {
        "gateway": options.gateway,
        "source": options.source,
        "receiver": options.receiver,
        "source_namespace": options.from_namespace,
        "source_labels": dict(_label(text) for text in options.from_label) or None,
    }
    http = HttpOptions(
        options.normalize_path, options.merge_slashes, options.escaped_slashes, options.strip_any_host_port
    )
    if not any(map(_holds_objects, sources)):
        if len(sources) != 1:
            raise UsageError(f"-p names {len(sources)} files; one route configuration is read")
        if any(value is not None for value in place.values()):
            raise UsageError("a place (--gateway, --from) is for objects of a cluster; this is a route configuration")
        router = from_envoy(sources[0].text, http, file=sources[0].name)
        return router.match, router.explain
    if http != HttpOptions():
        raise UsageError("path normalisation of a mesh is read from its mesh configuration (ConfigMap istio)")
    mesh = from_kubernetes(sources)
    for finding in mesh.findings:
        if finding.level != "note":
            print(printable(str(finding)), file=sys.stderr)
    return lambda request: mesh.match(request, **place), lambda request: mesh.explain(request, **place)


def _holds_objects(source: SourceFile) -> bool:
    """Whether a file holds Kubernetes objects: a kind in every one of them."""
    documents = load_documents(source.text, source.name)
    first = documents[0] if documents else None
    first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, dict) and "kind" in first and "virtual_hosts" not in first


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--from-label '{text}' is not KEY=VALUE")
    return key, value


def _answer(found: Match) -> dict[str, Any]:
    return {**asdict(found), "source": str(found.source)}


def _text(found: Match) -> str:
    lines = [f"{found.action}: {found.reason or 'taken by'} {found.route or ''}".rstrip()]
    if found.matched:
        lines = [f"route {found.route or '(without a name)'} of virtual host {found.virtual_host}  {found.source}"]
    elif found.virtual_host is not None:
        lines.append(f"virtual host {found.virtual_host}")
    shares = ", ".join(f"{name} {weight}" for name, weight in found.clusters) if len(found.clusters) > 1 else ""
    facts = {
        "listener": getattr(found, "listener", None) or None,
        "routes": getattr(found, "route_config", None) or None,
        "cluster": found.cluster or (f"one of {shares} (by weight; --random decides)" if shares else None),
        "status": found.status,
        "location": found.location,
        "path": found.path,
        "authority": found.authority,
    }
    lines += [f"{name:<10}{value}" for name, value in facts.items() if value is not None]
    return "\n".join(printable(line) for line in lines)
