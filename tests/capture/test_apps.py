"""Application recognition: each protocol's first bytes, cut and split everywhere, in any order and batch size."""

from __future__ import annotations

import hashlib
import itertools
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshsieve import apps, capture, flows, http_requests
from tests.capture.app_payloads import (
    OTHERS,
    TALKS,
    TCP,
    UDP,
    Talk,
    certificate,
    client_hello,
    dns_question,
    record,
    server_hello,
    u16,
)
from tests.capture.builder import Frame, eth, pcap

IDS = [f"{i}-{talk.app}" for i, talk in enumerate(TALKS)]


def frames_of(talk: Talk, client_port: int, messages: Iterable[tuple[bool, bytes]] | None = None) -> list[Frame]:
    """The packets of a conversation; TCP with its handshake."""
    ends = {
        True: ("10.0.0.1", "10.0.0.2", client_port, talk.port),
        False: ("10.0.0.2", "10.0.0.1", talk.port, client_port),
    }
    out = []
    seq = {True: 1000, False: 9000}
    if talk.transport == TCP:
        for side, flags in ((True, "S"), (False, "SA")):
            src, dst, sport, dport = ends[side]
            out.append(eth().ipv4(src, dst).tcp(sport, dport, flags, seq=seq[side]))
            seq[side] += 1
    for side, data in talk.messages if messages is None else messages:
        src, dst, sport, dport = ends[side]
        ip = eth().ipv4(src, dst)
        if talk.transport == TCP:
            out.append(ip.tcp(sport, dport, "PA", seq=seq[side]).payload(data))
            seq[side] += len(data)
        elif talk.transport == UDP:
            out.append(ip.udp(sport, dport).payload(data))
        else:
            out.append(ip.raw(struct.pack(">HHII", sport, dport, 1, 0), "sctp").payload(data))
    return out


def recognise(path: Path, frames: list[Frame], **options: Any) -> flows.FlowColumns:
    path.write_bytes(pcap(frames))
    return flows.read(path, options=flows.FlowOptions(**options))


def seen(columns: flows.FlowColumns, i: int, talk: Talk) -> tuple[str, dict[str, str]]:
    known = columns.attributes(i)
    return columns.apps[i], {name: known.get(name, "") for name in talk.attributes}


@pytest.mark.parametrize("talk", TALKS, ids=IDS)
def test_an_application_is_recognised(talk: Talk, tmp_path: Path) -> None:
    columns = recognise(tmp_path / "a.pcap", frames_of(talk, 50000))
    assert seen(columns, 0, talk) == (talk.app, talk.attributes)
    assert apps.HOWS[columns.extra["app_how"][0]] in ("parsed", "pattern")


@pytest.mark.parametrize(
    "talk",
    [t for t in TALKS if t.transport == TCP],
    ids=[i for i, t in zip(IDS, TALKS, strict=True) if t.transport == TCP],
)
def test_segments_make_no_difference(talk: Talk, tmp_path: Path) -> None:
    """The first message cut in two at every byte, and the second half first."""
    side, data = talk.messages[0]
    frames, ports = [], []
    for at in range(1, len(data)):
        halves = [(side, data[:at]), (side, data[at:]), *talk.messages[1:]]
        one = frames_of(talk, 2000 + at, halves)
        swapped = frames_of(talk, 20000 + at, halves)
        swapped[2], swapped[3] = swapped[3], swapped[2]
        frames += one + swapped
        ports += [2000 + at, 20000 + at]
    columns = recognise(tmp_path / "a.pcap", frames)
    wrong = {
        int(columns["sport"][i]) for i in range(len(columns)) if seen(columns, i, talk) != (talk.app, talk.attributes)
    }
    assert not wrong
    assert len(columns) == len(ports)


# What no payload of its own tells: IP protocols, ports alone (docs/apps.md), and what other tests show.
WITHOUT_TALK = {
    "icmp", "icmpv6", "igmp", "gre", "ospf", "eigrp", "pim", "vrrp", "sctp",
    "anydesk", "pcoip", "blast", "maxdb",
    "quic", "ftp-data", "vxlan", "geneve", "teredo", "gtp-u",
}  # fmt: skip


