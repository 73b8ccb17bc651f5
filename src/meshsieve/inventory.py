"""Who owns which address: virtual network interfaces (vNICs) and their machines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

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
    def _v4(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int32]]:
        pairs = sorted((address, number) for (version, address), number in self._owner.items() if version == 4)
        return np.array([a for a, _ in pairs], np.uint32), np.array([n for _, n in pairs], np.int32)

    def owners(self, packets: PacketColumns, field: str) -> npt.NDArray[np.int32]:
        """int32 (n,): the vNIC that owns each packet's ``src_ip`` or ``dst_ip``, or NO_VNIC."""
        n = len(packets)
        column = packets[field]
        has = packets.has(field)
        out = np.full(n, NO_VNIC, np.int32)
        if not self._owner:
            return out
        if column.ndim == 1:
            column, is_v6 = (
                np.stack([np.zeros(len(column), np.uint64), column.astype(np.uint64)], axis=1),
                np.zeros(n, bool),
            )
        else:
            version = packets["ip_ver"] if "ip_ver" in packets else np.full(n, 6, np.uint8)
            is_v6 = np.broadcast_to(version == 6, (n,))
        column = np.broadcast_to(column, (n, 2))
        v4 = has & ~is_v6
        addresses, numbers = self._v4
        if len(addresses):
            wanted = column[v4, 1].astype(np.uint32)
            at = np.minimum(np.searchsorted(addresses, wanted), len(addresses) - 1)
            out[v4] = np.where(addresses[at] == wanted, numbers[at], NO_VNIC)
        for i in np.flatnonzero(has & is_v6):
            out[i] = self.owner(6, int(column[i, 0]) << 64 | int(column[i, 1]))
        return out
