"""The linear reference: which route of a table takes a request, by the written semantics and nothing else.

Order   The virtual host is chosen once, without going back: exact domain, longest suffix wildcard, longest prefix
        wildcard, ``*``. Within it the first route whose match holds wins; nothing is sorted.
Why     Plain on purpose: compiled tables are compared with it, and it with the real Envoy (docs/routes.md).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshsieve.routes.http_options import RequestView, encoded
from meshsieve.routes.model import (
    CookieMatch,
    FilterStateMatch,
    HeaderMatch,
    MetadataMatch,
    OnMatch,
    PathMatch,
    Predicate,
    QueryMatch,
    Route,
    RouteConfiguration,
    RouteMatch,
    RuntimeFraction,
    Tree,
    ValueMatch,
    VirtualHost,
)

_INT64 = re.compile(rb"[-+]?[0-9]+\Z")


def choose_virtual_host(config: RouteConfiguration, seen: RequestView) -> VirtualHost | None:
    hosts = config.virtual_hosts
    if len(hosts) == 1 and hosts[0].domains == (b"*",):
        return hosts[0]
    # Measured: an empty vhost_header is a name that only * takes, an empty authority is none.
    text = next(iter(seen.lines(config.vhost_header)), None) if config.vhost_header else seen.authority or None
    if text is None:
        return None
    if config.ignore_port:
        name, colon, port = text.rpartition(b":")
        text = name if colon and b"]" not in port else text
    text = text.lower()
    by_domain = {domain: host for host in hosts for domain in host.domains}
    if text in by_domain and not (text.startswith(b"*") or text.endswith(b"*")):
        return by_domain[text]
    suffixes = [d for d in by_domain if d.startswith(b"*") and d != b"*"]
    prefixes = [d for d in by_domain if d.endswith(b"*") and not d.startswith(b"*")]
    fits = [d for d in suffixes if text.endswith(d[1:]) and len(text) > len(d) - 1]
    fits = fits or [d for d in prefixes if text.startswith(d[:-1]) and len(text) > len(d) - 1]
    return by_domain[max(fits, key=len)] if fits else by_domain.get(b"*")


def choose_route(config: RouteConfiguration, host: VirtualHost, seen: RequestView) -> Route | None:
    if host.tree is not None:
        return _tree_route(config, host.tree, seen)
    return next((route for route in host.routes if route_holds(config, route.match, seen)), None)


def route_holds(config: RouteConfiguration, match: RouteMatch, seen: RequestView) -> bool:
    return (
        (match.runtime is None or runtime_holds(match.runtime, seen))
        and (not match.grpc or seen.is_grpc)
        and all(header_holds(h, seen) for h in match.headers)
        and queries_hold(match.queries, seen)
        and all(cookie_holds(c, seen) for c in match.cookies)
        and tls_holds(match.tls, seen)
        and all(metadata_holds(m, seen) for m in match.metadata)
        and all(filter_state_holds(m, seen) for m in match.filter_state)
        and path_holds(match.path, seen, config.ignore_path_parameters)
    )


def path_holds(match: PathMatch, seen: RequestView, ignore_parameters: bool) -> bool:
    if match.kind == "connect":
        return seen.method == b"CONNECT"
    path = seen.path
    if not path or (seen.method == b"CONNECT" and not path.startswith(b"/")):
        return False
    if match.template is not None:
        return match.template.match(path) is not None
    if ignore_parameters:
        path = re.sub(rb";[^/]*", b"", path)
    if match.regex is not None:
        return match.regex.full_match(path)
    value = match.value
    if not match.case_sensitive:
        path, value = path.lower(), value.lower()
    if match.kind == "path":
        return path == value
    if match.kind == "path_separated_prefix":
        return path == value or path.startswith(value + b"/")
    return path.startswith(value)


def header_holds(match: HeaderMatch, seen: RequestView) -> bool:
    lines = seen.lines(match.name)
    if not lines and match.missing_as_empty:
        lines = [b""]
    if match.kind == "present":
        return (bool(lines) == match.present) != match.invert
    if not lines:
        return False
    return any(_line_holds(match, line) for line in lines) != match.invert


def _line_holds(match: HeaderMatch, line: bytes) -> bool:
    if match.string is not None:
        return match.string.holds(line)
    number = _int64(line)
    return number is not None and match.start <= number < match.end


def _int64(text: bytes) -> int | None:
    if not _INT64.match(text) or len(text) > 64:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def queries_hold(matches: Sequence[QueryMatch], seen: RequestView) -> bool:
    if not matches:
        return True
    parameters: dict[bytes, bytes] = {}
    for part in (seen.query or b"").split(b"&") if seen.query is not None else []:
        key, _, value = part.partition(b"=")
        parameters.setdefault(key, value)
    for match in matches:
        found = parameters.get(match.name)
        if match.string is not None:
            if found is None or not match.string.holds(found):
                return False
        elif (found is not None) != match.present:
            return False
    return True


def cookie_holds(match: CookieMatch, seen: RequestView) -> bool:
    value = cookie(seen, match.name)
    return (value is not None and match.string.holds(value)) != match.invert


def cookie(seen: RequestView, name: bytes) -> bytes | None:
    """The first cookie of the name over all lines, without surrounding double quotes."""
    for line in seen.lines(b"cookie"):
        for part in line.split(b";"):
            key, equals, value = part.strip(b" \t").partition(b"=")
            if equals and key == name:
                quoted = len(value) >= 2 and value.startswith(b'"') and value.endswith(b'"')
                return value[1:-1] if quoted else value
    return None


def tls_holds(wanted: Sequence[tuple[str, bool]], seen: RequestView) -> bool:
    state = seen.request.tls or {}
    return all(bool(state.get(name)) == value for name, value in wanted)


def runtime_holds(fraction: RuntimeFraction, seen: RequestView) -> bool:
    numerator, denominator = fraction.numerator, fraction.denominator
    override = seen.request.runtime.get(fraction.key) if fraction.key else None
    if override is not None:
        numerator, denominator = int(override), 100
    return (seen.request.random_value or 0) % denominator < numerator


def metadata_holds(match: MetadataMatch, seen: RequestView) -> bool:
    value: Any = seen.request.dynamic_metadata.get(match.filter)
    for key in match.path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value_holds(match.value, value) != match.invert


def value_holds(match: ValueMatch, value: Any) -> bool:
    """A ValueMatcher; None stands for a missing value. A missing value matches nothing, not even null."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match match.kind:
        case "present":
            return (value is not None) is bool(match.value)
        case "string":
            assert match.string is not None
            return isinstance(value, str) and match.string.holds(encoded(value))
        case "bool":
            return isinstance(value, bool) and value is bool(match.value)
        case "exact":
            return number and bool(float(value) == match.value)
        case "range":
            return number and match.value[0] <= float(value) < match.value[1]
        case "list":
            return isinstance(value, list | tuple) and any(value_holds(match.members[0], item) for item in value)
        case "or":
            return any(value_holds(member, value) for member in match.members)
    return False