def test_every_application_has_a_conversation() -> None:
    assert set(apps.NAMES) - {""} - {talk.app for talk in TALKS} == WITHOUT_TALK


@pytest.mark.parametrize("talk", TALKS, ids=IDS)
def test_a_message_cut_off_is_never_taken_for_something_else(talk: Talk, tmp_path: Path) -> None:
    side, data = talk.messages[0]
    frames = [f for n in range(1, len(data)) for f in frames_of(talk, 2000 + n, [(side, data[:n])])]
    columns = recognise(tmp_path / "a.pcap", frames)
    related = {"s7comm": {"tpkt"}, "rdp": {"tpkt"}, "etcd": {"http2"}, "ftps": {"ftp"}}.get(talk.app, set())
    assert set(columns.apps) <= {"", talk.app, "sctp", *related} | (
        {"http", "elasticsearch", "websocket"} if b"HTTP/" in data else set()
    ) | ({"rpc"} if talk.app == "nfs" else set())
    for name in ("sni", "ja3", "ja4"):
        assert set(columns.attribute(name)) <= {None}, "a hello that is not whole has no names"


@pytest.mark.parametrize("talk", [t for _, t in OTHERS], ids=[name for name, _ in OTHERS])
def test_what_is_no_application_stays_unknown(talk: Talk, tmp_path: Path) -> None:
    columns = recognise(tmp_path / "a.pcap", frames_of(talk, 50000))
    assert columns.apps == [""]
    assert apps.HOWS[columns.extra["app_how"][0]] == "none"


def all_talks() -> list[Frame]:
    return [f for i, talk in enumerate(TALKS) for f in frames_of(talk, 30000 + i)]


@pytest.mark.parametrize("batch_size", [1, 7, 65536])
def test_batches_make_no_difference(batch_size: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(all_talks()))
    table = flows.FlowTable()
    for _ in capture.read(path, flows=table, batch_size=batch_size):
        pass
    columns, whole = table.finish(), flows.read(path)
    assert columns.apps == whole.apps
    assert [columns.attributes(i) for i in range(len(columns))] == [whole.attributes(i) for i in range(len(whole))]


def test_flipped_bytes_never_stop_it(tmp_path: Path) -> None:
    """Nothing to compare with: the reader survives, and every text is text."""
    random.seed(1)
    frames = []
    for n in range(3000):
        talk = TALKS[n % len(TALKS)]
        messages = []
        for side, data in talk.messages:
            changed = bytearray(data)
            for _ in range(random.randrange(1, 6)):
                changed[random.randrange(len(changed))] = random.randrange(256)
            messages.append((side, bytes(changed[: random.randrange(1, len(changed) + 1)])))
        frames += frames_of(talk, 1024 + n, messages)
    columns = recognise(tmp_path / "a.pcap", frames)
    assert len(columns) >= 2900
    for i in range(len(columns)):
        columns.attributes(i)


# ---- particular promises


def test_ja3_and_ja4_are_what_their_definitions_say(tmp_path: Path) -> None:
    """Worked out by hand from the hello: GREASE left out, ciphers and extensions sorted for JA4."""
    hello = client_hello()
    columns = recognise(tmp_path / "a.pcap", frames_of(Talk("tls", ((True, record(hello)),)), 50000))
    ja3 = "771,4865-4866-49199,0-10-11-16-13-43,29-23,0"
    assert columns.attribute("ja3") == [hashlib.md5(ja3.encode()).hexdigest()]
    ciphers = hashlib.sha256(b"1301,1302,c02f").hexdigest()[:12]
    extensions = hashlib.sha256(b"000a,000b,000d,002b_0403,0804").hexdigest()[:12]
    assert columns.attribute("ja4") == [f"t13d0306h2_{ciphers}_{extensions}"]


