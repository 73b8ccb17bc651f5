"""The order of the walk: categories, policies, rules; and the ties that NSX leaves undefined.

Order   Ethernet, Emergency, Infrastructure, Environment, Application, no category; inside a category policies by
        sequence number, inside a policy rules by sequence number; equal numbers stay in input order. Rules marked
        ``is_default`` stand at the end of their category.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from meshsieve.importers.nsx.objects import CATEGORIES, Policy, Rule
from meshsieve.model import Match, ValueSet
from meshsieve.model import Rule as ModelRule
from meshsieve.policy import Diagnostic

MAX_OVERLAP_TESTS = 200_000


@dataclass(frozen=True, slots=True)
class Placed:
    """One rule in its place. rule is None for the one that a connectivity preference adds."""

    policy: Policy
    rule: Rule | None


def placed(policies: Iterable[Policy], categories: Sequence[str] = CATEGORIES) -> list[Placed]:
    """Every rule that takes part, in walking order."""
    out: list[Placed] = []
    by_category = sorted(
        (p for p in policies if p.takes_part),
        key=lambda p: (categories.index(p.category), p.sequence_number or 0),
    )
    for _, group in groupby(by_category, key=lambda p: p.category):
        ordinary: list[Placed] = []
        default: list[Placed] = []
        for policy in group:
            for rule in sorted(policy.rules, key=lambda r: r.sequence_number or 0):
                if rule.takes_part:
                    (default if rule.is_default else ordinary).append(Placed(policy, rule))
            if policy.connectivity != "NONE":
                ordinary.append(Placed(policy, None))
        out += ordinary + default
    return out


def ambiguous(places: Sequence[Placed], rules: Sequence[ModelRule]) -> Iterator[Diagnostic]:
    """Overlapping rules of different effect whose sequence numbers are written and equal.

    Dumps that leave the numbers out list rules in their order, so absent numbers are no tie.
    """
    tests = 0
    for tied in _ties(places):
        reported: set[int] = set()
        for first, second in tied:
            if second in reported or rules[first].action == rules[second].action:
                continue
            tests += 1
            if tests > MAX_OVERLAP_TESTS:
                yield Diagnostic(
                    "ambiguous-order",
                    f"more than {MAX_OVERLAP_TESTS} pairs of rules share their sequence numbers; the rest was not "
                    "looked at",
                    hint="number the rules",
                )
                return
            if overlap(rules[first], rules[second]):
                reported.add(second)
                yield Diagnostic(
                    "ambiguous-order",
                    f"'{rules[first].name}' and '{rules[second].name}' overlap, differ in action and have equal rank; "
                    "NSX does not define which comes first, here the order of the file counts",
                    where=f"{rules[second].source.file}:{rules[second].source.line}",
                    obj=rules[second].source.obj,
                    hint=f"give them different sequence numbers; the other one is at {rules[first].source}",
                )


def _ties(places: Sequence[Placed]) -> Iterator[Iterator[tuple[int, int]]]:
    """Pairs of positions of equal rank."""
    by_policy: dict[int, list[int]] = {}
    for position, place in enumerate(places):
        if place.rule is not None and not place.rule.is_default:
            by_policy.setdefault(id(place.policy), []).append(position)
    by_rank: dict[tuple[str, int], list[list[int]]] = {}
    for positions in by_policy.values():
        policy = places[positions[0]].policy
        if policy.sequence_number is not None:
            by_rank.setdefault((policy.category, policy.sequence_number), []).append(positions)
        numbered: dict[int, list[int]] = {}
        for position in positions:
            rule = places[position].rule
            if rule is not None and rule.sequence_number is not None:
                numbered.setdefault(rule.sequence_number, []).append(position)
        for equal in numbered.values():
            yield combinations(equal, 2)
    for tied_policies in by_rank.values():
        for one, other in combinations(tied_policies, 2):
            yield ((a, b) for a in one for b in other)


def overlap(one: ModelRule, other: ModelRule) -> bool:
    """Whether some packet matches both, as far as the sets tell."""
    return _meet(one.match, other.match) and any(
        _meet({**one.match, **a}, {**other.match, **b}) and _meet(a, b)
        for a in one.alternatives or ({},)
        for b in other.alternatives or ({},)
    )


def _meet(one: Match, other: Match) -> bool:
    return all(_share(values, other[name]) for name, values in one.items() if name in other)


def _share(one: ValueSet, other: ValueSet) -> bool:
    return (one is other and bool(one)) or bool(one.intersection(other))
