"""Properties of the mesh over any names, delegates and broken objects that Hypothesis finds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsieve import routes
from meshsieve.errors import MeshsieveError
from meshsieve.mesh.istio import analyzers
from meshsieve.mesh.istio.config import MeshOptions
from meshsieve.mesh.names import HostIndex, covers, intersection, overlap
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request

Object = dict[str, Any]
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEED = list(yaml.safe_load_all((Path(__file__).parent / "mesh.yaml").read_text()))
WHOLE = routes.from_kubernetes(SEED)

# --- names: every name of up to three labels a and b, against the definition

LABELS = ["a", "b"]
NAMES = [
    ".".join(labels)
    for labels in [(x,) for x in LABELS]
    + [(x, y) for x in LABELS for y in LABELS]
    + [(x, y, z) for x in LABELS for y in LABELS for z in LABELS]
]
PATTERNS = ["*", *NAMES, *(f"*.{name}" for name in NAMES if name.count(".") < 2)]
# Names to judge a pattern by: longer ones too, so that "*.a.b" covers several.
WORLD = NAMES + [f"{label}.{name}" for label in LABELS for name in NAMES if name.count(".") == 2]


def meant(pattern: str) -> set[str]:
    if pattern == "*":
        return set(WORLD)
    if pattern.startswith("*."):
        return {name for name in WORLD if name.endswith(pattern[1:])}
    return {pattern}


@pytest.mark.parametrize("first", PATTERNS)
def test_names_are_what_their_sets_say(first: str) -> None:
    for second in PATTERNS:
        assert covers(first, second) == (meant(second) <= meant(first)), second
        assert overlap(first, second) == bool(meant(first) & meant(second)), second


patterns = st.lists(st.sampled_from(PATTERNS), max_size=6)


@given(patterns, patterns)
def test_an_intersection_is_what_both_lists_cover(firsts: list[str], seconds: list[str]) -> None:
    both = {n for f in firsts for n in meant(f)} & {n for s in seconds for n in meant(s)}
    assert {n for name in intersection(firsts, seconds) for n in meant(name)} == both


@given(patterns, st.sampled_from(PATTERNS))
def test_an_index_finds_what_a_scan_finds(hosts: list[str], name: str) -> None:
    index = HostIndex(list(zip(hosts, range(len(hosts)), strict=True)))
    assert index.covering(name) == [i for i, host in enumerate(hosts) if covers(host, name)]
    assert index.overlapping(name) == [i for i, host in enumerate(hosts) if overlap(host, name)]


# --- delegates: a merged rule takes what the root's rule and the delegate's both take

texts = st.sampled_from([{"exact": "/a"}, {"exact": "/a/b"}, {"prefix": "/"}, {"prefix": "/a"}, {"prefix": "/a/b"}])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "uri": texts,
        "method": st.sampled_from([{"exact": "GET"}, {"exact": "PUT"}]),
        "headers": st.dictionaries(st.sampled_from("xy"), st.sampled_from([{"exact": "1"}, {"prefix": "1"}, {}])),
        "queryParams": st.dictionaries(st.sampled_from("xy"), st.just({"exact": "1"})),
        "port": st.just(9080),
    },
)
rules = st.lists(st.lists(conditions, max_size=2), min_size=1, max_size=3)
REQUESTS = [
    Request(
        method=method,
        scheme="http",
        authority="reviews.default.svc.cluster.local:9080",
        path=path,
        headers=headers,
    )
    for method in ("GET", "PUT")
    for path in ("/", "/a", "/a/b", "/a/b?x=1", "/a?x=1&y=1")
    for headers in ((), (("x", "1"),), (("x", "12"), ("y", "1")))
]


def manifest(kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec}


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "reviews", "namespace": "default"},
    "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 9080}]},
}
TARGET = {"route": [{"destination": {"host": "reviews"}}]}


def taken(objects: list[Object]) -> tuple[list[str | None], list[str]]:
    """The rule that takes each of REQUESTS, and the codes of the findings."""
    router = routes.from_kubernetes([SERVICE, *objects])
    found = [router.match(request, source_namespace="default").route for request in REQUESTS]
    return found, [finding.code for finding in router.findings]


@SLOW
@given(st.lists(conditions, max_size=1), rules)
def test_a_delegates_rule_takes_what_it_and_the_root_take(root: list[Object], below: list[list[Object]]) -> None:
    entries = [{"name": str(i), "match": match, **TARGET} for i, match in enumerate(below)]
    top = {"hosts": ["reviews"], "http": [{"match": root, "delegate": {"name": "d"}}, {"name": "rest", **TARGET}]}
    merged, codes = taken([manifest("VirtualService", "v", top), manifest("VirtualService", "d", {"http": entries})])
    if "delegate-conflict" in codes:
        return  # such a rule is dropped, so later ones take more
    plain = {"hosts": ["reviews"], "http": [{"name": "root", "match": root, **TARGET}, {"name": "rest", **TARGET}]}
    of_root, _ = taken([manifest("VirtualService", "v", plain)])
    alone = {"hosts": ["reviews"], "http": [*entries, {"name": "rest", **TARGET}]}
    of_delegate, _ = taken([manifest("VirtualService", "v", alone)])
    wanted = [rule if in_root == "root" else "rest" for in_root, rule in zip(of_root, of_delegate, strict=True)]
    assert merged == wanted


# --- batches


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.builds(
            Request,
            method=st.sampled_from(["GET", "PUT"]),
            scheme=st.sampled_from(["http", "https"]),
            authority=st.sampled_from(
                ["reviews", "reviews.default:9080", "a.com", "q.a.com", "x.ext:443", "raw:3306", ""]
            ),
            path=st.sampled_from(["/", "/a/x", "/b", "/r", "/d?q=aa", "/del/a", "/e", "bad"]),
            headers=st.sampled_from([(), (("h", "x"),), (("content-type", "application/grpc"),)]),
            claims=st.none() | st.just({"a": "b"}),
            tls=st.none() | st.just({"presented": True}),
        ),
        max_size=30,
    ),
    st.sampled_from(
        [{"source": "default/p"}, {"source_namespace": "other"}, {"receiver": "default/p"}, {"gateway": "default/edge"}]
    ),
)
def test_a_batch_is_its_requests_one_by_one(requests: list[Request], where: dict[str, str]) -> None:
    found = WHOLE.match_batch(requests, **where)
    assert found.tolist() == [WHOLE.match(request, **where).route_index for request in requests]
    for index, request in zip(found.tolist(), requests, strict=True):
        if index >= 0:
            assert WHOLE.routes[index].source == WHOLE.match(request, **where).source


# --- broken objects are refused in words, or read

JUNK: list[Any] = [
    None, "", "*", "x", "a.b", "*.b", "./x", "a/b/c", "~", 0, -1, 80, 99999, 1.5, True, [], {}, [None], [[]],
    {"x": None}, "10.0.0.0/8", "::1", "(", {"exact": "x"}, {"regex": "("}, {"prefix": ""}, "1h", "HTTP", "TLS",
    "mesh", 2**70, "\0", ["x", "x"], [{"x": 1}],
]  # fmt: skip


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


PLACES = list(places(SEED))


def value_at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


values = st.sampled_from(JUNK) | st.sampled_from(PLACES).map(lambda path: value_at(SEED, path))
ASKED = [
    ("http", "reviews:9080", {"source": "default/p"}),
    ("http", "reviews", {"source_namespace": "other"}),
    ("https", "x.ext", {"source": "default/p"}),
    ("http", "reviews:9080", {"receiver": "default/p"}),
    ("http", "a.com", {"gateway": "default/edge"}),
    ("https", "b.a.com", {"gateway": "default/edge"}),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PLACES), values, st.booleans(), st.booleans())
def test_any_broken_object_is_read_or_refused_in_words(
    place: tuple[Any, ...], value: Any, remove: bool, strict: bool
) -> None:
    objects = copy.deepcopy(SEED)
    parent = value_at(objects, place[:-1])
    if remove:
        del parent[place[-1]]
    else:
        parent[place[-1]] = copy.deepcopy(value)
    objects = [found for found in objects if isinstance(found, dict)]
    try:
        list(analyzers.analyze(read_objects(objects)))
        router = routes.from_kubernetes(objects, MeshOptions(strict=strict))
        for scheme, authority, where in ASKED:
            router.match(Request(method="GET", scheme=scheme, authority=authority, path="/a"), **where)
    except MeshsieveError:
        pass
