"""Show whether a request may pass, which policy says so, and what would have to differ.

CONFIG holds the objects of a mesh: AuthorizationPolicy, PeerAuthentication, RequestAuthentication, with their pods,
services and mesh configuration if there are any. The request is written as METHOD URL, or many stand in a file, one
JSON object a line (docs/authorization.md); a line may name its "workload".
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from meshsieve.authz import Authorizer, from_kubernetes
from meshsieve.authz.settings import PATH_NORMALIZATIONS
from meshsieve.cli.options import take_trailing_words
from meshsieve.errors import MeshsieveError, UsageError
from meshsieve.importers.sources import find_files, read_source
from meshsieve.reports.escape import printable
from meshsieve.request import Request
from meshsieve.request_text import parse_request

EXAMPLES = """\
examples:
  meshsieve authz -p mesh/ 'GET http://reviews:9080/reviews/0' --from cluster.local/ns/shop/sa/web --to shop/reviews
  meshsieve authz -p policies.yaml 'DELETE http://h/admin' --from shop/web --to shop/db --labels app=db --explain
  meshsieve authz -p mesh/ --matrix
  meshsieve authz -p mesh/ --requests requests.ndjson --to shop/reviews | jq -c '[.allowed, .rule, .reason]'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", dest="config", metavar="CONFIG", nargs="+", action="extend", required=True, help="files or folders, -"
    )
    parser.add_argument(
        "--requests", metavar="FILE", help="requests as NDJSON, - for standard input; answers as NDJSON"
    )
    parser.add_argument("--matrix", action="store_true", help="who may call whom with which method, from the rules")
    parser.add_argument("--json", action="store_true", help="print one JSON object (of --matrix, one list)")
    parser.add_argument("--explain", action="store_true", help="every rule that the request meets, and what it lacks")
    asked = parser.add_argument_group("request")
    asked.add_argument("-H", dest="headers", metavar="'NAME: VALUE'", action="append", default=[], help="a header line")
    asked.add_argument("--from", dest="source", metavar="WHO", help="SPIFFE id of the caller, or its NS/WORKLOAD")
    asked.add_argument("--to", metavar="NS/WORKLOAD", help="who is called; without it every policy is looked at")
    asked.add_argument("--labels", metavar="K=V,...", help="labels of --to, which then need not be among the objects")
    asked.add_argument("--source-ip", metavar="IP", help="peer of the connection")
    asked.add_argument("--remote-ip", metavar="IP", help="client behind the proxies")
    asked.add_argument("--destination-ip", metavar="IP")
    asked.add_argument("--port", type=int, metavar="N", help="the workload's port (default: that of the URL)")
    asked.add_argument("--sni", metavar="NAME")
    asked.add_argument("--claims", metavar="JSON", help="payload of a token that was accepted")
    asked.add_argument("--tcp", action="store_true", help="the port is not read as HTTP")
    mesh = parser.add_argument_group("mesh", "default: the mesh configuration among the objects, else Istio's own")
    mesh.add_argument("--root-namespace", metavar="NS")
    mesh.add_argument("--trust-domain", metavar="NAME")
    mesh.add_argument("--trust-domain-alias", metavar="NAME", action="append")
    mesh.add_argument("--path-normalization", choices=PATH_NORMALIZATIONS)
    mesh.add_argument("--trusted-proxies", type=int, metavar="N")
    mesh.add_argument(
        "--jwks", nargs=2, metavar=("ISSUER", "FILE"), action="append", default=[], help="keys of an issuer"
    )
    mesh.add_argument("--trust-tokens", action="store_true", help="take signatures for good where keys are missing")
    mesh.add_argument("--lenient", action="store_true", help="read what Istio refuses as if it had got in")
    parser.add_argument("request", metavar="REQUEST", nargs="*", help="METHOD URL, as one word or two")


