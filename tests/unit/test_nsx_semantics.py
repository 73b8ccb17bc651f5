"""The NSX importer decides as the spec's sentences say, where no recorded fact would notice: one case a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshsieve import packets
from meshsieve.errors import PolicyError
from meshsieve.importers.nsx import NsxImporter
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, ImportResult, SourceFile

Json = dict[str, Any]

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
OUTSIDE = "192.0.2.9"
NAMES = {A: "A", B: "B", C: "C", "2001:db8::1": "A", "2001:db8::2": "B"}


def machine(name: str, *tags: tuple[str, str], **fields: str) -> Json:
    return {"external_id": name, "display_name": name, "tags": [{"scope": s, "tag": t} for s, t in tags], **fields}


INVENTORY: Json = {
    "virtual_machines": [
        machine("A", ("tier", "Web"), os_name="Ubuntu 22", computer_name="a.example"),
        machine("B", ("tier", "db"), ("", "prod"), os_name="Windows", computer_name="b.example"),
        machine("C", os_name="Ubuntu 24", computer_name="c.example"),
    ],
    "virtual_network_interface": [
        {
            "external_id": f"vif-{name}",
            "owner_vm_id": name,
            "lport_attachment_id": f"att-{name}",
            "ip_address_info": [{"ip_addresses": [a for a, owner in NAMES.items() if owner == name]}],
        }
        for name in "ABC"
    ],
    "segments": [
        {
            "path": "/infra/segments/front",
            "display_name": "front",
            "tags": [{"scope": "net", "tag": "front"}],
            "segment_ports": [
                {"id": "pa", "attachment": {"id": "att-A"}, "tags": [{"tag": "gold"}]},
                {"id": "pb", "attachment": {"id": "att-B"}},
            ],
        }
    ],
}


def group(path: str, *expression: Json, **fields: Any) -> Json:
    return {"path": path, "expression": list(expression), **fields}


def realized(path: str, *machines: str) -> Json:
    return {"path": path, "vm_members": [{"id": m} for m in machines]}


def condition(
    value: str, key: str = "Tag", kind: str = "VirtualMachine", operator: str = "EQUALS", **more: str
) -> Json:
    out = {"resource_type": "Condition", "member_type": kind, "key": key, "operator": operator, "value": value}
    return {**out, **more}


def ips(*texts: str) -> Json:
    return {"resource_type": "IPAddressExpression", "ip_addresses": list(texts)}


def paths(*texts: str) -> Json:
    return {"resource_type": "PathExpression", "paths": list(texts)}


def external(kind: str, *ids: str) -> Json:
    return {"resource_type": "ExternalIDExpression", "member_type": kind, "external_ids": list(ids)}


def ether_type(number: int) -> Json:
    return {"resource_type": "EtherTypeServiceEntry", "ether_type": number}


def joined(operator: str) -> Json:
    return {"resource_type": "ConjunctionOperator", "conjunction_operator": operator}


def rule(name: str, action: str = "ALLOW", **fields: Any) -> Json:
    return {"display_name": name, "action": action, **fields}


def policy(*rules: Json, category: str = "Application", **fields: Any) -> Json:
    return {"display_name": "policy", "category": category, "rules": list(rules), **fields}


def l4(protocol: str, *ports: str, **fields: Any) -> Json:
    entry = {"resource_type": "L4PortSetServiceEntry", "l4_protocol": protocol, "destination_ports": list(ports)}
    return {**entry, **fields}


def load(
    policies: list[Json],
    groups: list[Json] | None = None,
    strict: bool = True,
    recompute_groups: bool = False,
    **lists: Any,
) -> ImportResult:
    everyone = [realized(name, name) for name in "ABC"]
    resources = {"security_policies": policies, "groups": [*everyone, *(groups or [])]}
    dump = {**INVENTORY, "domains": [{"display_name": "default", "resources": resources}], **lists}
    return NsxImporter().load(
        [SourceFile("dump.json", json.dumps(dump, indent=1))],
        ImportOptions(strict=strict, recompute_groups=recompute_groups),
    )


def decided(result: ImportResult, src: str, dst: str, proto: int = 6, dport: int | None = 80, **fields: int) -> str:
    """The deciding rule at each enforcement point: "name" where both agree, else "out|in"; "-" = no rule matches, "?x"
    = undecided at x, "excluded" = no filter, "" = no enforcement point."""
    (layer,) = result.layers
    fields = {"tcp_flags": 2, "sport": 40000, **fields} if proto == 6 else fields
    if dport is not None:
        fields["dport"] = dport
    answers = []
    for point in layer.points:
        vnic = next(
            (
                i
                for i, v in enumerate(layer.inventory.vnics)
                if v.machine == NAMES.get(src if point.name == "out" else dst)
            ),
            -1,
        )
        if vnic < 0:
            answers.append("")
        elif vnic in point.excluded:
            answers.append("excluded")
        else:
            table = packets.compile(point.rules)
            got = table.classify(src, dst, proto=proto, vnic=vnic, **point.constants, **fields)
            name = "-" if got == -1 else point.rules[got if got >= 0 else -got - 2].name
            answers.append(f"?{name}" if got < -1 else name)
    return answers[0] if answers[0] == answers[1] else "|".join(answers)


DROP_ALL = policy(rule("drop-all", "DROP"))
SEQUENCE = [rule("second", "DROP", sequence_number=20), rule("first", "ALLOW", sequence_number=10)]


def categories(*names: str) -> list[Json]:
    """One any-any rule in each category, the first category last in the file."""
    return [policy(rule(f"in {name or 'none'}"), category=name) for name in reversed(names)]


# (sentence of the spec, policies, (source, destination), deciding rule)
ORDER = [
    ("Emergency before Infrastructure", categories("Emergency", "Infrastructure"), "in Emergency"),
    ("Infrastructure before Environment", categories("Infrastructure", "Environment"), "in Infrastructure"),
    ("Environment before Application", categories("Environment", "Application"), "in Environment"),
    ("empty category: lowest", categories("Application", ""), "in Application"),
    (
        "policies by ascending sequence_number",
        [policy(rule("late"), sequence_number=2), policy(rule("early"), sequence_number=1)],
        "early",
    ),
    ("rules by ascending sequence_number", [policy(*SEQUENCE)], "first"),
    ("sequence_number defaults to 0", [policy(rule("numbered", sequence_number=1), rule("bare"))], "bare"),
    ("rule_id is not an order", [policy(rule("nine", rule_id=9), rule("one", rule_id=1))], "nine"),
    ("equal numbers keep input order", [policy(rule("x"), rule("y", "DROP"))], "x"),
    ("disabled rules take no part", [policy(rule("off", disabled=True), rule("on"))], "on"),
    ("marked_for_delete rules take no part", [policy(rule("off", marked_for_delete=True), rule("on"))], "on"),
    ("marked policies take no part", [policy(rule("off"), marked_for_delete=True), policy(rule("on"))], "on"),
    (
        "the default rule stays last whatever its number",
        [policy(rule("default", "DROP", is_default=True, sequence_number=0), is_default=True, sequence_number=0),
         policy(rule("other", sequence_number=9), sequence_number=9)],
        "other",
    ),
    ("the search ends also across categories", [policy(rule("env"), category="Environment"), DROP_ALL], "env"),
    (
        "JUMP_TO_APPLICATION skips the rest of Environment",
        [policy(rule("jump", "JUMP_TO_APPLICATION"), rule("env", "DROP"), category="Environment"), policy(rule("app"))],
        "app",
    ),
    ("Ethernet ALLOW only lets the frame go on", [policy(rule("l2"), category="Ethernet"), policy(rule("l3"))], "l3"),
    ("Ethernet DROP is final", [policy(rule("l2", "DROP"), category="Ethernet"), policy(rule("l3"))], "l2"),
    (
        "an EtherType that differs does not match",
        [policy(rule("arp", "DROP", service_entries=[ether_type(2054)]),
                category="Ethernet"),
         policy(rule("l3"))],
        "l3",
    ),
    (
        "an EtherType that is the frame's matches",
        [policy(rule("ip", "DROP", service_entries=[ether_type(2048)]),
                category="Ethernet"),
         policy(rule("l3"))],
        "ip",
    ),
    ("no rule matches at all: NO_MATCH", [policy(rule("other", source_groups=["C"]))], "-"),
    (
        "ALLOWLIST adds an any-any DROP behind the policy's rules, for its scope",
        [policy(rule("c", source_groups=["C"]), scope=["A"], connectivity_preference="ALLOWLIST", default_rule_id=77),
         policy(rule("rest"))],
        "77|rest",
    ),
    (
        "DENYLIST adds an any-any ALLOW",
        [policy(scope=["A", "B"], connectivity_preference="DENYLIST_ENABLE_LOGGING", default_rule_id=78), DROP_ALL],
        "78",
    ),
    (
        "the old names mean the same",
        [policy(scope=["B"], connectivity_strategy="WHITELIST", default_rule_id=79), policy(rule("rest"))],
        "rest|79",
    ),
    ("on the default policy the default rule stands for the preference",
     [policy(rule("default", is_default=True), connectivity_preference="ALLOWLIST")], "default"),
    ("an old name beside a preference of NONE counts",
     [policy(scope=["A", "B"], connectivity_preference="NONE", connectivity_strategy="WHITELIST", default_rule_id=5)],
     "5"),
    ("NONE adds nothing",
     [policy(scope=["A"], connectivity_preference="NONE", default_rule_id=1), DROP_ALL], "drop-all"),
    ("a policy's scope replaces that of its rules",
     [policy(rule("a", scope=["B"]), scope=["A"]), DROP_ALL], "a|drop-all"),
    ("a policy's scope of ANY leaves the rule's",
     [policy(rule("b", scope=["B"]), scope=["ANY"]), DROP_ALL], "drop-all|b"),
    ("an empty scope is every vNIC", [policy(rule("x", scope=[]), scope=[])], "x"),
    (
        "a group of addresses contributes no vNIC",
        [policy(rule("x", scope=["addresses"])), DROP_ALL],
        "drop-all",
    ),
    ("a segment in a scope is its ports' vNICs", [policy(rule("x", scope=["/infra/segments/front"])), DROP_ALL], "x"),
    ("direction OUT is judged at the sender only", [policy(rule("x", direction="OUT")), DROP_ALL], "x|drop-all"),
    ("direction IN is judged at the receiver only", [policy(rule("x", direction="IN")), DROP_ALL], "drop-all|x"),
    ("ip_protocol IPV4 matches IPv4", [policy(rule("x", ip_protocol="IPV4"))], "x"),
    ("ip_protocol IPV6 does not", [policy(rule("x", ip_protocol="IPV6"))], "-"),
    ("REJECT decides", [policy(rule("x", "REJECT"))], "x"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "policies", "expected"), ORDER, ids=[row[0] for row in ORDER])
def test_order_and_presence(sentence: str, policies: list[Json], expected: str) -> None:
    result = load(policies, [group("addresses", ips(A, B))])
    assert decided(result, A, B, eth_type=0x0800) == expected


ENDS = [
    ("[] is any", {"source_groups": []}, True),
    ("ANY is any, in any case", {"source_groups": ["any"]}, True),
    ("a group", {"source_groups": ["A"], "destination_groups": ["B"]}, True),
    ("another group", {"source_groups": ["B"]}, False),
    ("OR over the elements", {"source_groups": ["C", "A"]}, True),
    ("an address", {"source_groups": [A]}, True),
    ("a prefix", {"source_groups": ["10.0.0.0/31"]}, True),
    ("a prefix with host bits is its network", {"source_groups": ["10.0.0.9/24"]}, True),
    ("a range, at its end", {"source_groups": ["10.0.0.0-10.0.0.1"]}, True),
    ("a range, past its end", {"source_groups": ["10.0.0.2-10.0.0.9"]}, False),
    ("excluded: NOT of the list", {"source_groups": ["A"], "sources_excluded": True}, False),
    ("excluded: everything else", {"source_groups": ["B"], "sources_excluded": True}, True),
    ("excluded destinations", {"destination_groups": ["B", C], "destinations_excluded": True}, False),
    ("ANY excluded matches nothing", {"source_groups": ["ANY"], "sources_excluded": True}, False),
    ("an empty group matches nothing", {"source_groups": ["empty"]}, False),
    ("except an empty group is everything", {"source_groups": ["empty"], "sources_excluded": True}, True),
]


@pytest.mark.parametrize(("sentence", "fields", "matches"), ENDS, ids=[row[0] for row in ENDS])
def test_sources_and_destinations(sentence: str, fields: Json, matches: bool) -> None:
    result = load([policy(rule("x", **fields))], [realized("empty")])
    assert decided(result, A, B) == ("x" if matches else "-")


ICMP = {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv4"}
SERVICES = [
    ("no service is every protocol", {}, {"proto": 47, "dport": None}, "x"),
    ("ANY is every protocol", {"services": ["ANY"]}, {"proto": 47, "dport": None}, "x"),
    ("a predefined service", {"services": ["/infra/services/HTTP"]}, {"dport": 80}, "x"),
    ("a predefined service, port beside", {"services": ["/infra/services/HTTP"]}, {"dport": 81}, "-"),
    ("a predefined service, other protocol", {"services": ["/infra/services/HTTP"]}, {"proto": 17}, "-"),
    ("services OR inline entries", {"services": ["/infra/services/SSH"], "service_entries": [l4("UDP", "5")]},
     {"proto": 17, "dport": 5}, "x"),
    ("services OR inline entries, the service",
     {"services": ["/infra/services/SSH"], "service_entries": [l4("UDP", "5")]},
     {"dport": 22}, "x"),
    ("ANY beside inline entries: the entries win", {"services": ["ANY"], "service_entries": [l4("TCP", "5")]}, {}, "-"),
    ("a range includes its ends", {"service_entries": [l4("TCP", "79-80")]}, {}, "x"),
    ("past a range", {"service_entries": [l4("TCP", "70-79")]}, {}, "-"),
    ("empty ports are any", {"service_entries": [l4("TCP")]}, {}, "x"),
    ("source ports", {"service_entries": [l4("TCP", source_ports=["40000"])]}, {}, "x"),
    ("other source ports", {"service_entries": [l4("TCP", source_ports=["40001"])]}, {}, "-"),
    ("icmp type", {"service_entries": [{**ICMP, "icmp_type": 8}]}, {"proto": 1, "dport": None, "icmp_type": 8}, "x"),
    ("another icmp type", {"service_entries": [{**ICMP, "icmp_type": 8}]},
     {"proto": 1, "dport": None, "icmp_type": 0}, "-"),
    ("icmp code", {"service_entries": [{**ICMP, "icmp_type": 3, "icmp_code": 4}]},
     {"proto": 1, "dport": None, "icmp_type": 3, "icmp_code": 3}, "-"),
    ("ICMPv4 is not ICMPv6", {"service_entries": [ICMP]}, {"proto": 58, "dport": None}, "-"),
    ("ICMPv6", {"service_entries": [{**ICMP, "protocol": "ICMPv6"}]}, {"proto": 58, "dport": None}, "x"),
    ("IGMP", {"service_entries": [{"resource_type": "IGMPTypeServiceEntry"}]}, {"proto": 2, "dport": None}, "x"),
    ("a protocol number", {"service_entries": [{"resource_type": "IPProtocolServiceEntry", "protocol_number": 47}]},
     {"proto": 47, "dport": None}, "x"),
    ("an ALG is its control channel", {"services": ["/infra/services/FTP"]}, {"dport": 21}, "x"),
    ("TFTP is UDP", {"services": ["/infra/services/TFTP"]}, {"proto": 17, "dport": 69}, "x"),
    ("nested services", {"services": ["/infra/services/own-nested"]}, {"proto": 17, "dport": 7}, "x"),
    ("a service without entries matches nothing", {"services": ["/infra/services/own-empty"]}, {}, "-"),
    ("tcp_strict: only a SYN without ACK", {"services": ["/infra/services/HTTP"]}, {"tcp_flags": 16}, "-"),
    ("tcp_strict: SYN+ACK does not open", {"services": ["/infra/services/HTTP"]}, {"tcp_flags": 18}, "-"),
    ("tcp_strict is for rules that name TCP", {}, {"tcp_flags": 16}, "x"),
    ("ports that nobody can see leave it undecided", {"services": ["/infra/services/HTTP"]},
     {"dport": None, "fragment": 1}, "?x"),
]  # fmt: skip
OWN_SERVICES = [
    {"resource_type": "Service", "path": "/infra/services/own", "service_entries": [l4("UDP", "7")]},
    {
        "resource_type": "Service",
        "path": "/infra/services/own-nested",
        "service_entries": [
            {"resource_type": "NestedServiceServiceEntry", "nested_service_path": "/infra/services/own"}
        ],
    },
    {"resource_type": "Service", "path": "/infra/services/own-empty", "service_entries": []},
]


@pytest.mark.parametrize(("sentence", "fields", "packet", "expected"), SERVICES, ids=[row[0] for row in SERVICES])
def test_services(sentence: str, fields: Json, packet: Json, expected: str) -> None:
    result = load([policy(rule("x", **fields))], services=OWN_SERVICES)
    assert decided(result, A, B, **packet) == expected


@pytest.mark.parametrize(
    ("sentence", "fields", "expected"),
    [
        ("tcp_strict=false permits mid-session pickup", {"tcp_strict": False}, "x"),
        ("stateless policies are not strict", {"stateful": False}, "x"),
        ("stateless wins over tcp_strict", {"stateful": False, "tcp_strict": True}, "x"),
        ("strict is the default of stateful", {"stateful": True}, "-"),
    ],
)
def test_state(sentence: str, fields: Json, expected: str) -> None:
    result = load([policy(rule("x", services=["/infra/services/HTTP"]), **fields)])
    assert decided(result, A, B, tcp_flags=16) == expected


AND, OR = joined("AND"), joined("OR")
GROUPS = [
    ("a tag with its scope", [condition("tier|web")], "A"),
    ("tags are compared case-insensitively", [condition("TIER|WEB")], "A"),
    ("a tag alone leaves the scope free", [condition("web")], "A"),
    ("|tag leaves the scope free", [condition("|db")], "B"),
    ("scope| compares the scope only", [condition("tier|")], "AB"),
    ("another scope does not match", [condition("env|web")], ""),
    ("scope_operator NOTEQUALS applies to the scope", [condition("env|web", scope_operator="NOTEQUALS")], "A"),
    ("NOTEQUALS is true iff no tag matches", [condition("prod", operator="NOTEQUALS")], "AC"),
    ("CONTAINS", [condition("e", operator="CONTAINS")], "A"),
    ("STARTSWITH", [condition("pr", operator="STARTSWITH")], "B"),
    ("ENDSWITH", [condition("b", operator="ENDSWITH")], "AB"),
    ("IN: a list of values", [condition("web,prod", operator="IN")], "AB"),
    ("NOTIN", [condition("web,prod", operator="NOTIN")], "C"),
    ("MATCHES is a regular expression over the whole tag", [condition("W.b|", operator="MATCHES")], ""),
    ("MATCHES a tag, in any case", [condition("w.b", operator="MATCHES")], "A"),
    ("MATCHES a name", [condition("[AB]", "Name", operator="MATCHES")], "AB"),
    ("an empty value is not evaluated", [condition("|")], ""),
    ("an empty value leaves the rest of an AND", [condition("tier|"), AND, condition("")], "AB"),
    ("names", [condition("A", "Name")], "A"),
    ("names are case-sensitive", [condition("a", "Name")], ""),
    ("computer names", [condition("b.example", "ComputerName")], "B"),
    ("operating systems", [condition("Ubuntu", "OSName", operator="STARTSWITH")], "AC"),
    ("OR is union", [condition("web"), OR, condition("prod")], "AB"),
    ("AND is intersection", [condition("tier|"), AND, condition("prod")], "B"),
    ("AND binds tighter", [condition("web"), OR, condition("tier|"), AND, condition("prod")], "AB"),
    ("AND binds tighter, first", [condition("web"), AND, condition("prod"), OR, condition("C", "Name")], "C"),
    ("a nested expression is joined by AND",
     [{"resource_type": "NestedExpression", "expressions": [condition("tier|"), AND, condition("db")]}], "B"),
    ("external ids", [external("VirtualMachine", "C")], "C"),
    ("vif ids", [external("VirtualNetworkInterface", "vif-B")], "B"),
    ("paths to groups", [paths("A", "C")], "AC"),
    ("paths to segments", [paths("/infra/segments/front")], "AB"),
    ("paths to ports", [paths("/infra/segments/front/ports/pb")], "B"),
    ("paths to machines", [paths("/infra/realized-state/virtual-machines/C")], "C"),
    ("a segment's tag selects the machines on it", [condition("net|front", kind="Segment")], "AB"),
    ("a port's tag selects the machine at it", [condition("gold", kind="SegmentPort")], "A"),
    ("segment tag AND port tag", [condition("front", kind="Segment"), AND, condition("gold", kind="SegmentPort")], "A"),
    ("IP expressions hold addresses", [ips("10.0.0.2-10.0.0.3")], "BC"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "expression", "members"), GROUPS, ids=[row[0] for row in GROUPS])
def test_groups(sentence: str, expression: list[Json], members: str) -> None:
    result = load([policy(rule("x", source_groups=["g"]))], [group("g", *expression)])
    found = [name for a, name in ((A, "A"), (B, "B"), (C, "C")) if decided(result, a, OUTSIDE) == "x|"]
    assert "".join(found) == members


def test_the_owner_of_a_listed_address_is_no_member() -> None:
    result = load([policy(rule("x", scope=["g"])), DROP_ALL], [group("g", ips(A), OR, paths("B"))])
    assert decided(result, A, B) == "drop-all|x"


def test_realized_members_count_and_drift_is_a_finding() -> None:
    drifted = {**group("g", condition("web")), "vm_members": [{"id": "C"}]}
    result = load([policy(rule("x", source_groups=["g"]))], [drifted])
    assert decided(result, C, OUTSIDE) == "x|"
    assert decided(result, A, OUTSIDE) == "-|"
    (finding,) = [d for d in result.diagnostics if d.code == "group-drift"]
    assert "only NSX lists C" in finding.message
    assert "only the expression selects A" in finding.message


def test_recompute_groups_takes_the_expression() -> None:
    drifted = {**group("g", condition("web")), "vm_members": [{"id": "C"}]}
    result = load([policy(rule("x", source_groups=["g"]))], [drifted], recompute_groups=True)
    assert decided(result, A, OUTSIDE) == "x|"
    assert decided(result, C, OUTSIDE) == "-|"
    assert "group-drift" in {d.code for d in result.diagnostics}


def test_listed_machines_leave_the_addresses_of_the_expression() -> None:
    listed = {**group("g", condition("web"), OR, ips(OUTSIDE)), "vm_members": [{"id": "A"}]}
    result = load([policy(rule("x", source_groups=["g"]))], [listed])
    assert decided(result, OUTSIDE, B) == "|x"
    assert decided(result, A, OUTSIDE) == "x|"


def test_a_group_of_type_ip_address_matches_by_its_addresses_only() -> None:
    typed = group("g", condition("web"), OR, ips(B), group_type=["IPAddress"])
    result = load([policy(rule("x", source_groups=["g"])), policy(rule("scoped", scope=["g"])), DROP_ALL], [typed])
    assert decided(result, A, OUTSIDE) == "drop-all|"
    assert decided(result, B, OUTSIDE) == "x|"


def test_a_group_lists_itself_among_its_address_groups() -> None:
    own = {"path": "g", "group_type": ["IPAddress"], "ips_members": [A], "ip_group_members": [{"path": "g"}]}
    assert decided(load([policy(rule("x", source_groups=["g"]))], [own]), A, B) == "x"


def test_an_excluded_machine_has_no_filter_and_its_peer_has() -> None:
    result = load([DROP_ALL], exclude_list={"members": ["A"]})
    assert decided(result, A, B) == "excluded|drop-all"


def test_an_outside_end_has_no_enforcement_point() -> None:
    assert decided(load([DROP_ALL]), A, OUTSIDE) == "drop-all|"
    assert decided(load([DROP_ALL]), OUTSIDE, B) == "|drop-all"


def test_ipv6() -> None:
    v6 = {"source_groups": ["2001:db8::/127"], "destination_groups": ["B"], "ip_protocol": "IPV6"}
    result = load([policy(rule("x", **v6))])
    assert decided(result, "2001:db8::1", "2001:db8::2") == "x"
    assert decided(result, A, B) == "-"


UNDECIDED = [
    ("a context profile", {"profiles": ["/infra/context-profiles/ssl"]}, {}, "/infra/context-profiles/ssl"),
    ("a schedule", {}, {"scheduler_path": "/infra/firewall-schedulers/night"}, "/infra/firewall-schedulers/night"),
    ("an identity group", {"source_groups": ["identity"]}, {}, "identity group"),
    ("a group that is in no file", {"source_groups": ["nowhere"]}, {}, "group 'nowhere' is in no file"),
    ("a service that is in no file", {"services": ["/infra/services/nope"]}, {}, "service '/infra/services/nope'"),
    ("ANY beside a group", {"source_groups": ["ANY", "A"]}, {}, "ANY must stand alone"),
    ("an unknown action", {"action": "PERMIT"}, {}, "Rule.action is 'PERMIT'"),
    ("an unknown direction", {"direction": "BOTH"}, {}, "Rule.direction is 'BOTH'"),
    ("an unknown field", {"destination_ports": ["80"]}, {}, "a field 'destination_ports'"),
    ("a wrong type", {"sources_excluded": "yes"}, {}, "must be true or false"),
    ("an inverted port range", {"service_entries": [l4("TCP", "9-5")]}, {}, "'9-5' is not a range of ports"),
    ("a port past the last", {"service_entries": [l4("TCP", "65536")]}, {}, "'65536' is not a range of ports"),
    ("an unknown entry", {"service_entries": [{"resource_type": "X"}]}, {}, "a service entry of type 'X'"),
    ("an EtherType in an L3 rule", {"service_entries": [ether_type(1)]}, {},
     "in an Ethernet rule only"),
    ("a broken address", {"source_groups": ["10.0.0.300"]}, {}, "'10.0.0.300' is not an address"),
    ("leading zeros", {"source_groups": ["10.0.0.01"]}, {}, "'10.0.0.01' is not an address"),
    ("an over-long prefix", {"source_groups": ["10.0.0.0/33"]}, {}, "'10.0.0.0/33' is not an address"),
    ("an inverted address range", {"source_groups": ["10.0.0.9-10.0.0.1"]}, {}, "ends before it starts"),
    ("a jump outside Environment", {"action": "JUMP_TO_APPLICATION"}, {}, "only legal in Environment"),
    ("an unknown policy field", {}, {"priority": 3}, "SecurityPolicy has a field 'priority'"),
    ("a machine that no inventory lists", {"source_groups": ["gone"]}, {}, "virtual machine 'Z' is in no file"),
    ("groups that contain each other", {"source_groups": ["x"]}, {}, "x -> y -> x"),
    ("a condition that cannot be evaluated", {"source_groups": ["pods"]}, {}, "a condition on Tag of Pod"),
    ("an expression of even length", {"source_groups": ["even"]}, {}, "its length is odd"),
    ("a regular expression that is none", {"source_groups": ["regex"]}, {}, "missing )"),
]  # fmt: skip
HOPELESS_GROUPS = [
    group("identity", condition("web"), extended_expression=[{"resource_type": "IdentityGroupExpression"}]),
    realized("gone", "Z"),
    group("x", paths("y")),
    group("y", paths("x")),
    group("pods", condition("web", kind="Pod")),
    group("even", condition("web"), OR),
    group("regex", condition("(", "Name", operator="MATCHES")),
]


@pytest.mark.parametrize(("what", "rule_fields", "policy_fields", "text"), UNDECIDED, ids=[row[0] for row in UNDECIDED])
def test_what_cannot_be_expressed_is_refused_or_undecided(
    what: str, rule_fields: Json, policy_fields: Json, text: str
) -> None:
    policies = [policy(rule("odd", **rule_fields), **policy_fields), policy(rule("behind"))]
    with pytest.raises(PolicyError) as caught:
        load(policies, HOPELESS_GROUPS)
    assert text in str(caught.value)
    assert caught.value.where.startswith("dump.json:")
    assert caught.value.where.count(":") == 2
    assert caught.value.hint
    assert caught.value.obj

    lenient = load(policies, HOPELESS_GROUPS, strict=False)
    assert decided(lenient, A, B) == "?odd"
    assert any(text in d.message for d in lenient.unsupported)
    assert not lenient.layers[0].points[0].rules[0].certain


def test_an_undecided_clause_leaves_the_other_clauses_of_its_rule() -> None:
    odd = rule("odd", source_groups=["C"], profiles=["/infra/context-profiles/ssl"])
    result = load([policy(odd), policy(rule("behind"))], strict=False)
    assert decided(result, A, B) == "behind"
    assert decided(result, C, B) == "?odd"


@pytest.mark.parametrize(("preference", "logs"), [("ALLOWLIST", False), ("ALLOWLIST_ENABLE_LOGGING", True)])
def test_a_preference_logs_if_it_says_so(preference: str, logs: bool) -> None:
    (found,) = load([policy(scope=["A"], connectivity_preference=preference)]).layers[0].points[0].rules
    assert found.log == logs


def test_a_preference_needs_a_scope() -> None:
    unscoped = [policy(connectivity_preference="ALLOWLIST", default_rule_id=9)]
    with pytest.raises(PolicyError, match="needs a scope"):
        load(unscoped)
    assert decided(load(unscoped, strict=False), A, B) == "?9"


def test_a_preference_is_not_for_ethernet() -> None:
    with pytest.raises(PolicyError, match="not for Ethernet"):
        load([policy(category="Ethernet", scope=["A"], connectivity_preference="DENYLIST")])


def test_a_drop_by_profile_resets() -> None:
    result = load([policy(rule("odd", "DROP", profiles=["/infra/context-profiles/ssl"]))], strict=False)
    assert result.layers[0].points[0].rules[0].action is Action.REJECT


def test_mac_addresses_are_not_evaluated() -> None:
    result = load([policy(rule("l2", "DROP", source_groups=["A"]), category="Ethernet")], strict=False)
    assert decided(result, A, B) == "?l2"


LINTS = [
    ("excluded-any", [policy(rule("x", source_groups=["ANY"], sources_excluded=True))]),
    ("scope-without-vnic", [policy(rule("x", scope=["addresses"]))]),
    ("mixed-conjunction", [policy(rule("x", source_groups=["mixed"]))]),
    ("no-default-rule", [policy(rule("x", source_groups=["A"]))]),
    ("ambiguous-order", [policy(rule("x", sequence_number=1), rule("y", "DROP", sequence_number=1))]),
    ("ambiguous-order", [policy(rule("x"), sequence_number=1), policy(rule("y", "DROP"), sequence_number=1)]),
    ("any-beside-inline-services", [policy(rule("x", services=["ANY"], service_entries=[l4("TCP")]))]),
    ("alg-data-channel-not-tracked", [policy(rule("x", services=["/infra/services/MS_RPC_TCP"]))]),
    ("takes-no-part", [policy(rule("x", disabled=True))]),
    ("not-evaluated", [DROP_ALL, {"resource_type": "GatewayPolicy", "id": "g"}]),
    ("vm-without-address", [DROP_ALL]),
    ("stateless-policy", [policy(rule("x"), stateful=False)]),
]  # fmt: skip
NO_LINT = [
    ("ambiguous-order", [policy(rule("x", sequence_number=1), rule("y", "DROP", sequence_number=2))]),
    ("ambiguous-order", [policy(rule("x", sequence_number=1), rule("y", sequence_number=1))]),
    ("ambiguous-order", [policy(rule("x"), rule("y", "DROP"))]),
    ("ambiguous-order", [policy(rule("x", sequence_number=1, source_groups=[A]),
                                rule("y", "DROP", sequence_number=1, source_groups=[B]))]),
    ("ambiguous-order", [policy(rule("x", sequence_number=1, service_entries=[l4("TCP", "1")]),
                                rule("y", "DROP", sequence_number=1, service_entries=[l4("TCP", "2")]))]),
    ("no-default-rule", [DROP_ALL]),
    ("stateless-policy", [DROP_ALL]),
    ("vm-without-address", [DROP_ALL]),
]  # fmt: skip


def codes(policies: list[Json], machines: list[Json]) -> set[str]:
    mixed = group("mixed", condition("web"), OR, condition("db"), AND, condition("prod"))
    policies = list(policies)
    gateway = [p for p in policies if p.get("resource_type") == "GatewayPolicy"]
    groups = [group("addresses", ips(A)), mixed]
    lists = {"virtual_machines": machines, "gateway_policies": gateway}
    return {d.code for d in load([p for p in policies if p not in gateway], groups, **lists).diagnostics}


@pytest.mark.parametrize(("code", "policies"), LINTS)
def test_findings(code: str, policies: list[Json]) -> None:
    machines = INVENTORY["virtual_machines"]
    assert code in codes(policies, [*machines, machine("D")] if code == "vm-without-address" else machines)


@pytest.mark.parametrize(("code", "policies"), NO_LINT)
def test_no_finding(code: str, policies: list[Json]) -> None:
    assert code not in codes(policies, INVENTORY["virtual_machines"])


def test_a_rule_leads_back_to_its_source() -> None:
    result = load([policy(rule("named", rule_id=1042, logged=True), path="/infra/domains/default/security-policies/p")])
    (found,) = result.layers[0].points[0].rules
    assert found.name == "named"
    assert found.log
    assert found.source.file == "dump.json"
    assert found.source.obj == "/infra/domains/default/security-policies/p/rules/named rule_id=1042"
    dump = json.dumps({**INVENTORY}, indent=1).count("\n")
    assert found.source.line is not None
    assert found.source.line > dump  # the domains come behind the inventory
