"""Where rows go: a format written to standard output or, whole or not at all, to a file."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from meshsieve.errors import UsageError
from meshsieve.extras import require
from meshsieve.output import Column
from meshsieve.reports.rows import csv_header, csv_writer, json_writer, ndjson_writer


class Sink(Protocol):
    """Takes batches of columns, then what there is to say at the end."""

    def write(self, columns: Sequence[Column]) -> None: ...
    def end(self, summary: dict[str, Any]) -> None: ...


class LinesSink:
    """NDJSON or CSV: rows only; the summary has no place there."""

    def __init__(self, file: BinaryIO, kind: str, columns: Sequence[Column]) -> None:
        self._file = file
        if kind == "csv":
            file.write(csv_header(columns))
        self._writer = csv_writer(columns) if kind == "csv" else ndjson_writer(columns)

    def write(self, columns: Sequence[Column]) -> None:
        self._file.write(self._writer.rows(columns))

    def end(self, summary: dict[str, Any]) -> None:
        pass


class JsonSink:
    """One JSON document: {"rows": [...], "summary": {...}}."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        self._file = file
        self._writer = json_writer(columns)
        self._first = True
        file.write(b'{"rows":[')

    def write(self, columns: Sequence[Column]) -> None:
        rows = memoryview(self._writer.rows(columns))  # each row starts with a comma
        self._file.write(rows[1:] if self._first and len(rows) else rows)
        self._first = self._first and not len(rows)

    def end(self, summary: dict[str, Any]) -> None:
        self._file.write(b'\n],\n"summary":' + json.dumps(summary).encode() + b"}\n")


class ParquetSink:
    """Parquet with dictionary-encoded text; the summary is JSON in the file's metadata under "meshsieve.summary"."""

    def __init__(self, file: BinaryIO, columns: Sequence[Column]) -> None:
        from meshsieve.reports.arrow import record_batch

        parquet = require("pyarrow.parquet", "arrow")
        self._record_batch = record_batch
        self._writer = parquet.ParquetWriter(file, record_batch(columns).schema, compression="zstd")

    def write(self, columns: Sequence[Column]) -> None:
        self._writer.write_batch(self._record_batch(columns))

    def end(self, summary: dict[str, Any]) -> None:
        self._writer.add_key_value_metadata({"meshsieve.summary": json.dumps(summary)})
        self._writer.close()


class IpfixSink:
    """IPFIX messages (RFC 7011), one after another: the form that RFC 5655 calls an IPFIX file."""

    def __init__(self, file: BinaryIO) -> None:
        from meshsieve.observability.ipfix import IpfixWriter

        self._file = file
        self._writer = IpfixWriter()

    def write(self, columns: Sequence[Column]) -> None:
        for message in self._writer.messages(columns):
            self._file.write(message)

    def end(self, summary: dict[str, Any]) -> None:
        pass


@contextlib.contextmanager
def open_sink(options: argparse.Namespace, columns: Sequence[Column]) -> Iterator[Sink]:
    """The sink that ``-o`` and ``--output`` ask for.

    columns  of a batch without rows: names and types
    """
    with open_output(options.output) as file:
        if options.format in ("parquet", "ipfix") and options.output is None and sys.stdout.isatty():
            raise UsageError(f"{options.format} is binary; name a file with --output, or send it into a pipe")
        if options.format == "parquet":
            yield ParquetSink(file, columns)
        elif options.format == "ipfix":
            if not any(column.name == "first_ns" for column in columns):
                raise UsageError("ipfix holds flows; it goes with flows and with classify --by flow")
            yield IpfixSink(file)
        elif options.format == "json":
            yield JsonSink(file, columns)
        else:
            yield LinesSink(file, options.format, columns)


def print_text(text: str, path: str | None = None) -> None:
    """``text`` and a line end to standard output, or to a file that appears only when it is complete."""
    with open_output(path) as file:
        file.write(text.encode("utf-8", "backslashreplace") + b"\n")


@contextlib.contextmanager
def open_output(path: str | None) -> Iterator[BinaryIO]:
    """Standard output, or the file of ``--output``, which appears only if the block ends well."""
    if path is None or path == "-":
        # A buffered file of our own: under PYTHONUNBUFFERED sys.stdout.buffer is raw and may write a part only.
        sys.stdout.flush()
        with open(sys.stdout.fileno(), "wb", closefd=False) as file:
            yield file
    else:
        from meshsieve.reports.files import atomic_file

        with atomic_file(path) as file:
            yield file
