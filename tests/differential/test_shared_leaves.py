"""Leaves that several nodes name, changed together: a leaf moves once, and what it left may be taken again at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from benches import boxes, classbench, traces
from meshsieve import packets
from meshsieve.model import ValueSet

# Shrunk from acl1. While one of the rules marked is put back, leaves made in this publication grow into other blocks,
# and what they leave is taken at once for another leaf of the same change.
LIST = """
192.0.2.32/32   10.1.41.194/31 44334    tcp
192.0.2.32/32   10.1.41.194/31 915      tcp
192.0.2.32/31   10.1.41.194/32 635      tcp
192.0.2.32/30   10.1.41.194/32 782      tcp
192.0.2.32/31   10.1.41.194/31 530      tcp
192.0.2.32/30   10.1.41.194/32 665      tcp
192.0.2.32/30   10.1.41.194/32 915      tcp
192.0.2.32/29   10.1.41.194/32 600      tcp
192.0.2.32/32   10.1.41.128/25 240      tcp
192.0.2.32/32   10.1.41.194/32 440-687  tcp
192.0.2.0/24    10.1.41.192/32 351      tcp
192.0.2.32/32   10.1.41.0/24   915      tcp
192.0.2.0/24    10.1.41.192/32 472      tcp
192.0.2.0/26    10.1.41.192/30 351      tcp
192.0.2.32/32   10.1.42.0/24   34504    tcp
192.0.2.32/32   10.1.41.0/24   782      tcp
192.0.2.32/32   10.1.42.0/24   600      tcp
192.0.2.32/32   10.1.41.192/30 any      tcp
192.0.2.0/24    10.1.41.194/32 any      tcp  changed
192.0.2.32/31   10.1.42.0/25   any      tcp
192.0.2.32/32   10.1.41.0/24   any      tcp
192.0.2.32/31   10.1.40.0/21   any      tcp  changed
192.0.2.32/32   10.1.40.0/23   any      any
192.0.2.32/32   10.1.42.0/23   any      any
"""


def ends(text: str, last: int) -> tuple[int, int]:
    if text == "any":
        return 0, last
    if "/" in text:
        return ValueSet.addresses([text]).v4[0]
    low, _, high = text.replace("tcp", "6").partition("-")
    return int(low), int(high or low)


def read(text: str) -> tuple[boxes.Boxes, npt.NDArray[np.int64]]:
    """The rules, and the places of those marked."""
    lines = [line.split() for line in text.strip().splitlines()]
    rows = [
        (*ends(source, 0), *ends(destination, 0), 0, 65535, *ends(port, 65535), *ends(protocol, 255))
        for source, destination, port, protocol, *_ in lines
    ]
    return np.array(rows, np.uint32), np.flatnonzero([len(line) > 4 for line in lines])


def go_and_come_back(table: packets.PacketClassifier, rules: boxes.Boxes, places: npt.NDArray[np.int64]) -> None:
    """The rules at these places, in a publication each way."""
    table.update(remove=places)
    back = {name: (rules[places, 2 * f], rules[places, 2 * f + 1]) for f, name in enumerate(boxes.FIELDS)}
    table.update(insert=packets.RuleSet.from_ranges(back), at=places - np.arange(len(places)))
    assert table.pending  # it is the table that was changed which answers


def test_a_block_left_is_taken_again_within_the_change() -> None:
    rules, marked = read(LIST)
    headers = boxes.to_columns(traces.uniform(rules, 2_000))
    table = packets.compile(boxes.to_rule_set(rules), engine="forest")
    expected = table.classify_batch(headers)
    go_and_come_back(table, rules, marked)
    assert np.array_equal(table.classify_batch(headers), expected)
    table.settle(60)


@pytest.mark.parametrize("size", [500, 2_000])
@pytest.mark.parametrize("family", ["acl1", "fw1", "ipc1", "ipc2"])
def test_a_quarter_of_the_rules_goes_and_comes_back(family: str, size: int) -> None:
    rules = classbench.rules(family, size, seed=1)
    headers = boxes.to_columns(traces.uniform(rules, 4_000))
    table = packets.compile(boxes.to_rule_set(rules), engine="forest")
    expected = table.classify_batch(headers)
    random = np.random.default_rng(0)
    for _ in range(6):
        go_and_come_back(table, rules, np.sort(random.choice(len(rules), len(rules) // 4, replace=False)))
        assert np.array_equal(table.classify_batch(headers), expected)
    table.settle(60)
