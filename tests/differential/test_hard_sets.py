"""Rule sets made to hurt: inside the memory budget, built without blowing up, and right.

The sets are those of the benches: short overlapping prefixes, port ranges only, all pairs of prefix lengths, 100,000
identical rules, groups whose product is millions of five-tuples.
"""

from __future__ import annotations

import numpy as np
import pytest

from benches import boxes, groups, hard_sets, traces
from meshsieve import _core, packets
from meshsieve.errors import CompileError
from meshsieve.model import FIELD_INDEX, Rule, RuleSet, Source, ValueSet

ENGINES = ["auto", *(name for name, _ in _core.engines() if name != "linear")]
SETS = [
    ("short prefixes", lambda: hard_sets.short_prefixes(1500)),
    ("port ranges only", lambda: hard_sets.port_ranges(1500)),
    ("all pairs of prefix lengths", lambda: hard_sets.length_pairs(3000)),
    ("one rule 20,000 times", lambda: hard_sets.identical(20_000)),
]


def default_budget(n_rules: int) -> int:
    return 256 * n_rules + 2**21


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [s[1] for s in SETS], ids=[s[0] for s in SETS])
def test_hard_sets_are_right_and_within_the_budget(make, engine: str) -> None:
    rules = make()
    headers = boxes.to_columns(np.concatenate([traces.uniform(rules, 1000), traces.mixed(rules, 1000)]))
    rule_set = boxes.to_rule_set(rules)
    try:
        clf = packets.compile(rule_set, engine=engine, budget_bytes=default_budget(len(rules)))
    except CompileError as error:
        pytest.skip(f"{engine} declines: {error}")
    assert clf.stats.bytes <= default_budget(len(rules))
    expected = packets.compile(rule_set, engine="linear").classify_batch(headers)
    assert np.array_equal(clf.classify_batch(headers), expected)


def test_a_rule_that_never_decides_costs_no_step():
    rules = boxes.to_rule_set(hard_sets.identical(20_000))
    assert packets.compile(rules, engine="forest").stats.worst_case_steps < 10


