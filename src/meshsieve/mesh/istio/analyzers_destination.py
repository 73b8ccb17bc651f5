"""Analyzers of DestinationRules, ServiceEntries and Sidecars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshsieve.mesh.istio.analyzers_virtual_service import ports_of
from meshsieve.mesh.istio.world import (
    Finding,
    RunningPod,
    World,
    at,
    labels_at,
    mapping,
    mappings,
    scalar,
    scopes,
    selector_text,
    spec_of,
    texts,
)
from meshsieve.mesh.objects import MeshObject

TOPOLOGY_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
HOSTNAME_LABEL = "kubernetes.io/hostname"
ALLOCATION = ("ISTIO_META_DNS_CAPTURE", "ISTIO_META_DNS_AUTO_ALLOCATE")


def ca_certificates(world: World) -> Iterator[Finding]:
    """TLS to a server whose certificate is checked against nothing."""
    for rule in world.istio("DestinationRule"):
        spec = spec_of(rule)
        selected = spec.get("workloadSelector") is not None
        policy = mapping(spec.get("trafficPolicy"))
        if _unchecked(policy.get("tls"), selected):
            text = f"TLS to {spec.get('host')} without caCertificates: the server's certificate is not verified"
            yield Finding.at("NoServerCertificateVerificationDestinationLevel", rule, text, policy.get("tls"))
        for entry in mappings(policy, "portLevelSettings"):
            if _unchecked(entry.get("tls"), selected):
                port = scalar(entry, "port", "number")
                text = f"TLS to {spec.get('host')}:{port} without caCertificates: the certificate is not verified"
                yield Finding.at("NoServerCertificateVerificationPortLevel", rule, text, entry)


def _unchecked(tls: Any, selected: bool) -> bool:
    settings = mapping(tls)
    # A credential is used by the selected workloads only; it may hold the authority's certificate.
    credential = settings.get("credentialName") and selected
    return settings.get("mode") in ("SIMPLE", "MUTUAL") and not settings.get("caCertificates") and not credential


def subset_pods(world: World) -> Iterator[Finding]:
    """Hosts that nobody defines, and subsets that no pod is in; of a pod, the labels of its node count, too."""
    nodes = {node.name: node.labels for node in world.core("Node")}
    pods = [_with_topology(pod, nodes) for pod in world.pods]
    known = world.services_by_host()
    for rule in world.istio("DestinationRule"):
        spec = spec_of(rule)
        host = spec.get("host")
        if isinstance(host, str) and ports_of(known, host, rule.namespace, texts(spec, "exportTo")) is None:
            text = f"no Service or ServiceEntry defines {host}"
            yield Finding.at("UnknownDestinationRuleHost", rule, text)
            continue
        for subset in mappings(spec, "subsets"):
            labels = labels_at(subset, "labels")
            if not any(labels.items() <= own.items() for own in pods):
                text = f"no pod is in subset {subset.get('name')}"
                yield Finding.at("DestinationRuleSubsetNotSelectPods", rule, text, subset)


def _with_topology(pod: RunningPod, nodes: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    node = pod.spec.get("nodeName")
    if not isinstance(node, str) or node not in nodes:
        return dict(pod.labels)
    place = {key: value for key, value in nodes[node].items() if key in TOPOLOGY_LABELS}
    return {**pod.labels, **place, HOSTNAME_LABEL: node}


def entry_addresses(world: World) -> Iterator[Finding]:
    """TCP ports of a ServiceEntry without addresses: connections to them cannot be told from any others."""
    mesh = world.mesh.data if world.mesh is not None else {}
    metadata = at(mesh, "defaultConfig", "proxyMetadata")
    if all(str(at(metadata, key)).lower() == "true" for key in ALLOCATION):
        return
    for entry in world.istio("ServiceEntry"):
        spec = spec_of(entry)
        if texts(spec, "addresses"):
            continue
        for port in mappings(spec, "ports"):
            if str(port.get("protocol") or "TCP").upper() == "TCP":
                text = f"port {port.get('number')} is TCP and needs addresses, without which it takes all TCP traffic"
                yield Finding.at("ServiceEntryAddressesRequired", entry, text, port)


def entry_protocols(world: World) -> Iterator[Finding]:
    """One host and port in two ServiceEntries that a namespace sees, with different protocols."""
    index: dict[tuple[str, str, Any], list[tuple[str, MeshObject]]] = {}
    for entry in world.istio("ServiceEntry"):
        spec = spec_of(entry)
        for scope in scopes(texts(spec, "exportTo"), entry.namespace):
            for host in texts(spec, "hosts"):
                for port in mappings(spec, "ports"):
                    protocol = str(port.get("protocol") or "").upper()
                    index.setdefault((scope, host, scalar(port, "number")), []).append((protocol, entry))
    reported: set[int] = set()
    for (scope, host, number), entries in index.items():
        seen = entries + (index.get(("*", host, number), []) if scope != "*" else [])
        protocols = sorted({protocol for protocol, _ in seen})
        for _, entry in seen if len(protocols) > 1 else ():
            if id(entry) not in reported:
                reported.add(id(entry))
                names = ", ".join(sorted({f"{o.namespace}/{o.name}" for _, o in seen}))
                text = f"{names} give {host}:{number} different protocols: {', '.join(protocols)}"
                yield Finding.at("ConflictingServiceEntryProtocol", entry, text)


def sidecar_selectors(world: World) -> Iterator[Finding]:
    """Sidecars that select no pod, and pods that several Sidecars select."""
    yield from _selectors(world, world.istio("Sidecar"), ("workloadSelector", "labels"), "Sidecar")


def sidecar_defaults(world: World) -> Iterator[Finding]:
    """Two Sidecars for the whole of one namespace."""
    yield from _defaults(world.istio("Sidecar"), ("workloadSelector", "labels"), "Sidecar")


def telemetry_selectors(world: World) -> Iterator[Finding]:
    """Telemetry objects that select no pod, and pods that several select."""
    yield from _selectors(world, world.store.of("Telemetry"), ("selector", "matchLabels"), "Telemetry")


def telemetry_defaults(world: World) -> Iterator[Finding]:
    """Two Telemetry objects for the whole of one namespace."""
    yield from _defaults(world.store.of("Telemetry"), ("selector", "matchLabels"), "Telemetry")


def _selectors(world: World, objects: list[MeshObject], path: tuple[str, ...], kind: str) -> Iterator[Finding]:
    by_pod: dict[int, tuple[RunningPod, list[MeshObject]]] = {}
    for found in objects:
        selector = labels_at(spec_of(found), *path)
        if not selector:
            continue
        pods = [pod for pod in world.pods if pod.namespace == found.namespace and pod.selected_by(selector)]
        if not pods:
            text = f"referenced selector not found: {selector_text(selector)}"
            yield Finding.at("ReferencedResourceNotFound", found, text)
        for pod in pods:
            by_pod.setdefault(id(pod), (pod, []))[1].append(found)
    for pod, selecting in by_pod.values():
        for found in selecting if len(selecting) > 1 else ():
            names = ", ".join(o.name for o in selecting)
            text = f"{names} in namespace {pod.namespace} select the same pod {pod.name}"
            yield Finding.at(f"Conflicting{kind}WorkloadSelectors", found, text)


def _defaults(objects: list[MeshObject], path: tuple[str, ...], kind: str) -> Iterator[Finding]:
    plural = {"Telemetry": "Telemetries"}.get(kind, f"{kind}s")
    by_namespace: dict[str, list[MeshObject]] = {}
    for found in objects:
        if not labels_at(spec_of(found), *path):
            by_namespace.setdefault(found.namespace, []).append(found)
    for namespace, bound in by_namespace.items():
        for found in bound if len(bound) > 1 else ():
            names = ", ".join(o.name for o in bound)
            text = f"{names} have no selector in namespace {namespace}: which one holds is not defined"
            yield Finding.at(f"Multiple{plural}WithoutWorkloadSelectors", found, text)


def telemetry_providers(world: World) -> Iterator[Finding]:
    """Access logs or traces for which neither the object nor the mesh names a provider."""
    mesh = world.mesh.data if world.mesh is not None else {}
    defaults = mapping(at(mesh, "defaultProviders"))
    for found in world.store.of("Telemetry"):
        for key in ("accessLogging", "tracing"):
            for entry in mappings(spec_of(found), key):
                if not mappings(entry, "providers") and not defaults.get(key) and not entry.get("disabled"):
                    text = f"{key} names no provider and the mesh has no default one, so it does nothing"
                    yield Finding.at("InvalidTelemetryProvider", found, text, entry)
                    break


DESTINATION_ANALYZERS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "destinationrule.CaCertificateAnalyzer": ca_certificates,
    "destinationrule.SubsetSelectPodAnalyzer": subset_pods,
    "serviceentry.Analyzer": entry_addresses,
    "serviceentry.ConflictingServiceEntryProtocolAnalyzer": entry_protocols,
    "sidecar.SelectorAnalyzer": sidecar_selectors,
    "sidecar.DefaultSelectorAnalyzer": sidecar_defaults,
    "telemetry.SelectorAnalyzer": telemetry_selectors,
    "telemetry.DefaultSelectorAnalyzer": telemetry_defaults,
    "telemetry.ProviderAnalyzer": telemetry_providers,
}
