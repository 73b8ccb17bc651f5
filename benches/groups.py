"""Policies of groups, as distributed firewalls hold them: few rules, each over large sets of addresses and services.

``Policy(rules, seed)`` has 500 groups of addresses a side, 75 prefixes a group, and 100 services of 1 to 12 port
ranges. A rule names 1 to 3 groups a side (one time in twenty: any) and 1 to 3 services. Written out as five-tuples,
2,000 rules would be hundreds of millions; ``five_tuples`` says how many. The same arguments give the same policy
everywhere.
"""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from benches.boxes import Headers
from meshsieve.model import Action, Match, Rule, RuleSet, ValueSet

GROUPS, PREFIXES_A_GROUP, SERVICES = 500, 75, 100
ANY = 0.05
HITS = 0.9  # share of the headers that lie in a rule by construction


class Policy:
    def __init__(self, rules: int, seed: int = 5) -> None:
        rng = np.random.default_rng([seed, rules])
        self._count = rules
        self._sides = [_groups(rng), _groups(rng)]
        self._services = [_service(rng) for _ in range(SERVICES)]
        self._chosen = [
            (_some(rng, GROUPS, ANY), _some(rng, GROUPS, ANY), _some(rng, SERVICES, 0.0)) for _ in range(rules)
        ]

    @cached_property
    def rule_set(self) -> RuleSet:
        """The policy with its groups as sets and its services as alternatives."""

        @cache
        def union(side: int, groups: tuple[int, ...]) -> ValueSet:
            first, *others = (ValueSet.numbers(*map(tuple, self._sides[side][g].tolist())) for g in groups)
            return first.union(*others)

        services = [
            {"proto": ValueSet.numbers(proto), "dport": ValueSet.numbers(*map(tuple, ports.tolist()))}
            for proto, ports in self._services
        ]
        rules = []
        for number, (sources, destinations, named) in enumerate(self._chosen):
            match: Match = {
                field: union(side, groups)
                for side, (field, groups) in enumerate((("src_ip", sources), ("dst_ip", destinations)))
                if groups
            }
            alternatives = tuple(services[s] for s in named)
            rules.append(Rule(match, Action.ALLOW, alternatives, name=f"r{number}"))
        return RuleSet(rules)

    @property
    def five_tuples(self) -> int:
        """How many prefix x prefix x port range rules the policy would be, written out."""
        return sum(
            max(1, len(sources) * PREFIXES_A_GROUP)
            * max(1, len(destinations) * PREFIXES_A_GROUP)
            * sum(len(self._services[s][1]) for s in named)
            for sources, destinations, named in self._chosen
        )

    def headers(self, count: int, seed: int = 7) -> Headers:
        """uint32 (count, 5): nine in ten lie in a rule drawn uniformly, with source and destination anywhere in its
        groups; the others take source, destination and service of different rules."""
        rng = np.random.default_rng(seed)
        hit = rng.integers(0, self._count, count)
        stray = rng.random(count) >= HITS
        headers = np.empty((count, 5), np.uint32)
        for column in range(2):
            rule = np.where(stray, rng.integers(0, self._count, count), hit)
            headers[:, column] = [self._address(column, self._chosen[r][column], rng) for r in rule.tolist()]
        rule = np.where(stray, rng.integers(0, self._count, count), hit)
        headers[:, 2] = rng.integers(1024, 65536, count)
        for i, r in enumerate(rule.tolist()):
            proto, ports = self._services[rng.choice(self._chosen[r][2])]
            low, high = ports[rng.integers(len(ports))]
            headers[i, 3:] = rng.integers(low, high + 1), proto
        return headers

    def _address(self, side: int, groups: tuple[int, ...], rng: np.random.Generator) -> int:
        if not groups:
            return int(rng.integers(0, 2**32))
        low, high = self._sides[side][groups[rng.integers(len(groups))]][rng.integers(PREFIXES_A_GROUP)]
        return int(rng.integers(low, int(high) + 1))

    def expected(self, headers: Headers) -> npt.NDArray[np.int32]:
        """int32 (n,): the first rule that matches, -1 for none, by evaluating every rule on every header as written."""
        n = len(headers)
        sides = [[_inside(group, headers[:, column]) for group in self._sides[column]] for column in range(2)]
        services = [(headers[:, 4] == proto) & _inside(ports, headers[:, 3]) for proto, ports in self._services]
        verdict = np.full(n, -1, np.int32)
        for number in range(self._count - 1, -1, -1):  # an earlier rule overwrites a later one
            sources, destinations, named = self._chosen[number]
            matches = np.logical_or.reduce([services[s] for s in named])
            for column, groups in enumerate((sources, destinations)):
                if groups:
                    matches = matches & np.logical_or.reduce([sides[column][g] for g in groups])
            verdict[matches] = number
        return verdict


def _groups(rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """500 times int64 (75, 2): low and high end of the prefixes of a group. Sites of /16 to /20, subnets, and mostly
    single hosts within 40 of the sites, so that an address lies in several groups."""
    sites = rng.integers(1, 2**16, 40, dtype=np.int64) << 16
    lengths = np.array([16, 18, 20, 22, 24, 26, 28, 32])
    weights = np.array([0.4, 0.8, 2, 6, 14, 10, 12, 55])
    groups = []
    for _ in range(GROUPS):
        length = rng.choice(lengths, PREFIXES_A_GROUP, p=weights / weights.sum())
        size = np.int64(1) << (32 - length)
        low = (rng.choice(sites, PREFIXES_A_GROUP) + rng.integers(0, 2**16, PREFIXES_A_GROUP)) & ~(size - 1)
        groups.append(np.stack([low, low + size - 1], axis=1))
    return groups


def _service(rng: np.random.Generator) -> tuple[int, npt.NDArray[np.int64]]:
    """Protocol, and int64 (1 to 12, 2) port ranges."""
    count = int(rng.integers(1, 13))
    low = rng.integers(1, 60000, count)
    width = np.where(rng.random(count) < 0.7, 0, rng.integers(1, 2000, count))
    return int(rng.choice([6, 6, 6, 17])), np.stack([low, low + width], axis=1)


def _some(rng: np.random.Generator, population: int, nothing: float) -> tuple[int, ...]:
    if rng.random() < nothing:
        return ()
    return tuple(sorted(rng.choice(population, int(rng.integers(1, 4)), replace=False).tolist()))


def _inside(ranges: npt.NDArray[np.int64], values: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """bool (n,): which values lie in any of the ranges, which may overlap."""
    by_low = ranges[np.argsort(ranges[:, 0])]
    reach = np.maximum.accumulate(by_low[:, 1])
    before = np.searchsorted(by_low[:, 0], values, side="right")
    return (before > 0) & (reach[np.maximum(before, 1) - 1] >= values)
