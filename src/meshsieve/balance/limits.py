"""Circuit breakers and retries as decisions over replayed events.

A breaker decides from what is active at a moment; a retry decides from the answer and the tries so far. Neither knows
the network: the replay takes when each request started and how long its service takes.

Source: envoyproxy/envoy resource_manager_impl.h, retry_state_impl.cc; Istio's defaults from its API.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from meshsieve._fast_balance import Picker
from meshsieve.errors import BalanceError

NO_LIMIT = 2**32 - 1
DEFAULT_SELECTIONS = 5  # Istio's host_selection_retry_max_attempts


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a cluster: when it comes, and how long its service takes once it has a connection (seconds)."""

    start: float
    duration: float
    is_retry: bool = False


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """begin, end: when the call was served, None if it was refused; limit: what refused it (Envoy: 503, flag UO)."""

    begin: float | None
    end: float | None
    limit: str | None


@dataclass(frozen=True)
class CircuitBreaker:
    """Envoy's thresholds of one priority; Istio's defaults, which are no limits.

    max_requests     calls active at once (HTTP/2: Istio's http2MaxRequests)
    max_connections  connections, each with one call at a time (HTTP/1.1); further calls wait
    max_pending      calls that may wait for a connection (Istio's http1MaxPendingRequests)
    max_retries      retries active at once; replaced by the budget where one is given
    retry_budget     percent of the active calls that may be retries, but at least ``min_retry_concurrency``
    """

    max_requests: int = NO_LIMIT
    max_connections: int = NO_LIMIT
    max_pending: int = NO_LIMIT
    max_retries: int = NO_LIMIT
    retry_budget: float | None = None
    min_retry_concurrency: int = 3

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_connections", "max_pending", "max_retries", "min_retry_concurrency"):
            if not 0 <= getattr(self, name) <= NO_LIMIT:
                raise BalanceError(f"{name} is 0 to {NO_LIMIT}, not {getattr(self, name)}")
        if self.retry_budget is not None and not 0 <= self.retry_budget <= 100:
            raise BalanceError(f"a retry budget is 0 to 100 percent, not {self.retry_budget}")

    def retries_allowed(self, active_calls: int) -> int:
        """How many retries may be active among so many active or waiting calls."""
        if self.retry_budget is None:
            return self.max_retries
        return max(self.min_retry_concurrency, int(active_calls * self.retry_budget / 100))

    def replay(self, calls: Iterable[Call]) -> list[CallOutcome]:
        """The outcome of every call, in their order. A call that ends at the moment another starts has ended.

        raises  BalanceError for calls that are not sorted by start
        """
        outcomes: list[CallOutcome | None] = []
        active: list[tuple[float, int]] = []  # (end, number) of the calls in service
        retrying: set[int] = set()
        waiting: deque[int] = deque()
        all_calls: list[Call] = []

        def serve(number: int, begin: float) -> None:
            end = begin + all_calls[number].duration
            outcomes[number] = CallOutcome(begin, end, None)
            heapq.heappush(active, (end, number))

        def until(time: float) -> None:
            while active and active[0][0] <= time:
                end, number = heapq.heappop(active)
                retrying.discard(number)
                if waiting:
                    serve(waiting.popleft(), end)

        for number, call in enumerate(calls):
            if number and call.start < all_calls[-1].start:
                raise BalanceError(f"call {number} starts before call {number - 1}; sort them by start")
            if call.duration < 0:
                raise BalanceError(f"call {number} has a negative duration")
            all_calls.append(call)
            outcomes.append(None)
            until(call.start)
            limit = self._refused_by(call, len(active), len(waiting), len(retrying))
            if limit is not None:
                outcomes[number] = CallOutcome(None, None, limit)
                continue
            if call.is_retry:
                retrying.add(number)
            if len(active) < self.max_connections:
                serve(number, call.start)
            else:
                waiting.append(number)
        until(float("inf"))
        # Only without any connection does a call wait for ever.
        return [outcome or CallOutcome(None, None, "max_connections") for outcome in outcomes]

    def _refused_by(self, call: Call, active: int, waiting: int, retrying: int) -> str | None:
        if call.is_retry and retrying >= self.retries_allowed(active + waiting):
            return "max_retries" if self.retry_budget is None else "retry_budget"
        if active >= self.max_connections:
            return "max_pending" if waiting >= self.max_pending else None
        return "max_requests" if active >= self.max_requests else None


