"""Routes of many requests: the table that each comes to, then one look-up a table.

What     Which table a request comes to follows from few things: whose proxy chooses, the port, what its host means to
         that proxy, how the connection looks. Requests that agree in all of them are a *connection*; its table is found
         once. The rows of a table are one look-up; what the route and the virtual host say becomes words once.
Hosts    A name that no Service has means nothing to the choice of a table, whatever it is, so a request with a host of
         its own costs no more than others.
Own      What a route does may depend on more than the route: the draw of a weighted split, a header that names the
         cluster. Splits by ``random_value`` are drawn here; other such requests are answered one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.mesh.istio.mesh import is_grpc_type, with_claims
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.model import Forward, Route
from meshsieve.routes.router import REFUSED, Match, Router
from meshsieve.walk.answers import Answers, Codes, KeyedAnswers, Numbers
from meshsieve.walk.places import Places
from meshsieve.walk.request_walk import Ends, RequestWalk, endpoint_verdict
from meshsieve.walk.topology import Place
from meshsieve.walk.verdict import LayerVerdict

Ints = npt.NDArray[np.int32]

# In place of a table: the connection decides by itself; with the help of the request's random value.
_NO_TABLE, _NO_TABLE_DRAWN = -1, -2
CONTENT_TYPE = "content-type"
_NOT_ASKED = -9  # in place of a route
# Kinds of schemes and content types.
_ABSENT, _PLAIN, _HTTPS, _GRPC, _ODD = -1, 0, 1, 2, 3
_KNOWN_AND_PRESENTED = 5  # bits of the column ``tls``


class BatchEnds:
    """Who asks, who is asked and whose proxy chooses the route, as numbers of ``Places``; all int32 or bool (n,)."""

    def __init__(self, places: Places, client: Ints, server: Ints) -> None:
        self.places = places
        self.client, self.server = client, server
        self.at_gateway = places.is_gateway[server]
        chooser = np.where(self.at_gateway, server, np.where(places.is_gateway[client], places.nobody, client))
        self.chooser = np.where(places.has_proxy[chooser], chooser, places.nobody).astype(np.int32)

    def of(self, row: int) -> Ends:
        return Ends(self.places[int(self.client[row])], self.places[int(self.server[row])])


@dataclass(frozen=True, slots=True)
class _Found:
    """match: what the route says; candidates: the workloads that it may lead to, None: not known."""

    match: Match | None
    candidates: list[Place] | None


class _Table:
    """A table, and which of its routes answer each request on its own.

    own     bool by route: what it does depends on more of the request than ``random_value``
    totals  uint64 by route: sum of the weights of a split, 0 where there is none
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        weights = [_weights(route) for route in router.routes]
        self.own = np.array([w is None for w in weights], np.bool_)
        self.totals = np.array([sum(w or ()) for w in weights], np.uint64)
        self._begins = np.cumsum(self.totals) - self.totals
        self._ends = np.cumsum(np.array([x for w in weights for x in w or ()], np.uint64))

    def draw(self, routes: Ints, random: npt.NDArray[np.uint64]) -> Numbers:
        """int64: whose weight each request's point falls into, counted over all splits of the table."""
        points = self._begins[routes] + random % self.totals[routes]
        return np.searchsorted(self._ends, points, side="right").astype(np.int64)


def _weights(route: Route) -> tuple[int, ...] | None:
    """Weights of a split; () where the route does the same to every request; None where that is each request's own."""
    action = route.action
    if not isinstance(action, Forward) or action.cluster is not None or action.plugin is not None:
        return ()
    by_request = action.cluster_header is not None or action.weight_header is not None
    by_hash = action.weight_by_hash and action.hash_policy
    if by_request or by_hash or any(not entry.name for entry in action.weighted):
        return None
    return tuple(entry.weight for entry in action.weighted)


def _configurations(walk: RequestWalk, places: Places) -> Numbers:
    """int64 by place: equal for those whose proxies choose routes alike; -1 for nobody."""
    mesh = walk.policy.mesh
    if mesh is None:
        return np.full(places.nobody + 1, -1, np.int64)
    known: dict[object, int] = {}
    keys = [None if p.proxy is None else (p.gateway, mesh.istio.configuration_key(p.proxy)) for p in places.places]
    return np.array([*(known.setdefault(key, len(known)) for key in keys), -1], np.int64)


