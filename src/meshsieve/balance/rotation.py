"""Balancers with a memory or a die: round robin in two variants, least request, random.

Round robin is exact for a given start (class *replay*): a small state that can be copied, never shared between threads.
Least request and random are chances (class *distribution*), exact once their draws are given.

Source: spec of csrc/include/meshsieve/balance/rotation.h; envoyproxy/envoy load_balancer_impl.cc.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.balance.hosts import Hosts, some_hosts
from meshsieve.balance.tables import HashBalancer, Indices
from meshsieve.errors import BalanceError

VARIANTS: dict[str, type[_core.EdfRotation] | type[_core.SmoothRotation]] = {
    "edf": _core.EdfRotation,
    "smooth": _core.SmoothRotation,
}


class RoundRobin:
    """Weighted round robin.

    variant   "edf": Envoy's (with equal weights plain cyclic); "smooth": nginx's, which NSX's is taken to be
    start     picks dropped at the beginning; a running Envoy starts at random, and only the cycle is its own

    >>> "".join("abc"[i] for i in RoundRobin({"a": 5, "b": 1, "c": 1}).take(7))
    'aaaabca'
    >>> "".join("abc"[i] for i in RoundRobin({"a": 5, "b": 1, "c": 1}, variant="smooth").take(7))
    'aabacaa'
    """

    answer_class = "replay"

    def __init__(self, hosts: Hosts, *, variant: str = "edf", start: int = 0) -> None:
        self.hosts = some_hosts(hosts)
        if variant not in VARIANTS:
            raise BalanceError(f"no round robin is called '{variant}'; there are: {', '.join(VARIANTS)}")
        if start < 0:
            raise BalanceError(f"start must be at least 0, not {start}")
        self.variant = variant
        self._rotation = VARIANTS[variant]([host.weight for host in self.hosts])
        self._rotation.take(start)

    def pick(self, key_hash: int | None = None) -> int:
        """The next host's index. A hash, which other balancers need, changes nothing."""
        return self._rotation.next()

    def take(self, n: int) -> Indices:
        """int32 (n,): the next n picks."""
        if n < 0:
            raise BalanceError(f"cannot take {n} picks")
        return self._rotation.take(n)

    def pick_batch(self, hashes: Sequence[int] | npt.NDArray[np.uint64]) -> Indices:
        """int32 (n,): one pick for each of n requests, in their order."""
        return self.take(len(hashes))

    def copy(self) -> RoundRobin:
        """Another rotation that goes on from here."""
        other = object.__new__(RoundRobin)
        other.hosts, other.variant = self.hosts, self.variant
        other._rotation = self._rotation.copy()
        return other

    @property
    def shares(self) -> list[Fraction]:
        """Share of the picks of each host, in the long run."""
        total = sum(host.weight for host in self.hosts)
        return [Fraction(host.weight, total) for host in self.hosts]

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self.pick()


class Random(HashBalancer):
    """Envoy's random: h mod n of a random h; every host is equally likely, weights are ignored."""

    answer_class = "distribution"

    def __init__(self, hosts: Hosts) -> None:
        known = some_hosts(hosts)
        super().__init__(known, _core.uniform_table(len(known)))

    @property
    def shares(self) -> list[Fraction]:
        return [Fraction(1, len(self.hosts))] * len(self.hosts)

    def sample(self, n: int, seed: int) -> Indices:
        """int32 (n,): n picks from a seeded generator."""
        draws: npt.NDArray[np.uint64] = np.random.default_rng(seed).integers(0, 2**64, n, np.uint64)
        return self.pick_batch(draws)


