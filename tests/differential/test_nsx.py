"""The imported NSX rule list against a literal walk of the same objects, on random configurations and packets."""

from __future__ import annotations

import ipaddress
import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve import packets
from meshsieve.importers.nsx import NsxImporter
from meshsieve.importers.nsx.services import predefined_services
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, Layer, SourceFile
from tests.conformance.policies.nsx import with_addresses
from tests.reference.nsx_walk import Outcome, Packet, Reference
from tests.shared import packets_each, part, shared_data

Json = dict[str, Any]

ACTIONS = {Action.ALLOW: "ALLOW", Action.DROP: "DROP", Action.REJECT: "REJECT"}


def layer_of(config: Json, services: list[Json]) -> Layer:
    sources = [SourceFile("config.json", json.dumps(config)), SourceFile("services.json", json.dumps(services))]
    return NsxImporter().load(sources, ImportOptions()).layers[0]


class Imported:
    """Asks the imported layer as the reference is asked."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.tables = {p.name.upper(): packets.compile(p.rules) for p in layer.points}

    def judge(self, packet: Packet) -> dict[str, Outcome]:
        out = {}
        for point in self.layer.points:
            address = ipaddress.ip_address(packet.src if point.vnic_of == "src" else packet.dst)
            vnic = self.layer.inventory.owner(address.version, int(address))
            if vnic < 0 or vnic in point.excluded:
                continue
            fields = {
                name: getattr(packet, name)
                for name in ("sport", "dport", "proto", "tcp_flags", "icmp_type", "icmp_code", "eth_type")
            }
            table = self.tables[point.name.upper()]
            trace = table.explain(packet.src, packet.dst, vnic=vnic, ct_state=1, **point.constants, **fields)
            result = table.classify(packet.src, packet.dst, vnic=vnic, ct_state=1, **point.constants, **fields)
            assert result == trace.result
            matched = [test.rule.name for test in trace if test.truth == "yes"]
            if result < -1:
                action = f"UNDECIDED {point.rules[-result - 2].name}"
            else:
                action = "NO_MATCH" if result == -1 else ACTIONS[point.rules[result].action]
            out[point.name.upper()] = Outcome(matched, action)
        return out


# Random configurations


def pick(r: random.Random, *values: Any) -> Any:
    return r.choice(values)


def some(r: random.Random, values: list[Any], most: int = 2) -> list[Any]:
    return r.sample(values, min(r.randint(1, most), len(values)))


RANGES = ["10.0.0.0/30", "10.0.0.2", "10.0.0.1-10.0.0.9", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/126", "2001:db8::3"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9", "10.0.0.10", "192.0.2.7", "198.51.100.1"]
ADDRESSES_V6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8:1::1"]
TAGS = ["web", "Web", "db", "prod", "web-old"]
SCOPES = ["", "tier", "TIER", "env"]


def machines(r: random.Random) -> list[Json]:
    return [
        {
            "external_id": f"vm{i}",
            "display_name": pick(r, f"web-{i}", f"db-{i}"),
            "os_name": pick(r, "Linux", "Windows Server"),
            "computer_name": f"host{i}",
            "tags": [{"scope": pick(r, *SCOPES), "tag": pick(r, *TAGS)} for _ in range(r.randint(0, 2))],
        }
        for i in range(4)
    ]


def interfaces() -> list[Json]:
    return [
        {
            "external_id": f"vif{i}",
            "owner_vm_id": f"vm{i}",
            "lport_attachment_id": f"port{i}",
            "ip_address_info": [{"ip_addresses": [ADDRESSES[i]]}, {"ip_addresses": [ADDRESSES_V6[i]]}],
        }
        for i in range(4)
    ]


def segments(r: random.Random) -> list[Json]:
    return [
        {
            "path": f"/infra/segments/s{i}",
            "display_name": f"s{i}",
            "subnets": [{"network": "10.0.0.0/24"}],
            "tags": [{"scope": pick(r, *SCOPES), "tag": pick(r, *TAGS)}],
            "segment_ports": [{"id": f"p{j}", "attachment": {"id": f"port{j}"}} for j in range(i * 2, i * 2 + 2)],
        }
        for i in range(2)
    ]


def condition(r: random.Random) -> Json:
    kind = pick(r, "VirtualMachine", "VirtualMachine", "Segment")
    key = pick(r, "Tag", "Name") if kind == "Segment" else pick(r, "Tag", "Tag", "Name", "OSName", "ComputerName")
    operator = pick(r, "EQUALS", "NOTEQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "IN", "NOTIN")
    if key == "Tag":
        value = pick(r, "web", "WEB", "tier|web", "|db", "env|", "tier|", "w")
    else:
        value = pick(r, "web-0", "db-1", "Linux", "host2", "web", "s0", "er")
    if operator in ("IN", "NOTIN"):
        value += ",db-2,web"
    out = {"resource_type": "Condition", "member_type": kind, "key": key, "operator": operator, "value": value}
    return {**out, "scope_operator": pick(r, "EQUALS", "NOTEQUALS")} if r.random() < 0.3 else out


def member(r: random.Random, known: list[str]) -> Json:
    choice = r.random()
    if choice < 0.5:
        return condition(r)
    if choice < 0.65:
        version = pick(r, ".", ":")
        texts = [t for t in RANGES if version in t]
        return {"resource_type": "IPAddressExpression", "ip_addresses": some(r, texts)}
    if choice < 0.75:
        return {"resource_type": "ExternalIDExpression", "member_type": "VirtualMachine", "external_ids": ["vm1"]}
    if choice < 0.9:
        return {"resource_type": "PathExpression", "paths": some(r, [*known, "/infra/segments/s1"])}
    conjunction = {"resource_type": "ConjunctionOperator", "conjunction_operator": "AND"}
    return {"resource_type": "NestedExpression", "expressions": [condition(r), conjunction, condition(r)]}


def groups(r: random.Random) -> list[Json]:
    out: list[Json] = []
    for i in range(5):
        known = [g["path"] for g in out]
        expression = [member(r, known)]
        for _ in range(r.randint(0, 2)):
            operator = pick(r, "AND", "OR")
            expression.append({"resource_type": "ConjunctionOperator", "conjunction_operator": operator})
            expression.append(member(r, known))
        group: Json = {"path": f"g{i}", "expression": expression}
        if r.random() < 0.25:
            group = {"path": f"g{i}", "vm_members": [{"id": f"vm{r.randrange(4)}"}]}
        if r.random() < 0.1:
            group = {
                "path": f"g{i}",
                "group_type": ["IPAddress"],
                "ips_members": some(r, RANGES, 3),
                "expression": [{"resource_type": "IPAddressExpression", "ip_addresses": ["10.0.0.2"]}],
            }
        out.append(group)
    return out


SERVICES: list[Json] = [
    {
        "path": "/infra/services/web",
        "service_entries": [
            {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["80", "440-443"]},
            {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["8080"]},
        ],
    },
    {
        "path": "/infra/services/dns-answers",
        "service_entries": [
            {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "UDP", "source_ports": ["53"]},
            {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "source_ports": ["53", "1000-2000"]},
        ],
    },
    {
        "path": "/infra/services/ping",
        "service_entries": [
            {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv4", "icmp_type": 8},
            {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv6", "icmp_type": 128, "icmp_code": 0},
        ],
    },
    {"path": "/infra/services/empty", "service_entries": []},
    {
        "path": "/infra/services/nested",
        "service_entries": [
            {"resource_type": "NestedServiceServiceEntry", "nested_service_path": "/infra/services/ping"},
            {"resource_type": "IPProtocolServiceEntry", "protocol_number": 47},
            {"resource_type": "IGMPTypeServiceEntry"},
        ],
    },
    {
        "path": "/infra/services/ftp",
        "service_entries": [{"resource_type": "ALGTypeServiceEntry", "alg": "FTP", "destination_ports": ["21"]}],
    },
]
INLINE: list[Json] = [
    {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["443"]},
    {"resource_type": "ICMPTypeServiceEntry"},
    {"resource_type": "IPProtocolServiceEntry", "protocol_number": 6},
]


def rule(r: random.Random, category: str, name: str) -> Json:
    ends = ["g0", "g1", "g2", "g3", "g4", *RANGES]
    out: Json = {
        "display_name": name,
        "action": pick(r, "ALLOW", "DROP", "REJECT"),
        "direction": pick(r, "IN_OUT", "IN_OUT", "IN", "OUT"),
        "sequence_number": r.randint(0, 3),
        "disabled": r.random() < 0.1,
        "is_default": r.random() < 0.1,
        "scope": pick(r, ["ANY"], [], some(r, ["g0", "g1", "/infra/segments/s0"])),
    }
    if category == "Environment" and r.random() < 0.3:
        out["action"] = "JUMP_TO_APPLICATION"
    if r.random() < 0.3:
        out["ip_protocol"] = pick(r, "IPV4", "IPV6", "IPV4_IPV6")
    if category == "Ethernet":
        if r.random() < 0.7:
            number = pick(r, 0x0800, 0x86DD, 0x0806)
            out["service_entries"] = [{"resource_type": "EtherTypeServiceEntry", "ether_type": number}]
        return out
    for key, excluded in (("source_groups", "sources_excluded"), ("destination_groups", "destinations_excluded")):
        out[key] = pick(r, ["ANY"], some(r, ends), some(r, ends))
        out[excluded] = r.random() < 0.15
    if r.random() < 0.7:
        out["services"] = pick(r, ["ANY"], some(r, [s["path"] for s in SERVICES]))
    if r.random() < 0.3:
        out["service_entries"] = some(r, INLINE)
    return out


def policy(r: random.Random, number: int) -> Json:
    category = pick(r, "Ethernet", "Emergency", "Infrastructure", "Environment", "Environment", "Application", "")
    out: Json = {
        "display_name": f"p{number}",
        "category": category,
        "sequence_number": r.randint(0, 2),
        "stateful": r.random() < 0.8,
        "scope": pick(r, ["ANY"], [], ["g0"]),
        "rules": [rule(r, category, f"p{number}r{i}") for i in range(r.randint(0, 4))],
    }
    if r.random() < 0.2:
        out["tcp_strict"] = False
    if r.random() < 0.2 and category != "Ethernet":
        out["scope"] = ["g1"]
        out["default_rule_id"] = 1000 + number
        out["connectivity_preference"] = pick(r, "ALLOWLIST", "DENYLIST", "ALLOWLIST_ENABLE_LOGGING", "NONE")
    return out


def configuration(r: random.Random) -> Json:
    resources = {"security_policies": [policy(r, i) for i in range(r.randint(1, 6))], "groups": groups(r)}
    return {
        "virtual_machines": machines(r),
        "virtual_network_interface": interfaces(),
        "segments": segments(r),
        "domains": [{"display_name": "default", "resources": resources}],
        "exclude_list": {"members": pick(r, [], [], ["g2"])},
    }


def packet(r: random.Random, addresses: list[str], ports: list[int]) -> Packet:
    src = r.choice(addresses)
    dst = r.choice([a for a in addresses if (":" in a) == (":" in src)])
    out = Packet(src, dst, pick(r, 6, 6, 17, 1, 58, 2, 47), eth_type=0x86DD if ":" in src else 0x0800)
    fragment = r.random() < 0.1
    if out.proto in (6, 17) and not fragment:
        out.sport, out.dport = r.choice(ports), r.choice(ports)
    if out.proto == 6 and not fragment:
        out.tcp_flags = pick(r, 2, 2, 2, 18, 16, 4)
    if out.proto in (1, 58) and not fragment:
        out.icmp_type, out.icmp_code = pick(r, 8, 0, 128, 3), pick(r, 0, 1)
    if r.random() < 0.05:
        out.eth_type = None
    return out


PORTS = [20, 21, 22, 53, 79, 80, 81, 439, 440, 443, 444, 445, 1000, 2000, 2001, 8080, 40000]


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_configurations(r: random.Random) -> None:
    config = configuration(r)
    imported = Imported(layer_of(config, SERVICES))
    reference = Reference(config, {s["path"]: s for s in SERVICES})
    for _ in range(20):
        p = packet(r, ADDRESSES + ADDRESSES_V6, PORTS)
        assert imported.judge(p) == reference.judge(p), p


def test_the_shared_configurations() -> None:
    folder = shared_data("policies/nsx/configs")
    predefined = {path: {"service_entries": list(s.entries)} for path, s in predefined_services().items()}
    files = sorted(folder.glob("*.json"))
    for path in part(files):
        config = json.loads(path.read_text())
        with_addresses(config)
        imported = Imported(layer_of(config, []))
        reference = Reference(config, predefined)
        owned = [str(ipaddress.ip_address(a)) for v in imported.layer.inventory.vnics for _, a in v.addresses]
        r = random.Random(path.name)
        for _ in range(packets_each(len(files), 100)):
            p = packet(r, [*owned, "8.8.8.8", "1.2.3.4", "0.0.3.0", "255.255.255.255"], PORTS)
            assert imported.judge(p) == reference.judge(p), (path.name, p)
