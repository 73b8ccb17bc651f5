"""HTTP requests out of captures: clear-text HTTP/1, HTTP/2 and gRPC, on any port, with what was answered and when.

>>> for request in http_requests.read("office.pcapng").requests():       # doctest: +SKIP
...     print(request.method, request.authority, request.path, request.observed["status"])

A request is complete when its response is, so rows come in the order of responses. What a capture holds is never an
exception: a message that can be read in two ways is read as the RFC says and noted, what cannot be read is counted.
docs/requests.md has the columns, notes and counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core, capture, flows, tables
from meshsieve.errors import UsageError
from meshsieve.labels import TextTable
from meshsieve.output import Column
from meshsieve.request import Headers, Request
from meshsieve.request_columns import RequestColumns
from meshsieve.text_columns import TextColumn

Array = npt.NDArray[Any]

NOTES: tuple[str, ...] = tuple(name for name, _ in _core.HTTP_NOTES)
MASKED = "(masked)"
# Header lines whose values are credentials.
SECRET_HEADERS = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-auth-token", "x-access-token",
        "x-amz-security-token", "x-csrf-token", "x-xsrf-token", "x-vault-token", "private-token", "x-gitlab-token",
        "x-forwarded-access-token", "x-goog-iam-authorization-token",
    }
)  # fmt: skip

_BATCH_OF_REQUESTS = 4096
_FLOWS = flows.FlowOptions(apps=False)
_TEXTS = ("method", "scheme", "authority", "path", "upgrade")


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Limits of what is held for connections that are being read.

    head_bytes    of a start line with its header lines, and of a header list unfolded from HPACK; a longer HTTP/1 head
                  ends the reading of its direction, a longer list is cut and noted
    header_lines  kept of a request; more are left out and noted
    pending       requests of one connection that wait for their ends; beyond, the oldest is written early
    memory_bytes  for all connections; beyond, the connection that was silent longest is given up, and counted
    """

    head_bytes: int = 128 << 10
    header_lines: int = 1000
    pending: int = 1024
    memory_bytes: int = 128 << 20

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not 1 <= value < 1 << 31:
                raise UsageError(f"{name} is {value}; it must lie between 1 and {(1 << 31) - 1}")


