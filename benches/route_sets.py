"""Route tables and requests for ``python -m benches routes``, made from their facts alone in every process.

mixed     a host for every 20 routes; exact paths, prefixes and one parameter, a third each
prefixes  one host; prefixes of 2 or 3 segments, some inside others, the longest first
regex     one host; expressions told apart by their second segment
regex_re2 the same with an alternation, which needs RE2
header    one path; routes told apart by one header
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

KINDS = ("mixed", "prefixes", "regex", "regex_re2", "header")
REQUESTS = 4_096


@dataclass(frozen=True)
class RouteSpec:
    """kind: path, prefix, template (``pattern`` in braces), regex or header. host "" stands for every host."""

    host: str
    kind: str
    pattern: str


@dataclass(frozen=True)
class RouteSet:
    """requests: (host, path, header value or ""), expected: the route of each."""

    routes: list[RouteSpec]
    requests: list[tuple[str, str, str]]
    expected: list[int]


def make(kind: str, n: int, seed: int) -> RouteSet:
    rng = random.Random(seed)
    routes = _ROUTES[kind](n)
    order = [rng.randrange(len(routes)) for _ in range(REQUESTS)]
    requests = [(routes[i].host or "h", *_hit(routes[i], rng)) for i in order]
    return RouteSet(routes, requests, order)


def _mixed(n: int) -> list[RouteSpec]:
    kinds = (("path", "/w/svc{0}/v1/items"), ("prefix", "/w/svc{0}/v2/"), ("template", "/w/svc{0}/v1/{{id}}/w2"))
    out = []
    for i in range(n):
        kind, pattern = kinds[i % 3]
        out.append(RouteSpec(f"h{i // 20}.example.com", kind, pattern.format(i % 20)))
    return out


def _prefixes(n: int) -> list[RouteSpec]:
    out = [f"/w/svc{i}/" if i % 2 else f"/w/svc{i + 1}/v{i % 7}/" for i in range(n)]
    return [RouteSpec("", "prefix", p) for p in sorted(dict.fromkeys(out), key=len, reverse=True)]


def _regex(n: int) -> list[RouteSpec]:
    return [RouteSpec("", "regex", f"/w/svc{i}/v[0-9]+/[^/]+/w2") for i in range(n)]


def _regex_re2(n: int) -> list[RouteSpec]:
    return [RouteSpec("", "regex", f"/w/svc{i}/(v1|v22)/[^/]+/w2") for i in range(n)]


def _header(n: int) -> list[RouteSpec]:
    return [RouteSpec("", "header", f"tenant-{i}") for i in range(n)]


_ROUTES = {"mixed": _mixed, "prefixes": _prefixes, "regex": _regex, "regex_re2": _regex_re2, "header": _header}


def _hit(route: RouteSpec, rng: random.Random) -> tuple[str, str]:
    """A path and header value that only this route takes."""
    number = rng.randrange(10**6)
    if route.kind == "header":
        return "/a/b", route.pattern
    if route.kind == "prefix":
        return f"{route.pattern}x{number}/y", ""
    if route.kind == "template":
        return route.pattern.replace("{id}", str(number)), ""
    if route.kind == "regex":
        text = route.pattern.replace("[0-9]+", "1").replace("(v1|v22)", "v1")
        return text.replace("[^/]+", str(number)), ""
    return route.pattern, ""


HEADER = "x-tenant"


def envoy_config(routes: list[RouteSpec]) -> dict[str, Any]:
    """The table as Envoy's RouteConfiguration."""
    template = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
    hosts: dict[str, list[dict[str, Any]]] = {}
    for route in routes:
        if route.kind == "template":
            config = {"@type": template, "path_template": route.pattern}
            match: dict[str, Any] = {"path_match_policy": {"name": "t", "typed_config": config}}
        elif route.kind == "regex":
            match = {"safe_regex": {"regex": route.pattern}}
        elif route.kind == "header":
            match = {"prefix": "/", "headers": [{"name": HEADER, "string_match": {"exact": route.pattern}}]}
        else:
            match = {route.kind: route.pattern}
        hosts.setdefault(route.host or "*", []).append({"match": match, "direct_response": {"status": 200}})
    listed = [{"name": name, "domains": [name], "routes": own} for name, own in hosts.items()]
    return {"virtual_hosts": listed}
