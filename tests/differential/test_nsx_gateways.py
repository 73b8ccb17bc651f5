"""Gateways, NAT and interfaces as imported against a literal walk (tests/reference/nsx_gateway_walk.py)."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve.columns import PacketColumns
from meshsieve.engine import Engine
from meshsieve.importers.nsx import NsxImporter
from meshsieve.policy import ImportOptions, SourceFile
from tests.reference.nsx_gateway_walk import Gateways
from tests.reference.nsx_walk import Packet

Json = dict[str, Any]
T0, T1A, T1B = "/infra/tier-0s/t0", "/infra/tier-1s/a", "/infra/tier-1s/b"
UPLINKS = [f"{T0}/locale-services/d/interfaces/up{i}" for i in (1, 2)]
SERVICE = f"{T1A}/locale-services/d/interfaces/service"
OWNED = ["10.1.0.10", "10.2.0.10", "10.3.0.10"]
PUBLIC = ["203.0.113.5", "203.0.113.6", "203.0.113.9"]
OTHER = ["10.1.0.99", "172.16.1.9", "172.16.2.9", "172.20.0.9", "198.51.100.5", "192.0.2.7", "10.9.0.9"]
ADDRESSES = [*OWNED, *PUBLIC, *OTHER]
NETWORKS = ["10.1.0.0/24", "10.0.0.0/8", "203.0.113.0/24", "192.0.2.7", "0.0.0.0/0", *OWNED[:2], *PUBLIC[:1]]
PORTS = [22, 53, 80, 443]


def inventory() -> Json:
    names = ("web", "app", "db")
    gateways = (T1A, T1A, T1B)
    return {
        "virtual_machines": [{"external_id": n, "display_name": n} for n in names],
        "virtual_network_interface": [
            {"external_id": f"vif-{n}", "owner_vm_id": n, "lport_attachment_id": f"att-{n}",
             "ip_address_info": [{"ip_addresses": [a]}]} for n, a in zip(names, OWNED, strict=True)
        ],
        "segments": [
            {"path": f"/infra/segments/{n}", "connectivity_path": g, "subnets": [{"network": f"10.{i}.0.0/24"}],
             "segment_ports": [{"path": f"/infra/segments/{n}/ports/p", "attachment": {"id": f"att-{n}"}}]}
            for i, (n, g) in enumerate(zip(names, gateways, strict=True), 1)
        ] + [{"path": "/infra/segments/loose", "subnets": [{"network": "10.9.0.0/24"}]}],
        "tier0": [{"resource_type": "Tier0", "path": T0}],
        "tier1": [{"resource_type": "Tier1", "path": p, "tier0_path": T0} for p in (T1A, T1B)],
    }  # fmt: skip


def interface(path: str, address: str, kind: str) -> Json:
    subnets = [{"ip_addresses": [address], "prefix_len": 24}]
    return {"resource_type": "Tier0Interface", "path": path, "type": kind, "subnets": subnets}


def static_route(r: random.Random, number: int) -> Json:
    hops = [{"ip_address": f"172.16.{r.choice((1, 2))}.1", "admin_distance": r.choice((1, 1, 5))} for _ in range(2)]
    network = r.choice(["198.51.100.0/24", "192.0.2.0/24", "0.0.0.0/0"])
    return {"resource_type": "StaticRoutes", "path": f"{T0}/static-routes/{number}", "network": network,
            "next_hops": hops[: r.randint(1, 2)]}  # fmt: skip


def nat_rule(r: random.Random, number: int) -> Json:
    gateway = r.choice([T0, T0, T1A, T1B])
    public = PUBLIC[[T1A, T1B, T0].index(gateway)]  # an address outside belongs to one gateway
    action = r.choice(["SNAT", "DNAT", "DNAT", "REFLEXIVE", "NO_SNAT", "NO_DNAT"])
    out: Json = {
        "resource_type": "PolicyNatRule", "path": f"{gateway}/nat/USER/nat-rules/{number}", "action": action,
        "sequence_number": number, "enabled": r.random() < 0.9,
        "firewall_match": r.choice(["MATCH_INTERNAL_ADDRESS", "MATCH_EXTERNAL_ADDRESS", "BYPASS"]),
    }  # fmt: skip
    if action == "DNAT":
        out |= {"destination_network": public, "translated_network": r.choice(OWNED)}
        if r.random() < 0.3:
            out["translated_ports"] = str(r.choice(PORTS))
    elif action == "SNAT":
        out |= {"source_network": r.choice(["10.1.0.0/24", "10.0.0.0/8", OWNED[0]]), "translated_network": public}
    elif action == "REFLEXIVE":
        out |= {"source_network": r.choice(OWNED), "translated_network": public}
    else:
        out[r.choice(["source_network", "destination_network"])] = r.choice(NETWORKS)
    if r.random() < 0.3 and gateway == T0:
        out["scope"] = r.choice([[T0], UPLINKS])
    return out


def rule(r: random.Random, name: str) -> Json:
    out: Json = {
        "display_name": name, "action": r.choice(["ALLOW", "DROP", "REJECT"]), "sequence_number": len(name),
        "direction": r.choice(["IN", "OUT", "IN_OUT"]), "disabled": r.random() < 0.1,
        "scope": r.choice([["ANY"], [T0], [T1A], UPLINKS[:1], UPLINKS, [SERVICE], [T1A, UPLINKS[1]]]),
    }  # fmt: skip
    for key in ("source_groups", "destination_groups"):
        if r.random() < 0.5:
            out[key] = r.sample(NETWORKS, r.randint(1, 2))
    if r.random() < 0.4:
        ports = {"destination_ports": [str(r.choice(PORTS))]} if r.random() < 0.8 else {"source_ports": ["1000-2000"]}
        out["service_entries"] = [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", **ports}]
    return out


def world(r: random.Random) -> tuple[Json, list[Json]]:
    """(inventory, objects beside it)"""
    objects = [interface(UPLINKS[0], "172.16.1.2", "EXTERNAL"), interface(SERVICE, "172.20.0.1", "SERVICE")]
    if r.random() < 0.6:
        objects.append(interface(UPLINKS[1], "172.16.2.2", r.choice(["EXTERNAL", "EXTERNAL", "LOOPBACK"])))
        routes = {route["network"]: route for route in (static_route(r, n) for n in range(r.randint(0, 2)))}
        objects += routes.values()
        scopes: list[str] = UPLINKS
    else:
        scopes = UPLINKS[:1]
    objects += [nat_rule(r, number) for number in range(r.randint(0, 4))]
    for number in range(r.randint(1, 3)):
        category = r.choice(["Emergency", "SharedPreRules", "LocalGatewayRules", "Default"])
        rules = [rule(r, f"p{number}" + "r" * (i + 1)) for i in range(r.randint(1, 3))]
        path = f"/infra/domains/default/gateway-policies/p{number}"
        objects.append({"resource_type": "GatewayPolicy", "path": path, "category": category,
                        "sequence_number": number, "rules": rules})  # fmt: skip
    for obj in objects:  # every interface that is named exists
        for holder in [obj, *obj.get("rules", [])]:
            if "scope" in holder:
                known = [p for p in holder["scope"] if p not in UPLINKS or p in scopes]
                holder["scope"] = known or [T0]
    return inventory(), objects


def packets(r: random.Random, count: int) -> list[Packet]:
    out = []
    for _ in range(count):
        proto = r.choice((6, 6, 6, 17, 1))
        packet = Packet(r.choice(ADDRESSES), r.choice(ADDRESSES), proto)
        if proto == 1:
            packet.icmp_type, packet.icmp_code = 8, 0
        else:
            packet.sport, packet.dport = r.choice([1000, 4000]), r.choice(PORTS)
        if proto == 6:
            packet.tcp_flags = r.choice((2, 2, 2, 16))
        out.append(packet)
    return out


def columns(listed: list[Packet]) -> PacketColumns:
    fields = ("sport", "dport", "tcp_flags", "icmp_type", "icmp_code")
    has = {name: np.array([getattr(p, name) is not None for p in listed]) for name in fields}
    values = {name: [getattr(p, name) or 0 for p in listed] for name in fields}
    common = {"proto": [p.proto for p in listed], "ip_ver": [4] * len(listed), "ct_state": [1] * len(listed),
              "fragment": [0] * len(listed), "eth_type": [0x0800] * len(listed)}  # fmt: skip
    ends = {"src_ip": [p.src for p in listed], "dst_ip": [p.dst for p in listed]}
    return PacketColumns({**ends, **common}).with_fields(values, has)


def compare(r: random.Random, count: int) -> Counter[str]:
    config, objects = world(r)
    sources = [SourceFile("inventory.json", json.dumps(config)), SourceFile("more.json", json.dumps(objects))]
    engine = Engine(NsxImporter().load(sources, ImportOptions()).layers)
    reference = Gateways(config, objects, {})
    listed = packets(r, count)
    found = engine.classify(columns(listed))["action"]
    seen: Counter[str] = Counter()
    for packet, action in zip(listed, found, strict=True):
        expected = reference.verdict(packet)
        assert action == expected or (action == "NO_MATCH" and expected == "ALLOW"), (packet, action, expected, objects)
        seen[expected] += 1
    return seen


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_gateways(r: random.Random) -> None:
    compare(r, 25)


def test_every_verdict_occurs() -> None:
    seen: Counter[str] = Counter()
    for seed in range(25):
        seen += compare(random.Random(seed), 40)
    assert all(seen[verdict] > 10 for verdict in ("ALLOW", "DROP", "REJECT", "UNDECIDED")), seen
