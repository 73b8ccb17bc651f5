"""ClassBench files: what is read, and that nothing malformed is."""

import gzip

import numpy as np
import pytest

from meshsieve.errors import PolicyError
from meshsieve.importers.classbench import read_rules, read_trace
from meshsieve.model import Source, ValueSet

GOOD = """@10.0.0.0/8\t192.168.1.0/24\t0 : 65535\t80 : 90\t0x06/0xFF\t0x1000/0x1000\t
@0.0.0.0/0 0.0.0.0/0 1 : 1 0 : 65535 0x00/0x00
"""


def write(tmp_path, text, name="a.rules"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_rule_is_its_constrained_fields_and_full_ranges_are_free(tmp_path):
    rules = read_rules(write(tmp_path, GOOD))
    assert len(rules) == 2
    assert rules[0].match == {
        "src_ip": ValueSet.addresses(["10.0.0.0/8"]),
        "dst_ip": ValueSet.addresses(["192.168.1.0/24"]),
        "dport": ValueSet.numbers((80, 90)),
        "proto": ValueSet.numbers(6),
    }
    assert rules[1].match == {"sport": ValueSet.numbers(1)}


def test_rules_are_called_by_line_number_from_zero_and_point_to_their_line(tmp_path):
    path = write(tmp_path, GOOD)
    assert read_rules(path).label(1) == ("1", Source(str(path), 2))


def test_gzip_is_recognised_by_content(tmp_path):
    assert len(read_rules(write(tmp_path, gzip.compress(GOOD.encode()), "named.oddly"))) == 2


@pytest.mark.parametrize(
    ("what", "line", "says"),
    [
        ("octal octet", "@010.0.0.1/32 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "is not an IPv4 prefix"),
        ("short address", "@1.2.3/24 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "is not an IPv4 prefix"),
        ("octet beyond 255", "@1.2.3.256/32 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "is not an IPv4 prefix"),
        ("IPv6", "@::1/128 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "is not an IPv4 prefix"),
        ("prefix beyond 32", "@0.0.0.0/0 0.0.0.0/33 0 : 1 0 : 1 0x06/0xFF", "is not an IPv4 prefix"),
        ("host bits", "@10.0.0.5/24 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF", "bits are set below the prefix length 24"),
        ("inverted range", "@0.0.0.0/0 0.0.0.0/0 100 : 50 0 : 1 0x06/0xFF", "'100 : 50': is not a port range"),
        ("port beyond 65535", "@0.0.0.0/0 0.0.0.0/0 0 : 1 0 : 65536 0x06/0xFF", "'0 : 65536': is not a port range"),
        ("partial protocol mask", "@0.0.0.0/0 0.0.0.0/0 0 : 1 0 : 1 0x06/0x0F", "expected 0xVV/0xFF"),
        ("protocol outside its mask", "@0.0.0.0/0 0.0.0.0/0 0 : 1 0 : 1 0x06/0x00", "bits outside its mask"),
        ("non-ASCII digits", "@0.0.0.0/0 0.0.0.0/0 0 : \u0661 0 : 1 0x06/0xFF", "is not a ClassBench rule"),
        ("missing column", "@0.0.0.0/0 0.0.0.0/0 0 : 1 0x06/0xFF", "is not a ClassBench rule"),
        ("extra column", "@0.0.0.0/0 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF 0x0000/0x0000 9", "is not a ClassBench rule"),
        ("blank line", "", "is not a ClassBench rule"),
        ("carriage return", "@0.0.0.0/0 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF\r", "expected 0xVV/0xFF"),
    ],
)
def test_malformed_rules_are_refused_with_their_line(tmp_path, what, line, says):
    path = write(tmp_path, f"{GOOD}{line}\n")
    with pytest.raises(PolicyError) as error:
        read_rules(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert says in str(error.value)


def test_host_bits_can_be_masked_on_request(tmp_path):
    path = write(tmp_path, "@10.0.0.5/24 192.168.0.1/0 0 : 1 0 : 1 0x06/0xFF\n")
    assert read_rules(path, host_bits="mask")[0].match["src_ip"] == ValueSet.addresses(["10.0.0.0/24"])


def test_a_trace_is_columns_and_the_expected_rule(tmp_path):
    trace = read_trace(write(tmp_path, "4294967295\t1\t65535\t0\t255\t7\t\n0\t0\t0\t0\t0\t0\n"))
    assert list(trace["src_ip"]) == [0xFFFFFFFF, 0]
    assert [list(trace[name]) for name in ("sport", "dport", "proto")] == [[65535, 0], [0, 0], [255, 0]]
    assert trace.extra["expected"].dtype == np.int32
    assert list(trace.extra["expected"]) == [7, 0]


def test_a_trace_without_expectations_has_five_columns(tmp_path):
    assert "expected" not in read_trace(write(tmp_path, "1 2 3 4 5\n")).extra


@pytest.mark.parametrize(
    ("what", "line", "says"),
    [
        ("a port beyond 65535", "1 2 65536 4 5 6", "column 3 holds 65536, largest is 65535"),
        ("an address beyond 32 bits", "4294967296 2 3 4 5 6", "column 1 holds 4294967296"),
        ("a number of many digits", f"{'9' * 40} 2 3 4 5 6", "is not a header of 6 columns"),
        ("a sign", "-1 2 3 4 5 6", "is not a header of 6 columns"),
        ("a fraction", "1.0 2 3 4 5 6", "is not a header of 6 columns"),
        ("another number of columns", "1 2 3 4 5", "is not a header of 6 columns"),
    ],
)
def test_malformed_headers_are_refused_with_their_line(tmp_path, what, line, says):
    path = write(tmp_path, f"1 2 3 4 5 6\n{line}\n")
    with pytest.raises(PolicyError) as error:
        read_trace(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert says in str(error.value)
