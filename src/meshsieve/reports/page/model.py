"""What a report says, as plain values: every writer shows the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshsieve.observability.rule_statistics import RuleStatistics
from meshsieve.summary import Summary


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
    """links and services are the largest ones, largest first; ``exact`` says that none was pushed out on the way."""

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


# Verdicts, the one to look at first first.
SEVERITY = ("DROP", "REJECT", "UNDECIDED", "PENDING", "NO_MATCH", "NONE", "ALLOW")
