"""Show who may reach whom, on what: every pair of known endpoints and outside ranges, exact, from the rules alone.

A pair is listed with the connections that every layer allows; "undecided" are those that depend on something the rules
name and the question does not say. Pairs without any allowed or undecided connection are left out of the table.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from meshsieve.cli.options import add_policy, load_engine
from meshsieve.connectivity import Reach, connectivity
from meshsieve.reports.escape import printable

EXAMPLES = """\
examples:
  meshsieve connectivity -p cluster/
  meshsieve connectivity -p nsx.json --from web --to db
  meshsieve connectivity -p cluster/ -o matrix
  meshsieve connectivity -p cluster/ -o ndjson | jq -r 'select(.allowed == "all") | [.src, .dst] | @tsv'
"""
# Cells of the matrix.
ALL, SOME, NONE, UNDECIDED = "all", "some", "-", "?"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("--from", dest="source", metavar="TEXT", help="only sources whose name contains TEXT")
    parser.add_argument("--to", dest="destination", metavar="TEXT", help="only destinations whose name contains TEXT")
    parser.add_argument(
        "-o", dest="format", choices=("table", "matrix", "json", "ndjson"), default="table", help="default: table"
    )


def run(options: argparse.Namespace) -> int:
    reaches = _selected(connectivity(load_engine(options).layers), options.source, options.destination)
    if options.format == "ndjson":
        for reach in reaches:
            print(json.dumps(reach.to_dict()))
    elif options.format == "json":
        print(json.dumps([reach.to_dict() for reach in reaches], indent=1))
    elif options.format == "matrix":
        _print_matrix(list(reaches))
    else:
        _print_table(list(reaches))
    return 0


def _selected(reaches: Iterator[Reach], source: str | None, destination: str | None) -> Iterator[Reach]:
    return (r for r in reaches if (source or "") in r.src.name and (destination or "") in r.dst.name)


def _print_table(reaches: list[Reach]) -> None:
    rows = [("SOURCE", "DESTINATION", "ALLOWED")]
    for reach in reaches:
        if reach.allowed or reach.undecided:
            unsure = f" (undecided: {reach.undecided})" if reach.undecided else ""
            rows.append((printable(reach.src.name), printable(reach.dst.name), f"{reach.allowed}{unsure}"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for src, dst, allowed in rows:
        print(f"{src:<{widths[0]}}  {dst:<{widths[1]}}  {allowed}")
    print(f"\n{len(rows) - 1} of {len(reaches)} pairs may connect")


def _print_matrix(reaches: list[Reach]) -> None:
    """Sources down, destinations across, by number; the names stand in front of the rows."""
    names = list(dict.fromkeys(name for r in reaches for name in (r.src.name, r.dst.name)))
    number = {name: i for i, name in enumerate(names, 1)}
    cells = {(number[r.src.name], number[r.dst.name]): _cell(r) for r in reaches}
    width = max((len(printable(name)) for name in names), default=0)
    size = max(len(SOME), len(str(len(names))))
    print(" " * (len(str(len(names))) + 2 + width), *(f"{i:>{size}}" for i in number.values()))
    for name, i in number.items():
        row = (f"{cells.get((i, j), ''):>{size}}" for j in number.values())
        print(f"{i:>{len(str(len(names)))}}  {printable(name):<{width}}", *row)
    print(f"\nrows are sources; {ALL}: everything, {SOME}: some connections, {NONE}: none, {UNDECIDED}: undecided")


def _cell(reach: Reach) -> str:
    if reach.undecided:
        return UNDECIDED
    return ALL if reach.allowed.everything else SOME if reach.allowed else NONE
