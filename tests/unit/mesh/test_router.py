"""A cluster's router: where a request is seen, and whose routes go first."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve import routes
from meshsieve.errors import UsageError
from meshsieve.request import Request
from tests.unit.mesh.objects import REVIEWS, Object, istio, pod

EDGE = "{selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: ['*']}]}"
TO_EDGE = "{hosts: [shop.example], gateways: [%s], http: [{name: %s, route: [{destination: {host: reviews}}]}]}"
RULE = "{hosts: [reviews], http: [{name: mine, match: [{sourceLabels: {app: page}}], route: [{destination: {host: reviews}}]}, {name: others, route: [{destination: {host: reviews}}]}]}"  # noqa: E501
PAGE = pod("page", ip="10.1.0.1", app="page")


def gateway(name: str) -> list[Object]:
    rule = istio("VirtualService", f"{name}-v", TO_EDGE % (name, name))
    return [istio("Gateway", name, EDGE), rule]


def route(objects: list[Object], authority: str, request: dict[str, Any] | None = None, **where: Any) -> str | None:
    router = routes.from_kubernetes([REVIEWS, PAGE, istio("VirtualService", "v", RULE), *objects])
    return router.match(Request(authority=authority, **(request or {})), **where).route


@pytest.mark.parametrize(
    ("sentence", "objects", "authority", "request_", "where", "found"),
    [
        ("a workload by name", [], "reviews:9080", {}, {"source": "default/page"}, "mine"),
        ("a client by namespace", [], "reviews.default:9080", {}, {"source_namespace": "far"}, "others"),
        ("a client by labels", [], "reviews:9080", {}, {"source_labels": {"app": "page"}}, "mine"),
        ("a gateway by name", gateway("edge"), "shop.example", {}, {"gateway": "default/edge"}, "edge"),
        ("a pod by its address", [], "reviews:9080", {"source_ip": "10.1.0.1"}, {}, "mine"),
        ("no pod's address", [], "reviews:9080", {"source_ip": "10.9.9.9"}, {}, "others"),
        ("the only gateway", gateway("edge"), "shop.example", {}, {}, "edge"),
        ("a service of the mesh, not the gateway", gateway("edge"), "reviews:9080", {}, {}, "others"),
    ],
)
def test_where_a_request_is_seen(
    sentence: str, objects: list[Object], authority: str, request_: Any, where: Any, found: str
) -> None:
    assert route(objects, authority, request_, **where) == found, sentence


@pytest.mark.parametrize(
    ("objects", "where", "message"),
    [
        ([*gateway("a"), *gateway("b")], {}, r"name a gateway \(default/a, default/b\) or the client"),
        ([], {"gateway": "default/x"}, "no gateway is called default/x; there are: none"),
        ([], {"source": "default/x"}, "no pod or workload is called default/x; there are: default/page"),
        ([], {"source": "page"}, "'page' is not NAMESPACE/WORKLOAD"),
        (gateway("a"), {"gateway": "default/a", "source": "default/page"}, "name one place"),
    ],
)
def test_places_that_are_not_clear_are_refused(objects: list[Object], where: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        route(objects, "shop.example", **where)


def http_route(namespace: str, kind: str = "Service", port: int | None = None) -> Object:
    parent: Object = {"group": "", "kind": kind, "name": "reviews", "namespace": "default"}
    if port is not None:
        parent["port"] = port
    backend = {"name": "reviews", "namespace": "default", "port": 9080}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "attached", "namespace": namespace},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]},
    }


@pytest.mark.parametrize(
    ("attached", "where", "of_api"),
    [
        (http_route("default"), {"source": "default/page"}, True),
        (http_route("default"), {"source_namespace": "far"}, True),  # of the Service's namespace: for everybody
        (http_route("far"), {"source_namespace": "far"}, True),  # of a client's: for those clients
        (http_route("far"), {"source": "default/page"}, False),
        (http_route("default", port=9080), {"source": "default/page"}, True),
        (http_route("default", port=1234), {"source": "default/page"}, False),
    ],
)
def test_routes_attached_to_a_service_go_before_virtual_services(attached: Object, where: Any, of_api: bool) -> None:
    router = routes.from_kubernetes([REVIEWS, PAGE, istio("VirtualService", "v", RULE), attached])
    found = router.match(Request(authority="reviews.default:9080"), **where)
    assert ("HTTPRoute" in str(found.source)) is of_api
    assert router.routes[found.route_index].source == found.source
    assert router.match_batch([Request(authority="reviews.default:9080")], **where)[0] == found.route_index


def test_an_explanation_names_the_place_and_what_takes_the_request_there() -> None:
    router = routes.from_kubernetes([REVIEWS, PAGE, istio("VirtualService", "v", RULE), *gateway("edge")])
    told = router.explain(Request(authority="reviews:9080"), source_namespace="default", source_labels={"app": "x"})
    assert told.points[0].title == "client in namespace default (app=x)"
    assert told.points[0].reason == "listener 0.0.0.0_9080, routes 9080"
    assert (told.rule, told.points[1].trials[-1].name) == ("others", "others")
    told = router.explain(Request(authority="shop.example:81"), gateway="default/edge")
    assert (told.action, told.rule, len(told.points)) == ("no_listener", None, 1)
    assert told.points[0].title == "gateway default/edge"
    told = router.explain(Request(authority="x", destination_port=8080), receiver="default/page")
    assert told.points[0].title == "receiver default/page"
