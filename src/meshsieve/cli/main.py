"""``meshsieve VERB``: finds the verb, runs it, and turns every way of ending into words and an exit status.

Conventions   Results go to standard output, everything else to standard error. Exit status 0: done; 1: findings
              (verbs that look for something); 2: wrong usage, or input or output that failed; 130: interrupted;
              141: the reader of our output went away. docs/cli.md is the page for users.
Start-up      Only the verb's own module is imported, and nothing heavy before its arguments are read.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from meshsieve import __version__
from meshsieve.reports.escape import printable

# Verb -> one line; the module is meshsieve.cli.<verb>, with ``add_arguments(parser)`` and ``run(options) -> status``.
VERBS = {
    "classify": "which rule decides each flow or packet of a capture",
    "flows": "the flows of a capture, with their counters",
    "hits": "how much traffic each rule decided, and which rules none",
    "report": "one page about a capture under a policy: map, timeline, rules, findings",
    "requests": "the HTTP requests of a capture, with what was answered",
    "services": "who calls whom in a capture: a table, Istio's metrics, or a service graph",
    "overlap": "which layer protects each pair of ends: L4, L7, both, neither, or they conflict",
    "diff": "what a change of policy or routes does, exactly and to real traffic",
    "explain": "every rule that one packet meets, and why it does or does not match",
    "connectivity": "who may reach whom, on what, from the rules alone",
    "route": "which route takes a request, and what becomes of it",
    "authz": "whether a request may pass, and which policy says so",
    "routes": "route tables, in the order in which requests are compared with them",
    "lint": "rules and routes that never act, conflicts, refused routes",
    "convert": "policies as meshsieve reads them, as one JSON document",
    "balance": "which backend gets a key, and what a change of weights or hosts moves",
    "bench": "how fast this is beside its peers, from the source tree",
    "doctor": "versions, SIMD backend and extras, for a bug report",
}
EXIT_USAGE, EXIT_INTERRUPTED, EXIT_CLOSED_PIPE = 2, 130, 141

_EXAMPLES = """\
examples:
  meshsieve classify -r traffic.pcap -p nsx.json
  meshsieve classify -r traffic.pcap.zst -p rules.v4 -o ndjson 'tcp and dst port 443' | jq .rule
  meshsieve explain -p nsx.json 'tcp 10.0.0.1:4242 > 10.0.0.2:443'

`meshsieve VERB --help` shows the options of a verb and more examples.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status and never raises (except SystemExit from argparse)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes standard output once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CLOSED_PIPE
    except KeyboardInterrupt:
        print("meshsieve: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="meshsieve",
        description="What a network and a service mesh would do with a packet, a flow or a request, and why.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"meshsieve {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    wanted = words[0] if words and words[0] in VERBS else None
    for verb, summary in VERBS.items():
        verbs.add_parser(verb, help=summary, add_help=verb != wanted)
    if wanted is None:
        parser.parse_args(words)  # prints help, version or an error, and leaves; or there was nothing to do
        parser.print_help(sys.stderr)
        return EXIT_USAGE

    module = importlib.import_module(f"meshsieve.cli.{wanted}")
    verb_parser = argparse.ArgumentParser(
        prog=f"meshsieve {wanted}",
        description=module.__doc__,
        epilog=module.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(verb_parser)
    options = verb_parser.parse_intermixed_args(words[1:])

    from meshsieve.errors import MeshsieveError

    try:
        status: int = module.run(options)
        return status
    except MeshsieveError as error:
        print(f"meshsieve: error: {printable(str(error), keep_newlines=True)}", file=sys.stderr)
    except BrokenPipeError:
        raise
    except OSError as error:
        name = f"{printable(os.fsdecode(error.filename))}: " if error.filename is not None else ""
        print(f"meshsieve: error: {name}{error.strerror or error}", file=sys.stderr)
    return EXIT_USAGE
