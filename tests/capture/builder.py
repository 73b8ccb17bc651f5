"""Packets and capture files as code.

>>> eth().vlan(5).ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80, "S").payload(b"x").bytes()

A frame is a list of headers, outermost first; ``bytes()`` fills lengths, EtherTypes and protocol numbers from what
follows, unless they were given. Checksums are left 0: the decoder does not look at them.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}

# What a header calls the one that follows it, by the name of that one.
ETHERTYPE = {
    "vlan": 0x8100, "ipv4": 0x0800, "ipv6": 0x86DD, "mpls": 0x8847, "pppoe": 0x8864, "arp": 0x0806, "eth": 0x6558,
    "ppp": 0x880B, "erspan2": 0x88BE, "fabricpath": 0x8903, "vntag": 0x8926,
}  # fmt: skip
PROTOCOL = {
    "hopbyhop": 0, "icmp": 1, "ipv4": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "routing": 43, "fragment": 44,
    "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "nonext": 59, "destopts": 60, "sctp": 132, "udplite": 136,
}  # fmt: skip
PPP_PROTOCOL = {"ipv4": 0x0021, "ipv6": 0x0057, "mpls": 0x0281}


@dataclass(frozen=True)
class Header:
    name: str
    build: Callable[[str, bytes], bytes]  # (name of the next header, everything behind) -> this header's bytes


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


class Frame:
    """An immutable chain of headers; each method returns a longer one."""

    def __init__(self, headers: tuple[Header, ...] = ()) -> None:
        self._headers = headers

    def bytes(self) -> bytes:
        out, following = b"", ""
        for header in reversed(self._headers):
            out = header.build(following, out) + out
            following = header.name
        return out

    def then(self, name: str, build: Callable[[str, bytes], bytes]) -> Frame:
        return Frame((*self._headers, Header(name, build)))

    def raw(self, data: bytes, name: str = "raw") -> Frame:
        return self.then(name, lambda _n, _b: data)

    def payload(self, data: bytes) -> Frame:
        return self.raw(data, "payload")

    # Link layer
    def eth(self, ethertype: int | None = None) -> Frame:
        return self.then(
            "eth", lambda n, _b: b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01" + _u16(ethertype, ETHERTYPE.get(n, 0x88B5))
        )

    def vlan(self, number: int, ethertype: int | None = None) -> Frame:
        return self.then("vlan", lambda n, _b: struct.pack(">H", number) + _u16(ethertype, ETHERTYPE.get(n, 0x88B5)))

    def mpls(self, label: int, bottom: bool | None = None) -> Frame:
        return self.then("mpls", lambda n, _b: struct.pack(">I", label << 12 | _flag(bottom, n != "mpls") << 8 | 64))

    def pppoe(self, code: int = 0) -> Frame:
        return self.then("pppoe", lambda _n, b: struct.pack(">BBHH", 0x11, code, 7, len(b)))

    def ppp(self, protocol: int | None = None) -> Frame:
        return self.then("ppp", lambda n, _b: _u16(protocol, PPP_PROTOCOL.get(n, 0xC021)))

    def snap(self) -> Frame:
        return self.then("llc", lambda n, _b: b"\xaa\xaa\x03\0\0\0" + _u16(None, ETHERTYPE.get(n, 0x88B5)))

    # Network layer
    def ipv4(
        self, src: str = "10.0.0.1", dst: str = "10.0.0.2", *, proto: int | None = None, ttl: int = 64, tos: int = 0,
        ident: int = 0, offset: int = 0, more: bool = False, options: bytes = b"", length: int | None = None,
        ihl: int | None = None, version: int = 4,
    ) -> Frame:  # fmt: skip
        def build(following: str, behind: bytes) -> bytes:
            words = 5 + len(options) // 4 if ihl is None else ihl
            total = 20 + len(options) + len(behind) if length is None else length
            place = int(more) << 13 | offset // 8
            number = PROTOCOL.get(following, 253) if proto is None else proto
            return (
                struct.pack(">BBHHHBBH", version << 4 | words, tos, total, ident, place, ttl, number, 0)
                + address(src)
                + address(dst)
                + options
            )

        return self.then("ipv4", build)

    def ipv6(
        self, src: str = "2001:db8::1", dst: str = "2001:db8::2", *, next_header: int | None = None, hops: int = 64,
        traffic_class: int = 0, length: int | None = None,
    ) -> Frame:  # fmt: skip
        def build(following: str, behind: bytes) -> bytes:
            number = PROTOCOL.get(following, 253) if next_header is None else next_header
            size = len(behind) if length is None else length
            return struct.pack(">IHBB", 6 << 28 | traffic_class << 20, size, number, hops) + address(src) + address(dst)

        return self.then("ipv6", build)

    def extension(self, name: str, *, words: int = 0, next_header: int | None = None) -> Frame:
        """An IPv6 extension header of 8 * (words + 1) bytes: hopbyhop, destopts, routing."""

        def build(following: str, _behind: bytes) -> bytes:
            number = PROTOCOL.get(following, 253) if next_header is None else next_header
            return struct.pack(">BB", number, words) + b"\x01\x04\0\0\0\0" + b"\0" * (8 * words)

        return self.then(name, build)

    def ah(self, *, words: int = 4) -> Frame:
        def build(following: str, _behind: bytes) -> bytes:
            return struct.pack(">BB", PROTOCOL.get(following, 253), words) + b"\0" * ((words + 2) * 4 - 2)

        return self.then("ah", build)

    def fragment(self, *, offset: int = 0, more: bool = False, ident: int = 1, next_header: int | None = None) -> Frame:
        def build(following: str, _behind: bytes) -> bytes:
            number = PROTOCOL.get(following, 253) if next_header is None else next_header
            return struct.pack(">BBHI", number, 0, offset | int(more), ident)

        return self.then("fragment", build)

    # Transport
    def tcp(
        self, sport: int = 1000, dport: int = 80, flags: str = "A", *, seq: int = 0, ack: int = 0,
        options: bytes = b"", offset: int | None = None,
    ) -> Frame:  # fmt: skip
        bits = sum(FLAGS[letter] for letter in flags)
        words = 5 + len(options) // 4 if offset is None else offset
        head = struct.pack(">HHIIBBHHH", sport, dport, seq, ack, words << 4, bits, 1024, 0, 0)
        return self.raw(head + options, "tcp")

    def udp(self, sport: int = 1000, dport: int = 53, *, length: int | None = None) -> Frame:
        return self.then(
            "udp", lambda _n, b: struct.pack(">HHHH", sport, dport, 8 + len(b) if length is None else length, 0)
        )

    def udplite(self, sport: int, dport: int) -> Frame:
        return self.raw(struct.pack(">HHHH", sport, dport, 8, 0), "udplite")

    def sctp(self, sport: int, dport: int) -> Frame:
        return self.raw(struct.pack(">HHII", sport, dport, 1, 0), "sctp")

    def dccp(self, sport: int, dport: int) -> Frame:
        return self.raw(struct.pack(">HHBBH", sport, dport, 4, 0, 0) + b"\0" * 8, "dccp")

    def icmp(self, kind: int = 8, code: int = 0) -> Frame:
        return self.raw(struct.pack(">BBHI", kind, code, 0, 0), "icmp")

    def icmpv6(self, kind: int = 128, code: int = 0) -> Frame:
        return self.raw(struct.pack(">BBHI", kind, code, 0, 0), "icmpv6")

    # Tunnels
    def gre(self, *, key: int | None = None, sequence: int | None = None, protocol: int | None = None) -> Frame:
        def build(following: str, _behind: bytes) -> bytes:
            flags = (0x2000 if key is not None else 0) | (0x1000 if sequence is not None else 0)
            out = struct.pack(">HH", flags, ETHERTYPE.get(following, 0x88B5) if protocol is None else protocol)
            for word in (key, sequence):
                out += b"" if word is None else struct.pack(">I", word)
            return out

        return self.then("gre", build)

    def erspan2(self, session: int) -> Frame:
        return self.raw(struct.pack(">HHI", 0x1000, session, 0), "erspan2")

    def vxlan(self, vni: int, flags: int = 8) -> Frame:
        return self.raw(struct.pack(">BxxxI", flags, vni << 8), "vxlan")

    def geneve(self, vni: int, options: bytes = b"") -> Frame:
        return self.then(
            "geneve",
            lambda n, _b: struct.pack(">BBHI", len(options) // 4, 0, ETHERTYPE.get(n, 0x6558), vni << 8) + options,
        )

    def gtpu(self, teid: int) -> Frame:
        return self.then("gtpu", lambda _n, b: struct.pack(">BBHI", 0x30, 255, len(b), teid))


def _u16(given: int | None, default: int) -> bytes:
    return struct.pack(">H", default if given is None else given)


def _flag(given: bool | None, default: bool) -> int:
    return int(default if given is None else given)


def eth(ethertype: int | None = None) -> Frame:
    return Frame().eth(ethertype)


def raw_ip() -> Frame:
    """A frame without link header (link type 101)."""
    return Frame()


@dataclass(frozen=True)
class Captured:
    """One record: what was captured, when, and how long it was on the wire."""

    data: bytes
    time_ns: int = 0
    length: int | None = None


def records(
    frames: Iterable[Frame | bytes | Captured], *, start_ns: int = 10**18, step_ns: int = 10**6
) -> list[Captured]:
    """Frames as records at even intervals; a Captured stays as it is."""
    out = []
    for i, frame in enumerate(frames):
        if isinstance(frame, Captured):
            out.append(frame)
        else:
            out.append(Captured(frame if isinstance(frame, bytes) else frame.bytes(), start_ns + i * step_ns))
    return out


def pcap(
    frames: Iterable[Frame | bytes | Captured], *, link_type: int = 1, order: str = "<", nano: bool = True,
    modified: bool = False, snaplen: int = 262144,
) -> bytes:  # fmt: skip
    """A pcap file."""
    magic = 0xA1B2CD34 if modified else 0xA1B23C4D if nano else 0xA1B2C3D4
    unit = 1 if nano and not modified else 1000
    out = bytearray(struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type))
    for r in records(frames):
        seconds, rest = divmod(r.time_ns, 10**9)
        length = len(r.data) if r.length is None else r.length
        out += struct.pack(f"{order}IIII", seconds, rest // unit, len(r.data), length)
        out += struct.pack(f"{order}IHBx", 1, 0, 0) if modified else b""
        out += r.data
    return bytes(out)


def block(kind: int, body: bytes, *, order: str = "<") -> bytes:
    body += b"\0" * (-len(body) % 4)
    size = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + size + body + size


def section(*, order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order=order)


def interface(
    link_type: int = 1,
    *,
    order: str = "<",
    snaplen: int = 0,
    resolution: int | None = None,
    offset_s: int | None = None,
) -> bytes:
    options = b""
    if resolution is not None:
        options += struct.pack(f"{order}HHB3x", 9, 1, resolution)
    if offset_s is not None:
        options += struct.pack(f"{order}HHq", 14, 8, offset_s)
    options += struct.pack(f"{order}HH", 0, 0) if options else b""
    return block(1, struct.pack(f"{order}HHI", link_type, 0, snaplen) + options, order=order)


def enhanced(data: bytes, units: int, *, order: str = "<", number: int = 0, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    head = struct.pack(f"{order}IIIII", number, units >> 32, units & 0xFFFFFFFF, len(data), size)
    return block(6, head + data + b"\0" * (-len(data) % 4), order=order)


def simple(data: bytes, *, order: str = "<", length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return block(3, struct.pack(f"{order}I", size) + data, order=order)


def obsolete(data: bytes, units: int, *, order: str = "<", number: int = 0) -> bytes:
    head = struct.pack(f"{order}HHIIII", number, 0, units >> 32, units & 0xFFFFFFFF, len(data), len(data))
    return block(2, head + data + b"\0" * (-len(data) % 4), order=order)


def pcapng(frames: Iterable[Frame | bytes | Captured], *, link_type: int = 1, order: str = "<") -> bytes:
    """A pcapng file of one section and one interface with nanosecond times."""
    out = section(order=order) + interface(link_type, order=order, resolution=9)
    for r in records(frames):
        out += enhanced(r.data, r.time_ns, order=order, length=r.length)
    return out
