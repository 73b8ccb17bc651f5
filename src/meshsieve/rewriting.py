"""What happens to packets between points: translations, and numbers for what is only known as text.

A translation changes fields for the points behind it. A field whose new value nobody can know (an address out of a
pool, a port that a gateway picks) is then missing, so that a rule that asks for it is UNKNOWN and not guessed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.columns import PacketColumns
from meshsieve.inventory import Inventory
from meshsieve.model import MarkCodes, NameCodes
from meshsieve.policy import Point, Rewrite

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_WORD = 2**64 - 1
_ADDRESSES = ("src_ip", "dst_ip")
_REGISTERS = ("mark", "ct_mark", "ct_nat")


def known_texts(texts: Array, codes: NameCodes, which: int = 0) -> tuple[npt.NDArray[np.uint32], Mask]:
    """Numbers of a column of texts, uint32 (n,), and which of them are known, bool (n,); None = not known.

    which  of a cell that holds several texts, as a tuple, counted round
    """
    number: dict[str | None, int] = {None: 0}
    out = np.zeros(len(texts), np.uint32)
    known = np.ones(len(texts), np.bool_)
    for i, text in enumerate(texts.tolist()):
        if isinstance(text, tuple):
            text = text[which % len(text)]
        if text not in number:
            number[text] = codes.code(text)
        out[i] = number[text]
        known[i] = text is not None
    return out, known


def mark_codes(headers: PacketColumns, codes: MarkCodes) -> tuple[npt.NDArray[np.uint32], Mask]:
    """``codes.code`` of every packet, uint32 (n,), and where all registers that it needs are known, bool (n,)."""
    n = len(headers)
    out = np.zeros(n, np.uint32)
    known = np.ones(n, np.bool_)
    registers = {name: _register(headers, name) for name in codes.registers}
    for name in registers:
        known &= registers[name][1]
    for i, (value, mask, name) in enumerate(codes.tests):
        out |= (registers[name][0] & np.uint32(mask) == value).astype(np.uint32) << np.uint32(i)
    return out, known


def _register(headers: PacketColumns, name: str) -> tuple[npt.NDArray[np.uint32], Mask]:
    """The values of a register, uint32 (n,), and where they are known; ct_mark and ct_nat are no fields, but columns of
    ``extra`` with -1 for what is not known."""
    n = len(headers)
    if name == "mark":
        if "mark" not in headers:
            return np.zeros(n, np.uint32), np.zeros(n, np.bool_)
        return np.array(np.broadcast_to(headers["mark"], (n,)), np.uint32), headers.has("mark")
    column = headers.extra.get(name, np.full(n, -1, np.int64))
    return column.astype(np.uint32), column >= 0


def listed_macs(inventory: Inventory, headers: PacketColumns, name: str, vnic_of: str | None) -> Array:
    """The MAC addresses that the inventory lists for the packets' ends, None where it does not: at an interface its own
    is known, the other end's if both are on one segment; else a router's stands in the frame."""
    own, other = ("src", "dst") if name == "src_mac" else ("dst", "src")
    vnics = inventory.vnics
    out = np.full(len(headers), None, object)
    ends = zip(inventory.owners(headers, f"{own}_ip"), inventory.owners(headers, f"{other}_ip"), strict=True)
    for i, (mine, theirs) in enumerate(ends):
        direct = mine >= 0 and theirs >= 0 and vnics[mine].network and vnics[mine].network == vnics[theirs].network
        if mine >= 0 and (direct or own == vnic_of):
            out[i] = vnics[mine].mac or None
    return out


def time_fields(headers: PacketColumns) -> dict[str, Array]:
    """time and week_minute of packets (their time) or flows (that of the first packet), where the source tells it."""
    if "time" in headers:
        seconds = headers["time"].astype(np.int64)
    elif (name := next((n for n in ("time_ns", "first_ns") if n in headers.extra), None)) is not None:
        seconds = headers.extra[name].astype(np.int64) // 10**9
    else:
        return {}
    # 1970-01-01 was a Thursday: three days after a Monday.
    fields = {"week_minute": ((seconds + 3 * 86400) // 60 % (7 * 1440)).astype(np.uint16)}
    return fields if "time" in headers else {"time": np.clip(seconds, 0, 2**32 - 1).astype(np.uint32), **fields}


def rewritten(
    headers: PacketColumns, point: Point, rule: npt.NDArray[np.int32], unknown: Mask, choice: int = 0
) -> tuple[PacketColumns, Mask]:
    """The packets as the points behind see them, and which were rewritten, bool (n,).

    rule     int32 (n,): the point's rule that each packet matched
    unknown  bool (n,): packets of which nobody knows what they matched; every field that the point may touch is lost
    choice   which of a rewrite's choices happens, counted round
    """
    done = np.zeros(len(headers), np.bool_)
    changed = {name for rewrite in point.rewrites.values() for name in rewrite.touches}
    touched, registers = changed - set(_REGISTERS), changed & set(_REGISTERS)
    if not unknown.any() and not np.isin(rule, np.array(sorted(point.rewrites), np.int32)).any():
        return headers, done
    columns = {name: _full(headers, name) for name in touched}
    has = {name: headers.has(name) for name in touched}
    for index, rewrite in point.rewrites.items():
        rows = (rule == index) & ~unknown
        if rows.any():
            done |= rows
            _apply(rewrite.choices[choice % len(rewrite.choices)] if rewrite.choices else rewrite, rows, columns, has)
    for name in touched:
        has[name] &= ~unknown
    extra: dict[str, Array] = {}
    if registers:
        marks = {name: _register(headers, name) for name in _REGISTERS}
        for name in registers:
            value, known = _marked(point, name, marks, rule, unknown)
            if name == "mark":
                columns[name], has[name] = value, known
            else:
                extra[name] = np.where(known, value.astype(np.int64), -1)
    if "ip_ver" not in headers:  # two-word columns would else be read as IPv6
        wide = any(headers[name].ndim == 2 for name in _ADDRESSES if name in headers)
        columns["ip_ver"] = np.array([6 if wide else 4], np.uint8)
    out = headers.with_fields(columns, has)
    out.extra = {**out.extra, **extra}
    return out, done


def _marked(
    point: Point,
    name: str,
    marks: dict[str, tuple[npt.NDArray[np.uint32], Mask]],
    rule: npt.NDArray[np.int32],
    unknown: Mask,
) -> tuple[npt.NDArray[np.uint32], Mask]:
    """A register behind the point, and where it is known. Choices of one rewrite do the same to registers."""
    value, known = marks[name][0].copy(), marks[name][1].copy()
    for index, rewrite in point.rewrites.items():
        rows = (rule == index) & ~unknown
        one = rewrite.choices[0] if rewrite.choices else rewrite
        if name in one.bits:
            bits, of = one.bits[name]
            value[rows], known[rows] = bits, True
            for register, mask in of:
                old, has = marks[register]
                value[rows] ^= old[rows] & np.uint32(mask)
                known[rows] &= has[rows]
        elif name in one.values:
            known[rows] = False
        elif name in one.defaults:
            lacking = rows & ~known
            value[lacking] = one.defaults[name]
            known |= lacking
    return value, known & ~unknown


def _full(headers: PacketColumns, name: str) -> Array:
    """The column with a row a packet, writable, addresses as two words; zeros where there is none."""
    n = len(headers)
    if name in _ADDRESSES:
        column = headers[name] if name in headers else np.zeros(n, np.uint32)
        if column.ndim == 1:
            column = np.column_stack([np.zeros(len(column), np.uint64), column.astype(np.uint64)])
        return np.array(np.broadcast_to(column, (n, 2)))
    column = headers[name] if name in headers else np.zeros(n, np.uint32)
    return np.array(np.broadcast_to(column, (n,)), np.uint32)


def _apply(rewrite: Rewrite, rows: Mask, columns: dict[str, Array], has: dict[str, Mask]) -> None:
    for name, value in rewrite.values.items():
        if name in _REGISTERS:
            continue
        if value is None:
            has[name][rows] = False
            continue
        columns[name][rows] = (value >> 64, value & _WORD) if name in _ADDRESSES else value
        has[name][rows] = name not in rewrite.unsure
    for name, shift in rewrite.shifts.items():
        column = columns[name]
        for row in np.flatnonzero(rows & has[name]):
            address = (int(column[row, 0]) << 64 | int(column[row, 1])) - shift.start + shift.to
            column[row] = (address >> 64, address & _WORD)
    for name, value in rewrite.defaults.items():
        if name in _REGISTERS:
            continue
        lacking = rows & ~has[name]
        columns[name][lacking] = value
        has[name] |= lacking
