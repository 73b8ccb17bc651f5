"""Authorization cases: every request of every set, judged by a real Envoy; and PeerAuthentication merging.

``*.json`` files hold lists of sets in the format of data/authz (policies, requests with ``expect``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meshsieve.authz import Authorizer, Decision, from_kubernetes
from meshsieve.authz.peer_authentication import PeerAuthentication, mtls_modes
from meshsieve.authz.to_envoy import filter_configs
from meshsieve.errors import UsageError
from meshsieve.request import Request
from tests.conformance.case_files import judge_all
from tests.conformance.report import Report

SET_FIELDS = {"id", "source", "why", "note", "root_namespace", "trust_domains", "workload", "policies", "requests"}
PAIR_FIELDS = {"name", "input", "transport", "trust_domains", "envoy_filters"}
EXPECTED = {"allow", "by", "policy", "audit", "audit_policy", "dry_run", "istio_documented_allow"}


def run(folder: Path) -> Report:
    return judge_all(folder, SET_FIELDS | PAIR_FIELDS, _case, _peer_authentication)


def _case(report: Report, where: str, case: Mapping[str, Any]) -> None:
    (_pair if "envoy_filters" in case else _set)(report, where, case)


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
    """Every request by compiled tables, one by one and in a batch, and by the linear reference: one answer."""
    authorizer = authorizer_of(case)
    workload = case.get("workload")
    requests = [request_of(values) for values in case["requests"]]
    allowed, rules = authorizer.decide_batch(requests, workload)
    for i, (request, values) in enumerate(zip(requests, case["requests"], strict=True)):
        compiled = authorizer.decide(request, workload)
        wrong = _differences(compiled, values["expect"])
        linear = authorizer.explain(request, workload).decision
        rule = authorizer.rules[rules[i]] if rules[i] >= 0 else None
        if not wrong and (linear != compiled or (allowed[i], rule) != (compiled.allowed, compiled.rule)):
            wrong = f"linear walk, table and batch differ: {linear}, {compiled}, {bool(allowed[i])} by {rule}"
        if wrong:
            report.wrong(f"{where}[{i}]", wrong)
        else:
            report.right()


def _pair(report: Report, where: str, case: Mapping[str, Any]) -> None:
    """Istio policies and the filters that Istio makes of them, compared without regard to the order of members."""
    domains = case["trust_domains"] or ["cluster.local"]
    authorizer = from_kubernetes(case["input"], trust_domain=domains[0], trust_domain_aliases=domains[1:])
    got = filter_configs(authorizer.chain(tcp=case["transport"] == "tcp"))
    wanted = [f["typedConfig"] for f in case["envoy_filters"]]
    report.check(where, "the list of filters", [_comparable(c) for c in got], [_comparable(c) for c in wanted])


def _comparable(config: Any, key: str = "") -> Any:
    """A filter's configuration without prefixes of statistics, with defaults written out and lists sorted."""
    if isinstance(config, Mapping):
        out = {k: _comparable(v, k) for k, v in config.items() if not k.endswith("tatPrefix")}
        if "policies" in out or key in ("rules", "shadowRules"):
            out.setdefault("action", "ALLOW")
            out.setdefault("policies", {})
        if key == "header" and isinstance(out.get("name"), str):
            out["name"] = out["name"].lower()
        return out
    if isinstance(config, list):
        return sorted((_comparable(v) for v in config), key=lambda v: json.dumps(v, sort_keys=True))
    return config


def _peer_authentication(report: Report, name: str, content: Mapping[str, Any]) -> None:
    for case in content["cases"]:
        policies = [_peer_policy(p) for p in case["policies"]]
        modes = mtls_modes(policies, case["root_namespace"])
        got = (modes.mode, {str(port): mode for port, mode in modes.ports.items()})
        report.check(f"{name}:{case['name']}", "mode", got, (case["expect_mode"], case["expect_per_port"]))


def _peer_policy(values: Mapping[str, Any]) -> PeerAuthentication:
    known = {"name", "namespace", "created", "selector", "mtls", "ports", "port_level", "portLevelMtls"}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"fields that this runner does not know: {', '.join(unknown)}")
    by_port = values.get("ports") or values.get("port_level") or values.get("portLevelMtls") or {}
    return PeerAuthentication(
        values["namespace"],
        values["name"],
        values.get("selector") or {},
        _mode(values.get("mtls")),
        {int(port): _mode(mode) for port, mode in by_port.items()},
        datetime.fromtimestamp(values["created"], UTC),
    )


def _mode(text: Any) -> Any:
    if isinstance(text, Mapping):
        text = text.get("mode")
    return None if text in (None, "UNSET") else text


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
