"""Conditions: three-valued formulas over packet fields, in the form in which rules can carry them.

What    A condition is an OR of terms; a term is an AND of field constraints and of clauses that nobody can interpret
        offline. Both are Kleene's: over FALSE < UNKNOWN < TRUE, AND is the minimum, OR the maximum, and a constraint
        on a field that the packet lacks is UNKNOWN. Distribution, De Morgan and absorption hold in this logic, so
        ``conjunction`` and ``negation`` are exact for packets with any fields missing.
Why     A chain that is called by a rule is written out with the caller's condition ANDed to each of its rules, and a
        RETURN with its negation ANDed to the rest of the chain. One first-match list remains, which compiles well.
Cost    ANDing and negating multiply terms. Both take a limit and give None beyond it; the caller then uses a skip.
Example {proto 6, dport 80} negated is {proto other than 6} or {dport other than 80}.
Source  S. C. Kleene, Introduction to Metamathematics, 1952, section 64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meshsieve.model import Action, Match, Rule, Source, ValueSet

# Protocols for which a field exists (csrc/include/meshsieve/fields.h); for others a constraint on it is FALSE.
PORT_PROTOCOLS = ValueSet.numbers(6, 17, 33, 132, 136)
_PROTOCOLS_WITH = {
    "sport": PORT_PROTOCOLS,
    "dport": PORT_PROTOCOLS,
    "tcp_flags": ValueSet.numbers(6),
    "icmp_type": ValueSet.numbers(1, 58),
    "icmp_code": ValueSet.numbers(1, 58),
}
# Every IP packet has these. A term that demands two disjoint sets of another field is not FALSE but UNKNOWN for a
# packet that lacks the field, so such a term is kept, with the empty set.
_ALWAYS_PRESENT = frozenset({"src_ip", "dst_ip", "proto", "ip_ver", "fragment"})


@dataclass(frozen=True, slots=True)
class Term:
    """An AND: field constraints, and the texts of uninterpretable clauses."""

    fields: Match = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def literals(self) -> int:
        return len(self.fields) + len(self.unknown)


Condition = tuple[Term, ...]

TRUE: Condition = (Term(),)
FALSE: Condition = ()


def constraint(**fields: ValueSet) -> Condition:
    """The AND of the given constraints. Where a field exists for some protocols only, that is added.

    >>> constraint(dport=ValueSet.numbers(53))[0].fields
    {'dport': ValueSet(53), 'proto': ValueSet(6, 17, 33, 132, 136)}
    """
    condition: Condition = (Term(fields),)
    for name in fields:
        if name in _PROTOCOLS_WITH:
            condition = _product(condition, (Term({"proto": _PROTOCOLS_WITH[name]}),))
    return condition


def unknown(text: str) -> Condition:
    """A clause that nobody can interpret offline."""
    return (Term(unknown=(text,)),)


def any_of(*conditions: Condition) -> Condition:
    return _absorbed(term for condition in conditions for term in condition)


def conjunction(a: Condition, b: Condition, limit: int = 1 << 16) -> Condition | None:
    """``a AND b``, or None if that takes more than ``limit`` terms."""
    if len(a) * len(b) > 4 * limit:  # absorption seldom saves more
        return None
    both = _product(a, b)
    return both if len(both) <= limit else None


def negation(condition: Condition, limit: int = 1 << 16) -> Condition | None:
    """``NOT condition``, or None if that takes more than ``limit`` terms."""
    result = TRUE
    for term in condition:
        # A field's protocols are constrained in the same term, so that "has no such field" is covered by their part.
        parts = [Term({name: values.complement(name)}) for name, values in term.fields.items()]
        parts += [Term(unknown=(text,)) for text in term.unknown]
        further = conjunction(result, tuple(part for part in parts if not _is_false(part)), limit)
        if further is None:
            return None
        result = further
    return result


def certainly(condition: Condition, unseen: frozenset[str]) -> Condition:
    """Where the condition is TRUE, as a condition that is never UNKNOWN for packets with every field but ``unseen``.

    Later fragments lack what stands in the transport header: constraints on that are not TRUE for them.
    """
    return _absorbed(
        Term({**t.fields, **({"fragment": _intersected(t, "fragment", _WHOLE)} if _needs_l4(t) else {})})
        for t in condition
        if not t.unknown and not unseen & t.fields.keys() and all(t.fields.values())
    )


def possibly(condition: Condition, unseen: frozenset[str]) -> Condition:
    """Where the condition is TRUE or UNKNOWN; the mirror of ``certainly``."""
    terms: list[Term] = []
    for term in condition:
        seen = {name: values for name, values in term.fields.items() if name not in unseen}
        later = {name: values for name, values in seen.items() if name not in _PROTOCOLS_WITH}
        if not _needs_l4(term):
            terms.append(Term(seen))
            continue
        terms.append(Term({**seen, "fragment": _intersected(term, "fragment", _WHOLE)}))
        terms.append(Term({**later, "fragment": _intersected(term, "fragment", _LATER)}))
    return _absorbed(t for t in terms if all(t.fields.values()))


def with_value(condition: Condition, name: str, value: int) -> Condition:
    """The condition for packets whose (number or name) field has one known value."""
    return _absorbed(
        Term({n: v for n, v in t.fields.items() if n != name}, t.unknown)
        for t in condition
        if name not in t.fields or t.fields[name].contains(value)
    )


def rules_for(condition: Condition, action: Action, name: str, source: Source) -> list[Rule]:
    """The condition as rules with one action: one for its certain terms, one for those with unknown clauses."""
    rules = []
    for terms in ([t for t in condition if not t.unknown], [t for t in condition if t.unknown]):
        if terms:
            texts = tuple(dict.fromkeys(text for t in terms for text in t.unknown))
            common, alternatives = _factored(terms)
            rules.append(Rule(common, action, alternatives, name=name, source=source, unknown=texts))
    return rules


# Absorption compares each term with each; it keeps short conditions short and costs too much on long ones.
_WORTH_ABSORBING = 16
_WHOLE = ValueSet.numbers(0)
_LATER = ValueSet.numbers(1)


def _needs_l4(term: Term) -> bool:
    return any(name in _PROTOCOLS_WITH for name in term.fields)


def _intersected(term: Term, name: str, values: ValueSet) -> ValueSet:
    return values.intersection(term.fields[name]) if name in term.fields else values


def _is_false(term: Term) -> bool:
    return any(not values and name in _ALWAYS_PRESENT for name, values in term.fields.items())


def _product(a: Condition, b: Condition) -> Condition:
    products = (_both(x, y) for x in a for y in b)
    if len(a) * len(b) > _WORTH_ABSORBING:
        return tuple(term for term in products if not _is_false(term))
    return _absorbed(products)


def _both(a: Term, b: Term) -> Term:
    if not a.literals:
        return b
    if not b.literals:
        return a
    fields: dict[str, ValueSet] = dict(a.fields)
    for name, values in b.fields.items():
        fields[name] = _intersected(a, name, values)
    return Term(fields, tuple(dict.fromkeys(a.unknown + b.unknown)))


def _absorbed(terms: Iterable[Term]) -> Condition:
    """The terms without those that are FALSE and those that imply another one (A OR (A AND B) is A)."""
    kept: list[Term] = []
    for term in terms:
        if _is_false(term) or any(_implies(term, other) for other in kept):
            continue
        kept = [other for other in kept if not _implies(other, term)]
        kept.append(term)
    return tuple(kept)


def _implies(a: Term, b: Term) -> bool:
    """Whether b is at least as true as a for every packet, as far as one look at each field tells."""
    return set(b.unknown) <= set(a.unknown) and all(
        name in a.fields and (a.fields[name] == values or a.fields[name].intersection(values) == a.fields[name])
        for name, values in b.fields.items()
    )


def _factored(terms: Sequence[Term]) -> tuple[Match, tuple[Match, ...]]:
    """Terms as (what all share, the rest of each)."""
    first, *others = terms
    shared = {
        name: values for name, values in first.fields.items() if all(t.fields.get(name) == values for t in others)
    }
    if not others:
        return shared, ()
    return shared, tuple({n: v for n, v in t.fields.items() if n not in shared} for t in terms)
