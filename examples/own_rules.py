"""Rules of your own, without any configuration file: build them, compile them, ask about a million packets at once.

python examples/own_rules.py
"""

from __future__ import annotations

import numpy as np

import meshsieve
from meshsieve.model import Action, Rule, ValueSet

RULES = [
    Rule({"src_ip": ValueSet.addresses(["10.66.0.0/16"])}, Action.DROP, name="quarantine"),
    Rule({"proto": ValueSet.numbers(6), "dport": ValueSet.numbers(80, 443)}, Action.ALLOW, name="web"),
    Rule({"proto": ValueSet.numbers(17), "dport": ValueSet.numbers(53)}, Action.ALLOW, name="dns"),
]


def main() -> None:
    classifier = meshsieve.packets.compile(RULES)
    print("one packet:", RULES[classifier.classify("192.0.2.7", "10.0.0.1", 40000, 443, 6)].name)
    random = np.random.default_rng(1)
    n = 1_000_000
    found = classifier.classify_batch(
        {
            "src": random.integers(0x0A000000, 0x0AFFFFFF, n).astype(np.uint32),
            "dst": random.integers(0, 2**32, n).astype(np.uint32),
            "sport": random.integers(1024, 65536, n),
            "dport": random.choice([22, 53, 80, 443], n),
            "proto": random.choice([6, 17], n),
        }
    )
    for index, count in zip(*np.unique(found, return_counts=True), strict=True):
        print(f"{count:>9} {RULES[index].name if index >= 0 else 'no rule'}")


if __name__ == "__main__":
    main()
