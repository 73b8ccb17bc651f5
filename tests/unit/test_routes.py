"""Routing by an Envoy route configuration: sharp edges, each measured on the real Envoy 1.40.0 (docs/routes.md)."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.errors import ModelError, PolicyError
from meshsieve.request import Request
from meshsieve.routes import HttpOptions, Match, from_envoy
from meshsieve.routes.template import parse_template


def one(match: dict[str, Any], **options: Any) -> dict[str, Any]:
    """A configuration whose only route, "r", has the given match."""
    action = {"route": {"cluster": "c"}} | options
    return {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"name": "r", "match": match, **action}]}]}


def routed(config: dict[str, Any], path: str = "/", *, http: HttpOptions | None = None, **request: Any) -> Match:
    request.setdefault("authority", "h")
    return from_envoy(config, http).match(Request(path=path, **request))


PREFIX = {"prefix": "/"}
# (what it shows, match, path or request, matched)
MATCHES = [
    ("a prefix is bytes, not segments", {"prefix": "/a"}, {"path": "/ab"}, True),
    ("the query is cut before the path is compared", {"prefix": "/a?b"}, {"path": "/a?b"}, False),
    ("a path is the whole path", {"path": "/a"}, {"path": "/a/"}, False),
    ("case can be ignored", {"prefix": "/A", "case_sensitive": False}, {"path": "/ab"}, True),
    ("but not in a regex", {"safe_regex": {"regex": "/A"}, "case_sensitive": False}, {"path": "/a"}, False),
    ("a regex takes the whole path", {"safe_regex": {"regex": "/a"}}, {"path": "/ab"}, False),
    ("a separated prefix ends at a slash", {"path_separated_prefix": "/a"}, {"path": "/ab"}, False),
    ("a separated prefix matches below", {"path_separated_prefix": "/a"}, {"path": "/a/b"}, True),
    ("%2F is not /", {"prefix": "/a/"}, {"path": "/a%2Fb"}, False),
    ("one of two header lines is enough", PREFIX | {"headers": [{"name": "x", "string_match": {"exact": "b"}}]},
     {"headers": [("x", "a"), ("X", "b")]}, True),
    ("a comma does not separate", PREFIX | {"headers": [{"name": "x", "string_match": {"exact": "b"}}]},
     {"headers": [("x", "a,b")]}, False),
    ("lines of a header that Envoy keeps as one value are one", PREFIX | {"headers": [
        {"name": "authorization", "string_match": {"exact": "a,b"}}]},
     {"headers": [("authorization", "a"), ("Authorization", "b")]}, True),
    ("so two content types are not gRPC", PREFIX | {"grpc": {}},
     {"headers": [("content-type", "application/grpc"), ("content-type", "application/grpc")]}, False),
    ("an inverted match needs the header", PREFIX | {"headers": [
        {"name": "x", "string_match": {"exact": "b"}, "invert_match": True}]}, {}, False),
    ("unless a missing one counts as empty", PREFIX | {"headers": [
        {"name": "x", "string_match": {"exact": "b"}, "invert_match": True, "treat_missing_header_as_empty": True}]},
     {}, True),
    ("inverted, no line may match", PREFIX | {"headers": [
        {"name": "x", "string_match": {"exact": "b"}, "invert_match": True}]}, {"headers": [("x", "a"), ("x", "b")]},
     False),
    ("a range excludes its end", PREFIX | {"headers": [{"name": "x", "range_match": {"start": -1, "end": 2}}]},
     {"headers": [("x", "2")]}, False),
    ("a number may have a sign and zeros", PREFIX | {"headers": [{"name": "x", "range_match": {"start": 7, "end": 8}}]},
     {"headers": [("x", "+007")]}, True),
    ("beyond int64 is no number", PREFIX | {"headers": [{"name": "x", "range_match": {"start": 7, "end": 8}}]},
     {"headers": [("x", "18446744073709551623")]}, False),
    (":path has the query", PREFIX | {"headers": [{"name": ":path", "string_match": {"exact": "/?q"}}]},
     {"path": "/?q"}, True),
    ("host is the authority", PREFIX | {"headers": [{"name": "Host", "string_match": {"exact": "H:1"}}]},
     {"authority": "H:1"}, True),
    ("a query value is not decoded", PREFIX | {"query_parameters": [{"name": "a", "string_match": {"exact": "1"}}]},
     {"path": "/?a=%31"}, False),
    ("the first of a query key counts", PREFIX | {"query_parameters": [{"name": "a", "string_match": {"exact": "2"}}]},
     {"path": "/?a=1&a=2"}, False),
    ("a query key without = is present", PREFIX | {"query_parameters": [{"name": "a"}]}, {"path": "/?a"}, True),
    ("an inverted cookie may be absent", PREFIX | {"cookies": [
        {"name": "c", "string_match": {"exact": "1"}, "invert_match": True}]}, {}, True),
    ("quotes of a cookie go", PREFIX | {"cookies": [{"name": "c", "string_match": {"exact": "1"}}]},
     {"headers": [("cookie", 'b=2; c="1"')]}, True),
    ("grpc-web is not gRPC", PREFIX | {"grpc": {}}, {"headers": [("content-type", "application/grpc-web")]}, False),
    ("grpc+proto is", PREFIX | {"grpc": {}}, {"headers": [("content-type", "application/grpc+proto")]}, True),
    ("no TLS means not presented", PREFIX | {"tls_context": {"presented": False}}, {}, True),
    ("a runtime fraction takes the request's random number", PREFIX | {"runtime_fraction": {
        "default_value": {"numerator": 10}}}, {"random_value": 109}, True),
    ("and ends below its numerator", PREFIX | {"runtime_fraction": {"default_value": {"numerator": 10}}},
     {"random_value": 110}, False),
    ("metadata that is missing does not match", PREFIX | {"dynamic_metadata": [
        {"filter": "f", "path": [{"key": "k"}], "value": {"present_match": True}}]}, {}, False),
    ("a list matches if one member does", PREFIX | {"dynamic_metadata": [
        {"filter": "f", "path": [{"key": "k"}], "value": {"list_match": {"one_of": {"double_match": {"exact": 2}}}}}]},
     {"dynamic_metadata": {"f": {"k": [1, 2]}}}, True),
    ("a fragment is refused", PREFIX, {"path": "/a#b"}, False),
    ("so is a raw byte beyond ASCII", PREFIX, {"path": "/ü"}, False),
    ("an absolute target routes by its own host", PREFIX | {"headers": [
        {"name": ":authority", "string_match": {"exact": "other"}}]}, {"path": "http://other/a"}, True),
]  # fmt: skip


@pytest.mark.parametrize(("what", "match", "request_", "matched"), MATCHES, ids=[row[0] for row in MATCHES])
def test_match(what: str, match: dict[str, Any], request_: dict[str, Any], matched: bool) -> None:
    assert routed(one(match), **request_).matched is matched


TEMPLATES = [
    ("/a/{x}/c", "/a/b%2Fz/c", True), ("/a/{x}/c", "/a//c", False), ("/a/{x}/c", "/a/b/c/", False),
    ("/a/*", "/a/", False), ("/a/**", "/a/", True), ("/a/**", "/a", False), ("/**.m3u8", "/.m3u8", True),
    ("/a/{v=b/*}/{r=**}", "/a/b/c/d/e", True), ("/a/{v=b/*}/{r=**}", "/a/b/c", False),
    ("/a*", "/", True), ("/a*", "/aa", True), ("/a*", "/ab", False), ("/{a}.js", "/x.js", True),
    ("/a/*", "/a/b|c", False), ("/a.b", "/aXb", False),
]  # fmt: skip


@pytest.mark.parametrize(("template", "path", "matched"), TEMPLATES)
def test_uri_template(template: str, path: str, matched: bool) -> None:
    assert (parse_template(template).match(path.encode()) is not None) is matched


@pytest.mark.parametrize(
    "template", ["a", "/a//b", "/{x}-{y}", "/**/*", "/{x}/{x}", "/{1x}", "/{" + "x" * 17 + "}", "/{x", "/*a/b", "/{x=}"]
)
def test_uri_templates_that_envoy_refuses(template: str) -> None:
    with pytest.raises(ModelError, match="is invalid"):
        parse_template(template)


def hosts(*domains: str) -> dict[str, Any]:
    return {"virtual_hosts": [
        {"name": d, "domains": [d], "routes": [{"match": PREFIX, "route": {"cluster": "c"}}]} for d in domains
    ]}  # fmt: skip


HOSTS = [
    ("an exact domain wins", ["*", "*.b.c", "a.b.c"], "A.B.c", "a.b.c"),
    ("then the longest suffix", ["*", "*.c", "*.b.c"], "a.b.c", "*.b.c"),
    ("then the longest prefix", ["*", "a.*", "a.b.*"], "a.b.d", "a.b.*"),
    ("a suffix beats any prefix", ["a.b.*", "*.c"], "a.b.c", "*.c"),
    ("a star takes at least one byte", ["*.b.c"], ".b.c", None),
    ("a star need not stand before a dot", ["*-x.c"], "a-x.c", "*-x.c"),
    ("the port is part of the text", ["h", "h*"], "h:80", "h*"),
    ("a star in the middle is a letter", ["a*b"], "axb", None),
    ("no authority, no host", ["a", "*"], "", None),
]


@pytest.mark.parametrize(("what", "domains", "authority", "chosen"), HOSTS, ids=[row[0] for row in HOSTS])
def test_virtual_host(what: str, domains: list[str], authority: str, chosen: str | None) -> None:
    assert from_envoy(hosts(*domains)).match(Request(authority=authority)).virtual_host == chosen


def test_ports_are_ignored_when_asked() -> None:
    config = hosts("h", "[::1]") | {"ignore_port_in_host_matching": True}
    chosen = [
        from_envoy(config).match(Request(authority=a)).virtual_host for a in ("h:80", "h:x", "h:", "[::1]:80", "[::1]")
    ]
    assert chosen == ["h", "h", "h", "[::1]", "[::1]"]


def test_a_miss_does_not_fall_back_to_the_star() -> None:
    config = hosts("*", "h")
    config["virtual_hosts"][1]["routes"] = []
    found = from_envoy(config).match(Request(authority="h"))
    assert (found.matched, found.virtual_host, found.status) == (False, "h", 404)


NORMAL = [
    ("dot segments go", "/a/./b/../c", "/a/c"),
    ("above the root is dropped", "/../a", "/a"),
    ("a trailing .. leaves a slash", "/a/b/..", "/a/"),
    ("dots with parameters count", "/a/..;x/b", "/b"),
    ("escaped dots count", "/a/%2e%2E/b", "/b"),
    ("empty segments stay", "/a//../b", "/a/b"),
    ("backslash is a slash", "/a\\b", "/a/b"),
    ("unreserved escapes are decoded", "/%61%2d", "/a-"),
    ("others stay as written", "/%2f%zz", "/%2f%zz"),
    ("the query is left alone", "/a?b=/../c", "/a?b=/../c"),
]


@pytest.mark.parametrize(("what", "path", "normal"), NORMAL, ids=[row[0] for row in NORMAL])
def test_path_normalisation(what: str, path: str, normal: str) -> None:
    assert routed(one(PREFIX), path, http=HttpOptions(normalize_path=True)).path == normal


def test_slashes_merge_and_escaped_slashes_have_four_ways() -> None:
    assert routed(one(PREFIX), "/a//b/", http=HttpOptions(merge_slashes=True)).path == "/a/b/"
    answers = {}
    for action in ("KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"):
        http = HttpOptions(normalize_path=True, path_with_escaped_slashes_action=action)
        found = routed(one(PREFIX), "/a%2Fb", http=http)
        answers[action] = (found.status, found.location or found.path)
    assert answers == {
        "KEEP_UNCHANGED": (None, "/a%2Fb"),
        "REJECT_REQUEST": (400, None),
        "UNESCAPE_AND_REDIRECT": (307, "/a/b"),
        "UNESCAPE_AND_FORWARD": (None, "/a/b"),
    }


REWRITES = [
    ("a prefix is replaced blindly", {"prefix": "/docs"}, {"prefix_rewrite": "/"}, "/docs/a?q", "//a?q"),
    ("a regex replaces every match", {"prefix": "/"}, {"regex_rewrite": {
        "pattern": {"regex": "b*"}, "substitution": "-"}}, "/ab", "-/-a-"),
    ("an empty result is no rewrite", {"prefix": "/"}, {"regex_rewrite": {
        "pattern": {"regex": ".*"}, "substitution": ""}}, "/ab", "/ab"),
    ("a template uses what the match captured", {"path_match_policy": {"name": "t", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
        "path_template": "/{a}/{b=**}"}}}, {"path_rewrite_policy": {"name": "t", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
            "path_template_rewrite": "/{b}/{a}"}}}, "/x/y/z?q", "/y/z/x?q"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "match", "rewrite", "path", "sent"), REWRITES, ids=[row[0] for row in REWRITES])
def test_path_rewrite(what: str, match: dict[str, Any], rewrite: dict[str, Any], path: str, sent: str) -> None:
    assert routed(one(match, route={"cluster": "c"} | rewrite), path).path == sent


REDIRECTS = [
    ("the default port of the old scheme goes", {"https_redirect": True}, "h:80", "/a?b", "https://h/a?b"),
    ("another port stays", {"https_redirect": True}, "h:8080", "/a", "https://h:8080/a"),
    ("a port replaces a port", {"port_redirect": 8443}, "h:80", "/a", "http://h:8443/a"),
    ("a path with a query stands alone", {"path_redirect": "/x?y", "strip_query": True}, "h", "/a?b", "http://h/x?y"),
    ("a path keeps the request's query", {"path_redirect": "/x"}, "h", "/a?b", "http://h/x?b"),
    ("unless it is stripped", {"path_redirect": "/x", "strip_query": True}, "h", "/a?b", "http://h/x"),
]


@pytest.mark.parametrize(("what", "action", "authority", "path", "location"), REDIRECTS, ids=[r[0] for r in REDIRECTS])
def test_redirect(what: str, action: dict[str, Any], authority: str, path: str, location: str) -> None:
    config = {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": PREFIX, "redirect": action}]}]}
    found = routed(config, path, authority=authority)
    assert (found.status, found.location) == (301, location)


def test_weights_own_half_open_shares_and_zero_owns_nothing() -> None:
    clusters = [{"name": n, "weight": w} for n, w in (("a", 1), ("none", 0), ("b", 3))]
    config = one(PREFIX, route={"weighted_clusters": {"clusters": clusters}})
    assert [routed(config, random_value=n).cluster for n in range(5)] == ["a", "b", "b", "b", "a"]
    assert routed(config).cluster is None
    assert routed(config).clusters == (("a", 1), ("none", 0), ("b", 3))


def test_tls_is_required_before_routes_are_looked_at() -> None:
    config = one({"path": "/never"})
    config["virtual_hosts"][0]["require_tls"] = "EXTERNAL_ONLY"
    assert routed(config, "/a").location == "https://h/a"
    assert routed(config, "/a", headers=[("x-envoy-internal", "true")]).status == 404


def test_a_grpc_miss_has_status_200() -> None:
    found = routed(one({"path": "/a"}), "/b", headers=[("content-type", "application/grpc")])
    assert (found.matched, found.status) == (False, 200)


def test_the_host_rewrite_sees_headers_that_the_route_adds() -> None:
    route = {"cluster": "c", "host_rewrite_header": "x-new"}
    added = [{"header": {"key": "x-new", "value": "%REQ(x-old):3%"}}]
    found = routed(one(PREFIX, route=route, request_headers_to_add=added), headers=[("x-old", "abcdef")])
    assert found.authority == "abc"


REFUSED = [
    ("an unknown field", one(PREFIX | {"prefixx": "/"}), "match.prefixx: no such field"),
    ("two path specifiers", one({"prefix": "/", "path": "/"}), "exclude each other"),
    ("no path specifier", one({}), "needs one of prefix"),
    ("a regex that RE2 does not take", one({"safe_regex": {"regex": "(?=a)"}}), "RE2"),
    ("ignore_case with a regex", one(PREFIX | {"headers": [
        {"name": "x", "string_match": {"safe_regex": {"regex": "a"}, "ignore_case": True}}]}), "ignore_case"),
    ("an empty prefix in a string matcher", one(PREFIX | {"headers": [
        {"name": "x", "string_match": {"prefix": ""}}]}), "at least 1 character"),
    ("a domain claimed twice", hosts("h", "H"), "Only unique values for domains"),
    ("two stars", hosts("*", "*"), "Only a single wildcard domain"),
    ("weights that sum to zero", one(PREFIX, route={"weighted_clusters": {"clusters": [{"name": "a", "weight": 0}]}}),
     "sum of weights"),
    ("a header edit of host", one(PREFIX, request_headers_to_remove=["Host"]), "may not be modified"),
    ("an unclosed command", one(PREFIX, request_headers_to_add=[{"header": {"key": "a", "value": "%REQ(x"}}]),
     "percent"),
    ("a line feed in a rewrite", one(PREFIX, route={"cluster": "c", "prefix_rewrite": "/\n"}), "does not match"),
    ("a body that is too long", one(PREFIX) | {"max_direct_response_body_size_bytes": 1, "virtual_hosts": [
        {"name": "v", "domains": ["*"], "routes": [{"match": PREFIX, "direct_response": {
            "status": 200, "body": {"inline_string": "ab"}}}]}]}, "maximum is 1"),
    ("no mapping at all", "[]", "expected a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "config", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_envoy_refuses_is_refused(what: str, config: Any, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        from_envoy(config)
    assert message in str(caught.value)


def test_errors_and_matches_name_the_line() -> None:
    text = "virtual_hosts:\n- name: v\n  domains: ['*']\n  routes:\n  - match: {prefix: /}\n    route: {cluster: c}\n"
    assert from_envoy(text, file="r.yaml").match(Request(authority="h")).source.line == 5
    with pytest.raises(PolicyError, match=r"r\.yaml:5:13"):
        from_envoy(text.replace("prefix: /", "prefixx: /"), file="r.yaml")


def test_camel_case_and_quoted_numbers_are_read() -> None:
    config = {"virtualHosts": [{"name": "v", "domains": ["*"], "routes": [{
        "match": {"pathSeparatedPrefix": "/a", "caseSensitive": "false"},
        "route": {"weightedClusters": {"clusters": [{"name": "a", "weight": "2"}]}}}]}]}  # fmt: skip
    assert from_envoy(config).match(Request(authority="h", path="/A", random_value=1)).cluster == "a"


def test_a_match_tree_goes_from_the_longest_prefix_to_shorter_ones() -> None:
    def on(prefix: str, name: str) -> dict[str, Any]:
        route = {"@type": "type.googleapis.com/envoy.config.route.v3.Route", "name": name, "match": {"prefix": prefix}}
        return {"action": {"name": "route", "typed_config": route | {"route": {"cluster": name}}}}

    header = {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": ":path"}
    tree = {"input": {"name": "i", "typed_config": header},
            "prefix_match_map": {"map": {"/a": on("/", "short"), "/a/b": on("/a/b/c", "long")}}}  # fmt: skip
    router = from_envoy({"virtual_hosts": [{"name": "v", "domains": ["*"], "matcher": {"matcher_tree": tree}}]})
    names = [router.match(Request(authority="h", path=p)).route for p in ("/a/b/c", "/a/x", "/a/b", "/z")]
    # The longest key decides; its route's own match is tested too, and then the search is over.
    assert names == ["long", "short", None, None]
