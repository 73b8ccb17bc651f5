"""Envoy's subset load balancing: a route's metadata picks the hosts that carry the same.

A selector is a set of keys. A match whose keys are exactly those of a selector gets the hosts with its values, as a
cluster of its own: priorities, panic and tables are counted among them alone. Without such a selector, or without a
host, the fallback decides: the selector's own where it was the selector that matched, else the cluster's.

Source: envoyproxy/envoy subset_lb.cc; config.cluster.v3 LbSubsetConfig.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshsieve.balance.cluster import Cluster, ClusterSettings, Policy
from meshsieve.balance.hosts import Host
from meshsieve.errors import BalanceError


@dataclass(frozen=True)
class Selector:
    """fallback: NOT_DEFINED (the cluster's), NO_FALLBACK, ANY_ENDPOINT, DEFAULT_SUBSET or KEYS_SUBSET."""

    keys: frozenset[str]
    fallback: str = "NOT_DEFINED"
    fallback_keys: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.fallback == "KEYS_SUBSET" and not (self.fallback_keys and self.fallback_keys < self.keys):
            raise BalanceError("KEYS_SUBSET needs fallback_keys_subset to be a proper part of the selector's keys")


@dataclass
class Subsets:
    """The subsets of a cluster; each becomes a Cluster when it is first asked for."""

    hosts: Sequence[Host]
    policy: Policy
    settings: ClusterSettings
    selectors: tuple[Selector, ...]
    fallback: str = "NO_FALLBACK"
    default_subset: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._clusters: dict[frozenset[tuple[str, str]] | None, Cluster] = {}

    def cluster(self, match: Mapping[str, str]) -> Cluster:
        """The cluster that serves a metadata match; one without hosts where nothing does."""
        selector = next((s for s in self.selectors if s.keys == frozenset(match)), None)
        if selector is None:
            return self._fallback(self.fallback)
        if self._members(match):
            return self._of(match)
        if selector.fallback == "KEYS_SUBSET":
            return self.cluster({key: match[key] for key in selector.fallback_keys})
        return self._fallback(self.fallback if selector.fallback == "NOT_DEFINED" else selector.fallback)

    def _fallback(self, policy: str) -> Cluster:
        if policy == "ANY_ENDPOINT":
            return self._of({})
        if policy == "DEFAULT_SUBSET":
            return self._of(self.default_subset)
        return Cluster([], self.policy, self.settings)

    def _members(self, match: Mapping[str, str]) -> list[Host]:
        return [h for h in self.hosts if all(h.labels.get(key) == value for key, value in match.items())]

    def _of(self, match: Mapping[str, str]) -> Cluster:
        key = frozenset(match.items())
        if key not in self._clusters:
            self._clusters[key] = Cluster(self._members(match), self.policy, self.settings)
        return self._clusters[key]
