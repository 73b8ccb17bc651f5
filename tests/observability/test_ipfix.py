"""Our IPFIX messages, read by others: tshark dissects every element, nfcapd and nfdump collect the flows."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import meshsieve
from meshsieve.classification import ClassifiedBatch
from meshsieve.cli.main import main
from meshsieve.observability import ipfix

DEMO = Path(__file__).parents[2] / "examples" / "demo"


@pytest.fixture(scope="module")
def batch() -> ClassifiedBatch:
    """The demonstration's flows with their verdicts, without those that have no IP."""
    engine = meshsieve.load([DEMO / "nsx.json", DEMO / "edge.rules"])
    [found] = engine.classify_pcap(DEMO / "demo.pcap")
    return found


def in_order(batch: ClassifiedBatch) -> list[int]:
    """The rows as the messages hold them: IPv4 first."""
    version = batch.headers["ip_ver"]
    return [int(i) for v in (4, 6) for i in np.flatnonzero(version == v)]


def both_ways(row: dict[str, Any], what: str) -> tuple[int, int]:
    """Forward and reply; a row counts both together."""
    return row[what] - row[f"{what}_reply"], row[f"{what}_reply"]


def dissected(path: Path) -> list[tuple[str, Any]]:
    """Every field of every record, in order, as tshark reads the file."""
    if not shutil.which("tshark"):
        pytest.skip("no tshark here: make oracles")
    command = ["tshark", "-r", str(path), "-T", "json", "-J", "cflow"]
    out = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    flat: list[tuple[str, Any]] = []

    def walk(value: Any) -> None:
        for item in value if isinstance(value, list) else ():
            if isinstance(item, tuple):
                flat.append(item)
                walk(item[1])
            else:
                walk(item)

    walk(json.loads(out, object_pairs_hook=list))
    return flat


def test_tshark_reads_every_record_as_the_row_says(batch: ClassifiedBatch, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.ipfix"
    command = ["classify", "-r", str(DEMO / "demo.pcap"), "-p", str(DEMO / "nsx.json"), str(DEMO / "edge.rules")]
    assert main([*command, "-o", "ipfix", "--output", str(path)]) == 0
    fields = dissected(path)

    def values(name: str) -> list[str]:
        return [str(value) for key, value in fields if key == name]

    rows = [batch.row(i) for i in in_order(batch)]
    assert values("cflow.srcport") == [str(row["sport"]) for row in rows]
    assert values("cflow.dstport") == [str(row["dport"]) for row in rows]
    assert values("cflow.octets") == [str(n) for row in rows for n in both_ways(row, "bytes")]
    assert values("cflow.packets") == [str(n) for row in rows for n in both_ways(row, "packets")]
    assert values("cflow.srcaddr") == [row["src"] for row in rows if ":" not in row["src"]]
    assert values("cflow.srcaddrv6") == [row["src"] for row in rows if ":" in row["src"]]
    events = {"ALLOW": "2", "DROP": "3", "REJECT": "3"}
    assert values("cflow.firewall_event") == [events.get(row["action"], "0") for row in rows]
    names = values("cflow.selector_name")
    assert {f"{row['rule']} {row['source']}" for row in rows if row["rule"]} <= set(names)
    assert not any("malformed" in key for key, _ in fields)


def test_each_message_stands_alone_and_the_sequence_counts_its_records(batch: ClassifiedBatch) -> None:
    parts = ipfix.IpfixWriter(7, ipfix.MAX_DATAGRAM).messages(batch.columns)
    assert all(len(part) <= ipfix.MAX_DATAGRAM for part in parts)
    assert all(part[:2] == b"\x00\x0a" and int.from_bytes(part[2:4], "big") == len(part) for part in parts)
    sequences = [int.from_bytes(part[8:12], "big") for part in parts]
    assert sequences == sorted(sequences)
    assert sequences[0] == 0
    assert {int.from_bytes(part[12:16], "big") for part in parts} == {7}


def test_batches_of_any_size_give_the_same_records(batch: ClassifiedBatch) -> None:
    whole = ipfix.IpfixWriter().messages(batch.columns)
    again = ipfix.IpfixWriter().messages(batch.columns)
    assert whole == again


def test_a_message_too_small_for_a_record_is_an_error(batch: ClassifiedBatch) -> None:
    with pytest.raises(ValueError, match="no room for a record"):
        ipfix.IpfixWriter(0, 200).messages(batch.columns)


def test_rows_that_are_no_flows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["classify", "-r", str(DEMO / "demo.pcap"), "-p", str(DEMO / "nsx.json"), "--by", "packet", "-o", "ipfix"]
    assert main([*command, "--output", str(tmp_path / "x")]) == 2
    assert "ipfix holds flows" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_nfdump_collects_the_same_flows(batch: ClassifiedBatch, tmp_path: Path) -> None:
    if not (shutil.which("nfcapd") and shutil.which("nfdump")):
        pytest.skip("no nfdump here: apt-get install nfdump")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["nfcapd", "-b", "127.0.0.1", "-p", str(port), "-w", str(tmp_path), "-t", "3600"]
    collector = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            for part in ipfix.IpfixWriter(0, ipfix.MAX_DATAGRAM).messages(batch.columns):
                out.sendto(part, ("127.0.0.1", port))
                time.sleep(0.002)
        time.sleep(0.5)
    finally:
        collector.terminate()
        collector.wait(20)
    show = ["nfdump", "-R", str(tmp_path), "-N", "-q", "-6", "-o", "fmt:%sa|%da|%sp|%dp|%ipkt|%ibyt|%opkt|%obyt"]
    text = subprocess.run(show, capture_output=True, text=True, check=True, timeout=60).stdout
    collected = {tuple(cell.strip() for cell in line.split("|")) for line in text.splitlines() if line.count("|") == 7}
    for i in in_order(batch):
        row = batch.row(i)
        if row["proto"] == "tcp":  # nfdump shows ICMP's type and code in the place of ports
            volume = (*both_ways(row, "packets"), *both_ways(row, "bytes"))
            ends = (row["src"], row["dst"], str(row["sport"]), str(row["dport"]))
            assert (*ends, *(str(volume[k]) for k in (0, 2, 1, 3))) in collected
