"""Dead rules as sentences, and against an exhaustive walk of a small world."""

from __future__ import annotations

import itertools
import random

import pytest

from meshsieve.lint.rules import dead_rules, lint_rules
from meshsieve.model import Action, Rule, Source, ValueSet
from meshsieve.policy import Layer, Point


def net(text: str) -> ValueSet:
    return ValueSet.addresses([text])


def rule(action: str = "ALLOW", **match: object) -> Rule:
    sets = {k: net(v) if isinstance(v, str) else ValueSet.numbers(v) for k, v in match.items()}  # type: ignore[arg-type]
    return Rule(sets, Action[action])


def dead(*rules: Rule, **point: object) -> dict[int, tuple[int, ...]]:
    from meshsieve.model import RuleSet

    found = dead_rules(Point("p", RuleSet(rules), **point), frozenset({4}))  # type: ignore[arg-type]
    return {d.index: d.covers for d in found.rules}


SENTENCES = [
    ("a wider rule before", [rule(src_ip="10.0.0.0/8"), rule(src_ip="10.1.0.0/16")], {1: (0,)}),
    ("a wider rule behind", [rule(src_ip="10.1.0.0/16"), rule(src_ip="10.0.0.0/8")], {}),
    ("the same rule twice", [rule(dport=80), rule(dport=80)], {1: (0,)}),
    ("two halves", [rule("DROP", src_ip="10.0.0.0/9"), rule("DROP", src_ip="10.128.0.0/9"), rule(src_ip="10.0.0.0/8")],
     {2: (0, 1)}),
    ("two halves that leave one address", [rule(dport=(0, 79)), rule(dport=(81, 65535)), rule(dport=(0, 65535))], {}),
    ("every port is not every packet", [rule(dport=(0, 65535)), rule()], {}),
    ("all addresses of the family are every packet", [rule("DROP", src_ip="0.0.0.0/0"), rule()], {1: (0,)}),
    ("halves in different fields", [rule(proto=6), rule(dport=80), rule(proto=6, dport=80)], {2: (0,)}),
    ("two parts of one field beside another",
     [rule(proto=6, dport=(0, 80)), rule(proto=6, dport=(81, 65535)), rule(proto=6, dport=(1, 90))], {2: (0, 1)}),
    ("a rule that is not certain", [Rule({}, Action.DROP, unknown=("-m string",)), rule(dport=80)], {}),
    ("a rule of an empty set", [Rule({"src_ip": ValueSet()}), rule()], {0: ()}),
    ("a jump over the cover", [Rule({"proto": ValueSet.numbers(6)}, Action.SKIP, skip_to=2), rule("DROP"), rule()], {}),
    ("a jump over both", [Rule({"proto": ValueSet.numbers(6)}, Action.SKIP, skip_to=3), rule("DROP"), rule(), rule()],
     {2: (1,)}),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "rules", "expected"), SENTENCES, ids=[s[0] for s in SENTENCES])
def test_which_rules_are_dead(sentence, rules, expected):
    assert dead(*rules) == expected


def test_alternatives_are_dead_only_together():
    both = Rule({}, Action.ALLOW, ({"dport": ValueSet.numbers(80)}, {"dport": ValueSet.numbers(443)}))
    assert dead(rule(dport=80), both) == {}
    assert dead(rule(dport=80), rule(dport=443), both) == {2: (0, 1)}


def test_constants_of_the_point_count():
    one, two = rule("DROP", direction=1), rule(dport=80)
    assert dead(one, two) == {}
    assert dead(one, two, constants={"direction": 1}) == {1: (0,)}


def test_every_finding_is_true_in_a_small_world():
    """3 fields of 4 values: the rules that no packet reaches, by walking every packet, hold all that is reported; and
    where rules are few, all of them are found."""
    rng = random.Random(11)
    fields = ("proto", "sport", "dport")
    world = list(itertools.product(range(4), repeat=3))
    whole = dict.fromkeys(fields, ValueSet.numbers((0, 3)))
    for _ in range(300):
        rules = []
        for _ in range(rng.randrange(2, 8)):
            match = {f: ValueSet.numbers(*rng.sample(range(4), rng.randrange(1, 5))) for f in rng.sample(fields, 2)}
            rules.append(Rule({**whole, **match}, rng.choice([Action.ALLOW, Action.DROP])))
        reached = set()
        for packet in world:
            for i, each in enumerate(rules):
                if all(each.match[f].contains(v) for f, v in zip(fields, packet, strict=True)):
                    reached.add(i)
                    break
        assert set(dead(*rules)) == set(range(len(rules))) - reached


def test_findings_say_what_takes_the_packets():
    from meshsieve.model import RuleSet

    rules = [
        Rule({"dport": ValueSet.numbers((0, 100))}, Action.DROP, name="block", source=Source("fw.rules", 1)),
        Rule({"dport": ValueSet.numbers(80)}, Action.ALLOW, name="web", source=Source("fw.rules", 2)),
        Rule({"dport": ValueSet.numbers(22)}, Action.DROP, name="ssh", source=Source("fw.rules", 3)),
    ]
    layer = Layer("filter", (Point("FORWARD", RuleSet(rules)),))
    assert [str(d) for d in lint_rules([layer])] == [
        "fw.rules:2: warning rule-shadowed: never decides: block (fw.rules:1) takes all its packets before "
        "(DROP; it says ALLOW) [filter FORWARD: web]",
        "fw.rules:3: note rule-redundant: never decides: block (fw.rules:1) takes the same packets before, "
        "with the same action [filter FORWARD: ssh]",
    ]


def test_a_rule_in_two_lists_is_dead_only_if_it_is_in_both():
    from meshsieve.model import RuleSet

    web = Rule({"dport": ValueSet.numbers(80)}, Action.ALLOW, name="web", source=Source("a", 1))
    lists = RuleSet([rule("DROP"), web]), RuleSet([web])
    points = Point("in", lists[0]), Point("out", lists[1])
    assert [d.code for d in lint_rules([Layer("l", points)])] == []
    assert [d.code for d in lint_rules([Layer("l", points[:1])])] == ["rule-shadowed"]


def test_long_lists_end_and_say_what_was_not_compared():
    rng = random.Random(3)
    rules = [rule("DROP", dport=(a, a + 3), sport=(b, b + 30000)) for a, b in
             ((rng.randrange(60000), rng.randrange(30000)) for _ in range(1500))]  # fmt: skip
    rules.append(rule(dport=(0, 65535)))
    from meshsieve.model import RuleSet

    found = dead_rules(Point("p", RuleSet(rules)), frozenset({4}))
    assert len(rules) - 1 not in {d.index for d in found.rules}
    assert found.not_compared >= 1
