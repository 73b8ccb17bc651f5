"""The store of mesh objects: names, namespaces, ages, places, and what it refuses."""

from __future__ import annotations

import pytest

from meshsieve.errors import PolicyError, UsageError
from meshsieve.mesh.names import covers, full_name, intersection, most_specific
from meshsieve.mesh.objects import ISTIO_NETWORKING, read_objects
from meshsieve.mesh.services import protocol_of, read_services
from meshsieve.mesh.workloads import find_workload, read_workloads

SHOP = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: reviews, namespace: shop, creationTimestamp: "2024-01-31T12:00:00.123456789Z"}
  spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http-web, port: 9080, targetPort: web}]}
- apiVersion: networking.istio.io/v1
  kind: Gateway
  metadata: {name: edge}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
---
apiVersion: v1
kind: Pod
metadata:
  name: reviews-v1-5d5d6f-abc
  namespace: shop
  labels: {app: reviews}
  ownerReferences: [{kind: ReplicaSet, name: reviews-v1-5d5d6f, controller: true}]
spec: {serviceAccountName: reviewer, containers: [{name: c, ports: [{name: web, containerPort: 8080}]}]}
status: {podIP: 10.1.0.1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1, namespace: shop}
spec: {template: {metadata: {labels: {app: reviews}}, spec: {containers: []}}}
"""


def test_objects_are_found_by_kind_group_and_name_with_their_place():
    store = read_objects(SHOP)
    assert [g.group for g in store.of("Gateway")] == [ISTIO_NETWORKING, "gateway.networking.k8s.io"]
    assert store.find("Gateway", "default", "edge", ISTIO_NETWORKING).source.line == 8
    assert str(store.find("Service", "shop", "reviews").source) == "<objects>:4 Service shop/reviews"
    assert store.find("Service", "shop", "ratings") is None
    assert sorted(store.namespaces) == ["default", "shop"]


def test_older_objects_come_first_then_names_then_namespaces():
    texts = [
        "kind: A\nmetadata: {name: b, namespace: x, creationTimestamp: '2024-01-01T00:00:00Z'}\n",
        "kind: A\nmetadata: {name: a, namespace: w, creationTimestamp: '2024-01-01T01:00:00+01:00'}\n",
        "kind: A\nmetadata: {name: a, namespace: x, creationTimestamp: '2024-01-01T00:00:00Z'}\n",
        "kind: A\nmetadata: {name: z}\n",
    ]
    store = read_objects(texts)
    ordered = [f"{o.namespace}/{o.name}" for o in sorted(store.objects, key=lambda o: o.age)]
    assert ordered == ["default/z", "w/a", "x/a", "x/b"]


def test_mappings_and_files_are_read_like_text(tmp_path):
    (tmp_path / "a.yaml").write_text(SHOP)
    assert len(read_objects(tmp_path).objects) == len(read_objects(SHOP).objects) == 5
    store = read_objects([{"kind": "Service", "metadata": {"name": "a"}, "apiVersion": "v1"}])
    assert store.objects[0].namespace == "default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: A\nmetadata: {name: a}\n---\nkind: A\nmetadata: {name: a}\n", "defined twice, first at <objects>:1:1"),
        ("kind: A\n", "metadata: is missing"),
        ("kind: A\nmetadata: {}\n", "name: is missing"),
        ("kind: A\nmetadata: {name: a, creationTimestamp: yesterday}\n", "is no time"),
        ("kind: A\nmetadata: {name: a, creationTimestamp: '2024-13-01T00:00:00Z'}\n", "is no time"),
        ("metadata: {name: a}\n", "kind: is missing"),
        ("- 1\n", "expected a Kubernetes object"),
    ],
)
def test_what_is_no_object_is_refused_with_its_place(text, message):
    with pytest.raises(PolicyError, match=message):
        read_objects(text)


def test_keep_last_takes_the_later_of_two():
    store = read_objects(
        "kind: A\nmetadata: {name: a}\n---\nkind: A\nmetadata: {name: a, labels: {v: '2'}}\n", keep="last"
    )
    assert [o.labels for o in store.objects] == [{"v": "2"}]


def test_services_have_hosts_protocols_and_targets():
    (service,) = read_services(read_objects(SHOP))
    assert (service.host, service.addresses) == ("reviews.shop.svc.cluster.local", ("10.0.0.1",))
    assert (service.ports[0].protocol, service.ports[0].target) == ("http", "web")
    assert read_services(read_objects(SHOP), "")[0].host == "reviews.shop"


@pytest.mark.parametrize(
    ("name", "app", "transport", "number", "protocol"),
    [
        ("http", None, "TCP", 80, "http"),
        ("http2-x", None, "TCP", 80, "http2"),
        ("HTTPS", None, "TCP", 443, "https"),
        ("grpc-web-x", None, "TCP", 80, "grpc-web"),
        ("web", None, "TCP", 80, "auto"),
        ("", None, "TCP", 3306, "tcp"),
        ("http", "tcp", "TCP", 80, "tcp"),
        ("x", "kubernetes.io/h2c", "TCP", 80, "http2"),
        ("http", "whatever", "TCP", 80, "auto"),
        ("http", None, "UDP", 80, "udp"),
    ],
)
def test_protocol_of_a_port(name, app, transport, number, protocol):
    assert protocol_of(name, app, transport, number) == protocol


def test_a_workload_is_found_by_pod_or_controller():
    workloads = read_workloads(read_objects(SHOP))
    assert [w.name for w in workloads] == ["reviews-v1-5d5d6f-abc"]  # the Deployment's pod stands for itself
    assert find_workload(workloads, "shop", "reviews-v1") is workloads[0]
    assert (workloads[0].service_account, workloads[0].addresses) == ("reviewer", ("10.1.0.1",))
    assert workloads[0].ports == {"web": 8080}
    with pytest.raises(UsageError, match="no pod or workload is called shop/x; there are: shop/reviews-v1"):
        find_workload(workloads, "shop", "x")


def test_names():
    assert full_name("a", "n") == "a.n.svc.cluster.local"
    assert [full_name(h, "n") for h in ("a.b", "*", "10.0.0.1", "::1")] == ["a.b", "*", "10.0.0.1", "::1"]
    assert covers("*", "*.x")
    assert not covers("*.x", "*")
    assert covers("*.X.com", "a.x.COM")
    assert intersection(["*.com", "b.org"], ["a.com", "*"]) == ["a.com", "*.com", "b.org"]
    assert most_specific("a.b.com", ["*", "*.com", "*.b.com", "b.com"]) == "*.b.com"
