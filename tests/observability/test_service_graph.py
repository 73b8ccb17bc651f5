"""The service graph: Kiali's node ids, and edges that add up."""

from __future__ import annotations

import pytest

from meshsieve.observability.calls import Call, Service, Workload
from meshsieve.observability.service_graph import GraphType, ServiceGraph, graph_node

V1 = Workload.of_labels("web-v1", "shop", {"app": "web", "version": "v1"}, cluster="c")
V2 = Workload.of_labels("web-v2", "shop", {"app": "web", "version": "v2"}, cluster="c")
BARE = Workload.of_labels("cron", "ops", {}, cluster="c")
NOBODY = Workload(cluster="c")
DB = Service("db.shop.svc.cluster.local", "db", "shop")


@pytest.mark.parametrize(
    ("workload", "service", "kind", "expected"),
    [
        (V1, Service(), "workload", "wl_c_shop_web-v1"),
        (V1, DB, "service", "svc_c_shop_db"),
        (V1, Service(), "service", "wl_c_shop_web-v1"),
        (V1, Service(), "app", "app_c_shop_web"),
        (V1, Service(), "versionedApp", "vapp_c_shop_web-v1"),
        (
            Workload(app="web", namespace="shop", version="v3", cluster="c"),
            Service(),
            "versionedApp",
            "vapp_c_shop_web_v3",
        ),
        (BARE, Service(), "app", "wl_c_ops_cron"),
        (BARE, Service(), "versionedApp", "wl_c_ops_cron"),
        (NOBODY, DB, "workload", "svc_c_shop_db"),
        (NOBODY, Service(), "workload", "c_unknown_source"),
        (
            NOBODY,
            Service("PassthroughCluster", "PassthroughCluster", "unknown"),
            "app",
            "svc_c_unknown_PassthroughCluster",
        ),
        (NOBODY, Service("api.example"), "app", "svc_c_unknown_api.example"),
    ],
)
def test_a_node_has_kialis_id(workload: Workload, service: Service, kind: GraphType, expected: str) -> None:
    assert graph_node(workload, service, kind).id == expected


def test_two_versions_are_one_app_and_their_calls_add_up() -> None:
    graph = ServiceGraph("app")
    graph.add([(Call(BARE, V1, Service(), "http", 200, count=3, security="mutual_tls"), "ALLOW")])
    graph.add([(Call(BARE, V2, Service(), "http", 500), "DROP")])
    [edge] = graph.to_dict(seconds=2)["elements"]["edges"]
    assert edge["data"]["source"] == "wl_c_ops_cron"
    assert edge["data"]["target"] == "app_c_shop_web"
    assert edge["data"]["traffic"]["rate"] == 2.0
    assert edge["data"]["traffic"]["errorShare"] == 0.25
    assert edge["data"]["traffic"]["responses"] == {"200": 3, "500": 1}
    assert edge["data"]["isMTLS"] == 75
    assert edge["data"]["verdicts"] == {"ALLOW": 3, "DROP": 1}


def test_a_service_node_stands_between_caller_and_workload_on_request() -> None:
    graph = ServiceGraph("workload", service_nodes=True)
    graph.add([(Call(BARE, V1, DB, "grpc", 200, grpc_status="14"), "")])
    assert set(graph.edges) == {
        ("wl_c_ops_cron", "svc_c_shop_db", "grpc"),
        ("svc_c_shop_db", "wl_c_shop_web-v1", "grpc"),
    }
    assert all(edge.errors == 1 for edge in graph.edges.values())
