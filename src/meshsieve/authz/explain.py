"""Why: every rule of every step that a request meets, what it lacks, and which ALLOW rule came closest.

The nearest rule is the one with the fewest clauses that fail, taken from its best alternatives; of equally near ones
the first in byte order. Texts hold what policies say, never what the request carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from meshsieve.authz.decision import Decision, decision_of
from meshsieve.authz.facts import Facts
from meshsieve.authz.model import Action, Alternatives, Chain, Clause, Filter, Rule
from meshsieve.authz.reference import Outcome, Provider, clause_holds, walk
from meshsieve.authz.words import conjunction_text


@dataclass(frozen=True, slots=True)
class RuleTrace:
    """One rule: whether it holds, and in words what fails (of its nearest alternatives)."""

    rule: Rule
    misses: tuple[Clause, ...]
    possible: bool = True

    @property
    def holds(self) -> bool:
        return self.possible and not self.misses

    @property
    def text(self) -> str:
        if not self.possible:
            return "takes nothing"
        return "matches" if self.holds else "needs " + conjunction_text(self.misses)


@dataclass(frozen=True, slots=True)
class StepTrace:
    """One filter: its rules in force, or its dry-run rules."""

    action: Action
    dry_run: bool
    rules: tuple[RuleTrace, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with every rule that was asked for it, the steps in their order."""

    decision: Decision
    steps: tuple[StepTrace, ...]

    def to_dict(self) -> dict[str, Any]:
        steps = [
            {
                "action": step.action.value,
                "dry_run": step.dry_run,
                "rules": [
                    {"rule": t.rule.name, "matches": t.holds, "text": t.text, "source": str(t.rule.source)}
                    for t in step.rules
                ],
            }
            for step in self.steps
        ]
        return {**self.decision.to_dict(), "steps": steps}

    def __str__(self) -> str:
        lines = [str(self.decision)]
        for step in self.steps:
            lines.append(f"{step.action.value}{' (dry run)' if step.dry_run else ''}")
            lines += [f"  {trace.rule.name}: {trace.text}  {trace.rule.source}" for trace in step.rules]
        return "\n".join(lines)


def answer(chain: Chain, facts: Facts, provider: Provider | None, outcome: Outcome | None = None) -> Decision:
    """What a chain decides, with the nearest miss of a denial because nothing matched.

    outcome  of the walk, where a compiled table has found it
    """
    decision = decision_of(outcome or walk(chain, facts, provider), tcp=chain.tcp)
    if decision.by != "no-allow-policy-matched":
        return decision
    return replace(decision, nearest=nearest_miss(chain.filters, facts))


def trace(chain: Chain, facts: Facts) -> tuple[StepTrace, ...]:
    """Every rule of the chain, also those behind the step that decides."""
    out = []
    for step in chain.filters:
        for rules, dry_run in ((step.shadow, True), (step.rules, False)):
            if rules is not None:
                out.append(StepTrace(step.action, dry_run, tuple(trace_rule(rule, facts) for rule in rules)))
    return tuple(out)


def trace_rule(rule: Rule, facts: Facts) -> RuleTrace:
    misses: list[Clause] = []
    for side in (rule.principals, rule.permissions):
        nearest = _nearest_alternative(side, facts)
        if nearest is None:
            return RuleTrace(rule, (), possible=False)
        misses += nearest
    return RuleTrace(rule, tuple(misses))


def nearest_miss(steps: Sequence[Filter], facts: Facts) -> str | None:
    """``would be allowed by RULE if ...``, of the ALLOW rules in force; None where no rule could ever allow."""
    traces = [trace_rule(rule, facts) for step in steps if step.action is Action.ALLOW for rule in step.rules or ()]
    candidates = [t for t in traces if t.possible and t.misses]
    if not candidates:
        return None
    best = min(candidates, key=lambda t: len(t.misses))
    return f"would be allowed by {best.rule.name} if {conjunction_text(best.misses, 'were')}"


def _nearest_alternative(alternatives: Alternatives, facts: Facts) -> list[Clause] | None:
    """The clauses that fail in the alternative where the fewest do."""
    failing = [[c for c in conjunction if not clause_holds(c, facts)] for conjunction in alternatives]
    return min(failing, key=len, default=None)
