"""What a rule of an HTTPRoute or GRPCRoute does, as an action of the route model: backends by weight, redirects,
rewrites and header edits.

The share of a backend that cannot be used is 500, as is a rule that has no backend and no redirect. Filters of a
backend act on its share, after the rule's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from meshsieve._core import Regex
from meshsieve.mesh.gateway_api.model import (
    BackendRef,
    Condition,
    Filters,
    HeaderModifier,
    PathModifier,
    RequestRedirect,
    Rule,
    UrlRewrite,
)
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import (
    Action,
    DirectResponse,
    Forward,
    HeaderEdit,
    HeaderEdits,
    PathMatch,
    PathRewrite,
    Redirect,
    RegexRewrite,
    WeightedCluster,
)

ERROR = DirectResponse(500)
WELL_KNOWN_PORTS = {"http": 80, "https": 443}
OVERWRITE, APPEND = "OVERWRITE_IF_EXISTS_OR_ADD", "APPEND_IF_EXISTS_OR_ADD"


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where requests come in: what redirects fall back on."""

    scheme: str
    port: int


@dataclass(frozen=True, slots=True)
class RuleAction:
    action: Action
    edits: HeaderEdits
    response_edits: HeaderEdits


def rule_action(
    rule: Rule,
    match: PathMatch,
    entrance: Entrance,
    check: Callable[[BackendRef], Condition],
    *,
    bad_mirror: bool = False,
) -> RuleAction:
    """``check``: whether a backend can be used. ``bad_mirror``: a mirror that cannot be used makes the rule a 500, else
    it is left out."""
    filters = rule.filters
    edits, response_edits = _edits(filters.request), _edits(filters.response)
    mirrors = tuple((str(m.backend), b"") for m in filters.mirrors if check(m.backend).status)
    if filters.problems or filters.unknown or (bad_mirror and len(mirrors) < len(filters.mirrors)):
        return RuleAction(ERROR, edits, response_edits)
    if filters.redirect is not None:
        return RuleAction(_redirect(filters.redirect, match, entrance), edits, response_edits)
    forward = _forward(filters.rewrite, match, mirrors)
    backends = rule.backends
    if sum(backend.weight for backend in backends) == 0:
        return RuleAction(ERROR, edits, response_edits)
    plain = all(check(b).status and b.filters == Filters() for b in backends)
    if plain and len(backends) == 1:
        return RuleAction(_to(forward, str(backends[0])), edits, response_edits)
    if plain:
        weighted = tuple(WeightedCluster(str(b), b"", b.weight) for b in backends)
        return RuleAction(_weighted(forward, weighted), edits, response_edits)
    shares = tuple(_share(b, forward, match, entrance, check) for b in backends)
    if len(shares) == 1 and isinstance(shares[0].instead, DirectResponse | Redirect):
        return RuleAction(shares[0].instead, edits, response_edits)
    # A share's edits come after the rule's, so each share carries both.
    joined = tuple(_with_edits(s, _then(edits, s.edits), _then(response_edits, s.response_edits)) for s in shares)
    return RuleAction(_weighted(forward, joined), HeaderEdits(), HeaderEdits())


def _share(
    backend: BackendRef,
    forward: Forward,
    match: PathMatch,
    entrance: Entrance,
    check: Callable[[BackendRef], Condition],
) -> WeightedCluster:
    filters, name = backend.filters, str(backend)
    edits, response_edits = _edits(filters.request), _edits(filters.response)
    instead: Redirect | DirectResponse | Forward | None = None
    if not check(backend).status or filters.problems or filters.unknown:
        name, instead = f"{name} (500)", ERROR
    elif filters.redirect is not None:
        instead = _redirect(filters.redirect, match, entrance)
    elif filters.rewrite is not None or filters.mirrors:
        own = tuple((str(m.backend), b"") for m in filters.mirrors if check(m.backend).status)
        base = forward if filters.rewrite is None else _forward(filters.rewrite, match, forward.mirrors)
        instead = _to(_mirrored(base, own), name)
    return WeightedCluster(name, b"", backend.weight, edits, response_edits, None, instead)


def _with_edits(share: WeightedCluster, edits: HeaderEdits, response_edits: HeaderEdits) -> WeightedCluster:
    return WeightedCluster(share.name, b"", share.weight, edits, response_edits, None, share.instead)


