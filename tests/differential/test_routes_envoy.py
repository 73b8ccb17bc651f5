"""The real Envoy answers 20,000 random requests as we do (a million: ``python -m tests.differential.envoy_routes``)."""

from __future__ import annotations

from tests.differential.envoy import envoy_binary
from tests.differential.envoy_routes import compare

WORLDS, REQUESTS = 100, 200


def test_envoy_answers_random_requests_as_we_do() -> None:
    envoy_binary()
    tally = compare(range(WORLDS), REQUESTS)
    assert not tally.differences
    assert tally.requests > WORLDS * REQUESTS * 9 // 10
    assert tally.taken > tally.requests // 8
