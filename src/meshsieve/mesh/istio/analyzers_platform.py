"""Analyzers of the installation: deprecated fields, versions of definitions, webhooks, patches of proxies."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshsieve.mesh.istio.world import (
    INJECT,
    INJECTION_LABEL,
    REVISION_LABEL,
    Finding,
    World,
    at,
    mapping,
    mappings,
    selects,
    spec_of,
)
from meshsieve.mesh.objects import CORE, MeshObject

BUNDLE_VERSION = "gateway.networking.k8s.io/bundle-version"
# The least version of Gateway API's definitions that Istio watches.
LEAST_VERSIONS = {
    "grpcroutes.gateway.networking.k8s.io": (1, 1, 0),
    "backendtlspolicies.gateway.networking.k8s.io": (1, 4, 0),
    "tlsroutes.gateway.networking.k8s.io": (1, 5, 0),
}
REMOVED_KINDS = frozenset({"ClusterRbacConfig", "RbacConfig", "ServiceRole", "ServiceRoleBinding"})
_VERSION = re.compile(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+].*)?\Z", re.ASCII)


def deprecated(world: World) -> Iterator[Finding]:
    """Fields and kinds that are deprecated or were removed."""
    for found in world.istio("VirtualService"):
        for rule in mappings(spec_of(found), "http"):
            percent = at(rule, "fault", "delay", "percent")
            if isinstance(percent, int) and percent > 0:
                text = "HTTPRoute.fault.delay.percent is deprecated; use HTTPRoute.fault.delay.percentage"
                yield Finding.at("Deprecated", found, text, rule)
    for found in world.istio("Sidecar"):
        if at(spec_of(found), "outboundTrafficPolicy", "egressProxy") is not None:
            yield Finding.at("Deprecated", found, "outboundTrafficPolicy.egressProxy is deprecated")
    for found in world.store.of("CustomResourceDefinition"):
        spec = spec_of(found)
        if spec.get("group") == "rbac.istio.io" and at(spec, "names", "kind") in REMOVED_KINDS:
            text = f"the kind {at(spec, 'names', 'kind')} of rbac.istio.io was removed"
            yield Finding.at("Deprecated", found, text)


def definition_versions(world: World) -> Iterator[Finding]:
    """Definitions of Gateway API that are too old for Istio, which then ignores their objects."""
    for found in world.store.of("CustomResourceDefinition"):
        least = LEAST_VERSIONS.get(found.name)
        version = _VERSION.match(found.annotations.get(BUNDLE_VERSION, ""))
        if least is not None and version is not None and tuple(map(int, version.groups())) < least:
            text = f"bundle version {version.group()} is below {'.'.join(map(str, least))}: its objects are ignored"
            yield Finding.at("GatewayAPICRDVersionBelowMinimum", found, text)


def webhooks(world: World) -> Iterator[Finding]:
    """Injection webhooks that inject the same pods, or lead to a Service that does not exist."""
    hooks = list(_hooks(world))
    revisions = sorted({r for found, _ in hooks for r in _revisions(found)})
    reported: set[tuple[int, frozenset[str]]] = set()
    for home, pod in itertools.product(_namespaces(revisions), _pods(revisions)):
        fitting = [
            (found, hook)
            for found, hook in hooks
            if selects(hook.get("namespaceSelector"), home) and selects(hook.get("objectSelector"), pod)
        ]
        for i, (found, _) in enumerate(fitting) if len(fitting) > 1 else ():
            others = frozenset(f"{o.name}/{h.get('name')}" for j, (o, h) in enumerate(fitting) if j != i)
            if (id(found), others) not in reported:
                reported.add((id(found), others))
                text = f"overlaps with {', '.join(sorted(others))}: pods may be injected twice"
                yield Finding.at("InvalidWebhook", found, text)
    for found, hook in hooks:
        service = mapping(at(hook, "clientConfig", "service"))
        namespace, name = service.get("namespace"), service.get("name")
        if service and world.store.find("Service", str(namespace), str(name), CORE) is None:
            text = f"leads to a control plane Service that does not exist: {namespace}/{name}"
            yield Finding.at("InvalidWebhook", found, text)


def _hooks(world: World) -> Iterator[tuple[MeshObject, Mapping[str, Any]]]:
    for found in world.store.of("MutatingWebhookConfiguration"):
        own = mappings(found.node.data, "webhooks")
        if _revisions(found) or any(str(h.get("name") or "").endswith("istio.io") for h in own):
            yield from ((found, hook) for hook in own)


def _revisions(found: MeshObject) -> set[str]:
    out = {found.labels[REVISION_LABEL]} if REVISION_LABEL in found.labels else set()
    for hook in mappings(found.node.data, "webhooks"):
        for key in ("namespaceSelector", "objectSelector"):
            value = at(hook, key, "matchLabels", REVISION_LABEL)
            out |= {value} if isinstance(value, str) else set()
            for expression in mappings(hook.get(key), "matchExpressions"):
                if expression.get("key") == REVISION_LABEL and isinstance(expression.get("values"), list):
                    out |= {v for v in expression["values"] if isinstance(v, str)}
    return out


def _namespaces(revisions: list[str]) -> Iterator[dict[str, str]]:
    """Labels that a namespace may have, as far as injection looks at them."""
    for base in ({}, {INJECTION_LABEL: "enabled"}, {INJECTION_LABEL: "disabled"}):
        yield dict(base)
        yield from ({**base, REVISION_LABEL: revision} for revision in revisions)


def _pods(revisions: list[str]) -> Iterator[dict[str, str]]:
    for base in ({}, {INJECT: "true"}, {INJECT: "false"}):
        yield dict(base)
        yield from ({**base, REVISION_LABEL: revision} for revision in revisions)


def envoy_patches(world: World) -> Iterator[Finding]:
    """EnvoyFilter patches whose effect depends on the order of others, or that are ignored."""
    with_version: list[str] = []  # filter names of patches for one proxy version, so far
    for found in world.istio("EnvoyFilter"):
        spec = spec_of(found)
        for entry in mappings(spec, "configPatches"):
            patch = entry.get("patch")
            if not isinstance(patch, Mapping):
                break
            operation, to = patch.get("operation"), entry.get("applyTo")
            name = _patched_name(entry)
            on_routes = to in ("ROUTE_CONFIGURATION", "HTTP_ROUTE")
            code = ""
            if operation == "ADD":
                code = "EnvoyFilterUsesAddOperationIncorrectly" if on_routes else ""
            elif operation == "REMOVE" and on_routes:
                code = "EnvoyFilterUsesRemoveOperationIncorrectly"
            elif operation == "REPLACE" and to not in ("NETWORK_FILTER", "HTTP_FILTER"):
                code = "EnvoyFilterUsesReplaceOperationIncorrectly"
            elif operation in ("REMOVE", "REPLACE", "INSERT_BEFORE", "INSERT_AFTER") and not spec.get("priority"):
                versioned = name in with_version
                code = "EnvoyFilterUsesRelativeOperation" + ("WithProxyVersion" if versioned else "")
            if code:
                text = f"operation {operation} on {to}"
                text += (
                    " depends on the order of other patches; set a priority" if "Relative" in code else " is ignored"
                )
                yield Finding.at(code, found, text, entry)
            if at(entry, "match", "proxy", "proxyVersion"):
                with_version.append(name)


def _patched_name(entry: Mapping[str, Any]) -> str:
    value = at(entry, "patch", "value")
    if not value:
        return ""
    name = at(value, "name") or at(entry, "match", "listener", "filterChain", "filter", "name")
    return str(name or "")


PLATFORM_ANALYZERS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "deprecation.DeprecationAnalyzer": deprecated,
    "k8sgateway.CRDVersionAnalyzer": definition_versions,
    "webhook.Analyzer": webhooks,
    "envoyfilter.EnvoyPatchAnalyzer": envoy_patches,
}
