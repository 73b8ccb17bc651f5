"""Many requests at once get what each gets alone, in batches of any size."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

import meshsieve
from meshsieve.engine import Engine
from meshsieve.walk.answers import OWN_FACTS
from meshsieve.walk.batch import BatchWalk
from meshsieve.walk.verdict import LayerVerdict

POLICY = Path(__file__).parents[2] / "examples" / "bookinfo" / "policy"
ADDRESSES = [
    "10.10.0.11",
    "10.10.0.21",
    "10.10.0.31",
    "10.10.0.33",
    "10.10.0.41",
    "10.10.1.2",
    "10.10.2.7",
    "10.20.0.5",
]
HOSTS = [
    "reviews:9080",
    "ratings:9080",
    "details",
    "productpage.bookinfo:9080",
    "bookinfo.example",
    "nobody",
    "10.96.0.31",
]
PATHS = [
    "/",
    "/productpage",
    "/reviews/0",
    "/ratings/0?x=1",
    "/details/7",
    "/static/a.css",
    "/admin",
    "/%2e%2e/x",
    "no-slash",
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return meshsieve.load(POLICY)


def requests(n: int, seed: int) -> list[meshsieve.Request]:
    draw = random.Random(seed)
    return [
        meshsieve.Request(
            method=draw.choice(["GET", "POST", "DELETE"]),
            authority=draw.choice(HOSTS),
            path=draw.choice(PATHS),
            headers=draw.choice([{}, {"end-user": "jason"}, {"content-type": "application/grpc"}]),
            source_ip=draw.choice([*ADDRESSES, "203.0.113.7", None]),
            source_port=draw.choice([None, 40000, 41000]),
            destination_ip=draw.choice([*ADDRESSES, None]),
            destination_port=draw.choice([None, 80, 9080, 9080, 3306]),
            principal=draw.choice([None, None, "cluster.local/ns/bookinfo/sa/bookinfo-productpage"]),
        )
        for _ in range(n)
    ]


def without_request_facts(found: LayerVerdict) -> LayerVerdict:
    """Batches leave out the facts that are each request's own."""
    return replace(found, facts=tuple(f for f in found.facts if f[0] not in OWN_FACTS))


@pytest.mark.parametrize(("seed", "size", "mtls"), [(1, 1, True), (2, 7, True), (3, 300, True), (4, 300, False)])
def test_a_batch_answers_as_each_request_alone(engine: Engine, seed: int, size: int, mtls: bool) -> None:
    asked = requests(300, seed)
    walk = BatchWalk(engine.request_walk)
    for start in range(0, len(asked), size):
        part = asked[start : start + size]
        found = walk.judge(part, assume_mtls=mtls)
        for i, request in enumerate(part):
            alone = engine.judge_request(request, assume_mtls=mtls)
            together = found.verdict(i)
            assert [without_request_facts(v) for v in together.layers] == [
                without_request_facts(v) for v in _padded(alone.layers, together.layers)
            ]
            assert (found.action(i), together.action) == (alone.action, alone.action)
            decider = found.deciding(i)
            assert (decider and decider.layer) == (alone.decider and alone.decider.layer)


def _padded(alone: tuple[LayerVerdict, ...], together: tuple[LayerVerdict, ...]) -> list[LayerVerdict]:
    """Where layers 2-4 are not asked, one says so alone and each point in a batch."""
    missing = len(together) - len(alone)
    return [alone[0]] * missing + list(alone)


def test_named_ends_hold_for_every_request(engine: Engine) -> None:
    asked = [meshsieve.Request(authority="ratings:9080", path="/ratings/0", destination_port=9080)] * 3
    for found in (
        BatchWalk(engine.request_walk).judge(asked, client="bookinfo/reviews-v3", assume_mtls=True),
        engine.judge_requests(asked, client="bookinfo/reviews-v3", assume_mtls=True),
    ):
        assert [found.action(i) for i in range(3)] == ["ALLOW"] * 3
