"""Maglev in plain Python, as short as it gets: the peer that anyone would write, and the judge of our picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Hash = Callable[[bytes, int], int]


def table(hosts: Sequence[str], size: int, xxh64: Hash) -> list[int]:
    """Slot -> host, all weights equal; hosts take turns in the order of their names' bytes."""
    order = sorted(range(len(hosts)), key=lambda i: hosts[i].encode())
    at = [xxh64(hosts[i].encode(), 0) % size for i in order]
    skip = [xxh64(hosts[i].encode(), 1) % (size - 1) + 1 for i in order]
    slots = [-1] * size
    filled = 0
    while True:
        for turn, host in enumerate(order):
            slot = at[turn]
            while slots[slot] >= 0:
                slot = (slot + skip[turn]) % size
            slots[slot] = host
            at[turn] = (slot + skip[turn]) % size
            filled += 1
            if filled == size:
                return slots
