"""Headers go to Arrow and data frames and come back, and rules say the same of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from meshsieve import capture, flows, packets
from meshsieve.errors import ColumnError
from meshsieve.model import Action, Rule, ValueSet
from meshsieve.packets import PacketColumns, PrefixTable

pa = pytest.importorskip("pyarrow")
DEMO = Path(__file__).parents[2] / "examples" / "demo" / "demo.pcap"
CLASSIFIER = packets.compile(
    [
        Rule({"src_ip": ValueSet.addresses(["10.0.0.0/8", "fe80::/10"])}),
        Rule({"dport": ValueSet.numbers(80, 443)}),
        Rule({"ip_ver": ValueSet.numbers(6)}),
        Rule(action=Action.DROP),
    ]
)
V4, V6 = "10.0.0.1", "fe80::1"


@pytest.fixture(scope="module")
def batch() -> PacketColumns:
    """IPv4, IPv6 and frames without IP."""
    read = next(capture.read(DEMO))
    assert set(read["ip_ver"]) == {0, 4, 6}
    return read


@pytest.mark.parametrize("addresses", ["text", "binary", "words"])
def test_a_batch_of_a_capture_is_judged_alike_after_arrow(batch, addresses):
    back = PacketColumns.of(batch.to_arrow(addresses=addresses))
    assert CLASSIFIER.classify_batch(back).tolist() == CLASSIFIER.classify_batch(batch).tolist()
    for name in batch:
        assert back.has(name).tolist() == batch.has(name).tolist(), name


@pytest.mark.parametrize("addresses", ["text", "binary"])
def test_flows_are_judged_alike_after_arrow(addresses):
    found = flows.read(DEMO)
    verdicts = CLASSIFIER.classify_batch(found.to_arrow(addresses=addresses))
    assert verdicts.tolist() == CLASSIFIER.classify_batch(found).tolist()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_are_judged_alike(batch, library):
    pytest.importorskip(library)
    frame = getattr(batch, f"to_{library}")()
    assert CLASSIFIER.classify_batch(frame).tolist() == CLASSIFIER.classify_batch(batch).tolist()


@pytest.mark.parametrize("name", ["dport", "ip_ver", "src_ip", "number", "timestamp"])
def test_columns_are_not_copied_to_arrow(batch, name):
    array = batch[name] if name in batch else batch.extra[name.replace("timestamp", "time_ns")]
    buffers = batch.to_arrow(addresses="words")[name].chunk(0).buffers()
    assert buffers[-1].address == array.__array_interface__["data"][0]


def test_a_batch_is_arrow_data_itself(batch):
    table = pa.table(batch)
    assert table.num_rows == len(batch)
    assert table["src_ip"].null_count == int((batch["ip_ver"] == 0).sum()) > 0


def test_times_and_codes_are_readable(batch):
    row = batch.to_arrow().slice(0, 1).to_pylist()[0]
    assert row["timestamp"].value == batch.extra["time_ns"][0]
    assert (row["status"], row["tunnel"], row["vni"], row["outer_src_ip"]) == ("ok", "none", None, None)


ARROW = [
    # what it shows                          source addresses                                          verdicts
    ("both families in one column", pa.array([V4, V6]), [0, 0]),
    ("null: the packet has no address", pa.array([V4, None]), [0, -2]),
    ("dictionary", pa.array([V4, V6]).dictionary_encode(), [0, 0]),
    ("several dictionaries", pa.chunked_array([pa.array([t]).dictionary_encode() for t in (V4, V6)]), [0, 0]),
    ("packed, four bytes", pa.array([b"\x0a\0\0\1", b"\x0b\0\0\1"], pa.binary(4)), [0, 3]),
    ("packed, sixteen bytes", pa.array([bytes(10) + b"\xff\xff\x0a\0\0\1", b"\xfe\x80" + bytes(14)]), [0, 0]),
    ("large text", pa.array([V4, V6], pa.large_string()), [0, 0]),
    ("no chunk", pa.chunked_array([], pa.string()), []),
]


@pytest.mark.parametrize(("column", "verdicts"), [a[1:] for a in ARROW], ids=[a[0] for a in ARROW])
def test_address_columns_of_arrow(column, verdicts):
    n = len(column)
    table = pa.table({"src": column, "proto": [6] * n, "dport": [22] * n})
    assert CLASSIFIER.classify_batch(table).tolist() == verdicts


def test_a_mapped_address_of_a_packet_that_says_ipv6_stays_ipv6():
    mapped = bytes(10) + b"\xff\xff\x0a\0\0\1"
    table = pa.table({"src": [mapped, mapped], "ip_ver": [6, 4], "proto": [6, 6], "dport": [22, 22]})
    assert CLASSIFIER.classify_batch(table).tolist() == [2, 0]


def test_whole_floats_of_a_data_frame_are_integers():
    table = pa.table({"src": [V4, "11.0.0.1"], "proto": [6, 6], "dport": pa.array([22.0, None])})
    assert CLASSIFIER.classify_batch(table).tolist() == [0, -3]


ARRAYS = [
    # what it shows                   columns                                                       verdicts
    ("texts of both families", {"src": [V4, V6], "dst": ["10.0.0.2", "fe80::2"], "dport": 22}, [0, 0]),
    ("packed bytes", {"src": np.array([b"\x0a\0\0\1", b"\xfe\x80" + bytes(14)], object), "dport": 22}, [0, 0]),
    ("None: no address", {"src": [V4, None], "dport": 22}, [0, -2]),
    (
        "texts of IPv4 beside numbers",
        {"src": [V4, "11.0.0.1"], "dst": np.array([1, 2], np.uint32), "dport": 22},
        [0, 3],
    ),
    ("empty lists", {"src": [], "dport": []}, []),
]


@pytest.mark.parametrize(("columns", "verdicts"), [a[1:] for a in ARRAYS], ids=[a[0] for a in ARRAYS])
def test_address_columns_of_arrays(columns, verdicts):
    assert CLASSIFIER.classify_batch({**columns, "proto": np.uint8(6)}).tolist() == verdicts


REFUSED = [
    # what it shows                  headers                                                       message
    ("two families in a row", {"src": [V4, V4], "dst": [V4, V6]}, "row 1: dst_ip is not of the IP version"),
    ("IPv6 text beside IPv4 numbers", {"src": [V6], "dst": np.array([1], np.uint32)}, "row 0"),
    ("columns of two lengths", {"src": [V4, V6, V4], "dst": [V4, V6]}, "differ in length"),
    ("numbers below zero", {"src": np.array([-1])}, "src_ip holds values below 0"),
    ("a masked array", {"dport": np.ma.array([1, 2], mask=[True, False])}, "dport is masked"),
    ("no address", {"src": ["10.0.0.300"]}, "column src_ip: '10.0.0.300'"),
    ("no column is a field", pa.table({"colour": [1]}), r"named after a field of packets \(colour\)"),
    ("fractions", pa.table({"dport": [1.5]}), "column dport must hold integers"),
]


@pytest.mark.parametrize(("headers", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_is_refused(headers, message):
    with pytest.raises(ColumnError, match=message):
        PacketColumns.of(headers)


def test_prefix_tables_take_texts_of_both_families():
    table = PrefixTable({"10.0.0.0/8": 1, "fe80::/10": 2})
    assert table.lookup_batch([V4, V6, "192.0.2.1"]).tolist() == [1, 2, -1]
    with pytest.raises(ColumnError, match="row 1 is None"):
        table.lookup_batch([V4, None])
