"""Captures made up for benches: conversations whose 5-tuples lie in the rules of a generated set.

What     ``capture(packets, seed)`` gives the bytes of a pcap file and what is in it. 20 packets a conversation on
         average, few conversations with most of the packets (Zipf 1.0), their packets interleaved. TCP starts with SYN
         and SYN+ACK and ends with FIN; sizes are acknowledgements, full frames, and some between.
         One conversation in twelve is IPv6; one in ten goes to TCP port 443.
Limits   payloads are zeros and TCP and UDP checksums are 0, so nothing here exercises recognition of applications.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benches import classbench, traces
from benches.boxes import Boxes, Headers

RULES = ("fw1", 10_000)
FILTER = "tcp port 443"
TCP, UDP, ICMP = 6, 17, 1
SYN, FIN, ACK, PSH = 2, 1, 16, 8
CHUNK = 1 << 15  # packets assembled at a time, to bound memory


@dataclass(frozen=True)
class Capture:
    """rules and headers as in benches/boxes.py; judged: which packets those headers say all of (IPv4 with ports)."""

    pcap: npt.NDArray[np.uint8]
    rules: Boxes
    headers: Headers
    judged: npt.NDArray[np.bool_]
    facts: dict[str, Any]


def capture(packets: int, seed: int = 9) -> Capture:
    rng = np.random.default_rng(seed)
    rules = classbench.rules(*RULES)
    flows = traces.uniform(rules, max(packets // 20, 1), seed)
    flows[~np.isin(flows[:, 4], [TCP, UDP, ICMP]), 4] = TCP
    flows[rng.random(len(flows)) < 0.1, 3:] = (443, TCP)
    six = rng.random(len(flows)) < 1 / 12

    flow = traces.zipf_order(len(flows), 1.0, seed) if packets <= len(flows) else _zipf(rng, len(flows), packets)
    place = _place_in_flow(flow)
    last = place == np.bincount(flow, minlength=len(flows))[flow] - 1
    backwards = (place == 1) | (place > 1) & (rng.random(packets) < 0.5)
    headers = flows[flow]
    headers[backwards] = headers[backwards][:, [1, 0, 3, 2, 4]]
    flags = np.where(place == 0, SYN, np.where(place == 1, SYN | ACK, np.where(last, FIN | ACK, PSH | ACK)))
    kind = rng.random(packets)
    payload = np.where(kind < 0.45, 0, np.where(kind < 0.85, 1440, rng.integers(1, 1440, packets)))
    payload[(headers[:, 4] == TCP) & (flags & SYN != 0)] = 0
    time_us = np.cumsum(rng.integers(1, 20, packets))

    wanted = (headers[:, 4] == TCP) & ((headers[:, 2] == 443) | (headers[:, 3] == 443))
    pcap = _pcap(headers, six[flow], flags, payload, time_us)
    facts = {
        "packets": packets,
        "flows": len(np.unique(flow)),
        "bytes": len(pcap),
        "filter": FILTER,
        "matching": int(wanted.sum()),
        "rules": len(rules),
    }
    return Capture(pcap, rules, headers, ~six[flow] & (headers[:, 4] != ICMP), facts)


def _zipf(rng: np.random.Generator, flows: int, packets: int) -> npt.NDArray[np.int64]:
    """The conversation of each packet; every one has at least one packet."""
    cumulative = np.cumsum(1 / np.arange(1, flows + 1))
    more = np.searchsorted(cumulative, rng.random(packets - flows) * cumulative[-1], side="right")
    return rng.permutation(np.concatenate([np.arange(flows), more]))


def _place_in_flow(flow: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0 for the first packet of its flow, 1 for the second, ..."""
    order = np.argsort(flow, kind="stable")
    by_flow = flow[order]
    starts = np.flatnonzero(np.concatenate([[True], by_flow[1:] != by_flow[:-1]]))
    place = np.empty(len(flow), np.int64)
    place[order] = np.arange(len(flow)) - np.repeat(starts, np.diff(np.append(starts, len(flow))))
    return place


# --- bytes --------------------------------------------------------------------------------------------------------


