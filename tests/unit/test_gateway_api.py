"""Gateway API as sentences: attachment, host names, precedence, filters, statuses, mesh, TLS and TCP."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.errors import PolicyError, UsageError
from meshsieve.mesh.gateway_api import ENVOY_GATEWAY, ISTIO, STANDARD, Dialect, GatewayApi, dialect_of
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request
from meshsieve.routes import Match, from_kubernetes

GROUP = "gateway.networking.k8s.io/v1"


def thing(kind: str, name: str, spec: dict[str, Any] | None, namespace: str = "default", **metadata: Any) -> Any:
    version = "v1" if kind in ("Service", "Namespace") else GROUP
    found = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace, **metadata}}
    return found if spec is None else {**found, "spec": spec}


def gateway(*listeners: dict[str, Any], name: str = "front", **spec: Any) -> Any:
    return thing("Gateway", name, {"gatewayClassName": "any", "listeners": list(listeners), **spec})


def listener(name: str = "web", port: int = 80, protocol: str = "HTTP", **more: Any) -> dict[str, Any]:
    return {"name": name, "port": port, "protocol": protocol, **more}


def route(name: str, *rules: Any, kind: str = "HTTPRoute", namespace: str = "default", **more: Any) -> Any:
    created = {"creationTimestamp": more.pop("created")} if "created" in more else {}
    spec = {"parentRefs": [{"name": "front", "namespace": "default"}], "rules": list(rules), **more}
    return thing(kind, name, spec, namespace, **created)


def to(backend: str, *matches: Any, **more: Any) -> dict[str, Any]:
    rule = {"backendRefs": [{"name": backend, "port": 80}], **more}
    return {**rule, "matches": list(matches)} if matches else rule


def prefix(value: str, **more: Any) -> dict[str, Any]:
    return {"path": {"type": "PathPrefix", "value": value}, **more}


def exact(value: str, **more: Any) -> dict[str, Any]:
    return {"path": {"type": "Exact", "value": value}, **more}


def cluster(*objects: Any, dialect: Dialect = STANDARD) -> GatewayApi:
    return GatewayApi(read_objects(list(objects)), dialect)


def ask(api: GatewayApi, url: str = "a.example/", *, listener: str | None = None, **more: Any) -> Match:
    host, slash, path = url.partition("/")
    request = Request(authority=host, path=slash + path or "/", **more)
    return api.match(request, gateway="default/front", listener=listener)


def taken(found: Match) -> str | int | None:
    """The Service that takes it, or the status."""
    if found.cluster is not None:
        return found.cluster.partition("/")[2].partition(":")[0]
    return found.status if found.status is not None else found.action


# --- precedence

PRECEDENCE = [
    ("exact before prefix", exact("/a"), prefix("/a"), "/a"),
    ("the longer prefix", prefix("/a/b"), prefix("/a"), "/a/b/c"),
    ("a method before none", prefix("/a", method="GET"), prefix("/a"), "/a"),
    (
        "more headers",
        prefix("/a", headers=[{"name": "x", "value": "1"}, {"name": "y", "value": "1"}]),
        prefix("/a", headers=[{"name": "x", "value": "1"}]),
        "/a",
    ),
    (
        "a header before a query parameter",
        prefix("/a", headers=[{"name": "x", "value": "1"}]),
        prefix("/a", queryParams=[{"name": "q", "value": "1"}]),
        "/a?q=1",
    ),
    ("a query parameter before none", prefix("/a", queryParams=[{"name": "q", "value": "1"}]), prefix("/a"), "/a?q=1"),
    ("a longer path before a method", prefix("/a/b"), prefix("/a", method="GET"), "/a/b"),
]


@pytest.mark.parametrize(("sentence", "winner", "loser", "path"), PRECEDENCE, ids=[p[0] for p in PRECEDENCE])
def test_the_better_match_wins_wherever_it_stands(sentence, winner, loser, path):
    headers = (("x", "1"), ("y", "1"))
    for first, second in ((to("good", winner), to("bad", loser)), (to("bad", loser), to("good", winner))):
        api = cluster(gateway(listener()), route("r", first, second))
        assert taken(ask(api, f"a.example{path}", headers=headers)) == "good"


def test_ties_go_to_the_older_then_by_namespace_and_name_then_by_position():
    everywhere = {"allowedRoutes": {"namespaces": {"from": "All"}}}
    young = route("a", to("young"), created="2026-02-01T00:00:00Z")
    old = route("b", to("old"), to("second"), created="2026-01-01T00:00:00Z")
    assert taken(ask(cluster(gateway(listener()), young, old))) == "old"
    api = cluster(gateway(listener(**everywhere)), route("z", to("az"), namespace="a"), route("a", to("b-a")))
    assert taken(ask(api)) == "az"


def test_a_regular_expression_stands_where_the_dialect_puts_it():
    rules = to("regex", {"path": {"type": "RegularExpression", "value": "/a.*"}}), to("prefix", prefix("/a"))
    objects = gateway(listener()), route("r", *rules)
    assert taken(ask(cluster(*objects), "h/a")) == "regex"
    assert taken(ask(cluster(*objects, dialect=ISTIO), "h/a")) == "prefix"


# --- path, header and query matches

MATCHES = [
    (exact("/a"), "/a/", (), False),
    (exact("/a"), "/A", (), False),
    (prefix("/v2"), "/v2/x", (), True),
    (prefix("/v2/"), "/v2", (), True),
    (prefix("/v2"), "/v2example", (), False),
    (prefix("/"), "/anything", (), True),
    ({"path": {"type": "RegularExpression", "value": "/a[0-9]"}}, "/a1x", (), False),
    ({"headers": [{"name": "X-Kind", "value": "a"}]}, "/", (("x-kind", "a"),), True),
    ({"headers": [{"name": "x", "value": "a"}, {"name": "X", "value": "b"}]}, "/", (("x", "a"),), True),
    ({"headers": [{"name": "x", "type": "RegularExpression", "value": "a|b"}]}, "/", (("x", "b"),), True),
    ({"queryParams": [{"name": "q", "value": "1"}]}, "/?Q=1", (), False),
    ({"queryParams": [{"name": "q", "value": "1"}, {"name": "q", "value": "2"}]}, "/?q=1", (), True),
    ({"queryParams": [{"name": "q", "value": "1"}]}, "/?q=2&q=1", (), False),
    ({"method": "POST"}, "/", (), False),
]


@pytest.mark.parametrize(("match", "path", "headers", "fits"), MATCHES)
def test_what_a_match_takes(match, path, headers, fits):
    api = cluster(gateway(listener()), route("r", to("web", match)))
    assert taken(ask(api, f"h{path}", headers=headers)) == ("web" if fits else 404)


# --- host names and listeners


def test_a_request_goes_to_the_most_specific_listener_and_no_further():
    api = cluster(
        gateway(
            listener("any"),
            listener("wild", hostname="*.example.com"),
            listener("deep", hostname="*.foo.example.com"),
            listener("one", hostname="abc.foo.example.com"),
        ),
        route("any", to("any", prefix("/any")), parentRefs=[{"name": "front", "sectionName": "any"}]),
        route("wild", to("wild", prefix("/wild")), parentRefs=[{"name": "front", "sectionName": "wild"}]),
        route("one", to("one", prefix("/one")), parentRefs=[{"name": "front", "sectionName": "one"}]),
    )
    assert taken(ask(api, "abc.foo.example.com/one")) == "one"
    assert taken(ask(api, "ABC.foo.example.com:8080/one")) == "one"
    assert taken(ask(api, "abc.foo.example.com/wild")) == 404
    assert taken(ask(api, "x.foo.example.com/wild")) == 404  # the listener "deep" has no routes
    assert taken(ask(api, "a.b.example.com/wild")) == "wild"
    assert taken(ask(api, "example.com/wild")) == 404
    assert taken(ask(api, "example.com/any")) == "any"


def test_a_route_serves_only_names_that_its_listener_has_too():
    api = cluster(
        gateway(listener(hostname="*.example.com")),
        route("r", to("web"), hostnames=["a.example.com", "b.test", "*.com"]),
    )
    assert taken(ask(api, "a.example.com")) == "web"
    assert taken(ask(api, "z.example.com")) == "web"  # *.com and *.example.com meet in the latter
    assert taken(ask(api, "b.test")) == 404


def test_a_specific_host_name_does_not_fall_through_unless_the_dialect_says_so():
    objects = (
        gateway(listener()),
        route("narrow", to("narrow", prefix("/n")), hostnames=["a.x.com"]),
        route("wide", to("wide"), hostnames=["*.x.com"]),
    )
    assert taken(ask(cluster(*objects), "a.x.com/other")) == 404
    assert taken(ask(cluster(*objects, dialect=Dialect(fall_through=True)), "a.x.com/other")) == "wide"
    assert taken(ask(cluster(*objects, dialect=Dialect(fall_through=True)), "a.x.com/n")) == "narrow"


HTTPS = {"protocol": "HTTPS", "port": 443}
MISDIRECTED = [
    ("example.org", "example.org", "v1"),
    ("example.org", "second.org", 421),
    ("example.org", "unknown.org", 404),
    ("second.org", "second.org", "v2"),
    ("second.org", "example.org", 421),
    ("second.org", "other.wild.org", 421),
    ("a.wild.org", "b.wild.org", "v3"),
    ("a.wild.org", "fourth.wild.org", 421),
    ("fourth.wild.org", "fourth.wild.org", "v4"),
    ("fourth.wild.org", "a.wild.org", 421),
]


@pytest.mark.parametrize(("sni", "host", "answer"), MISDIRECTED)
def test_a_host_of_another_listener_is_misdirected(sni, host, answer):
    names = {"any": None, "second": "second.org", "wild": "*.wild.org", "fourth": "fourth.wild.org"}
    listeners = [listener(n, **HTTPS, **({"hostname": h} if h else {})) for n, h in names.items()]
    parents = {n: [{"name": "front", "sectionName": n}] for n in names}
    api = cluster(
        gateway(*listeners),
        route("r1", to("v1"), parentRefs=parents["any"], hostnames=["example.org"]),
        *(route(f"r{i}", to(f"v{i}"), parentRefs=parents[n]) for i, n in ((2, "second"), (3, "wild"), (4, "fourth"))),
    )
    assert taken(ask(api, host, sni=sni)) == answer


# --- attachment and status


def status(api: GatewayApi, name: str = "r") -> tuple[str, str]:
    found = next(s for s in api.statuses if s.route.name == name)
    return found.accepted.reason, found.resolved.reason


ATTACHMENT = [
    (
        "by default routes of the Gateway's namespace only",
        listener(),
        route("r", to("b"), namespace="x"),
        "NotAllowedByListeners",
    ),
    (
        "all namespaces where the listener says so",
        listener(allowedRoutes={"namespaces": {"from": "All"}}),
        route("r", to("b"), namespace="x"),
        "Accepted",
    ),
    (
        "namespaces by label",
        listener(
            allowedRoutes={
                "namespaces": {
                    "from": "Selector",
                    "selector": {"matchLabels": {"kubernetes.io/metadata.name": "x"}},
                }
            }
        ),
        route("r", to("b"), namespace="x"),
        "Accepted",
    ),
    (
        "a section that is not there",
        listener(),
        route("r", parentRefs=[{"name": "front", "sectionName": "no"}]),
        "NoMatchingParent",
    ),
    (
        "a port that is not there",
        listener(),
        route("r", parentRefs=[{"name": "front", "port": 81}]),
        "NoMatchingParent",
    ),
    (
        "host names that do not meet",
        listener(hostname="a.com"),
        route("r", to("b"), hostnames=["b.com"]),
        "NoMatchingListenerHostname",
    ),
    (
        "a kind that the protocol cannot carry",
        listener(),
        route("r", to("b"), kind="TCPRoute"),
        "NotAllowedByListeners",
    ),
    (
        "a kind that the listener leaves out",
        listener(allowedRoutes={"kinds": [{"kind": "GRPCRoute"}]}),
        route("r", to("b")),
        "NotAllowedByListeners",
    ),
    (
        "no rule that can be carried out",
        listener(),
        route("r", to("b", {"path": {"type": "RegularExpression", "value": "["}})),
        "UnsupportedValue",
    ),
]


@pytest.mark.parametrize(("sentence", "at", "given", "reason"), ATTACHMENT, ids=[a[0] for a in ATTACHMENT])
def test_why_a_route_is_accepted_or_not(sentence, at, given, reason):
    api = cluster(gateway(at), given)
    assert status(api)[0] == reason
    assert (ask(api).cluster is not None) == (reason == "Accepted")


def test_two_kinds_never_share_a_host_name_on_a_listener():
    http = route("h", to("http"), hostnames=["*.x.com"], created="2026-01-02T00:00:00Z")
    grpc = route("g", to("grpc"), kind="GRPCRoute", hostnames=["a.x.com"], created="2026-01-01T00:00:00Z")
    api = cluster(gateway(listener()), http, grpc)
    assert (status(api, "g")[0], status(api, "h")[0]) == ("Accepted", "HostnameConflict")
    assert taken(ask(api, "a.x.com")) == "grpc"
    assert taken(ask(api, "b.x.com")) == 404
    merged = cluster(gateway(listener()), http, grpc, dialect=ENVOY_GATEWAY)
    assert (status(merged, "g")[0], status(merged, "h")[0]) == ("Accepted", "Accepted")


LISTENER_CONFLICTS = [
    ("one host name twice", listener("a", hostname="x.com"), listener("b", hostname="x.com"), "HostnameConflict"),
    ("different names", listener("a", hostname="x.com"), listener("b", hostname="y.com"), "Accepted"),
    ("HTTP and HTTPS on one port", listener("a"), listener("b", protocol="HTTPS"), "ProtocolConflict"),
    (
        "HTTPS and TLS, told apart by SNI",
        listener("a", 443, "HTTPS", hostname="x.com"),
        listener("b", 443, "TLS", hostname="y.com"),
        "Accepted",
    ),
    ("TCP twice", listener("a", 90, "TCP"), listener("b", 90, "TCP"), "HostnameConflict"),
    ("TCP and UDP", listener("a", 90, "TCP"), listener("b", 90, "UDP"), "Accepted"),
    ("a protocol that no one knows", listener("a"), listener("b", 81, "QUIC"), "UnsupportedProtocol"),
]


@pytest.mark.parametrize(
    ("sentence", "first", "second", "reason"), LISTENER_CONFLICTS, ids=[c[0] for c in LISTENER_CONFLICTS]
)
def test_which_listeners_can_stand_beside_each_other(sentence, first, second, reason):
    api = cluster(gateway(first, second))
    assert [li.accepted.reason for li in api.listeners] == ["Accepted", reason]


def test_listener_sets_add_listeners_only_where_the_gateway_lets_them():
    own_set = thing("ListenerSet", "more", {"parentRef": {"name": "front"}, "listeners": [listener("set", 81)]})
    parent = [{"kind": "ListenerSet", "name": "more"}]
    for allowed, answer in ((None, "closed"), ({"namespaces": {"from": "Same"}}, "set")):
        extra = {"allowedListeners": allowed} if allowed else {}
        api = cluster(
            gateway(listener(), **extra), own_set, route("r", to("set"), parentRefs=parent), route("own", to("own"))
        )
        assert taken(ask(api, destination_port=81)) == answer
        assert taken(ask(api, destination_port=80)) == "own"


def test_listener_sets_of_the_experimental_group_are_parents_too():
    group = "gateway.networking.x-k8s.io"
    more = thing("XListenerSet", "more", {"parentRef": {"name": "front"}, "listeners": [listener("set", 81)]})
    more["apiVersion"] = f"{group}/v1alpha1"
    taker = route("r", to("set"), parentRefs=[{"group": group, "kind": "XListenerSet", "name": "more"}])
    api = cluster(gateway(listener(), allowedListeners={"namespaces": {"from": "All"}}), more, taker)
    assert (status(api)[0], taken(ask(api, destination_port=81))) == ("Accepted", "set")


def test_a_listener_that_cannot_use_its_certificate_takes_no_traffic():
    tls = {"certificateRefs": [{"name": "cert", "namespace": "certs"}]}
    objects = gateway(listener(protocol="HTTPS", port=443, tls=tls)), route("r", to("web"))
    grant = thing(
        "ReferenceGrant",
        "g",
        {
            "from": [{"group": GROUP[:-3], "kind": "Gateway", "namespace": "default"}],
            "to": [{"group": "", "kind": "Secret"}],
        },
        "certs",
    )
    assert taken(ask(cluster(*objects), sni="a.example")) == "closed"
    assert cluster(*objects).listeners[0].resolved.reason == "RefNotPermitted"
    assert taken(ask(cluster(*objects, grant), sni="a.example")) == "web"


def test_kinds_that_a_listener_cannot_take_keep_out_routes_not_requests():
    kinds = [{"kind": "TCPRoute"}, {"kind": "HTTPRoute"}]
    api = cluster(gateway(listener(allowedRoutes={"kinds": kinds})), route("r", to("web")))
    assert api.listeners[0].resolved.reason == "InvalidRouteKinds"
    assert taken(ask(api)) == "web"


def test_a_parent_that_is_not_here_gets_no_status():
    assert cluster(gateway(listener()), route("r", parentRefs=[{"name": "elsewhere"}])).statuses == ()


# --- backends

SERVICES = [thing("Service", name, {"ports": [{"port": 80}]}) for name in ("a", "b")]
BACKENDS = [
    ("a Service that is there", {"name": "a", "port": 80}, "ResolvedRefs", "a"),
    ("one that is not", {"name": "no", "port": 80}, "BackendNotFound", 500),
    ("a port that it lacks", {"name": "a", "port": 81}, "PortNotFound", 500),
    ("no port", {"name": "a"}, "PortNotSpecified", 500),
    ("a kind that is no backend", {"group": "x.io", "kind": "Bucket", "name": "a", "port": 80}, "InvalidKind", 500),
    ("another namespace without a grant", {"name": "a", "namespace": "x", "port": 80}, "RefNotPermitted", 500),
    ("no weight at all", {"name": "a", "port": 80, "weight": 0}, "ResolvedRefs", 500),
]


@pytest.mark.parametrize(("sentence", "backend", "reason", "answer"), BACKENDS, ids=[b[0] for b in BACKENDS])
def test_what_becomes_of_a_backend(sentence, backend, reason, answer):
    api = cluster(gateway(listener()), *SERVICES, route("r", {"backendRefs": [backend]}))
    assert (status(api)[1], taken(ask(api))) == (reason, answer)


def test_a_rule_without_backends_is_500_and_a_share_that_cannot_be_used_too():
    assert taken(ask(cluster(gateway(listener()), route("r", {})))) == 500
    backends = [{"name": "a", "port": 80, "weight": 3}, {"name": "no", "port": 80, "weight": 1}]
    api = cluster(gateway(listener()), *SERVICES, route("r", {"backendRefs": backends}))
    assert [taken(ask(api, random_value=n)) for n in range(4)] == ["a", "a", "a", 500]


GRANTS = [
    ("the namespace and kind", {"kind": "HTTPRoute", "namespace": "default"}, {"kind": "Service"}, "a"),
    ("this Service", {"kind": "HTTPRoute", "namespace": "default"}, {"kind": "Service", "name": "a"}, "a"),
    ("another Service", {"kind": "HTTPRoute", "namespace": "default"}, {"kind": "Service", "name": "b"}, 500),
    ("another kind", {"kind": "GRPCRoute", "namespace": "default"}, {"kind": "Service"}, 500),
    ("another namespace", {"kind": "HTTPRoute", "namespace": "y"}, {"kind": "Service"}, 500),
    ("another target", {"kind": "HTTPRoute", "namespace": "default"}, {"kind": "Secret"}, 500),
]


@pytest.mark.parametrize(("sentence", "source", "target", "answer"), GRANTS, ids=[g[0] for g in GRANTS])
def test_a_grant_names_who_may_refer_to_what(sentence, source, target, answer):
    grant = thing(
        "ReferenceGrant", "g", {"from": [{"group": GROUP[:-3], **source}], "to": [{"group": "", **target}]}, "x"
    )
    service = thing("Service", "a", {"ports": [{"port": 80}]}, "x")
    rule = {"backendRefs": [{"name": "a", "namespace": "x", "port": 80}]}
    assert taken(ask(cluster(gateway(listener()), service, grant, route("r", rule)))) == answer


# --- filters

# Gateway API's table of ReplacePrefixMatch, and Location ports.
REWRITES = [
    ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
    ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
    ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
    ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
    ("/foo", "/xyz", "/foo", "/xyz"),
    ("/foo", "/xyz", "/foo/", "/xyz/"),
    ("/foo", "", "/foo/bar", "/bar"),
    ("/foo", "", "/foo/", "/"),
    ("/foo", "", "/foo", "/"),
    ("/foo", "/", "/foo/", "/"),
    ("/foo", "/", "/foo", "/"),
    ("/", "/xyz", "/a", "/xyz/a"),
    ("/a.b", "/", "/a.b/c?q=1", "/c?q=1"),
]


@pytest.mark.parametrize(("match", "replacement", "path", "sent"), REWRITES)
def test_a_prefix_is_replaced_by_whole_elements(match, replacement, path, sent):
    change = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": replacement}}
    rewrite = [{"type": "URLRewrite", "urlRewrite": change}]
    redirect = [{"type": "RequestRedirect", "requestRedirect": change}]
    api = cluster(gateway(listener()), route("r", to("b", prefix(match), filters=rewrite)))
    assert ask(api, f"h{path}").path == sent
    api = cluster(gateway(listener()), route("r", {"matches": [prefix(match)], "filters": redirect}))
    assert ask(api, f"h{path}").location == f"http://h{sent}"


REDIRECTS = [
    (80, {}, "h:80", "http://h/p?q"),
    (8080, {}, "h:8080", "http://h:8080/p?q"),
    (8080, {}, "h", "http://h:8080/p?q"),
    (8080, {"scheme": "https"}, "h:8080", "https://h/p?q"),
    (80, {"scheme": "https", "port": 8443}, "h", "https://h:8443/p?q"),
    (80, {"scheme": "https", "port": 443}, "h", "https://h/p?q"),
    (80, {"port": 81, "hostname": "other.com"}, "h:80", "http://other.com:81/p?q"),
    (80, {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"}}, "h", "http://h/new?q"),
]


@pytest.mark.parametrize(("port", "redirect", "host", "location"), REDIRECTS)
def test_where_a_redirect_points(port, redirect, host, location):
    filters = [{"type": "RequestRedirect", "requestRedirect": redirect}]
    api = cluster(gateway(listener(port=port)), route("r", {"filters": filters}))
    found = ask(api, f"{host}/p?q")
    assert (found.status, found.location) == (302, location)


def test_filters_of_a_backend_act_on_its_share_alone():
    moved = {"type": "RequestRedirect", "requestRedirect": {"hostname": "moved.com", "statusCode": 301}}
    renamed = {"type": "URLRewrite", "urlRewrite": {"hostname": "renamed.com"}}
    backends = [
        {"name": "a", "port": 80},
        {"name": "b", "port": 80, "filters": [moved]},
        {"name": "c", "port": 80, "filters": [renamed]},
    ]
    api = cluster(gateway(listener()), route("r", {"backendRefs": backends}))
    found = [ask(api, "h/", random_value=n) for n in range(3)]
    assert [(f.action, f.cluster, f.authority) for f in found] == [
        ("route", "default/a:80", "h"),
        ("redirect", None, None),
        ("route", "default/c:80", "renamed.com"),
    ]
    assert found[1].location == "http://moved.com/"


PROBLEMS = [
    ("two rewrites", [{"type": "URLRewrite", "urlRewrite": {}}] * 2),
    (
        "a rewrite and a redirect",
        [{"type": "URLRewrite", "urlRewrite": {}}, {"type": "RequestRedirect", "requestRedirect": {}}],
    ),
    ("the Host header", [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Host"]}}]),
    (
        "an empty value",
        [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": ""}]}}],
    ),
    ("an extension", [{"type": "ExtensionRef", "extensionRef": {"group": "x.io", "kind": "Plugin", "name": "p"}}]),
    (
        "a prefix to replace without a prefix match",
        [{"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}],
    ),
]


@pytest.mark.parametrize(("sentence", "filters"), PROBLEMS, ids=[p[0] for p in PROBLEMS])
def test_filters_that_cannot_be_carried_out_are_500_never_skipped(sentence, filters):
    api = cluster(gateway(listener()), route("r", to("b", exact("/"), filters=filters)))
    assert (status(api)[0], taken(ask(api))) == ("UnsupportedValue", 500)


def test_a_mirror_that_is_not_there_is_left_out_or_refused():
    mirror = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "no", "port": 80}}}]
    objects = gateway(listener()), *SERVICES, route("r", to("a", filters=mirror))
    assert (status(cluster(*objects))[1], taken(ask(cluster(*objects)))) == ("BackendNotFound", "a")
    assert taken(ask(cluster(*objects, dialect=ENVOY_GATEWAY))) == 500


def test_settings_are_carried_as_data():
    rule = to("b", timeouts={"request": "5s"}, retry={"attempts": 2})
    found = ask(cluster(gateway(listener()), route("r", rule)))
    assert found.settings == {"timeouts": {"request": "5s"}, "retry": {"attempts": 2}}


# --- gRPC


def grpc_call(api: GatewayApi, path: str) -> str | int | None:
    return taken(ask(api, f"h{path}", method="POST", headers=(("content-type", "application/grpc"),)))


def test_grpc_methods_and_their_precedence():
    rules = [
        to("any"),
        to("method", {"method": {"method": "Get"}}),
        to("service", {"method": {"service": "a.B"}}),
        to("both", {"method": {"service": "a.B", "method": "Get"}}),
        to("regex", {"method": {"type": "RegularExpression", "service": "a\\.[CD]", "method": "G.*"}}),
    ]
    api = cluster(gateway(listener()), route("r", *rules, kind="GRPCRoute"))
    paths = {"/a.B/Get": "both", "/a.B/Put": "service", "/z.Z/Get": "method", "/z.Z/Put": "any", "/a.C/Go": "regex"}
    assert {path: grpc_call(api, path) for path in paths} == paths


def test_no_grpc_route_is_unimplemented_over_http_200():
    api = cluster(gateway(listener()), route("r", to("b", {"method": {"service": "a.B"}}), kind="GRPCRoute"))
    assert grpc_call(api, "/a.C/Get") == 200


# --- TLS, TCP, UDP


def test_tls_routes_are_chosen_by_server_name():
    api = cluster(
        gateway(listener(protocol="TLS", port=443, hostname="*.example.com", tls={"mode": "Passthrough"})),
        route("exact", to("exact"), kind="TLSRoute", hostnames=["a.example.com"]),
        route("wide", to("wide"), to("never"), kind="TLSRoute", hostnames=["*.com"]),
    )
    answers = {"a.example.com": "exact", "A.EXAMPLE.com": "exact", "b.c.example.com": "wide", "example.com": "closed"}
    assert {sni: taken(ask(api, sni=sni)) for sni in answers} == answers
    assert taken(ask(api)) == "closed"  # no server name


def test_a_tcp_listener_has_the_oldest_route_and_its_weights():
    backends = [{"name": "a", "port": 9, "weight": 1}, {"name": "b", "port": 9, "weight": 0}]
    old = route("old", {"backendRefs": backends}, kind="TCPRoute", created="2026-01-01T00:00:00Z")
    young = route("new", to("young"), kind="TCPRoute", created="2026-02-01T00:00:00Z")
    api = cluster(gateway(listener(protocol="TCP")), young, old)
    found = ask(api, random_value=7)
    assert (found.action, found.cluster) == ("tcp", "default/a:9")
    closed = cluster(gateway(listener(protocol="TCP")), *SERVICES, route("r", to("no"), kind="TCPRoute"))
    assert taken(ask(closed)) == "closed"


def test_udp_and_tcp_share_a_port_number():
    api = cluster(
        gateway(listener("t", protocol="TCP"), listener("u", protocol="UDP")),
        route("t", to("tcp"), kind="TCPRoute"),
        route("u", to("udp"), kind="UDPRoute"),
    )
    assert (taken(ask(api, listener="t")), taken(ask(api, listener="u"))) == ("tcp", "udp")


# --- mesh


def mesh_route(name: str, backend: str, namespace: str = "shop", kind: str = "HTTPRoute", **parent: Any) -> Any:
    parents = [{"group": "", "kind": "Service", "name": "web", "namespace": "shop", **parent}]
    return route(name, to(backend), namespace=namespace, kind=kind, parentRefs=parents)


def mesh(api: GatewayApi, client: str = "shop", port: int = 80) -> str | int | None:
    found = api.mesh.match(Request(authority="no.matter"), service="shop/web", port=port, client_namespace=client)
    return taken(found)


WEB = thing("Service", "web", {"ports": [{"port": 80}, {"port": 81}]}, "shop")


def test_a_mesh_route_counts_for_its_service_whoever_asks():
    assert mesh(cluster(mesh_route("r", "producer"))) == "producer"
    assert mesh(cluster(mesh_route("r", "producer")), "elsewhere") == "producer"


def test_a_consumer_route_takes_the_producers_place_for_its_own_namespace():
    api = cluster(mesh_route("p", "producer"), mesh_route("c", "consumer", "mine"))
    assert (mesh(api, "mine"), mesh(api, "other"), mesh(api, "shop")) == ("consumer", "producer", "producer")


def test_a_port_of_the_parent_limits_the_route_and_a_service_without_a_route_takes_its_own_traffic():
    api = cluster(WEB, thing("Service", "b", {"ports": [{"port": 80}]}, "shop"), mesh_route("r", "b", port=81))
    assert (mesh(api, port=81), mesh(api, port=80)) == ("b", "web")


def test_mesh_backends_need_no_grant_and_the_most_specific_kind_counts():
    assert mesh(cluster(mesh_route("h", "http"), mesh_route("g", "grpc", kind="GRPCRoute"))) == "grpc"
    parents = [{"group": "", "kind": "Service", "name": "web"}]
    rule = {"backendRefs": [{"name": "far", "namespace": "away", "port": 80}]}
    api = cluster(thing("HTTPRoute", "r", {"parentRefs": parents, "rules": [rule]}, "shop"))
    assert (mesh(api), api.statuses[0].resolved.reason) == ("far", "ResolvedRefs")


def test_who_asks_for_what_is_not_there_is_told_what_there_is():
    with pytest.raises(UsageError, match="no Service is called shop/no; there are: shop/web"):
        cluster(WEB).mesh.match(Request(), service="shop/no")
    with pytest.raises(UsageError, match="no Gateway is called a/b; there are: default/front"):
        cluster(gateway(listener())).match(Request(), gateway="a/b")


# --- what cannot be read

UNREADABLE = [
    ("an unknown field", route("r", {"backends": []}), r"spec.rules\[0\].backends: unknown field"),
    ("a wrong type", route("r", {"matches": {}}), r"spec.rules\[0\].matches: expected a list"),
    ("a path that is none", route("r", to("b", exact("a"))), "must begin with /"),
    ("a filter that no one knows", route("r", to("b", filters=[{"type": "Magic"}])), "'Magic' is not a type of filter"),
    ("a method that is none", route("r", to("b", {"method": "get"})), "expected one of GET"),
]


@pytest.mark.parametrize(("sentence", "given", "message"), UNREADABLE, ids=[u[0] for u in UNREADABLE])
def test_what_is_no_route_is_refused_with_its_place(sentence, given, message):
    with pytest.raises(PolicyError, match=message) as caught:
        cluster(gateway(listener()), given)
    assert "HTTPRoute default/r" in str(caught.value)


# --- in a cluster with others

CLASSES = [
    ("the API's text where nothing shows a controller", [], STANDARD),
    ("Istio's class", [thing("GatewayClass", "any", {"controllerName": "istio.io/gateway-controller"})], ISTIO),
    (
        "Envoy Gateway's class",
        [thing("GatewayClass", "any", {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"})],
        ENVOY_GATEWAY,
    ),
]


@pytest.mark.parametrize(("sentence", "objects", "dialect"), CLASSES, ids=[c[0] for c in CLASSES])
def test_the_controller_decides_the_dialect(sentence, objects, dialect):
    assert dialect_of(read_objects([gateway(listener()), *objects])) == dialect


def test_one_router_answers_for_gateways_ingresses_and_mesh_routes():
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "old"},
        "spec": {"ingressClassName": "nginx", "defaultBackend": {"service": {"name": "b", "port": {"number": 80}}}},
    }
    web = thing("Service", "web", {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}, "shop")
    router = from_kubernetes(
        [gateway(listener()), route("r", to("a")), ingress, *SERVICES, web, mesh_route("m", "web")]
    )
    assert router.gateways == ["default/front", "ingress:nginx"]
    assert taken(router.match(Request(authority="x"), gateway="default/front")) == "a"
    assert taken(router.match(Request(authority="x"), gateway="ingress:nginx")) == "b"
    assert taken(router.match(Request(authority="web.shop"), source_namespace="other")) == "web"
