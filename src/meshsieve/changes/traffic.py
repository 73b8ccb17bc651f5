"""What a change of policy does to the flows and requests of captures and logs.

What    Every flow and request is judged twice; those whose verdict changes, or whose route leads elsewhere, are counted
        by both deciders, with one of them as a witness and the names of the largest callers and servers.
Cost    twice that of ``classify``; memory is one entry for each pair of deciders.
Limits  Flows are judged by their first packet, as in ``classify``. Packets without a flow are not compared. Of routes
        the clusters, their weights and statuses are compared; what is rewritten and for how long is waited,
        ``routes`` tells.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.changes.model import ALLOW, Answer, Change, answer_of, change_kind
from meshsieve.changes.routes import request_words, route_words
from meshsieve.classification import ClassifiedBatch
from meshsieve.decision import ACTION_NAMES, Decisions, DecisionTables
from meshsieve.http_requests import MASKED, SECRET_HEADERS
from meshsieve.labels import Labels
from meshsieve.observability.talkers import HeavyHitters
from meshsieve.policy import Layer, owner_name
from meshsieve.protocols import WITH_PORTS
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.traffic_columns import flow_volume
from meshsieve.walk.answers import RequestVerdicts
from meshsieve.walk.batch import BatchWalk
from meshsieve.walk.captured import SeenRequests
from meshsieve.walk.request_walk import ROUTE, RequestWalk

NAMED = 5  # callers and servers that a change names
_COUNTED = 256  # of each that are counted for it


@dataclass(slots=True)
class _Group:
    witness: str = ""
    largest: int = -1
    flows: int = 0
    packets: int = 0
    bytes: int = 0
    requests: int = 0
    last_ns: int = 0
    sources: HeavyHitters[str] = field(default_factory=lambda: HeavyHitters(_COUNTED))
    destinations: HeavyHitters[str] = field(default_factory=lambda: HeavyHitters(_COUNTED))

    def change(self, subject: str, kind: str, old: Answer, new: Answer) -> Change:
        sources, destinations = (
            tuple(heavy.key for heavy in ends.top(NAMED)) for ends in (self.sources, self.destinations)
        )
        return Change(
            kind, subject, sources, destinations, self.witness, old, new, self.witness, True,
            self.flows, self.packets, self.bytes, self.requests, self.last_ns,
        )  # fmt: skip


class FlowChanges:
    """Takes batches that the old policy has classified by flow, and judges them again.

    flows, packets, bytes  of all that was compared
    """

    def __init__(self, old: DecisionTables, new: DecisionTables, interfaces: Mapping[str, str] | None = None) -> None:
        self._tables = old, new
        self._labels = Labels(old), Labels(new)
        self._interfaces = dict(interfaces or {})
        self._names = _Names(new.layers, old.layers)
        self._groups: dict[tuple[int, int, int, int], _Group] = {}
        self.flows = self.packets = self.bytes = 0

    def add(self, batch: ClassifiedBatch) -> None:
        """One batch of ``classify_pcap(by="flow")`` under the old policy."""
        new = self._tables[1].decide(batch.headers, self._interfaces)
        packets, octets = flow_volume(batch.headers)
        self.flows += len(batch)
        self.packets += int(packets.sum())
        self.bytes += int(octets.sum())
        rows = np.flatnonzero(batch.decisions.action != new.action)
        if not len(rows):
            return
        keys = np.stack(
            [c[rows].astype(np.int64) for c in (*self._side(0, batch.decisions), *self._side(1, new))], axis=1
        )
        distinct, inverse = np.unique(keys, axis=0, return_inverse=True)
        last = batch.headers.extra["last_ns"]
        ends = batch["src"], batch["dst"]
        for number, key in enumerate(distinct.tolist()):
            these = rows[np.ravel(inverse) == number]
            group = self._groups.setdefault(tuple(key), _Group())
            group.flows += len(these)
            group.packets += int(packets[these].sum())
            group.bytes += int(octets[these].sum())
            group.last_ns = max(group.last_ns, int(last[these].max()))
            for names, column in zip((group.sources, group.destinations), ends, strict=True):
                names.add((self._names.of(column[i]), int(octets[i])) for i in these)
            largest = int(these[np.argmax(octets[these])])
            if int(octets[largest]) > group.largest:
                group.largest, group.witness = int(octets[largest]), _flow_words(batch, largest)

    def _side(self, number: int, decisions: Decisions) -> tuple[Any, Any]:
        return decisions.action, self._labels[number].deciders_of(decisions)

    def found(self) -> Iterable[Change]:
        for (action, decider, then, other), group in self._groups.items():
            answers = self._answer(0, action, decider), self._answer(1, then, other)
            if (kind := change_kind(*answers)) is not None:
                yield group.change("flows", kind, *answers)

    def _answer(self, side: int, action: int, decider: int) -> Answer:
        labels = self._labels[side]
        number, rule = labels.deciders[decider]
        title = self._tables[side].points[number].title if number >= 0 else ""
        default = f"no rule matched, default {ACTION_NAMES[action]}" if number >= 0 else "no enforcement point applies"
        return Answer(
            ACTION_NAMES[action],
            title,
            labels.rules.texts[decider],
            labels.sources.texts[decider],
            "" if rule >= 0 else default,
        )


def _flow_words(batch: ClassifiedBatch, i: int) -> str:
    """The flow's first packet as ``meshsieve explain`` reads it."""
    one = batch.row(i)
    proto = str(one["proto"] or "ip")
    ports = int(np.broadcast_to(batch.headers["proto"], (len(batch),))[i]) in WITH_PORTS
    ends = [_end(str(one[end]), one[port] if ports else None) for end, port in (("src", "sport"), ("dst", "dport"))]
    app = f" app {one['app']}" if one["app"] else ""
    return f"{proto} {ends[0]} > {ends[1]}{app}"


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class RequestChanges:
    """Judges requests under both policies.

    requests  how many were compared
    """

    def __init__(self, old: RequestWalk, new: RequestWalk, *, assume_mtls: bool = False) -> None:
        self._judges = BatchWalk(old), BatchWalk(new)
        self._assume_mtls = assume_mtls
        self._names = _Names(new.tables.layers, old.tables.layers, new, old)
        self._groups: dict[tuple[Answer, Answer], _Group] = {}
        self.requests = 0

    def add(self, seen: SeenRequests) -> None:
        """Some requests of a capture or a log."""
        columns = seen.request_columns()
        self.requests += len(columns)
        sides = [judge.judge(columns, assume_mtls=self._assume_mtls) for judge in self._judges]
        keys = np.stack([codes for verdicts in sides for codes in _codes(verdicts)], axis=1)
        distinct, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        for number in range(len(distinct)):
            answers = _answer(sides[0], int(first[number])), _answer(sides[1], int(first[number]))
            if answers[0] != answers[1] and change_kind(*answers) is not None:
                self._count(answers, seen, columns, np.flatnonzero(np.ravel(inverse) == number))

    def _count(
        self, answers: tuple[Answer, Answer], seen: SeenRequests, columns: RequestColumns, rows: npt.NDArray[np.intp]
    ) -> None:
        group = self._groups.setdefault(answers, _Group())
        for i in rows.tolist():
            request, observed = columns.request(i), seen.observed(i)
            if not group.requests:
                group.witness = request_words(_without_secrets(request))
            group.requests += 1
            group.bytes += observed["request_body_bytes"] + observed["response_body_bytes"]
            group.last_ns = max(group.last_ns, int(seen.row(i)["time_ns"] or 0))
            group.sources.add([(self._names.of(request.source_ip), 1)])
            group.destinations.add([(self._names.of(request.destination_ip), 1)])

    def found(self) -> Iterable[Change]:
        for answers, group in self._groups.items():
            kind = change_kind(*answers)
            assert kind is not None
            yield group.change("logged requests", kind, *answers)


