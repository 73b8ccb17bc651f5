"""Packets and flows against tshark, on the captures that come with the repository and on the shared set."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import pytest

from meshsieve import capture, flows
from tests.differential import tshark

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("MESHSIEVE_SHARED") or ROOT.parent / "shared" / "data") / "pcaps"
CAPTURES = [ROOT / "examples/demo/demo.pcap", ROOT / "examples/bookinfo/bookinfo.pcap"]
# Formats, overlays, links, fragments, extension headers: every way to nest headers that the set has.
HELLOS = sorted(path for path in SHARED.glob("*") if any(word in path.name for word in ("tls", "ssl", "https")))
CAPTURES += sorted(path for path in SHARED.glob("*") if path.name.startswith(("overlay-", "link-", "ip6ext-", "frag-")))

pytestmark = pytest.mark.skipif(not tshark.is_here(), reason="tshark is not installed: make oracles")


def ids(path: Path) -> str:
    return path.name


def ours(path: Path) -> list[dict[str, Any]]:
    """Each packet's fields that are present, addresses as text, and the status by name."""
    rows: list[dict[str, Any]] = []
    for batch in capture.read(path):
        fields = {name: (batch.has(name), batch[name]) for name in batch}
        for i in range(len(batch)):
            row = {name: values[i] for name, (has, values) in fields.items() if has[i]}
            for name in {"src_ip", "dst_ip"} & set(row):
                row[name] = address(row[name], row["ip_ver"])
            row |= {name: batch.extra[name][i] for name in ("tcp_seq", "payload_length", "vni")}
            row["status"] = capture.STATUSES[batch.extra["status"][i]]
            rows.append(row)
    return rows


def address(words: Any, version: int) -> str:
    value = int(words[0]) << 64 | int(words[1])
    return str(ipaddress.IPv4Address(value) if version == 4 else ipaddress.IPv6Address(value))


@pytest.mark.parametrize("path", CAPTURES, ids=ids)
def test_every_packet_is_read_as_tshark_reads_it(path: Path) -> None:
    theirs, rows = tshark.packets(path), ours(path)
    assert len(theirs) == len(rows)
    differences = []
    compared = 0
    for number, (packet, row) in enumerate(zip(theirs, rows, strict=True), 1):
        if packet is None or row["status"] != "ok":
            continue
        compared += 1
        expected = {"src_ip": packet.src, "dst_ip": packet.dst, **packet.values}
        for name, value in expected.items():
            got = row.get(name)
            if name.endswith("_ip"):
                value = str(ipaddress.ip_address(value))
            if got != value:
                differences.append(f"frame {number}: {name} is {got}, tshark says {value}")
    assert not differences[:10]
    assert compared or not any(theirs)


@pytest.mark.parametrize("path", CAPTURES + HELLOS, ids=ids)
def test_names_and_fingerprints_of_flows_are_those_of_tshark(path: Path) -> None:
    found = flows.read(path)
    known = {}
    for i in range(len(found)):
        if found["proto"][i] in (6, 17) and not found.extra["tunnel"][i]:
            ends = frozenset(
                (address(found[f"{end}_ip"][i], found["ip_ver"][i]), int(found[f"{end[0]}port"][i]))
                for end in ("src", "dst")
            )
            known.setdefault(("tcp" if found["proto"][i] == 6 else "udp", ends), found.attributes(i))
    differences = []
    for flow, expected in tshark.attributes(path).items():
        if expected.get("http_path", "/") == "/" and expected.get("http_method") == "OPTIONS":
            continue  # tshark takes a line that is nothing but the word OPTIONS for a request
        for name, value in expected.items():
            got = known.get(flow, {}).get(name)
            if got != value:
                differences.append(f"{flow}: {name} is {got}, tshark says {value}")
    assert not differences


@pytest.mark.parametrize("path", HELLOS, ids=ids)
def test_ja4_is_what_its_definition_makes_of_the_fields_that_tshark_reads(path: Path) -> None:
    theirs = {tshark.ja4(hello) for hello in tshark.client_hellos(path)}
    ours = {text for text in flows.read(path).attribute("ja4") if text is not None and text.startswith("t")}
    assert theirs <= ours
