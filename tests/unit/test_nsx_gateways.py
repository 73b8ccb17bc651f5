"""Gateways, NAT, SpoofGuard, redirection, profiles and schedules of NSX: what the spec's sentences say of a packet."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshsieve.connectivity import connectivity
from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.nsx import NsxImporter
from meshsieve.policy import ImportOptions, SourceFile

Json = dict[str, Any]

WEB, APP, DB, OUTSIDE = "10.1.0.10", "10.2.0.10", "10.3.0.10", "192.0.2.7"


def segment(name: str, network: str, gateway: str | None, **port: Any) -> Json:
    gateway_path = {"connectivity_path": f"/infra/{gateway}"} if gateway else {}
    return {
        "path": f"/infra/segments/{name}",
        "subnets": [{"network": network}],
        **gateway_path,
        "segment_ports": [{"path": f"/infra/segments/{name}/ports/p", "attachment": {"id": f"att-{name}"}, **port}],
    }


T0, T1A, T1B = "/infra/tier-0s/t0", "/infra/tier-1s/t1a", "/infra/tier-1s/t1b"


def tier(path: str, tier0: str | None = None) -> Json:
    return {"resource_type": "Tier1" if tier0 else "Tier0", "path": path, "tier0_path": tier0}


def inventory(**lists: Any) -> Json:
    return {
        "virtual_machines": [{"external_id": n, "display_name": n} for n in ("web", "app", "db")],
        "virtual_network_interface": [
            {
                "external_id": f"vif-{name}",
                "owner_vm_id": name,
                "lport_attachment_id": f"att-{name}",
                "mac_address": f"00:50:56:00:00:0{number}",
                "ip_address_info": [{"ip_addresses": [address]}],
            }
            for number, (name, address) in enumerate((("web", WEB), ("app", APP), ("db", DB)))
        ],
        "segments": [
            segment("web", "10.1.0.0/24", "tier-1s/t1a"),
            segment("app", "10.2.0.0/24", "tier-1s/t1a"),
            segment("db", "10.3.0.0/24", "tier-1s/t1b"),
        ],
        "tier0": [tier(T0)],
        "tier1": [tier(T1A, T0), tier(T1B, T0)],
        **lists,
    }


def dropping(name: str, scope: list[str], **fields: Any) -> Json:
    return {
        "resource_type": "GatewayPolicy",
        "path": f"/infra/domains/default/gateway-policies/{name}",
        "category": "LocalGatewayRules",
        "rules": [{"display_name": name, "action": "DROP", "scope": scope, **fields}],
    }


def nat(name: str, gateway: str, action: str, **fields: Any) -> Json:
    path = f"{gateway}/nat/USER/nat-rules/{name}"
    return {"resource_type": "PolicyNatRule", "path": path, "display_name": name, "action": action, **fields}


def engine(
    *objects: Json, strict: bool = True, chains_down: tuple[str, ...] = (), time_zone: str = "", **lists: Any
) -> Engine:
    sources = [
        SourceFile("inventory.json", json.dumps(inventory(**lists))),
        SourceFile("more.json", json.dumps(objects)),
    ]
    result = NsxImporter().load(sources, ImportOptions(strict=strict, chains_down=chains_down, time_zone=time_zone))
    return Engine(result.layers, diagnostics=result.diagnostics)


def verdict(of: Engine, packet: str) -> str:
    """ "ACTION rule"; explain and classify agree."""
    explained = of.explain(packet)
    return f"{explained.action} {explained.rule or ''}".strip()


def through(of: Engine, packet: str) -> list[str]:
    """Points that the packet comes to."""
    return [p.title.removeprefix("nsx-dfw ") for p in of.explain(packet).points if p.verdict is not None]


EVERYWHERE = [dropping("at t0", [T0]), dropping("at a", [T1A]), dropping("at b", [T1B])]
# (sentence, source, destination, deciding rule)
WAYS = [
    ("same segment: L2, no gateway firewall", WEB, "10.1.0.11", "ALLOW"),
    ("two segments of one T1 cross it alone", WEB, APP, "DROP at a"),
    ("two T1s: the sender's first", WEB, DB, "DROP at a"),
    ("from outside the T0 comes first", OUTSIDE, DB, "DROP at t0"),
    ("to the outside the T1 comes first", DB, OUTSIDE, "DROP at b"),
]


@pytest.mark.parametrize(("sentence", "src", "dst", "expected"), WAYS, ids=[w[0] for w in WAYS])
def test_the_way_leads_over_gateways(sentence: str, src: str, dst: str, expected: str) -> None:
    assert verdict(engine(*EVERYWHERE), f"tcp {src}:4000 > {dst}:80") == expected


def test_a_way_over_both_tiers_meets_every_firewall() -> None:
    free = [{**p, "rules": [{**p["rules"][0], "action": "ALLOW"}]} for p in EVERYWHERE]
    met = through(engine(*free), f"tcp {WEB}:4000 > {DB}:80")
    assert met == ["out", "t1a up firewall", "t0 firewall", "t1b down firewall", "in"]


ROUTE = {"resource_type": "StaticRoutes", "path": f"{T1A}/static-routes/r", "network": "198.51.100.0/24"}
HOP = {"next_hops": [{"ip_address": "10.1.0.254", "admin_distance": 1}]}


def test_a_static_route_of_the_tier_1_keeps_the_packet_from_the_tier_0() -> None:
    """longest-prefix match over connected + static_routes of T1 then T0"""
    packet = f"tcp {WEB}:4000 > 198.51.100.9:80"
    assert verdict(engine(dropping("at t0", [T0])), packet) == "DROP at t0"
    assert verdict(engine(dropping("at t0", [T0]), {**ROUTE, **HOP}), packet) == "ALLOW"


# (sentence, NAT rules, firewall rules, packet, expected)
DNAT = nat("vip", T1B, "DNAT", destination_network="203.0.113.5", translated_network=DB, translated_ports="5432")
INSIDE, OUTWARD = {"destination_groups": [DB]}, {"destination_groups": ["203.0.113.5"]}
PG = {"service_entries": [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP",
                           "destination_ports": ["5432"]}]}  # fmt: skip
TO_VIP = f"tcp {OUTSIDE}:4000 > 203.0.113.5:80"
NATS = [
    ("DNAT before firewall: it sees the inside address by default", [DNAT], dropping("fw", [T1B], **INSIDE), TO_VIP,
     "DROP fw"),
    ("MATCH_EXTERNAL_ADDRESS = gateway rules see the outside addresses",
     [{**DNAT, "firewall_match": "MATCH_EXTERNAL_ADDRESS"}], dropping("fw", [T1B], **OUTWARD), TO_VIP, "DROP fw"),
    ("MATCH_EXTERNAL_ADDRESS hides the inside address",
     [{**DNAT, "firewall_match": "MATCH_EXTERNAL_ADDRESS"}], dropping("fw", [T1B], **INSIDE), TO_VIP, "ALLOW"),
    ("BYPASS = skip the gateway firewall", [{**DNAT, "firewall_match": "BYPASS"}], dropping("fw", [T1B]), TO_VIP,
     "ALLOW"),
    ("translated_ports are seen behind", [DNAT], dropping("fw", [T1B], **PG), TO_VIP, "DROP fw"),
    ("lower number = earlier", [DNAT, nat("no", T1B, "NO_DNAT", destination_network="203.0.113.5", sequence_number=1)],
     dropping("fw", [T1B], **INSIDE), TO_VIP, "ALLOW"),
    ("rule_priority defaults to 100",
     [DNAT, nat("no", T1B, "NO_DNAT", destination_network="203.0.113.5", sequence_number=101)],
     dropping("fw", [T1B], **INSIDE), TO_VIP, "DROP fw"),
    ("a disabled rule translates nothing", [{**DNAT, "enabled": False}], dropping("fw", [T1B], **INSIDE), TO_VIP,
     "NONE"),
    ("CIDR to CIDR of equal length maps bit by bit",
     [nat("net", T1B, "DNAT", destination_network="203.0.113.0/24", translated_network="10.3.0.0/24")],
     dropping("fw", [T1B], **INSIDE), f"tcp {OUTSIDE}:4000 > 203.0.113.10:80", "DROP fw"),
    ("SNAT after the firewall: the next gateway sees the translated source",
     [nat("out", T1A, "SNAT", source_network="10.1.0.0/24", translated_network="203.0.113.9")],
     dropping("fw", [T0], source_groups=["203.0.113.9"]), f"tcp {WEB}:4000 > {OUTSIDE}:80", "DROP fw"),
    ("SNAT after the firewall: its own sees the inside source",
     [nat("out", T1A, "SNAT", source_network="10.1.0.0/24", translated_network="203.0.113.9")],
     dropping("fw", [T1A], source_groups=["203.0.113.9"]), f"tcp {WEB}:4000 > {OUTSIDE}:80", "ALLOW"),
    ("CIDR to one address: the port is not known",
     [nat("out", T1A, "SNAT", source_network="10.1.0.0/24", translated_network="203.0.113.9")],
     dropping("fw", [T0], service_entries=[{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP",
                                            "source_ports": ["4000"]}]),
     f"tcp {WEB}:4000 > {OUTSIDE}:80", "UNDECIDED fw"),
    ("REFLEXIVE on the way out", [nat("one", T1A, "REFLEXIVE", source_network=WEB, translated_network="203.0.113.9")],
     dropping("fw", [T0], source_groups=["203.0.113.9"]), f"tcp {WEB}:4000 > {OUTSIDE}:80", "DROP fw"),
    ("REFLEXIVE on the way in", [nat("one", T1A, "REFLEXIVE", source_network=WEB, translated_network="203.0.113.9")],
     dropping("fw", [T1A], destination_groups=[WEB]), f"tcp {OUTSIDE}:4000 > 203.0.113.9:80", "DROP fw"),
    ("a service restricts a NAT rule", [{**DNAT, "service": "/infra/services/SSH"}], dropping("fw", [T1B], **INSIDE),
     TO_VIP, "ALLOW"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "rules", "policy", "packet", "expected"), NATS, ids=[n[0] for n in NATS])
def test_nat(sentence: str, rules: list[Json], policy: Json, packet: str, expected: str) -> None:
    assert verdict(engine(*rules, policy), packet) == expected


def test_the_receiver_sees_the_translated_packet() -> None:
    drop = {"resource_type": "SecurityPolicy", "path": "/infra/domains/default/security-policies/d", "category":
            "Application", "rules": [{"display_name": "db", "action": "DROP", **INSIDE, **PG}]}  # fmt: skip
    assert verdict(engine(DNAT, drop), TO_VIP) == "DROP db"
    assert verdict(engine(drop), TO_VIP) == "NONE"  # nobody answers for the address


def test_without_gateways_their_policies_are_named() -> None:
    found = engine(dropping("fw", [T0]), nat("n", T0, "NO_DNAT"), tier0=[], tier1=[])
    assert sorted(d.message.split(":")[0] for d in found.diagnostics if d.code == "not-evaluated") == [
        "GatewayPolicy", "PolicyNatRule",
    ]  # fmt: skip


UNREADABLE = [
    ("NAT64 without networks", [nat("n", T0, "NAT64")], "NAT64 maps one IPv6 network"),
    ("an unknown NAT action", [nat("n", T0, "SNAP")], "PolicyNatRule.action is 'SNAP'"),
    ("a broken network", [nat("n", T0, "DNAT", destination_network="10.0.0.300")], "10.0.0.300"),
    ("a rule for one interface", [dropping("fw", [f"{T0}/locale-services/x/interfaces/up"])], "is in no file"),
]


@pytest.mark.parametrize(("what", "objects", "text"), UNREADABLE, ids=[u[0] for u in UNREADABLE])
def test_what_cannot_be_expressed_is_refused_or_undecided(what: str, objects: list[Json], text: str) -> None:
    with pytest.raises(PolicyError, match=text):
        engine(*objects)
    lenient = engine(*objects, strict=False)
    assert any(d.code == "unsupported" and text in d.message for d in lenient.diagnostics)
    assert verdict(lenient, f"tcp {WEB}:4000 > {OUTSIDE}:80").startswith("UNDECIDED")


# SpoofGuard and service insertion

GUARD = {
    "resource_type": "SpoofGuardProfile",
    "path": "/infra/spoofguard-profiles/g",
    "address_binding_allowlist": True,
}
BINDING = {"resource_type": "SegmentSecurityProfileBindingMap", "path": "/infra/segments/web/segment-security-profile-"
           "binding-maps/m", "spoofguard_profile_path": "/infra/spoofguard-profiles/g"}  # fmt: skip


@pytest.mark.parametrize(
    ("bindings", "expected"),
    [
        ([{"ip_address": WEB}], "ALLOW address binding"),
        ([{"ip_address": WEB, "mac_address": "00:50:56:00:00:00"}], "ALLOW address binding"),
        ([{"ip_address": WEB, "mac_address": "00:50:56:00:00:99"}], "DROP SpoofGuard"),
        ([{"ip_address": "10.1.0.99"}], "DROP SpoofGuard"),
    ],
)
def test_spoofguard_lets_bound_addresses_speak(bindings: list[Json], expected: str) -> None:
    """source MAC/IP/VLAN not in the bindings -> drop with reason SpoofGuard"""
    guarded = [segment("web", "10.1.0.0/24", "tier-1s/t1a", address_bindings=bindings)]
    assert verdict(engine(GUARD, BINDING, segments=guarded), f"udp {WEB}:1 > {OUTSIDE}:2") == expected


CHAIN = {"resource_type": "PolicyServiceChain", "path": "/infra/service-chains/ips", "failure_policy": "BLOCK"}
REDIRECTION = {
    "resource_type": "RedirectionPolicy",
    "path": "/infra/domains/default/redirection-policies/ew",
    "redirect_to": ["/infra/service-chains/ips"],
    "rules": [
        {"display_name": "not dns", "action": "DO_NOT_REDIRECT", "services": ["/infra/services/DNS-UDP"]},
        {"display_name": "web", "action": "REDIRECT", "source_groups": [WEB]},
    ],
}


def redirected(of: Engine, packet: str) -> str:
    return next(p.reason for p in of.explain(packet).points if p.title.endswith("redirection"))


def test_redirection_is_told_and_decides_nothing() -> None:
    """Decision computed: {redirect, chain, rule, if_chain_down}"""
    told = engine(CHAIN, REDIRECTION)
    assert "web: redirected to ips, if it is down BLOCK" in redirected(told, f"tcp {WEB}:1 > {APP}:80")
    assert "not dns: not redirected" in redirected(told, f"udp {WEB}:1 > {APP}:53")
    assert verdict(told, f"tcp {WEB}:1 > {APP}:80") == "ALLOW"


@pytest.mark.parametrize(("failure", "expected"), [("BLOCK", "DROP"), ("ALLOW", "ALLOW")])
def test_a_chain_that_is_down_does_as_its_failure_policy_says(failure: str, expected: str) -> None:
    down = engine({**CHAIN, "failure_policy": failure}, REDIRECTION, chains_down=("/infra/service-chains/ips",))
    assert verdict(down, f"tcp {WEB}:1 > {APP}:80").startswith(expected)


# Profiles: the two-phase walk


def profile(name: str, *attributes: Json) -> Json:
    path = f"/infra/context-profiles/{name}"
    return {"resource_type": "PolicyContextProfile", "path": path, "attributes": list(attributes)}


def attribute(key: str, *values: str, **subs: list[str]) -> Json:
    sub = [{"key": k, "value": v} for k, v in subs.items()]
    return {"key": key, "value": list(values), **({"sub_attributes": sub} if sub else {})}


PROFILES = [
    profile("web", attribute("APP_ID", "HTTP", "SSL")),
    profile("tls12", attribute("APP_ID", "SSL", TLS_VERSION=["TLS_V12"])),
    profile("files", attribute("APP_ID", "SSL"), attribute("DOMAIN_NAME", "*-myfiles.sharepoint.com", "x.example")),
    profile("news", attribute("URL_CATEGORY", "News")),
    profile("docs", attribute("CUSTOM_URL", "www.example.com/docs/*", "other.example")),
    profile("nothing", attribute("URL_CATEGORY", "Empty")),
    profile("smb1", attribute("APP_ID", "CIFS", CIFS_SMB_VERSION=["CIFS_SMB_V1"])),
]
CATEGORIES = {"resource_type": "UrlCategories", "categories": {"News": ["*.news.example", "news.example"], "Empty": []}}
# (sentence, profiles, what is known, expected)
PHASES = [
    ("app unknown: PENDING", ["web"], "", "PENDING l7"),
    ("values of one attribute are ORed", ["web"], "app tls", "REJECT l7"),
    ("FALSE -> next rule", ["web"], "app ssh", "ALLOW rest"),
    ("given up as unknown", ["web"], "app ''", "ALLOW rest"),
    ("several profiles on a rule are ORed", ["web", "smb1"], "app smb smb_version 1.0", "REJECT l7"),
    ("a sub-attribute narrows", ["tls12"], "app tls tls_version TLSv1.2", "REJECT l7"),
    ("a sub-attribute that differs", ["tls12"], "app tls tls_version TLSv1.3", "ALLOW rest"),
    ("different keys are ANDed", ["files"], "app tls fqdn a-myfiles.sharepoint.com", "REJECT l7"),
    ("different keys are ANDed: one fails", ["files"], "app http fqdn a-myfiles.sharepoint.com", "ALLOW rest"),
    ("leading * is a suffix, case-insensitive", ["files"], "app tls fqdn A-MyFiles.SharePoint.com", "REJECT l7"),
    ("a suffix is no infix", ["files"], "app tls fqdn a-myfiles.sharepoint.com.evil.example", "ALLOW rest"),
    ("an exact name", ["files"], "app tls fqdn x.example", "REJECT l7"),
    ("an exact name is no suffix", ["files"], "app tls fqdn y.x.example", "ALLOW rest"),
    ("the name is not known yet", ["files"], "app tls", "PENDING l7"),
    ("a category given as data", ["news"], "fqdn today.news.example", "REJECT l7"),
    (
        "a URL with a path: its host decides where it is another",
        ["docs"],
        "app http fqdn www.example.org",
        "ALLOW rest",
    ),
    ("a URL with a path: each request has its own", ["docs"], "app http fqdn www.example.com", "UNDECIDED l7"),
    ("a URL without path beside it", ["docs"], "app http fqdn other.example", "REJECT l7"),
    ("a category without domains matches nothing", ["nothing"], "app http fqdn www.example.com", "ALLOW rest"),
    ("another name than the category's", ["news"], "fqdn example.com", "ALLOW rest"),
]


@pytest.mark.parametrize(("sentence", "profiles", "known", "expected"), PHASES, ids=[p[0] for p in PHASES])
def test_the_two_phase_walk(sentence: str, profiles: list[str], known: str, expected: str) -> None:
    """A DROP from a rule with a profile is sent as a reject."""
    paths = [f"/infra/context-profiles/{name}" for name in profiles]
    rules = [{"display_name": "l7", "action": "DROP", "profiles": paths}, {"display_name": "rest", "action": "ALLOW"}]
    of = engine(*PROFILES, CATEGORIES, application(rules))
    assert verdict(of, f"tcp {WEB}:4000 > {OUTSIDE}:443 {known}") == expected


def application(rules: list[Json], **fields: Any) -> Json:
    path = "/infra/domains/default/security-policies/p"
    return {"resource_type": "SecurityPolicy", "path": path, "category": "Application", "rules": rules, **fields}


def test_a_rule_without_profile_decides_at_once() -> None:
    rules = [{"display_name": "l4", "action": "ALLOW"}, {"display_name": "l7", "action": "DROP",
             "profiles": ["/infra/context-profiles/web"]}]  # fmt: skip
    assert verdict(engine(*PROFILES, application(rules)), f"tcp {WEB}:4000 > {OUTSIDE}:443") == "ALLOW l4"


def test_a_packet_that_also_lacks_something_else_is_undecided() -> None:
    rules = [{"display_name": "l7", "profiles": ["/infra/context-profiles/web"], **PG}]
    of = engine(*PROFILES, application(rules))
    assert verdict(of, f"tcp {WEB} > {OUTSIDE} fragment 1") == "UNDECIDED l7"


@pytest.mark.parametrize(
    ("known", "expected"), [("", "PENDING"), ("app http", "ALLOW"), ("app ssh", "REJECT"), ("app dns", "REJECT")]
)
def test_l7_access_profiles(known: str, expected: str) -> None:
    """entries by sequence_number, first match, else default_action"""
    entries = [
        {"sequence_number": 2, "action": "ALLOW", "attributes": [attribute("APP_ID", "HTTP", "DNS")]},
        {"sequence_number": 1, "action": "REJECT", "attributes": [attribute("APP_ID", "DNS")]},
    ]
    access = {"resource_type": "L7AccessProfile", "path": "/infra/l7-access-profiles/x", "default_action": "REJECT",
              "l7_access_entries": entries}  # fmt: skip
    policy = dropping("fw", [T1A], profiles=["/infra/l7-access-profiles/x"])
    policy["rules"][0]["action"] = "ALLOW"
    assert verdict(engine(access, policy), f"tcp {WEB}:4000 > {APP}:80 {known}").startswith(expected)


# Schedules: 2026-11-24 was a Tuesday.

SCHEDULE = {"resource_type": "PolicyFirewallScheduler", "path": "/infra/firewall-schedulers/s", "timezone": "UTC"}
AT_NOON, LATE, NEXT_DAY = 1795521600, 1795521600 + 9 * 3600, 1795521600 + 86400
SCHEDULES = [
    ("inside the dates", {"start_date": "11/24/2026", "end_date": "11/24/2026"}, AT_NOON, "DROP"),
    ("after the end date", {"start_date": "11/23/2026", "end_date": "11/23/2026"}, AT_NOON, "ALLOW"),
    ("before the start date", {"start_date": "11/25/2026"}, AT_NOON, "ALLOW"),
    ("on a day of the week", {"recurring": True, "days": ["TUESDAY"]}, AT_NOON, "DROP"),
    ("on another day", {"recurring": True, "days": ["MONDAY", "WEDNESDAY"]}, AT_NOON, "ALLOW"),
    ("in a daily interval",
     {"recurring": True, "time_interval": [{"start_interval": "09:00", "end_interval": "17:00"}]}, AT_NOON, "DROP"),
    ("outside the daily interval",
     {"recurring": True, "time_interval": [{"start_interval": "09:00", "end_interval": "17:00"}]}, LATE, "ALLOW"),
    ("until the end time of the last day",
     {"start_date": "11/24/2026", "end_date": "11/25/2026", "start_time": "10:00", "end_time": "11:30"}, NEXT_DAY,
     "ALLOW"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "fields", "time", "expected"), SCHEDULES, ids=[s[0] for s in SCHEDULES])
def test_schedules(sentence: str, fields: Json, time: int, expected: str) -> None:
    policy = application([{"display_name": "x", "action": "DROP"}], scheduler_path="/infra/firewall-schedulers/s")
    of = engine({**SCHEDULE, **fields}, policy)
    assert verdict(of, f"udp {WEB}:1 > {OUTSIDE}:2 time {time}").startswith(expected)
    assert verdict(of, f"udp {WEB}:1 > {OUTSIDE}:2") == "UNDECIDED x"


# Ethernet rules by MAC address, identity groups


def group(name: str, *expression: Json, **fields: Any) -> Json:
    return {"resource_type": "Group", "path": name, "expression": list(expression), **fields}


def macs(*addresses: str) -> Json:
    return {"resource_type": "MACAddressExpression", "mac_addresses": list(addresses)}


@pytest.mark.parametrize(
    ("members", "packet", "expected"),
    [
        (macs("00:50:56:00:00:00"), f"udp {WEB}:1 > {OUTSIDE}:2", "DROP"),
        (macs("00-50-56-00-00-00"), f"udp {WEB}:1 > {OUTSIDE}:2", "DROP"),
        (macs("00:50:56:00:00:99"), f"udp {WEB}:1 > {OUTSIDE}:2", "ALLOW"),
        (macs("00:50:56:00:00:99"), f"udp {WEB}:1 > {OUTSIDE}:2 src_mac 00:50:56:00:00:99", "DROP"),
        ({"resource_type": "ExternalIDExpression", "member_type": "VirtualMachine", "external_ids": ["web"]},
         f"udp {WEB}:1 > {OUTSIDE}:2", "DROP"),
        (macs("00:50:56:00:00:00"), f"udp {OUTSIDE}:1 > {WEB}:2", "UNDECIDED"),
    ],
)  # fmt: skip
def test_ethernet_rules_compare_mac_addresses(members: Json, packet: str, expected: str) -> None:
    """For L2 rules MAC members are compared."""
    rules = [{"display_name": "l2", "action": "DROP", "source_groups": ["g"]}]
    policy = {**application(rules), "category": "Ethernet"}
    assert verdict(engine(group("g", members), policy), packet).startswith(expected)


IDENTITY = {"resource_type": "IdentityGroupExpression", "identity_groups": [{"distinguished_name": "CN=Finance"}]}
SESSIONS = {"resource_type": "IdentitySessions", "sessions": [{"address": WEB, "groups": ["cn=finance"]}]}


def test_identity_groups_are_the_addresses_of_their_users() -> None:
    policy = application([{"display_name": "x", "action": "DROP", "source_groups": ["users"]}])
    of = engine(group("users", extended_expression=[IDENTITY]), SESSIONS, policy)
    assert verdict(of, f"udp {WEB}:1 > {OUTSIDE}:2") == "DROP x"
    assert verdict(of, f"udp {APP}:1 > {OUTSIDE}:2") == "ALLOW"


def test_an_identity_group_must_be_alone_in_the_sources() -> None:
    users = group("users", extended_expression=[IDENTITY])
    for fields in ({"source_groups": ["users", WEB]}, {"destination_groups": ["users"]}):
        with pytest.raises(PolicyError, match="must stand alone"):
            engine(users, SESSIONS, application([{"display_name": "x", **fields}]))


def test_connectivity_knows_gateways_and_leaves_translated_connections_undecided() -> None:
    of = engine(DNAT, dropping("fw", [T1A]))
    reach = {(r.src.name, r.dst.name): r for r in connectivity(of.layers)}
    assert not reach["web", "app"].allowed
    assert str(reach["db", "web"].allowed) == "none"
    vip = reach["web", "203.0.113.5"]
    assert (str(vip.allowed), str(vip.undecided)) == ("none", "none")  # dropped on the way up
    outside = next(
        r for (src, dst), r in reach.items() if "192.0.2" not in src and dst == "203.0.113.5" and src == "db"
    )
    assert outside.undecided
    assert not outside.allowed


@pytest.mark.parametrize(
    ("code", "rules"),
    [
        ("l7-any-any-before-other-rules", [{"display_name": "l7", "profiles": ["/infra/context-profiles/web"]},
                                           {"display_name": "rest"}]),
        ("fqdn-without-dns-rule", [{"display_name": "l7", "profiles": ["/infra/context-profiles/files"],
                                    "source_groups": [WEB]}]),
    ],
)  # fmt: skip
def test_findings_about_profiles(code: str, rules: list[Json]) -> None:
    assert code in {d.code for d in engine(*PROFILES, application(rules)).diagnostics}


def test_a_dns_rule_above_lets_names_be_learnt() -> None:
    dns = profile("dns", attribute("APP_ID", "DNS"))
    rules = [
        {"display_name": "dns", "profiles": ["/infra/context-profiles/dns"], "services": ["/infra/services/DNS-UDP"]},
        {"display_name": "l7", "profiles": ["/infra/context-profiles/files"], "source_groups": [WEB]},
    ]
    assert "fqdn-without-dns-rule" not in {d.code for d in engine(dns, *PROFILES, application(rules)).diagnostics}


def child(kind: str, *children: Json, **fields: Any) -> Json:
    return {"resource_type": f"Child{kind}", kind: {"resource_type": kind, **fields, "children": list(children)}}


def test_a_hierarchical_body_holds_the_same_gateways() -> None:
    rule = {"resource_type": "Rule", "id": "r", "display_name": "fw", "action": "DROP", "scope": ["/infra/tier-1s/t1"],
            **INSIDE}  # fmt: skip
    snat = {"id": "n", "action": "DNAT", "destination_network": "203.0.113.5", "translated_network": DB}
    interface = {"id": "up", "type": "EXTERNAL", "subnets": [{"ip_addresses": ["198.51.100.1"], "prefix_len": 30}]}
    body = {"resource_type": "Infra", "children": [
        child("Tier0", child("LocaleServices", child("Tier0Interface", **interface), id="ls"), id="t0"),
        child("Tier1",
              child("PolicyNat", child("PolicyNatRule", **snat), id="USER"),
              child("StaticRoutes", id="s", network="198.18.0.0/15", next_hops=[{"ip_address": "10.3.0.9"}]),
              child("Segment", id="db", subnets=[{"gateway_address": "10.3.0.1/24"}]),
              id="t1", tier0_path="/infra/tier-0s/t0"),
        child("Domain", child("GatewayPolicy", {"resource_type": "ChildRule", "Rule": rule}, id="g",
                              category="LocalGatewayRules"), id="default"),
    ]}  # fmt: skip
    of = engine(body, segments=[], tier0=[], tier1=[])
    assert verdict(of, TO_VIP) == "DROP fw"
    assert through(of, TO_VIP) == ["t1 down dnat", "t1 down firewall", "in"]
