"""Who runs where: pods, and workload objects that stand for pods with the labels of their template.

A workload is found by ``namespace/name`` of the pod, or of the Deployment (or other controller) that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshsieve.errors import UsageError
from meshsieve.importers.kubernetes.cluster import WORKLOAD_KINDS, Pod, pod_of
from meshsieve.importers.typed import Node
from meshsieve.mesh.objects import MeshObject, ObjectStore
from meshsieve.value_sets import range_text


@dataclass(frozen=True, slots=True)
class Workload:
    """One pod, or a controller that stands for its pods.

    labels      of the pod (the template's, for a controller)
    addresses   as text; none for controllers and pods that do not run
    owner       ``namespace/name[Kind]`` of the controller
    ports       number by name of the containers' named ports
    object      None for a workload that only its namespace and labels describe
    """

    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    service_account: str = "default"
    addresses: tuple[str, ...] = ()
    owner: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    object: MeshObject | None = None

    def selected_by(self, selector: Mapping[str, str]) -> bool:
        """Every label of the selector is there; the empty selector selects everything."""
        return all(self.labels.get(key) == value for key, value in selector.items())


def read_workloads(store: ObjectStore) -> list[Workload]:
    """Pods first, then controllers whose pods are not among the objects.

    raises  PolicyError
    """
    pods = [_workload(found) for found in store.of("Pod")]
    owners = {pod.owner.split("[")[0] for pod in pods}
    out = list(pods)
    for kind in WORKLOAD_KINDS:
        out += [w for w in map(_workload, store.of(kind)) if not _has_pods(w, owners)]
    return out


def find_workload(workloads: list[Workload], namespace: str, name: str) -> Workload:
    """The pod or controller of that name; else a pod whose controller has it, its ReplicaSet's hash left out.

    raises  UsageError naming what there is
    """
    here = [w for w in workloads if w.namespace == namespace]
    for workload in here:
        if workload.name == name:
            return workload
    for workload in here:
        owner = workload.owner.split("[")[0].partition("/")[2]
        if name in (owner, owner.rpartition("-")[0]):
            return workload
    known = ", ".join(sorted(f"{w.namespace}/{w.name}" for w in workloads)[:10]) or "none"
    raise UsageError(f"no pod or workload is called {namespace}/{name}; there are: {known}")


def _has_pods(workload: Workload, owners: set[str]) -> bool:
    """A Deployment's pods belong to a ReplicaSet called after it, with a hash at the end."""
    own = f"{workload.namespace}/{workload.name}"
    return own in owners or any(owner.rpartition("-")[0] == own for owner in owners)


def _workload(found: MeshObject) -> Workload:
    pod: Pod = pod_of(found.kind, found.namespace, found.name, found.node)
    spec = _pod_spec(found)
    return Workload(
        pod.namespace,
        pod.name,
        pod.labels,
        (spec.text("serviceAccountName") if spec else None) or "default",
        tuple(range_text(value, value, version) for version, value in pod.addresses),
        pod.owner,
        {port.name: port.number for port in pod.ports if port.name},
        found,
    )


def _pod_spec(found: MeshObject) -> Node | None:
    node: Node | None = found.node
    if found.kind == "CronJob":
        node = found.spec.node("jobTemplate")
    if found.kind != "Pod":
        spec = node.node("spec") if node else None
        node = spec.node("template") if spec else None
    return node.node("spec") if node else None
