"""Analyzers of what the control plane says, does not support, or has to be told.

Sources: istio/istio pkg/config/analysis/analyzers/{authn,conditions,destinationrule,envoyfilter,externalcontrolplane,
telemetry}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshsieve.mesh.istio.world import Finding, World, at, mappings, scalar, spec_of, texts
from meshsieve.mesh.names import full_name, overlap
from meshsieve.mesh.objects import GATEWAY_API, ISTIO_NETWORKING, ISTIO_SECURITY, MeshObject

WAYPOINT_LABEL = "istio.io/use-waypoint"
BLOCKED_RANGES = "BLOCKED_CIDRS_IN_JWKS_URIS"
REMOTE_VALIDATORS = ("istio-validator-external-istiod", "istiod-default-validator")
REMOTE_INJECTOR = "istio-sidecar-injector-external-istiod"


def conditions(world: World) -> Iterator[Finding]:
    """Conditions in an object's status that do not hold."""
    entries = world.store.of("ServiceEntry", ISTIO_NETWORKING)
    for found in (*world.core("Service"), *entries, *world.store.of("AuthorizationPolicy", ISTIO_SECURITY)):
        for condition in mappings(at(found.node.data, "status"), "conditions"):
            if condition.get("status") in ("False", False):
                reason, message = condition.get("reason", ""), condition.get("message", "")
                text = f"condition {condition.get('type')} does not hold ({reason}): {message}"
                yield Finding.at("NegativeConditionStatus", found, text, condition)


def blocked_ranges(world: World) -> Iterator[Finding]:
    """An istiod that may fetch keys from anywhere, where RequestAuthentications have it fetch some."""
    if not (asking := world.store.of("RequestAuthentication", ISTIO_SECURITY)):
        return
    for found in world.store.of("Deployment"):
        containers = mappings(at(spec_of(found), "template", "spec"), "containers")
        variables = [v for container in containers for v in mappings(container, "env")]
        told = any(v.get("name") == BLOCKED_RANGES and v.get("value") for v in variables)
        if found.labels.get("app") == "istiod" and not told:
            names = ", ".join(f"{o.namespace}/{o.name}" for o in asking[:5])
            text = (
                f"{BLOCKED_RANGES} is not set, and {len(asking)} RequestAuthentications may have it fetch keys: {names}"
            )
            yield Finding.at("JwksUriFetchUnrestricted", found, text)


def waypoint_selectors(world: World) -> Iterator[Finding]:
    """DestinationRules for some clients of a host whose traffic goes through a waypoint, which is none of them."""
    hosts = [full_name(s.name, s.namespace) for s in world.core("Service") if _has_waypoint(world, s)]
    hosts += [h for e in world.istio("ServiceEntry") if _has_waypoint(world, e) for h in texts(spec_of(e), "hosts")]
    for rule in world.istio("DestinationRule"):
        host = scalar(spec_of(rule), "host")
        if at(spec_of(rule), "workloadSelector") is None or not isinstance(host, str):
            continue
        full = full_name(host, rule.namespace)
        if any(overlap(full, known) for known in hosts):
            text = f"has a workloadSelector, and {full} has a waypoint, where selectors do not work"
            yield Finding.at("UnsupportedDestinationRuleWorkloadSelector", rule, text)


def _has_waypoint(world: World, found: MeshObject) -> bool:
    own = found.labels.get(WAYPOINT_LABEL)
    home = world.namespace(found.namespace)
    name = own if own is not None else home.labels.get(WAYPOINT_LABEL, "") if home is not None else ""
    return name not in ("", "none")


def route_caches(world: World) -> Iterator[Finding]:
    """Patches of HTTP filters, which may have a route chosen anew, beside authorization of single HTTPRoutes."""
    policies = world.store.of("AuthorizationPolicy", ISTIO_SECURITY)
    if not any(map(_targets_a_route, policies)):
        return
    for found in world.istio("EnvoyFilter"):
        for patch in mappings(spec_of(found), "configPatches"):
            context = at(patch, "match", "context")
            if patch.get("applyTo") == "HTTP_FILTER" and context not in ("SIDECAR_INBOUND", "SIDECAR_OUTBOUND"):
                text = "may have the route chosen anew after AuthorizationPolicies of HTTPRoutes have decided"
                yield Finding.at("EnvoyFilterMayClearRouteCache", found, text, patch)
                break


def _targets_a_route(policy: MeshObject) -> bool:
    spec = spec_of(policy)
    references = [at(spec, "targetRef"), *mappings(spec, "targetRefs")]
    return any(at(r, "kind") == "HTTPRoute" and at(r, "group") == GATEWAY_API for r in references)


def lightstep(world: World) -> Iterator[Finding]:
    """Traces that go to a provider of a kind that is to be removed."""
    mesh = world.mesh.data if world.mesh is not None else {}
    names = {scalar(p, "name") for p in mappings(mesh, "extensionProviders") if p.get("lightstep") is not None}
    for found in world.store.of("Telemetry"):
        for tracing in mappings(spec_of(found), "tracing"):
            for provider in mappings(tracing, "providers"):
                if scalar(provider, "name") in names:
                    text = f"provider {provider.get('name')} is of a kind that is to be removed; use OpenTelemetry"
                    yield Finding.at("LightstepProviderStillUsed", found, text, provider)


def external_control_plane(world: World) -> Iterator[Finding]:
    """Webhooks of a cluster whose control plane is elsewhere that say no URL. Names are not looked up."""
    validators = world.store.of("ValidatingWebhookConfiguration")
    injectors = [o for o in world.store.of("MutatingWebhookConfiguration") if o.name == REMOTE_INJECTOR]
    if not injectors or not any(o.name == REMOTE_VALIDATORS[0] for o in validators):
        return
    for found in (*(o for o in validators if o.name in REMOTE_VALIDATORS), *injectors):
        for hook in mappings(found.node.data, "webhooks"):
            if not isinstance(at(hook, "clientConfig", "url"), str):
                yield Finding.at("InvalidWebhook", found, f"webhook {hook.get('name')} has no URL", hook)
                break


CONTROL_PLANE_ANALYZERS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "conditions.ConditionAnalyzer": conditions,
    "authn.BlockedCIDRsAnalyzer": blocked_ranges,
    "destinationrule.WaypointWorkloadSelectorAnalyzer": waypoint_selectors,
    "envoyfilter.RouteCacheAnalyzer": route_caches,
    "telemetry.LightstepAnalyzer": lightstep,
    "externalcontrolplane.ExternalControlPlaneAnalyzer": external_control_plane,
}
