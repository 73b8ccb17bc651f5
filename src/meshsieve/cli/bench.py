"""Measure meshsieve beside its peers, in the root of its source tree: benches and peers are no part of the package.

`python -m benches` there has more options, and benches/README.md says how to read a number.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from meshsieve.errors import UsageError

EXAMPLES = """\
examples:
  meshsieve bench packets --quick
  meshsieve bench captures --data traffic.pcap
  meshsieve bench routes --quick --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="SUBJECT", nargs="?", default="packets",
                        help="packets, captures, routes, authz, balance or engine (default: packets)")  # fmt: skip
    parser.add_argument("--data", metavar="FOLDER", help="the sets or captures to use instead of the generated ones")
    parser.add_argument("--quick", action="store_true", help="a small part, in less than a minute")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> int:
    if not os.path.isfile(os.path.join("benches", "__main__.py")):
        raise UsageError(f"{os.getcwd()} has no folder benches; run this in the root of meshsieve's source tree")
    words = [options.subject, *(["--data", options.data] if options.data else [])]
    words += [f"--{name}" for name in ("quick", "json") if getattr(options, name)]
    return subprocess.run([sys.executable, "-m", "benches", *words], check=False).returncode