def _codes(verdicts: RequestVerdicts) -> list[npt.NDArray[np.int64]]:
    """What an answer depends on: the layer that decided, its answer, and the route's."""
    decider = verdicts.decider.astype(np.int64)
    by_layer = np.stack([layer.codes for layer in verdicts.layers]).astype(np.int64)
    decided = by_layer[np.maximum(decider, 0), np.arange(len(decider))]
    return [decider, np.where(decider < 0, -1, decided), by_layer[-3]]


def _answer(verdicts: RequestVerdicts, i: int) -> Answer:
    """What one side says to request ``i``. What would have to differ is left out: it is another for each request."""
    found, route = answer_of(verdicts.deciding(i)), verdicts.layers[-3][i]
    where = route_words(dict(route.facts), route.status) if found.action == ALLOW and route.layer == ROUTE else ""
    return replace(found, reason=found.reason.partition("; would be allowed by")[0], route=where)


def _without_secrets(request: Request) -> Request:
    """Credentials masked, and no query, which may hold what nobody should see."""
    headers = tuple((name, MASKED if name.lower() in SECRET_HEADERS else value) for name, value in request.headers)
    return replace(request, headers=headers, path=request.path.partition("?")[0])


class _Names:
    """Who has an address: a workload, a machine, else the address."""

    def __init__(self, new: Iterable[Layer], old: Iterable[Layer], *walks: RequestWalk) -> None:
        self._layers = (*new, *old)
        self._topologies = [walk.policy.topology for walk in walks if walk.policy.topology is not None]
        self._known: dict[str | None, str] = {}

    def of(self, address: str | None) -> str:
        known = self._known.get(address)
        if known is None:
            if len(self._known) > 100_000:
                self._known.clear()  # a cache
            known = self._known[address] = self._named(address)
        return known

    def _named(self, address: str | None) -> str:
        if address is None:
            return "?"
        for topology in self._topologies:
            if (place := topology.at(address)) is not None:
                return place.title
        number = ipaddress.ip_address(address)
        return owner_name(self._layers, number.version, int(number)) or address
