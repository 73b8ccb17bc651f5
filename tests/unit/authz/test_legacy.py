"""Roles and bindings of Istio's 2019 API."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from tests.unit.authz.test_policies import allow, policy, to

HOST = "products.shop.svc.cluster.local"
WEB = "cluster.local/ns/shop/sa/web"


def obj(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "rbac.istio.io/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "shop"},
            "spec": spec}  # fmt: skip


def config(mode: str = "ON", **target: Any) -> dict[str, Any]:
    return obj("ClusterRbacConfig", "default", {"mode": mode, **target})


def role(*rules: dict[str, Any], name: str = "viewer") -> dict[str, Any]:
    return obj("ServiceRole", name, {"rules": list(rules)})


def binding(*subjects: dict[str, Any], name: str = "viewer") -> dict[str, Any]:
    ref = {"kind": "ServiceRole", "name": name}
    return obj("ServiceRoleBinding", f"bind-{name}-{len(subjects)}", {"subjects": list(subjects), "roleRef": ref})


def service(name: str = "products") -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


PLACE = {"namespace": "shop", "labels": {"app": "products", "version": "v2"}}
REQUEST = Request(authority="h", path="/products/1", principal=WEB, source_ip="10.0.0.1", destination_port=80,
                  headers={"x-a": "1"}, claims={"iss": "i", "sub": "s", "groups": ["dev"]})  # fmt: skip
ALL = {"services": ["*"]}
ANYBODY = {"user": "*"}
GET = {**ALL, "methods": ["GET"]}

CASES = [
    #  what it shows                     objects                                              allowed
    ("no configuration guards nothing", [], True),
    ("OFF guards nothing", [config("OFF")], True),
    ("ON denies by default", [config()], False),
    ("a role without binding allows nobody", [config(), role(ALL)], False),
    ("a role with a binding", [config(), role(ALL), binding(ANYBODY)], True),
    ("included by service", [config("ON_WITH_INCLUSION", inclusion={"services": [HOST]})], False),
    ("included by namespace", [config("ON_WITH_INCLUSION", inclusion={"namespaces": ["shop"]})], False),
    ("not included", [config("ON_WITH_INCLUSION", inclusion={"namespaces": ["other"]})], True),
    ("excluded by service", [config("ON_WITH_EXCLUSION", exclusion={"services": [HOST]})], True),
    ("not excluded", [config("ON_WITH_EXCLUSION", exclusion={"namespaces": ["other"]})], False),
    ("a service by name", [config(), role({"services": [HOST]}), binding(ANYBODY)], True),
    ("another service", [config(), role({"services": ["cart.shop.svc.cluster.local"]}), binding(ANYBODY)], False),
    ("a service's prefix", [config(), role({"services": ["prod*"]}), binding(ANYBODY)], True),
    ("a service's suffix", [config(), role({"services": ["*.shop.svc.cluster.local"]}), binding(ANYBODY)], True),
    ("a method", [config(), role(GET), binding(ANYBODY)], True),
    ("another method", [config(), role({**ALL, "methods": ["PUT"]}), binding(ANYBODY)], False),
    ("a path's prefix", [config(), role({**ALL, "paths": ["/products*"]}), binding(ANYBODY)], True),
    ("another path", [config(), role({**ALL, "paths": ["*/reviews"]}), binding(ANYBODY)], False),
    ("one of two rules", [config(), role({**ALL, "methods": ["PUT"]}, GET), binding(ANYBODY)], True),
    ("a header", [config(), role({**ALL, "constraints": [{"key": "request.headers[x-a]", "values": ["1", "2"]}]}),
     binding(ANYBODY)], True),
    ("a label of the callee", [config(), role({**ALL, "constraints": [{"key": "destination.labels[version]",
     "values": ["v1", "v2"]}]}), binding(ANYBODY)], True),
    ("a label that it has not", [config(), role({**ALL, "constraints": [{"key": "destination.labels[version]",
     "values": ["v1"]}]}), binding(ANYBODY)], False),
    ("a port", [config(), role({**ALL, "constraints": [{"key": "destination.port", "values": ["81"]}]}),
     binding(ANYBODY)], False),
    ("a user", [config(), role(ALL), binding({"user": WEB})], True),
    ("another user", [config(), role(ALL), binding({"user": "x"})], False),
    ("one of two bindings", [config(), role(ALL), binding({"user": "x"}), binding({"user": "y"}, ANYBODY)], True),
    ("a namespace", [config(), role(ALL), binding({"properties": {"source.namespace": "shop"}})], True),
    ("an address", [config(), role(ALL), binding({"properties": {"source.ip": "10.0.0.0/8"}})], True),
    ("a claim", [config(), role(ALL), binding({"properties": {"request.auth.claims[groups]": "dev"}})], True),
    ("all properties of a subject", [config(), role(ALL), binding({"properties": {"source.namespace": "shop",
     "request.headers[x-a]": "2"}})], False),
    ("an AuthorizationPolicy beside it has to allow as well", [config(), role(ALL), binding(ANYBODY),
     policy(allow(to(methods=["PUT"])), namespace="shop")], False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "objects", "allowed"), CASES, ids=[row[0] for row in CASES])
def test_cases(says, objects, allowed):
    assert from_kubernetes([service(), *objects]).decide(REQUEST, PLACE).allowed is allowed


def test_the_rule_of_the_role_is_reported():
    az = from_kubernetes([service(), config(), role({**ALL, "methods": ["PUT"]}, GET), binding(ANYBODY)])
    decision = az.decide(REQUEST, PLACE)
    assert (decision.by, decision.rule) == ("ALLOW", "ns[shop]-policy[viewer]-rule[1]")
    assert az.decide_batch([REQUEST], PLACE)[1].tolist() == [1]


def test_everybody_and_everybody_with_an_identity():
    anonymous = Request(authority="h", path="/")
    everybody = from_kubernetes([config(), role(ALL), binding(ANYBODY)])
    known = from_kubernetes([config(), role(ALL), binding({"properties": {"source.principal": "*"}})])
    assert everybody.decide(anonymous, PLACE).allowed
    assert not known.decide(anonymous, PLACE).allowed
    assert known.decide(REQUEST, PLACE).allowed


REFUSED = [
    ([config("ALL")], "expected one of"),
    ([config("ON_WITH_INCLUSION")], "needs it"),
    ([config(enforcementMode="PERMISSIVE")], "only ENFORCED"),
    ([config(), role({"methods": ["GET"]})], "services: is missing"),
    ([config(), role({"services": []})], "empty list"),
    ([config(), role({**ALL, "hosts": ["a"]})], "unknown field"),
    ([config(), role({**ALL, "constraints": [{"key": "destination.user", "values": ["a"]}]})], "no constraint"),
    ([config(), role({**ALL, "constraints": [{"key": "destination.port", "values": ["x"]}]})], "no port"),
    ([config(), role(ALL), binding()], "empty list"),
    ([config(), role(ALL), binding({})], "names nobody"),
    ([config(), role(ALL), binding({"group": "a"})], "unknown field"),
    ([config(), role(ALL), binding({"properties": {"source.labels": "a"}})], "no property"),
    ([config(), binding(ANYBODY, name="nobody")], "there is no ServiceRole"),
]


@pytest.mark.parametrize(("objects", "says"), REFUSED, ids=range(len(REFUSED)))
def test_refused(objects, says):
    with pytest.raises(PolicyError) as error:
        from_kubernetes(objects)
    assert says in str(error.value)
