"""Properties of every engine over any rules and packets that Hypothesis finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsieve import _core, packets
from meshsieve.columns import PacketColumns
from meshsieve.errors import CompileError
from meshsieve.model import FIELD_INDEX, Action, Rule, RuleSet
from tests.property import strategies

ENGINES = ["auto", *(name for name, _ in _core.engines() if name != "linear")]
SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def compiled(rules: RuleSet, engine: str) -> packets.PacketClassifier:
    try:
        return packets.compile(rules, engine=engine)
    except CompileError:
        return packets.compile(rules, engine="linear")


def ask(clf: packets.PacketClassifier, packet: dict[str, Any]) -> int:
    named = {"src_ip": "src", "dst_ip": "dst"}
    return clf.classify(**{named.get(name, name): value for name, value in packet.items()})


def columns(batch: list[dict[str, Any]]) -> PacketColumns:
    """Packets that lack different fields, as columns with presence masks."""
    fields: dict[str, Any] = {}
    for name in FIELD_INDEX:
        values = [packet.get(name, 0) for packet in batch]
        wide = name in strategies.ADDRESSES
        fields[name] = np.array([(v >> 64, v & (2**64 - 1)) for v in values] if wide else values, np.uint64)
    present = [sum(1 << FIELD_INDEX[name] for name in packet) for packet in batch]
    return PacketColumns(fields, present=np.array(present, np.uint32))


@pytest.mark.parametrize("engine", ENGINES)
@SLOW
@given(data=st.data())
def test_scalar_batch_and_explanation_agree(engine: str, data: st.DataObject) -> None:
    rules = data.draw(strategies.rule_sets())
    batch = data.draw(st.lists(strategies.packets(rules), min_size=1, max_size=5))
    clf = compiled(rules, engine)
    truth = [explained(clf, packet) for packet in batch]
    assert [ask(clf, packet) for packet in batch] == truth
    assert clf.classify_batch(columns(batch)).tolist() == truth


def explained(clf: packets.PacketClassifier, packet: dict[str, Any]) -> int:
    named = {"src_ip": "src", "dst_ip": "dst"}
    return clf.explain(**{named.get(name, name): value for name, value in packet.items()}).result


@pytest.mark.parametrize("engine", ENGINES)
@SLOW
@given(data=st.data())
def test_a_duplicate_behind_its_rule_changes_nothing(engine: str, data: st.DataObject) -> None:
    rules = [rule for rule in data.draw(strategies.rule_sets()) if rule.action != Action.SKIP]
    doubled = [rule for rule in rules for _ in range(2)]
    packet = data.draw(strategies.packets(RuleSet(rules)))
    one, two = ask(compiled(RuleSet(rules), engine), packet), ask(compiled(RuleSet(doubled), engine), packet)
    assert two == (one if one == -1 else 2 * one if one >= 0 else 2 * (one + 2) - 2)


@pytest.mark.parametrize("engine", ENGINES)
@SLOW
@given(data=st.data())
def test_a_rule_that_matches_all_hides_what_follows(engine: str, data: st.DataObject) -> None:
    rules = list(data.draw(strategies.rule_sets()))
    before = [rule for rule in rules if rule.action != Action.SKIP]
    packet = data.draw(strategies.packets(RuleSet(rules)))
    short = compiled(RuleSet([*before, Rule()]), engine)
    long = compiled(RuleSet([*before, Rule(), *before]), engine)
    assert ask(short, packet) == ask(long, packet) != -1
