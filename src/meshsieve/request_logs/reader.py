"""Reads requests line by line, in bounded memory, whatever the lines hold.

A line that is no request is a value with its number (``BadLine``), counted and never left out in silence. Files may be
gzip; "-" is standard input.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshsieve.errors import ModelError, UsageError
from meshsieve.importers.sources import MAX_GZIP_RATIO
from meshsieve.request import Request
from meshsieve.request_logs import access_text, har, strict_json
from meshsieve.request_logs.access_fields import MARKS, NoRequestError, looks_like_access_log, request_of

FORMATS = ("auto", "ndjson", "access-json", "access-text", "har")
MAX_LINE_BYTES = 1 << 20
MAX_HAR_BYTES = 256 << 20
KEPT_BAD_LINES = 1000
_SNIFFED_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TEXT_LOG = re.compile(rb"\[\d{4}-\d\d-\d\dT")
_HAR = re.compile(rb'\{\s*"log"\s*:\s*\{')


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line (of HAR: an entry, counted from 1) that holds no request, and why."""

    line: int
    message: str


class _Input:
    """A stream of bytes, unpacked where it was gzip (``packed``: the file below)."""

    def __init__(self, stream: Any, packed: Any) -> None:
        self._stream = stream
        self._packed = packed
        self._unpacked_bytes = 0

    def peek(self) -> bytes:
        head: bytes = self._stream.peek(_SNIFFED_BYTES)
        return head

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0 and (part := self._counted(self._stream.read(min(size, _CHUNK_BYTES)))):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        """(number, line); None for one that is too long, which is skipped to its end without being held."""
        for number in itertools.count(1):
            line = self._readline()
            if not line:
                return
            if len(line) <= MAX_LINE_BYTES:
                yield number, line
                continue
            while line and not line.endswith(b"\n"):
                line = self._readline()
            yield number, None

    def _readline(self) -> bytes:
        return self._counted(self._stream.readline(MAX_LINE_BYTES + 1))

    def _counted(self, part: bytes) -> bytes:
        if self._packed is not None:
            self._unpacked_bytes += len(part)
            if self._unpacked_bytes > MAX_GZIP_RATIO * self._packed.tell() + _CHUNK_BYTES:
                raise zlib.error(f"it unpacks to more than {MAX_GZIP_RATIO} times its size")
        return part


class RequestLog:
    """The requests of one file; iterate it once.

    format     what is read; "auto" until the first record, then what was recognised
    requests   how many were read
    bad        how many lines held none; ``bad_lines`` keeps the first 1,000 with their numbers
    extra      what the line read last had under ``extra_keys``
    unrequested  lines of an access log that tell of a connection without a request; they count as neither
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str = "auto",
        header_fields: Mapping[str, str] | None = None,
        extra_keys: tuple[str, ...] = (),
    ) -> None:
        if format not in FORMATS:
            raise UsageError(f"no format of requests is called '{format}'; formats: {', '.join(FORMATS)}")
        self.name = "<stdin>" if os.fspath(path) == "-" else os.fspath(path)
        self.format = format
        self.requests = self.bad = self.unrequested = 0
        self.bad_lines: list[BadLine] = []
        self._path = path
        self._header_fields = dict(header_fields or {})
        self._extra_keys = extra_keys
        self.extra: dict[str, Any] = {}

    def __iter__(self) -> Iterator[Request]:
        """The requests alone; what is bad is counted."""
        return (found for _, found in self.records() if isinstance(found, Request))

    def records(self) -> Iterator[tuple[int, Request | BadLine]]:
        """(line, what it holds).

        raises  UsageError for a file that cannot be read or is of no known format
        """
        try:
            with self._open() as stream:
                for line, found in self._parsed(stream):
                    if isinstance(found, Request):
                        self.requests += 1
                        yield line, found
                    elif isinstance(found, NoRequestError):
                        self.unrequested += 1
                    else:
                        self.bad += 1
                        bad = BadLine(line, str(found))
                        if len(self.bad_lines) < KEPT_BAD_LINES:
                            self.bad_lines.append(bad)
                        yield line, bad
        except OSError as error:
            raise UsageError(f"{self.name}: cannot be read: {error.strerror or error}") from None
        except (EOFError, zlib.error) as error:
            raise UsageError(f"{self.name}: broken gzip after {self.requests} requests: {error}") from None

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Input]:
        with contextlib.ExitStack() as stack:
            if self.name == "<stdin>":
                packed: Any = sys.stdin.buffer
            else:
                packed = stack.enter_context(open(self._path, "rb", buffering=_SNIFFED_BYTES))
            if packed.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC):
                yield _Input(stack.enter_context(gzip.open(packed)), packed)
            else:
                yield _Input(packed, None)

    def _parsed(self, stream: _Input) -> Iterator[tuple[int, Request | ModelError]]:
        if self.format == "auto":
            self.format = self._recognised(stream.peek().removeprefix(_BYTE_ORDER_MARK).lstrip())
        if self.format == "har":
            yield from enumerate(self._har(stream), 1)
            return
        for number, line in stream.lines():
            if line is None:
                yield number, ModelError(f"a line of more than {MAX_LINE_BYTES} bytes")
            elif line.strip():
                try:
                    yield number, self._request(line.rstrip(b"\r\n").removeprefix(_BYTE_ORDER_MARK))
                except ModelError as error:
                    yield number, error

    def _request(self, line: bytes) -> Request:
        if self.format == "access-text":
            return request_of(access_text.fields_of(line.decode("utf-8", "surrogateescape")), self._header_fields)
        values = strict_json.load(line)
        if not isinstance(values, dict):
            raise ModelError("not a JSON object")
        if self.format == "access-json":
            return request_of(values, self._header_fields)
        self.extra = {key: values.pop(key) for key in self._extra_keys if key in values}
        return Request.from_dict(values)

    def _har(self, stream: _Input) -> Iterator[Request | ModelError]:
        data = stream.read(MAX_HAR_BYTES + 1)
        if len(data) > MAX_HAR_BYTES:
            raise UsageError(f"{self.name}: a HAR of more than {MAX_HAR_BYTES >> 20} MiB; split it")
        try:
            yield from har.requests_of(strict_json.load(data.removeprefix(_BYTE_ORDER_MARK)))
        except ModelError as error:
            raise UsageError(f"{self.name}: {error}") from None

    def _recognised(self, head: bytes) -> str:
        """The format by how the file begins."""
        if not head:
            return "ndjson"  # an empty file holds no requests, in any format
        if _TEXT_LOG.match(head):
            return "access-text"
        if _HAR.match(head):
            return "har"
        if not head.startswith(b"{"):
            raise UsageError(f"{self.name}: requests of no known format; formats: {', '.join(FORMATS[1:])}")
        line = head.splitlines()[0]
        try:
            return "access-json" if looks_like_access_log(strict_json.load(line)) else "ndjson"
        except ModelError:  # cut short, or a bad first line
            return "access-json" if any(b'"%s"' % mark.encode() in line for mark in MARKS) else "ndjson"


def read(
    path: str | os.PathLike[str],
    format: str = "auto",
    header_fields: Mapping[str, str] | None = None,
    *,
    extra_keys: tuple[str, ...] = (),
) -> RequestLog:
    """The requests of a file, "-" for standard input.

    format         "auto" recognises it by its first line
    header_fields  further fields of an access log that hold headers: field to header name
    extra_keys     keys that NDJSON lines may have besides the fields of a request
    raises         UsageError for an unknown format; while iterating for what cannot be read at all
    """
    return RequestLog(path, format, header_fields, extra_keys)
