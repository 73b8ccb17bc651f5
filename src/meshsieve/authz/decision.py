"""The answer to one question: may this request pass, which rule says so, and what else was found on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from meshsieve.authz.model import Action, Rule
from meshsieve.authz.peer_authentication import PeerAuthentication
from meshsieve.authz.reference import Outcome
from meshsieve.model import Source

Verdict = Literal["ALLOW", "DENY", "UNAUTHENTICATED", "NEEDS_PROVIDER"]
By = Literal[
    "ALLOW",  # a rule of an ALLOW policy
    "DENY",  # a rule of a DENY policy
    "CUSTOM",  # an external authorizer, or the lack of its answer
    "no-allow-policy-matched",  # ALLOW policies are in force and none matched
    "default",  # no ALLOW policy is in force
    "mtls-required",  # a plain-text connection where PeerAuthentication wants mTLS
    "jwt",  # RequestAuthentication
    "bad-CUSTOM-action",  # which authorizer to ask cannot be told
    "bad-request",  # the proxy refuses the request before any policy
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request or connection passes.

    allowed      only for the verdict ALLOW
    action       the verdict: NEEDS_PROVIDER is open until the external authorizer has answered, and counts as denied
    by           what decided, in the words of the public data sets
    status       of the answer that the proxy gives itself; None where the request passes or a connection is closed
    policy       ``namespace/name``
    rule         the id that Envoy reports; None where none matched
    reason       in words; holds no token and no claim's value
    nearest      for a denial because nothing matched: the rule that came closest, and what would have to differ
    source       where the rule is written
    audit        whether an AUDIT policy marks the request; None where none is in force
    audit_rule   its rule
    dry_run      results of dry-run policies, by Envoy's names
    """

    allowed: bool
    action: Verdict
    by: By
    status: int | None = None
    policy: str | None = None
    rule: str | None = None
    reason: str = ""
    nearest: str | None = None
    source: Source | None = None
    audit: bool | None = None
    audit_rule: str | None = None
    dry_run: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "allowed": self.allowed,
            "action": self.action,
            "by": self.by,
            "status": self.status,
            "policy": self.policy,
            "rule": self.rule,
            "reason": self.reason,
            "nearest": self.nearest,
            "source": str(self.source) if self.source else None,
            "audit": self.audit,
            "audit_rule": self.audit_rule,
            "dry_run": dict(self.dry_run),
        }

    def __str__(self) -> str:
        lines = [f"{self.action}: {self.reason}"]
        if self.nearest:
            lines.append(self.nearest)
        return "\n".join(lines)


def decision_of(out: Outcome, *, tcp: bool) -> Decision:
    """What a walk means, in words."""
    audit_rule = out.audit_rule.name if out.audit_rule else None
    return replace(_verdict(out, None if tcp else 403), audit=out.audit, audit_rule=audit_rule, dry_run=out.dry_run)


def mtls_required(policy: PeerAuthentication | None) -> Decision:
    """A plain-text connection to a port that takes mTLS only: closed before anything is read."""
    named = f"PeerAuthentication {policy.namespace}/{policy.name}" if policy else "the mesh"
    reason = f"{named} takes mTLS only, and the connection has no verified client certificate"
    name = f"{policy.namespace}/{policy.name}" if policy else None
    return Decision(False, "DENY", "mtls-required", None, name, reason=reason, source=policy.source if policy else None)


def unauthenticated(status: int, reason: str) -> Decision:
    """A token that RequestAuthentication refuses. ``reason`` holds nothing of the token."""
    return Decision(False, "UNAUTHENTICATED", "jwt", status, reason=reason)


def _verdict(out: Outcome, status: int | None) -> Decision:
    rule = out.rule
    if not out.allowed:
        assert out.filter is not None
        if rule is None:
            reason = "ALLOW policies are in force and none of their rules matches"
            return Decision(False, "DENY", "no-allow-policy-matched", status, reason=reason)
        if out.filter.action is not Action.CUSTOM:
            return _by_rule("DENY", "DENY", rule, f"{rule.name} denies it", status)
        if out.filter.provider is not None:
            reason = f"{out.filter.provider} denies it, asked because of {rule.name}"
            return _by_rule("DENY", "CUSTOM", rule, reason, status)
        reason = f"{rule.name} matches; its provider is unknown, or the workload has two, so it cannot be asked"
        return _by_rule("DENY", "bad-CUSTOM-action", rule, reason, status)
    if out.pending:
        provider, asking = out.pending[0]
        reason = f"{asking.name} matches: {provider} has to be asked, and nobody answered for it"
        return _by_rule("NEEDS_PROVIDER", "CUSTOM", asking, reason, None)
    if rule is not None:
        return _by_rule("ALLOW", "ALLOW", rule, f"{rule.name} allows it", None)
    return Decision(True, "ALLOW", "default", reason="no ALLOW policy is in force for the workload")


_POLICY = re.compile(r"ns\[(.*?)\]-policy\[(.*?)\]-rule\[[0-9]+\]\Z")


def _by_rule(action: Verdict, by: By, rule: Rule, reason: str, status: int | None) -> Decision:
    found = _POLICY.match(rule.name)
    policy = f"{found.group(1)}/{found.group(2)}" if found else None
    return Decision(action == "ALLOW", action, by, status, policy, rule.name, reason, source=rule.source)
