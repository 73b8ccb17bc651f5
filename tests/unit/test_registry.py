"""Finding, reading and recognising configuration files."""

import gzip
import io

import pytest

from meshsieve.errors import PolicyError
from meshsieve.importers import IMPORTERS, load_policy
from meshsieve.importers.sources import find_files, read_source

RULES = "@0.0.0.0/0 0.0.0.0/0 0 : 1 0 : 1 0x06/0xFF\n"


def test_folders_are_read_recursively_in_sorted_order_without_hidden_names(tmp_path):
    for name in ("b", "a", "sub/c", ".hidden", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(RULES)
    assert find_files([tmp_path]) == [tmp_path / "a", tmp_path / "b", tmp_path / "sub/c"]
    assert [layer.name for layer in load_policy([tmp_path]).layers] == [
        f"classbench {tmp_path / name}" for name in ("a", "b", "sub/c")
    ]


def test_dash_reads_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(RULES.encode())))
    assert load_policy(["-"]).layers[0].name == "classbench <stdin>"


def test_a_file_of_no_known_format_is_refused_and_the_formats_are_named(tmp_path):
    (tmp_path / "a").write_text("hello\n")
    with pytest.raises(PolicyError) as error:
        load_policy([tmp_path / "a"])
    assert str(error.value).startswith(f"{tmp_path / 'a'}: is of no known format")
    assert all(name in str(error.value) for name in IMPORTERS)


@pytest.mark.parametrize(
    ("what", "data", "says"),
    [
        ("an empty file", b"", "is empty"),
        ("white space alone", b" \n", "is empty"),
        ("Latin-1", b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3"),
        ("UTF-16", "*filter".encode("utf-16"), "not UTF-8: byte 0xff at offset 0"),
        ("a NUL", b"a\nb\0", ":2: NUL character"),
        ("gzip cut short", gzip.compress(RULES.encode() * 999, mtime=0)[:-20], "gzip ends early"),
        ("gzip with a wrong checksum", gzip.compress(RULES.encode(), mtime=0)[:-8] + b"\0" * 8, "broken gzip"),
    ],
)
def test_unreadable_content_is_refused_by_name(tmp_path, what, data, says):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(PolicyError, match=says) as error:
        load_policy([tmp_path / "a"])
    assert str(error.value).startswith(str(tmp_path / "a"))


def test_missing_paths_and_unknown_formats_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="no such file"):
        load_policy([tmp_path / "absent"])
    with pytest.raises(PolicyError, match="no format is called 'x'"):
        load_policy([], format="x")
    with pytest.raises(PolicyError, match="no configuration"):
        load_policy([tmp_path])


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, True), (101, False)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_size_limit_counts_unpacked_bytes(tmp_path, size, fits, pack):
    (tmp_path / "a").write_bytes(pack(b"x" * size))
    if fits:
        assert len(read_source(tmp_path / "a", max_bytes=100).text) == size
    else:
        with pytest.raises(PolicyError, match="larger than 100 bytes"):
            read_source(tmp_path / "a", max_bytes=100)


def test_a_gzip_bomb_is_refused_while_unpacking(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"\n" * 2**24, mtime=0))
    with pytest.raises(PolicyError, match="more than 10 times its size"):
        read_source(tmp_path / "a", max_ratio=10)


def test_a_byte_order_mark_is_dropped_and_gzip_members_are_joined(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfx")
    (tmp_path / "b").write_bytes(gzip.compress(b"x", mtime=0) + gzip.compress(b"y"))
    assert read_source(tmp_path / "a").text == "x"
    assert read_source(tmp_path / "b").text == "xy"


@pytest.mark.parametrize(("limit", "fits"), [(2, False), (3, True)])
def test_the_number_of_files_is_bounded(tmp_path, limit, fits):
    for name in "abc":
        (tmp_path / name).write_text(RULES)
    if fits:
        assert len(find_files([tmp_path], max_files=limit)) == 3
    else:
        with pytest.raises(PolicyError, match="more than 2 files"):
            find_files([tmp_path], max_files=limit)
