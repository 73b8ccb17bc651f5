"""Two answers to one question, and what kind of change lies between them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshsieve.walk.verdict import LayerVerdict

ALLOW, NOT_ASKED = "ALLOW", ("NONE", "NO_MATCH")
DENIALS, OPEN = ("DROP", "REJECT"), ("UNDECIDED", "PENDING")

OPENED, CLOSED, UNDECIDED, DECIDED = "opened", "closed", "undecided", "decided"
REROUTED, ANSWER, COVERAGE = "rerouted", "answer", "coverage"
# What wants attention first.
KINDS = (OPENED, CLOSED, UNDECIDED, REROUTED, COVERAGE, DECIDED, ANSWER)
MEANING = {
    OPENED: "was denied, is allowed",
    CLOSED: "was allowed, is denied",
    UNDECIDED: "was decided, depends on something that the policies do not say",
    REROUTED: "goes elsewhere, or is changed on its way in another manner",
    COVERAGE: "no rule of one of the two policies speaks of it",
    DECIDED: "depended on something that the policy did not say, is decided",
    ANSWER: "is denied in another way: dropped in silence, or told",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one policy says. where: the enforcement point or layer that decided; route: where a request goes."""

    action: str
    where: str = ""
    rule: str | None = None
    source: str | None = None
    reason: str = ""
    route: str = ""

    def __str__(self) -> str:
        by = self.rule or self.reason
        return " ".join(part for part in (self.action, f"by {by}" if by else "", self.route) if part)


def answer_of(found: LayerVerdict | None) -> Answer:
    """A layer's answer to a request. Its reason counts only where no rule decided."""
    if found is None:
        return Answer("NONE", reason="no layer judges it")
    return Answer(found.verdict, found.layer, found.rule, found.source, "" if found.rule else found.reason)


def change_kind(old: Answer, new: Answer) -> str | None:
    """The kind of change from one answer to another; None where nothing changes but who decides."""
    if old.action == new.action:
        return REROUTED if old.action == ALLOW and old.route != new.route else None
    if new.action in OPEN:
        return None if old.action in OPEN else UNDECIDED
    if old.action in OPEN:
        return DECIDED
    if old.action in NOT_ASKED or new.action in NOT_ASKED:
        return COVERAGE
    if old.action in DENIALS and new.action in DENIALS:
        return ANSWER
    return OPENED if new.action == ALLOW else CLOSED


@dataclass(frozen=True, slots=True)
class Change:
    """Something that the two policies answer differently.

    subject   what it is: "connections", "requests" (from the policies), "flows", "logged requests" (from traffic)
    sources, destinations  names of who asks whom
    what      the connections or requests, in words
    witness   one of them, as ``meshsieve explain`` reads it
    exact     False: found by trying, so that there may be more of the kind
    flows, packets, bytes, requests  traffic that is affected; 0 where none was looked at
    """

    kind: str
    subject: str
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    what: str
    old: Answer
    new: Answer
    witness: str
    exact: bool = True
    flows: int = 0
    packets: int = 0
    bytes: int = 0
    requests: int = 0
    last_ns: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        values["from"], values["to"] = list(values.pop("sources")), list(values.pop("destinations"))
        return values
