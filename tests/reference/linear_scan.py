"""The linear reference that shares nothing with the core: ``docs/semantics.md`` as numpy and native/linear_scan.cpp.

What the core turns into sets, keys and presence bits is read here a second time, from the rules and columns as their
author gave them. Needs a C++ compiler; the program is compiled once a version of its source, into build/.
"""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.columns import PacketColumns
from meshsieve.model import Match, Rule, ValueSet

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "native" / "linear_scan.cpp"
NO, MAYBE, YES = 0, 1, 2

ADDRESSES = ("src_ip", "dst_ip")
# Fields that only some packets can have (docs/fields.md); every other field may be on any packet.
OF_IP = (*ADDRESSES, "proto", "fragment", "dscp", "ttl", "ip_length")
OF_PROTOCOLS = {
    "sport": (6, 17, 33, 132, 136),
    "dport": (6, 17, 33, 132, 136),
    "tcp_flags": (6,),
    "icmp_type": (1, 58),
    "icmp_code": (1, 58),
}

Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


class _Rules(ctypes.Structure):
    _fields_ = (
        ("rules", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("first_clause", "first_test", "tests", "first_span", "spans")),
        *((name, ctypes.c_void_p) for name in ("certain", "skip_to")),
    )


class _Field(ctypes.Structure):
    _fields_ = (("words", ctypes.c_void_p), ("seen", ctypes.c_void_p), ("is_wide", ctypes.c_uint8))


class LinearScan:
    """Rules, ready to be asked about packets."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._fields: list[str] = []
        self._sets: dict[tuple[bool, ValueSet], int] = {}
        rules = list(rules)
        clauses = [clause for rule in rules for clause in (rule.match, *rule.alternatives)]
        tests = [self._tests(clause) for clause in clauses]
        self._columns = (
            _offsets(1 + len(rule.alternatives) for rule in rules),
            _offsets(map(len, tests)),
            np.array([test for clause in tests for test in clause], np.int32).reshape(-1, 2),
        )
        self._certain = np.array([not rule.unknown for rule in rules], np.uint8)
        self._skip_to = np.array([rule.skip_to for rule in rules], np.int32)
        self._spans = {version: self._spans_of(version) for version in (4, 6)}

    def _tests(self, clause: Match) -> list[tuple[int, int]]:
        self._fields += [name for name in clause if name not in self._fields]
        return [
            (self._fields.index(name), self._sets.setdefault((name in ADDRESSES, values), len(self._sets)))
            for name, values in clause.items()
        ]

    def _spans_of(self, version: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        spans = [values.v6 if of_addresses and version == 6 else values.v4 for of_addresses, values in self._sets]
        words = [(v >> 64, v & (2**64 - 1)) for span in spans for pair in span for v in pair]
        return _offsets(map(len, spans)).astype(np.uint64), np.array(words, np.uint64).reshape(-1, 2)

    def __call__(self, headers: PacketColumns) -> Ids:
        """int32 (n,): r >= 0, rule r decides; -1, none; -(r+2), undecided at rule r."""
        out = np.empty(len(headers), np.int32)
        version, has_version = _versions(headers)
        of_v6 = has_version & (version == 6)
        for rows, family in ((np.flatnonzero(of_v6), 6), (np.flatnonzero(~of_v6), 4)):
            if len(rows):
                out[rows] = self._scan(headers, rows, family)
        return out

    def _scan(self, headers: PacketColumns, rows: npt.NDArray[np.int64], family: int) -> Ids:
        words = [_words(headers, name, rows) for name in self._fields]
        seen = [_seen(headers, name)[rows] for name in self._fields]
        fields = (_Field * max(1, len(words)))(
            *(
                _Field(w.ctypes.data, s.ctypes.data, bool((w >> np.array([0, 32], np.uint64)).any()))
                for w, s in zip(words, seen, strict=True)
            )
        )
        columns = (*self._columns, *self._spans[family], self._certain, self._skip_to)
        rules = _Rules(len(self._certain), *(column.ctypes.data for column in columns))
        out = np.empty(len(rows), np.int32)
        size = ctypes.c_size_t(len(rows))
        _program()(ctypes.byref(rules), fields, ctypes.c_int32(len(words)), size, ctypes.c_void_p(out.ctypes.data))
        return out


def _offsets(lengths: Iterable[int]) -> npt.NDArray[np.uint32]:
    return np.cumsum([0, *lengths]).astype(np.uint32)


def _versions(headers: PacketColumns) -> tuple[npt.NDArray[np.uint8], Mask]:
    """IP version, and where it is known: columns of 32-bit addresses are IPv4 if nothing else is said."""
    if "ip_ver" in headers:
        return np.broadcast_to(headers["ip_ver"], (len(headers),)), headers.has("ip_ver")
    narrow = any(name in headers and headers[name].ndim == 1 for name in ADDRESSES)
    return np.full(len(headers), 4, np.uint8), np.full(len(headers), narrow)


def _words(headers: PacketColumns, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """uint64 (n, 2): the high and the low word of each value."""
    if name not in headers:
        if name == "ip_ver":
            return np.tile(np.array([0, 4], np.uint64), (len(rows), 1))
        return np.zeros((len(rows), 2), np.uint64)
    column = headers[name]
    column = column[rows if len(column) == len(headers) else np.zeros(len(rows), np.int64)]
    if column.ndim == 2:
        return np.ascontiguousarray(column)
    return np.stack([np.zeros(len(rows), np.uint64), column.astype(np.uint64)], axis=1)


def _seen(headers: PacketColumns, name: str) -> npt.NDArray[np.uint8]:
    """uint8 (n,): YES where the packet has the field; where not, what a rule is that constrains it."""
    version, has_version = _versions(headers)
    has = has_version if name == "ip_ver" else headers.has(name)
    cannot = np.full(len(headers), name == "vlan")  # no tag is no VLAN, and never unseen
    if name in OF_IP or name in OF_PROTOCOLS:
        cannot = cannot | (has_version & (version == 0))
    if name in OF_PROTOCOLS and "proto" in headers:
        cannot = cannot | (headers.has("proto") & ~np.isin(headers["proto"], OF_PROTOCOLS[name]))
    seen = np.where(has, YES, np.where(cannot, NO, MAYBE))
    if name in ADDRESSES:  # an address of an unknown family is in a set or not, nobody knows
        seen = np.where(has & ~has_version, MAYBE, seen)
    return seen.astype(np.uint8)


@cache
def _program() -> Any:
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    library = ROOT / "build" / f"linear_scan-{version}.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            flags = ["-std=c++20", "-O3", "-march=native", "-shared", "-fPIC"]
            subprocess.run(["c++", *flags, "-o", str(made), str(SOURCE)], check=True)
            made.replace(library)
    return ctypes.CDLL(str(library)).linear_scan
