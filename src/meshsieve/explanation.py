"""Why a packet gets its verdict: every rule that it meets at every point, tested by the linear reference.

tcp 10.0.0.1:4242 > 10.0.0.2:443
DROP by rule 'no-db' (nsx.json:41 /infra/.../no-db)
|- nsx out: ALLOW
|  |- x  1 'quarantine'  src_ip 10.0.0.1 is not in {10.0.9.0/24}
|  `- =  2 'web-out'     nsx.json:17 ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from meshsieve import _core
from meshsieve.bounds import FieldWords, packet_words
from meshsieve.columns import NAME_FIELDS, PacketColumns
from meshsieve.decision import ACTION_NAMES, EXCLUDED, NOT_HERE, DecisionTables, PointTable, ip_versions_in
from meshsieve.labels import Labels
from meshsieve.model import FIELD_INDEX, Rule, ValueSet
from meshsieve.observability.traceflow import Step, end_of, observations, packet_data, result_document
from meshsieve.policy import Rewrite, Verdict, bits_text
from meshsieve.protocols import PROTOCOL_NAMES, WITH_PORTS
from meshsieve.set_text import address_text, interval_texts, number_texts

_FIELDS = tuple(FIELD_INDEX)
_SHOWN_INTERVALS = 3
_SHOWN_SHADOWED = 3
_TRUTHS: tuple[Literal["no", "unknown", "yes"], ...] = ("no", "unknown", "yes")


@dataclass(frozen=True, slots=True)
class Trial:
    """One rule against the packet.

    truth  no, unknown or yes
    why    for "no" the clauses that fail, for "unknown" what is not known, in words; empty for "yes"
    """

    index: int
    name: str
    source: str
    action: str
    truth: Literal["no", "unknown", "yes"]
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PointExplanation:
    """The walk at one point. verdict is None where the packet does not come there; reason says why not.

    shadowed  the next rules behind the winner that the packet would have matched, without it: (name, action, source)
    step      the same as a step of a trace; None where no packet is explained
    """

    title: str
    verdict: str | None
    reason: str
    trials: tuple[Trial, ...]
    shadowed: tuple[tuple[str, str, str], ...] = ()
    step: Step | None = None


class Explanation:
    """What ``Engine.explain`` found; ``str()`` is a tree, ``to_dict()`` plain values for JSON.

    observations  the same in the words of NSX Traceflow (``observability.traceflow``); () where no packet is explained
    packet_data   the packet as NSX's FieldsPacketData
    """

    def __init__(
        self,
        packet: str,
        action: str,
        rule: str | None,
        source: str | None,
        reason: str,
        points: tuple[PointExplanation, ...],
        observations: Sequence[Mapping[str, Any]] = (),
        packet_data: Mapping[str, Any] | None = None,
    ) -> None:
        self.packet = packet
        self.action = action
        self.rule = rule
        self.source = source
        self.reason = reason
        self.points = points
        self.observations = tuple(observations)
        self.packet_data = dict(packet_data or {})

    def to_dict(self) -> dict[str, Any]:
        observed = {"observations": [dict(found) for found in self.observations]} if self.observations else {}
        return {
            "packet": self.packet,
            "action": self.action,
            "rule": self.rule,
            "source": self.source,
            "reason": self.reason,
            "points": [
                {
                    "point": point.title,
                    "verdict": point.verdict,
                    "reason": point.reason,
                    "rules_tested": [
                        {
                            "index": t.index,
                            "rule": t.name,
                            "source": t.source,
                            "action": t.action,
                            "matches": t.truth,
                            "why": list(t.why),
                        }
                        for t in point.trials
                    ],
                    "shadowed": [
                        {"rule": name, "action": action, "source": source} for name, action, source in point.shadowed
                    ],
                }
                for point in self.points
            ],
            **observed,
        }

    def traceflow(self) -> dict[str, Any]:
        """The document of NSX's Traceflow calls: the packet and its observations."""
        return result_document([dict(found) for found in self.observations], self.packet_data)

    def __str__(self) -> str:
        from meshsieve.reports.text import explanation_text

        return explanation_text(self)

    def _repr_html_(self) -> str:
        from meshsieve.reports.html import explanation_html

        return explanation_html(self)


