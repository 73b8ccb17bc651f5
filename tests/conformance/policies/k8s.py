"""Kubernetes facts: connection lists, diffs, recipes, queries (data/policies/README.md is the format).

Every pair of workloads is asked, listed or not, and every protocol at both sides of every port boundary that any rule
or fact draws, so that between two questions nothing can change. Outside ranges are asked at their ends. Readings of the
source: hostNetwork pods are pods like any other; a workload to itself, port 0 and ICMP are not spoken of.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from meshsieve import _core, _fast
from meshsieve.columns import PacketColumns
from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import NAME_LABEL, Cluster, Pod, read_cluster
from meshsieve.importers.kubernetes.importer import build
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, Layer, SourceFile
from tests.conformance.report import Report

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
OPTIONS = ImportOptions(host_network_pods="pod", allow_local_node=False, strict=False)
Question = tuple[int, int, int, int]  # source address, destination address, protocol, destination port (IPv4)


def run(folder: Path) -> Report:
    report = Report()
    for name, check in (
        ("facts_netpol_analyzer.json", _connections),
        ("facts_diff.json", _diffs),
        ("facts_recipes.json", _recipes),
        ("facts_cyclonus_query.json", _queries),
    ):
        if (folder / name).exists():
            check(folder, json.loads((folder / name).read_text()), report)
    return report


class Judge:
    """Answers questions about one cluster with the compiled tables of its layer."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster.with_addresses()
        self.layer: Layer = build(self.cluster, OPTIONS).layers[0]
        self._lookups = [_fast.Lookup(_core.compile(p.rules.native).capsule) for p in self.layer.points]

    def allowed(self, questions: list[Question]) -> list[bool]:
        src, dst, proto, port = np.array(questions, np.int64).reshape(-1, 4).T
        packets = PacketColumns({"src_ip": src, "dst_ip": dst, "proto": proto, "dport": port, "sport": [40000]})
        passed = np.ones(len(questions), bool)
        for point, lookup in zip(self.layer.points, self._lookups, strict=True):
            owners = self.layer.inventory.owners(packets, f"{point.vnic_of}_ip")
            here = np.flatnonzero(owners >= 0)
            if not len(here):
                continue
            columns = packets.take(here).with_fields({**point.constants, "vnic": owners[here]})
            out = np.empty(len(here), np.int32)
            lookup.batch(columns.pairs(), columns.present, out)
            actions = point.rules.actions
            passed[here] &= [r == -1 or (r >= 0 and actions[r] != Action.DROP) for r in out.tolist()]
        return passed.tolist()

    def boundaries(self) -> set[int]:
        """The first port of every interval of ports on which all rules agree."""
        cuts = {1}
        for point in self.layer.points:
            for rule in point.rules:
                for match in (rule.match, *rule.alternatives):
                    for low, high in match["dport"].v4 if "dport" in match else ():
                        cuts |= {low, high + 1}
        return {cut for cut in cuts if 1 <= cut <= 65535}

    def address_of(self, name: str) -> list[int]:
        """Addresses to ask for a peer: all pods of a workload, or the ends of an outside range."""
        if name.endswith("[External]"):
            low, high = (int(ipaddress.IPv4Address(p)) for p in name.removesuffix("[External]").split("-"))
            inside = {value for pod in self.cluster.pods for _, value in pod.addresses}
            ends = [next(a for a in candidates if a not in inside) for candidates in _from_both_ends(low, high)]
            return sorted(set(ends))
        return [v for pod in self.cluster.pods if pod.owner == name for version, v in pod.addresses if version == 4]

    def workloads(self) -> list[str]:
        return sorted({pod.owner for pod in self.cluster.pods})


def _from_both_ends(low: int, high: int) -> tuple[range, range]:
    return range(low, high + 1), range(high, low - 1, -1)


def _ports(text: str) -> dict[str, list[tuple[int, int]]]:
    """'TCP 80,443-445,UDP 53' -> {'TCP': [(80, 80), (443, 445)], 'UDP': [(53, 53)]}"""
    if text == "All Connections":
        return {name: [(1, 65535)] for name in PROTOCOLS}
    out: dict[str, list[tuple[int, int]]] = {}
    if text == "No Connections":
        return out
    protocol = ""
    for word in re.split(r"[ ,]+", text):
        if word in PROTOCOLS:
            protocol = word
        else:
            low, _, high = word.partition("-")
            out.setdefault(protocol, []).append((int(low), int(high or low)))
    return out


@dataclass
class Connections:
    """Whether each pair may talk, at every port that can make a difference."""

    judge: Judge
    cuts: list[int]

    def mistakes(self, src: str, dst: str, text: str) -> Iterator[str]:
        expected = _ports(text)
        questions, wanted, shown = [], [], []
        for protocol, number in PROTOCOLS.items():
            for port in self.cuts:
                for s in self.judge.address_of(src):
                    for d in self.judge.address_of(dst):
                        questions.append((s, d, number, port))
                        wanted.append(any(low <= port <= high for low, high in expected.get(protocol, ())))
                        shown.append(f"{protocol} {port}")
        if not questions:
            yield "no such workload"
            return
        for got, want, what in zip(self.judge.allowed(questions), wanted, shown, strict=True):
            if got != want:
                yield f"{what} is {'allowed' if got else 'denied'}"