class RequestBatch(Mapping[str, Any]):
    """Requests as columns: ``batch["status"]`` is an array or list of n values.

    Arrays: flow_id, sport, dport, ip_ver, version (10, 11, 20), stream (HTTP/2; the how-manieth of the connection in
    HTTP/1), time_ns (first byte), request_end_ns, response_ns (first byte of the final response), response_end_ns
    (``_core.NO_TIME`` where not seen), request_body_bytes, response_body_bytes, status (0 = none seen), grpc_status
    (-1 = none), notes (bits by ``NOTES``), src_ip and dst_ip (uint64 (n, 2)). Lists, made when they are asked for:
    method, scheme, authority, path, upgrade, headers, as ``str``: UTF-8, other bytes as lone surrogates
    (``surrogateescape``).
    """

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns
        self._packed = {name: columns[name] for name in (*_TEXTS, "headers")}
        columns |= dict.fromkeys(self._packed)

    def __getitem__(self, name: str) -> Any:
        found = self._columns[name]
        if found is None:
            packed = self._packed[name]
            found = self._columns[name] = _lines(*packed) if name == "headers" else _texts(*packed)
        return found

    def request_columns(self) -> RequestColumns:
        """The requests as routing and authorization read them many at a time."""
        out = RequestColumns(len(self))
        for name in ("method", "scheme", "authority", "path"):
            out.set_text(name, TextColumn(*self._packed[name]))
        for ours, theirs in (("source", "src_ip"), ("destination", "dst_ip")):
            out.native.set_address(f"{ours}_ip", self[theirs], self["ip_ver"])
        out.native.set_number("source_port", self["sport"].astype(np.int64))
        out.native.set_number("destination_port", self["dport"].astype(np.int64))
        out.native.set_number("time_ns", self["time_ns"].astype(np.int64))
        begin, names, codes, values = self._packed["headers"]
        folded = [name.lower() for name in names]
        # A Host line says what the authority says, unless it does not.
        rows = np.repeat(np.arange(len(self)), np.diff(begin))
        is_host = np.array([name == b"host" for name in folded] or [False], np.bool_)
        told = is_host[codes] & (self["notes"][rows] & _BAD_HOST == 0) if len(codes) else np.zeros(0, np.bool_)
        kept = np.flatnonzero(~told)
        ends = np.zeros(len(self) + 1, np.int64)
        np.cumsum(np.bincount(rows[kept], minlength=len(self)), out=ends[1:])
        text = TextColumn(*values).trimmed()
        out.native.set_lines(ends, folded, codes[kept], text.data, text.offsets, kept.astype(np.int32))
        return out

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._columns["flow_id"])

    def headers_of(self, i: int, *, masked: bool = False) -> tuple[tuple[str, str], ...]:
        """Header lines of one request, without the Host line that its authority says; credentials masked if asked."""
        lines = self["headers"][i]
        ambiguous = int(self["notes"][i]) & _BAD_HOST
        return tuple(
            (name, MASKED if masked and name.lower() in SECRET_HEADERS else value)
            for name, value in lines
            if ambiguous or name.lower() != "host"
        )

    def observed(self, i: int) -> dict[str, Any]:
        """What was seen beside the request itself; keys without a value are left out."""
        c = self
        found: dict[str, Any] = {
            "protocol": {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}[int(c["version"][i])],
            "stream": int(c["stream"][i]),
            "status": int(c["status"][i]) or None,
            "response_time_ns": _between(c["time_ns"][i], c["response_ns"][i]),
            "duration_ns": _between(c["time_ns"][i], c["response_end_ns"][i]),
            "request_body_bytes": int(c["request_body_bytes"][i]),
            "response_body_bytes": int(c["response_body_bytes"][i]),
            "upgrade": c["upgrade"][i] or None,
        }
        service, method = self.grpc_method(i)
        if service is not None:
            status = int(c["grpc_status"][i])
            found |= {"grpc_service": service, "grpc_method": method, "grpc_status": None if status < 0 else status}
        found["notes"] = self.notes_of(i) or None
        return {name: value for name, value in found.items() if value is not None}

    def notes_of(self, i: int) -> list[str]:
        bits = int(self["notes"][i])
        return [name for bit, name in enumerate(NOTES) if bits >> bit & 1]

    def grpc_method(self, i: int) -> tuple[str | None, str | None]:
        """(service, method) of a gRPC request, else (None, None)."""
        kind = next((value for name, value in self["headers"][i] if name.lower() == "content-type"), "")
        parts = self["path"][i].split("/")
        is_grpc = kind.startswith("application/grpc") and kind[16:17] in ("", "+", ";")
        return (parts[1], parts[2]) if is_grpc and len(parts) == 3 and not parts[0] else (None, None)

    def row(self, i: int, *, masked: bool = False) -> dict[str, Any]:
        """One request in the format of ``Request.from_dict``; ``observed`` has what is known of the answer."""
        c = self
        return {
            "method": c["method"][i],
            "scheme": c["scheme"][i],
            "authority": c["authority"][i],
            "path": c["path"][i],
            "headers": self.headers_of(i, masked=masked),
            "source_ip": self._addresses("src_ip")[i],
            "source_port": int(c["sport"][i]),
            "destination_ip": self._addresses("dst_ip")[i],
            "destination_port": int(c["dport"][i]),
            "time_ns": int(c["time_ns"][i]),
            "flow": int(c["flow_id"][i]),
            "observed": self.observed(i),
        }

    def requests(self) -> Iterator[Request]:
        return (Request(**self.row(i)) for i in range(len(self)))

    def output_columns(self, names: Sequence[str] | None = None, *, masked: bool = True) -> list[Column]:
        """For CSV and Parquet: the values of ``row`` side by side, header lines as JSON; all, or those of ``names``.
        Tables of texts are those of the batch, so that memory does not grow with what a capture holds."""
        known = np.ones(len(self), np.bool_)
        protocols = {10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}

        def duration(name: str, end: str) -> Column:
            begun, ended = self["time_ns"], self[end]
            valid = (begun != _core.NO_TIME) & (ended != _core.NO_TIME) & (ended >= begun)
            return Column.number(name, np.where(valid, ended - begun, 0), valid=valid)

        def grpc(name: str, part: int) -> Column:
            return _text_column(name, [self.grpc_method(i)[part] for i in range(len(self))])

        def grpc_status() -> Column:
            status = self["grpc_status"].astype(np.int64)
            spoken = np.array([self.grpc_method(i)[0] is not None for i in range(len(self))], np.bool_)
            return Column.number("grpc_status", np.maximum(status, 0), valid=spoken & (status >= 0))

        makers: dict[str, Callable[[], Column]] = {
            "flow": lambda: Column.number("flow", self["flow_id"]),
            "time_ns": lambda: Column.number("time_ns", self["time_ns"]),
            "source_ip": lambda: Column.address("source_ip", self["src_ip"], self["ip_ver"], known),
            "source_port": lambda: Column.number("source_port", self["sport"]),
            "destination_ip": lambda: Column.address("destination_ip", self["dst_ip"], self["ip_ver"], known),
            "destination_port": lambda: Column.number("destination_port", self["dport"]),
            "protocol": lambda: _text_column("protocol", [protocols[v] for v in self["version"].tolist()]),
            "stream": lambda: Column.number("stream", self["stream"].astype(np.int64)),
            "method": lambda: _text_column("method", self["method"]),
            "scheme": lambda: _text_column("scheme", self["scheme"]),
            "authority": lambda: _text_column("authority", self["authority"]),
            "path": lambda: _text_column("path", self["path"]),
            "status": lambda: Column.number("status", self["status"].astype(np.int64), valid=self["status"] > 0),
            "response_time_ns": lambda: duration("response_time_ns", "response_ns"),
            "duration_ns": lambda: duration("duration_ns", "response_end_ns"),
            "request_body_bytes": lambda: Column.number("request_body_bytes", self["request_body_bytes"]),
            "response_body_bytes": lambda: Column.number("response_body_bytes", self["response_body_bytes"]),
            "upgrade": lambda: _text_column("upgrade", [text or None for text in self["upgrade"]]),
            "grpc_service": lambda: grpc("grpc_service", 0),
            "grpc_method": lambda: grpc("grpc_method", 1),
            "grpc_status": grpc_status,
            "notes": lambda: _text_column("notes", [" ".join(self.notes_of(i)) or None for i in range(len(self))]),
            "headers": lambda: _text_column(
                "headers", [json.dumps(self.headers_of(i, masked=masked)) for i in range(len(self))]
            ),
        }
        return [makers[name]() for name in (makers if names is None else names)]

    def _addresses(self, name: str) -> list[str | None]:
        texts: list[str | None] | None = self._columns.get(name + "_text")
        if texts is None:
            texts = self._columns[name + "_text"] = tables.address_texts(self[name], self["ip_ver"])
        return texts

    def __repr__(self) -> str:
        return f"<RequestBatch of {len(self)} requests>"


