"""Show what a change of policy or routes does: which connections and requests NEW answers otherwise than OLD, with the
rules of both sides and one connection or request that shows it. From the policies alone, without traffic: connections
exactly, by set algebra; requests by what the policies compare with. With -r or --requests: which flows and requests of
captures and logs are affected, and how much traffic that is.

OLD and NEW are files or folders; what both sides have in common (the inventory, a cluster's pods) is given with -p.

Exit status: 0 where nothing changes; 1 where something does (with --fail-on: something of such a kind); 2 for wrong
usage, or what cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from meshsieve.changes.model import KINDS
from meshsieve.cli.options import add_capture, add_policy, capture_choice, load_engine, take_trailing_words
from meshsieve.cli.request_files import add_logs, check_traffic
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.changes.comparison import Comparison
    from meshsieve.changes.model import Change
    from meshsieve.engine import Engine

EXAMPLES = """\
examples:
  meshsieve diff nsx.json nsx-new.json
  meshsieve diff old/ new/ -r traffic.pcap
  meshsieve diff old/istio new/istio -p cluster/ --requests access.log --assume-mtls
  meshsieve diff main/ branch/ -r traffic.pcap -o markdown > comment.md
  meshsieve diff main/ branch/ --fail-on opened rerouted || echo 'somebody must look at this'
"""
EXIT_CHANGES = 1
FROM = ("policies", "traffic", "both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="the policy that is in force: a file or a folder")
    parser.add_argument("new", metavar="NEW", help="the policy that is to come")
    add_capture(parser, required=False)
    add_logs(parser)
    add_policy(parser, required=False)
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o", "--format", choices=("table", "json", "ndjson", "markdown"), default="table", help="default: table"
    )
    group.add_argument("--output", metavar="FILE", help="write here instead of to standard output; whole or not at all")
    group.add_argument("--limit", type=int, default=40, metavar="N", help="rows that a table shows (default 40)")
    parser.add_argument(
        "--from", dest="compared", choices=FROM,
        help="what to look at: the policies alone, traffic alone, or both (default: traffic where there is any)",
    )  # fmt: skip
    parser.add_argument(
        "--fail-on", choices=(*KINDS, "never"), nargs="+", default=list(KINDS),
        help="kinds of change that end with exit status 1 (default: every kind)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures", "requests", "policies"), "filter")
    with_traffic = bool(options.captures or options.requests)
    compared = options.compared or ("traffic" if with_traffic else "policies")
    check_traffic(options, needed=compared != "policies")
    if "-" in options.captures:
        raise UsageError("captures are read twice; standard input cannot be one: write it to a file first")
    common = options.policies
    engines = []
    for side in (options.old, options.new):
        options.policies = [side, *common]
        engines.append(load_engine(options))
    found, status = _compared(engines[0], engines[1], options, compared, expression)
    _print(found, options)
    sys.stdout.flush()
    if options.format != "markdown":
        from meshsieve.cli.stderr import warn

        for note in found.notes:
            warn(note)
    changed = any(found.count(kind) for kind in options.fail_on)
    return status or (EXIT_CHANGES if changed else 0)


def _compared(
    old: Engine, new: Engine, options: argparse.Namespace, compared: str, expression: str
) -> tuple[Comparison, int]:
    """What changes, and the exit status that the reading of traffic asks for."""
    from meshsieve.changes.comparison import Comparison, compare_policies, in_order

    changes: list[Change] = []
    notes: list[str] = []
    counts: list[tuple[str, int]] = []
    status = 0
    if compared != "traffic":
        from_policies = compare_policies(old, new)
        changes += from_policies.changes
        notes += from_policies.notes
    if compared != "policies":
        in_traffic, status = _in_traffic(old, new, options, expression)
        changes += in_traffic.changes
        notes += in_traffic.notes
        counts += in_traffic.compared
    return Comparison(in_order(changes), tuple(notes), tuple(counts)), status


def _in_traffic(old: Engine, new: Engine, options: argparse.Namespace, expression: str) -> tuple[Comparison, int]:
    from meshsieve.changes.comparison import Comparison, in_order, request_walks
    from meshsieve.changes.traffic import FlowChanges, RequestChanges
    from meshsieve.cli.request_files import log_source
    from meshsieve.cli.stderr import Progress
    from meshsieve.walk.captured import CaptureSource

    interfaces = {name: value for name in ("iif", "oif") if (value := getattr(options, name)) is not None}
    about_requests = old.mesh is not None or new.mesh is not None
    if options.requests and not about_requests:
        raise UsageError("neither policy says anything about requests, so a log of them cannot be compared")
    flows = FlowChanges(old.tables, new.tables, interfaces)
    requests = RequestChanges(*request_walks([old, new]), assume_mtls=options.assume_mtls) if about_requests else None
    notes: list[str] = []
    status = 0
    with Progress() as progress:
        choice = capture_choice(options, expression)
        if options.captures:
            result = old.classify_pcap(options.captures, **choice, iif=options.iif, oif=options.oif, progress=progress)
            for batch in result:
                flows.add(batch)
            notes += result.summary().notes
            status = 2 if result.problem else 0
        if requests is not None:
            captured = CaptureSource(options.captures, progress, **choice)
            for seen in captured.batches() if options.captures else ():
                requests.add(seen)
        if options.requests and requests is not None:
            logged = log_source(new if new.mesh is not None else old, options, progress)
            for seen in logged.batches():
                requests.add(seen)
            notes += logged.notes
            status = 2 if logged.bad else status
    changes = [*flows.found(), *(requests.found() if requests is not None else ())]
    counts = [("flows", flows.flows), ("packets", flows.packets), ("bytes", flows.bytes)] if options.captures else []
    counts += [("requests", requests.requests)] if requests is not None else []
    return Comparison(in_order(changes), tuple(notes), tuple(counts)), status


def _print(found: Comparison, options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import print_text
    from meshsieve.cli.terminal import colours, columns
    from meshsieve.reports.changes import changes_markdown, changes_text

    if options.format == "ndjson":
        text = "\n".join(json.dumps(change.to_dict()) for change in found.changes)
    elif options.format == "json":
        text = json.dumps(found.to_dict(), indent=1)
    elif options.format == "markdown":
        text = changes_markdown(found, f"{options.old} to {options.new}", limit=options.limit)
    else:
        wide, coloured = (columns(), colours()) if options.output is None else (None, False)
        text = changes_text(found, options.limit, columns=wide, colours=coloured)
    print_text(text, options.output)
