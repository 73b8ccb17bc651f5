"""State of the distributed firewall: stateless rules judge every packet, stateful ones the first of a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshsieve.columns import PacketColumns
from meshsieve.engine import Engine
from tests.capture.builder import eth, pcap
from tests.unit.test_nsx_semantics import A, B, Json, load, policy, rule

REQUEST = eth().ipv4(src=A, dst=B).tcp(4000, 80, flags="S")
REPLY = eth().ipv4(src=B, dst=A).tcp(80, 4000, flags="SA")
FORWARD = rule("forward", source_groups=["A"], destination_groups=["B"])
BACK = rule("back", source_groups=["B"], destination_groups=["A"])
DROP = policy(rule("drop", "DROP"))


@pytest.mark.parametrize(
    ("sentence", "policies", "expected"),
    [
        ("stateful: packets of the flow pass in both directions", [policy(FORWARD), DROP], ["ALLOW", "ALLOW"]),
        ("stateless: replies need their own rule", [policy(FORWARD, stateful=False), DROP], ["ALLOW", "DROP"]),
        ("... and pass with it", [policy(FORWARD, BACK, stateful=False), DROP], ["ALLOW", "ALLOW"]),
        (
            "a stateful drop behind a stateless rule is a drop",
            [policy(rule("out", direction="OUT"), stateful=False), DROP],
            ["DROP", "DROP"],
        ),
    ],
)
def test_packets_of_one_connection(sentence: str, policies: list[Json], expected: list[str], tmp_path: Path) -> None:
    capture = tmp_path / "c.pcap"
    capture.write_bytes(pcap([REQUEST, REPLY]))
    engine = Engine(load(policies).layers)
    (batch,) = engine.classify_pcap(capture, by="packet")
    assert list(batch["action"]) == expected


def test_a_data_channel_is_related_to_its_control_channel() -> None:
    """plus any packet whose flow is RELATED to such a control flow (data channel)"""
    engine = Engine(load([policy(rule("ftp", services=["/infra/services/FTP"])), DROP]).layers)
    fields: dict[str, Any] = {"src_ip": [A, A], "dst_ip": [B, B], "proto": 6, "sport": 4000, "dport": [21, 40001]}
    columns = PacketColumns({**fields, "proto": [6, 6], "sport": [4000, 4000], "tcp_flags": [2, 2], "ip_ver": [4, 4]})
    assert list(engine.classify(columns)["rule"]) == ["ftp", "drop"]
    announced = PacketColumns(dict(columns), extra={"app_how": np.array([0, 4], np.uint8)})
    assert list(engine.classify(announced)["rule"]) == ["ftp", "ftp"]
