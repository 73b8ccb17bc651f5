"""Seeds and regressions of the fuzz targets, through Python: each ends in a result or a named refusal."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from meshsieve import _core, _fast, capture, flows, http_requests
from meshsieve.errors import CaptureError, TableError
from tests.capture.builder import Captured, eth, pcap
from tests.differential.worlds import FIVE_TUPLE, World
from tests.fuzz.seeds import MARK, SEEDS
from tests.http.talk import PREFACE, frame, segments

HERE = Path(__file__).parent
LINK_TYPES = [number for number in range(512) if _core.link_type_is_known(number)]


def _conversation(data: bytes, before: bytes = b"") -> bytes:
    client, _, server = data.partition(MARK)
    return pcap(segments([("c", before + client), ("s", server)]))


def _segments(data: bytes) -> bytes:
    frames, at = [eth().ipv4().tcp(flags="S", seq=99)], 0
    while at + 3 <= len(data):
        offset, size = struct.unpack_from(">HB", data, at)
        payload = data[at + 3 : at + 3 + size] if offset < 0xFFFE else b""
        frames.append(eth().ipv4().tcp(seq=100 + offset).payload(payload))
        at += 3 + len(payload)
    return pcap(frames)


def _fragments(data: bytes) -> bytes:
    frames, at = [], 0
    while at + 3 <= len(data):
        place, size = struct.unpack_from(">HB", data, at)
        payload = data[at + 3 : at + 3 + size]
        frame = eth().ipv4(proto=17, ident=7, more=place >> 15 != 0, offset=(place & 0x1FFF) * 8)
        frames.append(frame.payload(payload))
        at += 3 + len(payload)
    return pcap(frames)


def _blocks(data: bytes) -> bytes:
    out, stream = b"", 1
    while data:
        size = len(data) - 1 if data[0] == 255 else data[0]
        out, data, stream = out + frame(1, stream, data[1 : 1 + size], 5), data[1 + size :], stream + 2
    return _conversation(out, PREFACE)


# What a target's input is as a capture; targets/*.cpp say the same.
CAPTURES = {
    "capture": bytes,
    "packet": lambda d: pcap([Captured(d[1:])], link_type=LINK_TYPES[d[0] % len(LINK_TYPES)]) if d else b"",
    "reassembly": _segments,
    "fragments": _fragments,
    "http1": _conversation,
    "http2": lambda d: _conversation(d, PREFACE),
    "hpack": _blocks,
    "client_hello": lambda d: pcap(segments([("c", d)], dport=443)),
    "dns": lambda d: pcap([eth().ipv4().udp(5353, 53).payload(d)]),
    "first_payload": lambda d: pcap(
        [eth().ipv4().udp(40000, 53).payload(d[2:])] if d[:1] and d[0] % 2 else segments([("c", d[2:])])
    ),
}


def cases() -> list[tuple[str, bytes]]:
    out = [(target, seed) for target, seeds in SEEDS.items() for seed in seeds]
    for path in sorted((HERE / "regressions").glob("*/*")):
        out.append((path.parent.name, path.read_bytes()))
    return out


def test_every_target_has_seeds_and_a_replay() -> None:
    targets = {path.stem for path in (HERE / "targets").glob("*.cpp")}
    assert targets == set(SEEDS) == {*CAPTURES, "saved_table"}


def replay_table(data: bytes) -> None:
    try:
        classifier, rules, _ = _core.load_classifier(_core.Image.of(_core.seal(data[: len(data) // 64 * 64])))
    except TableError:
        return
    headers = World(1, FIVE_TUPLE).packets(100)
    out = np.empty(100, np.int32)
    _fast.Lookup(classifier.capsule).batch(headers.pairs(), headers.present, out)
    assert out.max() < len(rules)
    assert out.min() >= -len(rules) - 1


@pytest.mark.parametrize(("target", "data"), cases(), ids=lambda value: value if isinstance(value, str) else None)
def test_replay(target: str, data: bytes, tmp_path: Path) -> None:
    if target == "saved_table":
        return replay_table(data)
    path = tmp_path / "seed.pcap"
    path.write_bytes(CAPTURES[target](data))
    try:
        columns = flows.read(path)
        requests = http_requests.read(path)
        rows = sum(map(len, requests))
    except CaptureError:
        return
    assert columns.stats is not None
    assert columns.stats["packets"] == sum(map(len, capture.read(path)))
    assert rows == requests.counts["requests"]
