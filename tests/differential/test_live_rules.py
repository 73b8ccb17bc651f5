"""Rules that an earlier one covers are left out of the tables; answers stay those of the whole list."""

from __future__ import annotations

import numpy as np
import pytest

from benches import boxes, hard_sets, traces
from meshsieve import _core, packets
from meshsieve.errors import CompileError
from meshsieve.model import Action, Rule, RuleSet, ValueSet
from tests.differential.worlds import ALL_FIELDS, FIVE_TUPLE, World

ENGINES = ["auto", *(name for name, _ in _core.engines() if name != "linear")]
WEB, HIGH = ValueSet.numbers(80), ValueSet.numbers((1024, 65535))
WIDE, NARROW, BOTH = (
    ValueSet.addresses(texts) for texts in (["10.0.0.0/8"], ["10.1.0.0/16"], ["10.1.0.0/16", "fd00::/8"])
)


def hidden(*rules: Rule) -> int:
    """How many are left out; the list is repeated often enough that leaving out pays."""
    return packets.compile(RuleSet(rules), engine="forest").stats.hidden


#    the second rule                                                                          left out
COVERED = [
    ("repeats the first", [Rule({"src_ip": NARROW}), Rule({"src_ip": NARROW})], 1),
    ("is narrower in a field", [Rule({"src_ip": WIDE}), Rule({"src_ip": NARROW})], 1),
    ("names one more field", [Rule({"src_ip": WIDE}), Rule({"src_ip": NARROW, "dport": WEB})], 1),
    ("comes after a rule for all", [Rule(), Rule({"dport": WEB})], 1),
    ("is wider in a field", [Rule({"src_ip": NARROW}), Rule({"src_ip": WIDE})], 0),
    ("names one field less, so matches packets that lack it", [Rule({"dport": HIGH}), Rule()], 0),
    ("holds a second family", [Rule({"src_ip": WIDE}), Rule({"src_ip": BOTH})], 0),
    (
        "is the only alternative of the first, narrower",
        [Rule({"src_ip": WIDE}, alternatives=({"dport": HIGH},)), Rule({"src_ip": NARROW, "dport": HIGH})],
        1,
    ),
    (
        "has more alternatives than the first",
        [Rule({}, alternatives=({"dport": WEB},)), Rule({}, alternatives=({"dport": WEB}, {"dport": HIGH}))],
        0,
    ),
    (
        "repeats the alternatives of the first",
        [Rule({}, alternatives=({"dport": WEB}, {"dport": HIGH}))] * 2,
        1,
    ),
    (
        "comes after one that only skips past it",
        [Rule({"src_ip": WIDE}, action=Action.SKIP, skip_to=2), Rule({"src_ip": NARROW})],
        1,
    ),
    ("is where a walk may enter", [Rule({"src_ip": WIDE}, action=Action.SKIP, skip_to=1), Rule({"src_ip": NARROW})], 0),
    (
        "comes after one that nobody can decide",
        [Rule({"src_ip": WIDE}, unknown=("clause",)), Rule({"src_ip": NARROW})],
        1,
    ),
]


@pytest.mark.parametrize(("rules", "count"), [c[1:] for c in COVERED], ids=[c[0] for c in COVERED])
def test_the_second_rule_is_left_out_or_not(rules: list[Rule], count: int) -> None:
    assert hidden(*rules) == count


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fields", [FIVE_TUPLE, ("src_ip", "dport"), ALL_FIELDS], ids=["five fields", "two", "all"])
def test_the_answer_is_that_of_the_whole_list(engine: str, fields: tuple[str, ...]) -> None:
    """Few sets a field, so that rules repeat and cover each other; chains that skip; packets that lack fields."""
    left_out = 0
    for seed in range(4):
        world = World(seed, fields, sets_a_field=3)
        rules = world.rules(150, share=0.3 if len(fields) < 6 else 0.07, skips=0.1)
        headers = world.packets(800, 0.15)
        expected = packets.compile(rules, engine="linear").classify_batch(headers)
        try:
            clf = packets.compile(rules, engine=engine)
        except CompileError as error:
            pytest.skip(f"{engine} declines: {error}")
        left_out += clf.stats.hidden
        assert np.array_equal(clf.classify_batch(headers), expected)
        first = headers.take(np.arange(1))
        assert clf.classify_batch(first)[0] == expected[0]
    assert left_out > 100


def test_explanations_and_statistics_speak_of_the_list_as_given() -> None:
    rules = RuleSet([Rule({"src_ip": WIDE})] * 30 + [Rule({"dport": WEB})])
    clf = packets.compile(rules, engine="bitmap")
    assert clf.stats.rules == 31
    assert clf.stats.hidden == 29
    assert clf.classify("192.0.2.1", "192.0.2.2", 1024, 80, 6) == 30
    assert clf.explain("192.0.2.1", "192.0.2.2", 1024, 80, 6).result == 30
    assert clf.explain_compile().startswith(
        "29 of 31 rules in no table: an earlier rule covers them\nrules 0-30: bitmap"
    )


@pytest.mark.parametrize("make", [hard_sets.port_ranges, hard_sets.length_pairs, lambda: hard_sets.identical(5000)])
def test_what_never_decides_is_most_of_a_random_list(make) -> None:
    rules = make()
    rule_set = boxes.to_rule_set(rules)
    clf = packets.compile(rule_set)
    assert clf.stats.hidden > 0.7 * len(rules)
    headers = boxes.to_columns(traces.mixed(rules, 1000))
    assert np.array_equal(
        clf.classify_batch(headers), packets.compile(rule_set, engine="linear").classify_batch(headers)
    )
