"""Hashes of keys and key columns: xxHash64 with seed 0, as Envoy hashes requests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve._fast_balance import hash_fixed, hash_variable
from meshsieve.errors import ColumnError
from meshsieve.extras import require

Hashes = npt.NDArray[np.uint64]


def hash_key(key: str | bytes) -> int:
    """xxHash64 of one key; text as UTF-8.

    >>> hex(hash_key(""))
    '0xef46db3751d8e999'
    """
    return _core.xxh64(_bytes(key))


def hash_keys(keys: Any) -> Hashes:
    """uint64 (n,): xxHash64 of every key of a column.

    keys    a numpy 'S' array (fastest; zeros at the end of a value are padding), an Arrow string or binary array, or
            any iterable of str and bytes
    raises  ColumnError for anything else, and for a null: an absent key has no hash
    """
    if isinstance(keys, np.ndarray) and keys.dtype.kind == "S" and keys.ndim == 1:
        return hash_fixed(np.ascontiguousarray(keys))
    if hasattr(keys, "__arrow_c_array__") or hasattr(keys, "__arrow_c_stream__"):
        return _hash_arrow(keys)
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise ColumnError(f"keys must be a column of text, not {type(keys).__name__}")
    values = [_bytes(key) for key in keys]
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(v) for v in values], out=offsets[1:])
    return hash_variable(np.frombuffer(b"".join(values), np.uint8), offsets)


def combine(hashes: Hashes, more: Hashes) -> Hashes:
    """rotl(hashes, 1) ^ more: how Envoy joins the hashes of two policies."""
    one = np.uint64(1)
    return (hashes << one | hashes >> np.uint64(63)) ^ more


def _bytes(key: Any) -> bytes:
    if isinstance(key, str):
        return key.encode("utf-8", "surrogateescape")
    if isinstance(key, bytes):
        return key
    raise ColumnError(f"a key must be text or bytes, not {type(key).__name__}")


def _hash_arrow(keys: Any) -> Hashes:
    pa = require("pyarrow", "arrow")
    column = pa.array(keys) if hasattr(keys, "__arrow_c_array__") else pa.chunked_array(keys).combine_chunks()
    if column.null_count:
        raise ColumnError(f"the key column has {column.null_count} nulls; an absent key has no hash")
    column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return hash_variable(np.frombuffer(data or b"", np.uint8), np.ascontiguousarray(ends))
