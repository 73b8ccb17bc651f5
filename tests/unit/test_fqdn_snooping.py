"""Domain names by DNS answers of the capture: the sentences of the specification about FQDN attributes."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from meshsieve import capture, flows
from meshsieve.engine import Engine
from meshsieve.fqdn_table import FqdnTable
from meshsieve.importers.nsx import NsxImporter
from meshsieve.policy import ImportOptions, SourceFile
from tests.capture import app_payloads
from tests.capture.builder import Captured, Frame, address, eth, pcap

CLIENT, RESOLVER, SERVER, SERVER6 = "10.1.0.10", "10.9.9.9", "203.0.113.80", "2001:db8::80"
A, CNAME, AAAA = 1, 5, 28
Json = Any
Record = tuple[str, int, int, str]  # owner, type, TTL, address or target


def name(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + b"\0"


def response(asked: str, records: Sequence[Record], *, flags: int = 0x8180, questions: int = 1) -> bytes:
    out = struct.pack(">HHHHHH", 7, flags, questions, len(records), 0, 0) + name(asked) + struct.pack(">HH", A, 1)
    for owner, kind, ttl, value in records:
        data = name(value) if kind == CNAME else address(value)
        out += name(owner) + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data
    return out


def answer(message: bytes, *, port: int = 53, at_s: float = 0) -> Captured:
    frame = eth().ipv4(RESOLVER, CLIENT).udp(port, 5000).payload(message)
    return at(frame, at_s)


def tcp_answer(message: bytes) -> Captured:
    return at(eth().ipv4(RESOLVER, CLIENT).tcp(53, 5001, "PA").payload(struct.pack(">H", len(message)) + message), 0)


def at(frame: Frame, seconds: float) -> Captured:
    return Captured(frame.bytes(), int(seconds * 1_000_000_000))


def opens(seconds: float, server: str = SERVER, payload: bytes = b"") -> list[Captured]:
    header = eth().ipv6("2001:db8::10", server) if ":" in server else eth().ipv4(CLIENT, server)
    out = [at(header.tcp(4000, 443, "S"), seconds)]
    return out + ([at(header.tcp(4000, 443, "PA", seq=1).payload(payload), seconds + 0.001)] if payload else [])


def policy(*domains: str) -> Json:
    path = "/infra/context-profiles/named"
    rules = [
        {"display_name": "dns", "source_groups": [], "services": ["/infra/services/DNS-UDP", "/infra/services/DNS"]},
        {"display_name": "named", "profiles": [path], "action": "DROP"},
        {"display_name": "rest"},
    ]
    profile = {"path": path, "resource_type": "PolicyContextProfile"}
    return [
        {"resource_type": "SecurityPolicy", "path": "/infra/p", "category": "Application", "rules": rules,
         "tcp_strict": False},
        {**profile, "attributes": [{"key": "DOMAIN_NAME", "value": list(domains)}]},
        {"virtual_machines": [{"external_id": "vm", "display_name": "vm"}],
         "virtual_network_interface": [
             {"external_id": "v", "owner_vm_id": "vm", "lport_attachment_id": "a",
              "ip_address_info": [{"ip_addresses": [CLIENT, "2001:db8::10"]}]}]},
    ]  # fmt: skip


PLAIN = [("www.example.com", A, 60, SERVER)]
ALIASED = [
    ("www.example.com", CNAME, 300, "edge.cdn.example"),
    ("edge.cdn.example", CNAME, 30, "a1.cdn.example"),
    ("a1.cdn.example", A, 60, SERVER),
]
HELLO = app_payloads.record(app_payloads.client_hello(name="front.example"))
# (sentence, domains of the rule, capture, verdict of the flow to the server)
CASES: list[tuple[str, list[str], list[Captured], str]] = [
    ("DNS answers in the capture give the name (A)", ["www.example.com"],
     [answer(response("www.example.com", PLAIN)), *opens(1)], "REJECT"),
    ("without an answer the address has no name", ["www.example.com"], opens(1), "ALLOW"),
    ("the table has AAAA as well", ["www.example.com"],
     [answer(response("www.example.com", [("www.example.com", AAAA, 60, SERVER6)])), *opens(1, SERVER6)], "REJECT"),
    ("following CNAME: the name that was asked for", ["www.example.com"],
     [answer(response("www.example.com", ALIASED)), *opens(1)], "REJECT"),
    ("following CNAME: a name in the middle", ["edge.cdn.example"],
     [answer(response("www.example.com", ALIASED)), *opens(1)], "REJECT"),
    ("following CNAME: the last name", ["*.cdn.example"],
     [answer(response("www.example.com", ALIASED)), *opens(1)], "REJECT"),
    ("records of another name than that asked for say nothing", ["bank.example"],
     [answer(response("www.example.com", [*PLAIN, ("bank.example", A, 60, SERVER)])), *opens(1)], "ALLOW"),
    ("entry valid for its TTL: within", ["www.example.com"],
     [answer(response("www.example.com", PLAIN)), *opens(59)], "REJECT"),
    ("entry valid for its TTL: after", ["www.example.com"],
     [answer(response("www.example.com", PLAIN)), *opens(61)], "ALLOW"),
    ("the shortest TTL of a chain counts", ["www.example.com"],
     [answer(response("www.example.com", ALIASED)), *opens(45)], "ALLOW"),
    ("minimum 1 s", ["www.example.com"],
     [answer(response("www.example.com", [("www.example.com", A, 0, SERVER)])), *opens(0.9)], "REJECT"),
    ("minimum 1 s, and no longer", ["www.example.com"],
     [answer(response("www.example.com", [("www.example.com", A, 0, SERVER)])), *opens(1.1)], "ALLOW"),
    ("an answer after the flow began says nothing of it", ["www.example.com"],
     [*opens(0), answer(response("www.example.com", PLAIN), at_s=1)], "ALLOW"),
    ("an answer within the life of an earlier one prolongs it", ["www.example.com"],
     [answer(response("www.example.com", PLAIN)), answer(response("www.example.com", PLAIN), at_s=50), *opens(100)],
     "REJECT"),
    ("ip -> {fqdn}: several names, and the rule names the second", ["b.example"],
     [answer(response("a.example", [("a.example", A, 60, SERVER)])),
      answer(response("b.example", [("b.example", A, 60, SERVER)])), *opens(1)], "REJECT"),
    ("case-insensitive", ["WWW.Example.COM"],
     [answer(response("www.EXAMPLE.com", [("WWW.example.com", A, 60, SERVER)])), *opens(1)], "REJECT"),
    ("leading * as suffix match", ["*-files.example.com"],
     [answer(response("my-files.example.com", [("my-files.example.com", A, 60, SERVER)])), *opens(1)], "REJECT"),
    ("over TCP, too", ["www.example.com"],
     [tcp_answer(response("www.example.com", PLAIN)), *opens(1)], "REJECT"),
    ("only from port 53", ["www.example.com"],
     [answer(response("www.example.com", PLAIN), port=5300), *opens(1)], "ALLOW"),
    ("a query says nothing", ["www.example.com"],
     [answer(response("www.example.com", PLAIN, flags=0x0100)), *opens(1)], "ALLOW"),
    ("an error says nothing", ["www.example.com"],
     [answer(response("www.example.com", PLAIN, flags=0x8183)), *opens(1)], "ALLOW"),
    ("a name that the flow tells itself counts beside the answers'", ["front.example"],
     [answer(response("www.example.com", PLAIN)), *opens(1, payload=HELLO)], "REJECT"),
    ("and the answers' beside it", ["www.example.com"],
     [answer(response("www.example.com", PLAIN)), *opens(1, payload=HELLO)], "REJECT"),
]  # fmt: skip


def judged(domains: list[str], packets: list[Captured], tmp_path: Path) -> dict[int, str]:
    """Verdict by server port."""
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap(packets))
    result = NsxImporter().load([SourceFile("policy.json", json.dumps(policy(*domains)))], ImportOptions())
    rows = [batch.row(i) for batch in Engine(result.layers).classify_pcap(path) for i in range(len(batch))]
    return {row["dst_port"] if "dst_port" in row else row["dport"]: row["action"] for row in rows}


@pytest.mark.parametrize(("sentence", "domains", "packets", "expected"), CASES, ids=[c[0] for c in CASES])
def test_the_flow_is_judged_by_the_name(
    sentence: str, domains: list[str], packets: list[Captured], expected: str, tmp_path: Path
) -> None:
    assert judged(domains, packets, tmp_path)[443] == expected


def test_a_broken_answer_says_nothing(tmp_path: Path) -> None:
    """Every prefix of a message, and a name that points at itself."""
    whole = response("www.example.com", ALIASED)
    looped = whole[:12] + b"\xc0\x0c" + whole[12 + 17 :]
    for message in [*(whole[:size] for size in range(0, len(whole), 3)), looped]:
        assert judged(["www.example.com"], [answer(message), *opens(1)], tmp_path)[443] == "ALLOW", message


def test_the_table_forgets_the_oldest_and_counts() -> None:
    table = FqdnTable(most=2)
    for second, text in enumerate(("a", "b", "c")):
        table.add([(second * 10**9, 60, address(SERVER), text)])
    v4 = int.from_bytes(address(SERVER), "big")
    assert (table.names(4, v4, 3 * 10**9), table.forgotten, len(table)) == (("b", "c"), 1, 2)


def test_one_message_gives_a_bounded_number_of_names(tmp_path: Path) -> None:
    """A chain of aliases to many addresses multiplies; what is left out is counted."""
    chain: list[Record] = [(f"n{i}", CNAME, 60, f"n{i + 1}") for i in range(50)]
    message = response("n0", chain + [("n50", A, 60, f"10.7.0.{i}") for i in range(100)])
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap([answer(message)]))
    table = flows.FlowTable()
    for _ in capture.read(path, flows=table):
        pass
    table.finish()
    assert table.dns_answers_lost == 51 * 100 - 1024
