"""NSX facts: who may reach whom, which rules decide, which are covered, realized groups (data/policies/README.md).

How     Every pair is asked with every protocol that the source knows (TCP, UDP, ICMPv4) at the first port of every
        interval on which all rules and the fact agree, for source and destination ports alike (ICMP: types and codes),
        so that between two questions nothing can change. Outside ranges are cut in the same way. Exact, no sampling.
Readings of the source: REJECT is DROP; port 0 is not spoken of; Ethernet rules are left out; "not listed" means denied
        for pairs of machines only; a machine without an address gets an unused one, in its segment's first subnet
        where it has one.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import packets
from meshsieve.errors import MeshsieveError, PolicyError
from meshsieve.importers.nsx import NsxImporter
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.groups import Groups
from meshsieve.importers.nsx.objects import CATEGORIES
from meshsieve.model import Action, Rule
from meshsieve.policy import ImportOptions, Layer, SourceFile
from meshsieve.value_sets import parse_address_range
from tests.conformance.report import Report

PROTOCOLS = {"TCP": 6, "UDP": 17, "ICMP": 1}
SYN = 2
Numbers = set[int]
Bools = npt.NDArray[np.bool_]


def run(folder: Path) -> Report:
    report = Report()
    services = [SourceFile(p.name, p.read_text()) for p in [folder / "services.json"] if p.exists()]
    for name, check in (
        ("facts_connectivity.json", _connectivity),
        ("facts_explain.json", _explain),
        ("facts_redundant.json", _redundant),
    ):
        if (folder / name).exists():
            for number, fact in enumerate(json.loads((folder / name).read_text())):
                label = f"{name} {fact.get('config') or fact.get('test') or number}"
                try:
                    check(folder, services, fact, label, report)
                except (MeshsieveError, OSError, KeyError, ValueError) as error:
                    report.wrong(label, f"{type(error).__name__}: {error}")
    for path in sorted((folder / "configs").glob("*.json")):
        _realized_groups(path, services, report)
    return report


# A configuration that can be asked


class Judge:
    """Answers questions about one inventory dump with the compiled tables of its layer."""

    def __init__(self, config: dict[str, Any], services: list[SourceFile], name: str) -> None:
        with_addresses(config)
        source = SourceFile(name, json.dumps(config, indent=1))
        layer = NsxImporter().load([source, *services], ImportOptions()).layers[0]
        # The facts speak of the distributed firewall, not of gateways and NAT.
        self.layer: Layer = replace(layer, points=tuple(p for p in layer.points if p.name in ("out", "in")))
        self.tables = {p.name: packets.compile(p.rules) for p in self.layer.points}
        self.rules: list[Rule] = list(self.layer.points[0].rules)
        self.addresses: dict[str, list[int]] = {}
        for vnic in self.layer.inventory.vnics:
            self.addresses.setdefault(vnic.machine, []).extend(a for version, a in vnic.addresses if version == 4)

    def cuts(self, field: str, low: int, high: int, more: Iterable[int] = ()) -> list[int]:
        """The first value of every interval in low..high on which all rules agree; ``more`` cuts too."""
        found = {low, *more, *(cut for cut in self._cuts(field) if low <= cut <= high)}
        return sorted(v for v in found if low <= v <= high)

    def _cuts(self, field: str) -> Iterator[int]:
        for rule in self.rules:
            for match in (rule.match, *rule.alternatives):
                for low, high in match[field].v4 if field in match else ():
                    yield from (low, high + 1)

    def peers(self, text: str) -> list[int]:
        """Addresses to ask: those of a machine, or one outside address in each part of a range."""
        if text in self.addresses:
            return self.addresses[text]
        _, low, high = parse_address_range(text)
        owned = {a for addresses in self.addresses.values() for a in addresses}
        starts = sorted({*self.cuts("src_ip", low, high), *self.cuts("dst_ip", low, high)})
        ends = [*(start - 1 for start in starts[1:]), high]
        parts = (range(a, b + 1) for a, b in zip(starts, ends, strict=True))
        return [a for a in (next((v for v in part if v not in owned), None) for part in parts) if a is not None]

    def questions(self, proto: int, more_ports: Iterable[int] = ()) -> dict[str, npt.NDArray[Any]]:
        """One packet for each part of the protocol's space: columns but for the addresses."""
        names, top = (("icmp_type", "icmp_code"), 255) if proto == 1 else (("sport", "dport"), 65535)
        axes = [self.cuts(name, 0 if proto == 1 else 1, top, more_ports) for name in names]
        grid = np.array(list(itertools.product(*axes)), np.int64)
        columns: dict[str, npt.NDArray[Any]] = {names[0]: grid[:, 0], names[1]: grid[:, 1], "proto": np.array([proto])}
        columns |= {"ip_ver": np.array([4]), "ct_state": np.array([1]), "fragment": np.array([0])}
        return {**columns, "tcp_flags": np.array([SYN])} if proto == 6 else columns

    def judge(self, src: int, dst: int, questions: dict[str, npt.NDArray[Any]]) -> tuple[Bools, Bools]:
        """Which of the questions are allowed, and which are undecided."""
        n = max(map(len, questions.values()))
        allowed, undecided = np.ones(n, bool), np.zeros(n, bool)
        for point in self.layer.points:
            vnic = self.layer.inventory.owner(4, src if point.vnic_of == "src" else dst)
            if vnic < 0 or vnic in point.excluded:
                continue
            fixed = {"src_ip": np.array([src]), "dst_ip": np.array([dst]), "vnic": np.array([vnic])}
            direction = {name: np.array([value]) for name, value in point.constants.items()}
            result = self.tables[point.name].classify_batch({**questions, **fixed, **direction})
            undecided |= result < -1
            actions = point.rules.actions[np.maximum(result, 0)]
            allowed &= np.where(result >= 0, actions == Action.ALLOW, True)
        return allowed, undecided

    def walk(self, point_name: str, src: int, dst: int, fields: dict[str, int]) -> list[str]:
        """Names of the rules that matched on the way: jumps, then the one that decided."""
        point = next(p for p in self.layer.points if p.name == point_name)
        vnic = self.layer.inventory.owner(4, src if point.vnic_of == "src" else dst)
        if vnic < 0:
            return []  # an outside end has no enforcement point
        as_text = [str(ipaddress.IPv4Address(a)) for a in (src, dst)]
        trace = self.tables[point_name].explain(*as_text, vnic=vnic, **point.constants, **fields)
        return [test.rule.name for test in trace if test.truth == "yes"]