def hello_prints(
    name: str, alpn: tuple[str, ...], ciphers: tuple[int, ...], version: int, ech: bool
) -> tuple[str, str]:
    """JA3 and JA4 of ``client_hello`` with these arguments, by their definitions."""
    kinds = ([0] if name else []) + [10, 11] + ([16] if alpn else []) + [13, 43] + ([0xFE0D] if ech else [])
    ja3 = f"{version},{'-'.join(map(str, ciphers))},{'-'.join(map(str, kinds))},29-23,0"
    listed = ",".join(sorted(f"{cipher:04x}" for cipher in ciphers))
    others = ",".join(sorted(f"{kind:04x}" for kind in kinds if kind not in (0, 16))) + "_0403,0804"
    ends = alpn[0][0] + alpn[0][-1] if alpn else "00"
    head = f"t13{'d' if name else 'i'}{len(ciphers):02}{len(kinds):02}{ends}"
    parts = [head, *(hashlib.sha256(text.encode()).hexdigest()[:12] for text in (listed, others))]
    return hashlib.md5(ja3.encode()).hexdigest(), "_".join(parts)


def test_hellos_that_are_nearly_the_same_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    """Fingerprints seen lately are kept: each hello comes three times, in any order, with GREASE and without."""
    kinds = list(
        itertools.product(
            ("", "www.example.org"),
            ((), ("h2",), ("http/1.1", "h2")),
            ((0x1301, 0xC02F), (0xC02F, 0x1301), (0x1301, 0x1302, 0xC02F)),
            (0x0303, 0x0302),
            (False, True),
        )
    )
    asked = [(kind, grease) for kind in kinds for grease in (True, False, True)]
    random.Random(4).shuffle(asked)
    frames = []
    for i, ((name, alpn, ciphers, version, ech), grease) in enumerate(asked):
        hello = client_hello(name=name, alpn=alpn, ciphers=ciphers, version=version, ech=ech, grease=grease)
        frames += frames_of(Talk("tls", ((True, record(hello)),)), 20000 + i)
    columns = recognise(tmp_path / "a.pcap", frames)
    expected = [hello_prints(*kind) for kind, _ in asked]
    assert list(zip(columns.attribute("ja3"), columns.attribute("ja4"), strict=True)) == expected


def test_answers_that_are_nearly_the_same_have_fingerprints_of_their_own(tmp_path: Path) -> None:
    asked = list(itertools.product((0xC02F, 0xC030), (0x0303, 0x0302), (False, True), ("", "h2"))) * 2
    frames = []
    for i, (suite, version, tls13, alpn) in enumerate(asked):
        hello = server_hello(suite=suite, version=version, tls13=tls13, alpn=alpn)
        frames += frames_of(Talk("tls", ((True, record(client_hello())), (False, record(hello)))), 20000 + i)
    columns = recognise(tmp_path / "a.pcap", frames)
    texts = [
        f"{version},{suite},{'-'.join((['43'] if tls13 else []) + (['16'] if alpn else []))}"
        for suite, version, tls13, alpn in asked
    ]
    assert columns.attribute("ja3s") == [hashlib.md5(text.encode()).hexdigest() for text in texts]


def test_a_certificate_with_many_names_keeps_each_once(tmp_path: Path) -> None:
    names = [f"n{i}.example.org" for i in range(30)]
    server = record(server_hello()) + record(certificate("n3.example.org", *names, *names))
    talk = Talk("tls", ((True, record(client_hello())), (False, server)))
    columns = recognise(tmp_path / "a.pcap", frames_of(talk, 50000))
    expected = ["n3.example.org", *(name for name in names if name != "n3.example.org")]
    assert columns.attribute("certificate_names") == [",".join(expected)]


def test_texts_are_numbered_once_whatever_they_are(tmp_path: Path) -> None:
    """More texts than a table begins with, repeated, some no UTF-8: the same as Python's and as Arrow's texts."""
    hosts = [b"h%d.example.org" % (i % 700) for i in range(1500)] + [
        b"\xff\xfe.example",
        "münchen.example".encode(),
    ] * 2
    frames = []
    for i, host in enumerate(hosts):
        request = b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        frames += frames_of(Talk("http", ((True, request),)), 20000 + i)
    columns = recognise(tmp_path / "a.pcap", frames)
    expected = [host.decode("utf-8", "backslashreplace") for host in hosts]
    assert columns.attribute("http_host") == expected
    assert len(set(columns.texts.texts)) == len(columns.texts.texts)
    pytest.importorskip("pyarrow")
    assert columns.to_arrow()["http_host"].to_pylist() == expected
    some = columns.take(np.arange(1499, 1503))
    assert some.to_arrow()["http_host"].to_pylist() == expected[1499:1503]


