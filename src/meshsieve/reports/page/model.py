"""What a report says, as plain values: every writer shows the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshsieve.observability.rule_statistics import RuleStatistics
from meshsieve.summary import RuleCount, Summary

if TYPE_CHECKING:
    from meshsieve.walk.overlap import Overlap


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of traffic: the machine or pod that owns the address, else the address itself."""

    name: str
    known: bool


@dataclass(slots=True)
class Link:
    """Traffic from one peer to another, by verdict. verdicts: flows by action name."""

    source: Peer
    target: Peer
    flows: int = 0
    packets: int = 0
    bytes: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)

    @property
    def worst(self) -> str:
        """The verdict that wants to be seen first."""
        return min(self.verdicts, key=lambda action: SEVERITY.index(action), default="NONE")


@dataclass(frozen=True, slots=True)
class ServiceTotal:
    """Traffic to one port of one peer."""

    peer: Peer
    proto: str
    port: int
    app: str
    flows: int
    packets: int
    bytes: int
    verdicts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Talker:
    """Traffic that one rule decided, from one peer to a port of another. exact: not an upper bound."""

    source: Peer
    target: Peer
    port: int
    bytes: int
    exact: bool


@dataclass(frozen=True, slots=True)
class OverlapMatrix:
    """Who protects whom: classes by pair of ends, those first that want attention.

    totals   (class, meaning, pairs, flows, bytes, requests)
    sources, destinations, cells  of the matrix: cells[i][j] is the class of a pair, "" where none is known
    rows     pairs, the ones to look at first first
    left_out pairs that the matrix and the rows have no room for
    """

    totals: tuple[tuple[str, str, int, int, int, int], ...]
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    rows: tuple[Overlap, ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Packets over time by action, in equal bins."""

    start_ns: tuple[int, ...]
    width_ns: int
    series: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """Requests that agree in all of this. rule: the one that decided, else the reason; status: 0 = no answer seen."""

    action: str
    layer: str
    rule: str
    source: str
    client: Peer
    server: Peer
    method: str
    target: str
    status: int
    count: int = 0


@dataclass(frozen=True, slots=True)
class Requests:
    """What was asked over HTTP and gRPC. by_action: requests by verdict; groups: the largest, denied ones first."""

    by_action: dict[str, int]
    groups: tuple[RequestGroup, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a reader should look at."""

    level: str
    what: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """links and services are the largest ones, largest first; ``exact`` says that none was pushed out on the way.

    logs     files of requests; flows that the report is about come from captures alone
    talkers  by rule: (point, rule, source, action)
    more  by section, how many rows there are beside those shown (at least so many, where not ``exact``)
    """

    title: str
    captures: tuple[str, ...]
    policies: tuple[str, ...]
    command: str
    version: str
    first_ns: int
    last_ns: int
    summary: Summary
    times: Times
    links: tuple[Link, ...]
    services: tuple[ServiceTotal, ...]
    apps: tuple[tuple[str, int, int, int], ...]
    rules: tuple[RuleStatistics, ...]
    findings: tuple[Finding, ...]
    exact: bool
    requests: Requests | None = None
    logs: tuple[str, ...] = ()
    talkers: dict[RuleKey, tuple[Talker, ...]] = field(default_factory=dict)
    overlap: OverlapMatrix | None = None
    more: Mapping[str, int] = field(default_factory=dict)

    def talkers_of(self, rule: RuleCount) -> tuple[Talker, ...]:
        return self.talkers.get((rule.point, rule.rule, rule.source, rule.action), ())

    @property
    def headline(self) -> str:
        """What the page comes to, in a sentence or two."""
        parts = []
        if self.summary.total.flows:
            parts.append(_sentence("flows", {a: c.flows for a, c in self.summary.verdicts.items()}))
        if self.requests is not None:
            parts.append(_sentence("requests", self.requests.by_action))
        unused = sum(rule.hit_count == 0 for rule in self.rules)
        if unused and self.summary.total.flows:
            parts.append(f"{unused:,} of {len(self.rules):,} rules decided nothing.")
        return " ".join(parts) or "No traffic."


def _sentence(what: str, counts: dict[str, int]) -> str:
    total = sum(counts.values())
    denied = counts.get("DROP", 0) + counts.get("REJECT", 0)
    open_ = counts.get("UNDECIDED", 0) + counts.get("PENDING", 0)
    parts = [f"{denied:,} of {total:,} {what} are denied" if denied else f"none of {total:,} {what} is denied"]
    parts += [f"{open_:,} cannot be decided"] if open_ else []
    return ", ".join(parts).capitalize() + "."


RuleKey = tuple[str, str | None, str | None, str]


# Verdicts, the one to look at first first.
SEVERITY = ("DROP", "REJECT", "UNDECIDED", "PENDING", "NO_MATCH", "NONE", "ALLOW")
