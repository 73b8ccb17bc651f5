"""Envoy's router check tool: route configurations with goldens, read as that tool reads them.

The input is a header map (no HTTP codec); ``ssl`` sets the scheme, ``internal`` a header, the client is 127.0.0.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from meshsieve.errors import MeshsieveError
from meshsieve.request import Request
from meshsieve.routes import HttpOptions, Match, Router, from_envoy
from meshsieve.routes.http_options import RequestView, encoded, view
from meshsieve.routes.model import Route, VirtualHost
from meshsieve.routes.outcome import apply_edits
from meshsieve.routes.proto import document
from meshsieve.routes.read_match import header_match
from meshsieve.routes.reference import header_holds
from tests.conformance.report import Report

OPTIONS = HttpOptions(codec=False)


def run(folder: Path, report: Report) -> None:
    for golden in sorted(folder.glob("*.golden.json")):
        config = folder / golden.name.replace(".golden.json", ".yaml")
        try:
            router = from_envoy(config.read_text(), OPTIONS, file=config.name)
        except (MeshsieveError, OSError) as error:
            report.wrong(config.name, str(error))
            continue
        for test in yaml.safe_load(golden.read_text())["tests"]:
            if "excluded" not in test:
                _check(router, test, f"{config.name} {test['test_name']}", report)


def _request(given: dict[str, Any]) -> Request:
    headers = [(h["key"], h["value"]) for h in given.get("additional_request_headers", ())]
    if given.get("internal"):
        headers.append(("x-envoy-internal", "true"))
    metadata: dict[str, Any] = {}
    for entry in given.get("dynamic_metadata", ()):
        space = entry["metadata_namespace"]
        if space not in metadata:
            metadata[space] = entry["value"]
        elif entry.get("allow_overwrite"):
            metadata[space] = {**metadata[space], **entry["value"]}
    runtime = {given["runtime"]: None} if "runtime" in given else {}
    return Request(
        method=given.get("method", "GET"),
        scheme="https" if given.get("ssl") else "http",
        authority=given["authority"],
        path=given["path"],
        headers=tuple(headers),
        source_ip="127.0.0.1",
        random_value=int(given.get("random_value", 0)),
        runtime=runtime,
        dynamic_metadata=metadata,
    )


def _check(router: Router, test: dict[str, Any], where: str, report: Report) -> None:
    request = _request(test["input"])
    found = router.match(request)
    forwarded = found.action == "route"
    answers = {
        "cluster_name": found.cluster or "" if forwarded else "",
        "virtual_cluster_name": found.virtual_cluster if forwarded else "",
        "virtual_host_name": found.virtual_host or "" if forwarded else "",
        "path_rewrite": found.path or "" if forwarded else "",
        "host_rewrite": found.authority or "" if forwarded else "",
        "path_redirect": _redirect(found, request),
        "code_redirect": found.status or 0,
    }
    for key, expected in test["validate"].items():
        if key in answers:
            report.check(where, key, answers[key], expected)
        elif key in ("request_header_matches", "response_header_matches"):
            _check_headers(router, request, found, key, expected, where, report)
        else:
            report.skipped(where, f"no reading of {key} is known")


def _redirect(found: Match, request: Request) -> str:
    if found.action == "direct_response":
        return f"{request.scheme}://{request.authority}{request.path}"
    return found.location or ""


def _check_headers(
    router: Router, request: Request, found: Match, key: str, expected: list[Any], where: str, report: Report
) -> None:
    host, route = _found(router, found)
    seen = view(request, OPTIONS)
    assert isinstance(seen, RequestView)
    side = "edits"
    if key == "response_header_matches":
        side = "response_edits"
        body = getattr(route.action, "body", b"")
        seen.headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")] if body else []
    levels = [getattr(level, side) for level in (route, host, router.config)]
    edited = apply_edits(seen, levels)
    if side == "edits" and found.authority is not None:
        edited.authority = encoded(found.authority)
    joined: dict[bytes, bytes] = {}
    for name, value in edited.headers:
        joined[name] = joined[name] + b"," + value if name in joined else value
    edited.headers = list(joined.items())
    for matcher in expected:
        report.check(where, f"{key} {matcher}", header_holds(header_match(document(matcher, where)), edited), True)


def _found(router: Router, found: Match) -> tuple[VirtualHost, Route]:
    host = next(h for h in router.config.virtual_hosts if h.name == found.virtual_host)
    return host, router.routes[found.route_index]
