"""Flows: who started it, what belongs together, when it ends, what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from meshsieve import capture, flows
from tests.capture.builder import Captured, Frame, eth, pcap

A, B = "10.0.0.1", "10.0.0.2"
SECOND = 10**9


def tcp(src: str, dst: str, sport: int, dport: int, flags: str, **how) -> Frame:
    return eth().ipv4(src, dst).tcp(sport, dport, flags, **how)


def there(flags: str, **how) -> Frame:
    return tcp(A, B, 1000, 80, flags, **how)


def back(flags: str, **how) -> Frame:
    return tcp(B, A, 80, 1000, flags, **how)


def at(seconds: float, frame: Frame) -> Captured:
    return Captured(frame.bytes(), int(seconds * SECOND))


def read(tmp_path: Path, frames, **how) -> flows.FlowColumns:
    path = tmp_path / "flows.pcap"
    path.write_bytes(pcap(frames))
    return flows.read(path, **how)


def shown(columns: flows.FlowColumns) -> list[str]:
    """Each flow as 'sport>dport packets/replies'."""
    extra = columns.extra
    return [
        f"{columns['sport'][i]}>{columns['dport'][i]} {extra['packets'][i]}/{extra['packets_reply'][i]}"
        for i in range(len(columns))
    ]


INITIATOR = [
    #  what it shows                                  packets                               flows
    ("SYN: its sender", [there("S"), back("SA"), there("A")], ["1000>80 2/1"]),
    ("SYN+ACK first: its receiver", [back("SA"), there("S"), there("A")], ["1000>80 2/1"]),
    ("no handshake: the first sender", [back("A"), there("A")], ["80>1000 1/1"]),
    ("both directions are one flow", [there("S"), back("SA")], ["1000>80 1/1"]),
    ("another port is another flow", [there("S"), tcp(A, B, 1001, 80, "S")], ["1000>80 1/0", "1001>80 1/0"]),
]


@pytest.mark.parametrize(("frames", "expected"), [c[1:] for c in INITIATOR], ids=[c[0] for c in INITIATOR])
def test_the_initiator_is(frames, expected, tmp_path: Path) -> None:
    assert shown(read(tmp_path, frames)) == expected


ENDS = [
    #  what it shows                                   packets                                            flows
    ("one SYN lives 120 s", [at(0, there("S")), at(120, there("S"))], ["1000>80 2/0"]),
    ("and not longer", [at(0, there("S")), at(120.1, there("S"))], ["1000>80 1/0", "1000>80 1/0"]),
    ("established lives 12 h", [at(0, there("S")), at(1, back("SA")), at(43200, there("A"))], ["1000>80 2/1"]),
    ("one FIN: 120 s", [at(0, there("S")), at(1, back("SAF")), at(122, there("A"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("both FIN: 20 s", [at(0, there("SF")), at(1, back("AF")), at(22, there("A"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("RST: 20 s", [at(0, there("S")), at(1, back("R")), at(22, there("A"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("late segments stay in it", [at(0, there("SF")), at(1, back("AF")), at(2, there("A"))], ["1000>80 2/1"]),
    ("SYN after RST is new", [at(0, there("S")), at(1, back("R")), at(2, there("S"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("time that runs backwards ends nothing", [at(1000, there("S")), at(1, there("S"))], ["1000>80 2/0"]),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "expected"), [c[1:] for c in ENDS], ids=[c[0] for c in ENDS])
def test_a_tcp_flow_ends(frames, expected, tmp_path: Path) -> None:
    assert shown(read(tmp_path, frames)) == expected


def test_without_timeouts_a_tuple_is_one_flow(tmp_path: Path) -> None:
    frames = [at(0, there("S")), at(1, back("R")), at(90_000, there("S"))]
    assert shown(read(tmp_path, frames, options=flows.FlowOptions.one_per_tuple())) == ["1000>80 2/1"]


def test_every_packet_gets_its_flow(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    arp = eth(0x0806).payload(b"\0" * 28)
    path.write_bytes(pcap([there("S"), arp, back("SA"), there("A")]))
    table = flows.FlowTable()
    (batch,) = capture.read(path, flows=table)
    extra = batch.extra
    assert extra["flow_id"].tolist() == [1, 0, 1, 1]
    assert extra["flow_slot"].tolist() == [0, flows.NO_SLOT, 0, 0]
    assert extra["new_flow"].tolist() == [True, False, False, False]
    assert extra["reply"].tolist() == [False, False, True, False]
    assert batch["ct_state"].tolist() == [1, 0, 2, 2]
    assert batch.has("ct_state").tolist() == [True, False, True, True]


def test_columns_from_elsewhere_go_through_the_table_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([there("S"), back("SA"), there("A")]))
    (batch,) = capture.read(path)
    copied = batch.take(np.arange(3))
    assert copied.native is None
    together = flows.FlowTable().update(copied)
    assert together.extra["reply"].tolist() == [False, True, False]
