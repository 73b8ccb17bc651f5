"""Hostile and broken input: one exception tree, no access widened, whatever stands where."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsieve.authz import from_envoy, from_kubernetes
from meshsieve.authz.lint import lint_authorization
from meshsieve.errors import MeshsieveError
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request
from tests.differential.authz import PORTS, World
from tests.differential.authz_trees import Trees
from tests.unit.authz.test_legacy import ALL, ANYBODY, binding, config, role
from tests.unit.authz.test_peer_authentication import peer
from tests.unit.authz.test_tokens import RULE, authentication

VALUES: list[Any] = [
    None, True, 0, -1, 1.5, 10**30, "", "*", "x", "\0", "{*}", "[", "*" * 100, [], {}, [None], [[]], [{}], {"a": 1},
    {"matchLabels": 1}, ["*"], "ALLOW", "é", "\ud800", [1], {"": ""},
]  # fmt: skip


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(place for key, value in items for place in places(value, (*at, key)))]


def changed(tree: Any, chance: random.Random) -> Any:
    """One value replaced, removed, or a key added."""
    tree = copy.deepcopy(tree)
    *way, key = chance.choice([place for place in places(tree) if place])
    holder = tree
    for step in way:
        holder = holder[step]
    kind = chance.random()
    if kind < 0.7:
        holder[key] = chance.choice(VALUES)
    elif kind < 0.85:
        del holder[key]
    elif isinstance(holder, dict):
        holder[chance.choice(["x", "rules", "spec", "values", "from"])] = chance.choice(VALUES)
    return tree


def objects(seed: int) -> list[dict[str, Any]]:
    others = [peer("prod", "STRICT", app="web", portLevelMtls={"80": {"mode": "DISABLE"}}), authentication(RULE),
              config(), role(ALL), binding(ANYBODY)]  # fmt: skip
    return [*World(seed, PORTS).policies(), *others]


@pytest.mark.parametrize("seed", range(12))
def test_changed_objects_are_read_or_refused(seed):
    chance = random.Random(seed)
    given_objects = objects(seed)
    refused = 0
    for _ in range(60):
        try:
            az = from_kubernetes(changed(given_objects, chance), strict=chance.random() < 0.5)
            az.decide(Request(authority="h"), {"namespace": "prod", "labels": {"app": "web"}})
        except MeshsieveError:
            refused += 1
    assert refused


@pytest.mark.parametrize("seed", range(4))
def test_changed_filters_are_read_or_refused(seed):
    chance = random.Random(seed)
    trees = Trees(seed, PORTS)
    for _ in range(100):
        config = trees.rbac(network=False)
        config["policies"]["q"] = {"permissions": [{"any": True}], "principals": [{"any": True}],
                                   "condition": "request.path == '/' && [1, 2].all(x, x > 0)"}  # fmt: skip
        with contextlib.suppress(MeshsieveError):
            from_envoy(changed(config, chance)).decide(Request(authority="h"))


@pytest.mark.parametrize("seed", range(4))
def test_lint_never_raises_for_objects_of_any_shape(seed):
    chance = random.Random(seed)
    for _ in range(30):
        try:
            store = read_objects(changed(objects(seed), chance))
        except MeshsieveError:
            continue
        assert isinstance(lint_authorization(store), list)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)
REQUESTS = st.builds(
    Request,
    method=st.text(max_size=5),
    authority=st.text(max_size=8),
    path=st.text(max_size=12),
    headers=st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4)), max_size=3).map(tuple),
    principal=st.none() | st.text(max_size=20),
    claims=st.none() | st.dictionaries(st.sampled_from(["iss", "sub", "groups", "org", "scope"]), JSON, max_size=3),
    sni=st.none() | st.text(max_size=4),
    dynamic_metadata=st.dictionaries(st.text(max_size=3), JSON, max_size=2),
)


AUTHORIZERS = [from_kubernetes(World(seed, PORTS).policies()) for seed in range(6)]


@given(st.sampled_from(AUTHORIZERS), REQUESTS)
def test_any_request_gets_an_answer(az, request):
    decision = az.decide(request)
    assert decision.allowed == (decision.action == "ALLOW")
    assert az.explain(request).decision == decision
    json.dumps(decision.to_dict())


def test_an_alias_bomb_is_refused():
    lines = ["a: &a [x, x]"]
    for last, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{last}'] * 8)}]")
    with pytest.raises(MeshsieveError, match="nodes"):
        from_kubernetes("\n".join(lines) + "\n")
