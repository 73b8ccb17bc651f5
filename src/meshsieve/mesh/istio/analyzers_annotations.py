"""The analyzer of Istio's own annotations: unknown ones, those on a wrong kind, deprecated ones, values that are none.

Sources: istio/api annotation; istio/istio pkg/config/analysis/analyzers/annotations, pkg/kube/inject/validate.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from meshsieve.mesh.istio.world import INJECT, Finding, World, mappings, spec_of
from meshsieve.mesh.objects import MeshObject

ANY = "Any"
INGRESS_CLASS = "kubernetes.io/ingress.class"

# Names by the kinds that they are for, "group: names" with the group's domain in front.
_POD = {
    "ambient.istio.io": "bypass-inbound-capture dns-capture redirection",
    "inject.istio.io": "templates",
    "istio.io": "reroute-virtual-interfaces rev",
    "prometheus.istio.io": "merge-metrics",
    "proxy.istio.io": "config overrides",
    "readiness.status.sidecar.istio.io": "applicationPorts failureThreshold initialDelaySeconds periodSeconds",
    "sidecar.istio.io": "agentLogLevel bootstrapOverride componentLogLevel discoveryAddress enableCoreDump "
    "extraStatTags inject interceptionMode logLevel nativeSidecar proxyCPU proxyCPULimit proxyImage "
    "proxyImageType proxyMemory proxyMemoryLimit rewriteAppHTTPProbers statsCompression statsHistogramBuckets "
    "statsInclusionPrefixes statsInclusionRegexps statsInclusionSuffixes status userVolume userVolumeMount",
    "status.sidecar.istio.io": "port",
    "traffic.sidecar.istio.io": "excludeInboundPorts excludeInterfaces excludeOutboundIPRanges excludeOutboundPorts "
    "includeInboundPorts includeOutboundIPRanges includeOutboundPorts kubevirtInterfaces",
}
_OTHERS = {
    "alpha.istio.io/canonical-serviceaccounts": ("Service",),
    "alpha.istio.io/kubernetes-serviceaccounts": ("Service",),
    "ambient.istio.io/waypoint-inbound-binding": ("GatewayClass", "Gateway"),
    "galley.istio.io/analyze-suppress": (ANY,),
    "gateway.istio.io/controller-version": (ANY,),
    "gateway.istio.io/name-override": ("Gateway",),
    "gateway.istio.io/service-account": ("Gateway",),
    "install.operator.istio.io/chart-owner": (ANY,),
    "install.operator.istio.io/owner-generation": (ANY,),
    "install.operator.istio.io/version": (ANY,),
    "istio.io/autoRegistrationGroup": ("WorkloadEntry",),
    "istio.io/connectedAt": ("WorkloadEntry",),
    "istio.io/disconnectedAt": ("WorkloadEntry",),
    "istio.io/dry-run": ("AuthorizationPolicy",),
    "istio.io/workloadController": ("WorkloadEntry",),
    INGRESS_CLASS: ("Ingress",),
    "networking.istio.io/exportTo": ("Service",),
    "networking.istio.io/service-type": ("Gateway",),
    "networking.istio.io/traffic-distribution": ("Service", "ServiceEntry"),
    "topology.istio.io/controlPlaneClusters": ("Namespace",),
    "traffic.istio.io/nodeSelector": ("Service",),
}
KINDS: dict[str, tuple[str, ...]] = {
    **{f"{domain}/{name}": ("Pod",) for domain, names in _POD.items() for name in names.split()},
    **_OTHERS,
}
DEPRECATED = frozenset(
    (
        "alpha.istio.io/canonical-serviceaccounts",
        "alpha.istio.io/kubernetes-serviceaccounts",
        "sidecar.istio.io/discoveryAddress",
        "sidecar.istio.io/extraStatTags",
        INJECT,
        "sidecar.istio.io/statsInclusionPrefixes",
        "sidecar.istio.io/statsInclusionRegexps",
        "sidecar.istio.io/statsInclusionSuffixes",
    )
)
STABLE = frozenset(
    (
        "ambient.istio.io/redirection",
        INGRESS_CLASS,
        "proxy.istio.io/config",
        INJECT,
        "traffic.istio.io/nodeSelector",
    )
)
# Injection sets these by itself; the second group only where no init container redirects traffic.
OF_INJECTION = frozenset(("sidecar.istio.io/status",))
OF_PLUGIN = frozenset(
    (
        "sidecar.istio.io/interceptionMode",
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "traffic.sidecar.istio.io/includeInboundPorts",
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
    )
)
ANNOTATED = ("Namespace", "Service", "Pod", "Deployment")


def istio_annotations(world: World) -> Iterator[Finding]:
    """Istio's annotations of namespaces, Services, pods and Deployments."""
    for kind in ANNOTATED:
        for found in world.store.of(kind):
            for name, value in found.annotations.items():
                if name == INGRESS_CLASS or name.partition("/")[0].endswith("istio.io"):
                    yield from _annotation(found, kind, name, value)


