"""Who calls whom in the bookinfo capture: the graph, the table and Istio's metrics agree with what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshsieve.cli.main import main
from meshsieve.mesh.workloads import Workload
from meshsieve.walk.calls import workload_name

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo"
COMMAND = ["services", "-r", str(BOOKINFO / "bookinfo.pcap"), "-p", str(BOOKINFO / "policy"), "--assume-mtls"]


def test_the_graph_counts_every_request_and_every_other_connection_once(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "-o", "graph"]) == 0
    elements: dict[str, Any] = json.loads(capfd.readouterr().out)["elements"]
    titles = {n["data"]["id"]: n["data"].get("workload") or n["data"].get("service") or "?" for n in elements["nodes"]}
    edges = {
        (titles[e["data"]["source"]], titles[e["data"]["target"]], e["data"]["traffic"]["protocol"]): e["data"]
        for e in elements["edges"]
    }
    verdicts = {ends: edge["verdicts"] for ends, edge in edges.items()}
    assert verdicts["productpage-v1", "reviews-v3", "http"] == {"ALLOW": 30}
    assert verdicts["productpage-v1", "reviews-v2", "http"] == {"ALLOW": 10}
    assert verdicts["productpage-v1", "ratings-v1", "http"] == {"REJECT": 6}
    assert verdicts["curl", "mysql-01", "tcp"] == {"DROP": 3}
    assert verdicts["ratings-v1", "mysql-01", "tcp"] == {"ALLOW": 40}
    assert edges["productpage-v1", "ratings-v1", "http"]["traffic"]["errorShare"] == 1.0
    assert edges["productpage-v1", "reviews-v2", "http"]["isMTLS"] == 100
    total = sum(n for by_verdict in verdicts.values() for n in by_verdict.values())
    assert total == 210 + 47  # requests; connections to the database, to SSH, and those that were dropped


def test_the_metrics_are_istios(capfd: pytest.CaptureFixture[str]) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="pip install prometheus-client")
    assert main([*COMMAND, "-o", "openmetrics"]) == 0
    samples = [s for f in parser.text_string_to_metric_families(capfd.readouterr().out) for s in f.samples]
    requests = [s for s in samples if s.name == "istio_requests_total"]
    assert sum(s.value for s in requests) == 210
    denied = [s for s in requests if s.labels["response_code"] == "403"]
    assert [s.labels["response_flags"] for s in denied] == ["UAEX"]
    assert denied[0].labels["destination_service"] == "ratings.bookinfo.svc.cluster.local"
    assert denied[0].labels["source_principal"] == "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage"
    counts = [s.value for s in samples if s.name == "istio_request_duration_milliseconds_count"]
    assert sum(counts) == 206  # four were not answered
    closed = sum(s.value for s in samples if s.name == "istio_tcp_connections_closed_total")
    assert closed == 41  # those that were dropped never ended


def test_the_table_and_standard_input(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(COMMAND) == 0
    assert "bookinfo/productpage-v1" in capfd.readouterr().out
    assert main(["services", "-r", "-", "-p", str(BOOKINFO / "policy")]) == 2
    assert "read twice" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("owner", "labels", "name"),
    [
        ("shop/web-7d8c[ReplicaSet]", {"pod-template-hash": "7d8c"}, "web"),
        ("shop/web-7d8c[ReplicaSet]", {}, "web-7d8c"),
        ("shop/db[StatefulSet]", {"pod-template-hash": "db"}, "db"),
        ("", {}, "web-7d8c-x1"),
    ],
)
def test_a_workload_is_called_after_the_controller_that_people_know(
    owner: str, labels: dict[str, str], name: str
) -> None:
    assert workload_name(Workload("shop", "web-7d8c-x1", labels, owner=owner)) == name
