"""Say which host, subset or cluster gets a key, what a change of configuration moves, and whether traffic splits as
declared. Configuration: Envoy clusters, Kubernetes and Istio objects, NSX load balancers."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from meshsieve.reports.escape import printable

EXAMPLES = """\
examples:
  meshsieve balance -p clusters.yaml                                  every destination and its shares
  meshsieve balance -p clusters.yaml --to cart user-1 user-2          the host of each key
  meshsieve balance -p clusters.yaml --down 10.0.0.3:80               what moves when a host goes down
  meshsieve balance --diff old.yaml new.yaml --keys users.txt         what moves, and which of the keys
  meshsieve balance -p mesh/ --to 'VirtualService shop/web http[0]' --observed access.ndjson

Exit status: 0; 1 if --diff finds something that moves, or --observed a split that is not as declared; 2 on errors.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-p", "--policy", nargs="+", metavar="CONFIG", help="configuration files or folders, - for stdin"
    )
    parser.add_argument("--diff", nargs=2, metavar=("OLD", "NEW"), help="compare two configurations")
    parser.add_argument("--down", metavar="HOST", help="what moves when this host turns unhealthy")
    parser.add_argument("--to", metavar="NAME", help="one destination, by its name or a part of it")
    parser.add_argument("--keys", metavar="FILE", help="keys, one a line, - for stdin")
    parser.add_argument("--observed", metavar="FILE", help="what was seen: names, 'name count' lines, or NDJSON")
    parser.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of --observed (default 0.95)")
    parser.add_argument("-o", "--output", choices=("table", "json", "ndjson"), default="table")
    parser.add_argument("key", nargs="*", help="keys to place: the values that are hashed")


def run(options: argparse.Namespace) -> int:
    if bool(options.policy) == bool(options.diff):
        print("meshsieve: error: give either -p CONFIG or --diff OLD NEW", file=sys.stderr)
        return 2
    keys = [*options.key, *(_lines(options.keys) if options.keys else [])]
    if options.diff:
        return _diff(options, keys)
    from meshsieve.balance.destinations import load_destinations

    destinations = load_destinations(options.policy)
    for finding in destinations.diagnostics:
        print(printable(str(finding)), file=sys.stderr)
    chosen = [destinations.named(options.to)] if options.to else list(destinations.by_name.values())
    if options.observed:
        return _observed(options, chosen)
    if options.down:
        return _down(options, chosen)
    if keys:
        _write(options.output, _picks(chosen, keys), ("destination", "key", "host"))
    else:
        _write(options.output, _shares(chosen), ("destination", "kind", "host", "share", "where"))
    return 0


def _shares(chosen: Iterable[Any]) -> Iterable[dict[str, Any]]:
    from meshsieve.balance.placement import shares_by_name

    for destination in chosen:
        for host, share in shares_by_name(destination.balancer).items():
            yield {
                "destination": destination.name,
                "kind": destination.kind,
                "host": host,
                "share": float(share),
                "where": destination.where,
            }


def _picks(chosen: Sequence[Any], keys: Sequence[str]) -> Iterable[dict[str, Any]]:
    from meshsieve.balance.cluster import ChancePolicy, Cluster
    from meshsieve.balance.placement import NOBODY, placement_of
    from meshsieve.errors import BalanceError

    for destination in chosen:
        balancer = destination.balancer
        if isinstance(balancer, Cluster) and isinstance(balancer.policy, ChancePolicy):
            raise BalanceError(f"{destination.name} balances by {destination.kind}, which looks at no key")
        names = placement_of(balancer).names
        for key, host in zip(keys, balancer.pick_keys(keys), strict=True):
            yield {"destination": destination.name, "key": key, "host": names[host] if host >= 0 else NOBODY}