class RequestReader:
    """Reads requests out of the packets of a ``CaptureReader`` with a flow table: set its ``requests`` to this.

    Threads: one at a time.
    """

    def __init__(self, options: RequestOptions | None = None) -> None:
        o = options or RequestOptions()
        self._native = _core.HttpRequests(o.head_bytes, o.header_lines, o.pending, o.memory_bytes)

    @property
    def ready(self) -> int:
        """Number of requests that ``take`` would return."""
        return int(self._native.ready)

    def take(self) -> RequestBatch:
        """The requests that were completed since the last call."""
        return RequestBatch(self._native.take())

    def finish(self) -> RequestBatch:
        """The capture is over: all requests not taken yet, those without an answer too."""
        self._native.finish()
        return self.take()

    @property
    def counts(self) -> dict[str, int]:
        """What was seen and what could not be read; csrc/include/meshsieve/http_counts.def says what each is."""
        counts: dict[str, int] = self._native.counts
        return counts

    @property
    def held_bytes(self) -> int:
        """Memory held for connections that are being read."""
        return int(self._native.bytes)


class CapturedRequests(Iterator[RequestBatch]):
    """Batches of requests, in bounded memory. Made by ``read``.

    reader  the capture: ``reader.problem`` says if it broke off, ``reader.packets_read`` how far it is
    """

    def __init__(self, reader: capture.CaptureReader, table: flows.FlowTable, options: RequestOptions | None) -> None:
        self.reader = reader
        self._table = table
        self._requests = reader.requests = RequestReader(options)
        self._over = False

    def __next__(self) -> RequestBatch:
        while not self._over:
            self._over = not self.reader.follow()
            self._table.take_finished()
            batch = self._requests.finish() if self._over else None
            if batch is None and self._requests.ready >= _BATCH_OF_REQUESTS:
                batch = self._requests.take()
            if batch is not None and len(batch):
                return batch
            if not self._over and self.on_packets is not None:
                self.on_packets(self.reader)
        raise StopIteration

    # Called with the reader between batches of packets.
    on_packets: Any = None

    def requests(self) -> Iterator[Request]:
        """One by one, as data for routing, authorization and balancing."""
        for batch in self:
            yield from batch.requests()

    @property
    def counts(self) -> dict[str, int]:
        return self._requests.counts

    @property
    def problem(self) -> str | None:
        return self.reader.problem


def read(
    path: capture.Source | Sequence[capture.Source],
    *,
    options: RequestOptions | None = None,
    flow_options: flows.FlowOptions | None = None,
    **how: Any,
) -> CapturedRequests:
    """Open one capture or several and return an iterator of ``RequestBatch``.

    options       limits
    flow_options  what belongs to one flow
    how           further arguments of ``capture.read``: filter, count, start_ns, end_ns, merge, strict
    raises        what ``capture.read`` raises
    """
    table = flows.FlowTable(flow_options or _FLOWS)
    return CapturedRequests(capture.read(path, flows=table, **how), table, options)


_BAD_HOST = 1 << NOTES.index("bad_host")


def _text_column(name: str, values: Sequence[str | None]) -> Column:
    table = TextTable()
    codes = [-1 if value is None else table.code(value) for value in values]
    return Column.text(name, np.array(codes, np.int32), table)


def _texts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> list[str]:
    raw, ends = data.tobytes(), offsets.tolist()
    return [raw[a:b].decode("utf-8", "surrogateescape") for a, b in pairwise(ends)]


def _lines(
    begin: npt.NDArray[np.int64],
    names: list[bytes],
    codes: npt.NDArray[np.int32],
    values: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]],
) -> list[Headers]:
    """Header lines of every row."""
    known = [name.decode("utf-8", "surrogateescape") for name in names]
    lines = [(known[code], value) for code, value in zip(codes.tolist(), _texts(*values), strict=True)]
    return [tuple(lines[a:b]) for a, b in pairwise(begin.tolist())]


def _between(begin: Any, end: Any) -> int | None:
    """Nanoseconds; None where an end is unknown or the capture's times run backwards."""
    if _core.NO_TIME in (begin, end) or end < begin:
        return None
    return int(end) - int(begin)
