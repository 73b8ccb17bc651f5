"""Packets for the walk of iptables: random ones, drawn mostly from the values at which some rule changes its mind."""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from meshsieve.columns import PacketColumns
from meshsieve.importers.iptables.names import CT_STATES
from meshsieve.importers.iptables.syntax import Table
from meshsieve.model import FIELD_INDEX, NameCodes, RuleSet
from tests.reference.iptables_walk import Packet

WITH_PORTS = (6, 17, 33, 132, 136)
# A state that no rule can name, as well as the real ones (data/policies/README.md, oddities of iptables).
STATES = {**CT_STATES, "OTHER": 0}


class PacketMaker:
    """Packets at the boundaries of the sets of some rule lists, and of the interface names of a table."""

    def __init__(self, table: Table, rule_sets: Sequence[RuleSet], family: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.family = family
        self.boundaries: dict[str, list[int]] = {}
        edges: dict[str, set[int]] = {}
        for rules in rule_sets:
            for rule in rules:
                for match in (rule.match, *rule.alternatives):
                    for name, values in match.items():
                        for low, high in values.v6 if name.endswith("_ip") and family == 6 else values.v4:
                            edges.setdefault(name, set()).update((low - 1, low, high, high + 1))
        self.boundaries = {name: sorted(values) for name, values in edges.items()}
        self.interfaces = ["", "lo", "zz9"]
        for chain in table.chains.values():
            for rule in chain.rules:
                for option in rule.options:
                    if option.name.endswith("-interface"):
                        name = option.arguments[0].rstrip("+")
                        self.interfaces += [name, name + "7", name[:-1]]

    def number(self, name: str, bits: int) -> int:
        known = [v for v in self.boundaries.get(name, ()) if 0 <= v < 2**bits]
        return self.random.choice(known) if known and self.random.random() < 0.8 else self.random.getrandbits(bits)

    def packet(self, without: Sequence[str] = (), may_lack: bool = False) -> Packet:
        """A packet that lacks the fields of ``without``, and with ``may_lack`` perhaps others."""
        draw = self.random
        make: Any = ipaddress.IPv4Address if self.family == 4 else ipaddress.IPv6Address
        bits = 32 if self.family == 4 else 128
        packet: Packet = {
            "src_ip": make(self.number("src_ip", bits)),
            "dst_ip": make(self.number("dst_ip", bits)),
            "proto": draw.choice([6, 6, 17, 17, 1, 58, 47, 50, 132, self.number("proto", 8)]),
            "fragment": draw.random() < 0.1,
            "ct_state": draw.choice([*STATES, "NEW", "OTHER"]),
            "iif": draw.choice(self.interfaces),
            "oif": draw.choice(self.interfaces),
            "ttl": self.number("ttl", 8),
            "ip_length": self.number("ip_length", 16),
            "dscp": self.number("dscp", 6),
        }
        if not packet["fragment"]:
            if packet["proto"] in WITH_PORTS:
                packet |= {"sport": self.number("sport", 16), "dport": self.number("dport", 16)}
            if packet["proto"] == 6:
                packet["tcp_flags"] = draw.choice([2, 18, 16, 4, 1, 0, draw.getrandbits(8)])
            if packet["proto"] in (1, 58):
                packet |= {"icmp_type": self.number("icmp_type", 8), "icmp_code": self.number("icmp_code", 8)}
        for name in without:
            packet.pop(name, None)
        if may_lack:
            for name in ("ct_state", "iif", "oif", "ttl", "ip_length", "dscp"):
                if draw.random() < 0.15:
                    packet.pop(name, None)
        return packet


def columns(packets: Sequence[Packet], names: dict[str, NameCodes], family: int) -> PacketColumns:
    """The same packets for the compiled tables."""
    present = np.zeros(len(packets), np.uint32)
    arrays: dict[str, Any] = {"ip_ver": np.full(len(packets), family, np.uint8)}
    present |= np.uint32(1 << FIELD_INDEX["ip_ver"])
    for name in FIELD_INDEX:
        has = np.array([name in p for p in packets])
        if name == "ip_ver" or not has.any():
            continue
        present[has] |= np.uint32(1 << FIELD_INDEX[name])
        if name.endswith("_ip"):
            words = [(int(p[name]) >> 64, int(p[name]) & (2**64 - 1)) for p in packets]
            arrays[name] = np.array(words, np.uint64)
        else:
            arrays[name] = np.array([_number(name, p[name], names) if name in p else 0 for p in packets], np.uint32)
    return PacketColumns(arrays, present=present, length=len(packets))


def _number(name: str, value: Any, names: dict[str, NameCodes]) -> int:
    if name in ("iif", "oif"):
        return names[name].code(value)
    return STATES[value] if name == "ct_state" else int(value)


def chain_and_number(obj: str) -> tuple[str, int]:
    """('FORWARD', 3) of 'filter/FORWARD rule 3 DROP'; a policy is number 0."""
    found = re.match(r"[a-z]+/(.+?) (?:rule ([0-9]+)|policy)", obj)
    assert found is not None, obj
    return found[1], int(found[2] or 0)
