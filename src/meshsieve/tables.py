"""Columns as Arrow tables and data frames: one way for packets, flows and verdicts.

Needs the ``arrow`` extra (pyarrow); pandas and polars when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.extras import require

Array = npt.NDArray[Any]
Addresses = Literal["text", "binary", "words"]

_STATUSES = tuple(name for name, _ in _core.DECODE_STATUSES)
_TUNNELS = tuple(name for name, _ in _core.TUNNEL_KINDS)


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
    """Addresses of (n, 2) uint64 rows, IPv4 in the low 32 bits, as an Arrow array; null where ``versions`` is neither 4
    nor 6.

    form  "text" (``10.0.0.1``, ``2001:db8::1``); "binary": 16 bytes, IPv4 mapped into IPv6 (::ffff:10.0.0.1); "words":
          two uint64, the rows as they are, not copied
    """
    pa = require("pyarrow", "arrow")
    known = (versions == 4) | (versions == 6)
    if form == "words":
        pairs = pa.array(np.ascontiguousarray(words, np.uint64).reshape(-1))
        return pa.Array.from_buffers(pa.list_(pa.uint64(), 2), len(words), [_validity(pa, known)], children=[pairs])
    if form == "text":
        text, offsets = _core.format_addresses(*_contiguous(words, versions), known)
        return pa.StringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(text), _validity(pa, known))
    high = words[:, 0].astype(">u8")
    low = words[:, 1] | np.where(versions == 4, np.uint64(0xFFFF_0000_0000), np.uint64(0))
    data = np.column_stack([high, low.astype(">u8")]).astype(">u8")
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(words), [_validity(pa, known), pa.py_buffer(np.ascontiguousarray(data).tobytes())]
    )


def address_texts(words: Array, versions: Array) -> list[str | None]:
    """The texts of ``addresses``, None where there is none; without pyarrow."""
    known = (versions == 4) | (versions == 6)
    text, offsets = _core.format_addresses(*_contiguous(words, versions), known)
    shown = text.decode("ascii")
    return [shown[begin:end] or None for begin, end in pairwise(offsets.tolist())]


def _contiguous(words: Array, versions: Array) -> tuple[Array, Array]:
    return np.ascontiguousarray(words, np.uint64), np.ascontiguousarray(versions, np.uint8)


def optional(values: Array, known: npt.NDArray[np.bool_]) -> Any:
    """Numbers as an Arrow array that is null where ``known`` is False; contiguous ``values`` are not copied."""
    pa = require("pyarrow", "arrow")
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [_validity(pa, known), data])


def packet_extras(extra: Mapping[str, Array], form: Addresses) -> dict[str, Any]:
    """The extra columns of a batch of packets (docs/capture.md): what is about a tunnel or a quoted packet is null
    where there is none, codes are names, ``time_ns`` is a time stamp called ``timestamp``."""
    columns: dict[str, Any] = {}
    for name, column in extra.items():
        outer = next((part for part in ("outer", "quoted") if name.startswith(f"{part}_")), None)
        versions = None if outer is None else extra.get(f"{outer}_ip_ver")
        if versions is not None and name.endswith("_ip"):
            columns[name] = addresses(column, versions, form)
        elif versions is not None:
            columns[name] = optional(column, versions != 0)
        elif name == "vni":
            columns[name] = optional(column, extra["tunnel"] != 0)
        elif name in ("status", "tunnel"):
            columns[name] = names(column, _STATUSES if name == "status" else _TUNNELS)
        elif name == "time_ns":
            columns["timestamp"] = times(column)
        else:
            columns[name] = column
    return columns


def names(codes: Array, vocabulary: tuple[str, ...]) -> Any:
    """Small codes as an Arrow dictionary array of their names."""
    pa = require("pyarrow", "arrow")
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int16)), pa.array(vocabulary))


def text_array(texts: Sequence[str | None]) -> Any:
    """An Arrow array of texts, which several columns may have as their dictionary."""
    pa = require("pyarrow", "arrow")
    return pa.array(texts, pa.string())


def buffered_texts(records: Any) -> Any:
    """The texts of a batch of the core (``_core.FlowBatch``) as ``text_array`` has them, without Python's texts."""
    pa = require("pyarrow", "arrow")
    data, offsets = records.text_buffers()
    small = offsets[-1] < 1 << 31
    kind = pa.StringArray if small else pa.LargeStringArray
    offsets = offsets.astype(np.int32) if small else offsets
    return kind.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def texts(codes: Array, dictionary: Any) -> Any:
    """int32 codes into ``dictionary`` (``text_array``) as an Arrow dictionary array; -1 is null."""
    pa = require("pyarrow", "arrow")
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), dictionary)


def fixed_texts(characters: Array) -> Any:
    """Rows of ASCII characters, int8 (n, width), as an Arrow array of texts."""
    pa = require("pyarrow", "arrow")
    n, width = characters.shape
    kind = pa.StringArray if n * width < 1 << 31 else pa.LargeStringArray
    offsets = np.arange(0, (n + 1) * width, width, dtype=np.int32 if kind is pa.StringArray else np.int64)
    return kind.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(characters))


def times(nanoseconds: Array) -> Any:
    """int64 nanoseconds since 1970 as Arrow time stamps in UTC, not copied."""
    pa = require("pyarrow", "arrow")
    return pa.array(nanoseconds).view(pa.timestamp("ns", tz="UTC"))


def _validity(pa: Any, known: npt.NDArray[np.bool_]) -> Any:
    return None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little").tobytes())
