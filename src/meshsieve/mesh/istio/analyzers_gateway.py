"""Analyzers of Gateways: selectors without pods, ports, certificates, Gateways in each other's way."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshsieve.mesh.istio.world import (
    DEFAULT_GATEWAY_PORTS,
    Finding,
    RunningPod,
    World,
    at,
    labels_at,
    mapping,
    mappings,
    scalar,
    selector_text,
    spec_of,
    texts,
)
from meshsieve.mesh.objects import CORE, MeshObject

# What stands where a certificate was taken out: nothing can be said about it.
REDACTED = (b"REDACTED", b"")
GATEWAY_NAME_LABEL = "gateway.networking.k8s.io/gateway-name"


def _selector(gateway: MeshObject) -> dict[str, str]:
    return labels_at(spec_of(gateway), "selector")


def _pods(world: World, gateway: MeshObject) -> list[RunningPod]:
    selector = _selector(gateway)
    return [pod for pod in world.pods if pod.selected_by(selector)]


def _no_pods(gateway: MeshObject) -> Finding:
    text = f"referenced selector not found: {selector_text(_selector(gateway))}"
    return Finding.at("ReferencedResourceNotFound", gateway, text)


def ports(world: World) -> Iterator[Finding]:
    """Ports of a Gateway that no Service in front of its pods offers."""
    for gateway in world.istio("Gateway"):
        pods = _pods(world, gateway)
        if not pods:
            yield _no_pods(gateway)
            continue
        offered: set[Any] = set()
        for pod in pods:
            if pod.object is None:
                offered |= set(DEFAULT_GATEWAY_PORTS)
            for service in world.core("Service"):
                own = labels_at(spec_of(service), "selector")
                if service.namespace == pod.namespace and own and pod.selected_by(own):
                    entries = mappings(spec_of(service), "ports")
                    tcp = [p for p in entries if p.get("protocol", "TCP") == "TCP"]
                    # A Gateway names the Service's port or what it leads to: both are what the gateway listens on.
                    offered |= {number for p in tcp for number in (scalar(p, "port"), scalar(p, "targetPort"))}
        for server in mappings(spec_of(gateway), "servers"):
            port = scalar(server, "port", "number")
            if port is not None and port not in offered:
                text = f"no Service in front of {selector_text(_selector(gateway))} offers port {port}"
                yield Finding.at("GatewayPortNotDefinedOnService", gateway, text, server)


def credentials(world: World) -> Iterator[Finding]:
    """Secrets that are not in the namespace of the gateway's pods, or hold no certificate that is valid now."""
    for gateway in world.istio("Gateway"):
        pods = _pods(world, gateway)
        if not pods:
            yield _no_pods(gateway)
            continue
        # The object's own pods before the installation's.
        home = next((p for p in pods if p.object is not None), pods[0]).namespace
        for server in mappings(spec_of(gateway), "servers"):
            name = at(server, "tls", "credentialName")
            if not isinstance(name, str) or not name:
                continue
            namespace, _, short = name.rpartition("/")
            secret = world.store.find("Secret", namespace or home, short, CORE)
            if secret is None:
                text = f"referenced credentialName not found: {name}"
                yield Finding.at("ReferencedResourceNotFound", gateway, text, server)
            elif problem := _secret_problem(secret):
                text = f"credential {name} in namespace {namespace or home} cannot be used: {problem}"
                yield Finding.at("InvalidGatewayCredential", gateway, text, server)


def _secret_problem(secret: MeshObject) -> str:
    """Why a Secret is no credential of a gateway, "" if it may be one."""
    data = mapping(secret.node.data.get("data"))
    for certificate, key in (("cert", "key"), ("tls.crt", "tls.key")):
        if data.get(certificate) and data.get(key):
            return _certificate_problem(data[certificate])
    return "it holds neither cert and key nor tls.crt and tls.key"


