"""Configuration that is wrong in any place ends in our exceptions, and never in another."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve.balance import Host, WeightedClusters, hash_keys
from meshsieve.balance.envoy import clusters_of
from meshsieve.balance.mesh import mesh_of
from meshsieve.balance.nsx import LbState, NsxBalancer, lint
from meshsieve.balance.nsx_objects import read_objects
from meshsieve.errors import MeshsieveError
from meshsieve.policy import SourceFile
from meshsieve.request import Request
from tests.unit.balance.test_envoy import HOSTS, cluster
from tests.unit.balance.test_mesh import ENDPOINTS, ROUTES, RULE, SERVICE
from tests.unit.balance.test_nsx import COOKIE, HTTP, PERSISTENT, header, pool, rule, server, uri

ODD: list[Any] = [None, "", "x", 0, -1, 2**64, 1.5, True, [], {}, [None], [[]], {"": None}, "9" * 5000, "\u202e", "10"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def broken(document: Any, draw: random.Random) -> Any:
    """The document with one place replaced, removed or doubled."""
    out = copy.deepcopy(document)
    *path, last = draw.choice(list(places(out)))
    owner = out
    for key in path:
        owner = owner[key]
    how = draw.randrange(3)
    if how == 0:
        owner[last] = copy.deepcopy(draw.choice(ODD))
    elif how == 1 or not isinstance(owner, dict):
        del owner[last]
    else:
        owner[f"{last}x"] = owner[last]
    return out


ENVOY = [
    cluster(
        *HOSTS,
        lb_subset_config={"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["v"]}]},
        common_lb_config={"healthy_panic_threshold": {"value": 50}, "locality_weighted_lb_config": {}},
        outlier_detection={"interval": "10s"},
        circuit_breakers={"thresholds": [{"max_requests": 7, "retry_budget": {"budget_percent": {"value": 25}}}]},
        maglev_lb_config={"table_size": 251},
    )
]
LOCALITY = "localityLbSetting: {distribute: [{from: '*', to: {r1: 80, r2: 20}}]}"
MESH = list(
    yaml.safe_load_all(
        SERVICE % "  sessionAffinity: ClientIP"
        + ENDPOINTS
        + "---"
        + RULE % f"loadBalancer: {{simple: ROUND_ROBIN, {LOCALITY}}}, outlierDetection: {{interval: 5s}}"
        + "---"
        + ROUTES
    )
)
NSX = [HTTP, COOKIE, pool(), {**PERSISTENT, **server(rules=[rule(uri("(?<a>x)"), header("h", "v"))])}]


def ask_envoy(text: str) -> None:
    for found in clusters_of([SourceFile("c.json", text)]).values():
        found.for_match({"v": "1"}).pick(7)


def ask_mesh(text: str) -> None:
    mesh = mesh_of([SourceFile("m.yaml", text)])
    for backend in mesh.backends():
        backend.decide(Request(source_ip="10.0.0.9"))


def ask_nsx(text: str) -> None:
    balancer = NsxBalancer(read_objects([SourceFile("n.json", text)]))
    lint(balancer.objects)
    balancer.decide(
        Request(destination_ip="192.0.2.10", destination_port=80, source_ip="10.0.0.9", headers=[("h", "v")]), LbState()
    )


DOCUMENTS: list[tuple[str, Any, Callable[[str], None]]] = [
    ("envoy", ENVOY, ask_envoy),
    ("mesh", {"apiVersion": "v1", "kind": "List", "items": MESH}, ask_mesh),
    ("nsx", NSX, ask_nsx),
]


@pytest.mark.parametrize(("document", "ask"), [c[1:] for c in DOCUMENTS], ids=[c[0] for c in DOCUMENTS])
def test_the_documents_themselves_are_fine(document: Any, ask: Callable[[str], None]) -> None:
    ask(json.dumps(document))


@pytest.mark.parametrize(("document", "ask"), [c[1:] for c in DOCUMENTS], ids=[c[0] for c in DOCUMENTS])
@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_one_broken_place_ends_in_our_exceptions(
    document: Any, ask: Callable[[str], None], draw: random.Random
) -> None:
    with contextlib.suppress(MeshsieveError):
        ask(json.dumps(broken(document, draw)))


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_any_text_is_a_host_or_refused(text: str) -> None:
    with contextlib.suppress(MeshsieveError):
        assert Host.of(text).name


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(-2, 2**33)), max_size=5), st.integers(0, 2**64 - 1))
def test_any_split_answers_or_is_refused(pairs: list[tuple[str, int]], value: int) -> None:
    try:
        split = WeightedClusters(pairs)
    except MeshsieveError:
        return
    assert dict(pairs)[split.pick_name(value)] > 0


@given(st.lists(st.text(max_size=5)))
def test_any_text_hashes(keys: list[str]) -> None:
    assert len(hash_keys(keys)) == len(keys)
