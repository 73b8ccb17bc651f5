"""Every destination of a configuration by name, whatever its format: what the command line lists, asks and compares."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from meshsieve.balance import nsx
from meshsieve.balance.envoy import clusters_of
from meshsieve.balance.mesh import mesh_of
from meshsieve.balance.nsx_objects import Member, Pool, read_objects
from meshsieve.balance.placement import Balancer
from meshsieve.balance.rotation import Random, RoundRobin
from meshsieve.balance.tables import IpHash
from meshsieve.errors import BalanceError, PolicyError
from meshsieve.importers.sources import find_files, read_source
from meshsieve.importers.yaml_source import MAX_DIGITS, load_documents
from meshsieve.importers.yaml_source import Mapping as YamlMapping
from meshsieve.policy import Diagnostic, SourceFile


@dataclass(frozen=True)
class Destination:
    """kind: how it balances, in words of its own configuration."""

    name: str
    kind: str
    balancer: Balancer
    where: str


@dataclass(frozen=True)
class Destinations:
    by_name: dict[str, Destination]
    diagnostics: tuple[Diagnostic, ...]

    def named(self, name: str) -> Destination:
        """The destination of that name, or the only one whose name contains it.

        raises  BalanceError if none or several do
        """
        if name in self.by_name:
            return self.by_name[name]
        found = [known for known in self.by_name if name in known]
        if len(found) != 1:
            known = ", ".join((found or list(self.by_name))[:10])
            raise BalanceError(f"'{name}' names {len(found)} destinations; there are: {known}")
        return self.by_name[found[0]]


def load_destinations(paths: Iterable[str | os.PathLike[str]]) -> Destinations:
    """Read files, folders or "-": Envoy clusters, Kubernetes and Istio objects, NSX exports, mixed by file.

    raises  PolicyError with file:line:column
    """
    sources: dict[str, list[SourceFile]] = {"envoy": [], "kubernetes": [], "nsx": []}
    for path in find_files(paths):
        source = read_source(path)
        sources[_format_of(source)].append(source)
    found: list[Destination] = []
    diagnostics: list[Diagnostic] = []
    for name, cluster in clusters_of(sources["envoy"]).items():
        found.append(Destination(name, _words(cluster.cluster.policy), cluster.cluster, cluster.where))
    if sources["kubernetes"]:
        mesh = mesh_of(sources["kubernetes"])
        for backend in mesh.backends():
            diagnostics += backend.diagnostics
            if backend.cluster is not None:
                kind = _words(backend.cluster.policy)
                found.append(Destination(backend.name, kind, backend.cluster, backend.where))
        for split in mesh.splits:
            if any(split.weights):
                found.append(Destination(split.name, "split", split.balancer(), split.where))
    if sources["nsx"]:
        objects = read_objects(sources["nsx"])
        diagnostics += nsx.lint(objects)
        for pool in objects.pools.values():
            usable = nsx.usable_members(pool, nsx.LbState())
            if usable:
                found.append(Destination(pool.path, pool.algorithm, _pool_balancer(pool, usable), pool.where))
    if not found:
        raise PolicyError("there is no destination to balance", hint="name files with clusters, services or pools")
    return Destinations({d.name: d for d in found}, tuple(diagnostics))


def _pool_balancer(pool: Pool, usable: list[Member]) -> Balancer:
    weights = {f"{m.address}:{m.port}" if m.port else m.address: m.weight for m in usable}
    if pool.algorithm == "IP_HASH":
        return IpHash(weights)
    if pool.algorithm == "WEIGHTED_ROUND_ROBIN":
        return RoundRobin(weights, variant="smooth")
    if pool.algorithm == "ROUND_ROBIN":
        return RoundRobin(list(weights))
    # Least connection: whoever is idle; while all are equally busy, everybody alike.
    return Random(list(weights))


def observed_counts(lines: Iterable[str], where: str) -> Counter[str]:
    """How often each destination was seen. A line is a name, a name and a count, or a JSON object with
    ``upstream_host`` (access logs), ``cluster``, or ``dst`` and ``dport`` (flows of this tool).

    raises  PolicyError for a line that is none of these
    """
    counts: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("{"):
            counts[_observed_name(text, f"{where}:{number}")] += 1
            continue
        name, _, tail = text.rpartition("\t") if "\t" in text else text.rpartition(" ")
        if name and tail.isascii() and tail.isdigit() and len(tail) <= MAX_DIGITS:
            counts[name.strip()] += int(tail)
        else:
            counts[text] += 1
    return counts


def _observed_name(text: str, where: str) -> str:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"not JSON: {error}", where=where) from None
    if not isinstance(record, dict):
        raise PolicyError("is no object", where=where)
    for key in ("upstream_host", "cluster"):
        if isinstance(record.get(key), str):
            return str(record[key])
    if isinstance(record.get("dst"), str) and isinstance(record.get("dport"), int):
        address = f"[{record['dst']}]" if ":" in record["dst"] else record["dst"]
        return f"{address}:{record['dport']}"
    raise PolicyError("has neither upstream_host, cluster, nor dst and dport", where=where)


def _format_of(source: SourceFile) -> str:
    head = source.text[:4000]
    if head.lstrip()[:1] in ("{", "[") and '"resource_type"' in source.text:
        return "nsx"
    for document in load_documents(source.text, source.name):
        first = document[0] if isinstance(document, list) and document else document
        return "kubernetes" if isinstance(first, YamlMapping) and "kind" in first else "envoy"
    raise PolicyError("is empty", where=source.name)


def _words(policy: object) -> str:
    kind = getattr(policy, "kind", None)
    return str(kind) if kind else type(policy).__name__.removesuffix("Policy").lower()
