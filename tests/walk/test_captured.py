"""The bookinfo capture through all layers: every request has a verdict, and what was answered live agrees with it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import meshsieve
from meshsieve.cli.main import main

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo"
COMMAND = ["classify", "-r", str(BOOKINFO / "bookinfo.pcap"), "-p", str(BOOKINFO / "policy"), "--by", "request"]


def test_the_verdicts_are_those_that_the_capture_shows() -> None:
    result = meshsieve.load(BOOKINFO / "policy").classify_requests(BOOKINFO / "bookinfo.pcap", assume_mtls=True)
    seen: Counter[tuple[str, int]] = Counter()
    for rows in result:
        for i in range(len(rows)):
            seen[rows.verdicts.action(i), int(rows.seen["status"][i])] += 1
    # 403: what a sidecar answered; 0: a connection that nobody answered, from a pod without identity.
    assert seen == {("ALLOW", 200): 200, ("REJECT", 403): 6, ("REJECT", 0): 4}
    assert result.totals().by_action == {"ALLOW": 200, "REJECT": 10}


def test_rows_lead_back_to_their_flow_and_their_rule(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--assume-mtls", "-o", "ndjson"]) == 0
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert main(["classify", *COMMAND[1:5], "-o", "ndjson"]) == 0
    flows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    ends = {(f["src"], f["sport"], f["dst"], f["dport"]) for f in flows}
    for row in rows:
        assert (row["source_ip"], row["source_port"], row["destination_ip"], row["destination_port"]) in ends
        assert row["action"] in ("ALLOW", "REJECT")
        assert row["layer"] == "route" or row["authorization_verdict"] == row["action"]
    assert sum(row["source"] is not None for row in rows) >= 200


@pytest.mark.parametrize("form", ["table", "json", "csv", "parquet"])
def test_every_format_is_written(form: str, tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert main([*COMMAND, "--assume-mtls", "-o", form, "--output", str(target)]) == 0
    assert target.stat().st_size > 1000
    if form == "table":
        assert "210" in target.read_text()
    if form == "json":
        document = json.loads(target.read_text())
        assert len(document["rows"]) == 210
        assert document["summary"]["requests"] == {"ALLOW": 200, "REJECT": 10}


def test_policies_about_packets_alone_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    command = ["classify", "-r", str(BOOKINFO / "bookinfo.pcap"), "-p", str(BOOKINFO / "policy" / "nsx.json")]
    assert main([*command, "--by", "request"]) == 2
    assert "says nothing about requests" in capfd.readouterr().err
