"""Writers: hostile text through every output, parsed back by someone else's parser; files whole or absent."""

from __future__ import annotations

import csv
import html.parser
import io
import ipaddress
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import meshsieve
from meshsieve import _core
from meshsieve.errors import ModelError, OutputError
from meshsieve.labels import TextTable
from meshsieve.output import Column
from meshsieve.reports.files import atomic_file
from meshsieve.reports.html import summary_html
from meshsieve.reports.rows import csv_header, csv_writer, json_writer, ndjson_writer
from meshsieve.reports.text import byte_text, fit, summary_text, table_text, width
from meshsieve.summary import Count, RuleCount, Summary

HOSTILE = [
    '"; DROP TABLE flows; --',
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\x1b[2J\x1b[31m",
    "\x9b31m",
    "a\nb\r\nc",
    "\u202egnp.exe",
    "\udcff\ud800",
    "\x00\x7f",
    "naïve 東京 🦊",
    "",
    "a,b;c|d",
    "\\u0041 \\",
]


def text_column(texts: list[str], name: str = "rule") -> Column:
    return Column.text(name, np.arange(len(texts)), TextTable(list(texts)))


def acting(text: str) -> set[str]:
    """Characters that a terminal obeys: C0 but for line ends, C1, DEL, bidirectional controls."""
    bad = {
        *map(chr, range(0x20)),
        *map(chr, range(0x7F, 0xA0)),
        *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    }
    return set(text) & (bad - {"\r", "\n"})


def test_ndjson_gives_every_text_back_and_nothing_that_acts() -> None:
    columns = [text_column(HOSTILE), Column.number("n", np.arange(len(HOSTILE)))]
    out = ndjson_writer(columns).rows(columns).decode("utf-8")
    assert not acting(out)
    assert [json.loads(line)["rule"] for line in out.splitlines()] == HOSTILE


def test_csv_is_one_line_a_row_without_formulas_or_escapes() -> None:
    columns = [text_column(HOSTILE), text_column(HOSTILE, "other")]
    out = (csv_header(columns) + csv_writer(columns).rows(columns)).decode("utf-8")
    assert not acting(out)
    rows = list(csv.reader(io.StringIO(out, newline="")))
    assert rows[0] == ["rule", "other"]
    assert len(rows) == 1 + len(HOSTILE)
    assert all(len(row) == 2 and not row[0].startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows[1:])


def test_json_is_one_array() -> None:
    columns = [text_column(HOSTILE)]
    writer = json_writer(columns)
    document = "[" + (writer.rows(columns) + writer.rows(columns)).decode()[1:] + "]"
    assert [row["rule"] for row in json.loads(document)] == HOSTILE * 2


@given(st.lists(st.text(st.characters(codec=None)), min_size=1, max_size=5))
def test_any_text_survives_ndjson(texts: list[str]) -> None:
    columns = [text_column(texts)]
    lines = ndjson_writer(columns).rows(columns).decode("utf-8").split("\n")
    assert [json.loads(line)["rule"] for line in lines[:-1]] == texts


def summary_of(text: str) -> Summary:
    count = Count(1, 2, 3)
    return Summary(count, {"DROP": count}, (RuleCount(text, text, text, text, "DROP", count),), {text: count}, (text,))


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_for_people_show_no_live_escape_and_keep_their_lines(text: str) -> None:
    shown = summary_text(summary_of(text))
    assert not acting(shown)
    assert shown.count("\n") == summary_text(summary_of("x")).count("\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_html_has_no_element_of_the_text(text: str) -> None:
    seen: set[str] = set()

    class Elements(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.add(tag)

    Elements().feed(summary_html(summary_of(text)))
    assert seen <= {"table", "thead", "tbody", "tr", "th", "td", "p"}


ADDRESSES = ["0.0.0.0", "255.255.255.255", "10.0.0.1", "192.168.100.9"]
ADDRESSES6 = ["::", "::1", "2001:db8::1", "ff02::fb", "1:2:3:4:5:6:7:8", "2001:db8:0:1::1"]


def address_column(texts: list[str], valid: list[bool] | None = None) -> Column:
    parsed = [ipaddress.ip_address(t) for t in texts]
    words = np.array([[int(a) >> 64, int(a) & (2**64 - 1)] for a in parsed], np.uint64)
    version = np.array([a.version for a in parsed], np.uint8)
    return Column.address("src", words, version, np.array(valid or [True] * len(texts)))


def test_addresses_are_written_as_ipaddress_writes_them() -> None:
    texts = ADDRESSES + ADDRESSES6
    column = address_column(texts)
    lines = ndjson_writer([column]).rows([column]).decode().splitlines()
    assert [json.loads(line)["src"] for line in lines] == texts
    assert list(column.values()) == texts


@given(st.lists(st.ip_addresses(v=4), min_size=1, max_size=20))
def test_any_ipv4_address_is_written_right(addresses: list[ipaddress.IPv4Address]) -> None:
    assert list(address_column([str(a) for a in addresses]).values()) == [str(a) for a in addresses]


def test_missing_values_are_null() -> None:
    number = Column.number("vlan", np.array([7, 8], np.uint16), valid=np.array([True, False]))
    text = Column.text("rule", np.array([0, -1]), TextTable(["a"]))
    columns = [number, text, address_column(["10.0.0.1", "10.0.0.2"], [False, True])]
    rows = [json.loads(line) for line in ndjson_writer(columns).rows(columns).splitlines()]
    assert rows == [{"vlan": 7, "rule": "a", "src": None}, {"vlan": None, "rule": None, "src": "10.0.0.2"}]
    assert csv_writer(columns).rows(columns) == b'7,"a",\r\n,,10.0.0.2\r\n'


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64, np.bool_])
def test_numbers_keep_their_ends(dtype: type) -> None:
    ends = [0, 1] if dtype is np.bool_ else [np.iinfo(dtype).min, np.iinfo(dtype).max]
    column = Column.number("n", np.array(ends, dtype))
    assert [json.loads(line)["n"] for line in ndjson_writer([column]).rows([column]).splitlines()] == ends


def test_a_text_table_may_grow_between_batches() -> None:
    table = TextTable(["a"])
    first = Column.text("t", np.array([0]), table)
    writer = ndjson_writer([first])
    assert writer.rows([first]) == b'{"t":"a"}\n'
    table.append("b" * 100_000)
    more = writer.rows([Column.text("t", np.array([1, 0]), table)])
    assert [json.loads(line)["t"] for line in more.splitlines()] == ["b" * 100_000, "a"]


def test_columns_may_share_a_table_and_part_again() -> None:
    one, other = TextTable(["a", "b"]), TextTable(["x", "y"])
    layouts = [(one, one, other), (other, one, one), (one, other, one), (other, other, other), (one, one, one)]
    writer = ndjson_writer([Column.text(name, np.array([0]), one) for name in "pqr"])
    for tables in layouts:
        columns = [Column.text(name, np.array([0, 1, -1]), t) for name, t in zip("pqr", tables, strict=True)]
        rows = [json.loads(line) for line in writer.rows(columns).splitlines()]
        expected = [[*(t.texts[code] for t in tables)] for code in (0, 1)] + [[None] * 3]
        assert [list(row.values()) for row in rows] == expected
        one.append("more")
        other.append("more")


def test_a_table_that_is_shared_cannot_be_shared_on() -> None:
    formatter = _core.RowFormatter([("text", b"", False)] * 3 + [("number", b"", False)], b"", b"\n", b"")
    formatter.share_texts(1, 0)
    for column, owner in ((2, 1), (3, 0), (0, 3), (0, 4)):
        with pytest.raises(ModelError):
            formatter.share_texts(column, owner)


BAD_COLUMNS = [
    ("a code beyond the table", [("text", b"", False)], [(np.array([5], np.int32), None, None)]),
    ("a wrong dtype", [("text", b"", False)], [(np.array([0], np.int64), None, None)]),
    ("too few rows", [("number", b"", False)], [(np.zeros(0, np.int64), None, None)]),
    ("every second row", [("number", b"", False)], [(np.zeros(4, np.int64)[::2][:1], None, None)] * 2),
    ("addresses without a version", [("address", b"", False)], [(np.zeros((1, 2), np.uint64), None, None)]),
    ("flags of another length", [("number", b"", False)], [(np.zeros(1, np.int64), np.ones(2, bool), None)]),
    ("floats", [("number", b"", False)], [(np.zeros(1), None, None)]),
]


@pytest.mark.parametrize(("cells", "columns"), [c[1:] for c in BAD_COLUMNS], ids=[c[0] for c in BAD_COLUMNS])
def test_columns_that_do_not_fit_are_refused(cells: list[tuple[str, bytes, bool]], columns: list[object]) -> None:
    formatter = _core.RowFormatter(cells, b"", b"\n", b"")
    with pytest.raises(ModelError):
        formatter.format(1, columns)  # type: ignore[arg-type]


def test_a_file_is_complete_or_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")

    def fails() -> None:
        with atomic_file(target) as file:
            file.write(b"new")
            assert target.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert target.read_text() == "old"
    with atomic_file(target) as file:
        file.write(b"new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with atomic_file(tmp_path / "out") as file:
        file.write(b"x")
    assert (tmp_path / "out").stat().st_mode == plain.stat().st_mode


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"out: could not be written: No space left"), atomic_file(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_an_error_naming_the_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere/out: cannot write here"), atomic_file(tmp_path / "nowhere/out"):
        pass


def test_tables_are_cut_to_the_terminal() -> None:
    text = table_text(["A", "B"], [["short", "x" * 200]], columns=40)
    assert max(map(width, text.splitlines())) <= 40
    assert "…" in text


SIZES = [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (99_940, "99.9 kB"), (999_400, "999 kB"), (10**12, "1.00 TB")]


@pytest.mark.parametrize(("count", "shown"), SIZES)
def test_bytes_have_three_digits(count: int, shown: str) -> None:
    assert byte_text(count) == shown


def test_wide_characters_take_two_columns() -> None:
    assert width("東京") == 4
    assert fit("東京都", 5) == "東京…"


def test_rules_of_one_name_are_one_entry_of_a_dictionary_which_pandas_demands() -> None:
    pytest.importorskip("pandas")
    policy = Path(__file__).parents[2] / "examples" / "bookinfo"
    frame = meshsieve.load(policy / "policy").classify_pcap(policy / "bookinfo.pcap").to_pandas()
    assert len(frame) == 297
    assert frame["rule"].value_counts()["page-to-page"] == 126
