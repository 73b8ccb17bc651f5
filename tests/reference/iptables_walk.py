"""The walk of iptables, literally: one packet, one chain after the other, three truth values, a certainty ``here``.

Written apart from the importer's conditions and unfolding, from the words of iptables(8) and docs/semantics.md; it
shares only the parser of lines. Slow on purpose.

A packet is a dict: src_ip, dst_ip (ipaddress objects), proto, fragment (bool), and those of sport, dport, tcp_flags,
icmp_type, icmp_code, ct_state (name), iif, oif, ttl, ip_length, dscp that it has.
"""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import Any

from meshsieve.importers.iptables.names import (
    CT_STATES,
    DSCP_CLASSES,
    ICMP_TYPES,
    ICMPV6_TYPES,
    PROTOCOLS,
    SERVICES,
    TCP_FLAGS,
)
from meshsieve.importers.iptables.syntax import Option, RuleLine, Table

Packet = dict[str, Any]
# (verdict, chain, number of the rule from 1; 0 is the policy)
Outcome = tuple[str, str, int]
SIDE_EFFECTS = {"LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "TCPMSS", "TTL", "TOS", "DSCP", "CLASSIFY", "NOTRACK", "CT"}


class Truth(IntEnum):
    FALSE = 0
    UNKNOWN = 1
    TRUE = 2


def truth(value: bool) -> Truth:
    return Truth.TRUE if value else Truth.FALSE


def negated(value: Truth) -> Truth:
    return Truth(2 - value)


class Walk:
    """mode: strict, upper or lower. truths: answers for unknown matches by their text, instead of UNKNOWN."""

    def __init__(self, table: Table, mode: str = "strict", truths: dict[str, bool] | None = None) -> None:
        self.table, self.mode, self.truths = table, mode, truths or {}

    def verdict(self, packet: Packet, chain: str) -> Outcome:
        """The verdict of a built-in chain."""
        decided = self.chain(packet, chain, Truth.TRUE, {})
        return decided or (str(self.table.chains[chain].policy), chain, 0)

    def chain(
        self, packet: Packet, name: str, here: Truth, memo: dict[tuple[str, Truth], Outcome | None]
    ) -> Outcome | None:
        if (name, here) not in memo:
            memo[name, here] = self.run(packet, name, here, memo)
        return memo[name, here]

    def run(
        self, packet: Packet, name: str, here: Truth, memo: dict[tuple[str, Truth], Outcome | None]
    ) -> Outcome | None:
        for number, rule in enumerate(self.table.chains[name].rules, 1):
            match = self.matches(rule, packet)
            decides = min(here, match)
            if decides == Truth.FALSE or rule.target is None or rule.target in SIDE_EFFECTS:
                continue
            if rule.target in self.table.chains:
                decided = self.chain(packet, rule.target, decides, memo)
                if decided:
                    return decided
                if rule.goto:
                    here = min(here, negated(match))
            elif rule.target == "RETURN":
                here = min(here, negated(match))
            else:
                verdict = self.ends(rule.target, decides)
                if verdict:
                    return verdict, name, number
            if here == Truth.FALSE:
                return None
        return None

    def ends(self, target: str, decides: Truth) -> str | None:
        """The verdict of a rule that decides for sure or perhaps; None where the walk goes on."""
        unknowable = target not in ("ACCEPT", "DROP", "REJECT")
        if self.mode == "strict":
            return "UNDECIDED" if unknowable or decides == Truth.UNKNOWN else target
        if unknowable:
            target = "ACCEPT" if self.mode == "upper" else "DROP"
        favoured = (target == "ACCEPT") == (self.mode == "upper")
        return target if favoured or decides == Truth.TRUE else None

    def matches(self, rule: RuleLine, packet: Packet) -> Truth:
        return min((self.option(o, packet) for o in rule.options), default=Truth.TRUE)

    def option(self, option: Option, packet: Packet) -> Truth:
        if option.name in ("unknown", "limit"):
            return truth(self.truths[option.text]) if option.text in self.truths else Truth.UNKNOWN
        value = getattr(self, "is_" + option.name.replace("-", "_"))(packet, *option.arguments)
        return negated(value) if option.negated else value

    def is_comment(self, _: Packet, __: str) -> Truth:
        return Truth.TRUE

    def is_source(self, packet: Packet, text: str) -> Truth:
        return truth(any(packet["src_ip"] in ipaddress.ip_network(t, strict=False) for t in text.split(",")))

    def is_destination(self, packet: Packet, text: str) -> Truth:
        return truth(any(packet["dst_ip"] in ipaddress.ip_network(t, strict=False) for t in text.split(",")))

    def is_src_range(self, packet: Packet, text: str) -> Truth:
        low, _, high = text.partition("-")
        return truth(ipaddress.ip_address(low) <= packet["src_ip"] <= ipaddress.ip_address(high or low))

    def is_dst_range(self, packet: Packet, text: str) -> Truth:
        return self.is_src_range({"src_ip": packet["dst_ip"]}, text)

    def is_protocol(self, packet: Packet, text: str) -> Truth:
        if text in ("all", "0"):
            return Truth.TRUE
        return truth(packet["proto"] == (int(text) if text.isdigit() else PROTOCOLS[text]))

    def interface(self, packet: Packet, field: str, text: str) -> Truth:
        if text == "+":
            return Truth.TRUE
        if field not in packet:
            return Truth.UNKNOWN
        return truth(packet[field].startswith(text[:-1]) if text.endswith("+") else packet[field] == text)

    def is_in_interface(self, packet: Packet, text: str) -> Truth:
        return self.interface(packet, "iif", text)

    def is_out_interface(self, packet: Packet, text: str) -> Truth:
        return self.interface(packet, "oif", text)

    def is_fragment(self, packet: Packet) -> Truth:
        return truth(packet["fragment"])

    def port(self, packet: Packet, field: str, text: str) -> Truth:
        if packet["proto"] not in (6, 17, 33, 132, 136):
            return Truth.FALSE
        if field not in packet:
            return Truth.UNKNOWN
        low, colon, high = text.partition(":")
        ends = sorted([number(low or "0"), number((high or "65535") if colon else low)])
        return truth(ends[0] <= packet[field] <= ends[1])

    def is_sport(self, packet: Packet, text: str) -> Truth:
        return self.port(packet, "sport", text)

    def is_dport(self, packet: Packet, text: str) -> Truth:
        return self.port(packet, "dport", text)

    def is_sports(self, packet: Packet, text: str) -> Truth:
        return max(self.port(packet, "sport", t) for t in text.split(","))

    def is_dports(self, packet: Packet, text: str) -> Truth:
        return max(self.port(packet, "dport", t) for t in text.split(","))

    def is_ports(self, packet: Packet, text: str) -> Truth:
        return max(self.is_sports(packet, text), self.is_dports(packet, text))

    def is_tcp_flags(self, packet: Packet, mask: str, wanted: str) -> Truth:
        if packet["proto"] != 6:
            return Truth.FALSE
        if "tcp_flags" not in packet:
            return Truth.UNKNOWN
        mask_bits, wanted_bits = (sum(TCP_FLAGS[n] for n in set(text.split(","))) for text in (mask, wanted))
        return truth(packet["tcp_flags"] & mask_bits == wanted_bits)

    def is_syn(self, packet: Packet) -> Truth:
        return self.is_tcp_flags(packet, "FIN,SYN,RST,ACK", "SYN")

    def icmp(self, packet: Packet, text: str, proto: int, names: dict[str, tuple[int, int | None]]) -> Truth:
        if packet["proto"] != proto:
            return Truth.FALSE
        if "icmp_type" not in packet:
            return Truth.UNKNOWN
        if text == "any":
            return Truth.TRUE
        if text in names:
            kind, code = names[text]
        else:
            kind_text, _, code_text = text.partition("/")
            kind, code = int(kind_text), int(code_text) if code_text else None
        return truth(packet["icmp_type"] == kind and code in (None, packet["icmp_code"]))

    def is_icmp_type(self, packet: Packet, text: str) -> Truth:
        return self.icmp(packet, text, 1, ICMP_TYPES)

    def is_icmpv6_type(self, packet: Packet, text: str) -> Truth:
        return self.icmp(packet, text, 58, ICMPV6_TYPES)

    def is_ctstate(self, packet: Packet, text: str) -> Truth:
        names = text.split(",")
        known = Truth.UNKNOWN if "ct_state" not in packet else truth(packet["ct_state"] in names)
        if not any(name in CT_STATES for name in names):
            known = Truth.FALSE
        return max(known, Truth.UNKNOWN if {"SNAT", "DNAT"} & set(names) else Truth.FALSE)

    is_state = is_ctstate

    def number_field(self, packet: Packet, field: str, low: int, high: int) -> Truth:
        return truth(low <= packet[field] <= high) if field in packet else Truth.UNKNOWN

    def is_ttl_eq(self, packet: Packet, text: str) -> Truth:
        return self.number_field(packet, "ttl", int(text), int(text))

    def is_ttl_lt(self, packet: Packet, text: str) -> Truth:
        return self.number_field(packet, "ttl", 0, int(text) - 1)

    def is_ttl_gt(self, packet: Packet, text: str) -> Truth:
        return self.number_field(packet, "ttl", int(text) + 1, 255)

    def is_length(self, packet: Packet, text: str) -> Truth:
        low, colon, high = text.partition(":")
        return self.number_field(packet, "ip_length", int(low or 0), int(high or 65535) if colon else int(low))

    def is_dscp(self, packet: Packet, text: str) -> Truth:
        return self.number_field(packet, "dscp", int(text, 0), int(text, 0))

    def is_dscp_class(self, packet: Packet, text: str) -> Truth:
        return self.is_dscp(packet, str(DSCP_CLASSES[text]))


def number(text: str) -> int:
    return SERVICES[text] if text in SERVICES else int(text)
