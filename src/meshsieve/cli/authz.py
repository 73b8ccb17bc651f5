"""Show whether a request may pass, which policy says so, and what would have to differ.

CONFIG holds the objects of a mesh: AuthorizationPolicy, PeerAuthentication, RequestAuthentication, with their pods,
services and mesh configuration if there are any; or it is the RBAC filter of an Envoy. The request is written as METHOD
URL, or many stand in a file, one JSON object a line (docs/authorization.md); a line may name its "workload".
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from meshsieve.authz import Authorizer, from_envoy, from_kubernetes
from meshsieve.authz.explain import Explanation
from meshsieve.authz.matrix import METHODS, Cell, matrix
from meshsieve.authz.settings import HTTP_OPTIONS, PATH_NORMALIZATIONS
from meshsieve.cli.options import take_trailing_words
from meshsieve.cli.request_files import add_requests, answer_all
from meshsieve.cli.stderr import warn
from meshsieve.errors import UsageError
from meshsieve.importers.sources import find_files, read_source
from meshsieve.policy import Diagnostic, SourceFile
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

_OBJECT = re.compile(r"\bapiVersion[\"']?\s*:")
_RBAC = re.compile(r"rbac\.v3\.RBAC|[\"']?permissions[\"']?\s*:")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", dest="config", metavar="CONFIG", nargs="+", action="extend", required=True, help="files or folders, -"
    )
    add_requests(parser)
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
    objects, filters = _sources(options.config)
    if not objects:
        return _ask_filters(filters, options, words)
    authorizer = _authorizer(objects, options)
    if options.matrix:
        _print_matrix(authorizer, options.json)
        return 0
    if options.requests:

        def answer(request: Request, extra: Mapping[str, Any]) -> dict[str, Any]:
            workload = extra.get("workload") or _workload(options)
            return authorizer.decide(request, workload, tcp=options.tcp).to_dict()

        return answer_all(options, answer, ("workload",))
    principal, address = authorizer.caller(options.source) if options.source is not None else (None, None)
    request = _request(words, options, principal, address)
    _print_explanation(authorizer.explain(request, _workload(options), tcp=options.tcp), options)
    return 0


def _ask_filters(filters: Sequence[SourceFile], options: argparse.Namespace, words: str) -> int:
    """Envoy's own filters: there is one proxy, so nobody is named."""
    if len(filters) != 1:
        raise UsageError("-p names neither objects of a mesh nor one file with an RBAC filter of Envoy")
    if options.matrix or options.to or options.labels:
        raise UsageError("--matrix, --to and --labels are for objects of a mesh; this is the filter of one proxy")
    http = HTTP_OPTIONS[options.path_normalization or "BASE"]
    authorizer = from_envoy(filters[0].text, http, file=filters[0].name, trusted_proxies=options.trusted_proxies or 0)
    _show(authorizer.diagnostics)
    if options.requests:
        return answer_all(options, lambda request, _: authorizer.decide(request).to_dict(), ("workload",))
    _print_explanation(authorizer.explain(_request(words, options, options.source, None)), options)
    return 0


def _sources(paths: Sequence[str]) -> tuple[list[SourceFile], list[SourceFile]]:
    """Files with objects of a cluster, and files with RBAC filters; others are named and left alone."""
    objects, filters = [], []
    for path in find_files(paths):
        source = read_source(path)
        if _OBJECT.search(source.text):
            objects.append(source)
        elif _RBAC.search(source.text):
            filters.append(source)
        else:
            warn(f"{source.name} holds no authorization policy: not looked at")
    if objects and filters:
        raise UsageError(
            f"{filters[0].name} is the filter of one proxy, the others are objects of a mesh: ask them apart"
        )
    return objects, filters


def _print_explanation(explanation: Explanation, options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps((explanation if options.explain else explanation.decision).to_dict(), indent=1))
    else:
        print(printable(str(explanation if options.explain else explanation.decision), keep_newlines=True))


# Cells of the matrix's table.
_STATES = {"allowed": "yes", "denied": "-", "conditional": "if", "unknown": "?"}


def _print_matrix(authorizer: Authorizer, as_json: bool) -> None:
    cells = list(matrix(authorizer))
    if as_json:
        print(json.dumps([cell.to_dict() for cell in cells], indent=1))
        return
    lines = [["FROM", "TO", *METHODS, "DEPENDS ON"]]
    denied = 0
    for (source, destination), found in _pairs(cells).items():
        if all(cell.state == "denied" for cell in found):
            denied += 1
            continue
        depends = dict.fromkeys(name for cell in found for name in cell.depends_on)
        states = [_STATES[cell.state] + ("" if cell.exact else "~") for cell in found]
        lines.append([source, destination, *states, ", ".join(depends)])
    widths = [max(len(printable(line[i])) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        print("  ".join(printable(text).ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    if denied:
        print(f"{denied} more pairs are denied with every method (--json shows all)")


def _pairs(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Cells by caller and callee; the workloads of a service are one row where they answer alike."""
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.source, cell.destination), []).append(cell)
    alike: dict[tuple[str, str], set[tuple[Any, ...]]] = {}
    for (source, destination), found in rows.items():
        answers = tuple((c.state, c.depends_on, c.exact) for c in found)
        alike.setdefault((source, destination.split(" (")[0]), set()).add(answers)
    out: dict[tuple[str, str], list[Cell]] = {}
    for (source, destination), found in rows.items():
        service = destination.split(" (")[0]
        out.setdefault((source, service if len(alike[source, service]) == 1 else destination), found)
    return out


def _authorizer(sources: Sequence[SourceFile], options: argparse.Namespace) -> Authorizer:
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
    _show(authorizer.diagnostics)
    return authorizer


def _show(findings: Sequence[Diagnostic]) -> None:
    for finding in findings:
        print(printable(str(finding)), file=sys.stderr)


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


def _request(words: str, options: argparse.Namespace, principal: str | None, address: str | None) -> Request:
    request = parse_request(words, options.headers)
    return replace(
        request,
        source_ip=options.source_ip or address,
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
