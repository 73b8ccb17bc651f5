"""``python -m benches SUBJECT [--data FOLDER] [--quick] [--json] ...``.

Exit status 1 if any answer of ours was wrong or a row has no time of ours; 2 if the cases cannot be made here.
"""

from __future__ import annotations

import importlib
import json
import sys

from benches import options, report
from benches.process import Unavailable

SUBJECTS = ["authz", "balance", "captures", "engine", "packets", "routes"]


def main() -> int:
    chosen = options.parse(SUBJECTS)
    subject = importlib.import_module(f"benches.{chosen.subject}")
    try:
        result = subject.run(chosen)
    except Unavailable as reason:  # what the cases themselves are made with, not a peer
        print(f"benches: {reason}; see benches/README.md for what is needed", file=sys.stderr)
        return 2
    tables = importlib.import_module(f"benches.{chosen.subject}_tables")
    print(json.dumps(result, indent=1) if chosen.json else tables.tables(result))
    if chosen.save or not chosen.quick:
        print(f"saved as {report.save(result, chosen.save or report.RESULTS)}", file=sys.stderr)
    if chosen.chart:
        from benches import chart

        for path in chart.draw(result, chosen.save or report.RESULTS):
            print(f"drawn as {path}", file=sys.stderr)
    return 1 if result["summary"]["wrong"] or any(row["ours_ns"] is None for row in result["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
