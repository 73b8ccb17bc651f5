"""Conversations as code: who says what in one TCP connection, as a capture; and what we make of it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpack import Encoder

from meshsieve import http_requests
from meshsieve.http_requests import RequestOptions
from tests.capture.builder import Frame, eth, pcap

CLIENT, SERVER = "10.0.0.1", "10.0.0.2"
CLIENT_ISN, SERVER_ISN = 0xFFFFFF00, 5000  # the client's numbers wrap around

Said = Sequence[tuple[str, bytes]]  # ("c", bytes) or ("s", bytes): one segment each


def segments(said: Said, *, handshake: bool = True, close: bool = True, dport: int = 80) -> list[Frame]:
    """One frame a segment; acknowledgements are carried along."""
    frames, number = [], {"c": CLIENT_ISN + 1, "s": SERVER_ISN + 1}

    def send(who: str, flags: str, payload: bytes = b"", *, back: int = 0) -> None:
        src, dst = (CLIENT, SERVER) if who == "c" else (SERVER, CLIENT)
        ports = (4000, dport) if who == "c" else (dport, 4000)
        seq = (number[who] - back) % 2**32
        ack = number["s" if who == "c" else "c"] % 2**32
        frames.append(eth().ipv4(src, dst).tcp(*ports, flags, seq=seq, ack=ack).payload(payload))
        number[who] += len(payload)

    if handshake:
        send("c", "S", back=1)
        send("s", "SA", back=1)
    for who, text in said:
        for at in range(0, len(text), 60_000):
            send(who, "PA", text[at : at + 60_000])
    if close:
        send("c", "FA")
        send("s", "FA")
    return frames


def read(tmp_path: Path, frames: Iterable[Any], options: RequestOptions | None = None) -> tuple[list[dict], dict]:
    """Rows and the counts that are not 0."""
    path = tmp_path / "talk.pcap"
    path.write_bytes(pcap(frames))
    found = http_requests.read(path, options=options)
    rows = [batch.row(i) for batch in found for i in range(len(batch))]
    assert found.problem is None
    return rows, {name: count for name, count in found.counts.items() if count}


def shown(rows: list[dict]) -> list[str]:
    """Each request as 'METHOD authority path status: notes'."""
    out = []
    for row in rows:
        seen = row["observed"]
        text = f"{row['method']} {row['authority']} {row['path']} {seen.get('status', '-')}"
        out.append(text + (": " + " ".join(seen["notes"]) if "notes" in seen else ""))
    return out


# ---- HTTP/2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, CONTINUATION = 0, 1, 3, 4, 5, 6, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32


def frame(kind: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values: int) -> bytes:
    ids = {"header_table_size": 1, "max_frame_size": 5}
    return frame(SETTINGS, 0, b"".join(struct.pack(">HI", ids[name], value) for name, value in values.items()))


class Http2:
    """One direction's header compression and frames."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def headers(
        self, stream: int, lines: Iterable[tuple[str, str]], *, end: bool = False, piece: int = 0, huffman: bool = True
    ) -> bytes:
        """HEADERS, and CONTINUATION frames if ``piece`` bytes are the most of one frame."""
        block = self.encoder.encode(list(lines), huffman=huffman)
        pieces = [block[i : i + piece] for i in range(0, len(block), piece)] if piece else [block]
        out = b""
        for i, part in enumerate(pieces):
            flags = (END_STREAM if end and i == 0 else 0) | (END_HEADERS if i == len(pieces) - 1 else 0)
            out += frame(CONTINUATION if i else HEADERS, stream, part, flags)
        return out


def get(path: str = "/", authority: str = "a", method: str = "GET", **extra: str) -> list[tuple[str, str]]:
    pseudo = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", path)]
    return pseudo + [(name.replace("_", "-"), value) for name, value in extra.items()]
