"""Compiled tables of a mesh: all workloads known ahead share one, any other place gets its own when asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.authz.compiled import CompiledChains
from meshsieve.authz.model import Chain, Rule
from meshsieve.authz.selection import Place
from meshsieve.routes.http_options import HttpOptions

# Tables of single places; beyond, the oldest goes.
_MOST_OTHERS = 64
# Who asks about no more places than this does not wait for the table of all.
_FEW = 4


def own_attributes(place: Place | None) -> dict[str, Any]:
    """What conditions may ask about the place itself."""
    return {} if place is None else {"dst": {"labels": dict(place.labels)}}


class ChainTables:
    """Finds the table of a place, and makes it on first use: of the first few places each, then of all that are known.

    chain_of  what a place enforces; None stands for all policies
    places    known ahead
    """

    def __init__(
        self,
        chain_of: Callable[[Place | None, bool], Chain],
        places: Iterable[Place],
        options: HttpOptions,
        trusted_proxies: int,
    ) -> None:
        self._chain_of = chain_of
        self._known: dict[object, Place] = {place.key: place for place in places}
        self._options = options
        self._trusted_proxies = trusted_proxies
        self._shared: dict[bool, tuple[CompiledChains, Mapping[object, int]]] = {}
        self._others: dict[tuple[object, bool], CompiledChains] = {}
        self._asked: dict[bool, set[object]] = {}
        self._lock = threading.Lock()
        self._numbers: dict[int, tuple[tuple[Rule, ...], npt.NDArray[np.int32]]] = {}

    def numbers(self, rules: tuple[Rule, ...], index: Mapping[str, int]) -> npt.NDArray[np.int32]:
        """By a table's rule number, the rule's place in ``index``; -1 for none (a rule that never matches has none)."""
        found = self._numbers.get(id(rules))
        if found is None:
            if len(self._numbers) > 2 * _MOST_OTHERS:
                self._numbers.clear()
            # The rules are kept with the answer, so that their id stays theirs.
            found = self._numbers[id(rules)] = rules, np.array([*(index.get(r.name, -1) for r in rules), -1], np.int32)
        return found[1]

    def find(self, place: Place | None, tcp: bool) -> tuple[CompiledChains, int]:
        """The table and the chain's number in it.

        raises  CompileError
        """
        key = None if place is None else place.key
        with self._lock:
            if place is not None and key in self._known and self._is_worth_sharing(key, tcp):
                if tcp not in self._shared:
                    numbers = {key: i for i, key in enumerate(self._known)}
                    self._shared[tcp] = self._compile(list(self._known.values()), tcp), numbers
                table, numbers_of = self._shared[tcp]
                return table, numbers_of[key]
            found = self._others.get((key, tcp))
            if found is None:
                found = self._compile([place], tcp)
                while len(self._others) >= _MOST_OTHERS:
                    del self._others[next(iter(self._others))]
                self._others[key, tcp] = found
            return found, 0

    def find_all(self, places: Sequence[Place | None], tcp: bool) -> list[tuple[CompiledChains, int]]:
        """``find`` for many places: those that are known ahead share one table once more than a few were asked about.

        raises  CompileError
        """
        if len(places) > 1:
            with self._lock:
                keys = {place.key for place in places if place is not None}
                self._asked.setdefault(tcp, set()).update(keys & self._known.keys())
        return [self.find(place, tcp) for place in places]

    def _is_worth_sharing(self, key: object, tcp: bool) -> bool:
        asked = self._asked.setdefault(tcp, set())
        asked.add(key)
        return tcp in self._shared or len(asked) > _FEW

    @property
    def stats(self) -> dict[str, int]:
        """``CompiledChains.stats`` of all tables that were made so far: sums, and of what is a maximum the maximum."""
        with self._lock:
            tables = [table for table, _ in self._shared.values()] + list(self._others.values())
        total: dict[str, int] = {"tables": len(tables)}
        for table in tables:
            for name, value in table.stats.items():
                total[name] = max(total.get(name, 0), value) if "longest" in name else total.get(name, 0) + value
        return total

    def _compile(self, places: list[Place] | list[Place | None], tcp: bool) -> CompiledChains:
        chains = [self._chain_of(place, tcp) for place in places]
        own = [own_attributes(place) for place in places]
        return CompiledChains(chains, self._options, self._trusted_proxies, own)
