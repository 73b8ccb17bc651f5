"""What VirtualServices do with a request: destinations, rewrites, redirects, answers, headers, data; delegates."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.routes.model import Forward
from tests.unit.mesh.objects import REVIEWS, gateway_proxy, get, istio, mesh, service, sidecar

TWO = service("two", "http:80", "http-b:81", ip="10.0.0.2")
ONE = service("one", "http:8000", ip="10.0.0.3")


def act(rule: str, url: str = "http://reviews:9080/", *objects: Any, **request: Any) -> Any:
    spec = f"hosts: [reviews]\nhttp:\n- {rule}\n"
    return get(mesh(REVIEWS, TWO, ONE, istio("VirtualService", "v", spec), *objects), url, **request)


def to(host: str, more: str = "") -> str:
    return f"{{destination: {{host: {host}{more}}}}}"


@pytest.mark.parametrize(
    ("sentence", "rule", "cluster"),
    [
        ("the port named", f"route: [{to('two.x', ', port: {number: 81}')}]", "outbound|81||two.x"),
        ("no port: the listener's", f"route: [{to('reviews')}]", "outbound|9080||reviews.default.svc.cluster.local"),
        ("one destination: its weight is ignored", "route: [{destination: {host: reviews}, weight: 0}]",
         "outbound|9080||reviews.default.svc.cluster.local"),
        ("a host with a dot is not expanded", f"route: [{to('reviews.other')}]", "outbound|9080||reviews.other"),
        ("a subset", f"route: [{to('reviews', ', subset: v1')}]", "outbound|9080|v1|reviews.default.svc.cluster.local"),
    ],
)  # fmt: skip
def test_destination(sentence: str, rule: str, cluster: str) -> None:
    assert act(rule).cluster == cluster, sentence


@pytest.mark.parametrize(
    ("random", "cluster"), [(0, "a"), (1, "a"), (2, "c"), (5, "c"), (6, "a")]
)  # weights 2, 0, 4 are relative; the one without weight gets nothing
def test_weights(random: int, cluster: str) -> None:
    rule = """route:
  - {destination: {host: a.ext}, weight: 2}
  - {destination: {host: b.ext}, weight: 0}
  - {destination: {host: c.ext}, weight: 4}"""
    found = act(rule, random_value=random)
    assert found.cluster == f"outbound|9080||{cluster}.ext"
    assert [weight for _, weight in found.clusters] == [2, 4]
    assert act(rule).cluster is None  # chance decides


@pytest.mark.parametrize(
    ("sentence", "rule", "url", "path", "authority"),
    [
        ("uri replaces the prefix", "rewrite: {uri: /b}", "/a/c?q", "/b/c?q", None),
        ("authority", "rewrite: {authority: x.com}", "/a", "/a", "x.com"),
        ("regular expression", "rewrite: {uriRegexRewrite: {match: '/a(.*)', rewrite: '/z\\1'}}", "/a/c", "/z/c", None),
        ("set :authority is a host rewrite", "headers: {request: {set: {':authority': y.com}}}", "/a", "/a", "y.com"),
        ("set Host is a host rewrite", "headers: {request: {set: {Host: y.com}}}", "/a", "/a", "y.com"),
    ],
)  # fmt: skip
def test_rewrite(sentence: str, rule: str, url: str, path: str, authority: str | None) -> None:
    found = act(f"match: [{{uri: {{prefix: /a}}}}]\n  {rule}\n  route: [{to('reviews')}]", "http://reviews:9080" + url)
    assert (found.path, found.authority) == (path, authority or "reviews:9080"), sentence


def test_a_rewrite_of_an_exact_match_replaces_the_whole_path():
    rule = f"match: [{{uri: {{exact: /a}}}}]\n  rewrite: {{uri: /b}}\n  route: [{to('reviews')}]"
    assert act(rule, "http://reviews:9080/a?q").path == "/b?q"


@pytest.mark.parametrize(
    ("redirect", "location", "status"),
    [
        ("{uri: /b}", "http://reviews:9080/b", 301),
        ("{authority: x.com}", "http://x.com/a?q", 301),
        ("{scheme: https, redirectCode: 308}", "https://reviews:9080/a?q", 308),
        ("{port: 8443}", "http://reviews:8443/a?q", 301),
        ("{authority: x.com, derivePort: FROM_REQUEST_PORT}", "http://x.com:9080/a?q", 301),
        ("{authority: x.com, derivePort: FROM_PROTOCOL_DEFAULT}", "http://x.com/a?q", 301),
        ("{authority: x.com, port: 80}", "http://x.com/a?q", 301),
        ("{authority: x.com, scheme: https, port: 443}", "https://x.com/a?q", 301),
        ("{authority: x.com, scheme: https, port: 80}", "https://x.com:80/a?q", 301),
        ("{uriPrefix: /z}", "http://reviews:9080/z?q", 301),
        ("{uriRegexRewrite: {match: a, rewrite: b}, redirectCode: 302}", "http://reviews:9080/b?q", 302),
    ],
)
def test_redirect(redirect: str, location: str, status: int) -> None:
    path = "http://reviews:9080/a" + ("" if "uri: " in redirect else "?q")
    found = act(f"match: [{{uri: {{prefix: /a}}}}]\n  redirect: {redirect}", path)
    assert (found.action, found.location, found.status) == ("redirect", location, status)


def test_direct_responses_and_data_on_the_way():
    assert act("directResponse: {status: 418, body: {string: tea}}").status == 418
    rule = f"""timeout: 2s
  retries: {{attempts: 3, perTryTimeout: 1s, retryOn: 5xx}}
  fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 5}}}}, abort: {{httpStatus: 500}}}}
  mirrors:
  - {{destination: {{host: one}}, percentage: {{value: 50}}}}
  - {{destination: {{host: two}}, percentage: {{value: 0}}}}
  corsPolicy: {{allowOrigins: [{{exact: "*"}}], maxAge: 24h}}
  route: [{to("reviews")}]"""
    settings = act(rule).settings
    assert settings["timeout"] == "2s"
    assert settings["retries"]["attempts"] == 3
    assert settings["fault"]["abort"] == {"httpStatus": 500}
    assert settings["mirrors"] == [{"cluster": "outbound|9080||one.default.svc.cluster.local", "percentage": 50.0}]
    assert settings["corsPolicy"]["maxAge"] == "24h"
    assert act(f"route: [{to('reviews')}]").settings == {"retries": {"attempts": 2}}  # the mesh's default


def test_header_operations_of_route_and_destination_become_edits():
    rule = """headers: {request: {set: {a: '1'}, add: {b: '2'}, remove: [c]}, response: {remove: [server]}}
  route: [{destination: {host: reviews}, headers: {request: {add: {d: '4'}}}}]"""
    world = mesh(REVIEWS, istio("VirtualService", "v", f"hosts: [reviews]\nhttp:\n- {rule}\n"))
    config = world.sidecar(sidecar()).route_configuration("9080")
    assert config is not None
    route = config.virtual_hosts[-2].routes[0]
    assert [(e.name, e.value, e.append) for e in route.edits.add] == [
        (b"a", "1", "OVERWRITE_IF_EXISTS_OR_ADD"),
        (b"b", "2", "APPEND_IF_EXISTS_OR_ADD"),
        (b"d", "4", "APPEND_IF_EXISTS_OR_ADD"),
    ]
    assert (route.edits.remove, route.response_edits.remove) == ((b"c",), (b"server",))


def test_consistent_hash_of_the_destination_rule_hashes_the_route():
    rule = istio(
        "DestinationRule", "d", "{host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}}}"
    )
    world = mesh(REVIEWS, rule)
    config = world.sidecar(sidecar()).route_configuration("9080")
    assert config is not None
    action = config.virtual_hosts[-2].routes[0].action
    assert isinstance(action, Forward)
    assert len(action.hash_policy) == 1


# --- clusters that do not exist


@pytest.mark.parametrize(
    ("sentence", "destination", "reason"),
    [
        ("a subset nobody defines", "{host: reviews, subset: v9}", "no DestinationRule defines subset v9"),
        ("a port that the service lacks", "{host: reviews, port: {number: 1}}", "has no port 1"),
        ("a service that is not exported here", "{host: hidden.default.svc.cluster.local}", "not visible"),
    ],
)
def test_a_cluster_that_does_not_exist_answers_503(sentence: str, destination: str, reason: str) -> None:
    hidden = service("hidden", "http:9080", ip="10.0.0.9")
    hidden["metadata"]["annotations"] = {"networking.istio.io/exportTo": "~"}
    found = act(f"route: [{{destination: {destination}}}]", "http://reviews:9080/", hidden)
    assert found.status == 503, sentence
    assert reason in found.reason


def test_a_destination_that_nobody_defines_is_a_finding_and_not_judged():
    world = mesh(
        REVIEWS, istio("VirtualService", "v", "{hosts: [reviews], http: [{route: [{destination: {host: x.y}}]}]}")
    )
    assert [f.code for f in world.findings] == ["unknown-host"]
    assert get(world, "http://reviews:9080/").status is None


# --- delegates


ROOT = """
hosts: [reviews]
http:
- name: root
  match: [{uri: {prefix: /a}, headers: {h: {exact: '1'}}}]
  timeout: 1s
  delegate: {name: d, namespace: other}
