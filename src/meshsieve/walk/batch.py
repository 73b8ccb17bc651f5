"""Many requests through all layers: the answers of ``request_walk``, by columns.

What     Requests are columns from beginning to end: who is at both ends, the table that chooses the route, identities,
         authorization and verdicts are numbers. What leads to an answer is a row of numbers, too; each new one is
         answered once by ``RequestWalk``'s means, and found again by its code in this batch and in later ones.
Why      ``RequestWalk.judge`` explains one request; a capture or an access log has millions.
Cost     docs/walk.md has the figures. Per request a look-up in its route table, one in the authorization table of all
         workloads, its connection's look-up at every point of layers 2-4, and some hashing.
Limits   Rows become ``Request`` objects where only Python can answer: tokens, requests that the proxy refuses, routes
         whose cluster a header names. What is remembered is bounded; beyond, it is found out anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from meshsieve import _core
from meshsieve.authz.decision import unauthenticated
from meshsieve.authz.rows import MTLS, REFUSED, decide_rows
from meshsieve.authz.selection import Place as PolicyPlace
from meshsieve.columns import PacketColumns
from meshsieve.decision import PointDecisions
from meshsieve.errors import ModelError
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.walk.answers import Answers, Codes, KeyedAnswers, LayerColumn, RequestVerdicts
from meshsieve.walk.batch_routes import BatchEnds, BatchRoutes, Ints
from meshsieve.walk.places import Places
from meshsieve.walk.request_walk import (
    AUTHORIZATION,
    ENDPOINT,
    NO_CONNECTION,
    ROUTE,
    Ends,
    RequestWalk,
    authorization_verdict,
    point_verdict,
    syn_packets,
)
from meshsieve.walk.verdict import LayerVerdict

# Keys that are remembered: some 200 bytes each.
_REMEMBERED = 500_000


class BatchWalk:
    """Judges batches; keeps what it has put into words. Threads: one at a time."""

    def __init__(self, walk: RequestWalk) -> None:
        self._walk = walk
        self._places = Places(walk.policy.topology)
        workloads = [place.workload for place in self._places.places]
        self._policy_places = [PolicyPlace(w.namespace, w.labels, w.name) for w in workloads]
        self._forget()

    def _forget(self) -> None:
        self._routes = BatchRoutes(self._walk, self._places)
        self._points = Answers()
        self._point_codes = KeyedAnswers(self._points)
        self._authorization_codes = KeyedAnswers(Answers())

    def judge(
        self,
        requests: Any,
        *,
        client: str | None = None,
        server: str | None = None,
        assume_mtls: bool = False,
    ) -> RequestVerdicts:
        """Arguments as for ``RequestWalk.judge``; requests: what ``RequestColumns.of`` takes.

        raises  ColumnError for columns that do not fit together, UsageError, ModelError
        """
        if max(len(self._routes), len(self._authorization_codes)) > _REMEMBERED:
            self._forget()
        columns = RequestColumns.of(requests)
        ends = BatchEnds(
            self._places, self._who(columns, "source_ip", client), self._who(columns, "destination_ip", server)
        )
        route, endpoint, asked = self._routes.judge(columns, ends)
        if assume_mtls:
            columns = self._with_identities(columns, ends.client, asked)
        points = self._connections(columns, ends.client, asked)
        authorization = self._authorizations(columns, asked)
        layers = [
            *points,
            LayerColumn(ROUTE, route, self._routes.routes),
            LayerColumn(AUTHORIZATION, authorization, self._authorization_codes.answers),
            LayerColumn(ENDPOINT, endpoint, self._routes.endpoints),
        ]
        return RequestVerdicts(columns, layers, ends.at_gateway)

    # --- who

    def _who(self, columns: RequestColumns, field: str, name: str | None) -> Ints:
        """Who is at one end, by name where it is given, else by address."""
        topology = self._walk.policy.topology
        if topology is None:
            return np.full(len(columns), self._places.nobody, np.int32)
        if name is not None:
            return np.full(len(columns), self._places.number(topology.named(name)), np.int32)
        return self._places.at(*columns.native.addresses(field))

    def _with_identities(self, columns: RequestColumns, client: Ints, server: Ints) -> RequestColumns:
        """Between workloads with proxies, the client's service account where the request names no identity."""
        places = self._places
        assumed = places.has_proxy[client] & places.has_proxy[server] & ~columns.native.holds("principal", b"")
        if not assumed.any():
            return columns
        return columns.with_peers(np.where(assumed, client, -1).astype(np.int32), [p.identity for p in places.places])

    # --- layers 2-4

    def _connections(self, columns: RequestColumns, client: Ints, server: Ints) -> list[LayerColumn]:
        tables = self._walk.tables
        if not tables.points:
            return []
        rows, packets = self._first_packets(columns, client, server)
        decisions = tables.decide(packets) if len(packets) else None
        known = rows >= 0
        out = []
        for number, table in enumerate(tables.points):
            codes = np.full(len(columns), self._points.code(NO_CONNECTION), np.int32)
            if decisions is not None:
                codes[known] = self._point_answers(number, decisions.points[number])[rows[known]]
            out.append(LayerColumn(table.title, codes, self._points))
        return out

    def _point_answers(self, number: int, found: PointDecisions) -> Codes:
        table, labels = self._walk.tables.points[number], self._walk.labels
        deciders = labels.point_deciders(number, found)

        def word(row: int) -> LayerVerdict:
            return point_verdict(table, labels, int(deciders[row]), int(found.verdict[row]))

        return self._point_codes.of([np.full(len(deciders), number), deciders, found.verdict], word)

    def _first_packets(self, columns: RequestColumns, client: Ints, server: Ints) -> tuple[Ints, PacketColumns]:
        """By request the row of its connection, -1 where it does not say both ends; the first packet of each."""
        native, places = columns.native, self._places
        ends = []
        for field, who in (("source_ip", client), ("destination_ip", server)):
            words, version = native.addresses(field)
            absent = version == 0
            if absent.any():
                words[absent], version[absent] = places.words[who[absent]], places.version[who[absent]]
            ends.append((words, version))
        (source, version), (destination, other) = ends
        sport, dport = native.numbers("source_port", -1), native.numbers("destination_port", -1)
        known = np.flatnonzero((version > 0) & (other > 0) & (dport >= 0))
        mixed = known[version[known] != other[known]]
        if len(mixed):
            request = columns.request(int(mixed[0]))
            raise ModelError(
                f"a connection from {request.source_ip} to {request.destination_ip}: the addresses differ in IP version"
            )
        keys = [*source.view(np.int64).T, *destination.view(np.int64).T, version.astype(np.int64), sport, dport]
        codes, firsts = _core.RowIndex().codes([np.ascontiguousarray(key[known]) for key in keys])
        rows = np.full(len(columns), -1, np.int32)
        rows[known] = codes
        at = known[firsts]
        return rows, syn_packets(source[at], destination[at], version[at], sport[at], dport[at])

    # --- authorization

    def _authorizations(self, columns: RequestColumns, server: Ints) -> Codes:
        authorizer, codes = self._walk.policy.authorizer, self._authorization_codes
        enforced = self._places.has_proxy[server]
        if authorizer is None or not enforced.any():
            return codes.of([server], lambda row: self._not_enforced(int(server[row])))
        found = decide_rows(authorizer, columns, self._policy_places, np.where(enforced, server, -1))
        own = np.where(found.by == MTLS, columns.native.numbers("destination_port", -1), 0)
        for row, token in found.tokens.items():
            own[row] = codes.answers.code(authorization_verdict(unauthenticated(token.status or 401, token.reason)))

        def word(row: int) -> LayerVerdict:
            if not enforced[row]:
                return self._not_enforced(int(server[row]))
            decision = authorizer.decide(columns.request(row), self._policy_places[server[row]])
            return authorization_verdict(decision)

        for row in np.flatnonzero(found.by == REFUSED).tolist():
            own[row] = codes.answers.code(word(row))
        return codes.of([server, found.by, found.allowed, found.rule, found.as_tcp, own], word)

    def _not_enforced(self, server: int) -> LayerVerdict:
        return self._walk.authorization(Request(), Ends(None, self._places[server]))