def test_a_hello_of_many_segments_and_records(tmp_path: Path) -> None:
    """A post-quantum key share: 6 KiB in records of 1,000 bytes, segments of 700, the last first."""
    hello = client_hello(padding=6000)
    data = b"".join(record(hello[i : i + 1000]) for i in range(0, len(hello), 1000))
    talk = Talk(
        "tls",
        tuple((True, data[i : i + 1000]) for i in range(0, len(data), 1000)),
        attributes={"sni": "www.example.org"},
    )
    frames = frames_of(talk, 50000)
    frames[2:] = frames[:1:-1]
    columns = recognise(tmp_path / "a.pcap", frames)
    assert seen(columns, 0, talk) == ("tls", {"sni": "www.example.org"})


def test_a_hello_with_a_hole_has_no_name(tmp_path: Path) -> None:
    data = record(client_hello())
    frames = frames_of(Talk("tls", ((True, data[:60]), (True, data[60:90]), (True, data[90:]))), 50000)
    del frames[3]
    columns = recognise(tmp_path / "a.pcap", frames)
    assert columns.apps == ["tls"]
    assert columns.attribute("sni") == [None]


def test_of_two_copies_that_differ_the_first_counts(tmp_path: Path) -> None:
    first, second = record(client_hello(name="first.example.org")), record(client_hello(name="other.example.org"))
    frames = frames_of(Talk("tls", ((True, first[:-1]),)), 50000)
    src = eth().ipv4("10.0.0.1", "10.0.0.2")
    frames += [
        src.tcp(50000, 40000, "PA", seq=1001).payload(second),
        src.tcp(50000, 40000, "PA", seq=1001).payload(first),
    ]
    columns = recognise(tmp_path / "a.pcap", frames)
    assert columns.attribute("sni") == ["first.example.org"]


FTP_DATA = [
    ("PORT", (True, b"PORT 10,0,0,1,200,10\r\n"), ("10.0.0.2", 20, "10.0.0.1", 51210)),
    ("EPRT", (True, b"EPRT |1|10.0.0.1|51211|\r\n"), ("10.0.0.2", 20, "10.0.0.1", 51211)),
    ("PASV", (False, b"227 Entering Passive Mode (10,0,0,2,200,12).\r\n"), ("10.0.0.1", 5555, "10.0.0.2", 51212)),
    ("EPSV", (False, b"229 Entering Extended Passive Mode (|||51213|)\r\n"), ("10.0.0.1", 5556, "10.0.0.2", 51213)),
]


@pytest.mark.parametrize(("line", "data"), [c[1:] for c in FTP_DATA], ids=[c[0] for c in FTP_DATA])
def test_a_control_channel_announces_the_data_channel(
    line: tuple[bool, bytes], data: tuple[str, int, str, int], tmp_path: Path
) -> None:
    """However late in the dialogue; what the data looks like does not matter."""
    noop = ((True, b"NOOP\r\n"), (False, b"200 ok\r\n")) * 12
    talk = Talk("ftp", ((False, b"220 FTP\r\n"), (True, b"USER a\r\n"), *noop, line))
    src, sport, dst, dport = data
    frames = frames_of(talk, 50000)
    frames += [
        eth().ipv4(src, dst).tcp(sport, dport, "S", seq=1),
        eth().ipv4(src, dst).tcp(sport, dport, "PA", seq=2).payload(b"GET / HTTP/1.1\r\n\r\n"),
        eth().ipv4(src, dst).tcp(sport + 1, dport, "S", seq=1),
    ]
    columns = recognise(tmp_path / "a.pcap", frames)
    assert columns.apps == ["ftp", "ftp-data", ""], "announced for one connection"
    assert apps.HOWS[columns.extra["app_how"][1]] == "related"