class _Texts:
    """A text of requests by code, and its kind: what ``kind`` says of the text and its code."""

    def __init__(self, name: str, kind: Callable[[bytes, int], int] = lambda text, code: code) -> None:
        self._name, self._kind = name, kind
        self._index = _core.TextIndex()
        self._kinds = np.full(1, _ABSENT, np.int64)  # by code; the last: absent

    def of(self, columns: RequestColumns) -> Numbers:
        """int64 (n,): the kind of each request's text."""
        if self._name == CONTENT_TYPE:
            codes, firsts = self._index.header_codes(columns.native, b"content-type")
        else:
            codes, firsts = self._index.codes(columns.native, self._name)
        if len(firsts):
            new = [self._kind(self._index.value(code), code) for code in codes[firsts].tolist()]
            self._kinds = np.concatenate([self._kinds[:-1], np.array([*new, _ABSENT], np.int64)])
        return self._kinds[codes]

    def __len__(self) -> int:
        return len(self._index)


def _scheme_kind(text: bytes, code: int) -> int:
    return _HTTPS if text == b"https" else _ODD + code


def _content_kind(text: bytes, code: int) -> int:
    """Whether it is gRPC's; what begins like it, and several lines of which one does, is a kind by itself."""
    if not text.startswith(b"application/grpc"):
        return _PLAIN
    whole = b"\n" not in text and is_grpc_type(text.decode("latin-1"))
    return _GRPC if whole else _ODD + code