def _certificate_problem(text: Any) -> str:
    try:
        content = base64.b64decode(str(text), validate=True).strip()
    except (binascii.Error, ValueError):
        return "its certificate is not base64"
    if content in REDACTED or content.startswith(b"REDACTED"):
        return ""
    return "" if b"-----BEGIN CERTIFICATE-----" in content else "its certificate is not PEM"


def duplicate_certificates(world: World) -> Iterator[Finding]:
    """One certificate in two Gateways of one workload: clients that reuse HTTP/2 connections get 404."""
    all_gateways = world.istio("Gateway")
    for gateway in all_gateways:
        selector = _selector(gateway)
        for other in all_gateways:
            if other is gateway or not selector.items() <= _selector(other).items():
                continue
            own, others = (mappings(spec_of(o), "servers") for o in (gateway, other))
            for server in own:
                for second in others:
                    if _same_certificate(mapping(server.get("tls")), mapping(second.get("tls"))):
                        names = f"{gateway.namespace}/{gateway.name} and {other.namespace}/{other.name}"
                        text = f"{names} share one certificate, which may lead to 404 with reused HTTP/2 connections"
                        yield Finding.at("GatewayDuplicateCertificate", gateway, text, server)


def _same_certificate(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    names = first.get("credentialName"), second.get("credentialName")
    if all(names):
        return bool(names[0] == names[1])
    if any(names):
        return False
    keys = ("serverCertificate", "privateKey")
    return all(first.get(key) and first.get(key) == second.get(key) for key in keys)


def conflicting_gateways(world: World) -> Iterator[Finding]:
    """Gateways of one workload with a port and a host in common."""
    all_gateways = world.istio("Gateway")
    for gateway in all_gateways:
        if _selector(gateway) and not _pods(world, gateway):
            yield _no_pods(gateway)
            continue
        for server in mappings(spec_of(gateway), "servers"):
            others = [o for o in all_gateways if o is not gateway and _conflict(world, gateway, server, o)]
            if others:
                names = ", ".join(f"{o.namespace}/{o.name}" for o in others)
                port, hosts = scalar(server, "port", "number"), ", ".join(texts(server, "hosts"))
                text = f"conflicts with {names}: the same workloads, port {port} and hosts {hosts}"
                yield Finding.at("ConflictingGateways", gateway, text, server)


def _conflict(world: World, gateway: MeshObject, server: Mapping[str, Any], other: MeshObject) -> bool:
    own, others = _selector(gateway).items(), _selector(other).items()
    nested = own <= others or others <= own
    if not nested and not any(p.selected_by(dict(own)) and p.selected_by(dict(others)) for p in world.pods):
        return False
    return any(
        scalar(server, "port", "number") == scalar(second, "port", "number")
        and (server.get("bind") or "") == (second.get("bind") or "")
        and not set(texts(server, "hosts")).isdisjoint(texts(second, "hosts"))
        for second in mappings(spec_of(other), "servers")
    )


def ineffective_selectors(world: World) -> Iterator[Finding]:
    """Policies that select pods of a Gateway API Gateway by label: there only targetRefs act."""
    for kind in ("AuthorizationPolicy", "RequestAuthentication", "Telemetry", "WasmPlugin"):
        for found in world.store.of(kind):
            spec = spec_of(found)
            if spec.get("targetRef") or spec.get("targetRefs") or not isinstance(spec.get("selector"), Mapping):
                continue
            selector = labels_at(spec, "selector", "matchLabels")
            for pod in world.pods:
                name = pod.labels.get(GATEWAY_NAME_LABEL)
                if name and pod.namespace == found.namespace and pod.selected_by(selector):
                    text = f"the selector has no effect on Gateway {name}; use targetRefs"
                    yield Finding.at("IneffectiveSelector", found, text)


GATEWAY_ANALYZERS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "gateway.IngressGatewayPortAnalyzer": ports,
    "gateway.SecretAnalyzer": credentials,
    "gateway.CertificateAnalyzer": duplicate_certificates,
    "gateway.ConflictingGatewayAnalyzer": conflicting_gateways,
    "k8sgateway.SelectorAnalyzer": ineffective_selectors,
}
