"""Whatever must not change an answer does not, on every engine."""

from __future__ import annotations

import numpy as np
import pytest

from meshsieve import _core, packets
from meshsieve.errors import CompileError
from tests.differential.changes import OPERATIONS, in_terms_of
from tests.differential.worlds import FIVE_TUPLE, World

ENGINES = [name for name, _ in _core.engines()]


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.__name__ for operation in OPERATIONS])
def test_the_answers_stay(operation, engine: str) -> None:
    for seed in range(4):
        world = World(seed, FIVE_TUPLE, v6=seed % 2 == 1)
        headers = world.packets(500, 0.1)
        try:
            clf = packets.compile(world.rules(60, 0.4), engine=engine)
            changed, stands_for = operation(clf, engine, np.random.default_rng(seed))
        except CompileError as error:
            pytest.skip(f"{engine} declines: {error}")
        assert len(changed.rules) == len(stands_for)
        expected = packets.compile(clf.rules, engine="linear").classify_batch(headers)
        assert np.array_equal(in_terms_of(changed.classify_batch(headers), stands_for), expected)
