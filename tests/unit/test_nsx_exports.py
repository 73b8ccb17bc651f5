"""Exports as NSX Manager and Terraform write them: whole hierarchies, and the resources of a state file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.nsx import NsxImporter
from meshsieve.policy import ImportOptions, SourceFile

Json = dict[str, Any]
DOMAIN, T0, T1 = "/infra/domains/default", "/infra/tier-0s/t0", "/infra/tier-1s/t1"
UPLINK = f"{T0}/locale-services/default/interfaces/up1"
WEB, DB, OUTSIDE = "10.1.0.10", "10.2.0.10", "192.0.2.7"


def stored(kind: str, path: str, **fields: Any) -> Json:
    """An object with the fields that NSX itself adds."""
    name = path.rpartition("/")[2]
    return {
        "resource_type": kind, "id": name, "display_name": name, "path": path, "relative_path": name,
        "parent_path": path.rsplit("/", 2)[0], "remote_path": "", "unique_id": "u", "realization_id": "r",
        "owner_id": "o", "origin_site_id": "s", "marked_for_delete": False, "overridden": False, "_create_time": 1,
        "_create_user": "admin", "_system_owned": False, "_protection": "NOT_PROTECTED", "_revision": 0, **fields,
    }  # fmt: skip


def child(obj: Json, kind: str = "") -> Json:
    kind = kind or obj["resource_type"]
    return {"resource_type": f"Child{kind}", "marked_for_delete": False, "_protection": "NOT_PROTECTED", kind: obj}


def rule(path: str, **fields: Any) -> Json:
    return stored("Rule", path, **{
        "rule_id": 1007, "sequence_number": 10, "sources_excluded": False, "destinations_excluded": False,
        "source_groups": ["ANY"], "destination_groups": ["ANY"], "services": ["ANY"], "profiles": ["ANY"],
        "logged": False, "scope": ["ANY"], "disabled": False, "direction": "IN_OUT", "ip_protocol": "IPV4_IPV6",
        "is_default": False, "action": "ALLOW", "tag": "", "notes": "", **fields,
    })  # fmt: skip


def policy(kind: str, path: str, category: str, number: int, *rules: Json, **fields: Any) -> Json:
    return stored(
        kind, path, category=category, sequence_number=number, internal_sequence_number=number, stateful=True,
        tcp_strict=True, locked=False, lock_modified_time=0, scope=["ANY"], is_default=False, logging_enabled=False,
        rule_count=len(rules), children=[child(r) for r in rules], **fields,
    )  # fmt: skip


def group(name: str, tag: str) -> Json:
    condition = stored("Condition", f"{DOMAIN}/groups/{name}/condition-expressions/c", member_type="VirtualMachine",
                       key="Tag", operator="EQUALS", value=tag)  # fmt: skip
    return stored("Group", f"{DOMAIN}/groups/{name}", expression=[condition], extended_expression=[], reference=False,
                  group_type=[], state="IN_PROGRESS")  # fmt: skip


def segment(name: str, number: int) -> Json:
    port = stored("SegmentPort", f"/infra/segments/{name}/ports/p", attachment={"id": f"att-{name}", "traffic_tag": 0},
                  admin_state="UP", address_bindings=[])  # fmt: skip
    subnet = {"gateway_address": f"10.{number}.0.1/24", "network": f"10.{number}.0.0/24"}
    return stored("Segment", f"/infra/segments/{name}", type="ROUTED", subnets=[subnet], connectivity_path=T1,
                  transport_zone_path="/infra/tz", advanced_config={}, children=[child(port)])  # fmt: skip


SECTIONS = f"{DOMAIN}/security-policies"
GATEWAY_SECTIONS = f"{DOMAIN}/gateway-policies"
POLICIES = [
    policy("SecurityPolicy", f"{SECTIONS}/app", "Application", 10,
           rule(f"{SECTIONS}/app/rules/web-db", source_groups=[f"{DOMAIN}/groups/web"],
                destination_groups=[f"{DOMAIN}/groups/db"], services=["/infra/services/MySQL"]),
           rule(f"{SECTIONS}/app/rules/no", sequence_number=20, action="REJECT",
                destination_groups=[f"{DOMAIN}/groups/db"], scope=[f"{DOMAIN}/groups/db"])),
    policy("SecurityPolicy", f"{SECTIONS}/default-layer3-section", "Application", 2147483647,
           rule(f"{SECTIONS}/default-layer3-section/rules/rest", sequence_number=2147483647, is_default=True)),
    policy("GatewayPolicy", f"{GATEWAY_SECTIONS}/gw", "LocalGatewayRules", 10,
           rule(f"{GATEWAY_SECTIONS}/gw/rules/ssh", action="DROP", services=["/infra/services/SSH"], scope=[UPLINK])),
]  # fmt: skip
NAT_RULE = stored("PolicyNatRule", f"{T0}/nat/USER/nat-rules/vip", sequence_number=0, action="DNAT", source_network="",
                  destination_network="203.0.113.5", translated_network=DB, translated_ports="3306", service="",
                  scope=[], enabled=True, logging=False, firewall_match="MATCH_INTERNAL_ADDRESS",
                  policy_based_vpn_mode="BYPASS")  # fmt: skip
TIER0 = stored("Tier0", T0, ha_mode="ACTIVE_STANDBY", disable_firewall=False, transit_subnets=[], children=[
    child(stored("LocaleServices", f"{T0}/locale-services/default", edge_cluster_path="/x", children=[
        child(stored("Tier0Interface", UPLINK, subnets=[{"ip_addresses": ["172.16.1.2"], "prefix_len": 24}],
                     type="EXTERNAL", mtu=1500)),
        child(stored("BgpRoutingConfig", f"{T0}/locale-services/default/bgp", local_as_num="65000")),
    ])),
    child(stored("PolicyNat", f"{T0}/nat/USER", nat_type="USER", children=[child(NAT_RULE)])),
    child(stored("StaticRoutes", f"{T0}/static-routes/d", network="0.0.0.0/0",
                 next_hops=[{"ip_address": "172.16.1.1", "admin_distance": 1, "scope": []}])),
])  # fmt: skip
TIER1 = stored("Tier1", T1, tier0_path=T0, route_advertisement_types=["TIER1_CONNECTED"], disable_firewall=False)
# Kinds of a whole export that decide nothing about packets.
STRUCTURE = """IPDiscoveryProfile MacDiscoveryProfile QoSProfile GatewayQosProfile SegmentSecurityProfile IpAddressPool
LBService LBVirtualServer LBPool DhcpServerConfig DhcpRelayConfig TlsCertificate TlsCrl GlobalConfig PolicyMonProfile
Site EnforcementPoint PolicyTransportZone BfdProfile PolicyDnsForwarderZone IPSecVpnService L2VPNService IpfixDfwProfile
PolicyFirewallSessionTimerProfile PolicyFirewallFloodProtectionProfileBindingMap DnsSecurityProfile IdsSettings
EvpnTenantConfig PortMirroringProfile PolicyCustomAttributes Span EndpointPolicy""".split()  # noqa: SIM905


def machines() -> Json:
    return {
        "virtual_machines": [{"external_id": n, "display_name": n, "tags": [{"scope": "app", "tag": n}],
                              "guest_info": {"os_name": "Ubuntu Linux (64-bit)"}} for n in ("web", "db")],
        "vifs": [{"external_id": f"vif-{n}", "owner_vm_id": n, "lport_attachment_id": f"att-{n}",
                  "ip_address_info": [{"source": "VM_TOOLS", "ip_addresses": [a, f"fe80::{i}"]}]}
                 for i, (n, a) in enumerate((("web", WEB), ("db", DB)), 1)],
    }  # fmt: skip


def hierarchy() -> Json:
    inside = [child(g) for g in (group("web", "app|web"), group("db", "app|db"))] + [child(p) for p in POLICIES]
    children = [
        child(stored("Domain", DOMAIN, children=inside)), child(TIER0), child(TIER1),
        child(segment("web", 1)), child(segment("db", 2)),
        *(child(stored(kind, f"/infra/x/{kind.lower()}")) for kind in STRUCTURE),
        child(stored("IpAddressPoolStaticSubnet", "/infra/ip-pools/p/ip-subnets/s"), "IpAddressPoolSubnet"),
    ]  # fmt: skip
    return {"resource_type": "Infra", "id": "infra", "path": "/infra", "children": children}


def engine(*documents: Json, strict: bool = True) -> Engine:
    sources = [SourceFile(f"{n}.json", json.dumps(d)) for n, d in enumerate(documents)]
    result = NsxImporter().load(sources, ImportOptions(strict=strict))
    return Engine(result.layers, diagnostics=result.diagnostics)


VERDICTS = [
    ("from group to group", f"tcp {WEB}:1 > {DB}:3306", "ALLOW"),
    ("another port", f"tcp {WEB}:1 > {DB}:22", "REJECT"),
    ("translated, then refused by the receiver", f"tcp {OUTSIDE}:1 > 203.0.113.5:80", "REJECT"),
    ("the default rule", f"tcp {DB}:1 > {OUTSIDE}:443", "ALLOW"),
    ("the gateway's rule at its uplink", f"tcp {WEB}:1 > {OUTSIDE}:22", "DROP"),
    ("not between segments", f"tcp {DB}:1 > {WEB}:22", "ALLOW"),
]


@pytest.mark.parametrize(("sentence", "packet", "expected"), VERDICTS, ids=[v[0] for v in VERDICTS])
def test_a_whole_hierarchy_is_read_strictly(sentence: str, packet: str, expected: str) -> None:
    assert engine(hierarchy(), machines()).explain(packet).action == expected


def test_the_answers_of_the_api_one_by_one_say_the_same(tmp_path: Path) -> None:
    """Lists with rules beside their policies, each in a file of its own."""

    def flat(obj: Json) -> list[Json]:
        own = {k: v for k, v in obj.items() if k != "children"}
        inner = [flat(next(v for v in c.values() if isinstance(v, dict))) for c in obj.get("children", [])]
        return [own, *(o for listed in inner for o in listed)]

    answers: dict[str, list[Json]] = {}
    for obj in flat(hierarchy())[1:]:
        answers.setdefault(obj["resource_type"], []).append(obj)
    pages = [{"results": listed, "result_count": len(listed)} for listed in answers.values()]
    of = engine(*pages, machines())
    for sentence, packet, expected in VERDICTS:
        assert of.explain(packet).action == expected, sentence


# Terraform


def resource(kind: str, **attributes: Any) -> Json:
    bookkeeping = {"description": "", "nsx_id": "n", "revision": 0, "tag": [], "context": []}
    return {"mode": "managed", "type": f"nsxt_policy_{kind}", "name": "r", "provider": "nsxt",
            "instances": [{"schema_version": 0, "attributes": {**bookkeeping, **attributes}}]}  # fmt: skip


def state(*resources: Json) -> Json:
    return {"version": 4, "terraform_version": "1.7.4", "serial": 1, "lineage": "l", "outputs": {},
            "resources": list(resources)}  # fmt: skip


def default_rule(action: str, **fields: Any) -> Json:
    return {"action": action, "description": "", "log_label": "", "logged": False, "nsx_id": "d", "path": "/d",
            "revision": 0, "sequence_number": 2147483647, "tag": [], **fields}  # fmt: skip


def gateways(**fields: Any) -> list[Json]:
    """A Tier-0 with an uplink and a Tier-1 with the segment of "web"."""
    return [
        resource("tier0_gateway", path=T0, display_name="t0", **fields),
        resource("tier0_gateway_interface", path=UPLINK, display_name="up", gateway_path=T0, type="EXTERNAL",
                 subnets=["172.16.1.2/24"], locale_service_id="default", segment_path="/x"),
        resource("tier1_gateway", path=T1, display_name="t1", tier0_path=T0),
        resource("segment", path="/infra/segments/web", display_name="web", connectivity_path=T1,
                 subnet=[{"cidr": "10.1.0.1/24", "network": "10.1.0.0/24"}]),
    ]  # fmt: skip


def gateway_policy(scope: str) -> Json:
    made = {"action": "DROP", "display_name": "r", "scope": [scope], "sequence_number": 1, "direction": "OUT"}
    return resource("gateway_policy", path=f"{GATEWAY_SECTIONS}/gw", display_name="gw", category="LocalGatewayRules",
                    sequence_number=1, stateful=True, rule=[made])  # fmt: skip


LAYER3 = f"{SECTIONS}/default-layer3-section"
PREDEFINED_GATEWAY = f"{GATEWAY_SECTIONS}/Policy_Default_Infra"
STATES = [
    ("the default rule of the layer 3 section counts",
     [resource("predefined_security_policy", path=LAYER3, rule=[], default_rule=[default_rule("DROP")])],
     f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP"),
    ("behind the rules that are added to it",
     [resource("predefined_security_policy", path=LAYER3, default_rule=[default_rule("DROP")],
               rule=[{"action": "ALLOW", "display_name": "a", "sequence_number": 5}])],
     f"tcp {WEB}:1 > {OUTSIDE}:80", "ALLOW"),
    ("the default rule of a gateway counts",
     [*gateways(), resource("predefined_gateway_policy", path=PREDEFINED_GATEWAY, rule=[],
                            default_rule=[default_rule("DROP", scope=T0)])],
     f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP"),
    ("an interface is one of its gateway", [*gateways(), gateway_policy(UPLINK)],
     f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP"),
    ("and its direction counts", [*gateways(), gateway_policy(UPLINK)], f"tcp {OUTSIDE}:1 > {WEB}:80", "ALLOW"),
    ("a firewall that is off judges nothing", [*gateways(enable_firewall=False), gateway_policy(T0)],
     f"tcp {WEB}:1 > {OUTSIDE}:80", "ALLOW"),
    ("an excluded machine has no filter",
     [resource("predefined_security_policy", path=LAYER3, rule=[], default_rule=[default_rule("DROP")]),
      resource("firewall_exclude_list_member", member="/infra/segments/web"),
      resource("segment", path="/infra/segments/web", display_name="web", subnet=[])],
     f"tcp {DB}:1 > {OUTSIDE}:80", "DROP"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "resources", "packet", "expected"), STATES, ids=[s[0] for s in STATES])
def test_terraform_state(sentence: str, resources: list[Json], packet: str, expected: str) -> None:
    assert engine(state(*resources), machines()).explain(packet).action == expected


def test_a_predefined_section_that_nobody_knows_is_an_error() -> None:
    unknown = resource("predefined_security_policy", path=f"{SECTIONS}/other", rule=[], default_rule=[])
    with pytest.raises(PolicyError, match="the category of the predefined section 'other'"):
        engine(state(unknown))


def test_a_subnet_without_length_is_an_error() -> None:
    with pytest.raises(PolicyError, match="no address with a prefix length"):
        engine(state(resource("tier0_gateway_interface", path=UPLINK, subnets=["172.16.1.2"])))
