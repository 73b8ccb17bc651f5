"""Requests out of access logs, HAR and NDJSON: what each line gives, and that no bad one is lost."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from meshsieve import request_logs
from meshsieve.errors import UsageError
from meshsieve.request import Request
from meshsieve.request_logs import BadLine
from meshsieve.request_logs.reader import MAX_LINE_BYTES

ENVOY = (
    '[2026-11-24T20:00:01.250Z] "GET /cart?id=7 HTTP/1.1" 200 - 0 12 5 4 "10.1.1.1,10.2.2.2" "curl/8" "r-1" '
    '"shop.example:8080" "10.0.0.9:80"'
)
ISTIO = (
    '[2026-11-24T20:00:01.250Z] "POST /a HTTP/2" 503 UH no_healthy_upstream - "-" 0 19 0 - "-" "curl/8" "r-2" '
    '"shop.example" "-" outbound|80||shop.default.svc.cluster.local - 10.0.0.5:8443 [2001:db8::1]:50112 shop.example '
    "default"
)
TCP = (
    '[2026-11-24T20:00:01.250Z] "- - -" 0 - - - "-" 10 20 5 - "-" "-" "-" "-" "10.0.0.9:80" c 1.1.1.1:1 2.2.2.2:2 '
    "3.3.3.3:3 - -"
)
ISTIO_JSON = {
    "start_time": "2026-11-24T20:00:01.000Z", "method": "GET", "path": "/a", "protocol": "HTTP/1.1",
    "response_code": 404, "response_flags": "NR", "authority": "shop.example", "x_forwarded_for": None,
    "user_agent": "curl/8", "request_id": "r-3", "route_name": None, "upstream_cluster": None,
    "downstream_local_address": "10.0.0.5:8080", "downstream_remote_address": "10.0.0.6:1",
    "requested_server_name": None,
}  # fmt: skip
ENVOY_GATEWAY_JSON = {
    ":authority": "shop.example", "method": "GET", "x-envoy-origin-path": "/b", "protocol": "HTTP/2",
    "response_code": 200, "start_time": "2026-11-24T20:00:01Z", "user-agent": "x", "x-request-id": "r-4",
    "x-forwarded-for": "1.2.3.4",
}  # fmt: skip
HAR = {
    "log": {
        "entries": [
            {
                "startedDateTime": "2026-11-24T21:00:01.000+01:00",
                "request": {
                    "method": "GET",
                    "url": "https://shop.example:8443/a?b=c#top",
                    "headers": [{"name": ":method", "value": "GET"}, {"name": "Cookie", "value": "a=1"}],
                },
                "response": {"status": 200},
            },
            {"request": {"method": "GET", "url": "data:text/plain,x", "headers": []}},
            {"request": {"method": "GET", "url": "http://x?q"}},
        ]
    }
}


def read(
    tmp_path: Path, data: str | bytes, format: str = "auto", **more: Any
) -> tuple[request_logs.RequestLog, list[Any]]:
    file = tmp_path / "requests"
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    log = request_logs.read(file, format, **more)
    return log, list(log.records())


def one(tmp_path: Path, line: str) -> Request:
    _log, found = read(tmp_path, line + "\n")
    assert [number for number, _ in found] == [1]
    assert isinstance(found[0][1], Request), found
    return found[0][1]


def test_the_default_line_of_envoy(tmp_path):
    found = one(tmp_path, ENVOY)
    assert (found.method, found.scheme, found.authority, found.path) == (
        "GET",
        "http",
        "shop.example:8080",
        "/cart?id=7",
    )
    assert found.headers == (
        ("x-forwarded-for", "10.1.1.1,10.2.2.2"),
        ("user-agent", "curl/8"),
        ("x-request-id", "r-1"),
    )
    assert found.time_ns == 1795550401 * 10**9 + 250_000_000
    assert found.observed["status"] == 200
    assert (found.source_ip, found.sni) == (None, None)


def test_the_default_line_of_istio(tmp_path):
    found = one(tmp_path, ISTIO)
    assert (found.method, found.scheme, found.authority, found.path) == ("POST", "https", "shop.example", "/a")
    assert (found.source_ip, found.source_port, found.remote_ip) == ("2001:db8::1", 50112, "2001:db8::1")
    assert (found.destination_ip, found.destination_port, found.sni) == ("10.0.0.5", 8443, "shop.example")
    assert found.observed["upstream_cluster"] == "outbound|80||shop.default.svc.cluster.local"
    assert (found.observed["status"], found.observed["route_name"]) == (503, "default")


def test_json_lines_of_istio_and_envoy_gateway(tmp_path):
    found = one(tmp_path, json.dumps(ISTIO_JSON))
    assert (found.method, found.authority, found.path, found.scheme) == ("GET", "shop.example", "/a", "http")
    assert found.headers == (("user-agent", "curl/8"), ("x-request-id", "r-3"))
    found = one(tmp_path, json.dumps(ENVOY_GATEWAY_JSON))
    assert (found.authority, found.path, found.header("x-forwarded-for")) == ("shop.example", "/b", ["1.2.3.4"])


def test_fields_of_an_own_format_that_hold_headers_are_named(tmp_path):
    line = json.dumps({**ISTIO_JSON, "version": "2"})
    _, found = read(tmp_path, line, header_fields={"version": "x-version"})
    assert found[0][1].header("X-Version") == ["2"]


def test_a_har_gives_every_header_and_says_which_entries_are_none(tmp_path):
    for text in (json.dumps(HAR), json.dumps(HAR, indent=1)):
        log, found = read(tmp_path, text)
        assert (log.format, log.requests, log.bad) == ("har", 2, 1)
        first = found[0][1]
        assert (first.scheme, first.authority, first.path, first.sni) == (
            "https",
            "shop.example:8443",
            "/a?b=c",
            "shop.example",
        )
        assert first.headers == (("Cookie", "a=1"),)
        assert (first.time_ns, first.observed) == (1795550401 * 10**9, {"status": 200})
        assert found[1] == (2, BadLine(2, "the url is none of http or https"))
        assert (found[2][1].authority, found[2][1].path) == ("x", "/?q")


RECOGNISED = [
    (ENVOY, "access-text"),
    (ISTIO, "access-text"),
    (json.dumps(ISTIO_JSON), "access-json"),
    (json.dumps(HAR), "har"),
    ('{"path": "/"}', "ndjson"),
    ('\n\n  {"host": "a"}', "ndjson"),
    ("\ufeff" + '{"path": "/"}', "ndjson"),
    ("", "ndjson"),
]


@pytest.mark.parametrize(("text", "format"), RECOGNISED)
def test_a_format_is_recognised_by_how_the_file_begins(text, format, tmp_path):
    log, _ = read(tmp_path, text)
    assert (log.format, log.bad) == (format, 1 if format == "har" else 0)
    packed, _ = read(tmp_path, gzip.compress(text.encode()))
    assert (packed.format, packed.requests) == (format, log.requests)


def test_what_is_no_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match="of no known format; formats: ndjson, access-json, access-text, har"):
        read(tmp_path, "GET / HTTP/1.1\n")
    with pytest.raises(UsageError, match="no format of requests is called 'x'"):
        request_logs.read("x", "x")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        list(request_logs.read(tmp_path / "absent"))


BAD_LINES = [
    ("two tokens smuggled in a header", ENVOY.replace("curl/8", 'x" "r" "evil.example'), "15 fields, expected 13"),
    ("a quotation mark inside a token", ENVOY.replace("curl/8", 'cu"rl'), "expected a space at column"),
    ("a line cut short", ENVOY[:40], "is not closed"),
    ("a field more", ENVOY + " -", "14 fields, expected"),
    ("a request line of two words", ENVOY.replace(" HTTP/1.1", ""), "expected METHOD PATH PROTOCOL"),
    ("a field quoted that is not", ENVOY.replace(" 200 ", ' "200" '), "field response_code is quoted"),
]


@pytest.mark.parametrize(("sentence", "line", "message"), BAD_LINES, ids=[b[0] for b in BAD_LINES])
def test_a_line_that_can_be_read_in_two_ways_is_no_request(sentence, line, message, tmp_path):
    log, found = read(tmp_path, f"{ENVOY}\n{line}\n{ISTIO}\n")
    assert [type(each).__name__ for _, each in found] == ["Request", "BadLine", "Request"]
    assert message in found[1][1].message
    assert (log.requests, log.bad, log.bad_lines[0].line) == (2, 1, 2)


BAD_JSON = [
    ("[1]", "not a JSON object"),
    ('{"path": "/"', "not JSON"),
    ('{"path": "/", "path": "/b"}', "the key 'path' is there twice"),
    ('{"host": "a", "authority": "b"}', "a field is given twice"),
    ('{"path": 7}', "path must be text, not int"),
    ('{"pathh": "/"}', "a request has no field pathh"),
    ('{"headers": "x"}', "headers must be pairs or a mapping"),
    ('{"destination_port": 65536}', "destination_port must be a whole number in 0..65535"),
    ('{"random_value": true}', "random_value must be a whole number"),
    ('{"claims": []}', "claims must be a mapping"),
    ('{"time_ns": NaN}', "NaN is not a JSON number"),
    ('{"time_ns": ' + "9" * 5000 + "}", "not JSON that can be read"),
    ('{"claims": ' + "[" * 100_000 + "}", "nested too deeply"),
    ('{"path": "\xff"}'.encode("latin-1"), "not UTF-8"),
    (b'{"path": "/' + b"a" * MAX_LINE_BYTES + b'"}', "a line of more than 1048576 bytes"),
]


@pytest.mark.parametrize(("line", "message"), BAD_JSON, ids=[b[1] for b in BAD_JSON])
def test_a_bad_line_is_a_value_with_its_number_and_the_next_is_read(line, message, tmp_path):
    data = line if isinstance(line, bytes) else line.encode()
    _log, found = read(tmp_path, b'{"path": "/1"}\n' + data + b'\n{"path": "/3"}\n', "ndjson")
    assert [number for number, _ in found] == [1, 2, 3]
    assert message in found[1][1].message
    assert [r.path for r in request_logs.read(tmp_path / "requests", "ndjson")] == ["/1", "/3"]
    assert len(found[1][1].message) < 400


def test_a_line_of_exactly_the_limit_is_read(tmp_path):
    rest = len('{"path": "/"}\n')
    line = '{"path": "/' + "a" * (MAX_LINE_BYTES - rest) + '"}\n'
    for more, bad in (("", 0), ("a", 1)):
        log, _ = read(tmp_path, line.replace("/a", f"/{more}a", 1), "ndjson")
        assert (log.requests, log.bad) == (1 - bad, bad)


def test_connections_without_a_request_are_counted_apart(tmp_path):
    log, found = read(tmp_path, f"{TCP}\n{ISTIO}\n")
    assert (log.requests, log.bad, log.unrequested, len(found)) == (1, 0, 1, 1)


def test_null_is_absent(tmp_path):
    found = one(tmp_path, '{"path": "/", "sni": null, "headers": null, "method": null}')
    assert (found.sni, found.headers, found.method) == (None, (), "GET")


def test_gzip_that_ends_early_or_unpacks_without_end_is_an_error_not_a_short_file(tmp_path):
    packed = gzip.compress("\n".join([ENVOY] * 1000).encode())
    with pytest.raises(UsageError, match="broken gzip after"):
        read(tmp_path, packed[: len(packed) // 2])
    with pytest.raises(UsageError, match="unpacks to more than 1000 times its size"):
        read(tmp_path, gzip.compress(b"\n" * (64 << 20), 9))


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(ENVOY.encode()))))
    assert [r.path for r in request_logs.read("-")] == ["/cart?id=7"]


def test_whatever_bytes_come_the_reader_ends_and_counts_every_line(tmp_path):
    """Random edits of good lines: no exception but UsageError, and requests, bad and empty lines add up."""
    rng = random.Random(7)
    lines = [ENVOY, ISTIO, json.dumps(ISTIO_JSON), '{"path": "/", "headers": [["a", "b"]]}']
    for _ in range(300):
        data = bytearray("\n".join(rng.choices(lines, k=3)).encode())
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.choice(b'"[]{}:,\\ \n\0\xff-0a')
        for format in request_logs.FORMATS:
            try:
                log, _found = read(tmp_path, bytes(data), format)
            except UsageError:
                continue
            if log.format != "har":
                written = sum(1 for line in bytes(data).split(b"\n") if line.strip())
                assert log.requests + log.bad + log.unrequested == written, bytes(data)
