"""``explain`` says what ``classify`` says, over every policy of the data set.

Packets are drawn from the rules themselves: ends of their intervals and the neighbours, owned addresses, ports, flags.
For each: explain's verdict, rule and source are those of the batch; at every point the walk of the linear reference
(the tested rules) ends at the rule that the compiled table found.

The figure of the project, 10^5 packets over every policy, takes some minutes, or one for each of some slices:

    MESHSIEVE_SHARED=DATA MESHSIEVE_PACKETS=100000 MESHSIEVE_PART=1/8 python -m pytest \\
        tests/differential/test_explain_agrees.py

The same variables make test_nsx.py, test_iptables.py and test_kubernetes.py draw as many packets for the literal walks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meshsieve.columns import PacketColumns
from meshsieve.decision import NO_RULE
from meshsieve.engine import Engine, load
from meshsieve.explanation import PointExplanation, explain
from meshsieve.model import ValueSet
from tests.shared import packets_each, part, shared_data

PROTOCOLS = (1, 2, 6, 6, 6, 17, 17, 47, 58, 132)


def policy_files(policies: Path) -> list[list[Path]]:
    """What is loaded together: a file, or a folder of Kubernetes manifests."""
    files = [[p] for p in sorted((policies / "nsx" / "configs").glob("*.json"))]
    for folder in ("iptables", "aerleon-iptables", "nft"):
        files += [[p] for p in sorted((policies / folder).glob("*")) if "golden" not in p.name]
    for name in ("netpol-analyzer", "recipes", "cyclonus", "network-policy-api"):
        root = policies / "k8s" / name
        files += [[p] for p in sorted(root.iterdir()) if p.is_dir() or p.suffix in (".yaml", ".yml", ".json")]
    return files


# Not policy, or broken on purpose (the data set's README).
UNREADABLE = ("testVerbatimTerm", "experimental-egress-selector-rules", "user-story-4-v2")


def corners(sets: Iterator[ValueSet], largest: int) -> list[int]:
    found = {v for s in sets for lo, hi in s.v4 for v in (lo - 1, lo, hi, hi + 1) if 0 <= v <= largest}
    return sorted(found) or [0]


def draw(engine: Engine, count: int, seed: int) -> PacketColumns:
    """``count`` IPv4 packets, or IPv6 where a layer judges nothing else."""
    rng = random.Random(seed)
    matches = [
        match
        for layer in engine.layers
        for point in layer.points
        for rule in point.rules
        for match in (rule.match, *rule.alternatives)
    ]
    owned = [a for layer in engine.layers for v in layer.inventory.vnics for version, a in v.addresses if version == 4]

    def column(name: str, largest: int, extra: Sequence[int] = ()) -> list[int]:
        pool = [*corners((m[name] for m in matches if name in m), largest), *extra, rng.randint(0, largest)]
        return [rng.choice(pool) for _ in range(count)]

    versions = {v for layer in engine.layers for v in layer.families}
    proto = [rng.choice(PROTOCOLS) for _ in range(count)]
    columns: dict[str, Any] = {
        "src_ip": np.array(column("src_ip", 2**32 - 1, owned * 4), np.uint32),
        "dst_ip": np.array(column("dst_ip", 2**32 - 1, owned * 4), np.uint32),
        "proto": proto,
        "ip_ver": [4 if 4 in versions else 6] * count,
        "sport": column("sport", 65535),
        "dport": column("dport", 65535, [22, 53, 80, 443]),
        "tcp_flags": [rng.choice((2, 2, 2, 16, 18, 1, 4, 0)) for _ in range(count)],
        "icmp_type": column("icmp_type", 255, [8, 0]),
        "icmp_code": [0] * count,
        "fragment": [int(rng.random() < 0.05) for _ in range(count)],
        "ct_state": [rng.choice((1, 1, 1, 2, 3, 4)) for _ in range(count)],
        "eth_type": [0x0800] * count,
    }
    has = {
        name: np.isin(proto, protocols) & (np.array(columns["fragment"]) == 0)
        for name, protocols in (
            ("sport", [6, 17, 132]), ("dport", [6, 17, 132]), ("tcp_flags", [6]),
            ("icmp_type", [1, 58]), ("icmp_code", [1, 58]),
        )
    }  # fmt: skip
    return PacketColumns({"proto": proto}).with_fields(columns, has)


def last_tested(point: PointExplanation) -> int:
    """The rule at which the linear reference's walk ended."""
    ends = [t for t in point.trials if t.truth == "unknown" or (t.truth == "yes" and t.action != "SKIP")]
    return ends[0].index if ends else NO_RULE


def test_explain_agrees_with_classify() -> None:
    files = policy_files(shared_data("policies"))
    each = packets_each(len(files), 20)
    asked = 0
    mine = part(list(enumerate(files)))
    for number, paths in mine:
        if any(word in str(path) for path in paths for word in UNREADABLE):
            continue
        engine = load(paths, strict=False)
        if not engine.layers:
            continue
        headers = draw(engine, each, seed=number)
        batch = engine.classify(headers)
        for i in range(len(headers)):
            told = explain(engine.tables, headers.take(np.array([i])), {})
            assert (told.action, told.rule, told.source, told.reason) == tuple(
                batch[name][i] for name in ("action", "rule", "source", "reason")
            ), (paths, told.packet)
            for point, answer in zip(told.points, batch.decisions.points, strict=True):
                if point.trials:
                    assert last_tested(point) == answer.rule[i], (paths, told.packet, point.title)
            asked += 1
    assert asked >= each * len(mine) * 0.8
