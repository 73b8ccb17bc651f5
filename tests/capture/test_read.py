"""Files become batches: every format of record, compression, several files, filters, and how a file may break."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest

from meshsieve import capture, flows
from meshsieve.errors import CaptureError, FilterError, UsageError
from tests.capture.builder import Captured, block, enhanced, eth, interface, obsolete, pcap, pcapng, section, simple

FRAMES = [
    eth().ipv4("10.0.0.1", "10.0.0.2").tcp(1000, 80, "S"),
    eth().ipv6("2001:db8::1", "2001:db8::2").udp(5353, 53).payload(b"query"),
    eth().vlan(5).ipv4("10.0.0.2", "10.0.0.1").tcp(80, 1000, "SA"),
]

FORMATS = {
    "pcap, little-endian, microseconds": pcap(FRAMES, nano=False),
    "pcap, big-endian, microseconds": pcap(FRAMES, nano=False, order=">"),
    "pcap, little-endian, nanoseconds": pcap(FRAMES),
    "pcap, big-endian, nanoseconds": pcap(FRAMES, order=">"),
    "pcap, modified": pcap(FRAMES, modified=True),
    "pcap, modified, big-endian": pcap(FRAMES, modified=True, order=">"),
    "pcapng, little-endian": pcapng(FRAMES),
    "pcapng, big-endian": pcapng(FRAMES, order=">"),
}


@pytest.mark.parametrize("data", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_every_format_gives_the_same_packets(data: bytes, pack, tmp_path: Path) -> None:
    path = tmp_path / "a.cap"
    path.write_bytes(pack(data))
    (batch,) = capture.read(path)
    assert batch["dport"].tolist() == [80, 53, 1000]
    assert batch["ip_ver"].tolist() == [4, 6, 4]
    assert batch["tcp_flags"].tolist() == [2, 0, 18]
    assert batch.has("tcp_flags").tolist() == [True, False, True]
    assert batch.has("vlan").tolist() == [False, False, True]
    assert batch.extra["number"].tolist() == [1, 2, 3]
    assert (batch.extra["time_ns"] - 10**18).tolist() == [0, 10**6, 2 * 10**6]


def write(tmp_path: Path, data: bytes, name: str = "a.cap") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def numbers(reader: capture.CaptureReader, column: str = "number") -> list[int]:
    return [value for batch in reader for value in batch.extra[column].tolist()]


# pcapng


def timed(options: dict[str, int], units: int) -> bytes:
    return section() + interface(**options) + enhanced(FRAMES[0].bytes(), units)


TIMES = [
    #  what it shows                      interface                                units   ns
    ("default: microseconds", {}, 5, 5000),
    ("nanoseconds", {"resolution": 9}, 5, 5),
    ("seconds", {"resolution": 0}, 5, 5 * 10**9),
    ("picoseconds are cut", {"resolution": 12}, 5999, 5),
    ("2^-10 s", {"resolution": 0x8A}, 512, 500_000_000),
    ("offset in seconds", {"resolution": 9, "offset_s": 2}, 5, 2 * 10**9 + 5),
    ("negative offset", {"resolution": 9, "offset_s": -2}, 5, -2 * 10**9 + 5),
    ("beyond int64 saturates", {"resolution": 0}, 2**63, 2**63 - 1),
    ("below int64 saturates", {"resolution": 9, "offset_s": -(2**63)}, 0, -(2**63)),
    ("a negative offset brings it back", {"resolution": 0, "offset_s": -(2**63) + 7}, 2**63, 7 * 10**9),
    ("10^-127 s", {"resolution": 127}, 2**64 - 1, 0),
    ("2^-127 s", {"resolution": 255}, 2**64 - 1, 0),
]


@pytest.mark.parametrize(("options", "units", "expected"), [c[1:] for c in TIMES], ids=[c[0] for c in TIMES])
def test_pcapng_time(options: dict[str, int], units: int, expected: int, tmp_path: Path) -> None:
    assert numbers(capture.read(write(tmp_path, timed(options, units))), "time_ns") == [expected]


def test_pcapng_sections_interfaces_and_blocks(tmp_path: Path) -> None:
    frame, ip = FRAMES[0].bytes(), FRAMES[0].bytes()[14:]
    data = (
        section()
        + interface(1)
        + interface(101)  # raw IP
        + enhanced(frame, 1)
        + enhanced(ip, 2, number=1)
        + block(4, b"\0" * 8)  # name resolution
        + block(10, b"secret!!")  # decryption secrets
        + block(0x0BAD, b"whatever")
        + obsolete(ip, 3, number=1)
        + section(order=">")
        + interface(101, order=">")
        + enhanced(ip, 4, order=">")
        + simple(ip, order=">")
    )
    (batch,) = capture.read(write(tmp_path, data))
    assert batch["dport"].tolist() == [80] * 5
    assert batch.extra["time_ns"].tolist() == [1000, 2000, 3000, 4000, 4000]  # a simple packet has its forerunner's


def test_a_simple_packet_is_cut_at_the_snapshot_length(tmp_path: Path) -> None:
    data = section() + interface(1, snaplen=20) + simple(FRAMES[0].bytes()[:20], length=54)
    (batch,) = capture.read(write(tmp_path, data))
    assert (batch.extra["captured_length"][0], batch.extra["length"][0]) == (20, 54)


# What may be wrong with a file

ONE = enhanced(FRAMES[0].bytes(), 1)
START = section() + interface()

BREAKS = [
    #  what it shows                         file                                    packets  reason
    ("pcap record header cut", pcap(FRAMES)[:-60], 2, "ends inside a record header"),
    ("pcap packet cut", pcap(FRAMES)[:-1], 2, "ends inside a packet"),
    ("pcap length over the limit", pcap([]) + b"\0" * 8 + b"\xff" * 8, 0, "over the limit of 262144"),
    ("block length 0", START + ONE + block(6, b"")[:4] + b"\0" * 8, 1, "multiple of 4 and at least 12"),
    ("block length 13", START + ONE + b"\6\0\0\0\x0d\0\0\0" + b"\0" * 8, 1, "multiple of 4 and at least 12"),
    ("block of 4 GiB", START + ONE + b"\6\0\0\0\xfc\xff\xff\xff" + b"\0" * 8, 1, "over the limit of 16777216"),
    ("block ends differ", START + ONE + ONE[:-4] + b"\x10\0\0\0", 1, "two ends of a block differ"),
    ("block cut", START + ONE + ONE[:-3], 1, "ends inside a block"),
    ("unknown interface", START + ONE + enhanced(b"", 1, number=7), 1, "names interface 7"),
    ("packet before its interface", section() + ONE, 0, "names interface 0"),
    ("simple packet without interface", section() + simple(b"x"), 0, "names interface 0"),
    ("packet longer than its block", START + ONE[:20] + b"\xff\0\0\0" + ONE[24:], 0, "runs beyond its block"),
    ("option longer than its block", section() + block(1, b"\1\0\0\0\0\0\0\0\2\0\xff\0"), 0, "option runs beyond"),
    ("byte-order magic", START + ONE + b"\x0a\x0d\x0d\x0a" + b"\x1c\0\0\0" + b"\0" * 20, 1, "byte-order magic"),
]


@pytest.mark.parametrize(("data", "packets", "reason"), [c[1:] for c in BREAKS], ids=[c[0] for c in BREAKS])
def test_a_broken_record_ends_the_file_and_says_where(data: bytes, packets: int, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path, data)
    reader = capture.read(path)
    assert len(numbers(reader)) == packets == reader.packets_read
    assert reader.problem is not None
    assert reader.problem.startswith(f"{path}: {packets} packets read, then ")
    assert reason in reader.problem
    assert " at byte " in reader.problem


def test_strict_makes_it_an_exception_after_what_could_be_read(tmp_path: Path) -> None:
    reader = capture.read(write(tmp_path, pcap(FRAMES)[:-1]), strict=True)
    assert len(next(reader)) == 2
    with pytest.raises(CaptureError, match="2 packets read, then") as caught:
        next(reader)
    assert caught.value.packets_read == 2
    assert caught.value.offset == len(pcap(FRAMES[:2]))


REFUSED = [
    #  what it shows               file                                        message
    ("an empty file", b"", "the file is empty"),
    ("3 bytes", b"\xd4\xc3\xb2", "ends inside the first 4 bytes"),
    ("half a header", pcap([])[:20], "ends inside the 24-byte pcap header"),
    ("text", b"hello, world", "neither pcap nor pcapng"),
    ("version 9", pcap([])[:4] + b"\x09\0\x09\0" + pcap([])[8:], "version 9.9 is not known"),
]


@pytest.mark.parametrize(("data", "message"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_is_no_capture_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=message):
        capture.read(write(tmp_path, data))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file"):
        capture.read(tmp_path / "none.pcap")
    with pytest.raises(CaptureError, match="folder"):
        capture.read(tmp_path)


@pytest.mark.parametrize("data", [pcap(FRAMES, nano=False), pcapng(FRAMES)], ids=["pcap", "pcapng"])
def test_every_cut_of_a_file_gives_whole_packets_or_a_reason(data: bytes, tmp_path: Path) -> None:
    whole = numbers(capture.read(write(tmp_path, data)), "length")
    for n in range(len(data)):
        path = write(tmp_path, data[:n])
        try:
            reader = capture.read(path)
        except CaptureError:
            continue
        seen = numbers(reader, "length")
        assert seen == whole[: len(seen)]
        assert reader.problem is not None or data[:n] in {pcap(FRAMES[:k], nano=False) for k in range(4)} | {
            pcapng(FRAMES[:k]) for k in range(4)
        } | {section()}


def test_changed_bytes_never_do_worse_than_a_problem(tmp_path: Path) -> None:
    chance = random.Random(1)
    for data in (pcap(FRAMES), pcapng(FRAMES)):
        for _ in range(300):
            changed = bytearray(data)
            changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
            try:
                for batch in capture.read(write(tmp_path, bytes(changed)), flows=flows.FlowTable()):
                    ends = batch.extra["payload_offset"] + batch.extra["payload_length"]
                    assert (ends <= batch.extra["captured_length"]).all()
            except CaptureError:
                pass


# Compression


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the program zstd")
MANY = pcap(FRAMES * 200)


@needs_zstd
def test_zstandard(tmp_path: Path) -> None:
    assert len(numbers(capture.read(write(tmp_path, zstd(MANY))))) == 600


@needs_zstd
def test_zstandard_of_several_frames(tmp_path: Path) -> None:
    assert len(numbers(capture.read(write(tmp_path, zstd(MANY[:5000]) + zstd(MANY[5000:]))))) == 600


def test_gzip_of_several_members_and_padding(tmp_path: Path) -> None:
    data = gzip.compress(MANY[:5000]) + gzip.compress(MANY[5000:]) + b"\0" * 512
    reader = capture.read(write(tmp_path, data))
    assert len(numbers(reader)) == 600
    assert reader.problem is None
    assert reader.bytes_read == reader.size_bytes == len(data)


def test_gzip_that_ends_early_gives_what_was_there(tmp_path: Path) -> None:
    reader = capture.read(write(tmp_path, gzip.compress(MANY)[:-20]))
    assert 0 < len(numbers(reader)) <= 600
    assert "the gzip data ends in the middle" in (reader.problem or "")


def test_gzip_with_a_wrong_checksum_gives_all_packets_and_says_so(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(MANY))
    data[-6] ^= 1
    reader = capture.read(write(tmp_path, bytes(data)))
    assert len(numbers(reader)) == 600
    assert "600 packets read, then the gzip data is damaged: incorrect data check" in (reader.problem or "")


def test_lz4_of_several_frames(tmp_path: Path) -> None:
    data = lz4.frame.compress(MANY[:5000]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + lz4.frame.compress(MANY[5000:])
    reader = capture.read(write(tmp_path, data))
    assert len(numbers(reader)) == 600
    assert reader.problem is None
    assert reader.bytes_read == reader.size_bytes == len(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [(lambda d: d[:-2], "the LZ4 data ends in the middle"), (lambda d: d[:-2] + b"??", "the LZ4 data is damaged")],
    ids=["cut", "checksum"],
)
def test_lz4_that_breaks_gives_what_was_there(change, said, tmp_path: Path) -> None:
    reader = capture.read(write(tmp_path, change(lz4.frame.compress(MANY, content_checksum=True))))
    assert len(numbers(reader)) == 600
    assert said in (reader.problem or "")


# What a decompressor has read but had no room to write is not lost where the file is cut: batches are read through a
# buffer that is smaller than the blocks of these formats.
ZEROS = pcap([Captured(FRAMES[0].bytes() + bytes(200_000), i) for i in range(12)])


@pytest.mark.parametrize(
    ("pack", "end"),
    [
        pytest.param(zstd, 4, id="zstandard", marks=needs_zstd),
        pytest.param(lambda d: lz4.frame.compress(d, block_size=lz4.frame.BLOCKSIZE_MAX4MB), 4, id="lz4"),
        pytest.param(lambda d: gzip.compress(d, mtime=0), 8, id="gzip"),
    ],
)
def test_all_that_was_decompressed_of_a_cut_file_is_read(pack, end: int, tmp_path: Path) -> None:
    reader = capture.read(write(tmp_path, pack(ZEROS)[:-end]))
    assert len(numbers(reader)) == 12
    assert "ends in the middle" in (reader.problem or "")


# Files over 1 MiB are decompressed on a second thread.
_chance = random.Random(3)
NOISE = pcap([Captured(FRAMES[0].bytes() + _chance.randbytes(1400), i) for i in range(3000)])
PACKED = {"gzip": gzip.compress(NOISE, 1), "lz4": lz4.frame.compress(NOISE)}


@pytest.mark.parametrize("data", PACKED.values(), ids=PACKED.keys())
def test_a_large_compressed_file_reads_the_same_from_any_place_and_stops_anywhere(data: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, data)
    assert numbers(capture.read(path)) == list(range(1, 3001))
    assert numbers(capture.read([path, path]), "file") == [0, 1] * 3000
    for _ in range(20):  # closed before its thread is done
        with capture.read(path, batch_size=10) as reader:
            next(reader)
    reader = capture.read(write(tmp_path, data[:-1000], "cut"))
    assert 2800 < len(numbers(reader)) < 3001
    assert "ends in the middle" in (reader.problem or "")


def test_a_child_made_by_fork_is_refused_what_its_parent_was_reading(tmp_path: Path) -> None:
    program = """if True:
        import os, sys, meshsieve.capture as c
        reader = c.read(sys.argv[1], batch_size=10)
        next(reader)
        child = os.fork()
        rest = sum(map(len, reader))
        if child == 0:
            os._exit(0 if "forked" in (reader.problem or "") else 1)
        print(rest, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    path = write(tmp_path, PACKED["gzip"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, env=environment, check=True, timeout=60
    )
    assert done.stdout.split() == [b"2990", b"0"]


def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    bomb = gzip.compress(pcap([]) + b"\0" * (40 << 20), 9)
    reader = capture.read(write(tmp_path, bomb))
    for _ in reader:
        pass
    assert "1,000-fold" in (reader.problem or "")


# Shards

_TWO_SECTIONS = (
    section() + interface(resolution=9) + interface(101, resolution=6)
    + b"".join(enhanced(FRAMES[i % 3].bytes(), 10**18 + i, number=0) for i in range(300))
    + block(5, b"statistics") + simple(FRAMES[0].bytes()) * 40
    + section(order=">") + interface(order=">", resolution=9)
    + b"".join(enhanced(FRAMES[i % 3].bytes(), 10**18 + i, order=">") for i in range(300))
)  # fmt: skip
SPLIT = {
    "pcap": MANY,
    "pcap, big-endian": pcap(FRAMES * 200, order=">", nano=False),
    "pcap, modified": pcap(FRAMES * 200, modified=True),
    "pcapng": pcapng(FRAMES * 200),
    "pcapng of two sections": _TWO_SECTIONS,
    "broken": MANY[:-1],
}


def everything(reader: capture.CaptureReader) -> tuple[list[tuple], str | None]:
    rows: list[tuple] = []
    for batch in reader:
        names = ("number", "time_ns", "length", "status")
        columns = [batch.extra[name].tolist() for name in names] + [batch[name].tolist() for name in ("dport", "vlan")]
        rows += zip(*columns, strict=True)
    return rows, reader.problem


@pytest.mark.parametrize("data", SPLIT.values(), ids=SPLIT.keys())
def test_shards_hold_every_packet_once_as_the_file_does(data: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, data)
    expected = everything(capture.read(path))
    for n in (1, 2, 3, 7, 1000):
        shards = capture.scan_shards(path, n)
        assert len(shards) <= n
        assert len(shards) > 1 or n == 1
        parts = [everything(capture.read(pickle.loads(pickle.dumps(shard)))) for shard in shards]
        assert [row for rows, _ in parts for row in rows] == expected[0]
        assert [problem is None for _, problem in parts[:-1]] == [True] * (len(parts) - 1)
        last = parts[-1][1]
        assert (last or "").split(" at byte ")[1:] == (expected[1] or "").split(" at byte ")[1:]
        together = capture.read(shards, merge=False)
        assert everything(together)[0] == expected[0]
    sizes = [shard.end - shard.begin for shard in capture.scan_shards(path, 4)]
    assert max(sizes) - min(sizes) < len(data) / 4


def test_flows_over_shards_in_order_are_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, MANY)
    whole, parts = flows.read(path), flows.read(capture.scan_shards(path, 5), merge=False)
    for name in ("flow_id", "packets", "bytes", "packets_reply", "first_ns", "last_ns", "retransmissions"):
        assert whole.extra[name].tolist() == parts.extra[name].tolist()
    alone = [flows.read(shard) for shard in capture.scan_shards(path, 5)]
    assert sum(int(part.extra["packets"].sum() + part.extra["packets_reply"].sum()) for part in alone) == 600


def test_what_cannot_be_split_is_one_shard(tmp_path: Path) -> None:
    for data in (gzip.compress(MANY), pcap([]), pcap(FRAMES[:1])):
        (shard,) = capture.scan_shards(write(tmp_path, data), 8)
        assert everything(capture.read(shard)) == everything(capture.read(shard.path))
    assert len(capture.scan_shards("-", 8)) == 1
    with pytest.raises(CaptureError, match="the file cannot be opened"):
        capture.read(capture.scan_shards(tmp_path / "missing", 2))
    with pytest.raises(CaptureError, match="1 to 4096 shards"):
        capture.scan_shards(write(tmp_path, MANY), 0)
    with pytest.raises(CaptureError, match="1 to 4096 shards"):
        capture.scan_shards(write(tmp_path, MANY), -1)


def test_a_shard_of_a_file_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, MANY)
    shards = capture.scan_shards(path, 2)
    write(tmp_path, MANY + b"x")
    with pytest.raises(CaptureError, match="has changed since it was scanned"):
        capture.read(shards[1])


