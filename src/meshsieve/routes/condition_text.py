"""The conditions of a route in words, and which of them a request fails."""

from __future__ import annotations

from collections.abc import Iterator

from meshsieve.routes.http_options import RequestView
from meshsieve.routes.model import (
    CookieMatch,
    FilterStateMatch,
    HeaderMatch,
    MetadataMatch,
    PathMatch,
    QueryMatch,
    RouteConfiguration,
    RouteMatch,
    StringMatch,
)
from meshsieve.routes.reference import (
    cookie_holds,
    filter_state_holds,
    header_holds,
    metadata_holds,
    path_holds,
    queries_hold,
    runtime_holds,
    tls_holds,
)

SECRET = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"x-api-key"})  # values are not shown
_PATHS = {
    "prefix": "does not begin with",
    "path": "is not",
    "path_separated_prefix": "is not at or below",
    "regex": "does not match",
    "template": "does not fit",
}
_STRINGS = {"exact": "is", "prefix": "begins with", "suffix": "ends with", "contains": "contains", "regex": "matches"}


def failures(config: RouteConfiguration, match: RouteMatch, seen: RequestView) -> tuple[str, ...]:
    """Why the request does not match, one text a condition that fails; the path comes first. Empty: it matches."""
    return tuple(_failures(config, match, seen))


def _failures(config: RouteConfiguration, match: RouteMatch, seen: RequestView) -> Iterator[str]:
    if not path_holds(match.path, seen, config.ignore_path_parameters):
        yield _path(match.path, seen)
    for header in match.headers:
        if not header_holds(header, seen):
            yield _header(header, seen)
    for query in match.queries:
        if not queries_hold([query], seen):
            yield f"query parameter {_text(query.name)} is not as wanted ({_query(query)})"
    for cookie in match.cookies:
        if not cookie_holds(cookie, seen):
            yield f"cookie {_text(cookie.name)} is not as wanted ({_cookie(cookie)})"
    if match.grpc and not seen.is_grpc:
        yield "the request is not gRPC (content-type)"
    for name, wanted in match.tls:
        if not tls_holds([(name, wanted)], seen):
            yield f"a client certificate is {'not ' if wanted else ''}{name}"
    if match.runtime is not None and not runtime_holds(match.runtime, seen):
        share = f"{match.runtime.numerator} of {match.runtime.denominator}"
        yield f"the random number {seen.request.random_value or 0} is not in the fraction {share}"
    for metadata in match.metadata:
        if not metadata_holds(metadata, seen):
            yield f"metadata {_metadata(metadata)} is not as wanted"
    for state in match.filter_state:
        if not filter_state_holds(state, seen):
            yield f"filter state {_state(state)} is not as wanted"


def _path(match: PathMatch, seen: RequestView) -> str:
    if match.kind == "connect":
        return f"method {_text(seen.method)} is not CONNECT"
    path = seen.path
    if not path or (seen.method == b"CONNECT" and not path.startswith(b"/")):
        return "the request has no path"
    case = "" if match.case_sensitive else " in any case"
    return f"path {_text(path)} {_PATHS[match.kind]} {_text(match.value)}{case}"


def _header(match: HeaderMatch, seen: RequestView) -> str:
    name = _text(match.name)
    lines = seen.lines(match.name)
    wanted = "not " if match.invert else ""
    if match.kind == "present":
        return f"header {name} is {'present' if lines else 'absent'}"
    if not lines and not match.missing_as_empty:
        return f"header {name} is absent"
    shown = "(not shown)" if match.name in SECRET else ", ".join(repr(_text(line)) for line in lines or [b""])
    if match.string is not None:
        return f"header {name} is {shown}, wanted: {wanted}{_string(match.string)}"
    return f"header {name} is {shown}, wanted: {wanted}a number from {match.start} to below {match.end}"


def _string(match: StringMatch) -> str:
    return f"{_STRINGS[match.kind]} {_text(match.value)!r}{' in any case' if match.ignore_case else ''}"


def _query(match: QueryMatch) -> str:
    if match.string is None:
        return "present" if match.present else "absent"
    return _string(match.string)


def _cookie(match: CookieMatch) -> str:
    return f"{'not ' if match.invert else ''}{_string(match.string)}"


def _metadata(match: MetadataMatch) -> str:
    return ".".join((match.filter, *match.path))


def _state(match: FilterStateMatch) -> str:
    return match.key


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
