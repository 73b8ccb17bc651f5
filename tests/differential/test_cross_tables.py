"""The cross-product engine against the linear reference, where its tables take every form that they have."""

from __future__ import annotations

import numpy as np
import pytest

from meshsieve import _core, packets
from meshsieve.columns import PacketColumns
from meshsieve.model import Rule, RuleSet, ValueSet

Match = dict[str, ValueSet]


def rules_of(n: int, dports: int, sports: int, alternatives: int, seed: int = 1) -> RuleSet:
    """n rules between 12 networks and 12 networks, a tenth of them between all, of ``dports`` destination ports and
    ``sports`` source ports, single ones and ranges. alternatives: of each rule; 0 puts the service into its match."""
    random = np.random.default_rng(seed)

    def port(count: int) -> ValueSet:
        low = 1000 + 3 * int(random.integers(0, count))
        return ValueSet.numbers((low, low + int(random.choice([0, 0, 0, 7, 50]))))

    def service() -> Match:
        match = {"proto": ValueSet.numbers((17 - 11 * int(random.integers(0, 2)),) * 2)}
        if dports and random.random() < 0.8:
            match["dport"] = port(dports)
        if sports and random.random() < 0.5:
            match["sport"] = port(sports)
        return match

    def network(name: str) -> Match:
        if random.random() < 0.1:
            return {}
        low = int(random.integers(0, 12)) << 24
        return {name: ValueSet.numbers((low, low + 0xFFFFFF))}

    rules = []
    for _ in range(n):
        addresses = network("src_ip") | network("dst_ip")
        if alternatives:
            services = tuple(service() for _ in range(alternatives))
            rules.append(Rule(match=addresses | {"proto": ValueSet.numbers((6, 17))}, alternatives=services))
        else:
            rules.append(Rule(match=addresses | service()))
    return RuleSet(rules)


def packets_of(n: int, dports: int, sports: int, seed: int = 2) -> PacketColumns:
    random = np.random.default_rng(seed)
    return PacketColumns(
        {
            "src_ip": (random.integers(0, 13, n) << 24).astype(np.uint32),
            "dst_ip": (random.integers(0, 13, n) << 24).astype(np.uint32),
            "sport": (999 + random.integers(0, 3 * sports + 60, n)).astype(np.uint16),
            "dport": (999 + random.integers(0, 3 * dports + 60, n)).astype(np.uint16),
            "proto": random.choice([6, 17, 1], n, p=[0.5, 0.45, 0.05]).astype(np.uint8),
        },
        present=np.where(random.random(n) < 0.05, 0b10111, 0b11111).astype(np.uint32),
    )


#   what it shows                                           rules  dports  sports  alternatives
FORMS = [
    ("a P map is one block", 300, 20, 0, 0),
    ("more than 256 P classes: a P map is a row of blocks", 2000, 500, 0, 0),
    ("source ports alone: they are P, and there is no Q", 200, 0, 40, 0),
    ("a winner for each pair of local P and Q classes", 600, 30, 30, 0),
    ("more than 256 P classes, and Q classes", 1200, 400, 60, 0),
    ("services with alternatives that name either port", 400, 30, 30, 3),
    ("more than 256 P classes, and alternatives", 800, 400, 60, 2),
]


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize(("n", "dports", "sports", "alternatives"), [f[1:] for f in FORMS], ids=[f[0] for f in FORMS])
def test_the_answer_is_the_reference_s(n: int, dports: int, sports: int, alternatives: int, backend: str) -> None:
    rules = rules_of(n, dports, sports, alternatives)
    headers = packets_of(4000, dports, sports)
    crossed = packets.compile(rules, engine="cross", backend=backend, budget_bytes=64 << 20)
    assert crossed.stats.engine == "cross"
    expected = packets.compile(rules, engine="linear").classify_batch(headers)
    assert np.array_equal(crossed.classify_batch(headers), expected)
    assert len(np.unique(expected)) > 40


def test_more_rules_than_16_bits_number() -> None:
    """Each of 66,000 pairs of hosts has a rule, a cell and a node of its own."""
    pairs = [(1 + s << 8, 1 + d << 8) for s in range(250) for d in range(264)]
    rules = RuleSet(
        Rule(match={"src_ip": ValueSet.numbers((s, s)), "dst_ip": ValueSet.numbers((d, d))}) for s, d in pairs
    )
    crossed = packets.compile(rules, engine="cross", budget_bytes=64 << 20)
    asked = np.random.default_rng(3).integers(0, len(pairs), 1000)
    source, destination = np.array(pairs, np.uint32)[asked].T
    found = crossed.classify_batch({"src_ip": source, "dst_ip": destination})
    assert np.array_equal(found, asked)
    assert (crossed.classify_batch({"src_ip": source, "dst_ip": destination + 1}) == -1).all()
