"""Find what a configuration says and never does: rules and routes that nothing reaches, duplicates, conflicts, refused
routes, and what Istio's analyzers find.

CONFIG is any mix of firewall policies (NSX, iptables, nftables, Kubernetes), Envoy route configurations, and objects of
a cluster. Every finding names its place; docs/lint.md has the codes.
Exit status: 0 no findings (notes do not count), 1 findings, 2 wrong usage or a file that cannot be read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshsieve.cli.sink import print_text

if TYPE_CHECKING:
    from meshsieve.cli.l7_sources import L7Sources
    from meshsieve.policy import Diagnostic, SourceFile

EXAMPLES = """\
examples:
  meshsieve lint -p rules.v4
  meshsieve lint -p cluster/ nsx.json
  meshsieve lint -p cluster/ --code route-refused backend-unresolved
  meshsieve lint -p cluster/ -o ndjson | jq -r 'select(.level != "note") | [.where, .code] | @tsv'
"""
FORMATS = ("table", "json", "ndjson", "csv")
FIELDS = ("level", "code", "message", "where", "object", "hint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", dest="config", metavar="CONFIG", action="extend", nargs="+", required=True,
                        help="policies, route configurations, objects of a cluster; files, folders, or -")  # fmt: skip
    parser.add_argument("--code", dest="codes", metavar="CODE", action="extend", nargs="+",
                        help="only findings with these codes")  # fmt: skip
    parser.add_argument("--no-notes", action="store_true", help="leave out what is only a note")
    parser.add_argument("-o", "--format", choices=FORMATS, default="table", help="default: table, one line each")
    parser.add_argument(
        "--output", metavar="FILE", help="write here instead of to standard output; whole or not at all"
    )


def run(options: argparse.Namespace) -> int:
    from meshsieve.cli.l7_sources import read_l7

    found = findings(read_l7(options.config))
    if options.codes:
        found = [f for f in found if f.code in options.codes]
    if options.no_notes:
        found = [f for f in found if f.level != "note"]
    print_text(_shown(found, options.format), options.output)
    return 1 if any(f.level != "note" for f in found) else 0


def findings(sources: L7Sources) -> list[Diagnostic]:
    """Findings of every layer: firewall rules, then objects of a cluster, then route configurations."""
    from meshsieve.importers.kubernetes.cluster import POLICY_KINDS
    from meshsieve.lint.mesh import lint_objects
    from meshsieve.lint.routes import lint_tables
    from meshsieve.mesh.objects import read_objects

    policies = list(sources.other)
    out: list[Diagnostic] = []
    if sources.objects:
        store = read_objects(sources.objects)
        if any(o.kind in POLICY_KINDS for o in store.objects):
            policies += sources.objects
        out += lint_objects(store)
    return [*_of_policies(policies), *out, *lint_tables(sources.envoy)]


def _of_policies(sources: Sequence[SourceFile]) -> list[Diagnostic]:
    from meshsieve.importers.registry import load_sources
    from meshsieve.lint.rules import lint_rules
    from meshsieve.policy import ImportOptions

    if not sources:
        return []
    result = load_sources(sources, ImportOptions(strict=False))
    return [*result.diagnostics, *lint_rules(result.layers)]


def _shown(found: Sequence[Diagnostic], format: str) -> str:
    from meshsieve.reports.escape import printable
    from meshsieve.reports.rows import csv_text

    rows = [(f.level, f.code, f.message, f.where, f.obj, f.hint) for f in found]
    if format == "ndjson":
        return "\n".join(json.dumps(dict(zip(FIELDS, row, strict=True))) for row in rows)
    if format == "json":
        return json.dumps([dict(zip(FIELDS, row, strict=True)) for row in rows], indent=1)
    if format == "csv":
        return "\r\n".join(",".join(map(csv_text, row)) for row in (FIELDS, *rows))
    counts = {level: sum(f.level == level for f in found) for level in ("error", "warning", "note")}
    summary = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items() if n) or "no findings"
    return "\n".join([*(printable(str(f)) for f in found), summary])
