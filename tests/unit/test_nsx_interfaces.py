"""Single interfaces of gateways, NAT64, north-south redirection, local time: the sentences of the specification."""

from __future__ import annotations

import calendar
import json
import re
from typing import Any

import pytest

from meshsieve.connectivity import connectivity
from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Limits, read_json
from meshsieve.importers.nsx.schedules import schedule_alternatives
from tests.unit.test_nsx_gateways import (
    APP,
    DB,
    OUTSIDE,
    T0,
    T1A,
    T1B,
    WEB,
    Json,
    application,
    dropping,
    engine,
    nat,
    redirected,
    through,
    verdict,
)  # fmt: skip

SERVICES = f"{T0}/locale-services/default"
UP1, UP2 = f"{SERVICES}/interfaces/up1", f"{SERVICES}/interfaces/up2"
DMZ = f"{T1A}/locale-services/default/interfaces/dmz"


def interface(path: str, address: str, kind: str = "EXTERNAL") -> Json:
    subnet = {"ip_addresses": [address], "prefix_len": 24}
    return {"resource_type": "Tier0Interface", "path": path, "type": kind, "subnets": [subnet]}


def route(network: str, hop: str) -> Json:
    path = f"{T0}/static-routes/{network.replace('/', '-')}"
    return {"resource_type": "StaticRoutes", "path": path, "network": network, "next_hops": [{"ip_address": hop}]}


ONE, TWO = interface(UP1, "172.16.1.2"), interface(UP2, "172.16.2.2")
TO_TWO = route("198.51.100.0/24", "172.16.2.1")
PEER_ONE, PEER_TWO, BEHIND_TWO = "172.16.1.9", "172.16.2.9", "198.51.100.5"


def at(*scope: str, **fields: Any) -> Json:
    return dropping("fw", list(scope), **fields)


