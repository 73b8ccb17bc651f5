"""Show route tables: every route of every virtual host, in the order in which requests are compared with them.

CONFIG is Envoy route configurations, or the objects of a cluster (Istio, Gateway API, Ingress): then the tables of all
gateways, of ingress classes, and of Services with routes of their own; of one gateway with --gateway, of a client's
sidecar with --from.
Exit status: 0; 2 for wrong usage or a configuration that is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from meshsieve.cli.options import add_output
from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.mesh.router import MeshRouter
    from meshsieve.output import Column
    from meshsieve.routes.model import RouteConfiguration

EXAMPLES = """\
examples:
  meshsieve routes -p routes.yaml
  meshsieve routes -p cluster/ --gateway istio-system/edge
  meshsieve routes -p cluster/ --from shop/productpage-v1 --host reviews
  meshsieve routes -p cluster/ -o ndjson | jq -r 'select(.action | startswith("redirects")) | .source'
"""
NAMES = ("table", "virtual_host", "domains", "index", "route", "match", "action", "source")
HEADS = ("VIRTUAL HOST", "#", "MATCH", "ACTION", "SOURCE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", dest="config", metavar="CONFIG", action="extend", nargs="+", required=True,
                        help="route configurations, or objects of a cluster; files, folders, or -")  # fmt: skip
    parser.add_argument("--gateway", metavar="NS/NAME", help="only the tables of this gateway (or ingress:CLASS)")
    parser.add_argument("--from", dest="source", metavar="NS/WORKLOAD", help="the tables of this client's sidecar")
    parser.add_argument("--host", metavar="TEXT", help="only virtual hosts with TEXT in a domain or the name")
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    if options.gateway is not None and options.source is not None:
        raise UsageError("a table is a gateway's or a client's: give --gateway or --from")
    rows = [row for table, config in _tables(options) for row in _rows(table, config, options.host)]
    if options.format == "table":
        from meshsieve.cli.sink import print_text

        print_text(_text(rows, options.limit), options.output)
        return 0

    from meshsieve.cli.sink import open_sink

    with open_sink(options, _columns([])) as sink:
        sink.write(_columns(rows))
        sink.end({"routes": len(rows)})
    return 0


def _tables(options: argparse.Namespace) -> Iterator[tuple[str, RouteConfiguration]]:
    from meshsieve.cli.l7_sources import read_l7
    from meshsieve.cli.stderr import warn

    sources = read_l7(options.config)
    if not sources.envoy and not sources.objects:
        name = sources.other[0].name if sources.other else options.config[0]
        raise UsageError(f"{name} is neither a route configuration nor objects of a cluster")
    for left in sources.other:
        warn(f"{left.name} is neither a route configuration nor objects of a cluster: left out")
    place = options.gateway or options.source
    if place is not None and not sources.objects:
        raise UsageError("--gateway and --from are for objects of a cluster; this is a route configuration")
    yield from sources.envoy if place is None else ()
    if sources.objects:
        from meshsieve.cli.stderr import show_diagnostics
        from meshsieve.mesh.router import from_kubernetes

        mesh = from_kubernetes(sources.objects)
        show_diagnostics(mesh.findings)
        yield from _of_cluster(mesh, options)


def _of_cluster(mesh: MeshRouter, options: argparse.Namespace) -> Iterator[tuple[str, RouteConfiguration]]:
    from meshsieve.mesh.tables import gateway_tables, service_tables, sidecar_tables
    from meshsieve.request import Request

    if options.gateway is not None and options.gateway not in mesh.gateways:
        known = ", ".join(mesh.gateways) or "none"
        raise UsageError(f"no gateway is called {options.gateway}; there are: {known}")
    if options.source is not None:
        client = mesh.viewpoint(Request(), source=options.source).client
        assert client is not None
        yield from sidecar_tables(mesh, client)
        return
    yield from gateway_tables(mesh, options.gateway)
    if options.gateway is None:
        yield from service_tables(mesh)


def _rows(table: str, config: RouteConfiguration, wanted: str | None) -> Iterator[tuple[str | int, ...]]:
    from meshsieve.routes.describe import action_text, match_text
    from meshsieve.routes.model import host_routes

    for host in config.virtual_hosts:
        domains = ", ".join(d.decode("utf-8", "backslashreplace") for d in host.domains)
        if wanted is not None and wanted not in domains and wanted not in host.name:
            continue
        for index, route in enumerate(host_routes(host)):
            tree = "in a match tree: " if host.tree is not None else ""
            yield (
                table, host.name, domains, index, route.name, f"{tree}{match_text(route.match)}",
                action_text(route.action), str(route.source),
            )  # fmt: skip


def _columns(rows: Sequence[tuple[str | int, ...]]) -> list[Column]:
    import numpy as np

    from meshsieve.labels import TextTable
    from meshsieve.output import Column

    out = []
    for i, name in enumerate(NAMES):
        if name == "index":
            out.append(Column.number(name, np.array([row[i] for row in rows], np.int64)))
        else:
            table = TextTable()
            out.append(Column.text(name, np.array([table.code(str(row[i])) for row in rows], np.int32), table))
    return out


def _text(rows: Sequence[tuple[str | int, ...]], limit: int) -> str:
    """One block a table; the virtual host stands where it begins."""
    from meshsieve.cli import terminal
    from meshsieve.reports.escape import printable
    from meshsieve.reports.text import bold, table_text

    if not rows:
        return "no routes"
    blocks: list[str] = []
    names = dict.fromkeys(row[0] for row in rows)
    shown = rows[:limit]
    for name in names:
        mine = [row for row in shown if row[0] == name]
        if not mine:
            continue
        lines, before = [], None
        for _, host, domains, index, _, match, action, source in mine:
            title = "" if host == before else str(domains)
            lines.append((title, str(index), str(match), str(action), str(source).split(" ", 1)[0]))
            before = host
        table = table_text(HEADS, lines, right=frozenset({1}), columns=terminal.columns(), colours=terminal.colours())
        blocks.append(f"{bold(printable(str(name)), terminal.colours())}\n{table}")
    left = len(rows) - len(shown)
    blocks += [f"{left} more routes; --limit N shows more, -o ndjson all"] if left else []
    return "\n\n".join(blocks)
