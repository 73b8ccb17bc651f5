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

from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import NAME_LABEL, Cluster, Pod, read_cluster
from meshsieve.policy import SourceFile
from tests.conformance.policies import k8s_explain
from tests.conformance.policies.k8s_judge import PROTOCOLS, Judge
from tests.conformance.report import Report


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
        if "explain_file" in fact:
            k8s_explain.check(folder / fact["explain_file"], judge, connections.cuts, report)


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
