"""iptables facts: every dump loads, and its walk agrees with what a verified tool printed for it.

``NAME.golden.txt``      sections ``unfolded FORWARD chain``: a first-match list whose upper and lower verdicts equal
                         ours for every packet, state and flag set; ``(upper closure)``: one that equals our upper.
``simplified/NAME.upper``, ``NAME.lower``   what is accepted at most and at least, for packets of new connections whose
                         source fits the incoming interface (``simplified/interfaces.json``).

Lists are compared on packets drawn for each of their rules: inside the rule's sets, at their ends, the rest at the ends
of any set that either side has.
"""

from __future__ import annotations

import ipaddress
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meshsieve import packets
from meshsieve.errors import MeshsieveError
from meshsieve.importers import load_policy
from meshsieve.importers.conditions import PORT_PROTOCOLS
from meshsieve.model import FIELD_INDEX, Action, NameCodes, Rule, RuleSet, ValueSet
from meshsieve.policy import ImportOptions, Point
from tests.conformance.policies import _flat_lists
from tests.conformance.report import Report

Packet = dict[str, int]
_PER_RULE = 60
_AT_LEAST = 20_000
_FIELDS = (
    "src_ip",
    "dst_ip",
    "proto",
    "sport",
    "dport",
    "tcp_flags",
    "icmp_type",
    "icmp_code",
    "ct_state",
    "iif",
    "oif",
)
_SYN, _NOT_IN_NEW = 2, 1 | 4 | 16
_NEW = 1


def run(folder: Path) -> Report:
    report = Report()
    for path in sorted(folder.glob("*.rules")):
        _loads(path, report)
    for path in sorted(folder.glob("*.golden.txt")):
        _golden(path, report)
    simplified = folder / "simplified"
    if simplified.is_dir():
        owners = simplified / "interfaces.json"
        assumptions = json.loads(owners.read_text()) if owners.exists() else {}
        for path in sorted([*simplified.glob("*.upper"), *simplified.glob("*.lower")]):
            _simplified(path, assumptions, report)
    return report


def _loads(path: Path, report: Report) -> None:
    """Strict where that can be; else what stays undecided is named."""
    try:
        load_policy([path])
    except MeshsieveError:
        try:
            result = load_policy([path], ImportOptions(strict=False))
        except MeshsieveError as error:
            report.wrong(path.name, str(error))
            return
        report.note(f"{path.name}: undecided: {'; '.join(d.message for d in result.unsupported)}")
    report.right()


def _golden(path: Path, report: Report) -> None:
    dump = path.with_name(path.name.replace(".golden.txt", ".rules"))
    if not dump.exists():
        report.skipped(path.name, f"{dump.name} is not beside it")
        return
    sections = _sections(path.read_text())
    for title, bounds in (
        ("unfolded FORWARD chain", ("upper", "lower")),
        ("unfolded FORWARD chain (upper closure)", ("upper",)),
    ):
        if title not in sections:
            report.skipped(path.name, f"has no section '{title}'")
            continue
        for bound in bounds:
            comparison = _Comparison(dump, "FORWARD", bound, sections[title])
            some = comparison.packets(lambda p: p)
            ours, theirs = comparison.ours(some), comparison.theirs(some)
            comparison.judge(f"{path.name}: {title}, {bound}", some, ours, ours == theirs, report)


