"""Tables of a mesh: what is made when, and that every one of them answers as the linear walk does."""

from __future__ import annotations

from typing import Any

from meshsieve.authz import Authorizer, from_kubernetes
from meshsieve.request import Request

N = 12


def pod(i: int) -> dict[str, Any]:
    labels = {"app": f"a{i}", "tier": "front" if i % 2 else "back"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"p{i}", "namespace": "shop", "labels": labels}}


def policy(name: str, spec: dict[str, Any], namespace: str = "shop") -> dict[str, Any]:
    header = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    return {**header, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def mesh() -> Authorizer:
    own = [
        policy(
            f"own{i}",
            {"selector": {"matchLabels": {"app": f"a{i}"}}, "rules": [{"to": [{"operation": {"paths": [f"/{i}/*"]}}]}]},
        )
        for i in range(N)
    ]
    front = {"selector": {"matchLabels": {"tier": "front"}}, "rules": [{"to": [{"operation": {"methods": ["POST"]}}]}]}
    no_admin = {"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["*/admin"]}}]}]}
    return from_kubernetes(
        [*map(pod, range(N)), *own, policy("front", front), policy("no-admin", no_admin, "istio-system")]
    )


def requests() -> list[Request]:
    return [Request(method=m, path=p) for m in ("GET", "POST") for p in ("/0/x", "/1/x", "/11/x", "/1/admin", "/")]


def test_every_table_answers_as_the_walk_does() -> None:
    az = mesh()
    for workload in [*(f"shop/p{i}" for i in range(N)), {"namespace": "shop", "labels": {"app": "a3"}}, None]:
        allowed, rules = az.decide_batch(requests(), workload)
        for i, request in enumerate(requests()):
            wanted = az.explain(request, workload).decision
            assert az.decide(request, workload) == wanted
            assert (bool(allowed[i]), az.rules[rules[i]] if rules[i] >= 0 else None) == (wanted.allowed, wanted.rule)


def test_few_questions_do_not_wait_for_the_table_of_all_workloads() -> None:
    az = mesh()
    az.decide(requests()[0], "shop/p0")
    assert az.stats["chains"] == 1
    for i in range(N):
        az.decide(requests()[0], f"shop/p{i}")
    assert az.stats["chains"] >= N


def test_workloads_share_the_rules_that_they_share() -> None:
    az = mesh()
    for i in range(N):
        az.decide(requests()[0], f"shop/p{i}")
    shared, _ = az.tables.find(az.place("shop/p11"), False)
    assert shared.stats["rules"] == N + 2
    # no-admin, front, and one rule each
    assert shared.stats["groups"] == N + 2


def test_tables_of_many_places_given_by_hand_do_not_pile_up() -> None:
    az = mesh()
    for i in range(200):
        az.decide(requests()[0], {"namespace": "shop", "labels": {"app": f"b{i}"}})
    assert az.stats["tables"] <= 64
