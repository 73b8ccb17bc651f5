"""HTTP/2 and gRPC requests out of captures; header compression against the hpack package."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from meshsieve import http_requests
from tests.capture.builder import pcap
from tests.http.talk import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    Http2,
    Said,
    frame,
    get,
    read,
    segments,
    settings,
    shown,
)  # fmt: skip

OPEN, ANSWER_OPEN = PREFACE + settings(), settings() + frame(SETTINGS, flags=1)
OK = [(":status", "200")]


def conversation(client: bytes, server: bytes) -> Said:
    return [("c", OPEN + client), ("s", ANSWER_OPEN + server)]


def asked(*paths: str) -> bytes:
    c = Http2()
    return b"".join(c.headers(1 + 2 * i, get(path), end=True) for i, path in enumerate(paths))


def answered(*streams: int, body: bytes = b"") -> bytes:
    s = Http2()
    return b"".join(
        s.headers(i, OK, end=not body) + (frame(DATA, i, body, END_STREAM) if body else b"") for i in streams
    )


CASES = [
    #  what it shows                  client                                     server
    ("a request and its answer", asked("/x"), answered(1), ["GET a /x 200"]),
    ("answers in another order", asked("/x", "/y"), answered(3, 1, body=b"ab"), ["GET a /y 200", "GET a /x 200"]),
    ("the table is kept between requests", asked("/same", "/same"), answered(1, 3), ["GET a /same 200"] * 2),
    ("a block in many frames", Http2().headers(1, get("/" + "p" * 300), end=True, piece=7), answered(1),
     [f"GET a /{'p' * 300} 200"]),
    ("other frames are passed over", frame(PING, 0, b"12345678") + frame(99, 0, b"?") + asked("/x"), answered(1),
     ["GET a /x 200"]),
    ("padding and priority",
     frame(HEADERS, 1, b"\3" + b"\0\0\0\0\7" + Http2().encoder.encode(get("/x")) + b"\0\0\0",
           END_STREAM | END_HEADERS | PADDED | PRIORITY), answered(1), ["GET a /x 200"]),
    ("interim answers are none", asked("/x"),
     (lambda s: s.headers(1, [(":status", "103")]) + s.headers(1, OK, end=True))(Http2()), ["GET a /x 200"]),
    ("no answer", asked("/x"), b"", ["GET a /x -: no_response"]),
    ("reset", asked("/x"), frame(RST_STREAM, 1, b"\0\0\0\5"), ["GET a /x -: no_response reset"]),
    ("a request that does not end", Http2().headers(1, get("/x")), answered(1), ["GET a /x 200: request_cut"]),
    ("host instead of :authority",
     Http2().headers(1, [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "b")], end=True),
     answered(1), ["GET b / 200"]),
    ("host that differs", Http2().headers(1, get("/", host="b"), end=True), answered(1), ["GET a / 200: bad_host"]),
    ("a header of the connection", Http2().headers(1, get("/", transfer_encoding="chunked"), end=True), answered(1),
     ["GET a / 200: bad_header"]),
    ("CONNECT", Http2().headers(1, [(":method", "CONNECT"), (":authority", "b:1")]), answered(1),
     ["CONNECT b:1  200: request_cut"]),
]  # fmt: skip


@pytest.mark.parametrize(("client", "server", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_requests(client, server, expected, tmp_path: Path) -> None:
    rows, counts = read(tmp_path, segments(conversation(client, server)))
    assert shown(rows) == expected
    assert counts["http2_connections"] == 1
    assert "unread_bytes" not in counts


@pytest.mark.parametrize(("client", "server", "expected"), [c[1:] for c in CASES[:6]], ids=[c[0] for c in CASES[:6]])
def test_any_cut_into_segments_gives_the_same_rows(client, server, expected, tmp_path: Path) -> None:
    client, server = OPEN + client, ANSWER_OPEN + server
    for cut in range(1, len(client)):
        rows, _ = read(tmp_path, segments([("c", client[:cut]), ("c", client[cut:]), ("s", server)]))
        assert shown(rows) == expected, cut
    for cut in range(1, len(server)):
        rows, _ = read(tmp_path, segments([("c", client), ("s", server[:cut]), ("s", server[cut:])]))
        assert shown(rows) == expected, cut


MALFORMED = [
    #  what it shows            header lines                                                     count
    ("no method", [(":scheme", "http"), (":path", "/"), (":authority", "a")], "incomplete_requests"),
    ("no path", [(":scheme", "http"), (":method", "GET"), (":authority", "a")], "incomplete_requests"),
    ("a pseudo-header twice", [*get("/"), (":path", "/admin")], "incomplete_requests"),
    ("a pseudo-header after others", [("x", "1"), *get("/")], "incomplete_requests"),
    ("an unknown pseudo-header", [*get("/"), (":x", "1")], "incomplete_requests"),
]


@pytest.mark.parametrize(("lines", "count"), [c[1:] for c in MALFORMED], ids=[c[0] for c in MALFORMED])
def test_a_malformed_request_is_counted_and_the_connection_goes_on(lines, count, tmp_path: Path) -> None:
    c = Http2()
    client = c.headers(1, lines, end=True) + c.headers(3, get("/x"), end=True)
    rows, counts = read(tmp_path, segments(conversation(client, answered(1, 3))))
    assert shown(rows) == ["GET a /x 200"]
    assert counts[count] == 1


BROKEN = [
    #  what it shows                        frames                                               count
    ("another frame inside a block", frame(HEADERS, 1, b"\x82") + frame(PING, 0, b"12345678"), "bad_frame"),
    ("CONTINUATION of another stream", frame(HEADERS, 1, b"\x82") + frame(CONTINUATION, 3, b"\x84", 4), "bad_frame"),
    ("CONTINUATION of nothing", frame(CONTINUATION, 1, b"\x82", 4), "bad_frame"),
    ("HEADERS of stream 0", frame(HEADERS, 0, b"\x82", 4), "bad_frame"),
    ("HEADERS of an even stream", frame(HEADERS, 2, b"\x82", 4), "bad_frame"),
    ("more padding than frame", frame(HEADERS, 1, b"\x09\x82", 4 | PADDED), "bad_frame"),
    ("DATA with more padding than frame", frame(DATA, 1, b"\x09x", PADDED), "bad_frame"),
    ("a promise of the client", frame(PUSH_PROMISE, 1, b"\0\0\0\2\x82", 4), "bad_frame"),
    ("settings of odd length", frame(SETTINGS, 0, b"12345"), "bad_frame"),
    ("index 0", frame(HEADERS, 1, b"\x80", 4), "bad_compression"),
    ("an index that is not there", frame(HEADERS, 1, b"\xfe", 4), "bad_compression"),
    ("a string longer than the block", frame(HEADERS, 1, b"\x40\x7f\xff\xff\xff\x0f", 4), "bad_compression"),
    ("a number that never ends", frame(HEADERS, 1, b"\xff" + b"\xff" * 20, 4), "bad_compression"),
    ("Huffman end of string", frame(HEADERS, 1, b"\x40\x84\xff\xff\xff\xff\x00", 4), "bad_compression"),
    ("Huffman padding of zeros", frame(HEADERS, 1, b"\x40\x81\x18\x00", 4), "bad_compression"),
    ("a table larger than allowed", frame(HEADERS, 1, b"\x3f\xe2\x1f\x82", 4), "bad_compression"),
    ("a block of too many frames", frame(HEADERS, 1, b"\x82") + frame(CONTINUATION, 1, b"\x82" * 16384) * 17,
     "head_too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("broken", "count"), [c[1:] for c in BROKEN], ids=[c[0] for c in BROKEN])
def test_what_breaks_a_connection_is_counted_and_what_came_before_stays(broken, count, tmp_path: Path) -> None:
    c = Http2()
    client = c.headers(1, get("/x"), end=True) + broken
    rows, counts = read(tmp_path, segments(conversation(client + c.headers(5, get("/y"), end=True), answered(1))))
    assert shown(rows) == ["GET a /x 200"]
    assert counts[count] == 1
    assert counts["unread_bytes"] > 0


def test_a_header_bomb_is_cut_and_the_connection_goes_on(tmp_path: Path) -> None:
    c = Http2()
    first = c.headers(1, [*get("/"), ("x", "v" * 3000)], end=True)
    bomb = frame(HEADERS, 3, b"\x82\x86\x84\x41\x01a" + b"\xbf" * 16000, END_STREAM | END_HEADERS)
    rows, counts = read(tmp_path, segments(conversation(first + bomb, answered(1, 3))))
    assert shown(rows) == ["GET a / 200", "GET a / 200: headers_left_out"]
    assert len(rows[1]["headers"]) < 128 * 1024 / 3000
    assert "unread_bytes" not in counts


def test_a_name_outlives_the_entry_that_it_is_taken_from(tmp_path: Path) -> None:
    """A literal takes its name from the entry which it drives out of the table."""
    size = b"\x7f\xd0\x1e"  # 4,047: name, value and 32 bytes fill the table nearly
    head = b"\x82\x86\x84\x01\x01a"
    first = head + b"\x40\x05x-abc" + size + b"v" * 4047 + b"\x7e" + size + b"w" * 4047
    client = frame(HEADERS, 1, first, END_STREAM | END_HEADERS)
    client += frame(HEADERS, 3, head + b"\xbe", END_STREAM | END_HEADERS)
    rows, counts = read(tmp_path, segments(conversation(client, answered(1, 3))))
    v, w = ("x-abc", "v" * 4047), ("x-abc", "w" * 4047)
    assert [[tuple(line) for line in row["headers"]] for row in rows] == [[v, w], [w]]
    assert "unread_bytes" not in counts


def test_grpc(tmp_path: Path) -> None:
    c, s = Http2(), Http2()
    client = c.headers(1, get("/shop.Cart/Add", method="POST", content_type="application/grpc+proto", te="trailers"))
    client += frame(DATA, 1, b"\0\0\0\0\3abc", END_STREAM)
    server = s.headers(1, [*OK, ("content-type", "application/grpc")]) + frame(DATA, 1, b"\0\0\0\0\0")
    server += s.headers(1, [("grpc-status", "7"), ("grpc-message", "no")], end=True)
    rows, _ = read(tmp_path, segments(conversation(client, server)))
    seen = rows[0]["observed"]
    assert (seen["grpc_service"], seen["grpc_method"], seen["grpc_status"]) == ("shop.Cart", "Add", 7)
    assert (seen["status"], seen["request_body_bytes"], seen["response_body_bytes"]) == (200, 8, 5)


def test_an_upgrade_to_http2_goes_on_with_stream_1(tmp_path: Path) -> None:
    wanted = base64.urlsafe_b64encode(settings(header_table_size=0)[9:]).rstrip(b"=")
    upgrade = b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    upgrade += b"HTTP2-Settings: " + wanted + b"\r\n\r\n"
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    later = Http2().headers(3, get("/second"), end=True)
    server = ANSWER_OPEN + answered(1, 3)
    for said in (
        [("c", upgrade), ("s", switching + server), ("c", OPEN + later)],
        [("c", upgrade + OPEN), ("s", switching), ("s", settings()), ("c", later), ("s", answered(1, 3))],
    ):
        rows, counts = read(tmp_path, segments(said))
        assert sorted(shown(rows))[0] == "GET a /first 200"
        assert [row["observed"].get("upgrade") for row in rows if row["path"] == "/first"] == ["h2c"]
        assert counts["http2_connections"] == counts["upgrades"] == 1


def test_a_server_may_speak_first(tmp_path: Path) -> None:
    said = [("s", settings()), ("c", OPEN + asked("/x")), ("s", answered(1))]
    assert shown(read(tmp_path, segments(said))[0]) == ["GET a /x 200"]


def test_a_connection_that_was_picked_up_in_the_middle(tmp_path: Path) -> None:
    c, s = Http2(), Http2()
    said = [
        ("c", OPEN + c.headers(1, get("/old", "shop"), end=True)), ("s", ANSWER_OPEN + s.headers(1, OK, end=True)),
        ("c", c.headers(3, get("/new", "shop"), end=True)), ("s", s.headers(3, OK, end=True)),
        ("c", c.headers(5, get("/new", "shop"), end=True)), ("s", s.headers(5, OK, end=True)),
    ]  # fmt: skip
    rows, _ = read(tmp_path, segments(said)[4:])  # the table entry of "shop" was not captured, that of /new was
    assert shown(rows) == ["GET  /new 200: picked_up bad_host headers_missing"] * 2


def test_a_hole_ends_neither_connection_nor_table(tmp_path: Path) -> None:
    c, s = Http2(), Http2()
    said = [("c", OPEN), ("s", ANSWER_OPEN)]
    for i in range(5):
        said += [("c", c.headers(1 + 2 * i, get(f"/{i}"), end=True)), ("s", s.headers(1 + 2 * i, OK, end=True))]
    frames = segments(said)
    del frames[2 + 4]  # the client's second request
    rows, counts = read(tmp_path, frames)
    assert [row["path"] for row in rows] == ["/0", "/2", "/3", "/4"]
    assert all("after_gap" in row["observed"]["notes"] for row in rows[1:])
    assert (counts["gaps"], counts["responses_unmatched"]) == (1, 1)


names = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(
    lambda n: n not in {"connection", "host", "te", "upgrade", "keep-alive", "proxy-connection", "transfer-encoding"}
)
values = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=60).map(
    lambda v: v.encode("latin-1").decode("utf-8", "surrogateescape")
)
lines = st.lists(st.tuples(names, values), max_size=12)


@examples(max_examples=60, deadline=None)
@given(
    st.lists(lines, min_size=1, max_size=8),
    st.sampled_from([0, 64, 300, 4096]),
    st.integers(0, 50),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_header_lines_are_what_the_hpack_package_encoded(requests, table, piece, huffman, chance) -> None:
    c, s = Http2(), Http2()
    if table != 4096:
        c.encoder.header_table_size = table
    client, server = OPEN, settings(header_table_size=table)
    for i, extra in enumerate(requests):
        raw = [(n.encode(), v.encode("utf-8", "surrogateescape")) for n, v in extra]
        pseudo = [(n.encode(), v.encode()) for n, v in get(f"/{i % 3}")]
        client += c.headers(1 + 2 * i, pseudo + raw, end=True, piece=piece, huffman=huffman)
        server += s.headers(1 + 2 * i, OK, end=True)
    cuts = sorted(chance.sample(range(1, len(client)), min(5, len(client) - 1)))
    parts = [client[a:b] for a, b in zip([0, *cuts], [*cuts, len(client)], strict=True)]
    capture = pcap(segments([("s", settings(header_table_size=table)), *(("c", p) for p in parts), ("s", server)]))
    with tempfile.NamedTemporaryFile() as file:
        file.write(capture)
        file.flush()
        rows = [batch.row(i) for batch in http_requests.read(file.name) for i in range(len(batch))]
    assert [list(row["headers"]) for row in rows] == requests
    assert [row["path"] for row in rows] == [f"/{i % 3}" for i in range(len(requests))]
