"""Asking a chain of filters that stands by itself, as it comes out of a proxy's configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.authz.compiled import CompiledChains
from meshsieve.authz.decision import Decision
from meshsieve.authz.explain import Explanation, answer, trace
from meshsieve.authz.facts import Facts
from meshsieve.authz.model import Chain
from meshsieve.authz.reference import Provider
from meshsieve.policy import Diagnostic
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, Refusal, view


class ChainAuthorizer:
    """One proxy's filters. ``rules``: the names of all their rules in force, in byte order.

    Threads: any number may ask at once.

    raises  CompileError beyond the limits of compiled tables (docs/authorization.md)
    """

    def __init__(
        self,
        chain: Chain,
        options: HttpOptions,
        *,
        diagnostics: Sequence[Diagnostic] = (),
        trusted_proxies: int = 0,
    ) -> None:
        self.chain = chain
        self.options = options
        self.diagnostics = tuple(diagnostics)
        self.trusted_proxies = trusted_proxies
        names = {rule.name for step in chain.filters for rule in step.rules or ()}
        self.rules: tuple[str, ...] = tuple(sorted(names, key=lambda n: n.encode("utf-8", "surrogateescape")))
        self._index = {name: i for i, name in enumerate(self.rules)}
        self._table = CompiledChains([chain], options, trusted_proxies)

    def decide(
        self, request: Request, *, attributes: Mapping[str, Any] | None = None, provider: Provider | None = None
    ) -> Decision:
        """Whether the request passes the filters.

        attributes  what conditions may ask beyond the request: {"user": ..., "data": ..., "src": ..., "dst": ...}
        raises      ModelError for an address that is none
        """
        met = self._meet(request, attributes)
        if isinstance(met, Decision):
            return met
        outcome = self._table.walk(request, provider, facts=met)
        assert not isinstance(outcome, Refusal)
        return answer(self.chain, met, provider, outcome)

    def decide_batch(
        self, requests: Iterable[Request] | Mapping[str, Any] | Any, *, threads: int = 1
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """``decide`` for many.

        requests  ``Request`` objects, or columns as ``RequestColumns.of`` takes them
        returns   allowed: bool, shape (n,); rule: int32, shape (n,), index into ``self.rules``, -1 where none decided
        raises    ColumnError for columns that do not fit
        """
        batch = self._table.batch(requests, threads=threads)
        numbers = np.array([*(self._index.get(rule.name, -1) for rule in batch.rules), -1], np.int32)
        return batch.allowed, numbers[batch.rule]

    @property
    def stats(self) -> dict[str, int]:
        """Sizes of the compiled table, and what bounds the cost of a decision; see ``CompiledChains.stats``."""
        return self._table.stats

    def explain(self, request: Request, *, attributes: Mapping[str, Any] | None = None) -> Explanation:
        """``decide`` with every rule that the request meets."""
        met = self._meet(request, attributes)
        if isinstance(met, Decision):
            return Explanation(met, ())
        return Explanation(answer(self.chain, met, None), trace(self.chain, met))

    def _meet(self, request: Request, attributes: Mapping[str, Any] | None) -> Facts | Decision:
        seen = None if self.chain.tcp else view(request, self.options)
        if isinstance(seen, Refusal):
            return Decision(False, "DENY", "bad-request", seen.status, reason=f"the proxy refuses it: {seen.reason}")
        return Facts(request, seen, trusted_proxies=self.trusted_proxies, attributes=attributes)
