"""Who may reach whom: the set algebra against the linear reference, and what people read."""

from __future__ import annotations

import random

import numpy as np
import pytest

from meshsieve import _core, _fast
from meshsieve.columns import PacketColumns
from meshsieve.connectivity import Connections, Reach, connectivity
from meshsieve.inventory import Inventory, Vnic
from meshsieve.model import Action, Rule, RuleSet, ValueSet
from meshsieve.policy import Layer, Point, Verdict

A, B = 0x0A000001, 0x0A000002
INVENTORY = Inventory([Vnic("a", "a", ((4, A),)), Vnic("b", "b", ((4, B), (6, 7)))])


def layer(rules: list[Rule], default: Verdict = Verdict.DROP, **options: object) -> Layer:
    return Layer("test", (Point("in", RuleSet(rules), default, {"direction": 2}, **options),), INVENTORY)  # type: ignore[arg-type]


def between(layers: list[Layer], src: str, dst: str) -> Reach:
    return next(r for r in connectivity(layers) if r.src.name.startswith(src) and r.dst.name.startswith(dst))


def numbers(*items: int | tuple[int, int]) -> ValueSet:
    return ValueSet.numbers(*items)


OTHERS = "IP protocols 0,2-5,7-16,18-32,34-57,59-131,133-135,137-255"
TCP_80 = {"proto": numbers(6), "dport": numbers(80)}
CASES = [
    ("nothing allowed", [], "none", "none"),
    ("everything allowed", [Rule()], "all", "none"),
    ("a port", [Rule(TCP_80)], "TCP 80", "none"),
    ("alternatives add", [Rule({}, Action.ALLOW, (TCP_80, {"proto": numbers(1)}))], "TCP 80; ICMP", "none"),
    ("an earlier denial cuts", [Rule(TCP_80, Action.DROP), Rule({"proto": numbers(6)})], "TCP 0-79,81-65535", "none"),
    (
        "source ports are named",
        [Rule({**TCP_80, "sport": numbers((1024, 65535))})],
        "TCP 80 from ports 1024-65535",
        "none",
    ),
    ("an ICMP type", [Rule({"proto": numbers(1), "icmp_type": numbers(8)})], "ICMP type 8", "none"),
    ("other protocols by number", [Rule({"proto": numbers(47, 50)})], "IP protocols 47,50", "none"),
    (
        "a port without protocol never means ICMP",
        [Rule({"dport": numbers(53)})],
        "TCP 53; UDP 53; DCCP 53; SCTP 53; UDP-Lite 53",
        "none",
    ),
    (
        "a rule for another receiver does not count",
        [Rule({"dst_ip": ValueSet.addresses(["10.0.0.1"])})],
        "none",
        "none",
    ),
    (
        "a skip goes on at its target",
        [Rule(TCP_80, Action.SKIP, skip_to=2), Rule({}, Action.DROP), Rule()],
        "TCP 80",
        "none",
    ),
    ("a first packet has SYN set", [Rule({"proto": numbers(6), "tcp_flags": numbers(2)})], "TCP", "none"),
    ("an interface is not known", [Rule({**TCP_80, "iif": numbers(1)})], "none", "TCP 80"),
    (
        "nor is an unknown clause",
        [Rule(TCP_80, unknown=("-m string",)), Rule()],
        "TCP 0-79,81-65535; UDP; DCCP; SCTP; UDP-Lite; ICMP; " + OTHERS,
        "TCP 80",
    ),
    (
        "a certain alternative wins over an undecided one",
        [Rule({}, Action.ALLOW, ({**TCP_80, "iif": numbers(1)}, TCP_80))],
        "TCP 80",
        "none",
    ),
]


@pytest.mark.parametrize(("what", "rules", "allowed", "undecided"), CASES, ids=[row[0] for row in CASES])
def test_between_a_and_b(what: str, rules: list[Rule], allowed: str, undecided: str) -> None:
    reach = between([layer(rules)], "a", "b")
    assert (str(reach.allowed), str(reach.undecided)) == (allowed, undecided)


def test_layers_must_all_allow_and_a_denial_beats_undecided() -> None:
    sure = layer([Rule({"proto": numbers(6)})])
    unsure = layer([Rule(TCP_80, unknown=("?",)), Rule({"dport": numbers(81)})])
    assert str(between([sure, unsure], "a", "b").allowed) == "TCP 81"
    assert str(between([sure, unsure], "a", "b").undecided) == "TCP 80"
    assert not between([layer([]), unsure], "a", "b").undecided


