"""What analyzers look at: objects by kind, pods, and values read without refusing anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.selectors import selector_test
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping as YamlMapping
from meshsieve.importers.yaml_source import located
from meshsieve.mesh.mesh_config import mesh_config
from meshsieve.mesh.names import full_name
from meshsieve.mesh.objects import CORE, ISTIO_NETWORKING, MeshObject, ObjectStore

ROOT_NAMESPACE = "istio-system"
SYSTEM_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})
DEFAULT_GATEWAY_LABELS = {"istio": "ingressgateway"}
DEFAULT_GATEWAY_PORTS = (15020, 80, 443, 15029, 15030, 15031, 15032, 31400, 15443)
INJECTOR = "istio-sidecar-injector"
INJECTION_LABEL, REVISION_LABEL = "istio-injection", "istio.io/rev"
INJECT = "sidecar.istio.io/inject"
PROXY_CONTAINER = "istio-proxy"


@dataclass(frozen=True)
class Finding:
    """One message about an object; where: the line of the part in question."""

    code: str
    object: MeshObject
    message: str
    where: str

    @staticmethod
    def at(code: str, found: MeshObject, message: str, part: Any = None) -> Finding:
        """part: the mapping of the object that the message is about."""
        where = part.where() if isinstance(part, YamlMapping) else found.where
        return Finding(code, found, message, where)


@dataclass(frozen=True)
class RunningPod:
    """A pod as far as analyzers read it. object None: the installation's own gateway, which is taken to run."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    object: MeshObject | None

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        return mappings(self.spec, "containers") + mappings(self.spec, "initContainers")

    def selected_by(self, selector: Mapping[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in selector.items())


class World:
    def __init__(self, store: ObjectStore, default_gateway: bool = True) -> None:
        self.store = store
        self.default_gateway = default_gateway

    def istio(self, kind: str) -> list[MeshObject]:
        return self.store.of(kind, ISTIO_NETWORKING)

    def core(self, kind: str) -> list[MeshObject]:
        return self.store.of(kind, CORE)

    @cached_property
    def pods(self) -> list[RunningPod]:
        out = [RunningPod(o.namespace, o.name, o.labels, o.annotations, spec_of(o), o) for o in self.core("Pod")]
        if self.default_gateway:
            labels = DEFAULT_GATEWAY_LABELS
            out.append(RunningPod(ROOT_NAMESPACE, "istio-ingressgateway", labels, {}, {}, None))
        return out

    @cached_property
    def mesh(self) -> Node | None:
        return mesh_config(self.store, ROOT_NAMESPACE)

    def namespace(self, name: str) -> MeshObject | None:
        return self.store.find("Namespace", "", name, CORE)

    def injector_values(self, revision: str = "") -> Any:
        """The values of the sidecar injector of a revision; None if the objects hold none."""
        name = INJECTOR if revision in ("", "default") else f"{INJECTOR}-{revision}"
        for found in self.core("ConfigMap"):
            if found.name == name:
                text = at(found.node.data, "data", "values")
                try:
                    return located(json.loads(text), found.node.data.file) if isinstance(text, str) else None
                except (ValueError, RecursionError):
                    return None
        return None

    def in_mesh(self, namespace: str, labels: Any, annotations: Any, spec: Any) -> bool:
        """Whether a pod has a sidecar: its own container, else its own wish, else its namespace's."""
        containers = mappings(spec, "containers") + mappings(spec, "initContainers")
        if any(c.get("name") == PROXY_CONTAINER and c.get("image") for c in containers):
            return True
        for own in (labels, annotations):
            if isinstance(own, Mapping) and INJECT in own:
                return bool(own[INJECT] == "true")
        home = self.namespace(namespace)
        return home is not None and home.labels.get(INJECTION_LABEL) == "enabled"

    def services_by_host(self) -> dict[tuple[str, str], list[int]]:
        """Ports by (scope, host) of Services and ServiceEntries; scope "*" or a namespace that it is exported to."""
        out: dict[tuple[str, str], list[int]] = {}
        for found in self.istio("ServiceEntry"):
            spec = spec_of(found)
            ports = [p["number"] for p in mappings(spec, "ports") if isinstance(p.get("number"), int)]
            for scope in scopes(texts(spec, "exportTo"), found.namespace):
                for host in texts(spec, "hosts"):
                    out[scope, full_name(host, found.namespace)] = ports
        for found in self.core("Service"):
            ports = [p["port"] for p in mappings(spec_of(found), "ports") if isinstance(p.get("port"), int)]
            exported = [s for s in found.annotations.get("networking.istio.io/exportTo", "").split(",") if s]
            for scope in scopes(exported, found.namespace):
                out[scope, full_name(found.name, found.namespace)] = ports
        return out


# --- loose reading


def spec_of(found: MeshObject) -> Mapping[str, Any]:
    return mapping(found.node.data.get("spec"))


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def at(value: Any, *path: str) -> Any:
    """The value at a path of mappings, None where it breaks off."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def scalar(value: Any, *path: str) -> str | int | float | None:
    """The text or number at a path of mappings, None for anything else there."""
    found = at(value, *path)
    return found if isinstance(found, str | int | float) else None


def mappings(value: Any, key: str) -> list[Mapping[str, Any]]:
    items = at(value, key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def texts(value: Any, key: str) -> list[str]:
    items = at(value, key)
    return [item for item in items if isinstance(item, str)] if isinstance(items, list) else []


def labels_at(value: Any, *path: str) -> dict[str, str]:
    found = mapping(at(value, *path))
    return {key: text for key, text in found.items() if isinstance(text, str)}


def scopes(export_to: Iterable[str], namespace: str) -> list[str]:
    """Namespaces that see an object, or "*"."""
    names = list(export_to)
    if not names or "*" in names:
        return ["*"]
    return list(dict.fromkeys(namespace if name == "." else name for name in names))


def service_name(host: str, namespace: str) -> tuple[str, str]:
    """(namespace, name) of the Service that a host means; a host that is no Service's name stays whole.

    >>> service_name("a", "x"), service_name("a.b.svc.cluster.local", "x"), service_name("a.com", "x")
    (('x', 'a'), ('b', 'a'), ('x', 'a.com'))
    """
    parts = host.split(".")
    if len(parts) >= 4 and parts[2] == "svc":
        return parts[1], parts[0]
    return namespace, host


def selects(selector: Any, labels: Mapping[str, str]) -> bool:
    """A label selector of Kubernetes: a missing one selects everything, a broken one nothing."""
    if not isinstance(selector, YamlMapping):
        return True
    try:
        return selector_test(Node(selector, "selector"))(dict(labels))
    except PolicyError:
        return False


def selector_text(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "(everything)"
