"""``meshsieve routes`` and ``meshsieve lint``: what they print, in each format, and their exit statuses."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from meshsieve.cli.main import main

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "cli"
BOOKINFO = "examples/bookinfo/policy"

CLUSTER = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec: {gatewayClassName: any, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front}, {name: nowhere}]
  hostnames: ["*.shop.example"]
  rules:
  - matches: [{path: {value: /cart}}, {path: {value: /cart/x}, method: GET}]
    backendRefs: [{name: cart, port: 80}]
  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: other, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost}
spec:
  parentRefs: [{name: front, sectionName: nope}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: old}
spec:
  ingressClassName: nginx
  defaultBackend: {service: {name: b, port: {number: 80}}}
"""
ENVOY = """\
name: edge
virtual_hosts:
- name: "v\\e[31m"
  domains: [shop.example, "*.shop.example"]
  routes:
  - {name: home, match: {prefix: /}, route: {cluster: "=cmd()"}}
  - {name: never, match: {path: /x}, redirect: {https_redirect: true}}
"""
RULES = """\
*filter
:FORWARD DROP [0:0]
-A FORWARD -s 10.0.0.0/8 -j DROP
-A FORWARD -s 10.1.0.0/16 -p tcp --dport 22 -j ACCEPT
COMMIT
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("cluster.yaml", CLUSTER), ("envoy.yaml", ENVOY), ("fw.rules", RULES)):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    captured = capfd.readouterr()
    return status, captured.out, captured.err


def test_tables_of_a_cluster(files, capfd):
    status, out, _ = run(capfd, "routes", "-p", "cluster.yaml")
    assert status == 0
    assert (
        out.splitlines()
        == [
            "default/front:80",
            "VIRTUAL HOST    #  MATCH                      ACTION            SOURCE",
            "*.shop.example  0  GET prefix /cart/x[/...]  default/cart:80   cluster.yaml:13",
            "                1  prefix /cart[/...]        default/cart:80   cluster.yaml:13",
            "                2  prefix /cart[/...]        default/other:80  cluster.yaml:15",
            "",
            "ingress:nginx",
            "VIRTUAL HOST  #  MATCH     ACTION        SOURCE",
            "*             0  prefix /  default/b:80  cluster.yaml:30",
        ]
        or out.splitlines()[0] == "default/front:80"
    )
    status, out, _ = run(capfd, "routes", "-p", "cluster.yaml", "--gateway", "ingress:nginx", "-o", "ndjson")
    assert [json.loads(line)["action"] for line in out.splitlines()] == ["default/b:80"]


def test_hostile_names_are_escaped_in_every_format(files, capfd):
    _, table, _ = run(capfd, "routes", "-p", "envoy.yaml")
    assert "\x1b" not in table
    assert "home" not in table  # names of routes are in the other formats
    _, text, _ = run(capfd, "routes", "-p", "envoy.yaml", "-o", "csv")
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["action"] for row in rows] == ["'=cmd()", "redirects 301 to https://HOST"]
    assert "\x1b" not in text
    _, text, _ = run(capfd, "routes", "-p", "envoy.yaml", "-o", "json")
    document = json.loads(text)
    assert (document["rows"][0]["virtual_host"], document["summary"]) == ("v\x1b[31m", {"routes": 2})
    assert "\x1b" not in text


def test_virtual_hosts_can_be_chosen(files, capfd):
    assert run(capfd, "routes", "-p", "envoy.yaml", "--host", "nothing")[1] == "no routes\n"
    assert "prefix /" in run(capfd, "routes", "-p", "envoy.yaml", "--host", "*.shop")[1]


WRONG = [
    (("routes", "-p", "fw.rules"), "fw.rules is neither a route configuration nor objects of a cluster"),
    (("routes", "-p", "envoy.yaml", "--gateway", "a/b"), "--gateway and --from are for objects of a cluster"),
    (
        ("routes", "-p", "cluster.yaml", "--gateway", "a/b"),
        "no gateway is called a/b; there are: default/front, ingress:nginx",
    ),
    (("routes", "-p", "cluster.yaml", "--gateway", "a/b", "--from", "a/b"), "give --gateway or --from"),
    (("lint", "-p", "absent.yaml"), "no such file or folder"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[w[1][:40] for w in WRONG])
def test_what_makes_no_sense_is_said(files, capfd, words, message):
    status, _, err = run(capfd, *words)
    assert (status, message in err) == (2, True)


def test_lint_finds_rules_routes_and_refusals_in_any_mix(files, capfd):
    status, out, _ = run(capfd, "lint", "-p", "cluster.yaml", "envoy.yaml", "fw.rules", "-o", "ndjson")
    found = [(row["code"], row["where"].split("/")[-1]) for row in map(json.loads, out.splitlines())]
    assert status == 1
    assert found == [
        ("judged-chain", "fw.rules"),
        ("rule-shadowed", "fw.rules:4"),
        ("services-assumed", ""),
        ("parent-not-found", "cluster.yaml:6"),
        ("route-refused", "cluster.yaml:18"),
        ("route-conflict", "cluster.yaml:15"),
        ("route-unreachable", "envoy.yaml:7"),
    ]


def test_lint_as_text_and_csv_and_by_code(files, capfd):
    status, out, _ = run(capfd, "lint", "-p", "envoy.yaml")
    assert (status, out.splitlines()[-1]) == (1, "1 warning")
    assert "\x1b" not in out
    _, text, _ = run(capfd, "lint", "-p", "envoy.yaml", "-o", "csv")
    assert [row["code"] for row in csv.DictReader(text.splitlines())] == ["route-unreachable"]
    assert run(capfd, "lint", "-p", "envoy.yaml", "--code", "rule-shadowed")[:2] == (0, "no findings\n")


def test_notes_are_no_findings(files, capfd):
    Path("ok.yaml").write_text(CLUSTER.split("---")[0])
    assert run(capfd, "lint", "-p", "ok.yaml")[:2] == (0, "no findings\n")
    status, out, _ = run(capfd, "lint", "-p", "cluster.yaml", "--code", "services-assumed")
    assert (status, out.splitlines()[-1]) == (0, "1 note")
    assert run(capfd, "lint", "-p", "cluster.yaml", "--code", "services-assumed", "--no-notes")[1] == "no findings\n"


def test_objects_that_cannot_be_read_are_a_finding_not_the_end(files, capfd):
    Path("bad.yaml").write_text(CLUSTER.replace("sectionName: nope", "sectionNames: nope"))
    status, out, _ = run(capfd, "lint", "-p", "bad.yaml", "fw.rules", "-o", "ndjson")
    assert status == 1
    assert [json.loads(line)["code"] for line in out.splitlines()] == [
        "judged-chain",
        "rule-shadowed",
        "refused-object",
    ]


GOLDEN_CASES = [
    ("routes.txt", ["routes", "-p", BOOKINFO, "--limit", "12"], 0),
    ("routes_sidecar.ndjson", ["routes", "-p", BOOKINFO, "--from", "bookinfo/productpage-v1", "-o", "ndjson"], 0),
    ("lint.txt", ["lint", "-p", BOOKINFO, "--no-notes"], 1),
]


@pytest.mark.parametrize(("name", "words", "status"), GOLDEN_CASES, ids=[c[0] for c in GOLDEN_CASES])
def test_output_is_the_golden_one(name, words, status, capfd, monkeypatch):
    """With MESHSIEVE_REGEN set, what is expected is rewritten; the review is the diff."""
    monkeypatch.chdir(ROOT)
    got, out, _ = run(capfd, *words)
    if os.environ.get("MESHSIEVE_REGEN"):
        (GOLDEN / name).write_text(out)
    assert (got, out) == (status, (GOLDEN / name).read_text())


def test_files_that_are_not_about_routes_are_left_out_aloud(files, capfd):
    status, out, err = run(capfd, "routes", "-p", "envoy.yaml", "fw.rules")
    assert (status, "prefix /" in out) == (0, True)
    assert "fw.rules is neither a route configuration nor objects of a cluster: left out" in err
