"""Where do layers 2-4 and layer 7 overlap? For every pair of ends and port: which of them protects, exactly, from the
policies alone.

What    A4 is what layers 2-4 allow of a connection (set algebra, ``connectivity``), A7 what the server's proxy allows
        of requests on it (``authz.matrix``, over all methods). R4 and R7 say whether the layer restricts the pair at
        all: somebody's rule keeps some connection, or some request, from passing.
Why     One system guards addresses and ports, the other identities and methods. Which of them a service depends on, and
        where the two contradict each other, neither can say.
Classes both        both restrict and agree: defence in depth
        L4 only     no identity is checked: whoever has the address may be anyone
        L7 only     every connection passes: protection depends on the proxy being in the path
        neither     open
        conflict    layer 7 allows somebody by name whom layers 2-4 drop: a dead rule, or an outage to come
        hole        layers 2-4 allow a connection on which layer 7 denies everything
        undecided   one of the two cannot be decided from the policies
Limits  Ports are those of the services in front of a workload; a machine without workload is asked as a whole. A
        workload without a proxy restricts nothing on layer 7.
Source  The question of the project's source document; definitions in spec form by the project.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from meshsieve.authz.matrix import METHODS, NOBODY, Caller, Question
from meshsieve.connectivity import Connections, Endpoint, Reach, connectivity
from meshsieve.policy import owner_name
from meshsieve.walk.candidates import candidate_requests, serving_ports
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.topology import Place

if TYPE_CHECKING:
    from meshsieve.classification import ClassifiedBatch
    from meshsieve.engine import Engine
    from meshsieve.walk.captured import RequestRows

BOTH, L4_ONLY, L7_ONLY, NEITHER = "both", "L4 only", "L7 only", "neither"
CONFLICT, HOLE, UNDECIDED = "conflict", "hole", "undecided"
CLASSES = (CONFLICT, HOLE, NEITHER, L4_ONLY, L7_ONLY, BOTH, UNDECIDED)
MEANING = {
    BOTH: "both restrict and agree: defence in depth",
    L4_ONLY: "no identity is checked: whoever has the address may be anyone",
    L7_ONLY: "every connection passes: protection depends on the proxy being in the path",
    NEITHER: "open",
    CONFLICT: "layer 7 allows somebody by name whom layers 2-4 drop",
    HOLE: "layers 2-4 allow a connection on which layer 7 denies everything",
    UNDECIDED: "cannot be decided from the policies alone",
}
_TCP = 6
_CLIENT_PORT = 40_000
_TOGETHER = 4096  # connections that are judged at a time
Connection = tuple[str, int | None, str, int]
_Key = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Overlap:
    """One pair and port. port None: any.

    l4, l7   all, some, none or ?: of connections to the port (of any port), and of requests on it
    packet   a connection that shows it, as ``meshsieve explain`` reads it
    request  a request that shows it, with what becomes of it; None where layer 7 has no say
    rules    who decides the witnesses: (layer, rule, source)
    """

    source: str
    destination: str
    port: int | None
    kind: str
    l4: str
    l7: str
    packet: str
    request: str | None
    rules: tuple[tuple[str, str, str], ...]
    flows: int = 0
    bytes: int = 0
    requests: int = 0

    def to_dict(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "to": self.destination,
            "port": self.port,
            "class": self.kind,
            "l4": self.l4,
            "l7": self.l7,
            "packet": self.packet,
            "request": self.request,
            "rules": [{"layer": layer, "rule": rule, "source": source} for layer, rule, source in self.rules],
            "flows": self.flows,
            "bytes": self.bytes,
            "requests": self.requests,
        }


def overlaps(engine: Engine) -> Iterator[Overlap]:
    """Every pair of ends that some layer knows, with every port that the server's services have.

    raises  UsageError if the configuration says nothing about packets, or nothing about requests
    """
    question = _Pairs(engine)
    waiting: list[tuple[Overlap, Connection]] = []  # whose connection has no rule yet: many are judged at a time
    for pair in question.pairs():
        waiting.append(pair)
        if len(waiting) == _TOGETHER:
            yield from question.with_rules(waiting)
            waiting = []
    yield from question.with_rules(waiting)


class _Pairs:
    def __init__(self, engine: Engine) -> None:
        self._walk = engine.request_walk
        policy: MeshPolicy = self._walk.policy
        self._topology, self._authorizer = policy.topology, policy.authorizer
        self._questions: dict[tuple[str, str], Question] = {}
        self._requests: dict[object, tuple[str, str | None, tuple[str, str, str] | None]] = {}

    def pairs(self) -> Iterator[tuple[Overlap, Connection]]:
        """Each pair and port once, with its witness; the rule that decides that is not known yet."""
        seen: set[tuple[str, str, int | None]] = set()
        for reach in connectivity(self._walk.tables.layers):
            client, server = self._place(reach.src), self._place(reach.dst)
            source = reach.src.name if client is None else client.title
            destination = reach.dst.name if server is None else server.title
            for port in self._ports(reach, server):
                key = (source, destination, port)
                # A pod is an end by its own name and by that of the worker whose interface carries it.
                if source != destination and key not in seen:
                    seen.add(key)
                    yield self._judged(reach, client, server, port, key)

    def _ports(self, reach: Reach, server: Place | None) -> Sequence[int | None]:
        if server is None:
            return (None,) if reach.dst.owned else ()
        assert self._authorizer is not None
        return serving_ports(self._authorizer.services, server.workload) or (None,)

    def _place(self, end: Endpoint) -> Place | None:
        if self._topology is None or not end.owned:
            return None
        return self._topology.at(_text(end))

    def _judged(
        self, reach: Reach, client: Place | None, server: Place | None, port: int | None, key: _Key
    ) -> tuple[Overlap, Connection]:
        l4 = _l4(reach, port)
        l7, request, rule7 = ("all", None, None) if server is None else self._l7(client, server, port)
        at = port if port is not None else _some_port(reach.allowed if l4 != "none" else None)
        ends = _text(reach.src), _text(reach.dst)
        packet = f"tcp {_end(ends[0], _CLIENT_PORT)} > {_end(ends[1], at)}"
        kind = _class(l4, l7, restricts4=not reach.allowed.everything)
        rules = (rule7,) if rule7 is not None else ()
        return Overlap(*key, kind, l4, l7, packet, request, rules), (ends[0], _CLIENT_PORT, ends[1], at)

    # --- layer 7

    def _l7(
        self, client: Place | None, server: Place, port: int | None
    ) -> tuple[str, str | None, tuple[str, str, str] | None]:
        if self._authorizer is None or server.proxy is None:
            return "all", None, None
        identity = client.identity if client is not None and client.proxy is not None else None
        addresses = client.workload.addresses if client is not None else ()
        key = (identity, addresses, server.title, port)
        known = self._requests.get(key)
        if known is None:
            caller = Caller(client.title if client is not None else NOBODY, identity, addresses)
            known = self._requests[key] = self._asked(caller, server, port)
        return known

    def _asked(
        self, caller: Caller, server: Place, port: int | None
    ) -> tuple[str, str | None, tuple[str, str, str] | None]:
        assert self._authorizer is not None
        place = self._authorizer.place(server.workload)
        assert place is not None
        where = (server.workload.namespace, server.workload.name)
        if where not in self._questions:
            self._questions[where] = Question(self._authorizer, place, server.workload)
        states = {self._questions[where].decide(caller, method).state for method in METHODS}
        if "unknown" in states:
            answer = "?"
        elif states == {"allowed"}:
            answer = "all"
        else:
            answer = "none" if states == {"denied"} else "some"
        return answer, *self._request(caller, server, port, wanted=answer in ("all", "some"))

    def _request(
        self, caller: Caller, server: Place, port: int | None, *, wanted: bool
    ) -> tuple[str | None, tuple[str, str, str] | None]:
        """A request that is allowed (or, with ``wanted`` False, denied), and the rule that says so."""
        assert self._authorizer is not None
        chain = self._authorizer.chain(server.workload)
        for request in candidate_requests((chain,), caller, server.workload, port):
            decision = self._authorizer.decide(request, server.workload)
            if decision.allowed == wanted:
                rule = decision.rule or decision.policy or decision.by
                source = str(decision.source) if decision.source else ""
                text = f"{request.method} http://{request.authority}{request.path}"
                return f"{text}: {'allowed' if wanted else 'denied'}", ("authorization", rule, source)
        return None, None

    # --- layers 2-4

    def with_rules(self, found: Sequence[tuple[Overlap, Connection]]) -> Iterator[Overlap]:
        """The same, each with the rule that decides its connection before that of its request."""
        from meshsieve.walk.request_walk import first_packets, point_verdict

        if not found:
            return
        tables, labels = self._walk.tables, self._walk.labels
        decisions = tables.decide(first_packets([connection for _, connection in found]))
        deciders = [labels.point_deciders(number, answer) for number, answer in enumerate(decisions.points)]
        for i, (overlap, _) in enumerate(found):
            number = int(decisions.point[i])
            if number < 0:
                yield overlap
                continue
            verdict = int(decisions.points[number].verdict[i])
            said = point_verdict(tables.points[number], labels, int(deciders[number][i]), verdict)
            rule = (said.layer, said.rule or said.reason, said.source or "")
            yield replace(overlap, rules=(rule, *overlap.rules))


def _class(l4: str, l7: str, *, restricts4: bool) -> str:
    restricts7 = l7 != "all"
    if "?" in (l4, l7):
        return UNDECIDED
    if l4 == "none" and restricts7 and l7 == "some":
        return CONFLICT
    if l4 != "none" and l7 == "none":
        return HOLE
    if restricts4 and restricts7:
        return BOTH
    if restricts4:
        return L4_ONLY
    return L7_ONLY if restricts7 else NEITHER


def _l4(reach: Reach, port: int | None) -> str:
    """all, some, none of the connections to the port, or ? where one cannot be decided."""
    if _takes(reach.undecided, port):
        return "?"
    if not _takes(reach.allowed, port):
        return "none"
    return "all" if port is None and reach.allowed.everything else "all" if port is not None else "some"


def _takes(connections: Connections, port: int | None) -> bool:
    if port is None:
        return bool(connections)
    return any(ports.contains(port) for _, ports in connections.regions.get(_TCP, ()))


def _some_port(connections: Connections | None) -> int:
    boxes = connections.regions.get(_TCP, ()) if connections is not None else ()
    return next((ports.v4[0][0] for _, ports in boxes if ports.v4 and ports.v4[0][0]), 80)


def _text(end: Endpoint) -> str:
    kind = ipaddress.IPv4Address if end.version == 4 else ipaddress.IPv6Address
    return str(kind(end.address))


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Traffic:
    """What captures hold of each pair and port: flows, bytes, requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._names: dict[str | None, str] = {}
        self._seen: dict[tuple[str, str, int], list[int]] = {}

    def add_flows(self, batch: ClassifiedBatch) -> None:
        rows = zip(batch["src"], batch["dst"], batch["dport"].tolist(), batch["bytes"].tolist(), strict=True)
        for source, destination, port, size in rows:
            counts = self._counts(source, destination, port)
            counts[0] += 1
            counts[1] += size

    def add_requests(self, rows: RequestRows) -> None:
        for request in rows.verdicts.requests:
            self._counts(request.source_ip, request.destination_ip, request.destination_port or 0)[2] += 1

    def of(self, found: Overlap) -> Overlap:
        """The same with its traffic."""
        keys = self._ports(found)
        flows, octets, requests = (sum(self._seen[k][i] for k in keys) for i in range(3))
        return replace(found, flows=flows, bytes=octets, requests=requests)

    def _ports(self, found: Overlap) -> list[tuple[str, str, int]]:
        if found.port is not None:
            key = (found.source, found.destination, found.port)
            return [key] if key in self._seen else []
        return [k for k in self._seen if k[:2] == (found.source, found.destination)]

    def _counts(self, source: str | None, destination: str | None, port: int) -> list[int]:
        key = (self._name(source), self._name(destination), port)
        return self._seen.setdefault(key, [0, 0, 0])

    def _name(self, address: str | None) -> str:
        known = self._names.get(address)
        if known is None:
            known = self._names[address] = self._named(address)
        return known

    def _named(self, address: str | None) -> str:
        if address is None:
            return "?"
        topology = self._engine.request_walk.policy.topology
        place = topology.at(address) if topology is not None else None
        if place is not None:
            return place.title
        number = ipaddress.ip_address(address)
        return owner_name(self._engine.layers, number.version, int(number)) or self._outside(number)

    def _outside(self, number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        for end in self._outsiders:
            if end.version == number.version and any(low <= int(number) <= high for low, high in end.addresses):
                return end.name
        return str(number)

    @cached_property
    def _outsiders(self) -> list[Endpoint]:
        ends = {id(e): e for reach in connectivity(self._engine.layers) for e in (reach.src, reach.dst) if not e.owned}
        return list(ends.values())


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """How many pairs of a class there are, and what of the traffic was theirs."""

    kind: str
    pairs: int
    flows: int
    bytes: int
    requests: int


def totals(found: Sequence[Overlap]) -> list[ClassTotal]:
    """By class, what wants attention first."""
    out = []
    for kind in CLASSES:
        mine = [o for o in found if o.kind == kind]
        if mine:
            amounts = (sum(o.flows for o in mine), sum(o.bytes for o in mine), sum(o.requests for o in mine))
            out.append(ClassTotal(kind, len(mine), *amounts))
    return out
