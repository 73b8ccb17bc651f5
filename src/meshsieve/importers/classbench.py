"""ClassBench rule sets and traces: the five-tuple benchmark format of packet classification research.

Rules   one a line, highest priority first, fields separated by tabs or spaces::

            @SRC/LEN  DST/LEN  LOW : HIGH  LOW : HIGH  0xPROTO/0xMASK  [0xFLAGS/0xMASK]

        A rule's id is its 0-based line number. The TCP flag column is read and, as in the published five-tuple
        benchmarks, not used. Rules have no action: a rule that is found is reported as ALLOW, no rule as NO_MATCH.
Traces  one header a line, unsigned integers: source, destination, source port, destination port, protocol and,
        optionally, the expected rule.
Cost    100,000 rules in well under a second: one regular expression without backtracking cuts the whole text; each
        distinct address, range and protocol text is then parsed once.
Source  Taylor, Turner: ClassBench, a packet classification benchmark. IEEE/ACM ToN 2007.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import numpy as np

from meshsieve.columns import PacketColumns
from meshsieve.errors import PolicyError
from meshsieve.importers.sources import read_source
from meshsieve.model import FIELD_INDEX, Action, RuleSet, Source, ValueSet
from meshsieve.policy import ImportOptions, ImportResult, Layer, Point, SourceFile, Verdict

# Possessive quantifiers: no input makes this backtrack.
_RULE = re.compile(
    r"^@([^ \t\n]++)[ \t]++([^ \t\n]++)[ \t]++([0-9]++ : [0-9]++)[ \t]++([0-9]++ : [0-9]++)[ \t]++([^ \t\n]++)"
    r"(?:[ \t]++0x[0-9A-Fa-f]{4}/0x[0-9A-Fa-f]{4})?+[ \t]*+$",
    re.MULTILINE,
)
_NUMBER = "(?:0|[1-9][0-9]{0,9}+)"
_TRACE_LINE = re.compile(rf"{_NUMBER}(?:[ \t]++{_NUMBER}){{4,5}}+[ \t]*+")
_OCTET = "(0|[1-9][0-9]{0,2})"
_PREFIX = re.compile(rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}/{_OCTET}")
_PORT_RANGE = re.compile(r"(0|[1-9][0-9]{0,4}) : (0|[1-9][0-9]{0,4})")
_RULE_FORM = "@SRC/LEN DST/LEN LOW : HIGH LOW : HIGH 0xPROTO/0xMASK, with an optional 0xFLAGS/0xMASK"
_TRACE_FORM = "5 or 6 unsigned integers: source, destination, source port, destination port, protocol, expected rule"
_TRACE_COLUMNS = ("src_ip", "dst_ip", "sport", "dport", "proto")
_TRACE_LIMITS = (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF, 0xFFFF, 0xFF, 0x7FFFFFFF)

HostBits = Literal["refuse", "mask"]


class ClassBenchImporter:
    name = "classbench"
    description = "ClassBench five-tuple rules, @SRC DST PORTS PORTS PROTO"

    def sniff(self, source: SourceFile) -> bool:
        return re.match(r"@[^ \t\n]++[ \t]", source.text) is not None

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        """One layer a file, IPv4 only, with one point.

        raises  PolicyError naming file, line and column text
        """
        return ImportResult(tuple(self._layer(source) for source in sources))

    def _layer(self, source: SourceFile) -> Layer:
        point = Point("rules", parse_rules(source), default=Verdict.NO_MATCH)
        return Layer(f"classbench {source.name}", (point,), families=frozenset({4}))


def read_rules(path: str | os.PathLike[str], *, host_bits: HostBits = "refuse") -> RuleSet:
    """The rules of a file, plain or gzip.

    host_bits   "refuse" a prefix with bits set below its length, or "mask" them off
    raises      PolicyError naming file and line
    """
    return parse_rules(read_source(path), host_bits)


def read_trace(path: str | os.PathLike[str]) -> PacketColumns:
    """The headers of a trace file, plain or gzip: src_ip, dst_ip uint32, sport, dport uint16, proto uint8, each (n,).

    A sixth column becomes ``extra["expected"]``, int32 (n,): the 0-based line of the rule that should win.

    raises  PolicyError naming file and line
    """
    source = read_source(path)
    lines = _lines(source)
    width = 6 if lines and len(lines[0].split()) == 6 else 5
    for number, line in enumerate(lines, 1):
        if not _TRACE_LINE.fullmatch(line) or len(line.split()) != width:
            raise PolicyError(
                f"'{line[:60]}' is not a header of {width} columns",
                where=f"{source.name}:{number}",
                hint=f"the form is {_TRACE_FORM}; every line has as many columns as the first",
            )
    table = np.zeros((0, width), np.uint64)
    if lines:
        table = np.loadtxt(io.StringIO("\n".join(lines)), np.uint64, comments=None, ndmin=2)
    for column, limit in enumerate(_TRACE_LIMITS[:width]):
        beyond = np.flatnonzero(table[:, column] > limit)
        if len(beyond):
            row = int(beyond[0])
            raise PolicyError(
                f"column {column + 1} holds {lines[row].split()[column]}, largest is {limit}",
                where=f"{source.name}:{row + 1}",
            )
    extra = {"expected": table[:, 5].astype(np.int32)} if width == 6 else {}
    return PacketColumns({name: table[:, i] for i, name in enumerate(_TRACE_COLUMNS)}, extra=extra, length=len(lines))


def parse_rules(source: SourceFile, host_bits: HostBits = "refuse") -> RuleSet:
    """The rules of a text; see ``read_rules``."""
    lines = _lines(source)
    rows = _RULE.findall(source.text)
    if len(rows) != len(lines):
        number = next(i for i, line in enumerate(lines, 1) if not _RULE.fullmatch(line))
        raise PolicyError(
            f"'{lines[number - 1][:80]}' is not a ClassBench rule",
            where=f"{source.name}:{number}",
            hint=f"the form is {_RULE_FORM}",
        )
    common = np.zeros((len(rows), len(FIELD_INDEX)), np.int32)
    sets = [ValueSet()]
    addresses = _Interned(sets, lambda text: _prefix(text, host_bits))
    ports = _Interned(sets, _port_range)
    protocols = _Interned(sets, _protocol)
    columns = zip(
        ("src_ip", "dst_ip", "sport", "dport", "proto"), (addresses, addresses, ports, ports, protocols), strict=True
    )
    for position, (name, interned) in enumerate(columns):
        texts = [row[position] for row in rows]
        try:
            common[:, FIELD_INDEX[name]] = np.fromiter((interned[t] for t in texts), np.int32, len(texts))
        except _BadTextError as bad:
            where = f"{source.name}:{texts.index(bad.text) + 1}"
            raise PolicyError(f"{name} {bad.text!r}: {bad.reason}", where=where, hint=bad.hint) from None
    action = np.full(len(rows), Action.ALLOW, np.uint8)
    return RuleSet.from_columns(sets, common, action, _Labels(source.name, len(rows)))


class _BadTextError(Exception):
    def __init__(self, text: str, reason: str, hint: str = "") -> None:
        super().__init__(text)
        self.text, self.reason, self.hint = text, reason, hint


class _Interned(dict[str, int]):
    """Set id of each distinct text; 0, the free field, for a text that allows every value."""

    def __init__(self, sets: list[ValueSet], parse: Callable[[str], ValueSet | None]) -> None:
        super().__init__()
        self._sets = sets
        self._parse = parse

    def __missing__(self, text: str) -> int:
        values = self._parse(text)
        if values is None:
            self[text] = 0
        else:
            self[text] = len(self._sets)
            self._sets.append(values)
        return self[text]


class _Labels(Sequence[tuple[str, Source, tuple[str, ...], bool]]):
    """Rule i is called "i" and stands in line i + 1."""

    def __init__(self, file: str, count: int) -> None:
        self._file, self._count = file, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> tuple[str, Source, tuple[str, ...], bool]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, Source, tuple[str, ...], bool]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        i = range(self._count)[index]
        return str(i), Source(self._file, i + 1), (), False


def _lines(source: SourceFile) -> list[str]:
    lines = source.text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _prefix(text: str, host_bits: HostBits) -> ValueSet | None:
    parts = _PREFIX.fullmatch(text)
    a, b, c, d, length = map(int, parts.groups()) if parts else (256, 0, 0, 0, 0)
    if max(a, b, c, d) > 255 or length > 32:
        raise _BadTextError(text, "is not an IPv4 prefix", "a.b.c.d/length, such as 10.0.0.0/8, without leading zeros")
    low = a << 24 | b << 16 | c << 8 | d
    host_mask = 0xFFFFFFFF >> length
    if low & host_mask and host_bits == "refuse":
        raise _BadTextError(text, f"bits are set below the prefix length {length}", 'host_bits="mask" clears them')
    return ValueSet(((low & ~host_mask, low | host_mask),)) if length else None


def _port_range(text: str) -> ValueSet | None:
    parts = _PORT_RANGE.fullmatch(text)
    low, high = map(int, parts.groups()) if parts else (1, 0)
    if low > high or high > 0xFFFF:
        raise _BadTextError(text, "is not a port range", "LOW : HIGH within 0..65535, low end first")
    return ValueSet(((low, high),)) if (low, high) != (0, 0xFFFF) else None


def _protocol(text: str) -> ValueSet | None:
    if not re.fullmatch(r"0x[0-9A-Fa-f]{2}/0x(?:00|[fF][fF])", text):
        raise _BadTextError(text, "expected 0xVV/0xFF or 0x00/0x00", "only whole-byte and empty masks are rules here")
    value, mask = (int(part, 16) for part in text.split("/"))
    if value & ~mask:
        raise _BadTextError(text, "the value has bits outside its mask")
    return ValueSet(((value, value),)) if mask else None
