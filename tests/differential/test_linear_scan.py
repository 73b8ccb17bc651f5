"""The linear scan that engines are compared with says what docs/semantics.md says; so does the core's own reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from meshsieve import packets
from meshsieve.columns import PacketColumns
from meshsieve.model import FIELD_INDEX, Action, Rule, RuleSet, ValueSet
from tests.differential.worlds import ALL_FIELDS, FIVE_TUPLE, World
from tests.reference.linear_scan import LinearScan

WEB = ValueSet.numbers(80, 443)
ODD = ValueSet.numbers(*range(1, 100, 2))
LAN = ValueSet.addresses(["10.0.0.0/24", "2001:db8::/32"])
LAN4, NET6 = 0x0A000007, 0x20010DB8 << 96


def rule(*alternatives: dict[str, ValueSet], skip: int = -1, unknown: tuple[str, ...] = (), **match: ValueSet) -> Rule:
    return Rule(match, Action.ALLOW if skip < 0 else Action.SKIP, alternatives, skip, unknown=unknown)


WEB_RULE = rule(dport=WEB)
ODD_PORT = rule(dport=ODD)
ODD_TTL = rule(ttl=ODD)
FROM_LAN = rule(src_ip=LAN)
REST = rule()
EITHER = rule({"ttl": ODD}, {"dport": WEB})
BOTH = rule({"dport": WEB}, ttl=ODD)
NO_PORT_NEEDED = rule({"dport": WEB}, {}, ttl=ODD)
UNCERTAIN = rule(unknown=("clause",), dport=WEB)
PORT_0 = rule(dport=ValueSet.numbers(0))
SKIP_WEB = rule(skip=2, dport=WEB)

# fmt: off
#   what it says                                answer, packet                          rules
SENTENCES: list[tuple[str, int, dict[str, int], list[Rule]]] = [
    ("no rule, no match",                            -1, {"dport": 80},                   []),
    ("a rule without constraints takes all",          0, {"eth_type": 0},                 [REST]),
    ("the first rule that holds decides",             1, {"dport": 80},                   [ODD_PORT, WEB_RULE, REST]),
    ("many intervals: inside",                        0, {"dport": 99},                   [ODD_PORT]),
    ("many intervals: between",                      -1, {"dport": 98},                   [ODD_PORT]),
    ("many intervals: below the first",              -1, {"dport": 0},                    [ODD_PORT]),
    ("an empty set matches nothing",                 -1, {"dport": 80},                   [rule(dport=ValueSet())]),
    ("an IPv4 address in a set of both families",     0, {"src_ip": LAN4, "ip_ver": 4},   [FROM_LAN]),
    ("an IPv6 address in it",                         0, {"src_ip": NET6 + 1, "ip_ver": 6},[FROM_LAN]),
    ("IPv6 whose low bits are the IPv4 network",     -1, {"src_ip": LAN4, "ip_ver": 6},   [FROM_LAN]),
    ("an address of unknown family",                 -2, {"src_ip": LAN4},                [FROM_LAN]),
    ("an unseen address",                            -2, {"ip_ver": 4},                   [FROM_LAN]),
    ("a frame without IP has no address",            -1, {"ip_ver": 0},                   [FROM_LAN]),
    ("ICMP has no ports",                            -1, {"proto": 1},                    [PORT_0]),
    ("an unseen port of TCP",                        -2, {"proto": 6},                    [WEB_RULE]),
    ("SCTP has ports",                               -2, {"proto": 132},                  [WEB_RULE]),
    ("no protocol known: a port is unseen",          -2, {"eth_type": 0},                 [WEB_RULE]),
    ("UDP has no flags",                             -1, {"proto": 17},                   [rule(tcp_flags=ODD)]),
    ("ICMPv6 has a type",                            -2, {"proto": 58},                   [rule(icmp_type=ODD)]),
    ("no tag is no VLAN",                            -1, {"eth_type": 0},                 [rule(vlan=ODD)]),
    ("an unknown interface",                         -2, {"eth_type": 0},                 [rule(iif=ODD)]),
    ("FALSE beats UNKNOWN within a rule",            -1, {"ttl": 64},                     [rule(dport=WEB, ttl=ODD)]),
    ("a rule before an undecided one still decides",  0, {"ttl": 63},                     [ODD_TTL, WEB_RULE]),
    ("a rule behind an undecided one does not",      -2, {"ttl": 63},                     [WEB_RULE, ODD_TTL]),
    ("the number of the undecided rule",             -3, {"ttl": 64},                     [ODD_TTL, WEB_RULE]),
    ("one of the alternatives",                       0, {"ttl": 8, "dport": 80},         [EITHER]),
    ("none of the alternatives",                     -1, {"ttl": 8, "dport": 81},         [EITHER]),
    ("alternatives: TRUE beats UNKNOWN",              0, {"dport": 80},                   [EITHER]),
    ("alternatives: UNKNOWN beats FALSE",            -2, {"dport": 81},                   [EITHER]),
    ("the common part AND an alternative",           -1, {"ttl": 8, "dport": 80},         [BOTH]),
    ("an alternative without constraints",            0, {"ttl": 9, "dport": 81},         [NO_PORT_NEEDED]),
    ("an uncertain rule that would hold",            -2, {"dport": 80},                   [UNCERTAIN]),
    ("an uncertain rule that does not",              -1, {"dport": 81},                   [UNCERTAIN]),
    ("a skip goes on where it says",                  2, {"dport": 80},                   [SKIP_WEB, REST, REST]),
    ("a skip that does not hold",                     1, {"dport": 81},                   [SKIP_WEB, REST, REST]),
    ("a skip that may hold ends the walk",           -2, {"eth_type": 0},                 [SKIP_WEB, REST, REST]),
    ("a skip behind the last rule",                  -1, {"eth_type": 0},                 [rule(skip=1)]),
]
# fmt: on


def columns(packet: dict[str, int]) -> PacketColumns:
    def column(name: str, value: int) -> Any:
        if name.endswith("_ip"):
            return np.array([(value >> 64, value & (2**64 - 1))], np.uint64)
        return np.array([value])

    present = np.array([sum(1 << FIELD_INDEX[name] for name in packet)], np.uint32)
    return PacketColumns({name: column(name, value) for name, value in packet.items()}, present=present, length=1)


@pytest.mark.parametrize(("answer", "packet", "rules"), [s[1:] for s in SENTENCES], ids=[s[0] for s in SENTENCES])
def test_one_packet(answer: int, packet: dict[str, int], rules: list[Rule]) -> None:
    assert LinearScan(rules)(columns(packet)).tolist() == [answer]
    assert packets.compile(RuleSet(rules), engine="linear").classify_batch(columns(packet)).tolist() == [answer]


def test_32_bit_addresses_without_a_version_are_ipv4() -> None:
    headers = PacketColumns({"src_ip": np.array([0x0A000007, 0x0B000007], np.uint32)})
    assert LinearScan([FROM_LAN, rule(ip_ver=ValueSet.numbers(4))])(headers).tolist() == [0, 1]


@pytest.mark.parametrize("fields", [FIVE_TUPLE, ALL_FIELDS], ids=["five fields", "every field"])
@pytest.mark.parametrize("n", [1, 5000], ids=["one packet", "more than a block"])
def test_both_references_agree_in_random_worlds(fields: tuple[str, ...], n: int) -> None:
    for seed in range(4):
        world = World(seed, fields)
        rules = world.rules(60, share=2.5 / len(fields) if len(fields) > 5 else 0.4, skips=0.2)
        headers = world.packets(n, 0.1)
        core = packets.compile(rules, engine="linear").classify_batch(headers)
        np.testing.assert_array_equal(LinearScan(rules)(headers), core)
