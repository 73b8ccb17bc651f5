"""Many requests through all layers: the answers of ``request_walk``, worked out once for what many requests share.

What     Requests are grouped by their ends and by what leads to a table: proxy, host, port, protocol. Each group is one
         look-up of many requests in a compiled table; each distinct answer (a route, a rule, a pair of workloads)
         becomes words once. The rows hold codes.
Why      ``RequestWalk.judge`` explains one request; a capture or an access log has millions.
Cost     per request its part of a route look-up, an authorization look-up and a look-up a point of layers 2-4
Limits   A request that a table leaves without a route, or that is denied because no rule matched, is asked again by
         ``judge``'s means for its reason; equal ones once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.request import Request
from meshsieve.walk.request_walk import (
    AUTHORIZATION,
    CONNECTION,
    ENDPOINT,
    NO_CONNECTION,
    ROUTE,
    Connection,
    Ends,
    RequestWalk,
    authorization_verdict,
    connection_of,
    endpoint_verdict,
    first_packets,
    point_verdict,
    with_identity,
    with_only_server,
)
from meshsieve.walk.verdict import ALLOW, DENIALS, NONE, UNDECIDED, LayerVerdict, RequestVerdict

Codes = npt.NDArray[np.int32]


class Answers:
    """Distinct answers of a layer, by code."""

    def __init__(self) -> None:
        self.verdicts: list[LayerVerdict] = []
        self._codes: dict[Hashable, int] = {}

    def code(self, key: Hashable, found: LayerVerdict) -> int:
        """The code of the answer with this key; ``found`` is kept where the key is new."""
        known = self._codes.setdefault(key, len(self.verdicts))
        if known == len(self.verdicts):
            self.verdicts.append(found)
        return known

    def known(self, key: Hashable) -> int | None:
        return self._codes.get(key)


class LayerColumn:
    """One layer's answers to n requests: ``codes`` int32 (n,) into ``answers``, which grows from batch to batch."""

    def __init__(self, name: str, codes: Codes, answers: Answers) -> None:
        self.name = name
        self.codes = codes
        self.answers = answers

    def __getitem__(self, i: int) -> LayerVerdict:
        return self.answers.verdicts[int(self.codes[i])]


class RequestVerdicts:
    """The answers to n requests.

    layers   in the order in which requests meet them; those of ``at_gateway``, bool (n,), have the route after the
             authorization
    decider  int16 (n,): position in ``layers`` of the one that decided, -1 if none did
    """

    def __init__(
        self,
        requests: Sequence[Request],
        layers: Sequence[LayerColumn],
        decider: npt.NDArray[np.int16],
        at_gateway: npt.NDArray[np.bool_],
    ) -> None:
        self.requests = requests
        self.layers = tuple(layers)
        self.decider = decider
        self.at_gateway = at_gateway

    def __len__(self) -> int:
        return len(self.requests)

    def deciding(self, i: int) -> LayerVerdict | None:
        """The answer that decided request ``i``."""
        at = int(self.decider[i])
        return None if at < 0 else self.layers[at][i]

    def action(self, i: int) -> str:
        found = self.deciding(i)
        return NONE if found is None else found.verdict

    def verdict(self, i: int) -> RequestVerdict:
        """All of request ``i`` as one object. Facts that differ from request to request (the path that is sent on) are
        those of the first request with the same answer."""
        request = self.requests[i]
        title = f"{request.method} {request.scheme}://{request.authority}{request.path}"
        found = [layer[i] for layer in self.layers]
        if self.at_gateway[i]:
            found[-3], found[-2] = found[-2], found[-3]
        return RequestVerdict(title, tuple(found))