def explain(tables: DecisionTables, headers: PacketColumns, interfaces: Mapping[str, str]) -> Explanation:
    """The one packet of ``headers`` through all points."""
    labels = Labels(tables)
    decisions = tables.decide(headers, interfaces)
    walk = list(tables.walk(headers, interfaces))
    deciders = labels.deciders_of(decisions)
    reason = labels.reasons.texts[int(labels.reasons_of(headers, decisions, deciders)[0])]
    decider = int(deciders[0])
    points = tuple(
        _with_step(table, came, _explain_point(table, came, interfaces, int(answer.rule[0]), int(answer.verdict[0])),
                   int(answer.rule[0]))
        for table, came, answer in walk
    )  # fmt: skip
    values = {_FIELDS[field]: high << 64 | low for field, high, low in packet_words(headers, 0)}
    texts = _ends(headers)
    version = int(values.get("ip_ver", 4))
    source, destination = (
        end_of(tables.layers, version, values.get(name, 0), text)
        for name, text in zip(("src_ip", "dst_ip"), texts, strict=True)
    )
    return Explanation(
        _packet_text(headers),
        ACTION_NAMES[int(decisions.action[0])],
        labels.rules.texts[decider],
        labels.sources.texts[decider],
        str(reason),
        points,
        observations([point.step for point in points if point.step is not None], source, destination),
        packet_data(values, texts),
    )


def _with_step(table: PointTable, came: PacketColumns, found: PointExplanation, rule: int) -> PointExplanation:
    """The point as a step of a trace; what it only advises is not one."""
    if table.point.role == "advise":
        return found
    name, source = (None, None)
    if rule >= 0:
        label, where = table.point.rules.label(rule)
        name, source = label or f"#{rule}", str(where) or None
    verdict = "UNDECIDED" if found.verdict in ("NO_MATCH", "PENDING") else found.verdict
    step = Step(found.title, verdict, found.reason, name, source, table.point.role == "translate", _ends(came))
    return replace(found, step=step)


def _ends(headers: PacketColumns) -> tuple[str, str]:
    """Source and destination of the one packet, as text."""
    values = {_FIELDS[field]: high << 64 | low for field, high, low in packet_words(headers, 0)}
    texts = [_value(name, values[name], values) if name in values else "?" for name in ("src_ip", "dst_ip")]
    return texts[0], texts[1]


def _explain_point(
    table: PointTable, headers: PacketColumns, interfaces: Mapping[str, str], rule: int, verdict: int
) -> PointExplanation:
    if rule == NOT_HERE:
        return PointExplanation(table.title, None, _why_not_here(table, headers), ())
    if rule == EXCLUDED:
        return PointExplanation(table.title, Verdict.ALLOW.name, "the vNIC is excluded from filtering", ())
    _, vnic = table.who_comes(headers)
    asked = table.at_point(headers, interfaces, vnic, np.array([0]))
    words = packet_words(asked, 0)
    values: dict[str, int | str] = {_FIELDS[field]: high << 64 | low for field, high, low in words}
    if "mark" in values and "mark" in headers:
        values["mark"] = int(headers["mark"][0])
    texts = {name: column[0] for name in NAME_FIELDS if (column := asked.field_texts(name)) is not None}
    if table.point.crossing is not None:
        texts |= {name: column[0] for name, column in table.point.crossing.sides(headers).items()}
    values |= {name: text for name, text in {**interfaces, **texts}.items() if name in values}
    trials = tuple(
        _trial(table, values, int(index), int(truth), int(failed), int(unknown))
        for index, truth, failed, unknown in _core.trace(table.point.rules.native, words)
    )
    name = ACTION_NAMES[verdict]
    translates = table.point.role == "translate"
    if rule < 0:
        default = "the packet stays as it is" if translates else f"default {name}"
        return PointExplanation(table.title, name, f"no rule matched, {default}", trials)
    reason = f"rule '{_name(table.point.rules[rule], rule)}'"
    if verdict == Verdict.ALLOW and rule in table.point.rewrites:
        reason += f" {_rewrite_text(table.point.rewrites[rule], values)}"
    if table.point.role == "advise":
        reason += ", which decides nothing about the packet's way"
    return PointExplanation(table.title, name, reason, trials, _shadowed(table, words, rule))


def _shadowed(table: PointTable, words: FieldWords, winner: int) -> tuple[tuple[str, str, str], ...]:
    """The first rules behind the winner that match the packet as well."""
    rules = table.point.rules
    found: list[tuple[str, str, str]] = []
    start = winner + 1
    while start < len(rules) and len(found) < _SHOWN_SHADOWED:
        at = _core.walk(rules.native, words, start)
        if at < 0:
            break
        rule: Rule = rules[at]
        found.append((_name(rule, at), rule.action.name, str(rule.source)))
        start = at + 1
    return tuple(found)