# Choosing packets


def test_batch_size_changes_nothing_but_the_batches(tmp_path: Path) -> None:
    path = write(tmp_path, MANY)
    whole = None
    for size in (1, 2, 7, 31, 32, 33, 599, 600, 601, 65536):
        batches = list(capture.read(path, batch_size=size))
        assert all(len(batch) == size for batch in batches[:-1])
        columns = {name: np.concatenate([b.extra[name] for b in batches]) for name in batches[0].extra}
        columns |= {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        if whole is None:
            whole = columns
        for name, column in columns.items():
            assert np.array_equal(column, whole[name]), name


@pytest.mark.parametrize("size", [0, 65537, -1])
def test_batch_size_has_limits(size: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size"):
        capture.read(write(tmp_path, MANY), batch_size=size)


@pytest.mark.parametrize("argument", [{"count": -1}, {"start_ns": 2**63}, {"end_ns": -(2**70)}], ids=str)
def test_numbers_that_no_capture_has_are_refused_by_name(argument: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(argument))} is -?\\d+; it must lie in"):
        capture.read(write(tmp_path, MANY), **argument)  # type: ignore[arg-type]


CHOICES = [
    #  what it shows                  arguments                                            packet numbers
    ("everything", {}, [1, 2, 3]),
    ("a filter keeps numbers", {"filter": "tcp or (vlan and tcp)"}, [1, 3]),
    ("a filter on a tag", {"filter": "vlan 5 and tcp"}, [3]),
    ("a filter of nothing", {"filter": "sctp"}, []),
    ("a count", {"count": 2}, [1, 2]),
    ("a count of 0", {"count": 0}, []),
    ("a count of what the filter keeps", {"count": 2, "filter": "ip or vlan"}, [1, 3]),
    ("from a time on", {"start_ns": 10**18 + 10**6}, [2, 3]),
    ("before a time", {"end_ns": 10**18 + 10**6}, [1]),
]


@pytest.mark.parametrize(("how", "expected"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES])
def test_choice(how: dict, expected: list[int], tmp_path: Path) -> None:
    assert numbers(capture.read(write(tmp_path, pcap(FRAMES)), **how)) == expected


def test_a_wrong_filter_is_refused_at_once_with_libpcaps_words(tmp_path: Path) -> None:
    with pytest.raises(FilterError, match=r"'tcp prt 80'.*syntax error"):
        capture.read(write(tmp_path, pcap([])), filter="tcp prt 80")


def test_a_filter_is_compiled_for_each_link_type(tmp_path: Path) -> None:
    frame, ip = FRAMES[0].bytes(), FRAMES[0].bytes()[14:]
    data = section() + interface(1) + interface(101) + enhanced(frame, 1) + enhanced(ip, 2, number=1)
    assert numbers(capture.read(write(tmp_path, data), filter="tcp dst port 80")) == [1, 2]


# Several files


def test_several_files_are_merged_by_time(tmp_path: Path) -> None:
    even = write(tmp_path, pcap([Captured(FRAMES[0].bytes(), t) for t in range(0, 200, 2)]), "even")
    odd = write(tmp_path, pcap([Captured(FRAMES[1].bytes(), t) for t in range(1, 200, 2)]), "odd")
    assert numbers(capture.read([even, odd]), "time_ns") == list(range(200))
    assert numbers(capture.read([even, odd]), "file") == [0, 1] * 100
    assert numbers(capture.read([even, odd]), "number")[:4] == [1, 1, 2, 2]
    assert numbers(capture.read([odd, even], merge=False), "time_ns") == [*range(1, 200, 2), *range(0, 200, 2)]


def test_equal_times_keep_the_order_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path, pcap([Captured(FRAMES[0].bytes(), 5)] * 3))
    assert numbers(capture.read([path, path]), "file") == [0, 0, 0, 1, 1, 1]


