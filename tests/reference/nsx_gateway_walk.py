"""A packet's way through NSX with its gateways, literally: sender, Tier-1 up, Tier-0, Tier-1 down, receiver.

Slow and plain on purpose, and written without the importer: networks are lists that are scanned, a gateway is its JSON,
and translated packets are copies. The distributed firewall at both ends is ``nsx_walk.Reference``. Not covered: NAT64,
schedules, profiles, redirection, interface labels.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

from tests.reference.nsx_walk import MAYBE, NO, YES, Packet, Reference

Json = dict[str, Any]
DENIALS = ("DROP", "REJECT")
CATEGORIES = ["Emergency", "SystemRules", "SharedPreRules", "LocalGatewayRules", "AutoServiceRules", "Default", ""]


class Gateways:
    """config: an inventory dump with tier0, tier1 and segments. objects: interfaces, static routes, NAT rules, gateway
    policies."""

    def __init__(self, config: Json, objects: list[Json], services: dict[str, Json]) -> None:
        self.ends = Reference(config, services)
        self.tier0: list[Json] = config.get("tier0") or []
        self.tier1: list[Json] = config.get("tier1") or []
        self.segments: list[Json] = config.get("segments") or []
        kinds: dict[str, list[Json]] = {}
        for obj in objects:
            kinds.setdefault(obj["resource_type"], []).append(obj)
        self.interfaces = kinds.get("Tier0Interface", [])
        self.routes = kinds.get("StaticRoutes", [])
        self.nat = kinds.get("PolicyNatRule", [])
        self.policies = kinds.get("GatewayPolicy", [])

    def verdict(self, packet: Packet) -> str:
        """ALLOW, DROP, REJECT, UNDECIDED, or NONE where nobody judges it: the first denial, else what is not known."""
        answers: list[str] = []
        sender = self.ends.owner(packet.src)
        if sender is not None:
            answers.append(self.ends.walk(packet, "OUT", sender).action)
        stages = [(g, "up") for g in self.tier1] + [(g, "through") for g in self.tier0]
        stages += [(g, "down") for g in self.tier1]
        for gateway, stage in stages:
            if (gateway["path"], stage) in self.way(packet):
                packet, answer = self.cross(gateway, stage, packet)
                answers += answer
        receiver = self.ends.owner(packet.dst)
        if receiver is not None:
            answers.append(self.ends.walk(packet, "IN", receiver).action)
        for answer in answers:
            if answer in DENIALS:
                return answer
        if any(answer.startswith("UNDECIDED") for answer in answers):
            return "UNDECIDED"
        return "ALLOW" if answers else "NONE"

    # The way

    def way(self, packet: Packet) -> list[tuple[str, str]]:
        here, there = self.home(packet.src), self.home(packet.dst)
        if here and there and here[1] and here[1] == there[1]:
            return []
        if here and not here[0]:
            return []  # a segment of no gateway
        start = next((g for g in self.tier1 if here and g["path"] == here[0]), None)
        if start is None:
            first: list[tuple[str, str]] = []
            top = next((g for g in self.tier0 if here and g["path"] == here[0]), None)
            if top is None:  # from the outside
                if not there or not there[0]:
                    return []
                lower = next((g for g in self.tier1 if g["path"] == there[0]), None)
                if lower is None:
                    return [(there[0], "through")]
                upper = [(lower["tier0_path"], "through")] if lower.get("tier0_path") else []
                return [*upper, (lower["path"], "down")]
        else:
            first = [(start["path"], "up")]
            top = next((g for g in self.tier0 if g["path"] == start.get("tier0_path")), None)
            if top is None or self.at(start, packet.dst) is not None:
                return first
        found = self.at(top, packet.dst)
        down = [(found[0], "down")] if found and found[0] != top["path"] else []
        return [*first, (top["path"], "through"), *down]

    def networks(self, gateway: Json) -> list[tuple[str, str, str, int, list[str]]]:
        """(network, gateway, segment, distance, interfaces) that the gateway itself knows."""
        out = []
        path = gateway["path"]
        for segment in self.segments:
            if segment.get("connectivity_path") == path:
                out += [(s["network"], path, segment["path"], 0, []) for s in segment["subnets"]]
        for interface in self.interfaces_of(gateway):
            for subnet in interface["subnets"]:
                for address in subnet["ip_addresses"]:
                    network = ipaddress.ip_network(f"{address}/{subnet['prefix_len']}", strict=False)
                    out.append((str(network), path, "", 0, [interface["path"]]))
        for route in self.routes:
            if route["path"].startswith(path + "/"):
                hops = route["next_hops"]
                nearest = min(hop.get("admin_distance", 1) for hop in hops)
                through = [
                    interface["path"]
                    for hop in hops
                    if hop.get("admin_distance", 1) == nearest
                    for interface in self.interfaces_of(gateway)
                    for subnet in interface["subnets"]
                    for address in subnet["ip_addresses"]
                    if ipaddress.ip_address(hop["ip_address"])
                    in ipaddress.ip_network(f"{address}/{subnet['prefix_len']}", strict=False)
                ]
                out.append((route["network"], path, "", nearest, through))
        for rule in self.nat_of(gateway):
            key = {"DNAT": "destination_network", "SNAT": "translated_network", "REFLEXIVE": "translated_network"}
            if rule["action"] in key:
                out.append((str(ipaddress.ip_network(rule[key[rule["action"]]])), path, "", 0, []))
        return out

    def interfaces_of(self, gateway: Json) -> list[Json]:
        return [i for i in self.interfaces if i["path"].startswith(gateway["path"] + "/")]

    def at(self, gateway: Json, address: str) -> tuple[str, str, list[str]] | None:
        """Where the gateway finds an address: (gateway, segment, interfaces); a Tier-0 also below its Tier-1s."""
        known = self.networks(gateway)
        if gateway in self.tier0:
            for lower in self.tier1:
                if lower.get("tier0_path") == gateway["path"]:
                    own = {n[0] for n in known}
                    known += [n for n in self.networks(lower) if n[0] != "0.0.0.0/0" and n[0] not in own]
        return longest(known, address)

    def home(self, address: str) -> tuple[str, str, list[str]] | None:
        known = [n for g in [*self.tier1, *self.tier0] for n in self.networks(g) if n[0] != "0.0.0.0/0"]
        for segment in self.segments:
            if not segment.get("connectivity_path"):
                known += [(s["network"], "", segment["path"], 0, []) for s in segment["subnets"]]
        return longest(known, address)

    def sides(self, gateway: Json, stage: str, packet: Packet) -> tuple[set[str], set[str]]:
        """The interfaces by one of which the packet enters, and leaves."""
        external = {i["path"] for i in self.interfaces_of(gateway) if i["type"] == "EXTERNAL"}
        uplinks = external if gateway in self.tier0 and external else {"link"}

        def side(address: str) -> set[str]:
            found = self.at(gateway, address)
            if found is None:
                return uplinks
            return set(found[2]) if found[0] == gateway["path"] and found[2] else {"inside"}

        return (uplinks if stage == "down" else side(packet.src)), side(packet.dst)

    # One gateway

    def cross(self, gateway: Json, stage: str, packet: Packet) -> tuple[Packet, list[str]]:
        """The packet behind the gateway, and its firewall's answer."""
        bypass = False
        done = {"dst": False, "src": False}
        for side, wanted in (("dst", "MATCH_INTERNAL_ADDRESS"), ("src", "MATCH_EXTERNAL_ADDRESS")):
            rule = self.nat_rule(gateway, stage, packet, side)
            if rule is not None and rule.get("firewall_match", "MATCH_INTERNAL_ADDRESS") in (wanted, "BYPASS"):
                bypass |= rule.get("firewall_match") == "BYPASS"
                packet = translated(rule, packet, side)
                done[side] = True
        answers = []
        if not bypass and self.judges(gateway) and (gateway["path"], stage) in self.way(packet):
            answers.append(self.firewall(gateway, stage, packet))
        for side, wanted in (("dst", "MATCH_EXTERNAL_ADDRESS"), ("src", "MATCH_INTERNAL_ADDRESS")):
            rule = None if done[side] else self.nat_rule(gateway, stage, packet, side)
            crosses = (gateway["path"], stage) in self.way(packet)
            if rule is not None and crosses and rule.get("firewall_match", "MATCH_INTERNAL_ADDRESS") == wanted:
                packet = translated(rule, packet, side)
        return packet, answers

    def nat_of(self, gateway: Json) -> list[Json]:
        own = [r for r in self.nat if r["path"].startswith(gateway["path"] + "/") and r.get("enabled", True)]
        return sorted(own, key=lambda rule: rule.get("sequence_number", 100))

    def nat_rule(self, gateway: Json, stage: str, packet: Packet, side: str) -> Json | None:
        """The first that matches; NO_* ends the list, and may pass by the firewall as any other."""
        if (gateway["path"], stage) not in self.way(packet):
            return None
        for rule in self.nat_of(gateway):
            action = rule["action"]
            if side not in {"SNAT": ["src"], "NO_SNAT": ["src"], "REFLEXIVE": ["src", "dst"]}.get(action, ["dst"]):
                continue
            source, destination = rule.get("source_network"), rule.get("destination_network")
            if action == "REFLEXIVE" and side == "dst":
                source, destination = None, rule["translated_network"]
            if source and not inside(source, packet.src):
                continue
            if destination and not inside(destination, packet.dst):
                continue
            scope = rule.get("scope") or []
            if scope and gateway["path"] not in scope:
                taken = self.sides(gateway, stage, packet)[0 if side == "dst" else 1]
                if not taken & set(scope):
                    continue
            return rule
        return None

    def judges(self, gateway: Json) -> bool:
        rules = [(policy, rule) for policy in self.policies for rule in policy["rules"] if not rule.get("disabled")]
        return any(self.present(gateway, policy, rule) for policy, rule in rules)

    def present(self, gateway: Json, policy: Json, rule: Json) -> bool:
        scope = self.scope(policy, rule)
        return not scope or any(p == gateway["path"] or p.startswith(gateway["path"] + "/") for p in scope)

    @staticmethod
    def scope(policy: Json, rule: Json) -> list[str]:
        for scope in (policy.get("scope"), rule.get("scope")):
            if scope and scope != ["ANY"]:
                return list(scope)
        return []

    def firewall(self, gateway: Json, stage: str, packet: Packet) -> str:
        ranked = sorted(
            self.policies, key=lambda p: (CATEGORIES.index(p.get("category", "")), p.get("sequence_number", 0))
        )
        for policy in ranked:
            for rule in sorted(policy["rules"], key=lambda r: r.get("sequence_number", 0)):
                if rule.get("disabled") or not self.present(gateway, policy, rule):
                    continue
                truth = min(self.at_interface(gateway, stage, policy, rule, packet), self.fits(policy, rule, packet))
                if truth == MAYBE:
                    return f"UNDECIDED {rule['display_name']}"
                if truth == YES:
                    return str(rule["action"])
        return "NO_MATCH"

    def fits(self, policy: Json, rule: Json, packet: Packet) -> int:
        """The rule's other conditions, as the distributed firewall reads them: no scope, no direction."""
        bare = {key: value for key, value in rule.items() if key not in ("scope", "direction")}
        return self.ends.matches({**policy, "scope": []}, bare, packet, "IN", {"owner_vm_id": ""})

    def at_interface(self, gateway: Json, stage: str, policy: Json, rule: Json, packet: Packet) -> int:
        scope = [p for p in self.scope(policy, rule) if p == gateway["path"] or p.startswith(gateway["path"] + "/")]
        if not scope or gateway["path"] in scope:
            return YES
        entered, left = self.sides(gateway, stage, packet)
        asked = {"IN": [entered], "OUT": [left]}.get(rule.get("direction", "IN_OUT"), [entered, left])
        if any(taken <= set(scope) for taken in asked):
            return YES
        return MAYBE if any(taken & set(scope) for taken in asked) else NO


