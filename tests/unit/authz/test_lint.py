"""Findings about security objects: each once where it should be, and none where the policy is sound."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.authz.lint import lint_authorization
from meshsieve.mesh.objects import read_objects
from tests.unit.authz.test_matrix import pod, service
from tests.unit.authz.test_peer_authentication import peer
from tests.unit.authz.test_policies import allow, by, deny, policy, to
from tests.unit.authz.test_tokens import authentication

WEB = pod("web", "web")
STRICT = peer("shop", "STRICT")


def p(spec: dict[str, Any], name: str = "x", **metadata: Any) -> dict[str, Any]:
    return policy(spec, name, "shop", **metadata)


def in_shop(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "namespace": "shop"}}


def selecting(app: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"selector": {"matchLabels": {"app": app}}, **spec}


def mongo() -> dict[str, Any]:
    out = service("web", 27017)
    out["spec"]["ports"][0]["name"] = "mongo"
    return out


NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
WAYPOINT = pod("way", "way")
WAYPOINT["metadata"]["labels"].update({"gateway.istio.io/managed": "istio.io-mesh-controller"})
SOUND = p(allow({**by(principals=["cluster.local/ns/shop/sa/web"]), **to(methods=["GET"], paths=["/a*"])}))

CASES = [
    #  what it finds                            objects                                                        code
    ("a selector without workload", [WEB, SOUND, STRICT, p(selecting("db", allow({})), "y")], "no-match-selector"),
    ("also of PeerAuthentication", [WEB, SOUND, STRICT, peer("shop", "STRICT", app="db")], "no-match-selector"),
    ("a selector in the root namespace", [WEB, SOUND, STRICT, peer("istio-system", "STRICT", app="web")],
     "root-selector-ignored"),
    ("a waypoint by labels", [WAYPOINT, STRICT, p(selecting("way", allow(to(methods=["GET"]))))],
     ["selector-on-waypoint", "not-covered"]),
    ("two policies of one level", [WEB, SOUND, STRICT, peer("shop", "PERMISSIVE", at="05")],
     "several-peer-authentications"),
    ("a workload that nobody covers", [WEB, STRICT], "not-covered"),
    ("deny all", [WEB, STRICT, p({})], "denies-all"),
    ("an identity that may be absent", [WEB, SOUND], "identity-may-be-absent"),
    ("a negated identity alone", [WEB, STRICT, p(allow(by(notNamespaces=["x"])))],
     "negated-identity-admits-unauthenticated"),
    ("claims that nobody fills", [WEB, STRICT, p(allow(by(requestPrincipals=["*"])))],
     "claims-without-request-authentication"),
    ("a namespace that is not there", [WEB, NAMESPACE, STRICT, p(allow(by(namespaces=["shp"])))], "unknown-namespace"),
    ("a service account that is not there", [WEB, STRICT, p(allow(by(serviceAccounts=["wbe"])))],
     "unknown-service-account"),
    ("... in a principal", [WEB, STRICT, p(allow(by(principals=["cluster.local/ns/shop/sa/x"])))],
     "unknown-service-account"),
    ("a method in lower case", [WEB, STRICT, p(allow(to(methods=["get"])))], "unknown-method"),
    ("a host that is not in the mesh", [WEB, service("web"), STRICT, p(allow(to(hosts=["shop.example"])))],
     "unknown-host"),
    ("a denied host without port", [WEB, STRICT, p(deny(to(hosts=["web"])))], "host-without-port-variant"),
    ("a path with a dot segment", [WEB, STRICT, p(deny(to(paths=["/a/../b"])))], "path-never-matches"),
    ("a path with a needless code", [WEB, STRICT, p(deny(to(paths=["/%61"])))], "path-never-matches"),
    ("a path without its slash", [WEB, STRICT, p(deny(to(paths=["admin"])))], "path-never-matches"),
    ("a template that ends in a slash", [WEB, STRICT, p(deny(to(paths=["/a/{**}/"])))], "template-ends-in-slash"),
    ("HTTP denied on a TCP port", [WEB, mongo(), STRICT, p(deny(to(paths=["/a"])))], "deny-http-fields-hit-tcp"),
    ("HTTP allowed on a TCP port", [WEB, mongo(), STRICT, p(allow(to(paths=["/a"])))], "allow-http-fields-on-tcp"),
    ("a dry run that is none", [WEB, STRICT, p(deny(to(paths=["/a"])), annotations={"istio.io/dry-run": "yes"})],
     "dry-run-not-recognised"),
    ("a value that no proxy can use", [WEB, STRICT, p(deny(to(ports=["x"])))], "unusable-value"),
    ("an unknown key", [WEB, STRICT, p(allow({"when": [{"key": "request.body", "values": ["a"]}]}))],
     ["unusable-value", "denies-all"]),
    ("an ALLOW rule that DENY covers", [WEB, STRICT, p(allow(to(paths=["/a/b"]), to(methods=["GET"]))),
     p(deny(to(paths=["/a/*"])), "d")], "allow-rule-dead"),
    ("an ALLOW rule that another covers", [WEB, STRICT, p(allow(to(paths=["/a/b"]), to(paths=["/a*"])))],
     "allow-rule-subsumed"),
    ("two equal rules, once", [WEB, STRICT, p(allow(to(paths=["/a"]), to(paths=["/a"])))], "allow-rule-subsumed"),
    ("a policy that cannot be read", [p({"rule": []})], "refused-object"),
]  # fmt: skip


@pytest.mark.parametrize(("says", "objects", "code"), CASES, ids=[row[0] for row in CASES])
def test_found(says, objects, code):
    found = lint_authorization(read_objects(objects))
    assert [f.code for f in found] == ([code] if isinstance(code, str) else code)
    assert found[0].where
    assert found[0].obj


SOUNDS = [
    ("nothing to look at", []),
    ("a policy that means what it says", [WEB, STRICT, SOUND]),
    ("claims that a RequestAuthentication fills",
     [WEB, STRICT, in_shop(authentication({"issuer": "i"})), p(allow(by(requestPrincipals=["*"])))]),
    ("a negation beside an identity", [WEB, STRICT, p(allow(by(namespaces=["shop"], notServiceAccounts=["web"])))]),
    ("a host and its port variant", [WEB, STRICT, p(deny(to(hosts=["web", "web:*"])))]),
    ("a host of the mesh", [WEB, service("web"), STRICT, p(allow(to(hosts=["web.shop:80", "web"])))]),
    ("upper-case paths", [WEB, STRICT, p(allow(to(paths=["/A", "/a%2Fb"])))]),
    ("false is no dry run and says so",
     [WEB, STRICT, p(deny(to(paths=["/a"])), annotations={"istio.io/dry-run": "false"})]),
    ("rules that overlap",
     [WEB, STRICT, p(allow(to(paths=["/a*"]), to(paths=["*b"]))), p(deny(to(paths=["/ab"])), "d")]),
    ("a rule that is narrower by its caller",
     [WEB, STRICT, p(allow(by(serviceAccounts=["web"]), {**by(namespaces=["shop"]), **to(methods=["GET"])}))]),
]  # fmt: skip


@pytest.mark.parametrize(("says", "objects"), SOUNDS, ids=[row[0] for row in SOUNDS])
def test_not_found(says, objects):
    assert lint_authorization(read_objects(objects)) == []
