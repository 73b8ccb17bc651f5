"""Requests made of everything that a route table compares a request with: for each route one that has all that it asks
for, neighbours of it that lack one thing, and one that fits nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

from meshsieve.request import Request
from meshsieve.routes.model import (
    HeaderMatch,
    PathMatch,
    Route,
    RouteConfiguration,
    StringMatch,
    VirtualHost,
    host_routes,
)

DOMAINS = 4  # of a virtual host that are tried
_LONGEST_PATTERN = 500  # bytes; longer ones are not simplified
# What a regular expression is likely to mean by its parts; the outcome is checked against the expression itself.
_SIMPLER = (
    (re.compile(rb"\\d[+*]?|\[0-9\][+*]?(\{\d+(,\d*)?\})?"), b"1"),
    (re.compile(rb"\\w[+*]?|\[[^\]]*\][+*]?(\{\d+(,\d*)?\})?|\.[+*]?"), b"x"),
    (re.compile(rb"\((?:\?:|\?P<\w+>)?([^()|]*)[^()]*\)[+*?]?"), rb"\1"),
    (re.compile(rb"[\^$]"), b""),
    (re.compile(rb"\\(.)"), rb"\1"),
)


def example_requests(*tables: RouteConfiguration) -> Iterator[Request]:
    """Each request once, in the order of the tables."""
    seen: set[tuple[object, ...]] = set()
    for table in tables:
        for host in table.virtual_hosts:
            for request in _of_host(host):
                key = (request.method, request.authority, request.path, request.headers)
                if key not in seen:
                    seen.add(key)
                    yield request


def _of_host(host: VirtualHost) -> Iterator[Request]:
    authorities = [_authority(domain) for domain in host.domains[:DOMAINS]]
    for authority in authorities:
        yield Request(authority=authority, path="/")
        for route in host_routes(host):
            yield from _of_route(route, authority)


def _of_route(route: Route, authority: str) -> Iterator[Request]:
    method, scheme = "GET", "http"
    headers: list[tuple[str, str]] = []
    for match in route.match.headers:
        value = _header_value(match)
        if match.name == b":method":
            method = value or method
        elif match.name == b":authority":
            authority = value or authority
        elif match.name == b":scheme":
            scheme = value or scheme
        elif value is not None and not match.name.startswith(b":"):
            headers.append((_text(match.name), value))
    if route.match.cookies:
        values = (f"{_text(c.name)}={_example(c.string)}" for c in route.match.cookies if not c.invert)
        headers.append(("cookie", "; ".join(values)))
    if route.match.grpc:
        headers.append(("content-type", "application/grpc"))
    query = "&".join(
        f"{_text(q.name)}={_example(q.string) if q.string is not None else ''}"
        for q in route.match.queries
        if q.present
    )
    for path in _paths(route.match.path):
        target = f"{path}?{query}" if query else path
        yield Request(method, scheme, authority, target, tuple(headers))
        if query:
            yield Request(method, scheme, authority, path, tuple(headers))
        for i in range(len(headers)):
            yield Request(method, scheme, authority, target, tuple(headers[:i] + headers[i + 1 :]))
        if method != "GET":
            yield Request("GET", scheme, authority, target, tuple(headers))


def _authority(domain: bytes) -> str:
    return _text(domain).replace("*", "any")


def _paths(path: PathMatch) -> list[str]:
    """Paths that the match takes, and neighbours that it may not take."""
    value = _text(path.value)
    match path.kind:
        case "prefix":
            return [value, f"{value}x"]
        case "path":
            return [value, f"{value}x"]
        case "path_separated_prefix":
            return [value, f"{value}/x", f"{value}x"]
        case "regex":
            return [found] if (found := _of_pattern(path.value or b"", path.regex)) is not None else []
        case "template":
            return [re.sub(r"\*+|\{[^}]*\}", "x", value)]
    return ["/"]


def _of_pattern(pattern: bytes, regex: object) -> str | None:
    """A text that the expression takes, if simplifying it comes to one."""
    if len(pattern) > _LONGEST_PATTERN:
        return None
    for simpler, by in _SIMPLER:
        pattern = simpler.sub(by, pattern)
    full_match = getattr(regex, "full_match", None)
    return _text(pattern) if full_match is not None and full_match(pattern) else None


def _header_value(match: HeaderMatch) -> str | None:
    """A value of the header for which the match holds; None: it holds without the header."""
    if match.kind == "present":
        return "x" if match.present != match.invert else None
    if match.invert:
        return None
    if match.kind == "range":
        return str(match.start)
    assert match.string is not None
    return _example(match.string)


def _example(string: StringMatch) -> str:
    if string.kind == "regex":
        return _of_pattern(string.value, string.regex) or "x"
    return _text(string.value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
