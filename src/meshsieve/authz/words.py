"""Clauses in words: ``method is GET or POST``, ``source.namespace is not prod``. Only what policies say, never a value
that a request carries."""

from __future__ import annotations

from collections.abc import Iterable

from meshsieve.authz.model import (
    FIELD_NAMES,
    Alternatives,
    Clause,
    Condition,
    Conjunction,
    EnvoyTest,
    Field,
    Group,
    Matcher,
    Network,
    Pattern,
    Ports,
    Present,
    Test,
    Text,
)

SCHEME = "spiffe://"
_SHOWN = 5  # values of one list


def clause_text(clause: Clause, verb: str = "is") -> str:
    """``verb``: "is" for what has to hold, "were" for what would have to."""
    match clause:
        case Test(field, matchers, negated):
            values = _joined(dict.fromkeys(map(matcher_text, matchers)), "or")
            if values == "*":
                return f"{field_text(field, matchers)} {verb} {'absent' if negated else 'present'}"
            return f"{field_text(field, matchers)} {verb} {'not ' if negated else ''}{values}"
        case Group(alternatives, negated):
            inner = _group_text(alternatives, verb)
            return f"not ({inner})" if negated else inner
        case Condition(program):
            return f"the condition {program.text!r} {'holds' if verb == 'is' else 'held'}"
        case EnvoyTest(match, negated):
            kind = type(match).__name__.removesuffix("Match").lower()
            name = getattr(match, "name", None) or getattr(match, "filter", None) or getattr(match, "key", "")
            shown = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
            return f"the {kind} matcher on {shown} {'did not hold' if negated else 'held'}"


def conjunction_text(clauses: Iterable[Clause], verb: str = "is") -> str:
    return " and ".join(clause_text(clause, verb) for clause in clauses) or "anything"


def field_text(field: Field, matchers: Iterable[Matcher]) -> str:
    """The name under which users know the field; of the peer's identity, the part that is compared."""
    if field.kind != "peer":
        return str(field)
    kinds = {m.kind for m in matchers if isinstance(m, Pattern)}
    if kinds == {"namespace"}:
        return "source.namespace"
    if kinds == {"service_account"}:
        return "source.serviceAccount"
    return FIELD_NAMES["peer"]


def matcher_text(matcher: Matcher) -> str:
    """A value as a policy writes it."""
    match matcher:
        case Present():
            return "*"
        case Network():
            return str(matcher)
        case Ports(low, high):
            return str(low) if low == high else f"{low}-{high}"
        case Text(op, value):
            value = value.removeprefix(SCHEME)
            return {"exact": value, "prefix": f"{value}*", "suffix": f"*{value}", "contains": f"*{value}*"}[op]
        case Pattern():
            return _pattern_text(matcher)


def _pattern_text(pattern: Pattern) -> str:
    match pattern.kind:
        case "any":
            return "*"
        case "namespace" | "trust_domain":
            return "*".join(pattern.parts)
        case "service_account":
            return "/".join(pattern.parts)
        case "peer_suffix":
            return f"*{pattern.parts[0]}"
        case "template":
            return pattern.parts[0]
        case _:
            return f"/{pattern.regex}/"


def _group_text(alternatives: Alternatives, verb: str) -> str:
    texts = [_request_principal(c) or conjunction_text(c, verb) for c in alternatives]
    if all(_request_principal(c) for c in alternatives):
        values = _joined(dict.fromkeys(texts), "or")
        return f"request.auth.principal {verb} {'present' if values == '*' else values}"
    return _joined([f"({text})" if len(texts) > 1 else text for text in texts], "or")


def _request_principal(clauses: Conjunction) -> str | None:
    """``iss/sub`` where a conjunction is what a request principal is made of."""
    if len(clauses) != 2 or not all(isinstance(c, Test) and c.field.kind == "claim_text" for c in clauses):
        return None
    issuer, subject = (matcher_text(c.matchers[0]) for c in clauses if isinstance(c, Test))
    return "*" if (issuer, subject) == ("*", "*") else f"{issuer}/{subject}"


def _joined(texts: Iterable[str], word: str) -> str:
    texts = list(texts)
    if len(texts) > _SHOWN:
        texts = [*texts[:_SHOWN], f"{len(texts) - _SHOWN} more"]
    return f" {word} ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
