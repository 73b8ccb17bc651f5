"""The facade: results, values in every form, batches in every form, explanations, refusals."""

import ipaddress

import numpy as np
import pytest

import meshsieve
from meshsieve import _core, packets
from meshsieve.errors import BackendError, ColumnError, ModelError, PolicyError
from meshsieve.model import Action, NameCodes, Rule, RuleSet, ValueSet

LAN = ValueSet.addresses(["10.0.0.0/24", "2001:db8::/32"])
RULES = RuleSet(
    [
        Rule({"dst_ip": LAN, "dport": ValueSet.numbers(22)}, name="ssh"),
        Rule({"src_ip": LAN}, alternatives=({"proto": ValueSet.numbers(17)}, {"icmp_type": ValueSet.numbers(8)})),
        Rule({"dst_ip": LAN, "vlan": ValueSet.numbers(7)}, unknown=("-m string",)),
        Rule({"dst_ip": LAN}, Action.DROP),
        Rule({"iif": ValueSet.numbers(1)}),
    ],
    names={"iif": NameCodes.of(exact=["lo"])},
)
ANY4, ANY6 = "192.0.2.1", "2001:dead::1"

PACKETS = [
    # what it shows                                   packet                                                  result
    ("first match wins", {"src": ANY4, "dst": "10.0.0.7", "sport": 1, "dport": 22, "proto": 6}, 0),
    ("IPv6 sits in the same list", {"src": ANY6, "dst": "2001:db8::7", "sport": 1, "dport": 22, "proto": 6}, 0),
    ("the second alternative", {"src": "10.0.0.1", "dst": ANY4, "proto": 1, "icmp_type": 8, "icmp_code": 0}, 1),
    ("no alternative holds", {"src": "10.0.0.1", "dst": "10.0.0.2", "proto": 1, "icmp_type": 0}, 3),
    ("ICMP has no port: the rule is false", {"src": ANY4, "dst": "10.0.0.7", "proto": 1, "icmp_type": 3}, 3),
    ("TCP without port: unknown, undecided", {"src": ANY4, "dst": "10.0.0.7", "proto": 6}, -2),
    (
        "a clause nobody can read: undecided",
        {"src": ANY4, "dst": "10.0.0.7", "sport": 1, "dport": 2, "proto": 6, "vlan": 7},
        -4,
    ),
    ("a packet without a tag has no VLAN", {"src": ANY4, "dst": "10.0.0.7", "sport": 1, "dport": 2, "proto": 6}, 3),
    ("interface by name", {"src": ANY4, "dst": ANY4, "sport": 1, "dport": 2, "proto": 6, "iif": "lo"}, 4),
    ("another interface: no rule", {"src": ANY4, "dst": ANY4, "sport": 1, "dport": 2, "proto": 6, "iif": "eth0"}, -1),
    ("interface not given: undecided", {"src": ANY4, "dst": ANY4, "sport": 1, "dport": 2, "proto": 6}, -6),
]


@pytest.mark.parametrize(("packet", "result"), [p[1:] for p in PACKETS], ids=[p[0] for p in PACKETS])
def test_one_packet(packet, result):
    clf = packets.compile(RULES)
    assert clf.classify(**packet) == result
    assert clf.explain(**packet).result == result


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", 0x0A000007, b"\x0a\x00\x00\x07", ipaddress.ip_address("10.0.0.7"), np.uint32(0x0A000007)],
    ids=lambda a: type(a).__name__,
)
def test_addresses_in_every_form(address):
    assert packets.compile(RULES).classify(ANY4, address, 1, 22, 6) == 0


def test_a_small_number_is_ipv6_when_the_version_says_so():
    low = packets.compile([Rule({"src_ip": ValueSet.addresses(["::7"])})])
    assert low.classify(7, 8, ip_ver=6) == 0
    assert low.explain(7, 8, ip_ver=6).result == 0
    assert low.classify(7, 8) == -1


REFUSED = [
    ({"src": "10.0.0.256"}, "src_ip"),
    ({"src": "010.0.0.1"}, "src_ip"),
    ({"src": "10.0.0.1\0"}, "src_ip"),
    ({"src": b"abc"}, "3 bytes"),
    ({"src": -1}, "beyond"),
    ({"src": 2**128}, "beyond"),
    ({"src": "10.0.0.1", "dst": "::1"}, "IPv4"),
    ({"src": "10.0.0.1", "ip_ver": 6}, "ip_ver"),
    ({"dport": 65536}, "dport is 65536"),
    ({"sport": -1}, "sport is -1"),
    ({"proto": "tcp"}, "proto is 'tcp'"),
    ({"src": 1.5}, "expected an address"),
    ({"colour": 1}, "no field is called 'colour'"),
]