def longest(networks: list[tuple[str, str, str, int, list[str]]], address: str) -> tuple[str, str, list[str]] | None:
    best = None
    for text, gateway, segment, distance, interfaces in networks:
        network = ipaddress.ip_network(text)
        if ipaddress.ip_address(address) in network:
            rank = (network.prefixlen, -distance)
            if best is None or rank > best[0]:
                best = (rank, (gateway, segment, interfaces))
    return best[1] if best else None


def inside(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def translated(rule: Json, packet: Packet, side: str) -> Packet:
    if rule["action"].startswith("NO_"):
        return packet
    source, target = rule.get("source_network" if side == "src" else "destination_network"), rule["translated_network"]
    if rule["action"] == "REFLEXIVE" and side == "dst":
        source, target = rule["translated_network"], rule["source_network"]
    to = ipaddress.ip_network(target)
    old = ipaddress.ip_network(source) if source else None
    address = getattr(packet, side)
    if old is not None and old.prefixlen == to.prefixlen:
        moved = int(ipaddress.ip_address(address)) - int(old.network_address) + int(to.network_address)
        packet = replace(packet, **{side: str(ipaddress.ip_address(moved))})
    else:
        assert to.num_addresses == 1
        packet = replace(packet, **{side: str(to.network_address)})
        if side == "src" and packet.sport is not None:
            packet = replace(packet, sport=None)  # several sources share the address
    if rule.get("translated_ports") and rule["action"] != "REFLEXIVE":
        packet = replace(packet, dport=int(rule["translated_ports"]) if packet.dport is not None else None)
    return packet
