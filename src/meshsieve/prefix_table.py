"""Longest-prefix match for IPv4 and IPv6: which of many prefixes holds an address, and what value it has."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core, _fast, saved_tables
from meshsieve.address_columns import as_addresses, one_family
from meshsieve.errors import ColumnError

Key = tuple[int, int, int, int]  # IP version, high word, low word, prefix length
MISSING = -1


class PrefixTable(_fast.PrefixLookup):
    """Prefixes with integer values; an address gets the value of the longest prefix that holds it.

    prefixes  mapping or pairs of text (``10.0.0.0/8``, ``2001:db8::/32``, a bare address) to int64 values
    backend   "auto", or a name of ``meshsieve._core.backends()``
    raises    ModelError for text that is no prefix, host bits below the prefix, or a value beyond 64 bits;
              BackendError for an unknown backend
    threads   any number may look up and change. Changes appear together at the next look-up that starts after
              ``update`` returns; a batch answers wholly from one state

    ``table[ip]`` (KeyError if no prefix holds it), ``get(ip, default=None)``, ``lookup(ip, missing=-1)`` and ``ip in
    table`` take one address in any form: text, int (beyond 32 bits it is IPv6), packed bytes, ``ipaddress`` object.
    Values may be negative: pass another ``missing`` if -1 is one of them. ``insert(prefix, value)`` is also
    ``table[prefix] = value``, ``remove(prefix)`` also ``del table[prefix]``; ``exact`` and ``prefix in table`` ask for
    a prefix itself.

    >>> table = PrefixTable({"10.0.0.0/8": 7, "10.1.0.0/16": 8})
    >>> table.lookup("10.1.2.3"), table.lookup("10.2.0.1"), table.lookup("192.0.2.1")
    (8, 7, -1)
    """

    def __init__(self, prefixes: Mapping[str, int] | Iterable[tuple[str, int]] = (), *, backend: str = "auto") -> None:
        self.update(prefixes)

    def lookup_batch(
        self, addresses: Any, *, ip_ver: npt.ArrayLike | None = None, missing: int = MISSING
    ) -> npt.NDArray[np.int64]:
        """The values for n addresses: int64 (n,). The GIL is released.

        addresses  uint32 (n,): IPv4; uint64 (n, 2), high and low word: IPv6; or texts of either family
        ip_ver     (n,) of 4 or 6, where (n, 2) rows hold both families
        missing    value of addresses that no prefix holds
        raises     ColumnError for columns that do not fit
        """
        columns, told = one_family({"addresses": as_addresses("addresses", addresses)})
        column = columns["addresses"]
        if told is not None and not told.all():
            raise ColumnError(f"addresses: row {int(np.argmin(told))} is None; every row is an address")
        families = None if told is None else (told == 6).astype(np.uint8)
        if ip_ver is not None:
            versions = np.asarray(ip_ver)
            if column.ndim != 2 or versions.shape != (len(column),):
                raise ColumnError(f"ip_ver has shape {versions.shape}; it goes with addresses of shape (n, 2)")
            families = np.ascontiguousarray(versions == 6, np.uint8)
        out = np.empty(len(column), np.int64)
        self.batch(column, families, missing, out)
        return out

    def update(self, insert: Mapping[str, int] | Iterable[tuple[str, int]] = (), remove: Iterable[str] = ()) -> None:
        """Removes and inserts many prefixes in one publication: no look-up sees a part of it.

        raises  KeyError, and changes nothing, if a prefix to remove is not there; ModelError as the class
        """
        gone = list(remove)
        if not self.change(gone, insert.items() if isinstance(insert, Mapping) else insert):
            missing = [prefix for prefix in gone if self.exact(prefix) is None]
            raise KeyError(f"not in the table: {', '.join(missing)}; nothing was changed")

    def save(self, path: str | os.PathLike[str], *, key: bytes | None = None) -> None:
        """Writes prefixes and tables to a file, whole or not at all, for ``load``; see ``PacketClassifier.save``.

        raises  OutputError
        """
        saved_tables.write(path, _core.save_prefixes(self.native, key is not None), key)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, backend: str = "auto", mapped: bool = False, key: bytes | None = None
    ) -> PrefixTable:
        """The table that ``save`` wrote; arguments and errors are those of ``packets.load_table``.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     PrefixTable({"10.0.0.0/8": 7}).save(f"{folder}/prefixes")
        ...     PrefixTable.load(f"{folder}/prefixes").lookup("10.1.2.3")
        7
        """
        with saved_tables.naming(path):
            return cls.of(_core.load_prefixes(saved_tables.read(path, mapped, key), backend))

    def exact(self, prefix: str) -> int | None:
        """The value of exactly this prefix; None if it is not in the table."""
        value: int | None = self.native.exact(_fast.prefix_key(prefix))
        return value

    def __len__(self) -> int:
        return len(self.native)

    def __iter__(self) -> Iterator[str]:
        """Prefixes as text, IPv4 first, by address, shorter ones first."""
        return (_text(key) for key, _ in self.native.items())

    @property
    def nbytes(self) -> int:
        """Bytes of the tables that look-ups read."""
        size: int = self.native.bytes
        return size

    def __repr__(self) -> str:
        return f"<PrefixTable of {len(self)} prefixes>"


def _text(key: Key) -> str:
    version, high, low, bits = key
    make = ipaddress.IPv6Address if version == 6 else ipaddress.IPv4Address
    return f"{make(high << 64 | low)}/{bits}"
