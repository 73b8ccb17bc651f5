"""Show which layer protects each pair of ends: packet filters (layers 2-4), the mesh's authorization (layer 7), both,
neither, or where the two contradict each other. From the policies alone, exact; -r weighs it by the traffic of
captures, --requests by that of logs.

Exit status: 0 when done; 1 with --fail-on where a pair of such a class was found; 2 for wrong usage or what cannot be
read.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_policy, load_engine
from meshsieve.cli.request_files import add_logs, check_traffic, classify_logs, end_of_logs
from meshsieve.errors import UsageError
from meshsieve.reports.escape import printable

if TYPE_CHECKING:
    from meshsieve.engine import Engine
    from meshsieve.walk.overlap import Overlap

EXAMPLES = """\
examples:
  meshsieve overlap -p nsx.json cluster/
  meshsieve overlap -p nsx.json cluster/ -r traffic.pcap --assume-mtls
  meshsieve overlap -p nsx.json cluster/ --requests access.log --assume-mtls
  meshsieve overlap -p nsx.json cluster/ --class neither conflict -o ndjson | jq -r '[.from, .to, .port] | @tsv'
  meshsieve overlap -p nsx.json cluster/ --fail-on neither conflict
"""
_NAME = 44  # columns of an end's name in tables; JSON has it whole
_NAMES = ("both", "L4-only", "L7-only", "neither", "conflict", "hole", "undecided")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument(
        "-r", dest="captures", metavar="CAPTURE", nargs="+", action="extend", default=[],
        help="captures whose flows and requests are counted for each pair; read twice",
    )  # fmt: skip
    parser.add_argument("--class", dest="classes", choices=_NAMES, nargs="+", help="only pairs of these classes")
    parser.add_argument(
        "--fail-on", choices=_NAMES, nargs="+", default=[], help="exit status 1 if there is such a pair"
    )
    parser.add_argument("-o", "--format", choices=("table", "matrix", "json", "ndjson"), default="table")
    parser.add_argument(
        "--output", metavar="FILE", help="write here instead of to standard output; whole or not at all"
    )
    parser.add_argument("--limit", type=int, default=40, metavar="N", help="pairs that a table shows (default 40)")
    add_logs(parser)


def run(options: argparse.Namespace) -> int:
    check_traffic(options, needed=False)
    if "-" in options.captures:
        raise UsageError("captures are read twice; standard input cannot be one: write it to a file first")
    engine = load_engine(options)

    from meshsieve.cli.sink import print_text
    from meshsieve.walk.overlap import overlaps

    everything, status = list(overlaps(engine)), 0
    if options.captures or options.requests:
        everything, status = _weighed(engine, options, everything)
    wanted = {name.replace("-", " ") for name in options.classes or _NAMES}
    found = [o for o in everything if o.kind in wanted]
    if options.format == "ndjson":
        text = "\n".join(json.dumps(o.to_dict()) for o in found)
    elif options.format == "json":
        text = json.dumps([o.to_dict() for o in found], indent=1)
    elif options.format == "matrix":
        text = _matrix(found)
    else:
        text = _table(found, everything, options)
    print_text(text, options.output)
    failing = {name.replace("-", " ") for name in options.fail_on}
    return status or int(any(o.kind in failing for o in everything))


def _weighed(engine: Engine, options: argparse.Namespace, found: list[Overlap]) -> tuple[list[Overlap], int]:
    """The pairs with their traffic, and the exit status that the reading of it asks for."""
    from meshsieve.cli.stderr import Progress
    from meshsieve.walk.overlap import Traffic

    traffic = Traffic(engine)
    logs = None
    with Progress() as progress:
        if options.captures:
            for batch in engine.classify_pcap(options.captures, progress=progress):
                traffic.add_flows(batch)
            for rows in engine.classify_requests(options.captures, assume_mtls=options.assume_mtls, progress=progress):
                traffic.add_requests(rows)
        if options.requests:
            logs = classify_logs(engine, options, progress)
            for rows in logs:
                traffic.add_requests(rows)
    return [traffic.of(o) for o in found], end_of_logs(logs) if logs is not None else 0


def _table(found: list[Overlap], everything: list[Overlap], options: argparse.Namespace) -> str:
    from meshsieve.cli.terminal import columns
    from meshsieve.reports.text import byte_text, fit, table_text
    from meshsieve.walk.overlap import CLASSES, MEANING, totals

    width = columns() if options.output is None else None
    weighed = bool(options.captures or options.requests)
    order = {kind: i for i, kind in enumerate(CLASSES)}
    shown = sorted(found, key=lambda o: (order[o.kind], -o.bytes, o.source, o.destination))[: options.limit]
    cells = [
        [
            o.kind, fit(o.source, _NAME), fit(o.destination, _NAME), str(o.port or "any"), o.l4, o.l7,
            *([byte_text(o.bytes), f"{o.requests:,}"] if weighed else []),
            o.request or o.packet, "; ".join(rule for _, rule, _ in o.rules),
        ]
        for o in shown
    ]  # fmt: skip
    seen = ["BYTES", "REQUESTS"] if weighed else []
    heads = ["CLASS", "FROM", "TO", "PORT", "L4", "L7", *seen, "WITNESS", "RULES"]
    parts = [table_text(heads, cells, columns=width)]
    if len(found) > len(shown):
        parts.append(f"({len(shown)} of {len(found):,} pairs; --limit N shows more, -o ndjson all)")
    rows = [
        [
            t.kind,
            f"{t.pairs:,}",
            *([byte_text(t.bytes), f"{t.requests:,}"] if weighed else []),
            MEANING[t.kind],
        ]
        for t in totals(everything)
    ]
    right = frozenset(range(1, 2 + len(seen)))
    parts += ["", table_text(["CLASS", "PAIRS", *seen, "MEANING"], rows, right=right, columns=width)]
    return "\n".join(parts)


def _matrix(found: list[Overlap]) -> str:
    """Sources down, destinations across by number; of several ports the class that wants attention first."""
    from meshsieve.reports.text import fit, table_text
    from meshsieve.walk.overlap import CLASSES

    worst: dict[tuple[str, str], str] = {}
    for o in found:
        key = (o.source, o.destination)
        worst[key] = min(worst.get(key, o.kind), o.kind, key=CLASSES.index)
    sources = list(dict.fromkeys(source for source, _ in worst))
    destinations = list(dict.fromkeys(destination for _, destination in worst))
    rows = [[fit(s, _NAME), *(worst.get((s, d), "") for d in destinations)] for s in sources]
    text = table_text(["FROM", *(str(i) for i in range(1, len(destinations) + 1))], rows)
    names = "\n".join(f"{i:>4}  {printable(d)}" for i, d in enumerate(destinations, 1))
    return f"{text}\n\nTO\n{names}"
