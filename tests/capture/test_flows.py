"""Flows: who started it, what belongs together, when it ends, what is counted."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from meshsieve import capture, flows
from meshsieve.errors import CaptureError, UsageError
from tests.capture.builder import Captured, Frame, eth, pcap

A, B = "10.0.0.1", "10.0.0.2"
SECOND = 10**9


def tcp(src: str, dst: str, sport: int, dport: int, flags: str, **how) -> Frame:
    return eth().ipv4(src, dst).tcp(sport, dport, flags, **how)


def there(flags: str, **how) -> Frame:
    return tcp(A, B, 1000, 80, flags, **how)


def back(flags: str, **how) -> Frame:
    return tcp(B, A, 80, 1000, flags, **how)


def at(seconds: float, frame: Frame) -> Captured:
    return Captured(frame.bytes(), int(seconds * SECOND))


def read(tmp_path: Path, frames, **how) -> flows.FlowColumns:
    path = tmp_path / "flows.pcap"
    path.write_bytes(pcap(frames))
    return flows.read(path, **how)


def shown(columns: flows.FlowColumns) -> list[str]:
    """Each flow as 'sport>dport packets/replies'."""
    extra = columns.extra
    return [
        f"{columns['sport'][i]}>{columns['dport'][i]} {extra['packets'][i]}/{extra['packets_reply'][i]}"
        for i in range(len(columns))
    ]


INITIATOR = [
    #  what it shows                                  packets                               flows
    ("SYN: its sender", [there("S"), back("SA"), there("A")], ["1000>80 2/1"]),
    ("SYN+ACK first: its receiver", [back("SA"), there("S"), there("A")], ["1000>80 2/1"]),
    ("no handshake: the first sender", [back("A"), there("A")], ["80>1000 1/1"]),
    ("both directions are one flow", [there("S"), back("SA")], ["1000>80 1/1"]),
    ("another port is another flow", [there("S"), tcp(A, B, 1001, 80, "S")], ["1000>80 1/0", "1001>80 1/0"]),
]


@pytest.mark.parametrize(("frames", "expected"), [c[1:] for c in INITIATOR], ids=[c[0] for c in INITIATOR])
def test_the_initiator_is(frames, expected, tmp_path: Path) -> None:
    assert shown(read(tmp_path, frames)) == expected


ENDS = [
    #  what it shows                                   packets                                            flows
    ("one SYN lives 120 s", [at(0, there("S")), at(120, there("S"))], ["1000>80 2/0"]),
    ("and not longer", [at(0, there("S")), at(120.1, there("S"))], ["1000>80 1/0", "1000>80 1/0"]),
    ("established lives 12 h", [at(0, there("S")), at(1, back("SA")), at(43200, there("A"))], ["1000>80 2/1"]),
    ("one FIN: 120 s", [at(0, there("S")), at(1, back("SAF")), at(122, there("A"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("both FIN: 20 s", [at(0, there("SF")), at(1, back("AF")), at(22, there("A"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("RST: 20 s", [at(0, there("S")), at(1, back("R")), at(22, there("A"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("late segments stay in it", [at(0, there("SF")), at(1, back("AF")), at(2, there("A"))], ["1000>80 2/1"]),
    ("SYN after RST is new", [at(0, there("S")), at(1, back("R")), at(2, there("S"))], ["1000>80 1/1", "1000>80 1/0"]),
    ("time that runs backwards ends nothing", [at(1000, there("S")), at(1, there("S"))], ["1000>80 2/0"]),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "expected"), [c[1:] for c in ENDS], ids=[c[0] for c in ENDS])
def test_a_tcp_flow_ends(frames, expected, tmp_path: Path) -> None:
    assert shown(read(tmp_path, frames)) == expected


def test_without_timeouts_a_tuple_is_one_flow(tmp_path: Path) -> None:
    frames = [at(0, there("S")), at(1, back("R")), at(90_000, there("S"))]
    assert shown(read(tmp_path, frames, options=flows.FlowOptions.one_per_tuple())) == ["1000>80 2/1"]


def test_every_packet_gets_its_flow(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    arp = eth(0x0806).payload(b"\0" * 28)
    path.write_bytes(pcap([there("S"), arp, back("SA"), there("A")]))
    table = flows.FlowTable()
    (batch,) = capture.read(path, flows=table)
    extra = batch.extra
    assert extra["flow_id"].tolist() == [1, 0, 1, 1]
    assert extra["flow_slot"].tolist() == [0, flows.NO_SLOT, 0, 0]
    assert extra["new_flow"].tolist() == [True, False, False, False]
    assert extra["reply"].tolist() == [False, False, True, False]
    assert batch["ct_state"].tolist() == [1, 0, 2, 2]
    assert batch.has("ct_state").tolist() == [True, False, True, True]


def test_columns_from_elsewhere_go_through_the_table_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([there("S"), back("SA"), there("A")]))
    (batch,) = capture.read(path)
    copied = batch.take(np.arange(3))
    assert copied.native is None
    together = flows.FlowTable().update(copied)
    assert together.extra["reply"].tolist() == [False, True, False]


# Fragments


def datagram(
    more: bool, offset: int, ident: int = 7, src: str = A, dst: str = B, units: int = 1, sport: int = 1000
) -> Frame:
    frame = eth().ipv4(src, dst, proto=17, ident=ident, more=more, offset=offset)
    if offset == 0:
        frame = frame.udp(sport, 53, length=24)
    return frame.payload(b"8 bytes!" * units)


MANY = [datagram(True, at) for at in range(16, 4096, 8)]


FRAGMENTS = [
    #  what it shows                          packets                                             flows           notes
    ("later ones follow the first", [datagram(True, 0), datagram(False, 16)], ["1000>53 2/0"], {"fragments"}),
    ("and may come before it", [datagram(False, 16), datagram(True, 0)], ["1000>53 2/0"], {"fragments"}),
    ("another datagram is another", [datagram(True, 0), datagram(False, 16, 8)], ["1000>53 1/0", "0>0 1/0"],
     {"fragments", "no_first_fragment"}),
    ("the other direction is another", [datagram(True, 0), datagram(False, 16, src=B, dst=A)],
     ["1000>53 1/0", "0>0 1/0"], {"fragments", "no_first_fragment"}),
    ("without a first: a flow without ports", [datagram(False, 16)], ["0>0 1/0"], {"fragments", "no_first_fragment"}),
    ("overlap is noted", [datagram(True, 0), datagram(False, 8)], ["1000>53 2/0"], {"fragments", "fragment_overlap"}),
    ("a copy is no overlap", [datagram(True, 0), datagram(True, 16), datagram(True, 16)], ["1000>53 3/0"],
     {"fragments"}),
    ("overlap is noted behind many pieces", [datagram(True, 0), *MANY, datagram(True, 4088, units=2)],
     [f"1000>53 {len(MANY) + 2}/0"], {"fragments", "fragment_overlap"}),
    ("and in front of many", [datagram(True, 0), *MANY[::-1], datagram(True, 16, units=2)],
     [f"1000>53 {len(MANY) + 2}/0"], {"fragments", "fragment_overlap"}),
    ("many pieces are no overlap", [datagram(True, 0), *MANY[::-1], *MANY], [f"1000>53 {2 * len(MANY) + 1}/0"],
     {"fragments"}),
    ("overlap is noted before the first one", [datagram(True, 16), datagram(True, 16, units=2), datagram(True, 0)],
     ["1000>53 3/0"], {"fragments", "fragment_overlap"}),
    ("and if none comes", [datagram(True, 16), datagram(True, 16, units=2)], ["0>0 2/0"],
     {"fragments", "no_first_fragment", "fragment_overlap"}),
    ("a copy of the first one is no overlap", [datagram(True, 0), datagram(True, 0)], ["1000>53 2/0"], {"fragments"}),
    ("a first one of another length is", [datagram(True, 0), datagram(True, 0, units=2)], ["1000>53 2/0"],
     {"fragments", "fragment_overlap"}),
    ("and one of other ports", [datagram(True, 0), datagram(True, 0, sport=2000)], ["1000>53 1/0", "2000>53 1/0"],
     {"fragments", "fragment_overlap"}),
    ("a whole datagram's identification is used again",
     [datagram(True, 0), datagram(False, 16), datagram(True, 0, units=2, sport=2000), datagram(False, 24)],
     ["1000>53 2/0", "2000>53 2/0"], {"fragments"}),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "expected", "notes"), [c[1:] for c in FRAGMENTS], ids=[c[0] for c in FRAGMENTS])
def test_fragments(frames, expected, notes: set[str], tmp_path: Path) -> None:
    columns = read(tmp_path, frames)
    assert shown(columns) == expected
    bits = int(np.bitwise_or.reduce(columns.extra["notes"]))
    assert {name for i, name in enumerate(flows.NOTES) if bits >> i & 1} == notes


def test_a_later_fragment_has_no_ports_for_rules_but_a_flow(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([datagram(True, 0), datagram(False, 16)]))
    (batch,) = capture.read(path, flows=flows.FlowTable())
    assert batch.has("sport").tolist() == [True, False]
    assert batch["fragment"].tolist() == [0, 1]
    assert batch.extra["flow_id"].tolist() == [1, 1]


# ICMP


def test_icmp_errors_about_a_flow_are_related(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    sent = Frame().ipv4(A, B).udp(1000, 53)
    other = Frame().ipv4(A, B).udp(1000, 54)
    error = eth().ipv4(B, A).icmp(3, 3)
    path.write_bytes(pcap([eth().raw(sent.bytes(), "ipv4"), error.raw(sent.bytes()), error.raw(other.bytes())]))
    (batch,) = capture.read(path, flows=flows.FlowTable())
    assert batch["ct_state"].tolist() == [1, 3, 1]
    assert batch.extra["flow_id"].tolist() == [1, 2, 2]


def test_icmp_has_ports_0_and_one_flow_a_pair(tmp_path: Path) -> None:
    ping, pong = eth().ipv4(A, B).icmp(8), eth().ipv4(B, A).icmp(0)
    assert shown(read(tmp_path, [ping, pong, eth().ipv4(A, B).icmp(13)])) == ["0>0 2/1"]


# Counting


def test_counters_state_and_first_packet(tmp_path: Path) -> None:
    frames = [
        there("S", seq=100),
        back("SA", seq=500),
        there("A", seq=101, ack=501).payload(b"x" * 10),
        there("A", seq=101, ack=501).payload(b"x" * 10),  # again
        there("A", seq=111).payload(b"y"),
        back("FA", seq=501),
        there("FA", seq=112),
    ]
    flow = read(tmp_path, frames)
    extra = {name: column[0].tolist() for name, column in flow.extra.items()}
    assert (extra["packets"], extra["packets_reply"]) == (5, 2)
    assert (extra["bytes"], extra["bytes_reply"]) == (54 * 5 + 21, 108)
    assert (extra["retransmissions"], extra["retransmissions_reply"]) == (1, 0)
    assert (extra["tcp_flags_or"], extra["tcp_flags_or_reply"]) == (19, 19)
    assert flows.TCP_STATES[extra["tcp_state"]] == "closed"
    assert flows.ENDS[extra["end_reason"]] == "open"
    assert extra["last_ns"] - extra["first_ns"] == 6 * 10**6
    assert flow["tcp_flags"][0] == 2
    assert extra["notes"] == 0


def test_the_first_packet_is_turned_to_the_initiator(tmp_path: Path) -> None:
    flow = read(tmp_path, [back("SA")])
    assert (flow["src_ip"][0, 1], flow["dst_ip"][0, 1]) == (0x0A000001, 0x0A000002)
    assert flow["tcp_flags"][0] == 18


def test_active_timeout_writes_parts_of_a_long_flow(tmp_path: Path) -> None:
    frames = [at(t, there("A")) for t in range(0, 10)]
    columns = read(tmp_path, frames, options=flows.FlowOptions(active_s=4))
    assert shown(columns) == ["1000>80 5/0", "1000>80 5/0"]
    assert columns.extra["flow_id"].tolist() == [1, 1]
    assert [flows.ENDS[code] for code in columns.extra["end_reason"]] == ["active", "open"]


KEYS = [
    #  what it shows                   options                               flows
    ("VLANs are one flow", {}, 1),
    ("VLANs apart", {"key_vlan": True}, 2),
]


@pytest.mark.parametrize(("options", "expected"), [c[1:] for c in KEYS], ids=[c[0] for c in KEYS])
def test_vlan_in_the_key(options: dict, expected: int, tmp_path: Path) -> None:
    frames = [eth().vlan(number).ipv4(A, B).tcp(1000, 80, "S") for number in (5, 6)]
    assert len(read(tmp_path, frames, options=flows.FlowOptions(**options))) == expected


def test_tunnel_in_the_key(tmp_path: Path) -> None:
    inner = Frame().ipv4(A, B).tcp(1000, 80, "S").bytes()
    frames = [eth().ipv4("192.0.2.1", "192.0.2.2").udp(9, 4789).vxlan(vni).eth(0x0800).raw(inner) for vni in (1, 2)]
    assert len(read(tmp_path, frames)) == 1
    columns = read(tmp_path, frames, options=flows.FlowOptions(key_vni=True))
    assert columns.extra["vni"].tolist() == [1, 2]


# Bounds


def test_a_full_table_evicts_the_oldest_and_counts_it(tmp_path: Path) -> None:
    frames = [tcp(A, B, 1000 + i, 80, "S") for i in range(10)]
    columns = read(tmp_path, [*frames, frames[9]], options=flows.FlowOptions(max_flows=4))
    assert shown(columns) == [f"{1000 + i}>80 {1 + (i == 9)}/0" for i in range(10)]
    assert columns.stats is not None
    assert columns.stats["evicted"] == 6
    assert [flows.ENDS[code] for code in columns.extra["end_reason"]] == ["evicted"] * 6 + ["open"] * 4


def test_a_flow_in_use_outlives_idle_ones(tmp_path: Path) -> None:
    busy = there("S")
    frames = [busy]
    for i in range(10):
        frames += [tcp(A, B, 2000 + i, 80, "S"), busy]
    columns = read(tmp_path, frames, options=flows.FlowOptions(max_flows=4))
    assert shown(columns)[0] == "1000>80 11/0"


def test_forgotten_flows_give_their_memory_back(tmp_path: Path) -> None:
    frames = [at(i * 10, eth().ipv4(A, B).udp(i % 60000 + 1, 53)) for i in range(70_000)]
    table = flows.FlowTable()
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(frames))
    for _ in capture.read(path, flows=table):
        table.take_finished()
    assert table.stats["flows"] == 70_000
    assert table.stats["live"] <= 8
    assert table.slots <= 65_536 + 16


IMPOSSIBLE = [
    {"max_flows": 0},
    {"tcp_syn_s": -1},
    {"udp_reply_s": 1e12},
    {"max_fragmented": 0},
    {"apps_waiting_bytes": -1},
    {"apps_attribute_bytes": -1},
]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=str)
def test_options_have_limits(options: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        flows.FlowTable(flows.FlowOptions(**options))


def test_somebody_must_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="threads is 0"):
        flows.read(tmp_path / "a.pcap", threads=0)


# What must not matter


def conversation(seed: int) -> list[Captured]:
    """Packets of all kinds with jumps in time."""
    chance = random.Random(seed)
    frames, now = [], 10**18
    for _ in range(3000):
        now += chance.choice([1, 10**6, 10**9, 30 * 10**9, -(10**8)])
        src, dst = chance.sample([A, B, "10.0.0.3", "10.0.0.4"], 2)
        sport, dport = chance.randrange(1, 6), chance.randrange(1, 6)
        flags = chance.choice(["S", "SA", "A", "FA", "R", "PA"])
        frame = chance.choice(
            [
                tcp(src, dst, sport, dport, flags, seq=chance.randrange(100)),
                eth().ipv4(src, dst).udp(sport, dport),
                eth().ipv4(src, dst).icmp(8),
                datagram(chance.random() < 0.5, chance.choice([0, 16, 24]), chance.randrange(3), src, dst),
                eth(0x0806).payload(b"\0" * 28),
            ]
        )
        frames.append(Captured(frame.bytes(), now))
    return frames


@pytest.mark.parametrize("limit", [8, 860_000])
def test_batch_size_and_hash_key_change_nothing(limit: int, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation(1)))
    seen = []
    for size in (1, 3, 32, 100, 4096):
        table = flows.FlowTable(flows.FlowOptions(max_flows=limit, active_s=100))  # each has a key of its own
        packets = [{**b.extra, "present": b.present} for b in capture.read(path, batch_size=size, flows=table)]
        ended = table.finish()
        columns = {name: np.concatenate([p[name] for p in packets]) for name in packets[0]}
        columns |= {f"flow {name}": column for name, column in {**ended.extra, **ended}.items()}
        seen.append(columns)
    whole = flows.read(path, options=flows.FlowOptions(max_flows=limit, active_s=100))  # without columns of packets
    seen.append({f"flow {name}": column for name, column in {**whole.extra, **whole}.items()})
    for columns in seen[1:]:
        for name, column in columns.items():
            assert np.array_equal(column, seen[0][name]), name


@pytest.mark.parametrize("seed", range(4))
def test_every_packet_is_counted_once(seed: int, tmp_path: Path) -> None:
    frames = conversation(seed)
    columns = read(tmp_path, frames, options=flows.FlowOptions(max_flows=6, active_s=50, max_fragmented=2))
    assert columns.stats is not None
    counted = int(columns.extra["packets"].sum() + columns.extra["packets_reply"].sum())
    assert counted + columns.stats["packets_without_flow"] == len(frames)


def test_a_stream_gives_the_same_flows(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation(2)))
    whole = flows.read(path)
    parts = list(flows.stream(path, batch_size=50))
    ids = np.concatenate([part.extra["flow_id"] for part in parts])
    packets = np.concatenate([part.extra["packets"] for part in parts])
    order = np.argsort(ids, kind="stable")
    assert np.array_equal(ids[order], whole.extra["flow_id"])
    assert np.array_equal(packets[order], whole.extra["packets"])


def test_packets_without_columns_need_a_flow_table(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation(2)))
    with pytest.raises(ValueError, match="this reader has none"):
        capture.read(path).follow()
    reader = capture.read(path, flows=flows.FlowTable(), count=7)
    assert not reader.follow()
    assert (reader.packets_delivered, reader.follow()) == (7, False)


# The reference: the rules of docs/flows.md in the plainest way, for flows without timeouts, fragments and limits


def test_against_a_plain_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap(conversation(3)))
    expected: dict[frozenset, list] = {}
    for batch in capture.read(path, filter="not (ip[6:2] & 0x3fff != 0)"):
        for i in np.flatnonzero(batch.has("src_ip")):
            src = (int(batch["src_ip"][i, 1]), int(batch["sport"][i]))
            dst = (int(batch["dst_ip"][i, 1]), int(batch["dport"][i]))
            proto = int(batch["proto"][i])
            key = frozenset([(src, proto), (dst, proto)])
            if key not in expected:
                answers = proto == 6 and int(batch["tcp_flags"][i]) & 18 == 18
                expected[key] = [dst if answers else src, 0, 0]
            expected[key][1 if src == expected[key][0] else 2] += 1
    ours = flows.read(path, filter="not (ip[6:2] & 0x3fff != 0)", options=flows.FlowOptions.one_per_tuple())
    got = [
        [
            (int(ours["src_ip"][i, 1]), int(ours["sport"][i])),
            *(int(ours.extra[n][i]) for n in ("packets", "packets_reply")),
        ]
        for i in range(len(ours))
    ]
    assert got == list(expected.values())


# Community ID: vectors computed by the specification's own examples (github.com/corelight/community-id-spec, baseline)

IDS = [
    ("1:LQU9qZlK+B5F3KDmev6m5PMibrg=", eth().ipv4("128.232.110.120", "66.35.250.204").tcp(34855, 80)),
    ("1:LQU9qZlK+B5F3KDmev6m5PMibrg=", eth().ipv4("66.35.250.204", "128.232.110.120").tcp(80, 34855)),
    ("1:d/FP5EW3wiY1vCndhwleRRKHowQ=", eth().ipv4("192.168.1.52", "8.8.8.8").udp(54585, 53)),
    ("1:X0snYXpgwiv9TZtqg64sgzUn6Dk=", eth().ipv4("192.168.0.89", "192.168.0.1").icmp(8, 0)),
]


@pytest.mark.parametrize(("expected", "frame"), IDS)
def test_community_id(expected: str, frame: Frame, tmp_path: Path) -> None:
    assert read(tmp_path, [frame]).community_ids == [expected]


# Tables


def test_tables_have_nulls_names_and_times(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    ping = eth().ipv6("2001:db8::1", "2001:db8::2").icmpv6(128)
    table = read(tmp_path, [there("S"), ping]).to_arrow()
    assert table.column("src_ip").to_pylist() == [A, "2001:db8::1"]
    assert table.column("sport").to_pylist() == [1000, None]
    assert table.column("tcp_state").to_pylist() == ["opening", "none"]
    assert table.column("outer_src_ip").to_pylist() == [None, None]
    assert str(table.schema.field("first").type) == "timestamp[ns, tz=UTC]"
    binary = read(tmp_path, [there("S"), ping]).to_arrow(addresses="binary")
    assert binary.column("src_ip").to_pylist()[0] == bytes(10) + b"\xff\xff\x0a\0\0\1"


def test_data_frames(tmp_path: Path) -> None:
    for library in ("pandas", "polars"):
        pytest.importorskip(library)
        frame = getattr(read(tmp_path, [there("S")]), f"to_{library}")()
        assert list(frame["dport"]) == [80]


def test_community_ids_stay_with_flows_that_are_chosen_and_changed(tmp_path: Path) -> None:
    frames = [eth().ipv4("10.0.0.1", f"10.0.0.{i}").udp(1000 + i, 53).payload(b"x") for i in range(2, 8)]
    found = read(tmp_path, frames)
    chosen = found.take(np.array([4, 1, 1])).with_fields({"ct_state": [1]}).take(np.array([True, False, True]))
    assert chosen.community_ids == [found.community_ids[4], found.community_ids[1]]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_make_no_difference(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows that go on from part to part, applications and attributes included."""
    path = Path(__file__).parents[2] / "examples/demo/demo.pcap"
    monkeypatch.setattr(flows, "_PART_BYTES", path.stat().st_size // 17)
    alone, together = flows.read(path), flows.read(path, threads=threads)
    assert together.stats == alone.stats
    assert together.problem is None
    left, right = alone.table_columns(), together.table_columns()
    assert left.keys() == right.keys()
    for name, column in left.items():
        assert list(right[name]) == list(column), name


def test_threads_say_that_a_capture_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (Path(__file__).parents[2] / "examples/demo/demo.pcap").read_bytes()
    (tmp_path / "cut.pcap").write_bytes(data[:-5])
    monkeypatch.setattr(flows, "_PART_BYTES", len(data) // 5)
    found = flows.read(tmp_path / "cut.pcap", threads=2)
    assert "the file ends inside a packet" in str(found.problem)
    with pytest.raises(CaptureError, match="ends inside a packet"):
        flows.read(tmp_path / "cut.pcap", threads=2, strict=True)
