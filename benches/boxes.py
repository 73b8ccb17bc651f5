"""IPv4 5-tuple rules as boxes: the form in which every program of a bench, ours and the peers, receives the same rules.

A box is one row of ten uint32: low and high end, both included, of source, destination, source port, destination port
and protocol. A field that spans its whole domain is free. A header is one row of five uint32 in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.columns import PacketColumns
from meshsieve.model import FIELD_INDEX, Action, RuleSet, Source, ValueSet

Boxes = npt.NDArray[np.uint32]  # (n, 10)
Headers = npt.NDArray[np.uint32]  # (n, 5)

FIELDS = ("src_ip", "dst_ip", "sport", "dport", "proto")
LARGEST = np.array([2**32 - 1, 2**32 - 1, 2**16 - 1, 2**16 - 1, 2**8 - 1], np.uint32)


class NumberedLabels(Sequence[tuple[str, Source, tuple[str, ...], bool]]):
    """Labels of generated rules, made when asked for: half a million of them would cost more than the rules."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return (f"r{index}", Source(), (), False)

    def __iter__(self) -> Iterator[tuple[str, Source, tuple[str, ...], bool]]:
        return (self[i] for i in range(self._count))


def to_rule_set(boxes: Boxes, version: int = 4) -> RuleSet:
    """The boxes as a ``RuleSet``: rule i is box i, equal sets are stored once, every action is ALLOW.

    ``version`` 6 embeds the addresses in IPv6 (see ``widen``); which headers match which rules stays the same.
    """
    sets = [ValueSet()]
    common = np.zeros((len(boxes), len(_core.FIELDS)), np.int32)
    for f, name in enumerate(FIELDS):
        spans, which = np.unique(boxes[:, 2 * f : 2 * f + 2], axis=0, return_inverse=True)
        ids = np.arange(len(sets), len(sets) + len(spans), dtype=np.int32)
        ids[(spans[:, 0] == 0) & (spans[:, 1] == LARGEST[f])] = 0
        if version == 6 and name.endswith("_ip"):
            sets += [ValueSet((), ((widen(lo), widen(hi) | HOST_BITS),)) for lo, hi in spans.tolist()]
        else:
            sets += [ValueSet(((lo, hi),)) for lo, hi in spans.tolist()]
        common[:, FIELD_INDEX[name]] = ids[which.ravel()]
    action = np.full(len(boxes), Action.ALLOW, np.uint8)
    return RuleSet.from_columns(sets, common, action, NumberedLabels(len(boxes)))


def to_columns(headers: Headers, version: int = 4) -> PacketColumns:
    """The headers as columns of the dtypes that captures deliver; ``version`` 6 as in ``to_rule_set``."""
    columns = {name: headers[:, f] for f, name in enumerate(FIELDS)}
    if version == 6:
        rng = np.random.default_rng(17)
        for name in ("src_ip", "dst_ip"):
            address = columns[name].astype(np.uint64)
            host = rng.integers(0, HOST_BITS, len(headers), dtype=np.uint64, endpoint=True)
            high = np.uint64(NETWORK >> 64) | address >> np.uint64(16)
            columns[name] = np.stack([high, (address & np.uint64(0xFFFF)) << np.uint64(48) | host], axis=1)
        columns["ip_ver"] = np.full(len(headers), 6, np.uint8)
    return PacketColumns(columns)


NETWORK = 0x2001_0DB8 << 96
HOST_BITS = (1 << 48) - 1


def widen(address: int) -> int:
    """An IPv4 address as 32 bits in the middle of an IPv6 address, astride its two words: a /L becomes a /(48 + L)."""
    return NETWORK | address << 48
