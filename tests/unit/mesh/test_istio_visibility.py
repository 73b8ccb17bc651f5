"""Which VirtualServices and services a sidecar sees, under which names, and what becomes of everything else."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.mesh.istio.mesh import IstioMesh
from meshsieve.mesh.istio.proxy import Proxy
from tests.unit.mesh.objects import REVIEWS, Object, get, istio, mesh, service, sidecar

FQDN = "reviews.default.svc.cluster.local"


def rule(name: str, host: str = "reviews", namespace: str = "default", more: str = "", **meta: Any) -> Object:
    """A VirtualService that sends everything for a host to ``NAME.ext``."""
    spec = f"{{hosts: [{host}], {more} http: [{{name: {name}, route: [{{destination: {{host: {name}.ext}}}}]}}]}}"
    return istio("VirtualService", name, spec, namespace, **meta)


def route(world: IstioMesh, url: str, proxy: Proxy | None = None) -> str | None:
    return get(world, url, proxy).route


URL = f"http://{FQDN}:9080/"


@pytest.mark.parametrize(
    ("sentence", "objects", "proxy", "name"),
    [
        ("gateways empty: the mesh", [rule("a")], sidecar(), "a"),
        ("gateways [mesh]: the mesh", [rule("a", more="gateways: [mesh],")], sidecar(), "a"),
        ("named gateways: those only", [rule("a", more="gateways: [edge],")], sidecar(), "default"),
        ("exportTo . : own namespace", [rule("a", more="exportTo: ['.'],")], sidecar(), "a"),
        ("exportTo . : nobody else", [rule("a", more="exportTo: ['.'],")], sidecar("other"), "default"),
        ("exportTo by name", [rule("a", more="exportTo: [other],")], sidecar("other"), "a"),
        ("exportTo by name: others not", [rule("a", more="exportTo: [other],")], sidecar(), "default"),
        ("exportTo ~ : nobody", [rule("a", more="exportTo: ['~'],")], sidecar(), "default"),
        ("any namespace may rule a host", [rule("a", FQDN, "far")], sidecar(), "a"),
        ("a short host is of its own namespace", [rule("a", "reviews", "far")], sidecar(), "default"),
        ("the oldest wins as a whole", [rule("b", FQDN, created=2021), rule("a", FQDN, created=2020)], sidecar(), "a"),
        ("then the name decides", [rule("b", FQDN), rule("a", FQDN)], sidecar(), "a"),
        ("what is private goes first", [rule("b", created=2000), rule("a", more="exportTo: ['.'],")], sidecar(), "a"),
        ("a wildcard host covers services", [rule("a", "'*.svc.cluster.local'")], sidecar(), "a"),
        (
            "exact beats wildcard",
            [rule("b", "'*.svc.cluster.local'", created=2000), rule("a", FQDN, created=2020)],
            sidecar(),
            "a",
        ),
        (
            "the most specific wildcard wins",
            [rule("b", "'*.cluster.local'", created=2000), rule("a", "'*.svc.cluster.local'", created=2020)],
            sidecar(),
            "a",
        ),
    ],
)
def test_rule_of_a_service(sentence: str, objects: list[Object], proxy: Proxy, name: str) -> None:
    assert route(mesh(REVIEWS, *objects), URL, proxy) == name, sentence


@pytest.mark.parametrize(
    ("host", "proxy", "name"),
    [
        ("reviews", sidecar(), "a"),
        ("reviews:9080", sidecar(), "a"),
        ("reviews:1234", sidecar(), "a"),  # the port in Host is ignored
        ("reviews.default", sidecar(), "a"),
        ("reviews.default.svc", sidecar(), "a"),
        ("REVIEWS.default.svc.cluster.local", sidecar(), "a"),
        ("10.0.0.1", sidecar(), "a"),
        ("reviews", sidecar("other"), "allow_any"),  # short names are of the client's own namespace
        ("reviews.default", sidecar("other"), "a"),
        ("x.reviews.default.svc.cluster.local", sidecar(), "allow_any"),
    ],
)
def test_names_of_a_service(host: str, proxy: Proxy, name: str) -> None:
    found = get(mesh(REVIEWS, rule("a")), f"http://{host}/", proxy, destination_ip="10.0.0.1", destination_port=9080)
    assert found.route == name


def test_hosts_that_are_no_service_get_a_virtual_host_on_port_80_only():
    web = service("web", "http:80", ip="10.0.0.2")
    world = mesh(REVIEWS, web, rule("a", "out.example"))
    assert route(world, "http://out.example/") == "a"
    assert route(world, "http://out.example:9080/") == "allow_any"
    # Without a service on port 80 there is no listener, so no route configuration, on it.
    found = get(mesh(REVIEWS, rule("a", "out.example")), "http://out.example/")
    assert (found.action, found.cluster, found.listener) == ("tcp", "PassthroughCluster", "virtualOutbound")


def test_hosts_that_are_no_service_are_served_on_port_80_beside_services_without_http():
    web, raw = service("web", "http:80", ip="10.0.0.2"), service("raw", "tcp:80", ip="10.0.0.3")
    world = mesh(web, raw, rule("a", "out.example, raw"))
    assert route(world, "http://out.example/") == "a"


def config_map(text: str) -> Object:
    metadata = {"name": "istio", "namespace": "istio-system"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": text}}


def test_the_mesh_configuration_says_who_sees_what_does_not_say_it():
    far = sidecar("other")
    assert route(mesh(REVIEWS, rule("a"), config_map("defaultVirtualServiceExportTo: ['.']")), URL, far) == "default"
    assert route(mesh(REVIEWS, rule("a"), config_map("defaultServiceExportTo: ['.']")), URL, far) is None
    assert route(mesh(REVIEWS, rule("a"), config_map("defaultServiceExportTo: [other]")), URL, far) == "a"
    to_subset = f"{{hosts: [{FQDN}], http: [{{route: [{{destination: {{host: {FQDN}, subset: v1}}}}]}}]}}"
    objects = [
        REVIEWS,
        istio("VirtualService", "v", to_subset),
        istio("DestinationRule", "r", "{host: reviews, subsets: [{name: v1, labels: {v: '1'}}]}"),
    ]
    assert get(mesh(*objects), URL, far).status is None
    assert get(mesh(*objects, config_map("defaultDestinationRuleExportTo: ['.']")), URL, far).status == 503


def test_traffic_to_nobody_is_refused_with_registry_only():
    world = mesh(REVIEWS, config_map("outboundTrafficPolicy: {mode: REGISTRY_ONLY}"))
    assert get(world, "http://elsewhere:9080/").status == 502
    assert get(world, "http://elsewhere:7/").cluster == "BlackHoleCluster"
    assert get(mesh(REVIEWS, allow_any=False), "http://elsewhere:9080/").route == "block_all"


def side(hosts: str, more: str = "", namespace: str = "default", selector: str = "") -> Object:
    chosen = f"workloadSelector: {{labels: {selector}}}," if selector else ""
    return istio("Sidecar", f"s{len(selector)}", f"{{{chosen} egress: [{{hosts: [{hosts}]}}] {more}}}", namespace)


REGISTRY_ONLY = ", outboundTrafficPolicy: {mode: REGISTRY_ONLY}"
OTHER = service("reviews", "http:9080", namespace="other", ip="10.0.1.1")


@pytest.mark.parametrize(
    ("sentence", "sidecars", "url", "name"),
    [
        ("*/* imports everything", [side("'*/*'")], URL, "a"),
        ("./* imports the own namespace", [side("'./*'")], URL, "a"),
        ("./* nothing else", [side("'./*'")], "http://reviews.other:9080/", "allow_any"),
        ("ns/* imports one namespace", [side("other/*")], "http://reviews.other:9080/", "default"),
        ("ns/* nothing else", [side("other/*")], URL, "allow_any"),
        ("ns/host imports one service", [side(f"default/{FQDN}")], URL, "a"),
        ("~/* imports nothing", [side("'~/*'")], URL, None),
        ("a Sidecar by label goes first", [side("'~/*'"), side("'*/*'", selector="{app: p}")], URL, "a"),
        ("a Sidecar of other pods does not count", [side("'*/*'"), side("'~/*'", selector="{app: q}")], URL, "a"),
        ("the root namespace's is the default", [side("'~/*'", namespace="istio-system")], URL, None),
        ("the own namespace's before it", [side("'~/*'", namespace="istio-system"), side("'*/*'")], URL, "a"),
        ("REGISTRY_ONLY of a Sidecar", [side("other/*", REGISTRY_ONLY)], URL, "block_all"),
    ],
)  # fmt: skip
def test_egress_of_a_sidecar(sentence: str, sidecars: list[Object], url: str, name: str | None) -> None:
    world = mesh(REVIEWS, OTHER, rule("a"), *sidecars)
    assert route(world, url, sidecar(app="p")) == name, sentence


def test_a_virtual_service_is_imported_by_any_overlapping_host_and_brings_all_of_its_hosts():
    world = mesh(
        service("web", "http:80", ip="10.0.0.2"),
        rule("a", "'*.example.org', brought.example"),
        side("'*/explicit.example.org', './*'"),
    )
    for host in ("x.example.org", "brought.example"):
        assert route(world, f"http://{host}/") == "a", host


def test_egress_listeners_with_a_port_take_that_port_and_the_catch_all_adds_nothing_to_it():
    spec = """