- name: rest
  route: [{destination: {host: reviews}}]
"""


@pytest.mark.parametrize(
    ("sentence", "match", "path", "headers", "route"),
    [
        ("a longer prefix within the root's", "{uri: {prefix: /a/b}}", "/a/b", {"h": "1"}, "root-d"),
        ("missing parts come from the root", "{uri: {prefix: /a/b}}", "/a/b", {}, "rest"),
        ("an exact path within the root's prefix", "{uri: {exact: /a/c}}", "/a/c", {"h": "1"}, "root-d"),
        ("a prefix outside of it drops the rule", "{uri: {prefix: /c}}", "/c", {"h": "1"}, "rest"),
        ("an equal header text is no conflict", "{headers: {h: {exact: '1'}}}", "/a", {"h": "1"}, "root-d"),
        ("another header text is one", "{headers: {h: {exact: '2'}}}", "/a", {"h": "2"}, "rest"),
        ("a prefix under an exact text is one", "{headers: {h: {prefix: '1'}}}", "/a", {"h": "1"}, "rest"),
        ("another header is added", "{headers: {g: {exact: x}}}", "/a", {"h": "1", "g": "x"}, "root-d"),
        ("ignoreUriCase that differs", "{uri: {prefix: /a/b}, ignoreUriCase: true}", "/a/b", {"h": "1"}, "rest"),
        ("another port is added", "{port: 9080}", "/a", {"h": "1"}, "root-d"),
    ],
)  # fmt: skip
def test_delegate(sentence: str, match: str, path: str, headers: dict[str, str], route: str) -> None:
    below = f"{{http: [{{name: d, match: [{match}], route: [{{destination: {{host: a.b}}}}]}}]}}"
    world = mesh(REVIEWS, istio("VirtualService", "v", ROOT), istio("VirtualService", "d", below, "other"))
    found = get(world, f"http://reviews:9080{path}", headers=headers)
    assert found.route == route, sentence
    if route == "root-d":
        assert found.settings["timeout"] == "1s"  # the root's, where the delegate says nothing
        assert "VirtualService other/d" in str(found.source)


@pytest.mark.parametrize(
    ("sentence", "root", "below"),
    [
        ("sourceNamespace of the root must be the delegate's", "{sourceNamespace: default}", "{uri: {prefix: /}}"),
        ("a shared label with another value", "{sourceLabels: {a: '1'}}", "{sourceLabels: {a: '2'}}"),
        ("ports that differ", "{port: 9080}", "{port: 80}"),
        ("gateways of the delegate beyond the root's", "{gateways: [mesh]}", "{gateways: [x/y]}"),
        ("query parameters that differ", "{queryParams: {q: {exact: a}}}", "{queryParams: {q: {exact: b}}}"),
        ("headers to be absent that differ", "{withoutHeaders: {q: {exact: a}}}", "{withoutHeaders: {q: {exact: b}}}"),
    ],
)
def test_delegate_conflicts(sentence: str, root: str, below: str) -> None:
    world = mesh(
        REVIEWS,
        istio("VirtualService", "v", f"{{hosts: [reviews], http: [{{match: [{root}], delegate: {{name: d}}}}]}}"),
        istio("VirtualService", "d", f"{{http: [{{match: [{below}], route: [{{destination: {{host: reviews}}}}]}}]}}"),
    )
    assert [f.code for f in world.findings] == ["delegate-conflict"], sentence


def test_delegates_that_are_missing_hidden_or_unused_are_found():
    root = "{hosts: [reviews], http: [{delegate: {name: %s}}, {route: [{destination: {host: reviews}}]}]}"
    plain = "{exportTo: %s, http: [{route: [{destination: {host: reviews}}]}]}"
    world = mesh(REVIEWS, istio("VirtualService", "v", root % "none"), istio("VirtualService", "d", plain % "['*']"))
    assert [f.code for f in world.findings] == ["unused-delegate", "delegate-not-found"]
    root = "{hosts: [reviews], http: [{delegate: {name: d, namespace: other}}]}"
    hidden = istio("VirtualService", "d", plain % "['.']", "other")
    world = mesh(REVIEWS, istio("VirtualService", "v", root), hidden)
    assert "delegate-not-exported" in [f.code for f in world.findings]


def test_a_gateway_redirect_takes_the_servers_port_and_scheme():
    edge = "{selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: s, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: c}}]}"  # noqa: E501
    rule = "{hosts: [a.com], gateways: [edge], http: [{redirect: {authority: b.com, derivePort: FROM_REQUEST_PORT}}]}"
    world = mesh(istio("Gateway", "edge", edge), istio("VirtualService", "v", rule))
    found = get(world, "https://a.com/x", gateway_proxy())
    assert found.location == "https://b.com/x"  # 443 is https's own port, so it is not written
