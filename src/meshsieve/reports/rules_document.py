"""Layers, points and rules as plain values: the document of ``meshsieve convert`` (schema in docs/cli.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshsieve import _core
from meshsieve.model import FIELD_INDEX, Match, Rule, Source, ValueSet
from meshsieve.policy import Diagnostic, Layer, Point
from meshsieve.set_text import address_text, interval_texts
from meshsieve.value_sets import Span

SCHEMA = "meshsieve.rules/1"


class _Sets:
    """Sets by number, each once."""

    def __init__(self) -> None:
        self.texts: list[list[Any]] = []
        self._numbers: dict[tuple[bool, ValueSet], int] = {}

    def number(self, field: str, values: ValueSet) -> int:
        is_address = _core.FIELDS[FIELD_INDEX[field]].kind == "address"
        key = (is_address, values)
        if key not in self._numbers:
            self._numbers[key] = len(self.texts)
            self.texts.append(interval_texts(values) if is_address else _numbers(values.v4))
        return self._numbers[key]


def rules_document(layers: Sequence[Layer], diagnostics: Sequence[Diagnostic]) -> dict[str, Any]:
    """Everything that an engine is made of."""
    sets = _Sets()
    return {
        "schema": SCHEMA,
        "layers": [
            {
                "name": layer.name,
                "families": sorted(layer.families),
                "interfaces": [
                    {
                        "id": vnic.id,
                        "machine": vnic.machine,
                        "addresses": [address_text(version, number) for version, number in vnic.addresses],
                    }
                    for vnic in layer.inventory.vnics
                ],
                "points": [_point(point, sets) for point in layer.points],
            }
            for layer in layers
        ],
        "sets": sets.texts,
        "diagnostics": [
            {"code": d.code, "level": d.level, "where": d.where, "object": d.obj, "message": d.message, "hint": d.hint}
            for d in diagnostics
        ],
    }


def _point(point: Point, sets: _Sets) -> dict[str, Any]:
    return {
        "name": point.name,
        "default": point.default.name,
        "constants": dict(point.constants),
        "interface_of": point.vnic_of,
        "excluded": sorted(point.excluded),
        "names": {field: list(codes.cuts) for field, codes in point.rules.names.items()},
        "rules": [_rule(index, rule, sets) for index, rule in enumerate(point.rules)],
    }


def _rule(index: int, rule: Rule, sets: _Sets) -> dict[str, Any]:
    return {
        "index": index,
        "name": rule.name,
        "action": rule.action.name,
        "skip_to": rule.skip_to if rule.skip_to >= 0 else None,
        "match": _match(rule.match, sets),
        "alternatives": [_match(alternative, sets) for alternative in rule.alternatives],
        "unknown": list(rule.unknown),
        "log": rule.log,
        "source": _source(rule.source),
    }


def _match(match: Match, sets: _Sets) -> dict[str, int]:
    return {field: sets.number(field, values) for field, values in match.items()}


def _source(source: Source) -> dict[str, Any]:
    return {"file": source.file, "line": source.line, "object": source.obj}


def _numbers(span: Span) -> list[Any]:
    return [lo if lo == hi else [lo, hi] for lo, hi in span]