@pytest.mark.parametrize(("packet", "message"), REFUSED, ids=[str(r[0]) for r in REFUSED])
def test_what_no_packet_can_be_is_refused(packet, message):
    with pytest.raises(ColumnError, match=message):
        packets.compile(RULES).classify(**packet)


def test_batches_of_text_arrow_and_views_agree():
    clf = packets.compile(RULES)
    fields = {"src": [ANY4] * 3, "dst": ["10.0.0.7"] * 3, "sport": [1] * 3, "dport": [22, 23, 24], "proto": [6] * 3}
    expected = clf.classify_batch(fields)
    assert expected.tolist() == [0, 3, 3]
    assert clf.classify_batch({**fields, "proto": 6, "dst": "10.0.0.7"}).tolist() == expected.tolist()
    pa = pytest.importorskip("pyarrow")
    columns = packets.PacketColumns(fields)
    assert clf.classify_batch(pa.table({n: np.asarray(c) for n, c in columns.items()})).tolist() == expected.tolist()


def test_an_arrow_null_is_a_field_that_the_packet_lacks():
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"proto": pa.array([6, 6, 1], pa.uint8()), "dport": pa.array([22, None, None], pa.uint16())})
    clf = packets.compile([Rule({"dport": ValueSet.numbers(22)}), Rule()])
    assert clf.classify_batch(table).tolist() == [0, -2, 1]


def test_arrow_columns_are_not_copied():
    pa = pytest.importorskip("pyarrow")
    ports = np.arange(1000, dtype=np.uint16)
    columns = packets.PacketColumns.of(pa.table({"dport": pa.array(ports)}))
    assert np.shares_memory(columns["dport"], ports)


def test_text_of_ipv6_says_its_version():
    result = packets.compile(RULES).classify_batch({"src": [ANY6], "dst": ["2001:db8::1"], "dport": [22], "proto": 6})
    assert result.tolist() == [0]


def test_out_is_filled_and_checked():
    clf = packets.compile([Rule()])
    out = np.full(4, 99, np.int32)
    assert clf.classify_batch({"proto": [6] * 4}, out) is out
    assert out.tolist() == [0] * 4
    for bad in (np.empty(3, np.int32), np.empty(4, np.int64), np.empty(8, np.int32)[::2], [0] * 4):
        with pytest.raises(ColumnError, match="out is"):
            clf.classify_batch({"proto": [6] * 4}, bad)


def test_an_empty_list_matches_nothing_and_an_empty_set_is_not_any():
    assert packets.compile([]).classify(ANY4, ANY4, 1, 2, 6) == -1
    assert packets.compile([Rule({"src_ip": ValueSet()}), Rule()]).classify(ANY4, ANY4, 1, 2, 6) == 1


def test_explanation_names_what_failed():
    walk = packets.compile(RULES).explain(ANY4, "10.0.0.7", 1, 23, 6)
    assert [(t.index, t.truth, t.failed) for t in walk] == [
        (0, "no", ("dport",)),
        (1, "no", ("src_ip",)),
        (2, "no", ("vlan",)),
        (3, "yes", ()),
    ]
    assert "rule 0 'ssh'" in str(walk)


def test_explanation_follows_skips():
    rules = [Rule(action=Action.SKIP, skip_to=2), Rule(), Rule({"proto": ValueSet.numbers(6)})]
    assert [t.index for t in packets.compile(rules).explain(proto=6)] == [0, 2]
    assert packets.compile(rules).explain(proto=17).result == -1


def test_unknown_engines_and_budgets_are_refused():
    with pytest.raises(BackendError, match="linear"):
        packets.compile(RULES, engine="magic")
    for budget in (0, -5, 1.5, "big", 2**70):
        with pytest.raises(ModelError, match="budget_bytes is"):
            packets.compile(RULES, budget_bytes=budget)
    with pytest.raises(ModelError, match="rule 1 is 'deny'"):
        packets.compile([Rule(), "deny"])


def test_what_the_compiler_did_can_be_read():
    assert repr(packets.compile(RULES, engine="forest", backend="scalar").stats).startswith(
        f"<CompileStats: engine forest, backend scalar, {len(RULES)} rules, "
    )
    assert packets.compile([]).explain_compile() == "no rules, no table: every packet gets -1"
    smallest = packets.compile(RULES, budget_bytes=1)
    assert "no table fits the budget: every rule in turn" in smallest.explain_compile()
    assert smallest.stats.bytes == 0


def test_read_rules_wants_exactly_one_list(tmp_path):
    path = tmp_path / "office.rules"
    path.write_text("@10.0.0.0/8\t0.0.0.0/0\t0 : 65535\t22 : 22\t0x06/0xFF\n")
    assert packets.compile(packets.read_rules(path)).classify("10.1.1.1", ANY4, 9, 22, 6) == 0
    path.write_text("nonsense")
    with pytest.raises(PolicyError):
        packets.read_rules(path)


