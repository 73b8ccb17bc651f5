"""What is not an application is not taken for one: noise on known ports, and each protocol on the ports of others."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from meshsieve import apps
from tests.capture.app_payloads import TALKS, TCP, UDP, Talk
from tests.capture.test_apps import frames_of, recognise

PORTS = [
    20, 22, 23, 25, 53, 67, 80, 88, 111, 123, 135, 137, 161, 389, 443, 445, 500, 502, 514, 636, 853, 1194, 1433, 1521,
    1812, 2049, 2181, 2404, 3306, 3389, 4500, 4789, 5060, 5353, 5432, 5672, 5900, 6379, 8080, 9042, 9092, 11211, 20000,
    27017, 44818, 47808, 51820,
]  # fmt: skip
# The same messages, told apart by their ports alone.
BY_PORT = {
    "dns": {"mdns", "llmnr"}, "mdns": {"dns", "llmnr"}, "llmnr": {"dns", "mdns"}, "profinet": {"dcerpc"},
}  # fmt: skip


@pytest.mark.parametrize("transport", [TCP, UDP])
def test_noise_is_no_application_on_any_port(transport: str, tmp_path: Path) -> None:
    random.seed(11)
    frames = []
    for n, port in enumerate(port for port in PORTS for _ in range(60)):
        said = [(i % 2 == 0, random.randbytes(random.randrange(1, 400))) for i in range(random.randrange(1, 6))]
        frames += frames_of(Talk("", tuple(said), transport, port), 10000 + n)
    columns = recognise(tmp_path / "a.pcap", frames)
    assert len(columns) == 60 * len(PORTS)
    taken = Counter((app, int(port)) for app, port in zip(columns.apps, columns["dport"], strict=True) if app)
    assert not taken


@pytest.mark.parametrize("port", PORTS)
def test_a_protocol_on_the_port_of_another_is_itself(port: int, tmp_path: Path) -> None:
    """Those that ports are part of (NTP, DHCP, ...) may be unknown elsewhere; all others are recognised."""
    frames = [frame for i, talk in enumerate(TALKS) for frame in frames_of(replace(talk, port=port), 10000 + i)]
    columns = recognise(tmp_path / "a.pcap", frames)
    found = dict(zip(columns["sport"].tolist(), columns.apps, strict=True))
    wrong = []
    for i, talk in enumerate(TALKS):
        may_be = {talk.app} | BY_PORT.get(talk.app, set()) | ({""} if talk.port != 40000 else set())
        if found[10000 + i] not in may_be:
            wrong.append(f"{talk.app} on port {port} ({apps.by_port(port)}) is '{found[10000 + i]}'")
    assert not wrong
