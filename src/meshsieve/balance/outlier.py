"""Outlier ejection, replayed: which hosts are out after which responses, and when they come back.

Per host, over responses in time order:
  * ``consecutive_5xx`` (0 = off) counts 5xx and, unless origins are split, local origin failures (a connection refused,
    reset or timed out, which Envoy maps to 5xx); a success sets it to 0. ``consecutive_gateway`` likewise counts 502,
    503, 504. Split: ``consecutive_local_origin`` counts local failures alone, and a response of the server resets it.
  * When a count reaches its limit the host is ejected if 100 * (ejected + 1) / hosts <= max_ejection_percent, or if
    nobody is ejected and always_eject_one is on. The count starts anew either way.
  * It is out for min(base * backoff, max(max_ejection_time, base)) plus jitter. backoff grows by 1 with every ejection,
    and shrinks by 1, not below 0, at every sweep that finds the host in (errors short of an ejection do not count).
  * Every ``interval`` a sweep lets back those whose time is over (their counts start anew), then applies success rate
    and failure percentage to the requests of that interval.

Source: envoyproxy/envoy outlier_detection_impl.cc. Jitter is a draw of up to max_jitter; the replay takes it as given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from meshsieve.errors import BalanceError

GATEWAY_ERRORS = (502, 503, 504)


@dataclass(frozen=True)
class SuccessRate:
    """Eject below mean - factor * standard deviation of the hosts with enough requests in the interval."""

    minimum_hosts: int = 5
    request_volume: int = 100
    stdev_factor: float = 1.9


@dataclass(frozen=True)
class FailurePercentage:
    """Eject at or above a share of failures in the interval. Envoy does not enforce it unless told to."""

    threshold: int = 85
    minimum_hosts: int = 5
    request_volume: int = 50


@dataclass(frozen=True)
class OutlierPolicy:
    """Settings of outlier detection; times in seconds, 0 of a count = off."""

    consecutive_5xx: int = 5
    consecutive_gateway: int = 0
    split_origins: bool = False
    consecutive_local_origin: int = 5
    interval: float = 10.0
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    max_ejection_percent: int = 10
    always_eject_one: bool = False
    jitter: float = 0.0
    success_rate: SuccessRate | None = None
    failure_percentage: FailurePercentage | None = None

    def __post_init__(self) -> None:
        if self.interval <= 0 or self.base_ejection_time <= 0 or self.max_ejection_time <= 0 or self.jitter < 0:
            raise BalanceError("outlier detection needs an interval and ejection times above 0")
        if not 0 <= self.max_ejection_percent <= 100:
            raise BalanceError(f"max_ejection_percent is 0 to 100, not {self.max_ejection_percent}")

    def may_eject(self, ejected: int, hosts: int) -> bool:
        """Whether one more of the hosts may go."""
        within = 100.0 * (ejected + 1) / hosts <= self.max_ejection_percent
        return within or (ejected == 0 and self.always_eject_one)

    def impossible(self, hosts: int) -> bool:
        """Lint ``ejection-impossible``: not even the first of so few hosts may be ejected."""
        return hosts > 0 and not self.may_eject(0, hosts)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, or the lack of one. status: HTTP status; None = a failure of the local origin (no connection, reset,
    timeout)."""

    time: float
    host: int
    status: int | None


@dataclass(frozen=True, slots=True)
class Ejection:
    """A host out from ``start`` until the sweep at ``end`` (None: still out when the replay ended)."""

    host: int
    start: float
    end: float | None
    reason: str


@dataclass
class _Host:
    errors: int = 0
    gateway: int = 0
    local: int = 0
    backoff: int = 0
    out_since: float | None = None
    out_for: float = 0.0
    reason: str = ""
    requests: int = 0
    successes: int = 0


