"""CEL's values and what can be done with them.

    int        int (64 bits; what leaves them is an error)      list    list
    uint       UInt                                             map     dict
    double     float                                            null    None
    bool string bytes   as in Python                            timestamp, duration, type   classes below

Types do not mix: ``1 + 1.0`` is an error. Equality and order compare numbers of different types by value; equality of
other types is false. Texts are measured and cut in code points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from meshsieve._core import Regex
from meshsieve.errors import ModelError

MAX_TEXT_BYTES = 64 * 1024
Value = Any
NANO = 10**9


class EvaluationError(Exception):
    """An expression that has no value: an absent attribute, a wrong type, a limit. Never leaves the room."""


class FinalError(EvaluationError):
    """One that ``&&`` and ``||`` do not get over."""


class UInt(int):
    """An unsigned integer of 64 bits; a type of its own."""


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    ns: int

    def at(self, zone: str) -> datetime:
        offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", zone)
        if offset:
            minutes = int(offset.group(2)) * 60 + int(offset.group(3))
            tz: Any = timezone(timedelta(minutes=-minutes if offset.group(1) == "-" else minutes))
        else:
            try:
                tz = UTC if zone in ("UTC", "") else ZoneInfo(zone)
            except (ValueError, OSError, KeyError):
                raise EvaluationError("no such time zone") from None
        try:
            return datetime.fromtimestamp(self.ns // NANO, tz).replace(microsecond=self.ns % NANO // 1000)
        except (ValueError, OverflowError, OSError):
            raise EvaluationError("a time out of range") from None


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    ns: int


@dataclass(frozen=True, slots=True)
class Type:
    """What ``type(x)`` gives and names such as ``int`` stand for."""

    name: str


class Message(Mapping[str, Value]):
    """A message of known fields: ``has`` of an empty map in it is false."""


def kind(value: Value) -> str:
    """CEL's name of a value's type; of null its short form."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case UInt():
            return "uint"
        case int():
            return "int"
        case float():
            return "double"
        case str():
            return "string"
        case bytes():
            return "bytes"
        case list() | tuple():
            return "list"
        case Timestamp():
            return "timestamp"
        case Duration():
            return "duration"
        case Type():
            return "type"
    return "map"


TYPES = {
    name: Type(name)
    for name in ("bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint")
}


NUMBERS = frozenset({"int", "uint", "double"})
ORDERED = frozenset({"string", "bytes", "bool", "timestamp", "duration"})


def equal(a: Value, b: Value) -> bool:
    x, y = kind(a), kind(b)
    if x in NUMBERS and y in NUMBERS:
        return bool(a == b)
    if x != y:
        return False
    if x == "list":
        return len(a) == len(b) and all(equal(i, j) for i, j in zip(a, b, strict=True))
    if x == "map":
        return len(a) == len(b) and all(key in b and equal(value, b[key]) for key, value in a.items())
    return bool(a == b)


def less(a: Value, b: Value) -> bool:
    x, y = kind(a), kind(b)
    if (x in NUMBERS and y in NUMBERS) or (x == y and x in ORDERED):
        return bool(a < b)
    raise EvaluationError(f"{x} and {y} have no order")


def bounded(value: Value) -> Value:
    """The value if it is one of CEL's: 64 bits, texts within the limit."""
    match value:
        case bool():
            return value
        case UInt():
            ok = 0 <= value < 2**64
        case int():
            ok = -(2**63) <= value < 2**63
        case str():
            ok = len(value) <= MAX_TEXT_BYTES and len(value.encode("utf-8", "surrogateescape")) <= MAX_TEXT_BYTES
        case bytes():
            ok = len(value) <= MAX_TEXT_BYTES
        case Timestamp() | Duration():
            ok = abs(value.ns) < 2**63 * NANO
        case _:
            return value
    if not ok:
        raise EvaluationError(f"a {kind(value)} out of range")
    return value


