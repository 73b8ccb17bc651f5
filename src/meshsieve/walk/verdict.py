"""What a walk answers: every layer's decision, and the final one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from meshsieve.observability.traceflow import End, Observation, Step, observations, result_document

ALLOW, DROP, REJECT, UNDECIDED, NONE = "ALLOW", "DROP", "REJECT", "UNDECIDED", "NONE"
DENIALS = (DROP, REJECT)


@dataclass(frozen=True, slots=True)
class LayerVerdict:
    """One layer's answer.

    verdict  ALLOW, DROP, REJECT (the client gets an answer), UNDECIDED; NONE: the layer was not asked, ``reason`` says
             why
    rule     the rule that decided, source where it is written
    status   of the answer that a proxy gives itself
    facts    what else the layer found out: cluster, endpoints, mTLS mode
    """

    layer: str
    verdict: str
    reason: str
    rule: str | None = None
    source: str | None = None
    status: int | None = None
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def why(self) -> str:
        """The reason, and the rule that came nearest where none matched."""
        return "; ".join((self.reason, *(text for name, text in self.facts if name == "nearest")))


@dataclass(frozen=True, slots=True)
class RequestVerdict:
    """A request's way, layer by layer.

    request  METHOD URL
    ends     who asks and who is asked, for the trace
    action   DROP or REJECT if a layer denies it, else UNDECIDED if one is, else ALLOW if one allows it, else NONE
    decider  the layer that decided: the first that denies; the first that is undecided; of those that allow the last
             one whose rule matched
    """

    request: str
    layers: tuple[LayerVerdict, ...]
    ends: tuple[End, End] = (End(None, None), End(None, None))

    @property
    def decider(self) -> LayerVerdict | None:
        return _decider(self.layers)

    @property
    def action(self) -> str:
        decider = self.decider
        return NONE if decider is None else decider.verdict

    @property
    def allowed(self) -> bool:
        return self.action == ALLOW

    def layer(self, name: str) -> LayerVerdict | None:
        """The answer of the layer of that name."""
        return next((found for found in self.layers if found.layer == name), None)

    @property
    def observations(self) -> list[Observation]:
        """The walk in the words of NSX Traceflow (``observability.traceflow``)."""
        steps = [
            Step(v.layer, None if v.verdict == NONE else v.verdict, v.reason, v.rule, v.source) for v in self.layers
        ]
        return observations(steps, *self.ends)

    def traceflow(self) -> dict[str, Any]:
        """The document of NSX's Traceflow calls; the packet is the request."""
        return result_document(self.observations, {"request": self.request})

    def __str__(self) -> str:
        from meshsieve.reports.text import request_verdict_text

        return request_verdict_text(self)

    def _repr_html_(self) -> str:
        from meshsieve.reports.html import request_verdict_html

        return request_verdict_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        decider = self.decider
        return {
            "request": self.request,
            "action": self.action,
            "layer": decider.layer if decider else None,
            "rule": decider.rule if decider else None,
            "source": decider.source if decider else None,
            "reason": decider.why if decider else "no layer judges it",
            "layers": [{**asdict(found), "facts": dict(found.facts)} for found in self.layers],
            "observations": self.observations,
        }


def _decider(layers: Sequence[LayerVerdict]) -> LayerVerdict | None:
    for wanted in (DENIALS, (UNDECIDED,)):
        for found in layers:
            if found.verdict in wanted:
                return found
    allowing = [found for found in layers if found.verdict == ALLOW]
    return next((found for found in reversed(allowing) if found.rule), allowing[-1] if allowing else None)