def with_addresses(config: dict[str, Any]) -> None:
    """Give every machine without an address an unused one."""
    interfaces = config.setdefault("virtual_network_interface", []) or []
    config["virtual_network_interface"] = interfaces
    by_machine: dict[str, list[dict[str, Any]]] = {}
    for interface in interfaces:
        by_machine.setdefault(interface["owner_vm_id"], []).append(interface)
    used = {text for i in interfaces for text in _addresses_of(i)}
    subnets = {
        (port.get("attachment") or {}).get("id"): segment["subnets"][0]["network"]
        for segment in config.get("segments") or []
        if segment.get("subnets")
        for port in segment.get("segment_ports") or []
    }
    free = _unmentioned(config)
    for machine in config.get("virtual_machines") or []:
        own = by_machine.get(machine["external_id"], [])
        if any(_addresses_of(i) for i in own):
            continue
        if not own:
            own = [{"owner_vm_id": machine["external_id"]}]
            interfaces.append(own[0])
        subnet = subnets.get(own[0].get("lport_attachment_id"))
        candidates = map(str, ipaddress.ip_network(subnet, strict=False).hosts()) if subnet else free
        address = next(a for a in candidates if a not in used)
        used.add(address)
        own[0]["ip_address_info"] = [{"ip_addresses": [address]}]


def _addresses_of(interface: dict[str, Any]) -> list[str]:
    return [text for info in interface.get("ip_address_info") or [] for text in info.get("ip_addresses") or []]


def _unmentioned(value: Any) -> Iterator[str]:
    """Addresses that no range in the configuration holds, but for ranges of half the address space or more."""
    ranges = []
    for text in _texts(value):
        try:
            version, low, high = parse_address_range(text)
        except MeshsieveError:
            continue
        if version == 4 and high - low < 2**31:
            ranges.append((low, high))
    for network in ("198.18.0.0/15", "100.64.0.0/10", "240.0.0.0/8"):
        for address in ipaddress.ip_network(network).hosts():
            if not any(low <= int(address) <= high for low, high in ranges):
                yield str(address)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


# Connectivity


@dataclass(frozen=True)
class Stated:
    """A text such as "ICMP;TCP dst-ports: 80,443-445": per protocol, the ranges of the two fields that it names."""

    text: str

    @cached_property
    def terms(self) -> list[tuple[int, list[list[tuple[int, int]]]]]:
        if self.text == "No Connections":
            return []
        text = "TCP,UDP,ICMP" if self.text == "All Connections" else self.text
        out = []
        for term in text.split(";"):
            protocols, *rest = term.replace(": ", ":").split()
            ranges: list[list[tuple[int, int]]] = [[(0, 65535)], [(0, 65535)]]
            for word in rest:
                name, separator, values = word.partition(":")
                if not separator or name not in _NAMED:
                    raise ValueError(f"cannot read the stated connection {self.text!r}")
                ranges[_NAMED[name]] = [_range(v) for v in values.split(",")]
            out += [(PROTOCOLS[p], ranges) for p in protocols.split(",")]
        return out

    @property
    def cuts(self) -> set[int]:
        """Numbers at which the statement changes."""
        return {cut for _, both in self.terms for ranges in both for low, high in ranges for cut in (low, high + 1)}

    def holds(self, proto: int, first: int, second: int) -> bool:
        return any(
            p == proto and all(any(a <= v <= b for a, b in r) for r, v in zip(both, (first, second), strict=True))
            for p, both in self.terms
        )


