"""What a change of policy would do to real traffic: the flows whose verdict differs between two sets of policies.

python examples/what_if.py CAPTURE OLD NEW
"""

from __future__ import annotations

import sys

import meshsieve


def main(capture: str, old: str, new: str) -> None:
    before, after = meshsieve.load(old), meshsieve.load(new)
    changed = 0
    for batch in before.classify_pcap(capture):
        again = after.classify(batch.headers)
        for i in (batch["action"] != again["action"]).nonzero()[0]:
            flow, then = batch.row(i), again.row(i)
            changed += 1
            print(f"{flow['proto']} {flow['src']} > {flow['dst']}:{flow['dport']}", end="  ")
            print(f"{flow['action']} ({flow['rule']}) -> {then['action']} ({then['rule']})")
    print(f"{changed} flows change")


if __name__ == "__main__":
    main(*sys.argv[1:])
