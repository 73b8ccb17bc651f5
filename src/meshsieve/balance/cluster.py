"""An Envoy cluster: priorities, panic and localities in front of a balancer.

The answer of a hash balancer is exact: one frozen table a priority, joined by the residue of the hash. Of the other
balancers the chances are exact (``shares``), and a draw is ``sample``.

Source: envoyproxy/envoy load_balancer_impl.cc, thread_aware_lb_impl.cc; the numbers are in priority.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from meshsieve import _core
from meshsieve.balance.hosts import MAX_WEIGHT, Health, Host, Hosts, Locality, Shares, hosts_of
from meshsieve.balance.priority import (
    OVERPROVISIONING,
    PANIC_THRESHOLD,
    LevelCounts,
    PriorityLoads,
    priority_loads,
)
from meshsieve.balance.tables import (
    MAGLEV_TABLE_SIZE,
    RING_MAXIMUM,
    RING_MINIMUM,
    HashBalancer,
    Indices,
    maglev_table,
    pick_bounded,
    ring_table,
    shares_of,
)
from meshsieve.errors import BalanceError


@dataclass(frozen=True)
class MaglevPolicy:
    table_size: int = MAGLEV_TABLE_SIZE

    def build(self, shares: Shares) -> _core.HostTable:
        return maglev_table(shares, self.table_size)


@dataclass(frozen=True)
class RingHashPolicy:
    minimum_ring_size: int = RING_MINIMUM
    maximum_ring_size: int = RING_MAXIMUM
    hash_function: str = "xx_hash"

    def build(self, shares: Shares) -> _core.HostTable:
        return ring_table(shares, self.minimum_ring_size, self.maximum_ring_size, self.hash_function)


@dataclass(frozen=True)
class ChancePolicy:
    """A balancer without a hash: ``kind`` is "round_robin", "least_request" or "random"."""

    kind: str


Policy = MaglevPolicy | RingHashPolicy | ChancePolicy
ROUND_ROBIN = ChancePolicy("round_robin")
LEAST_REQUEST = ChancePolicy("least_request")
RANDOM = ChancePolicy("random")


@dataclass(frozen=True)
class ClusterSettings:
    """What Envoy calls common_lb_config, and the overprovisioning factor of the load assignment.

    locality_weights      by (priority, locality); None = localities are not weighed
    hash_balance_factor   percent, at least 100, or 0 = no bounded loads
    """

    panic_threshold: int = PANIC_THRESHOLD
    overprovisioning: int = OVERPROVISIONING
    locality_weights: Mapping[tuple[int, Locality], int] | None = None
    use_hostname: bool = False
    hash_balance_factor: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.panic_threshold <= 100:
            raise BalanceError(f"the panic threshold is 0 to 100 percent, not {self.panic_threshold}")
        if not 1 <= self.overprovisioning <= MAX_WEIGHT:
            raise BalanceError(f"the overprovisioning factor is at least 1 percent, not {self.overprovisioning}")
        if self.hash_balance_factor and self.hash_balance_factor < 100:
            raise BalanceError(f"hash_balance_factor must be at least 100, not {self.hash_balance_factor}")


class Pick(NamedTuple):
    """One decision, explained. host: index into the cluster's hosts, or -1 (Envoy answers 503, flag UH)."""

    host: int
    priority: int
    degraded: bool
    panic: bool


