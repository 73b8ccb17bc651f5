"""No packet is lost on the way to a verdict: rows, totals by flow and totals by packet agree, on every capture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import meshsieve
from meshsieve.errors import CaptureError

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("MESHSIEVE_SHARED", ROOT.parent / "shared" / "data"))
DEMO = ROOT / "examples" / "demo"


@pytest.fixture(scope="module")
def engine() -> meshsieve.Engine:
    return meshsieve.load([DEMO / "nsx.json", DEMO / "edge.rules"])


def agree(engine: meshsieve.Engine, capture: Path) -> None:
    by_packet = engine.classify_pcap(capture, by="packet")
    rows = sum(len(batch) for batch in by_packet)
    total = by_packet.summary().total
    by_flow = engine.classify_pcap(capture).summary()
    assert rows == total.packets, capture.name
    assert (by_flow.total.packets, by_flow.total.bytes) == (total.packets, total.bytes), capture.name
    assert sum(count.packets for count in by_flow.verdicts.values()) == total.packets, capture.name


def test_the_demo_loses_nothing(engine: meshsieve.Engine) -> None:
    agree(engine, DEMO / "demo.pcap")


@pytest.mark.parametrize("folder", ["pcaps", "hostile"])
def test_the_shared_captures_lose_nothing(engine: meshsieve.Engine, folder: str) -> None:
    captures = [path for path in sorted((DATA / folder).rglob("*")) if path.is_file() and "bomb" not in path.name]
    if not captures:
        pytest.skip(f"no captures in {DATA / folder}")
    read = 0
    for capture in captures:
        try:
            agree(engine, capture)
        except CaptureError:  # no capture at all: refused, with its reason
            continue
        read += 1
    assert read > len(captures) // 3
