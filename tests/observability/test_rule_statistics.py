"""Rule statistics: counts add up to the classification, points count by themselves, unused rules are told."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import meshsieve
from meshsieve.cli.main import main
from meshsieve.observability.rule_statistics import RuleCounter, RuleStatistics

DEMO = Path(__file__).parents[2] / "examples" / "demo"
POLICY = [str(DEMO / "nsx.json"), str(DEMO / "edge.rules")]


@pytest.fixture(scope="module")
def rows() -> list[RuleStatistics]:
    engine = meshsieve.load(POLICY)
    counter = RuleCounter(engine.tables)
    for batch in engine.classify_pcap(DEMO / "demo.pcap"):
        counter.add(batch)
    return list(counter.rows())


def test_every_rule_of_every_point_has_a_row_in_order(rows: list[RuleStatistics]) -> None:
    engine = meshsieve.load(POLICY)
    assert [(row.point, row.index) for row in rows] == [
        (table.title, i) for table in engine.tables.points for i in range(len(table.point.rules))
    ]


def test_hits_are_the_flows_that_the_rule_decided_at_its_point(rows: list[RuleStatistics]) -> None:
    expected: Counter[tuple[str, str]] = Counter()
    packets: Counter[tuple[str, str]] = Counter()
    for batch in meshsieve.load(POLICY).classify_pcap(DEMO / "demo.pcap"):
        for i in range(len(batch)):
            row = batch.row(i)
            for point in ("nsx_dfw_out", "nsx_dfw_in", "iptables_filter_edge_rules_forward"):
                if row[f"{point}_rule"] is not None and row[f"{point}_verdict"] != "UNDECIDED":
                    expected[point, row[f"{point}_rule"]] += 1
                    packets[point, row[f"{point}_rule"]] += row["packets"]
    names = {row.point: row.point for row in rows}
    titles = dict(zip(names, ("nsx_dfw_out", "nsx_dfw_in", "iptables_filter_edge_rules_forward"), strict=True))
    found: Counter[tuple[str, str]] = Counter()
    found_packets: Counter[tuple[str, str]] = Counter()
    for row in rows:
        found[titles[row.point], row.rule] += row.hit_count
        found_packets[titles[row.point], row.rule] += row.packet_count
    assert +found == expected
    assert +found_packets == packets


def test_only_admitted_flows_are_sessions_and_times_frame_the_hits(rows: list[RuleStatistics]) -> None:
    assert all(row.session_count <= row.total_session_count <= row.hit_count for row in rows)
    assert any(row.hit_count and not row.total_session_count for row in rows)  # a rule that drops
    for row in rows:
        assert (row.first_hit_ns is None) == (row.hit_count == 0)
        assert row.first_hit_ns is None or row.first_hit_ns <= (row.last_hit_ns or 0)


def test_the_document_is_nsxs_with_a_list_for_each_point(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["hits", "-r", str(DEMO / "demo.pcap"), "-p", *POLICY, "-o", "json"]) == 0
    document = json.loads(capfd.readouterr().out)
    results = [r for part in document["results"] for r in part["statistics"]["results"]]
    assert {"internal_rule_id", "hit_count", "packet_count", "byte_count", "session_count", "popularity_index"} <= set(
        results[0]
    )
    assert any(r["hit_count"] == 0 for r in results)


def test_unused_shows_only_rules_without_hits(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["hits", "-r", str(DEMO / "demo.pcap"), "-p", *POLICY, "-o", "ndjson", "--unused"]) == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert lines
    assert all(line["hit_count"] == 0 for line in lines)
    assert main(["hits", "-r", str(DEMO / "demo.pcap"), "-p", *POLICY]) == 0
    assert f"{len(lines)} of them decided nothing" in capfd.readouterr().out
