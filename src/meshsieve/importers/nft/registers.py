"""What nft rules test and set of marks, and of whether a connection is translated.

    meta mark & 0x4000 == 0x4000      ct mark { 1, 2 }      ct status dnat
    meta mark set meta mark | 0x4000  ct mark set meta mark  meta mark set ct mark & 0xff

Source  nft(8): meta mark, ct mark, ct status; include/uapi/linux/netfilter/nf_conntrack_common.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from meshsieve.importers.iptables.meaning import UninterpretableError
from meshsieve.importers.marks import ALL, Assign, Test
from meshsieve.importers.nft.expressions import number_of
from meshsieve.importers.nft.syntax import Element

# A range of marks stands for its values, up to so many.
_MOST_VALUES = 256
_REGISTERS = {("meta", "mark"): "mark", ("ct", "mark"): "ct_mark", ("mark",): "mark"}
_NAT_BITS = {"dnat": 1, "snat": 2}
_AND, _OR, _XOR = ("&", "and"), ("|", "or"), ("^", "xor")


class Words(Protocol):
    """The words of a rule, as the reader of rules goes through them."""

    def peek(self, ahead: int = 0) -> str: ...

    def take(self) -> str: ...

    def elements(self) -> list[Element]: ...


def register_at(words: Words) -> tuple[str, int]:
    """The register that the next words name and how many these are; ("", 0) where they name none."""
    for names, register in _REGISTERS.items():
        if tuple(words.peek(i) for i in range(len(names))) == names:
            return register, len(names)
    return "", 0


def read_test(words: Words, register: str, text: str) -> Test:
    """The test whose register has been read: mask, operator, value or set.

    raises  ValueError; UninterpretableError for what is no test of single values
    """
    mask = ALL
    if words.peek() in _AND:
        words.take()
        mask = _mark(words.take())
    operator = words.take() if words.peek() in ("==", "!=", "<", ">", "<=", ">=", "!") else "=="
    if operator not in ("==", "!="):
        raise UninterpretableError(f"a mark with '{operator}'")
    return Test(register, mask, values_of(words.elements()), operator == "!=", text)


def values_of(elements: Sequence[Element]) -> frozenset[int]:
    """raises  ValueError, UninterpretableError"""
    found: set[int] = set()
    for element in elements:
        if len(element.key) != 1 or element.key[0] == "*":
            raise UninterpretableError("a mark beside other values")
        low, dash, high = element.key[0].partition("-")
        first = _mark(low)
        last = _mark(high) if dash else first
        if last < first:
            raise ValueError(f"'{element.key[0]}' ends before it starts")
        if last - first >= _MOST_VALUES:
            raise UninterpretableError("a range of so many marks")
        found |= set(range(first, last + 1))
    return frozenset(found)


def read_nat_status(words: Words, text: str) -> Test | None:
    """``ct status dnat``, ``snat`` or both, behind its first two words; None for other bits of the status."""
    names = [words.peek()]
    while words.peek(2 * len(names) - 1) == ",":
        names.append(words.peek(2 * len(names)))
    if any(name not in _NAT_BITS for name in names):
        return None
    for _ in range(2 * len(names) - 1):
        words.take()
    return Test("ct_nat", sum({_NAT_BITS[name] for name in names}), frozenset({0}), True, text)


def read_assignment(words: Words, register: str) -> tuple[Assign, ...] | None:
    """What stands behind ``set``: a number or a register, then ``& | ^`` with numbers; None for anything else."""
    source, count = register_at(words)
    out: list[Assign] = []
    if source:
        for _ in range(count):
            words.take()
        if source != register:
            out.append(Assign(register, ALL, ALL, source))
    elif (value := _mark_or_none(words.peek())) is not None:
        words.take()
        out.append(Assign(register, ALL, value))
    else:
        return None
    while words.peek() in (*_AND, *_OR, *_XOR):
        operator = words.peek()
        value = _mark_or_none(words.peek(1))
        if value is None:
            return None
        words.take()
        words.take()
        if operator in _AND:
            out.append(Assign(register, ~value & ALL, 0))
        else:
            out.append(Assign(register, value if operator in _OR else 0, value))
    # Shifts and maps go on behind; "=" of a comparison never does.
    return None if words.peek() in ("<", ">", "map", "<<", ">>") else tuple(out)


def _mark(text: str) -> int:
    return number_of(text, {}, ALL, "mark")


def _mark_or_none(text: str) -> int | None:
    try:
        return _mark(text)
    except ValueError:
        return None