def _annotation(found: MeshObject, kind: str, name: str, value: str) -> Iterator[Finding]:
    kinds = KINDS.get(name)
    if kinds is None:
        yield Finding.at("UnknownAnnotation", found, f"annotation {name} is not known")
        return
    # Who has the label, which took its place, keeps the annotation for old versions.
    if name in DEPRECATED and not (name == INJECT and INJECT in found.labels):
        text = f"annotation {name} is deprecated" + (f"; use the label {INJECT}" if name == INJECT else "")
        yield Finding.at("DeprecatedAnnotation", found, text)
    if ANY in kinds:
        return
    if kind not in kinds:
        yield Finding.at("MisplacedAnnotation", found, f"annotation {name} is for {', '.join(kinds)}, not for {kind}")
    elif (valid := VALID.get(name)) is not None and not valid(value):
        yield Finding.at("InvalidAnnotation", found, f"annotation {name} cannot be {value!r}")


def alpha_annotations(world: World) -> Iterator[Finding]:
    """Annotations of features that are not yet stable, except those that injection sets."""
    for kind in ANNOTATED:
        for found in world.store.of(kind):
            redirected = any(c.get("name") == "istio-init" for c in mappings(spec_of(found), "initContainers"))
            own = OF_INJECTION if kind != "Pod" or redirected else OF_INJECTION | OF_PLUGIN
            for name in found.annotations:
                if name in KINDS and name not in STABLE | own:
                    yield Finding.at("AlphaAnnotation", found, f"annotation {name} is of an alpha feature")


# --- values


def _number(text: str, bits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 1 << bits


def _uint32(text: str) -> bool:
    return _number(text, 32)


def _port(text: str) -> bool:
    return _number(text.strip(), 16)


def _ports(text: str) -> bool:
    return not text.strip() or all(map(_port, text.strip().split(",")))


def _any_or_ports(text: str) -> bool:
    return text == "*" or _ports(text)


def _prefix(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text and text.rpartition("/")[2].isdigit()


def _prefixes(text: str) -> bool:
    return not text or all(map(_prefix, text.split(",")))


def _any_or_prefixes(text: str) -> bool:
    return text == "*" or _prefixes(text)


def _mode(text: str) -> bool:
    return text in ("REDIRECT", "TPROXY", "NONE")


def _truth(text: str) -> bool:
    return text in ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False")


VALID: dict[str, Callable[[str], bool]] = {
    "prometheus.istio.io/merge-metrics": _truth,
    "readiness.status.sidecar.istio.io/failureThreshold": _uint32,
    "readiness.status.sidecar.istio.io/initialDelaySeconds": _uint32,
    "readiness.status.sidecar.istio.io/periodSeconds": _uint32,
    "sidecar.istio.io/interceptionMode": _mode,
    "status.sidecar.istio.io/port": _port,
    "traffic.sidecar.istio.io/excludeInboundPorts": _ports,
    "traffic.sidecar.istio.io/excludeOutboundIPRanges": _prefixes,
    "traffic.sidecar.istio.io/excludeOutboundPorts": _ports,
    "traffic.sidecar.istio.io/includeInboundPorts": _any_or_ports,
    "traffic.sidecar.istio.io/includeOutboundIPRanges": _any_or_prefixes,
}

ANNOTATION_ANALYZERS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "annotations.K8sAnalyzer": istio_annotations,
    "annotations.AlphaAnalyzer": alpha_annotations,
}
