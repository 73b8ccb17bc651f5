"""Envoy's RBAC configuration: what it says, what is refused, and the way there and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshsieve.authz import from_envoy, from_kubernetes
from meshsieve.authz.facts import JWT_FILTER
from meshsieve.authz.to_envoy import filter_configs
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from tests.differential.authz import PORTS, World
from tests.differential.authz_trees import Trees
from tests.differential.envoy import TYPE

ANY = [{"any": True}]
REQUEST = Request(
    method="GET",
    authority="shop.example:80",
    path="/a/b?q=1",
    headers={"x-a": ["1", "2"], "x-n": "7"},
    source_ip="10.0.0.1",
    remote_ip="192.0.2.1",
    destination_ip="10.1.0.1",
    destination_port=80,
    principal="td/ns/a/sa/b",
    claims={"iss": "me", "groups": ["dev"], "level": 3},
    sni="shop.example",
    dynamic_metadata={"f": {"k": "v", "n": 1.5, "l": ["a"]}},
    filter_state={"fs": "value", "ip": "10.0.0.9"},
)


def rbac(permissions: Any = ANY, principals: Any = ANY, action: str = "ALLOW", **policy: Any) -> dict[str, Any]:
    return {"action": action, "policies": {"p": {"permissions": permissions, "principals": principals, **policy}}}


def either(key: str, *items: Any) -> dict[str, Any]:
    return {key: {"rules" if key.endswith("rules") else "ids": list(items)}}


def header(**match: Any) -> dict[str, Any]:
    return {"header": {"name": "x-a"} | match}


def metadata(name: str, *path: str, **value: Any) -> dict[str, Any]:
    return {"metadata": {"filter": name, "path": [{"key": key} for key in path], "value": value}}


PERMISSIONS = [
    ("any", {"any": True}, True),
    ("and", either("and_rules", {"any": True}, {"destination_port": 80}), True),
    ("and with one that fails", either("and_rules", {"any": True}, {"destination_port": 81}), False),
    ("or", either("or_rules", {"destination_port": 81}, {"destination_port": 80}), True),
    ("not", {"not_rule": {"destination_port": 81}}, True),
    ("not of an and", {"not_rule": either("and_rules", {"any": True}, {"destination_port": 81})}, True),
    ("not not", {"not_rule": {"not_rule": {"any": True}}}, True),
    ("an or of a negation", either("or_rules", {"not_rule": {"destination_port": 81}}, {"destination_port": 82}), True),
    ("an or of tests and others",
     either("or_rules", {"destination_port": 81}, header(string_match={"exact": "3"}, invert_match=True)), True),
    ("an or inside an and", either("and_rules", either("or_rules", {"destination_port": 1}, {"any": True})), True),
    ("camelCase is the same", {"andRules": {"rules": [{"destinationPort": 80}]}}, True),
    ("a port range, its end not included", {"destination_port_range": {"start": 80, "end": 81}}, True),
    ("the end of a range", {"destination_port_range": {"start": 79, "end": 80}}, False),
    ("a destination", {"destination_ip": {"address_prefix": "10.1.2.3", "prefix_len": 16}}, True),
    ("a prefix length left out is 0", {"destination_ip": {"address_prefix": "99.0.0.0"}}, True),
    ("a header's line", header(string_match={"exact": "2"}), True),
    ("a header's lines are not joined", header(string_match={"exact": "1,2"}), False),
    ("an inverted header match", header(string_match={"exact": "3"}, invert_match=True), True),
    ("an inverted match of an absent header", header(name="x-z", exact_match="3", invert_match=True), False),
    ("not of a match of an absent header", {"not_rule": {"header": {"name": "x-z", "exact_match": "3"}}}, True),
    ("absence", {"header": {"name": "x-z", "present_match": False}}, True),
    ("a number in a range", {"header": {"name": "x-n", "range_match": {"start": 7, "end": 8}}}, True),
    ("the method", {"header": {"name": ":method", "string_match": {"exact": "GET"}}}, True),
    ("the raw path", {"header": {"name": ":path", "string_match": {"suffix": "?q=1"}}}, True),
    ("the authority without case",
     header(name=":authority", string_match={"prefix": "SHOP", "ignore_case": True}), True),
    ("the path without query", {"url_path": {"path": {"exact": "/a/b"}}}, True),
    ("a path's part", {"url_path": {"path": {"contains": "a/"}}}, True),
    ("a path's pattern", {"url_path": {"path": {"safe_regex": {"regex": "/a/[b-d]"}}}}, True),
    ("a template", {"uri_template": {"name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "path_template": "/{x}/b"}}}, True),
    ("a server name", {"requested_server_name": {"exact": "shop.example"}}, True),
    ("metadata, a text", metadata("f", "k", string_match={"exact": "v"}), True),
    ("metadata, a number", metadata("f", "n", double_match={"range": {"start": 1, "end": 2}}), True),
    ("metadata, an element", metadata("f", "l", list_match={"one_of": {"string_match": {"exact": "a"}}}), True),
    ("metadata that is absent", metadata("f", "z", string_match={"exact": "v"}), False),
    ("a claim that is a number", metadata(JWT_FILTER, "payload", "level", double_match={"exact": 3}), True),
    ("sourced metadata",
     {"sourced_metadata": {"metadata_matcher": metadata("f", "k", string_match={"exact": "v"})["metadata"]}}, True),
]  # fmt: skip


@pytest.mark.parametrize(("says", "permission", "holds"), PERMISSIONS, ids=[row[0] for row in PERMISSIONS])
def test_permissions(says, permission, holds):
    assert from_envoy(rbac([permission])).decide(REQUEST).allowed is holds
    assert from_envoy(rbac([{"not_rule": permission}])).decide(REQUEST).allowed is not holds


def principal_name(**match: Any) -> dict[str, Any]:
    return {"authenticated": {"principal_name": match}}


PRINCIPALS = [
    ("a name, scheme included", principal_name(exact="spiffe://td/ns/a/sa/b"), True),
    ("a pattern of names", principal_name(safe_regex={"regex": ".*/ns/a/.*"}), True),
    ("anybody who is authenticated", {"authenticated": {}}, True),
    ("the peer of the connection", {"direct_remote_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}}, True),
    ("the client behind it", {"remote_ip": {"address_prefix": "192.0.2.0", "prefix_len": 24}}, True),
    ("the client is not the peer", {"remote_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}}, False),
    ("an IPv4 address written as IPv6", {"source_ip": {"address_prefix": "::ffff:10.0.0.0", "prefix_len": 120}}, True),
    ("a claim", metadata(JWT_FILTER, "payload", "iss", string_match={"exact": "me"}), True),
    ("filter state", {"filter_state": {"key": "fs", "string_match": {"prefix": "val"}}}, True),
    ("identity in filter state",
     {"filter_state": {"key": "io.istio.peer_principal", "string_match": {"suffix": "/b"}}}, True),
    ("and", either("and_ids", {"any": True}, principal_name(suffix="/x")), False),
    ("or", either("or_ids", principal_name(suffix="/x"), principal_name(suffix="/b")), True),
    ("not", {"not_id": {"authenticated": {}}}, False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "principal", "holds"), PRINCIPALS, ids=[row[0] for row in PRINCIPALS])
def test_principals(says, principal, holds):
    assert from_envoy(rbac(principals=[principal])).decide(REQUEST).allowed is holds


def test_nobody_is_authenticated_on_plain_text():
    plain = replace(REQUEST, principal=None)
    assert not from_envoy(rbac(principals=[{"authenticated": {}}])).decide(plain).allowed
    assert from_envoy(rbac(principals=[{"not_id": {"authenticated": {}}}])).decide(plain).allowed


def call(function: str, *args: Any) -> dict[str, Any]:
    return {"call_expr": {"function": function, "args": list(args)}}


PATH_IS = call(
    "_==_",
    {"select_expr": {"operand": {"ident_expr": {"name": "request"}}, "field": "url_path"}},
    {"const_expr": {"string_value": "/a/b"}},
)
BROKEN = call("_==_", call("_/_", {"const_expr": {"int64_value": "1"}}, {"const_expr": {"int64_value": "0"}}),
              {"const_expr": {"int64_value": "1"}})  # fmt: skip


def test_a_condition_has_to_hold_as_well():
    assert from_envoy(rbac(condition=PATH_IS)).decide(REQUEST).allowed
    assert not from_envoy(rbac(condition=call("!_", PATH_IS))).decide(REQUEST).allowed
    assert from_envoy(rbac(checked_condition={"expr": PATH_IS})).decide(REQUEST).allowed
    assert from_envoy(rbac(condition="request.url_path == '/a/b'")).decide(REQUEST).allowed


def test_a_condition_that_fails_never_widens_access():
    assert not from_envoy(rbac(condition=BROKEN)).decide(REQUEST).allowed
    assert not from_envoy(rbac(condition=BROKEN, action="DENY")).decide(REQUEST).allowed
    assert from_envoy(rbac(condition=BROKEN, action="DENY"), on_error="no-match").decide(REQUEST).allowed


# Conditions that Envoy's evaluator answers otherwise than the language's definition, and with which cel_config.
ENVOYS_OWN = [
    ("concatenation of texts is off", "'a' + 'b' == 'ab'", {}, False),
    ("until it is switched on", "'a' + 'b' == 'ab'", {"enable_string_concat": True}, True),
    ("concatenation of lists is off for good", "[1] + [2] == [1, 2]", {"enable_string_concat": True}, False),
    ("string() can be switched on", "string(1) == '1'", {"enable_string_conversion": True}, True),
    ("|| gets over a division by zero", "1 / 0 == 1 || true", {}, True),
    ("but not over a key that stands twice", "{'a': 1, 'a': 2}.a == 1 || true", {}, False),
    ("nor over matches of what is no text", "source.port.matches('1') || true", {}, False),
]


@pytest.mark.parametrize(("says", "condition", "config", "allowed"), ENVOYS_OWN, ids=[row[0] for row in ENVOYS_OWN])
def test_conditions_as_envoy_evaluates_them(says, condition, config, allowed):
    rules = rbac(condition=condition)
    rules["policies"]["p"]["cel_config"] = config
    assert from_envoy(rules).decide(REQUEST).allowed is allowed


def test_filters_come_in_their_order_and_shadow_rules_are_reported():
    kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    shadow = {"@type": kind, "shadow_rules": rbac(action="DENY"), "shadow_rules_stat_prefix": "dry_"}
    filters = [
        {"name": "log", "typed_config": {"@type": kind, "rules": rbac(action="LOG")}},
        {"name": "shadow", "typed_config": shadow},
        {"name": "deny", "typed_config": {"@type": kind, "rules": rbac(action="DENY")}},
        {"name": "router", "typed_config": {"@type": TYPE + "http.router.v3.Router"}},
    ]
    az = from_envoy({"http_filters": filters})
    decision = az.decide(REQUEST)
    assert (decision.by, decision.rule, decision.audit, decision.audit_rule) == ("DENY", "p", True, "p")
    assert decision.dry_run == {"dry_shadow_engine_result": "denied", "dry_shadow_effective_policy_id": "p"}
    assert ["router" in finding.message for finding in az.diagnostics] == [True]
    assert az.decide_batch([REQUEST])[1].tolist() == [0]


def test_rules_without_policies_deny_and_a_filter_without_rules_allows():
    kind = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
    assert from_envoy({"action": "ALLOW"}).decide(REQUEST).by == "no-allow-policy-matched"
    assert from_envoy({"@type": kind}).decide(REQUEST).by == "default"


def test_a_network_filter_sees_no_http():
    kind = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
    rules = {"rules": rbac([{"url_path": {"path": {"prefix": "/"}}}]), "stat_prefix": "tcp"}
    assert not from_envoy({"@type": kind, **rules}).decide(REQUEST).allowed
    assert from_envoy({"@type": kind, "rules": rbac([{"destination_port": 80}])}).decide(REQUEST).allowed


REFUSED = [
    (rbac([]), "permissions: needs at least one item"),
    (rbac(principals=[]), "principals: needs at least one item"),
    (rbac([either("and_rules")]), "needs at least one item"),
    (rbac([{}]), "needs one of"),
    (rbac([{"any": False}]), "must equal true"),
    (rbac([{"any": True, "destination_port": 1}]), "exclude each other"),
    (rbac([{"path": "/a"}]), "no such field"),
    (rbac([{"destination_port": 65536}]), "0..65535"),
    (rbac([{"destination_port_range": {"start": 5, "end": 5}}]), "is empty"),
    (rbac([{"matcher": {"name": "x"}}]), "extensions are not read"),
    (rbac(principals=[{"custom": {"name": "x"}}]), "extensions are not read"),
    (rbac(action="PERMIT"), "expected one of ALLOW, DENY, LOG"),
    (rbac(condition=call("foo")), "no function 'foo'"),
    (rbac(condition="request.body == ''"), "body is not known here"),
    (rbac(condition="string(1) == '1'"), "enable_string_conversion"),
    (rbac(condition="[1].all(x, x > 0)"), "macros such as all and exists are switched off"),
    (rbac(condition={"ident_expr": {"name": "x"}, "const_expr": {"bool_value": True}}), "exclude each other"),
    ({"filters": []}, "holds no RBAC filter"),
    ({"virtual_hosts": []}, "expected an RBAC filter"),
]


@pytest.mark.parametrize(("config", "says"), REFUSED, ids=range(len(REFUSED)))
def test_refused(config, says):
    with pytest.raises(PolicyError) as error:
        from_envoy(config)
    assert says in str(error.value)


def test_deep_trees_are_refused():
    tree: dict[str, Any] = {"any": True}
    for _ in range(70):
        tree = {"not_rule": tree}
    with pytest.raises(PolicyError, match="nested deeper"):
        from_envoy(rbac([tree]))


def test_what_istio_makes_reads_back_to_the_same_decisions():
    world = World(5, PORTS)
    allowed = 0
    for _ in range(40):
        az = from_kubernetes(world.policies(), trust_domain_aliases=["old.example"])
        configs = filter_configs(az.chain())
        for step, config in zip(az.chain().filters, configs, strict=True):
            config["shadowRulesStatPrefix"] = step.prefix
        again = from_envoy({"filters": [{"name": "rbac", "typed_config": c} for c in configs]}, az.settings.http)
        for request in (world.request() for _ in range(20)):
            one, other = az.decide(request), again.decide(request)
            allowed += one.allowed
            assert (one.by, one.rule, one.audit_rule, one.dry_run, one.nearest is None) == (
                other.by, other.rule, other.audit_rule, other.dry_run, other.nearest is None
            )  # fmt: skip
    assert 100 < allowed < 700


@pytest.mark.parametrize("seed", range(30))
def test_a_batch_is_the_same_as_one_by_one(seed):
    trees = Trees(seed, PORTS)
    az = from_envoy(trees.rbac(network=False))
    requests = [trees.request() for _ in range(40)]
    one_by_one = [az.decide(request) for request in requests]
    allowed, rules = az.decide_batch(requests)
    assert allowed.tolist() == [d.allowed for d in one_by_one]
    assert [az.rules[i] if i >= 0 else None for i in rules] == [d.rule for d in one_by_one]
