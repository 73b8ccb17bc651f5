"""HTTPMatchRequest: every field, by sentences of how Istio turns it into Envoy's matchers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.mesh.objects import REVIEWS, gateway_proxy, get, istio, mesh, sidecar


def answer(match: str, **request: Any) -> bool:
    """Whether a rule with this match takes the request (else the rule after it does)."""
    rule = f"""
hosts: [reviews]
http:
- match: [{match}]
  route: [{{destination: {{host: reviews, subset: hit}}}}]
- route: [{{destination: {{host: reviews}}}}]
"""
    rules = istio("DestinationRule", "d", "{host: reviews, subsets: [{name: hit, labels: {v: a}}]}")
    world = mesh(REVIEWS, istio("VirtualService", "v", rule), rules)
    found = get(world, "http://reviews:9080" + request.pop("path", "/"), **request)
    assert found.action == "route"
    return found.cluster == "outbound|9080|hit|reviews.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("sentence", "match", "request_", "taken"),
    [
        ("uri.exact is the whole path", "{uri: {exact: /a}}", {"path": "/a"}, True),
        ("uri.exact is the whole path", "{uri: {exact: /a}}", {"path": "/a/"}, False),
        ("the query is not part of the uri", "{uri: {exact: /a}}", {"path": "/a?x=1"}, True),
        ("uri.prefix is a plain byte prefix", "{uri: {prefix: /a}}", {"path": "/ab"}, True),
        ("uri.prefix is case-sensitive", "{uri: {prefix: /a}}", {"path": "/A"}, False),
        ("uri.regex is a full match", "{uri: {regex: '/a[0-9]'}}", {"path": "/a1"}, True),
        ("uri.regex is a full match", "{uri: {regex: '/a[0-9]'}}", {"path": "/a12"}, False),
        ("no uri is the prefix /", "{method: {exact: GET}}", {"path": "/whatever"}, True),
        ("ignoreUriCase acts on exact", "{uri: {exact: /a}, ignoreUriCase: true}", {"path": "/A"}, True),
        ("ignoreUriCase acts on prefix", "{uri: {prefix: /a}, ignoreUriCase: true}", {"path": "/AB"}, True),
        ("ignoreUriCase does not act on regex", "{uri: {regex: /a}, ignoreUriCase: true}", {"path": "/A"}, False),
        ("method is a case-sensitive header match", "{method: {exact: get}}", {}, False),
        ("method may be a prefix", "{method: {prefix: G}}", {}, True),
        ("authority is the raw Host, port included", "{authority: {exact: 'reviews:9080'}}", {}, True),
        ("authority is the raw Host, port included", "{authority: {exact: reviews}}", {}, False),
        ("authority is case-sensitive", "{authority: {prefix: Reviews}}", {}, False),
        ("scheme is matched", "{scheme: {exact: http}}", {}, True),
        ("scheme is matched", "{scheme: {exact: https}}", {}, False),
        ("a header's whole value", "{headers: {user: {exact: jason}}}", {"headers": {"user": "jason"}}, True),
        ("header names are case-insensitive", "{headers: {User: {exact: j}}}", {"headers": {"uSER": "j"}}, True),
        ("a header's prefix", "{headers: {user: {prefix: ja}}}", {"headers": {"user": "jason"}}, True),
        ("a header's regex is a full match", "{headers: {user: {regex: ja}}}", {"headers": {"user": "jason"}}, False),
        ("any line of a header will do", "{headers: {a: {exact: '2'}}}", {"headers": [("a", "1"), ("a", "2")]}, True),
        ("an absent header matches nothing", "{headers: {user: {exact: ''}}}", {}, False),
        ("{} asks for presence", "{headers: {user: {}}}", {"headers": {"user": ""}}, True),
        ("{} asks for presence", "{headers: {user: {}}}", {}, False),
        ("the regex * asks for presence", "{headers: {user: {regex: '*'}}}", {"headers": {"user": "x"}}, True),
        ("all headers must hold", "{headers: {a: {}, b: {}}}", {"headers": {"a": "1"}}, False),
        ("withoutHeaders is inverted", "{withoutHeaders: {a: {exact: '1'}}}", {"headers": {"a": "1"}}, False),
        ("withoutHeaders is inverted", "{withoutHeaders: {a: {exact: '1'}}}", {"headers": {"a": "2"}}, True),
        ("an absent header satisfies withoutHeaders", "{withoutHeaders: {a: {exact: '1'}}}", {}, True),
        ("an absent header satisfies withoutHeaders {}", "{withoutHeaders: {a: {}}}", {}, True),
        ("a present header fails withoutHeaders {}", "{withoutHeaders: {a: {}}}", {"headers": {"a": ""}}, False),
        ("an absent header counts as empty there", "{withoutHeaders: {a: {regex: '.*'}}}", {}, False),
        ("queryParams exact", "{queryParams: {v: {exact: '2'}}}", {"path": "/?v=2"}, True),
        ("only the first value of a key counts", "{queryParams: {v: {exact: '2'}}}", {"path": "/?v=1&v=2"}, False),
        ("queryParams prefix is accepted", "{queryParams: {v: {prefix: a}}}", {"path": "/?v=ab"}, True),
        ("queryParams regex is a full match", "{queryParams: {v: {regex: 'a+'}}}", {"path": "/?v=ab"}, False),
        ("queryParams {} asks for presence", "{queryParams: {v: {}}}", {"path": "/?v"}, True),
        ("queryParams regex * asks for presence", "{queryParams: {v: {regex: '*'}}}", {"path": "/?w"}, False),
        ("all parts of one match hold together", "{uri: {prefix: /a}, method: {exact: PUT}}", {"path": "/a"}, False),
        ("port 0 is any port", "{port: 0, uri: {prefix: /}}", {}, True),
        ("port is the listener's", "{port: 9080}", {}, True),
        ("port is the listener's", "{port: 80}", {}, False),
        ("statPrefix and name do not narrow", "{name: n, statPrefix: s, uri: {prefix: /}}", {}, True),
        (
            "a claim with dots",
            "{headers: {'@request.auth.claims.group.id': {exact: a}}}",
            {"claims": {"group": {"id": "a"}}},
            True,
        ),
        (
            "a claim with brackets",
            "{headers: {'@request.auth.claims[group][id]': {exact: a}}}",
            {"claims": {"group": {"id": "b"}}},
            False,
        ),
        ("a list", "{headers: {'@request.auth.claims.g': {exact: a}}}", {"claims": {"g": ["x", "a"]}}, True),
        (
            "scope is a list of words",
            "{headers: {'@request.auth.claims.scope': {exact: r}}}",
            {"claims": {"scope": "r w"}},
            True,
        ),
        ("without a token no claim matches", "{headers: {'@request.auth.claims.g': {exact: a}}}", {}, False),
        ("withoutHeaders inverts claims", "{withoutHeaders: {'@request.auth.claims.g': {exact: a}}}", {}, True),
        ("a claim is no header", "{headers: {'@request.auth.claims.g': {exact: a}}}", {"headers": {"g": "a"}}, False),
    ],
)  # fmt: skip
def test_field(sentence: str, match: str, request_: dict[str, Any], taken: bool) -> None:
    assert answer(match, **request_) is taken, sentence


MATCHES = """
hosts: [reviews]
gateways: [mesh, edge]
http:
- name: labels
  match: [{sourceLabels: {app: page}}]
  route: [{destination: {host: reviews}}]