egress:
- {port: {number: 9080, protocol: HTTP, name: h}, hosts: ['other/*']}
- {hosts: ['*/*']}
"""
    world = mesh(REVIEWS, OTHER, service("web", "http:80", ip="10.0.0.2"), istio("Sidecar", "s", spec))
    assert route(world, URL) == "allow_any"
    assert route(world, "http://reviews.other:9080/") == "default"
    assert route(world, "http://web/") == "default"


def test_bind_and_capture_mode_none_decide_the_listeners_address():
    spec = """
egress:
- {port: {number: 9080, protocol: HTTP, name: h}, bind: 127.1.1.1, hosts: ['*/*']}
- {captureMode: NONE, hosts: ['*/web.default.svc.cluster.local']}
"""
    world = mesh(REVIEWS, service("web", "http:80", ip="10.0.0.2"), istio("Sidecar", "s", spec))
    assert {found.name for found in world.sidecar(sidecar()).listeners} == {"127.1.1.1_9080", "127.0.0.1_80"}


def test_of_two_definitions_of_a_host_the_kubernetes_service_then_the_oldest_counts():
    entry = "{hosts: [%s], ports: [{number: %d, name: http, protocol: HTTP}], resolution: DNS}"
    squatter = istio("ServiceEntry", "a", entry % (FQDN, 9081), "far", created=2000)
    world = mesh(REVIEWS, squatter)
    assert route(world, URL) == "default"
    # Ports of another definition are added only if it is of the same namespace.
    assert get(world, f"http://{FQDN}:9081/").listener == "virtualOutbound"
    older = istio("ServiceEntry", "a", entry % ("x.example", 81), created=2000)
    newer = istio("ServiceEntry", "b", entry % ("x.example", 82), created=2001)
    world = mesh(older, newer)
    assert [route(world, f"http://x.example:{p}/") for p in (81, 82)] == ["default", "default"]


@pytest.mark.parametrize("export", ["'.'", "other"])
def test_service_entries_are_exported_too(export: str) -> None:
    port = "{number: 81, name: h, protocol: HTTP}"
    spec = f"{{hosts: [x.example], exportTo: [{export}], ports: [{port}], resolution: DNS}}"
    world = mesh(istio("ServiceEntry", "a", spec, "other"))
    assert get(world, "http://x.example:81/", sidecar("other")).route == "default"
    assert get(world, "http://x.example:81/").listener == "virtualOutbound"
