"""Columns of results, as every writer wants them: NDJSON, CSV, Parquet, Arrow, tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.labels import TextTable

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One named column of n rows.

    kind   number:  ``data`` holds integers of any width
           address: ``data`` is uint64 (n, 2) or uint32 (n,), ``version`` uint8 (n,) says 4 or 6
           text:    ``data`` is int32 (n,), codes into ``table``, -1 where there is no value
    valid  bool (n,) or None = every row has a value
    """

    name: str
    kind: Literal["number", "address", "text"]
    data: Array
    valid: npt.NDArray[np.bool_] | None = None
    version: Array | None = None
    table: TextTable | None = None

    @staticmethod
    def number(name: str, data: Array, *, valid: npt.NDArray[np.bool_] | None = None) -> Column:
        return Column(name, "number", np.ascontiguousarray(data), valid)

    @staticmethod
    def text(name: str, codes: Array, table: TextTable) -> Column:
        return Column(name, "text", np.ascontiguousarray(codes, np.int32), table=table)

    @staticmethod
    def address(name: str, data: Array, version: Array, valid: npt.NDArray[np.bool_]) -> Column:
        if data.ndim == 1:
            data = np.stack([np.zeros(len(data), np.uint64), data.astype(np.uint64)], axis=1)
        return Column(name, "address", np.ascontiguousarray(data, np.uint64), valid, np.ascontiguousarray(version))

    def __len__(self) -> int:
        return len(self.data)

    def values(self) -> Array:
        """The column for people: numbers as they are (0 where there is none), text as an object array with None,
        addresses as text."""
        if self.kind == "number":
            return self.data
        out = np.empty(len(self.data), object)
        if self.table is not None:
            texts = np.empty(len(self.table.texts) + 1, object)
            texts[:-1] = self.table.texts  # and None at the end, where -1 points
            out[:] = texts[self.data]
            return out
        text, offsets = self.address_texts()
        for i in range(len(out)):
            shown = text[offsets[i] : offsets[i + 1]].decode("ascii")
            out[i] = shown or None
        return out

    def value(self, i: int) -> Any:
        """The value of one row; None where there is none."""
        part = slice(i, i + 1)
        if self.valid is not None and not self.valid[i]:
            return None
        one = Column(
            self.name,
            self.kind,
            self.data[part],
            None,
            None if self.version is None else self.version[part],
            self.table,
        )
        value = one.values()[0]
        return int(value) if self.kind == "number" else value

    def address_texts(self) -> tuple[bytes, npt.NDArray[np.int32]]:
        """All addresses as text end to end, and int32 (n + 1,) where each begins; empty where there is none."""
        text, offsets = _core.format_addresses(self.data, self.version, self.valid)
        return text, offsets