def _sections(text: str) -> dict[str, list[str]]:
    parts = re.split(r"^== (.*) ==$", text, flags=re.MULTILINE)
    return {title: body.strip().split("\n") for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def _simplified(path: Path, assumptions: dict[str, Any], report: Report) -> None:
    stem, bound = path.stem, path.suffix[1:]
    dumps = {p.stem: p for p in path.parent.parent.glob("*.rules")}
    name = max((s for s in dumps if stem == s or stem.startswith(s + ".")), key=len, default=None)
    if name is None:
        report.skipped(path.name, "no dump of this name")
        return
    chain = stem[len(name) + 1 :] or "FORWARD"
    owned = assumptions.get(stem, assumptions.get(name, assumptions.get(dumps[name].name, {})))
    try:
        comparison = _Comparison(dumps[name], chain, bound, path.read_text().split("\n"), extra_names=owned)
    except (ValueError, MeshsieveError) as error:
        report.wrong(path.name, str(error))
        return
    owners = _Owners(owned, comparison.codes)
    some = comparison.packets(lambda p: owners.fit(_new(p), comparison.random))
    ours, theirs = comparison.ours(some), comparison.theirs(some)
    claimed = theirs == (1 if bound == "lower" else 0)
    comparison.judge(path.name, some, ours, ~claimed | (ours == theirs), report)


def _new(packet: Packet) -> Packet:
    """The packet as the first of a connection, whole."""
    packet["ct_state"], packet["fragment"] = _NEW, 0
    if packet["proto"] == 6:
        packet["tcp_flags"] = (packet["tcp_flags"] | _SYN) & ~_NOT_IN_NEW
    return packet


class _Owners:
    """Which source addresses each interface may bring. Several names may share a code: no rule tells them apart."""

    def __init__(self, owned: dict[str, Any], codes: NameCodes) -> None:
        self.listed: dict[int, list[ValueSet]] = {}
        for name, value in owned.items():
            ranges = ValueSet.addresses(value["all_but"] if isinstance(value, dict) else value)
            brought = ranges.complement("src_ip") if isinstance(value, dict) else ranges
            self.listed.setdefault(codes.code(name), []).append(brought)
        self.unowned = ValueSet().union(*(v for sets in self.listed.values() for v in sets)).complement("src_ip")
        self.named_by_rules = {codes.code(name) for name in codes.cuts}

    def fit(self, packet: Packet, draw: random.Random) -> Packet | None:
        code = packet["iif"]
        choices = list(self.listed.get(code, ()))
        if not choices or code not in self.named_by_rules:
            choices.append(self.unowned)
        allowed = draw.choice(choices)
        if not allowed.v4:
            return None
        if not allowed.contains(packet["src_ip"]):
            low, high = draw.choice(allowed.v4)
            packet["src_ip"] = draw.choice([low, high, draw.randint(low, high)])
        return packet


class _Comparison:
    """One list beside one bound of one dump."""

    def __init__(
        self, dump: Path, chain: str, bound: str, lines: Sequence[str], extra_names: Iterable[str] = ()
    ) -> None:
        options = ImportOptions(strict=False, mode="upper" if bound == "upper" else "lower", chain=chain)
        self.point: Point = load_policy([dump], options, format="iptables").layers[0].points[0]
        self.codes = self.point.rules.names["iif"]
        self.list = _flat_lists.parse(lines, _with_names(self.codes, lines))
        self.rules = RuleSet(_flat_lists.rules(self.list, bound))
        self.random = random.Random(f"{dump.name} {bound}")
        self.names = [self.codes.code(n) for n in ("", "zz9", *extra_names)]
        self.edges = _edges([*self.point.rules, *(r for r in self.rules)])

    def ours(self, some: Sequence[Packet]) -> np.ndarray[Any, Any]:
        """1 accepted, 0 denied, -1 undecided"""
        return _accepted(self.point.rules, some, int(self.point.default == 0))

    def theirs(self, some: Sequence[Packet]) -> np.ndarray[Any, Any]:
        """1 accepted, 0 denied, 2 the list says nothing"""
        return _accepted(self.rules, some, 2)

    def packets(self, adapt: Callable[[Packet], Packet | None]) -> list[Packet]:
        sources = [*self.rules, *self.point.rules]
        rounds = max(_PER_RULE, _AT_LEAST // len(sources) + 1)
        drawn = (adapt(self.packet(rule)) for rule in sources for _ in range(rounds))
        return [p for p in drawn if p is not None]

    def packet(self, rule: Rule) -> Packet:
        """A packet that mostly fits one rule."""
        match = {**rule.match, **(self.random.choice(rule.alternatives) if rule.alternatives else {})}
        packet: Packet = {"fragment": 0}
        for name in _FIELDS:
            values = match.get(name)
            if values is not None and values.v4 and self.random.random() < 0.93:
                low, high = self.random.choice(values.v4)
                packet[name] = self.random.choice([low, high, self.random.randint(low, high)])
            else:
                packet[name] = self.random.choice(self.edges[name]) if name in self.edges else self.any_of(name)
        return packet

    def any_of(self, name: str) -> int:
        if name == "proto":
            return self.random.choice([1, 6, 17, 47, 50, 58, 132, 255])
        if name == "ct_state":
            return self.random.randrange(6)
        if name in ("iif", "oif"):
            return self.random.choice(self.names)
        return self.random.getrandbits(8)

    def judge(
        self, what: str, some: Sequence[Packet], ours: np.ndarray[Any, Any], good: np.ndarray[Any, Any], report: Report
    ) -> None:
        bad = np.flatnonzero(~good)
        if not len(bad):
            report.right()
            return
        p = some[int(bad[0])]
        shown = {
            **p,
            "src_ip": str(ipaddress.IPv4Address(p["src_ip"])),
            "dst_ip": str(ipaddress.IPv4Address(p["dst_ip"])),
        }
        outcome = report.undecided if ours[bad[0]] == -1 else report.wrong
        outcome(what, f"{len(bad)} of {len(some)} packets differ; we say {ours[bad[0]]} (1 is accepted) for {shown}")


def _with_names(codes: NameCodes, lines: Sequence[str]) -> NameCodes:
    """The dump's codes, if they tell apart every interface of the list too."""
    for name in _flat_lists.interfaces(lines):
        pattern = codes.prefix(name[:-1]) if name.endswith("+") else codes.exact(name)
        if not pattern or (not name.endswith("+") and name not in codes.cuts):
            raise ValueError(f"interface {name} of the list is none of the dump")
    return codes


def _edges(rules: Iterable[Rule]) -> dict[str, list[int]]:
    limits = {"src_ip": 2**32, "dst_ip": 2**32, "sport": 2**16, "dport": 2**16, "proto": 2**8, "tcp_flags": 2**8}
    found: dict[str, set[int]] = {}
    for rule in rules:
        for match in (rule.match, *rule.alternatives):
            for name, values in match.items():
                for low, high in values.v4:
                    found.setdefault(name, set()).update((low - 1, low, high, high + 1))
    return {
        name: sorted(v for v in values if 0 <= v < limits.get(name, 2**8 if name[:2] == "ic" else 2**32))
        for name, values in found.items()
        if name in limits
    }


def _accepted(rules: RuleSet, some: Sequence[Packet], otherwise: int) -> np.ndarray[Any, Any]:
    results = packets.compile(rules).classify_batch(_columns(some))
    verdicts = np.append(rules.actions == Action.ALLOW, False).astype(np.int8)[np.maximum(results, -1)]
    return np.where(results <= -2, -1, np.where(results == -1, otherwise, verdicts))


def _columns(some: Sequence[Packet]) -> packets.PacketColumns:
    columns = {name: np.array([p[name] for p in some], np.uint32) for name in (*_FIELDS, "fragment")}
    proto = columns["proto"]
    present = np.full(len(some), sum(1 << FIELD_INDEX[n] for n in (*_FIELDS, "fragment", "ip_ver")), np.uint32)
    with_ports = np.isin(proto, [low for low, _ in PORT_PROTOCOLS.v4])
    for names, exists in (
        (("sport", "dport"), with_ports),
        (("tcp_flags",), proto == 6),
        (("icmp_type", "icmp_code"), np.isin(proto, (1, 58))),
    ):
        for name in names:
            present[~exists] &= np.uint32(~(1 << FIELD_INDEX[name]) & 0xFFFFFFFF)
    columns["ip_ver"] = np.full(len(some), 4, np.uint32)
    return packets.PacketColumns(columns, present=present, length=len(some))
