"""Authorization cases: every request of every set, judged by a real Envoy; and PeerAuthentication merging.

``*.json`` files hold lists of sets in the format of data/authz (policies, requests with ``expect``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshsieve.authz import Authorizer, Decision, from_kubernetes
from meshsieve.errors import MeshsieveError
from meshsieve.request import Request
from tests.conformance.report import Report

SET_FIELDS = {"id", "source", "why", "note", "root_namespace", "trust_domains", "workload", "policies", "requests"}
EXPECTED = {"allow", "by", "policy", "audit", "audit_policy", "dry_run", "istio_documented_allow"}


def run(folder: Path) -> Report:
    report = Report()
    for path in sorted(folder.rglob("*.json")):
        name = str(path.relative_to(folder))
        content = json.loads(path.read_bytes())
        if isinstance(content, dict) or (content and "envoy_filters" in content[0]):
            continue
        for case in content:
            where = f"{name}:{case.get('id', '?')}"
            if unknown := sorted(set(case) - SET_FIELDS):
                report.skipped(where, f"fields that this runner does not know: {', '.join(unknown)}")
                continue
            try:
                _set(report, where, case)
            except MeshsieveError as error:
                report.skipped(where, str(error))
    return report


def authorizer_of(case: Mapping[str, Any]) -> Authorizer:
    """The policies of a set as objects of a mesh."""
    header = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    domains = case.get("trust_domains") or ["cluster.local"]
    return from_kubernetes(
        [{**header, **policy} for policy in case["policies"]],
        root_namespace=case.get("root_namespace", "istio-system"),
        trust_domain=domains[0],
        trust_domain_aliases=domains[1:],
    )


def request_of(values: Mapping[str, Any]) -> Request:
    return Request.from_dict({k: v for k, v in values.items() if k != "expect"})


def _set(report: Report, where: str, case: Mapping[str, Any]) -> None:
    authorizer = authorizer_of(case)
    for i, values in enumerate(case["requests"]):
        decision = authorizer.decide(request_of(values), case.get("workload"))
        wrong = _differences(decision, values["expect"])
        if wrong:
            report.wrong(f"{where}[{i}]", wrong)
        else:
            report.right()


def _differences(decision: Decision, expect: Mapping[str, Any]) -> str:
    """What differs, in words; "" if nothing does."""
    got: dict[str, Any] = {
        "allow": decision.allowed,
        "by": decision.by,
        "policy": decision.rule,
        "audit": bool(decision.audit),
        "audit_policy": decision.audit_rule,
        "dry_run": dict(decision.dry_run),
    }
    wanted = {"allow": None, "by": None, "policy": None, "audit": False, "audit_policy": None, "dry_run": {}, **expect}
    wrong = [f"unknown expectation {name}" for name in sorted(set(expect) - EXPECTED)]
    wanted.pop("istio_documented_allow", None)
    return "; ".join([*wrong, *(f"{k} is {got[k]!r}, expected {wanted[k]!r}" for k in got if got[k] != wanted[k])])