def filter_state_holds(match: FilterStateMatch, seen: RequestView) -> bool:
    value = seen.request.filter_state.get(match.key)
    if value is None:
        return False
    if match.string is not None:
        return match.string.holds(encoded(str(value)))
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError:
        return False
    inside = any(v == address.version and lo <= int(address) <= hi for v, lo, hi in match.ranges)
    return inside != match.invert_ranges


# --- match trees


def _tree_route(config: RouteConfiguration, tree: Tree, seen: RequestView) -> Route | None:
    """The route of the first action that the tree reaches. Its own match is tested too; if that fails there is no
    further search."""
    routes = tree_routes(tree, seen)
    return next((r for r in routes or () if route_holds(config, r.match, seen)), None)


def tree_routes(tree: Tree, seen: RequestView) -> tuple[Route, ...] | None:
    """The routes that the tree leads to, None where it leads nowhere."""
    for hit in _hits(tree, seen):
        found = _follow(hit, seen)
        if found is not None and not hit.keep:
            return found
    return _follow(tree.no_match, seen) if tree.no_match is not None else None


def _follow(on_match: OnMatch, seen: RequestView) -> tuple[Route, ...] | None:
    return on_match.routes if on_match.nested is None else tree_routes(on_match.nested, seen)


def _hits(tree: Tree, seen: RequestView) -> Iterable[OnMatch]:
    if tree.kind == "list":
        return (on_match for predicate, on_match in tree.entries if _predicate_holds(predicate, seen))
    text = _input(tree.input, seen)
    if text is None:
        return ()
    if tree.kind == "exact":
        return (tree.table[text],) if text in tree.table else ()
    return (tree.table[key] for key in sorted(tree.table, key=len, reverse=True) if text.startswith(key))


def _input(name: bytes, seen: RequestView) -> bytes | None:
    """Several lines of a header are joined with a comma here, other than in header matchers."""
    lines = seen.lines(name)
    return b",".join(lines) if lines else None


def _predicate_holds(predicate: Predicate, seen: RequestView) -> bool:
    match predicate.kind:
        case "single":
            text = _input(predicate.input, seen)
            assert predicate.string is not None
            return text is not None and predicate.string.holds(text)
        case "and":
            return all(_predicate_holds(p, seen) for p in predicate.members)
        case "or":
            return any(_predicate_holds(p, seen) for p in predicate.members)
    return not _predicate_holds(predicate.members[0], seen)