GATEWAY = frozenset({502, 503, 504})
GRPC_CODES = {
    "cancelled": 1,
    "deadline-exceeded": 4,
    "resource-exhausted": 8,
    "internal": 13,
    "unavailable": 14,
}
CONDITIONS = frozenset(
    {"5xx", "gateway-error", "reset", "connect-failure", "refused-stream", "retriable-4xx", "retriable-status-codes"}
) | set(GRPC_CODES)
RESETS = ("connect-failure", "refused-stream", "reset", "overflow")


@dataclass(frozen=True)
class RetryPolicy:
    """Whether an answer is tried again. Istio's defaults: two more tries, on failures that did no work yet.

    on            conditions (Envoy's names)
    status_codes  for "retriable-status-codes"
    """

    attempts: int = 2
    on: frozenset[str] = frozenset({"connect-failure", "refused-stream", "unavailable", "cancelled"})
    status_codes: frozenset[int] = frozenset()
    per_try_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise BalanceError(f"attempts must be at least 0, not {self.attempts}")
        if unknown := sorted(self.on - CONDITIONS):
            raise BalanceError(
                f"unknown retry conditions: {', '.join(unknown)}; there are: {', '.join(sorted(CONDITIONS))}"
            )

    @staticmethod
    def parse(retry_on: str, attempts: int = 2, per_try_timeout: float | None = None) -> RetryPolicy:
        """From a comma-separated list; whole numbers are retriable status codes, as Istio writes them."""
        words = [word.strip() for word in retry_on.split(",") if word.strip()]
        numbers = {word for word in words if word.isascii() and word.isdigit() and len(word) == 3}
        codes = frozenset(map(int, numbers))
        names = set(words) - numbers
        if codes:
            names.add("retriable-status-codes")
        return RetryPolicy(attempts, frozenset(names), codes, per_try_timeout)

    def wants(
        self, tries: int, *, status: int | None = None, reset: str | None = None, grpc_status: int | None = None
    ) -> bool:
        """Whether the ``tries``-th try (the first is 1) is followed by another.

        status  of the answer; or reset, one of RESETS, when there was none. An overflow of a breaker is never retried.
        """
        if reset is not None and reset not in RESETS:
            raise BalanceError(f"unknown reset '{reset}'; there are: {', '.join(RESETS)}")
        if tries > self.attempts or reset == "overflow":
            return False
        if reset is not None:
            return reset in self.on or bool(self.on & {"reset", "5xx", "gateway-error"})
        if grpc_status is not None and any(GRPC_CODES.get(name) == grpc_status for name in self.on):
            return True
        if status is None:
            return False
        return (
            ("5xx" in self.on and 500 <= status < 600)
            or ("gateway-error" in self.on and status in GATEWAY)
            or ("retriable-4xx" in self.on and status == 409)
            or ("retriable-status-codes" in self.on and status in self.status_codes)
        )


def retry_host(balancer: Picker, key_hash: int, tried: Collection[int], selections: int = DEFAULT_SELECTIONS) -> int:
    """The host of a retry at a hash balancer: the first of the picks for attempt 0, 1, ... ``selections`` that was not
    tried yet; the last one if all were (Envoy's previous_hosts predicate)."""
    host = -1
    for attempt in range(selections + 1):
        host = balancer.pick(key_hash, attempt)
        if host not in tried:
            return host
    return host


def what_if(calls: Sequence[Call], old: CircuitBreaker, new: CircuitBreaker) -> dict[str, int]:
    """How many of the calls each breaker refuses, and how many only one of them does."""
    before = [outcome.limit is not None for outcome in old.replay(calls)]
    after = [outcome.limit is not None for outcome in new.replay(calls)]
    return {
        "calls": len(before),
        "refused_old": sum(before),
        "refused_new": sum(after),
        "only_old": sum(a and not b for a, b in zip(before, after, strict=True)),
        "only_new": sum(b and not a for a, b in zip(before, after, strict=True)),
    }
