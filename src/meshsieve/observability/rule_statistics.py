"""How much traffic each rule decided, as NSX counts it, and which rules none of it ever met.

What     For every rule at every enforcement point: hits (flows whose first packet it decided), sessions, packets,
         bytes, first and last hit. The names are those of NSX's RuleStatistics, so that scripts that look for
         ``hit_count == 0`` work on this output as well.
Cost     per batch and point one count over its flows; memory is a few numbers a rule.
Limits   A rule without hits was *not exercised* by this traffic. That it can never match is another statement: see
         ``meshsieve lint``.
Source   NSX-T API, RuleStatistics; popularity index: sessions per second since the rule's first hit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from meshsieve.classification import ClassifiedBatch
from meshsieve.decision import DecisionTables
from meshsieve.flows import ENDS, TCP_STATES
from meshsieve.policy import Verdict
from meshsieve.traffic_columns import flow_volume

_OPEN = ENDS.index("open")  # the capture ended before the flow did
_ENDED = [TCP_STATES.index("closed"), TCP_STATES.index("reset")]


@dataclass(frozen=True, slots=True)
class RuleStatistics:
    """One rule's counts at one point. Times are ns since 1970, None without a hit.

    A rule of layer 7 (``request_statistics``) has hits that are requests, which the last two counts tell apart, and
    neither packets nor sessions.
    """

    point: str
    rule: str
    source: str
    index: int
    hit_count: int
    packet_count: int
    byte_count: int
    session_count: int
    total_session_count: int
    popularity_index: float
    first_hit_ns: int | None
    last_hit_ns: int | None
    l7_accept_count: int = 0
    l7_reject_count: int = 0


class _PointCounts:
    def __init__(self, size: int) -> None:
        self.hits = np.zeros(size, np.int64)
        self.packets = np.zeros(size, np.int64)
        self.octets = np.zeros(size, np.int64)
        self.sessions = np.zeros(size, np.int64)
        self.open = np.zeros(size, np.int64)
        self.first = np.full(size, np.iinfo(np.int64).max)
        self.last = np.full(size, np.iinfo(np.int64).min)


class RuleCounter:
    """Counts batches of classified flows."""

    def __init__(self, tables: DecisionTables) -> None:
        self._tables = tables
        self._points = [_PointCounts(len(table.point.rules)) for table in tables.points]
        self.end_ns = 0

    def add(self, batch: ClassifiedBatch) -> None:
        """One batch of ``classify_pcap(by="flow")``."""
        extra = batch.headers.extra
        packets, octets = flow_volume(batch.headers)
        first, last = extra["first_ns"], extra["last_ns"]
        still_open = (extra["end_reason"] == _OPEN) & ~np.isin(extra["tcp_state"], _ENDED)
        self.end_ns = max(self.end_ns, int(last.max(initial=0)))
        for counts, answer in zip(self._points, batch.decisions.points, strict=True):
            rows = np.flatnonzero((answer.rule >= 0) & (answer.verdict != Verdict.UNDECIDED))
            rule, size = answer.rule[rows], len(counts.hits)
            if not len(rows):
                continue
            admitted = answer.verdict[rows] == Verdict.ALLOW
            counts.hits += np.bincount(rule, minlength=size)
            counts.sessions += np.bincount(rule[admitted], minlength=size)
            counts.open += np.bincount(rule[admitted & still_open[rows]], minlength=size)
            for total, amount in ((counts.packets, packets), (counts.octets, octets)):
                total += np.bincount(rule, weights=amount[rows], minlength=size).astype(np.int64)
            np.minimum.at(counts.first, rule, first[rows])
            np.maximum.at(counts.last, rule, first[rows])

    def rows(self) -> Iterator[RuleStatistics]:
        """Every rule of every point, in order, those without hits too."""
        for table, counts in zip(self._tables.points, self._points, strict=True):
            for index in range(len(counts.hits)):
                name, source = table.point.rules.label(index)
                hits, sessions = int(counts.hits[index]), int(counts.sessions[index])
                first = int(counts.first[index])
                seconds = max(1.0, (self.end_ns - first) / 1e9) if hits else 1.0
                yield RuleStatistics(
                    table.title,
                    name or f"#{index}",
                    str(source),
                    index,
                    hits,
                    int(counts.packets[index]),
                    int(counts.octets[index]),
                    int(counts.open[index]),
                    sessions,
                    round(sessions / seconds, 6),
                    first if hits else None,
                    int(counts.last[index]) if hits else None,
                )


def statistics_document(rows: list[RuleStatistics]) -> dict[str, Any]:
    """The envelope of NSX's ``/statistics`` calls: results by enforcement point, largest values beside them."""
    results = []
    for point in dict.fromkeys(row.point for row in rows):
        own = [row for row in rows if row.point == point]
        popularity = max((row.popularity_index for row in own), default=0.0)
        sessions = max((row.total_session_count for row in own), default=0)
        results.append(
            {
                "enforcement_point": point,
                "statistics": {
                    "result_count": len(own),
                    "results": [
                        {
                            "internal_rule_id": str(row.index),
                            "max_popularity_index": popularity,
                            "max_session_count": sessions,
                            **{k: v for k, v in asdict(row).items() if k not in ("point", "index")},
                        }
                        for row in own
                    ],
                },
            }
        )
    return {"results": results}


def not_exercised(rows: list[RuleStatistics]) -> list[RuleStatistics]:
    """Rules that decided nothing of this traffic."""
    return [row for row in rows if row.hit_count == 0]
