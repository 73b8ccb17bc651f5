"""meshsieve connectivity: what people and programs read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshsieve.cli.main import main
from tests.unit.test_cli_main import run

MANIFESTS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
status: {podIP: 10.0.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
"""


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    (tmp_path / "cluster.yaml").write_text(MANIFESTS)
    return str(tmp_path)


def test_table_lists_pairs_that_may_connect(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connectivity", "-p", cluster, "--from", "web"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["default/web[Pod]", "default/db[Pod]", "TCP", "5432"]
    assert lines[-1] == "2 of 2 pairs may connect"


def test_ndjson_has_every_pair(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connectivity", "-p", cluster, "-o", "ndjson"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    allowed = {(row["src"].split("/")[-1], row["dst"].split("/")[-1]): row["allowed"] for row in rows}
    assert allowed["web[Pod]", "db[Pod]"] == "TCP 5432"
    assert allowed["db[Pod]", "web[Pod]"] == "all"
    assert sum(row["allowed"] == "none" for row in rows) == 1  # the outside to the database


def test_matrix(cluster: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connectivity", "-p", cluster, "-o", "matrix", "--from", "Pod]", "--to", "Pod]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["1", "default/web[Pod]", "some"]
    assert lines[2].split() == ["2", "default/db[Pod]", "all"]


RULES = """*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -d 10.0.0.7 -m limit --limit 1/sec -j DROP
COMMIT
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-O", "limits=always_match"], "ALLOW"),
        (["-O", "limits=always_match", "--table", "all"], "DROP"),
        (["-O", "limits=always_match", "-O", "with_nat=yes"], "DROP"),
        (["-O", "limits=never_match", "--table", "all"], "ALLOW"),
    ],
)
def test_import_settings_of_the_command_line(words: list[str], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "host.rules"
    path.write_text(RULES)
    words = ["explain", "-p", str(path), *words, "--json", "tcp 192.0.2.1:1 > 203.0.113.5:80"]
    done = run(*words)
    assert json.loads(done.stdout)["action"] == expected, done.stderr


@pytest.mark.parametrize("setting", ["limits=sometimes", "max_rules=-1", "nonsense=1", "with_nat"])
def test_an_unknown_setting_is_refused(setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "-p", str(tmp_path), "-O", setting, "tcp 10.0.0.1:1 > 10.0.0.2:2"]) != 0
    assert f"-O {setting}" in capsys.readouterr().err
