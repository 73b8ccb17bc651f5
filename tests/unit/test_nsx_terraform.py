"""Terraform state of the nsxt provider gives the rules that the same objects give as Policy API JSON."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from meshsieve.errors import PolicyError
from meshsieve.importers import load_policy
from meshsieve.importers.nsx import NsxImporter
from meshsieve.policy import ImportOptions, ImportResult, SourceFile

Json = dict[str, Any]

INVENTORY: Json = {
    "virtual_machines": [
        {"external_id": "a", "display_name": "web-a", "os_name": "Linux", "tags": [{"scope": "tier", "tag": "web"}]},
        {"external_id": "b", "display_name": "db-b", "os_name": "Linux", "tags": []},
    ],
    "vifs": [
        {"external_id": "va", "owner_vm_id": "a", "ip_address_info": [{"ip_addresses": ["10.0.0.1"]}]},
        {"external_id": "vb", "owner_vm_id": "b", "ip_address_info": [{"ip_addresses": ["10.0.0.2"]}]},
    ],
}
WEB = "/infra/domains/default/groups/web"
OWN = "/infra/services/own"
POLICY = "/infra/domains/default/security-policies/app"


def condition(key: str, operator: str, value: str) -> Json:
    return {"key": key, "member_type": "VirtualMachine", "operator": operator, "value": value}


TERRAFORM: list[tuple[str, Json]] = [
    (
        "nsxt_policy_group",
        {
            "id": "web", "nsx_id": "web", "path": WEB, "display_name": "web", "description": "", "domain": "default",
            "revision": 3, "tag": [], "group_type": "", "context": [], "extended_criteria": [],
            "criteria": [
                {
                    "condition": [condition("Tag", "EQUALS", "tier|web"), condition("OSName", "STARTSWITH", "Lin")],
                    "ipaddress_expression": [], "macaddress_expression": [], "external_id_expression": [],
                    "path_expression": [],
                },
                {"condition": [], "ipaddress_expression": [{"ip_addresses": ["192.0.2.0/24"]}]},
                {"external_id_expression": [{"member_type": "VirtualMachine", "external_ids": ["b"]}]},
            ],
            "conjunction": [{"operator": "OR"}, {"operator": "AND"}],
        },
    ),
    (
        "nsxt_policy_service",
        {
            "id": "own", "path": OWN, "display_name": "own", "revision": 0, "tag": None,
            "l4_port_set_entry": [
                {"display_name": "x", "description": "", "protocol": "TCP", "destination_ports": ["80"],
                 "source_ports": []}
            ],
            "icmp_entry": [{"display_name": "", "protocol": "ICMPv4", "icmp_type": "3", "icmp_code": ""}],
            "igmp_entry": [], "ether_type_entry": [], "ip_protocol_entry": [{"protocol": 47}],
            "algorithm_entry": [{"algorithm": "TFTP", "destination_port": "69", "source_ports": []}],
            "nested_service_entry": [{"nested_service_path": "/infra/services/HTTPS"}],
        },
    ),
    (
        "nsxt_policy_security_policy",
        {
            "id": "app", "nsx_id": "app", "path": POLICY, "display_name": "app", "category": "Application",
            "comments": "", "context": [], "description": "", "domain": "default", "locked": False, "revision": 1,
            "scope": [], "sequence_number": 4, "stateful": True, "tcp_strict": False, "tag": [],
            "rule": [
                {
                    "display_name": "one", "description": "", "notes": "", "nsx_id": "one",
                    "path": f"{POLICY}/rules/one",
                    "rule_id": 1001, "revision": 0, "sequence_number": 10, "tag": [], "log_label": "x", "logged": True,
                    "action": "ALLOW", "direction": "OUT", "disabled": False, "ip_version": "IPV4",
                    "source_groups": [WEB], "sources_excluded": True, "destination_groups": ["10.0.0.0/8"],
                    "destinations_excluded": False, "services": [OWN], "profiles": [], "scope": [WEB],
                    "service_entries": [
                        {"l4_port_set_entry": [{"protocol": "UDP", "destination_ports": ["53"], "source_ports": None}]}
                    ],
                },
                {"display_name": "two", "nsx_id": "two", "action": "REJECT", "ip_version": "NONE", "services": None},
            ],
        },
    ),
]  # fmt: skip
API: list[Json] = [
    {
        "resource_type": "Group", "path": WEB,
        "expression": [
            {
                "resource_type": "NestedExpression",
                "expressions": [
                    {"resource_type": "Condition", **condition("Tag", "EQUALS", "tier|web")},
                    {"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"},
                    {"resource_type": "Condition", **condition("OSName", "STARTSWITH", "Lin")},
                ],
            },
            {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"},
            {"resource_type": "IPAddressExpression", "ip_addresses": ["192.0.2.0/24"]},
            {"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"},
            {"resource_type": "ExternalIDExpression", "member_type": "VirtualMachine", "external_ids": ["b"]},
        ],
    },
    {
        "resource_type": "Service", "path": OWN,
        "service_entries": [
            {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["80"]},
            {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv4", "icmp_type": 3},
            {"resource_type": "IPProtocolServiceEntry", "protocol_number": 47},
            {"resource_type": "ALGTypeServiceEntry", "alg": "TFTP", "destination_ports": ["69"]},
            {"resource_type": "NestedServiceServiceEntry", "nested_service_path": "/infra/services/HTTPS"},
        ],
    },
    {
        "resource_type": "SecurityPolicy", "path": POLICY, "category": "Application", "sequence_number": 4,
        "tcp_strict": False,
        "rules": [
            {
                "id": "one", "path": f"{POLICY}/rules/one", "display_name": "one", "rule_id": 1001, "action": "ALLOW",
                "direction": "OUT", "ip_protocol": "IPV4", "source_groups": [WEB], "sources_excluded": True,
                "destination_groups": ["10.0.0.0/8"], "services": [OWN], "scope": [WEB], "sequence_number": 10,
                "logged": True,
                "service_entries": [
                    {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "UDP", "destination_ports": ["53"]}
                ],
            },
            {"display_name": "two", "action": "REJECT"},
        ],
    },
]  # fmt: skip


def state(resources: list[tuple[str, Json]]) -> Json:
    return {
        "version": 4,
        "terraform_version": "1.9.5",
        "resources": [
            {"mode": "managed", "type": kind, "name": "x", "instances": [{"schema_version": 0, "attributes": values}]}
            for kind, values in resources
        ],
    }


def shown(resources: list[tuple[str, Json]], key: str = "values") -> Json:
    """The output of ``terraform show -json``, half of it in a module."""
    listed = [{"mode": "managed", "type": kind, "values": values} for kind, values in resources]
    data = {"mode": "data", "type": "nsxt_policy_service", "values": {"path": "/infra/services/other"}}
    module = {"resources": listed[1:], "child_modules": []}
    root = {"resources": [data, *listed[:1]], "child_modules": [{"child_modules": [module]}]}
    return {"format_version": "1.0", "terraform_version": "1.9.5", key: {"root_module": root}}


def load(*files: Any, strict: bool = True) -> ImportResult:
    sources = [SourceFile(f"{i}.json", json.dumps(f, indent=1)) for i, f in enumerate([*files, INVENTORY])]
    return NsxImporter().load(sources, ImportOptions(strict=strict))


def rules(result: ImportResult) -> list[Any]:
    return [(r.name, r.match, r.alternatives, r.action, r.log, r.source.obj) for r in result.layers[0].points[0].rules]


@pytest.mark.parametrize("document", [state(TERRAFORM), shown(TERRAFORM), shown(TERRAFORM, "planned_values")])
def test_terraform_says_what_the_api_says(document: Json, tmp_path: Any) -> None:
    found = load(document)
    assert rules(found) == rules(load(API))
    assert len(rules(found)) == 2
    one = next(rule for rule in found.layers[0].points[0].rules if rule.name == "one")
    assert one.source.file == "0.json"
    assert '"display_name": "one"' in json.dumps(document, indent=1).splitlines()[one.source.line]
    path = tmp_path / "state.json"
    path.write_text(json.dumps([document, INVENTORY]))
    assert rules(load_policy([path])) == rules(found)


def test_a_rule_by_itself_joins_its_policy() -> None:
    policy = {k: v for k, v in TERRAFORM[2][1].items() if k != "rule"}
    single = [{**rule, "policy_path": POLICY} for rule in TERRAFORM[2][1]["rule"]]
    split = [
        *TERRAFORM[:2],
        ("nsxt_policy_parent_security_policy", policy),
        *(("nsxt_policy_security_policy_rule", rule) for rule in single),
    ]
    assert [r[:4] for r in rules(load(state(split)))] == [r[:4] for r in rules(load(API))]


def changed(index: int, **values: Any) -> Json:
    resources = copy.deepcopy(TERRAFORM)
    resources[index][1].update(values)
    return state(resources)


REFUSED = [
    ("an unknown attribute of a policy", changed(2, priority=1), "a field 'priority'"),
    ("an unknown attribute of a rule", changed(2, rule=[{"display_name": "x", "action": "DROP", "port": 1}]), "'port'"),
    ("an unknown attribute of a group", changed(0, members=["x"]), "a field 'members'"),
    ("an unknown entry of a service", changed(1, quic_entry=[{}]), "a field 'quic_entry'"),
    ("an unknown kind of criteria", changed(0, criteria=[{"pod_expression": [{}]}], conjunction=[]), "pod_expression"),
    ("a conjunction too few", changed(0, conjunction=[]), "joined by 0 conjunctions"),
    ("an identity group", changed(0, extended_criteria=[{"identity_group": [{}]}]), "identity group"),
    ("an ICMP type that is none", changed(1, icmp_entry=[{"protocol": "ICMPv4", "icmp_type": "echo"}]), "icmp_type"),
    ("an unknown resource", state([("nsxt_policy_distributed_flood_protection_profile", {"path": "x"})]),
     "nsxt_policy_distributed_flood_protection_profile"),
    ("a document without resources", {"terraform_version": "1.9.5", "format_version": "1.0"}, "without resources"),
    (
        "a plan that does not know the sources yet",
        {**shown(TERRAFORM, "planned_values"), "resource_changes": [
            {"address": "p", "type": "nsxt_policy_security_policy",
             "change": {"after_unknown": {"id": True, "rule": [{"rule_id": True}, {"source_groups": True}]}}}]},
        "the plan does not know 'source_groups' yet",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("what", "document", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_could_change_the_meaning_is_refused(what: str, document: Json, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load(document)
    assert message in str(caught.value)
    assert caught.value.where.startswith("0.json:")


def test_an_unknown_attribute_leaves_its_rule_undecided_in_a_lenient_import() -> None:
    odd = [{"display_name": "odd", "action": "ALLOW", "port": 1}, {"display_name": "next", "action": "DROP"}]
    found = load(changed(2, rule=odd), strict=False)
    assert [(r.name, r.certain) for r in found.layers[0].points[0].rules] == [("odd", False), ("next", True)]


def test_gateway_resources_are_named_and_routers_passed_over() -> None:
    ids = ("nsxt_policy_intrusion_service_policy", {"path": "i"})
    found = load(state([*TERRAFORM, ids, ("nsxt_policy_tier1_gateway", {"path": "t"}), ("aws_vpc", {})]))
    (note,) = [d for d in found.diagnostics if d.code == "not-evaluated"]
    assert "IdsSecurityPolicy" in note.message


def test_gateways_nat_and_profiles_are_those_of_the_api() -> None:
    nat = {
        "path": "/infra/tier-1s/t/nat/USER/nat-rules/n",
        "display_name": "n",
        "action": "DNAT",
        "destination_networks": ["203.0.113.5"],
        "translated_networks": ["10.0.0.1"],
        "rule_priority": 100,
        "gateway_path": "/infra/tier-1s/t",
        "firewall_match": "MATCH_INTERNAL_ADDRESS",
        "enabled": True,
    }
    rule = {
        "display_name": "g",
        "action": "DROP",
        "scope": ["/infra/tier-1s/t"],
        "ip_version": "IPV4_IPV6",
        "profiles": ["/infra/context-profiles/c"],
    }
    profile = {
        "path": "/infra/context-profiles/c",
        "display_name": "c",
        "app_id": [{"value": ["SSL"], "description": "x", "sub_attribute": [{"tls_version": ["TLS_V12"]}]}],
    }
    gateway_policy = {
        "path": "/infra/domains/default/gateway-policies/p",
        "display_name": "p",
        "rule": [rule],
        "category": "LocalGatewayRules",
        "sequence_number": 1,
    }
    found = load(
        state(
            [
                *TERRAFORM,
                ("nsxt_policy_tier1_gateway", {"path": "/infra/tier-1s/t", "display_name": "t"}),
                ("nsxt_policy_nat_rule", nat),
                ("nsxt_policy_gateway_policy", gateway_policy),
                ("nsxt_policy_context_profile", profile),
            ]
        )
    )
    points = {p.name: p for layer in found.layers for p in layer.points}
    (rewrite,) = points["t down dnat"].rewrites.values()
    assert rewrite.touches == {"dst_ip"}
    (firewall,) = points["t down firewall"].rules
    assert (firewall.name, firewall.action.name) == ("g", "REJECT")
    assert {*firewall.match, *firewall.alternatives[0]} == {"app", "tls_version"}


def plan(source_groups: Any, after_unknown: Json, references: list[str]) -> Json:
    rule = {"display_name": "r", "action": "DROP", "destination_groups": ["10.0.0.2"], "ip_version": "IPV4_IPV6"}
    if source_groups is not None:
        rule["source_groups"] = source_groups
    resources = [
        {
            "address": "nsxt_policy_group.cats",
            "mode": "managed",
            "type": "nsxt_policy_group",
            "name": "cats",
            "values": {
                "display_name": "cats",
                "criteria": [{"ipaddress_expression": [{"ip_addresses": ["10.0.0.1"]}]}],
            },
        },
        {
            "address": "nsxt_policy_security_policy.p",
            "mode": "managed",
            "type": "nsxt_policy_security_policy",
            "name": "p",
            "values": {"display_name": "p", "category": "Application", "rule": [rule]},
        },
    ]
    expressions = {"rule": [{"source_groups": {"references": references}}]}
    return {
        "terraform_version": "1.9.0",
        "planned_values": {"root_module": {"resources": resources}},
        "resource_changes": [
            {
                "address": "nsxt_policy_security_policy.p",
                "type": "nsxt_policy_security_policy",
                "change": {"after_unknown": {"path": True, "rule": [after_unknown]}},
            }
        ],
        "configuration": {
            "root_module": {
                "resources": [
                    {
                        "address": "nsxt_policy_security_policy.p",
                        "type": "nsxt_policy_security_policy",
                        "name": "p",
                        "expressions": expressions,
                    }
                ]
            }
        },
    }


CATS = ["nsxt_policy_group.cats.path", "nsxt_policy_group.cats"]


@pytest.mark.parametrize(
    ("given", "unknown", "references"),
    [
        (None, {"source_groups": True, "rule_id": True}, CATS),
        ([None], {"source_groups": [True]}, CATS),
        ([None, "10.0.0.9"], {"source_groups": [True, False]}, CATS),
    ],
)
def test_a_plan_knows_what_its_configuration_refers_to(given: Any, unknown: Json, references: list[str]) -> None:
    rules = load(plan(given, unknown, references)).layers[0].points[0].rules
    assert rules[0].match["src_ip"].contains(0x0A000001)
    assert not rules[0].match["src_ip"].contains(0x0A000003)


@pytest.mark.parametrize("references", [[], ["var.groups"], ["nsxt_policy_group.dogs.path", "nsxt_policy_group.dogs"]])
def test_a_plan_that_leaves_a_source_open_is_refused(references: list[str]) -> None:
    with pytest.raises(PolicyError, match="does not know 'source_groups' yet"):
        load(plan(None, {"source_groups": True}, references))
