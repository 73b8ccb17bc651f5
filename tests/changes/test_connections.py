"""Which connections a change of rules touches: exactly those that the compiled tables judge differently, at every
corner of random pairs of rule lists; and the words and witnesses for people."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from meshsieve.changes.connections import Difference, connection_changes, differences
from meshsieve.changes.model import change_kind
from meshsieve.columns import PacketColumns
from meshsieve.decision import ACTION_NAMES, Decisions, DecisionTables
from meshsieve.engine import Engine
from meshsieve.errors import UsageError
from meshsieve.inventory import Inventory, Vnic
from meshsieve.labels import Labels
from meshsieve.model import Action, Rule, RuleSet, ValueSet
from meshsieve.policy import Layer, Point, Verdict
from tests.unit.test_connectivity import numbers, random_rules

ADDRESSES = [0x0A000001, 0x0A000002, 0x0A000003, 0x0A010000, 0xC0000201, 0xC0000300, 0x01020304]
CORNERS = [
    *((proto, s, d) for proto in (6, 17) for s in (999, 1000, 2001, 40000) for d in (79, 80, 85, 86, 91)),
    *((1, kind, 0) for kind in (7, 8, 9)),
    (47, 0, 0),
    (50, 0, 0),
]
INVENTORIES = [
    Inventory([Vnic("a", "a", ((4, ADDRESSES[0]),)), Vnic("b", "b", ((4, ADDRESSES[1]),))]),
    Inventory([Vnic("a", "a", ((4, ADDRESSES[0]),)), Vnic("c", "c", ((4, ADDRESSES[1]), (4, ADDRESSES[2])))]),
]


def random_layers(chance: random.Random) -> list[Layer]:
    points = []
    for name, end in chance.choice([[("in", None)], [("out", "src"), ("in", "dst")], [("in", "dst")]]):
        rules = RuleSet(random_rules(chance))
        excluded = frozenset({1}) if chance.random() < 0.1 else frozenset()
        default = chance.choice([Verdict.DROP, Verdict.ALLOW])
        points.append(Point(name, rules, default, {"direction": 2}, end, excluded))
    return [Layer("test", tuple(points), chance.choice(INVENTORIES))]


def changed(chance: random.Random, layers: Sequence[Layer]) -> list[Layer]:
    """A new version: a rule added, removed, moved or with another action; or another default or inventory."""
    layer, point = layers[0], layers[0].points[0]
    rules = list(point.rules)
    at = chance.randrange(len(rules))
    inventory, default = layer.inventory, point.default
    what = chance.choice(["add", "remove", "move", "action", "default", "inventory", "nothing", "all"])
    skips = any(rule.action == Action.SKIP for rule in rules)
    if what == "add":
        rules = [replace(rule, skip_to=rule.skip_to + 1) if rule.skip_to > at else rule for rule in rules]
        rules.insert(at, Rule({"proto": numbers(6)}, chance.choice([Action.ALLOW, Action.DROP]), name="new"))
    elif what == "remove" and not skips:
        del rules[at]
    elif what == "move" and not skips:
        rules.insert(chance.randrange(len(rules)), rules.pop(at))
    elif what == "action" and rules[at].action != Action.SKIP:
        rules[at] = Rule(rules[at].match, Action.REJECT, rules[at].alternatives, unknown=rules[at].unknown)
    elif what == "default":
        default = Verdict.ALLOW if default == Verdict.DROP else Verdict.DROP
    elif what == "inventory":
        inventory = chance.choice(INVENTORIES)
    elif what == "all":
        return random_layers(chance)
    first = Point(point.name, RuleSet(rules), default, point.constants, point.vnic_of, point.excluded)
    return [Layer("test", (first, *layer.points[1:]), inventory)]


def packets() -> tuple[list[tuple[int, int, int, int, int]], PacketColumns]:
    rows = [(s, d, *corner) for s in ADDRESSES for d in ADDRESSES if s != d for corner in CORNERS]
    proto = np.array([r[2] for r in rows])
    ports, icmp = np.isin(proto, (6, 17)), proto == 1
    first, second = np.array([r[3] for r in rows]), np.array([r[4] for r in rows])
    fields = {
        "src_ip": np.array([r[0] for r in rows], np.uint32),
        "dst_ip": np.array([r[1] for r in rows], np.uint32),
        "proto": proto,
        "ip_ver": [4],
        "fragment": [0],
        "ct_state": [1],
    }
    columns = PacketColumns(fields).with_fields(
        {
            "sport": first,
            "dport": second,
            "icmp_type": np.where(icmp, first, 0),
            "icmp_code": np.where(icmp, second, 0),
            "tcp_flags": np.full(len(rows), 2),
        },
        where={"sport": ports, "dport": ports, "icmp_type": icmp, "icmp_code": icmp, "tcp_flags": proto == 6},
    )
    return rows, columns


ROWS, PACKETS = packets()


def holds(found: Difference, row: tuple[int, int, int, int, int]) -> bool:
    src, dst, proto, first, second = row
    ends = (found.sources, src), (found.destinations, dst)
    return all(
        any(low <= address <= high for end in members for low, high in end.addresses) for members, address in ends
    ) and found.connections.contains(proto, first, second)


def rules_of(tables: DecisionTables, decisions: Decisions) -> list[str | None]:
    labels = Labels(tables)
    return [labels.rules.texts[code] for code in labels.deciders_of(decisions)]


@pytest.mark.parametrize("seed", range(90))
def test_equals_the_compiled_tables_on_every_corner(seed: int) -> None:
    chance = random.Random(seed)
    old = random_layers(chance)
    new = changed(chance, old)
    tables = DecisionTables(old), DecisionTables(new)
    found = [d for d in differences(old, new) if d.sources[0].version == 4]
    answers = [t.decide(PACKETS) for t in tables]
    names = [rules_of(t, a) for t, a in zip(tables, answers, strict=True)]
    for i, row in enumerate(ROWS):
        actions = [ACTION_NAMES[int(a.action[i])] for a in answers]
        mine = [d for d in found if holds(d, row)]
        assert len(mine) == (actions[0] != actions[1]), (seed, row, actions, mine)
        for difference in mine:
            assert [difference.old.action, difference.new.action] == actions
            assert [difference.old.rule, difference.new.rule] == [n[i] for n in names]


@pytest.mark.parametrize("seed", range(60))
def test_every_witness_shows_its_change(seed: int) -> None:
    chance = random.Random(seed)
    old = random_layers(chance)
    new = changed(chance, old)
    engines = Engine(old), Engine(new)
    for change in connection_changes(old, new):
        before, after = (engine.explain(change.witness) for engine in engines)
        assert (before.action, after.action) == (change.old.action, change.new.action), change.witness
        assert (before.rule, after.rule) == (change.old.rule, change.new.rule)
        assert change.kind == change_kind(change.old, change.new)


def test_the_same_policy_read_twice_changes_nothing() -> None:
    for seed in range(30):
        old, new = (random_layers(random.Random(seed)) for _ in range(2))
        assert not list(differences(old, new))


def one(rules: list[Rule], default: Verdict = Verdict.DROP) -> list[Layer]:
    return [Layer("fw", (Point("in", RuleSet(rules), default),), INVENTORIES[0])]


def test_outsiders_are_compared_with_outsiders() -> None:
    """A chain on the way judges packets whose ends nobody knows."""
    old = one([Rule({"dst_ip": ValueSet.addresses(["192.0.2.0/24"]), "proto": numbers(6)}, name="web")])
    found = list(connection_changes(old, one([])))
    assert {name for change in found for name in change.destinations} == {"192.0.2.0-192.0.2.255"}
    assert any("192.0.2.0" in name or name.startswith("0.0.0.0") for change in found for name in change.sources)
    assert {(c.kind, c.what, c.old.rule, c.new.rule) for c in found} == {("closed", "TCP", "web", None)}


def test_only_what_changed_is_looked_at() -> None:
    """1,000 groups of addresses and one rule changed: 1,000,000 pairs are not walked one by one."""
    rules = [
        Rule({"src_ip": ValueSet.addresses([f"10.1.{i // 250}.{i % 250}"]), "dport": numbers(i)}, name=str(i))
        for i in range(1000)
    ]
    new = [*rules[:500], Rule(rules[500].match, Action.DROP, name="500"), *rules[501:]]
    found = list(differences(one(rules), one(new)))
    assert {(d.old.rule, d.new.rule) for d in found} == {("500", "500")}
    assert {end.name for d in found for end in d.sources} == {"10.1.2.0"}


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshsieve.changes.connections.MAX_PAIRS", 0)
    with pytest.raises(UsageError, match="give traffic with -r or --requests"):
        list(differences(one([]), one([Rule()])))
