"""The distributed firewall, literally: one walk a vNIC, rule by rule, on the exported objects as they stand.

Slow and plain on purpose, and written without the importer: it reads the JSON itself, keeps groups as functions of an
address and a vNIC, and knows nothing of sets, alternatives or skips. Three-valued where a packet lacks a field
(docs/semantics.md): "yes", "no", "maybe"; a rule that is "maybe" ends the walk undecided.

Not covered (the importer refuses them in a strict import): profiles, schedules, identity groups, MAC addresses.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

YES, MAYBE, NO = 2, 1, 0
ORDER = ["Ethernet", "Emergency", "Infrastructure", "Environment", "Application", ""]
PORTED = (6, 17, 33, 132, 136)
ALG_TCP = ("FTP", "ORACLE_TNS", "SUN_RPC_TCP", "MS_RPC_TCP")

Json = dict[str, Any]


@dataclass
class Packet:
    """None = the packet does not have the field, or nobody could see it."""

    src: str
    dst: str
    proto: int
    sport: int | None = None
    dport: int | None = None
    tcp_flags: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    eth_type: int | None = 0x0800


@dataclass
class Outcome:
    """matched: names of the rules on the way, jumps first. undecided: the name of the rule that stopped the walk."""

    matched: list[str] = field(default_factory=list)
    action: str = "NO_MATCH"


class Reference:
    """config: an inventory dump. services: Service objects, by path."""

    def __init__(self, config: Json, services: dict[str, Json]) -> None:
        self.services = services
        self.machines: list[Json] = config.get("virtual_machines") or []
        self.vifs: list[Json] = list(config.get("virtual_network_interface") or [])
        for machine in self.machines:
            if not any(v["owner_vm_id"] == machine["external_id"] for v in self.vifs):
                self.vifs.append({"owner_vm_id": machine["external_id"]})
        self.segments: list[Json] = config.get("segments") or []
        self.groups: dict[str, Json] = {}
        self.policies: list[Json] = []
        for domain in config.get("domains") or []:
            resources = domain.get("resources") or {}
            self.policies += resources.get("security_policies") or []
            for group in resources.get("groups") or []:
                self.groups[group["path"]] = group
        self.excluded: list[str] = (config.get("exclude_list") or {}).get("members") or []

    # The packet's way

    def owner(self, address: str) -> Json | None:
        """The vNIC that has the address."""
        for vif in self.vifs:
            if any(same_address(address, a) for i in vif.get("ip_address_info") or [] for a in i["ip_addresses"]):
                return vif
        return None

    def judge(self, packet: Packet) -> dict[str, Outcome]:
        """An outcome for each end that has an enforcement point."""
        out = {}
        for direction, address in (("OUT", packet.src), ("IN", packet.dst)):
            vif = self.owner(address)
            if vif is not None and not any(self.vnic_in(path, vif) for path in self.excluded):
                out[direction] = self.walk(packet, direction, vif)
        return out

    def walk(self, packet: Packet, direction: str, vif: Json) -> Outcome:
        outcome = Outcome()
        skip_to = ""
        for category, policy, rule in self.rules():
            if skip_to and ORDER.index(category) < ORDER.index(skip_to):
                continue
            truth = self.matches(policy, rule, packet, direction, vif)
            if truth == NO:
                continue
            if truth == MAYBE:
                return Outcome(outcome.matched, f"UNDECIDED {rule['display_name']}")
            outcome.matched.append(rule["display_name"])
            if rule["action"] == "JUMP_TO_APPLICATION":
                skip_to = "Application"
            elif category == "Ethernet" and rule["action"] == "ALLOW":
                skip_to = "Emergency"
            else:
                outcome.action = rule["action"]
                return outcome
        return outcome

    def rules(self) -> list[tuple[str, Json, Json]]:
        """Every rule that takes part, in order."""
        out: list[tuple[str, Json, Json]] = []
        for category in ORDER:
            last: list[tuple[str, Json, Json]] = []
            policies = [p for p in self.policies if (p.get("category") or "") == category]
            for policy in sorted(policies, key=lambda p: p.get("sequence_number") or 0):
                if policy.get("marked_for_delete"):
                    continue
                rules = policy.get("rules") or []
                for rule in sorted(rules, key=lambda r: r.get("sequence_number") or 0):
                    if not rule.get("disabled") and not rule.get("marked_for_delete"):
                        (last if rule.get("is_default") else out).append((category, policy, rule))
                preference = str(policy.get("connectivity_preference") or policy.get("connectivity_strategy") or "")
                if preference.startswith(("ALLOWLIST", "WHITELIST")):
                    out.append((category, policy, {"display_name": str(policy["default_rule_id"]), "action": "DROP"}))
                elif preference.startswith(("DENYLIST", "BLACKLIST")):
                    out.append((category, policy, {"display_name": str(policy["default_rule_id"]), "action": "ALLOW"}))
            out += last
        return out

    # One rule

    def matches(self, policy: Json, rule: Json, packet: Packet, direction: str, vif: Json) -> int:
        if rule.get("direction", "IN_OUT") not in ("IN_OUT", direction):
            return NO
        scope = policy.get("scope") or []
        if not scope or scope == ["ANY"]:
            scope = rule.get("scope") or []
        if scope and scope != ["ANY"] and not any(self.vnic_in(path, vif) for path in scope):
            return NO
        version = ipaddress.ip_address(packet.src).version
        if rule.get("ip_protocol") not in (None, "IPV4_IPV6", f"IPV{version}"):
            return NO
        for address, elements, excluded in (
            (packet.src, rule.get("source_groups"), rule.get("sources_excluded")),
            (packet.dst, rule.get("destination_groups"), rule.get("destinations_excluded")),
        ):
            inside = not elements or elements == ["ANY"] or any(self.address_in(e, address) for e in elements)
            if inside == bool(excluded):
                return NO
        return self.service(policy, rule, packet)

    def service(self, policy: Json, rule: Json, packet: Packet) -> int:
        names = [n for n in rule.get("services") or [] if n != "ANY"]
        entries = list(rule.get("service_entries") or [])
        if not names and not entries:
            return YES
        strict = policy.get("stateful", True) and policy.get("tcp_strict", True)
        best = NO
        for entry in entries + [e for n in names for e in self.services[n]["service_entries"]]:
            best = max(best, self.entry(entry, packet, strict))
        return best

    def entry(self, entry: Json, packet: Packet, strict: bool) -> int:
        kind = entry["resource_type"]
        if kind == "NestedServiceServiceEntry":
            nested = self.services[entry["nested_service_path"]]["service_entries"]
            return max((self.entry(e, packet, strict) for e in nested), default=NO)
        if kind == "EtherTypeServiceEntry":
            return MAYBE if packet.eth_type is None else answer(packet.eth_type == entry["ether_type"])
        if kind == "IGMPTypeServiceEntry":
            return answer(packet.proto == 2)
        if kind == "ICMPTypeServiceEntry":
            wanted = {"ICMPv4": (1,), "ICMPv6": (58,)}.get(entry.get("protocol", ""), (1, 58))
            if packet.proto not in wanted:
                return NO
            return min(
                is_value(packet.icmp_type, entry.get("icmp_type")), is_value(packet.icmp_code, entry.get("icmp_code"))
            )
        if kind == "IPProtocolServiceEntry":
            proto = entry["protocol_number"]
        elif kind == "ALGTypeServiceEntry":
            proto = 6 if entry["alg"] in ALG_TCP else 17
        else:
            proto = {"TCP": 6, "UDP": 17}[entry["l4_protocol"]]
        if packet.proto != proto:
            return NO
        source, destination = entry.get("source_ports"), entry.get("destination_ports")
        truth = min(in_ports(packet.sport, source), in_ports(packet.dport, destination))
        if proto == 6 and strict:
            flags = packet.tcp_flags
            truth = min(truth, MAYBE if flags is None else answer(bool(flags & 2) and not flags & 16))
        return truth

    # Groups

    def address_in(self, element: str, address: str) -> bool:
        if element not in self.groups:
            return address_matches(element, address)
        if self.in_address_part(element, address):
            return True
        return any(
            same_address(address, a) and self.vnic_in(element, vif)
            for vif in self.vifs
            for info in vif.get("ip_address_info") or []
            for a in info["ip_addresses"]
        )

    def in_address_part(self, path: str, address: str) -> bool:
        """Whether an IP expression, or the realized address list, holds the address."""
        group = self.groups[path]
        for key in ("ips_members", "address_members", "ip_address_members"):
            if group.get(key) is not None:
                return any(address_matches(text, address) for text in group[key])
        return self.expression(group.get("expression") or [], lambda part: self.part_holds_address(part, address))

    def part_holds_address(self, part: Json, address: str) -> bool:
        if part["resource_type"] == "IPAddressExpression":
            return any(address_matches(text, address) for text in part["ip_addresses"])
        if part["resource_type"] == "PathExpression":
            return any(p in self.groups and self.in_address_part(p, address) for p in part["paths"])
        if part["resource_type"] == "NestedExpression":
            return self.expression(part["expressions"], lambda inner: self.part_holds_address(inner, address))
        return False

    def vnic_in(self, path: str, vif: Json) -> bool:
        """Whether a vNIC is an effective member of a group, segment or machine."""
        if path not in self.groups:
            segment = next((s for s in self.segments if s["path"] == path), None)
            if segment is not None:
                return vif in self.vifs_of(segment)
            return bool(vif["owner_vm_id"] == path.rpartition("/")[2])
        group = self.groups[path]
        if group.get("group_type") == ["IPAddress"]:
            return False
        if group.get("vm_members") is not None:
            return any(m["id"] == vif["owner_vm_id"] for m in group["vm_members"])
        return self.expression(group.get("expression") or [], lambda part: self.part_holds_vnic(part, vif))

    def part_holds_vnic(self, part: Json, vif: Json) -> bool:
        kind = part["resource_type"]
        if kind == "Condition":
            if part["member_type"] == "VirtualMachine":
                owner = [m for m in self.machines if m["external_id"] == vif["owner_vm_id"]]
                return any(condition_holds(part, machine) for machine in owner)
            return any(condition_holds(part, segment) and vif in self.vifs_of(segment) for segment in self.segments)
        if kind == "NestedExpression":
            return self.expression(part["expressions"], lambda inner: self.part_holds_vnic(inner, vif))
        if kind == "PathExpression":
            return any(self.vnic_in(p, vif) for p in part["paths"])
        if kind == "ExternalIDExpression":
            return vif["owner_vm_id"] in part["external_ids"]
        return False

    def vifs_of(self, segment: Json) -> list[Json]:
        attached = [p["attachment"]["id"] for p in segment.get("segment_ports") or []]
        return [v for v in self.vifs if v.get("lport_attachment_id") in attached]

    def expression(self, parts: list[Json], holds: Any) -> bool:
        """AND binds tighter than OR."""
        if not parts:
            return False
        total, product = False, holds(parts[0])
        for operator, part in zip(parts[1::2], parts[2::2], strict=True):
            if operator["conjunction_operator"] == "OR":
                total, product = total or product, holds(part)
            else:
                product = product and holds(part)
        return bool(total or product)


def answer(truth: bool) -> int:
    return YES if truth else NO


def is_value(seen: int | None, wanted: int | None) -> int:
    if wanted is None:
        return YES
    return MAYBE if seen is None else answer(seen == wanted)


def in_ports(seen: int | None, wanted: list[str] | None) -> int:
    if not wanted:
        return YES
    if seen is None:
        return MAYBE
    for text in wanted:
        low, _, high = text.partition("-")
        if int(low) <= seen <= int(high or low):
            return YES
    return NO


def same_address(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)


def address_matches(text: str, address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if "-" in text:
        low, high = (ipaddress.ip_address(t) for t in text.split("-"))
        return low.version == ip.version and int(low) <= int(ip) <= int(high)
    return ip in ipaddress.ip_network(text, strict=False)


def condition_holds(part: Json, obj: Json) -> bool:
    operator, value = part["operator"], part["value"]
    tests = {
        "EQUALS": lambda text, v: text == v,
        "NOTEQUALS": lambda text, v: text == v,
        "CONTAINS": lambda text, v: v in text,
        "STARTSWITH": lambda text, v: text.startswith(v),
        "ENDSWITH": lambda text, v: text.endswith(v),
        "IN": lambda text, v: text == v,
        "NOTIN": lambda text, v: text == v,
    }
    wanted = value.split(",") if operator in ("IN", "NOTIN") else [value]
    if part["key"] == "Tag":
        found = any(tag_matches(tag, w, tests[operator], part) for tag in obj.get("tags") or [] for w in wanted)
    else:
        text = obj[{"Name": "display_name", "OSName": "os_name", "ComputerName": "computer_name"}[part["key"]]]
        found = any(tests[operator](text, w) for w in wanted)
    return not found if operator in ("NOTEQUALS", "NOTIN") else found


def tag_matches(tag: Json, value: str, test: Any, part: Json) -> bool:
    scope, tag_text = "", value
    if "|" in value:
        scope, tag_text = value.split("|", 1)
    if scope:
        same = (tag.get("scope") or "").lower() == scope.lower()
        if same == (part.get("scope_operator") == "NOTEQUALS"):
            return False
    return not tag_text or test(tag["tag"].lower(), tag_text.lower())
