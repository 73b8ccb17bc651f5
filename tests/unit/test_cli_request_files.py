"""Files of requests on the command line, for every verb that reads them: answers, bad lines, exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshsieve.cli.main import main

LOG = '[2026-11-24T20:00:01.250Z] "{method} /a HTTP/1.1" 200 - 0 1 5 4 "-" "curl" "r" "shop.example" "10.0.0.9:80"\n'
ROUTES = """\
virtual_hosts:
- {name: v, domains: ["*"], routes: [{name: get, match: {prefix: /, headers: [
    {name: ":method", string_match: {exact: GET}}]}, route: {cluster: web}}]}
"""
POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {action: ALLOW, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
"""


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[dict[str, object]], str]:
    status = main(list(words))
    captured = capsys.readouterr()
    return status, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_routes_and_policies_read_access_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = tmp_path / "access.log"
    log.write_text(LOG.format(method="GET") + LOG.format(method="POST") + LOG.format(method="-").replace("/a", "-"))
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "policy.yaml").write_text(POLICY)
    status, rows, _ = ask(capsys, "route", "-p", str(tmp_path / "routes.yaml"), "--requests", str(log))
    assert (status, [(row["line"], row["cluster"]) for row in rows]) == (0, [(1, "web"), (2, None)])
    _, rows, _ = ask(capsys, "authz", "-p", str(tmp_path / "policy.yaml"), "--requests", str(log), "--to", "shop/web")
    assert [(row["line"], row["allowed"]) for row in rows] == [(1, True), (2, False)]


def test_a_bad_line_is_answered_in_its_place_and_the_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    requests = tmp_path / "requests.ndjson"
    requests.write_text('{"path": "/"}\n{"path": 1}\n{"path": "/", "workload": "shop/web"}\n')
    (tmp_path / "policy.yaml").write_text(POLICY)
    words = ["authz", "-p", str(tmp_path / "policy.yaml"), "--requests", str(requests), "--to", "shop/web"]
    status, rows, err = ask(capsys, *words)
    assert status == 2
    assert [row.get("error") for row in rows] == [None, "path must be text, not int", None]
    assert "requests.ndjson:2: not a request: path must be text, not int" in err


def test_a_log_field_can_hold_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = {"method": "GET", "path": "/", "authority": "a", "response_code": 200, "version": "2"}
    (tmp_path / "access.json").write_text(json.dumps(line))
    (tmp_path / "routes.yaml").write_text(ROUTES.replace('":method"', "x-version").replace("GET", '"2"'))
    words = ["route", "-p", str(tmp_path / "routes.yaml"), "--requests", str(tmp_path / "access.json")]
    assert ask(capsys, *words)[1][0]["cluster"] is None
    assert ask(capsys, *words, "--log-header", "version=x-version")[1][0]["cluster"] == "web"
    status, _, err = ask(capsys, *words, "--log-header", "version")
    assert (status, "'version' is not FIELD=HEADER" in err) == (2, True)
