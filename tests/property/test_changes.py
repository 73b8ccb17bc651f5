"""A list that is changed again and again answers as the linear reference answers for the list as it then stands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from meshsieve import _core, changing, packets
from meshsieve.errors import CompileError, ModelError
from meshsieve.model import Action, Rule, RuleSet
from tests.property import strategies
from tests.property.test_engines import ask, columns

ENGINES = ["auto", *(name for name, _ in _core.engines())]


def plain(some: Rule) -> Rule:
    """Without a skip, which only a whole list can judge."""
    return Rule(some.match, Action.ALLOW, some.alternatives, name=some.name, unknown=some.unknown)


class Changes(RuleBasedStateMachine):
    """The model is a Python list of rules and one answer: that of the reference over this list."""

    engine = "auto"

    @initialize(data=st.data(), skips=st.booleans())
    def start(self, data: st.DataObject, skips: bool) -> None:
        rules = list(data.draw(strategies.rule_sets()))
        self.model = rules if skips else [plain(r) for r in rules]
        try:
            self.clf = packets.compile(self.model, engine=self.engine)
        except CompileError:
            self.clf = packets.compile(self.model)
        self.kept: list[tuple[packets.PacketClassifier, list[Rule]]] = []

    @precondition(lambda self: not self.skips())
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        size = len(self.model)
        remove = data.draw(st.lists(st.integers(0, size - 1), max_size=4)) if size else []
        more = [plain(r) for r in data.draw(strategies.rule_sets(4))]
        insert = [(data.draw(st.integers(0, size)), r) for r in more]
        self.clf.update(remove=remove, insert=insert)
        slots: list[list[Rule]] = [[] for _ in range(size + 1)]
        for position, added in insert:
            slots[position].append(added)
        kept = [[] if i in remove else [old] for i, old in enumerate(self.model)] + [[]]
        self.model = [r for before, own in zip(slots, kept, strict=True) for r in (*before, *own)]

    @precondition(lambda self: self.skips())
    @rule(data=st.data())
    def update_with_skips(self, data: st.DataObject) -> None:
        size = len(self.model)
        added = plain(data.draw(strategies.rule_sets(1).filter(len))[0])
        remove = data.draw(st.lists(st.integers(0, size - 1), max_size=2))
        insert = [(data.draw(st.integers(0, size)), added)]
        self.model = list(RuleSet(self.model).edited(remove=remove, insert=insert))
        self.clf.update(remove=remove, insert=insert)

    @rule(data=st.data(), how_often=st.integers(1, 40))
    def crowd(self, data: st.DataObject, how_often: int) -> None:
        """One place again and again: labels run out."""
        if self.skips():
            return
        position = data.draw(st.integers(0, len(self.model)))
        added = plain(data.draw(strategies.rule_sets(1).filter(len))[0])
        for _ in range(how_often):
            self.clf.insert(added, position)
            self.model.insert(position, added)

    @precondition(lambda self: self.model and not self.skips())
    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        source, target = (data.draw(st.integers(0, len(self.model) - 1)) for _ in "st")
        self.clf.update(remove=[source], insert=[(target, self.model[source])])
        moved = self.model[source]
        before, after = self.model[:target], self.model[target:]
        self.model = [r for i, r in enumerate(before) if i != source]
        self.model += [moved, *(r for i, r in enumerate(after, target) if i != source)]

    @rule()
    def settle(self) -> None:
        assert self.clf.settle(60)
        assert self.clf.pending == 0

    @rule()
    def build_the_changing_table_anew(self) -> None:
        if self.clf._writer._live is not None:
            self.clf._writer._renew()

    @rule()
    def number_the_slots_anew(self) -> None:
        writer = self.clf._writer
        if writer._live is not None:
            slots = writer._live.published.slots
            writer._live.renumber()
            writer._history = writer._history.of(slots)

    @rule()
    def keep(self) -> None:
        self.kept = [*self.kept[-3:], (self.clf.snapshot(), list(self.model))]

    @rule(data=st.data())
    def what_cannot_be(self, data: st.DataObject) -> None:
        size = len(self.model)
        good = [(0, Rule())]
        wrong: Any = data.draw(
            st.sampled_from(
                [
                    {"remove": [size]},
                    {"remove": [-1]},
                    {"insert": [*good, (size + 1, Rule())]},
                    {"insert": [(-1, Rule())]},
                ]
            )
        )
        with pytest.raises(ModelError):
            self.clf.update(**wrong)

    @invariant()
    def answers_are_those_of_the_list(self) -> None:
        if not hasattr(self, "clf"):
            return
        assert len(self.clf) == len(self.model)
        self.compare(self.clf, self.model)
        for kept, model in self.kept:
            self.compare(kept, model)

    def compare(self, clf: packets.PacketClassifier, model: list[Rule]) -> None:
        assert list(clf.rules) == model
        rules = RuleSet(model)
        reference = packets.compile(rules, engine="linear")
        random = np.random.default_rng(len(model))
        batch = [edge_packet(rules, random) for _ in range(12)]
        expected = [ask(reference, packet) for packet in batch]
        assert [ask(clf, packet) for packet in batch] == expected
        assert clf.classify_batch(columns(batch)).tolist() == expected

    def skips(self) -> bool:
        return any(r.action == Action.SKIP for r in self.model)

    def teardown(self) -> None:
        if hasattr(self, "clf"):
            self.clf.settle(60)


def edge_packet(rules: RuleSet, random: np.random.Generator) -> dict[str, Any]:
    """A packet at or beside an end of a rule's intervals, now and then without a field; drawn from the rules alone, so
    that every state is asked the same."""
    version = int(random.choice((4, 6)))
    packet: dict[str, Any] = {"ip_ver": version}
    chosen = rules[int(random.integers(len(rules)))] if len(rules) else Rule()
    match = dict(chosen.match)
    if chosen.alternatives:
        match |= chosen.alternatives[int(random.integers(len(chosen.alternatives)))]
    for name in strategies.NAMES:
        if name == "ip_ver" or random.random() < 0.1:
            continue
        bits = (32 if version == 4 else 128) if name in strategies.ADDRESSES else strategies.BITS[name]
        values = match.get(name)
        span = () if values is None else values.v6 if version == 6 and name in strategies.ADDRESSES else values.v4
        value = int(random.integers(0, 256))
        if span:
            value = span[int(random.integers(len(span)))][int(random.integers(2))] + int(random.integers(-1, 2))
        packet[name] = min(max(value, 0), (1 << bits) - 1)
    return packet


@pytest.mark.parametrize("engine", ENGINES)
def test_changes(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "QUIET", 30.0)  # settling is a step of the machine's own
    machine = type("ChangesOf" + engine, (Changes,), {"engine": engine})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        machine, settings=settings(max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=checks)
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=300))
def test_positions_survive_any_order_of_insertion(steps: list[tuple[int, bool]]) -> None:
    """Ends, middles and one place again and again; what a rule is called says where it must stand."""
    clf = packets.compile([Rule(name="last")])
    model = ["last"]
    for number, (where, at_front) in enumerate(steps):
        position = 0 if at_front else where % (len(model) + 1)
        clf.insert(Rule(name=str(number)), position)
        model.insert(position, str(number))
    assert [r.name for r in clf.rules] == model
    clf.settle(60)
