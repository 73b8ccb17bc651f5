"""Our own calls, for before and after: ``pytest benches --benchmark-only`` (plugin pytest-benchmark).

No peers and no claims: a change of a hot path is judged by running this twice on one quiet machine
(``--benchmark-autosave``, ``--benchmark-compare``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benches import boxes, classbench, groups, traces
from meshsieve import _core, packets

SIZES = (1_000, 10_000)
BATCH = 4096


@pytest.fixture(scope="module", params=[(family, n) for family in ("acl1", "fw1", "ipc1") for n in SIZES], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    family, n = request.param
    rules = classbench.rules(family, n)
    return boxes.to_rule_set(rules), boxes.to_columns(traces.uniform(rules, BATCH))


@pytest.mark.parametrize("engine", ["auto", *(name for name, _ in _core.engines() if name != "linear")])
def test_classify_batch(benchmark: Any, case: tuple[Any, Any], engine: str) -> None:
    rules, columns = case
    classifier = packets.compile(rules, engine=engine)
    out = np.empty(BATCH, np.int32)
    benchmark(classifier.classify_batch, columns, out)


def test_classify_one(benchmark: Any, case: tuple[Any, Any]) -> None:
    rules, columns = case
    classifier = packets.compile(rules)
    header = [int(columns[name][0]) for name in boxes.FIELDS]
    benchmark(classifier.classify, *header)


def test_compile(benchmark: Any, case: tuple[Any, Any]) -> None:
    rules, _ = case
    _ = rules.native
    benchmark(packets.compile, rules)


def test_rule_set_from_boxes(benchmark: Any) -> None:
    benchmark(boxes.to_rule_set, classbench.rules("acl1", 1_000))


def test_classify_batch_of_groups(benchmark: Any) -> None:
    policy = groups.Policy(2_000)
    classifier = packets.compile(policy.rule_set)
    columns = boxes.to_columns(policy.headers(BATCH))
    benchmark(classifier.classify_batch, columns, np.empty(BATCH, np.int32))
