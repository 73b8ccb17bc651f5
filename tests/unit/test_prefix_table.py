"""Longest-prefix match: precedence, both families, edges, changes, every form of an address, every backend."""

from __future__ import annotations

import ipaddress
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve import _core
from meshsieve.errors import BackendError, ColumnError, ModelError
from meshsieve.packets import PrefixTable

PREFIXES = {"0.0.0.0/0": 1, "10.0.0.0/8": 2, "10.1.0.0/16": 3, "10.1.2.3": 4, "2001:db8::/32": 5, "2001:db8::1": 6}

CASES = [
    # what it shows                        address                  value
    ("the longest prefix wins", "10.1.2.3", 4),
    ("beside a host route", "10.1.2.4", 3),
    ("first address of a prefix", "10.0.0.0", 2),
    ("last address of a prefix", "10.255.255.255", 2),
    ("one before", "9.255.255.255", 1),
    ("one after", "11.0.0.0", 1),
    ("the default route", "255.255.255.255", 1),
    ("IPv6 does not fall to the IPv4 default", "2001:db9::", -1),
    ("IPv6 host route", "2001:db8::1", 6),
    ("low word beyond a host route", "2001:db8::2", 5),
    ("last address of an IPv6 prefix", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 5),
    ("an IPv4-mapped address is IPv6", "::ffff:10.1.2.3", -1),
]


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize(("address", "value"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_one_address(address: str, value: int, backend: str) -> None:
    table = PrefixTable(PREFIXES, backend=backend)
    parsed = ipaddress.ip_address(address)
    assert table.lookup(address) == value
    assert table.lookup(parsed) == value
    if value == -1:
        with pytest.raises(KeyError):
            table[address]
    else:
        assert table[address] == value
    assert table.lookup(parsed.packed) == value
    assert list(table.lookup_batch([address])) == [value]


# One /16 holds more intervals than a node has keys, than two levels have, and so do 70,000 classes, whose numbers and
# whose nodes no longer fit 16 bits.
CROWDS = [
    ("the neighbours of 40 host routes", 40, 2),
    ("600 host routes in a row", 600, 2),
    ("30,000 host routes, every other one", 30_000, 2),
    ("70,000 classes over the whole space", 70_000, 61_357),
]


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize(("count", "step"), [c[1:] for c in CROWDS], ids=[c[0] for c in CROWDS])
def test_crowds_of_host_routes(count: int, step: int, backend: str) -> None:
    table = PrefixTable({}, backend=backend)
    hosts = np.arange(count, dtype=np.uint64) * step
    table.update({str(ipaddress.IPv4Address(int(host))): i for i, host in enumerate(hosts)})
    asked = np.concatenate([hosts, hosts + 1, [2**32 - 1]]).astype(np.uint32)
    expected = {int(host): i for i, host in enumerate(hosts)}
    assert list(table.lookup_batch(asked)) == [expected.get(int(a), -1) for a in asked]
    assert [table.lookup(int(a)) for a in asked[:: count // 20]] == list(table.lookup_batch(asked[:: count // 20]))


def reference(prefixes: dict[str, int], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> int:
    nets = [(ipaddress.ip_network(p), v) for p, v in prefixes.items()]
    hits = [(n.prefixlen, v) for n, v in nets if n.version == address.version and address in n]
    return max(hits)[1] if hits else -1


def networks(version: int) -> st.SearchStrategy[str]:
    width = 32 if version == 4 else 128
    make = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return st.builds(
        lambda value, shared, bits: str(
            make(((value | shared << (width - 8)) >> (width - bits) << (width - bits), bits))
        ),
        st.integers(0, 2 ** (width - 8) - 1),
        st.sampled_from([0, 10, 255]),
        st.integers(0, width),
    )


@settings(deadline=None)
@given(
    st.dictionaries(networks(4) | networks(6), st.integers(-(2**63), 2**63 - 1), max_size=40),
    st.lists(networks(4) | networks(6), max_size=20),
    st.sampled_from(_core.backends()),
)
def test_the_answer_is_that_of_a_scan(prefixes: dict[str, int], others: list[str], backend: str) -> None:
    table = PrefixTable(prefixes, backend=backend)
    ends = [a for p in [*prefixes, *others] for n in [ipaddress.ip_network(p)] for a in (n[0], n[-1])]
    near = [type(a)(min(max(int(a) + d, 0), 2**a.max_prefixlen - 1)) for a in ends for d in (-1, 0, 1)]
    expected = [reference(prefixes, a) for a in near]
    assert [table.lookup(a) for a in near] == expected
    rows = np.array([(int(a) >> 64, int(a) & (2**64 - 1)) for a in near], np.uint64).reshape(-1, 2)
    assert list(table.lookup_batch(rows, ip_ver=[a.version for a in near])) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), networks(4) | networks(6), st.integers(0, 9)), max_size=30))
def test_changes_leave_what_a_fresh_table_would_hold(steps: list[tuple[bool, str, int]]) -> None:
    table, model = PrefixTable(), {}
    for insert, prefix, value in steps:
        if insert:
            table.insert(prefix, value)
            model[prefix] = value
        elif prefix in model:
            table.remove(prefix)
            del model[prefix]
        address = ipaddress.ip_network(prefix)[0]
        assert table.lookup(address) == reference(model, address)
    assert {p: table.exact(p) for p in table} == model
    assert len(table) == len(model)


@pytest.mark.parametrize(("root", "version"), [("10.1.0.0/16", 4), ("2001:db8:70::/44", 6), ("0.0.0.0/0", 4)])
def test_many_changes_in_a_crowded_place(root: str, version: int) -> None:
    """Buckets burst into nodes and empty again; every state is compared at and beside the ends of what changed."""
    random = np.random.default_rng(5)
    within = ipaddress.ip_network(root)
    width = within.max_prefixlen
    make = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    table, model = PrefixTable({root: -5}), {root: -5}
    table.lookup(within[0])  # from now on it is changed in place
    for step in range(600):
        if random.random() < 0.35 and len(model) > 1:
            gone = list(model)[int(random.integers(len(model)))]
            table.remove(gone)
            changed = ipaddress.ip_network(gone)
            del model[gone]
        else:
            bits = int(random.integers(within.prefixlen, min(width, within.prefixlen + 18) + 1))
            low = int(random.integers(0, 1 << 16)) << max(0, width - within.prefixlen - 16)
            changed = make(((int(within[0]) | low) >> (width - bits) << (width - bits), bits))
            table.insert(str(changed), step)
            model[str(changed)] = step
        ends = [int(changed[0]) - 1, int(changed[0]), int(changed[-1]), int(changed[-1]) + 1]
        near = [type(within[0])(min(max(end, 0), 2**width - 1)) for end in ends]
        expected = [reference(model, address) for address in near]
        assert [table.lookup(address) for address in near] == expected
        assert list(table.lookup_batch([str(address) for address in near])) == expected
    assert {prefix: table.exact(prefix) for prefix in table} == model
    assert len(table) == len(model)
    table.update(remove=list(model))
    assert list(table) == []
    assert table.lookup(within[0]) == -1


@pytest.mark.parametrize(
    "root", ["2001:db8::/32", "::/32", "ffff:ffff::/32", "2001:db8:7::/48", "::/0", "2001:db8::/64"]
)
@pytest.mark.parametrize("backend", _core.backends())
def test_ipv6_networks_crowded_in_one_prefix(root: str, backend: str) -> None:
    """The window of slots that their high words get, its ends, and what lies on both sides of it."""
    random = np.random.default_rng(3)
    within = ipaddress.IPv6Network(root)
    ranges: dict[tuple[int, int], int] = {(int(within[0]), int(within[-1])): 0}
    for value in range(1, 500):
        bits = int(random.integers(within.prefixlen, min(128, within.prefixlen + 32) + 1))
        low = int.from_bytes(random.bytes(16)) & (2 ** (128 - within.prefixlen) - 1)
        first = (int(within[0]) | low) >> (128 - bits) << (128 - bits)
        ranges[first, first + 2 ** (128 - bits) - 1] = value
    near = {min(max(end + d, 0), 2**128 - 1) for span in ranges for end in span for d in (-1, 0, 1)} | {0, 2**128 - 1}
    asked = sorted(near)
    narrowest = sorted(ranges.items(), key=lambda item: item[0][1] - item[0][0])
    expected = [next((value for (low, high), value in narrowest if low <= a <= high), -1) for a in asked]
    table = PrefixTable(
        {
            str(next(ipaddress.summarize_address_range(*map(ipaddress.IPv6Address, span)))): v
            for span, v in ranges.items()
        },
        backend=backend,
    )
    rows = np.array([(a >> 64, a & (2**64 - 1)) for a in asked], np.uint64)
    assert list(table.lookup_batch(rows, ip_ver=[6] * len(asked))) == expected
    assert [table.lookup(ipaddress.IPv6Address(a)) for a in asked] == expected


def test_a_failed_update_changes_nothing_of_a_table_in_use() -> None:
    table = PrefixTable({"10.0.0.0/8": 1})
    assert table.lookup("10.0.0.1") == 1
    table.insert("10.1.0.0/16", 2)
    with pytest.raises(KeyError):
        table.update({"10.0.0.0/8": 3}, remove=["10.2.0.0/16"])
    assert (table.lookup("10.0.0.1"), table.lookup("10.1.0.1"), len(table)) == (1, 2, 2)


def test_a_failed_update_changes_nothing() -> None:
    table = PrefixTable({"10.0.0.0/8": 1})
    with pytest.raises(KeyError, match=r"192\.0\.2\.0/24"):
        table.update({"10.0.0.0/8": 2}, remove=["10.0.0.0/8", "192.0.2.0/24"])
    assert table.exact("10.0.0.0/8") == 1
    assert table.exact("192.0.2.0/24") is None
    with pytest.raises(KeyError):
        table.remove("10.0.0.0/9")


def test_a_batch_never_sees_half_an_update() -> None:
    """Two halves of the address space always change together."""
    table = PrefixTable({"0.0.0.0/1": 0, "128.0.0.0/1": 0})
    addresses = np.array([0, 2**32 - 1] * 500, np.uint32)
    mixed: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            values = table.lookup_batch(addresses)
            mixed.extend(values[values != values[0]])

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(300):
        table.update({"0.0.0.0/1": value, "128.0.0.0/1": value})
    done.set()
    reader.join()
    assert mixed == []
    assert set(table.lookup_batch(addresses)) == {299}


REFUSED = [
    ("host bits below the prefix", lambda: PrefixTable({"10.0.0.1/8": 1}), ModelError, "10.0.0.1/8"),
    ("a NUL in the text", lambda: PrefixTable({"10.0.0.0\0/8": 1}), ModelError, "not a prefix"),
    ("leading zeros", lambda: PrefixTable({"010.0.0.0/8": 1}), ModelError, "not a prefix"),
    ("an over-long prefix", lambda: PrefixTable({"10.0.0.0/33": 1}), ModelError, "10.0.0.0/33"),
    ("a value beyond 64 bits", lambda: PrefixTable({"10.0.0.0/8": 2**63}), ModelError, "10.0.0.0/8"),
    ("a value that is no integer", lambda: PrefixTable({"10.0.0.0/8": "x"}), ModelError, "64-bit"),  # type: ignore[dict-item]
    ("text that is no address", lambda: PrefixTable().lookup("10.0.0.256"), ColumnError, "the address"),
    ("a packed address of 5 bytes", lambda: PrefixTable().lookup(b"12345"), ColumnError, "5 bytes"),
    ("families for IPv4 columns", lambda: PrefixTable().lookup_batch([1], ip_ver=[4]), ColumnError, "shape"),
    ("an unknown backend", lambda: PrefixTable(backend="mmx"), BackendError, "mmx"),
]


@pytest.mark.parametrize(("call", "error", "text"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refusals(call, error, text) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=text):
        call()


@st.composite
def nearly_addresses(draw: st.DrawFn) -> str:
    """Addresses as people write them, of both families, some with a letter or two that does not belong there."""
    if draw(st.booleans()):
        text = ".".join(
            draw(
                st.lists(
                    st.sampled_from(["0", "00", "1", "9", "10", "255", "256", "999", "1000", ""]),
                    min_size=3,
                    max_size=5,
                )
            )
        )
    else:
        groups = st.sampled_from(["", "", "0", "1", "f", "ab", "ABC", "00ff", "dead", "12345", "g"])
        text = ":".join(draw(st.lists(groups, min_size=2, max_size=9)))
        text = draw(st.sampled_from([text, str(ipaddress.IPv6Address(draw(st.integers(0, 2**128 - 1)))), "::" + text]))
    place = draw(st.integers(0, len(text)))
    return (
        text[:place] + draw(st.sampled_from(["", "", "", "", ":", ".", " ", "x", "%1", "\0", "\u0661"])) + text[place:]
    )


@settings(max_examples=1500, deadline=None)
@given(
    nearly_addresses(),
    st.sampled_from(["", "", "/0", "/8", "/24", "/32", "/33", "/64", "/128", "/129", "/08", "/", "/a"]),
)
def test_text_is_read_as_ipaddress_reads_it(text: str, length: str) -> None:
    try:
        network = ipaddress.ip_network(text + length)
    except ValueError:
        with pytest.raises(ModelError):
            PrefixTable({text + length: 1})
    else:
        without_zone = ipaddress.ip_network((network.network_address.packed, network.prefixlen))
        assert list(PrefixTable({text + length: 1})) == [str(without_zone)]
    table = PrefixTable({"0.0.0.0/0": 4, "::/0": 6})
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        with pytest.raises(ColumnError):
            table.lookup(text)
    else:
        assert table.lookup(text) == address.version
        assert PrefixTable({f"{ipaddress.ip_address(address.packed)}": 7}).get(text) == 7


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1), st.sampled_from([2**30, 2**32 - 1, 2**60, 2**120]))
)
def test_every_form_of_an_address_is_that_address(number: int) -> None:
    """Compiled, and while the table changes."""
    address = ipaddress.ip_address(number)
    table = PrefixTable({str(address): 7, "0.0.0.0/0": 1, "::/0": 1})
    for _ in range(2):
        for form in (number, address, address.packed, str(address), address.exploded, address.exploded.upper()):
            assert table[form] == table.get(form) == table.lookup(form) == 7
            assert form in table
        assert list(table.lookup_batch([str(address)])) == [7]
        table["192.0.2.0/24"] = 3


