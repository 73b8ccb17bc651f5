"""The large differential run: every engine and backend against the linear reference.

    python -m tests.differential.large [--lookups 1e8] [--minutes 60] [--sizes 1000,10000,100000]

What R1 and R2 of the promises ask for, with the linear reference as truth, over the generated families, the hard sets,
policies of groups, random worlds with every field and absent fields, and exhaustive small worlds. ``--lookups`` is the
number of look-ups at the smallest size; each larger size gets a tenth of the one before. Prints a line a part and ends
with the total; exit status 1 if one answer was wrong. A run stops early, saying so, after ``--minutes``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np

from benches import boxes, classbench, groups, hard_sets, traces
from meshsieve import _core, packets
from meshsieve.columns import PacketColumns
from meshsieve.errors import CompileError
from meshsieve.model import RuleSet
from tests.differential.test_small_worlds import WORLDS, wrong_answers
from tests.differential.worlds import ALL_FIELDS, FIVE_TUPLE, World

ENGINES = [name for name, _ in _core.engines() if name != "linear"]
HEADERS = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lookups", type=float, default=1e6)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--sizes", default="1000,10000,100000")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    total = wrong = 0
    for place, size in enumerate(int(s) for s in options.sizes.split(",")):
        done = bad = 0
        for name, rules, headers in cases(size):
            if done >= options.lookups / 10**place or time.monotonic() > end:
                break
            n, w = compare(rules, headers)
            done, bad = done + n, bad + w
            if w:
                print(f"WRONG {w} of {n}: {name}")
        print(f"{size} rules: {done} look-ups, {bad} wrong", flush=True)
        total, wrong = total + done, wrong + bad
    for world in WORLDS:
        for engine in ENGINES:
            if time.monotonic() < end:
                bad = wrong_answers(world, engine, sets=max(1, int(options.lookups / 20_000)), seed=2)
                print(f"small world, {world.name}, {engine}: {bad} wrong", flush=True)
                wrong += bad
    early = " (stopped by --minutes)" if time.monotonic() > end else ""
    print(f"differential: {total} look-ups, {wrong} wrong{early}")
    return 1 if wrong else 0


def cases(size: int) -> Iterator[tuple[str, RuleSet, PacketColumns]]:
    """Endless: every family and hard set once a seed."""
    for seed in range(100, 10**6):
        for family in classbench.FAMILIES:
            rules = classbench.rules(family, size, seed)
            headers = np.concatenate([traces.uniform(rules, HEADERS), traces.mixed(rules, HEADERS)])
            yield f"{family} seed {seed}", boxes.to_rule_set(rules), boxes.to_columns(headers)
        for make in (hard_sets.short_prefixes, hard_sets.port_ranges, hard_sets.length_pairs, hard_sets.identical):
            rules = make(size, seed)
            yield (
                f"{make.__name__} seed {seed}",
                boxes.to_rule_set(rules),
                boxes.to_columns(traces.mixed(rules, HEADERS)),
            )
        if size <= 10_000:
            policy = groups.Policy(size, seed)
            yield f"groups seed {seed}", policy.rule_set, boxes.to_columns(policy.headers(HEADERS, seed))
        for fields, share in ((FIVE_TUPLE, 0.6), (ALL_FIELDS, 0.15)):
            world = World(seed, fields, sets_a_field=max(12, size // 50))
            yield (
                f"world of {len(fields)} fields, seed {seed}",
                world.rules(size, share, uncertain=0.0),
                world.packets(HEADERS),
            )


def compare(rules: RuleSet, headers: PacketColumns) -> tuple[int, int]:
    expected = packets.compile(rules, engine="linear").classify_batch(headers)
    done = wrong = 0
    for engine in ENGINES:
        for backend in _core.backends():
            try:
                clf = packets.compile(rules, engine=engine, backend=backend)
            except CompileError:
                continue
            for size in (1, 63, 4096):
                part = headers.take(np.arange(min(len(headers), 200 * size)))
                got = np.concatenate(
                    [
                        clf.classify_batch(part.take(np.arange(i, min(i + size, len(part)))))
                        for i in range(0, len(part), size)
                    ]
                )
                done += len(got)
                wrong += int((got != expected[: len(got)]).sum())
    return done, wrong


if __name__ == "__main__":
    sys.exit(main())
