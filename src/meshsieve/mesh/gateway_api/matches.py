"""Matches of HTTPRoute and GRPCRoute as matches of the route model, and their precedence.

Precedence is total: host name, kind and length of the path, method, number of headers and query parameters, age of the
route, its name, position. So one sort makes "first match wins" right. GRPCRoutes rank by the characters of service and
method instead of the path.
Source: Gateway API, HTTPRouteRule.matches and GRPCRouteRule.matches.
"""

from __future__ import annotations

import re
from typing import Any

from meshsieve._core import Regex
from meshsieve.errors import ModelError
from meshsieve.mesh.gateway_api.model import Dialect, GrpcMatch, HttpMatch, Route, ValueMatch
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatch

Rank = tuple[Any, ...]


def route_match(match: HttpMatch | GrpcMatch) -> RouteMatch:
    """raises  ModelError for a regular expression that RE2 does not take"""
    headers = tuple(_header(h) for h in match.headers)
    if isinstance(match, GrpcMatch):
        return RouteMatch(_grpc_path(match), headers)
    if match.method is not None:
        headers = (HeaderMatch(b":method", "string", string=StringMatch("exact", encoded(match.method))), *headers)
    queries = tuple(QueryMatch(encoded(q.name), _string(q)) for q in match.queries)
    return RouteMatch(_path(match), headers, queries)


def match_problem(match: HttpMatch | GrpcMatch) -> str | None:
    try:
        route_match(match)
    except ModelError as error:
        return str(error)
    return None


def _string(value: ValueMatch) -> StringMatch:
    text = encoded(value.value)
    if value.type == "Exact":
        return StringMatch("exact", text)
    return StringMatch("regex", text, Regex(text))


def _header(value: ValueMatch) -> HeaderMatch:
    return HeaderMatch(encoded(value.name).lower(), "string", string=_string(value))


def _path(match: HttpMatch) -> PathMatch:
    value = encoded(match.path)
    match match.path_type:
        case "Exact":
            return PathMatch("path", value)
        case "RegularExpression":
            return PathMatch("regex", value, Regex(value))
    elements = value.rstrip(b"/")
    return PathMatch("path_separated_prefix", elements) if elements else PathMatch("prefix", b"/")


def _grpc_path(match: GrpcMatch) -> PathMatch:
    """On the wire a call is a POST to ``/service/method``."""
    service, method = encoded(match.service), encoded(match.method)
    if match.type == "Exact":
        if service and method:
            return PathMatch("path", b"/" + service + b"/" + method)
        if service:
            return PathMatch("prefix", b"/" + service + b"/")
        if not method:
            return PathMatch("prefix", b"/")
        method = _quoted(method)
    pattern = b"/(?:" + (service or b"[^/]+") + b")/(?:" + (method or b"[^/]+") + b")"
    return PathMatch("regex", pattern, Regex(pattern))


def _quoted(text: bytes) -> bytes:
    return re.sub(rb"([^0-9A-Za-z_])", rb"\\\1", text)


# --- precedence


def hostname_rank(hostname: str) -> Rank:
    """Exact names first, the longest; then wildcards, the longest; then "" for every name."""
    return (not hostname, hostname.startswith("*"), -len(hostname))


def match_rank(match: HttpMatch | GrpcMatch, dialect: Dialect, *, together: bool) -> Rank:
    """Smaller wins. ``together``: HTTP and GRPC matches are ranked against each other, by paths."""
    if isinstance(match, GrpcMatch):
        if not together:
            return (-len(match.service), -len(match.method), -len(match.headers))
        kind, length = _path_rank(_grpc_path(match))
        return (dialect.path_order.index(kind), -length, 1, -len(match.headers), 0)
    return (
        dialect.path_order.index(match.path_type),
        -len(match.path),
        match.method is None,
        -len(match.headers),
        -len(match.queries),
    )


def _path_rank(path: PathMatch) -> tuple[str, int]:
    kind = {"path": "Exact", "regex": "RegularExpression"}.get(path.kind, "PathPrefix")
    return kind, len(path.value)


def position_rank(route: Route, rule: int, match: int) -> Rank:
    return (*route.age, rule, match)
