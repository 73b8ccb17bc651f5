"""Rules given as columns of ranges are the rules that objects would have been."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve._core import FIELDS
from meshsieve.errors import ModelError
from meshsieve.model import Action, Rule, RuleSet, ValueSet
from meshsieve.value_sets import MAX_V6

LARGEST = {info.name: MAX_V6 if info.kind == "address" else 2**info.bits - 1 for info in FIELDS}
V4 = 2**32 - 1
WORD = 2**64 - 1


@st.composite
def columns(draw):
    """(ranges for from_ranges, the same rules as objects)"""
    names = draw(st.lists(st.sampled_from([info.name for info in FIELDS]), min_size=1, max_size=5, unique=True))
    count = draw(st.integers(0, 6))
    ranges, matches = {}, [{} for _ in range(count)]
    for name in names:
        is_address = LARGEST[name] == MAX_V6
        is_v6 = is_address and draw(st.booleans())
        largest = LARGEST[name] if is_v6 or not is_address else V4
        numbers = st.one_of(st.integers(0, largest), st.sampled_from([0, largest, largest // 2, min(largest, WORD)]))
        pairs = [sorted((draw(numbers), draw(numbers))) for _ in range(count)]
        ends = [[low for low, _ in pairs], [high for _, high in pairs]]
        if is_v6:
            ends = [np.array([(n >> 64, n & WORD) for n in end], np.uint64).reshape(-1, 2) for end in ends]
        ranges[name] = tuple(ends)
        for match, (low, high) in zip(matches, pairs, strict=True):
            if (low, high) != (0, largest):
                match[name] = ValueSet((), ((low, high),)) if is_v6 else ValueSet(((low, high),))
    return ranges, [Rule(match) for match in matches]


@settings(max_examples=200, deadline=None)
@given(columns())
def test_columns_and_objects_are_the_same_rules(both):
    ranges, rules = both
    made = RuleSet.from_ranges(ranges)
    assert list(made) == rules
    assert made.fields == RuleSet(rules).fields


def test_actions_are_one_for_all_or_one_each():
    ports = [80, 443]
    assert [r.action for r in RuleSet.from_ranges({"dport": (ports, ports)}, Action.DROP)] == [Action.DROP] * 2
    each = RuleSet.from_ranges({"dport": (ports, ports)}, [Action.DROP, Action.ALLOW])
    assert [r.action for r in each] == [Action.DROP, Action.ALLOW]


REFUSED = [
    ("no field is called 'port'", {"port": ([1], [1])}),
    ("lengths", {"dport": ([1], [1]), "sport": ([1, 2], [1, 2])}),
    ("lengths", {}),
    ("dport: a range ends before it starts", {"dport": ([2], [1])}),
    ("src_ip: a range ends before it starts", {"src_ip": ([[1, 0]], [[0, 5]])}),
    ("dport: a range ends beyond 65535", {"dport": ([2], [65536])}),
    ("src_ip: a range ends beyond 4294967295", {"src_ip": ([2], [2**32])}),
    ("dport: -1 is negative", {"dport": ([-1], [1])}),
    ("dport: float64", {"dport": ([0.5], [1])}),
    ("give integers", {"dport": ([[0, 1]], [[0, 1]])}),
    ("give integers", {"src_ip": ([[0, 1, 2]], [[0, 1, 2]])}),
    ("dport: low ends of shape", {"dport": ([1, 2], [3])}),
    ("src_ip: low ends of shape", {"src_ip": ([1], [[0, 1]])}),
]


@pytest.mark.parametrize(("why", "ranges"), REFUSED)
def test_what_is_no_range_is_refused(why, ranges):
    with pytest.raises(ModelError, match=why):
        RuleSet.from_ranges(ranges)
