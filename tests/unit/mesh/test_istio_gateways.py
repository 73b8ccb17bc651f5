"""Gateways: hosts, names, merging, port translation, redirects to https, TLS by SNI, TCP."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.mesh.istio.gateway import NO_TRANSLATION_LABEL
from tests.unit.mesh.objects import Object, gateway_proxy, get, istio, mesh, pod, service

GW = gateway_proxy()


def server(hosts: str, port: int = 80, protocol: str = "HTTP", more: str = "", name: str = "") -> str:
    label = name or f"{protocol.lower()}-{port}"
    return f"{{port: {{number: {port}, name: {label}, protocol: {protocol}}}, hosts: [{hosts}] {more}}}"


def edge(*servers: str, name: str = "edge", namespace: str = "default", **meta: Any) -> Object:
    spec = f"{{selector: {{istio: ingressgateway}}, servers: [{', '.join(servers)}]}}"
    return istio("Gateway", name, spec, namespace, **meta)


def rule(name: str, hosts: str, kind: str = "http", match: str = "", namespace: str = "default", **meta: Any) -> Object:
    gateways = meta.pop("gateways", "edge" if namespace == "default" else "default/edge")
    entry = f"{{{f'name: {name},' if kind == 'http' else ''} {match} route: [{{destination: {{host: {name}.ext}}}}]}}"
    return istio(
        "VirtualService", name, f"{{hosts: [{hosts}], gateways: [{gateways}], {kind}: [{entry}]}}", namespace, **meta
    )


TLS = ", tls: {mode: SIMPLE, credentialName: c}"
PASS = ", tls: {mode: PASSTHROUGH}"


@pytest.mark.parametrize(
    ("sentence", "servers", "rules", "host", "route"),
    [
        ("the same host", ["a.com"], [rule("a", "a.com")], "a.com", "a"),
        ("the rule's host within the server's wildcard", ["'*.com'"], [rule("a", "a.com")], "a.com", "a"),
        ("the server's host within the rule's wildcard", ["a.com"], [rule("a", "'*.com'")], "a.com", "a"),
        ("there only the intersection is served", ["a.com"], [rule("a", "'*.com'")], "b.com", None),
        ("a wildcard needs at least one label", ["'*.a.com'"], [rule("a", "'*.a.com'")], "a.com", None),
        ("a wildcard covers any depth", ["'*.com'"], [rule("a", "'*.com'")], "x.y.com", "a"),
        ("* is everything", ["'*'"], [rule("a", "'*'")], "whatever", "a"),
        ("the port in Host is ignored", ["a.com"], [rule("a", "a.com")], "a.com:8443", "a"),
        ("Host is compared without case", ["A.com"], [rule("a", "a.COM")], "a.Com", "a"),
        ("./x: rules of the Gateway's namespace", ["./a.com"], [rule("a", "a.com")], "a.com", "a"),
        ("./x: no other's", ["./a.com"], [rule("a", "a.com", namespace="far")], "a.com", None),
        ("ns/x: rules of that namespace", ["far/a.com"], [rule("a", "a.com", namespace="far")], "a.com", "a"),
        ("*/x: rules of any", ["'*/a.com'"], [rule("a", "a.com", namespace="far")], "a.com", "a"),
        ("rules of the mesh only are not here", ["a.com"], [rule("a", "a.com", gateways="mesh")], "a.com", None),
        ("exact before wildcard, no way back", ["a.com", "'*.com'"],
         [rule("w", "'*.com'", created=2000), rule("a", "a.com", match="match: [{uri: {prefix: /z}}],")], "a.com", "w"),
    ],
)  # fmt: skip
def test_hosts(sentence: str, servers: list[str], rules: list[Object], host: str, route: str | None) -> None:
    found = get(mesh(edge(server(", ".join(servers))), *rules), f"http://{host}/", GW, destination_port=80)
    assert found.route == route, sentence


@pytest.mark.parametrize("name", ["edge", "./edge", "default/edge", "edge.default", "edge.default.svc.cluster.local"])
def test_names_of_a_gateway(name: str) -> None:
    world = mesh(edge(server("a.com")), rule("a", "a.com", gateways=name))
    assert get(world, "http://a.com/", GW, destination_port=80).route == "a"


def test_rules_of_one_host_are_concatenated_oldest_first_and_those_that_take_everything_go_last():
    world = mesh(
        edge(server("a.com")),
        rule("all", "a.com", created=2000),
        rule("b", "a.com", match="match: [{uri: {prefix: /b}}],", created=2002),
        rule("a", "a.com", match="match: [{uri: {prefix: /}, headers: {h: {}}}],", created=2001),
        rule("too-late", "a.com", created=2003),
    )
    config = world.gateway(GW).route_configuration("http.80") if world.gateway(GW).bound else None
    assert config is not None
    assert [r.name for r in config.virtual_hosts[0].routes] == ["a", "b", "all", "too-late"]


def test_names():
    world = mesh(edge(server("a.com"), server("b.com", 443, "HTTPS", TLS, name="web")), rule("r", "a.com, b.com"))
    plain = get(world, "http://a.com/", GW)
    assert (plain.listener, plain.route_config, plain.virtual_host) == ("0.0.0.0_80", "http.80", "a.com:80")
    encrypted = get(world, "https://b.com/", GW)
    assert encrypted.listener == "0.0.0.0_443"
    assert encrypted.route_config == "https.443.web.edge.default"
    assert encrypted.virtual_host == "b.com:443"


def test_a_port_without_rules_is_a_black_hole_and_with_rules_a_foreign_host_has_no_virtual_host():
    empty = get(mesh(edge(server("a.com"))), "http://a.com/", GW)
    assert (empty.virtual_host, empty.matched, empty.status) == ("blackhole:80", False, 404)
    foreign = get(mesh(edge(server("'*'")), rule("a", "a.com")), "http://b.com/", GW)
    assert (foreign.virtual_host, foreign.status) == (None, 404)
    assert get(mesh(edge(server("a.com"))), "http://a.com:81/", GW).action == "no_listener"


@pytest.mark.parametrize(
    ("sentence", "servers", "rules", "action"),
    [
        ("with rules", ["a.com"], [rule("r", "a.com")], "redirect_to_https"),
        ("without any", ["a.com"], [], "redirect_to_https"),
        ("another host of the server, too", ["a.com, b.com"], [rule("r", "b.com")], "redirect_to_https"),
    ],
)
def test_https_redirect(sentence: str, servers: list[str], rules: list[Object], action: str) -> None:
    world = mesh(edge(server(", ".join(servers), more=", tls: {httpsRedirect: true}")), *rules)
    found = get(world, "http://a.com/x", GW)
    assert (found.action, found.location) == (action, "https://a.com/x"), sentence


def test_https_redirect_of_any_server_of_the_host_counts():
    world = mesh(
        edge(server("a.com", more=", tls: {httpsRedirect: true}")), edge(server("a.com"), name="z"),
        rule("r", "a.com", gateways="edge, z"),
    )  # fmt: skip
    assert get(world, "http://a.com/", GW).action == "redirect_to_https"


@pytest.mark.parametrize(
    ("sentence", "first", "second", "url", "found"),
    [
        ("HTTP joins HTTP", server("a.com"), server("b.com", name="x"), "http://b.com/", "route"),
        ("HTTP2 joins HTTP", server("a.com"), server("b.com", protocol="HTTP2"), "http://b.com/", "route"),
        ("HTTPS on an HTTP port is dropped", server("a.com"), server("b.com", 80, "HTTPS", TLS), "https://b.com:80/",
         "protocol_error"),
        ("HTTP on an HTTPS port is dropped", server("a.com", 80, "HTTPS", TLS), server("b.com", name="x"), "http://b.com/",
         "no_filter_chain"),
        ("TLS joins TLS", server("a.com", 80, "HTTPS", TLS), server("b.com", 80, "HTTPS", TLS, "x"), "https://b.com:80/",
         "route"),
        ("a second server of an SNI host is dropped", server("a.com", 80, "HTTPS", TLS),
         server("a.com, b.com", 80, "HTTPS", TLS, "x"), "https://b.com:80/", "no_filter_chain"),
        ("TCP on an HTTP port is dropped", server("a.com"), server("b.com", protocol="TCP"), "http://a.com/", "route"),
    ],
)  # fmt: skip
def test_two_servers_on_a_port(sentence: str, first: str, second: str, url: str, found: str) -> None:
    world = mesh(
        edge(first, created=2000), edge(second, name="z", created=2001),
        rule("r", "a.com, b.com", gateways="edge, z"),
    )  # fmt: skip
    assert get(world, url, GW).action == found, sentence
    assert any("dropped" in f.message for f in world.findings) == ("dropped" in sentence)


@pytest.mark.parametrize(
    ("order", "answer"), [({"edge": 2000, "z": 2001}, "one.ext"), ({"edge": 2001, "z": 2000}, None)]
)
def test_of_two_tcp_servers_on_a_port_the_oldest_counts(order: dict[str, int], answer: str | None) -> None:
    world = mesh(
        edge(server("'*'", 9000, "TCP"), created=order["edge"]),
        edge(server("'*'", 9000, "TCP"), name="z", created=order["z"]),
        rule("one", "'*'", "tcp"),
    )
    found = get(world, "http://x:9000/", GW)
    if answer is None:
        # The server that stays has no rule, so no filter chain, so no listener.
        assert found.action == "no_listener"
    else:
        assert found.cluster == f"outbound|9000||{answer}"


# --- TLS by SNI


SNI = [
    edge(
        server("'*.a.com'", 443, "HTTPS", TLS, "wild"),
        server("x.a.com", 443, "HTTPS", ", tls: {mode: MUTUAL, credentialName: c}", "exact"),
        server("'*.b.com'", 443, "TLS", PASS, "pass"),
        server("c.com", 443, "TLS", TLS, "tcp"),
    ),
    rule("wild", "'*.a.com'"),
    rule("exact", "x.a.com"),
    rule("sni", "y.b.com", "tls", "match: [{sniHosts: [y.b.com]}],"),
    rule("sniwild", "'*.b.com'", "tls", "match: [{sniHosts: ['*.b.com']}],"),
    rule("opaque", "c.com", "tcp"),
]


@pytest.mark.parametrize(
    ("sentence", "url", "asked", "action", "answer"),
    [
        ("exact SNI before wildcard", "https://x.a.com/", {"tls": {"presented": True}}, "route", "exact"),
        ("a wildcard SNI", "https://z.a.com/", {}, "route", "wild"),
        ("MUTUAL asks for a certificate", "https://x.a.com/", {"tls": {"presented": False}}, "mtls_error", None),
        ("each SNI has its own virtual hosts", "https://c.com/", {"sni": "z.a.com"}, "no_route", None),
        ("no SNI fits", "https://q.com/", {}, "no_filter_chain", None),
        ("plain bytes have no SNI", "http://x.a.com:443/", {}, "no_filter_chain", None),
        ("passthrough by the rule's SNI", "https://y.b.com/", {}, "tls", "outbound|443||sni.ext"),
        ("exact SNI rules go first, whatever their order", "https://q.b.com/", {}, "tls", "outbound|443||sniwild.ext"),
        ("TLS ended for TCP rules", "https://c.com/", {}, "tls", "outbound|443||opaque.ext"),
    ],
)
def test_sni(sentence: str, url: str, asked: dict[str, Any], action: str, answer: str | None) -> None:
    found = get(mesh(*SNI), url, GW, **asked)
    assert found.action == action, sentence
    assert (found.route or found.cluster if action == "route" else found.cluster) == answer, sentence


def test_without_sni_hosts_a_server_for_everything_ends_tls_and_refuses_plain_bytes():
    world = mesh(edge(server("'*'", 443, "HTTPS", TLS)), rule("r", "a.com"))
    assert get(world, "https://a.com/", GW, sni="").route == "r"
    assert get(world, "http://a.com:443/", GW).action == "tls_error"


def test_auto_passthrough_names_the_cluster_in_its_sni():
    world = mesh(
        service("web", "http:80", ip="10.0.0.1"),
        istio("DestinationRule", "d", "{host: web, subsets: [{name: v1, labels: {v: a}}]}"),
        edge(server("'*.local'", 15443, "TLS", ", tls: {mode: AUTO_PASSTHROUGH}")),
    )
    sni = "outbound_.80_.v1_.web.default.svc.cluster.local"
    found = get(world, "https://x:15443/", GW, sni=sni, alpn="istio")
    assert (found.action, found.cluster) == ("tls", sni)
    assert get(world, "https://x:15443/", GW, sni=sni, alpn="h2").action == "no_filter_chain"


# --- which port the gateway listens on


def ingress(*ports: str, **labels: str) -> Object:
    found = service("in", *ports, namespace="istio-system", ip="10.1.1.1", selector={"istio": "ingressgateway"})
    found["metadata"]["labels"] = labels
    return found


POD = pod("in-1", "istio-system", ip="10.9.9.9", istio="ingressgateway")


@pytest.mark.parametrize(
    ("sentence", "services", "listener"),
    [
        ("no Service: the port itself", [], "0.0.0.0_80"),
        ("the Service's target port", [ingress("http:80:8080")], "0.0.0.0_8080"),
        ("a Service without that port", [ingress("http:81:8081")], "0.0.0.0_80"),
        ("the label takes a Service out", [ingress("http:80:8080", **{NO_TRANSLATION_LABEL: "true"})], "0.0.0.0_80"),
    ],
)  # fmt: skip
def test_port_translation(sentence: str, services: list[Object], listener: str) -> None:
    world = mesh(edge(server("a.com")), rule("r", "a.com"), POD, *services)
    found = get(world, "http://a.com/", world.gateway_proxy("default/edge"))
    assert (found.listener, found.virtual_host) == (listener, "a.com:80"), sentence


def test_a_gateway_tied_to_services_by_annotation_listens_only_where_they_lead():
    annotation = {"internal.istio.io/gateway-service": "in.istio-system.svc.cluster.local"}
    spec = f"{{servers: [{server('a.com')}, {server('a.com', 82)}]}}"
    gateway = istio("Gateway", "edge", spec, "istio-system", annotations=annotation)
    world = mesh(gateway, ingress("http:80:8080"), rule("r", "a.com", gateways="istio-system/edge"), POD)
    proxy = gateway_proxy()
    assert get(world, "http://a.com/", proxy, destination_port=8080).route == "r"
    assert get(world, "http://a.com/", proxy, destination_port=82).action == "no_listener"


def test_bind_gives_a_listener_and_route_configuration_of_its_own():
    world = mesh(edge(server("a.com", more=", bind: 10.1.1.1")), rule("r", "a.com"))
    found = get(world, "http://a.com/", GW, destination_ip="10.1.1.1")
    assert (found.listener, found.route_config, found.route) == ("10.1.1.1_80", "http.80.10.1.1.1", "r")
