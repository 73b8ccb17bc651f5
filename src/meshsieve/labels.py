"""Names for verdicts: rule, source and reason of each decision, worked out once and referred to by number.

A batch of 16,384 flows meets few rules, so columns of text hold small codes and share a growing ``TextTable``; writers
keep what they made of each text (quoted, escaped) beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.columns import PacketColumns
from meshsieve.decision import (
    EXCLUDED,
    NOT_HERE,
    Decisions,
    DecisionTables,
    PointDecisions,
    field_names,
)
from meshsieve.policy import Verdict

Codes = npt.NDArray[np.int32]

# A decider's code is base of its point + rule - EXCLUDED: the three markers below 0 come first, then the rules.
_MARKERS = -EXCLUDED


@dataclass(slots=True)
class TextTable:
    """Texts by code; it only grows, so a code stays valid. None stands for "no value"."""

    texts: list[str | None] = field(default_factory=list)
    _codes: dict[str | None, int] = field(default_factory=dict)

    def code(self, text: str | None) -> int:
        """The code of ``text``, new or known."""
        known = self._codes.get(text)
        if known is None:
            known = self._codes[text] = len(self.texts)
            self.texts.append(text)
        return known

    def append(self, text: str | None) -> int:
        """A code of its own for ``text``, whether or not the text is there already."""
        self.texts.append(text)
        return len(self.texts) - 1


class LateTextTable(TextTable):
    """A table whose texts are made when somebody asks for them; no code is added."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Sequence[str | None]]) -> None:
        self._make = make
        self._made: list[str | None] | None = None

    @property
    def texts(self) -> list[str | None]:  # type: ignore[override]
        if self._made is None:
            self._made = list(self._make())
        return self._made


class PlainTextTable(LateTextTable):
    """Texts of printable ASCII in which no format quotes anything."""

    __slots__ = ()


