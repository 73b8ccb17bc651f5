"""Filter chains compiled: the answers of ``reference.walk`` without walking (csrc/include/meshsieve/authz_table.h).

What    All rules of all chains in one table. What only Python evaluates (CEL conditions, matchers of Envoy's beyond
        one text) is asked for when everything else of a rule holds, for that request and clause alone, and counted.
Threads Any number may ask while one replaces the chains; batches run without the interpreter's lock. A call answers
        wholly from the chains of one moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve._fast_authz import Checker, Table, TableBuilder
from meshsieve.authz.facts import Facts, context_values
from meshsieve.authz.model import Action, Chain, Filter, Rule
from meshsieve.authz.reference import Outcome, Provider, clause_holds, rules_of, walk_with
from meshsieve.errors import ColumnError
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.http_options import HttpOptions, Refusal, view

Numbers = npt.NDArray[np.int32]
_KINDS = {Action.AUDIT: "audit", Action.DENY: "deny", Action.ALLOW: "allow"}
_ROWS_A_TASK = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers, a row a request.

    rules     what the columns number
    allowed   bool (n,): no filter denied; a CUSTOM rule that waits for its provider counts as denied
    rule      int32 (n,), index into ``rules``: the rule that decided, or that waits; -1: none did
    audit     int32 (n,): the rule that audits; -1: none; -2: no audit filter is in force
    pending   bool (n,): a CUSTOM rule matched and nobody answered for its provider
    refused   bool (n,): the proxy refuses the request before any policy
    """

    rules: tuple[Rule, ...]
    allowed: npt.NDArray[np.bool_]
    rule: Numbers
    audit: Numbers
    pending: npt.NDArray[np.bool_]
    refused: npt.NDArray[np.bool_]