def test_a_file_that_breaks_does_not_stop_the_others(tmp_path: Path) -> None:
    broken = write(tmp_path, pcap(FRAMES)[:-1], "broken")
    reader = capture.read([broken, write(tmp_path, pcap(FRAMES), "good")])
    assert len(numbers(reader)) == 5
    assert (reader.problem or "").startswith(f"{broken}: 2 packets read")


def test_standard_input(tmp_path: Path) -> None:
    program = "import meshsieve.capture as c; print(sum(map(len, c.read('-'))))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for data in (MANY, gzip.compress(MANY)):
        done = subprocess.run(
            [sys.executable, "-c", program], input=data, capture_output=True, env=environment, check=True
        )
        assert done.stdout.split() == [b"600"]


def test_interrupt_while_a_pipe_is_silent(tmp_path: Path) -> None:
    program = "import meshsieve.capture as c; print('ready', flush=True); list(c.read('-'))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdin.write(MANY)
        child.stdin.flush()
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) != 0
        assert b"KeyboardInterrupt" in child.stderr.read()


@pytest.mark.parametrize("threads", [False, True], ids=["plain", "gzip on a second thread"])
def test_interrupt_in_a_file_of_blocks_that_are_skipped(threads: bool, tmp_path: Path) -> None:
    """No packet is ever given, for a gibibyte; on the disk it is a hole."""
    size = 16 << 20
    path = tmp_path / "skipped.pcapng"
    if threads:
        member = gzip.compress(block(0x0BAD, bytes(size - 12)), 1)
        path.write_bytes(gzip.compress(START) + member * 64)
    else:
        with path.open("wb") as file:
            file.write(START)
            for _ in range(64):
                file.write(struct.pack("<II", 0x0BAD, size))
                file.seek(size - 12, os.SEEK_CUR)
                file.write(struct.pack("<I", size))
    reader = capture.read(path)
    assert reader.size_bytes is not None
    seen = []

    def interrupt(*_: Any) -> None:
        seen.append(reader.bytes_read)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(reader)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert seen[0] < reader.size_bytes