class BatchRoutes:
    """The routes of one policy. Keeps what it has found; ``len`` says how much."""

    def __init__(self, walk: RequestWalk, places: Places) -> None:
        self._walk = walk
        self._places = places
        self._configuration = _configurations(walk, places)
        mesh = walk.policy.mesh
        names = mesh.istio.config.registry.spellings if mesh is not None else []
        self._hosts = _core.HostIndex([name.encode("utf-8", "surrogateescape") for name in names])
        self._scheme, self._content = _Texts("scheme", _scheme_kind), _Texts(CONTENT_TYPE, _content_kind)
        self._sni, self._alpn = _Texts("sni"), _Texts("alpn")
        self._connections = _core.RowIndex()
        self._table_of = np.zeros(0, np.int64)  # by connection
        self._tables: list[_Table] = []
        self._numbers: dict[int, int] = {}  # of tables, by id
        self._own: dict[LayerVerdict, int] = {}
        self.routes, self.endpoints = Answers(), Answers()
        self._keys = _core.RowIndex()
        self._found: list[_Found] = []  # by key, as are these two
        self._route_codes = np.zeros(0, np.int32)
        self._only_server = np.zeros(0, np.int32)
        self._endpoint_codes = KeyedAnswers(self.endpoints)

    def __len__(self) -> int:
        texts = [len(text) for text in (self._scheme, self._sni, self._alpn, self._content)]
        return max(len(self._hosts), len(self._connections), len(self._keys), len(self._own), *texts)

    def judge(self, columns: RequestColumns, ends: BatchEnds) -> tuple[Codes, Codes, Ints]:
        """Codes of the routes' answers and of the endpoints', and who the server is where a route tells."""
        if self._walk.policy.mesh is not None:
            contexts = [with_claims(context) for context in columns.contexts]
            columns = columns.with_contexts(columns.native.numbers("context", 0), contexts)
        scheme, content = self._scheme.of(columns), self._content.of(columns)
        connection = self._connection_codes(columns, ends, scheme, content)
        keys = self._route_keys(columns, ends, connection, scheme, content)
        nobody = self._places.nobody
        server = np.where(ends.server == nobody, self._only_server[keys], ends.server).astype(np.int32)
        seen = np.where(ends.at_gateway, nobody, server)

        def endpoint(row: int) -> LayerVerdict:
            found = self._found[keys[row]]
            return endpoint_verdict(found.match, found.candidates, self._places[int(seen[row])])

        return self._route_codes[keys], self._endpoint_codes.of([keys, seen], endpoint), server

    # --- connections

    def _connection_codes(
        self,
        columns: RequestColumns,
        ends: BatchEnds,
        scheme: Numbers,
        content: Numbers,
    ) -> Ints:
        """int32 (n,): equal for requests that come to the same table, for all that ``RequestWalk.table`` looks at."""
        native, nobody = columns.native, self._places.nobody
        if self._walk.policy.routes is not None:
            keys = [np.zeros(len(columns), np.int64)]
        else:
            sni, alpn = self._sni.of(columns), self._alpn.of(columns)
            chosen = ends.chooser != nobody
            by_client = chosen & ~ends.at_gateway
            named = by_client & (ends.server != nobody)  # the client chose by the name, not by the address
            unnamed = chosen & (scheme == _HTTPS) & (sni == _ABSENT)  # its host is the server's name to TLS
            host, port = self._hosts.codes(native, unnamed.astype(np.uint8))
            words, version = native.addresses("destination_ip")
            aimed = chosen & ~named
            keys = [
                self._configuration[ends.chooser],
                np.where(chosen, -1, ends.client),  # why nobody chooses
                ends.at_gateway + 2 * named,
                np.where(by_client | unnamed, host, -1),
                *(np.where(chosen, column, 0) for column in (port, scheme, sni, alpn, content)),
                np.where(chosen, native.numbers("tls", 0) & _KNOWN_AND_PRESENTED, 0),
                np.where(chosen, native.numbers("destination_port", -1), 0),
                *(np.where(aimed, column, 0) for column in (*words.view(np.int64).T, version)),
            ]
        codes, firsts = self._connections.codes([np.ascontiguousarray(key, np.int64) for key in keys])
        if len(firsts):
            new = [self._table(columns.request(row), ends, row) for row in firsts.tolist()]
            self._table_of = np.concatenate([self._table_of, np.array(new, np.int64)])
        return codes

    def _table(self, request: Request, ends: BatchEnds, row: int) -> int:
        """The number of the table that a request comes to, or why there is none."""
        who, at_gateway = ends.of(row), bool(ends.at_gateway[row])
        router = self._walk.table(request, who, at_gateway)
        if router is None:
            match = self._walk.route(request, who, at_gateway)[0]
            return _NO_TABLE_DRAWN if match is not None and len(match.clusters) > 1 else _NO_TABLE
        number = self._numbers.setdefault(id(router), len(self._tables))
        if number == len(self._tables):
            self._tables.append(_Table(router))
        return number

    # --- routes

    def _route_keys(
        self,
        columns: RequestColumns,
        ends: BatchEnds,
        connection: Ints,
        scheme: Numbers,
        content: Numbers,
    ) -> Ints:
        """int32 (n,): equal for requests that get the same answer."""
        n = len(columns)
        table = self._table_of[connection]
        route, host = np.full(n, _NOT_ASKED, np.int32), np.full(n, -1, np.int32)
        drawn, own = np.full(n, -1, np.int64), table == _NO_TABLE_DRAWN
        numbers = np.unique(table)
        for number in numbers[numbers >= 0].tolist():
            rows = np.flatnonzero(table == number) if len(numbers) > 1 else np.arange(n)
            self._look_up(self._tables[number], columns, rows.astype(np.int64), (route, host, drawn, own))
        missed = (table >= 0) & (route < 0)
        own_code = np.full(n, -1, np.int64)
        for row in np.flatnonzero(own).tolist():
            verdict = self._walk.route(columns.request(row), ends.of(row), bool(ends.at_gateway[row]))[1]
            own_code[row] = self._own.setdefault(self.routes.shared(verdict), len(self._own))
        keys = [
            table,
            np.where(own, _NOT_ASKED, route),
            self._configuration[ends.chooser],
            np.where(table < 0, connection, -1),
            np.where(missed & ~own, host, -1),
            np.where(missed & ~own, scheme, -1),
            np.where(missed & ~own, content, _PLAIN),
            drawn,
            own_code,
        ]
        codes, firsts = self._keys.codes([np.ascontiguousarray(key, np.int64) for key in keys])
        if len(firsts):
            self._add(
                [
                    self._walk.route(columns.request(row), ends.of(row), bool(ends.at_gateway[row]))
                    for row in firsts.tolist()
                ]
            )
        return codes

    def _look_up(
        self,
        table: _Table,
        columns: RequestColumns,
        rows: Numbers,
        out: tuple[Ints, Ints, Numbers, npt.NDArray[np.bool_]],
    ) -> None:
        route, host, drawn, own = out
        table.router.find_rows(columns, rows, route, host)
        found = route[rows]
        own[rows] = found == REFUSED
        if not table.own.any() and not table.totals.any():
            return
        hits = rows[found >= 0]
        own[hits] = table.own[route[hits]]
        split = hits[table.totals[route[hits]] > 0]
        split = split[columns.native.numbers("random_given", 0)[split] > 0]
        random = columns.native.numbers("random_value", 0)[split].view(np.uint64)
        drawn[split] = table.draw(route[split], random)

    def _add(self, answers: list[tuple[Match | None, LayerVerdict, list[Place] | None]]) -> None:
        """Answers to new keys, in the order of the keys."""
        self._found += [_Found(match, candidates) for match, _, candidates in answers]
        codes = [self.routes.code(verdict) for _, verdict, _ in answers]
        only = [found[0] if found is not None and len(found) == 1 else None for _, _, found in answers]
        servers = [self._places.number(place) for place in only]
        self._route_codes = np.concatenate([self._route_codes, np.array(codes, np.int32)])
        self._only_server = np.concatenate([self._only_server, np.array(servers, np.int32)])
