"""Who owns which address: virtual network interfaces (vNICs) and their machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.columns import PacketColumns

NO_VNIC = -1


@dataclass(frozen=True, slots=True)
class Vnic:
    """One virtual network interface.

    addresses  (version, integer) pairs
    mac        lower case with colons, "" = not known
    network    its segment, within which frames reach other interfaces directly; "" = not known
    """

    id: str
    machine: str
    addresses: tuple[tuple[int, int], ...] = ()
    mac: str = ""
    network: str = ""


_WORD = 2**64 - 1


class Inventory:
    """vNICs by number (their position) and by address. An address claimed by several vNICs belongs to the first; the
    others are listed in ``conflicts``."""

    def __init__(self, vnics: Iterable[Vnic] = ()) -> None:
        self.vnics: tuple[Vnic, ...] = tuple(vnics)
        self.conflicts: list[tuple[tuple[int, int], str, str]] = []
        self._owner: dict[tuple[int, int], int] = {}
        for number, vnic in enumerate(self.vnics):
            for address in vnic.addresses:
                first = self._owner.setdefault(address, number)
                if first != number:
                    self.conflicts.append((address, self.vnics[first].id, vnic.id))

    def owner(self, version: int, address: int) -> int:
        """Number of the vNIC that has the address, or NO_VNIC."""
        return self._owner.get((version, address), NO_VNIC)

    @cached_property
    def _index(self) -> tuple[_core.RowIndex, npt.NDArray[np.int32]]:
        """Addresses by code, and the owner by code; the last, -1, is nobody."""
        index = _core.RowIndex()
        words = np.array([(a >> 64, a & _WORD, version) for version, a in self._owner], np.uint64).reshape(-1, 3)
        index.codes([np.ascontiguousarray(column).view(np.int64) for column in words.T])
        return index, np.array([*self._owner.values(), NO_VNIC], np.int32)

    def owners(self, packets: PacketColumns, field: str) -> npt.NDArray[np.int32]:
        """int32 (n,): the vNIC that owns each packet's ``src_ip`` or ``dst_ip``, or NO_VNIC."""
        n = len(packets)
        column = packets[field]
        if not self._owner:
            return np.full(n, NO_VNIC, np.int32)
        if column.ndim == 1:
            high, low, version = np.zeros(n, np.int64), column.astype(np.int64), np.full(n, 4, np.int64)
        else:
            high, low = (np.ascontiguousarray(words).view(np.int64) for words in np.broadcast_to(column, (n, 2)).T)
            # What is not IPv6 has its address in the low word, whatever stands in the high one.
            given = np.broadcast_to(packets["ip_ver"] if "ip_ver" in packets else np.uint8(6), (n,))
            version = np.where(given == 6, 6, 4).astype(np.int64)
        index, owners = self._index
        found = owners[index.find([np.where(version == 6, high, 0), np.broadcast_to(low, (n,)), version])]
        return np.where(packets.has(field), found, np.int32(NO_VNIC))