def test_points_without_vnic_or_excluded_pass() -> None:
    at_receiver = layer([], vnic_of="dst")
    assert between([at_receiver], "a", "0.0.0.0").allowed.everything
    assert not between([at_receiver], "a", "b").allowed
    assert between([layer([], vnic_of="dst", excluded=frozenset({1}))], "a", "b").allowed.everything


def test_outside_addresses_fall_into_the_ranges_that_rules_tell_apart() -> None:
    reaches = list(connectivity([layer([Rule({"src_ip": ValueSet.addresses(["192.0.2.0/24"])})])]))
    outside = {r.src.name: bool(r.allowed) for r in reaches if not r.src.owned and r.dst.name == "a"}
    assert outside["192.0.2.0-192.0.2.255"]
    assert sorted(outside.values()) == [False, True]


def random_rules(chance: random.Random) -> list[Rule]:
    def match() -> dict[str, ValueSet]:
        out: dict[str, ValueSet] = {}
        if chance.random() < 0.5:
            out["src_ip"] = ValueSet.addresses(
                chance.sample(["10.0.0.0/31", "10.0.0.2", "192.0.2.0/24", "10.0.0.0/8"], 2)
            )
        if chance.random() < 0.4:
            out["dst_ip"] = ValueSet.addresses([chance.choice(["10.0.0.1", "10.0.0.2", "0.0.0.0/1"])])
        if chance.random() < 0.6:
            out["proto"] = numbers(*chance.sample([1, 6, 17, 47], 2))
        if chance.random() < 0.4:
            out["dport"] = numbers((80, chance.randint(80, 90)))
        if chance.random() < 0.2:
            out["sport"] = numbers((1000, 2000)).complement("sport")
        if chance.random() < 0.2:
            out["icmp_type"] = numbers(8)
        if chance.random() < 0.1:
            out["iif"] = numbers(1)
        return out

    rules = []
    count = chance.randint(1, 8)
    for i in range(count):
        action = chance.choice([Action.ALLOW, Action.DROP, Action.REJECT, Action.SKIP])
        rules.append(
            Rule(
                match(),
                action,
                tuple(match() for _ in range(chance.choice([0, 0, 2]))),
                skip_to=chance.randint(i + 1, count) if action == Action.SKIP else -1,
                unknown=("?",) if chance.random() < 0.1 else (),
            )
        )
    return rules


def answer(connections: Connections, proto: int, first: int, second: int) -> bool:
    return connections.contains(proto, first, second)


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_linear_reference_on_every_corner(seed: int) -> None:
    chance = random.Random(seed)
    rules = RuleSet(random_rules(chance))
    under_test = Layer("test", (Point("in", rules, Verdict.DROP, {"direction": 2}),), INVENTORY)
    lookup = _fast.Lookup(_core.compile(rules.native, "linear").capsule)
    for reach in connectivity([under_test]):
        if reach.src.version != 4:
            continue
        for proto in (1, 6, 17, 47):
            ports = proto in (6, 17)
            corners = [(s, d) for s in (999, 1000, 2001) for d in (79, 80, 85, 91)] if ports else [(8, 0), (9, 0)]
            for first, second in corners:
                packet = {"src_ip": reach.src.address, "dst_ip": reach.dst.address, "proto": proto, "ip_ver": 4}
                packet |= {"direction": 2, "ct_state": 1, "fragment": 0}
                packet |= {"sport": first, "dport": second} if ports else {}
                packet |= {"icmp_type": first, "icmp_code": second} if proto == 1 else {}
                packet |= {"tcp_flags": 2} if proto == 6 else {}
                columns = PacketColumns({name: [value] for name, value in packet.items()})
                out = np.empty(1, np.int32)
                lookup.batch(columns.pairs(), None, out)
                action = Action.DROP if out[0] == -1 else rules[int(out[0])].action if out[0] >= 0 else None
                assert answer(reach.undecided, proto, first, second) == (action is None), (seed, packet)
                assert answer(reach.allowed, proto, first, second) == (action == Action.ALLOW), (seed, packet)
