"""Routes of a table that no request reaches, and routes that repeat an earlier match.

What    In one virtual host, in order, a route is compared with the routes before it:
        - the same match and the same action: "route-duplicate"
        - the same match and another action: "route-conflict" (the later one never acts)
        - a match that an earlier, wider one covers: "route-unreachable"
How     An earlier match covers a later one if its path covers the later path and each of its other conditions is one
        that the later route has too, or is implied by one. So every finding is true; that several earlier routes only
        together cover a route is not found.
Cost    Earlier routes are found by their paths: exact values in a table, prefixes by the lengths of the later path, so
        that the work is linear in the text; at one path at most MAX_AT_ONE_PATH routes are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from meshsieve.model import Source
from meshsieve.policy import Diagnostic
from meshsieve.routes.describe import action_text, match_text
from meshsieve.routes.model import (
    CookieMatch,
    HeaderMatch,
    PathMatch,
    QueryMatch,
    Route,
    RouteConfiguration,
    RouteMatch,
    StringMatch,
    VirtualHost,
)

T = TypeVar("T")
MAX_AT_ONE_PATH = 256
MAX_REGEXES = 256
CATCH_ALL_REGEXES = (b".*", b"/.*", b".+", b"/.*$", b"^/.*", b"^.*$", b"^/.*$")
CODES = {"duplicate": "route-duplicate", "conflict": "route-conflict", "unreachable": "route-unreachable"}


@dataclass(frozen=True, slots=True)
class RouteFinding:
    """``first`` takes what ``route`` would."""

    kind: str
    host: VirtualHost
    route: Route
    first: Route


def lint_tables(tables: Iterable[tuple[str, RouteConfiguration]]) -> list[Diagnostic]:
    """Findings of all tables. A route that several virtual hosts share is found only if it is dead in all of them."""
    places: dict[tuple[str, Source], list[tuple[str, RouteFinding | None]]] = {}
    for table, config in tables:
        for host in config.virtual_hosts:
            dead = {id(f.route): f for f in findings(host)}
            for route in host.routes:
                places.setdefault((route.name, route.source), []).append((table, dead.get(id(route))))
    out = []
    for found in places.values():
        if all(finding is not None for _, finding in found):
            table, finding = found[0]
            assert finding is not None
            out.append(_diagnostic(table, finding))
    return out


def _diagnostic(table: str, finding: RouteFinding) -> Diagnostic:
    first, route = finding.first, finding.route
    shown = f"{first.name or 'a route without a name'} ({first.source.place})" if first.source.file else first.name
    what = {
        "duplicate": f"repeats {shown}",
        "conflict": f"has the match of {shown}, which goes first: {action_text(first.action)} and never "
        f"{action_text(route.action)}",
        "unreachable": f"is never reached: {shown} takes all of its requests before ({match_text(first.match)})",
    }[finding.kind]
    obj = f"{table}, {finding.host.name}: {route.name or route.source.obj or 'a route'}"
    where = str(Source(route.source.file, route.source.line)) if route.source.file else ""
    return Diagnostic(CODES[finding.kind], f"{match_text(route.match)} {what}", where, obj)


def findings(host: VirtualHost) -> list[RouteFinding]:
    """Dead routes of one virtual host, in order; those of a match tree are not compared."""
    return list(_Findings(host).run())


class _Findings:
    def __init__(self, host: VirtualHost) -> None:
        self.host = host
        self._same: dict[Hashable, Route] = {}
        # Earlier routes by what their path says; case-insensitive ones under their folded value.
        self._prefixes: dict[tuple[bool, bytes], list[Route]] = {}
        self._exact: dict[tuple[bool, bytes], list[Route]] = {}
        self._segments: dict[tuple[bool, bytes], list[Route]] = {}
        self._patterns: list[Route] = []

    def run(self) -> Iterator[RouteFinding]:
        for route in self.host.routes:
            key = match_key(route.match)
            first = self._same.get(key)
            if first is not None:
                same = first.action == route.action and first.edits == route.edits
                yield RouteFinding("duplicate" if same else "conflict", self.host, route, first)
                continue
            cover = next(
                (e for e in self._with_wider_path(route.match) if conditions_cover(e.match, route.match)), None
            )
            if cover is not None:
                yield RouteFinding("unreachable", self.host, route, cover)
            self._same[key] = route
            self._add(route)

    def _add(self, route: Route) -> None:
        path = route.match.path
        if path.kind == "connect" or path.template is not None:
            return
        if path.regex is not None:
            if len(self._patterns) < MAX_REGEXES:
                self._patterns.append(route)
            return
        table = {"prefix": self._prefixes, "path": self._exact}.get(path.kind, self._segments)
        key = (path.case_sensitive, path.value if path.case_sensitive else path.value.lower())
        here = table.setdefault(key, [])
        if len(here) < MAX_AT_ONE_PATH:
            here.append(route)

    def _with_wider_path(self, match: RouteMatch) -> Iterator[Route]:
        """Earlier routes whose path takes every path of ``match``."""
        path = match.path
        if path.kind == "connect":
            return
        for route in self._patterns:
            regex = route.match.path.regex
            assert regex is not None
            one_path = path.kind == "path" and _all_cases(path)
            if regex.pattern in CATCH_ALL_REGEXES or (one_path and regex.full_match(path.value)):
                yield route
        if path.regex is not None or path.template is not None:
            for sensitive, prefix in itertools.product((True, False), (b"", b"/")):
                yield from self._prefixes.get((sensitive, prefix), ())
            return
        for sensitive in (True, False):
            if sensitive and not _all_cases(path):
                # What ignores case takes more than any prefix that has letters.
                for prefix in (b"", b"/"):
                    yield from self._prefixes.get((True, prefix), ()) if path.value.startswith(prefix) else ()
                continue
            value = path.value if sensitive else path.value.lower()
            yield from self._wider(sensitive, value, path.kind)

    def _wider(self, sensitive: bool, value: bytes, kind: str) -> Iterator[Route]:
        for length in range(len(value) + 1):
            yield from self._prefixes.get((sensitive, value[:length]), ())
            ends = length == len(value) and kind != "prefix"
            if ends or value[length : length + 1] == b"/":
                yield from self._segments.get((sensitive, value[:length]), ())
        if kind == "path":
            yield from self._exact.get((sensitive, value), ())


def _all_cases(path: PathMatch) -> bool:
    """Whether a case-sensitive comparison sees everything that the path matches."""
    return path.case_sensitive or path.value.lower() == path.value.upper()


# --- conditions besides the path


def conditions_cover(wider: RouteMatch, match: RouteMatch) -> bool:
    """Whether whatever fulfils the conditions of ``match`` besides its path fulfils those of ``wider``."""
    runtime = wider.runtime
    if runtime is not None and runtime != match.runtime and (runtime.key or runtime.numerator < runtime.denominator):
        return False
    return (
        (not wider.grpc or match.grpc)
        and _among(wider.headers, match.headers, header_key, _header_implied)
        and _among(wider.queries, match.queries, query_key, _query_implied)
        and {cookie_key(c) for c in wider.cookies} <= {cookie_key(c) for c in match.cookies}
        and set(wider.tls) <= set(match.tls)
        and {repr(m) for m in wider.metadata} <= {repr(m) for m in match.metadata}
        and {repr(f) for f in wider.filter_state} <= {repr(f) for f in match.filter_state}
    )


def _among(
    wider: Sequence[T], given: Sequence[T], key: Callable[[T], Hashable], implied: Callable[[T, T], bool]
) -> bool:
    keys = {key(g) for g in given}
    return all(key(w) in keys or any(implied(w, g) for g in given) for w in wider)


def _header_implied(wider: HeaderMatch, given: HeaderMatch) -> bool:
    """A header with a value is present."""
    present = wider.kind == "present" and wider.present and not wider.invert
    return present and wider.name == given.name and given.kind != "present" and not given.missing_as_empty


def _query_implied(wider: QueryMatch, given: QueryMatch) -> bool:
    return wider.string is None and wider.present and wider.name == given.name and given.string is not None


def match_key(match: RouteMatch) -> Hashable:
    """Equal for matches that hold for the same requests by their text."""
    path = match.path
    return (
        path.kind, path.value, path.case_sensitive,
        frozenset(header_key(h) for h in match.headers), frozenset(query_key(q) for q in match.queries),
        frozenset(cookie_key(c) for c in match.cookies), match.grpc, frozenset(match.tls), match.runtime,
        frozenset(repr(m) for m in match.metadata), frozenset(repr(f) for f in match.filter_state),
    )  # fmt: skip


def _string_key(string: StringMatch | None) -> Hashable:
    return None if string is None else (string.kind, string.value, string.ignore_case)


def header_key(h: HeaderMatch) -> Hashable:
    return (h.name, h.kind, h.present, _string_key(h.string), h.start, h.end, h.invert, h.missing_as_empty)


def query_key(q: QueryMatch) -> Hashable:
    return (q.name, _string_key(q.string), q.present)


def cookie_key(c: CookieMatch) -> Hashable:
    return (c.name, _string_key(c.string), c.invert)
