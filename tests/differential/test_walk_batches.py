"""Requests by columns get what each gets alone: a batch against ``judge``, request by request.

The worlds: the bookinfo example; one with everything that a walk meets; random Envoy route configurations; the data
sets about layer 7, with pods behind every Service and Gateway. The figure of the project, 10^5 requests, takes some
minutes:

    MESHSIEVE_SHARED=DATA MESHSIEVE_REQUESTS=100000 python -m pytest tests/differential/test_walk_batches.py
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import meshsieve
from meshsieve.engine import Engine
from meshsieve.errors import MeshsieveError
from meshsieve.request import Request
from meshsieve.walk.answers import OWN_FACTS
from meshsieve.walk.batch import BatchWalk
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.verdict import LayerVerdict
from tests.differential import route_worlds
from tests.shared import shared_data
from tests.walk import worlds

REQUESTS = int(os.environ.get("MESHSIEVE_REQUESTS", "2000"))
EXAMPLES = Path(__file__).parents[2] / "examples" / "bookinfo" / "policy"
MIXED = Path(__file__).parents[1] / "walk" / "mixed.yaml"


def shared_facts(found: LayerVerdict) -> LayerVerdict:
    return replace(found, facts=tuple(f for f in found.facts if f[0] not in OWN_FACTS))


def compare(engine: Engine, requests: list[Request], *, size: int, assume_mtls: bool) -> int:
    """Every layer of every request, in batches of ``size``; the number of requests that a layer decided."""
    walk = BatchWalk(engine.request_walk)
    decided = 0
    for start in range(0, len(requests), size):
        part = requests[start : start + size]
        found = walk.judge(part, assume_mtls=assume_mtls)
        for i, request in enumerate(part):
            alone, together = engine.judge_request(request, assume_mtls=assume_mtls), found.verdict(i)
            missing = len(together.layers) - len(alone.layers)  # no connection: each point says so
            expected = [alone.layers[0]] * missing + [shared_facts(v) for v in alone.layers]
            assert list(together.layers) == expected, request
            assert found.action(i) == together.action == alone.action, request
            decider = found.deciding(i)
            assert (decider and decider.layer) == (alone.decider and alone.decider.layer), request
            decided += decider is not None
    return decided


def load(folder: Path, objects: list[worlds.Object]) -> Engine:
    path = folder / "objects.json"
    whole = {"apiVersion": "v1", "kind": "List", "items": objects}
    path.write_text(json.dumps(whole, default=lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ")))
    return meshsieve.load(path, strict=False)


@pytest.mark.parametrize("mtls", [True, False])
def test_the_example(mtls: bool) -> None:
    objects = [o for path in sorted(EXAMPLES.glob("*.yaml")) for o in worlds.documents(path.read_text())]
    requests = worlds.Draw(objects, seed=1).requests(REQUESTS // 8)
    assert compare(meshsieve.load(EXAMPLES), requests, size=100, assume_mtls=mtls)


@pytest.mark.parametrize(("size", "mtls"), [(1, True), (97, False), (10_000, True)])
def test_everything_that_a_walk_meets(tmp_path: Path, size: int, mtls: bool) -> None:
    text = MIXED.read_text().replace('"KEYS"', json.dumps(worlds.key_set()))
    objects = worlds.peopled(worlds.documents(text))
    requests = worlds.Draw(objects, seed=size).requests(REQUESTS // 8)
    engine = load(tmp_path, objects)
    assert compare(engine, requests, size=size, assume_mtls=mtls) > len(requests) // 2


def test_route_configurations() -> None:
    each = 50
    for seed in range(max(1, REQUESTS // 8 // each)):
        world = route_worlds.world(seed, each)
        try:
            router = meshsieve.routes.from_envoy(world.config)
        except MeshsieveError:
            continue
        compare(Engine([], mesh=MeshPolicy(routes=router)), world.requests, size=17, assume_mtls=False)


def test_the_data_sets(tmp_path: Path) -> None:
    sets = list(worlds.folders(shared_data("l7").parent))
    each = max(5, REQUESTS // 4 // len(sets))
    decided = asked = 0
    for number, objects in enumerate(sets):
        try:
            engine = load(tmp_path, objects)
        except MeshsieveError:
            continue
        if engine.mesh is None:
            continue
        requests = worlds.Draw(objects, seed=number).requests(each)
        decided += compare(engine, requests, size=each // 2 + 1, assume_mtls=number % 2 == 0)
        asked += each
    assert decided > asked // 4
