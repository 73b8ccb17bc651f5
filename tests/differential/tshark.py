"""What tshark reads in a capture, packet by packet and flow by flow, in our terms.

Innermost   tshark gives each field once for every header that has it. The protocols it names in a frame say which
            headers those were, so the last IP header before a transport is found; what an ICMP error quotes is behind.
Switched    Reassembly of fragments is off: a packet is what stands in its own frame. Streams are put together.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TRANSPORTS = ("tcp", "udp", "icmp", "icmpv6", "sctp")
PER_PACKET = (
    "frame.protocols", "ip.src", "ip.dst", "ip.proto", "ip.ttl", "ip.dsfield.dscp", "ip.len", "ipv6.src", "ipv6.dst",
    "ipv6.hlim", "tcp.srcport", "tcp.dstport", "tcp.flags", "tcp.seq_raw", "tcp.len", "udp.srcport", "udp.dstport",
    "vlan.id", "vxlan.vni", "geneve.vni", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code", "ip.frag_offset",
    "ip.flags.mf", "_ws.malformed",
)  # fmt: skip
PER_FLOW = {
    "sni": "tls.handshake.extensions_server_name",
    "alpn": "tls.handshake.extensions_alpn_str",
    "ja3": "tls.handshake.ja3",
    "ja3s": "tls.handshake.ja3s",
    "http_host": "http.host",
    "http_method": "http.request.method",
    "http_path": "http.request.uri",
}

# What JA4 is made of, in a ClientHello.
HELLO = (
    "tls.handshake.type", "tls.handshake.version", "tls.handshake.ciphersuite", "tls.handshake.extension.type",
    "tls.handshake.extensions.supported_version", "tls.handshake.sig_hash_alg", "tls.handshake.extensions_alpn_str",
)  # fmt: skip

Fields = dict[str, list[str]]


def is_here() -> bool:
    return shutil.which("tshark") is not None


@dataclass(frozen=True)
class Packet:
    """The innermost IP header and its transport as tshark reads them; None where it says nothing."""

    src: str
    dst: str
    values: dict[str, int]


def packets(path: Path) -> list[Packet | None]:
    """A packet for every frame; None for frames without IP, malformed ones and what has no plain nesting."""
    options = ["-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-o", "tcp.relative_sequence_numbers:FALSE"]
    return [_packet(fields) for fields in _rows(path, PER_PACKET, options)]


def attributes(path: Path) -> dict[tuple[str, frozenset[tuple[str, int]]], dict[str, str]]:
    """By flow (transport, its two ends): the first of each attribute. Flows in tunnels are left out."""
    names = ("frame.protocols", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", *PER_PACKET[10:12], *PER_PACKET[15:17])
    names += ("tls.handshake.type",)
    out: dict[tuple[str, frozenset[tuple[str, int]]], dict[str, str]] = {}
    for fields in _rows(path, (*names, *PER_FLOW.values()), []):
        stack = fields["frame.protocols"][0].split(":") if fields["frame.protocols"] else []
        addresses = fields["ip.src"] + fields["ip.dst"] + fields["ipv6.src"] + fields["ipv6.dst"]
        transport = next((name for name in ("tcp", "udp") if name in stack), None)
        if len(addresses) != 2 or transport is None or "quic" in stack:
            continue
        ports = fields[f"{transport}.srcport"] + fields[f"{transport}.dstport"]
        if len(ports) != 2:
            continue
        key = (transport, frozenset(zip(addresses, map(int, ports), strict=True)))
        known = out.setdefault(key, {})
        for ours, theirs in PER_FLOW.items():
            if fields[theirs] and (ours != "alpn" or fields["tls.handshake.type"][:1] == ["1"]):  # a server chooses one
                known.setdefault(ours, ",".join(fields[theirs]) if ours == "alpn" else fields[theirs][0])
    return out


def client_hellos(path: Path) -> list[Fields]:
    """The HELLO fields of frames that hold one ClientHello on TCP and no other handshake message; not those in the
    format of SSL 2.0, which has no JA4."""
    rows = _rows(path, (*HELLO, "tcp.srcport"), [])
    return [row for row in rows if row[HELLO[0]] == ["1"] and row[HELLO[2]] and row["tcp.srcport"]]


def ja4(hello: Fields) -> str:
    """JA4 of a ClientHello as tshark took it apart (github.com/FoxIO-LLC/ja4): written for this comparison alone."""

    def values(name: str) -> list[int]:
        numbers = [int(text, 0) for text in hello[name]]
        return [n for n in numbers if not (n & 0x0F0F == 0x0A0A and n >> 8 == n & 0xFF)]

    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12

    def joined(numbers: list[int]) -> str:
        return ",".join(f"{n:04x}" for n in numbers)

    kinds, ciphers = values("tls.handshake.extension.type"), values("tls.handshake.ciphersuite")
    version = max(values("tls.handshake.extensions.supported_version") or values("tls.handshake.version"))
    shown = {0x0300: "s3", 0x0301: "10", 0x0302: "11", 0x0303: "12", 0x0304: "13"}.get(version, "00")
    protocols = hello["tls.handshake.extensions_alpn_str"]
    ends = protocols[0][0] + protocols[0][-1] if protocols else "00"
    signatures = values("tls.handshake.sig_hash_alg")
    tail = joined(sorted(k for k in kinds if k not in (0, 16))) + ("_" + joined(signatures) if signatures else "")
    counts = f"{min(len(ciphers), 99):02}{min(len(kinds), 99):02}"
    first = f"t{shown}{'d' if 0 in kinds else 'i'}{counts}{ends}"
    return f"{first}_{digest(joined(sorted(ciphers)))}_{digest(tail if kinds else '')}"


def _rows(path: Path, names: tuple[str, ...], options: list[str]) -> list[Fields]:
    command = ["tshark", "-n", "-r", str(path), *options, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"]
    for name in names:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False)
    rows = []
    for line in done.stdout.splitlines():
        values = line.split("\t")
        rows.append({name: value.split("|") if value else [] for name, value in zip(names, values, strict=True)})
    return rows


def _packet(fields: Fields) -> Packet | None:
    if fields["_ws.malformed"] or not fields["frame.protocols"]:
        return None
    stack = fields["frame.protocols"][0].split(":")
    quoting = next((i for i, name in enumerate(stack) if name in ("icmp", "icmpv6")), len(stack))
    ends = [i for i, name in enumerate(stack[: quoting + 1]) if name in ("ip", "ipv6")]
    if not ends or any(name in stack for name in ("teredo", "data-l2tp", "ipv6.fraghdr", "ah", "esp")):
        return None
    version = stack[ends[-1]]
    nth = sum(1 for i in ends if stack[i] == version) - 1  # which of the headers of that version
    if len(fields[f"{version}.src"]) <= nth:
        return None
    values: dict[str, int] = {}

    def keep(ours: str, theirs: str, place: int) -> None:
        if place < len(fields[theirs]):
            values[ours] = int(fields[theirs][place], 0)

    if version == "ip":
        for ours, theirs in (("ttl", "ip.ttl"), ("dscp", "ip.dsfield.dscp"), ("ip_length", "ip.len")):
            keep(ours, theirs, nth)
    else:
        keep("ttl", "ipv6.hlim", nth)
    behind = stack[ends[-1] + 1] if ends[-1] + 1 < len(stack) else ""
    if behind in ("tcp", "udp"):
        place = sum(1 for name in stack[: ends[-1]] if name == behind)
        keep("sport", f"{behind}.srcport", place)
        keep("dport", f"{behind}.dstport", place)
        if behind == "tcp":
            for ours, theirs in (("tcp_flags", "tcp.flags"), ("tcp_seq", "tcp.seq_raw"), ("payload_length", "tcp.len")):
                keep(ours, theirs, 0)
    elif behind in ("icmp", "icmpv6"):
        keep("icmp_type", f"{behind}.type", 0)
        keep("icmp_code", f"{behind}.code", 0)
    keep("vlan", "vlan.id", 0)
    for name in ("vxlan.vni", "geneve.vni"):
        keep("vni", name, 0)
    if "tcp_flags" in values:
        values["tcp_flags"] &= 0xFF
    return Packet(fields[f"{version}.src"][nth], fields[f"{version}.dst"][nth], values)
