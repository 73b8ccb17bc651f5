"""Points and layers combined in batches, against the written rule applied packet by packet.

The rule (docs/architecture.md): the first denial decides; undecided beats allowed; a ClassBench-like NO_MATCH beats
allowed; among points that allow, the first whose rule matched, then the first default.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve import _core
from meshsieve.bounds import packet_words
from meshsieve.columns import PacketColumns
from meshsieve.decision import ACTION_NAMES, DecisionTables
from meshsieve.inventory import Inventory, Vnic
from meshsieve.model import FIELD_INDEX, Action, Rule, RuleSet, ValueSet
from meshsieve.policy import Layer, Point, Verdict

HOSTS = [0x0A000001, 0x0A000002, 0x0A000003, 0xC0000201]
INVENTORY = Inventory(Vnic(str(i), str(i), ((4, host),)) for i, host in enumerate(HOSTS[:3]))

addresses = st.sets(st.sampled_from(HOSTS), min_size=1).map(lambda s: ValueSet.numbers(*s))
numbers = st.sets(st.integers(0, 3), min_size=1).map(lambda s: ValueSet.numbers(*s))
matches = st.fixed_dictionaries(
    {}, optional={"src_ip": addresses, "dst_ip": addresses, "dport": numbers, "vnic": numbers}
)
actions = st.sampled_from([Action.ALLOW, Action.DROP, Action.REJECT, Action.UNDECIDED])
rules = st.builds(Rule, match=matches, action=actions, unknown=st.sampled_from([(), (), (), ("?",)]))
points = st.builds(
    Point,
    name=st.just("p"),
    rules=st.lists(rules, max_size=4).map(RuleSet),
    default=st.sampled_from([Verdict.ALLOW, Verdict.DROP, Verdict.NO_MATCH]),
    constants=st.sampled_from([{}, {"direction": 1}]),
    vnic_of=st.sampled_from([None, "src", "dst"]),
    excluded=st.sets(st.integers(0, 2), max_size=1).map(frozenset),
)
layers = st.lists(
    st.builds(
        Layer,
        name=st.just("l"),
        points=st.lists(points, min_size=1, max_size=2).map(tuple),
        inventory=st.just(INVENTORY),
        families=st.sampled_from([frozenset({4}), frozenset({4, 6}), frozenset({6})]),
    ),
    min_size=1,
    max_size=2,
)
packets = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.one_of(st.none(), st.integers(0, 3))),
    min_size=1,
    max_size=8,
)


def columns_of(given_packets: list[tuple[int, int, int | None]]) -> PacketColumns:
    everything = (1 << len(FIELD_INDEX)) - 1
    no_port = everything & ~(1 << FIELD_INDEX["dport"])
    return PacketColumns(
        {
            "src_ip": np.array([s for s, _, _ in given_packets], np.uint32),
            "dst_ip": np.array([d for _, d, _ in given_packets], np.uint32),
            "dport": np.array([p or 0 for _, _, p in given_packets], np.uint16),
            "proto": np.full(len(given_packets), 6, np.uint8),
            "ip_ver": np.full(len(given_packets), 4, np.uint8),
        },
        present=np.array([no_port if p is None else everything for _, _, p in given_packets], np.uint32),
    )


def verdict_at(layer: Layer, point: Point, packet: PacketColumns) -> tuple[str, int] | None:
    """(verdict, rule or -1) of one packet at one point; None if it does not come there."""
    if 4 not in layer.families:
        return None
    fields = dict(point.constants)
    if point.vnic_of is not None:
        owner = INVENTORY.owner(4, int(packet[f"{point.vnic_of}_ip"][0]))
        if owner < 0:
            return None
        if owner in point.excluded:
            return ("ALLOW", -1)
        fields["vnic"] = owner
    asked = packet.with_fields({name: [value] for name, value in fields.items()})
    found = _core.walk(point.rules.native, packet_words(asked, 0))
    if found == -1:
        return (point.default.name, -1)
    if found <= -2:
        return ("UNDECIDED", -found - 2)
    return (Action(int(point.rules.actions[found])).name, found)


def expected(given_layers: list[Layer], packet: PacketColumns) -> tuple[str, int]:
    answers = [verdict_at(layer, point, packet) for layer in given_layers for point in layer.points]
    here = [answer for answer in answers if answer is not None]
    for wanted in (("DROP", "REJECT"), ("UNDECIDED",), ("NO_MATCH",)):
        for action, rule in here:
            if action in wanted:
                return action, rule
    allowed = [rule for _, rule in here]
    if not allowed:
        return "NONE", -1
    return "ALLOW", next((rule for rule in allowed if rule >= 0), -1)


@settings(max_examples=300, deadline=None)
@given(layers, packets)
def test_batches_answer_as_the_rule_says(
    given_layers: list[Layer], given_packets: list[tuple[int, int, int | None]]
) -> None:
    headers = columns_of(given_packets)
    decisions = DecisionTables(given_layers).decide(headers)
    for i in range(len(headers)):
        action, rule = expected(given_layers, headers.take(np.array([i])))
        assert ACTION_NAMES[decisions.action[i]] == action
        assert max(int(decisions.rule[i]), -1) == rule


@settings(max_examples=200, deadline=None)
@given(layers, packets)
def test_upper_accepts_what_strict_and_lower_accept(
    given_layers: list[Layer], given_packets: list[tuple[int, int, int | None]]
) -> None:
    headers = columns_of(given_packets)
    strict, upper, lower = (
        DecisionTables(given_layers, mode=mode).decide(headers).action for mode in ("strict", "upper", "lower")
    )
    allow = Verdict.ALLOW
    assert not np.any((lower == allow) & (upper != allow))
    certain = strict != Verdict.UNDECIDED
    assert np.array_equal(strict[certain] == allow, upper[certain] == allow)
    assert np.array_equal(strict[certain] == allow, lower[certain] == allow)