_NAMED = {"src-ports": 0, "dst-ports": 1, "icmp-type": 0, "icmp-code": 1, "type": 0, "code": 1}


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "configs" / (name if name.endswith(".json") else f"{name}.json")
    config: dict[str, Any] = json.loads(path.read_text())
    return config


def _connectivity(folder: Path, services: list[SourceFile], fact: dict[str, Any], label: str, report: Report) -> None:
    judge = Judge(_config(folder, fact["config"]), services, fact["config"])
    listed = {(row["src"], row["dst"]): row["permitted"] for row in fact["permitted"]}
    unlisted = [pair for pair in itertools.permutations(judge.addresses, 2) if pair not in listed]
    for src, dst in [*listed, *unlisted]:
        stated = Stated(listed.get((src, dst), "No Connections"))
        _check_pair(judge, src, dst, stated, label, report)


def _check_pair(judge: Judge, src: str, dst: str, stated: Stated, label: str, report: Report) -> None:
    ends = list(itertools.product(judge.peers(src), judge.peers(dst)))
    if not ends:
        report.skipped(label, f"{src} => {dst}: no address to ask for")
        return
    for proto in PROTOCOLS.values():
        questions = judge.questions(proto, stated.cuts)
        first, second = (questions[n] for n in (("icmp_type", "icmp_code") if proto == 1 else ("sport", "dport")))
        expected = np.array([stated.holds(proto, int(a), int(b)) for a, b in zip(first, second, strict=True)])
        for one, other in ends:
            allowed, undecided = judge.judge(one, other, questions)
            for kind, found in ((report.undecided, undecided), (report.wrong, allowed != expected)):
                if found.any():
                    i = int(np.flatnonzero(found)[0])
                    what = f"protocol {proto}, {first[i]}, {second[i]}"
                    kind(label, f"{src} => {dst} ({stated.text}): {what} is {'allowed' if allowed[i] else 'denied'}")
                    return
    report.right()


# Deciding rules


def _from_topology(fact: dict[str, Any]) -> dict[str, Any]:
    """The inventory dump that a fact describes: machines in groups, rules by category."""
    members: dict[str, list[str]] = {name: [] for name in fact.get("empty_groups", [])}
    for machine, groups in fact["topology"].items():
        for group in groups:
            members.setdefault(group, []).append(machine)
    policies = []
    for category, rules in _by_category(fact):
        for name in (name for rule in rules for name in (rule["source"], rule["dest"])):
            if name.upper() != "ANY" and not _is_address(name):
                members.setdefault(name, [])
        if rules:
            policies.append(
                {
                    "category": category,
                    "display_name": category,
                    "scope": ["ANY"],
                    "rules": [
                        {
                            "display_name": rule["name"],
                            "rule_id": number,
                            "source_groups": [rule["source"]],
                            "destination_groups": [rule["dest"]],
                            "services": rule["services"],
                            "action": rule["action"],
                            "direction": rule["direction"],
                            "scope": rule.get("scope", ["ANY"]),
                        }
                        for number, rule in enumerate(rules, 1)
                    ],
                }
            )
    groups = [
        {"path": name, "display_name": name, "vm_members": [{"id": m, "display_name": m} for m in machines]}
        for name, machines in members.items()
    ]
    return {
        "virtual_machines": [{"external_id": m, "display_name": m} for m in fact["topology"]],
        "domains": [{"display_name": "default", "resources": {"security_policies": policies, "groups": groups}}],
    }


