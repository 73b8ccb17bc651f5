"""meshsieve route: the request as written, the answer as read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshsieve.cli.main import main

ROUTES = """
virtual_hosts:
- name: shop
  domains: [shop.example]
  routes:
  - name: cart
    match: {prefix: /cart, headers: [{name: x-v, string_match: {exact: "2"}}]}
    route: {cluster: cart-v2, prefix_rewrite: /v2}
  - name: rest
    match: {prefix: /}
    route: {weighted_clusters: {clusters: [{name: a, weight: 9}, {name: b, weight: 1}]}}
"""


@pytest.fixture
def routes(tmp_path: Path) -> str:
    (tmp_path / "routes.yaml").write_text(ROUTES)
    return str(tmp_path / "routes.yaml")


def test_one_request_as_text(routes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "-p", routes, "GET http://shop.example/cart?id=7", "-H", "x-v: 2"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("route cart of virtual host shop")
    assert "routes.yaml:6" in out
    assert "path      /v2?id=7" in out


def test_chance_is_said_and_can_be_given(routes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "-p", routes, "GET", "http://shop.example/"]) == 0
    assert "one of a 9, b 1" in capsys.readouterr().out
    assert main(["route", "-p", routes, "--json", "--random", "9", "GET http://shop.example"]) == 0
    assert json.loads(capsys.readouterr().out)["cluster"] == "b"


def test_many_requests_as_ndjson(routes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "requests.ndjson"
    file.write_text('{"host": "shop.example", "path": "/"}\n\n{"authority": "other", "path": "/"}\n')
    assert main(["route", "-p", routes, "--requests", str(file)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(a["route"], a["status"]) for a in answers] == [("rest", None), (None, 404)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which request?"),
        (["GET"], "is not METHOD URL"),
        (["GET http://h/", "-H", "nothing"], "is not 'NAME: VALUE'"),
    ],
)
def test_wrong_usage_is_said(routes: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["route", "-p", routes, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_bad_line_is_named(routes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "requests.ndjson"
    file.write_text('{"path": "/"}\n{"pathh": "/"}\n')
    assert main(["route", "-p", routes, "--requests", str(file)]) == 2
    assert "requests.ndjson:2: not a request" in capsys.readouterr().err


MESH = """\
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: page, labels: {app: page}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {user: {exact: jason}}, sourceLabels: {app: page}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - timeout: 2s
    route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}]}
"""


def test_a_cluster_is_asked_from_where_the_request_is_seen(tmp_path, capsys):
    (tmp_path / "mesh.yaml").write_text(MESH)
    url = "GET http://reviews.default:9080/"
    assert main(["route", "-p", str(tmp_path), url, "--from", "default/page", "-H", "user: jason"]) == 0
    assert "outbound|9080|v2|reviews.default.svc.cluster.local" in capsys.readouterr().out
    assert main(["route", "-p", str(tmp_path), url, "--from-namespace", "other", "-H", "user: jason", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cluster"] == "outbound|9080||reviews.default.svc.cluster.local"
    assert found["settings"]["timeout"] == "2s"
    assert found["source"] == f"{tmp_path}/mesh.yaml:18 VirtualService default/reviews spec.http[1]"


def test_a_place_that_is_not_there_is_named_with_those_that_are(tmp_path, capsys):
    (tmp_path / "mesh.yaml").write_text(MESH)
    assert main(["route", "-p", str(tmp_path), "GET http://a/", "--from", "default/x"]) == 2
    assert "no pod or workload is called default/x; there are: default/page" in capsys.readouterr().err
    assert main(["route", "-p", str(tmp_path), "GET http://a/", "--gateway", "default/x"]) == 2
    assert "no gateway is called default/x; there are: none" in capsys.readouterr().err


def test_an_explanation_shows_the_place_and_each_route(tmp_path, capsys):
    (tmp_path / "mesh.yaml").write_text(MESH)
    asked = ["route", "-p", str(tmp_path), "GET http://reviews.default:9080/", "--from", "default/page", "--explain"]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "client default/page: route, listener 0.0.0.0_9080, routes 9080" in shown
    assert "header user is absent" in shown
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [point["point"].split()[0] for point in told["points"]] == ["client", "virtual"]
    assert [trial["matches"] for trial in told["points"][1]["rules_tested"]] == ["no", "yes"]
    assert main(["route", "-p", str(tmp_path), "--requests", "x", "--explain"]) == 2
    assert "--explain is for one request" in capsys.readouterr().err


def test_a_configuration_of_envoy_is_explained_too(routes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["route", "-p", routes, "GET http://shop.example/nowhere", "--explain"]) == 0
    assert "virtual host" in capsys.readouterr().out