def _cuts(judges: Iterable[Judge], texts: Iterable[str]) -> list[int]:
    cuts = set().union(*(judge.boundaries() for judge in judges)) | {65535}
    for text in texts:
        for spans in _ports(text).values():
            cuts |= {edge for low, high in spans for edge in (low, high + 1)}
    return sorted(cut for cut in cuts if 1 <= cut <= 65535)


def _load(folder: Path) -> Cluster:
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".yml", ".json"))
    return read_cluster(SourceFile(str(p.relative_to(folder)), p.read_text()) for p in files)


def _check_pair(connections: Connections, src: str, dst: str, text: str, file: str, report: Report) -> None:
    mistake = next(connections.mistakes(src, dst, text), None)
    if mistake is None:
        report.right()
    else:
        report.wrong(file, f"{src} => {dst} ({text}): {mistake}")


def _connections(folder: Path, facts: Any, report: Report) -> None:
    for fact in facts:
        try:
            judge = Judge(_load(folder / "netpol-analyzer" / fact["test"]))
        except (PolicyError, OSError) as error:
            report.wrong(fact["test"], str(error))
            continue
        listed = {(row["src"], row["dst"]): row["conn"] for row in fact["allowed"]}
        connections = Connections(judge, _cuts([judge], listed.values()))
        names = judge.workloads()
        silent = {(a, b): "No Connections" for a in names for b in names if a != b and (a, b) not in listed}
        for (src, dst), text in {**listed, **silent}.items():
            _check_pair(connections, src, dst, text, fact["test"], report)


def _diffs(folder: Path, facts: Any, report: Report) -> None:
    for fact in facts:
        name = f"{fact['old']} -> {fact['new']}"
        try:
            old, new = (Judge(_load(folder / "netpol-diff" / fact[side])) for side in ("old", "new"))
        except (PolicyError, OSError) as error:
            report.wrong(name, str(error))
            continue
        texts = [row[side] for row in fact["diff"] for side in ("ref1", "ref2")]
        cuts = _cuts([old, new], texts)
        for row in fact["diff"]:
            for judge, side in ((old, "ref1"), (new, "ref2")):
                exists = all(judge.address_of(row[end]) for end in ("source", "destination"))
                if not exists and row[side] == "No Connections":
                    report.right()
                else:
                    connections = Connections(judge, cuts)
                    _check_pair(connections, row["source"], row["destination"], row[side], f"{name} {side}", report)


def _stub(namespace: str, name: str, labels: dict[str, str], address: int | None) -> Pod:
    addresses = () if address is None else ((4, address),)
    return Pod(namespace, name, labels, addresses, (), False, (), f"{namespace}/{name}[Pod]", "")


def _recipes(folder: Path, facts: Any, report: Report) -> None:
    for fact in facts["facts"]:
        file = folder / "recipes" / f"{fact['recipe']}.yaml"
        try:
            cluster = read_cluster([SourceFile(file.name, file.read_text())])
        except (PolicyError, OSError) as error:
            report.wrong(fact["recipe"], str(error))
            continue
        for name, labels in fact.get("namespaces", {}).items():
            cluster.namespaces[name] = {**labels, NAME_LABEL: name}
        for pod in fact["pods"]:
            cluster.namespaces.setdefault(pod["ns"], {NAME_LABEL: pod["ns"]})
            cluster.pods.append(_stub(pod["ns"], pod["name"], pod["labels"], None))
        judge = Judge(cluster)

        def address(name: str, judge: Judge = judge) -> int:
            if name.startswith("ip:"):
                return int(ipaddress.IPv4Address(name[3:]))
            return next(p.addresses[0][1] for p in judge.cluster.pods if p.name == name)

        for check in fact["checks"]:
            question = (address(check["src"]), address(check["dst"]), PROTOCOLS[check["proto"]], check["port"])
            report.check(fact["recipe"], str(check), judge.allowed([question])[0], check["allow"])


def _queries(folder: Path, facts: Any, report: Report) -> None:
    pattern = re.search(r"cyclonus/(\S+)", facts["policies"])
    files = sorted((folder / "cyclonus").glob(pattern.group(1) if pattern else "*.yaml"))
    base = read_cluster(SourceFile(p.name, p.read_text()) for p in files)
    for number, query in enumerate(facts["queries"], 1):
        cluster = replace(base, namespaces=dict(base.namespaces), pods=[])
        traffic = query["traffic"]
        ends = []
        for side in ("Source", "Destination"):
            end = traffic[side]
            ends.append(int(ipaddress.IPv4Address(end["IP"])))
            if inside := end.get("Internal"):
                namespace = inside["Namespace"]
                cluster.namespaces[namespace] = {**inside["NamespaceLabels"], NAME_LABEL: namespace}
                pod = _stub(namespace, side, inside["PodLabels"], ends[-1])
                cluster.pods.append(pod)
        question = (ends[0], ends[1], PROTOCOLS[traffic["Protocol"]], traffic["ResolvedPort"])
        report.check("cyclonus", f"query {number}", Judge(cluster).allowed([question])[0], query["allowed"])