def _by_category(fact: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The fact's rules, in the order of the walk."""
    return [(category, fact.get(f"{category.lower()}_rules") or []) for category in CATEGORIES if category]


def _is_address(text: str) -> bool:
    try:
        parse_address_range(text)
    except MeshsieveError:
        return False
    return True


def _explain(folder: Path, services: list[SourceFile], fact: dict[str, Any], label: str, report: Report) -> None:
    config = _config(folder, fact["config_file"]) if fact.get("config_file") else _from_topology(fact)
    judge = Judge(config, services, label)
    src, dst = (judge.peers(fact["query"][end])[0] for end in ("src", "dst"))
    for expected in fact["expect"]:
        connection = expected["conn"]
        proto = PROTOCOLS[connection["proto"]]
        ports = [tuple(connection.get(key, (1, 65535))) for key in ("src_ports", "dst_ports")]
        questions = judge.questions(proto, [p for low, high in ports for p in (low, high + 1)])
        names = ("icmp_type", "icmp_code") if proto == 1 else ("sport", "dport")
        grid = list(zip(*(questions[name].tolist() for name in names), strict=True))
        asked = [
            i for i, pair in enumerate(grid)
            if proto == 1 or all(low <= v <= high for v, (low, high) in zip(pair, ports, strict=True))
        ]  # fmt: skip
        allowed, undecided = judge.judge(src, dst, questions)
        problem = ""
        for i in asked:
            fixed = {name: int(column[0]) for name, column in questions.items() if len(column) == 1}
            fields = {**fixed, **dict(zip(names, grid[i], strict=True))}
            got = {
                "allowed": bool(allowed[i]),
                "egress_rules": judge.walk("out", src, dst, fields),
                "ingress_rules": judge.walk("in", src, dst, fields),
            }
            for key, value in got.items():
                if key in expected and value != expected[key] and not problem:
                    problem = f"{connection} at {grid[i]}: {key} is {value}, expected {expected[key]}"
        if undecided[asked].any():
            report.undecided(label, f"{connection}")
        elif problem or not asked:
            report.wrong(label, problem or f"{connection} asks for nothing")
        else:
            report.right()


# Covered rules


def _redundant(folder: Path, services: list[SourceFile], fact: dict[str, Any], label: str, report: Report) -> None:
    judge = Judge(_from_topology(fact), services, label)
    matches = _matches(judge)
    found = []
    start = 0
    for category, rules in _by_category(fact):
        for i, rule in enumerate(rules):
            covered_by: set[int] = set()
            directions = ("OUT", "IN") if rule["direction"] == "IN_OUT" else (rule["direction"],)
            covered = True
            for direction in directions:
                own = matches[direction][start + i]
                earlier = matches[direction][start : start + i]
                covered &= bool(own.any()) and not bool((own & ~earlier.any(axis=0)).any())
                covered_by |= {j + 1 for j, other in enumerate(earlier) if (other & own).any()}
            if covered:
                found.append(
                    {
                        "redundant_rule": i + 1,
                        "category": category,
                        "direction": rule["direction"],
                        "covered_by": sorted(covered_by),
                    }
                )
        start += len(rules)
    expected = [{**row, "covered_by": sorted(row["covered_by"])} for row in fact["expect_redundant"]]
    report.check(label, "the list of covered rules", found, expected)


def _matches(judge: Judge) -> dict[str, Bools]:
    """bool (rules, packets) for each direction: which rule by itself matches which packet at its point."""
    alone = [packets.compile([Rule(rule.match, Action.ALLOW, rule.alternatives)]) for rule in judge.rules]
    everyone = sorted({*judge.peers("0.0.0.0-255.255.255.255"), *(a for own in judge.addresses.values() for a in own)})
    columns: dict[str, list[Bools]] = {"OUT": [], "IN": []}
    for point in judge.layer.points:
        for src, dst in itertools.permutations(everyone, 2):
            vnic = judge.layer.inventory.owner(4, src if point.vnic_of == "src" else dst)
            if vnic < 0:
                continue
            fixed = {"src_ip": [src], "dst_ip": [dst], "vnic": [vnic], **{k: [v] for k, v in point.constants.items()}}
            for proto in PROTOCOLS.values():
                headers = {**judge.questions(proto), **{k: np.array(v) for k, v in fixed.items()}}
                columns[point.name.upper()].append(np.array([clf.classify_batch(headers) == 0 for clf in alone]))
    return {direction: np.concatenate(parts, axis=1) for direction, parts in columns.items()}


# Groups


def _realized_groups(path: Path, services: list[SourceFile], report: Report) -> None:
    """The whole file loads, and each group that has an expression and realized members recomputes to them."""
    source = SourceFile(path.name, path.read_text())
    try:
        NsxImporter().load([source, *services], ImportOptions())
        groups = Groups(Catalogue.of([source], ImportOptions()), recompute=True)
        for name, group in groups.catalogue.groups.items():
            if group.expression and group.realized:
                groups.members(name)
                drift = [d.message for d in groups.diagnostics if d.obj == group.label and d.code == "group-drift"]
                report.check(path.name, f"drift of group {name}", drift, [])
    except PolicyError as error:
        report.wrong(path.name, str(error))