def _pcap(headers: Headers, six: Any, flags: Any, payload: Any, time_us: Any) -> npt.NDArray[np.uint8]:
    """A little-endian pcap file, microseconds, Ethernet."""
    transport = np.select([headers[:, 4] == TCP, headers[:, 4] == UDP], [20, 8], 8)
    length = 14 + np.where(six, 40, 20) + transport + payload
    offset = 24 + np.concatenate([[0], np.cumsum(length + 16)])
    out = np.zeros(int(offset[-1]), np.uint8)
    out[:24] = np.frombuffer(np.array([0xA1B2C3D4, 0x00040002, 0, 0, 262144, 1], "<u4").tobytes(), np.uint8)
    for version in (False, True):
        for proto in (TCP, UDP, ICMP):
            rows = np.flatnonzero((six == version) & (headers[:, 4] == proto))
            for begin in range(0, len(rows), CHUNK):
                some = rows[begin : begin + CHUNK]
                front = np.concatenate(
                    [
                        _record(time_us[some], length[some]),
                        _ethernet(len(some), version),
                        (_ipv6 if version else _ipv4)(headers[some], length[some] - 14),
                        _transport(headers[some], flags[some], payload[some]),
                    ],
                    axis=1,
                )
                out[offset[some][:, None] + np.arange(front.shape[1])] = front
    return out


def _bytes(values: Any, width: int, order: str = ">") -> npt.NDArray[np.uint8]:
    """uint8 (n, width): integers in the given byte order."""
    array = np.ascontiguousarray(values, f"{order}u{width}")
    return array.view(np.uint8).reshape(len(array), width)


def _record(time_us: Any, length: Any) -> npt.NDArray[np.uint8]:
    seconds = 1_700_000_000 + time_us // 1_000_000
    return np.concatenate([_bytes(v, 4, "<") for v in (seconds, time_us % 1_000_000, length, length)], axis=1)


def _ethernet(n: int, six: bool) -> npt.NDArray[np.uint8]:
    frame = bytes.fromhex("020000000001 020000000002") + (0x86DD if six else 0x0800).to_bytes(2, "big")
    return np.tile(np.frombuffer(frame, np.uint8), (n, 1))


def _ipv4(headers: Headers, total: Any) -> npt.NDArray[np.uint8]:
    n = len(headers)
    words = np.concatenate(
        [
            _bytes(np.full(n, 0x4500), 2),
            _bytes(total, 2),
            np.zeros((n, 4), np.uint8),
            _bytes(np.full(n, 64), 1),
            _bytes(headers[:, 4], 1),
            np.zeros((n, 2), np.uint8),
            _bytes(headers[:, 0], 4),
            _bytes(headers[:, 1], 4),
        ],
        axis=1,
    )
    total16 = words.reshape(n, 10, 2).astype(np.uint32) @ np.array([256, 1], np.uint32)
    carried = total16.sum(axis=1)
    carried = (carried & 0xFFFF) + (carried >> 16)
    carried = (carried & 0xFFFF) + (carried >> 16)
    words[:, 10:12] = _bytes(~carried & 0xFFFF, 2)
    return words


def _ipv6(headers: Headers, total: Any) -> npt.NDArray[np.uint8]:
    n = len(headers)
    network = np.tile(np.frombuffer(bytes.fromhex("20010db8") + bytes(8), np.uint8), (n, 1))
    proto = np.where(headers[:, 4] == ICMP, 58, headers[:, 4])
    return np.concatenate(
        [
            _bytes(np.full(n, 0x60000000), 4),
            _bytes(total - 40, 2),
            _bytes(proto, 1),
            _bytes(np.full(n, 64), 1),
            network,
            _bytes(headers[:, 0], 4),
            network,
            _bytes(headers[:, 1], 4),
        ],
        axis=1,
    )


def _transport(headers: Headers, flags: Any, payload: Any) -> npt.NDArray[np.uint8]:
    """All rows have the protocol of the first."""
    n = len(headers)
    if headers[0, 4] == ICMP:
        return np.tile(np.frombuffer(bytes.fromhex("0800 0000 0001 0001"), np.uint8), (n, 1))
    ports = np.concatenate([_bytes(headers[:, 2], 2), _bytes(headers[:, 3], 2)], axis=1)
    if headers[0, 4] == UDP:
        return np.concatenate([ports, _bytes(payload + 8, 2), np.zeros((n, 2), np.uint8)], axis=1)
    numbers = np.zeros((n, 8), np.uint8)
    rest = [_bytes(np.full(n, 0x50), 1), _bytes(flags, 1), _bytes(np.full(n, 0xFFFF), 2), np.zeros((n, 4), np.uint8)]
    return np.concatenate([ports, numbers, *rest], axis=1)
