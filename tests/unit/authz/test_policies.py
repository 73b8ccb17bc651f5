"""AuthorizationPolicy: one sentence of the specification a row."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.errors import PolicyError
from meshsieve.request import Request


def policy(spec: dict[str, Any] | None, name: str = "x", namespace: str = "foo", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": spec,
    }


def allow(*rules: Any) -> dict[str, Any]:
    return {"action": "ALLOW", "rules": list(rules)}


def deny(*rules: Any) -> dict[str, Any]:
    return {"action": "DENY", "rules": list(rules)}


def to(**operation: Any) -> dict[str, Any]:
    return {"to": [{"operation": operation}]}


def by(**source: Any) -> dict[str, Any]:
    return {"from": [{"source": source}]}


GET = Request(method="GET", path="/a", authority="h", source_ip="10.0.0.1", destination_port=80)

DECISIONS = [
    ("no policy at all lets everything pass", [], "default", None),
    ("ALLOW without rules denies everything", [policy({})], "no-allow-policy-matched", None),
    ("a missing spec is an ALLOW without rules", [policy(None)], "no-allow-policy-matched", None),
    ("ALLOW with an empty list of rules denies everything", [policy(allow())], "no-allow-policy-matched", None),
    ("a null rule keeps its number and is skipped", [policy(allow(None, {}))], "ALLOW", "ns[foo]-policy[x]-rule[1]"),
    ("an empty rule takes everything", [policy(allow({}))], "ALLOW", "ns[foo]-policy[x]-rule[0]"),
    ("DENY without rules has no effect", [policy(deny())], "default", None),
    ("DENY comes before ALLOW", [policy(allow({})), policy(deny({}), "d")], "DENY", "ns[foo]-policy[d]-rule[0]"),
]


@pytest.mark.parametrize(("says", "policies", "by", "rule"), DECISIONS, ids=[row[0] for row in DECISIONS])
def test_order(says, policies, by, rule):
    decision = from_kubernetes(policies).decide(GET)
    assert (decision.by, decision.rule) == (by, rule)
    assert decision.allowed == (by in ("ALLOW", "default"))


REFUSED = [
    ("an empty list of values is not any", allow(by(principals=[])), "from[0].source.principals"),
    ("an empty list of sources is not any", allow({"from": []}), "rules[0].from"),
    ("an empty source is not any", allow({"from": [{"source": {}}]}), "from[0]"),
    ("an unknown field of a source", allow(by(principal=["a"])), "unknown field"),
    ("an unknown field of the spec", {"rule": [{}]}, "unknown field"),
    ("an unknown action", {"action": "PERMIT"}, "spec.action"),
    ("an unknown condition key", deny({"when": [{"key": "request.body", "values": ["a"]}]}), "condition key"),
    ("an operation's name as condition key", allow({"when": [{"key": "hosts", "values": ["a"]}]}), "condition key"),
    ("a condition without values", allow({"when": [{"key": "source.ip"}]}), "values or notValues"),
    ("selector together with targetRefs", {"selector": {}, "targetRefs": [{"kind": "Gateway", "name": "g"}]}, "either"),
    ("an operator inside a path segment", allow(to(paths=["/a{*}b"])), "neither an operator nor literal"),
    ("an operator after {**}", allow(to(paths=["/{**}/{*}"])), "no operator may follow"),
    ("CUSTOM without a provider", {"action": "CUSTOM", "rules": [{}]}, "provider.name"),
]


@pytest.mark.parametrize(("says", "spec", "named"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_istio_refuses_or_nobody_could_judge_safely_is_an_error_that_says_where(says, spec, named):
    with pytest.raises(PolicyError) as error:
        from_kubernetes([policy(spec)])
    assert named in str(error.value)
    assert "AuthorizationPolicy foo/x" in str(error.value)
