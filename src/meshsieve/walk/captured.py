"""Requests out of captures and logs through all layers: a stream of rows in bounded memory, and what they sum up to.

Layers 2-4 judge the connection that a request was seen on, as they do for flows; ``flow`` is the flow's number, so that
rows of requests and of flows can be joined. A log does not tell flows; its rows say file and line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from meshsieve import http_requests
from meshsieve.labels import TextTable
from meshsieve.output import Column
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.walk.answers import Answers, LayerColumn, RequestVerdicts
from meshsieve.walk.batch import BatchWalk
from meshsieve.walk.request_walk import RequestWalk
from meshsieve.walk.verdict import NONE

_DECIDED = ("action", "layer", "rule", "source", "reason")


class SeenRequests(Protocol):
    """Some requests with what was seen of their answers: ``RequestBatch`` of captures, ``LoggedBatch`` of logs."""

    def __len__(self) -> int: ...
    def __getitem__(self, name: str, /) -> Any: ...
    def requests(self) -> Iterator[Request]: ...
    def request_columns(self) -> RequestColumns: ...
    def observed(self, i: int) -> dict[str, Any]: ...
    def row(self, i: int, *, masked: bool = False) -> dict[str, Any]: ...
    def output_columns(self, names: Sequence[str] | None = None, /) -> list[Column]: ...


class RequestSource(Protocol):
    """Where requests come from.

    columns  names of those that stand before the verdict's
    problem  after an iteration: None, or why it could not be read to its end
    counts   what was read, and what could not be
    notes    the same in words, as far as a reader must know it
    """

    columns: tuple[str, ...]

    def batches(self) -> Iterator[SeenRequests]: ...
    def empty(self) -> SeenRequests: ...
    @property
    def problem(self) -> str | None: ...
    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


class CaptureSource:
    """The requests of captures."""

    columns: tuple[str, ...] = (
        "flow", "time_ns", "source_ip", "source_port", "destination_ip", "destination_port", "method", "authority",
        "path", "status", "duration_ns",
    )  # fmt: skip

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], progress: Callable[[Any], None] | None = None, **how: Any
    ) -> None:
        """how: as for ``http_requests.read``."""
        self._paths = list(paths)
        self._progress = progress
        self._how = how
        self.problem: str | None = None
        self.counts: dict[str, int] = {}

    def batches(self) -> Iterator[SeenRequests]:
        found = http_requests.read(self._paths, **self._how)
        found.on_packets = self._progress
        yield from found
        self.problem, self.counts = found.problem, found.counts

    def empty(self) -> SeenRequests:
        return http_requests.RequestReader().take()

    @property
    def notes(self) -> tuple[str, ...]:
        return (self.problem,) if self.problem else ()


@dataclass(frozen=True, slots=True)
class RequestRows:
    """Some rows: what was seen, every layer's answer, and both as columns for writers."""

    seen: SeenRequests
    verdicts: RequestVerdicts
    columns: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.verdicts)


