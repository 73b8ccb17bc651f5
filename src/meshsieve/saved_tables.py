"""Saved tables: files that hold a compiled rule list, its rules and where each was written.

The core writes and reads tables and rules (csrc/src/saved/image.h draws the file). What only Python knows goes along as
attachments: names and sources of rules as columns over a table of texts, the rest as one JSON document. Nothing that is
read can run code, and nothing is believed: whatever does not fit is a ``TableError`` before the first look-up.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.errors import TableError
from meshsieve.model import MarkCodes, NameCodes, RuleSet, Source
from meshsieve.reports.files import atomic_file
from meshsieve.value_sets import FlatSets

Label = tuple[str, Source, tuple[str, ...], bool]

_TAG_BYTES = 32  # SHA-256


@dataclass(frozen=True, slots=True)
class Loaded:
    """A table as it was saved, with the options that it was compiled with."""

    rules: RuleSet
    native: _core.Classifier
    engine: str
    budget_bytes: int


def save(
    path: str | os.PathLike[str],
    rules: RuleSet,
    native: _core.Classifier,
    *,
    engine: str,
    budget_bytes: int,
    key: bytes | None,
) -> None:
    """Write a table, whole or not at all.

    key     also write an authentication tag (HMAC-SHA-256), without which ``load`` with a key refuses the file
    raises  OutputError
    """
    labels = _packed_labels(_labels_of(rules))
    facts = {
        "engine": engine,
        "budget_bytes": budget_bytes,
        "names": {field: {"cuts": codes.cuts, "from_end": codes.from_end} for field, codes in rules.names.items()},
        "marks": None if rules.marks is None else rules.marks.tests,
        "clauses": labels.clauses,
    }
    attachments = [json.dumps(facts).encode(), labels.columns.tobytes(), labels.ends.tobytes(), labels.text]
    write(path, _core.save_classifier(native, attachments, key is not None), key)


def load(path: str | os.PathLike[str], *, backend: str, mapped: bool, key: bytes | None) -> Loaded:
    """Read what ``save`` wrote.

    raises  TableError naming the path and what is wrong; OSError; BackendError
    """
    with naming(path):
        return of_image(read(path, mapped, key), backend)


def write(path: str | os.PathLike[str], image: bytes, key: bytes | None) -> None:
    """An image and, with a key, its tag."""
    with atomic_file(path) as file:
        file.write(image)
        if key is not None:
            file.write(hmac.digest(key, image, "sha256"))


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except TableError as error:
        raise TableError(f"{os.fspath(path)} {error}") from None


def read(path: str | os.PathLike[str], mapped: bool, key: bytes | None) -> _core.Image:
    """The image in a file. Refuses what was not written with this key, and a signed file that nobody checks."""
    image = _core.Image.open(os.fsencode(path), mapped)
    _check_tag(image, key)
    return image


def _check_tag(image: _core.Image, key: bytes | None) -> None:
    if key is None and image.signed:
        raise TableError("is signed; give the key that it was saved with")
    if key is None:
        return
    if not image.signed:
        raise TableError("is not signed, and a key was given")
    view = memoryview(image)
    if not hmac.compare_digest(hmac.digest(key, view[:-_TAG_BYTES], "sha256"), view[-_TAG_BYTES:]):
        raise TableError("was not saved with this key, or was changed since")


def of_image(image: _core.Image, backend: str = "auto") -> Loaded:
    native, rules, attachments = _core.load_classifier(image, backend)
    if len(attachments) != 4:
        raise TableError("holds a table that cannot be: rules without names and sources")
    facts = _facts(attachments[0])
    labels = LoadedLabels(
        _array(attachments[1], np.int32).reshape(-1, _LABEL_COLUMNS)
        if len(attachments[1]) % (4 * _LABEL_COLUMNS) == 0
        else _refuse("columns of names"),
        _array(attachments[2], np.uint32),
        attachments[3],
        facts.clauses,
    )
    if len(labels) != len(rules):
        raise TableError("holds a table that cannot be: names of another number of rules")
    return Loaded(LoadedRules(rules, labels, facts.names, facts.marks), native, facts.engine, facts.budget_bytes)


# --- rules ---


class LoadedRules(RuleSet):
    """The rules of a loaded table. Their columns are copied out of the core when somebody looks at a rule."""

    def __init__(
        self, native: _core.RuleSet, labels: Sequence[Label], names: dict[str, NameCodes], marks: MarkCodes | None
    ) -> None:
        self.names = names
        self.marks = marks
        self._labels = labels
        self._ids = {}
        self.__dict__["native"] = native

    def __getattr__(self, name: str) -> Any:
        if name not in _COLUMNS:
            raise AttributeError(f"'{type(self).__name__}' has no attribute '{name}'")
        offsets, intervals, *columns = self.native.columns()
        self._flat = offsets, intervals
        self.__dict__.update(zip(_COLUMNS, (FlatSets(offsets, intervals), *columns), strict=True))
        return self.__dict__[name]

    def __len__(self) -> int:
        return len(self.native)


_COLUMNS = ("_sets", "_common", "_alternative_begin", "_alternatives", "_action", "_skip_to", "_certain")


# --- names and sources ---

# One row a rule: name, file, object (positions in the table of texts), line (-1: none), log, clauses (position in the
# list of the document).
_LABEL_COLUMNS = 6


@dataclass(frozen=True, slots=True)
class _PackedLabels:
    columns: npt.NDArray[np.int32]
    ends: npt.NDArray[np.uint32]  # where each text ends in ``text``
    text: bytes
    clauses: list[tuple[str, ...]]


def _labels_of(rules: RuleSet) -> Sequence[Label]:
    return rules._labels


def _packed_labels(labels: Sequence[Label]) -> _PackedLabels:
    texts: dict[str, int] = {}
    clauses: dict[tuple[str, ...], int] = {}
    columns = np.empty((len(labels), _LABEL_COLUMNS), np.int32)
    for i in range(len(labels)):
        name, source, unknown, log = labels[i]
        columns[i] = (
            texts.setdefault(name, len(texts)),
            texts.setdefault(source.file, len(texts)),
            texts.setdefault(source.obj, len(texts)),
            -1 if source.line is None else source.line,
            log,
            clauses.setdefault(tuple(unknown), len(clauses)),
        )
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.uint64).astype(np.uint32)
    return _PackedLabels(columns, ends, b"".join(encoded), list(clauses))


class LoadedLabels(Sequence[Label]):
    """Labels of a loaded table, each made when it is looked at.

    raises  TableError for columns that do not fit together
    """

    def __init__(
        self,
        columns: npt.NDArray[np.int32],
        ends: npt.NDArray[np.uint32],
        text: bytes,
        clauses: Sequence[tuple[str, ...]],
    ) -> None:
        self._columns, self._text, self._clauses = columns, text, clauses
        self._begins = np.concatenate([np.zeros(1, np.int64), ends.astype(np.int64)])
        if self._begins[-1] != len(text) or (np.diff(self._begins) < 0).any():
            _refuse("texts that leave their table")
        octets = np.frombuffer(text, np.uint8)
        starts = self._begins[self._begins < len(text)]
        if (octets[starts] & 0xC0 == 0x80).any() or not _is_text(text):
            _refuse("a text that is not UTF-8")
        for column, largest in ((0, len(ends)), (1, len(ends)), (2, len(ends)), (4, 2), (5, len(clauses))):
            values = columns[:, column]
            if len(values) and (values.min() < 0 or values.max() >= largest):
                _refuse("a name or source that is not there")

    def __len__(self) -> int:
        return len(self._columns)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name, file, obj, line, log, clauses = self._columns[range(len(self))[index]].tolist()
        source = Source(self._text_at(file), None if line < 0 else line, self._text_at(obj))
        return self._text_at(name), source, self._clauses[clauses], bool(log)

    def __iter__(self) -> Iterator[Label]:
        return (self[i] for i in range(len(self)))

    def _text_at(self, i: int) -> str:
        return self._text[self._begins[i] : self._begins[i + 1]].decode("utf-8", "surrogatepass")


# --- the document ---


@dataclass(frozen=True, slots=True)
class _Facts:
    engine: str
    budget_bytes: int
    names: dict[str, NameCodes]
    marks: MarkCodes | None
    clauses: list[tuple[str, ...]]


def _facts(document: bytes) -> _Facts:
    try:
        found = json.loads(document)
        marks = found["marks"]
        facts = _Facts(
            _of(str, found["engine"]),
            _of(int, found["budget_bytes"]),
            {
                field: NameCodes(tuple(_of(str, cut) for cut in _of(list, codes["cuts"])), _of(bool, codes["from_end"]))
                for field, codes in _of(dict, found["names"]).items()
            },
            None if marks is None else MarkCodes(tuple((_of(int, v), _of(int, m), _of(str, r)) for v, m, r in marks)),
            [tuple(_of(str, clause) for clause in _of(list, some)) for some in _of(list, found["clauses"])],
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        _refuse("facts about the rules that cannot be read")
    if facts.budget_bytes < 0 or (facts.marks is not None and len(facts.marks.tests) > MarkCodes.MOST):
        _refuse("facts about the rules out of range")
    return facts


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _array(data: bytes, dtype: Any) -> npt.NDArray[Any]:
    if len(data) % np.dtype(dtype).itemsize:
        _refuse("half a number")
    return np.frombuffer(data, dtype)


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _refuse(what: str) -> Any:
    raise TableError(f"holds a table that cannot be: {what}")
