"""Kubernetes Services: policy is evaluated after DNAT, on the backend pod's address and its target port."""

from __future__ import annotations

import pytest

from meshsieve.engine import Engine
from meshsieve.importers.kubernetes.importer import KubernetesImporter
from meshsieve.policy import ImportOptions, SourceFile


def pod(name: str, address: str, labels: str, ports: str = "[]") -> str:
    return (
        f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {labels}}}\n"
        f"spec: {{containers: [{{ports: {ports}}}]}}\nstatus: {{podIP: {address}}}\n"
    )


PODS = (
    pod("client", "10.0.0.9", "{app: client}")
    + pod("a", "10.0.0.1", "{app: web, tier: a}", "[{name: http, containerPort: 8080}]")
    + pod("b", "10.0.0.2", "{app: web, tier: b}", "[{name: http, containerPort: 9090}]")
)


def service(spec: str, name: str = "s") -> str:
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def deny(pod_selector: str, port: int | None = None) -> str:
    """Ingress of the selected pods: nothing, or one port."""
    allowed = f"[{{ports: [{{port: {port}}}]}}]" if port else "[]"
    head = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
    return f"{head}spec: {{podSelector: {pod_selector}, policyTypes: [Ingress], ingress: {allowed}}}\n"


SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], conditions: {ready: false}}]
ports: [{name: "", port: 8080, protocol: TCP}]
"""
ONE = service("{clusterIP: 10.96.0.1, selector: {tier: a}, ports: [{port: 80, targetPort: 8080}]}")
BOTH = service("{clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: http}]}")
ELSEWHERE = service("{clusterIP: 10.96.0.1, selector: {app: none}, ports: [{port: 80}]}")
NODE = (
    "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"
    "status: {addresses: [{type: InternalIP, address: 172.16.0.1}]}\n"
)
# (sentence, objects, destination, expected)
CASES = [
    ("evaluated on the backend pod IP", ONE + deny("{matchLabels: {tier: a}}"), "10.96.0.1:80", "DROP"),
    ("and on its targetPort", ONE + deny("{}", 8080), "10.96.0.1:80", "ALLOW"),
    ("not on the service's port", ONE + deny("{}", 80), "10.96.0.1:80", "DROP"),
    ("a named target port is each pod's own", BOTH + deny("{}", 8080), "10.96.0.1:80", "UNDECIDED"),
    ("all backends agree", BOTH + deny("{}"), "10.96.0.1:80", "DROP"),
    ("backends that differ leave it open", BOTH + deny("{matchLabels: {tier: b}}"), "10.96.0.1:80", "UNDECIDED"),
    ("ready endpoints of a slice count instead of the selector",
     BOTH + SLICE + deny("{matchLabels: {tier: b}}"), "10.96.0.1:80", "ALLOW"),
    ("a service without backends refuses", ELSEWHERE, "10.96.0.1:80", "REJECT"),
    ("another port is not the service's", ONE + deny("{matchLabels: {tier: a}}"), "10.96.0.1:81", "ALLOW"),
    ("a node port",
     NODE + service("{type: NodePort, clusterIP: 10.96.0.1, selector: {tier: a}, ports: [{port: 80, targetPort: 8080, "
                    "nodePort: 30080}]}") + deny("{matchLabels: {tier: a}}"), "172.16.0.1:30080", "DROP"),
    ("a headless service translates nothing", service("{clusterIP: None, selector: {tier: a}, ports: [{port: 80}]}"),
     "10.96.0.1:80", "ALLOW"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "objects", "destination", "expected"), CASES, ids=[c[0] for c in CASES])
def test_services(sentence: str, objects: str, destination: str, expected: str) -> None:
    result = KubernetesImporter().load([SourceFile("c.yaml", PODS + objects)], ImportOptions())
    found = Engine(result.layers).explain(f"tcp 10.0.0.9:4000 > {destination}")
    assert found.action == expected, str(found)