def cut(datagram: bytes, cuts: Iterable[int], proto: int) -> list[Frame]:
    """The datagram (TCP or UDP header first) in IPv4 fragments that begin at ``cuts``."""
    places = [0, *cuts, len(datagram)]
    return [
        eth().ipv4(proto=proto, ident=5, offset=begin, more=end < len(datagram)).raw(datagram[begin:end])
        for begin, end in itertools.pairwise(places)
    ]


def dns_datagram() -> tuple[bytes, str]:
    name = "a-long-label-of-a-name." * 4 + "example.org"
    payload = dns_question(name)
    return u16(50000, 53, 8 + len(payload), 0) + payload, name


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_datagram_is_read_whole_in_whatever_order_its_fragments_come(order: tuple[int, ...], tmp_path: Path) -> None:
    datagram, name = dns_datagram()
    fragments = cut(datagram, [40, 80], proto=17)
    columns = recognise(tmp_path / "a.pcap", [fragments[i] for i in order])
    assert (columns.apps, columns.attribute("dns_name")) == (["dns"], [name])


def test_fragments_of_ipv6_are_put_together_too(tmp_path: Path) -> None:
    datagram, name = dns_datagram()
    fragments = [
        eth().ipv6().fragment(ident=9, more=True, next_header=17).raw(datagram[:40]),
        eth().ipv6().fragment(ident=9, offset=40, next_header=17).raw(datagram[40:]),
    ]
    for frames in (fragments, fragments[::-1]):
        columns = recognise(tmp_path / "a.pcap", frames)
        assert (columns.apps, columns.attribute("dns_name")) == (["dns"], [name])


def _other(fragment: int, begin: int) -> Frame:
    """Another fragment of dns_datagram(), with bytes of its own."""
    return eth().ipv4(proto=17, ident=5, offset=begin, more=True).raw(b"x" * fragment)


@pytest.mark.parametrize(
    ("what", "frames", "whole"),
    [
        ("a copy of a fragment", lambda f: [f[0], f[1], f[1], f[2]], True),
        ("one is missing", lambda f: [f[0], f[2]], False),
        ("the last one is missing", lambda f: [f[0], f[1]], False),
        ("the first one is missing", lambda f: [f[1], f[2]], False),
        ("one overlaps another", lambda f: [f[0], _other(24, 64), f[1], f[2]], False),
        ("a copy has other bytes", lambda f: [f[0], f[1], _other(40, 40), f[2]], False),
        ("one lies behind the last one", lambda f: [f[0], f[2], _other(40, 400), f[1]], False),
        ("another datagram uses the identification again", lambda f: [f[0], f[1], *f], True),
    ],
)
def test_fragments_that_do_not_fit_make_no_datagram(what: str, frames: Any, whole: bool, tmp_path: Path) -> None:
    datagram, name = dns_datagram()
    columns = recognise(tmp_path / "a.pcap", frames(cut(datagram, [40, 80], proto=17)))
    assert (name in columns.attribute("dns_name")) == whole, what


@pytest.mark.parametrize(
    ("what", "length", "whole"),
    [
        ("the UDP length is that of the datagram", 0, True),
        ("it ends within the first fragment", -100, False),
        ("it ends before the last byte, behind which stands no payload", -1, False),
        ("it is beyond the datagram", 1, False),
    ],
)
def test_the_udp_length_of_a_fragmented_datagram_holds(what: str, length: int, whole: bool, tmp_path: Path) -> None:
    datagram, name = dns_datagram()
    changed = datagram[:4] + u16(len(datagram) + length) + datagram[6:]
    for fragments in (cut(changed, [40, 80], proto=17), cut(changed, [40, 80], proto=17)[::-1]):
        columns = recognise(tmp_path / "a.pcap", fragments)
        assert (name in columns.attribute("dns_name")) == whole, what


def asked(tmp_path: Path, frames: list[Frame]) -> list[str]:
    path = tmp_path / "requests.pcap"
    path.write_bytes(pcap(frames))
    return [str(path) for batch in http_requests.read(path) for path in batch["path"]]