- name: namespace
  match: [{sourceNamespace: other}]
  route: [{destination: {host: reviews}}]
- name: gateway
  match: [{gateways: [edge]}]
  route: [{destination: {host: reviews}}]
- name: both
  match: [{gateways: [mesh], sourceLabels: {app: never}, sourceNamespace: never, uri: {prefix: /both}}]
  route: [{destination: {host: reviews}}]
- name: rest
  route: [{destination: {host: reviews}}]
"""
EDGE = istio(
    "Gateway",
    "edge",
    "{selector: {istio: ingressgateway}, servers: [{port: {number: 9080, name: h, protocol: HTTP}, hosts: ['*']}]}",
)


@pytest.mark.parametrize(
    ("sentence", "proxy", "path", "rule"),
    [
        ("sourceLabels are the client's", sidecar(app="page"), "/", "labels"),
        ("other labels of the client do not matter", sidecar(app="page", v="1"), "/", "labels"),
        ("a label that the client lacks", sidecar(v="1"), "/", "rest"),
        ("sourceNamespace is the client's", sidecar("other"), "/", "namespace"),
        ("gateways of a match: a gateway only", gateway_proxy(), "/", "gateway"),
        ("with gateways, labels and namespace are not looked at", sidecar(), "/both", "both"),
    ],
)
def test_who_asks(sentence: str, proxy: Any, path: str, rule: str) -> None:
    world = mesh(REVIEWS, EDGE, istio("VirtualService", "v", MATCHES))
    url = "http://reviews.default.svc.cluster.local:9080" + path
    assert get(world, url, proxy).route == rule, sentence


def test_matches_of_an_entry_are_alternatives_in_order_and_routes_carry_their_names():
    spec = """
hosts: [reviews]
http:
- name: r
  match: [{name: a, uri: {prefix: /a}}, {name: b, uri: {prefix: /b}}]
  route: [{destination: {host: reviews}}]
- name: rest
  match: [{uri: {prefix: /}}]
  route: [{destination: {host: reviews}}]
- name: never
  match: [{uri: {prefix: /z}}]
  route: [{destination: {host: reviews}}]
"""
    world = mesh(REVIEWS, istio("VirtualService", "v", spec))
    names = [get(world, f"http://reviews:9080{path}").route for path in ("/a", "/b", "/c", "/z")]
    assert names == ["r.a", "r.b", "rest", "rest"]
    config = world.sidecar(sidecar()).route_configuration("9080")
    assert config is not None
    host = next(h for h in config.virtual_hosts if h.name.startswith("reviews"))
    assert [r.name for r in host.routes] == ["r.a", "r.b", "rest"]  # nothing after a route that takes everything
