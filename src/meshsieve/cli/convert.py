"""Write policies as meshsieve reads them: every enforcement point, every rule with its sets and its source.

The document is described in docs/cli.md ("The rules document"). Groups stay sets, to which rules refer by number.
"""

from __future__ import annotations

import argparse
import json

from meshsieve.cli.options import add_policy, load_engine
from meshsieve.cli.sink import open_output

EXAMPLES = """\
examples:
  meshsieve convert -p nsx.json -o rules.json
  meshsieve convert -p rules.v4 --lenient | jq '.layers[].points[].rules[] | select(.unknown != [])'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write here instead of to standard output")


def run(options: argparse.Namespace) -> int:
    from meshsieve.reports.rules_document import rules_document

    engine = load_engine(options)
    with open_output(options.output) as file:
        for piece in json.JSONEncoder(indent=1).iterencode(rules_document(engine.layers, engine.diagnostics)):
            file.write(piece.encode())
        file.write(b"\n")
    return 0
