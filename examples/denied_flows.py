"""The flows that the policies deny or cannot decide, largest first, with the rule and where it is written.

python examples/denied_flows.py CAPTURE POLICY...
"""

from __future__ import annotations

import sys

import meshsieve


def main(capture: str, *policies: str) -> None:
    result = meshsieve.load(policies).classify_pcap(capture)
    denied = [
        (int(batch["bytes"][i]), batch.row(i)) for batch in result for i in (batch["action"] != "ALLOW").nonzero()[0]
    ]
    for size, flow in sorted(denied, key=lambda pair: -pair[0])[:10]:
        print(f"{flow['action']:<10}{flow['proto']:<7}{flow['src']} > {flow['dst']}:{flow['dport']}  {size} bytes")
        print(f"          {flow['source'] or flow['reason']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