def add(a: Value, b: Value) -> Value:
    match kind(a), kind(b):
        case ("timestamp", "duration"):
            return bounded(Timestamp(a.ns + b.ns))
        case ("duration", "timestamp"):
            return bounded(Timestamp(a.ns + b.ns))
        case ("duration", "duration"):
            return bounded(Duration(a.ns + b.ns))
        case (x, y) if x == y and x in ("string", "bytes"):
            return bounded(a + b)
        case ("list", "list"):
            return [*a, *b]
    return arithmetic("_+_", a, b)


def subtract(a: Value, b: Value) -> Value:
    match kind(a), kind(b):
        case ("timestamp", "timestamp") | ("duration", "duration"):
            return bounded(Duration(a.ns - b.ns))
        case ("timestamp", "duration"):
            return bounded(Timestamp(a.ns - b.ns))
    return arithmetic("_-_", a, b)


def arithmetic(operator: str, a: Value, b: Value) -> Value:
    """``+ - * / %`` of two numbers of one type. Integers divide towards zero."""
    x, y = kind(a), kind(b)
    if x != y or x not in NUMBERS or (operator == "_%_" and x == "double"):
        raise EvaluationError(f"no {operator.strip('_')} of {x} and {y}")
    if operator in ("_/_", "_%_") and x != "double" and b == 0:
        raise EvaluationError("division by zero")
    match operator:
        case "_+_":
            out = a + b
        case "_-_":
            out = a - b
        case "_*_":
            out = a * b
        case "_/_" if x == "double":
            out = a / b if b else _divided_by_zero(a, b)
        case "_/_":
            out = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        case _:
            out = abs(a) % abs(b) * (-1 if a < 0 else 1)
    return bounded(UInt(out) if x == "uint" and out >= 0 else out if x != "uint" else _negative())


def _divided_by_zero(a: float, b: float) -> float:
    """As IEEE 754 has it."""
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1, b)


def _negative() -> Value:
    raise EvaluationError("a uint out of range")


def negate(a: Value) -> Value:
    if kind(a) not in ("int", "double"):
        raise EvaluationError(f"no - of {kind(a)}")
    return bounded(-a)


def index(container: Value, key: Value) -> Value:
    if kind(container) == "list":
        if kind(key) not in NUMBERS or key != int(key) or not 0 <= key < len(container):
            raise EvaluationError("no such element")
        return container[int(key)]
    if kind(container) == "map":
        if not _has_key(key, container):
            raise EvaluationError("no such key")
        return container[key]
    raise EvaluationError(f"a {kind(container)} has no elements")


def contained(element: Value, container: Value) -> bool:
    if kind(container) == "list":
        return any(equal(element, item) for item in container)
    if kind(container) == "map":
        return _has_key(element, container)
    raise EvaluationError(f"in takes a list or a map, not {kind(container)}")


def _has_key(key: Value, container: Value) -> bool:
    """Python takes True for 1; CEL does not."""
    if kind(key) == "string":
        return key in container
    if kind(key) in (*NUMBERS, "bool"):
        return any(equal(key, own) for own in container)
    raise EvaluationError(f"a {kind(key)} is no key")


# --- functions: name -> (kinds of the arguments, target first; what it does)


def _size(value: Value) -> int:
    if kind(value) not in ("string", "bytes", "list", "map"):
        raise EvaluationError(f"a {kind(value)} has no size")
    return len(value)


def matches(text: Value, pattern: Value) -> bool:
    """Whether RE2 finds the pattern somewhere in the text."""
    _texts(text, pattern)
    return compiled(pattern).full_match(text.encode("utf-8", "surrogateescape"))


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> Regex:
    """raises  EvaluationError"""
    try:
        return Regex(f"(?s:.*)(?:{pattern})(?s:.*)".encode("utf-8", "surrogateescape"))
    except ModelError:
        raise EvaluationError("not a regular expression that RE2 takes") from None


