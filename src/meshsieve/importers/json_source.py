"""JSON read strictly, with the position of every object.

What    The standard library's parser (in C) builds the values; one linear scan for brackets before it finds where each
        object starts. Objects close in the same order in both, so the parser's hook gives each its position. The
        position of a key or list item is found again from its object's text, only when an error names it.
Why     A firewall export is tens of thousands of objects; a parser in Python that tracks every token costs several
        times as much, and positions are wanted for objects (provenance of rules) and for errors.
Limits  ``Limits``, spec'd per document. Refused: duplicate keys, NaN and Infinity, numbers that overflow, NUL, half
        surrogate pairs, control characters in strings (all by RFC 8259 or RFC 7493).
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from meshsieve.errors import PolicyError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may hold: encoded bytes, nesting, values, characters of a text, digits of a number."""

    document_bytes: int = 16 * 2**20
    depth: int = 100
    nodes: int = 1_000_000
    text: int = 2**20
    digits: int = 20


class Document:
    """The text of one file and its line table."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(match.end() for match in re.finditer("\n", self.text))]

    def line(self, offset: int) -> int:
        """Line number, from 1."""
        return bisect_right(self._line_starts, offset)

    def where(self, offset: int) -> str:
        """``file:line:column``, from 1."""
        line = self.line(offset)
        return f"{self.name}:{line}:{offset - self._line_starts[line - 1] + 1}"


class Object(dict[str, Any]):
    """A JSON object that knows where it stands. offset: of its opening brace in ``document.text``."""

    __slots__ = ("document", "offset")

    document: Document
    offset: int

    @property
    def line(self) -> int:
        return self.document.line(self.offset)

    def where(self, key: str | None = None, index: int | None = None) -> str:
        """``file:line:column`` of the object, of the value of one of its keys, or of an item of that value's list."""
        offset = self.offset
        if key is not None:
            offset = next((start for name, start in _members(self.document.text, offset) if name == key), offset)
            if index is not None and self.document.text[offset] == "[":
                for number, start in enumerate(_items(self.document.text, offset)):
                    if number == index:
                        offset = start
        return self.document.where(offset)


def read_json(text: str, name: str, limits: Limits | None = None) -> Any:
    """The value of a JSON document; objects are ``Object``.

    raises  PolicyError with file:line:column, what is wrong and what to do
    """
    limits = limits or Limits()
    document = Document(name, text.removeprefix("\ufeff"))
    size = len(document.text.encode("utf-8", "surrogatepass"))
    if size > limits.document_bytes:
        raise PolicyError(
            f"{size} bytes are more than the limit of {limits.document_bytes} a document",
            where=name,
            hint="split the file, or raise the import option document_bytes",
        )
    builder = _Builder(document, limits)
    try:
        value = json.loads(
            document.text,
            object_pairs_hook=builder.object,
            parse_int=builder.integer,
            parse_float=builder.real,
            parse_constant=builder.constant,
        )
    except json.JSONDecodeError as error:
        raise PolicyError(f"not valid JSON: {error.msg}", where=document.where(error.pos)) from None
    builder.check([value])
    return value


# Everything up to the next bracket outside a string. Possessive, so that it never backtracks.
_TO_BRACKET = re.compile(r'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])', re.DOTALL)
_SUSPICIOUS_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SPACE = re.compile(r"[ \t\r\n]*")


class _Builder:
    """The parser's hooks: they count, check and place."""

    def __init__(self, document: Document, limits: Limits) -> None:
        self.document = document
        self.limits = limits
        self.nodes = 0
        self.starts = iter(self._object_starts())
        self.checks_characters = _SUSPICIOUS_ESCAPE.search(document.text) is not None

    def _object_starts(self) -> list[int]:
        """Offsets of the objects in the order in which they close; ends early where the text is not JSON."""
        text, match_bracket = self.document.text, _TO_BRACKET.match
        open_brackets: list[int] = []
        starts: list[int] = []
        found = match_bracket(text, 0)
        while found:
            end = found.end()
            bracket = found[1]
            if bracket in "{[":
                open_brackets.append(end - 1)
                if len(open_brackets) > self.limits.depth:
                    raise self.error(f"nested deeper than {self.limits.depth}", end - 1)
            elif not open_brackets:
                break
            else:
                start = open_brackets.pop()
                if bracket == "}":
                    starts.append(start)
            found = match_bracket(text, end)
        return starts

    def error(self, message: str, offset: int, hint: str = "") -> PolicyError:
        return PolicyError(message, where=self.document.where(offset), hint=hint)

    def object(self, pairs: list[tuple[str, Any]]) -> Object:
        out = Object(pairs)
        out.document = self.document
        out.offset = next(self.starts, 0)
        if len(out) != len(pairs):
            self._refuse_duplicate(out)
        self.check(out.values(), out)
        if self.checks_characters:
            self.check(out.keys(), out)
        return out

    def _refuse_duplicate(self, obj: Object) -> None:
        first: dict[str, int] = {}
        for key, start in _members(self.document.text, obj.offset):
            if key in first:
                line = self.document.line(first[key])
                raise self.error(f"duplicate key {key!r}, first on line {line}", start, "remove one of the two")
            first[key] = start

    def check(self, values: Any, obj: Object | None = None) -> None:
        """Count the values and refuse texts beyond the limits; lists of lists included."""
        self.nodes += len(values)
        offset = obj.offset if obj is not None else 0
        if self.nodes > self.limits.nodes:
            message = f"more than {self.limits.nodes} values in a document"
            raise self.error(message, offset, "split the file, or raise the import option document_nodes")
        for value in values:
            kind = type(value)
            if kind is list:
                self.check(value, obj)
            elif kind is str:
                if len(value) > self.limits.text:
                    raise self.error(f"a text of more than {self.limits.text} characters", offset)
                if self.checks_characters and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
                    raise self.error("a text holds a NUL character or half of a surrogate pair", offset)

    def integer(self, text: str) -> int:
        if len(text) > self.limits.digits:
            raise self.error(f"a number of more than {self.limits.digits} digits", self.document.text.find(text))
        return int(text)

    def real(self, text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise self.error(f"{text} is too large", self.document.text.find(text))
        return number

    def constant(self, text: str) -> Any:
        raise self.error(f"{text} is not JSON", self.document.text.find(text))


_decode = json.JSONDecoder(parse_int=len).raw_decode  # parse_int: digits may be many, and the value is not wanted


def _members(text: str, offset: int) -> Iterator[tuple[str, int]]:
    """Keys of the object that opens at ``offset``, and where their values start. The object is known to be JSON."""
    at = _skip_space(text, offset + 1)
    while text[at] == '"':
        key, at = _decode(text, at)
        at = _skip_space(text, _skip_space(text, at) + 1)  # past the colon
        yield key, at
        at = _skip_space(text, _decode(text, at)[1])
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def _items(text: str, offset: int) -> Iterator[int]:
    """Where the items of the list that opens at ``offset`` start."""
    at = _skip_space(text, offset + 1)
    while text[at] != "]":
        yield at
        at = _skip_space(text, _decode(text, at)[1])
        if text[at] == ",":
            at = _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # matches the empty text
    return found.end()
