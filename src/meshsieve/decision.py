"""Many packets through all layers: which rule decides each, by the compiled tables.

What     Every point of every layer is one look-up in a compiled rule list. The answers are combined per packet: the
         first denial decides; undecided beats allowed (fail closed); allowed means that every point allowed.
         Among points that allow, the first whose *rule* matched is named, then the first default.
Order    layers in the order of the configuration, points in the order of the layer. A point that translates (NAT,
         marks) rewrites packets for all points behind it, of this layer and of later ones
PENDING  a packet that lacks only what recognition of its application will tell is let through until that is known
Cost     one look-up a point for the packets that come to it; points with one and the same rule list share the table
Limits   none on rules or points; memory is a few arrays of the batch's length a point
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from meshsieve import _core, packets
from meshsieve.apps import HOWS
from meshsieve.bounds import resolve_unknown
from meshsieve.columns import PacketColumns
from meshsieve.inventory import NO_VNIC
from meshsieve.model import FIELD_INDEX, Action
from meshsieve.policy import ACTION_VERDICT, Layer, Point, Verdict
from meshsieve.protocols import WITH_PORTS
from meshsieve.rewriting import known_texts, listed_macs, mark_codes, rewritten, time_fields

Mode = Literal["strict", "upper", "lower"]

# In place of a rule index: nothing matched; the packet did not come to this point; its vNIC has no filter.
NO_RULE, NOT_HERE, EXCLUDED = -1, -2, -3
# Beside the values of Verdict: no layer judged the packet.
NOT_JUDGED = 6
ACTION_NAMES: tuple[str, ...] = (*(verdict.name for verdict in Verdict), "NONE")

# How strongly a verdict speaks when points are combined; the first of the strongest decides. An ALLOW by default is
# weaker than one by a rule only in which of them is named.
_WEIGHT = np.zeros(NOT_JUDGED + 1, np.uint8)
_WEIGHT[Verdict.ALLOW] = 2
_WEIGHT[Verdict.NO_MATCH] = 3
_WEIGHT[Verdict.PENDING] = 4
_WEIGHT[Verdict.UNDECIDED] = 5
_WEIGHT[[Verdict.DROP, Verdict.REJECT]] = 6
_ALLOW_BY_DEFAULT = 1
RELATED = 3  # ct_state
# What recognition of the application tells, some packets into the flow.
APP_FIELDS = ("app", "fqdn", "tls_version", "tls_cipher", "smb_version")
_APP_BITS = sum(1 << FIELD_INDEX[name] for name in APP_FIELDS)
# A SKIP never ends a walk; were one reported, it would not be an allow.
_VERDICT_OF_ACTION = np.array([ACTION_VERDICT.get(action, Verdict.UNDECIDED) for action in Action], np.uint8)


@dataclass(frozen=True, slots=True)
class PointDecisions:
    """One point's answers for n packets.

    rule     int32 (n,): index into the point's rules, or NO_RULE, NOT_HERE, EXCLUDED; for an undecided packet the
             rule that could not be decided
    verdict  uint8 (n,): values of Verdict, the default where no rule matched; NOT_JUDGED where rule is NOT_HERE
    """

    rule: npt.NDArray[np.int32]
    verdict: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Decisions:
    """All layers' answers for n packets.

    action   uint8 (n,): index into ACTION_NAMES
    point    int16 (n,): the point that decided, by its position in ``DecisionTables.points``; -1 = none
    rule     int32 (n,): as in that point's ``PointDecisions``
    missing  uint32 (n,): fields (bits of FIELDS) that an undecided packet's rule names and the packet lacks
    points   one a point
    """

    action: npt.NDArray[np.uint8]
    point: npt.NDArray[np.int16]
    rule: npt.NDArray[np.int32]
    missing: npt.NDArray[np.uint32]
    points: tuple[PointDecisions, ...]

    def __len__(self) -> int:
        return len(self.action)

    def arrays(self) -> list[npt.NDArray[Any]]:
        """Every array, in a fixed order."""
        return [
            self.action,
            self.point,
            self.rule,
            self.missing,
            *(a for p in self.points for a in (p.rule, p.verdict)),
        ]

    @staticmethod
    def of_arrays(arrays: Sequence[npt.NDArray[Any]]) -> Decisions:
        """The inverse of ``arrays``."""
        action, point, rule, missing, *rest = arrays
        return Decisions(action, point, rule, missing, tuple(map(PointDecisions, rest[::2], rest[1::2])))


class PointTable:
    """One point, ready to be asked: its rules compiled, its constants as columns."""

    def __init__(self, layer: Layer, point: Point, classifier: packets.PacketClassifier, mode: Mode) -> None:
        self.layer = layer
        self.point = point
        self.mode = mode
        self.classifier = classifier
        self._excluded = np.array(sorted(point.excluded), np.int32)
        self._asked = {name: codes for name, codes in point.rules.names.items() if name in point.rules.fields}
        self._asks_app = bool(set(APP_FIELDS) & point.rules.fields)
        self._asks_side = bool({"iif", "oif"} & point.rules.fields)
        self._asks_time = bool({"time", "week_minute"} & point.rules.fields)

    @property
    def title(self) -> str:
        """Layer and point for people; files without their folders."""
        words = f"{self.layer.name} {self.point.name}".split()
        return " ".join(word.rsplit("/", 1)[-1] for word in words)

    def decide(
        self, headers: PacketColumns, interfaces: Mapping[str, str], away: npt.NDArray[np.bool_] | None = None
    ) -> PointDecisions:
        """The point's answers for any packets, judged here or not.

        interfaces  {"iif": name, "oif": name}, if known
        away        bool (n,): packets that do not come here because of an earlier translation
        """
        n = len(headers)
        rule = np.full(n, NOT_HERE, np.int32)
        verdict = np.full(n, NOT_JUDGED, np.uint8)
        here, vnic = self.who_comes(headers)
        if away is not None:
            here &= ~away
        if len(self._excluded) and vnic is not None:
            excluded = here & np.isin(vnic, self._excluded)
            rule[excluded] = EXCLUDED
            verdict[excluded] = Verdict.ALLOW
            here &= ~excluded
        rows = np.flatnonzero(here)
        if len(rows):
            came = headers.take(rows) if len(rows) < n else headers
            asked = self.at_point(came, interfaces, vnic, rows)
            rule[rows], verdict[rows] = self._judge(asked, self.classifier.classify_batch(asked))
            if "fqdn" in self._asked:
                self._further_names(came, interfaces, vnic, rows, PointDecisions(rule, verdict))
        return PointDecisions(rule, verdict)

    def _further_names(
        self,
        came: PacketColumns,
        interfaces: Mapping[str, str],
        vnic: npt.NDArray[np.int32] | None,
        rows: npt.NDArray[np.intp],
        found: PointDecisions,
    ) -> None:
        """Servers with several names: a rule matches if it does for one of them, so the first rule that any of the
        names leads to decides. ``came`` are the packets ``rows``; changes ``found``."""
        texts = came.field_texts("fqdn")
        if texts is None:
            return
        counts = np.array([len(text) if isinstance(text, tuple) else 1 for text in texts.tolist()])
        for which in range(1, int(counts.max(initial=1))):
            some = np.flatnonzero(counts > which)
            at = rows[some]
            asked = self.at_point(came.take(some), interfaces, vnic, at, which)
            rule, verdict = self._judge(asked, self.classifier.classify_batch(asked))
            open_before = np.isin(found.verdict[at], (Verdict.UNDECIDED, Verdict.PENDING))
            earlier = (rule >= 0) & ((found.rule[at] < 0) | (rule < found.rule[at]))
            earlier |= (rule == found.rule[at]) & open_before
            found.rule[at[earlier]], found.verdict[at[earlier]] = rule[earlier], verdict[earlier]

    def who_comes(self, headers: PacketColumns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32] | None]:
        """Which packets come to this point, bool (n,), and where it sits at vNICs, whose, int32 (n,)."""
        here = ip_versions_in(headers, self.layer.families)
        if self.point.crossing is not None:
            here &= self.point.crossing.comes(headers)
        if self.point.vnic_of is None:
            return here, None
        vnic = self.layer.inventory.owners(headers, f"{self.point.vnic_of}_ip")
        return here & (vnic != NO_VNIC), vnic

    def at_point(
        self,
        headers: PacketColumns,
        interfaces: Mapping[str, str],
        vnic: npt.NDArray[np.int32] | None,
        rows: npt.NDArray[np.intp],
        which: int = 0,
    ) -> PacketColumns:
        """``headers``, which are the packets ``rows`` of a batch, with the fields that belong to the point.

        which  of the names of a server that has several
        """
        fields: dict[str, npt.ArrayLike] = {name: [value] for name, value in self.point.constants.items()}
        where: dict[str, npt.NDArray[np.bool_]] = {}
        sides = self.point.crossing.sides(headers) if self.point.crossing is not None and self._asks_side else {}
        for name, codes in self._asked.items():
            if name in sides:
                fields[name], where[name] = known_texts(sides[name], codes)
            elif name in interfaces:
                fields[name] = [codes.code(interfaces[name])]
            elif (texts := headers.field_texts(name)) is not None:
                fields[name], where[name] = known_texts(texts, codes, which)
            elif name in ("src_mac", "dst_mac"):
                macs = listed_macs(self.layer.inventory, headers, name, self.point.vnic_of)
                fields[name], where[name] = known_texts(macs, codes)
        if self.point.tracks_algs and "app_how" in headers.extra:
            announced = headers.extra["app_how"] == HOWS.index("related")
            if announced.any() and "ct_state" in headers:
                fields["ct_state"] = np.where(announced, np.uint8(RELATED), headers["ct_state"])
                where["ct_state"] = headers.has("ct_state") | announced
        if self.point.rules.marks is not None:
            fields["mark"], where["mark"] = mark_codes(headers, self.point.rules.marks)
        if vnic is not None:
            fields["vnic"] = vnic[rows].astype(np.uint32)
        if self._asks_time:
            fields |= time_fields(headers)
        return headers.with_fields(fields, where) if fields else headers

    def _judge(
        self, asked: PacketColumns, found: npt.NDArray[np.int32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        undecided = found <= -2
        rule = np.where(undecided, -(found + 2), found).astype(np.int32)
        if len(self.point.rules):
            verdict = _VERDICT_OF_ACTION[self.point.rules.actions[np.maximum(rule, 0)]]
        else:
            verdict = np.empty(len(found), np.uint8)
        verdict[rule == NO_RULE] = self.point.default
        verdict[undecided] = Verdict.UNDECIDED
        if self.mode != "strict" and self.point.role == "filter":
            for i in np.flatnonzero(verdict == Verdict.UNDECIDED):
                packet = asked.take(np.array([i]))
                rule[i], verdict[i] = resolve_unknown(self.point, packet, int(rule[i]), accept=self.mode == "upper")
        elif self._asks_app:
            for at in np.unique(rule[undecided]):
                rows = np.flatnonzero(undecided & (rule == at))
                lacks = self.missing_fields(asked.take(rows), int(at))
                if self.point.rules[int(at)].certain:
                    verdict[rows[(lacks != 0) & (lacks & ~np.uint32(_APP_BITS) == 0)]] = Verdict.PENDING
        return rule, verdict

    def missing_fields(self, headers: PacketColumns, rule: int) -> npt.NDArray[np.uint32]:
        """uint32 (n,): bits of the fields that the rule names and that each packet could have but lacks."""
        labels = self.point.rules[rule]
        named = {name for match in (labels.match, *labels.alternatives) for name in match}
        out = np.zeros(len(headers), np.uint32)
        for name in named - set(self.point.constants) - {"vnic"}:
            lacks = ~headers.has(name) & ~_cannot_have(headers, name)
            out |= np.where(lacks, 1 << FIELD_INDEX[name], 0).astype(np.uint32)
        return out


class DecisionTables:
    """All points of all layers, compiled."""

    def __init__(self, layers: Sequence[Layer], *, mode: Mode = "strict", engine: str = "auto") -> None:
        self.layers = tuple(layers)
        compiled: dict[int, packets.PacketClassifier] = {}
        points = []
        for layer in self.layers:
            for point in layer.points:
                key = id(point.rules)
                if key not in compiled:
                    compiled[key] = packets.compile(point.rules, engine=engine)
                points.append(PointTable(layer, point, compiled[key], mode))
        self.points: tuple[PointTable, ...] = tuple(points)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """A name for each point that serves as a column prefix: ``nsx_out``."""
        names: list[str] = []
        for table in self.points:
            base = re.sub(r"[^0-9a-z]+", "_", table.title.lower()).strip("_")
            same = sum(1 for name in names if name == base or re.fullmatch(re.escape(base) + r"_\d+", name))
            names.append(f"{base}_{same + 1}" if same else base)
        return tuple(names)

    def walk(
        self, headers: PacketColumns, interfaces: Mapping[str, str] | None = None, choice: int = 0
    ) -> Iterator[tuple[PointTable, PacketColumns, PointDecisions]]:
        """Each point in turn, with the packets as they come to it and its answers.

        choice  which of several possible rewrites happens (policy.Rewrite)
        """
        away: dict[tuple[str, str], npt.NDArray[np.bool_]] = {}  # (layer, point or translation) -> who stays away
        came, hook = headers, ("", "")
        for table in self.points:
            layer, point = table.layer.name, table.point
            if not point.hook or (layer, point.hook) != hook:
                came, hook = headers, (layer, point.hook)
            absent = [away[key] for key in ((layer, point.name), (layer, point.once)) if key in away]
            answer = table.decide(came, interfaces or {}, np.logical_or.reduce(absent) if absent else None)
            yield table, came, answer
            if not point.rewrites:
                continue
            headers, done = rewritten(headers, point, answer.rule, answer.verdict == Verdict.UNDECIDED, choice)
            none = np.zeros(len(headers), np.bool_)
            if point.once:
                away[layer, point.once] = away.get((layer, point.once), none) | done
            for rule, rewrite in point.rewrites.items():
                for name in rewrite.skips:
                    away[layer, name] = away.get((layer, name), none) | (done & (answer.rule == rule))

    def decide(self, headers: PacketColumns, interfaces: Mapping[str, str] | None = None) -> Decisions:
        """Answers for every packet of ``headers``; see the head of this file for how points combine.

        Where a translation has several possible outcomes (the backends of a service) that lead to different verdicts,
        the packet is undecided at it.
        """
        decisions = self._decide(headers, interfaces, 0)
        for number, table in enumerate(self.points):
            choices = {rule: len(rewrite.choices) for rule, rewrite in table.point.rewrites.items() if rewrite.choices}
            matched = decisions.points[number].rule
            rows = np.flatnonzero(np.isin(matched, np.array(sorted(choices), np.int32)))
            most = max((choices[int(rule)] for rule in np.unique(matched[rows])), default=0)
            for choice in range(1, most):
                other = self._decide(headers.take(rows), interfaces, choice)
                differs = rows[other.action != decisions.action[rows]]
                decisions.action[differs] = Verdict.UNDECIDED
                decisions.point[differs] = number
                decisions.rule[differs] = matched[differs]
                decisions.missing[differs] = 0
                rows = rows[decisions.action[rows] != Verdict.UNDECIDED]
        return decisions

    def _decide(self, headers: PacketColumns, interfaces: Mapping[str, str] | None, choice: int) -> Decisions:
        n = len(headers)
        answers: list[PointDecisions] = []
        seen: list[PacketColumns] = []
        for _, came, answer in self.walk(headers, interfaces, choice):
            answers.append(answer)
            seen.append(came)
        action, decider, rule = self.combined(answers, n)
        # A packet whose IP version could not be read might be anything: fail closed.
        if "ip_ver" in headers:
            action[~headers.has("ip_ver") & (decider < 0)] = Verdict.UNDECIDED
        missing = np.zeros(n, np.uint32)
        rows = np.flatnonzero(((action == Verdict.UNDECIDED) | (action == Verdict.PENDING)) & (rule >= 0))
        pairs = decider[rows].astype(np.int64) << 32 | rule[rows]
        for pair in np.unique(pairs):
            these = rows[pairs == pair]
            number = int(pair) >> 32
            missing[these] = self.points[number].missing_fields(seen[number].take(these), int(pair) & 0xFFFFFFFF)
        return Decisions(action, decider, rule, missing, tuple(answers))

    def combined(
        self, answers: Sequence[PointDecisions], n: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16], npt.NDArray[np.int32]]:
        """(action, point, rule) of n packets, as in ``Decisions``, from the answers of all points."""
        action = np.full(n, NOT_JUDGED, np.uint8)
        decider = np.full(n, -1, np.int16)
        rule = np.full(n, NOT_HERE, np.int32)
        weight = np.zeros(n, np.uint8)
        for number, (table, answer) in enumerate(zip(self.points, answers, strict=True)):
            own = _WEIGHT[answer.verdict]
            own[(answer.verdict == Verdict.ALLOW) & (answer.rule < 0)] = _ALLOW_BY_DEFAULT
            if table.point.role != "filter":  # a translation may still refuse, or not be known
                own[(own < _WEIGHT[Verdict.UNDECIDED]) | (table.point.role == "advise")] = 0
            stronger = own > weight
            action[stronger] = answer.verdict[stronger]
            decider[stronger] = number
            rule[stronger] = answer.rule[stronger]
            weight[stronger] = own[stronger]
        return action, decider, rule


def ip_versions_in(headers: PacketColumns, families: Iterable[int]) -> npt.NDArray[np.bool_]:
    """bool (n,): packets whose IP version is one of ``families``; version 0 is a frame without IP."""
    n = len(headers)
    if "ip_ver" not in headers:
        wide = any(headers[name].ndim == 2 for name in ("src_ip", "dst_ip") if name in headers)
        return np.full(n, (6 if wide else 4) in set(families), np.bool_)
    version = np.broadcast_to(headers["ip_ver"], (n,))
    return np.isin(version, np.array(sorted(families), np.uint8)) & headers.has("ip_ver")


def _cannot_have(headers: PacketColumns, name: str) -> npt.NDArray[np.bool_]:
    """bool (n,): packets known to have no such field, so that a rule naming it is false, not unknown (fields.h)."""
    n = len(headers)
    requires = _core.FIELDS[FIELD_INDEX[name]].requires
    if requires in ("nothing", "vlan_tag"):
        return np.full(n, requires == "vlan_tag", np.bool_)
    cannot = np.zeros(n, np.bool_)
    if "ip_ver" in headers:
        cannot |= headers.has("ip_ver") & (np.broadcast_to(headers["ip_ver"], (n,)) == 0)
    carriers = {"ports": WITH_PORTS, "tcp": {6}, "icmp": {1, 58}}.get(requires)
    if carriers is not None and "proto" in headers:
        carries = np.isin(np.broadcast_to(headers["proto"], (n,)), np.array(sorted(carriers), np.uint8))
        cannot |= headers.has("proto") & ~carries
    return cannot


def field_names(bits: int) -> list[str]:
    """Names of the fields whose bits are set, in the order of FIELDS."""
    return [info.name for i, info in enumerate(_core.FIELDS) if bits >> i & 1]
