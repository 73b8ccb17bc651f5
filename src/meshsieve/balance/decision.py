"""What a balancer decided, in one form for Kubernetes, Istio and NSX."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from meshsieve.balance.hosts import Host


class Outcome(enum.Enum):
    """ENDPOINT: one host for certain. CANDIDATES: several, with chances. NO_ENDPOINT: nobody can take it (HTTP 503)."""

    ENDPOINT = "endpoint"
    CANDIDATES = "candidates"
    NO_ENDPOINT = "no-endpoint"
    REDIRECT = "redirect"
    REJECT = "reject"
    DROP = "drop"
    PASSTHROUGH = "passthrough"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Snat:
    """Source addresses that the server may see: "client" (its own), "automap" (the gateway's), "pool", "node".

    forwarded_for: what becomes of X-Forwarded-For: "" nothing, INSERT the client is added, REPLACE it stands alone
    """

    mode: str
    addresses: tuple[str, ...] = ()
    forwarded_for: str = ""


@dataclass(frozen=True)
class Decision:
    """candidates: (host, chance) pairs that sum to 1, or none. explain: the steps that led here, in order."""

    outcome: Outcome
    candidates: tuple[tuple[Host, Fraction], ...] = ()
    pool: str = ""
    answer_class: str = "exact"
    status: int | None = None
    location: str = ""
    snat: Snat | None = None
    persistence: str = "none"
    limits: tuple[str, ...] = ()
    explain: tuple[str, ...] = ()
    source: str = ""

    @property
    def endpoint(self) -> Host | None:
        """The host, if there is only one."""
        return self.candidates[0][0] if self.outcome is Outcome.ENDPOINT else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome.value,
            "candidates": [{"host": host.name, "chance": float(chance)} for host, chance in self.candidates],
            "pool": self.pool,
            "class": self.answer_class,
            "status": self.status,
            "location": self.location,
            "snat": None if self.snat is None else asdict(self.snat),
            "persistence": self.persistence,
            "limits": list(self.limits),
            "explain": list(self.explain),
            "source": self.source,
        }


def among(hosts: Sequence[Host], shares: Sequence[Fraction] | None = None) -> dict[str, Any]:
    """Outcome, candidates and class of a choice by chance among hosts: uniform unless shares are given."""
    if not hosts:
        return {"outcome": Outcome.NO_ENDPOINT}
    if len(hosts) == 1:
        return {"outcome": Outcome.ENDPOINT, "candidates": ((hosts[0], Fraction(1)),)}
    chances = shares or [Fraction(1, len(hosts))] * len(hosts)
    return {
        "outcome": Outcome.CANDIDATES,
        "candidates": tuple(zip(hosts, chances, strict=True)),
        "answer_class": "distribution",
    }