@dataclass
class OutlierDetector:
    """The state of a cluster's outlier detection. The sweeps are at start + interval, start + 2 * interval, ...

    >>> detector = OutlierDetector(OutlierPolicy(max_ejection_percent=50), hosts=2)
    >>> detector.replay([Response(0.1 * i, 0, 503) for i in range(5)])
    [Ejection(host=0, start=0.4, end=None, reason='consecutive_5xx')]
    """

    policy: OutlierPolicy
    hosts: int
    start: float = 0.0
    ejections: list[Ejection] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.hosts < 1:
            raise BalanceError("outlier detection needs at least one host")
        self._hosts = [_Host() for _ in range(self.hosts)]
        self._next_sweep = self.start + self.policy.interval
        self._now = self.start

    @property
    def ejected(self) -> set[int]:
        """Hosts that are out now."""
        return {i for i, host in enumerate(self._hosts) if host.out_since is not None}

    def replay(self, responses: Iterable[Response]) -> list[Ejection]:
        """All ejections after these responses, in order of their start.

        raises  BalanceError for responses out of order or of a host that does not exist
        """
        for response in responses:
            self.observe(response)
        still_out = [
            Ejection(i, host.out_since, None, host.reason)
            for i, host in enumerate(self._hosts)
            if host.out_since is not None
        ]
        return sorted([*self.ejections, *still_out], key=lambda e: (e.start, e.host))

    def observe(self, response: Response) -> None:
        """Sweep up to the response's time, then count it."""
        if response.time < self._now:
            raise BalanceError(f"a response at {response.time} comes after one at {self._now}; sort them by time")
        if not 0 <= response.host < self.hosts:
            raise BalanceError(f"host {response.host} does not exist; there are {self.hosts}")
        self.advance(response.time)
        host = self._hosts[response.host]
        if response.status is None and self.policy.split_origins:
            self._failed_locally(response.host, host)
            return
        host.local = 0
        host.requests += 1
        status = 503 if response.status is None else response.status
        if status < 500:
            host.successes += 1
            host.errors = host.gateway = 0
            return
        host.errors += 1
        host.gateway = host.gateway + 1 if status in GATEWAY_ERRORS else 0
        if self._reached(host.gateway, self.policy.consecutive_gateway):
            host.gateway = 0
            self._eject(response.host, "consecutive_gateway")
        if self._reached(host.errors, self.policy.consecutive_5xx):
            host.errors = 0
            self._eject(response.host, "consecutive_5xx")

    def advance(self, time: float) -> None:
        """Run the sweeps that are due at or before ``time``."""
        while self._next_sweep <= time:
            self._sweep(self._next_sweep)
            self._next_sweep += self.policy.interval
        self._now = max(self._now, time)

    def _failed_locally(self, number: int, host: _Host) -> None:
        host.local += 1
        if self._reached(host.local, self.policy.consecutive_local_origin):
            host.local = 0
            self._eject(number, "consecutive_local_origin")

    @staticmethod
    def _reached(count: int, limit: int) -> bool:
        return limit > 0 and count >= limit

    def _eject(self, number: int, reason: str) -> None:
        host = self._hosts[number]
        if host.out_since is not None or not self.policy.may_eject(len(self.ejected), self.hosts):
            return
        host.backoff += 1
        longest = max(self.policy.max_ejection_time, self.policy.base_ejection_time)
        host.out_since = self._now
        host.out_for = min(self.policy.base_ejection_time * host.backoff, longest) + self.policy.jitter
        host.reason = reason

    def _sweep(self, now: float) -> None:
        self._now = now
        for number, host in enumerate(self._hosts):
            if host.out_since is None:
                host.backoff = max(0, host.backoff - 1)
            elif now >= host.out_since + host.out_for:
                self.ejections.append(Ejection(number, host.out_since, now, host.reason))
                host.out_since = None
                host.errors = host.gateway = host.local = 0
        self._by_success_rate()
        self._by_failure_percentage()
        for host in self._hosts:
            host.requests = host.successes = 0

    def _by_success_rate(self) -> None:
        rule = self.policy.success_rate
        if rule is None:
            return
        rates = self._rates(rule.request_volume)
        if not rates or len(rates) < rule.minimum_hosts:
            return
        mean = sum(rates.values()) / len(rates)
        deviation = math.sqrt(sum((rate - mean) ** 2 for rate in rates.values()) / len(rates))
        for number, rate in rates.items():
            if rate < mean - rule.stdev_factor * deviation:
                self._eject(number, "success_rate")

    def _by_failure_percentage(self) -> None:
        rule = self.policy.failure_percentage
        if rule is None:
            return
        rates = self._rates(rule.request_volume)
        if len(rates) < rule.minimum_hosts:
            return
        for number, rate in rates.items():
            if 100.0 - rate >= rule.threshold:
                self._eject(number, "failure_percentage")

    def _rates(self, volume: int) -> dict[int, float]:
        """Success rate in percent of every host that is in and had enough requests."""
        return {
            number: 100.0 * host.successes / host.requests
            for number, host in enumerate(self._hosts)
            if host.out_since is None and host.requests and host.requests >= volume
        }