@pytest.mark.parametrize("budget", [1, 1000, 50_000, 200_000, 2_000_000])
@pytest.mark.parametrize("engine", ["auto", "forest"])
def test_any_budget_is_kept_and_never_fails(engine: str, budget: int) -> None:
    rules = hard_sets.length_pairs(1000)
    headers = boxes.to_columns(traces.uniform(rules, 500))
    rule_set = boxes.to_rule_set(rules)
    clf = packets.compile(rule_set, engine=engine, budget_bytes=budget)
    assert clf.stats.bytes <= budget
    expected = packets.compile(rule_set, engine="linear").classify_batch(headers)
    assert np.array_equal(clf.classify_batch(headers), expected)


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize("side", [46, 182], ids=["2,116 rules", "33,124 rules: more than 64 lines of bits"])
@pytest.mark.parametrize("engine", ["bitmap", "sparse"])
def test_a_rule_is_found_wherever_its_bit_lies(engine: str, side: int, backend: str) -> None:
    """One rule for each pair of hosts: every line of every row holds a bit that decides for some packet."""
    hosts = [ValueSet.numbers(2 * i) for i in range(side)]
    rules = RuleSet([Rule({"src_ip": source, "dst_ip": destination}) for source in hosts for destination in hosts])
    clf = packets.compile(rules, engine=engine, backend=backend)
    pairs = np.random.default_rng(1).permutation(side * side)[:5000]
    source, destination = (2 * part.astype(np.uint32) for part in np.divmod(pairs, side))
    found = clf.classify_batch({"src_ip": source, "dst_ip": destination})
    assert np.array_equal(found, pairs)
    assert np.all(clf.classify_batch({"src_ip": source + 1, "dst_ip": destination}) == -1)


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize("count", [254, 255, 256, 1000], ids=lambda n: f"{n} winners")
def test_many_rules_can_win_in_one_cell(count: int, backend: str) -> None:
    """One pair of prefixes, a rule a port: positions within a cell outgrow a byte."""
    sides = {"src_ip": ValueSet.addresses(["10.0.0.0/8"]), "dst_ip": ValueSet.addresses(["10.0.0.0/8"])}
    other = Rule({"src_ip": ValueSet.addresses(["10.1.0.0/16"]), "dport": ValueSet.numbers(7)})
    rules = RuleSet([other, *[Rule({**sides, "dport": ValueSet.numbers(3 * port)}) for port in range(count)]])
    clf = packets.compile(rules, engine="cross", backend=backend)
    port = np.arange(3 * count + 10, dtype=np.uint16)
    at = np.full(len(port), 10 << 24 | 2 << 16, np.uint32)
    asked = {"src_ip": at, "dst_ip": at, "dport": port, "sport": port, "proto": np.full(len(port), 6, np.uint8)}
    found = clf.classify_batch(asked)
    expected = np.where((port % 3 == 0) & (port < 3 * count), port.astype(np.int32) // 3 + 1, -1)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("backend", _core.backends())
def test_more_cells_than_16_bits_number(backend: str) -> None:
    """67,600 pairs of hosts, each with a rule of its own: nodes and cells need 32 bits."""
    side = 260
    hosts = [ValueSet.numbers(2 * i) for i in range(side)]
    rules = RuleSet([Rule({"src_ip": source, "dst_ip": destination}) for source in hosts for destination in hosts])
    clf = packets.compile(rules, engine="cross", backend=backend)
    pairs = np.random.default_rng(1).permutation(side * side)[:5000]
    source, destination = (2 * part.astype(np.uint32) for part in np.divmod(pairs, side))
    assert np.array_equal(clf.classify_batch({"src_ip": source, "dst_ip": destination}), pairs)
    assert np.all(clf.classify_batch({"src_ip": source + 1, "dst_ip": destination}) == -1)


def test_bitmaps_of_more_rules_than_64_chunks_of_a_line() -> None:
    """Each rule is the only one of its packet, up to the last chunk, which is not full."""
    side = 182
    sets = [ValueSet(), *(ValueSet.numbers(v) for v in range(side))]
    common = np.zeros((33_000, len(FIELD_INDEX)), np.int32)
    common[:, FIELD_INDEX["src_ip"]] = 1 + np.arange(len(common)) // side
    common[:, FIELD_INDEX["dst_ip"]] = 1 + np.arange(len(common)) % side
    label = ("", Source(), (), False)
    rules = RuleSet.from_columns(sets, common, np.zeros(len(common), np.uint8), [label] * len(common))
    clf = packets.compile(rules, engine="bitmap")
    every = {name: (common[:, FIELD_INDEX[name]] - 1).astype(np.uint32) for name in ("src_ip", "dst_ip")}
    assert np.array_equal(clf.classify_batch(every), np.arange(len(common)))
    assert clf.classify(0, side, 1, 1, 6) == -1


@pytest.mark.parametrize("engine", ENGINES)
def test_groups_stay_groups(engine: str) -> None:
    policy = groups.Policy(300)
    headers = policy.headers(2000)
    try:
        clf = packets.compile(policy.rule_set, engine=engine)
    except CompileError as error:
        pytest.skip(f"{engine} declines: {error}")
    assert np.array_equal(clf.classify_batch(boxes.to_columns(headers)), policy.expected(headers))
    assert policy.five_tuples > 10**7
    assert clf.stats.bytes < 16 * 2**20


@pytest.mark.parametrize("engine", ENGINES)
def test_a_packet_that_lacks_ports_finds_the_rule_behind_one_that_covers_them(engine: str) -> None:
    """A rule for all ports holds every packet that has ports, and none that has not: it must hide nothing from ICMP."""
    all_ports = Rule({"dport": ValueSet.numbers((0, 65535))})
    rules = RuleSet(
        [*[Rule({"dport": ValueSet.numbers(p), "sport": ValueSet.numbers(9)}) for p in range(40)], all_ports, Rule()]
    )
    clf = packets.compile(rules, engine=engine)
    assert clf.classify("10.0.0.1", "10.0.0.2", 9, 3, 6) == 3
    assert clf.classify("10.0.0.1", "10.0.0.2", 1, 2, 6) == 40
    assert clf.classify("10.0.0.1", "10.0.0.2", proto=1) == 41
    assert clf.classify("10.0.0.1", "10.0.0.2", proto=6) == -2


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize(("rules", "most_bytes"), [(700, 5_350_000), (2500, 10_000_000)])
def test_unions_of_groups_share_their_parts(rules: int, most_bytes: int, backend: str) -> None:
    """Hosts inside networks of other groups, in unions of both: the rows of a group are shared whatever is around, and
    the rules that a packet meets stay the same, in the first step over the rules as in later ones."""
    policy = groups.Policy(rules)
    headers = boxes.to_columns(policy.headers(4000))
    clf = packets.compile(policy.rule_set, engine="bitmap", backend=backend, budget_bytes=1 << 27)
    assert clf.stats.bytes < most_bytes  # 5.4 and 11 million where they are not shared
    expected = policy.expected(policy.headers(4000))
    assert np.array_equal(clf.classify_batch(headers), expected)
    assert len(np.unique(expected)) > 300


@pytest.mark.parametrize("backend", _core.backends())
def test_rows_without_their_empty_parts_answer_like_whole_ones(backend: str) -> None:
    """Blocks of rules for any source, any destination and both, whose bits stand before those of earlier rules."""
    policy = groups.Policy(1500)
    headers = policy.headers(4000)
    clf = packets.compile(policy.rule_set, engine="sparse", backend=backend)
    expected = policy.expected(headers)
    assert np.array_equal(clf.classify_batch(boxes.to_columns(headers)), expected)
    assert len(np.unique(expected)) > 300


def test_auto_takes_rows_without_empty_parts_where_whole_ones_do_not_fit() -> None:
    """4,000 rules between groups of 40 hosts: a class has a bit in a thousand."""
    draw = np.random.default_rng(3)
    hosts = [ValueSet.numbers(*(int(2 * v) for v in draw.choice(20_000, 40, replace=False))) for _ in range(3000)]
    pairs = draw.integers(0, len(hosts), (4000, 2))
    rules = RuleSet([Rule({"src_ip": hosts[s], "dst_ip": hosts[d]}) for s, d in pairs])
    clf = packets.compile(rules, budget_bytes=12 << 20)
    assert clf.stats.engine == "sparse"
    headers = {name: draw.integers(0, 40_000, 3000).astype(np.uint32) for name in ("src_ip", "dst_ip")}
    for name, side in (("src_ip", 0), ("dst_ip", 1)):
        chosen = [hosts[g] for g in pairs[:2000, side]]
        headers[name][:2000] = [int(next(iter(group.v4))[0]) for group in chosen]
    expected = packets.compile(rules, engine="linear").classify_batch(headers)
    assert np.array_equal(clf.classify_batch(headers), expected)
    assert (expected >= 0).sum() >= 2000