def _rewrite_text(rewrite: Rewrite, values: Mapping[str, int | str]) -> str:
    changes = [
        f"{name} to {'what nobody can know' if value is None else _value(name, value, values)}"
        for name, value in rewrite.values.items()
    ]
    for name, shift in rewrite.shifts.items():
        if isinstance(old := values.get(name), int):
            changes.append(f"{name} to {_value(name, old - shift.start + shift.to, values)}")
    changes += [f"{name} to {bits_text(*made)}" for name, made in rewrite.bits.items()]
    if rewrite.choices:
        texts = [_rewrite_text(choice, values).removeprefix("changes ") for choice in rewrite.choices]
        return f"changes, one of {len(texts)}: {'; or '.join(texts)}"
    changes += [f"{name} to {value} where it is missing" for name, value in rewrite.defaults.items()]
    skips = [f"passes by {name}" for name in sorted(rewrite.skips)]
    return "changes " + ", ".join([*changes, *skips]) if changes or skips else "leaves the packet as it is"


def _why_not_here(table: PointTable, headers: PacketColumns) -> str:
    if not ip_versions_in(headers, table.layer.families)[0]:
        return "the layer does not judge this IP version"
    if table.point.crossing is not None and not table.point.crossing.comes(headers)[0]:
        return "the packet's way does not lead here"
    if table.point.vnic_of is None:
        return "an earlier translation makes it pass by"
    end = {"src": "source", "dst": "destination"}[table.point.vnic_of]
    return f"no known interface owns the {end}"


def _trial(
    table: PointTable, values: Mapping[str, int | str], index: int, truth: int, failed: int, unknown: int
) -> Trial:
    rule: Rule = table.point.rules[index]
    kind = _TRUTHS[truth]
    why: tuple[str, ...] = ()
    if kind == "no":
        why = _failures(table, rule, values, failed)
    elif kind == "unknown":
        missing = tuple(f"the packet lacks {name}" for i, name in enumerate(_FIELDS) if unknown >> i & 1)
        why = missing + tuple(f"'{text}' cannot be known offline" for text in rule.unknown)
    return Trial(index, _name(rule, index), str(rule.source), rule.action.name, kind, why)


def _failures(table: PointTable, rule: Rule, values: Mapping[str, int | str], failed: int) -> tuple[str, ...]:
    names = [name for i, name in enumerate(_FIELDS) if failed >> i & 1]
    common = [name for name in names if name in rule.match]
    if common:
        return (_difference(table, common[0], rule.match[common[0]], values),)
    if len(rule.alternatives) > 1:
        return (f"none of {len(rule.alternatives)} alternatives has its {' and '.join(names)}",)
    return tuple(_difference(table, name, rule.alternatives[0][name], values) for name in names[:1])


def _difference(table: PointTable, name: str, wanted: ValueSet, values: Mapping[str, int | str]) -> str:
    if name == "vnic":
        return "the rule is not applied to this vNIC"
    if name not in values:
        return f"the packet has no {name}"
    if name in NAME_FIELDS or name == "mark":
        return f"{name} {_value(name, values[name], values)} is none of those that the rule names"
    return f"{name} {_value(name, values[name], values)} is not in {_set(name, wanted)}"


def _value(name: str, value: int | str, values: Mapping[str, int | str]) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    if _core.FIELDS[FIELD_INDEX[name]].kind == "address":
        return address_text(int(values.get("ip_ver", 4)), value)
    if name == "proto":
        return PROTOCOL_NAMES[value]
    if name == "direction":
        return {1: "OUT", 2: "IN"}.get(value, str(value))
    return str(value)


def _set(name: str, wanted: ValueSet) -> str:
    if not wanted:
        return "{} (the empty set: matches nothing)"
    shown = _SHOWN_INTERVALS
    if _core.FIELDS[FIELD_INDEX[name]].kind == "address":
        texts = interval_texts(wanted, shown)
    elif name in ("proto", "direction") and all(lo == hi for lo, hi in wanted.v4[:shown]):
        texts = [_value(name, lo, {}) for lo, _ in wanted.v4[:shown]]
    else:
        texts = number_texts(wanted, shown)
    more = len(wanted.v4) + len(wanted.v6) - len(texts)
    return "{" + ", ".join(texts) + (f", and {more} more" if more else "") + "}"


def _name(rule: Rule, index: int) -> str:
    return rule.name or f"#{index}"


def _packet_text(headers: PacketColumns) -> str:
    values = {_FIELDS[field]: high << 64 | low for field, high, low in packet_words(headers, 0)}
    proto = values.get("proto")
    ends = []
    for address, port in (("src_ip", "sport"), ("dst_ip", "dport")):
        text = _value(address, values[address], values) if address in values else "?"
        if port in values and (proto is None or proto in WITH_PORTS):
            text = f"[{text}]:{values[port]}" if ":" in text else f"{text}:{values[port]}"
        ends.append(text)
    name = PROTOCOL_NAMES[proto] if proto is not None else "ip"
    return f"{name} {ends[0]} > {ends[1]}"
