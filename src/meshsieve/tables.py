"""Columns as Arrow tables and data frames: one way for packets, flows and verdicts.

Needs the ``arrow`` extra (pyarrow); pandas and polars when they are asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from meshsieve.extras import require

Array = npt.NDArray[Any]
Addresses = Literal["text", "binary"]


def to_arrow(columns: Mapping[str, Any]) -> Any:
    """``columns`` as a pyarrow.Table. Values: arrays (no copy where Arrow needs none), lists, or Arrow arrays.

    raises  MissingExtraError without pyarrow
    """
    pa = require("pyarrow", "arrow")
    return pa.table(
        {name: values if isinstance(values, list) else pa.array(values) for name, values in columns.items()}
    )


def to_pandas(columns: Mapping[str, Any]) -> Any:
    """``columns`` as a pandas.DataFrame."""
    require("pandas", "pandas")
    return to_arrow(columns).to_pandas()


def to_polars(columns: Mapping[str, Any]) -> Any:
    """``columns`` as a polars.DataFrame."""
    return require("polars", "polars").from_arrow(to_arrow(columns))


def addresses(words: Array, versions: Array, form: Addresses = "text") -> Any:
    """Addresses of (n, 2) uint64 rows, IPv4 in the low 32 bits; null where ``versions`` is neither 4 nor 6.

    form     "text" (``10.0.0.1``, ``2001:db8::1``): a list; "binary": an Arrow array of 16 bytes, IPv4 mapped into
             IPv6 (::ffff:10.0.0.1)
    returns  what ``to_arrow`` takes
    """
    known = (versions == 4) | (versions == 6)
    if form == "text":
        texts: list[str | None] = [None] * len(words)
        # Few addresses stand in many rows: format each once.
        keys = np.column_stack([words, np.where(known, versions, 0)])
        different, rows = np.unique(keys, axis=0, return_inverse=True)
        shown = [_address_text(int(high), int(low), int(version)) for high, low, version in different]
        for i, row in enumerate(rows.ravel()):
            texts[i] = shown[row]
        return texts
    pa = require("pyarrow", "arrow")
    high = words[:, 0].astype(">u8")
    low = words[:, 1] | np.where(versions == 4, np.uint64(0xFFFF_0000_0000), np.uint64(0))
    data = np.column_stack([high, low.astype(">u8")]).astype(">u8")
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(words), [_validity(pa, known), pa.py_buffer(np.ascontiguousarray(data).tobytes())]
    )


def optional(values: Array, known: npt.NDArray[np.bool_]) -> Any:
    """``values`` as an Arrow array that is null where ``known`` is False."""
    return require("pyarrow", "arrow").array(values, mask=~known)


def names(codes: Array, vocabulary: tuple[str, ...]) -> Any:
    """Small codes as an Arrow dictionary array of their names."""
    pa = require("pyarrow", "arrow")
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int16)), pa.array(vocabulary))


def texts(codes: Array, table: Sequence[str | None]) -> Any:
    """Codes into ``table`` as an Arrow dictionary array; -1 is null."""
    pa = require("pyarrow", "arrow")
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(table, pa.string()))


def times(nanoseconds: Array) -> Any:
    """int64 nanoseconds since 1970 as Arrow time stamps in UTC."""
    pa = require("pyarrow", "arrow")
    return pa.array(nanoseconds).cast(pa.timestamp("ns", tz="UTC"))


def _address_text(high: int, low: int, version: int) -> str | None:
    if version == 4:
        return str(ipaddress.IPv4Address(low & 0xFFFFFFFF))
    return str(ipaddress.IPv6Address(high << 64 | low)) if version == 6 else None


def _validity(pa: Any, known: npt.NDArray[np.bool_]) -> Any:
    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
