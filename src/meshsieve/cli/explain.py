"""Show every rule that one packet meets, at every enforcement point, and why each does or does not match.

The packet is written as PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [FIELD VALUE]...; what is not written is that of
the first packet of a new connection (TCP SYN, ICMP echo request).
"""

from __future__ import annotations

import argparse
import json

from meshsieve.cli.options import add_policy, load_engine, take_trailing_words
from meshsieve.cli.sink import print_text
from meshsieve.errors import UsageError

EXAMPLES = """\
examples:
  meshsieve explain -p nsx.json 'tcp 10.0.0.1:4242 > 10.0.0.2:443'
  meshsieve explain -p rules.v4 --chain INPUT --iif eth0 'icmp 192.0.2.7 > 10.0.0.1 icmp_type 8'
  meshsieve explain -p policies/ 'udp [2001:db8::1]:5353 > [ff02::fb]:5353' --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("packet", metavar="PACKET", nargs="*", help="the packet, as one word or several")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every rule tested")


def run(options: argparse.Namespace) -> int:
    packet = take_trailing_words(options, ("policies",), "packet")
    if not packet:
        raise UsageError("which packet? write it last, such as 'tcp 10.0.0.1:4242 > 10.0.0.2:443'")
    explanation = load_engine(options).explain(packet, iif=options.iif, oif=options.oif)
    if options.json:
        print_text(json.dumps(explanation.to_dict(), indent=1))
        return 0

    from meshsieve.cli.terminal import colours
    from meshsieve.reports.text import explanation_text

    print_text(explanation_text(explanation, colours=colours()))
    return 0
