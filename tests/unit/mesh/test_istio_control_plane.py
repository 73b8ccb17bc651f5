"""Analyzers of what the control plane says, does not support, or has to be told."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.mesh.istio.analyzers import ANALYZERS, USUAL, analyze
from meshsieve.mesh.objects import read_objects
from tests.unit.mesh.objects import REVIEWS, Object, istio, pod, service


def codes(analyzer: str, *objects: Object) -> list[str]:
    return [finding.code for finding in analyze(read_objects(list(objects)), (analyzer,))]


def plain(version: str, kind: str, name: str, spec: Any = None, **rest: Any) -> Object:
    metadata = {"name": name, "labels": rest.pop("labels", {}), "annotations": rest.pop("annotations", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec or {}, **rest}


@pytest.mark.parametrize(("status", "found"), [("False", 1), ("True", 0), ("Unknown", 0)])
def test_conditions_that_do_not_hold(status: str, found: int) -> None:
    conditions = {"status": {"conditions": [{"type": "WaypointBound", "status": status, "reason": "r"}]}}
    entry = {**istio("ServiceEntry", "e", "{hosts: [a.b]}"), **conditions}
    assert codes("conditions.ConditionAnalyzer", entry) == ["NegativeConditionStatus"] * found
    assert codes("conditions.ConditionAnalyzer", {**REVIEWS, **conditions}) == ["NegativeConditionStatus"] * found
    assert codes("conditions.ConditionAnalyzer", {**pod("p"), **conditions}) == []


def test_an_istiod_that_may_fetch_keys_from_anywhere() -> None:
    def istiod(*variables: Object) -> Object:
        containers = [{"name": "discovery", "env": list(variables)}]
        template = {"template": {"spec": {"containers": containers}}}
        return plain("apps/v1", "Deployment", "istiod", template, labels={"app": "istiod"})

    keys = plain("security.istio.io/v1", "RequestAuthentication", "jwt")
    name = "authn.BlockedCIDRsAnalyzer"
    blocked = {"name": "BLOCKED_CIDRS_IN_JWKS_URIS", "value": "10.0.0.0/8"}
    assert codes(name, keys, istiod()) == ["JwksUriFetchUnrestricted"]
    assert codes(name, keys, istiod({**blocked, "value": ""})) == ["JwksUriFetchUnrestricted"]
    assert codes(name, keys, istiod(blocked)) == []
    assert codes(name, istiod()) == []
    assert codes(name, keys, plain("apps/v1", "Deployment", "other")) == []


@pytest.mark.parametrize(
    ("home", "own", "host", "found"),
    [
        (None, "waypoint", "reviews", 1),
        ("waypoint", None, "reviews", 1),
        ("waypoint", "none", "reviews", 0),
        ("none", None, "reviews", 0),
        (None, None, "reviews", 0),
        (None, "waypoint", "'*.default.svc.cluster.local'", 1),
        (None, "waypoint", "ratings", 0),
    ],
)
def test_selectors_of_rules_do_not_work_with_waypoints(
    home: str | None, own: str | None, host: str, found: int
) -> None:
    def labels(value: str | None) -> dict[str, str]:
        return {} if value is None else {"istio.io/use-waypoint": value}

    reviews = service("reviews", "http:80")
    reviews["metadata"]["labels"] = labels(own)
    namespace = plain("v1", "Namespace", "default", labels=labels(home))
    rule = istio("DestinationRule", "r", f"{{host: {host}, workloadSelector: {{matchLabels: {{a: b}}}}}}")
    without = istio("DestinationRule", "w", f"{{host: {host}}}")
    name = "destinationrule.WaypointWorkloadSelectorAnalyzer"
    assert codes(name, namespace, reviews, rule, without) == ["UnsupportedDestinationRuleWorkloadSelector"] * found


@pytest.mark.parametrize(
    ("kind", "to", "context", "found"),
    [
        ("HTTPRoute", "HTTP_FILTER", "GATEWAY", 1),
        ("HTTPRoute", "HTTP_FILTER", "ANY", 1),
        ("HTTPRoute", "HTTP_FILTER", "SIDECAR_INBOUND", 0),
        ("HTTPRoute", "NETWORK_FILTER", "GATEWAY", 0),
        ("Gateway", "HTTP_FILTER", "GATEWAY", 0),
    ],
)
def test_filters_that_may_have_a_route_chosen_anew(kind: str, to: str, context: str, found: int) -> None:
    target = {"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": kind, "name": "r"}]}
    policy = plain("security.istio.io/v1", "AuthorizationPolicy", "p", target)
    patch = f"{{applyTo: {to}, match: {{context: {context}}}}}"
    filters = istio("EnvoyFilter", "f", f"{{configPatches: [{patch}, {patch}]}}")
    assert codes("envoyfilter.RouteCacheAnalyzer", policy, filters) == ["EnvoyFilterMayClearRouteCache"] * found


def test_traces_that_go_to_lightstep() -> None:
    text = "extensionProviders: [{name: old, lightstep: {service: x}}, {name: new, opentelemetry: {service: y}}]"
    config = plain("v1", "ConfigMap", "istio", data={"mesh": text})
    config["metadata"]["namespace"] = "istio-system"
    spec = {"tracing": [{"providers": [{"name": "new"}]}, {"providers": [{"name": "old"}]}]}
    traces = plain("telemetry.istio.io/v1", "Telemetry", "t", spec)
    assert codes("telemetry.LightstepAnalyzer", config, traces) == ["LightstepProviderStillUsed"]
    assert codes("telemetry.LightstepAnalyzer", traces) == []


def test_webhooks_of_a_remote_control_plane_need_a_url() -> None:
    def hooks(kind: str, name: str, **config: str) -> Object:
        version = "admissionregistration.k8s.io/v1"
        return plain(version, kind, name, webhooks=[{"name": "h", "clientConfig": config}])

    injector = ("MutatingWebhookConfiguration", "istio-sidecar-injector-external-istiod")
    validator = ("ValidatingWebhookConfiguration", "istio-validator-external-istiod")
    name, url = "externalcontrolplane.ExternalControlPlaneAnalyzer", "https://istiod.example/inject"
    assert codes(name, hooks(*injector, url=url), hooks(*validator, url=url)) == []
    assert codes(name, hooks(*injector), hooks(*validator, url=url)) == ["InvalidWebhook"]
    assert codes(name, hooks(*injector), hooks(*validator)) == ["InvalidWebhook"] * 2
    assert codes(name, hooks(*injector)) == []


def test_alpha_annotations_are_looked_at_on_demand() -> None:
    name = "annotations.AlphaAnalyzer"
    noted = {"sidecar.istio.io/proxyCPU": "1", "sidecar.istio.io/status": "x", "proxy.istio.io/config": "{}"}
    of_plugin = {"traffic.sidecar.istio.io/includeInboundPorts": "*"}
    found = pod("p")
    found["metadata"]["annotations"] = {**noted, **of_plugin}
    assert codes(name, found) == ["AlphaAnnotation"]
    found["spec"]["initContainers"] = [{"name": "istio-init"}]
    assert codes(name, found) == ["AlphaAnnotation"] * 2
    assert name in ANALYZERS
    assert name not in USUAL
