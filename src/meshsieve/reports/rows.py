"""NDJSON and CSV: rows of columns as bytes, written by the C++ core.

Text from captures and policies is escaped here, once a distinct text:
  NDJSON  valid UTF-8 and valid JSON; what does not print (controls, bidi marks, lone surrogates) stands as \\uXXXX
  CSV     RFC 4180 quoting; what could act on a terminal is shown as an escape, and a cell that a spreadsheet would take
          for a formula (it starts with = + - @, tab or CR) gets an apostrophe before it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from meshsieve import _core
from meshsieve.labels import PlainTextTable, TextTable
from meshsieve.output import Column
from meshsieve.reports.escape import printable

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def json_text(text: str) -> str:
    """``text`` as a JSON string of printable characters only."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def csv_text(text: str) -> str:
    """``text`` as a quoted CSV cell that no spreadsheet runs and no terminal obeys."""
    guarded = "'" + text if text.startswith(_FORMULA_STARTS) else text
    return '"' + printable(guarded).replace('"', '""') + '"'


def _plain_text(text: str) -> str:
    return f'"{text}"'


class RowWriter:
    """Formats batches of the same columns, one after another; keeps the finished texts of a table between batches that
    share it."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        prefixes: Sequence[str],
        row_begin: str,
        row_end: str,
        null: str,
        text: Callable[[str], str],
        quote_addresses: bool,
    ) -> None:
        self._text = text
        self._null = null
        self._done = [0] * len(columns)
        self._tables: list[TextTable | None] = [None] * len(columns)
        cells = [(c.kind, prefix.encode(), quote_addresses) for c, prefix in zip(columns, prefixes, strict=True)]
        self._formatter = _core.RowFormatter(cells, row_begin.encode(), row_end.encode(), null.encode())

    def rows(self, columns: Sequence[Column]) -> bytes:
        """All rows of a batch."""
        owners: dict[int, int] = {}  # by table: the first column that has it
        for position, column in enumerate(columns):
            if column.table is not None:
                owner = owners.setdefault(id(column.table), position)
                if owner != position:  # attributes of flows: dozens of columns, one table
                    self._formatter.share_texts(position, owner)
                    self._tables[position] = None
                    continue
                if column.table is not self._tables[position]:
                    self._tables[position] = column.table
                    self._done[position] = 0
                    self._formatter.clear_texts(position)
                new = column.table.texts[self._done[position] :]
                if new:
                    text = _plain_text if isinstance(column.table, PlainTextTable) else self._text
                    pieces = [(self._null if t is None else text(t)).encode() for t in new]
                    self._formatter.add_texts(position, pieces)
                    self._done[position] += len(new)
        return self._formatter.format(len(columns[0]), [(c.data, c.valid, c.version) for c in columns])


def ndjson_writer(columns: Sequence[Column]) -> RowWriter:
    """One JSON object a line; the keys are the columns' names."""
    return _json_writer(columns, "{", "}\n")


def json_writer(columns: Sequence[Column]) -> RowWriter:
    """The same objects as elements of an array: each on a line of its own, a comma before it."""
    return _json_writer(columns, ",\n{", "}")


def _json_writer(columns: Sequence[Column], row_begin: str, row_end: str) -> RowWriter:
    prefixes = [("" if i == 0 else ",") + json_text(column.name) + ":" for i, column in enumerate(columns)]
    return RowWriter(
        columns,
        prefixes=prefixes,
        row_begin=row_begin,
        row_end=row_end,
        null="null",
        text=json_text,
        quote_addresses=True,
    )


def csv_writer(columns: Sequence[Column]) -> RowWriter:
    """Comma-separated cells; ``csv_header`` is the first line. A missing value is an empty cell."""
    return RowWriter(
        columns,
        prefixes=["" if i == 0 else "," for i in range(len(columns))],
        row_begin="",
        row_end="\r\n",
        null="",
        text=csv_text,
        quote_addresses=False,
    )


def csv_header(columns: Sequence[Column]) -> bytes:
    return (",".join(column.name for column in columns) + "\r\n").encode()
