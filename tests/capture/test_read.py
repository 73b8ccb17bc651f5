"""Files become batches: every format of record, compression, several files, filters, and how a file may break."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from meshsieve import capture
from tests.capture.builder import eth, pcap, pcapng

FRAMES = [
    eth().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80, "S"),
    eth().ipv6("2001:db8::1", "2001:db8::2").udp(5353, 53).payload(b"query"),
    eth().vlan(5).ipv4("10.0.0.2", "10.0.0.1").tcp(80, 1000, "SA"),
]

FORMATS = {
    "pcap, little-endian, microseconds": pcap(FRAMES, nano=False),
    "pcap, big-endian, microseconds": pcap(FRAMES, nano=False, order=">"),
    "pcap, little-endian, nanoseconds": pcap(FRAMES),
    "pcap, big-endian, nanoseconds": pcap(FRAMES, order=">"),
    "pcap, modified": pcap(FRAMES, modified=True),
    "pcap, modified, big-endian": pcap(FRAMES, modified=True, order=">"),
    "pcapng, little-endian": pcapng(FRAMES),
    "pcapng, big-endian": pcapng(FRAMES, order=">"),
}


@pytest.mark.parametrize("data", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_every_format_gives_the_same_packets(data: bytes, pack, tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    path.write_bytes(pack(data))
    (batch,) = capture.read(path)
    assert batch["dport"].tolist() == [80, 53, 1000]
    assert batch["ip_ver"].tolist() == [4, 6, 4]
    assert batch["tcp_flags"].tolist() == [2, 0, 18]
    assert batch.has("tcp_flags").tolist() == [True, False, True]
    assert batch.has("vlan").tolist() == [False, False, True]
    assert batch.extra["number"].tolist() == [1, 2, 3]
    assert (batch.extra["time_ns"] - 10**18).tolist() == [0, 10**6, 2 * 10**6]
