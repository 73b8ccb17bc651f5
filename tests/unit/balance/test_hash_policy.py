"""Which parts of a request are hashed, and how they combine."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.balance import HashPolicy
from meshsieve.balance.hash_policy import duration_seconds
from meshsieve.errors import BalanceError, ModelError
from meshsieve.request import Request
from tests.reference.balance import combine, xxh64

HEADER = {"header": {"header_name": "x-key"}}
ALT = {"header": {"header_name": "x-alt"}}
COOKIE = {"cookie": {"name": "sid"}}
QUERY = {"query_parameter": {"name": "u"}}
SOURCE = {"connection_properties": {"source_ip": True}}
STATE = {"filter_state": {"key": "k"}}


A, B = xxh64(b"a"), xxh64(b"b")


def rewrite(pattern: str, substitution: str = "") -> dict[str, Any]:
    return {
        "header": {
            "header_name": "x-key",
            "regex_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution},
        }
    }


DIGITS = rewrite("[0-9]+", "<\\0>")


def terminal(policy: dict[str, Any]) -> dict[str, Any]:
    return {**policy, "terminal": True}


def headers(*pairs: tuple[str, str]) -> Request:
    return Request(headers=pairs)


CASES: list[tuple[str, list[dict[str, Any]], Request, list[int]]] = [
    #  what it shows, policies, request, hashes that are combined
    ("no policy, no hash", [], headers(), []),
    ("a header's value", [HEADER], headers(("X-Key", "a")), [A]),
    ("an absent header adds nothing", [HEADER, ALT], headers(("x-alt", "b")), [B]),
    ("an empty header is hashed", [HEADER], headers(("x-key", "")), [xxh64(b"")]),
    ("two policies combine in order", [HEADER, ALT], headers(("x-alt", "b"), ("x-key", "a")), [A, B]),
    ("several lines are sorted and chained", [HEADER], headers(("x-key", "b"), ("x-key", "a")), [xxh64(b"b", A)]),
    ("a comma does not split a line", [HEADER], headers(("x-key", "b,a")), [xxh64(b"b,a")]),
    ("every match of the regex is rewritten", [DIGITS], headers(("x-key", "a1b22")), [xxh64(b"a<1>b<22>")]),
    ("lines are sorted rewritten", [DIGITS], headers(("x-key", "b"), ("x-key", "1")), [xxh64(b"b", xxh64(b"<1>"))]),
    ("a cookie among others", [COOKIE], headers(("cookie", "a=1; sid=x; b=2")), [xxh64(b"x")]),
    ("the first cookie of the name", [COOKIE], headers(("cookie", "a=1"), ("cookie", "sid=x; sid=y")), [xxh64(b"x")]),
    ("quotes around a cookie are dropped", [COOKIE], headers(("cookie", 'sid="x"')), [xxh64(b"x")]),
    ("an empty cookie is absent", [COOKIE, HEADER], headers(("cookie", "sid="), ("x-key", "a")), [A]),
    ("a cookie's name is case-sensitive", [COOKIE], headers(("cookie", "SID=x")), []),
    ("a query parameter", [QUERY], Request(path="/x?a=1&u=v%20w&u=z"), [xxh64(b"v%20w")]),
    ("a bare query parameter is empty text", [QUERY], Request(path="/x?u"), [xxh64(b"")]),
    ("a query parameter with '=' and no text", [QUERY], Request(path="/x?u="), [xxh64(b"")]),
    ("only & separates parameters", [QUERY], Request(path="/x?u=v;z=1"), [xxh64(b"v;z=1")]),
    ("no query, no hash", [QUERY], Request(path="/u=1"), []),
    ("the source address without port", [SOURCE], Request(source_ip="10.0.0.9", source_port=42), [xxh64(b"10.0.0.9")]),
    ("an unknown source adds nothing", [SOURCE], Request(), []),
    ("filter state text", [STATE], Request(filter_state={"k": "v"}), [xxh64(b"v")]),
    ("filter state that hashes itself", [STATE], Request(filter_state={"k": 7}), [7]),
    ("terminal stops with a hash", [terminal(HEADER), QUERY], Request(path="/?u=v", headers=[("x-key", "a")]), [A]),
    ("terminal without a hash goes on", [terminal(HEADER), QUERY], Request(path="/?u=v"), [xxh64(b"v")]),
    (
        "an absent terminal stops if an earlier one hashed",
        [HEADER, terminal(ALT), QUERY],
        Request(path="/?u=v", headers=[("x-key", "a")]),
        [A],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("policies", "request_", "hashes"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_request_hash(policies: list[dict[str, Any]], request_: Request, hashes: list[int]) -> None:
    assert HashPolicy.from_envoy(policies).hash(request_).value == combine(hashes)


@pytest.mark.parametrize("port", [4242, 1047])  # the second one's value begins with a zero
def test_a_cookie_with_ttl_is_generated_from_the_addresses(port: int) -> None:
    policy = HashPolicy.from_envoy([{"cookie": {"name": "sid", "ttl": "3600s", "path": "/"}}])
    request = Request(source_ip="10.0.0.9", source_port=port, destination_ip="10.0.0.1", destination_port=80)
    answer = policy.hash(request)
    value = f"{xxh64(f'10.0.0.9:{port}10.0.0.1:80'.encode()):016x}"
    assert answer.cookies_to_set == (("sid", value, "/", 3600.0),)
    assert answer.value == xxh64(value.encode())


def test_a_cookie_with_ttl_that_is_there_is_used() -> None:
    policy = HashPolicy.from_envoy([{"cookie": {"name": "sid", "ttl": "0s"}}])
    assert policy.hash(headers(("cookie", "sid=x"))) == (xxh64(b"x"), ())


REFUSED: list[tuple[str, Any, str]] = [
    ("two kinds in one entry", {**HEADER, **QUERY}, r"hash_policy\[0\]: expected one of"),
    ("an unknown kind", {"body": {}}, "got body"),
    ("nothing", {}, "got nothing"),
    ("a header without name", {"header": {}}, "header_name is missing"),
    ("an unknown field", {"header": {"header_name": "a", "case": 1}}, "unknown fields: case"),
    ("a wrong type", {"header": {"header_name": 1}}, "must be str"),
    ("terminal that is no boolean", {**HEADER, "terminal": "yes"}, "terminal must be true or false"),
    ("a pattern that does not compile", rewrite("("), "missing \\)"),
    ("a group that is not there", rewrite("a", "\\1"), "regex_rewrite of header x-key"),
    ("back-references", rewrite("(a)\\1"), "invalid escape"),
    ("nothing of a connection", {"connection_properties": {}}, "source_ip must be true"),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(policy: Any, reason: str) -> None:
    with pytest.raises(BalanceError, match=reason):
        HashPolicy.from_envoy([policy])


DURATIONS = [("30s", 30.0), ("1h2m3s", 3723.0), ("500ms", 0.5), ("0.25s", 0.25), ("0s", 0.0)]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds(text, "ttl") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "1.2.3s", ".s", "3x", "-3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BalanceError, match="is not a duration"):
        duration_seconds(text, "ttl")


def test_a_request_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ModelError, match="no field bdoy"):
        Request.from_dict({"bdoy": "x"})


def test_header_lines_of_a_mapping() -> None:
    assert Request(headers={"a": ["1", "2"], "b": "3"}).headers == (("a", "1"), ("a", "2"), ("b", "3"))
