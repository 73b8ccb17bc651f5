"""The conformance runners of captures: right on what is right, and a planted wrong truth makes them fail."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.capture.builder import eth, pcap
from tests.conformance import hostile, pcaps

FRAMES = [
    eth().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80, "S"),
    eth().ipv4("10.0.0.2", "10.0.0.1").tcp(80, 1000, "SA"),
    eth().ipv4("10.0.0.1", "10.0.0.2").icmp(8),
]
TRUTH: dict[str, Any] = {
    "files": [
        {
            "file": "a.pcap",
            "category": "tls",
            "packets": 3,
            "capinfos": {"packets": "3"},
            "flow_count": 2,
            "flows": [
                {"proto": "tcp", "src": "10.0.0.2", "sport": 80, "dst": "10.0.0.1", "dport": 1000, "frames": 2},
                {"proto": "icmp", "src": "10.0.0.1", "sport": 0, "dst": "10.0.0.2", "dport": 0, "frames": 1},
            ],
        }
    ]
}


def folder(tmp_path: Path, truth: dict[str, Any]) -> Path:
    (tmp_path / "a.pcap").write_bytes(pcap(FRAMES))
    (tmp_path / "expected.json").write_text(json.dumps(truth))
    return tmp_path


def test_the_truth_holds(tmp_path: Path) -> None:
    report = pcaps.run(folder(tmp_path, TRUTH))
    assert report.passed
    assert report.summary("pcaps") == "pcaps: right 2 wrong 0 undecided 0 skipped 0"


PLANTED = [
    #  what is planted                 where                                        reason
    ("a wrong number of packets", lambda f: f["capinfos"].update(packets="4"), "number of packets is 3, expected 4"),
    ("a wrong port", lambda f: f["flows"][0].update(dport=1001), "missing: tcp"),
    (
        "a flow too many",
        lambda f: f.update(flow_count=3, flows=[*f["flows"], {**f["flows"][0], "sport": 9}]),
        "missing",
    ),
    ("a flow too few", lambda f: f.update(flow_count=1, flows=f["flows"][:1]), "not in the truth: icmp"),
    ("a missing file", lambda f: f.update(file="none.pcap"), "missing"),
]


@pytest.mark.parametrize(("plant", "reason"), [c[1:] for c in PLANTED], ids=[c[0] for c in PLANTED])
def test_a_planted_wrong_truth_fails(plant: Any, reason: str, tmp_path: Path) -> None:
    truth = copy.deepcopy(TRUTH)
    plant(truth["files"][0])
    report = pcaps.run(folder(tmp_path, truth))
    assert not report.passed
    assert reason in " ".join(case.reason for case in report.cases)


APPLICATIONS = [
    #  what is stated of a DNS flow            row of the truth                                          counts
    ("the application", {"tier": "A", "app": "dns"}, {"right": 1}),
    ("another one", {"tier": "B", "app": "ntp"}, {"wrong": 1}),
    ("another one, ours accepted", {"tier": "A", "app": "mdns", "accept": ["mdns", "dns"]}, {"right": 1}),
    ("another one, weakly", {"tier": "C", "app": "ntp"}, {}),
    ("its name", {"truth": {"tshark": {"dns_qname": ["a.example"]}}}, {"right": 1}),
    ("another name", {"truth": {"tshark": {"dns_qname": ["b.example"]}}}, {"wrong": 1}),
    ("a name that it has not", {"truth": {"tshark": {"sni": ["b.example"]}}}, {"undecided": 1}),
]


@pytest.mark.parametrize(("row", "counts"), [c[1:] for c in APPLICATIONS], ids=[c[0] for c in APPLICATIONS])
def test_applications_and_attributes(row: dict[str, Any], counts: dict[str, int], tmp_path: Path) -> None:
    question = b"\0\7\1\0\0\1\0\0\0\0\0\0\1a\7example\0\0\1\0\1"
    flow = {"proto": "udp", "src": "10.0.0.1", "sport": 1000, "dst": "10.0.0.2", "dport": 53, "frames": 1, **row}
    entry = {"file": "a.pcap", "category": "dns", "packets": 1, "capinfos": {}, "flow_count": 1, "flows": [flow]}
    (tmp_path / "a.pcap").write_bytes(pcap([eth().ipv4("10.0.0.1", "10.0.0.2").udp(1000, 53).payload(question)]))
    (tmp_path / "expected.json").write_text(json.dumps({"files": [entry]}))
    report = pcaps.run(tmp_path)
    assert {k: n for k, n in report.counts.items() if n} == {**counts, "right": 2 + counts.get("right", 0)}


FACTS = [
    #  what is stated                           fact                                              holds
    ("the packets", {"packets": 3}, True),
    ("other packets", {"packets": 4}, False),
    ("no error", {"error": False}, True),
    ("an error", {"error": True}, False),
    ("the 5-tuple", {"five_tuple": ["10.0.0.1", "10.0.0.2", 6, 1000, 80]}, True),
    ("another 5-tuple", {"five_tuple": ["10.0.0.1", "10.0.0.2", 6, 1000, 81]}, False),
    ("the ports", {"ports": [1000, 80]}, True),
    ("other ports", {"ports": [1, 2]}, False),
    ("a server name: not counted", {"sni": "www.example.com"}, True),
]


@pytest.mark.parametrize(("fact", "holds"), [c[1:] for c in FACTS], ids=[c[0] for c in FACTS])
def test_hostile_facts(fact: dict[str, Any], holds: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "CHANGES", 5)
    (tmp_path / "a.pcap").write_bytes(pcap(FRAMES))
    (tmp_path / "MANIFEST.csv").write_text("file,bytes\na.pcap,1\ntext/x.yaml,1\n")
    (tmp_path / "FACTS.json").write_text(json.dumps([{"file": "a.pcap", **fact}]))
    assert hostile.run(tmp_path).passed is holds


def test_a_crash_while_reading_is_one_wrong_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "read", lambda *_, **__: hostile.os.abort())
    (tmp_path / "a.pcap").write_bytes(pcap(FRAMES))
    (tmp_path / "MANIFEST.csv").write_text("file\na.pcap\n")
    (tmp_path / "FACTS.json").write_text("[]")
    report = hostile.run(tmp_path)
    assert [case.reason for case in report.cases] == ["the reading process died: signal 6"]
