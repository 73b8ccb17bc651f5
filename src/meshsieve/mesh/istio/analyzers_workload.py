"""Analyzers of namespaces, pods, Deployments and Services: injection, proxies, ports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshsieve.mesh.istio.world import (
    INJECT,
    INJECTION_LABEL,
    PROXY_CONTAINER,
    REVISION_LABEL,
    ROOT_NAMESPACE,
    SYSTEM_NAMESPACES,
    Finding,
    World,
    at,
    labels_at,
    mapping,
    mappings,
    scalar,
    selector_text,
    selects,
    spec_of,
    texts,
)
from meshsieve.mesh.objects import ISTIO_SECURITY, MeshObject
from meshsieve.mesh.services import AUTO, protocol_of

PROXY_UID = 1337
IMAGE_TYPES = ("-distroless", "-debug")
MANAGED_LABEL, WAYPOINT_CONTROLLER = "gateway.istio.io/managed", "istio.io-mesh-controller"


def _control_plane(found: MeshObject) -> bool:
    return "istio" in found.labels or found.labels.get("release") == "istio"


def _ambient(namespace: MeshObject) -> bool:
    return namespace.labels.get("istio.io/dataplane-mode") == "ambient"


def injection(world: World) -> Iterator[Finding]:
    """Namespaces whose pods get no sidecar, or twice a say in it, and pods without one where all have one."""
    injected = set()
    for namespace in world.core("Namespace"):
        if namespace.name == ROOT_NAMESPACE or namespace.name in SYSTEM_NAMESPACES or _ambient(namespace):
            continue
        label, revision = namespace.labels.get(INJECTION_LABEL), namespace.labels.get(REVISION_LABEL)
        if not label and revision is None:
            by_default = at(world.injector_values(), "sidecarInjectorWebhook", "enableNamespacesByDefault") is True
            if by_default:
                text = "it is enabled for injection, because the installation enables every namespace by default"
                yield Finding.at("NamespaceInjectionEnabledByDefault", namespace, text)
            else:
                text = f"it is not enabled for injection; label it {INJECTION_LABEL}=enabled, or disabled to say so"
                yield Finding.at("NamespaceNotInjected", namespace, text)
        elif label and revision is not None:
            text = f"both {INJECTION_LABEL} and {REVISION_LABEL} are set; the first counts alone"
            yield Finding.at("NamespaceMultipleInjectionLabels", namespace, text)
        elif revision is not None or label == "enabled":
            injected.add(namespace.name)
    for pod in world.pods:
        wish = pod.labels.get(INJECT, pod.annotations.get(INJECT, ""))
        outside = pod.object is None or pod.namespace not in injected or pod.spec.get("hostNetwork") is True
        if outside or wish.lower() == "false" or pod.object is None:
            continue
        if not any(c.get("name") == PROXY_CONTAINER and c.get("image") for c in pod.containers):
            yield Finding.at("PodMissingProxy", pod.object, "the pod has no sidecar, though its namespace injects one")


def proxy_images(world: World) -> Iterator[Finding]:
    """Namespaces with pods whose sidecar is of another image than the injector gives; image types do not count."""
    for namespace in world.core("Namespace"):
        revision = namespace.labels.get(REVISION_LABEL)
        if namespace.labels.get(INJECTION_LABEL) != "enabled" and revision is None:
            continue
        wanted = _injected_image(world.injector_values(revision or ""))
        if wanted is None:
            continue
        other = [
            pod.name
            for pod in world.pods
            if pod.namespace == namespace.name and not pod.annotations.get("sidecar.istio.io/proxyImage")
            for c in pod.containers
            if c.get("name") == PROXY_CONTAINER and _without_type(c.get("image")) != _without_type(wanted)
        ]
        if other:
            text = f"sidecars differ from the injector's {wanted} in the pods {', '.join(other)}; restart them"
            yield Finding.at("PodsIstioProxyImageMismatchInNamespace", namespace, text)


def _injected_image(values: Any) -> str | None:
    image = at(values, "global", "proxy", "image")
    if not isinstance(image, str):
        return None
    return image if "/" in image else f"{at(values, 'global', 'hub')}/{image}:{at(values, 'global', 'tag')}"


def _without_type(image: Any) -> str:
    text = str(image)
    return next((text.removesuffix(kind) for kind in IMAGE_TYPES if text.endswith(kind)), text)


def automatic_images(world: World) -> Iterator[Finding]:
    """``image: auto`` that no webhook replaces."""
    webhooks = [
        hook
        for found in world.store.of("MutatingWebhookConfiguration")
        for hook in mappings(found.node.data, "webhooks")
        if str(hook.get("name") or "").endswith("istio.io")
    ]
    for pod in world.pods:
        if pod.object is not None and _automatic(mappings(pod.spec, "containers")):
            text = "a container has the image auto, which only injection replaces: the pod was not injected"
            yield Finding.at("ImageAutoWithoutInjectionError", pod.object, text)
    for found in world.store.of("Deployment"):
        template = mapping(at(spec_of(found), "template"))
        home = world.namespace(found.namespace)
        own, labels = (home.labels if home is not None else {}), labels_at(template, "metadata", "labels")
        if _automatic(mappings(template.get("spec"), "containers")) and not any(
            selects(h.get("namespaceSelector"), own) and selects(h.get("objectSelector"), labels) for h in webhooks
        ):
            text = "a container has the image auto, and no injection webhook matches its pods"
            yield Finding.at("ImageAutoWithoutInjectionWarning", found, text)


def _automatic(containers: list[Mapping[str, Any]]) -> bool:
    return any(c.get("name") == PROXY_CONTAINER and c.get("image") == "auto" for c in containers)


def application_users(world: World) -> Iterator[Finding]:
    """Applications with the user id of the proxy, whose traffic bypasses the proxy."""
    for found in (*world.core("Pod"), *world.store.of("Deployment")):
        spec = spec_of(found)
        spec = spec if found.kind == "Pod" else mapping(at(spec, "template", "spec"))
        if _control_plane(found):
            continue
        owners = [spec, *(c for c in mappings(spec, "containers") if c.get("name") != PROXY_CONTAINER)]
        for owner in owners:
            if at(owner, "securityContext", "runAsUser") == PROXY_UID:
                text = f"user id {PROXY_UID} is the proxy's own: traffic of this application bypasses the proxy"
                yield Finding.at("InvalidApplicationUID", found, text, owner)


def port_names(world: World) -> Iterator[Finding]:
    """Ports of Services whose names tell no protocol."""
    for service in world.core("Service"):
        if service.namespace in SYSTEM_NAMESPACES or _control_plane(service):
            continue
        spec = spec_of(service)
        external = spec.get("type") == "ExternalName"
        for port in mappings(spec, "ports"):
            name, number = str(port.get("name") or ""), scalar(port, "port")
            app = port.get("appProtocol")
            protocol = protocol_of(
                name,
                app if isinstance(app, str) else None,
                str(port.get("protocol") or "TCP"),
                number if isinstance(number, int) else 0,
            )
            if external and (protocol == AUTO or name == "tcp"):
                text = f"port name {name or '(none)'} of an ExternalName Service may take all TCP traffic of the port"
                yield Finding.at("ExternalNameServiceTypeInvalidPortName", service, text, port)
            elif protocol == AUTO:
                text = f"port name {name or '(none)'} (port {number}) tells no protocol; write PROTOCOL[-SUFFIX]"
                yield Finding.at("PortNameIsNotUnderNamingConvention", service, text, port)


def service_ports(world: World) -> Iterator[Finding]:
    """Deployments in the mesh with Services that give one port two protocols, or one target two ports."""
    for found in world.store.of("Deployment"):
        template = mapping(at(spec_of(found), "template"))
        labels, own = labels_at(template, "metadata", "labels"), mapping(template.get("spec"))
        annotations = labels_at(template, "metadata", "annotations")
        if found.labels.get(MANAGED_LABEL) == WAYPOINT_CONTROLLER:
            continue
        if not world.in_mesh(found.namespace, labels, annotations, own):
            continue
        protocols: dict[Any, dict[str, list[str]]] = {}
        targets: dict[str, dict[Any, str]] = {}
        for service in world.core("Service"):
            selector = labels_at(spec_of(service), "selector")
            if service.namespace != found.namespace or not selector or not selector.items() <= labels.items():
                continue
            for port in mappings(spec_of(service), "ports"):
                number, protocol = scalar(port, "port"), str(port.get("protocol") or "TCP")
                protocols.setdefault(number, {}).setdefault(protocol, []).append(service.name)
                targets.setdefault(str(port.get("targetPort") or number), {})[number] = service.name
        for number, names in protocols.items():
            if len(names) > 1:
                owners = ", ".join(sorted({n for group in names.values() for n in group}))
                text = f"the Services {owners} give port {number} different protocols"
                yield Finding.at("DeploymentAssociatedToMultipleServices", found, text)
        for target, numbers in targets.items():
            if len(numbers) > 1:
                owners, shown = ", ".join(sorted(set(numbers.values()))), ", ".join(map(str, numbers))
                text = f"the Services {owners} lead the ports {shown} to the same target port {target}"
                yield Finding.at("DeploymentConflictingPorts", found, text)


def policy_workloads(world: World) -> Iterator[Finding]:
    """AuthorizationPolicies that are for no pod of the mesh, or name namespaces that do not exist."""
    by_namespace: dict[str, list[Mapping[str, str]]] = {}
    for pod in world.pods:
        if pod.object is not None and world.in_mesh(pod.namespace, pod.labels, pod.annotations, pod.spec):
            by_namespace.setdefault(pod.namespace, []).append(pod.labels)
    root = at(world.mesh.data, "rootNamespace") if world.mesh is not None else None
    known = [o.name for o in world.core("Namespace")]
    for policy in world.store.of("AuthorizationPolicy", ISTIO_SECURITY):
        spec = spec_of(policy)
        selector = labels_at(spec, "selector", "matchLabels")
        mesh_wide = policy.namespace == (root or ROOT_NAMESPACE)
        pods = [p for name, own in by_namespace.items() for p in own if mesh_wide or name == policy.namespace]
        whole_mesh = mesh_wide and not isinstance(spec.get("selector"), Mapping)
        targeted = spec.get("targetRef") or spec.get("targetRefs")
        if not whole_mesh and not targeted and not any(selector.items() <= own.items() for own in pods):
            text = f"no pod of the mesh is selected by {selector_text(selector)}"
            yield Finding.at("NoMatchingWorkloadsFound", policy, text)
        for rule in mappings(spec, "rules"):
            for entry in mappings(rule, "from"):
                source = mapping(entry.get("source"))
                for name in [*texts(source, "namespaces"), *texts(source, "notNamespaces")]:
                    if not any(_namespace_fits(own, name) for own in known):
                        text = f"referenced namespace not found: {name}"
                        yield Finding.at("ReferencedResourceNotFound", policy, text, entry)


def _namespace_fits(name: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return name.endswith(pattern[1:])
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name.lower() == pattern.lower()


WORKLOAD_ANALYZERS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "injection.Analyzer": injection,
    "injection.ImageAnalyzer": proxy_images,
    "injection.ImageAutoAnalyzer": automatic_images,
    "applicationUID.Analyzer": application_users,
    "service.PortNameAnalyzer": port_names,
    "deployment.MultiServiceAnalyzer": service_ports,
    "auth.AuthorizationPoliciesAnalyzer": policy_workloads,
}
