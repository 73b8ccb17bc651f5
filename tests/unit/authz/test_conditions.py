"""Conditions beyond Istio: policies of our own group with a CEL expression."""

from __future__ import annotations

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from tests.unit.authz.test_policies import by, policy, to

MONDAY = 1_704_067_200 * 10**9  # 2024-01-01T00:00:00Z
REQUEST = Request(authority="h", path="/a", claims={"sub": "alice", "groups": ["dev"]}, time_ns=MONDAY)


def conditional(action, condition, name="c", **rule):
    spec = {"action": action, "rules": [{**rule, "condition": condition}]}
    return {**policy(spec, name), "apiVersion": "meshsieve.io/v1"}


CASES = [
    #  what it shows                    action   condition                                   attributes     by
    ("a user", "ALLOW", "user.id == 'alice'", {}, "ALLOW"),
    ("the user whom the caller names", "ALLOW", "user.id == 'bob'", {"user": {"id": "bob"}}, "ALLOW"),
    ("a group", "ALLOW", "'dev' in user.groups", {}, "ALLOW"),
    ("a data label", "DENY", "data.classification == 'secret'", {"data": {"classification": "secret"}}, "DENY"),
    ("another data label", "DENY", "data.classification == 'secret'", {"data": {"classification": "a"}}, "default"),
    ("no data label: DENY fails closed", "DENY", "data.classification == 'secret'", {}, "DENY"),
    ("no data label: ALLOW fails closed", "ALLOW", "data.classification == 'a'", {}, "no-allow-policy-matched"),
    ("office hours", "DENY", "request.time.getHours('Europe/Berlin') < 8", {}, "DENY"),
    ("a weekday", "ALLOW", "request.time.getDayOfWeek() in [1, 2, 3, 4, 5]", {}, "ALLOW"),
    ("labels of the callee", "ALLOW", "dst.labels.app == 'web'", {}, "ALLOW"),
    ("labels of the caller", "ALLOW", "src.labels.app == 'x'", {"src": {"labels": {"app": "x"}}}, "ALLOW"),
]  # fmt: skip


@pytest.mark.parametrize(("says", "action", "condition", "attributes", "by_"), CASES, ids=[row[0] for row in CASES])
def test_conditions(says, action, condition, attributes, by_):
    az = from_kubernetes([conditional(action, condition)])
    place = {"namespace": "foo", "labels": {"app": "web"}}
    assert az.decide(REQUEST, place, attributes=attributes).by == by_


def test_a_condition_is_one_more_thing_that_has_to_hold():
    az = from_kubernetes([conditional("ALLOW", "user.id == 'alice'", **to(methods=["PUT"]))])
    decision = az.decide(REQUEST)
    assert decision.nearest == "would be allowed by ns[foo]-policy[c]-rule[0] if method were PUT"
    az = from_kubernetes([conditional("ALLOW", "user.id == 'bob'", **by(requestPrincipals=["*"]))])
    assert az.decide(REQUEST, attributes={}).by == "no-allow-policy-matched"


def test_istio_and_own_policies_stand_side_by_side():
    az = from_kubernetes([policy({"rules": [{}]}), conditional("DENY", "user.id == 'alice'")])
    assert az.decide(REQUEST).rule == "ns[foo]-policy[c]-rule[0]"


def test_refused():
    with pytest.raises(PolicyError, match="unknown field"):
        from_kubernetes([{**conditional("ALLOW", "true"), "apiVersion": "security.istio.io/v1"}])
    with pytest.raises(PolicyError, match="no attribute 'foo'"):
        from_kubernetes([conditional("ALLOW", "foo")])
    with pytest.raises(PolicyError, match="has the name of the one at"):
        from_kubernetes([policy({"rules": [{}]}, "c"), conditional("ALLOW", "true")])
