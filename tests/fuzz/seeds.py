"""Where the fuzz targets begin: inputs made by code, by target. targets/*.cpp say what an input is."""

from __future__ import annotations

import gzip
import struct

from meshsieve import _core
from meshsieve.model import RuleSet
from tests.capture.builder import Frame, block, enhanced, eth, interface, obsolete, pcap, pcapng, section, simple
from tests.differential.worlds import FIVE_TUPLE, World
from tests.http.talk import DATA, END_STREAM, Http2, frame, get, segments, settings

MARK = b"--8<--"


def _saved_tables() -> list[bytes]:
    world = World(1, FIVE_TUPLE, sets_a_field=3)
    rules = world.rules(6, skips=0.2)
    return [
        _core.save_classifier(_core.compile(some.native, engine), [])
        for engine, _ in _core.engines()
        for some in (rules, RuleSet())
    ]


def _client_hello(name: bytes = b"a.example") -> bytes:
    def field(size: int, body: bytes) -> bytes:
        return struct.pack(">I", len(body))[4 - size :] + body

    names = field(2, field(2, b"\0" + field(2, name)))
    alpn = field(2, field(2, field(1, b"h2") + field(1, b"http/1.1")))
    versions = field(2, field(1, b"\x0a\x0a\x03\x04\x03\x03"))
    groups = field(2, field(2, b"\x00\x1d\x00\x17"))
    extensions = b"\x00\x00" + names + b"\x00\x10" + alpn + b"\x00\x2b" + versions + b"\x00\x0a" + groups
    body = b"\x03\x03" + b"r" * 32 + field(1, b"s" * 32) + field(2, b"\x13\x01\xc0\x2f") + field(1, b"\0")
    return b"\x16\x03\x01" + field(2, b"\x01" + field(3, body + field(2, extensions)))


def _dns(kind: int = 1) -> bytes:
    question = b"\3www\7example\0" + struct.pack(">HH", kind, 1)
    answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + b"\x0a\0\0\1"
    return struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0) + question + answer


GET = b"GET /x?y HTTP/1.1\r\nHost: a\r\nCookie: b\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
CONNECT = b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"

_FRAMES: list[Frame] = [
    eth().ipv4().tcp(1000, 80, "S"),
    eth().vlan(5).vlan(6).ipv6().extension("hopbyhop").fragment(more=True).udp().payload(_dns()),
    eth().mpls(3).mpls(4).ipv4(options=b"\1" * 8).icmp(3, 1).ipv4().udp(1, 2),
    eth().ipv4().udp(1, 4789).vxlan(9).eth().ipv4().tcp().payload(GET),
    eth().ipv4().udp(1, 6081).geneve(9, b"\0" * 8).eth().ipv6().udp(),
    eth().ipv4().udp(1, 2152).gtpu(5).ipv4().tcp(),
    eth().ipv4().gre(key=1, sequence=2).erspan2(4).eth().ipv4().sctp(1, 2),
    eth().pppoe().ppp().ipv6().ah().udp(),
]
_FIRST, _MIDDLE = b"\x80\0\x10" + b"u" * 8 + b"8 bytes!", b"\x80\2\x08" + b"and more"
_h, _s = Http2(), Http2()
_H2_CLIENT = settings() + _h.headers(1, get("/x", content_type="application/grpc"), piece=9) + frame(DATA, 1, b"abc", 9)
_H2_CLIENT += _h.headers(3, get("/x"), end=True)
_H2_SERVER = settings() + _s.headers(1, [(":status", "200")]) + frame(DATA, 1, b"ok")
_H2_SERVER += _s.headers(1, [("grpc-status", "0")], end=True) + frame(DATA, 3, b"", END_STREAM)
_BLOCKS = [Http2().encoder.encode(get("/x")), Http2().encoder.encode(get("/y", x="1"), huffman=False)]

SEEDS: dict[str, list[bytes]] = {
    "capture": [
        pcap(_FRAMES), pcap(_FRAMES, order=">", nano=False), pcap(_FRAMES, modified=True), pcapng(_FRAMES),
        pcapng(_FRAMES, order=">"), gzip.compress(pcap(_FRAMES)), pcap(segments([("c", GET + POST), ("s", OK + OK)])),
        section() + interface(resolution=0x8A, offset_s=5) + simple(_FRAMES[0].bytes())
        + obsolete(_FRAMES[1].bytes(), 9) + block(5, b"statistics") + section(order=">")
        + interface(101, order=">") + enhanced(_FRAMES[2].bytes()[14:], 7, order=">"),
    ],
    "packet": [bytes([1]) + f.bytes() for f in _FRAMES] + [bytes([i]) + _FRAMES[0].bytes()[14:] for i in range(24)],
    "reassembly": [
        b"\0\0\3abc\0\6\3ghi\0\3\3def", b"\0\2\5cdefg\0\0\4abXX\0\1\7bcdefgh", b"\0\5\1x\xff\xff\0\0\6\2yz\xff\xfe\1",
    ],
    "fragments": [
        _FIRST + _MIDDLE + b"\0\3\3end", b"\0\3\3end" + _MIDDLE + _MIDDLE + _FIRST, _FIRST + b"\0\1\5other" + _MIDDLE,
        _FIRST + b"\x80\2\x08" + b"or other" + _MIDDLE + b"\0\3\3end",
    ],
    "http1": [
        GET + MARK + OK, POST + GET + MARK + OK + OK, UPGRADE + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _H2_CLIENT + MARK
        + SWITCH + _H2_SERVER, CONNECT + GET + MARK + b"HTTP/1.1 200 O\r\n\r\n" + OK,
        b"HEAD / HTTP/1.0\n\n" + MARK + b"HTTP/1.0 200 OK\n\nuntil the end",
        b"GET http://a/ HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    "http2": [_H2_CLIENT + MARK + _H2_SERVER],
    "hpack": [b"".join(bytes([len(b)]) + b for b in _BLOCKS * 2), b"\x02\x3f\x00\xff" + _BLOCKS[1]],
    "client_hello": [_client_hello(), _client_hello(b"x" * 200)],
    "dns": [_dns(), _dns(65)],
    "saved_table": _saved_tables(),
    "first_payload": [
        b"\0\x0c" + _client_hello(), b"\1\4" + _dns(), b"\0\x1d" + GET, b"\0\1SSH-2.0-x\r\n", b"\0\3EHLO a\r\n",
        b"\0\x15" + b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0", b"\0\x1c*1\r\n$4\r\nPING\r\n",
        b"\1\x0a0&\2\1\1\4\6public\xa0\x19\2\1\1\2\1\0\2\1\x000\x0e0\x0c\6\x08+\6\1\2\1\1\1\0\5\0",
    ],
}  # fmt: skip
