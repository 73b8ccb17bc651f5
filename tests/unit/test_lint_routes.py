"""Dead routes as sentences, and against the reference with random requests."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshsieve.lint.routes import findings, lint_tables
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, RequestView, view
from meshsieve.routes.model import RouteConfiguration
from meshsieve.routes.read_envoy import read_route_configuration
from meshsieve.routes.reference import choose_route


def table(*matches: dict[str, Any], clusters: str = "") -> RouteConfiguration:
    names = clusters or "abcdefghijklmnopqrstuvwxyz"[: len(matches)]
    routes = [{"name": f"r{i}", "match": m, "route": {"cluster": names[i]}} for i, m in enumerate(matches)]
    return read_route_configuration({"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]})


def found(*matches: dict[str, Any], clusters: str = "") -> list[tuple[str, str, str]]:
    host = table(*matches, clusters=clusters).virtual_hosts[0]
    return [(f.route.name, f.kind, f.first.name) for f in findings(host)]


def header(name: str, **match: Any) -> dict[str, Any]:
    return {"name": name, **match}


ONE = {"string_match": {"exact": "1"}}
UNREACHABLE = [
    ("a prefix behind a shorter one", {"prefix": "/a"}, {"prefix": "/ab"}),
    ("a path behind its prefix", {"prefix": "/a"}, {"path": "/a/b"}),
    ("elements behind fewer elements", {"path_separated_prefix": "/a"}, {"path_separated_prefix": "/a/b"}),
    ("a byte prefix behind its elements", {"path_separated_prefix": "/a"}, {"prefix": "/a/b"}),
    ("anything behind /", {"prefix": "/"}, {"safe_regex": {"regex": "/x.*"}}),
    ("anything behind .*", {"safe_regex": {"regex": ".*"}}, {"prefix": "/x"}),
    ("a path that an earlier pattern takes", {"safe_regex": {"regex": "/a[0-9]"}}, {"path": "/a1"}),
    ("more conditions", {"prefix": "/a"}, {"prefix": "/a", "headers": [header("x", **ONE)]}),
    (
        "a value behind presence",
        {"prefix": "/a", "headers": [header("x", present_match=True)]},
        {"prefix": "/a", "headers": [header("x", **ONE)]},
    ),
    ("another case behind a prefix without case", {"prefix": "/A", "case_sensitive": False}, {"prefix": "/ab"}),
    ("grpc behind everything", {"prefix": "/"}, {"prefix": "/a", "grpc": {}}),
]
REACHABLE = [
    ("a shorter prefix behind", {"prefix": "/ab"}, {"prefix": "/a"}),
    ("a byte prefix behind elements", {"path_separated_prefix": "/a"}, {"prefix": "/a"}),
    ("fewer conditions behind", {"prefix": "/a", "headers": [header("x", **ONE)]}, {"prefix": "/a"}),
    (
        "another header",
        {"prefix": "/a", "headers": [header("x", **ONE)]},
        {"prefix": "/a", "headers": [header("y", **ONE)]},
    ),
    (
        "presence behind an inverted value",
        {"prefix": "/a", "headers": [header("x", present_match=True, invert_match=True)]},
        {"prefix": "/a", "headers": [header("x", **ONE)]},
    ),
    ("any case behind one case", {"prefix": "/a"}, {"prefix": "/a", "case_sensitive": False}),
    (
        "everything behind a half",
        {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 50}}},
        {"prefix": "/a"},
    ),
    ("a connect route behind /", {"prefix": "/"}, {"connect_matcher": {}}),
    (
        "a header that counts as empty where it is absent, behind presence",
        {"prefix": "/", "headers": [header("x", present_match=True)]},
        {"prefix": "/", "headers": [header("x", **ONE, treat_missing_header_as_empty=True)]},
    ),
]


@pytest.mark.parametrize(("sentence", "first", "second"), UNREACHABLE, ids=[u[0] for u in UNREACHABLE])
def test_what_is_never_reached(sentence, first, second):
    assert found(first, second) == [("r1", "unreachable", "r0")]


@pytest.mark.parametrize(("sentence", "first", "second"), REACHABLE, ids=[r[0] for r in REACHABLE])
def test_what_is_reached(sentence, first, second):
    assert found(first, second) == []


def test_the_same_match_is_a_duplicate_or_a_conflict():
    one, two = [header("x", **ONE), header("y", **ONE)], [header("y", **ONE), header("x", **ONE)]
    assert found({"prefix": "/a", "headers": one}, {"prefix": "/a", "headers": two}, clusters="aa") == [
        ("r1", "duplicate", "r0")
    ]
    assert found({"prefix": "/a", "headers": one}, {"prefix": "/a", "headers": two}) == [("r1", "conflict", "r0")]


def test_a_route_of_several_virtual_hosts_is_dead_only_in_all_of_them():
    from dataclasses import replace

    both, alone = table({"prefix": "/"}, {"prefix": "/a"}), table({"prefix": "/b"})
    host, other = both.virtual_hosts[0], alone.virtual_hosts[0]
    shared = replace(other, routes=(host.routes[1],))
    assert [d.code for d in lint_tables([("t", replace(both, virtual_hosts=(host,)))])] == ["route-unreachable"]
    assert lint_tables([("t", replace(both, virtual_hosts=(host, shared)))]) == []


def test_the_message_names_both_routes_and_their_matches():
    assert [str(d) for d in lint_tables([("t", table({"prefix": "/"}, {"path": "/a\u202e"}))])] == [
        "<route configuration>:1: warning route-unreachable: path /a\u202e is never reached: "
        "r0 (<route configuration>:1) takes all of its requests before (prefix /) [t, v: r1]"
    ]


PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/A", "/a/b/c", "/b"]


def random_match(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["prefix", "path", "path_separated_prefix", "regex"])
    value = rng.choice(PATHS if kind != "path_separated_prefix" else ["/a", "/a/b", "/A", "/b"])
    match: dict[str, Any] = {"safe_regex": {"regex": rng.choice(["/a.*", "/[ab]", ".*", "/a/b"])}}
    if kind != "regex":
        match = {kind: value, "case_sensitive": rng.random() < 0.8}
    if rng.random() < 0.5:
        form = rng.choice([ONE, {"present_match": True}, {"string_match": {"prefix": "1"}}])
        match["headers"] = [header(rng.choice("xy"), **form, invert_match=rng.random() < 0.3,
                                   treat_missing_header_as_empty=rng.random() < 0.2)]  # fmt: skip
    if rng.random() < 0.3:
        match["query_parameters"] = [{"name": "q", **rng.choice([ONE, {"present_match": True}])}]
    return match


def test_no_request_ever_reaches_a_route_that_is_called_dead():
    rng = random.Random(5)
    requests = []
    for path in PATHS:
        for query in ("", "?q=1", "?q=2"):
            for headers in ((), (("x", "1"),), (("x", "12"), ("y", "1")), (("y", "2"),)):
                seen = view(Request(authority="h", path=path + query, headers=headers), HttpOptions())
                assert isinstance(seen, RequestView)
                requests.append(seen)
    dead = 0
    for _ in range(400):
        config = table(*(random_match(rng) for _ in range(6)))
        host = config.virtual_hosts[0]
        called_dead = {f.route.name for f in findings(host)}
        chosen = {route.name for seen in requests if (route := choose_route(config, host, seen)) is not None}
        assert not called_dead & chosen
        dead += len(called_dead)
    assert dead > 300
