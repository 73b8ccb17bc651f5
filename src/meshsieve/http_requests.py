"""HTTP requests out of captures: clear-text HTTP/1, HTTP/2 and gRPC, on any port, with what was answered and when.

>>> for request in http_requests.read("office.pcapng").requests():       # doctest: +SKIP
...     print(request.method, request.authority, request.path, request.observed["status"])

A request is complete when its response is, so rows come in the order of responses. What a capture holds is never an
exception: a message that can be read in two ways is read as the RFC says and noted, what cannot be read is counted.
docs/requests.md has the columns, notes and counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core, capture, flows, tables
from meshsieve.labels import TextTable
from meshsieve.output import Column
from meshsieve.request import Request

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
                raise ValueError(f"{name} is {value}; it must lie between 1 and {(1 << 31) - 1}")


class RequestBatch(Mapping[str, Any]):
    """Requests as columns: ``batch["status"]`` is an array or list of n values.

    Arrays: flow_id, sport, dport, ip_ver, version (10, 11, 20), stream (HTTP/2; the how-manieth of the connection in
    HTTP/1), time_ns (first byte), request_end_ns, response_ns (first byte of the final response), response_end_ns
    (``_core.NO_TIME`` where not seen), request_body_bytes, response_body_bytes, status (0 = none seen), grpc_status
    (-1 = none), notes (bits by ``NOTES``), src_ip and dst_ip (uint64 (n, 2)). Lists: method, scheme, authority, path,
    upgrade, headers, as ``str``: UTF-8, other bytes as lone surrogates (``surrogateescape``).
    """

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns
        for name in _TEXTS:
            columns[name] = [_text(value) for value in columns[name]]
        columns["headers"] = [
            tuple((_text(name), _text(value)) for name, value in lines) for lines in columns["headers"]
        ]

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """Number of requests."""
        return len(self._columns["path"])

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
        c = self._columns
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
        c = self._columns
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

    def output_columns(self, text_tables: dict[str, TextTable], *, masked: bool = True) -> list[Column]:
        """For CSV and Parquet: the values of ``row`` side by side, header lines as JSON.

        text_tables  grows from batch to batch; give the same dictionary each time
        """
        import json

        c, rows = self._columns, range(len(self))
        version = c["ip_ver"]
        known = np.ones(len(self), np.bool_)

        def text(name: str, values: Sequence[str | None]) -> Column:
            table = text_tables.setdefault(name, TextTable())
            codes = [-1 if value is None else table.code(value) for value in values]
            return Column.text(name, np.array(codes, np.int32), table)

        observed = [self.observed(i) for i in rows]

        def number(name: str) -> Column:
            values = [seen.get(name) for seen in observed]
            data = np.array([value or 0 for value in values], np.int64)
            return Column.number(name, data, valid=np.array([value is not None for value in values], np.bool_))

        def seen(name: str) -> Column:
            return text(name, [row.get(name) for row in observed])

        headers = [json.dumps(self.headers_of(i, masked=masked)) for i in rows]
        return [
            Column.number("flow", c["flow_id"]),
            Column.number("time_ns", c["time_ns"]),
            Column.address("source_ip", c["src_ip"], version, known),
            Column.number("source_port", c["sport"]),
            Column.address("destination_ip", c["dst_ip"], version, known),
            Column.number("destination_port", c["dport"]),
            seen("protocol"),
            number("stream"),
            text("method", c["method"]),
            text("scheme", c["scheme"]),
            text("authority", c["authority"]),
            text("path", c["path"]),
            number("status"),
            number("response_time_ns"),
            number("duration_ns"),
            number("request_body_bytes"),
            number("response_body_bytes"),
            seen("upgrade"),
            seen("grpc_service"),
            seen("grpc_method"),
            number("grpc_status"),
            text("notes", [" ".join(self.notes_of(i)) or None for i in rows]),
            text("headers", headers),
        ]

    def _addresses(self, name: str) -> list[str | None]:
        texts: list[str | None] | None = self._columns.get(name + "_text")
        if texts is None:
            texts = self._columns[name + "_text"] = tables.addresses(self[name], self["ip_ver"])
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

    def __init__(self, reader: capture.CaptureReader, options: RequestOptions | None) -> None:
        self.reader = reader
        self._requests = reader.requests = RequestReader(options)
        self._over = False

    def __next__(self) -> RequestBatch:
        table = self.reader.flows
        assert table is not None
        while not self._over:
            packets = next(self.reader, None)
            table.take_finished()
            self._over = packets is None
            batch = self._requests.finish() if self._over else None
            if batch is None and self._requests.ready >= _BATCH_OF_REQUESTS:
                batch = self._requests.take()
            if batch is not None and len(batch):
                return batch
            if packets is not None and self.on_packets is not None:
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
    return CapturedRequests(capture.read(path, flows=flows.FlowTable(flow_options or _FLOWS), **how), options)


_BAD_HOST = 1 << NOTES.index("bad_host")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _between(begin: Any, end: Any) -> int | None:
    """Nanoseconds; None where an end is unknown or the capture's times run backwards."""
    if _core.NO_TIME in (begin, end) or end < begin:
        return None
    return int(end) - int(begin)
