"""What becomes of a request that a route has taken: cluster, rewritten path and host, redirect location.

Order of work, as in Envoy: header edits, then the host rewrite (which sees headers that the route adds), then the path.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from meshsieve.routes import formats
from meshsieve.routes.http_options import RequestView
from meshsieve.routes.model import (
    DirectResponse,
    Forward,
    HeaderEdits,
    PathMatch,
    PathRewrite,
    Redirect,
    RegexRewrite,
    Route,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
)
from meshsieve.routes.reference import header_holds

DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """action: as in ``Match``; status: of an answer that Envoy gives itself; clusters: (name, share of the weight) that
    can be chosen; cluster: the one chosen, None where the choice needs a random number or a hash that the request does
    not give."""

    action: str
    status: int | None = None
    location: bytes | None = None
    cluster: str | None = None
    clusters: tuple[tuple[str, int], ...] = ()
    path: bytes | None = None
    authority: bytes | None = None
    virtual_cluster: str = ""


def outcome(config: RouteConfiguration, host: VirtualHost, route: Route, seen: RequestView) -> Outcome:
    action = route.action
    entry: WeightedCluster | None = None
    chosen: Chosen | None = None
    clusters: tuple[tuple[str, int], ...] = ()
    if isinstance(action, Forward):
        chosen, clusters = _clusters(action, seen)
        entry = chosen[1] if chosen is not None else None
    if entry is not None and entry.instead is not None:
        action = entry.instead
        chosen = (action.cluster or "", entry) if isinstance(action, Forward) else None
    if isinstance(action, Redirect):
        location = redirect_location(action, route.match.path, seen)
        return Outcome("redirect", action.status, location, clusters=clusters)
    if isinstance(action, DirectResponse):
        return Outcome("direct_response", action.status, clusters=clusters)
    if not isinstance(action, Forward):
        return Outcome(action.kind)
    cluster = chosen[0] if chosen is not None else None
    edited = apply_edits(seen, [e.edits for e in ([entry] if entry else [])] + _levels(config, host, route))
    authority = _rewritten_host(action, entry, edited, seen)
    path = rewritten_path(action.rewrite, route.match.path, edited, config.ignore_path_parameters)
    final = copy.copy(edited)
    final.authority, final.target = authority, path
    status = action.not_found_status if cluster == "" else None
    return Outcome("route", status, None, cluster or None, clusters, path, authority, _virtual_cluster(host, final))


def _levels(config: RouteConfiguration, host: VirtualHost, route: Route) -> list[HeaderEdits]:
    levels = [route.edits, host.edits, config.edits]
    return levels[::-1] if config.most_specific_edits_win else levels


def _virtual_cluster(host: VirtualHost, seen: RequestView) -> str:
    for name, headers in host.virtual_clusters:
        if all(header_holds(h, seen) for h in headers):
            return name
    return "other" if host.virtual_clusters else ""


# --- clusters


Chosen = tuple[str, WeightedCluster | None]


def _clusters(action: Forward, seen: RequestView) -> tuple[Chosen | None, tuple[tuple[str, int], ...]]:
    if action.cluster is not None:
        return (action.cluster, None), ((action.cluster, 1),)
    if action.cluster_header is not None:
        name = _header_cluster(action.cluster_header, seen)
        return (name, None), ((name, 1),)
    if action.plugin is not None:
        return None, ()
    named = tuple((w.name or _header_cluster(w.cluster_header, seen), w.weight) for w in action.weighted)
    number = _weight_number(action, seen)
    if number is None:
        return None, named
    point = number % sum(weight for _, weight in named)
    for (name, weight), entry in zip(named, action.weighted, strict=True):
        if point < weight:
            return (name, entry), named
        point -= weight
    raise AssertionError("a point below the sum of weights lies in some weight")


def _header_cluster(header: bytes, seen: RequestView) -> str:
    return next(iter(seen.lines(header)), b"").decode("utf-8", "surrogateescape")


def _weight_number(action: Forward, seen: RequestView) -> int | None:
    if action.weight_header is not None:
        text = next(iter(seen.lines(action.weight_header)), b"")
        if text.isdigit() and len(text) <= 20 and int(text) < 2**64:
            return int(text)
    if action.weight_by_hash and action.hash_policy:
        value: int | None = action.hash_policy[0].hash(seen.request).value
        if value is not None:
            return value
    return seen.request.random_value


# --- header edits


def apply_edits(seen: RequestView, levels: list[HeaderEdits]) -> RequestView:
    out = copy.copy(seen)
    out.headers = list(seen.headers)
    for edits in levels:
        for name in edits.remove:
            out.headers = [line for line in out.headers if line[0] != name]
        for edit in edits.add:
            value = formats.fill(edit.value, out, b"-")
            if not value and not edit.keep_empty:
                continue
            present = any(line[0] == edit.name for line in out.headers)
            if (edit.append == "ADD_IF_ABSENT" and present) or (edit.append == "OVERWRITE_IF_EXISTS" and not present):
                continue
            if edit.append.startswith("OVERWRITE"):
                out.headers = [line for line in out.headers if line[0] != edit.name]
            out.headers.append((edit.name, value))
    return out


# --- rewrites


def rewritten_path(rewrite: PathRewrite, match: PathMatch, seen: RequestView, ignore_parameters: bool = False) -> bytes:
    """The target with its path rewritten; the query stays."""
    path = seen.path
    rest = seen.target[len(path) :]
    if rewrite.prefix is not None:
        return (_prefix_rewritten(rewrite.prefix, match, path) if path else path) + rest
    if rewrite.regex is not None:
        return (_replaced(rewrite.regex, path) or path) + rest
    if rewrite.template is not None and match.template is not None:
        return rewrite.template.fill(match.template.match(path) or {}) + rest
    if rewrite.text is not None:
        return (formats.fill(rewrite.text, seen, b"") or path) + rest
    return seen.target


def _prefix_rewritten(prefix: bytes, match: PathMatch, path: bytes) -> bytes:
    if match.kind == "path" or match.kind == "regex":
        return prefix
    # The prefix may not stand literally in the raw path (parameters inside it): then nothing is rewritten.
    literal = path[: len(match.value)]
    same = literal == match.value if match.case_sensitive else literal.lower() == match.value.lower()
    return prefix + path[len(match.value) :] if same else path


def _replaced(rewrite: RegexRewrite, text: bytes) -> bytes:
    return rewrite.regex.replace_all(text, rewrite.substitution)


def _rewritten_host(
    action: Forward, entry: WeightedCluster | None, seen: RequestView, original: RequestView
) -> bytes | None:
    if entry is not None and entry.host_rewrite is not None:
        return entry.host_rewrite
    if action.host_literal:
        return action.host_literal
    if action.host_header is not None:
        return next(iter(seen.lines(action.host_header)), b"") or seen.authority
    if action.host_path_regex is not None:
        return _replaced(action.host_path_regex, original.path)
    if action.host_text is not None:
        return formats.fill(action.host_text, seen, b"-")
    return seen.authority


# --- redirects


def redirect_location(action: Redirect, match: PathMatch, seen: RequestView) -> bytes:
    scheme = seen.scheme
    new_scheme = b"https" if action.https else action.scheme.encode() if action.scheme else scheme
    host, port = _split_port(seen.authority or b"")
    if new_scheme != scheme and port == DEFAULT_PORTS.get(scheme):
        port = None
    if action.host is not None:
        host, port = action.host, None
    if action.port is not None:
        port = b"%d" % action.port if action.port else None
    authority = host if port is None else host + b":" + port
    return new_scheme + b"://" + authority + _redirect_target(action, match, seen)


def _redirect_target(action: Redirect, match: PathMatch, seen: RequestView) -> bytes:
    query = b"" if action.strip_query or seen.query is None else b"?" + seen.query
    if action.path is not None:
        path = action.path if action.path.startswith(b"/") else b"/" + action.path
        return path if b"?" in path else path + query
    rewritten = rewritten_path(action.rewrite, match, seen)
    path = rewritten.split(b"?", 1)[0]
    return (path if path.startswith(b"/") else b"/" + path) + query


def _split_port(authority: bytes) -> tuple[bytes, bytes | None]:
    host, colon, port = authority.rpartition(b":")
    return (host, port) if colon and port.isdigit() and not port.endswith(b"]") else (authority, None)
