"""PeerAuthentication: which mode a port has, and what plain text and mTLS get there."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from tests.unit.authz.test_policies import allow, by, deny, policy, to

WEB = {"namespace": "shop", "labels": {"app": "web"}}


def peer(
    namespace: str, mode: str | None = None, *, app: str | None = None, at: str = "", **spec: Any
) -> dict[str, Any]:
    metadata = {"name": f"p{app}{at}{mode}", "namespace": namespace}
    if at:
        metadata["creationTimestamp"] = f"2024-01-{at}T00:00:00Z"
    if mode:
        spec["mtls"] = {"mode": mode}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    header = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication"}
    return {**header, "metadata": metadata, "spec": spec}


MESH, NAMESPACE = peer("istio-system", "STRICT"), peer("shop", "DISABLE")
PORTS = {"portLevelMtls": {"80": {"mode": "DISABLE"}, "81": {"mode": "UNSET"}}}

MODES = [
    #  what it shows                                              policies                         port  mode
    ("without policies both pass", [], 80, "PERMISSIVE"),
    ("the mesh level holds everywhere", [MESH], 80, "STRICT"),
    ("the namespace level overrides the mesh", [MESH, NAMESPACE], 80, "DISABLE"),
    ("another namespace has no say", [MESH, peer("other", "DISABLE")], 80, "STRICT"),
    ("the workload level overrides the namespace", [NAMESPACE, peer("shop", "STRICT", app="web")], 80, "STRICT"),
    ("a selector of another workload does not apply", [NAMESPACE, peer("shop", "STRICT", app="db")], 80, "DISABLE"),
    ("UNSET inherits", [MESH, peer("shop", "UNSET")], 80, "STRICT"),
    ("a policy without mtls inherits", [MESH, peer("shop")], 80, "STRICT"),
    ("a selector in the root namespace is ignored", [peer("istio-system", "STRICT", app="web")], 80, "PERMISSIVE"),
    ("an empty selector is none", [peer("shop", "STRICT", selector={})], 80, "STRICT"),
    (
        "the oldest of a level counts",
        [peer("shop", "STRICT", at="05"), peer("shop", "DISABLE", at="04")],
        80,
        "DISABLE",
    ),
    (
        "of equally old ones the first",
        [peer("shop", "STRICT", at="05"), peer("shop", "DISABLE", at="05")],
        80,
        "STRICT",
    ),
    ("a port has its own mode", [MESH, peer("shop", app="web", **PORTS)], 80, "DISABLE"),
    ("UNSET at a port inherits", [MESH, peer("shop", app="web", **PORTS)], 81, "STRICT"),
    ("a port that is not listed inherits", [MESH, peer("shop", app="web", **PORTS)], 82, "STRICT"),
]


@pytest.mark.parametrize(("says", "policies", "port", "mode"), MODES, ids=[row[0] for row in MODES])
def test_modes(says, policies, port, mode):
    assert from_kubernetes(policies).mtls_modes(WEB).at(port) == mode


PLAIN = Request(destination_port=80, source_ip="10.0.0.1")
MTLS = Request(destination_port=80, source_ip="10.0.0.1", principal="cluster.local/ns/a/sa/b")
TLS = Request(destination_port=80, tls={"presented": True, "validated": False})
STRICT, DISABLE = peer("shop", "STRICT"), peer("shop", "DISABLE")
DENY_ANYBODY = policy(deny(by(principals=["*"])), namespace="shop")
ALLOW_GET = policy(allow(to(methods=["GET"])), namespace="shop")

CONNECTIONS = [
    ("plain text to STRICT is closed", [STRICT], PLAIN, "mtls-required"),
    ("a certificate that nobody verified is not mTLS", [STRICT], TLS, "mtls-required"),
    ("mTLS to STRICT passes", [STRICT], MTLS, "default"),
    ("both pass PERMISSIVE", [], PLAIN, "default"),
    ("mTLS to DISABLE passes as bytes without identity", [DISABLE, DENY_ANYBODY], MTLS, "default"),
    ("... of which no HTTP can be read", [DISABLE, ALLOW_GET], MTLS, "no-allow-policy-matched"),
]


@pytest.mark.parametrize(("says", "policies", "request_", "by_"), CONNECTIONS, ids=[row[0] for row in CONNECTIONS])
def test_connections(says, policies, request_, by_):
    decision = from_kubernetes(policies).decide(request_, WEB)
    assert decision.by == by_
    assert decision.allowed == (by_ == "default")


def test_a_refusal_names_the_policy():
    decision = from_kubernetes([STRICT]).decide(PLAIN, WEB)
    assert decision.policy == "shop/pNoneSTRICT"
    assert decision.status is None
    assert "takes mTLS only" in decision.reason


def test_unquoted_port_numbers_are_read_as_kubernetes_reads_them():
    text = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  portLevelMtls:
    8080: {mode: STRICT}
"""
    assert from_kubernetes(text).mtls_modes(WEB).at(8080) == "STRICT"


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"mtls": {"mode": "ON"}}, "expected one of UNSET, DISABLE, PERMISSIVE, STRICT"),
        ({"mtls": {"mod": "STRICT"}}, "unknown field"),
        ({"app": "web", "portLevelMtls": {"http": {"mode": "STRICT"}}}, "no port"),
        ({"portLevelMtls": {"80": {"mode": "STRICT"}}}, "needs a selector"),
    ],
)
def test_refused(spec, named):
    with pytest.raises(PolicyError, match=named):
        from_kubernetes([peer("shop", **spec)])