class CompiledChains(Checker):
    """Any number of filter chains in one table.

    chains           what workloads enforce; equal rules are held once
    options          what the proxy does to requests before policies
    trusted_proxies  see ``Facts``
    attributes       see ``Facts``; one mapping a chain

    raises   CompileError beyond the table's limits
    """

    def __init__(
        self,
        chains: Sequence[Chain],
        options: HttpOptions,
        trusted_proxies: int = 0,
        attributes: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.options = options
        self.trusted_proxies = trusted_proxies
        self._asked = 0
        self._counting = threading.Lock()
        self.replace(chains, attributes)

    def replace(self, chains: Sequence[Chain], attributes: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Compiles other chains, and publishes them in one step; calls that run meanwhile answer from the old ones.

        raises  CompileError; then the old ones stay
        """
        given = tuple(attributes) if attributes is not None else ({},) * len(chains)
        now = self._now = _Snapshot(tuple(chains), given, self.options, self.trusted_proxies)
        self.table = now.table

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Every rule, in the order of the table's numbers."""
        return self._now.rules

    @property
    def chains(self) -> tuple[Chain, ...]:
        return self._now.chains

    @property
    def stats(self) -> dict[str, int]:
        """Sizes, in numbers and bytes, and what bounds the cost of a decision.

        covered       rules that only requests which pass some rare test come to
        longest_list  most rules under one test: what a request that passes it has to look at
        in_bitmaps    rules that are told apart 64 at a time
        always        rules that every request to their workloads runs, for lack of a condition that could be looked up
        template_shapes  kinds of path templates, each of which costs a probe
        opaque        clauses that only Python evaluates
        asked         how often one of them was
        """
        table = self._now.table
        return {**table.statistics, "opaque": len(table.opaque), "asked": self._asked}

    def _ask(
        self,
        method: str,
        path: str,
        authority: str,
        principal: str | None,
        source_ip: str | None,
        destination_port: int | None,
        headers: Sequence[tuple[str, str]],
        request: Request | None,
        chain: int,
    ) -> tuple[bool, Rule | None]:
        """``check`` where something of Python's has to be asked."""
        now = self._now
        now.check_chain(chain)
        base = request or Request()
        whole = Request(
            method=method,
            authority=authority,
            path=path,
            headers=tuple(headers),
            principal=principal,
            source_ip=source_ip,
            destination_port=destination_port,
            claims=base.claims,
            dynamic_metadata=base.dynamic_metadata,
        )
        _, allowed, _, rule, _, pending, _ = self._decided(now, chain, whole, None)
        number = pending if allowed and pending >= 0 else rule
        return allowed and pending < 0, now.rules[number] if number >= 0 else None

    def walk(
        self, request: Request, provider: Provider | None = None, *, chain: int = 0, facts: Facts | None = None
    ) -> Outcome | Refusal:
        """What ``reference.walk`` finds, or the answer that the proxy gives before any policy.

        facts   of this request, where they are known already
        raises  ModelError for an address that is none, IndexError for a chain that is none
        """
        now = self._now
        now.check_chain(chain)
        found: list[int] = []
        if self._decided(now, chain, request, found, facts)[0]:
            seen = view(request, self.options)
            assert isinstance(seen, Refusal)
            return seen
        by_place = dict(zip(now.places[chain], found, strict=True))

        def first(step: Filter, shadow: bool) -> Rule | None:
            number = by_place[id(step), shadow]
            return now.rules[number] if number >= 0 else None

        return walk_with(now.chains[chain], first, provider)

    def batch(
        self,
        requests: Iterable[Request] | Mapping[str, Any] | RequestColumns | Any,
        *,
        chain: Any = 0,
        threads: int = 1,
    ) -> Batch:
        """Many requests.

        requests  ``Request`` objects, or columns as ``RequestColumns.of`` takes them
        chain     one for all, or integers (n,)
        threads   at most so many run at once
        raises    ColumnError for columns that do not fit
        """
        now = self._now
        columns = RequestColumns.of(requests)
        n = len(columns)
        chains = now.chain_column(chain, n)
        contexts = now.table.contexts([now.context(request) for request in columns.contexts])
        allowed, refused = np.empty(n, np.uint8), np.empty(n, np.uint8)
        step, rule, audit, pending, asked = (np.empty(n, np.int32) for _ in range(5))
        size = n if threads == 1 else max(_ROWS_A_TASK, -(-n // (4 * threads)))

        def fill(begin: int) -> None:
            end = min(begin + size, n)
            out = (allowed, refused, step, rule, audit, pending, asked)
            now.table.rows(columns.native.capsule, chains, contexts, begin, end, *out)

        _run(fill, range(0, n, max(size, 1)), threads)
        for row in np.flatnonzero(asked >= 0).tolist():
            at = int(chains[0 if len(chains) == 1 else row])
            _, allowed[row], _, rule[row], audit[row], pending[row], _ = self._decided(
                now, at, columns.request(row), None
            )
        waiting = (pending >= 0) & (allowed != 0)
        decided = np.where(waiting, pending, rule).astype(np.int32)
        return Batch(now.rules, (allowed != 0) & ~waiting, decided, audit, waiting, refused != 0)

    def _decided(
        self, now: _Snapshot, chain: int, request: Request, found: list[int] | None, facts: Facts | None = None
    ) -> tuple[int, bool, int, int, int, int, int]:
        """The table's answer, after asking Python for the clauses that it wants."""
        answers: dict[int, bool] = {}
        while (verdict := now.table.one(chain, request, answers, found))[-1] >= 0:
            if facts is None:
                seen = None if now.chains[chain].tcp else view(request, self.options)
                assert not isinstance(seen, Refusal)
                own = now.attributes[chain]
                facts = Facts(request, seen, trusted_proxies=self.trusted_proxies, attributes=own)
            answers[verdict[-1]] = clause_holds(now.table.opaque[verdict[-1]], facts)
            with self._counting:
                self._asked += 1
        return verdict


class _Snapshot:
    """Chains of one moment with their table. Never changes.

    places  by chain: the id of the filter of each step, and whether the step is its dry-run rules
    """

    def __init__(
        self,
        chains: tuple[Chain, ...],
        attributes: tuple[Mapping[str, Any], ...],
        options: HttpOptions,
        trusted_proxies: int,
    ) -> None:
        self.chains = chains
        self.attributes = attributes
        builder = TableBuilder()
        if trusted_proxies:
            builder.look_at_header("x-forwarded-for")
        self.rules, numbers = _number(chains, builder)
        self.places: list[list[tuple[int, bool]]] = []
        for chain in chains:
            steps = [(f, shadow) for f in chain.filters for shadow in (True, False) if rules_of(f, shadow) is not None]
            self.places.append([(id(f), shadow) for f, shadow in steps])
            builder.chain(
                [(_kind(*step), [numbers[_allows(*step), id(r)] for r in rules_of(*step) or ()]) for step in steps],
                chain.tcp,
            )
        self.table: Table = builder.build()
        self.table.set_options(options, trusted_proxies)
        self.table.rules = self.rules

    def check_chain(self, chain: int) -> None:
        if not 0 <= chain < len(self.chains):
            raise IndexError(f"there are {len(self.chains)} chains, no number {chain}")

    def chain_column(self, chain: Any, n: int) -> npt.NDArray[np.uint32]:
        column = np.atleast_1d(np.asarray(chain))
        if column.dtype.kind not in "iu" or column.ndim != 1 or len(column) not in (1, n):
            raise ColumnError(f"chain must be one number or {n} of them, not {column.dtype} {column.shape}")
        if n and (int(column.min()) < 0 or int(column.max()) >= len(self.chains)):
            raise ColumnError(f"there are {len(self.chains)} chains; a number lies outside")
        return np.ascontiguousarray(column, np.uint32)

    def context(self, request: Request) -> list[tuple[int, bytes]]:
        fields = self.table.context_fields.items()
        return [(slot, value) for slot, field in fields for value in context_values(request, field)]


def _run(task: Callable[[int], None], begins: range, threads: int) -> None:
    if threads == 1 or len(begins) < 2:
        for begin in begins:
            task(begin)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(task, begins))


def _kind(step: Filter, shadow: bool) -> str:
    if shadow:
        return "shadow"
    if step.action is Action.CUSTOM:  # nobody can be asked: matching requests are denied
        return "deny" if step.provider is None else "custom"
    return _KINDS[step.action]


def _allows(step: Filter, shadow: bool) -> bool:
    return not shadow and step.action is Action.ALLOW


def _number(chains: Sequence[Chain], builder: TableBuilder) -> tuple[tuple[Rule, ...], dict[tuple[bool, int], int]]:
    """All rules in the order of the table, and the number of each by whether it allows and the id of the object.

    Rules that allow come last; among each kind the order is that of reports. Equal rules have one number.
    """
    named: dict[tuple[bool, str], list[Rule]] = {}
    same: dict[tuple[bool, int], Rule] = {}
    for chain in chains:
        for step in chain.filters:
            for shadow in (True, False):
                allows = _allows(step, shadow)
                for rule in rules_of(step, shadow) or ():
                    if (allows, id(rule)) not in same:
                        known = named.setdefault((allows, rule.name), [])
                        kept = next((other for other in known if other == rule), rule)
                        if kept is rule:
                            known.append(rule)
                        same[allows, id(rule)] = kept
    numbers: dict[tuple[bool, int], int] = {}
    rules: list[Rule] = []
    for allows, name in sorted(named, key=lambda key: (key[0], key[1].encode("utf-8", "surrogateescape"))):
        for rule in named[allows, name]:
            numbers[allows, id(rule)] = builder.rule(rule, allows)
            rules.append(rule)
    return tuple(rules), {identity: numbers[identity[0], id(rule)] for identity, rule in same.items()}
