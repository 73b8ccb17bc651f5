"""Rules as Envoy's RBAC configuration (proto JSON): what Istio sends to its proxies, and what Envoy is asked with.

Only rules that Istio's policies can make are written; clauses that came out of an Envoy configuration stay there.
Source: envoy.config.rbac.v3; Istio's pilot/pkg/security/authz/builder, whose expected filters these are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from meshsieve.authz.facts import JWT_FILTER
from meshsieve.authz.model import (
    Action,
    Alternatives,
    Chain,
    Clause,
    Conjunction,
    Field,
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
from meshsieve.errors import UsageError

Json = dict[str, Any]
PAYLOAD = "payload"
_TYPE = "type.googleapis.com/envoy.extensions.filters."
_ACTIONS = {Action.ALLOW: "ALLOW", Action.DENY: "DENY", Action.CUSTOM: "DENY", Action.AUDIT: "LOG"}


def rbac(rules: Sequence[Rule], action: Action, principal: Callable[[Json], Json] | None = None) -> Json:
    """An envoy.config.rbac.v3.RBAC message.

    principal  how a match on the peer's identity is written, given a StringMatcher; without it ``authenticated``
    """
    write = _Writer(principal or (lambda match: {"authenticated": {"principalName": match}}))
    return {"action": _ACTIONS[action], "policies": {rule.name: write.policy(rule) for rule in rules}}


def filter_config(step: Filter, *, tcp: bool, principal: Callable[[Json], Json] | None = None) -> Json:
    """The typed configuration of one RBAC filter."""
    kind = "network" if tcp else "http"
    out: Json = {"@type": f"{_TYPE}{kind}.rbac.v3.RBAC"}
    if tcp:
        out["statPrefix"] = "tcp."
    if step.rules is not None:
        out["rules"] = rbac(step.rules, step.action, principal)
    if step.shadow is not None:
        out["shadowRules"] = rbac(step.shadow, step.shadow_action or step.action, principal)
    return out


def filter_configs(chain: Chain) -> list[Json]:
    return [filter_config(step, tcp=chain.tcp) for step in chain.filters]


class _Writer:
    def __init__(self, principal: Callable[[Json], Json]) -> None:
        self.principal = principal

    def policy(self, rule: Rule) -> Json:
        return {
            "permissions": [self.conjunction(c, "rules", "Rule") for c in rule.permissions] or [_never("Rule")],
            "principals": [self.conjunction(c, "ids", "Id") for c in rule.principals] or [_never("Id")],
        }

    def conjunction(self, clauses: Conjunction, items: str, kind: str) -> Json:
        members = [self.clause(clause, items, kind) for clause in clauses] or [{"any": True}]
        return {f"and{kind}s": {items: members}}

    def clause(self, clause: Clause, items: str, kind: str) -> Json:
        match clause:
            case Test():
                out = self.test(clause.field, clause.matchers, items, kind)
            case Group():
                out = self.group(clause.alternatives, items, kind)
            case _:
                raise UsageError(f"{type(clause).__name__} is not a clause that Istio makes")
        return {f"not{kind}": out} if clause.negated else out

    def group(self, alternatives: Alternatives, items: str, kind: str) -> Json:
        members = []
        for conjunction in alternatives:
            inner = [self.clause(clause, items, kind) for clause in conjunction]
            members.append(inner[0] if len(inner) == 1 else {f"and{kind}s": {items: inner}})
        return members[0] if len(members) == 1 else {f"or{kind}s": {items: members}}

    def test(self, field: Field, matchers: Sequence[Matcher], items: str, kind: str) -> Json:
        match field.kind:
            case "claim":
                value = _any_value(matchers)
                return _metadata(JWT_FILTER, (PAYLOAD, *field.key), _or([{"listMatch": {"oneOf": value}}, value]))
            case "claim_text":
                return _metadata(JWT_FILTER, (PAYLOAD, *field.key), _any_value(matchers))
            case "metadata":
                return _metadata(field.key[0], field.key[1:], _any_value(matchers))
            case "metadata_list":
                one = [{"listMatch": {"oneOf": {"stringMatch": string_match(m)}}} for m in matchers]
                return _metadata(field.key[0], field.key[1:], _or(one))
        return {f"or{kind}s": {items: [self.one(field, matcher) for matcher in matchers]}}

    def one(self, field: Field, matcher: Matcher) -> Json:
        if field.kind in ("source_ip", "remote_ip", "destination_ip"):
            names = {"source_ip": "directRemoteIp", "remote_ip": "remoteIp", "destination_ip": "destinationIp"}
            return {names[field.kind]: _cidr(matcher)}
        if field.kind == "destination_port":
            assert isinstance(matcher, Ports)
            if matcher.low == matcher.high:
                return {"destinationPort": matcher.low}
            return {"destinationPortRange": {"start": matcher.low, "end": matcher.high + 1}}
        if field.kind in ("header", "method", "host"):
            name = field.key[0] if field.key else {"method": ":method", "host": ":authority"}[field.kind]
            if isinstance(matcher, Present):
                return {"header": {"name": name, "presentMatch": True}}
            return {"header": {"name": name, "stringMatch": string_match(matcher)}}
        if isinstance(matcher, Pattern) and matcher.kind == "template":
            template = matcher.parts[0].replace("{**}", "**").replace("{*}", "*")
            config = {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "pathTemplate": template,
            }
            return {"uriTemplate": {"name": "uri-template", "typedConfig": config}}
        match field.kind:
            case "peer":
                return self.principal(string_match(matcher))
            case "sni":
                return {"requestedServerName": string_match(matcher)}
            case "path":
                return {"urlPath": {"path": string_match(matcher)}}
        raise UsageError(f"{field} is not a field that Istio tests")


def string_match(matcher: Matcher) -> Json:
    """A StringMatcher."""
    match matcher:
        case Pattern():
            return {"safeRegex": {"regex": matcher.regex}}
        case Text(op, value, ignore_case):
            return {op: value, "ignoreCase": True} if ignore_case else {op: value}
    raise UsageError(f"{matcher} does not match text")


def _never(kind: str) -> Json:
    return {f"not{kind}": {"any": True}}


def _metadata(name: str, path: Iterable[str], value: Json) -> Json:
    return {"metadata": {"filter": name, "path": [{"key": key} for key in path], "value": value}}


def _any_value(matchers: Sequence[Matcher]) -> Json:
    return _or([{"stringMatch": string_match(m)} for m in matchers])


def _or(values: list[Json]) -> Json:
    return values[0] if len(values) == 1 else {"orMatch": {"valueMatchers": values}}


def _cidr(matcher: Matcher) -> Json:
    assert isinstance(matcher, Network)
    address, _, length = str(matcher).partition("/")
    return {"addressPrefix": address, "prefixLen": int(length or (32 if matcher.version == 4 else 128))}
