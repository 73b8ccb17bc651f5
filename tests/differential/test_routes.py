"""Compiled route tables against the linear reference, on random configurations that use every matcher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshsieve._core import Regex
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes import HttpOptions, Router, from_envoy
from tests.differential.route_worlds import World, world
from tests.reference import routes as reference

WORLDS, REQUESTS = 400, 40


def router_of(made: World, options: HttpOptions | None = None) -> Router | None:
    """None for a configuration that is refused (two domains that are one after folding, an empty regex, ...)."""
    try:
        return from_envoy(made.config, options)
    except PolicyError:
        return None


def differences(made: World, router: Router) -> list[tuple[Request, int, int]]:
    expected = [reference.find(router.config, router.options, request) for request in made.requests]
    got = router.find_batch(made.requests)
    return [(r, e, int(g)) for r, e, g in zip(made.requests, expected, got, strict=True) if e != g]


@pytest.mark.parametrize("first", range(0, WORLDS, 50))
def test_the_compiled_table_answers_as_the_reference(first: int) -> None:
    used = taken = 0
    for seed in range(first, first + 50):
        made = world(seed, REQUESTS)
        router = router_of(made, HttpOptions(codec=seed % 4 > 0, normalize_path=seed % 5 == 0))
        if router is None:
            continue
        used += 1
        assert not differences(made, router), f"world {seed}"
        taken += int((router.find_batch(made.requests) >= 0).sum())
    assert used > 30  # the grammar makes configurations that load
    assert taken > used * REQUESTS // 10  # and requests that routes take


def test_one_request_at_a_time_answers_as_the_batch() -> None:
    for seed in range(60):
        made = world(seed, 10)
        router = router_of(made)
        if router is None:
            continue
        batch = router.match_batch(made.requests)
        assert [router.match(request).route_index for request in made.requests] == batch.tolist()
        plain = [Request(r.method, "http", r.authority, r.path, r.headers) for r in made.requests]
        found = [router.find(r.authority, r.path, r.method, r.headers) for r in plain]
        assert found == router.find_batch(plain).tolist()


def test_batches_of_every_size_answer_alike() -> None:
    made = world(7, 100)
    router = router_of(made)
    assert router is not None
    whole = router.find_batch(made.requests)
    for size in (1, 2, 15, 16, 17, 33):
        parts = [router.find_batch(made.requests[i : i + size]) for i in range(0, 100, size)]
        assert np.concatenate(parts).tolist() == whole.tolist()


def routes(*matches: dict[str, Any]) -> dict[str, Any]:
    listed = [{"match": m, "direct_response": {"status": 200}} for m in matches]
    return {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": listed}]}


def header(name: str, **string: str) -> dict[str, Any]:
    return {"headers": [{"name": name, "string_match": string}]}


MANY = 2_000


@pytest.mark.parametrize("kind", ["exact", "prefix", "suffix"])
def test_many_routes_told_apart_by_one_header(kind: str) -> None:
    router = from_envoy(routes(*({"prefix": "/"} | header("x-tenant", **{kind: f"<t{i}>"}) for i in range(MANY))))
    tenants = [0, 1, 17, MANY - 1, MANY]
    batch = {"path": ["/a"] * 5, "authority": "h", "headers": {"X-Tenant": [f"<t{i}>" for i in tenants]}}
    assert router.match_batch(batch).tolist() == [0, 1, 17, MANY - 1, -1]
    assert router.stats.fans == 1
    assert router.stats.longest_list <= 1


def test_many_regular_expressions_without_a_common_beginning() -> None:
    router = from_envoy(routes(*({"safe_regex": {"regex": f"/[a-z]+/s{i}/.*"}} for i in range(300))))
    paths = ["/x/s7/", "/abc/s299/q/r", "/x/s300/", "/X/s7/"]
    assert router.match_batch({"path": paths, "authority": "h"}).tolist() == [7, 299, -1, -1]
    assert router.stats.regex_sets == 1


ATOMS = [
    "a",
    "b",
    "/",
    ".",
    "[ab]",
    "[^/]",
    "[^a]",
    "[a-c]",
    "\\.",
    "\\d",
    "[]a]",
    "[a-]",
    "[\\w.]",
    "(a)",
    "(?:b/)",
    "(a|b)",
]
PATTERNS = st.lists(st.tuples(st.sampled_from(ATOMS), st.sampled_from(["", "", "", "+", "*", "?", "{2}"])), max_size=6)
TEXTS = st.lists(st.text(alphabet="ab/.-]1c", max_size=8), min_size=1, max_size=8)


@given(PATTERNS.map(lambda parts: "".join(a + q for a, q in parts)), st.sampled_from(["", "^", "/"]), TEXTS)
def test_a_regular_expression_matches_as_re2_has_it(pattern: str, begin: str, texts: list[str]) -> None:
    """Simple ones have a program of their own (csrc/src/route/simple_regex.h)."""
    assume(pattern)
    regex = Regex((begin + pattern).encode())
    router = from_envoy(routes({"safe_regex": {"regex": begin + pattern}}))
    paths = ["/" + text for text in texts]
    found = router.match_batch({"path": paths, "authority": "h"})
    assert [number == 0 for number in found] == [regex.full_match(path.encode()) for path in paths]


def test_header_regexes_are_told_apart() -> None:
    router = from_envoy(
        routes(
            *(
                {"prefix": "/"} | {"headers": [{"name": "x", "string_match": {"safe_regex": {"regex": r}}}]}
                for r in "ab"
            )
        )
    )
    assert router.match(Request(authority="h", headers=(("x", "b"),))).route_index == 1


def test_paths_nested_a_thousand_deep() -> None:
    router = from_envoy(routes(*({"prefix": "/" + "a" * i} for i in range(1000, -1, -1))))
    paths = ["/" + "a" * i for i in (0, 1, 500, 1000, 1500)]
    assert router.match_batch({"path": paths, "authority": "h"}).tolist() == [1000, 999, 500, 0, 0]


def test_a_replaced_configuration_answers_at_once() -> None:
    router = from_envoy(routes({"path": "/a"}))
    assert router.find("h", "/a") == 0
    router.replace(from_envoy(routes({"path": "/b"}, {"path": "/a"})).config)
    assert (router.find("h", "/a"), router.match(Request(authority="h", path="/b")).route_index) == (1, 0)


def test_columns_and_requests_answer_alike() -> None:
    made = world(3, 64)
    router = router_of(made)
    assert router is not None
    columns = RequestColumns.of(made.requests)
    assert router.find_batch(columns).tolist() == router.find_batch(iter(made.requests)).tolist()
