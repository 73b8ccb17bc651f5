"""What a classified capture sums up to: counts by verdict, by rule, and of what was not judged, with why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.decision import ACTION_NAMES, NOT_JUDGED
from meshsieve.labels import Labels
from meshsieve.policy import Verdict

_ACTIONS = len(ACTION_NAMES)
# Actions that say that no rule could decide; their reasons are counted.
_OPEN = (Verdict.PENDING, Verdict.UNDECIDED, NOT_JUDGED)


@dataclass(frozen=True, slots=True)
class Count:
    """How much traffic: flows, packets, bytes on the wire."""

    flows: int = 0
    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.flows + other.flows, self.packets + other.packets, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class RuleCount:
    """Traffic that one rule (or a point's default: rule None) decided. place is the short form of source."""

    point: str
    rule: str | None
    source: str | None
    place: str
    action: str
    count: Count


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals of one run.

    total       all traffic of the capture that the filter let through
    verdicts    by action, largest first
    rules       by deciding rule, largest first
    open        why traffic got no verdict or stayed undecided, by reason
    notes       what a reader must know: flows evicted, a capture that broke off
    """

    total: Count
    verdicts: dict[str, Count]
    rules: tuple[RuleCount, ...]
    open: dict[str, Count]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {
            "total": asdict(self.total),
            "verdicts": {action: asdict(count) for action, count in self.verdicts.items()},
            "rules": [asdict(rule) for rule in self.rules],
            "open": {reason: asdict(count) for reason, count in self.open.items()},
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        from meshsieve.reports.text import summary_text

        return summary_text(self)

    def _repr_html_(self) -> str:
        from meshsieve.reports.html import summary_html

        return summary_html(self)


class _Counter:
    """Counts by small integer keys, growing."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, 0), np.int64)

    def add(
        self, keys: npt.NDArray[Any], flows: npt.NDArray[Any], packets: npt.NDArray[Any], octets: npt.NDArray[Any]
    ) -> None:
        if not len(keys):
            return
        size = int(keys.max()) + 1
        if size > self._sums.shape[1]:
            self._sums = np.pad(self._sums, ((0, 0), (0, max(size, 2 * self._sums.shape[1]) - self._sums.shape[1])))
        for row, values in enumerate((flows, packets, octets)):
            # Exact: a batch's sums stay below 2^53.
            self._sums[row, :size] += np.bincount(keys, weights=values, minlength=size).astype(np.int64)

    def items(self) -> list[tuple[int, Count]]:
        return [
            (int(key), Count(*(int(v) for v in self._sums[:, key]))) for key in np.flatnonzero(self._sums.any(axis=0))
        ]


class Tally:
    """Counts batch by batch."""

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._by_rule = _Counter()
        self._by_reason = _Counter()

    def add(
        self,
        action: npt.NDArray[np.uint8],
        deciders: npt.NDArray[np.int32],
        reasons: npt.NDArray[np.int32],
        flows: npt.NDArray[Any],
        packets: npt.NDArray[Any],
        octets: npt.NDArray[Any],
    ) -> None:
        """One batch of rows; the last three say how much traffic each row stands for."""
        self._by_rule.add(deciders.astype(np.int64) * _ACTIONS + action, flows, packets, octets)
        rows = np.isin(action, np.array(_OPEN, np.uint8))
        self._by_reason.add(reasons[rows], flows[rows], packets[rows], octets[rows])

    def summary(self, notes: Sequence[str] = ()) -> Summary:
        """The totals so far."""
        total = Count()
        verdicts: dict[str, Count] = {}
        rules = []
        for key, count in self._by_rule.items():
            decider, action = divmod(key, _ACTIONS)
            name = ACTION_NAMES[action]
            total += count
            verdicts[name] = verdicts.get(name, Count()) + count
            number, index = self._labels.deciders[decider]
            if number >= 0:
                table = self._labels.tables.points[number]
                rule, source = self._labels.rules.texts[decider], self._labels.sources.texts[decider]
                place = table.point.rules.label(index)[1].place if index >= 0 else ""
                rules.append(RuleCount(table.title, rule, source, place, name, count))
        open_ = {str(self._labels.reasons.texts[reason]): count for reason, count in self._by_reason.items()}
        return Summary(
            total,
            dict(sorted(verdicts.items(), key=lambda item: _largest(item[1]))),
            tuple(sorted(rules, key=lambda rule: _largest(rule.count))),
            dict(sorted(open_.items(), key=lambda item: _largest(item[1]))),
            tuple(notes),
        )


def _largest(count: Count) -> tuple[int, int, int]:
    return (-count.packets, -count.flows, -count.bytes)