def test_a_whole_packet_in_the_first_fragment_of_a_tunnel_is_not_continued_by_the_next(tmp_path: Path) -> None:
    """The inner packet ends before the outer fragment does: what follows is no part of its payload."""

    def outer(padding: int) -> list[Frame]:
        head = b"GET /a HTTP/1.1\r\nHost: a\r\n"
        inner = eth().ipv4().tcp(50000, 80, "PA", seq=1).payload(head).bytes()[14:]
        first = inner + b"\0" * (-len(inner) % 8 + padding)
        return [
            eth().ipv4().tcp(50000, 80, "S", seq=0),
            eth().ipv4("10.9.0.1", "10.9.0.2", proto=4, ident=6, more=True).raw(first),
            eth().ipv4("10.9.0.1", "10.9.0.2", proto=4, ident=6, offset=len(first)).raw(b"x: y\r\n\r\n"),
        ]

    assert asked(tmp_path, outer(0)) == []
    assert asked(tmp_path, outer(8)) == []


def test_a_transport_header_in_two_fragments_is_not_read_as_payload(tmp_path: Path) -> None:
    """What a receiver takes for the acknowledgement number and for a header that is too short is no request."""
    segment = struct.pack(">HHI", 50000, 80, 1) + b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    for frames in (cut(segment, [8], proto=6), cut(segment, [8], proto=6)[::-1]):
        assert asked(tmp_path, [eth().ipv4().tcp(50000, 80, "S", seq=0), *frames]) == []
        assert recognise(tmp_path / "a.pcap", frames).apps[0] == ""


def test_tcp_whose_segments_are_fragmented_is_put_together(tmp_path: Path) -> None:
    data = record(client_hello(name="fragmented.example.org"))
    segment = struct.pack(">HHIIBBHHH", 50000, 443, 1001, 0, 5 << 4, 24, 1024, 0, 0) + data
    fragments = cut(segment, [64, 160], proto=6)
    for order in itertools.permutations(range(3)):
        syn = eth().ipv4().tcp(50000, 443, "S", seq=1000)
        columns = recognise(tmp_path / "a.pcap", [syn, *(fragments[i] for i in order)])
        assert (columns.apps, columns.attribute("sni")) == (["tls"], ["fragmented.example.org"])


def test_garbage_behind_a_hello_takes_nothing_from_it(tmp_path: Path) -> None:
    data = record(client_hello(name="first.example.org")) + b"\xff\x00garbage"
    columns = recognise(tmp_path / "a.pcap", frames_of(Talk("tls", ((True, data),)), 50000))
    assert (columns.apps, columns.attribute("sni")) == (["tls"], ["first.example.org"])


@pytest.mark.parametrize("line", [b"GET /", b"CCM_POST /path", b"GET  /"])
def test_a_request_line_without_version_counts_with_a_host_behind_it(line: bytes, tmp_path: Path) -> None:
    data = line + b"\r\nHost: a.example.org\r\n\r\n"
    columns = recognise(tmp_path / "a.pcap", frames_of(Talk("http", ((True, data),)), 50000))
    assert (columns.apps, columns.attribute("http_host")) == (["http"], ["a.example.org"])


