"""Many requests as columns: what compiled routing and authorization tables read, without the interpreter's lock.

>>> batch = RequestColumns.of({"authority": "shop.example", "path": ["/a", "/b"], "headers": {"x-v": ["1", None]}})
>>> len(batch)
2
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.errors import ColumnError
from meshsieve.request import ALIASES, Request
from meshsieve.text_columns import TextColumn

TEXTS = ("method", "scheme", "authority", "path", "sni", "alpn", "principal")
ADDRESSES = ("source_ip", "destination_ip", "remote_ip")
PORTS = ("source_port", "destination_port")
# Values that are no plain text or number: a row has a code into ``RequestColumns.contexts``.
STRUCTURED = ("claims", "runtime", "dynamic_metadata", "filter_state")
Context = tuple[Any, ...]  # the values of STRUCTURED


class RequestColumns:
    """An immutable batch of n requests.

    contexts  the distinct claims, runtime, dynamic_metadata and filter_state of the rows; the first is a request that
              has none of them. A compiled table evaluates what it needs of each once, not once a row.
    native    the batch as the C++ core reads it (csrc/include/meshsieve/request_batch.h)
    """

    def __init__(self, n: int) -> None:
        self.native = _core.RequestBatch(n)
        self.contexts: list[Request] = [Request()]

    def __len__(self) -> int:
        return len(self.native)

    @staticmethod
    def of(requests: Any) -> RequestColumns:
        """``requests`` as columns.

        requests  a RequestColumns; an iterable of ``Request``; or a mapping (also a data frame or an Arrow table) of
                  columns by the names of ``Request``'s fields and their aliases. Text columns: see
                  ``meshsieve.text_columns``. headers: a mapping of names to columns (None: the row lacks the header; a
                  list of columns: several lines), or one value a row of pairs or a mapping, as in ``Request``. Numbers:
                  arrays or lists with None.
        raises    ColumnError for unknown names, unequal lengths, or values that do not fit
        """
        if isinstance(requests, RequestColumns):
            return requests
        if isinstance(requests, Mapping):
            return _of_columns(requests)
        if hasattr(requests, "column_names"):  # Arrow
            return _of_columns({name: requests[name] for name in requests.column_names})
        if hasattr(requests, "columns") and hasattr(requests, "dtypes"):  # data frames
            return _of_columns({name: requests[name] for name in requests.columns})
        return _of_requests(list(requests))

    def request(self, row: int) -> Request:
        """A row as a ``Request``, for what is asked about few rows only.

        raises  IndexError
        """
        texts, addresses, numbers, lines = self.native.row(row)
        context = self.contexts[numbers.pop("context", 0)]
        tls, random = numbers.pop("tls", 0), numbers.pop("random_value", 0) % 2**64
        given = numbers.pop("random_given", 0)
        values: dict[str, Any] = {name: getattr(context, name) for name in STRUCTURED}
        values |= {name: _text(value) for name, value in texts.items()}
        values |= {name: _address_text(*value) for name, value in addresses.items()}
        values |= {name: value for name, value in numbers.items() if value >= 0}
        return Request(
            **values,
            headers=tuple((_text(name), _text(value)) for name, value in lines),
            random_value=random if random or given else None,
            tls={"presented": bool(tls & 1), "validated": bool(tls & 2)} if tls else None,
        )

    def with_peers(self, codes: npt.NDArray[np.int32], peers: Sequence[str]) -> RequestColumns:
        """The same requests with other identities.

        codes  int32 (n,): whose of ``peers`` a row has, over mutual TLS; -1: as it is; -2: neither identity nor TLS
        """
        encoded = [peer.encode("utf-8", "surrogateescape") for peer in peers]
        return RequestColumns._made(self.native.with_peers(codes, encoded), self.contexts)

    def with_contexts(self, codes: npt.NDArray[np.int64], contexts: list[Request]) -> RequestColumns:
        """The same requests with other structured values; codes: int64 (n,), whose of ``contexts`` a row has."""
        return RequestColumns._made(self.native.with_contexts(codes), contexts)

    @staticmethod
    def _made(native: _core.RequestBatch, contexts: list[Request]) -> RequestColumns:
        out = RequestColumns.__new__(RequestColumns)
        out.native, out.contexts = native, contexts
        return out

    def set_text(self, name: str, column: TextColumn) -> None:
        self.native.set_text(name, column.data, column.offsets, column.codes, column.constant)

    def set_lines(self, lines: Sequence[Iterable[tuple[str, str]]]) -> None:
        """Header lines of every row."""
        begin = np.zeros(len(lines) + 1, np.int64)
        names: dict[str, int] = {}
        codes: list[int] = []
        values: list[str] = []
        for row, headers in enumerate(lines):
            for name, value in headers:
                codes.append(names.setdefault(name, len(names)))
                values.append(value)
            begin[row + 1] = len(codes)
        if not codes:
            return
        folded = [name.encode("utf-8", "surrogateescape").lower() for name in names]
        text = TextColumn.of("headers", values).trimmed()
        self.native.set_lines(begin, folded, np.array(codes, np.int32), text.data, text.offsets)

    def set_contexts(self, requests: Sequence[Request]) -> None:
        """The structured values of every row; equal ones of the same objects are told apart once."""
        if not any(r.claims or r.runtime or r.dynamic_metadata or r.filter_state for r in requests):
            return
        seen: dict[tuple[int, ...], int] = {}
        codes = np.zeros(len(requests), np.int64)
        for row, request in enumerate(requests):
            values = [getattr(request, name) for name in STRUCTURED]
            if any(values):
                key = tuple(id(value) if value else 0 for value in values)
                codes[row] = seen.setdefault(key, len(self.contexts))
                if codes[row] == len(self.contexts):
                    self.contexts.append(request)
        self.native.set_number("context", codes)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _address_text(high: int, low: int, version: int) -> str:
    number = high << 64 | low
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def _of_requests(requests: list[Request]) -> RequestColumns:
    for request in requests:
        if not isinstance(request, Request):
            raise ColumnError(f"expected requests, got {type(request).__name__}")
    batch = RequestColumns(len(requests))
    for name in TEXTS:
        values = [getattr(request, name) for request in requests]
        if name in ("method", "scheme", "authority", "path") or any(v is not None for v in values):
            batch.set_text(name, TextColumn.of(name, values))
    batch.set_lines([request.headers for request in requests])
    for name in (*ADDRESSES, *PORTS):
        values = [getattr(request, name) for request in requests]
        if any(value is not None for value in values):
            _set_other(batch, name, values)
    _set_random(batch, [request.random_value for request in requests])
    _set_times(batch, [request.time_ns for request in requests])
    _set_tls(batch, [request.tls for request in requests])
    batch.set_contexts(requests)
    return batch


def _of_columns(columns: Mapping[str, Any]) -> RequestColumns:
    given = {ALIASES.get(name, name): values for name, values in columns.items()}
    known = {*TEXTS, *ADDRESSES, *PORTS, *STRUCTURED, "headers", "random_value", "tls", "time_ns"}
    if unknown := sorted(set(given) - known):
        raise ColumnError(f"a request has no column {', '.join(unknown)}; columns: {', '.join(sorted(known))}")
    texts = {name: TextColumn.of(name, given[name]) for name in TEXTS if name in given}
    headers = given.get("headers", {})
    if isinstance(headers, Mapping):
        by_name = [
            (name.encode("utf-8", "surrogateescape").lower(), TextColumn.of(f"headers.{name}", column).trimmed())
            for name, values in headers.items()
            for column in _header_columns(values)
        ]
    else:
        by_name = []
    lengths = {len(column) for column in (*texts.values(), *(c for _, c in by_name)) if not column.constant}
    others = (*ADDRESSES, *PORTS, *STRUCTURED, "random_value", "tls", "time_ns")
    lengths |= {len(given[name]) for name in others if name in given}
    if not isinstance(headers, Mapping):
        lengths.add(len(headers))
    if len(lengths) > 1:
        raise ColumnError(f"columns differ in length: {', '.join(map(str, sorted(lengths)))} rows")
    batch = RequestColumns(lengths.pop() if lengths else 1)
    for name, column in texts.items():
        batch.set_text(name, column)
    for header, column in by_name:
        batch.native.add_header(header, column.data, column.offsets, column.codes, column.constant)
    if not isinstance(headers, Mapping):
        batch.set_lines([Request(headers=row or ()).headers for row in headers])
    for name in (*ADDRESSES, *PORTS):
        if name in given:
            _set_other(batch, name, given[name])
    _set_random(batch, given.get("random_value"))
    _set_times(batch, given.get("time_ns"))
    _set_tls(batch, given.get("tls"))
    if structured := [name for name in STRUCTURED if name in given]:
        rows = [{n: v for n in structured if (v := given[n][row]) is not None} for row in range(len(batch))]
        batch.set_contexts([Request(**row) for row in rows])
    return batch


def _header_columns(values: Any) -> list[Any]:
    """The columns of one header: a list or tuple of columns is several lines."""
    if isinstance(values, list) and values and not any(isinstance(v, str | bytes | None) for v in values):
        return values
    return [values]


def _set_other(batch: RequestColumns, name: str, values: Any) -> None:
    if name in ADDRESSES:
        batch.native.set_address(name, *_address_column(name, values, len(batch)))
    else:
        batch.native.set_number(name, _number_column(name, values, 65535))


def _number_column(name: str, values: Any, largest: int) -> npt.NDArray[np.int64]:
    """int64 (n,), -1 where absent."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise ColumnError(f"column {name}: expected integers in one dimension, got {values.dtype} {values.shape}")
        column = np.ascontiguousarray(values, np.int64)
    else:
        try:
            column = np.array([-1 if value is None else value for value in values], np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ColumnError(f"column {name}: {error}") from None
    if column.size and (int(column.min()) < -1 or int(column.max()) > largest):
        raise ColumnError(f"column {name}: values must lie in 0..{largest}")
    return column


def _set_random(batch: RequestColumns, values: Any) -> None:
    if values is None:
        return
    try:
        given = [value is not None for value in values]
        if not any(given):
            return
        column = np.array([0 if value is None else int(value) for value in values], np.uint64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ColumnError(f"column random_value: {error}") from None
    batch.native.set_number("random_value", column.view(np.int64))
    batch.native.set_number("random_given", np.array(given, np.int64))


def _set_times(batch: RequestColumns, values: Any) -> None:
    if values is not None and any(value is not None for value in values):
        batch.native.set_number("time_ns", _number_column("time_ns", values, 2**63 - 1))


def _set_tls(batch: RequestColumns, values: Any) -> None:
    if values is None or all(state is None for state in values):
        return
    bits = [
        0 if state is None else 4 | (1 if state.get("presented") else 0) | (2 if state.get("validated") else 0)
        for state in values
    ]
    batch.native.set_number("tls", np.array(bits, np.int64))


def _address_column(name: str, values: Any, n: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """Words (n, 2) and IP versions (n,) of text addresses; version 0 is absent. Text that is no address is an error."""
    words, versions = np.zeros((n, 2), np.uint64), np.zeros(n, np.uint8)
    known: dict[Any, tuple[int, int, int]] = {None: (0, 0, 0)}
    for row, text in enumerate(values):
        if text not in known:
            try:
                address = ipaddress.ip_address(text)
            except ValueError as error:
                raise ColumnError(f"column {name}, row {row}: {error}") from None
            known[text] = int(address) >> 64, int(address) & 2**64 - 1, address.version
        words[row, 0], words[row, 1], versions[row] = known[text]
    return words, versions