def _texts(*values: Value) -> None:
    for value in values:
        if kind(value) != "string":
            raise EvaluationError(f"a string is needed, not {kind(value)}")


def _contains(text: Value, part: Value) -> bool:
    _texts(text, part)
    return part in text


def _starts_with(text: Value, part: Value) -> bool:
    _texts(text, part)
    return bool(text.startswith(part))


def _ends_with(text: Value, part: Value) -> bool:
    _texts(text, part)
    return bool(text.endswith(part))


# Conversions from text pass over these around a number, as cel-cpp does.
_SPACES = " \t\n\v\f\r"


def _to_int(value: Value) -> int:
    match kind(value):
        case "int" | "uint" | "bool":
            return int(bounded(int(value)))
        case "double" if math.isfinite(value) and abs(value) < 2**63:
            return int(value)
        case "string" if re.fullmatch(r"[+-]?[0-9]{1,19}", value.strip(_SPACES), re.ASCII):
            return int(bounded(int(value.strip(_SPACES))))
        case "timestamp":
            return int(value.ns // NANO)
    raise EvaluationError(f"no int of this {kind(value)}")


def _to_uint(value: Value) -> UInt:
    match kind(value):
        case "int" | "uint" if value >= 0:
            return UInt(value)
        case "double" if math.isfinite(value) and 0 <= value < 2**64:
            return UInt(int(value))
        case "string" if re.fullmatch(r"[0-9]{1,20}", value.strip(_SPACES), re.ASCII):
            return UInt(bounded(UInt(value.strip(_SPACES))))
    raise EvaluationError(f"no uint of this {kind(value)}")


def _to_bool(value: Value) -> bool:
    if kind(value) == "bool":
        return bool(value)
    for truth, words in ((True, ("1", "t", "true", "TRUE", "True")), (False, ("0", "f", "false", "FALSE", "False"))):
        if kind(value) == "string" and value in words:
            return truth
    raise EvaluationError(f"no bool of this {kind(value)}")


def _to_bytes(value: Value) -> bytes:
    if kind(value) == "bytes":
        return bytes(value)
    _texts(value)
    return bytes(value.encode("utf-8", "surrogateescape"))


def _type(value: Value) -> Type:
    return Type({"null": "null_type"}.get(kind(value), kind(value)))


def _to_double(value: Value) -> float:
    if kind(value) in NUMBERS:
        return float(value)
    if kind(value) == "string":
        text = value.strip(_SPACES)
        try:
            if re.fullmatch(r"[+-]?0x[0-9a-f.]{1,40}(p[+-]?[0-9]{1,4})?", text, re.ASCII | re.IGNORECASE):
                return float.fromhex(text)
            if re.fullmatch(r"[+-]?([0-9.]{1,40}(e[+-]?[0-9]{1,4})?|inf(inity)?|nan)", text, re.ASCII | re.IGNORECASE):
                return float(text)
        except (ValueError, OverflowError):
            pass
    raise EvaluationError(f"no double of this {kind(value)}")


def _to_string(value: Value) -> str:
    match kind(value):
        case "string":
            return str(value)
        case "int" | "uint":
            return str(int(value))
        case "bool":
            return "true" if value else "false"
        case "double" if value == 0:
            return "-0" if math.copysign(1, value) < 0 else "0"
        case "double":
            return (
                str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else repr(value)
            )
        case "bytes":
            try:
                return str(value.decode())
            except UnicodeDecodeError:
                raise EvaluationError("these bytes are no text") from None
        case "timestamp":
            text = value.at("UTC").replace(tzinfo=None, microsecond=0).isoformat()
            part = value.ns % NANO
            return f"{text}.{part:09}".rstrip("0") + "Z" if part else text + "Z"
        case "duration":
            seconds, part = divmod(abs(value.ns), NANO)
            digits = f".{part:09}".rstrip("0") if part else ""
            return f"{'-' if value.ns < 0 else ''}{seconds}{digits}s"
    raise EvaluationError(f"no string of a {kind(value)}")


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DURATION = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{1,9})?(h|ms|m|s|us|ns)){1,10}", re.ASCII)
_UNITS = {"h": 3600 * NANO, "m": 60 * NANO, "s": NANO, "ms": 10**6, "us": 10**3, "ns": 1}


