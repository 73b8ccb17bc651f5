"""Istio's annotations, as its analyzer of them judges them, and the one that suppresses findings."""

from __future__ import annotations

import pytest

from meshsieve.mesh.istio.analyzers import analyze
from meshsieve.mesh.objects import read_objects
from tests.unit.mesh.objects import Object, istio

ANNOTATIONS = ("annotations.K8sAnalyzer",)


def annotated(kind: str, annotations: dict[str, str], **labels: str) -> Object:
    metadata = {"name": "x", "annotations": annotations, "labels": labels}
    version = "apps/v1" if kind == "Deployment" else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {}}


def codes(found: Object, *names: str) -> list[str]:
    return [finding.code for finding in analyze(read_objects([found]), names or ANNOTATIONS)]


@pytest.mark.parametrize(
    ("kind", "annotation", "found"),
    [
        ("Pod", "sidecar.istio.io/proxyImage", []),
        ("Pod", "sidecar.istio.io/proxyimage", ["UnknownAnnotation"]),
        ("Pod", "example.com/x", []),
        ("Pod", "notistio.io/x", ["UnknownAnnotation"]),
        ("Deployment", "sidecar.istio.io/proxyImage", ["MisplacedAnnotation"]),
        ("Deployment", "sidecar.istio.io/inject", ["DeprecatedAnnotation", "MisplacedAnnotation"]),
        ("Pod", "sidecar.istio.io/inject", ["DeprecatedAnnotation"]),
        ("Service", "networking.istio.io/exportTo", []),
        ("Namespace", "networking.istio.io/exportTo", ["MisplacedAnnotation"]),
        ("Namespace", "install.operator.istio.io/version", []),
        ("Service", "kubernetes.io/ingress.class", ["MisplacedAnnotation"]),
        ("Service", "alpha.istio.io/canonical-serviceaccounts", ["DeprecatedAnnotation"]),
        ("ConfigMap", "sidecar.istio.io/proxyImage", []),
    ],
)
def test_annotations_are_known_and_in_their_place(kind: str, annotation: str, found: list[str]) -> None:
    assert codes(annotated(kind, {annotation: "x"})) == found


def test_who_has_the_label_keeps_the_deprecated_annotation() -> None:
    assert codes(annotated("Pod", {"sidecar.istio.io/inject": "true"}, **{"sidecar.istio.io/inject": "true"})) == []


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (
            "traffic.sidecar.istio.io/includeInboundPorts",
            ["", "*", "80", "80, 90"],
            ["x", "80,", "65536", "-1", "*,80"],
        ),
        ("traffic.sidecar.istio.io/excludeInboundPorts", ["", "80"], ["*", "80-90"]),
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            ["", "*", "10.0.0.0/8,::/0"],
            ["10.0.0.0", "10.0.0.0/8, x"],
        ),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ["10.0.0.1/8"], ["*", "1.2.3.4/255.0.0.0"]),
        ("sidecar.istio.io/interceptionMode", ["REDIRECT", "TPROXY", "NONE"], ["redirect", ""]),
        ("status.sidecar.istio.io/port", ["0", "15020"], ["", "x", "70000"]),
        ("readiness.status.sidecar.istio.io/periodSeconds", ["0", "4294967295"], ["4294967296", "1s", ""]),
        ("prometheus.istio.io/merge-metrics", ["true", "0"], ["yes"]),
    ],
)
def test_values(annotation: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert codes(annotated("Pod", {annotation: value})) == [], value
    for value in bad:
        assert codes(annotated("Pod", {annotation: value})) == ["InvalidAnnotation"], value


@pytest.mark.parametrize(("suppressed", "left"), [("", 2), ("IST0101", 1), ("IST0108, IST0101", 1), ("*", 0), ("x", 2)])
def test_an_object_may_suppress_findings_about_itself(suppressed: str, left: int) -> None:
    spec = "{hosts: [a.com], gateways: [nowhere], http: [{redirect: {uri: /}}]}"
    annotations = {"galley.istio.io/analyze-suppress": suppressed}
    rule = istio("VirtualService", "v", spec, annotations=annotations)
    found = ["ReferencedResourceNotFound", "VirtualServiceHostNotFoundInGateway"]
    assert codes(rule, "virtualservice.GatewayAnalyzer") == found[len(found) - left :]
