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