class Cluster(HashBalancer):
    """Hosts with priorities, health and localities behind one balancing policy.

    hosts      in the order of the configuration; may be empty (every pick is -1), as in Envoy
    policy     MaglevPolicy, RingHashPolicy, ROUND_ROBIN, LEAST_REQUEST or RANDOM

    ``pick(hash)``, ``pick_batch(hashes)``: exact, for hash policies only.
    ``shares``: the chance of each host for a request whose hash or random value is unknown.
    """

    def __init__(self, hosts: Hosts, policy: Policy | None = None, settings: ClusterSettings | None = None) -> None:
        self.policy = policy or MaglevPolicy()
        self.settings = settings or ClusterSettings()
        known = hosts_of(hosts)
        depth = 1 + max((host.priority for host in known), default=0)
        self._members = [[i for i, host in enumerate(known) if host.priority == level] for level in range(depth)]
        self.loads: PriorityLoads = priority_loads(
            [_counts(known, members) for members in self._members],
            overprovisioning=self.settings.overprovisioning,
            panic_threshold=self.settings.panic_threshold,
        )
        self._residues = self.loads.residues()
        self.hosts = known
        self.level_tables: list[_core.HostTable] = []
        self.level_shares: list[Shares] = []
        table = _core.uniform_table(0)
        if not isinstance(self.policy, ChancePolicy):
            for level in range(depth):
                shares = self._shares(level)
                self.level_shares.append(shares)
                self.level_tables.append(self.policy.build(shares))
            only = {level for level, _ in self._residues}
            table = (
                self.level_tables[only.pop()]
                if len(only) == 1
                else _core.level_table([level for level, _ in self._residues], self.level_tables)
            )
        super().__init__(known, table)
        self.answer_class = "distribution" if isinstance(self.policy, ChancePolicy) else "exact"

    def explain(self, key_hash: int, attempt: int = 0) -> Pick:
        """The pick with the priority that made it."""
        self._needs_hash()
        priority, degraded = self._residues[key_hash % 100]
        return Pick(self.pick(key_hash, attempt), priority, degraded, self.loads.panic[priority])

    def pick_bounded(self, key_hash: int, active: Sequence[int], attempt: int = 0) -> int:
        """The pick under the cluster's ``hash_balance_factor``, given the active requests of each host by index."""
        self._needs_hash()
        level = self._residues[key_hash % 100][0]
        factor = self.settings.hash_balance_factor
        if not factor:
            return self.pick(key_hash, attempt)
        return pick_bounded(self.level_tables[level], self.level_shares[level], key_hash, active, factor, attempt)

    def usable(self, level: int, *, degraded: bool = False) -> list[int]:
        """Indices of the hosts that a request to this priority may get."""
        if self.loads.panic[level]:
            return self._members[level]
        wanted = Health.DEGRADED if degraded else Health.HEALTHY
        return [i for i in self._members[level] if self.hosts[i].health is wanted]

    @property
    def shares(self) -> list[Fraction]:
        """Chance of every host, exact: priority load x locality share x share in the locality.

        For hash policies: the share of the key space. The shares sum to less than 1 where some requests get no host.
        Least request counts as if every host were equally busy.
        """
        from meshsieve.balance.placement import placement_of

        if not isinstance(self.policy, ChancePolicy):
            return placement_of(self).shares()
        shares = [Fraction(0)] * len(self.hosts)
        for level in range(len(self._members)):
            for degraded, loads in ((False, self.loads.healthy), (True, self.loads.degraded)):
                for i, share in self._chances(level, degraded).items():
                    shares[i] += Fraction(loads[level], 100) * share
        return shares

    def sample(self, n: int, seed: int) -> Indices:
        """int32 (n,): n independent draws of ``shares`` (-1 = no host) from a seeded generator."""
        chances = [float(share) for share in self.shares]
        chances.append(max(0.0, 1.0 - sum(chances)))
        weights = np.array(chances)
        picks = np.random.default_rng(seed).choice(len(chances), n, p=weights / weights.sum())
        return np.where(picks == len(self.hosts), -1, picks).astype(np.int32)

    def _shares(self, level: int) -> Shares:
        """What the hash table of a priority is built from: its healthy hosts, in panic all of them."""
        weights = self._locality_weights(level)
        return shares_of(self.hosts, self.usable(level), weights, use_hostname=self.settings.use_hostname)

    def _locality_weights(self, level: int) -> dict[Locality, int] | None:
        if self.settings.locality_weights is None:
            return None
        weights = {place: weight for (at, place), weight in self.settings.locality_weights.items() if at == level}
        for i in self._members[level]:
            weights.setdefault(self.hosts[i].locality, 0)
        # Envoy falls back to the flat list only where a priority has no localities at all.
        return weights or None

    def _chances(self, level: int, degraded: bool) -> dict[int, Fraction]:
        hosts = self.usable(level, degraded=degraded)
        weights = self._locality_weights(level)
        if weights is None or self.loads.panic[level] or not any(weights.values()):
            return self._by_weight(hosts)
        effective = {
            place: weight * self._locality_factor(level, place, degraded) for place, weight in weights.items() if weight
        }
        total = sum(effective.values(), Fraction(0))
        chances: dict[int, Fraction] = {}
        for place, weight in effective.items():
            if weight:
                members = [i for i in hosts if self.hosts[i].locality == place]
                chances |= {i: share * weight / total for i, share in self._by_weight(members).items()}
        return chances

    def _locality_factor(self, level: int, place: Locality, degraded: bool) -> Fraction:
        """min(1, overprovisioning * usable / total): a locality keeps its weight until too many hosts are gone."""
        members = [i for i in self._members[level] if self.hosts[i].locality == place]
        if not members:
            return Fraction(0)
        wanted = Health.DEGRADED if degraded else Health.HEALTHY
        usable = sum(self.hosts[i].health is wanted for i in members)
        return min(Fraction(1), Fraction(self.settings.overprovisioning * usable, 100 * len(members)))

    def _by_weight(self, ids: Sequence[int]) -> dict[int, Fraction]:
        if self.policy == RANDOM:
            return {i: Fraction(1, len(ids)) for i in ids}
        total = sum(self.hosts[i].weight for i in ids)
        return {i: Fraction(self.hosts[i].weight, total) for i in ids}

    def _needs_hash(self) -> None:
        if isinstance(self.policy, ChancePolicy):
            raise BalanceError(f"{self.policy.kind} does not look at a hash; use shares or sample()")


def _counts(hosts: Sequence[Host], members: Sequence[int]) -> LevelCounts:
    healths = [hosts[i].health for i in members]
    return LevelCounts(healths.count(Health.HEALTHY), healths.count(Health.DEGRADED), len(members))