def _diff(options: argparse.Namespace, keys: Sequence[str]) -> int:
    from meshsieve.balance.destinations import load_destinations
    from meshsieve.balance.placement import moved_keys, placement_diff
    from meshsieve.balance.tables import HashBalancer

    old, new = (load_destinations([path]) for path in options.diff)
    names = [old.named(options.to).name] if options.to else list(dict.fromkeys([*old.by_name, *new.by_name]))
    rows: list[dict[str, Any]] = []
    for name in names:
        before, after = old.by_name.get(name), new.by_name.get(name)
        if before is None or after is None:
            rows.append({"destination": name, "change": "added" if before is None else "removed"})
            continue
        movement = placement_diff(before.balancer, after.balancer)
        if not movement.share:
            continue
        row: dict[str, Any] = {"destination": name, "change": "moved", **movement.to_dict()}
        if keys and movement.kind == "exact" and isinstance(before.balancer, HashBalancer):
            assert isinstance(after.balancer, HashBalancer)
            moved = moved_keys(before.balancer, after.balancer, keys)
            row["keys"] = [{"key": key, "from": a, "to": b} for key, a, b in moved]
        rows.append(row)
    if options.output == "table":
        _print_movements(rows, len(keys))
    else:
        _write(options.output, rows, ())
    return 1 if rows else 0


def _down(options: argparse.Namespace, chosen: Sequence[Any]) -> int:
    from meshsieve.balance.cluster import Cluster
    from meshsieve.balance.placement import host_down
    from meshsieve.errors import BalanceError

    rows = []
    for destination in chosen:
        cluster = destination.balancer
        if isinstance(cluster, Cluster) and any(host.name == options.down for host in cluster.hosts):
            movement = host_down(cluster, options.down)
            rows.append({"destination": destination.name, "change": "moved", **movement.to_dict()})
    if not rows:
        raise BalanceError(f"no destination has a host called {options.down}")
    if options.output == "table":
        _print_movements(rows, 0)
    else:
        _write(options.output, rows, ())
    return 0


def _print_movements(rows: Sequence[dict[str, Any]], n_keys: int) -> None:
    if not rows:
        print("nothing moves")
    for row in rows:
        print(printable(row["destination"]))
        if row["change"] != "moved":
            print(f"  {row['change']}")
            continue
        must = f"at least {row['minimum']:.4%} must"
        if row["kind"] == "exact":
            print(f"  {row['share']:.4%} of the key space moves ({must}; error below {row['error']:.0e})")
        else:
            print(f"  {must} go elsewhere; this balancer keeps no keys")
        for flow in row["flows"][:20]:
            print(f"  {flow['share']:>10.4%}  {printable(flow['from'])} -> {printable(flow['to'])}")
        if len(row["flows"]) > 20:
            print(f"  ... and {len(row['flows']) - 20} more pairs (-o json shows all)")
        if "keys" in row:
            print(f"  {len(row['keys'])} of {n_keys} keys move")
            for entry in row["keys"]:
                print(f"  {printable(str(entry['key']))}: {printable(entry['from'])} -> {printable(entry['to'])}")


def _observed(options: argparse.Namespace, chosen: Sequence[Any]) -> int:
    from meshsieve.balance.destinations import observed_counts
    from meshsieve.balance.observed import split_check
    from meshsieve.balance.placement import shares_by_name

    if len(chosen) != 1:
        print(
            f"meshsieve: error: --observed needs one destination, not {len(chosen)}; name it with --to", file=sys.stderr
        )
        return 2
    counts = observed_counts(_lines(options.observed), options.observed)
    declared = {name: float(share) for name, share in shares_by_name(chosen[0].balancer).items()}
    check = split_check(declared, counts, confidence=options.confidence)
    if options.output == "table":
        rows = [{**row, "outside": "" if row["consistent"] else "outside"} for row in check.to_dict()["shares"]]
        _write("table", rows, ("name", "declared", "count", "observed", "low", "high", "outside"))
        p = "" if check.p_value is None else f", p {check.p_value:.3g}"
        verdict = "as declared" if check.consistent else "NOT as declared"
        print(f"{check.total} seen: {verdict} (confidence {check.confidence:g}{p})")
    else:
        _write(options.output, [{"destination": chosen[0].name, **check.to_dict()}], ())
    return 0 if check.consistent else 1


def _lines(path: str) -> list[str]:
    from meshsieve.importers.sources import read_source

    return read_source(None if path == "-" else path).text.splitlines()


def _write(output: str, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    if output == "json":
        json.dump(list(rows), sys.stdout, indent=2)
        print()
    elif output == "ndjson":
        for row in rows:
            print(json.dumps(row))
    else:
        lines = [list(columns), *([_cell(row[name]) for name in columns] for row in rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        for line in lines:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))