def _forward(rewrite: UrlRewrite | None, match: PathMatch, mirrors: tuple[tuple[str, bytes], ...]) -> Forward:
    if rewrite is None:
        return Forward(not_found_status=500, mirrors=mirrors)
    return Forward(
        not_found_status=500,
        rewrite=_path_rewrite(rewrite.path, match),
        host_literal=None if rewrite.hostname is None else encoded(rewrite.hostname),
        mirrors=mirrors,
    )


def _to(forward: Forward, cluster: str) -> Forward:
    return Forward(cluster, not_found_status=500, rewrite=forward.rewrite, host_literal=forward.host_literal,
                   mirrors=forward.mirrors)  # fmt: skip


def _weighted(forward: Forward, weighted: tuple[WeightedCluster, ...]) -> Forward:
    return Forward(weighted=weighted, not_found_status=500, rewrite=forward.rewrite, host_literal=forward.host_literal,
                   mirrors=forward.mirrors)  # fmt: skip


def _mirrored(forward: Forward, more: tuple[tuple[str, bytes], ...]) -> Forward:
    return Forward(not_found_status=500, rewrite=forward.rewrite, host_literal=forward.host_literal,
                   mirrors=forward.mirrors + more)  # fmt: skip


# --- paths


def _path_rewrite(path: PathModifier | None, match: PathMatch) -> PathRewrite:
    """Envoy's prefix rewrite is blind to slashes, Gateway API's works on whole elements: ``/foo/bar`` with ``/foo``
    replaced by ``/`` is ``/bar``, not ``//bar``."""
    if path is None:
        return PathRewrite()
    if path.kind == "ReplaceFullPath":
        return PathRewrite(text=_format(path.value or "/"))
    replacement = path.value.rstrip("/")
    if match.kind == "prefix":  # the match is /, so what it matched is the first slash
        return PathRewrite(prefix=encoded(replacement + "/"))
    if replacement:
        return PathRewrite(prefix=encoded(replacement))
    return PathRewrite(regex=RegexRewrite(Regex(b"^" + _quoted(match.value) + b"/?"), b"/"))


def _quoted(text: bytes) -> bytes:
    """``text`` as a regular expression for itself."""
    return re.sub(rb"([^0-9A-Za-z/_\x80-\xff-])", rb"\\\1", text)


def _format(text: str) -> str:
    return text.replace("%", "%%")


def _redirect(given: RequestRedirect, match: PathMatch, entrance: Entrance) -> Redirect:
    """Port: as given, else that of the scheme if one is given, else the listener's; left out where it is the scheme's
    own. The host is the request's without its port."""
    scheme = given.scheme or entrance.scheme
    port = given.port or (WELL_KNOWN_PORTS[given.scheme] if given.scheme else entrance.port)
    full = given.path is not None and given.path.kind == "ReplaceFullPath"
    return Redirect(
        scheme=given.scheme,
        host=None if given.hostname is None else encoded(given.hostname),
        port=0 if port == WELL_KNOWN_PORTS[scheme] else port,
        path=encoded(given.path.value or "/") if full and given.path is not None else None,
        rewrite=PathRewrite() if full else _path_rewrite(given.path, match),
        status=given.status,
    )


# --- header edits


def _edits(modifiers: tuple[HeaderModifier, ...]) -> HeaderEdits:
    out = HeaderEdits()
    for one in modifiers:
        sets = [HeaderEdit(encoded(name).lower(), _format(value), OVERWRITE, True) for name, value in one.set]
        adds = [HeaderEdit(encoded(name).lower(), _format(value), APPEND, True) for name, value in one.add]
        out = _then(out, HeaderEdits((*sets, *adds), tuple(encoded(name).lower() for name in one.remove)))
    return out


def _then(first: HeaderEdits, second: HeaderEdits) -> HeaderEdits:
    """One step that does both in turn. A step removes before it adds, so what the second removes of the first's
    additions is not added at all."""
    kept = tuple(edit for edit in first.add if edit.name not in second.remove)
    return HeaderEdits(kept + second.add, tuple(dict.fromkeys((*first.remove, *second.remove))))