def test_chains_of_many_segments_agree_with_the_walk_packet_by_packet():
    """Skips cut the list into segments; batches walk them together, longer than one chunk of the core."""
    tcp, udp = (ValueSet.numbers(p) for p in (6, 17))
    rules = RuleSet(
        [
            Rule({"proto": udp}, Action.SKIP, skip_to=3),
            Rule({"dport": ValueSet.numbers((0, 1000))}),
            Rule(action=Action.SKIP, skip_to=6),
            Rule({"dport": ValueSet.numbers(53)}),
            Rule({"sport": ValueSet.numbers(7)}, Action.SKIP, skip_to=7),
            Rule({"proto": tcp}),
            Rule({"dport": ValueSet.numbers((2000, 3000))}, Action.SKIP, skip_to=7),
        ]
    )
    random = np.random.default_rng(1)
    n = 5000
    headers = packets.PacketColumns(
        {
            "proto": random.choice([6, 17, 1], n),
            "dport": random.choice([53, 80, 2500, 9999], n),
            "sport": random.choice([7, 8], n),
        },
        present=random.choice([2**32 - 1, 2**32 - 1 - 4], n).astype(np.uint32),
    )
    clf = packets.compile(rules)
    together = clf.classify_batch(headers)
    parts = [clf.classify_batch(headers.take(part)) for part in np.array_split(np.arange(n), 100)]
    assert np.concatenate(parts).tolist() == together.tolist()
    for i in range(300):
        packet = {name: int(headers[name][i]) for name in headers if headers.has(name)[i]}
        assert together[i] == clf.classify(**packet) == clf.explain(**packet).result
    assert clf.stats.segments == 3


def test_a_skip_to_the_end_ends_the_walk():
    clf = packets.compile([Rule(action=Action.SKIP, skip_to=1)])
    assert clf.classify("10.0.0.1", "10.0.0.2") == clf.explain("10.0.0.1", "10.0.0.2").result == -1
    assert clf.classify_batch({"proto": [6]}).tolist() == [-1]


def test_auto_says_what_it_tried():
    rules = [Rule({"dport": ValueSet.numbers(p)}) for p in range(2000)]  # enough for two engines to be worth building
    clf = packets.compile(rules)
    assert [c.engine for c in clf.stats.candidates if c.taken] == [clf.stats.engine]
    assert len(clf.stats.candidates) > 1
    assert clf.explain_compile().count("taken") == 1


def pairs_of_hosts(n):
    hosts = np.arange(n, dtype=np.uint32)
    return {"src_ip": (hosts, hosts), "dst_ip": (hosts % 50, hosts % 50)}


def rules_on_two_axes(n):
    """Half from any source to a host, half from a host to any destination."""
    hosts = np.arange(n, dtype=np.uint32)
    low, high = np.zeros(n, np.uint32), np.full(n, 2**32 - 1, np.uint32)
    odd = hosts % 2 == 1
    return {
        "src_ip": (np.where(odd, hosts, low), np.where(odd, hosts, high)),
        "dst_ip": (np.where(odd, low, hosts), np.where(odd, high, hosts)),
    }


def with_services(boxes, n):
    ports = np.arange(len(boxes["src_ip"][0]), dtype=np.uint32) % n
    return boxes | {"dport": (ports, ports)}


@pytest.mark.parametrize(
    ("boxes", "tried"),
    [
        pytest.param(with_services(pairs_of_hosts(600), 20), True, id="of few rules, where all go into one table"),
        pytest.param(with_services(rules_on_two_axes(600), 20), False, id="not where they need several"),
        pytest.param(with_services(rules_on_two_axes(2000), 20), True, id="but of thousands"),
        pytest.param(with_services(pairs_of_hosts(20_100), 20), True, id="of many, where they name few services"),
        pytest.param(with_services(pairs_of_hosts(20_100), 100), False, id="not where they name many"),
    ],
)
def test_auto_tries_cross_product_tables(boxes, tried):
    clf = packets.compile(RuleSet.from_ranges(boxes))
    assert ("cross" in [candidate.engine for candidate in clf.stats.candidates]) == tried


def test_the_backend_can_be_read_and_forced(monkeypatch):
    monkeypatch.delenv("MESHSIEVE_BACKEND", raising=False)
    assert packets.backend() == meshsieve.backend() == _core.backends()[0]
    for name in _core.backends():
        assert packets.compile([Rule()], backend=name).stats.backend == name
    monkeypatch.setenv("MESHSIEVE_BACKEND", "scalar")
    assert packets.backend() == "scalar"
    monkeypatch.setenv("MESHSIEVE_BACKEND", "abacus")
    with pytest.raises(BackendError, match="from MESHSIEVE_BACKEND"):
        packets.compile([Rule()])
