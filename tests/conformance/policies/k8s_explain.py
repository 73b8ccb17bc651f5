"""Explain texts of netpol-analyzer: which policies and rules decide, per pair, set of ports and direction.

The deciders of a direction are the Admin rule that passed the connection on (if one did), and then: the one Admin or
Baseline rule that decided; or, of NetworkPolicy, every rule that allows, else every policy that isolates the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshsieve.columns import PacketColumns
from meshsieve.inventory import NO_VNIC
from meshsieve.model import Action, Match, Rule
from meshsieve.policy import Point
from tests.conformance.policies.k8s_judge import PROTOCOLS, Judge
from tests.conformance.report import Report

POINTS = {"Egress": 0, "Ingress": 1}
_PAIR = re.compile(r"Connections between (.+) => (.+):")
_PORTS = re.compile(r"\s+(?:Allowed|Denied) (.+) due to (the system default|the following)")
_DIRECTION = re.compile(r"\s+(Egress|Ingress) \((?:Allowed|Denied)\)")
_ADMIN = re.compile(r"\s+(\w+) '(.+)' (?:allows|denies|passes) connections by (?:Egress|Ingress) rule (.+)")
_ISOLATES = re.compile(r"\s+NetworkPolicy '(.+?)' selects .+, (?:but|and) ")


@dataclass(frozen=True)
class Statement:
    """One direction of one set of connections, and the names of the rules that decide it."""

    src: str
    dst: str
    ports: dict[str, list[tuple[int, int]]]
    direction: str
    deciders: frozenset[str]


def read_statements(text: str) -> Iterator[Statement]:
    src = dst = ""
    ports: dict[str, list[tuple[int, int]]] = {}
    open_statements: dict[str, set[str]] = {}

    def close() -> Iterator[Statement]:
        for direction, names in open_statements.items():
            yield Statement(src, dst, ports, direction, frozenset(names))
        open_statements.clear()

    direction = ""
    for line in text.splitlines():
        if pair := _PAIR.match(line):
            yield from close()
            src, dst = pair.groups()
        elif found := _PORTS.match(line):
            yield from close()
            ports = _read_ports(found.group(1))
            if found.group(2) == "the system default":
                open_statements.update({"Egress": set(), "Ingress": set()})
        elif found := _DIRECTION.match(line):
            direction = found.group(1)
            open_statements[direction] = set()
        elif line.startswith("#"):
            yield from close()
        elif found := _ADMIN.match(line):
            open_statements[direction].add(_rule_name(*found.groups(), direction))
        elif found := _ISOLATES.match(line):
            open_statements[direction].add(f"{found.group(1)} isolates")
    yield from close()


def _rule_name(kind: str, policy: str, rule: str, direction: str) -> str:
    if kind == "NetworkPolicy":
        return f"{policy} {direction.lower()} {rule}"
    return f"{kind} {policy} {rule}"


def _read_ports(text: str) -> dict[str, list[tuple[int, int]]]:
    """'TCP, UDP:[1-52,54]' -> ranges by protocol"""
    out: dict[str, list[tuple[int, int]]] = {}
    for protocol, ranges in re.findall(r"(TCP|UDP|SCTP)(?::\[([0-9,-]+)\])?", text):
        spans = [span.partition("-") for span in (ranges or "1-65535").split(",")]
        out[protocol] = [(int(low), int(high or low)) for low, _, high in spans]
    return out


def deciders(judge: Judge, point: Point, question: tuple[int, int, int, int]) -> frozenset[str]:
    """Names of the rules that decide a connection at a point; none where the system default does."""
    src, dst, proto, port = question
    packet = PacketColumns({"src_ip": [src], "dst_ip": [dst]})
    vnic = int(judge.layer.inventory.owners(packet, f"{point.vnic_of}_ip")[0])
    if vnic == NO_VNIC:
        return frozenset()
    values = {"src_ip": src, "dst_ip": dst, "proto": proto, "dport": port, "vnic": vnic}
    names: set[str] = set()
    start = 0
    kind = ""
    for index, rule in enumerate(point.rules):
        if index < start or not _matches(rule, values):
            continue
        this = _kind(rule)
        if kind and this != kind:
            break
        names.add(rule.name)
        if rule.action == Action.SKIP:
            start = rule.skip_to
        elif this == "admin":
            break
        else:
            kind = this
    return frozenset(names)


def _kind(rule: Rule) -> str:
    if "NetworkPolicy " in rule.name:
        return "admin"
    return "isolates" if rule.name.endswith(" isolates") else "allows"


def _matches(rule: Rule, values: dict[str, int]) -> bool:
    def holds(match: Match) -> bool:
        return all(allowed.contains(values[name]) for name, allowed in match.items())

    return holds(rule.match) and (not rule.alternatives or any(holds(a) for a in rule.alternatives))


def check(file: Path, judge: Judge, cuts: list[int], report: Report) -> None:
    for statement in read_statements(file.read_text()):
        point = judge.layer.points[POINTS[statement.direction]]
        what = f"{statement.src} => {statement.dst} {statement.direction}"
        asked = [
            (s, d, number, port)
            for protocol, number in PROTOCOLS.items()
            for port in cuts
            if any(low <= port <= high for low, high in statement.ports.get(protocol, ()))
            for s in judge.address_of(statement.src)
            for d in judge.address_of(statement.dst)
        ]
        found = {deciders(judge, point, question) for question in asked}
        if found == {statement.deciders}:
            report.right()
        else:
            shown = "; ".join(sorted(", ".join(sorted(names)) or "none" for names in found))
            report.wrong(file.name, f"{what}: decided by {shown}, expected {sorted(statement.deciders) or 'none'}")
