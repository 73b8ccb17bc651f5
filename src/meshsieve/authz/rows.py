"""Rows of requests to many workloads: what ``Authorizer.decide`` says to each, without an object a row.

What    What comes before policies (mTLS modes, ports that are read as TCP, tokens) is worked out once for each workload
        and port; the rows then go through the compiled chains of all workloads at once.
Cost    a request its part of a table look-up; some 20 us where a token has to be checked
Limits  Only rows with a token, and those that need a clause of Python's, become ``Request`` objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.authz.request_authentication import Checked, check_tokens, token_places
from meshsieve.authz.request_authentication import Provider as TokenProvider
from meshsieve.authz.selection import Place
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.http_options import Refusal, view

if TYPE_CHECKING:
    from meshsieve.authz.authorizer import Authorizer

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int32]

# What decided a row.
POLICY, PENDING, MTLS, TOKEN, REFUSED = range(5)
_MODES = ("DISABLE", "PERMISSIVE", "STRICT")
_AS_IT_IS, _NO_PEER = -1, -2


@dataclass(frozen=True, slots=True)
class RowDecisions:
    """Answers to n requests.

    allowed  bool (n,)
    rule     int32 (n,): index into ``Authorizer.rules`` of the rule that decided or waits for its provider, -1: none
    by       int8 (n,): POLICY, PENDING (a provider has to be asked), MTLS (plain text where mTLS is required), TOKEN
             (one that is refused: ``tokens`` says why, by row), REFUSED (before any policy)
    as_tcp   bool (n,): the connection was not read as HTTP
    """

    allowed: Bools
    rule: Numbers
    by: npt.NDArray[np.int8]
    as_tcp: Bools
    tokens: dict[int, Checked]


def decide_rows(
    authorizer: Authorizer,
    columns: RequestColumns,
    places: Sequence[Place | None],
    which: npt.NDArray[np.integer],
    *,
    tcp: bool = False,
    threads: int = 1,
) -> RowDecisions:
    """What each workload says to its requests.

    which  int (n,): whose of ``places`` a row is for; -1: nobody's, who denies it

    raises  ColumnError for columns that do not fit
    """
    n = len(columns)
    out = RowDecisions(
        np.zeros(n, np.bool_), np.full(n, -1, np.int32), np.zeros(n, np.int8), np.full(n, tcp, np.bool_), {}
    )
    asked = which >= 0
    mode, listens_tcp, checks = _before_policies(authorizer, columns, places, which)
    peer = columns.native.holds("principal", b"")
    tls = columns.native.numbers("tls", 0)
    mtls = peer | (tls & 2 != 0)
    shut = asked & (mode == _MODES.index("STRICT")) & ~mtls
    out.by[shut] = MTLS
    asked &= ~shut
    opaque = asked & (mode == _MODES.index("DISABLE")) & (mtls | (tls & 1 != 0))
    if opaque.any():  # nobody terminates the TLS: it passes as opaque bytes, without identity
        columns = columns.with_peers(np.where(opaque, _NO_PEER, _AS_IT_IS).astype(np.int32), [])
    out.as_tcp[opaque | listens_tcp] = True
    if checks:
        columns = _with_tokens(authorizer, columns, places, which, asked, checks, out)
    for as_tcp in (False, True):
        rows = asked & (out.as_tcp == as_tcp) & (out.by == POLICY)
        if rows.any():
            _policies(authorizer, columns, places, which, rows, as_tcp, threads, out)
    return out


def _before_policies(
    authorizer: Authorizer, columns: RequestColumns, places: Sequence[Place | None], which: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int8], Bools, dict[int, list[TokenProvider]]]:
    """mTLS mode by its place in _MODES and whether the port is read as TCP, by row; token providers by place."""
    ports = columns.native.numbers("destination_port", -1)
    index = _core.RowIndex()
    pairs, firsts = index.codes([which.astype(np.int64), ports])
    modes, tcp = np.ones(len(firsts) + 1, np.int8), np.zeros(len(firsts) + 1, np.bool_)
    checks: dict[int, list[TokenProvider]] = {}
    for pair, row in enumerate(firsts.tolist()):
        number = int(which[row])
        if number < 0:
            continue
        place, port = places[number], int(ports[row])
        if authorizer.peer_authentications:
            modes[pair] = _MODES.index(authorizer.mtls_modes(place).at(port if port >= 0 else None))
        tcp[pair] = port in authorizer.tcp_ports(place)
        if authorizer.request_authentications and number not in checks:
            checks[number] = authorizer.token_providers(place)
    return modes[pairs], tcp[pairs], {number: found for number, found in checks.items() if found}


def _with_tokens(
    authorizer: Authorizer,
    columns: RequestColumns,
    places: Sequence[Place | None],
    which: npt.NDArray[np.integer],
    asked: Bools,
    checks: dict[int, list[TokenProvider]],
    out: RowDecisions,
) -> RequestColumns:
    """The requests with the claims of their tokens; those whose tokens are refused are marked in ``out``."""
    headers, parameters, cookies = token_places(provider for found in checks.values() for provider in found)
    shows = np.zeros(len(columns), np.bool_)
    for name in (*headers, *((b"cookie",) if cookies else ())):
        shows |= _core.TextIndex().header_codes(columns.native, name)[0] >= 0
    for name in parameters:
        shows |= columns.native.holds("path", name + b"=")
    # What the table refuses is refused before its token is looked at; ``view`` says so below.
    rows = np.flatnonzero(asked & ~out.as_tcp & shows & np.isin(which, np.array(sorted(checks))))
    if not len(rows):
        return columns
    contexts = list(columns.contexts)
    codes = columns.native.numbers("context", 0)
    for row in rows.tolist():
        request = columns.request(row)
        if request.claims is not None:
            continue
        seen = view(request, authorizer.settings.http)
        if isinstance(seen, Refusal):
            continue
        found = check_tokens(checks[int(which[row])], seen, keys=authorizer.jwt_keys, trust=authorizer.trust_tokens)
        if found.status is not None:
            out.by[row] = TOKEN
            out.tokens[row] = found
        elif found.claims is not None:
            before = int(codes[row])
            contexts.append(replace(contexts[before], claims=found.claims))
            codes[row] = len(contexts) - 1
    return columns.with_contexts(codes, contexts)


def _policies(
    authorizer: Authorizer,
    columns: RequestColumns,
    places: Sequence[Place | None],
    which: npt.NDArray[np.integer],
    rows: Bools,
    as_tcp: bool,
    threads: int,
    out: RowDecisions,
) -> None:
    wanted = np.unique(which[rows])
    tables = authorizer.tables.find_all([places[int(number)] for number in wanted], as_tcp)
    by_table: dict[int, list[int]] = {}
    for i, (table, _) in enumerate(tables):
        by_table.setdefault(id(table), []).append(i)
    for members in by_table.values():
        table = tables[members[0]][0]
        chain_of = np.zeros(int(wanted[-1]) + 1, np.int64)
        chain_of[wanted[members]] = [tables[i][1] for i in members]
        these = rows if len(by_table) == 1 else rows & np.isin(which, wanted[members])
        chains = np.where(these, chain_of[np.where(these, which, 0)], 0) if len(members) > 1 else tables[members[0]][1]
        batch = table.batch(columns, chain=chains, threads=threads)
        np.copyto(out.allowed, batch.allowed, where=these)
        np.copyto(out.rule, authorizer.numbers_of(batch.rules)[batch.rule], where=these)
        out.by[these & batch.pending] = PENDING
        out.by[these & batch.refused] = REFUSED