class BatchWalk:
    """Judges batches; keeps what it has put into words. Threads: one at a time."""

    def __init__(self, walk: RequestWalk) -> None:
        self._walk = walk
        self._answers: dict[str, Answers] = defaultdict(Answers)
        self._ends: dict[tuple[str | None, str | None, str | None, str | None], Ends] = {}
        self._deciding: dict[tuple[int, ...], int] = {}

    def judge(
        self,
        requests: Iterable[Request],
        *,
        client: str | None = None,
        server: str | None = None,
        assume_mtls: bool = False,
    ) -> RequestVerdicts:
        """Arguments as for ``RequestWalk.judge``."""
        batch = list(requests)
        ends = [self._ends_of(request, client, server) for request in batch]
        at_gateway = np.fromiter((e.server is not None and e.server.is_gateway for e in ends), np.bool_, len(batch))
        route, endpoint, found = self._routes(batch, ends, at_gateway)
        batch_ends = [with_only_server(e, f) for e, f in zip(ends, found, strict=True)]
        if assume_mtls:
            batch = [with_identity(request, e) for request, e in zip(batch, batch_ends, strict=True)]
        points = self._connections(batch, batch_ends)
        authorization = self._authorizations(batch, batch_ends)
        columns = {ROUTE: route, AUTHORIZATION: authorization, ENDPOINT: endpoint}
        layers = [*points, *(LayerColumn(name, codes, self._answers[name]) for name, codes in columns.items())]
        return RequestVerdicts(batch, layers, self._deciders(layers, at_gateway), at_gateway)

    # --- who

    def _ends_of(self, request: Request, client: str | None, server: str | None) -> Ends:
        key = (request.source_ip, request.destination_ip, client, server)
        known = self._ends.get(key)
        if known is None:
            if len(self._ends) > 1_000_000:
                self._ends.clear()  # a cache: what is met again is looked up again
            known = self._ends[key] = self._walk.ends(request, client, server)
        return known

    # --- layers 2-4

    def _connections(self, batch: Sequence[Request], ends: Sequence[Ends]) -> list[LayerColumn]:
        tables, labels = self._walk.tables, self._walk.labels
        if not tables.points:
            return []
        connections: list[Connection] = []
        row_of: dict[Connection | None, int] = {None: -1}
        rows = np.zeros(len(batch), np.int64)
        for i, (request, end) in enumerate(zip(batch, ends, strict=True)):
            connection = connection_of(request, end)
            row = row_of.get(connection)
            if row is None:
                assert connection is not None
                row = row_of[connection] = len(connections)
                connections.append(connection)
            rows[i] = row
        answers = self._answers[CONNECTION]
        unknown = answers.code("unknown", NO_CONNECTION)
        known = rows >= 0
        decisions = tables.decide(first_packets(connections)) if connections else None
        out = []
        for number, table in enumerate(tables.points):
            codes = np.full(len(batch), unknown, np.int32)
            if decisions is not None:
                answer = decisions.points[number]
                decider = labels.point_deciders(number, answer)
                pairs, inverse = np.unique(decider.astype(np.int64) << 8 | answer.verdict, return_inverse=True)
                words = [point_verdict(table, labels, int(pair) >> 8, int(pair) & 0xFF) for pair in pairs]
                coded = [answers.code((number, int(p)), w) for p, w in zip(pairs, words, strict=True)]
                codes[known] = np.array(coded, np.int32)[inverse][rows[known]]
            out.append(LayerColumn(table.title, codes, answers))
        return out

    # --- routes

    def _routes(
        self, batch: Sequence[Request], ends: Sequence[Ends], at_gateway: npt.NDArray[np.bool_]
    ) -> tuple[Codes, Codes, list[Any]]:
        """Codes of the routes' answers, codes of the endpoints', and the workloads that each route may lead to."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i, (request, end) in enumerate(zip(batch, ends, strict=True)):
            groups[self._walk.route_key(request, end, bool(at_gateway[i]))].append(i)
        routes, endpoints = self._answers[ROUTE], self._answers[ENDPOINT]
        route = np.zeros(len(batch), np.int32)
        endpoint = np.zeros(len(batch), np.int32)
        found: list[Any] = [None] * len(batch)
        for group, rows in groups.items():
            end, gateway = ends[rows[0]], bool(at_gateway[rows[0]])
            for key, members in self._same_route([batch[i] for i in rows], end, gateway).items():
                first = rows[members[0]]
                match, verdict, candidates = self._walk.route(batch[first], end, gateway)
                code = routes.code((key, group), verdict)
                asked = with_only_server(end, candidates)
                to = endpoint_verdict(match, candidates, None if gateway else asked.server)
                at = endpoints.code((to.verdict, to.reason), to)
                for member in members:
                    i = rows[member]
                    route[i], endpoint[i], found[i] = code, at, candidates
        return route, endpoint, found

    def _same_route(self, group: Sequence[Request], end: Ends, gateway: bool) -> dict[Hashable, list[int]]:
        """Positions in ``group`` by the route that takes them; requests without one by what they are. Tables do not
        look at the connection, which ``seen_by_client`` would change."""
        table = self._walk.table(group[0], end, gateway)
        out: dict[Hashable, list[int]] = defaultdict(list)
        if table is None:
            return {"no table": list(range(len(group)))}
        indices = table.match_batch(group)
        for position, index in enumerate(indices.tolist()):
            request = group[position]
            if index < 0 or request.claims is not None:
                out[id(table), request.method, request.authority, request.path, request.headers].append(position)
            else:
                out[id(table), index].append(position)
        return out

    # --- authorization

    def _authorizations(self, batch: Sequence[Request], ends: Sequence[Ends]) -> Codes:
        answers = self._answers[AUTHORIZATION]
        codes = np.zeros(len(batch), np.int32)
        groups: dict[int, list[int]] = defaultdict(list)
        for i, end in enumerate(ends):
            groups[id(end.server)].append(i)
        for rows in groups.values():
            server = ends[rows[0]].server
            authorizer = self._walk.policy.authorizer
            if authorizer is None or server is None or server.proxy is None:
                verdict = self._walk.authorization(batch[rows[0]], ends[rows[0]])
                codes[rows] = answers.code(verdict.reason, verdict)
                continue
            asked = [batch[i] for i in rows]
            allowed, rule = authorizer.decide_batch(asked, server.workload)
            for position, i in enumerate(rows):
                request = asked[position]
                key: Hashable = (id(server), bool(allowed[position]), int(rule[position]))
                if rule[position] < 0:
                    key = (key, _without_time(request))
                code = answers.known(key)
                if code is None:
                    code = answers.code(key, authorization_verdict(authorizer.decide(request, server.workload)))
                codes[i] = code
        return codes

    # --- together

    def _deciders(self, layers: Sequence[LayerColumn], at_gateway: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
        """The rule of ``RequestVerdict`` for every row; at a gateway authorization comes before the route."""
        weights = [np.array([_strength(v) for v in x.answers.verdicts], np.int8)[x.codes] for x in layers]
        numbers = [np.full(len(at_gateway), i, np.int16) for i in range(len(layers))]
        route, authorization = len(layers) - 3, len(layers) - 2
        for both in (weights, numbers):
            both[route], both[authorization] = (
                np.where(at_gateway, both[authorization], both[route]),
                np.where(at_gateway, both[route], both[authorization]),
            )
        out = np.full(len(at_gateway), -1, np.int16)
        strength = np.zeros(len(at_gateway), np.int8)
        for weight, number in zip(weights, numbers, strict=True):
            # Of equal answers the first counts that denies or is undecided, and the last that allows.
            stronger = (weight > strength) | ((weight == strength) & (weight > 0) & (weight <= _ALLOWED_BY_RULE))
            out[stronger] = number[stronger]
            strength[stronger] = weight[stronger]
        return out


_ALLOWED_BY_DEFAULT, _ALLOWED_BY_RULE, _UNDECIDED, _DENIED = 1, 2, 3, 4


def _strength(found: LayerVerdict) -> int:
    if found.verdict in DENIALS:
        return _DENIED
    if found.verdict == UNDECIDED:
        return _UNDECIDED
    if found.verdict == ALLOW:
        return _ALLOWED_BY_RULE if found.rule else _ALLOWED_BY_DEFAULT
    return 0


def _without_time(request: Request) -> Hashable:
    """What an authorization decision can depend on."""
    structured = tuple(id(value) for value in (request.claims, request.dynamic_metadata, request.filter_state) if value)
    return (
        request.method, request.scheme, request.authority, request.path, request.headers, request.source_ip,
        request.destination_ip, request.destination_port, request.remote_ip, request.principal, request.sni, structured,
    )  # fmt: skip
