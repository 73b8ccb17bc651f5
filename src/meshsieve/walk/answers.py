"""Answers of layers to many requests: distinct ones as objects, a code a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.walk.verdict import ALLOW, DENIALS, NONE, UNDECIDED, LayerVerdict, RequestVerdict

Codes = npt.NDArray[np.int32]
Numbers = npt.NDArray[np.int64]

# Facts that differ from request to request with the same answer.
OWN_FACTS = frozenset({"path", "authority", "location", "nearest"})

# How strongly an answer speaks; see ``RequestVerdict.decider``.
NOT_ASKED, ALLOWED_BY_DEFAULT, ALLOWED_BY_RULE, OPEN, DENIED = range(5)


class Answers:
    """Distinct answers of a layer, by code; ``strengths`` are those of ``verdicts``."""

    def __init__(self) -> None:
        self.verdicts: list[LayerVerdict] = []
        self._codes: dict[LayerVerdict, int] = {}
        self._strengths: list[int] = []

    def code(self, found: LayerVerdict) -> int:
        """The code of what is shared of this answer, new or known."""
        found = self.shared(found)
        known = self._codes.get(found)
        if known is None:
            known = self._codes[found] = len(self.verdicts)
            self.verdicts.append(found)
            self._strengths.append(_strength(found))
        return known

    @staticmethod
    def shared(found: LayerVerdict) -> LayerVerdict:
        """``found`` without the facts that are a request's own."""
        return replace(found, facts=tuple(fact for fact in found.facts if fact[0] not in OWN_FACTS))

    @property
    def strengths(self) -> npt.NDArray[np.int8]:
        return np.array(self._strengths, np.int8)


class KeyedAnswers:
    """Codes of answers by what leads to them, worked out once a key: ``of`` asks for those that are new.

    answers  where the codes point
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self._index = _core.RowIndex()
        self._codes = np.zeros(0, np.int32)

    def of(self, columns: Sequence[npt.NDArray[Any]], word: Callable[[int], LayerVerdict]) -> Codes:
        """int32 (n,) of rows with these keys. word: the answer to a row, asked for one row of each new key."""
        keys, firsts = self._index.codes([np.ascontiguousarray(column, np.int64) for column in columns])
        if len(firsts):
            new = [self.answers.code(word(row)) for row in firsts.tolist()]
            self._codes = np.concatenate([self._codes, np.array(new, np.int32)])
        return self._codes[keys]

    def __len__(self) -> int:
        return len(self._index)


class LayerColumn:
    """One layer's answers to n requests: ``codes`` int32 (n,) into ``answers``, which grows from batch to batch."""

    def __init__(self, name: str, codes: Codes, answers: Answers) -> None:
        self.name = name
        self.codes = codes
        self.answers = answers

    def __getitem__(self, i: int) -> LayerVerdict:
        return self.answers.verdicts[int(self.codes[i])]


class RowRequests(Sequence[Request]):
    """The requests of columns, made one by one when they are asked for."""

    def __init__(self, columns: RequestColumns) -> None:
        self._columns = columns

    def __getitem__(self, i):  # type: ignore[no-untyped-def]  # a slice gives a list
        if isinstance(i, slice):
            return [self._columns.request(row) for row in range(*i.indices(len(self)))]
        return self._columns.request(range(len(self))[i])

    def __len__(self) -> int:
        return len(self._columns)


class RequestVerdicts:
    """The answers to n requests.

    columns     the requests, with the identities that were taken for theirs
    layers      in the order in which requests meet them; those of ``at_gateway``, bool (n,), have the route after the
                authorization
    decider     int16 (n,): position in ``layers`` of the one that decided, -1 if none did
    """

    def __init__(
        self, columns: RequestColumns, layers: Sequence[LayerColumn], at_gateway: npt.NDArray[np.bool_]
    ) -> None:
        self.columns = columns
        self.layers = tuple(layers)
        self.at_gateway = at_gateway
        self.decider = deciders(self.layers, at_gateway)

    @property
    def requests(self) -> Sequence[Request]:
        return RowRequests(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def deciding_counts(self) -> Iterator[tuple[LayerVerdict | None, int]]:
        """Each answer that decided some request, and how many; None where no layer did."""
        for number, layer in enumerate(self.layers):
            counts = np.bincount(layer.codes[self.decider == number])
            for code in np.flatnonzero(counts).tolist():
                yield layer.answers.verdicts[code], int(counts[code])
        if none := int(np.count_nonzero(self.decider < 0)):
            yield None, none

    def groups(self, *columns: Numbers) -> Iterator[tuple[int, int]]:
        """The first of all requests with the same addresses, method, authority, path and decider, and how many they
        are; columns: further values, int64 (n,), that tell groups apart."""
        native = self.columns.native
        keys = [self.decider.astype(np.int64), *columns]
        for number, layer in enumerate(self.layers):
            keys.append(np.where(self.decider == number, layer.codes, -1).astype(np.int64))
        for name in ("source_ip", "destination_ip"):
            words, version = native.addresses(name)
            keys += [*np.ascontiguousarray(words.view(np.int64).T), version.astype(np.int64)]
        keys += [_core.TextIndex().codes(native, name)[0].astype(np.int64) for name in ("method", "authority", "path")]
        codes, firsts = _core.RowIndex().codes(keys)
        yield from zip(firsts.tolist(), np.bincount(codes, minlength=len(firsts)).tolist(), strict=True)

    def deciding(self, i: int) -> LayerVerdict | None:
        """The answer that decided request ``i``."""
        at = int(self.decider[i])
        return None if at < 0 else self.layers[at][i]

    def action(self, i: int) -> str:
        found = self.deciding(i)
        return NONE if found is None else found.verdict

    def verdict(self, i: int) -> RequestVerdict:
        """All of request ``i`` as one object. Facts that are its own (what is sent on, the rule that came nearest) are
        not among it; ``RequestWalk.judge`` finds them."""
        request = self.columns.request(i)
        title = f"{request.method} {request.scheme}://{request.authority}{request.path}"
        found = [layer[i] for layer in self.layers]
        if self.at_gateway[i]:
            found[-3], found[-2] = found[-2], found[-3]
        return RequestVerdict(title, tuple(found))


def deciders(layers: Sequence[LayerColumn], at_gateway: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """The rule of ``RequestVerdict`` for every row; at a gateway authorization comes before the route."""
    weights = [layer.answers.strengths[layer.codes] for layer in layers]
    numbers = [np.full(len(at_gateway), i, np.int16) for i in range(len(layers))]
    route, authorization = len(layers) - 3, len(layers) - 2
    if at_gateway.any():
        for both in (weights, numbers):
            both[route], both[authorization] = (
                np.where(at_gateway, both[authorization], both[route]),
                np.where(at_gateway, both[route], both[authorization]),
            )
    out = np.full(len(at_gateway), -1, np.int16)
    strength = np.zeros(len(at_gateway), np.int8)
    for weight, number in zip(weights, numbers, strict=True):
        # Of equal answers the first counts that denies or is undecided, and the last that allows.
        stronger = (weight > strength) | ((weight == strength) & (weight > 0) & (weight <= ALLOWED_BY_RULE))
        np.copyto(out, number, where=stronger)
        np.copyto(strength, weight, where=stronger)
    return out


def _strength(found: LayerVerdict) -> int:
    if found.verdict in DENIALS:
        return DENIED
    if found.verdict == UNDECIDED:
        return OPEN
    if found.verdict == ALLOW:
        return ALLOWED_BY_RULE if found.rule else ALLOWED_BY_DEFAULT
    return NOT_ASKED
