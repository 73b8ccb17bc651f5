"""Random route configurations and requests that meet in them: every matcher of Envoy's RouteMatch, a small alphabet, so
that routes overlap and requests nearly match.

A world follows from its seed alone. ``live``: only what a real Envoy can be asked about over HTTP/1.1, and what does
not depend on chance.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from meshsieve.request import Request

SEGMENTS = ["a", "b", "ab", "A", "aB", "c", "c;x=1", "%2F", "a.b", "d.js", "é", ""]
HOSTS = ["a.x", "b.a.x", "x", "ax", "c-a.x", "a.x:80", "A.X", "a.y", "[::1]", "[::1]:80", "a.", "q"]
DOMAINS = ["a.x", "*.x", "*.a.x", "*-a.x", "*x", "a.*", "a*", "b.*", "A.Y", "*", "a.x:80", "[::1]", "*:80", "a*x", "q"]
NAMES = ["x-a", "X-B", "x-c", "authorization", "content-type", ":method", ":path", ":authority", "host", "cookie"]
VALUES = ["", "a", "b", "ab", "A", "a,b", "aba", "5", "+5", "-3", "007", "9223372036854775807", "9223372036854775808"]
TYPES = ["application/grpc", "application/grpc+proto", "application/grpc-web", "text/plain"]
PATTERNS = ["a", "a*", ".*", "a|b", "(a|b)+", "[ab]*", "a.?", "(?i)ab", ".", "5|7", "[^a]+", "a{2}b?", "\\+5", "$a", ""]
TEMPLATES = [
    "/a", "/*", "/**", "/a/*", "/a/**", "/{x}", "/a/{x}/b", "/{x}/{y}", "/a/{x=b/*}", "/{x=**}/b", "/{x}.js", "/a*",
    "/**.js", "/a/*/**", "/a.b/*", "/a{x}/b", "/{x=a*}", "/{x}b/a",
]  # fmt: skip
METHODS = ["GET", "GET", "GET", "POST", "DELETE", "OPTIONS"]


@dataclass
class World:
    """One configuration (Envoy's JSON) and requests."""

    seed: int
    config: dict[str, Any]
    requests: list[Request] = field(default_factory=list)


def world(seed: int, requests: int, *, live: bool = False) -> World:
    rng = random.Random(seed)
    made = World(seed, _Maker(rng, live).config())
    hints = _Hints()
    hints.read(made.config)
    made.requests = [_request(rng, hints, live) for _ in range(requests)]
    return made


class _Maker:
    def __init__(self, rng: random.Random, live: bool) -> None:
        self.rng, self.live = rng, live

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def config(self) -> dict[str, Any]:
        rng = self.rng
        domains = ["*"] if self.chance(0.2) else rng.sample(DOMAINS, rng.randint(1, 8))
        hosts = []
        while domains:
            own = [domains.pop() for _ in range(min(len(domains), rng.randint(1, 3)))]
            hosts.append(self.host(f"v{len(hosts)}", own))
        out: dict[str, Any] = {"virtual_hosts": hosts}
        if self.chance(0.3):
            out["ignore_port_in_host_matching"] = True
        if self.chance(0.3):
            out["ignore_path_parameters_in_path_matching"] = True
        if self.chance(0.1):
            out["vhost_header"] = "x-a"
        return out

    def host(self, name: str, domains: list[str]) -> dict[str, Any]:
        out: dict[str, Any] = {"name": name, "domains": domains}
        if self.chance(0.1):
            out["matcher"] = self.tree(2)
        else:
            out["routes"] = self.many() if self.chance(0.25) else self.routes(self.rng.randint(0, 7))
        if self.chance(0.1):
            out["require_tls"] = "ALL" if self.live else self.rng.choice(["ALL", "EXTERNAL_ONLY"])
        return out

    def routes(self, n: int) -> list[dict[str, Any]]:
        return [self.route(self.match()) for _ in range(n)]

    def route(self, match: dict[str, Any]) -> dict[str, Any]:
        return {"match": match, "direct_response": {"status": 200}}

    def many(self) -> list[dict[str, Any]]:
        """Many routes at one place, told apart by one thing: what tables hash or hand to an automaton."""
        rng, n = self.rng, self.rng.randint(6, 40)
        path = {rng.choice(["prefix", "path"]): self.path()}
        source = rng.choice(["headers", "query_parameters", "cookies", "regex", "template"])
        kind = rng.choice(["exact", "prefix", "suffix"])
        out = []
        for i in range(n):
            text = rng.choice(["a", "b", "ab", "c"]) * rng.randint(1, 3)
            if source == "regex":
                match: dict[str, Any] = {"safe_regex": {"regex": f"/.*{text}" if i % 2 else f"/(a|{text})/?.*"}}
            elif source == "template":
                match = self.template(rng.choice(TEMPLATES))
            else:
                name = "x-a" if source == "headers" else "k"
                match = path | {source: [{"name": name, "string_match": {kind: text}}]}
            if self.chance(0.2):
                match = match | {"headers": [*match.get("headers", []), self.header()]}
            if self.chance(0.1):
                match = self.match()
            out.append(self.route(match))
        return out

    def path(self) -> str:
        return "/" + "/".join(self.rng.choice(SEGMENTS) for _ in range(self.rng.choice([0, 1, 1, 2, 2, 3])))

    def template(self, text: str) -> dict[str, Any]:
        config = {"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"}
        return {"path_match_policy": {"name": "t", "typed_config": config | {"path_template": text}}}

    def match(self) -> dict[str, Any]:
        rng = self.rng
        kind = rng.choice(
            ["prefix"] * 4 + ["path"] * 4 + ["path_separated_prefix"] * 3 + ["safe_regex", "template", "connect"]
        )
        if kind == "safe_regex":
            start = rng.choice(["/", "/a", "/a/", "/[ab]", "(?i)/A", "^/a", "/a|/b", "/\\.", "/a?"])
            out: dict[str, Any] = {kind: {"regex": start + rng.choice(PATTERNS)}}
        elif kind == "template":
            out = self.template(rng.choice(TEMPLATES))
        elif kind == "connect":
            out = {"connect_matcher": {}}
        else:
            text = self.path()
            if kind == "path_separated_prefix":
                text = text.rstrip("/") or "/a"
            out = {kind: text}
            if self.chance(0.2):
                out["case_sensitive"] = False
        if self.chance(0.45):
            out["headers"] = [self.header() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        if self.chance(0.15):
            out["query_parameters"] = [self.query() for _ in range(rng.choice([1, 1, 2]))]
        if self.chance(0.1):
            out["cookies"] = [self.cookie()]
        if self.chance(0.05):
            out["grpc"] = {}
        if self.chance(0.05):
            out["tls_context"] = {rng.choice(["presented", "validated"]): rng.choice([True, False])}
        if self.chance(0.08):
            out["runtime_fraction"] = self.fraction()
        if not self.live and self.chance(0.06):
            out["dynamic_metadata"] = [self.metadata()]
        if not self.live and self.chance(0.06):
            out["filter_state"] = [self.filter_state()]
        return out

    def string(self, values: list[str] = VALUES) -> dict[str, Any]:
        rng = self.rng
        kind = rng.choice(["exact", "exact", "prefix", "suffix", "contains", "safe_regex"])
        if kind == "safe_regex":
            return {kind: {"regex": rng.choice([p for p in PATTERNS if p])}}
        text = rng.choice(values) if kind == "exact" else rng.choice([v for v in values if v])
        return {kind: text} | ({"ignore_case": True} if self.chance(0.2) else {})

    def header(self) -> dict[str, Any]:
        rng = self.rng
        name = rng.choice(NAMES)
        values = {
            ":method": METHODS,
            ":path": ["/a", "/a/b", "/a?k=a", "/"],
            ":authority": HOSTS,
            "host": HOSTS,
            "content-type": TYPES,
            "cookie": ["k=a", "k=b", 'k="a"'],
        }.get(name, VALUES)
        out: dict[str, Any] = {"name": name}
        kind = rng.choice(["string_match"] * 6 + ["range_match", "present", "absent", "nothing", "old"])
        if kind == "string_match":
            out["string_match"] = self.string(values)
        elif kind == "range_match":
            start = rng.choice([-3, 0, 5, 2**63 - 2])
            out["range_match"] = {"start": start, "end": start + rng.choice([1, 3, -1]) if start < 9 else 2**63 - 1}
        elif kind in ("present", "absent"):
            out["present_match"] = kind == "present"
        elif kind == "old":
            field_ = rng.choice(["exact_match", "prefix_match", "suffix_match", "contains_match"])
            out[field_] = rng.choice([v for v in values if v])
        if self.chance(0.25):
            out["invert_match"] = True
        if self.chance(0.2):
            out["treat_missing_header_as_empty"] = True
        return out

    def query(self) -> dict[str, Any]:
        name = self.rng.choice(["k", "l", "K", "%6b"])
        kind = self.rng.choice(["string", "string", "present", "absent", "nothing"])
        out: dict[str, Any] = {"name": name}
        if kind == "string":
            out["string_match"] = self.string()
        elif kind != "nothing":
            out["present_match"] = kind == "present"
        return out

    def cookie(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.rng.choice(["k", "K", "s"]), "string_match": self.string()}
        return out | ({"invert_match": True} if self.chance(0.3) else {})

    def fraction(self) -> dict[str, Any]:
        rng = self.rng
        value = {"numerator": rng.choice([0, 100] if self.live else [0, 1, 50, 99, 100, 5000])}
        if not self.live and self.chance(0.3):
            value["denominator"] = rng.choice(["HUNDRED", "TEN_THOUSAND", "MILLION"])
        return {"default_value": value} | ({"runtime_key": "rt"} if not self.live and self.chance(0.5) else {})

    def metadata(self) -> dict[str, Any]:
        rng = self.rng
        value: dict[str, Any] = rng.choice([
            {"string_match": self.string()}, {"present_match": True}, {"present_match": False}, {"bool_match": True},
            {"double_match": {"exact": 2}}, {"double_match": {"range": {"start": 1, "end": 3}}}, {"null_match": {}},
            {"list_match": {"one_of": {"string_match": {"exact": "a"}}}},
            {"or_match": {"value_matchers": [{"bool_match": False}, {"string_match": {"prefix": "a"}}]}},
        ])  # fmt: skip
        path = [{"key": key} for key in rng.choice([["p"], ["p", "q"], ["z"]])]
        return {"filter": "f", "path": path, "value": value} | ({"invert": True} if self.chance(0.3) else {})

    def filter_state(self) -> dict[str, Any]:
        if self.chance(0.5):
            return {"key": "s", "string_match": self.string()}
        ranges = [{"address_prefix": "10.0.0.0", "prefix_len": 8}, {"address_prefix": "2001:db8::", "prefix_len": 32}]
        return {"key": "s", "address_match": {"ranges": ranges, "invert_match": self.chance(0.3)}}

    # --- match trees

    def tree(self, depth: int) -> dict[str, Any]:
        rng = self.rng
        out: dict[str, Any] = {}
        if self.chance(0.5):
            out["matcher_list"] = {
                "matchers": [
                    {"predicate": self.predicate(2), "on_match": self.on_match(depth)} for _ in range(rng.randint(1, 4))
                ]
            }
        else:
            kind = rng.choice(["exact_match_map", "prefix_match_map"])
            keys = rng.sample([":path/", "/a", "/a/", "/a/b", "/ab", "a", "b", "ab", "A"], rng.randint(1, 5))
            out["matcher_tree"] = {
                "input": self.input(),
                kind: {"map": {key: self.on_match(depth) for key in keys}},
            }
        if self.chance(0.5):
            out["on_no_match"] = self.on_match(depth)
        return out

    def on_match(self, depth: int) -> dict[str, Any]:
        if depth and self.chance(0.3):
            return {"matcher": self.tree(depth - 1)}
        kind = "type.googleapis.com/envoy.config.route.v3."
        if self.chance(0.5):
            return {"action": {"name": "r", "typed_config": {"@type": kind + "Route", **self.route(self.match())}}}
        routes = {"@type": kind + "RouteList", "routes": self.routes(self.rng.randint(1, 3))}
        return {"action": {"name": "r", "typed_config": routes}}

    def input(self) -> dict[str, Any]:
        kind = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
        name = self.rng.choice([":path", ":path", "x-a", "x-c", ":method"])
        return {"name": "i", "typed_config": {"@type": kind, "header_name": name}}

    def predicate(self, depth: int) -> dict[str, Any]:
        kind = self.rng.choice(["single", "single", "and", "or", "not"]) if depth else "single"
        if kind == "single":
            text = self.string(["a", "ab", "/a", "/", "b"])
            if "safe_regex" in text:
                text["safe_regex"]["google_re2"] = {}
            return {"single_predicate": {"input": self.input(), "value_match": text}}
        if kind == "not":
            return {"not_matcher": self.predicate(depth - 1)}
        return {f"{kind}_matcher": {"predicate": [self.predicate(depth - 1) for _ in range(2)]}}


@dataclass
class _Hints:
    """Texts of a configuration, so that requests come near to its routes."""

    hosts: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[tuple[str, str]] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)

    def read(self, node: Any) -> None:
        if isinstance(node, list):
            for value in node:
                self.read(value)
        elif isinstance(node, dict):
            self.hosts += [d.replace("*", "q") for d in node.get("domains", ())]
            self.paths += [
                node[k] for k in ("prefix", "path", "path_separated_prefix") if str(node.get(k)).startswith("/")
            ]
            text = next((v for v in (node.get("string_match") or {}).values() if isinstance(v, str)), None)
            if text is not None and "name" in node:
                self.pairs.append(f"{node['name']}={text}")
                if not node["name"].startswith(":") and node["name"] not in ("host", "cookie"):
                    self.headers.append((node["name"], text))
            for value in node.values():
                self.read(value)


def _request(rng: random.Random, hints: _Hints, live: bool) -> Request:
    headers: list[tuple[str, str]] = []
    for name in ("x-a", "x-B", "x-c", "authorization"):
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            headers.append((name, rng.choice([*VALUES, "abab", "c", "cc", "aab"])))
    headers += [rng.choice(hints.headers) for _ in range(rng.choice([0, 1, 2])) if hints.headers]
    if rng.random() < 0.15:
        headers.append(("content-type", rng.choice(TYPES)))
    if rng.random() < 0.3:
        headers.append(
            ("cookie", rng.choice(["k=a", "k=b; K=a", 's=1;k="ab"', "l=a", "k=a;k=b", "K", "", *hints.pairs]))
        )
        if rng.random() < 0.2:
            headers.append(("cookie", "k=A"))
    if not live and rng.random() < 0.05:  # Envoy takes it from nobody outside
        headers.append(("x-envoy-internal", "true"))
    method = rng.choice(METHODS)
    host = rng.choice(hints.hosts) if hints.hosts and rng.random() < 0.7 else rng.choice(HOSTS)
    path = _path(rng, hints)
    scheme = "https" if rng.random() < 0.2 else "http"
    if live:
        return Request(method, scheme, host, path, tuple(headers))
    if rng.random() < 0.05:
        method, path = "CONNECT", rng.choice([path, "h:80", ""])
    facts: dict[str, Any] = {}
    if rng.random() < 0.3:
        value = rng.choice(["a", "ab", True, False, 2, 2.5, None, ["a", 1], {"q": rng.choice(["a", 2, True])}])
        facts["dynamic_metadata"] = {"f": {"p": value}}
    if rng.random() < 0.3:
        facts["filter_state"] = {"s": rng.choice(["a", "ab", "10.1.2.3", "2001:db8::1", "11.0.0.1"])}
    if rng.random() < 0.3:
        facts["runtime"] = {"rt": rng.choice([0, 1, 50, 100, 1000])}
    tls = rng.choice([None, None, {"presented": True}, {"presented": True, "validated": True}])
    number = rng.choice([None, 0, 1, 49, 50, 99, 2**64 - 1, rng.randrange(10**6)])
    scheme = rng.choice([scheme, scheme, scheme, ""])
    host = rng.choice([host] * 9 + [""])
    return Request(method, scheme, host, path, tuple(headers), tls=tls, random_value=number, **facts)


def _path(rng: random.Random, hints: _Hints) -> str:
    plain = [s for s in SEGMENTS if s.isascii()]
    path = "/" + "/".join(rng.choice(plain) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4])))
    if hints.paths and rng.random() < 0.6:
        path = rng.choice(hints.paths) + rng.choice(["", "", "/", path, "b", ";x"])
        path = rng.choice([path, path, path, path.swapcase()])
    path = "".join(c for c in path if c.isascii())
    if rng.random() < 0.3:
        pairs = [rng.choice(["k", "l", "K", "%6b", ""]) + rng.choice(["", "=", "=a", "=ab", "=b=c"]) for _ in range(2)]
        pairs += [rng.choice(hints.pairs)] if hints.pairs else []
        path += "?" + rng.choice(["&", "&", ";", "?"]).join(p for p in pairs if p.isascii() and "#" not in p)
    return path
