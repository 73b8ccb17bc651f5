"""HTTP/1 requests out of captures: what is a message, what answers what, and what can be read in two ways."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from meshsieve.http_requests import RequestOptions
from tests.capture.builder import eth
from tests.http.talk import CLIENT, CLIENT_ISN, SERVER, read, segments, shown

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n1\r\nd\r\n0\r\nTrailer: 1\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"


def ask(*lines: str, body: bytes = b"", target: str = "/", version: str = "1.1") -> bytes:
    return "\r\n".join([f"POST {target} HTTP/{version}", "Host: a", *lines, "", ""]).encode() + body


MESSAGES = [
    #  what it shows                          client says                                    server says
    ("a request and its answer", [GET], [OK], ["GET a /x 200"]),
    ("pipelined", [GET + GET], [OK + OK], ["GET a /x 200", "GET a /x 200"]),
    ("a body that looks like a request", [POST + GET], [OK + OK], ["POST a /p 200", "GET a /x 200"]),
    ("a chunked answer", [GET + GET], [CHUNKED + OK], ["GET a /x 200", "GET a /x 200"]),
    ("an answer that ends with the connection", [GET], [b"HTTP/1.0 200 OK\r\n\r\nall of it"], ["GET a /x 200"]),
    ("HEAD has no body", [b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET],
     [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + OK], ["HEAD a / 200", "GET a /x 200"]),
    ("304 has none", [GET + GET], [b"HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n" + OK],
     ["GET a /x 304", "GET a /x 200"]),
    ("interim answers are none", [POST], [b"HTTP/1.1 100 Continue\r\n\r\n" + OK], ["POST a /p 200"]),
    ("empty lines before a request", [b"\r\n" + GET + b"\r\n" + GET], [OK + OK], ["GET a /x 200", "GET a /x 200"]),
    ("absolute target", [b"GET http://b:81/y?z HTTP/1.1\r\nHost: b:81\r\n\r\n"], [OK], ["GET b:81 /y?z 200"]),
    ("absolute target without path", [b"GET http://b?z HTTP/1.1\r\nHost: b\r\n\r\n"], [OK], ["GET b /?z 200"]),
    ("the whole server", [b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"], [OK], ["OPTIONS a * 200"]),
    ("HTTP/1.0 without Host", [b"GET / HTTP/1.0\r\n\r\n"], [OK], ["GET  / 200"]),
    ("no answer", [GET], [], ["GET a /x -: no_response"]),
    ("half an answer", [GET], [OK[:-1]], ["GET a /x 200: response_cut"]),
    ("half a body", [POST[:-1]], [], ["POST a /p -: request_cut no_response"]),
]  # fmt: skip


@pytest.mark.parametrize(("client", "server", "expected"), [c[1:] for c in MESSAGES], ids=[c[0] for c in MESSAGES])
def test_messages(client, server, expected, tmp_path: Path) -> None:
    said = [("c", part) for part in client] + [("s", part) for part in server]
    rows, counts = read(tmp_path, segments(said))
    assert shown(rows) == expected
    assert counts["requests"] == len(expected)


@pytest.mark.parametrize("which", range(len(MESSAGES)), ids=[c[0] for c in MESSAGES])
def test_any_cut_into_segments_gives_the_same_rows(which, tmp_path: Path) -> None:
    _, client, server, expected = MESSAGES[which]
    both = [("c", b"".join(client))] + ([("s", b"".join(server))] if server else [])
    for who, text in both:
        for cut in range(1, len(text)):
            said = []
            for speaker, words in both:
                said += [(speaker, words[:cut]), (speaker, words[cut:])] if speaker == who else [(speaker, words)]
            rows, _ = read(tmp_path, segments(said))
            assert shown(rows) == expected, (who, cut)
    bytewise = [(who, text[i : i + 1]) for who, text in both for i in range(len(text))]
    rows, _ = read(tmp_path, segments(bytewise))
    assert shown(rows) == expected


TWO_READINGS = [
    #  what it shows                     what the client says, then GET /x        rows
    ("length and chunked: chunked", ask("Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
     ["POST a / 200: length_and_chunked", "GET a /x 200: after_ambiguous"]),
    ("two lengths", ask("Content-Length: 0", "Content-Length: 5", body=b"12345"),
     ["POST a / 200: bad_length request_cut"]),
    ("one length twice", ask("Content-Length: 2", "Content-Length: 2", body=b"12"),
     ["POST a / 200: repeated_length", "GET a /x 200"]),
    ("a list of one length", ask("Content-Length: 2, 2", body=b"12"),
     ["POST a / 200: repeated_length", "GET a /x 200"]),
    ("a length with zeros before it", ask("Content-Length: 00000000000000000000002", body=b"12"),
     ["POST a / 200", "GET a /x 200"]),
    ("signed length", ask("Content-Length: +2", body=b"12"), ["POST a / 200: bad_length request_cut"]),
    ("hexadecimal length", ask("Content-Length: 0x2", body=b"12"), ["POST a / 200: bad_length request_cut"]),
    ("empty length", ask("Content-Length: "), ["POST a / 200: bad_length request_cut"]),
    ("length that wraps", ask("Content-Length: 18446744073709551618", body=b"12"),
     ["POST a / 200: bad_length request_cut"]),
    ("blank before the colon", ask("Content-Length : 2", body=b"12"),
     ["POST a / 200: bad_length bad_header request_cut"]),
    ("coding that is not chunked", ask("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding request_cut"]),
    ("chunked is not last", ask("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding request_cut"]),
    ("chunked twice", ask("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding request_cut"]),
    ("chunked with a tab inside", ask("Transfer-Encoding: chu\tnked", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding request_cut"]),
    ("chunked in a folded line", ask("Transfer-Encoding:", " chunked", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding folded_header request_cut"]),
    ("blank before the colon of the coding", ask("Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding bad_header request_cut"]),
    ("control byte in the coding", ask("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
     ["POST a / 200: bad_transfer_coding bad_header request_cut"]),
    ("chunked in HTTP/1.0", ask("Transfer-Encoding: chunked", body=b"0\r\n\r\n", version="1.0"),
     ["POST a / 200: bad_transfer_coding request_cut"]),
    ("gzip, chunked is chunked", ask("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
     ["POST a / 200", "GET a /x 200"]),
    ("chunk size with a prefix", ask("Transfer-Encoding: chunked", body=b"0x0\r\n\r\n"),
     ["POST a / 200: bad_chunk request_cut"]),
    ("chunk size that wraps", ask("Transfer-Encoding: chunked", body=b"10000000000000000\r\n"),
     ["POST a / 200: bad_chunk request_cut"]),
    ("chunk that is longer than it says", ask("Transfer-Encoding: chunked", body=b"1\r\nab\r\n0\r\n\r\n"),
     ["POST a / 200: bad_chunk request_cut"]),
    ("LF in a chunk extension", ask("Transfer-Encoding: chunked", body=b"2;\nxx\r\n0\r\n\r\n"),
     ["POST a / 200: bad_chunk bare_lf request_cut"]),
    ("two hosts", ask("Host: b"), ["POST  / 200: bad_host", "GET a /x 200"]),
    ("no host", b"GET / HTTP/1.1\r\n\r\n", ["GET  / 200: bad_host", "GET a /x 200"]),
    ("host and target differ", ask(target="http://b/"), ["POST b / 200: bad_host", "GET a /x 200"]),
    ("header name with a blank", ask("X y: 1"), ["POST a / 200: bad_header", "GET a /x 200"]),
    ("header line without colon", ask("hello"), ["POST a / 200: bad_header", "GET a /x 200"]),
    ("lines that end in LF", b"GET / HTTP/1.1\nHost: a\n\n", ["GET a / 200: bare_lf", "GET a /x 200"]),
    ("a target that is none", b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", ["GET a x 200: bad_target", "GET a /x 200"]),
]  # fmt: skip


@pytest.mark.parametrize(("first", "expected"), [c[1:] for c in TWO_READINGS], ids=[c[0] for c in TWO_READINGS])
def test_a_request_that_can_be_read_in_two_ways(first, expected, tmp_path: Path) -> None:
    rows, _ = read(tmp_path, segments([("c", first + GET), ("s", OK + OK)]))
    assert shown(rows) == expected


def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    rows, counts = read(tmp_path, segments([("c", GET + b"nonsense\r\n"), ("s", OK)]))
    assert shown(rows) == ["GET a /x 200"]
    assert (counts["bad_start_line"], counts["unread_bytes"]) == (1, 10)


NOT_HTTP = [
    ("SMTP", b"EHLO x\r\n", b"220 hello\r\n"),
    ("NATS", b'CONNECT {"verbose":false}\r\n', b"INFO {}\r\n"),
    ("SIP", b"OPTIONS sip:a SIP/2.0\r\n\r\n", b"SIP/2.0 200 OK\r\n\r\n"),
    ("RTSP", b"OPTIONS rtsp://a RTSP/1.0\r\n\r\n", b"RTSP/1.0 200 OK\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x03\x00\x05hello"),
    ("HTTP/0.9", b"GET /\r\n", b"<html>"),
]


@pytest.mark.parametrize(("client", "server"), [c[1:] for c in NOT_HTTP], ids=[c[0] for c in NOT_HTTP])
def test_other_protocols_are_left_alone(client, server, tmp_path: Path) -> None:
    assert read(tmp_path, segments([("c", client), ("s", server)])) == ([], {})


def test_any_port_and_any_order_of_segments(tmp_path: Path) -> None:
    frames = segments([("c", GET[:9]), ("c", GET[9:20]), ("c", GET[20:]), ("s", OK)], dport=12345)
    frames[2:5] = [frames[4], frames[2], frames[3]]
    assert shown(read(tmp_path, frames)[0]) == ["GET a /x 200"]


def test_segments_in_ip_fragments_are_read_whole(tmp_path: Path) -> None:
    first = b"GET /one HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200 + b"\r\n\r\n"
    second = b"GET /two HTTP/1.1\r\nHost: a\r\n\r\n"
    frames = segments([("c", first), ("s", b"HTTP/1.1 204 No\r\n\r\n"), ("c", second)])
    datagram = frames[2].bytes()[34:]  # behind Ethernet and IPv4
    cuts = [0, 48, 104, len(datagram)]
    fragments = [
        eth().ipv4(CLIENT, SERVER, proto=6, ident=3, offset=begin, more=end < len(datagram)).raw(datagram[begin:end])
        for begin, end in itertools.pairwise(cuts)
    ]
    for order in itertools.permutations(fragments):
        rows, counts = read(tmp_path, [*frames[:2], *order, *frames[3:]])
        assert shown(rows) == ["GET a /one 204", "GET a /two -: no_response"]
        assert "gaps" not in counts
    rows, counts = read(tmp_path, [*frames[:2], fragments[0], fragments[2], *frames[3:]])
    assert (shown(rows)[-1], counts["gaps"]) == ("GET a /two -: after_gap no_response", 1)


def test_retransmissions_count_once_and_conflicting_copies_are_noted(tmp_path: Path) -> None:
    frames = segments([("c", GET[:9]), ("c", GET[9:]), ("s", OK)])
    assert shown(read(tmp_path, [*frames[:3], *frames[2:]])[0]) == ["GET a /x 200"]
    other = segments([("c", b"GET /evil")])[2]
    rows, counts = read(tmp_path, [*frames[:3], other, *frames[3:]])
    assert shown(rows) == ["GET a /x 200: conflicting_bytes"]
    assert counts["conflicting"] == 1


def test_urgent_bytes_are_shown_in_line_and_noted(tmp_path: Path) -> None:
    frames = segments([("c", GET), ("s", OK)])
    data = bytearray(frames[2].bytes())
    data[14 + 20 + 13] |= 32
    assert shown(read(tmp_path, [*frames[:2], bytes(data), *frames[3:]])[0]) == ["GET a /x 200: urgent_bytes"]


GAPS = [
    #  what it shows                     segments                                              lost  rows
    ("a body of known length is bridged",
     [("c", POST[:-4]), ("c", POST[-4:-1]), ("c", POST[-1:] + GET), ("s", OK + OK)],
     1, ["POST a /p 200: body_gap", "GET a /x 200"]),
    ("a lost request", [("c", GET), ("s", OK), ("c", GET), ("s", OK), ("c", GET), ("s", OK)],
     2, ["GET a /x 200", "GET a /x 200: after_gap"]),
    ("a lost answer", [("c", GET), ("s", OK), ("c", GET), ("s", OK), ("c", GET), ("s", OK)],
     3, ["GET a /x 200", "GET a /x -: after_gap no_response", "GET a /x 200: after_gap"]),
    ("a lost piece of a head", [("c", GET[:5]), ("c", GET[5:]), ("s", OK), ("c", GET), ("s", OK)],
     1, ["GET a /x 200: after_gap"]),
]  # fmt: skip


@pytest.mark.parametrize(("said", "lost", "expected"), [c[1:] for c in GAPS], ids=[c[0] for c in GAPS])
def test_a_segment_that_was_not_captured(said, lost, expected, tmp_path: Path) -> None:
    frames = segments(said)
    del frames[2 + lost]
    rows, counts = read(tmp_path, frames)
    assert shown(rows) == expected
    assert counts["gaps"] == 1


def test_a_connection_that_was_picked_up_in_the_middle(tmp_path: Path) -> None:
    said = [("s", b"the end of something"), ("c", GET), ("s", OK), ("c", GET), ("s", OK)]
    rows, _ = read(tmp_path, segments(said, handshake=False))
    assert shown(rows) == ["GET a /x 200: picked_up"] * 2
    assert [row["source_ip"] for row in rows] == ["10.0.0.1"] * 2


def test_websocket_is_the_last_request(tmp_path: Path) -> None:
    upgrade = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    switching = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    rows, counts = read(tmp_path, segments([("c", upgrade), ("s", switching), ("c", b"\x81\x85" + GET), ("s", OK)]))
    assert shown(rows) == ["GET a /chat 101"]
    assert rows[0]["observed"]["upgrade"] == "websocket"
    assert counts == {"connections": 1, "requests": 1, "upgrades": 1}


def test_a_refused_upgrade_changes_nothing(tmp_path: Path) -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    for said in ([("c", upgrade), ("s", OK), ("c", GET), ("s", OK)], [("c", upgrade + GET), ("s", OK + OK)]):
        assert shown(read(tmp_path, segments(said))[0]) == ["GET a / 200", "GET a /x 200"]


def test_a_tunnel_is_looked_into(tmp_path: Path) -> None:
    connect, opened = b"CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", b"HTTP/1.1 200 Opened\r\n\r\n"
    rows, counts = read(tmp_path, segments([("c", connect), ("s", opened), ("c", GET), ("s", OK)]))
    assert shown(rows) == ["CONNECT b:80  200", "GET a /x 200: in_tunnel"]
    assert (counts["connections"], counts["tunnels"]) == (1, 1)
    rows, counts = read(tmp_path, segments([("c", connect), ("s", opened), ("c", b"\x16\x03\x01"), ("s", b"\x16\x03")]))
    assert (shown(rows), counts["tunnels"]) == (["CONNECT b:80  200"], 1)


def test_a_row_says_who_when_and_how_much(tmp_path: Path) -> None:
    row = read(tmp_path, segments([("c", POST), ("s", OK[:-1]), ("s", OK[-1:])], dport=8080))[0][0]
    start = 10**18
    assert row == {
        "method": "POST", "scheme": "http", "authority": "a", "path": "/p", "headers": (("Content-Length", "5"),),
        "source_ip": "10.0.0.1", "source_port": 4000, "destination_ip": "10.0.0.2", "destination_port": 8080,
        "time_ns": start + 2 * 10**6, "flow": 1,
        "observed": {
            "protocol": "HTTP/1.1", "stream": 1, "status": 200, "response_time_ns": 10**6, "duration_ns": 2 * 10**6,
            "request_body_bytes": 5, "response_body_bytes": 2,
        },
    }  # fmt: skip


LIMITS = [
    #  what it shows             limit                 client says                          rows               count
    ("a head of the limit", {"head_bytes": 80}, ask("a" * 47 + ": 1"), ["POST a / 200"], {}),
    ("and one more", {"head_bytes": 79}, ask("a" * 47 + ": 1"), [], {"head_too_large": 1}),
    ("header lines at the limit", {"header_lines": 2}, ask("a: 1"), ["POST a / 200"], {}),
    ("and one more line", {"header_lines": 1}, ask("a: 1"), ["POST a / 200: headers_left_out"], {}),
    ("requests without answer", {"pending": 1}, GET + GET, ["GET a /x -: no_response", "GET a /x 200"], {"evicted": 1}),
]


@pytest.mark.parametrize(("limit", "client", "expected", "count"), [c[1:] for c in LIMITS], ids=[c[0] for c in LIMITS])
def test_limits(limit, client, expected, count, tmp_path: Path) -> None:
    rows, counts = read(tmp_path, segments([("c", client), ("s", OK)]), RequestOptions(**limit))
    assert shown(rows) == expected
    assert {name: counts[name] for name in counts if name in ("head_too_large", "evicted")} == count


def test_memory_is_bounded_and_what_was_given_up_is_counted(tmp_path: Path) -> None:
    frames = []
    for port in range(50):
        frames += segments([("c", GET[:-2] + b"X: " + b"y" * 1000 + b"\r\n\r\n")], close=False, dport=1000 + port)
    rows, counts = read(tmp_path, frames, RequestOptions(memory_bytes=20_000))
    assert len(rows) == 50
    assert counts["evicted"] > 30


def test_what_waiting_segments_cost_beside_their_bytes_counts_as_memory(tmp_path: Path) -> None:
    """Every second byte of a request, one a segment: the memory is not in the bytes."""
    frames = []
    for port in range(10):
        opened = segments([("c", b"G")], close=False, dport=1000 + port)
        begin = CLIENT_ISN + 2
        frames += opened + [
            eth()
            .ipv4("10.0.0.1", "10.0.0.2")
            .tcp(4000, 1000 + port, "A", seq=(begin + 2 * i + 1) % 2**32)
            .payload(b"x")
            for i in range(400)
        ]
    _, counts = read(tmp_path, frames, RequestOptions(memory_bytes=100_000))
    assert counts["evicted"] > 4


def test_keep_alive_probes_are_no_data(tmp_path: Path) -> None:
    frames = segments([("c", GET), ("s", OK), ("c", GET), ("s", OK)])
    seq = (CLIENT_ISN + len(GET)) % 2**32
    probe = eth().ipv4("10.0.0.1", "10.0.0.2").tcp(4000, 80, "A", seq=seq, ack=5001 + len(OK)).payload(b"\0")
    rows, counts = read(tmp_path, [*frames[:4], probe, *frames[4:]])
    assert shown(rows) == ["GET a /x 200"] * 2
    assert "conflicting" not in counts


def test_the_docs_name_every_note_and_count() -> None:
    from meshsieve import http_requests

    text = (Path(__file__).parents[2] / "docs" / "requests.md").read_text()
    missing = [
        name for name in (*http_requests.NOTES, *http_requests.RequestReader().counts) if f"`{name}`" not in text
    ]
    assert missing == []
