"""What the decoder makes of a frame: one table a layer, good frames and broken ones."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from meshsieve import _core, capture
from meshsieve.columns import PacketColumns
from tests.capture.builder import Captured, Frame, eth, pcap, raw_ip

A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
TCP = {"src_ip": A4, "dst_ip": B4, "sport": 1000, "dport": 80, "proto": 6}


def decode(frame: Frame | Captured, tmp_path: Path, link_type: int = 1) -> dict[str, Any]:
    """The present fields of one frame by name, and its extra columns. An absent field is no key: None in the tables."""
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap([frame], link_type=link_type))
    (batch,) = capture.read(path)
    assert len(batch) == 1
    fields = {name: show(batch, name) for name in batch if batch.has(name)[0]}
    extra = {name: column[0].tolist() for name, column in batch.extra.items()}
    for name in ("outer_src_ip", "outer_dst_ip", "quoted_src_ip", "quoted_dst_ip"):
        version = extra[name.split("_")[0] + "_ip_ver"]
        extra[name] = address(extra[name], version) if version else None
    extra["status"] = capture.STATUSES[extra["status"]]
    extra["tunnel"] = capture.TUNNELS[extra["tunnel"]]
    return {**extra, **fields}


def show(batch: PacketColumns, name: str) -> Any:
    value = batch[name][0]
    return address(value, batch["ip_ver"][0]) if name in ("src_ip", "dst_ip") else int(value)


def address(words: Any, version: int) -> str:
    high, low = (int(word) for word in words)
    return str(ipaddress.IPv4Address(low) if version == 4 else ipaddress.IPv6Address(high << 64 | low))


def check(packet: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: packet.get(name) for name in expected} == expected


def inner() -> Frame:
    return Frame().ipv4(A4, B4).tcp(1000, 80, "S").payload(b"data")


def test_every_field_of_a_plain_frame(tmp_path: Path) -> None:
    packet = decode(eth().vlan(5).ipv4(A4, B4, ttl=9, tos=0xB8).tcp(1000, 80, "SA", seq=7).payload(b"abc"), tmp_path)
    expected = {
        **TCP, "ip_ver": 4, "tcp_flags": 18, "fragment": 0, "dscp": 46, "ttl": 9, "ip_length": 43, "vlan": 5,
        "eth_type": 0x0800, "status": "ok", "payload_offset": 58, "payload_length": 3, "tcp_seq": 7, "length": 61,
    }  # fmt: skip
    check(packet, expected)
    assert "icmp_type" not in packet


LAYERS = [
    #  what it shows                       frame                                           fields
    ("IPv6", eth().ipv6(A6, B6, hops=3, traffic_class=0xB8).udp(1, 2).payload(b"x"),
     {"src_ip": A6, "sport": 1, "dport": 2, "proto": 17, "ip_ver": 6, "ttl": 3, "dscp": 46, "ip_length": 49}),
    ("IPv4 options", eth().ipv4(A4, B4, options=b"\x01" * 8).tcp(1000, 80), TCP),
    ("UDP-Lite", eth().ipv4().udplite(1, 2), {"proto": 136, "sport": 1, "dport": 2}),
    ("SCTP", eth().ipv4().sctp(1, 2), {"proto": 132, "sport": 1, "dport": 2}),
    ("DCCP", eth().ipv4().dccp(1, 2), {"proto": 33, "sport": 1, "dport": 2}),
    ("ICMP", eth().ipv4().icmp(8, 0), {"proto": 1, "icmp_type": 8, "icmp_code": 0, "sport": None}),
    ("ICMPv6", eth().ipv6().icmpv6(135, 0), {"proto": 58, "icmp_type": 135}),
    ("two VLAN tags: the outer one counts", eth().vlan(5).vlan(6).ipv4(A4, B4).tcp(1000, 80),
     {**TCP, "vlan": 5, "vlan_inner": 6}),
    ("802.1ad outer tag", eth(0x88A8).vlan(7).raw(inner().bytes(), "ipv4"), {**TCP, "vlan": 7}),
    ("MPLS stack", eth().mpls(100).mpls(200).raw(inner().bytes(), "ipv4"), {**TCP, "mpls_label": 100}),
    ("PPPoE", eth().pppoe().ppp().raw(inner().bytes(), "ipv4"), TCP),
    ("SNAP", eth(8 + len(inner().bytes())).snap().raw(inner().bytes(), "ipv4"), TCP),
    ("FabricPath", eth(0x8903).raw(b"\0\0").eth(0x0800).raw(inner().bytes()), TCP),
    ("VNTag", eth(0x8926).raw(b"\0\0\0\0\x08\0").raw(inner().bytes()), TCP),
    ("padding is not payload", eth().ipv4().udp(1, 2).payload(b"x"), {"payload_length": 1}),
    ("ARP: no IP", eth(0x0806).payload(b"\0" * 28), {"ip_ver": 0, "eth_type": 0x0806, "src_ip": None}),
    ("ESP: no ports", eth().ipv4(proto=50).payload(b"\0" * 16), {"proto": 50, "sport": None, "status": "ok"}),
    ("IPv6 extension headers", eth().ipv6().extension("hopbyhop").extension("destopts").extension("routing").tcp(),
     {"proto": 6, "dport": 80, "status": "ok"}),
    ("IPv6 AH", eth().ipv6().ah().tcp(), {"proto": 6, "dport": 80}),
    ("IPv6 no next header", eth().ipv6(next_header=59).payload(b"\0" * 8), {"proto": 59, "sport": None}),
    ("atomic fragment is whole", eth().ipv6().fragment().tcp(), {"dport": 80, "fragment": 0, "fragment_length": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "expected"), [c[1:] for c in LAYERS], ids=[c[0] for c in LAYERS])
def test_layer(frame: Frame, expected: dict[str, Any], tmp_path: Path) -> None:
    check(decode(frame, tmp_path), expected)


LINKS = [
    #  link type   header before the IP packet
    ("raw", 101, b""),
    ("raw of BSD", 12, b""),
    ("IPv4", 228, b""),
    ("null, little-endian", 0, b"\x02\0\0\0"),
    ("null, big-endian", 0, b"\0\0\0\x02"),
    ("loop", 108, b"\0\0\0\x02"),
    ("cooked", 113, b"\0\0\0\x01\0\x06" + b"\0" * 8 + b"\x08\0"),
    ("cooked 2", 276, b"\x08\0\0\0\0\0\0\x01\0\x01\0\x06" + b"\0" * 8),
    ("PPP", 9, b"\xff\x03\0\x21"),
    ("PPP, short protocol", 9, b"\x21"),
    ("PPP with direction", 204, b"\0\xff\x03\0\x21"),
    ("Cisco HDLC", 104, b"\x0f\0\x08\0"),
    ("RFC 1483", 100, b"\xaa\xaa\x03\0\0\0\x08\0"),
    ("802.11", 105, b"\x08\0" + b"\0" * 22 + b"\xaa\xaa\x03\0\0\0\x08\0"),
    ("802.11, quality of service", 105, b"\x88\0" + b"\0" * 24 + b"\xaa\xaa\x03\0\0\0\x08\0"),
    ("radiotap", 127, b"\0\0\x08\0\0\0\0\0" + b"\x08\0" + b"\0" * 22 + b"\xaa\xaa\x03\0\0\0\x08\0"),
    ("ERF", 197, b"\0" * 8 + b"\x02" + b"\0" * 7 + b"\0\0" + b"\0" * 12 + b"\x08\0"),
]


@pytest.mark.parametrize(("link_type", "header"), [c[1:] for c in LINKS], ids=[c[0] for c in LINKS])
def test_link_type(link_type: int, header: bytes, tmp_path: Path) -> None:
    assert _core.link_type_is_known(link_type)
    check(decode(raw_ip().raw(header).raw(inner().bytes()), tmp_path, link_type), {**TCP, "status": "ok"})


@pytest.mark.parametrize(("packets", "status"), [(1, "ok"), (2, "first_of_several")])
def test_the_first_packet_of_an_aggregate(packets: int, status: str, tmp_path: Path) -> None:
    """802.11 A-MSDU: packets behind headers of their own, each padded to 4 bytes."""
    data = b"\xaa\xaa\x03\0\0\0\x08\0" + inner().bytes()
    subframe = b"\x02" * 12 + len(data).to_bytes(2, "big") + data
    subframe += b"\0" * (-len(subframe) % 4)
    frame = raw_ip().raw(b"\x88\0" + b"\0" * 22 + b"\x80\0" + subframe * packets)
    check(decode(frame, tmp_path, 105), {**TCP, "status": status})


def test_nflog(tmp_path: Path) -> None:
    data = inner().bytes()
    header = b"\x02\0\0\0" + b"\x08\0\x01\0\0\0\0\0" + (4 + len(data)).to_bytes(2, "little") + b"\x09\0"
    check(decode(raw_ip().raw(header).raw(data), tmp_path, 239), TCP)


def test_unknown_link_type_is_counted_and_never_guessed(tmp_path: Path) -> None:
    packet = decode(eth().raw(inner().bytes(), "ipv4"), tmp_path, 147)
    assert packet["status"] == "unsupported_link"
    assert not {info.name for info in _core.FIELDS} & packet.keys()


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_wccp_whose_packet_ends_before_four_bytes_is_truncated(left: int, tmp_path: Path) -> None:
    packet = decode(outer().gre(protocol=0x883E).raw(b"`\0\0\0"[:left], "ipv6"), tmp_path)
    assert packet["status"] == "truncated_ip"


OUTER = {"outer_src_ip": "192.0.2.1", "outer_dst_ip": "192.0.2.2"}


def outer() -> Frame:
    return eth().ipv4("192.0.2.1", "192.0.2.2")


TUNNELS = [
    #  kind      what it shows                   frame                                          columns
    ("ipip", "IP in IP", outer().raw(inner().bytes(), "ipv4"), {"outer_proto": 4}),
    ("gre", "GRE", outer().gre().raw(inner().bytes(), "ipv4"), {"outer_proto": 47}),
    ("gre", "GRE with key", outer().gre(key=9, sequence=1).raw(inner().bytes(), "ipv4"), {"vni": 9}),
    ("gre", "WCCP version 1", outer().gre(protocol=0x883E).raw(inner().bytes(), "ipv4"), {}),
    ("gre", "WCCP version 2", outer().gre(protocol=0x883E).raw(b"\0\1\0\0" + inner().bytes(), "ipv4"), {}),
    ("gre", "Ethernet in GRE", outer().gre(protocol=0x6558).eth(0x0800).raw(inner().bytes()), {}),
    ("erspan", "ERSPAN II", outer().gre(sequence=1).erspan2(77).eth(0x0800).raw(inner().bytes()), {"vni": 77}),
    ("vxlan", "VXLAN", outer().udp(5, 4789).vxlan(42).eth(0x0800).raw(inner().bytes()),
     {"vni": 42, "outer_sport": 5, "outer_dport": 4789}),
    ("geneve", "GENEVE with options", outer().udp(5, 6081).geneve(43, b"\0" * 8).eth(0x0800).raw(inner().bytes()),
     {"vni": 43}),
    ("gtpu", "GTP-U", outer().udp(5, 2152).gtpu(44).raw(inner().bytes()), {"vni": 44}),
    ("mpls_udp", "MPLS over UDP", outer().udp(5, 6635).mpls(45, True).raw(inner().bytes()), {"vni": 45}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "frame", "expected"), [(c[0], *c[2:]) for c in TUNNELS], ids=[c[1] for c in TUNNELS])
def test_tunnel(kind: str, frame: Frame, expected: dict[str, Any], tmp_path: Path) -> None:
    check(decode(frame, tmp_path), {**TCP, **OUTER, "tunnel": kind, "tunnel_depth": 1, "status": "ok", **expected})


def test_teredo(tmp_path: Path) -> None:
    frame = outer().udp(3544, 5).ipv6(A6, B6).tcp(1000, 80)
    check(decode(frame, tmp_path), {"tunnel": "teredo", "src_ip": A6, "dport": 80, **OUTER})


NO_TUNNELS = [
    #  what it shows                                   frame
    ("VXLAN port without the I flag", outer().udp(5, 4789).vxlan(42, flags=0).eth(0x0800).raw(inner().bytes())),
    ("VXLAN port, IPv4 announced but not there", outer().udp(5, 4789).vxlan(42).eth(0x0800).payload(b"\0" * 20)),
    ("GTP-U port with something else", outer().udp(5, 2152).payload(b"\x32" + b"\0" * 30)),
    ("Teredo port with something else", outer().udp(3544, 5).payload(b"\x12" * 60)),
    ("GENEVE of a later version", outer().udp(5, 6081).payload(b"\xc0\0\x65\x58" + b"\0" * 40)),
]


@pytest.mark.parametrize("frame", [c[1] for c in NO_TUNNELS], ids=[c[0] for c in NO_TUNNELS])
def test_a_port_alone_makes_no_tunnel(frame: Frame, tmp_path: Path) -> None:
    check(decode(frame, tmp_path), {"tunnel": "none", "src_ip": "192.0.2.1", "proto": 17, "status": "ok"})


def test_icmp_error_quotes_a_packet(tmp_path: Path) -> None:
    frame = eth().ipv4(B4, A4).icmp(3, 3).raw(Frame().ipv4(A4, B4).udp(1000, 53).bytes())
    expected = {
        "proto": 1, "icmp_type": 3, "quoted_proto": 17, "quoted_src_ip": A4, "quoted_dst_ip": B4, "quoted_sport": 1000,
        "quoted_dport": 53,
    }  # fmt: skip
    check(decode(frame, tmp_path), expected)


BROKEN = [
    #  status                    what it shows                           frame                          absent fields
    ("truncated_link", "13 bytes", raw_ip().raw(b"\0" * 13), {"ip_ver", "eth_type"}),
    ("truncated_link", "a VLAN tag cut", eth(0x8100).raw(b"\0\x05"), {"ip_ver", "vlan"}),
    ("truncated_ip", "19 bytes of IPv4", eth(0x0800).raw(b"E" + b"\0" * 18), {"ip_ver", "src_ip"}),
    ("bad_ip_version", "version 6 under 0x0800", eth(0x0800).ipv4(version=6).tcp(), {"ip_ver", "src_ip"}),
    ("bad_ip_header", "header of 16 bytes", eth().ipv4(ihl=4).tcp(), {"ip_ver", "src_ip"}),
    ("bad_ip_header", "header beyond the datagram", eth().ipv4(ihl=15, length=40).tcp(), {"src_ip"}),
    ("bad_ip_length", "total length 0", eth().ipv4(length=0).tcp(), {"sport", "tcp_flags"}),
    ("bad_ip_length", "total length 19", eth().ipv4(length=19).tcp(), {"sport"}),
    ("truncated_transport", "total length hides the ports", eth().ipv4(length=20).tcp(), {"sport"}),
    ("truncated_transport", "total length shows half of them", eth().ipv4(length=22).tcp(), {"sport"}),
    ("truncated_transport", "ports but no flags", eth().ipv4(length=28).tcp(), {"tcp_flags"}),
    ("ip_length_beyond_frame", "total length 2 too large", eth().ipv4(length=42).tcp(), set()),
    ("truncated_transport", "only an extension", eth().ipv6().extension("destopts").raw(b"", "tcp"), {"sport"}),
    ("truncated_extension", "beyond the datagram", eth().ipv6().raw(b"\x06\xff" + b"\0" * 6, "destopts"), {"proto"}),
    ("misplaced_extension", "hop-by-hop second", eth().ipv6().extension("destopts").extension("hopbyhop").tcp(), set()),
    ("bad_tcp_header", "offset 4", eth().ipv4().tcp(offset=4), set()),
    ("bad_tcp_header", "offset beyond the segment", eth().ipv4().tcp(offset=15), set()),
    ("bad_udp_length", "length 7", eth().ipv4().udp(1, 2, length=7).payload(b"xy"), set()),
    ("bad_udp_length", "length beyond the datagram", eth().ipv4().udp(1, 2, length=99).payload(b"xy"), set()),
    ("short_first_fragment", "8 bytes of TCP", eth().ipv4(more=True, length=28, proto=6).tcp(), {"tcp_flags"}),
    ("short_first_fragment", "no transport at all", eth().ipv6().fragment(more=True, next_header=6), {"sport"}),
    ("fragment_beyond_end", "ping of death", eth().ipv4(offset=65528, proto=1).payload(b"\0" * 100), {"icmp_type"}),
    ("bad_link", "PPPoE version 2", eth(0x8864).raw(b"\x21\0\0\0\0\0").payload(b"\0" * 30), {"ip_ver"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "frame", "absent"), [(c[0], *c[2:]) for c in BROKEN], ids=[f"{c[0]}: {c[1]}" for c in BROKEN]
)
def test_broken(status: str, frame: Frame, absent: set[str], tmp_path: Path) -> None:
    packet = decode(frame, tmp_path)
    assert packet["status"] == status
    assert not absent & packet.keys()


def nested(n: int) -> Frame:
    frame = eth()
    for i in range(n):
        frame = frame.ipv4(f"192.0.2.{i + 1}", "192.0.2.99")
    return frame.ipv4(A4, B4).tcp(1000, 80)


def stacked(tags: int) -> Frame:
    frame = eth()
    for i in range(tags):
        frame = frame.vlan(i + 1)
    return frame.ipv4(A4, B4).tcp(1000, 80)


def labelled(labels: int) -> Frame:
    frame = eth()
    for i in range(labels):
        frame = frame.mpls(i + 16)
    return frame.ipv4(A4, B4).tcp(1000, 80)


def extended(headers: int) -> Frame:
    frame = eth().ipv6(A6, B6)
    for _ in range(headers):
        frame = frame.extension("destopts")
    return frame.tcp(1000, 80)


LIMITS = [
    #  what              frame of n  limit  status beyond
    ("tunnels", nested, 4, "too_many_tunnels"),
    ("VLAN tags", stacked, 8, "too_many_vlan_tags"),
    ("MPLS labels", labelled, 16, "too_many_mpls_labels"),
    ("extension headers", extended, 16, "too_many_extensions"),
]


@pytest.mark.parametrize(("make", "limit", "status"), [c[1:] for c in LIMITS], ids=[c[0] for c in LIMITS])
def test_limit(make: Any, limit: int, status: str, tmp_path: Path) -> None:
    for n in (limit - 1, limit):
        check(decode(make(n), tmp_path), {"status": "ok", "sport": 1000, "dport": 80})
    beyond = decode(make(limit + 1), tmp_path)
    assert beyond["status"] == status
    assert "sport" not in beyond


def test_a_tunnel_that_cannot_be_read_hides_the_outer_header_too(tmp_path: Path) -> None:
    packet = decode(outer().gre(protocol=0x0800).raw(b"E\0\0"), tmp_path)
    check(packet, {"status": "truncated_ip", "tunnel": "gre", **OUTER})
    assert "src_ip" not in packet


def test_a_tunnel_of_something_else_than_ip_keeps_the_outer_header(tmp_path: Path) -> None:
    packet = decode(outer().gre(protocol=0x6558).eth(0x0806).payload(b"\0" * 28), tmp_path)
    check(packet, {"status": "ok", "tunnel": "gre", "src_ip": "192.0.2.1", "proto": 47, "eth_type": 0x0800})


def test_every_cut_of_a_frame_leaves_fields_absent_never_zero(tmp_path: Path) -> None:
    whole = eth().vlan(5).ipv4(A4, B4).tcp(1000, 80, "S").payload(b"data").bytes()
    seen = decode(Captured(whole), tmp_path)
    for n in range(len(whole)):
        packet = decode(Captured(whole[:n], length=len(whole)), tmp_path)
        for info in _core.FIELDS:
            assert packet.get(info.name, seen.get(info.name)) == seen.get(info.name), (n, info.name)
        assert packet["payload_offset"] + packet["payload_length"] <= n


def test_length_0_of_a_large_frame_is_segmentation_offload(tmp_path: Path) -> None:
    frame = eth().ipv4(A4, B4, length=0).tcp(1000, 80).payload(b"x" * 3000)
    check(decode(frame, tmp_path), {**TCP, "status": "offloaded_length", "ip_length": 3040, "payload_length": 3000})
