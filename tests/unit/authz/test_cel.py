"""Conditions in CEL: one sentence a row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsieve.authz.cel import compile_expression
from meshsieve.authz.cel.parse import MAX_BYTES
from meshsieve.authz.cel.tree import MAX_DEPTH
from meshsieve.authz.facts import Facts
from meshsieve.errors import ModelError
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, RequestView, view

REQUEST = Request(
    method="GET",
    scheme="https",
    authority="shop.example",
    path="/a/b?q=1",
    headers={"X-A": "1", "x-b": ["2", "3"], "user-agent": "curl", "content-length": "17", "x-long": "a" * 2000},
    source_ip="10.0.0.1",
    source_port=4242,
    destination_ip="2001:db8::1",
    destination_port=80,
    principal="cluster.local/ns/shop/sa/web",
    claims={"sub": "alice", "groups": ["dev", "ops"], "level": 3, "nested": {"a": [1, 2]}, "ok": True},
    sni="shop.example",
    dynamic_metadata={"f": {"k": "v"}},
    time_ns=1_704_067_200 * 10**9,  # Monday 2024-01-01T00:00:00Z
)
ATTRIBUTES = {"data": {"classification": "secret"}, "src": {"labels": {"app": "web"}}}


def facts(request: Request = REQUEST) -> Facts:
    seen = view(request, HttpOptions())
    assert isinstance(seen, RequestView)
    return Facts(request, seen, attributes=ATTRIBUTES)


TRUE = [
    # literals
    "true", "!false", "0x10 == 16", "1u == 1", "1.5e1 == 15.0", ".5 == 0.5", "'a' == \"a\"", "r'\\d' == '\\\\d'",
    "'''a'b''' == \"a'b\"", "b'\\xff' == b'\\377'", "b'é' == b'\\xc3\\xa9'", "'\\u00e9' == 'é'", "null == null",
    "[1, 2][1] == 2", "{'a': 1}['a'] == 1", "{'a': {'b': 2}}.a.b == 2", "-9223372036854775808 < 0",
    # operators
    "1 + 2 * 3 == 7", "(1 + 2) * 3 == 9", "-7 / 2 == -3", "-7 % 2 == -1", "7 % -2 == 1", "2 - 1 - 1 == 0",
    "'a' + 'b' == 'ab'", "[1] + [2] == [1, 2]", "b'a' + b'b' == b'ab'", "1.0 / 0.0 > 1e300", "1 == 1.0", "1 < 1.5",
    "1 != 'a'", "!([1] == [2])", "{'a': 1} == {'a': 1.0}", "2 in [1, 2]", "'a' in {'a': 1}", "!(true in {1: 'a'})",
    "true ? true : false", "false ? false : true", "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3", "'a' < 'b'", "false < true",
    # errors do not count where the other side decides
    "!(false && 1 / 0 > 0)", "!(1 / 0 > 0 && false)", "true || 1 / 0 > 0", "1 / 0 > 0 || true",
    # has and macros
    "has(request.path)", "!has(jwt.claims.none)", "has(jwt.claims.nested.a)", "!has({'a': 1}.b)",
    "[1, 2].all(x, x > 0)", "[1, 2].exists(x, x == 2)", "[1, 2, 2].exists_one(x, x == 1)",
    "[1, 2, 3].filter(x, x > 1) == [2, 3]", "[1, 2].map(x, x * 2) == [2, 4]",
    "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
    "![1, 2].all(x, x > 1)", "!['a', 1].all(x, x < 0)", "[1 / 1, 0].exists(x, 1 / x == 1)", "{'a': 1}.all(k, k == 'a')",
    "[[1], [2]].exists(x, x.exists(y, y == 2))", "[].all(x, false)",
    # functions
    "size('é') == 1", "'abc'.size() == 3", "size([1, 2]) == 2", "'abc'.contains('b')", "'abc'.startsWith('ab')",
    "'abc'.endsWith('bc')", "'abc'.matches('b')", "!'abc'.matches('^b')", "matches('abc', 'c$')", "int('12') == 12",
    "int(3.9) == 3", "uint(3) == 3u", "double('1.5') == 1.5", "string(1) == '1'", "string(true) == 'true'",
    "string(b'a') == 'a'", "int(timestamp('1970-01-01T00:01:00Z')) == 60",
    "timestamp('2024-01-01T01:00:00+01:00') == request.time", "string(request.time) == '2024-01-01T00:00:00Z'",
    "request.time.getFullYear() == 2024", "request.time.getDayOfWeek() == 1", "request.time.getHours('+02:00') == 2",
    "request.time.getHours('-01:30') == 22", "request.time + duration('1h30m') > request.time",
    "timestamp('2024-01-01T00:00:01Z') - request.time == duration('1s')", "duration('1.5s').getSeconds() == 1",
    "bool('true') && !bool('0') && bytes('a') == b'a' && dyn(1) == 1", "type(1) == int && type(null) == null_type",
    "type(int) == type && type([]) == list && type({}) != type(1u)", "int(' 12 ') == 12 && double('0x10') == 16.0",
    "string(-0.0) == '-0'", "timestamp('2024-01-01T00:00:00.25Z').getMilliseconds() == 250",
    # attributes
    "request.headers['X-A'] == '1' && 'X-B' in request.headers",
    "request.method == 'GET' && request.scheme == 'https' && request.host == 'shop.example'",
    "request.path == '/a/b?q=1' && request.url_path == '/a/b' && request.query == 'q=1'",
    "request.headers['x-a'] == '1' && request.headers['x-b'] == '2,3' && !('x-c' in request.headers)",
    "request.useragent == 'curl' && !has(request.referer) && request.size == 17 && request.protocol == 'HTTP/1.1'",
    "source.address == '10.0.0.1:4242' && source.port == 4242 && destination.address == '[2001:db8::1]:80'",
    "connection.mtls && connection.requested_server_name == 'shop.example'",
    "connection.uri_san_peer_certificate == 'spiffe://cluster.local/ns/shop/sa/web'",
    "metadata.filter_metadata['f']['k'] == 'v'", "metadata.filter_metadata.f.k == 'v'",
    "jwt.claims.level == 3 && 'dev' in jwt.claims.groups && jwt.claims['nested'].a[1] == 2",
    "peer.trust_domain == 'cluster.local' && peer.namespace == 'shop' && peer.service_account == 'web'",
    "user.id == 'alice' && 'ops' in user.groups", "data.classification == 'secret'", "src.labels.app == 'web'",
]  # fmt: skip


@pytest.mark.parametrize("text", TRUE)
def test_holds(text):
    assert compile_expression(text).holds(facts()) is True


NO_VALUE = [
    "1 / 0 == 1", "1 % 0 == 1", "1 + 1.0 == 2.0", "1 + 1u == 2", "'a' + 1 == 'a1'", "1 < 'a'", "[1] < [2]",
    "9223372036854775807 + 1 > 0", "-9223372036854775808 - 1 < 0", "0u - 1u > 0u", "[1][1] == 1", "{'a': 1}['b'] == 1",
    "jwt.claims.none == 1", "request.referer == ''", "dst.labels.app == 'x'", "1", "'true'", "null", "!1",
    "null in {'a': 1}", "[1] in {1: 1}", "duration('1h').getHours('UTC') == 1", "bool('yes')",
    "1 && true", "'a' ? true : false", "int('a') == 1", "int(1e300) == 1", "uint(-1) == 1u", "size(1) == 1",
    "'a'.matches(string(1) + '(')", "timestamp('yesterday') == request.time", "duration('1 hour') == duration('1h')",
    "request.time.getHours('Nowhere/At_All') == 1", "[1, 'a'].all(x, x > 0)", "{'a': 1, 'a': 2}.size() == 1",
    "[1, 0].map(x, 1 / x).size() == 2", "jwt.claims.sub.name == 'a'", "data.classification.x == 'a'",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_VALUE)
def test_has_no_value(text):
    assert compile_expression(text).holds(facts()) is None


REFUSED = [
    ("", "unexpected 'the end'"),
    ("a", "no attribute 'a'"),
    ("request.body == ''", "request.body is not known here"),
    ("request.path ==", "unexpected 'the end' at character 16"),
    ("1 2", "unexpected '2'"),
    ("foo(1)", "no function 'foo'"),
    ("'a'.upper()", "no function 'upper'"),
    ("size()", "takes 1 arguments, not 0"),
    ("'a'.matches('(')", "RE2"),
    ("'a", "not closed"),
    ("'\\q'", "escape"),
    ("'\\ud800'", "no character"),
    ("b'\\u0041'", "bytes"),
    ("has(request)", "has takes one field"),
    ("[1].all(1, true)", "name of a variable"),
    ("18446744073709551616u", "64 bits"),
    ("9223372036854775808", "64 bits"),
    ("while", "reserved word"),
    ("__import__('os')", "no function"),
    ("request.__class__", "request.__class__ is not known"),
    ("@", "unexpected '@' at character 1"),
    ("(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "nested deeper"),
    ("!" * 1000 + "true", "chain of signs"),
    ("1" + "+1" * 1000, "chain of more"),
    ("'" + "a" * MAX_BYTES + "'", "longer than"),
]


@pytest.mark.parametrize(("text", "says"), REFUSED, ids=range(len(REFUSED)))
def test_refused(text, says):
    with pytest.raises(ModelError) as error:
        compile_expression(text)
    assert says in str(error.value)


def test_nesting_up_to_the_limit_is_read():
    depth = MAX_DEPTH - 1
    assert compile_expression("(" * depth + "true" + ")" * depth).holds(facts()) is True


def test_a_long_or_is_read_and_costs_its_length():
    text = " || ".join(["source.port == 1"] * 3000)
    assert compile_expression(text).holds(facts()) is None  # more than 10,000 nodes
    assert compile_expression(text, max_nodes=30_000).holds(facts()) is False


BOMBS = [
    "['a'].map(x, " * 10 + "'a'" + ")" * 10,
    "[1,2,3,4,5,6,7,8,9,0].all(a, [1,2,3,4,5,6,7,8,9,0].all(b, [1,2,3,4,5,6,7,8,9,0].all(c, "
    "[1,2,3,4,5,6,7,8,9,0].all(d, [1,2,3,4,5,6,7,8,9,0].all(e, true)))))",
    "".join(f"[{'1,' * 50}].map(x{i}, " for i in range(5)) + "1" + ").map(y, y)" * 5 + ".size() > 0",
    "size(" + "+".join(["request.headers['x-long']"] * 40) + ") > 0",
    "[1,2,3,4,5,6,7,8,9].all(x, request.path.matches(string(x) + '((a{50}){50}){0,20}'))",
]


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_what_would_take_long_has_no_value(text):
    assert compile_expression(text).holds(facts()) is None


TOKENS = st.sampled_from(
    ["1", "'a'", "true", "request", ".path", "(", ")", "[", "]", "{", "}", ":", "?", ",", "+", "-", "!", "&&", "||",
     "in", "==", "<", "has(", ".all(x,", "x", "size(", " ", "b'", '"', "\\", "0x", "e"]
)  # fmt: skip


@given(st.lists(TOKENS, max_size=25).map("".join))
def test_any_text_is_an_expression_or_refused(text):
    try:
        program = compile_expression(text)
    except ModelError:
        return
    assert program.holds(facts()) in (True, False, None)
