"""Reasons, nearest misses and explanations, in words."""

from __future__ import annotations

import json

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.cli.main import main
from meshsieve.request import Request
from tests.unit.authz.test_policies import allow, by, deny, policy, to

A = "cluster.local/ns/a/sa/b"


def when(key, *values, negated=False):
    return {"when": [{"key": key, "notValues" if negated else "values": list(values)}]}


NEAREST = [
    ("a method", to(methods=["GET"]), "method were GET"),
    ("several", to(methods=["GET", "PUT"], paths=["/a*", "*z"]), "method were GET or PUT and path were /a* or *z"),
    ("what has to be absent", to(notMethods=["POST"]), "method were not POST"),
    ("a principal, without its scheme", by(principals=[A]), f"source.principal were {A}"),
    ("any principal", by(principals=["*"]), "source.principal were present"),
    ("a namespace", by(namespaces=["pr*d"]), "source.namespace were pr*d"),
    ("a service account", by(serviceAccounts=["web"]), "source.serviceAccount were foo/web"),
    ("a network", by(ipBlocks=["192.168.1.7/16"]), "source.ip were 192.168.0.0/16"),
    ("a request principal", by(requestPrincipals=["idp/*", "x"]), "request.auth.principal were idp/* or x/"),
    ("any request principal", by(requestPrincipals=["*"]), "request.auth.principal were present"),
    ("a header", when("request.headers[X-A]", "1"), "request.headers[x-a] were 1"),
    ("a header's presence", when("request.headers[x-a]", "*"), "request.headers[x-a] were present"),
    ("a nested claim", when("request.auth.claims[a][b]", "c"), "request.auth.claims[a][b] were c"),
    ("a port", to(ports=["81"]), "destination.port were 81"),
    ("a template", to(paths=["/a/{*}/{**}"]), "path were /a/{*}/{**}"),
]
REQUEST = Request(method="POST", authority="h", path="/q", source_ip="10.0.0.1", destination_port=80)


@pytest.mark.parametrize(("says", "rule", "text"), NEAREST, ids=[row[0] for row in NEAREST])
def test_nearest(says, rule, text):
    decision = from_kubernetes([policy(allow(rule))]).decide(REQUEST)
    assert decision.nearest == f"would be allowed by ns[foo]-policy[x]-rule[0] if {text}"


def test_the_rule_that_lacks_least_is_nearest():
    far, near = to(methods=["GET"], paths=["/a"]), to(methods=["GET"], paths=["/q"])
    decision = from_kubernetes([policy(allow(far, near))]).decide(REQUEST)
    assert decision.nearest == "would be allowed by ns[foo]-policy[x]-rule[1] if method were GET"


def test_nothing_is_near_where_no_rule_could_allow():
    assert from_kubernetes([policy({})]).decide(REQUEST).nearest is None
    assert from_kubernetes([policy(deny({}))]).decide(REQUEST).nearest is None


def test_an_explanation_lists_every_rule_with_what_it_lacks():
    policies = [policy(allow(to(methods=["GET"]), {})), policy(deny(by(principals=["*"])), "d")]
    explanation = from_kubernetes(policies).explain(REQUEST)
    assert explanation.decision.rule == "ns[foo]-policy[x]-rule[1]"
    found = [(s.action.value, [(t.rule.name, t.text) for t in s.rules]) for s in explanation.steps]
    assert found == [
        ("DENY", [("ns[foo]-policy[d]-rule[0]", "needs source.principal is present")]),
        ("ALLOW", [("ns[foo]-policy[x]-rule[0]", "needs method is GET"), ("ns[foo]-policy[x]-rule[1]", "matches")]),
    ]
    assert json.loads(json.dumps(explanation.to_dict()))["steps"][1]["rules"][1]["matches"] is True


MESH = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {serviceAccounts: [front]}}], to: [{operation: {methods: [GET]}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: front-1, namespace: shop, labels: {app: front}}
spec: {serviceAccountName: front, containers: []}
status: {podIP: 10.0.0.7}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


def run(capsys, tmp_path, *words):
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH)
    status = main(["authz", "-p", str(file), *words])
    return status, capsys.readouterr()


def test_a_call_between_names_is_decided(capsys, tmp_path):
    status, shown = run(capsys, tmp_path, "GET http://web/a", "--from", "shop/front-1", "--to", "shop/web")
    assert (status, shown.out) == (0, "ALLOW: ns[shop]-policy[web]-rule[0] allows it\n")


def test_a_denial_says_what_came_nearest(capsys, tmp_path):
    _, shown = run(capsys, tmp_path, "PUT http://web/a", "--from", "spiffe://cluster.local/ns/shop/sa/front",
                   "--to", "shop/x", "--labels", "app=web")  # fmt: skip
    assert shown.out.endswith("would be allowed by ns[shop]-policy[web]-rule[0] if method were GET\n")


def test_requests_of_a_file_are_answered_a_line_each(capsys, tmp_path):
    requests = tmp_path / "r.ndjson"
    rows = [{"method": m, "host": "h", "principal": "cluster.local/ns/shop/sa/front"} for m in ("GET", "PUT")]
    requests.write_text("\n".join(json.dumps({**row, "workload": "shop/web"}) for row in rows))
    _, shown = run(capsys, tmp_path, "--requests", str(requests))
    assert [json.loads(line)["allowed"] for line in shown.out.splitlines()] == [True, False]


def test_wrong_usage_is_said_without_showing_claims(capsys, tmp_path):
    status, shown = run(capsys, tmp_path, "GET http://web/a", "--claims", '{"sub": "secret-9')
    assert status == 2
    assert "secret" not in shown.err
    status, shown = run(capsys, tmp_path, "GET http://web/a", "--to", "shop/nobody")
    assert status == 2
    assert "no pod or workload is called shop/nobody" in shown.err


def test_a_filter_of_envoy_is_asked_by_itself(capsys, tmp_path):
    file = tmp_path / "rbac.yaml"
    file.write_text(
        "action: DENY\npolicies:\n  p:\n    permissions: [{any: true}]\n    principals: [{authenticated: {}}]\n"
    )
    assert main(["authz", "-p", str(file), "GET http://h/", "--from", "td/ns/a/sa/b"]) == 0
    assert capsys.readouterr().out == "DENY: p denies it\n"
    assert main(["authz", "-p", str(file), "GET http://h/", "--to", "a/b"]) == 2


def test_files_of_other_kinds_are_named_and_broken_ones_refused(capsys, tmp_path):
    (tmp_path / "mesh.yaml").write_text(MESH)
    (tmp_path / "rules.v4").write_text("*filter\n")
    assert main(["authz", "-p", str(tmp_path), "GET http://web/", "--to", "shop/web"]) == 0
    assert "rules.v4 holds no authorization policy" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("apiVersion: security.istio.io/v1\nkind: [\n")
    assert main(["authz", "-p", str(tmp_path), "GET http://web/", "--to", "shop/web"]) == 2
    assert "bad.yaml" in capsys.readouterr().err
