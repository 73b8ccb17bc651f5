"""Requests as columns: the C++ reading of a row is Python's, and every form of a column says the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshsieve import _core
from meshsieve.errors import ColumnError
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.http_options import JOINED_HEADERS, HttpOptions, Refusal, RequestView, view
from meshsieve.text_columns import TextColumn

# Pieces that normalisation, codec and host forms look at.
PIECES = [
    *["/", "//", ".", "..", ";x", "a", "B", "4", "\\", "?", "#", "{", ":", "*", "%", "http://", "HTTPS://h"],
    *["%2F", "%2f", "%5c", "%5C", "%41", "%7e", "%00", "%zz", "%2", "%%41", "%%3", "%34"],
    *['"', " ", "ü", "\udc80", "\x7f"],
]
TARGETS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
AUTHORITIES = st.lists(st.sampled_from(["h", "H.x", ".", ":", "80", "x", "[::1]", "]", "8080"]), max_size=5).map(
    "".join
)
METHODS = st.sampled_from(["GET", "POST", "CONNECT", "M-SEARCH", "get", "FOO", ""])
OPTIONS = st.builds(
    HttpOptions,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 80, 8080]),
    st.booleans(),
)
LINES = st.lists(
    st.tuples(st.sampled_from(["A", "a", "x-É", "Authorization", "Accept"]), st.sampled_from(["", " v\t", "a b", "ü"])),
    max_size=3,
)
REQUESTS = st.builds(
    lambda m, a, s, path, h: Request(m, s, a, path, tuple(h)),
    METHODS,
    AUTHORITIES,
    st.sampled_from(["http", "https", ""]),
    st.one_of(TARGETS, TARGETS.map("/".__add__)),
    LINES,
)


@given(st.lists(REQUESTS, min_size=1, max_size=5), OPTIONS)
@example([Request(path="/x//../admin")], HttpOptions(normalize_path=True, merge_slashes=True))
@example([Request(path="/a/%2e%2e/%252e?%2e/../")], HttpOptions(normalize_path=True))
@example([Request(path="/%%34%31/%%341/%3%31%/..;x/b/%2e;x/c")], HttpOptions(normalize_path=True))
@example([Request(authority="a.:80")], HttpOptions(strip_trailing_host_dot=True))
def test_a_row_is_read_as_python_reads_the_request(requests: list[Request], options: HttpOptions) -> None:
    batch = RequestColumns.of(requests)
    native = _core.NativeHttpOptions(options)
    for row, request in enumerate(requests):
        refused, *parts = batch.native.reading(row, native)
        expected = view(request, options)
        if isinstance(expected, Refusal):
            assert refused != "no"
            assert (refused == "redirect_unescaped") == (expected.status == 307)
            if expected.location is not None:
                assert parts[3] == expected.location
            continue
        authority, target, path = expected.authority, expected.target, expected.path
        assert refused == "no"
        assert parts == [expected.method, expected.scheme, authority, target, path, expected.headers]


@pytest.mark.parametrize("name", sorted(JOINED_HEADERS))
def test_lines_of_some_headers_are_one(name: bytes) -> None:
    request = Request(headers=((name.decode(), "a"), ("x", "1"), (name.decode().upper(), " b")))
    seen = view(request, HttpOptions())
    assert isinstance(seen, RequestView)
    assert seen.headers == readings([request])[0][6] == [(name, b"a,b"), (b"x", b"1")]


def readings(columns: Any) -> list[Any]:
    batch = RequestColumns.of(columns)
    return [batch.native.reading(row, _core.NativeHttpOptions(HttpOptions())) for row in range(len(batch))]


ROWS = [Request(authority="h", path="/a", headers={"x": "1"}), Request("POST", authority="g", path="/b?c")]
VALUES = ["/a", "/b?c"]
# (what the path column is given as)
FORMS = {
    "a list": VALUES,
    "bytes": [b"/a", b"/b?c"],
    "a numpy array of bytes": np.array(VALUES, "S"),
    "a numpy array of objects": np.array(VALUES, object),
    "data and offsets": (b"/a/b?c", np.array([0, 2, 6])),
    "data and 32-bit offsets": (np.frombuffer(b"/a/b?c", np.uint8), np.array([0, 2, 6], np.int32)),
    "an Arrow string array": pa.array(VALUES),
    "a slice of one": pa.array(["no", *VALUES, "no"])[1:3],
    "a large one": pa.array(VALUES, pa.large_string()),
    "a string view": pa.array(VALUES, pa.string_view()),
    "a dictionary": pa.array(VALUES[::-1] * 3).dictionary_encode()[1:3],
    "chunks": pa.chunked_array([[VALUES[0]], [VALUES[1]]]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_column_says_the_same(form: Any) -> None:
    columns = {"host": ["h", "g"], "path": form, "method": ["GET", "POST"], "headers": {"X": ["1", None]}}
    assert readings(columns) == readings(ROWS)


def test_one_value_stands_for_every_row() -> None:
    assert readings({"path": ["/a", "/b"], "authority": "h", "headers": {"x": b" 1 "}}) == readings(
        [Request(authority="h", path=p, headers={"x": "1"}) for p in ("/a", "/b")]
    )


def test_a_list_of_columns_is_several_lines() -> None:
    rows = readings({"path": ["/", "/"], "headers": {"x": [["1", None], ["2", "3"]]}})
    assert [row[6] for row in rows] == [[(b"x", b"1"), (b"x", b"2")], [(b"x", b"3")]]


def test_arrow_tables_and_data_frames_are_read_by_name() -> None:
    table = pa.table({"host": ["h", "g"], "path": VALUES, "method": ["GET", "POST"]})
    plain = [Request(r.method, r.scheme, r.authority, r.path) for r in ROWS]
    assert readings(table) == readings(table.to_pandas()) == readings(plain)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["/", "/"], "method": ["GET"]}, "differ in length"),
        ({"paht": ["/"]}, "no column paht"),
        ({"path": [1]}, "column path: row 0 is int"),
        ({"path": (b"abc", np.array([0, 4]))}, "offsets leave the data"),
        ({"path": (b"abc", np.array([0, 2, 1]))}, "offsets descend"),
        ({"path": (b"abc", np.array([0.0, 2.0]))}, "offsets must be integers"),
        ({"path": ["/"], "source_ip": ["300.0.0.1"]}, "column source_ip, row 0"),
        ({"path": ["/"], "source_port": [70000]}, "0..65535"),
        ({"path": ["/"], "random_value": [-1]}, "random_value"),
    ],
)
def test_what_does_not_fit_is_an_error(columns: dict[str, Any], message: str) -> None:
    with pytest.raises((ColumnError, ValueError), match=message):
        RequestColumns.of(columns)


def test_structured_values_are_told_apart_once() -> None:
    shared = {"f": {"k": 1}}
    batch = RequestColumns.of([Request(dynamic_metadata=shared), Request(), Request(dynamic_metadata=shared)])
    assert len(batch.contexts) == 2


def test_an_absent_value_inside_a_dictionary_is_absent() -> None:
    column = TextColumn.of("x", pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None])))
    assert column.codes is not None
    assert column.codes.tolist() == [0, -1, -1]
