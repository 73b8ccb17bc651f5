"""YAML (and JSON as its subset) read strictly, with the position of every key and value.

Values are read as Kubernetes reads them, without the surprises of YAML 1.1: no base-60 numbers, no dates; a plain
number with a leading zero is refused rather than read as octal. ``yes/no/on/off`` are booleans, as in Kubernetes, so
that a field that wants text refuses them. Input is hostile: duplicate keys, tags, NUL characters and whatever exceeds a
limit are refused with ``file:line:column``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from datetime import date
from typing import Any

import yaml

from meshsieve.errors import PolicyError

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 100
MAX_NODES = 1_000_000  # a document, after aliases
MAX_DOCUMENTS = 10_000
MAX_SCALAR = 2**20
MAX_DIGITS = 20

Position = tuple[int, int]  # line and column, from 1


class Mapping(dict[str, Any]):
    """A YAML mapping. position: of the mapping; key_positions: of each key; file: the file's name."""

    __slots__ = ("file", "key_positions", "position")

    def __init__(self, file: str, position: Position) -> None:
        super().__init__()
        self.file = file
        self.position = position
        self.key_positions: dict[str, Position] = {}

    def where(self, key: str | None = None) -> str:
        """``file:line:column`` of a key, or of the mapping."""
        line, column = self.key_positions.get(key, self.position) if key is not None else self.position
        return f"{self.file}:{line}:{column}"


class Sequence(list[Any]):
    """A YAML sequence. item_positions: of each item."""

    __slots__ = ("file", "item_positions", "position")

    def __init__(self, file: str, position: Position) -> None:
        super().__init__()
        self.file = file
        self.position = position
        self.item_positions: list[Position] = []

    def where(self, index: int | None = None) -> str:
        """``file:line:column`` of an item, or of the sequence."""
        line, column = self.position if index is None else self.item_positions[index]
        return f"{self.file}:{line}:{column}"


def load_documents(text: str, file: str) -> list[Any]:
    """Every non-empty document of ``text``: Mapping, Sequence, str, int, float, bool or None.

    raises  PolicyError with file:line:column, what is wrong and what to do
    """
    if len(text) > MAX_BYTES:
        raise PolicyError(f"larger than {MAX_BYTES >> 20} MiB", where=file, hint="split the file")
    text = text.removeprefix("\ufeff")
    try:
        return list(_Reader(text, file).documents())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        raise PolicyError(f"not valid YAML: {problem}", where=where) from None


def located(value: Any, file: str, position: Position = (1, 1), depth: int = 0) -> Any:
    """Plain data, as other YAML and JSON readers make it, with the positions that typed access wants: all ``position``.

    raises  PolicyError for data nested deeper than ``MAX_DEPTH``, and text that holds half of a surrogate pair
    """
    if depth > MAX_DEPTH:
        raise PolicyError(f"nested deeper than {MAX_DEPTH}", where=file)
    if isinstance(value, Mapping | Sequence):
        return value
    if isinstance(value, AnyMapping):
        mapping = Mapping(file, position)
        for key, item in value.items():
            mapping[located(str(key), file)] = located(item, file, position, depth + 1)
        return mapping
    if isinstance(value, list | tuple):
        sequence = Sequence(file, position)
        for item in value:
            sequence.append(located(item, file, position, depth + 1))
            sequence.item_positions.append(position)
        return sequence
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise PolicyError("a value holds half of a surrogate pair", where=file) from None
    # Readers of YAML 1.1 turn time stamps into objects; Kubernetes has them as text.
    return value.isoformat() if isinstance(value, date) else value


_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z", re.ASCII)
_HEX = re.compile(r"[-+]?0x[0-9a-fA-F]+\Z", re.ASCII)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+\Z", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_NON_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)\Z")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
    **dict.fromkeys(["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"], True),
    **dict.fromkeys(["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N"], False),
}
_TEXT_TAGS = {"!", "tag:yaml.org,2002:str"}
_ONLY_PLAIN = "only plain mappings, lists and scalars are read"