class Labels:
    """Texts of the deciders that have been met so far.

    A *decider* is a rule of a point, or the point's default or exclusion. Deciders get dense codes in the order in
    which they are met: ``rules``, ``sources`` and ``deciders`` are indexed by them.
    """

    def __init__(self, tables: DecisionTables) -> None:
        self.tables = tables
        sizes = [len(table.point.rules) + _MARKERS for table in tables.points]
        self._base = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=self._base[1:])
        self._dense = np.full(int(self._base[-1]) + 1, -1, np.int32)  # the last one is "no point at all"
        self.deciders: list[tuple[int, int]] = []
        self.rules = TextTable()
        self.sources = TextTable()
        self.reasons = TextTable()
        self._reason_of: list[int] = []

    def deciders_of(self, decisions: Decisions) -> Codes:
        """int32 (n,): dense code of what decided each packet."""
        point, rule = decisions.point, decisions.rule
        sparse = self._base[point] + rule - EXCLUDED
        sparse[point < 0] = len(self._dense) - 1
        return self._to_dense(sparse)

    def point_deciders(self, number: int, decisions: PointDecisions) -> Codes:
        """int32 (n,): dense code of what decided each packet at one point; -1 where it did not come there."""
        codes = self._to_dense(self._base[number] + decisions.rule - EXCLUDED)
        return np.where(decisions.rule == NOT_HERE, np.int32(-1), codes)

    def reasons_of(self, headers: PacketColumns, decisions: Decisions, deciders: Codes) -> Codes:
        """int32 (n,): codes into ``reasons``."""
        codes = np.array(self._reason_of, np.int32)[deciders]
        open_ends = (decisions.action == Verdict.UNDECIDED) | (decisions.action == Verdict.PENDING)
        undecided = np.flatnonzero(open_ends & (decisions.rule >= 0))
        pairs = deciders[undecided].astype(np.int64) << 32 | decisions.missing[undecided]
        for pair in np.unique(pairs):
            rows = undecided[pairs == pair]
            pending = decisions.action[rows[0]] == Verdict.PENDING
            text = self._undecided_reason(*self.deciders[int(pair) >> 32], int(pair) & 0xFFFFFFFF, pending)
            codes[rows] = self.reasons.code(text)
        unjudged = np.flatnonzero(decisions.point < 0)
        if len(unjudged):
            codes[unjudged] = self._unjudged_reasons(headers, unjudged)
        return codes

    def _to_dense(self, sparse: npt.NDArray[np.int64]) -> Codes:
        dense = self._dense[sparse]
        for code in np.unique(sparse[dense < 0]):
            self._dense[code] = self._add(int(code))
        return self._dense[sparse] if (dense < 0).any() else dense

    def _add(self, sparse: int) -> int:
        number = int(np.searchsorted(self._base, sparse, side="right")) - 1
        if number >= len(self.tables.points):
            number, rule = -1, NOT_HERE
        else:
            rule = sparse - int(self._base[number]) + EXCLUDED
        self.deciders.append((number, rule))
        name, source = self._rule_label(number, rule)
        self.sources.append(source)
        self._reason_of.append(self.reasons.code(self._reason(number, rule)))
        return self.rules.append(name)

    def _rule_label(self, number: int, rule: int) -> tuple[str | None, str | None]:
        if number < 0 or rule < 0:
            return None, None
        name, source = self.tables.points[number].point.rules.label(rule)
        return name or f"#{rule}", str(source) or None

    def _reason(self, number: int, rule: int) -> str:
        if number < 0:
            return "no enforcement point applies"
        table = self.tables.points[number]
        if rule == EXCLUDED:
            return f"{table.title}: the vNIC is excluded from filtering"
        if rule < 0:
            return f"{table.title}: no rule matched, default {table.point.default.name}"
        return f"{table.title}: rule matched"

    def _undecided_reason(self, number: int, rule: int, missing: int, pending: bool) -> str:
        table = self.tables.points[number]
        names = field_names(missing)
        if pending:
            return f"{table.title}: let through until recognition tells {', '.join(names)}"
        if not missing and number >= 0 and rule in table.point.rewrites and table.point.rules[rule].certain:
            count = len(table.point.rewrites[rule].choices)
            return f"{table.title}: it depends on which of {count} outcomes of this translation happens"
        clauses = [f"'{text}' cannot be known offline" for text in table.point.rules[rule].unknown]
        if names:
            clauses.insert(0, f"the packet lacks {', '.join(names)}")
        return f"{table.title}: undecided at this rule: {'; '.join(clauses) or 'it cannot be judged'}"

    def _unjudged_reasons(self, headers: PacketColumns, rows: npt.NDArray[np.intp]) -> Codes:
        """Why no point judged some of the packets: what the decoder said, no IP, or nobody's addresses."""
        n = len(headers)
        codes = np.full(len(rows), self.reasons.code(self._nobody()), np.int32)
        if "ip_ver" not in headers:
            return codes
        version = np.broadcast_to(headers["ip_ver"], (n,))[rows]
        judged = {v for layer in self.tables.layers for v in layer.families}
        for v in (4, 6):
            if v not in judged:
                codes[version == v] = self.reasons.code(f"no layer judges IPv{v}")
        codes[version == 0] = self.reasons.code("no IP: no layer judges such frames")
        status = headers.extra["status"][rows] if "status" in headers.extra else np.zeros(len(rows), np.uint8)
        unreadable = ~headers.has("ip_ver")[rows] | ((version == 0) & (status != 0))
        for value in np.unique(status[unreadable]):
            codes[unreadable & (status == value)] = self.reasons.code(status_text(int(value)))
        return codes

    def _nobody(self) -> str:
        if any(table.point.vnic_of for table in self.tables.points):
            return "no enforcement point: no known interface owns source or destination"
        return "no enforcement point applies"


def status_text(status: int) -> str:
    """A decode status in words: ``truncated_ip: the bytes end inside the IP header; ...``."""
    statuses: Sequence[tuple[str, str]] = _core.DECODE_STATUSES
    name, doc = statuses[status]
    return f"not decoded ({name}): {doc}"
