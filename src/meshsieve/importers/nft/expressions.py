"""What nft's expressions select of a packet, and what sets of their values are as conditions.

An expression names a field and, like nft itself, implies what must hold for the packet to have it: ``tcp dport``
implies TCP, ``ip saddr`` IPv4. That is ANDed and never negated: ``tcp dport != 22`` is TCP to another port.

Source  nft(8)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from meshsieve.importers.conditions import FALSE, PORT_PROTOCOLS, TRUE, Condition, conjunction, constraint, unknown
from meshsieve.importers.iptables.meaning import address_range
from meshsieve.importers.iptables.names import (
    CT_STATES,
    DSCP_CLASSES,
    ICMP_TYPES,
    ICMPV6_TYPES,
    PROTOCOLS,
    SERVICES,
)
from meshsieve.model import NameCodes, ValueSet
from meshsieve.value_sets import parse_address_range

TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
# EtherTypes as values of ip_ver, which is 0 for frames without IP.
_ETHER_TYPES = {"ip": 4, "0x0800": 4, "ip6": 6, "0x86dd": 6, "arp": 0, "0x0806": 0}
_NFPROTO = {"ipv4": 4, "ipv6": 6}
_IPV4 = constraint(ip_ver=ValueSet.numbers(4))
_IPV6 = constraint(ip_ver=ValueSet.numbers(6))


@dataclass(frozen=True, slots=True)
class Expression:
    """What is compared.

    field      the matcher field
    implied    what must hold for the packet to have it
    values     one element's text as a set; raises ValueError, or UninterpretableError
    elsewhere  where the comparison looks at bytes that are no such field, so that nobody knows
    """

    text: str
    field: str
    implied: Condition
    values: Callable[[str], ValueSet]
    elsewhere: Condition = FALSE


def number_of(text: str, names: Mapping[str, int], largest: int, what: str) -> int:
    """A name, a decimal or a 0x hexadecimal number. raises ValueError"""
    if text.lower() in names:
        return names[text.lower()]
    base = 16 if text[:2].lower() == "0x" else 10
    if not text.isascii() or not text.isalnum() or len(text) > 12:
        raise ValueError(f"'{text}' is not a {what}")
    try:
        value = int(text, base)
    except ValueError:
        raise ValueError(f"'{text}' is not a {what}") from None
    if value > largest:
        raise ValueError(f"{text} is beyond {largest}, the largest {what}")
    return value


def _numbers(text: str, names: Mapping[str, int], largest: int, what: str) -> ValueSet:
    low, dash, high = text.partition("-")
    if dash and text.lower() not in names and high:
        first, last = number_of(low, names, largest, what), number_of(high, names, largest, what)
        if last < first:
            raise ValueError(f"'{text}' ends before it starts")
        return ValueSet.numbers((first, last))
    return ValueSet.numbers(number_of(text, names, largest, what))


def _addresses(text: str, version: int) -> ValueSet:
    if "-" in text:
        found, low, high = parse_address_range(text)
        if found != version:
            raise ValueError(f"'{text}' is not of IPv{version}")
        return ValueSet(((low, high),)) if version == 4 else ValueSet(v6=((low, high),))
    return address_range(text, version)


def _flags(text: str) -> ValueSet:
    """One exact combination, as elements of sets are."""
    return ValueSet.numbers(flag_bits(text.split("|")))


def flag_bits(names: Iterable[str]) -> int:
    total = 0
    for name in names:
        total |= number_of(name, TCP_FLAGS, 255, "TCP flag")
    return total


def _interface(text: str, codes: NameCodes) -> ValueSet:
    return codes.prefix(text[:-1]) if text.endswith("*") else codes.exact(text)


def _named(names: Mapping[str, tuple[int, int | None]]) -> dict[str, int]:
    return {name: number for name, (number, code) in names.items() if code is None}


_ICMP_NAMES = {**_named(ICMP_TYPES), "info-request": 15, "info-reply": 16}
_ICMPV6_NAMES = {
    **_named(ICMPV6_TYPES),
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "mld-listener-reduction": 132,
    "mld2-listener-report": 143,
    "router-renumbering": 138,
    "ind-neighbor-solicit": 141,
    "ind-neighbor-advert": 142,
}
# RFC 792 and RFC 4443, by the names that nft prints.
_ICMP_CODES = {"net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3,
               "frag-needed": 4, "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13}  # fmt: skip
_ICMPV6_CODES = {"no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4, "policy-fail": 5,
                 "reject-route": 6}  # fmt: skip
_STATES = {name.lower(): number for name, number in CT_STATES.items()}
_DSCP = {name.lower(): number for name, number in DSCP_CLASSES.items()}


def expressions(codes: NameCodes) -> dict[tuple[str, ...], Expression]:
    """Every expression that is understood, by its words."""
    port = partial(_numbers, names=SERVICES, largest=0xFFFF, what="port")
    protocol = partial(_numbers, names=PROTOCOLS, largest=255, what="protocol")
    byte = partial(_numbers, names={}, largest=255, what="number")
    length = partial(_numbers, names={}, largest=0xFFFF, what="length")
    dscp = partial(_numbers, names=_DSCP, largest=63, what="DSCP")
    state = partial(_numbers, names=_STATES, largest=0, what="connection state")
    interface = partial(_interface, codes=codes)
    version = {4: _IPV4, 6: _IPV6}
    table: dict[tuple[str, ...], tuple[str, Condition, Callable[[str], ValueSet]]] = {}
    for family, number in (("ip", 4), ("ip6", 6)):
        addresses = partial(_addresses, version=number)
        table[family, "saddr"] = ("src_ip", version[number], addresses)
        table[family, "daddr"] = ("dst_ip", version[number], addresses)
        table[family, "dscp"] = ("dscp", version[number], dscp)
    table["ip", "protocol"] = ("proto", _IPV4, protocol)
    table["ip6", "nexthdr"] = ("proto", _IPV6, protocol)
    table["ip", "ttl"] = ("ttl", _IPV4, byte)
    table["ip6", "hoplimit"] = ("ttl", _IPV6, byte)
    table["ip", "length"] = ("ip_length", _IPV4, length)
    table["meta", "length"] = ("ip_length", TRUE, length)
    table["meta", "l4proto"] = ("proto", TRUE, protocol)
    table["meta", "nfproto"] = ("ip_ver", TRUE, partial(_numbers, names=_NFPROTO, largest=15, what="protocol family"))
    table["meta", "protocol"] = (
        "ip_ver",
        TRUE,
        partial(_numbers, names=_ETHER_TYPES, largest=0, what="known EtherType"),
    )
    table["ether", "type"] = table["meta", "protocol"]
    table["vlan", "id"] = ("vlan", TRUE, partial(_numbers, names={}, largest=4095, what="VLAN"))
    table["ct", "state"] = ("ct_state", TRUE, state)
    for words, name in ((("iifname",), "iif"), (("oifname",), "oif"), (("iif",), "iif"), (("oif",), "oif")):
        table[words] = table["meta", *words] = (name, TRUE, interface)
    for name, number in (("tcp", 6), ("udp", 17), ("sctp", 132), ("dccp", 33), ("udplite", 136)):
        implied = constraint(proto=ValueSet.numbers(number))
        table[name, "sport"], table[name, "dport"] = ("sport", implied, port), ("dport", implied, port)
    ports = constraint(proto=PORT_PROTOCOLS)
    table["th", "sport"], table["th", "dport"] = ("sport", ports, port), ("dport", ports, port)
    # th reads the first bytes behind the IP header, whatever the protocol (seen in Linux: it matches GRE).
    no_ports = constraint(proto=PORT_PROTOCOLS.complement("proto"))
    elsewhere = conjunction(no_ports, unknown("th of a protocol without ports")) or FALSE
    for name, number, names, codes_of in (
        ("icmp", 1, _ICMP_NAMES, _ICMP_CODES),
        ("icmpv6", 58, _ICMPV6_NAMES, _ICMPV6_CODES),
    ):
        implied = constraint(proto=ValueSet.numbers(number))
        kinds = partial(_numbers, names=names, largest=255, what="ICMP type")
        code = partial(_numbers, names=codes_of, largest=255, what="ICMP code")
        table[name, "type"], table[name, "code"] = ("icmp_type", implied, kinds), ("icmp_code", implied, code)
    table["tcp", "flags"] = ("tcp_flags", constraint(proto=ValueSet.numbers(6)), _flags)
    return {
        words: Expression(" ".join(words), name, implied, values, elsewhere if words[0] == "th" else FALSE)
        for words, (name, implied, values) in table.items()
    }
