"""A walk in Traceflow's words: each trace ends as the verdict says, names NSX's rule, and tells of translated
addresses; and the explanation of a flow is that of its row."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import meshsieve
from meshsieve.cli.main import main
from meshsieve.observability import traceflow
from meshsieve.observability.traceflow import End, Step, component, observations
from tests.observability.test_report import Elements

EXAMPLES = Path(__file__).parents[2] / "examples"
BOOKINFO = EXAMPLES / "bookinfo"
POLICY, CAPTURE = str(BOOKINFO / "policy"), str(BOOKINFO / "bookinfo.pcap")
Shown = pytest.CaptureFixture[str]

COMPONENTS = [
    ("nsx-dfw spoofguard", "SPOOFGUARD", ""),
    ("nsx-dfw out", "DFW", ""),
    ("nsx-dfw in", "DFW", ""),
    ("nsx-dfw redirection", "SERVICE_INSERTION", "SI_CLASSIFIER"),
    ("nsx-dfw t1 up firewall", "EDGE_FW", "LR_TIER1"),
    ("nsx-dfw t0 firewall", "EDGE_FW", "LR_TIER0"),
    ("nsx-dfw t1 down dnat outside", "NAT", "LR_TIER1"),
    ("nsx-dfw t0 snat", "NAT", "LR_TIER0"),
    ("nsx-dfw t0 redirection", "SERVICE_INSERTION", "SI_CLASSIFIER"),
    ("kubernetes services", "K8S_SERVICE", ""),
    ("kubernetes ingress", "NETWORK_POLICY", ""),
    ("iptables filter rules.v4 FORWARD", "HOST_FW", ""),
    ("route", "PROXY", "ROUTE"),
    ("authorization", "PROXY", "AUTHORIZATION"),
]


@pytest.mark.parametrize(("title", "kind", "sub_type"), COMPONENTS, ids=[row[0] for row in COMPONENTS])
def test_components(title: str, kind: str, sub_type: str) -> None:
    assert component(title) == (kind, sub_type)


SOURCE = "nsx.json:7 /infra/domains/default/security-policies/p/rules/r rule_id=1012"
HERE, THERE = End("10.0.0.1", "vm-a"), End("192.0.2.9", None)


def test_a_dropped_packet_ends_where_it_is_dropped_and_names_the_rule() -> None:
    steps = [
        Step("nsx-dfw out", "ALLOW", "rule 'x'", "x", "nsx.json:3 /infra/x"),
        Step("nsx-dfw in", "REJECT", "rule 'r'", "r", SOURCE),
        Step("kubernetes ingress", "ALLOW", "behind it"),
    ]
    found = observations(steps, HERE, THERE)
    kinds = [one["resource_type"].removeprefix("TraceflowObservation") for one in found]
    assert kinds == ["Received", "ReceivedLogical", "ForwardedLogical", "ReceivedLogical", "DroppedLogical"]
    last = found[-1]
    assert (last["component_type"], last["reason"], last["acl_rule_id"]) == ("DFW", "FW_RULE", 1012)
    assert last["acl_rule_path"] == "/infra/domains/default/security-policies/p/rules/r"
    assert (found[0]["component_type"], found[0]["lport_name"], found[0]["sequence_no"]) == ("LS", "vm-a", 0)


def test_an_allowed_packet_is_delivered_and_a_translation_told() -> None:
    steps = [
        Step("nsx-dfw t0 dnat", "ALLOW", "changes dst_ip", "n", "f:1 /infra/nat", True, ("10.0.0.1", "198.51.100.1")),
        Step("nsx-dfw in", "ALLOW", "", None, None, False, ("10.0.0.1", "10.0.0.7")),
    ]
    found = observations(steps, HERE, THERE)
    assert found[2]["translated_dst_ip"] == "10.0.0.7"
    assert "translated_src_ip" not in found[2]
    assert found[2]["nat_rule_path"] == "/infra/nat"
    assert found[-1] == {
        "resource_type": "TraceflowObservationDelivered",
        "component_type": "PHYSICAL",
        "component_name": "192.0.2.9",
        "sequence_no": 999,
    }


def test_what_is_undecided_is_neither_forwarded_nor_delivered() -> None:
    found = observations([Step("iptables FORWARD", "UNDECIDED", "lacks iif", "r", "f:1")], HERE, THERE)
    assert [one["resource_type"] for one in found] == [traceflow.RECEIVED, traceflow.RECEIVED_LOGICAL]
    assert found[-1]["verdict"] == "UNDECIDED"


def test_where_nobody_is_asked_nothing_is_delivered() -> None:
    assert [one["resource_type"] for one in observations([Step("x", None, "")], HERE, THERE)] == [traceflow.RECEIVED]


LAST = {"ALLOW": "Delivered", "DROP": "DroppedLogical", "REJECT": "DroppedLogical", "NONE": "Received ForwardedLogical",
        "UNDECIDED": "ReceivedLogical", "NO_MATCH": "ReceivedLogical", "PENDING": "ReceivedLogical"}  # fmt: skip


@pytest.mark.parametrize("policy", ["demo/nsx.json", "demo/edge.rules", "bookinfo/policy"])
def test_the_last_observation_says_the_verdict(policy: str) -> None:
    """Over random packets between known and unknown addresses."""
    engine = meshsieve.load(EXAMPLES / policy)
    chance = random.Random(policy)
    owned = [a for layer in engine.layers for v in layer.inventory.vnics for version, a in v.addresses if version == 4]
    seen = set()
    for _ in range(150):
        ends = [chance.choice([*owned, chance.getrandbits(32)]) for _ in range(2)]
        a, b = (".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0)) for n in ends)
        port = chance.choice([22, 53, 80, 443, 3306, 9080])
        found = engine.explain(f"{chance.choice(['tcp', 'udp'])} {a}:40000 > {b}:{port}")
        last = found.observations[-1]
        kind = str(last["resource_type"]).removeprefix("TraceflowObservation")
        assert kind in LAST[found.action].split(), found.packet
        if kind == "DroppedLogical":
            assert last.get("rule") == found.rule
            assert last.get("source") == found.source
        seen.add(kind)
    assert len(seen) > 1


def explain(capfd: Shown, *words: str) -> str:
    assert main(["explain", "-p", POLICY, *words]) == 0
    return capfd.readouterr().out


DELETE = ["DELETE http://ratings:9080/ratings/0", "--from", "bookinfo/productpage-v1", "--assume-mtls"]


def test_every_form_for_packet_request_and_flow(capfd: Shown) -> None:
    packet = ["tcp 10.10.2.7:4242 > 10.20.0.5:3306"]
    flow = ["-r", CAPTURE, "--flow", "4", "--assume-mtls"]
    for words in (packet, DELETE, flow):
        assert "─" in explain(capfd, *words)
        assert json.loads(explain(capfd, *words, "--json"))
        document = json.loads(explain(capfd, *words, "-o", "traceflow"))
        for trace in document if isinstance(document, list) else [document]:
            assert trace["operation_state"] == "FINISHED"
            assert trace["result_count"] == len(trace["results"]) > 1
        assert "OBSERVATION" in explain(capfd, *words, "--traceflow")
        page = explain(capfd, *words, "--traceflow", "-o", "html")
        assert "TraceflowObservationReceived" in Elements(page).text
        assert "default-src 'none'" in page


def test_a_flow_is_found_by_number_community_id_and_ends(capfd: Shown) -> None:
    by_number = json.loads(explain(capfd, "-r", CAPTURE, "--flow", "4", "--json"))
    row = by_number["flow"]
    ends = f"{row['proto']} {row['src']}:{row['sport']} > {row['dst']}:{row['dport']}"
    turned = f"{row['proto']} {row['dst']}:{row['dport']} > {row['src']}:{row['sport']}"
    for name in (row["community_id"], ends, turned):
        assert json.loads(explain(capfd, "-r", CAPTURE, "--flow", name, "--json")) == by_number
    assert by_number["packet"]["action"] == row["action"]
    assert by_number["packet"]["rule"] == row["rule"]
    assert [request["request"] for request in by_number["requests"]] == ["GET http://details:9080/details/0"]


def test_every_flow_is_explained_as_it_is_classified() -> None:
    engine = meshsieve.load(POLICY)
    rows = [batch.row(i) for batch in engine.classify_pcap(CAPTURE) for i in range(len(batch))]
    for row in rows[::13]:
        found = engine.explain_flow(CAPTURE, row["community_id"])
        assert (found.action, found.packet.rule, found.packet.source) == (row["action"], row["rule"], row["source"])


WRONG = [
    (["-r", CAPTURE], "both -r CAPTURE and --flow"),
    (["--flow", "4"], "both -r CAPTURE and --flow"),
    (["-r", CAPTURE, "--flow", "100000"], "no flow of the capture"),
    (["-r", CAPTURE, "--flow", "9" * 40], "no flow of the capture"),
    (["-r", CAPTURE, "--flow", "1:abc"], "no flow of the capture"),
    (["-r", CAPTURE, "--flow", "tcp nonsense"], "is not a packet"),
    ([], "which packet?"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=[" ".join(w[2:]) or str(i) for i, (w, _) in enumerate(WRONG)])
def test_wrong_usage_is_told(words: list[str], said: str, capfd: Shown) -> None:
    assert main(["explain", "-p", POLICY, *words]) == 2
    assert said in capfd.readouterr().err