def run(options: argparse.Namespace) -> int:
    words = take_trailing_words(options, ("config",), "request")
    if sum(map(bool, (words, options.requests, options.matrix))) != 1:
        raise UsageError("which request? write it last, such as 'GET http://host/path', or give --requests or --matrix")
    authorizer = _authorizer(options)
    if options.matrix:
        _print_matrix(authorizer, options.json)
        return 0
    if options.requests:
        for request, workload in _requests(options.requests):
            decision = authorizer.decide(request, workload or _workload(options), tcp=options.tcp)
            print(json.dumps(decision.to_dict()))
        return 0
    request = _request(words, options, authorizer)
    explanation = authorizer.explain(request, _workload(options), tcp=options.tcp)
    if options.json:
        print(json.dumps((explanation if options.explain else explanation.decision).to_dict(), indent=1))
    else:
        print(printable(str(explanation if options.explain else explanation.decision), keep_newlines=True))
    return 0


# Cells of the matrix's table.
_STATES = {"allowed": "yes", "denied": "-", "conditional": "if", "unknown": "?"}


def _print_matrix(authorizer: Authorizer, as_json: bool) -> None:
    from meshsieve.authz.matrix import METHODS, matrix

    cells = list(matrix(authorizer))
    if as_json:
        print(json.dumps([cell.to_dict() for cell in cells], indent=1))
        return
    rows: dict[tuple[str, str], list[Any]] = {}
    for cell in cells:
        rows.setdefault((cell.source, cell.destination), []).append(cell)
    lines = [["FROM", "TO", *METHODS, "DEPENDS ON"]]
    for (source, destination), found in rows.items():
        depends = dict.fromkeys(name for cell in found for name in cell.depends_on)
        states = [_STATES[cell.state] + ("" if cell.exact else "~") for cell in found]
        lines.append([source, destination, *states, ", ".join(depends)])
    widths = [max(len(printable(line[i])) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(printable(text).ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _authorizer(options: argparse.Namespace) -> Authorizer:
    sources = [read_source(path) for path in find_files(options.config)]
    authorizer = from_kubernetes(
        sources,
        root_namespace=options.root_namespace,
        trust_domain=options.trust_domain,
        trust_domain_aliases=options.trust_domain_alias,
        path_normalization=options.path_normalization,
        trusted_proxies=options.trusted_proxies,
        jwt_keys={issuer: read_source(file).text for issuer, file in options.jwks},
        trust_tokens=options.trust_tokens,
        strict=not options.lenient,
    )
    for finding in authorizer.diagnostics:
        print(printable(str(finding)), file=sys.stderr)
    return authorizer


def _workload(options: argparse.Namespace) -> Any:
    if options.labels is None:
        return options.to
    namespace, _, name = (options.to or "").partition("/")
    if not namespace:
        raise UsageError("--labels are those of --to NS/WORKLOAD")
    return {"namespace": namespace, "name": name, "labels": dict(_label(text) for text in options.labels.split(","))}


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--labels: '{text}' is not KEY=VALUE")
    return key, value


def _request(words: str, options: argparse.Namespace, authorizer: Authorizer) -> Request:
    request = parse_request(words, options.headers)
    principal, source_ip = None, options.source_ip
    if options.source is not None:
        principal, address = authorizer.caller(options.source)
        source_ip = source_ip or address
    return replace(
        request,
        source_ip=source_ip,
        remote_ip=options.remote_ip,
        destination_ip=options.destination_ip,
        destination_port=options.port or _url_port(request),
        principal=principal,
        sni=options.sni,
        claims=_claims(options.claims),
    )


def _url_port(request: Request) -> int | None:
    _, colon, port = request.authority.rpartition(":")
    return int(port) if colon and port.isascii() and port.isdigit() and len(port) < 6 else None


def _claims(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        claims = json.loads(text)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise UsageError("--claims is not a JSON object")  # the text stays unsaid: it may be a secret
    return claims


def _requests(name: str) -> Iterator[tuple[Request, Any]]:
    with sys.stdin if name == "-" else open(name, encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                workload = values.pop("workload", None)
                yield Request.from_dict(values), workload
            except (ValueError, TypeError, AttributeError, MeshsieveError) as error:
                raise UsageError(f"{name}:{number}: not a request: {_without_values(error)}") from None


def _without_values(error: Exception) -> str:
    """A JSON error quotes nothing; others may name fields. Neither shows a header or claim."""
    return str(error).split("\n", 1)[0]
