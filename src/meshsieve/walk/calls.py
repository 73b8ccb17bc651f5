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
from meshsieve.policy import Layer, owner_name
from meshsieve.walk.captured import RequestRows
from meshsieve.walk.request_walk import AUTHORIZATION, ROUTE
from meshsieve.walk.topology import Topology
from meshsieve.walk.verdict import DENIALS

HASH_LABEL = "pod-template-hash"
_FLAGS = {AUTHORIZATION: "UAEX", ROUTE: "NR"}
_CLOSED = [TCP_STATES.index(name) for name in ("closing", "closed", "reset")]
_TCP = 6


class CallCounter:
    """Calls and their verdicts, grouped; ``calls`` gives each group once. Times and sizes of requests are kept one by
    one, some 100 bytes a request.

    flows_with_requests  of every ``add_requests`` so far: flows that ``add_flows`` leaves out
    """

    def __init__(self, layers: Sequence[Layer], topology: Topology | None, cluster: str = UNKNOWN) -> None:
        self._layers = tuple(layers)
        self._topology = topology
        self._cluster = cluster
        self._groups: dict[Hashable, tuple[Call, str]] = {}
        self._samples: dict[Hashable, tuple[list[float], list[int], list[int]]] = defaultdict(lambda: ([], [], []))
        self._workloads: dict[str | None, Workload] = {}
        self._first_ns, self._last_ns = np.iinfo(np.int64).max, 0
        self.flows_with_requests: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)

    def add_requests(self, rows: RequestRows) -> None:
        seen, verdicts = rows.seen, rows.verdicts
        times = verdicts.columns.native.numbers("time_ns", -1)
        times = times[times >= 0]
        self._cover(*((int(times.min()), int(times.max())) if len(times) else (None, None)))
        self.flows_with_requests = np.union1d(self.flows_with_requests, seen["flow_id"])
        for i in range(len(rows)):
            request, observed = verdicts.requests[i], seen.observed(i)
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
            durations, asked, answered = self._samples[key]
            if "duration_ns" in observed:
                durations.append(observed["duration_ns"] / 1e6)
            asked.append(observed["request_body_bytes"])
            answered.append(observed["response_body_bytes"])

    def add_flows(self, batch: ClassifiedBatch) -> None:
        """TCP connections without requests that were read."""
        headers, extra = batch.headers, batch.headers.extra
        if len(batch):
            self._cover(int(extra["first_ns"].min()), int(extra["last_ns"].max()))
        proto = np.broadcast_to(headers["proto"], (len(batch),)) if "proto" in headers else np.zeros(len(batch))
        rows = np.flatnonzero((proto == _TCP) & ~np.isin(extra["flow_id"], self.flows_with_requests))
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
            durations, asked, answered = self._samples.get(key, ((), (), ()))
            yield (
                replace(call, duration_ms=tuple(durations), request_sizes=tuple(asked), response_sizes=tuple(answered)),
                verdict,
            )

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
