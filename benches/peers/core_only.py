"""Stands in for meshsieve.packets until that module is there: batch look-ups through the core and _fast alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core, _fast
from meshsieve.columns import PacketColumns
from meshsieve.errors import MeshsieveError as MeshsieveError
from meshsieve.model import RuleSet


class PacketClassifier:
    def __init__(self, rules: RuleSet, engine: str, backend: str) -> None:
        table = _core.compile(rules.native, engine, backend)
        self._lookup = _fast.Lookup(table.capsule)
        self.stats = table.stats

    def classify_batch(self, columns: PacketColumns, out: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.int32]:
        out = np.empty(len(columns), np.int32) if out is None else out
        self._lookup.batch(columns.pairs(), columns.present, out)
        return out

    def classify(self, *header: int) -> int:
        names = ("src", "dst", "sport", "dport", "proto")
        columns = PacketColumns({name: [value] for name, value in zip(names, header, strict=True)})
        return int(self.classify_batch(columns)[0])

    def remove(self, index: int) -> None:
        raise MeshsieveError("live updates are not built yet")

    def insert(self, rule: Any, position: int) -> None:
        raise MeshsieveError("live updates are not built yet")


def compile(rules: RuleSet, engine: str = "auto", backend: str = "auto") -> PacketClassifier:
    return PacketClassifier(rules, engine, backend)