@dataclass
class LeastRequest:
    """Envoy's least request.

    Equal weights   ``choice_count`` draws with replacement; of the hosts drawn the one with the fewest active requests
                    wins, the first drawn on a tie
    else            EDF with the weight ``weight / (active + 1) ** bias`` at the moment of each pick

    ``pick(active, draws)`` is exact for given draws; ``shares(active)`` are the exact chances.
    """

    hosts_given: Hosts
    choice_count: int = 2
    bias: float = 1.0
    answer_class = "distribution"

    def __post_init__(self) -> None:
        self.hosts = some_hosts(self.hosts_given)
        if self.choice_count < 2:
            raise BalanceError(f"choice_count must be at least 2, not {self.choice_count}")
        if self.bias < 0:
            raise BalanceError(f"active_request_bias must be at least 0, not {self.bias}")
        self.weighted = len({host.weight for host in self.hosts}) > 1

    def pick(self, active: Sequence[int], draws: Sequence[int]) -> int:
        """The winner among the hosts that the draws (random values, one a choice) name; equal weights only."""
        if self.weighted:
            raise BalanceError("hosts of unequal weight are picked by a queue, not by draws: use replay()")
        self._check(active)
        if len(draws) != self.choice_count:
            raise BalanceError(f"{self.choice_count} draws are needed, not {len(draws)}")
        return min((draw % len(self.hosts) for draw in draws), key=lambda i: active[i])

    def shares(self, active: Sequence[int]) -> list[Fraction]:
        """Chance of each host to get the next request. Equal weights: of c draws, the least busy wins.

        raises  BalanceError for unequal weights: that queue has a memory; use replay()
        """
        if self.weighted:
            raise BalanceError("hosts of unequal weight are picked by a queue that has a memory; use replay()")
        self._check(active)
        n = len(self.hosts)
        chances = []
        for own in active:
            at_least = sum(other >= own for other in active)
            above = sum(other > own for other in active)
            tier = Fraction(at_least, n) ** self.choice_count - Fraction(above, n) ** self.choice_count
            chances.append(tier / (at_least - above))
        return chances

    def sample(self, active: Sequence[int], n: int, seed: int) -> Indices:
        """int32 (n,): n independent picks at one state of the hosts."""
        chances = np.array([float(share) for share in self.shares(active)])
        return np.random.default_rng(seed).choice(len(chances), n, p=chances / chances.sum()).astype(np.int32)

    def replay(self) -> LeastRequestQueue:
        """The queue of unequal weights, to be driven by events."""
        return LeastRequestQueue([host.weight for host in self.hosts], self.bias)

    def _check(self, active: Sequence[int]) -> None:
        if len(active) != len(self.hosts) or min(active) < 0:
            raise BalanceError(f"active needs one count >= 0 for each of {len(self.hosts)} hosts")


class LeastRequestQueue:
    """Least request over unequal weights, replayed: ``start()`` picks and counts, ``end(host)`` finishes a request."""

    def __init__(self, weights: Sequence[int], bias: float = 1.0) -> None:
        self.active = [0] * len(weights)
        self.weights = tuple(weights)
        self.bias = bias
        self._queue = [(Fraction(1, weight), order, order) for order, weight in enumerate(weights)]
        heapq.heapify(self._queue)
        self._insertions = len(weights)

    def start(self) -> int:
        """The host of the next request."""
        deadline, _, host = heapq.heappop(self._queue)
        # 1 / (weight / (active + 1) ** bias); a whole bias keeps it exact.
        wait = Fraction((self.active[host] + 1) ** self.bias) / self.weights[host]
        heapq.heappush(self._queue, (deadline + wait, self._insertions, host))
        self._insertions += 1
        self.active[host] += 1
        return host

    def end(self, host: int) -> None:
        if not self.active[host]:
            raise BalanceError(f"host {host} has no active request to end")
        self.active[host] -= 1


@dataclass(frozen=True)
class SlowStart:
    """Envoy's slow start (Istio: warmup): a new host's weight grows with its age.

    factor = max(f ** (1 / aggression), min_percent / 100), f = max(1 ms, age) / window, at most 1
    """

    window_seconds: float
    min_percent: float = 10.0
    aggression: float = 1.0

    def __post_init__(self) -> None:
        if self.window_seconds <= 0 or self.aggression <= 0 or not 0 <= self.min_percent <= 100:
            raise BalanceError(
                f"slow start needs a window and aggression above 0 and 0 to 100 percent: {self.window_seconds}, "
                f"{self.aggression}, {self.min_percent}"
            )

    def factor(self, age_seconds: float) -> float:
        """What the weight of a host of this age is multiplied by."""
        if age_seconds >= self.window_seconds:
            return 1.0
        grown = max(0.001, age_seconds) / self.window_seconds
        return float(min(1.0, max(grown ** (1 / self.aggression), self.min_percent / 100)))

    def shares(self, hosts: Hosts, ages: Mapping[int, float]) -> list[float]:
        """Long-run share of each host; ``ages`` by index, hosts without one are warm."""
        known = some_hosts(hosts)
        weights = [host.weight * (self.factor(ages[i]) if i in ages else 1.0) for i, host in enumerate(known)]
        return [weight / sum(weights) for weight in weights]