@dataclass(frozen=True, slots=True)
class RequestTotals:
    """Requests by who decided them: (action, layer, rule, source) -> number, largest first."""

    by_rule: dict[tuple[str, str, str | None, str | None], int]
    counts: dict[str, int]
    notes: tuple[str, ...] = ()

    @property
    def by_action(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for (action, *_), count in self.by_rule.items():
            out[action] = out.get(action, 0) + count
        return out

    def to_dict(self) -> dict[str, Any]:
        rules = [
            {"action": action, "layer": layer, "rule": rule, "source": source, "requests": count}
            for (action, layer, rule, source), count in self.by_rule.items()
        ]
        return {"requests": self.by_action, "rules": rules, "counts": self.counts, "notes": list(self.notes)}


class RequestClassification:
    """The requests of captures or logs with their verdicts; made by ``Engine.classify_requests`` and ``classify_log``.

    problem  after an iteration: None, or why a capture could not be read to its end
    """

    def __init__(self, walk: RequestWalk, source: RequestSource, *, assume_mtls: bool) -> None:
        self._walk = walk
        self._source = source
        self._assume_mtls = assume_mtls
        self._totals: RequestTotals | None = None
        self.problem: str | None = None

    def __iter__(self) -> Iterator[RequestRows]:
        judge = BatchWalk(self._walk)
        texts = _Texts(self._source.columns)
        totals: dict[tuple[str, str, str | None, str | None], int] = {}
        for batch in self._source.batches():
            verdicts = judge.judge(batch.request_columns(), assume_mtls=self._assume_mtls)
            for decider, count in verdicts.deciding_counts():
                key: tuple[str, str, str | None, str | None] = (NONE, "", None, None)
                if decider is not None:
                    key = (decider.verdict, decider.layer, decider.rule, decider.source)
                totals[key] = totals.get(key, 0) + count
            yield RequestRows(batch, verdicts, texts.columns(batch, verdicts))
        self.problem = self._source.problem
        largest = dict(sorted(totals.items(), key=lambda item: (-item[1], item[0][:2])))
        self._totals = RequestTotals(largest, self._source.counts, self._source.notes)

    def totals(self) -> RequestTotals:
        """What the rows sum up to; runs through the source if no iteration has been completed yet."""
        if self._totals is None:
            for _ in self:
                pass
        assert self._totals is not None
        return self._totals

    def empty_columns(self) -> tuple[Column, ...]:
        """The columns of a batch without rows: names and types are known before anything is read."""
        nothing = self._source.empty()
        return _Texts(self._source.columns).columns(nothing, BatchWalk(self._walk).judge([]))


class _Texts:
    """Columns of verdicts share tables of texts, which grow with the rules that are met."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._tables: dict[str, TextTable] = {}
        self._codes: dict[tuple[str, str, str], _AnswerTexts] = {}

    def columns(self, batch: SeenRequests, verdicts: RequestVerdicts) -> tuple[Column, ...]:
        return (*batch.output_columns(self._names), *self._verdicts(verdicts))

    def _verdicts(self, verdicts: RequestVerdicts) -> Iterator[Column]:
        for name in _DECIDED:
            attribute = "verdict" if name == "action" else name
            table = self._tables.setdefault(name, TextTable())
            codes = np.full(len(verdicts), table.code(NONE) if name == "action" else -1, np.int32)
            for number, layer in enumerate(verdicts.layers):
                rows = np.flatnonzero(verdicts.decider == number)
                if len(rows):
                    codes[rows] = self._code_of(name, attribute, layer)[layer.codes[rows]]
            yield Column.text(name, codes, table)
        for layer in verdicts.layers:
            base = layer.name.replace(" ", "_").replace("-", "_")
            for attribute in ("verdict", "rule"):
                name = f"{base}_{attribute}"
                yield Column.text(name, self._code_of(name, attribute, layer)[layer.codes], self._tables[name])

    def _code_of(self, name: str, attribute: str, layer: LayerColumn) -> npt.NDArray[np.int32]:
        """int32: by answer of the layer, the code of a text of it in the table ``name``."""
        key = (name, attribute, layer.name)
        found = self._codes.get(key)
        if found is None or found.answers is not layer.answers:
            table = self._tables.setdefault(name, TextTable())
            found = self._codes[key] = _AnswerTexts(layer.answers, attribute, table)
        return found.codes


class _AnswerTexts:
    """One attribute of a layer's answers as codes of a table; looks at new answers only."""

    def __init__(self, answers: Answers, attribute: str, table: TextTable) -> None:
        self.answers, self._attribute, self._table = answers, attribute, table
        self._codes = np.zeros(0, np.int32)

    @property
    def codes(self) -> npt.NDArray[np.int32]:
        new = self.answers.verdicts[len(self._codes) :]
        if new:
            texts = [getattr(found, self._attribute) for found in new]
            more = np.array([-1 if text is None else self._table.code(text) for text in texts], np.int32)
            self._codes = np.concatenate([self._codes, more])
        return self._codes
