"""Matches and actions of routes in words, for tables: short, and nothing left out."""

from __future__ import annotations

from collections.abc import Iterator

from meshsieve.routes.model import (
    Action,
    DirectResponse,
    Forward,
    HeaderMatch,
    PathRewrite,
    QueryMatch,
    Redirect,
    RouteMatch,
    StringMatch,
    ValueMatch,
)

_SIGNS = {"exact": "=", "prefix": "^=", "suffix": "$=", "contains": "*=", "regex": "~"}


def match_text(match: RouteMatch) -> str:
    """``GET prefix /a; header x = 1; query q present``.

    >>> from meshsieve.routes.model import PathMatch
    >>> match_text(RouteMatch(PathMatch("path", b"/a"), (HeaderMatch(b"x", "present", False),)))
    'path /a; header x absent'
    """
    parts = [_path(match)]
    parts += [_header(h) for h in match.headers if not _is_method(h)]
    parts += [_query(q) for q in match.queries]
    parts += [f"{'no ' * c.invert}cookie {_shown(c.name)} {_string(c.string)}" for c in match.cookies]
    parts += ["grpc"] if match.grpc else []
    parts += [f"tls {name} {str(value).lower()}" for name, value in match.tls]
    if match.runtime is not None:
        key = f" {match.runtime.key}" if match.runtime.key else ""
        parts.append(f"runtime{key} {match.runtime.numerator}/{match.runtime.denominator}")
    for m in match.metadata:
        parts.append(f"{'no ' * m.invert}metadata {'.'.join((m.filter, *m.path))} {_value(m.value)}")
    for f in match.filter_state:
        what = _string(f.string) if f.string else f"{'not ' * f.invert_ranges}in {len(f.ranges)} ranges"
        parts.append(f"filter state {f.key} {what}")
    return "; ".join(parts)


def action_text(action: Action) -> str:
    """Where a request goes: clusters with shares, a redirect, an answer.

    >>> action_text(Forward("web")), action_text(DirectResponse(404)), action_text(Redirect(https=True))
    ('web', 'answers 404', 'redirects 301 to https://HOST')
    """
    match action:
        case Forward():
            return " ".join([_clusters(action), *_rewrites(action)])
        case Redirect():
            return f"redirects {action.status} to {_location(action)}"
        case DirectResponse():
            return f"answers {action.status}"
    return action.kind


def _path(match: RouteMatch) -> str:
    path = match.path
    method = next((h for h in match.headers if _is_method(h)), None)
    verb = f"{_shown(method.string.value)} " if method is not None and method.string is not None else ""
    folded = "" if path.case_sensitive else " (any case)"
    kind = {"path_separated_prefix": "prefix"}.get(path.kind, path.kind)
    if path.kind == "connect":
        return f"{verb}connect"
    elements = "[/...]" if path.kind == "path_separated_prefix" else ""
    return f"{verb}{kind} {_shown(path.value)}{elements}{folded}"


def _is_method(header: HeaderMatch) -> bool:
    exact = header.string is not None and header.string.kind == "exact" and not header.string.ignore_case
    return header.name == b":method" and exact and not header.invert and not header.missing_as_empty


def _header(header: HeaderMatch) -> str:
    name = _shown(header.name)
    if header.kind == "present":
        return f"header {name} {'present' if header.present != header.invert else 'absent'}"
    what = _string(header.string) if header.string is not None else f"in {header.start}..{header.end - 1}"
    missing = " (absent is empty)" if header.missing_as_empty else ""
    return f"header {name} {'not ' * header.invert}{what}{missing}"


def _query(query: QueryMatch) -> str:
    what = _string(query.string) if query.string is not None else "present" if query.present else "absent"
    return f"query {_shown(query.name)} {what}"


def _string(string: StringMatch) -> str:
    return f"{_SIGNS[string.kind]} {_shown(string.value)}{' (any case)' * string.ignore_case}"


def _value(value: ValueMatch) -> str:
    if value.string is not None:
        return _string(value.string)
    if value.members:
        return f"{value.kind} of ({', '.join(_value(m) for m in value.members)})"
    return f"{value.kind} {value.value}"


def _clusters(action: Forward) -> str:
    if action.cluster is not None:
        return action.cluster
    if action.cluster_header is not None:
        return f"the cluster in header {_shown(action.cluster_header)}"
    if action.plugin is not None:
        return f"chosen by {action.plugin}"
    total = sum(w.weight for w in action.weighted)
    names = [w.name or f"header {_shown(w.cluster_header)}" for w in action.weighted]
    return ", ".join(f"{name} {w.weight}/{total}" for name, w in zip(names, action.weighted, strict=True))


def _rewrites(action: Forward) -> Iterator[str]:
    host = action.host_literal
    if host:
        yield f"(host {_shown(host)})"
    elif action.host_header is not None:
        yield f"(host from header {_shown(action.host_header)})"
    elif action.host_path_regex is not None or action.host_text is not None:
        yield "(host rewritten)"
    if path := _path_rewrite(action.rewrite):
        yield f"(path {path})"


def _path_rewrite(rewrite: PathRewrite) -> str:
    if rewrite.prefix is not None:
        return f"to {_shown(rewrite.prefix)}"
    if rewrite.regex is not None:
        return f"s {_shown(rewrite.regex.regex.pattern)} {_shown(rewrite.regex.substitution)}"
    if rewrite.text is not None:
        return f"is {rewrite.text}"
    return "by template" if rewrite.template is not None else ""


def _location(action: Redirect) -> str:
    scheme = "https" if action.https else action.scheme
    host = "HOST" if action.host is None else _shown(action.host)
    port = f":{action.port}" if action.port else ""
    path = _shown(action.path) if action.path is not None else _path_rewrite(action.rewrite)
    where = f"{host}{port}{path if path.startswith('/') else f' path {path}' if path else ''}"
    return f"{scheme}://{where}" if scheme else where


def _shown(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
