"""What must not change an answer: building again, saving and loading, taking out and putting back, and rewriting a list
into another that means the same.

Each operation gives a classifier and int32 (m,): which rule of the first list each of its rules stands for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import packets
from meshsieve.model import Rule, RuleSet, ValueSet

Ids = npt.NDArray[np.int32]
Changed = tuple[packets.PacketClassifier, Ids]


def rebuilt(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    return packets.compile(RuleSet(clf.rules, names=clf.rules.names), engine=engine), _same(clf)


def loaded(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    with tempfile.TemporaryDirectory() as folder:
        clf.save(Path(folder) / "table")
        return packets.load_table(Path(folder) / "table"), _same(clf)


def taken_out_and_put_back(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    """Two publications; the rules in between are gone for a moment."""
    rules = list(clf.rules)
    gone = np.sort(random.choice(len(rules), min(len(rules), 5), replace=False)).tolist()
    changed = clf.snapshot()
    changed.update(remove=gone)
    # rule g goes back before the first rule behind it that stayed
    changed.update(insert=[(g - i, rules[g]) for i, g in enumerate(gone)])
    return changed, _same(clf)


def moved(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    """Some rules to other places and back again, each in one publication."""
    changed = clf.snapshot()
    for _ in range(3):
        rules = list(changed.rules)
        source, target = (int(v) for v in random.integers(0, len(rules), 2))
        changed.update(remove=[source], insert=[(target, rules[source])])
        place = target - (target > source)
        back = source if source <= place else source + 1
        changed.update(remove=[place], insert=[(back, rules[source])])
    return changed, _same(clf)


def written_twice(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    """A second copy behind some rules."""
    return _rewritten(clf, engine, lambda rule: [rule, rule] if random.random() < 0.2 else [rule])


def shadowed(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    """Behind some rules one that holds a part of what they hold."""

    def with_part(rule: Rule) -> list[Rule]:
        if rule.alternatives or random.random() > 0.2:
            return [rule]
        return [rule, Rule({**rule.match, "dport": _part(rule.match.get("dport"))}, action=rule.action)]

    return _rewritten(clf, engine, with_part)


def split(clf: packets.PacketClassifier, engine: str, random: Any) -> Changed:
    """Some rules as two, each with half of the destination ports. Both halves of an uncertain rule stay uncertain."""

    def halves(rule: Rule) -> list[Rule]:
        ports = rule.match.get("dport", ValueSet())
        if len(ports.v4) != 1 or ports.v4[0][0] == ports.v4[0][1] or random.random() > 0.5:
            return [rule]
        low, high = ports.v4[0]
        middle = (low + high) // 2
        return [
            Rule(
                {**rule.match, "dport": ValueSet.numbers(part)},
                rule.action,
                alternatives=rule.alternatives,
                unknown=rule.unknown,
            )
            for part in ((low, middle), (middle + 1, high))
        ]

    return _rewritten(clf, engine, halves)


OPERATIONS: list[Callable[[packets.PacketClassifier, str, Any], Changed]] = [
    rebuilt,
    loaded,
    taken_out_and_put_back,
    moved,
    written_twice,
    shadowed,
    split,
]


def in_terms_of(results: Ids, stands_for: Ids) -> Ids:
    """Results as they would be of the first list."""
    if not len(stands_for):
        return results
    rule = np.where(results >= 0, results, np.maximum(-results - 2, 0))
    first = stands_for[rule]
    return np.where(results >= 0, first, np.where(results == -1, -1, -first - 2)).astype(np.int32)


def _same(clf: packets.PacketClassifier) -> Ids:
    return np.arange(len(clf.rules), dtype=np.int32)


def _rewritten(clf: packets.PacketClassifier, engine: str, rewrite: Callable[[Rule], list[Rule]]) -> Changed:
    rules: list[Rule] = []
    stands_for: list[int] = []
    for i, rule in enumerate(clf.rules):
        new = rewrite(rule)
        rules += new
        stands_for += [i] * len(new)
    return packets.compile(RuleSet(rules, names=clf.rules.names), engine=engine), np.array(stands_for, np.int32)


def _part(ports: ValueSet | None) -> ValueSet:
    low, high = ports.v4[0] if ports is not None and ports.v4 else (0, 65535)
    return ValueSet.numbers((low, (low + high) // 2))