# (sentence, objects, packet, verdict)
SIDES = [
    ("an uplink's rule holds for what leaves by it", [ONE, at(UP1)], f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP fw"),
    ("and for what enters by it", [ONE, at(UP1)], f"tcp {OUTSIDE}:1 > {WEB}:80", "DROP fw"),
    ("not for what crosses the gateway elsewhere", [ONE, at(UP1)], f"tcp {WEB}:1 > {DB}:80", "ALLOW"),
    ("direction IN = entering the gateway from the interface's network", [ONE, at(UP1, direction="IN")],
     f"tcp {OUTSIDE}:1 > {WEB}:80", "DROP fw"),
    ("IN is not leaving", [ONE, at(UP1, direction="IN")], f"tcp {WEB}:1 > {OUTSIDE}:80", "ALLOW"),
    ("OUT is leaving", [ONE, at(UP1, direction="OUT")], f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP fw"),
    ("OUT is not entering", [ONE, at(UP1, direction="OUT")], f"tcp {OUTSIDE}:1 > {WEB}:80", "ALLOW"),
    ("an address of the interface's network tells it", [ONE, TWO, at(UP1)], f"tcp {PEER_ONE}:1 > {WEB}:80", "DROP fw"),
    ("and tells the other", [ONE, TWO, at(UP1)], f"tcp {PEER_TWO}:1 > {WEB}:80", "ALLOW"),
    ("a static route's next hop tells the interface", [ONE, TWO, TO_TWO, at(UP2)], f"tcp {WEB}:1 > {BEHIND_TWO}:80",
     "DROP fw"),
    ("and not the other one", [ONE, TWO, TO_TWO, at(UP1)], f"tcp {WEB}:1 > {BEHIND_TWO}:80", "ALLOW"),
    ("two uplinks, one named, nobody knows which: undecided", [ONE, TWO, at(UP1)], f"tcp {WEB}:1 > {OUTSIDE}:80",
     "UNDECIDED fw"),
    ("two uplinks, both named", [ONE, TWO, at(UP1, UP2)], f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP fw"),
    ("the gateway and an interface of it: the whole gateway", [ONE, TWO, at(T0, UP1)], f"tcp {WEB}:1 > {DB}:80",
     "DROP fw"),
    ("an interface of another gateway", [ONE, at(UP1)], f"tcp {WEB}:1 > {APP}:80", "ALLOW"),
    ("a label stands for its interfaces",
     [ONE, TWO, {"resource_type": "PolicyLabel", "path": "/infra/labels/l", "refs": [UP1, UP2]}, at("/infra/labels/l")],
     f"tcp {WEB}:1 > {OUTSIDE}:80", "DROP fw"),
    ("a service interface of a Tier-1", [interface(DMZ, "172.20.0.1", "SERVICE"), at(DMZ, direction="IN")],
     f"tcp 172.20.0.9:1 > {WEB}:80", "DROP fw"),
    ("a loopback is no uplink", [ONE, interface(UP2, "172.16.9.1", "LOOPBACK"), at(UP1)], f"tcp {WEB}:1 > {OUTSIDE}:80",
     "DROP fw"),
    # NAT
    ("SNAT at an interface: what leaves by it",
     [ONE, TWO, TO_TWO, nat("n", T0, "SNAT", translated_network="203.0.113.9", scope=[UP2],
                            firewall_match="MATCH_EXTERNAL_ADDRESS"), at(T0, source_groups=["203.0.113.9"])],
     f"tcp {WEB}:1 > {BEHIND_TWO}:80", "DROP fw"),
    ("SNAT at another interface",
     [ONE, TWO, TO_TWO, nat("n", T0, "SNAT", translated_network="203.0.113.9", scope=[UP1],
                            firewall_match="MATCH_EXTERNAL_ADDRESS"), at(T0, source_groups=["203.0.113.9"])],
     f"tcp {WEB}:1 > {BEHIND_TWO}:80", "ALLOW"),
    ("DNAT at an interface: what enters by it",
     [ONE, TWO, nat("n", T0, "DNAT", destination_network="203.0.113.5", translated_network=DB, scope=[UP1]),
      at(T0, destination_groups=[DB])], f"tcp {PEER_ONE}:1 > 203.0.113.5:80", "DROP fw"),
    ("DNAT at another interface",
     [ONE, TWO, nat("n", T0, "DNAT", destination_network="203.0.113.5", translated_network=DB, scope=[UP1]),
      at(T0, destination_groups=[DB])], f"tcp {PEER_TWO}:1 > 203.0.113.5:80", "ALLOW"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "objects", "packet", "expected"), SIDES, ids=[s[0] for s in SIDES])
def test_single_interfaces(sentence: str, objects: list[Json], packet: str, expected: str) -> None:
    """Scope = gateway or interface paths; direction IN = entering the gateway from the interface's network."""
    found = verdict(engine(*objects), packet)
    assert (found if expected.endswith("fw") else found.split()[0].replace("NONE", "ALLOW")) == expected


def test_connectivity_knows_interfaces() -> None:
    """Two outside networks behind two uplinks are two classes, each with its own answer."""
    of = engine(ONE, TWO, TO_TWO, at(UP2))
    reach = {r.dst.name: str(r.allowed) for r in connectivity(of.layers) if r.src.name == "web" and r.src.version == 4}
    assert [allowed for name, allowed in reach.items() if "198.51.100.0" in name] == ["none"]
    assert [allowed for name, allowed in reach.items() if "172.16.1.0" in name] == ["all"]


# Order of gateway policies


def at_t0(category: str, name: str, action: str = "ALLOW", **fields: Any) -> Json:
    rules = [{"display_name": name, "action": action, "scope": [T0]}]
    path = f"/infra/domains/default/gateway-policies/{name}"
    return {"resource_type": "GatewayPolicy", "path": path, "category": category, "rules": rules, **fields}


# (sentence, policies, deciding rule)
ORDER = [
    ("Emergency before SystemRules", [at_t0("SystemRules", "b"), at_t0("Emergency", "a")], "a"),
    ("SystemRules before SharedPreRules", [at_t0("SharedPreRules", "b"), at_t0("SystemRules", "a")], "a"),
    ("SharedPreRules before LocalGatewayRules", [at_t0("LocalGatewayRules", "b"), at_t0("SharedPreRules", "a")], "a"),
    (
        "LocalGatewayRules before AutoServiceRules",
        [at_t0("AutoServiceRules", "b"), at_t0("LocalGatewayRules", "a")],
        "a",
    ),
    ("AutoServiceRules before Default", [at_t0("Default", "b"), at_t0("AutoServiceRules", "a")], "a"),
    (
        "in a category by sequence_number",
        [at_t0("Default", "b", sequence_number=2), at_t0("Default", "a", sequence_number=1)],
        "a",
    ),
]


@pytest.mark.parametrize(("sentence", "policies", "expected"), ORDER, ids=[o[0] for o in ORDER])
def test_gateway_categories(sentence: str, policies: list[Json], expected: str) -> None:
    assert verdict(engine(*policies), f"tcp {OUTSIDE}:1 > 192.0.2.99:80") == "NONE"
    assert verdict(engine(*policies), f"tcp {OUTSIDE}:1 > {DB}:80") == f"ALLOW {expected}"


def test_a_gateway_whose_firewall_is_off_judges_nothing() -> None:
    of = engine(at_t0("Default", "a", "DROP"), tier0=[{"resource_type": "Tier0", "path": T0, "disable_firewall": True}])
    assert verdict(of, f"tcp {OUTSIDE}:1 > {DB}:80") == "ALLOW"
    assert "gateway-firewall-off" in {d.code for d in of.diagnostics}


def test_a_jump_is_not_legal_at_a_gateway() -> None:
    with pytest.raises(PolicyError, match="action is 'JUMP_TO_APPLICATION'"):
        engine(at_t0("LocalGatewayRules", "a", "JUMP_TO_APPLICATION"))


# NAT64

PREFIX = "64:ff9b::/96"
SIX = "2001:db8:1::10"


def six(**fields: Any) -> dict[str, Any]:
    """An inventory in which the machine "web" has an IPv6 address as well."""
    vif = {"external_id": "vif-web", "owner_vm_id": "web", "lport_attachment_id": "att-web",
           "ip_address_info": [{"ip_addresses": [WEB, SIX]}]}  # fmt: skip
    port = {"path": "/infra/segments/web/ports/p", "attachment": {"id": "att-web"}}
    segment = {"path": "/infra/segments/web", "connectivity_path": T1A, "segment_ports": [port],
               "subnets": [{"network": "10.1.0.0/24"}, {"network": "2001:db8:1::/64"}]}  # fmt: skip
    return {"virtual_network_interface": [vif], "segments": [segment], **fields}


def nat64(**fields: Any) -> Json:
    return nat("64", T0, "NAT64", **{"source_network": "2001:db8::/32", "destination_network": PREFIX,
                                     "translated_network": "203.0.113.9", **fields})  # fmt: skip


OUTSIDE_VIEW = {"firewall_match": "MATCH_EXTERNAL_ADDRESS"}
ECHO = {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv4", "icmp_type": 8}
TO = "[64:ff9b::192.0.2.7]"
# (sentence, NAT rule, firewall rule's fields, packet, verdict)
SIX_TO_FOUR = [
    ("the last 32 bits are the destination", nat64(**OUTSIDE_VIEW), {"destination_groups": ["192.0.2.7"]},
     f"tcp [{SIX}]:1 > {TO}:80", "DROP fw"),
    ("the pool's address is the source", nat64(**OUTSIDE_VIEW), {"source_groups": ["203.0.113.9"]},
     f"tcp [{SIX}]:1 > {TO}:80", "DROP fw"),
    ("the packet is IPv4 behind it", nat64(**OUTSIDE_VIEW), {"ip_protocol": "IPV4"}, f"tcp [{SIX}]:1 > {TO}:80",
     "DROP fw"),
    ("MATCH_INTERNAL_ADDRESS: the firewall sees IPv6", nat64(), {"ip_protocol": "IPV4"}, f"tcp [{SIX}]:1 > {TO}:80",
     "ALLOW"),
    ("BYPASS: no firewall", nat64(firewall_match="BYPASS"), {}, f"tcp [{SIX}]:1 > {TO}:80", "ALLOW"),
    ("another IPv6 destination is not translated", nat64(**OUTSIDE_VIEW), {"ip_protocol": "IPV4"},
     f"tcp [{SIX}]:1 > [2001:db8:9::1]:80", "ALLOW"),
    ("of a pool nobody knows which address", nat64(translated_network="203.0.113.8/30", **OUTSIDE_VIEW),
     {"source_groups": ["203.0.113.9"]}, f"tcp [{SIX}]:1 > {TO}:80", "UNDECIDED fw"),
    ("the destination is known with a pool, too", nat64(translated_network="203.0.113.8/30", **OUTSIDE_VIEW),
     {"destination_groups": ["192.0.2.7"]}, f"tcp [{SIX}]:1 > {TO}:80", "DROP fw"),
    ("an ICMPv6 echo request becomes an ICMP one", nat64(**OUTSIDE_VIEW), {"service_entries": [ECHO]},
     f"icmpv6 [{SIX}] > {TO} icmp_type 128 icmp_code 0", "DROP fw"),
    ("another ICMPv6 message: not known", nat64(**OUTSIDE_VIEW), {"service_entries": [ECHO]},
     f"icmpv6 [{SIX}] > {TO} icmp_type 4 icmp_code 0", "UNDECIDED fw"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "rule", "fields", "packet", "expected"), SIX_TO_FOUR,
                         ids=[s[0] for s in SIX_TO_FOUR])  # fmt: skip
def test_nat64(sentence: str, rule: Json, fields: Json, packet: str, expected: str) -> None:
    packet = re.sub(r"^icmpv6 \[(\S+)\] > \[(\S+)\]", r"icmpv6 \1 > \2", packet)
    assert verdict(engine(rule, dropping("fw", [T0], **fields), **six()), packet) == expected


@pytest.mark.parametrize(
    "fields",
    [{"destination_network": "64:ff9b::/64"}, {"destination_network": ""}, {"translated_network": "2001:db8::1"}],
)
def test_nat64_of_another_form_is_refused(fields: Json) -> None:
    with pytest.raises(PolicyError, match="NAT64 maps one IPv6 network of 96 bits"):
        engine(nat64(**fields))


# North-south redirection

INSTANCE = f"{SERVICES}/service-instances/fw"
NORTH_SOUTH = {
    "resource_type": "RedirectionPolicy", "path": "/infra/domains/default/redirection-policies/ns",
    "north_south": True, "redirect_to": [INSTANCE],
    "rules": [{"display_name": "dns", "action": "DO_NOT_REDIRECT", "services": ["/infra/services/DNS-UDP"]},
              {"display_name": "rest", "action": "REDIRECT"}],
}  # fmt: skip


def instance(failure: str = "BLOCK") -> Json:
    return {"resource_type": "PolicyServiceInstance", "path": INSTANCE, "failure_policy": failure}


def test_north_south_traffic_is_redirected_at_the_uplink() -> None:
    """Decision computed: {redirect, chain, rule, if_chain_down}"""
    of = engine(ONE, instance(), NORTH_SOUTH)
    assert "rest: redirected to fw, if it is down BLOCK" in redirected(of, f"tcp {WEB}:1 > {OUTSIDE}:80")
    assert "rest: redirected to fw" in redirected(of, f"tcp {OUTSIDE}:1 > {WEB}:80")
    assert "dns: not redirected" in redirected(of, f"udp {WEB}:1 > {OUTSIDE}:53")
    assert verdict(of, f"tcp {WEB}:1 > {OUTSIDE}:80") == "ALLOW"


def test_what_does_not_pass_the_uplink_is_not_redirected() -> None:
    of = engine(ONE, instance(), NORTH_SOUTH)
    assert "t0 redirection" in through(of, f"tcp {WEB}:1 > {DB}:80")
    assert "no rule matched" in redirected(of, f"tcp {WEB}:1 > {DB}:80")


@pytest.mark.parametrize(("failure", "expected"), [("BLOCK", "DROP"), ("ALLOW", "ALLOW")])
def test_the_failure_policy_of_the_instance(failure: str, expected: str) -> None:
    down = engine(ONE, instance(failure), NORTH_SOUTH, chains_down=(INSTANCE,))
    assert verdict(down, f"tcp {WEB}:1 > {OUTSIDE}:80").startswith(expected)
    assert verdict(down, f"udp {WEB}:1 > {OUTSIDE}:53").startswith("ALLOW")


def test_redirection_never_turns_a_drop_into_an_allow() -> None:
    down = engine(ONE, instance("ALLOW"), NORTH_SOUTH, dropping("fw", [T0]), chains_down=(INSTANCE,))
    assert verdict(down, f"tcp {WEB}:1 > {OUTSIDE}:80") == "DROP fw"


def test_an_instance_that_is_in_no_file_is_an_error() -> None:
    with pytest.raises(PolicyError, match="service chain"):
        engine(ONE, NORTH_SOUTH)
    lenient = engine(ONE, NORTH_SOUTH, strict=False)
    assert "UNKNOWN" in redirected(lenient, f"tcp {WEB}:1 > {OUTSIDE}:80")


def test_north_south_at_a_tier_1_sees_its_link_to_the_tier_0() -> None:
    path = f"{T1B}/locale-services/default/service-instances/fw"
    policy = {**NORTH_SOUTH, "redirect_to": [path]}
    of = engine({**instance(), "path": path}, policy)
    assert "t1b down redirection" in through(of, f"tcp {OUTSIDE}:1 > {DB}:80")
    reasons = {p.title: p.reason for p in of.explain(f"tcp {OUTSIDE}:1 > {DB}:80").points}
    assert "rest: redirected" in reasons["nsx-dfw t1b down redirection"]
    assert not any(p.endswith("redirection") for p in through(of, f"tcp {WEB}:1 > {APP}:80"))


# Schedules in local time

SCHEDULE = "/infra/firewall-schedulers/s"


def schedule(**fields: Any) -> Json:
    return {"resource_type": "PolicyFirewallScheduler", "path": SCHEDULE, "timezone": "LOCAL", **fields}


OFFICE = {"recurring": True, "days": ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY"],
          "time_interval": [{"start_interval": "09:00", "end_interval": "17:00"}]}  # fmt: skip
LATE = {"recurring": True, "days": ["SUNDAY"], "time_interval": [{"start_interval": "22:00", "end_interval": "24:00"}]}


def utc(text: str) -> int:
    year, month, day, hour, minute = (int(part) for part in re.split(r"[- :]", text))
    return calendar.timegm((year, month, day, hour, minute, 0))


# (sentence, schedule, zone, UTC, in force)
TIMES = [
    ("winter: one hour behind", OFFICE, "Europe/Berlin", "2024-01-10 08:00", True),
    ("winter: before", OFFICE, "Europe/Berlin", "2024-01-10 07:59", False),
    ("summer: two hours behind", OFFICE, "Europe/Berlin", "2024-07-10 07:00", True),
    ("summer: after", OFFICE, "Europe/Berlin", "2024-07-10 15:00", False),
    ("the day is that of the zone", OFFICE, "Asia/Tokyo", "2024-01-08 00:00", True),
    ("the week turns", LATE, "America/Los_Angeles", "2024-01-08 06:30", True),
    ("and the zone's Sunday ends", LATE, "America/Los_Angeles", "2024-01-08 08:00", False),
    ("half hours", OFFICE, "Asia/Kolkata", "2024-01-10 03:30", True),
    ("half hours: before", OFFICE, "Asia/Kolkata", "2024-01-10 03:29", False),
    ("dates are those of the zone", {"start_date": "01/10/2024", "end_date": "01/10/2024"}, "Asia/Tokyo",
     "2024-01-09 15:00", True),
    ("and end with it", {"start_date": "01/10/2024", "end_date": "01/10/2024"}, "Asia/Tokyo", "2024-01-10 15:00",
     False),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "fields", "zone", "when", "expected"), TIMES, ids=[t[0] for t in TIMES])
def test_local_time(sentence: str, fields: Json, zone: str, when: str, expected: bool) -> None:
    of = zoned(fields, zone)
    found = verdict(of, f"tcp {WEB}:1 > {OUTSIDE}:80 time {utc(when)}")
    assert found == ("DROP office" if expected else "ALLOW")


def zoned(fields: Json, zone: str) -> Engine:
    rules = [{"display_name": "office", "action": "DROP"}]
    return engine(schedule(**fields), application(rules, scheduler_path=SCHEDULE), time_zone=zone)


def test_without_a_zone_local_time_is_an_error() -> None:
    with pytest.raises(PolicyError, match="own time zone"):
        zoned(OFFICE, "")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe/\0"])
def test_a_zone_that_does_not_exist(zone: str) -> None:
    with pytest.raises(PolicyError, match="no time zone is called"):
        zoned(OFFICE, zone)


def test_every_second_of_a_changing_day_has_one_offset() -> None:
    """The alternatives of a zone cover all time once: no second is in force twice or never by the clock's change."""
    always = schedule(recurring=True, days=["SUNDAY"])
    found = schedule_alternatives(read_json(json.dumps(always), "s", Limits()), "s", "Europe/Berlin")
    assert len(found) == 2
    assert not found[0]["time"].intersection(found[1]["time"])
    assert found[0]["time"].union(found[1]["time"]).v4 == ((0, 2**32 - 1),)