class _Reader:
    """Builds values from PyYAML's events, which carry positions and expand nothing by themselves."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.nodes = 0
        self.anchors: dict[str, tuple[Any, int]] = {}  # value and its node count
        loader = yaml.CLoader if hasattr(yaml, "CLoader") else yaml.Loader
        self.events = iter(yaml.parse(text, Loader=loader))

    def documents(self) -> Iterator[Any]:
        count = 0
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            count += 1
            if count > MAX_DOCUMENTS:
                raise self.error(event, f"more than {MAX_DOCUMENTS} documents", "split the file")
            self.nodes, self.anchors = 0, {}
            value = self.value(next(self.events), 0)
            if value is not None:
                yield value

    def error(self, event: Any, message: str, hint: str = "") -> PolicyError:
        line, column = self.position(event)
        return PolicyError(message, where=f"{self.file}:{line}:{column}", hint=hint)

    @staticmethod
    def position(event: Any) -> Position:
        return event.start_mark.line + 1, event.start_mark.column + 1

    def count(self, event: Any, nodes: int = 1) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.error(event, f"more than {MAX_NODES} nodes after aliases", "split the file")

    def value(self, event: Any, depth: int) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.error(event, f"alias *{event.anchor} refers to nothing complete before it")
            value, nodes = self.anchors[event.anchor]
            self.count(event, nodes)
            return value
        if depth > MAX_DEPTH:
            raise self.error(event, f"nested deeper than {MAX_DEPTH}")
        before = self.nodes
        self.count(event)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event)
        else:
            if event.tag is not None:
                raise self.error(event, f"tag {event.tag} is not allowed", _ONLY_PLAIN)
            reads_mapping = isinstance(event, yaml.MappingStartEvent)
            value = self.mapping(event, depth) if reads_mapping else self.sequence(event, depth)
        if event.anchor:
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    def sequence(self, start: Any, depth: int) -> Sequence:
        out = Sequence(self.file, self.position(start))
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            out.item_positions.append(self.position(event))
            out.append(self.value(event, depth + 1))
        return out

    def mapping(self, start: Any, depth: int) -> Mapping:
        out = Mapping(self.file, self.position(start))
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                raise self.error(event, "merge keys (<<) are not read", "write the merged fields out")
            key = self.value(event, depth + 1)
            if type(key) is int and isinstance(event, yaml.ScalarEvent) and event.value.isdecimal():
                key = event.value  # 8080: as Kubernetes reads it, which turns YAML into JSON
            if not isinstance(key, str):
                shown = event.value if isinstance(event, yaml.ScalarEvent) else type(key).__name__
                raise self.error(event, f"key {shown!r} is not text", "quote it")
            if key in out:
                first = out.key_positions[key][0]
                raise self.error(event, f"duplicate key {key!r}, first on line {first}", "remove one of the two")
            out.key_positions[key] = self.position(event)
            out[key] = self.value(next(self.events), depth + 1)
        return out

    def scalar(self, event: Any) -> Any:
        text: str = event.value
        if len(text) > MAX_SCALAR:
            raise self.error(event, f"a value longer than {MAX_SCALAR >> 20} MiB")
        if event.tag is not None and event.tag not in _TEXT_TAGS:
            raise self.error(event, f"tag {event.tag} is not allowed", _ONLY_PLAIN)
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise self.error(event, "a value holds a NUL character or half of a surrogate pair")
        return self.plain(event, text) if event.implicit[0] and event.style in (None, "") else text

    def plain(self, event: Any, text: str) -> Any:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.match(text) or _HEX.match(text):
            if len(text) > MAX_DIGITS:
                raise self.error(event, f"a number of more than {MAX_DIGITS} digits", "quote it if it is text")
            return int(text, 0)
        if _LEADING_ZERO.match(text):
            raise self.error(event, f"{text} has a leading zero: octal or decimal?", "quote it if it is text")
        if _NON_FINITE.match(text):
            raise self.error(event, f"{text} is not a finite number", "quote it if it is text")
        if _FLOAT.match(text):
            number = float(text)
            if not math.isfinite(number):
                raise self.error(event, f"{text} is too large", "quote it if it is text")
            return number
        return text