def test_it_reads_and_changes_like_a_mapping() -> None:
    table = PrefixTable()
    table["10.0.0.0/8"] = 7
    table["2001:db8::/32"] = 9
    assert table["10.1.2.3"] == 7
    assert table.get("192.0.2.1") is None
    assert table.get("192.0.2.1", 5) == 5
    assert "10.1.2.3" in table
    assert "192.0.2.1" not in table
    assert "10.0.0.0/8" in table
    assert "10.0.0.0/9" not in table
    table["10.0.0.0/8"] = -1
    assert table["10.1.2.3"] == -1
    assert "10.1.2.3" in table
    del table["10.0.0.0/8"]
    assert "10.1.2.3" not in table
    with pytest.raises(KeyError, match=r"10\.0\.0\.0/8"):
        del table["10.0.0.0/8"]
    for value in ("7", 1.5, 2**63, None):
        with pytest.raises(ModelError, match="64-bit"):
            table["10.0.0.0/8"] = value  # type: ignore[assignment]
    with pytest.raises(ColumnError):
        table["10.0.0.0/8/8"]
    assert list(table) == ["2001:db8::/32"]


def test_a_missing_value_may_be_chosen() -> None:
    table = PrefixTable({"10.0.0.0/8": -1})
    assert table.lookup("10.0.0.1", -7) == -1
    assert table.lookup("11.0.0.1", -7) == -7
    assert list(table.lookup_batch(["10.0.0.1", "11.0.0.1"], missing=-7)) == [-1, -7]
    assert len(table.lookup_batch(np.zeros(0, np.uint32))) == 0
