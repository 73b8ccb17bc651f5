"""Where layers 2-4 and layer 7 overlap: every class by a small policy, every witness asked again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import meshsieve
from meshsieve.cli.main import main
from meshsieve.engine import Engine
from meshsieve.walk.overlap import CLASSES, Overlap, overlaps, totals

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo"

CLUSTER = """
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{istio-injection: {injection}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: db, namespace: shop}}
spec: {{clusterIP: 10.96.0.1, selector: {{app: db}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
spec: {{serviceAccountName: web, containers: [{{name: c}}]}}
status: {{podIP: 10.0.0.1}}
---
apiVersion: v1
kind: Pod
metadata: {{name: db, namespace: shop, labels: {{app: db}}}}
spec: {{serviceAccountName: db, containers: [{{name: c}}]}}
status: {{podIP: 10.0.0.2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: db, namespace: shop}}
spec: {{hosts: [db], http: [{{route: [{{destination: {{host: db}}}}]}}]}}
"""
L4 = {
    "open": "",
    "closed": """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress], ingress: []}
""",
    "web only": """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
""",
}
L7 = {
    "open": "",
    "closed": """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db, namespace: shop}
spec: {}
""",
    "web reads": """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: db, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [GET], paths: [/items/*]}}]
""",
}


def engine_of(l4: str, l7: str, tmp_path: Path, injection: str = "enabled") -> Engine:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(injection=injection) + L4[l4] + L7[l7])
    return meshsieve.load(path)


def web_to_db(engine: Engine) -> Overlap:
    [found] = [o for o in overlaps(engine) if (o.source, o.destination) == ("shop/web", "shop/db")]
    return found


@pytest.mark.parametrize(
    ("l4", "l7", "kind"),
    [
        ("open", "open", "neither"),
        ("open", "web reads", "L7 only"),
        ("open", "closed", "hole"),
        ("web only", "open", "L4 only"),
        ("web only", "web reads", "both"),
        ("web only", "closed", "hole"),
        ("closed", "open", "L4 only"),
        ("closed", "closed", "both"),
        ("closed", "web reads", "conflict"),
    ],
)
def test_a_pair_is_of_its_class(l4: str, l7: str, kind: str, tmp_path: Path) -> None:
    found = web_to_db(engine_of(l4, l7, tmp_path))
    assert (found.kind, found.port) == (kind, 8080)


def test_a_workload_without_a_proxy_restricts_nothing_on_layer_7(tmp_path: Path) -> None:
    assert web_to_db(engine_of("web only", "web reads", tmp_path, injection="disabled")).kind == "L4 only"


def test_a_witness_of_layer_7_is_a_request_that_the_policy_names(tmp_path: Path) -> None:
    found = web_to_db(engine_of("web only", "web reads", tmp_path))
    assert found.request is not None
    assert found.request.startswith("GET http://db.shop:8080/items/")
    assert found.request.endswith(": allowed")
    assert [layer for layer, _, _ in found.rules] == ["kubernetes ingress", "authorization"]
    assert all(source for _, _, source in found.rules)


def test_every_witness_of_bookinfo_says_what_its_class_says() -> None:
    engine = meshsieve.load(BOOKINFO / "policy")
    found = list(overlaps(engine))
    assert len(found) > 100
    for o in found:
        assert o.kind in CLASSES
        allowed = engine.explain(o.packet).action in ("ALLOW", "NONE")
        if o.port is not None:
            assert allowed == (o.l4 == "all"), o
        if o.request is not None:
            assert o.request.endswith("allowed" if o.l7 in ("all", "some") else "denied"), o
    by_class = {t.kind: t.pairs for t in totals(found)}
    assert sum(by_class.values()) == len(found)
    assert by_class["hole"] >= 2  # the page to ratings, the pod without identity to reviews


def test_the_traffic_of_a_capture_is_counted_for_its_pairs(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["overlap", "-p", str(BOOKINFO / "policy"), "-r", str(BOOKINFO / "bookinfo.pcap"), "--assume-mtls"]
    assert main([*command, "-o", "ndjson"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sum(row["requests"] for row in rows) == 210
    [page] = [r for r in rows if (r["from"], r["to"]) == ("bookinfo/productpage-v1-7d8c", "bookinfo/ratings-v1-6c1a")]
    assert (page["class"], page["flows"], page["requests"]) == ("hole", 6, 6)


@pytest.mark.parametrize("form", ["table", "matrix", "json"])
def test_the_verb_shows_it_and_can_fail_on_a_class(form: str, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["overlap", "-p", str(BOOKINFO / "policy"), "-o", form]
    assert main(command) == 0
    assert "hole" in capfd.readouterr().out
    assert main([*command, "--fail-on", "hole"]) == 1
    assert main([*command, "--fail-on", "conflict", "--class", "hole"]) == 0
