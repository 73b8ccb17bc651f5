"""NSX files: strict JSON with positions, the shapes of exports, and what hostile or half files lead to."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Limits, read_json
from meshsieve.importers.nsx import NsxImporter
from meshsieve.importers.nsx.services import predefined_services
from meshsieve.policy import ImportOptions, ImportResult, SourceFile

Json = dict[str, Any]

REFUSED = [
    ("a duplicate key", '{"a": 1,\n "a": 2}', "f.json:2:7: duplicate key 'a', first on line 1"),
    ("a duplicate key, deep", '[{"b": [{"x": "}{", "x": 1}]}]', "f.json:1:26: duplicate key 'x'"),
    ("NaN", '{"a": NaN}', "f.json:1:7: NaN is not JSON"),
    ("Infinity", '{"a": -Infinity}', "f.json:1:7: -Infinity is not JSON"),
    ("a number too large", '{"a": 1e999}', "f.json:1:7: 1e999 is too large"),
    ("a number with a leading zero", '{"a": 017}', "f.json:1:8: not valid JSON"),
    ("a number of many digits", '{"a": 123456789012345678901}', "f.json:1:7: a number of more than 20 digits"),
    ("a NUL character", '{"a": "\\u0000"}', "f.json:1:1: a text holds a NUL"),
    ("half of a surrogate pair", '{"a": ["\\ud800"]}', "f.json:1:1: a text holds a NUL character or half"),
    ("half of a surrogate pair as key", '{"\\udc00": 1}', "f.json:1:1: a text holds"),
    ("a raw control character", '{"a": "\t"}', "f.json:1:8: not valid JSON: Invalid control character"),
    ("a comment", '{"a": 1} // no', "f.json:1:10: not valid JSON: Extra data"),
    ("a trailing comma", '{"a": [1,]}', "not valid JSON"),
    ("an open object", '{"a": {', "not valid JSON"),
    ("an open text", '{"a": "' + "x" * 10_000, "not valid JSON"),
    ("brackets that do not fit", '{"a": [}]', "not valid JSON"),
    ("nothing", "", "not valid JSON"),
]


@pytest.mark.parametrize(("what", "text", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_json_refuses(what: str, text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_json(text, "f.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.json:")


@pytest.mark.parametrize(
    ("limits", "inside", "outside"),
    [
        (Limits(depth=3), '[[{"a": 1}]]', '[[[{"a": 1}]]]'),
        (Limits(nodes=4), '{"a": [1, 2]}', '{"a": [1, 2, 3]}'),
        (Limits(text=3), '["abc"]', '["abcd"]'),
        (Limits(digits=3), "[123]", "[1234]"),
        (Limits(document_bytes=6), '["é"]', '["éa"]'),
    ],
)
def test_limits_hold_at_their_edge(limits: Limits, inside: str, outside: str) -> None:
    assert read_json(inside, "f.json", limits) == json.loads(inside)
    with pytest.raises(PolicyError, match=r"more than|deeper than|limit of"):
        read_json(outside, "f.json", limits)


def test_positions_of_objects_values_and_items() -> None:
    text = '{\n "{": "}\\"",\n "list": [1,\n  {"a": null}],\n "b" : true\n}'
    found = read_json(text, "f.json")
    assert found.where() == "f.json:1:1"
    assert found.where("{") == "f.json:2:7"
    assert found.where("list") == "f.json:3:10"
    assert found.where("list", 1) == "f.json:4:3"
    assert found.where("b") == "f.json:5:8"
    assert found.where("absent") == "f.json:1:1"
    assert found["list"][1].where("a") == "f.json:4:9"
    assert found["list"][1].line == 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(json_values, st.booleans(), st.sampled_from([None, 1, "\t"]))
@settings(deadline=None)
def test_reads_what_the_standard_library_reads(value: Any, ascii_only: bool, indent: Any) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    found = read_json(text, "f.json")
    assert found == json.loads(text)
    for obj in objects_in(found):
        assert text[obj.offset] == "{"
        assert json.JSONDecoder().raw_decode(text, obj.offset)[0] == obj


def objects_in(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *(o for inner in value.values() for o in objects_in(inner))]
    return [o for inner in value for o in objects_in(inner)] if isinstance(value, list) else []


# Shapes of exports


def load(*files: Any, strict: bool = True) -> ImportResult:
    sources = [SourceFile(f"{i}.json", f if isinstance(f, str) else json.dumps(f)) for i, f in enumerate(files)]
    return NsxImporter().load(sources, ImportOptions(strict=strict))


def names(result: ImportResult) -> list[str]:
    return [rule.name for rule in result.layers[0].points[0].rules]


PATH = "/infra/domains/default/security-policies/app"
POLICY: Json = {"resource_type": "SecurityPolicy", "id": "app", "path": PATH, "category": "Application"}
RULE: Json = {"resource_type": "Rule", "id": "r", "path": f"{PATH}/rules/r", "parent_path": PATH, "action": "DROP"}
WITH_RULE = {**POLICY, "rules": [RULE]}
INFRA = {
    "resource_type": "Infra",
    "children": [
        {
            "resource_type": "ChildDomain",
            "Domain": {
                "resource_type": "Domain",
                "id": "default",
                "children": [
                    {
                        "resource_type": "ChildSecurityPolicy",
                        "SecurityPolicy": {
                            **POLICY,
                            "children": [{"resource_type": "ChildRule", "Rule": RULE}],
                        },
                    }
                ],
            },
        }
    ],
}
REFERENCE = {
    "resource_type": "Infra",
    "children": [
        {
            "resource_type": "ChildResourceReference",
            "id": "default",
            "target_type": "Domain",
            "children": [{"resource_type": "ChildSecurityPolicy", "SecurityPolicy": WITH_RULE}],
        }
    ],
}
SHAPES: list[tuple[str, list[Any]]] = [
    ("a single object", [WITH_RULE]),
    ("a bare list", [[WITH_RULE]]),
    ("an answer", [{"results": [WITH_RULE], "result_count": 1, "sort_ascending": True}]),
    ("a hierarchical body", [INFRA]),
    ("a hierarchical body by reference", [REFERENCE]),
    ("an inventory dump", [{"domains": [{"display_name": "d", "resources": {"security_policies": [WITH_RULE]}}]}]),
    ("an inventory dump whose lists are null", [{"virtual_machines": None, "segments": None,
                                                 "domains": [{"resources": {"security_policies": [WITH_RULE],
                                                                            "groups": None}}]}]),
    ("rules in an answer of their own", [[POLICY], {"results": [RULE], "result_count": 1}]),
    ("rules that come before their policy", [{"results": [RULE]}, [POLICY]]),
    ("the same answer twice", [[WITH_RULE], [WITH_RULE]]),
    ("a list without rules, then the policy", [[POLICY], WITH_RULE]),
    ("the policy, then a list without rules", [WITH_RULE, [POLICY]]),
    ("without resource_type", [[{k: v for k, v in WITH_RULE.items() if k != "resource_type"}]]),
    ("a byte order mark", ["\ufeff" + json.dumps(WITH_RULE)]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "files"), SHAPES, ids=[row[0] for row in SHAPES])
def test_every_shape_gives_the_same_rule_once(what: str, files: list[Any]) -> None:
    result = load(*files)
    assert names(result) == ["r"]
    assert str(result.layers[0].points[0].rules[0].source).endswith(f" {PATH}/rules/r")
    assert all(NsxImporter().sniff(SourceFile("x", f if isinstance(f, str) else json.dumps(f))) for f in files)


@pytest.mark.parametrize(
    "text", ["", "*filter\nCOMMIT\n", '{"kind": "Pod"}', "a: 1", '@10.0.0.0/8 "resource_type"', "[]", "{"]
)
def test_other_formats_are_not_recognised(text: str) -> None:
    assert not NsxImporter().sniff(SourceFile("x", text))


GROUP: Json = {"resource_type": "Group", "path": "g"}


def inside(child: Json) -> Json:
    return {"resource_type": "Infra", "children": [child]}


HALF = [
    ("two different policies of one path", [[WITH_RULE], [{**WITH_RULE, "category": "Environment"}]], "defined twice"),
    ("two versions of a policy's rules", [[WITH_RULE], [{**WITH_RULE, "rules": [{**RULE, "action": "ALLOW"}]}]],
     "defined twice"),
    ("two different groups of one path", [[GROUP], [{**GROUP, "expression": []}]], "defined twice"),
    ("two different machines of one id", [{"virtual_machines": [{"external_id": "a"},
                                                                {"external_id": "a", "display_name": "b"}]}],
     "defined twice"),
    ("two different interfaces of one id", [{"vifs": [{"external_id": "v", "owner_vm_id": "a"},
                                                      {"external_id": "v", "owner_vm_id": "b"}],
                                             "virtual_machines": []}], "defined twice"),
    ("rules without their policy", [{"results": [RULE]}], "the policy"),
    ("a missing page", [{"results": [WITH_RULE], "result_count": 2, "cursor": "x"}], "the files hold fewer"),
    ("an unknown kind", [[{"resource_type": "Firewall"}]], "kind 'Firewall'"),
    ("an unknown child", [inside({"resource_type": "ChildFirewall", "Firewall": {}})], "kind 'Firewall'"),
    ("a child that holds nothing", [inside({"resource_type": "ChildGroup"})], "holds no object 'Group'"),
    ("an unknown list of a dump", [{"virtual_machines": [], "firewalls": []}], "a field 'firewalls'"),
    ("an unknown field of a domain", [{"domains": [{"rules": [], "resources": {}}]}], "a field 'rules'"),
    ("an object that could be anything", [[{"id": "x"}]], "cannot tell which kind"),
    ("a list of texts", [["x"]], "holds something else"),
    ("a text", ['"x"'], "not an NSX object"),
    ("an unknown category", [{**POLICY, "category": "Local"}], "SecurityPolicy.category is 'Local'"),
    ("a project's policy", [{**POLICY, "path": "/orgs/default/projects/p/domains/default/security-policies/app"}],
     "of that project only"),
    ("a sequence number that is none", [{**POLICY, "sequence_number": "1"}], "must be a whole number"),
    ("a rule's sequence number below 0", [{**POLICY, "rules": [{**RULE, "sequence_number": -1}]}], "whole number"),
    ("a machine without identity", [{"virtual_machines": [{"display_name": "x"}]}], "has no external_id"),
    ("an interface without owner", [{"vifs": [{"mac_address": "x"}], "virtual_machines": []}], "has no owner_vm_id"),
    ("an address that is none", [{"virtual_machines": [],
                                  "vifs": [{"owner_vm_id": "x",
                                            "ip_address_info": [{"ip_addresses": ["10.0.0.999"]}]}]}],
     "'10.0.0.999' is not an address"),
    ("an exclusion of nobody", [WITH_RULE, {"resource_type": "PolicyExcludeList", "members": ["/infra/x"]}],
     "the exclusion list names '/infra/x'"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "files", "message"), HALF, ids=[row[0] for row in HALF])
def test_half_and_contradictory_files_are_refused(what: str, files: list[Any], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(*files)
    assert message in str(caught.value)


@pytest.mark.parametrize("what", ["an unknown category", "a sequence number that is none", "a missing page"])
def test_what_cannot_be_placed_is_refused_in_lenient_imports_too(what: str) -> None:
    files = next(row[1] for row in HALF if row[0] == what)
    with pytest.raises(PolicyError):
        load(*files, strict=False)


def test_a_projects_policy_is_undecided_in_a_lenient_import() -> None:
    path = "/orgs/default/projects/p/domains/default/security-policies/app"
    result = load({**WITH_RULE, "path": path}, strict=False)
    assert [rule.certain for rule in result.layers[0].points[0].rules] == [False]


def deleted(body: Json, *where: Any) -> Json:
    """The body with ``marked_for_delete`` on the child that the keys lead to."""
    body = copy.deepcopy(body)
    child: Any = body
    for key in where:
        child = child[key]
    child["marked_for_delete"] = True
    return body


DOMAIN = ("children", 0)
POLICY_CHILD = (*DOMAIN, "Domain", "children", 0)
RULE_CHILD = (*POLICY_CHILD, "SecurityPolicy", "children", 0)


@pytest.mark.parametrize(
    "where", [DOMAIN, POLICY_CHILD, RULE_CHILD, (*POLICY_CHILD, "SecurityPolicy"), (*RULE_CHILD, "Rule")]
)
def test_what_a_body_deletes_takes_no_part(where: tuple[Any, ...]) -> None:
    assert names(load(deleted(INFRA, *where))) == []


@pytest.mark.parametrize(
    "group",
    [
        {"path": "g", "expression": [{"resource_type": "PathExpression", "paths": ["s"]}]},
        {"path": "g", "segment_members": [{"path": "s"}]},
        {"path": "g", "vm_members": [{"id": "a"}]},
    ],
)
def test_members_without_an_inventory_are_not_nobody(group: Json) -> None:
    policy = {**POLICY, "rules": [{**RULE, "source_groups": ["g"]}]}
    dump = {"segments": [{"path": "s"}], "domains": [{"resources": {"groups": [group], "security_policies": [policy]}}]}
    with pytest.raises(PolicyError, match=r"is in no file|no inventory") as caught:
        load(dump)
    assert "/api/v1/fabric/virtual-machines" in caught.value.hint


def test_services_contain_each_other() -> None:
    services = [
        {
            "resource_type": "Service",
            "path": f"/infra/services/{a}",
            "service_entries": [
                {"resource_type": "NestedServiceServiceEntry", "nested_service_path": f"/infra/services/{b}"}
            ],
        }
        for a, b in ("xy", "yx")
    ]
    with pytest.raises(PolicyError, match="/infra/services/x -> /infra/services/y -> /infra/services/x"):
        load({**POLICY, "rules": [{**RULE, "services": ["/infra/services/x"]}]}, services)


def test_a_service_of_the_load_counts_before_the_predefined_one() -> None:
    own = {"resource_type": "Service", "path": "/infra/services/HTTP", "service_entries": []}
    (rule,) = load({**POLICY, "rules": [{**RULE, "services": ["/infra/services/HTTP"]}]}, own).layers[0].points[0].rules
    assert not rule.match["proto"]


def test_the_predefined_services() -> None:
    services = predefined_services()
    assert len(services) == 412
    rules = [{**RULE, "id": str(i), "path": "", "services": [path]} for i, path in enumerate(services)]
    assert len(names(load({**POLICY, "rules": rules}))) == 412


def test_two_machines_of_one_address_are_reported() -> None:
    vifs = [{"external_id": v, "owner_vm_id": v, "ip_address_info": [{"ip_addresses": ["10.0.0.1"]}]} for v in "ab"]
    found = load({"virtual_machines": [{"external_id": v} for v in "ab"], "vifs": vifs}).diagnostics
    assert any(d.code == "duplicate-address" and "10.0.0.1 belongs to a and b" in d.message for d in found)


# Damage

WHOLE: Json = {
    "virtual_machines": [{"external_id": "a", "display_name": "a", "tags": [{"scope": "s", "tag": "t"}]}],
    "virtual_network_interface": [{"owner_vm_id": "a", "ip_address_info": [{"ip_addresses": ["10.0.0.1"]}]}],
    "segments": [{"path": "s", "segment_ports": [{"id": "p", "attachment": {"id": "x"}}]}],
    "domains": [
        {
            "resources": {
                "security_policies": [
                    {
                        **WITH_RULE,
                        "rules": [
                            {
                                **RULE,
                                "source_groups": ["g", "10.0.0.0/8"],
                                "services": ["/infra/services/HTTP"],
                                "service_entries": [
                                    {
                                        "resource_type": "L4PortSetServiceEntry",
                                        "l4_protocol": "TCP",
                                        "destination_ports": ["1-2"],
                                    }
                                ],
                                "scope": ["g"],
                            }
                        ],
                    }
                ],
                "groups": [
                    {
                        "path": "g",
                        "expression": [
                            {
                                "resource_type": "Condition",
                                "member_type": "VirtualMachine",
                                "key": "Tag",
                                "operator": "EQUALS",
                                "value": "s|t",
                            },
                            {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"},
                            {"resource_type": "IPAddressExpression", "ip_addresses": ["192.0.2.1-192.0.2.9"]},
                        ],
                        "vm_members": [{"id": "a"}],
                    }
                ],
            }
        }
    ],
    "exclude_list": {"members": ["g"]},
}
JUNK: list[Any] = [None, True, -1, 2**40, 1.5, "", "ANY", "|", "1-0", "::/129", [], [None], {}, {"resource_type": "X"}]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of the document."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


@given(st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=300, deadline=None)
def test_damage_never_gives_anything_but_an_answer_or_a_policy_error(r: random.Random, strict: bool) -> None:
    damaged = copy.deepcopy(WHOLE)
    for _ in range(r.randint(1, 3)):
        container, key = r.choice(places(damaged))
        if r.random() < 0.3:
            del container[key]
        else:
            container[key] = copy.deepcopy(r.choice(JUNK))
    text = json.dumps(damaged)
    if r.random() < 0.2:
        at = r.randrange(len(text))
        text = text[:at] + r.choice(["", '"', "{", "]", "\\", ",", "0"]) + text[at + r.randint(0, 2) :]
    with contextlib.suppress(PolicyError):
        load(text, strict=strict)
