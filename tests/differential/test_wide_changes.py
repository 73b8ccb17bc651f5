"""Lists of wide rules, which are in many leaves, changed by hundreds: answers and memory after every publication."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from meshsieve import packets

FIELDS = ("src_ip", "dst_ip", "sport", "dport", "proto")
LAST = np.array([2**32 - 1, 2**32 - 1, 65535, 65535, 255], np.int64)
RULES, TOGETHER, PUBLICATIONS = 3_000, 200, 40

Ranges = npt.NDArray[np.int64]


def wide_rules(count: int, random: np.random.Generator) -> Ranges:
    """(count, 5, 2): prefixes of 0 to 24 bits, half of the fields free, ports as ranges; many of them overlap."""
    rules = np.zeros((count, 5, 2), np.int64)
    for field in range(5):
        free = random.random(count) < 0.5
        if field < 2:
            size = np.int64(1) << (32 - random.choice([1, 2, 4, 6, 8, 16, 24], count)).astype(np.int64)
            low = random.integers(0, 2**32, count) // size * size
            high = low + size - 1
        elif field < 4:
            ends = np.sort(random.integers(0, 65536, (count, 2)), axis=1)
            low, high = ends[:, 0], ends[:, 1]
        else:
            low = high = random.choice([6, 17], count)
        rules[:, field, 0] = np.where(free, 0, low)
        rules[:, field, 1] = np.where(free, LAST[field], high)
    return rules


def columns(rules: Ranges) -> packets.RuleSet:
    return packets.RuleSet.from_ranges({name: (rules[:, f, 0], rules[:, f, 1]) for f, name in enumerate(FIELDS)})


def headers(rules: Ranges, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    chosen = rules[random.integers(0, len(rules), count)]
    return chosen[:, :, 0] + (random.random((count, 5)) * (chosen[:, :, 1] - chosen[:, :, 0] + 1)).astype(np.int64)


def asked(table: packets.PacketClassifier, values: npt.NDArray[np.int64]) -> list[int]:
    types = (np.uint32, np.uint32, np.uint16, np.uint16, np.uint8)
    return table.classify_batch(
        {name: np.ascontiguousarray(values[:, f], types[f]) for f, name in enumerate(FIELDS)}
    ).tolist()


def first_matches(rules: Ranges, values: npt.NDArray[np.int64]) -> list[int]:
    inside = np.ones((len(values), len(rules)), bool)
    for field in range(5):
        value = values[:, field, None]
        inside &= (rules[:, field, 0] <= value) & (value <= rules[:, field, 1])
    return np.where(inside.any(axis=1), inside.argmax(axis=1), -1).tolist()


@pytest.mark.parametrize("held", [False, True], ids=["nobody holds a version", "a version is held"])
@pytest.mark.parametrize("seed", range(3))
def test_wide_rules_come_and_go(seed: int, held: bool) -> None:
    random = np.random.default_rng(seed)
    rules = wide_rules(RULES, random)
    table = packets.compile(columns(rules), engine="forest")
    kept, asked_of_kept, answers_of_kept = None, headers(rules, 100, random), [0]
    for publication in range(PUBLICATIONS):
        places = np.sort(random.choice(len(rules), TOGETHER, replace=False))
        table.update(remove=places)
        rules = np.delete(rules, places, axis=0)
        at = np.sort(random.integers(0, len(rules) + 1, TOGETHER))
        new = wide_rules(TOGETHER, random)
        table.update(insert=columns(new), at=at)
        rules = np.insert(rules, at, new, axis=0)
        values = headers(rules, 100, random)
        assert asked(table, values) == first_matches(rules, values)
        if held and publication == 3:
            kept, answers_of_kept = table.snapshot(), first_matches(rules, asked_of_kept)
    if kept is not None:
        assert asked(kept, asked_of_kept) == answers_of_kept
    table.settle(60)
    values = headers(rules, 200, random)
    assert asked(table, values) == first_matches(rules, values)


def test_rules_that_go_and_come_back_take_no_more_memory() -> None:
    """Leaves move to other blocks with every change, and have many lengths; what they leave is put together again."""
    random = np.random.default_rng(1)
    rules = wide_rules(RULES, random)
    table = packets.compile(columns(rules), engine="forest")
    table.update(remove=[0])
    table.update(insert=columns(rules[:1]), at=[0])
    bytes_at_first = table.stats.bytes
    for _ in range(20):
        places = np.sort(random.choice(RULES, 300, replace=False))
        table.update(remove=places)
        table.update(insert=columns(rules[places]), at=places - np.arange(300))
        assert table.stats.bytes < 4 * bytes_at_first  # three replicas, spare blocks, 6,000 rules remembered
    values = headers(rules, 200, random)
    assert asked(table, values) == first_matches(rules, values)
    table.settle(60)
