"""Connections at a sidecar: TCP and TLS rules, ServiceEntries, headless services, protocols that are only detected."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.listeners import PLAIN, TLS, Connection
from tests.unit.mesh.objects import Object, get, istio, mesh, pod, service, sidecar

DB = service("db", "tcp:5432", ip="10.0.0.1")
SECURE = service("secure", "tls:443", ip="10.0.0.2")


def connect(
    objects: list[Object], address: str, port: int, sni: str = "", proxy: Any = None, **more: Any
) -> str | None:
    protocols = more.pop("protocols", ())
    connection = Connection(address, port, sni, TLS if sni else PLAIN, protocols)
    return mesh(*objects).connect(connection, proxy or sidecar(), **more).cluster


def tcp(*rules: str, host: str = "db", name: str = "v", **meta: Any) -> Object:
    return istio("VirtualService", name, f"{{hosts: [{host}], tcp: [{', '.join(rules)}]}}", **meta)


def to(host: str, match: str = "") -> str:
    return f"{{{f'match: [{match}],' if match else ''} route: [{{destination: {{host: {host}}}}}]}}"


OWN = "outbound|5432||db.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("sentence", "rules", "proxy", "cluster"),
    [
        ("no rule: the service itself", [], sidecar(), OWN),
        ("no match: always", [to("a.ext")], sidecar(), "outbound|5432||a.ext"),
        ("first match wins", [to("a.ext", "{port: 5432}"), to("b.ext")], sidecar(), "outbound|5432||a.ext"),
        ("port", [to("a.ext", "{port: 1}"), to("b.ext")], sidecar(), "outbound|5432||b.ext"),
        ("sourceLabels", [to("a.ext", "{sourceLabels: {app: x}}")], sidecar(app="x"), "outbound|5432||a.ext"),
        ("other sourceLabels", [to("a.ext", "{sourceLabels: {app: x}}")], sidecar(), OWN),
        ("sourceNamespace", [to("a.ext", "{sourceNamespace: n}")], sidecar("n"), "outbound|5432||a.ext"),
        ("other sourceNamespace", [to("a.ext", "{sourceNamespace: n}")], sidecar(), OWN),
        ("gateways without mesh", [to("a.ext", "{gateways: [x/y]}")], sidecar(), OWN),
        ("gateways with mesh", [to("a.ext", "{gateways: [x/y, mesh]}")], sidecar(), "outbound|5432||a.ext"),
        ("destinationSubnets", [to("a.ext", "{destinationSubnets: [10.0.0.0/24]}")], sidecar(), "outbound|5432||a.ext"),
        ("other destinationSubnets", [to("a.ext", "{destinationSubnets: [10.9.0.0/24]}")], sidecar(), OWN),
        (
            "the longest subnet wins, whatever the order",
            [to("a.ext", "{destinationSubnets: [10.0.0.0/8]}"), to("b.ext", "{destinationSubnets: [10.0.0.0/24]}")],
            sidecar(),
            "outbound|5432||b.ext",
        ),
    ],
)
def test_tcp_rules(sentence: str, rules: list[str], proxy: Any, cluster: str) -> None:
    objects = [DB, tcp(*rules)] if rules else [DB]
    assert connect(objects, "10.0.0.1", 5432, proxy=proxy) == cluster, sentence


@pytest.mark.parametrize(("random", "cluster"), [(0, "a"), (8, "a"), (9, "b"), (None, None)])
def test_weights_of_tcp_rules(random: int | None, cluster: str | None) -> None:
    shares = "{destination: {host: a.ext}, weight: 9}, {destination: {host: b.ext}, weight: 1}"
    found = connect([DB, tcp(f"{{route: [{shares}]}}")], "10.0.0.1", 5432, random_value=random)
    assert found == (f"outbound|5432||{cluster}.ext" if cluster else None)


X = "{sniHosts: [x.secure.example]}"


def sni(*rules: tuple[str, str]) -> Object:
    entries = ", ".join(to(host, match) for host, match in rules)
    return istio("VirtualService", "v", f"{{hosts: ['*.secure.example', secure], tls: [{entries}]}}")


@pytest.mark.parametrize(
    ("sentence", "rules", "name", "cluster"),
    [
        ("no rule: the service itself", [], "x", "outbound|443||secure.default.svc.cluster.local"),
        ("an exact name", [("a.ext", X)], "x.secure.example", "outbound|443||a.ext"),
        ("names are compared without case", [("a.ext", X)], "X.SECURE.example", "outbound|443||a.ext"),
        ("a wildcard", [("a.ext", "{sniHosts: ['*.secure.example']}")], "x.y.secure.example", "outbound|443||a.ext"),
        (
            "the most specific name wins, not the first",
            [("a.ext", "{sniHosts: ['*.secure.example']}"), ("b.ext", "{sniHosts: [x.secure.example]}")],
            "x.secure.example",
            "outbound|443||b.ext",
        ),
        (
            "of one name the first rule wins",
            [("a.ext", X), ("b.ext", "{sniHosts: [x.secure.example]}")],
            "x.secure.example",
            "outbound|443||a.ext",
        ),
        ("a name without a rule passes through", [("a.ext", X)], "z", "PassthroughCluster"),
        ("port", [("a.ext", "{sniHosts: [x.secure.example], port: 1}")], "x.secure.example",
         "outbound|443||secure.default.svc.cluster.local"),
    ],
)  # fmt: skip
def test_tls_rules(sentence: str, rules: list[tuple[str, str]], name: str, cluster: str) -> None:
    objects = [SECURE, sni(*rules)] if rules else [SECURE]
    assert connect(objects, "10.0.0.2", 443, name) == cluster, sentence


def entry(name: str, spec: str, **meta: Any) -> Object:
    return istio("ServiceEntry", name, spec, **meta)


def net(name: str, prefix: str) -> Object:
    port = "{number: 9, name: t, protocol: TCP}"
    return entry(name, f"{{hosts: [{name}.ext], addresses: [{prefix}], ports: [{port}], resolution: STATIC}}")


NETS = [net("wide", "10.0.0.0/8"), net("near", "10.1.0.0/16"), net("one", "10.1.1.1/32")]


@pytest.mark.parametrize(
    ("address", "cluster"),
    [
        ("10.2.0.1", "outbound|9||wide.ext"),
        ("10.1.2.3", "outbound|9||near.ext"),  # the longest prefix
        ("10.1.1.1", "outbound|9||one.ext"),  # a single address has a listener of its own
        ("11.0.0.1", "PassthroughCluster"),
    ],
)
def test_service_entries_with_prefixes(address: str, cluster: str) -> None:
    assert connect(NETS, address, 9) == cluster


def test_tls_entries_without_addresses_are_told_apart_by_sni():
    spec = "{hosts: [%s], ports: [{number: 443, name: t, protocol: TLS}], resolution: DNS}"
    objects = [entry("a", spec % "a.ext"), entry("b", spec % "'*.b.ext'")]
    assert connect(objects, "1.2.3.4", 443, "a.ext") == "outbound|443||a.ext"
    assert connect(objects, "1.2.3.4", 443, "x.b.ext") == "outbound|443||*.b.ext"
    assert connect(objects, "1.2.3.4", 443, "c.ext") == "PassthroughCluster"


def test_http_entries_are_virtual_hosts_wildcards_included():
    spec = "{hosts: [a.ext, '*.b.ext'], ports: [{number: 80, name: h, protocol: HTTP}], resolution: NONE}"
    world = mesh(entry("a", spec))
    for host, cluster in [("a.ext", "a.ext"), ("x.b.ext", "*.b.ext")]:
        assert get(world, f"http://{host}/").cluster == f"outbound|80||{cluster}"
    assert get(world, "http://b.ext/").route == "allow_any"


def test_allocated_addresses_of_the_status_are_addresses():
    found = entry("a", "{hosts: [a.ext], ports: [{number: 9, name: t, protocol: TCP}], resolution: DNS}")
    found["status"] = {"addresses": [{"value": "240.240.0.1", "host": "a.ext"}]}
    assert connect([found], "240.240.0.1", 9) == "outbound|9||a.ext"
    assert get(mesh(found), "http://a.ext:9/").listener == "240.240.0.1_9"


def test_a_detected_port_routes_requests_by_its_own_table_and_forwards_the_rest():
    auto = service("auto", "web:81", ip="10.0.0.3")
    world = mesh(
        auto, istio("VirtualService", "v", "{hosts: [auto], http: [{name: r, route: [{destination: {host: auto}}]}]}")
    )
    found = get(world, "http://anything:81/", destination_ip="10.0.0.3")
    assert (found.listener, found.route_config, found.route) == (
        "10.0.0.3_81",
        "auto.default.svc.cluster.local:81",
        "r",
    )
    assert connect([auto], "10.0.0.3", 81) == "outbound|81||auto.default.svc.cluster.local"
    assert connect([auto], "10.0.0.3", 81, "some.sni") == "outbound|81||auto.default.svc.cluster.local"


def test_headless_tcp_services_listen_on_the_addresses_of_their_pods():
    headless = service("h", "tcp:9", selector={"app": "h"})
    objects = [headless, pod("h-0", ip="10.5.0.1", app="h"), pod("h-1", ip="10.5.0.2", app="h")]
    assert connect(objects, "10.5.0.2", 9) == "outbound|9||h.default.svc.cluster.local"
    assert connect(objects, "10.5.0.3", 9) == "PassthroughCluster"


def test_hosts_below_a_headless_http_service_are_its_own():
    world = mesh(service("h", "http:80", selector={"app": "h"}))
    assert get(world, "http://h-0.h.default.svc.cluster.local/").route == "default"


@pytest.mark.parametrize(
    ("sentence", "first", "second", "plain", "http"),
    [
        ("TCP over HTTP", "http", "tcp", "outbound|7||b.ext", "outbound|7||a.ext"),
        ("HTTP over TCP", "tcp", "http", "outbound|7||a.ext", "outbound|7||b.ext"),
        ("a second HTTP service", "http", "http", "PassthroughCluster", "outbound|7||a.ext"),
    ],
)
def test_one_port_with_two_protocols_is_told_apart_by_the_first_bytes(
    sentence: str, first: str, second: str, plain: str, http: str
) -> None:
    spec = "{hosts: [%s], ports: [{number: 7, name: p, protocol: %s}], resolution: NONE}"
    objects = [
        entry("a", spec % ("a.ext", first.upper()), created=2000),
        entry("b", spec % ("b.ext", second.upper()), created=2001),
    ]
    assert connect(objects, "1.1.1.1", 7) == plain, sentence
    host = http.rpartition("|")[2]
    assert get(mesh(*objects), f"http://{host}:7/", destination_ip="1.1.1.1").cluster == http


def test_https_from_a_client_is_tls_to_its_sidecar():
    world = mesh(service("web", "http:80", ip="10.0.0.1"), SECURE)
    found = get(world, "https://secure/")
    assert (found.action, found.cluster) == ("tls", "outbound|443||secure.default.svc.cluster.local")
    assert get(world, "https://web:80/").cluster == "PassthroughCluster"


def test_grpc_is_http2_and_meets_the_same_listener():
    world = mesh(service("g", "grpc:50051", ip="10.0.0.1"))
    found = get(world, "http://g:50051/s/m", method="POST", headers={"content-type": "application/grpc"})
    assert found.route == "default"


def test_an_address_that_is_none_is_an_answer():
    found = get(mesh(DB), "http://db/", destination_ip="10.0.0.300")
    assert (found.action, found.matched) == ("refused", False)


# --- ExternalName


ALIAS = service("alias", type="ExternalName", externalName="web.default.svc.cluster.local")
WEB = service("web", "http:80", "auto:81", "tcp:82", ip="10.0.0.8")


@pytest.mark.parametrize(
    ("host", "port", "route"),
    [
        ("alias.default.svc.cluster.local", 80, "v"),
        ("alias.default", 80, "default"),
        ("alias", 80, "default"),
        ("web.default.svc.cluster.local", 80, "default"),
        ("alias.default.svc.cluster.local", 81, "default"),
    ],
)
def test_a_rule_for_an_alias_holds_for_its_full_name_only(host: str, port: int, route: str) -> None:
    rule = "{hosts: [alias.default.svc.cluster.local], http: [{name: v, route: [{destination: {host: web}}]}]}"
    found = get(mesh(ALIAS, WEB, istio("VirtualService", "v", rule)), f"http://{host}:{port}/")
    assert found.route == route
    assert found.cluster == f"outbound|{port}||web.default.svc.cluster.local"


# --- what comes to a workload


APP = [
    service("app", "http:80:8080", "tcp:81:9000", "web:82:9001", ip="10.0.0.1", selector={"app": "a"}),
    service("late", "tcp:8080:8080", ip="10.0.0.2", selector={"app": "a"}),
]


@pytest.mark.parametrize(
    ("sentence", "port", "action", "cluster"),
    [
        ("the port that a Service leads to; the oldest Service says its protocol", 8080, "route", "inbound|8080||"),
        ("a TCP port", 9000, "tcp", "inbound|9000||"),
        ("a detected port that carries HTTP", 9001, "route", "inbound|9001||"),
        ("the Service's own port is not the workload's", 80, "tcp", "InboundPassthroughCluster"),
    ],
)
def test_inbound(sentence: str, port: int, action: str, cluster: str) -> None:
    proxy = Proxy("inbound", "default", {"app": "a"})
    found = get(mesh(*APP), "http://app/x", proxy, destination_port=port)
    assert (found.action, found.cluster) == (action, cluster), sentence


def test_ingress_listeners_of_a_sidecar_are_the_only_ones():
    spec = "{ingress: [{port: {number: 7000, protocol: HTTP, name: h}, defaultEndpoint: 127.0.0.1:8080}]}"
    world = mesh(*APP, istio("Sidecar", "s", spec))
    proxy = Proxy("inbound", "default", {"app": "a"})
    assert get(world, "http://app/", proxy, destination_port=7000).virtual_host == "inbound|http|7000"
    assert get(world, "http://app/", proxy, destination_port=8080).cluster == "InboundPassthroughCluster"