def test_packets_know_the_application_of_their_flow_from_where_it_was_recognised(tmp_path: Path) -> None:
    talk = Talk("http", ((True, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (False, b"HTTP/1.1 200 OK\r\n\r\n")))
    frames = [*frames_of(talk, 50000), eth().ipv4().icmp(8)]
    (tmp_path / "a.pcap").write_bytes(pcap(frames))
    for size in (1, 3, 100):
        table = flows.FlowTable()
        batches = list(capture.read(tmp_path / "a.pcap", flows=table, batch_size=size))
        names = [table.app_names[app] for batch in batches for app in batch.extra["app"]]
        assert names == ["", "", "http", "http", "icmp"], size


def test_ports_are_only_a_guess(tmp_path: Path) -> None:
    columns = recognise(
        tmp_path / "a.pcap", frames_of(Talk("", ((True, b"hello there, nobody's protocol\r\n"),), port=443), 50000)
    )
    assert columns.apps == [""]
    assert apps.NAMES[columns.extra["app_by_port"][0]] == "tls"


SIGNATURES = """
applications:
  - name: acme
    signatures:
      - {transport: tcp, ports: ["40000-40010"], starts_with: "ACME/"}
      - {transport: udp, starts_with_hex: "ac ?? 01"}
  - name: portal
    signatures:
      - {hosts: [".example.org", "exact.test"]}
"""
SIGNED = [
    #  what is sent                         transport  port    payload                                    application
    ("first bytes and port",                TCP,       40000,  b"ACME/1.0 hello",                          "acme"),
    ("first bytes on another port",         TCP,       40011,  b"ACME/1.0 hello",                          ""),
    ("any byte under ??",                   UDP,       9,      b"\xac\x77\x01rest",                        "acme"),
    ("a byte that differs",                 UDP,       9,      b"\xac\x77\x02rest",                        ""),
    ("shorter than the pattern",            UDP,       9,      b"\xac\x77",                                ""),
    ("a host below a suffix",               TCP,       443,    record(client_hello(name="a.EXAMPLE.org")), "portal"),
    ("the suffix itself",                   TCP,       443,    record(client_hello(name="example.org")),   "portal"),
    ("a name that only ends alike",         TCP,       443,    record(client_hello(name="evilexample.org")), "tls"),
    ("an exact host",                       TCP,       443,    record(client_hello(name="exact.test")),    "portal"),
    ("below an exact host",                 TCP,       443,    record(client_hello(name="a.exact.test")),  "tls"),
    ("an HTTP host with a port",            TCP,       80,     b"GET / HTTP/1.1\nHost: exact.test:80\n\n", "portal"),
]  # fmt: skip


@pytest.mark.parametrize(("transport", "port", "payload", "app"), [c[1:] for c in SIGNED], ids=[c[0] for c in SIGNED])
def test_signatures_of_ones_own(transport: str, port: int, payload: bytes, app: str, tmp_path: Path) -> None:
    signatures = apps.parse_signatures(SIGNATURES)
    talk = Talk(app, ((True, payload),), transport, port)
    columns = recognise(tmp_path / "a.pcap", frames_of(talk, 50000), signatures=signatures)
    assert columns.apps == [app]


def test_payload_that_waits_is_bounded_and_counted(tmp_path: Path) -> None:
    """Beyond the budget the oldest flows are given up; younger ones are still read."""
    waiting = Talk("", ((True, record(client_hello(padding=1000))[:900]),))
    frames = [f for n in range(100) for f in frames_of(waiting, 2000 + n)]
    frames += frames_of(Talk("tls", ((True, record(client_hello())),)), 50000)
    columns = recognise(tmp_path / "a.pcap", frames, apps_waiting_bytes=20_000)
    assert columns.stats is not None
    assert 70 <= columns.stats["apps_given_up"] <= 90
    assert columns.attribute("sni")[-1] == "www.example.org"


def test_attributes_of_live_flows_are_bounded_and_lost_to_nobody(tmp_path: Path) -> None:
    """Beyond the budget the least recently used flows end, and are written with what they told."""
    names = [f"{n:03}.{'x' * 60}.example.org" for n in range(100)]
    answer = record(server_hello() + b"\x0e\0\0\0")
    talks = [Talk("tls", ((True, record(client_hello(name=name))), (False, answer))) for name in names]
    frames = [frame for n, talk in enumerate(talks) for frame in frames_of(talk, 2000 + n)]
    path = tmp_path / "a.pcap"
    columns = recognise(path, frames, apps_attribute_bytes=5_000)
    assert columns.stats is not None
    assert 50 < columns.stats["evicted"] < 100
    assert columns.attribute("sni") == names
    again = flows.read(path, options=flows.FlowOptions(apps_attribute_bytes=5_000), batch_size=7)
    assert again.extra["end_reason"].tolist() == columns.extra["end_reason"].tolist(), "whatever the batches"


def test_switched_off_nothing_is_recognised(tmp_path: Path) -> None:
    columns = recognise(tmp_path / "a.pcap", frames_of(TALKS[0], 50000), apps=False)
    assert columns.apps == [""]
    assert columns.attributes(0) == {}