# Memory


def test_arrays_outlive_batch_and_reader(tmp_path: Path) -> None:
    path = write(tmp_path, MANY)
    kept = [batch.extra["number"] for batch in capture.read(path, batch_size=100)]
    gc.collect()
    assert np.concatenate(kept).tolist() == list(range(1, 601))


def test_arrays_cannot_be_written(tmp_path: Path) -> None:
    (batch,) = capture.read(write(tmp_path, pcap(FRAMES)))
    with pytest.raises(ValueError, match="read-only"):
        batch["dport"][0] = 1


def test_a_batch_that_is_used_again_forgets_rare_columns(tmp_path: Path) -> None:
    tunnel = eth().ipv4().gre(key=9).raw(FRAMES[0].bytes()[14:], "ipv4")
    path = write(tmp_path, pcap([tunnel, *FRAMES[:1] * 9]))
    vnis = [batch.extra["vni"].tolist() for batch in capture.read(path, batch_size=1)]
    assert vnis == [[9]] + [[0]] * 9


def test_status_counts(tmp_path: Path) -> None:
    reader = capture.read(write(tmp_path, pcap([FRAMES[0], b"\0" * 5])))
    assert [len(batch) for batch in reader] == [2]
    assert reader.status_counts == {"ok": 1, "truncated_link": 1}


def test_a_path_of_any_bytes(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/odd \xff name.pcap"
    with open(path, "wb") as file:
        file.write(pcap(FRAMES)[:-1])
    reader = capture.read(path)
    assert len(numbers(reader)) == 2
    assert "odd \\xff name.pcap: 2 packets read" in (reader.problem or "")
    with pytest.raises(CaptureError, match=r"\\xff"):
        capture.read(path + b"?")


def test_a_closed_reader_keeps_its_counts(tmp_path: Path) -> None:
    with capture.read(write(tmp_path, MANY), batch_size=10) as reader:
        next(reader)
    assert reader.packets_delivered == 10
    assert reader.bytes_read > 0
    assert list(reader) == []
