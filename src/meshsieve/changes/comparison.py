"""Two engines compared: everything that changes between them, from the policies and in traffic, as one result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from meshsieve.changes.model import KINDS, Change
from meshsieve.engine import Engine
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.request_walk import RequestWalk


@dataclass(frozen=True, slots=True)
class Comparison:
    """changes by what wants attention first; notes: what was left out or cannot be told; compared: how much traffic was
    looked at, by what it is."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    compared: tuple[tuple[str, int], ...] = ()

    def count(self, kind: str) -> int:
        return sum(change.kind == kind for change in self.changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "summary": {kind: self.count(kind) for kind in KINDS if self.count(kind)},
            "compared": dict(self.compared),
            "changes": [change.to_dict() for change in self.changes],
            "notes": list(self.notes),
        }


def compare_policies(old: Engine, new: Engine) -> Comparison:
    """What changes from the policies alone: connections, requests, routes.

    raises  UsageError where layers 2-4 differ too much to be compared pair by pair
    """
    from meshsieve.changes.connections import connection_changes

    changes = list(connection_changes(old.layers, new.layers))
    notes: list[str] = []
    if old.mesh is not None or new.mesh is not None:
        from meshsieve.changes.authorization import AuthorizationChanges
        from meshsieve.changes.routes import RouteChanges

        meshes = old.mesh or MeshPolicy(), new.mesh or MeshPolicy()
        for part in (AuthorizationChanges(*meshes), RouteChanges(*meshes)):
            changes += part.found()
            notes += part.notes
    return Comparison(in_order(changes), tuple(notes))


def in_order(changes: Iterable[Change]) -> tuple[Change, ...]:
    """By kind, of one kind those with the most traffic first."""
    place = {kind: i for i, kind in enumerate(KINDS)}
    return tuple(sorted(changes, key=lambda c: (place[c.kind], -c.bytes, -c.requests, -c.flows)))


def request_walks(engines: Sequence[Engine]) -> list[RequestWalk]:
    """What judges requests under each engine; one without a mesh has the layers below it."""
    return [RequestWalk(engine.tables, engine.mesh or MeshPolicy()) for engine in engines]