def _to_timestamp(value: Value) -> Timestamp:
    if kind(value) == "timestamp":
        return Timestamp(value.ns)
    if kind(value) == "int":
        return Timestamp(value * NANO)
    found = _RFC3339.fullmatch(value) if kind(value) == "string" else None
    if found is None:
        raise EvaluationError("not a time of RFC 3339")
    day, digits, zone = found.groups()
    try:
        parsed = datetime.fromisoformat(day.upper() + ("+00:00" if zone in "Zz" else zone))
    except ValueError:
        raise EvaluationError("not a time of RFC 3339") from None
    return Timestamp(int(parsed.timestamp()) * NANO + int((digits or "0").ljust(9, "0")))


def _to_duration(value: Value) -> Duration:
    if kind(value) == "duration":
        return Duration(value.ns)
    if kind(value) != "string" or not _DURATION.fullmatch(value):
        raise EvaluationError("not a duration such as 1h30m")
    total = 0
    for number, digits, unit in re.findall(r"([0-9]+)(?:\.([0-9]+))?(h|ms|m|s|us|ns)", value):
        total += int(number) * _UNITS[unit] + (int(digits) * _UNITS[unit] // 10 ** len(digits) if digits else 0)
    return Duration(int(bounded(Duration(-total if value.startswith("-") else total)).ns))


def _part(name: str) -> Callable[..., int]:
    def of(value: Value, zone: Value = None) -> int:
        if kind(value) == "duration" and name in _OF_DURATION and zone is None:
            return int(abs(value.ns) // _OF_DURATION[name]) * (-1 if value.ns < 0 else 1)
        if kind(value) != "timestamp":
            raise EvaluationError(f"a {kind(value)} is no time")
        if zone is not None:
            _texts(zone)
        return int(_PARTS[name](value.at(zone or "UTC")))

    return of


_OF_DURATION = {"getHours": 3600 * NANO, "getMinutes": 60 * NANO, "getSeconds": NANO, "getMilliseconds": 10**6}
_PARTS: dict[str, Callable[[datetime], int]] = {
    "getMilliseconds": lambda at: at.microsecond // 1000,
    "getFullYear": lambda at: at.year,
    "getMonth": lambda at: at.month - 1,
    "getDate": lambda at: at.day,
    "getDayOfMonth": lambda at: at.day - 1,
    "getDayOfYear": lambda at: at.timetuple().tm_yday - 1,
    "getDayOfWeek": lambda at: at.isoweekday() % 7,
    "getHours": lambda at: at.hour,
    "getMinutes": lambda at: at.minute,
    "getSeconds": lambda at: at.second,
}

# Name -> (number of arguments, the target counted as the first; the function).
FUNCTIONS: dict[str, tuple[tuple[int, ...], Callable[..., Value]]] = {
    "size": ((1,), _size),
    "contains": ((2,), _contains),
    "startsWith": ((2,), _starts_with),
    "endsWith": ((2,), _ends_with),
    "matches": ((2,), matches),
    "bool": ((1,), _to_bool),
    "bytes": ((1,), _to_bytes),
    "dyn": ((1,), lambda value: value),
    "type": ((1,), _type),
    "int": ((1,), _to_int),
    "uint": ((1,), _to_uint),
    "double": ((1,), _to_double),
    "string": ((1,), lambda value: bounded(_to_string(value))),
    "timestamp": ((1,), _to_timestamp),
    "duration": ((1,), _to_duration),
    **{name: ((1, 2), _part(name)) for name in _PARTS},
}
