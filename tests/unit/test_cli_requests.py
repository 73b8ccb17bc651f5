"""``meshsieve requests``: formats, masking, exit status."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from meshsieve.cli.main import main
from meshsieve.request import Request
from tests.capture.builder import pcap
from tests.http.talk import segments

GET = b"GET /x?y=1 HTTP/1.1\r\nHost: shop\r\nAuthorization: Bearer s3cret\r\nX: \xc3\xa9\xff\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "web.pcap"
    path.write_bytes(pcap(segments([("c", GET), ("s", OK)])))
    return str(path)


def test_the_table(capture: str, capfd) -> None:
    assert main(["requests", "-r", capture]) == 0
    head, row, total = capfd.readouterr().out.splitlines()
    assert head.split() == [
        "FLOW",
        "SOURCE",
        "DESTINATION",
        "METHOD",
        "AUTHORITY",
        "AND",
        "PATH",
        "STATUS",
        "MS",
        "NOTES",
    ]
    assert row.split() == ["1", "10.0.0.1:4000", "10.0.0.2:80", "GET", "shop/x?y=1", "200", "1.0"]
    assert total == "1 requests in 1 connections, 0 of them HTTP/2"


def test_ndjson_is_what_requests_are_read_from_and_masks_credentials(capture: str, capfd) -> None:
    assert main(["requests", "-r", capture, "-o", "ndjson"]) == 0
    out = capfd.readouterr().out
    assert "s3cret" not in out
    request = Request.from_dict(json.loads(out))
    assert (request.method, request.authority, request.path) == ("GET", "shop", "/x?y=1")
    assert request.headers == (("Authorization", "(masked)"), ("X", "é\udcff"))
    assert request.observed is not None
    assert request.observed["status"] == 200
    assert main(["requests", "-r", capture, "-o", "ndjson", "--secrets"]) == 0
    assert "Bearer s3cret" in capfd.readouterr().out


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_other_formats_say_the_same(form: str, capture: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    assert main(["requests", "-r", capture, "-o", form, "--output", str(path)]) == 0
    if form == "json":
        document = json.loads(path.read_text())
        assert document["summary"]["requests"] == 1
        row = document["rows"][0] | document["rows"][0]["observed"]
    elif form == "csv":
        (row,) = csv.DictReader(io.StringIO(path.read_text()))
    else:
        pytest.importorskip("pyarrow")
        import pyarrow.parquet

        (row,) = pyarrow.parquet.read_table(path).to_pylist()
    assert (row["method"], row["path"], int(row["status"]), row["protocol"]) == ("GET", "/x?y=1", 200, "HTTP/1.1")
    assert b"s3cret" not in path.read_bytes()


@pytest.mark.parametrize(
    ("since", "until", "requests"),
    [
        ("1000000000", "1000000000.005", 1),
        ("2001-09-09T01:46:40Z", "2001-09-09T03:46:41+02:00", 1),
        ("2001-09-09T01:46:40.003", "2002-01-01", 0),
        ("0", "1000000000.002", 0),
    ],
)
def test_a_time_range(since, until, requests, capture: str, capfd) -> None:
    assert main(["requests", "-r", capture, "-o", "ndjson", "--since", since, "--until", until]) == 0
    assert len(capfd.readouterr().out.splitlines()) == requests
    for verb in ("flows", "requests"):
        with pytest.raises(SystemExit):
            main([verb, "-r", capture, "--since", "yesterday"])
        capfd.readouterr()
        assert main([verb, "-r", capture, "--since", until, "--until", since]) != 0
        assert "--until is not after --since" in capfd.readouterr().err


def test_what_was_lost_is_said(capture: str, tmp_path: Path, capfd) -> None:
    data = Path(capture).read_bytes()
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(data[:-30])
    assert main(["requests", "-r", str(cut)]) == 2
    assert "the file ends inside a packet" in capfd.readouterr().err
    odd = tmp_path / "odd.pcap"
    odd.write_bytes(pcap(segments([("c", b"nonsense\r\n"), ("s", OK)])))
    assert main(["requests", "-r", str(odd)]) == 0
    assert "1 responses whose request was not captured" in capfd.readouterr().err
