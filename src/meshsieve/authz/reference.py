"""The linear reference: what a chain of filters decides, by the written semantics and nothing else.

Why     Plain on purpose: compiled tables are compared with it, and it with the real Envoy (docs/authorization.md).
Order   A filter's dry-run rules come before its rules in force; a filter that denies ends the walk, so a denied request
        has the dry-run results of the filters up to the one that denied. CUSTOM does not end the walk where nobody
        answers for the provider: the result is then that of the rest, or, if that allows, open.
Cost    Every clause of every rule until one matches: linear in the policies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from meshsieve._core import Regex
from meshsieve.authz.facts import Facts, Value
from meshsieve.authz.model import (
    Action,
    Alternatives,
    Chain,
    Clause,
    Condition,
    EnvoyTest,
    Filter,
    Group,
    Matcher,
    Network,
    Pattern,
    Ports,
    Present,
    Rule,
    Test,
    Text,
)
from meshsieve.routes.model import FilterStateMatch, HeaderMatch
from meshsieve.routes.reference import filter_state_holds, header_holds, metadata_holds

# Asked for a provider's answer where a CUSTOM rule matches: True allows, False denies, None is no answer.
Provider = Callable[[str, Rule], bool | None]
# The first matching rule of a filter, of its dry-run rules if the second argument says so.
FirstMatch = Callable[[Filter, bool], Rule | None]


@dataclass(slots=True)
class Outcome:
    """What a walk found.

    allowed      no filter denied (an open CUSTOM answer notwithstanding)
    filter       the filter that decided: the one that denied, or the last ALLOW filter with rules in force; None if
                 no filter had a say
    rule         the rule that decided, as Envoy reports it; None where a denial says that none matched, and by default
    audit        whether an AUDIT filter with rules in force matched; None if there is none
    audit_rule   its rule
    dry_run      results of dry-run rules, by Envoy's names
    pending      (provider, rule) of CUSTOM filters that matched and had no answer
    """

    allowed: bool = True
    filter: Filter | None = None
    rule: Rule | None = None
    audit: bool | None = None
    audit_rule: Rule | None = None
    dry_run: dict[str, str] = field(default_factory=dict)
    pending: list[tuple[str, Rule]] = field(default_factory=list)


def walk(chain: Chain, facts: Facts, provider: Provider | None = None) -> Outcome:
    """One request or connection through every filter."""
    return walk_with(chain, lambda step, shadow: first_match(rules_of(step, shadow) or (), facts), provider)


def walk_with(chain: Chain, first: FirstMatch, provider: Provider | None = None) -> Outcome:
    """``walk``, where ``first`` finds the matching rule that is reported."""
    out = Outcome()
    for step in chain.filters:
        if step.shadow is not None:
            out.dry_run.update(_shadow_results(step, first(step, True)))
        if step.rules is None:
            continue
        rule = first(step, False)
        match step.action:
            case Action.AUDIT:
                out.audit, out.audit_rule = rule is not None, rule
                continue
            case Action.CUSTOM if rule is not None and step.provider is not None:
                answer = provider(step.provider, rule) if provider is not None else None
                denies = answer is False
                if answer is None:
                    out.pending.append((step.provider, rule))
            case Action.ALLOW:
                denies = rule is None
                out.filter, out.rule = step, rule
            case _:
                denies = rule is not None
        if denies:
            out.allowed, out.filter, out.rule = False, step, rule
            return out
    return out


def first_match(rules: tuple[Rule, ...], facts: Facts) -> Rule | None:
    """The matching rule that is reported: the first in byte order of names."""
    return next((rule for rule in rules if rule_holds(rule, facts)), None)


def rule_holds(rule: Rule, facts: Facts) -> bool:
    return alternatives_hold(rule.principals, facts) and alternatives_hold(rule.permissions, facts)


def alternatives_hold(alternatives: Alternatives, facts: Facts) -> bool:
    return any(all(clause_holds(clause, facts) for clause in conjunction) for conjunction in alternatives)


def clause_holds(clause: Clause, facts: Facts) -> bool:
    match clause:
        case Test():
            holds = any(matches(m, value) for value in facts.values(clause.field) for m in clause.matchers)
        case Group():
            holds = alternatives_hold(clause.alternatives, facts)
        case EnvoyTest():
            holds = _envoy_holds(clause, facts)
        case Condition():
            value = clause.program.holds(facts)
            return clause.on_error if value is None else value
    return holds != clause.negated


def matches(matcher: Matcher, value: Value) -> bool:
    """Whether one value of a field satisfies a matcher. A value of another kind never does."""
    match matcher:
        case Present():
            return True
        case Network(version, low, high):
            return isinstance(value, tuple) and value[0] == version and low <= value[1] <= high
        case Ports(low, high):
            return isinstance(value, int) and low <= value <= high
        case Pattern():
            return isinstance(value, bytes) and compiled(matcher.regex).full_match(value)
        case Text():
            return isinstance(value, bytes) and _text_matches(matcher, value)


def _text_matches(matcher: Text, value: bytes) -> bool:
    wanted = matcher.value.encode("utf-8", "surrogateescape")
    if matcher.ignore_case:
        value, wanted = value.lower(), wanted.lower()
    match matcher.op:
        case "exact":
            return value == wanted
        case "prefix":
            return value.startswith(wanted)
        case "suffix":
            return value.endswith(wanted)
        case "contains":
            return wanted in value


def _envoy_holds(clause: EnvoyTest, facts: Facts) -> bool:
    match clause.match:
        case HeaderMatch():
            return facts.seen is not None and header_holds(clause.match, facts.seen)
        case FilterStateMatch():
            return filter_state_holds(clause.match, facts.view)
        case _:
            return metadata_holds(clause.match, facts.view)


def rules_of(step: Filter, shadow: bool) -> tuple[Rule, ...] | None:
    """The dry-run rules of a filter, or those in force."""
    return step.shadow if shadow else step.rules


def _shadow_results(step: Filter, rule: Rule | None) -> dict[str, str]:
    allows = {Action.ALLOW: rule is not None, Action.AUDIT: True}.get(step.shadow_action or step.action, rule is None)
    out = {f"{step.prefix}shadow_engine_result": "allowed" if allows else "denied"}
    if rule is not None:
        out[f"{step.prefix}shadow_effective_policy_id"] = rule.name
    return out


_COMPILED: dict[str, Regex] = {}
_MAX_COMPILED = 100_000


def compiled(regex: str) -> Regex:
    """raises  ModelError in RE2's words"""
    found = _COMPILED.get(regex)
    if found is None:
        if len(_COMPILED) >= _MAX_COMPILED:
            _COMPILED.clear()
        found = _COMPILED[regex] = Regex(regex.encode("utf-8", "surrogateescape"))
    return found
