"""Protocols where they leave the usual way: sealed hellos, switches to TLS, calls inside others, odd but lawful bytes.

Each row: what is unusual, and the conversation with the application and attributes that it must give.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from pathlib import Path

import pytest

from tests.capture.app_payloads import (
    HELLO,
    HELLO_DONE,
    MYSQL_GREETING,
    UDP,
    Talk,
    both,
    client,
    client_hello,
    cotp,
    dns_answer,
    dns_question,
    mysql_packet,
    record,
    server_first,
    server_hello,
    u16,
    u32,
    vector8,
)
from tests.capture.test_apps import frames_of, recognise, seen
from tests.http.talk import END_HEADERS, END_STREAM, HEADERS, PREFACE, frame, settings

NAMED = {"sni": "www.example.org", "starttls": "yes"}


def literal(name: str, value: str) -> bytes:
    """A header field that no table knows (RFC 7541, section 6.2.2), without Huffman code."""
    return b"\0" + vector8(name.encode()) + vector8(value.encode())


def call(path: str, status: str) -> tuple[bytes, bytes]:
    """A gRPC call: what the client and what the server says."""
    asked = b"\x83\x86" + literal(":path", path) + literal("content-type", "application/grpc")
    answered = b"\x88" + literal("content-type", "application/grpc")
    ended = frame(HEADERS, 1, literal("grpc-status", status), END_HEADERS | END_STREAM)
    request = PREFACE + settings() + frame(HEADERS, 1, asked, END_HEADERS)
    return request, settings() + frame(HEADERS, 1, answered, END_HEADERS) + ended


UNUSUAL = [
    ("a client that greets before the server does", client("smtp", b"EHLO early\r\n", client_software="EHLO early")),
    ("a greeting of many lines", server_first("smtp", b"220-one\r\n220-two ESMTP\r\n220 three\r\n", b"EHLO a\r\n")),
    (
        "IMAP switches to TLS",
        server_first("imap", b"* OK IMAP4\r\n", b"a STARTTLS\r\n", b"a OK\r\n", HELLO, HELLO_DONE, **NAMED),
    ),
    (
        "POP3 switches to TLS",
        server_first("pop3", b"+OK POP3\r\n", b"STLS\r\n", b"+OK\r\n", HELLO, HELLO_DONE, **NAMED),
    ),
    (
        "FTP switches to TLS, and has another name then",
        server_first("ftps", b"220 FTP\r\n", b"AUTH TLS\r\n", b"234 go\r\n", HELLO, HELLO_DONE, **NAMED),
    ),
    (
        "MySQL switches to TLS",
        server_first(
            "mysql", MYSQL_GREETING, mysql_packet(1, b"\x85\xae\xff\0" + u32(1) + b"\x21" + b"\0" * 23) + HELLO,
            HELLO_DONE, **NAMED,
        ),
    ),
    (
        "RDP switches to TLS",
        both(
            "rdp", cotp(0xE0, b"\1\0\x08\0\1\0\0\0"), cotp(0xD0, b"\2\0\x08\0\1\0\0\0"), HELLO, HELLO_DONE, **NAMED
        ),
    ),
    ("a TLS hello of one byte a record", client("tls", b"".join(record(bytes([b])) for b in client_hello()),
                                               sni="www.example.org")),
    ("a hello without name and protocols", client(
        "tls", record(client_hello(name="", alpn=(), grease=False)), tls_version="TLSv1.3")),
    ("a hello retry before the real one", both(
        "tls", HELLO, record(server_hello(suite=0x1302, tls13=True)), HELLO,
        record(server_hello(suite=0x1302, tls13=True)) + record(b"\1", kind=20), tls_cipher="TLS_AES_256_GCM_SHA384")),
    ("gRPC and its status", both(
        "http2", *call("/pkg.Greeter/SayHello", "5"), grpc_method="/pkg.Greeter/SayHello", grpc_status="5")),
    ("etcd, which is gRPC", both("etcd", *call("/etcdserverpb.KV/Range", "0"), grpc_status="0")),
    ("empty lines before a request", client(
        "http", b"\r\n\r\nGET / HTTP/1.1\r\nHOST:\ta.test \r\n\r\n", http_host="a.test")),
    ("an interim response before the real one", both(
        "http", b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
        http_method="POST")),
    ("a DNS name with dots inside a label", client(
        "dns", u16(7, 0x0100, 1, 0, 0, 0) + vector8(b"a.b") + vector8(b"org") + b"\0" + u16(1, 1), transport=UDP,
        port=53, dns_name=r"a\.b.org")),
    ("DNS on a port of its own", both(
        "dns", dns_question("a.example"), dns_answer("a.example"), transport=UDP, port=5300, dns_name="a.example")),
    ("SSH with lines before its name", server_first(
        "ssh", b"SSH-2.0-x_1\r\n", b"SSH-2.0-y_2\r\n", server_software="SSH-2.0-x_1")),
]  # fmt: skip


@pytest.mark.parametrize("talk", [talk for _, talk in UNUSUAL], ids=[what for what, _ in UNUSUAL])
def test_an_unusual_conversation_is_recognised(talk: Talk, tmp_path: Path) -> None:
    columns = recognise(tmp_path / "a.pcap", frames_of(talk, 50000))
    assert seen(columns, 0, talk) == (talk.app, talk.attributes)


# ---- QUIC: the client's first packets, sealed as RFC 9001 and RFC 9369 say

SALTS = {
    1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    0x6B3343CF: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
}
ID = bytes.fromhex("8394c8f03e515708")


def expand(secret: bytes, label: str, size: int) -> bytes:
    name = b"tls13 " + label.encode()
    return hmac.new(secret, u16(size) + vector8(name) + b"\0\1", hashlib.sha256).digest()[:size]


def initial(version: int, number: int, frames: bytes) -> bytes:
    """A client's Initial packet in a datagram of 1,200 bytes."""
    ciphers = pytest.importorskip("cryptography.hazmat.primitives.ciphers")
    aead = pytest.importorskip("cryptography.hazmat.primitives.ciphers.aead")
    second = version != 1
    prefix = "quicv2 " if second else "quic "
    secret = expand(hmac.new(SALTS[version], ID, hashlib.sha256).digest(), "client in", 32)
    key, iv, mask_key = (expand(secret, prefix + what, size) for what, size in (("key", 16), ("iv", 12), ("hp", 16)))
    size = 1178  # number, frames and tag
    header = bytes([0xD3 if second else 0xC3]) + u32(version) + vector8(ID) + b"\0\0" + u16(0x4000 | size)
    plain = frames.ljust(size - 4 - 16, b"\0")
    number_bytes = u32(number)
    nonce = bytes(a ^ b for a, b in zip(iv, number_bytes.rjust(12, b"\0"), strict=True))
    sealed = aead.AESGCM(key).encrypt(nonce, plain, header + number_bytes)
    encryptor = ciphers.Cipher(ciphers.algorithms.AES(mask_key), ciphers.modes.ECB()).encryptor()
    mask = encryptor.update(sealed[:16])
    first = header[0] ^ mask[0] & 0x0F
    masked = bytes(a ^ b for a, b in zip(number_bytes, mask[1:5], strict=True))
    return bytes([first]) + header[1:] + masked + sealed


def crypto(hello: bytes, begin: int, end: int) -> bytes:
    """A CRYPTO frame with a part of the hello."""
    return b"\6" + struct.pack(">HH", 0x4000 | begin, 0x4000 | (end - begin)) + hello[begin:end]


@pytest.mark.parametrize("version", [1, 0x6B3343CF])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_quic_hello_over_datagrams_in_any_order(version: int, order: tuple[int, ...], tmp_path: Path) -> None:
    hello = client_hello(name="quic.example.org", alpn=("h3",), padding=2000)
    cuts = [0, 700, 1400, len(hello)]
    datagrams = [initial(version, i, crypto(hello, cuts[i], cuts[i + 1])) for i in range(3)]
    talk = client("quic", *(datagrams[i] for i in order), transport=UDP, sni="quic.example.org", alpn="h3",
                  quic_version="1" if version == 1 else "2")  # fmt: skip
    columns = recognise(tmp_path / "a.pcap", frames_of(talk, 50000))
    assert seen(columns, 0, talk) == (talk.app, talk.attributes)
