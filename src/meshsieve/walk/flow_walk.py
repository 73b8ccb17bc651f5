"""One flow of a capture explained: what it is, why its first packet gets its verdict, and what every layer says to the
requests that it carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from meshsieve.bounds import packet_words
from meshsieve.classification import ClassifiedBatch
from meshsieve.columns import PacketColumns
from meshsieve.errors import UsageError
from meshsieve.explanation import Explanation, explain
from meshsieve.model import FIELD_INDEX
from meshsieve.packet_text import parse_packet
from meshsieve.request import Request
from meshsieve.walk.verdict import RequestVerdict

if TYPE_CHECKING:
    from meshsieve.engine import Engine

MAX_REQUESTS = 100  # that are explained one by one
_ENDS = ("src_ip", "dst_ip", "sport", "dport", "proto")


@dataclass(frozen=True, slots=True)
class FlowExplanation:
    """flow: its row as ``classify`` gives it; packet: its first packet; requests: those that it carried, in clear text,
    the first of them if there are ``more``."""

    flow: Mapping[str, Any]
    packet: Explanation
    requests: tuple[RequestVerdict, ...] = ()
    more: int = 0

    @property
    def action(self) -> str:
        return self.packet.action

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "flow": dict(self.flow),
            "packet": self.packet.to_dict(),
            "requests": [request.to_dict() for request in self.requests],
            "more_requests": self.more,
        }

    def __str__(self) -> str:
        from meshsieve.reports.text import flow_explanation_text

        return flow_explanation_text(self)

    def _repr_html_(self) -> str:
        from meshsieve.reports.html import flow_explanation_html

        return flow_explanation_html(self)


def explain_flow(
    engine: Engine,
    captures: Sequence[Any],
    which: str | int,
    *,
    interfaces: Mapping[str, str] | None = None,
    assume_mtls: bool = False,
    **how: Any,
) -> FlowExplanation:
    """The flow that ``which`` names: its number (``flow`` of requests, counted from 1), its Community ID, or its ends
    as ``tcp 10.0.0.1:4242 > 10.0.0.2:443`` in either direction. Of several with these ends the first.

    how     which packets are wanted, as for ``Engine.classify_pcap``
    raises  UsageError if there is no such flow
    """
    interfaces = dict(interfaces or {})
    for batch in engine.classify_pcap(captures, iif=interfaces.get("iif"), oif=interfaces.get("oif"), **how):
        row = _row_of(batch, str(which))
        if row is None:
            continue
        headers = batch.headers.take(np.array([row]))
        found = explain(engine.tables, headers, interfaces)
        number = int(batch.headers.extra["flow_id"][row])
        requests, more = _requests(engine, captures, number, assume_mtls, how)
        return FlowExplanation({"flow": number, **batch.row(row)}, found, requests, more)
    raise UsageError(
        f"no flow of the capture is '{which}'; name its number, its community_id, or its ends such as "
        "'tcp 10.0.0.1:4242 > 10.0.0.2:443'"
    )


def _row_of(batch: ClassifiedBatch, which: str) -> int | None:
    if which.isascii() and which.isdigit():
        numbers = batch.headers.extra["flow_id"].tolist()
        return numbers.index(int(which)) if int(which[:19]) in numbers else None
    if which.startswith("1:"):
        ids = batch["community_id"].tolist()
        return ids.index(which) if which in ids else None
    wanted = parse_packet(which)
    values = _words(wanted, 0)
    turned = {**values, "src_ip": values["dst_ip"], "dst_ip": values["src_ip"]}
    turned |= {"sport": values["dport"], "dport": values["sport"]}
    proto = np.broadcast_to(batch.headers["proto"], (len(batch),))
    for i in np.flatnonzero(proto == int(wanted["proto"][0])):
        if _words(batch.headers, int(i)) in (values, turned):
            return int(i)
    return None


def _words(headers: PacketColumns, i: int) -> dict[str, Any]:
    """The ends of one packet as numbers; None where a field is missing."""
    by_number = {FIELD_INDEX[name]: name for name in _ENDS}
    found: dict[str, Any] = dict.fromkeys(_ENDS)
    for field, high, low in packet_words(headers, i):
        if field in by_number:
            found[by_number[field]] = high << 64 | low
    return found


def _requests(
    engine: Engine, captures: Sequence[Any], number: int, assume_mtls: bool, how: Mapping[str, Any]
) -> tuple[tuple[RequestVerdict, ...], int]:
    if engine.mesh is None or "-" in captures:  # standard input cannot be read a second time
        return (), 0
    found: list[RequestVerdict] = []
    more = 0
    for rows in engine.classify_requests(captures, assume_mtls=assume_mtls, **how):
        for i in np.flatnonzero(rows.seen["flow_id"] == number):
            if len(found) < MAX_REQUESTS:
                request = Request(**rows.seen.row(int(i)))
                found.append(engine.judge_request(request, assume_mtls=assume_mtls))
            else:
                more += 1
    return tuple(found), more
