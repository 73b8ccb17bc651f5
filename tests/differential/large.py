"""The large differential run: every engine and backend against a linear scan that shares nothing with them.

    python -m tests.differential.large [--lookups 1e8] [--sizes 1000,10000,100000] [--slice 3/40 --record runs.ndjson]
    python -m tests.differential.large --total runs.ndjson

The generated families, the hard sets, policies of groups and random worlds with every field and absent fields; lists
that are changed, saved, loaded and rewritten into others that mean the same; and every header of small worlds. Truth is
tests/reference/linear_scan.py; the core's own reference is one more engine to be checked.

``--lookups`` is the number of look-ups at the smallest size; each larger size gets a tenth of the one before, changed
lists get a tenth of the first, and small worlds as many pairs of header and rule set, each looked up in every engine.
``--slice K/N`` is the K-th of N parts of about equal length, counted from 1; all N are the whole run. ``--record``
appends one line of JSON, ``--total`` adds such lines up. Exit status 1 if one answer was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches import boxes, classbench, groups, hard_sets, machine, traces
from meshsieve import _core, packets
from meshsieve.columns import PacketColumns
from meshsieve.errors import CompileError
from meshsieve.model import RuleSet
from tests.differential.changes import OPERATIONS, in_terms_of
from tests.differential.test_small_worlds import WORLDS, wrong_answers
from tests.differential.worlds import ALL_FIELDS, FIVE_TUPLE, World
from tests.reference.linear_scan import LinearScan

COMPILED = [name for name, _ in _core.engines() if name != "linear"]
ENGINES = ["linear", "auto", *COMPILED]
VARIANTS = [("linear", "auto"), ("auto", "auto"), *itertools.product(COMPILED, _core.backends())]
HEADERS = 10_000
BATCHES = (1, 63, 4096)


class Tally:
    """Look-ups and wrong answers by part of the run; a wrong one is told at once."""

    def __init__(self) -> None:
        self.lookups: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    def add(self, part: str, case: str, lookups: int, wrong: int) -> None:
        self.lookups[part] += lookups
        self.wrong[part] += wrong
        if wrong:
            print(f"WRONG {wrong} of {lookups}: {part}, {case}", flush=True)

    def __str__(self) -> str:
        rows = [f"{part}: {n:,} look-ups, {self.wrong[part]} wrong" for part, n in self.lookups.items()]
        return "\n".join([*rows, f"differential: {self.lookups.total():,} look-ups, {self.wrong.total()} wrong"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lookups", type=float, default=1e6)
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--slice", default="1/1", metavar="K/N")
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("--total", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.total:
        return report(json.loads(line) for line in options.total.read_text().splitlines())
    place, places = (int(part) for part in options.slice.split("/"))
    if not 1 <= place <= places:
        parser.error("--slice counts from 1/N to N/N")
    started = time.monotonic()
    tally = run(options.lookups / places, [int(size) for size in options.sizes.split(",")], place, places)
    print(tally)
    if options.record:
        facts = machine.describe()
        row = {"slice": options.slice, "commit": facts["commit"], "seconds": round(time.monotonic() - started)}
        row |= {"lookups": tally.lookups, "wrong": tally.wrong}
        with options.record.open("a") as file:
            file.write(json.dumps(row) + "\n")
    return 1 if tally.wrong.total() else 0


def report(rows: Iterable[dict[str, Any]]) -> int:
    """Adds up what ``--record`` wrote."""
    tally, commits, slices = Tally(), set(), []
    for row in rows:
        tally.lookups.update(row["lookups"])
        tally.wrong.update(row["wrong"])
        commits.add(row["commit"])
        slices.append(row["slice"])
    print(tally)
    print(f"slices {', '.join(slices)}; commits {', '.join(sorted(commits))}")
    return 1 if tally.wrong.total() else 0


def run(lookups: float, sizes: list[int], place: int, places: int) -> Tally:
    tally = Tally()
    seeds = range(99 + place, 10**6, places)
    for i, size in enumerate(sizes):
        part = f"{size} rules"
        for name, rules, headers in cases(size, seeds):
            if tally.lookups[part] >= lookups / 10**i:
                break
            tally.add(part, name, *compare(rules, headers))
    for seed in seeds:
        if tally.lookups["changed lists"] >= lookups / 10:
            break
        changed_lists(seed, tally)
    for world in WORLDS:
        headers = len(world.headers())
        sets = max(1, int(lookups / 10 / len(WORLDS) / headers))
        wrong = wrong_answers(world, ENGINES, sets, seed=99 + place)
        tally.add("small worlds, pairs", world.name, sets * headers, wrong.total())
    return tally


def cases(size: int, seeds: Iterable[int]) -> Iterator[tuple[str, RuleSet, PacketColumns]]:
    """Every family and hard set once a seed. Where a slice takes a few cases of one seed, slices begin at others."""
    for seed in seeds:
        makers = [*_generated(size, seed)]
        first = seed % len(makers)
        for name, make in makers[first:] + makers[:first]:
            rules, headers = make()
            yield f"{name}, seed {seed}", rules, headers


def _generated(size: int, seed: int) -> Iterator[tuple[str, Callable[[], tuple[RuleSet, PacketColumns]]]]:
    def from_boxes(rules: boxes.Boxes, uniform: bool) -> tuple[RuleSet, PacketColumns]:
        parts = [traces.uniform(rules, HEADERS)] if uniform else []
        headers = np.concatenate([*parts, traces.mixed(rules, HEADERS)])
        return boxes.to_rule_set(rules), boxes.to_columns(headers)

    def group_policy() -> tuple[RuleSet, PacketColumns]:
        policy = groups.Policy(size, seed)
        return policy.rule_set, boxes.to_columns(policy.headers(HEADERS, seed))

    def of_world(fields: Sequence[str], share: float, uncertain: float) -> tuple[RuleSet, PacketColumns]:
        world = World(seed, fields, sets_a_field=max(12, size // 50))
        return world.rules(size, share, uncertain=uncertain), world.packets(HEADERS)

    for family in classbench.FAMILIES:
        yield family, lambda family=family: from_boxes(classbench.rules(family, size, seed), True)
    for make in (hard_sets.short_prefixes, hard_sets.port_ranges, hard_sets.length_pairs, hard_sets.identical):
        yield make.__name__, lambda make=make: from_boxes(make(size, seed), False)
    if size <= 10_000:
        yield "groups", group_policy
    yield "world of five fields", lambda: of_world(FIVE_TUPLE, 0.6, 0.0)
    yield "world of every field", lambda: of_world(ALL_FIELDS, 0.15, 0.001)


def compare(rules: RuleSet, headers: PacketColumns) -> tuple[int, int]:
    expected = LinearScan(rules)(headers)
    batches = [_batches(headers, size) for size in BATCHES]
    done = wrong = 0
    for engine, backend in VARIANTS:
        try:
            clf = packets.compile(rules, engine=engine, backend=backend)
        except CompileError:
            continue
        for parts in batches if engine != "linear" else [[headers.take(np.arange(_for_linear(rules, headers)))]]:
            got = np.concatenate([clf.classify_batch(part) for part in parts])
            done += len(got)
            wrong += int((got != expected[: len(got)]).sum())
    return done, wrong


def _for_linear(rules: RuleSet, headers: PacketColumns) -> int:
    """Headers for the core's own reference, which is slow."""
    return min(len(headers), 2_000_000 // len(rules))


def _batches(headers: PacketColumns, size: int) -> list[PacketColumns]:
    """All headers, but at most 200 batches."""
    end = min(len(headers), 200 * size)
    return [headers.take(np.arange(i, min(i + size, end))) for i in range(0, end, size)]


def changed_lists(seed: int, tally: Tally) -> None:
    """Every operation that must not change an answer, on every engine, for one random list."""
    world = World(seed, FIVE_TUPLE, v6=seed % 2 == 1)
    rules, headers = world.rules(100, 0.4), world.packets(HEADERS // 2, 0.05)
    expected = LinearScan(rules)(headers)
    for engine in ENGINES:
        try:
            clf = packets.compile(rules, engine=engine)
        except CompileError:
            continue
        for operation in OPERATIONS:
            changed, stands_for = operation(clf, engine, np.random.default_rng(seed))
            got = in_terms_of(changed.classify_batch(headers), stands_for)
            case = f"{operation.__name__}, {engine}, seed {seed}"
            tally.add("changed lists", case, len(got), int((got != expected).sum()))


if __name__ == "__main__":
    sys.exit(main())
