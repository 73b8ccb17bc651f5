"""From verdicts of captured requests and flows to calls: what metrics and graphs count (``observability.calls``).

A request is a call over http or grpc; a TCP flow that carried no request that could be read is a call over tcp.
What Istio's proxies would say of a denial stands in its flags: ``UAEX`` for authorization, ``NR`` for no route.
Source: Envoy's access log documentation (response flags).
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.classification import ClassifiedBatch
from meshsieve.flows import TCP_STATES
from meshsieve.mesh.workloads import Workload as MeshWorkload
from meshsieve.observability.calls import UNKNOWN, Call, Service, Workload
from meshsieve.observability.histogram import HistogramCounter
from meshsieve.policy import Layer, owner_name
from meshsieve.walk.captured import RequestRows
from meshsieve.walk.request_walk import AUTHORIZATION, ROUTE
from meshsieve.walk.topology import Topology
from meshsieve.walk.verdict import DENIALS

HASH_LABEL = "pod-template-hash"
_FLAGS = {AUTHORIZATION: "UAEX", ROUTE: "NR"}
_CLOSED = [TCP_STATES.index(name) for name in ("closing", "closed", "reset")]
_TCP = 6
_KEPT_ADDRESSES = 100_000


class _Samples:
    """Times and sizes of the requests of a group."""

    def __init__(self) -> None:
        self.durations, self.asked, self.answered = HistogramCounter(), HistogramCounter(), HistogramCounter()

    def of(self, call: Call) -> Call:
        return replace(
            call,
            duration_ms=self.durations.histogram,
            request_sizes=self.asked.histogram,
            response_sizes=self.answered.histogram,
        )


class CallCounter:
    """Calls and their verdicts, grouped; ``calls`` gives each group once. Memory grows with the groups and with
    the number of flows, a byte each, not with requests.
    """

    def __init__(self, layers: Sequence[Layer], topology: Topology | None, cluster: str = UNKNOWN) -> None:
        self._layers = tuple(layers)
        self._topology = topology
        self._cluster = cluster
        self._groups: dict[Hashable, tuple[Call, str]] = {}
        self._samples: dict[Hashable, _Samples] = defaultdict(_Samples)
        self._workloads: dict[str | None, Workload] = {}
        self._first_ns, self._last_ns = np.iinfo(np.int64).max, 0
        self._has_requests = np.zeros(1, np.bool_)  # by flow id, which counts up from 1

    def add_requests(self, rows: RequestRows) -> None:
        seen, verdicts = rows.seen, rows.verdicts
        times = verdicts.columns.native.numbers("time_ns", -1)
        times = times[times >= 0]
        self._cover(*((int(times.min()), int(times.max())) if len(times) else (None, None)))
        self._mark(seen["flow_id"])
        for i, request in enumerate(verdicts.requests):
            observed = seen.observed(i)
            decider = verdicts.deciding(i)
            denied = decider is not None and decider.verdict in DENIALS
            call = Call(
                self._workload(request.source_ip, request.principal),
                self._workload(request.destination_ip),
                self._service(verdicts.layers[-3][i].facts, request.destination_ip),
                "grpc" if "grpc_service" in observed else "http",
                int(observed.get("status", 0)),
                str(observed.get("grpc_status", "")) if "grpc_service" in observed else "",
                _FLAGS.get(decider.layer, "-") if denied and decider is not None else "-",
                "mutual_tls" if request.principal is not None else "none",
            )
            key = (call, verdicts.action(i))
            self._count(
                key, call, verdicts.action(i), 1, observed["request_body_bytes"], observed["response_body_bytes"]
            )
            samples = self._samples[key]
            if "duration_ns" in observed:
                samples.durations.add(observed["duration_ns"] / 1e6)
            samples.asked.add(observed["request_body_bytes"])
            samples.answered.add(observed["response_body_bytes"])

    def _mark(self, flows: npt.NDArray[np.uint64]) -> None:
        """These flows had requests, so that ``add_flows`` leaves them out."""
        most = int(flows.max(initial=0))
        if most >= len(self._has_requests):
            more = np.zeros(max(most + 1, 2 * len(self._has_requests)) - len(self._has_requests), np.bool_)
            self._has_requests = np.concatenate([self._has_requests, more])
        self._has_requests[flows] = True
        self._has_requests[0] = False  # no flow at all

    def add_flows(self, batch: ClassifiedBatch) -> None:
        """TCP connections without requests that were read."""
        headers, extra = batch.headers, batch.headers.extra
        if len(batch):
            self._cover(int(extra["first_ns"].min()), int(extra["last_ns"].max()))
        proto = np.broadcast_to(headers["proto"], (len(batch),)) if "proto" in headers else np.zeros(len(batch))
        ids = np.where(extra["flow_id"] < len(self._has_requests), extra["flow_id"], 0)
        rows = np.flatnonzero((proto == _TCP) & ~self._has_requests[ids])
        if not len(rows):
            return
        ends = batch["src"], batch["dst"]
        actions = batch["action"]
        closed = np.isin(extra["tcp_state"], _CLOSED)
        for i in rows.tolist():
            call = Call(self._workload(ends[0][i]), self._workload(ends[1][i]), self._service((), ends[1][i]), "tcp")
            key = (call, str(actions[i]))
            asked, answered = int(extra["bytes"][i]), int(extra["bytes_reply"][i])
            self._count(key, call, str(actions[i]), 1, asked, answered, int(closed[i]))

    def _cover(self, first_ns: int | None, last_ns: int | None) -> None:
        if first_ns is not None and last_ns is not None:
            self._first_ns, self._last_ns = min(self._first_ns, first_ns), max(self._last_ns, last_ns)

    @property
    def seconds(self) -> float:
        """How long the traffic lasted."""
        return max(0.0, (self._last_ns - self._first_ns) / 1e9)

    def calls(self) -> Iterator[tuple[Call, str]]:
        """Each group with the name of its final verdict, in the order in which they were met."""
        for key, (call, verdict) in self._groups.items():
            samples = self._samples.get(key)
            yield (call if samples is None else samples.of(call)), verdict

    def _count(
        self, key: Hashable, call: Call, verdict: str, count: int, asked: int, answered: int, closed: int = 0
    ) -> None:
        known = self._groups.get(key)
        before = known[0] if known is not None else replace(call, count=0)
        total = replace(
            before,
            count=before.count + count,
            closed=before.closed + closed,
            request_bytes=before.request_bytes + asked,
            response_bytes=before.response_bytes + answered,
        )
        self._groups[key] = (total, verdict)

    def _workload(self, address: str | None, principal: str | None = None) -> Workload:
        known = self._workloads.get(address)
        if known is None:
            if len(self._workloads) > _KEPT_ADDRESSES:
                self._workloads.clear()  # a cache: what is met again is looked up again
            known = self._workloads[address] = self._facts(address)
        return known if principal is None else replace(known, principal=f"spiffe://{principal}")

    def _facts(self, address: str | None) -> Workload:
        place = self._topology.at(address) if self._topology is not None else None
        if place is None:
            return Workload(self._machine(address) or UNKNOWN, cluster=self._cluster)
        workload = place.workload
        return Workload.of_labels(workload_name(workload), workload.namespace, workload.labels, cluster=self._cluster)

    def _machine(self, address: str | None) -> str | None:
        if address is None:
            return None
        number = ipaddress.ip_address(address)
        return owner_name(self._layers, number.version, int(number))

    def _service(self, facts: tuple[tuple[str, str], ...], address: str | None) -> Service:
        """The service of the route's cluster; without a route, an address that nobody known has is one by itself."""
        parts = dict(facts).get("cluster", "").split("|")
        if len(parts) == 4:
            name, _, rest = parts[3].partition(".")
            namespace = rest.split(".")[0]
            return Service(parts[3], name, namespace or UNKNOWN)
        if address is None or self._workload(address).name != UNKNOWN:
            return Service()
        return Service(address)


def workload_name(workload: MeshWorkload) -> str:
    """The controller that people know: of a ReplicaSet made by a Deployment, the Deployment."""
    owner, _, kind = workload.owner.partition("[")
    name = owner.partition("/")[2] or workload.name
    suffix = f"-{workload.labels.get(HASH_LABEL, '')}"
    return name.removesuffix(suffix) if kind.startswith("ReplicaSet") and len(suffix) > 1 else name


def count_calls(
    engine: Any,
    captures: list[str],
    *,
    assume_mtls: bool,
    logs: Iterable[RequestRows] = (),
    progress: Any = None,
    **how: Any,
) -> CallCounter:
    """All calls of captures, which are read twice: for their requests, then for the connections without any; and those
    of ``logs``."""
    mesh = engine.mesh
    counter = CallCounter(engine.layers, mesh.topology if mesh is not None else None)
    for rows in logs:
        counter.add_requests(rows)
    if not captures:
        return counter
    if mesh is not None:
        for rows in engine.classify_requests(captures, assume_mtls=assume_mtls, progress=progress, **how):
            counter.add_requests(rows)
    for batch in engine.classify_pcap(captures, progress=progress, **how):
        counter.add_flows(batch)
    return counter
