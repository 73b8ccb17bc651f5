"""Hypothesis strategies for rules and packets, built from ``FIELDS``: a new field is tested without a line here."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from meshsieve import _core
from meshsieve.model import Action, Match, Rule, RuleSet, ValueSet

NAMES = tuple(info.name for info in _core.FIELDS)
BITS = {info.name: info.bits for info in _core.FIELDS}
ADDRESSES = tuple(info.name for info in _core.FIELDS if info.kind == "address")


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Values of a field: crowded at its ends and around powers of two, so that intervals nest, touch and overlap."""
    top = (1 << bits) - 1
    corners = sorted({v for b in range(bits + 1) for v in ((1 << b) - 1, 1 << b, top - (1 << b)) if 0 <= v <= top})
    return st.one_of(st.sampled_from(corners), st.integers(0, min(top, 7)), st.integers(0, top))


def spans(bits: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    pair = st.tuples(numbers(bits), numbers(bits)).map(lambda p: (min(p), max(p)))
    return st.lists(pair, max_size=4)


def value_sets(name: str) -> st.SearchStrategy[ValueSet]:
    if name in ADDRESSES:
        return st.builds(
            lambda v4, v6: ValueSet(ValueSet.numbers(*v4).v4, ValueSet.numbers(*v6).v4), spans(32), spans(128)
        )
    return spans(BITS[name]).map(lambda pairs: ValueSet.numbers(*pairs))


def matches(names: tuple[str, ...]) -> st.SearchStrategy[Match]:
    return st.fixed_dictionaries({}, optional={name: value_sets(name) for name in names})


@st.composite
def rule_sets(draw: st.DrawFn, most_rules: int = 12) -> RuleSet:
    names = tuple(draw(st.sets(st.sampled_from(NAMES), min_size=1, max_size=5)))
    count = draw(st.integers(0, most_rules))
    rules = []
    for index in range(count):
        skips = draw(st.integers(0, 9)) == 0
        rules.append(
            Rule(
                match=draw(matches(names)),
                alternatives=tuple(draw(st.lists(matches(names), max_size=2))),
                action=Action.SKIP if skips else Action.ALLOW,
                skip_to=draw(st.integers(index + 1, count)) if skips else -1,
                unknown=("clause",) if draw(st.integers(0, 9)) == 0 else (),
            )
        )
    return RuleSet(rules)


@st.composite
def packets(draw: st.DrawFn, rules: RuleSet) -> dict[str, Any]:
    """A packet of one family; values are ends of the rules' intervals, one beside them, or anything."""
    version = draw(st.sampled_from((4, 6)))
    edges: dict[str, list[int]] = {name: [] for name in NAMES}
    for rule in rules:
        for match in (rule.match, *rule.alternatives):
            for name, values in match.items():
                span = values.v6 if version == 6 and name in ADDRESSES else values.v4
                edges[name] += [end + step for pair in span for end in pair for step in (-1, 0, 1)]
    packet: dict[str, Any] = {}
    for name in NAMES:
        bits = (32 if version == 4 else 128) if name in ADDRESSES else BITS[name]
        near = [v for v in edges[name] if 0 <= v < 1 << bits]
        if name == "ip_ver" or draw(st.integers(0, 5)) == 0:
            continue
        values = st.sampled_from((1, 6, 17, 58)) if name == "proto" else numbers(bits)
        packet[name] = draw(st.one_of(st.sampled_from(near), values) if near else values)
    if any(name in packet for name in ADDRESSES) or draw(st.booleans()):
        packet["ip_ver"] = version
    return packet
