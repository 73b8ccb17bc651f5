"""Text of many rows as bytes and offsets: what the C++ core reads of requests and keys.

A column may be given as

- one str or bytes, which stands for every row, or None: absent in every row
- a list, tuple or numpy array of str, bytes and None
- a pair of arrays (data uint8 or bytes, offsets int of n + 1)
- an Arrow string, binary or dictionary array, or a data frame's column (needs the ``arrow`` extra)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.errors import ColumnError, ModelError
from meshsieve.extras import require


@dataclass(frozen=True, slots=True)
class TextColumn:
    """data uint8; offsets int64 (values + 1); codes int32 (n,) of rows into values, -1 absent, or None: row i is
    value i; constant: one row stands for all."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32] | None = None
    constant: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1 if self.codes is None else len(self.codes)

    @staticmethod
    def of(name: str, values: Any) -> TextColumn:
        """raises  ColumnError naming the column"""
        try:
            if values is None or isinstance(values, str | bytes):
                return TextColumn(*_core.pack_texts([values]), constant=True)
            if isinstance(values, tuple) and len(values) == 2 and isinstance(values[1], np.ndarray):
                return _of_buffer(*values)
            if hasattr(values, "__arrow_c_array__") or hasattr(values, "__arrow_c_stream__"):
                return _of_arrow(values)
            if isinstance(values, np.ndarray):
                if values.ndim != 1 or values.dtype.kind not in "SUO":
                    raise ColumnError(f"expected text in one dimension, got {values.dtype} {values.shape}")
                values = values.tolist()
            if hasattr(values, "to_numpy"):  # a pandas Series of objects
                values = values.to_numpy().tolist()
            return TextColumn(*_core.pack_texts(values))
        except (ModelError, TypeError, ValueError) as error:
            raise ColumnError(f"column {name}: {error}") from None

    def folded(self) -> TextColumn:
        """Every value in ASCII lower case."""
        return TextColumn(*_core.tidy_texts(self.data, self.offsets, True), self.codes, self.constant)

    def trimmed(self) -> TextColumn:
        """Every value without the blanks and tabs around it."""
        return TextColumn(*_core.tidy_texts(self.data, self.offsets, False), self.codes, self.constant)


def _of_buffer(data: Any, offsets: npt.NDArray[Any]) -> TextColumn:
    if offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise ColumnError(f"offsets must be integers in one dimension, not {offsets.dtype} {offsets.shape}")
    raw = np.frombuffer(data, np.uint8) if isinstance(data, bytes | bytearray | memoryview) else data
    if not isinstance(raw, np.ndarray) or raw.dtype != np.uint8 or raw.ndim != 1:
        raise ColumnError("data must be bytes or uint8 in one dimension")
    return TextColumn(np.ascontiguousarray(raw), np.ascontiguousarray(offsets, np.int64))


def _of_arrow(values: Any) -> TextColumn:
    pa = require("pyarrow", "arrow")
    if hasattr(values, "__arrow_c_array__"):
        column = pa.array(values)
    else:
        chunks = pa.chunked_array(values)
        column = chunks.combine_chunks() if chunks.num_chunks != 1 else chunks.chunk(0)
    if pa.types.is_dictionary(column.type):
        codes = column.indices.fill_null(-1).cast(pa.int32()).to_numpy(zero_copy_only=False)
        values_of = _of_arrow(column.dictionary)
        if values_of.codes is not None:  # an absent value inside the dictionary
            codes = np.where(codes >= 0, values_of.codes[codes], -1)
        return TextColumn(values_of.data, values_of.offsets, np.ascontiguousarray(codes, np.int32))
    nulls = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    if not pa.types.is_large_binary(column.type):
        column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1] if offsets else [0]
    bytes_ = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    codes = None if nulls is None else np.where(nulls, -1, np.arange(len(column))).astype(np.int32)
    return TextColumn(bytes_, np.ascontiguousarray(ends, np.int64), codes)
