"""Requests of logs through all layers: the same verdicts as of the capture that the log is of, and nothing lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import meshsieve
from meshsieve.cli.main import main
from meshsieve.request_logs import batches

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo"
POLICY, LOG, CAPTURE = (str(BOOKINFO / name) for name in ("policy", "access.log.gz", "bookinfo.pcap"))
HEADER = {"end_user": "end-user"}
Row = dict[str, object]


def rows_of(capfd: pytest.CaptureFixture[str], *words: str) -> list[Row]:
    assert main([*words, "-p", POLICY, "--assume-mtls", "-o", "ndjson"]) == 0
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_a_log_gets_the_verdicts_of_the_capture_that_it_is_of(capfd: pytest.CaptureFixture[str]) -> None:
    seen = rows_of(capfd, "classify", "-r", CAPTURE, "--by", "request")
    logged = rows_of(capfd, "classify", "--requests", LOG, "--log-header", "end_user=end-user")
    names = ("source_ip", "source_port", "method", "path", "action", "rule", "source", "reason", "route_rule")
    answered = [row for row in seen if row["status"] is not None]
    assert Counter(tuple(r[n] for n in names) for r in logged) == Counter(tuple(r[n] for n in names) for r in answered)
    assert Counter(r["action"] for r in logged) == {"ALLOW": 200, "REJECT": 6}
    assert [r["line"] for r in logged] == list(range(1, 207))


def test_batches_of_every_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def totals() -> object:
        return meshsieve.load(POLICY).classify_log(LOG, header_fields=HEADER, assume_mtls=True).totals()

    whole = totals()
    for size in (1, 7, 205, 206, 207):
        monkeypatch.setattr(batches, "BATCH", size)
        assert totals() == whole


def line(**values: object) -> str:
    return json.dumps({"method": "GET", "authority": "reviews:9080", "path": "/reviews/0", **values}) + "\n"


NOT_REQUESTS = {
    "no address": (line(source_ip="10.0.0.256"), "is no IP address"),
    "two versions": (line(source_ip="10.10.0.11", destination_ip="2001:db8::1"), "differ in IP version"),
    "no JSON": ("{\n", "not JSON"),
    "unknown field": (line(verb="GET"), "has no field verb"),
}


@pytest.mark.parametrize("case", NOT_REQUESTS)
def test_lines_that_are_no_requests_are_told_and_the_rest_is_judged(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, said = NOT_REQUESTS[case]
    path = tmp_path / "requests.ndjson"
    path.write_text(line(source_ip="10.10.0.11") + bad + line(source_ip="10.10.0.11", destination_ip="10.10.0.31"))
    assert main(["classify", "--requests", str(path), "-p", POLICY, "-o", "ndjson"]) == 2
    found = capfd.readouterr()
    assert [json.loads(row)["line"] for row in found.out.splitlines()] == [1, 3]
    assert f"{path}:2: not a request: " in found.err
    assert said in found.err


OUTBOUND = (
    '[2026-11-24T10:00:00.000Z] "GET /reviews/0 HTTP/1.1" 200 - via_upstream - "-" 0 295 12 11 "-" "curl" "id-1" '
    '"reviews:9080" "10.10.0.31:9080" outbound|9080||reviews.bookinfo.svc.cluster.local 10.10.0.11:41000 '
    "10.96.0.31:9080 10.10.0.11:41000 - default\n"
)


def test_the_sidecar_of_a_client_connects_to_the_endpoint_not_to_the_service(tmp_path: Path) -> None:
    path = tmp_path / "outbound.log"
    path.write_text(OUTBOUND)
    (rows,) = meshsieve.load(POLICY).classify_log(path, assume_mtls=True)
    assert rows.verdicts.requests[0].destination_ip == "10.10.0.31"
    assert rows.verdicts.action(0) == "ALLOW"


def test_every_verb_about_traffic_takes_logs(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--requests", LOG, "-p", POLICY, "--assume-mtls"]
    assert main(["services", *words, "-o", "openmetrics"]) == 0
    metrics = capfd.readouterr().out
    assert sum(int(x.rsplit(" ", 1)[1]) for x in metrics.splitlines() if x.startswith("istio_requests_total")) == 206
    assert main(["hits", *words, "-o", "ndjson"]) == 0
    hits = [json.loads(row) for row in capfd.readouterr().out.splitlines()]
    by_layer: Counter[str] = Counter()
    for row in hits:
        by_layer[row["point"]] += row["l7_accept_count"]
    # The gateway has chosen the route of what it sends on; six requests were denied because no rule matched.
    assert by_layer["route"] == 206 - 40
    assert by_layer["authorization"] == 4 * 40
    assert main(["overlap", *words, "-o", "ndjson"]) == 0
    pairs = [json.loads(row) for row in capfd.readouterr().out.splitlines()]
    assert sum(row["requests"] for row in pairs) == 206


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["classify", "-p", POLICY], "which traffic?"),
        (["classify", "-r", CAPTURE, "--requests", LOG, "-p", POLICY], "goes without -r"),
        (["classify", "--requests", LOG, "-p", POLICY, "--by", "flow"], "goes without -r"),
        (["hits", "-r", "-", "--requests", "-", "-p", POLICY], "once only"),
        (["classify", "--requests", LOG, "-p", f"{POLICY}/nsx.json"], "says nothing about requests"),
    ],
)
def test_wrong_usage_is_told(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capfd.readouterr().err
