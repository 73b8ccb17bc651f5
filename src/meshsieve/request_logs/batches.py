"""Requests of log files in batches, with the interface of batches out of captures (``http_requests.RequestBatch``):
what judges, counts and shows captured requests takes those of logs as well."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from meshsieve.http_requests import MASKED, SECRET_HEADERS
from meshsieve.labels import TextTable
from meshsieve.output import Column
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.request_logs.access_fields import host_and_port
from meshsieve.request_logs.reader import BadLine, RequestLog

BATCH = 4096
SHOWN_BAD_LINES = 20  # that ``problems`` names one by one
_ADDRESSES = ("source_ip", "destination_ip", "remote_ip")


class LoggedBatch:
    """Some requests with the file and the line of each. Flow ids are 0: a log does not tell connections."""

    def __init__(self, requests: Sequence[Request], places: Sequence[tuple[str, int]]) -> None:
        self._requests = list(requests)
        self._places = list(places)

    def __len__(self) -> int:
        return len(self._requests)

    def __getitem__(self, name: str) -> Any:
        """``status`` (0: not logged) and ``flow_id``, as arrays."""
        if name == "status":
            return np.array([self.observed(i).get("status", 0) for i in range(len(self))], np.int64)
        if name == "flow_id":
            return np.zeros(len(self), np.uint64)
        raise KeyError(name)

    def requests(self) -> Iterator[Request]:
        return iter(self._requests)

    def observed(self, i: int) -> dict[str, Any]:
        """What the log says of the answer, by the names that captures use; sizes are 0 where it says none."""
        seen = self._requests[i].observed or {}
        found: dict[str, Any] = {
            "request_body_bytes": _number(seen, "bytes_received"),
            "response_body_bytes": _number(seen, "bytes_sent"),
        }
        if status := _number(seen, "status"):
            found["status"] = status
        if "duration_ns" in seen or "duration_ms" in seen:
            found["duration_ns"] = _number(seen, "duration_ns") or _number(seen, "duration_ms") * 1_000_000
        for name in ("response_flags", "grpc_service", "grpc_status"):
            if seen.get(name) not in (None, "-"):
                found[name] = seen[name]
        return found

    def row(self, i: int, *, masked: bool = False) -> dict[str, Any]:
        """One request as plain values, credentials masked if asked."""
        request = self._requests[i]
        headers = tuple(
            (name, MASKED if masked and name.lower() in SECRET_HEADERS else value) for name, value in request.headers
        )
        names = (
            "method", "scheme", "authority", "path", "source_ip", "source_port", "destination_ip", "destination_port",
            "time_ns",
        )  # fmt: skip
        log, line = self._places[i]
        values = {name: getattr(request, name) for name in names}
        return {**values, "headers": headers, "log": log, "line": line, "observed": self.observed(i)}

    def request_columns(self) -> RequestColumns:
        """The requests as routing and authorization read them many at a time."""
        return RequestColumns.of(self._requests)

    def output_columns(self, names: Sequence[str] | None = None) -> list[Column]:
        """All columns, or those of ``names``; tables of texts are those of the batch."""
        requests = self._requests
        observed = [self.observed(i) for i in range(len(self))]

        def text(name: str, values: Sequence[str | None]) -> Column:
            table = TextTable()
            codes = [-1 if value is None else table.code(value) for value in values]
            return Column.text(name, np.array(codes, np.int32), table)

        def number(name: str, values: Sequence[int | None]) -> Column:
            data = np.array([value or 0 for value in values], np.int64)
            return Column.number(name, data, valid=np.array([value is not None for value in values], np.bool_))

        columns = [
            text("log", [log for log, _ in self._places]),
            number("line", [line for _, line in self._places]),
            number("time_ns", [r.time_ns for r in requests]),
            *(text(name, [getattr(r, name) for r in requests]) for name in ("source_ip", "destination_ip")),
            *(number(name, [getattr(r, name) for r in requests]) for name in ("source_port", "destination_port")),
            *(text(name, [getattr(r, name) for r in requests]) for name in ("method", "authority", "path")),
            number("status", [seen.get("status") for seen in observed]),
            number("duration_ns", [seen.get("duration_ns") for seen in observed]),
            text("response_flags", [seen.get("response_flags") for seen in observed]),
        ]
        return columns if names is None else [column for name in names for column in columns if column.name == name]


class LogSource:
    """Several files of requests, one after another, in bounded memory.

    knows_address  whether somebody known has an address: the sidecar of a client logs the service's address, and the
                   connection goes to the endpoint that it chose, which the log names as ``upstream_host``
    bad          lines so far that hold no request; ``problems`` names the first of them
    unrequested  lines of connections without a request
    """

    columns: tuple[str, ...] = (
        "log", "line", "time_ns", "source_ip", "source_port", "destination_ip", "destination_port", "method",
        "authority", "path", "status", "duration_ns", "response_flags",
    )  # fmt: skip

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        format: str = "auto",
        header_fields: Mapping[str, str] | None = None,
        progress: Callable[[Any], None] | None = None,
        knows_address: Callable[[str], bool] | None = None,
    ) -> None:
        self._paths = list(paths)
        self._format = format
        self._header_fields = header_fields
        self._progress = progress
        self._knows_address = knows_address
        self._start()

    def _start(self) -> None:
        self.requests = self.bad = self.unrequested = 0
        self.problems: list[str] = []

    def batches(self) -> Iterator[LoggedBatch]:
        """raises  UsageError for a file that cannot be read or is of no known format"""
        self._start()
        requests: list[Request] = []
        places: list[tuple[str, int]] = []
        for path in self._paths:
            log = RequestLog(path, self._format, self._header_fields)
            for line, found in log.records():
                if isinstance(found, Request) and (why := _unjudgeable(found)):
                    found = BadLine(line, why)
                if isinstance(found, BadLine):
                    self.bad += 1
                    if len(self.problems) < SHOWN_BAD_LINES:
                        self.problems.append(f"{log.name}:{line}: not a request: {found.message}")
                    continue
                requests.append(self._connected(found))
                places.append((log.name, line))
                if len(requests) == BATCH:
                    yield self._batch(requests, places)
                    requests, places = [], []
            self.unrequested += log.unrequested
        if requests:
            yield self._batch(requests, places)

    def _connected(self, request: Request) -> Request:
        """The request with the endpoint that its connection went to, where the log gives a service's address."""
        knows, address = self._knows_address, request.destination_ip
        if knows is None or address is None or knows(address):
            return request
        upstream = host_and_port(str((request.observed or {}).get("upstream_host", "")))
        if upstream is None or not knows(upstream[0]):
            return request
        return replace(request, destination_ip=upstream[0], destination_port=upstream[1])

    def _batch(self, requests: list[Request], places: list[tuple[str, int]]) -> LoggedBatch:
        self.requests += len(requests)
        if self._progress is not None:
            self._progress(self)
        return LoggedBatch(requests, places)

    def empty(self) -> LoggedBatch:
        return LoggedBatch([], [])

    @property
    def counts(self) -> dict[str, int]:
        return {"requests": self.requests, "bad_lines": self.bad, "unrequested": self.unrequested}

    @property
    def problem(self) -> str | None:
        """Lines that are no requests do not end the reading; what they are is in ``notes``."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        more = self.bad - len(self.problems)
        notes = [*self.problems, *([f"{more:,} more lines are no requests"] if more else [])]
        if self.unrequested:
            notes.append(f"{self.unrequested:,} lines are of connections without a request")
        return tuple(notes)


def _number(seen: Mapping[str, Any], name: str) -> int:
    value = seen.get(name, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0


def _unjudgeable(request: Request) -> str | None:
    """Why no layer can be asked about the request: addresses that are none, or of two IP versions."""
    versions = {}
    for name in _ADDRESSES:
        if (text := getattr(request, name)) is not None:
            try:
                versions[name] = ipaddress.ip_address(text).version
            except ValueError:
                return f"{name} '{text}' is no IP address"[:200]
    if versions.get("source_ip", 0) + versions.get("destination_ip", 0) == 10:
        return f"{request.source_ip} and {request.destination_ip} differ in IP version"
    return None
