"""Who is at either end of a request: workloads by address, whether a proxy stands before them, their identity.

A workload has a proxy if it says so itself (a container called ``istio-proxy``, the injector's annotation or label),
else if its namespace asks for injection or for the ambient mesh. Workloads that a Gateway selects are proxies
themselves.
Source: istio.io, sidecar injection and ambient labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshsieve.authz.selection import GATEWAY_LABEL
from meshsieve.authz.settings import MeshSettings
from meshsieve.mesh.istio.mesh import IstioMesh
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import canonical
from meshsieve.mesh.objects import ObjectStore
from meshsieve.mesh.router import Viewpoint
from meshsieve.mesh.workloads import Workload, find_workload, read_workloads

SIDECAR_CONTAINER = "istio-proxy"
SIDECAR_STATUS = "sidecar.istio.io/status"
INJECT = "sidecar.istio.io/inject"
AMBIENT = "istio.io/dataplane-mode"
REVISION = "istio.io/rev"
NAMESPACE_INJECTION = "istio-injection"


@dataclass(frozen=True, slots=True)
class Place:
    """A workload of the mesh's cluster.

    proxy     what its proxy is configured by; None: it has none
    identity  SPIFFE id of its service account, without ``spiffe://``
    gateway   ``namespace/name`` of the Gateway API Gateway that it runs
    """

    workload: Workload
    proxy: Proxy | None
    identity: str
    gateway: str | None = None

    @property
    def viewpoint(self) -> Viewpoint:
        """Where its proxy sees requests."""
        return Viewpoint(self.gateway) if self.gateway else Viewpoint(client=self.proxy)

    @property
    def is_gateway(self) -> bool:
        return self.gateway is not None or (self.proxy is not None and self.proxy.kind == "gateway")

    @property
    def title(self) -> str:
        return f"{self.workload.namespace}/{self.workload.name}"


class Topology:
    """Places by address and by name."""

    def __init__(self, store: ObjectStore, istio: IstioMesh, settings: MeshSettings) -> None:
        self._store = store
        self._istio = istio
        self._domain = settings.trust_domain
        self._workloads = read_workloads(store)
        self._places: dict[tuple[str, str], Place] = {}
        self._by_address: dict[str, Workload] = {}
        self._selected: dict[tuple[str, frozenset[tuple[str, str]]], list[Place]] = {}
        for workload in self._workloads:
            for address in workload.addresses:
                self._by_address.setdefault(canonical(address), workload)

    def at(self, address: str | None) -> Place | None:
        """Who has the address; None where nobody known has it.

        raises  ValueError for what is no address
        """
        workload = self._by_address.get(canonical(address)) if address else None
        return None if workload is None else self._place(workload)

    def knows(self, address: str) -> bool:
        """Whether a workload has the address; False for what is no address."""
        try:
            return canonical(address) in self._by_address
        except ValueError:
            return False

    def named(self, name: str) -> Place:
        """``namespace/name`` of a pod or its controller.

        raises  UsageError if there is none
        """
        namespace, _, rest = name.partition("/")
        return self._place(find_workload(self._workloads, namespace, rest))

    def all(self) -> list[Place]:
        """Every workload."""
        return [self._place(workload) for workload in self._workloads]

    @property
    def addresses(self) -> dict[str, Place]:
        """Who has which address."""
        return {address: self._place(workload) for address, workload in self._by_address.items()}

    def selected(self, namespace: str, selector: Mapping[str, str]) -> list[Place]:
        """Workloads of a namespace with all these labels."""
        key = (namespace, frozenset(selector.items()))
        if key not in self._selected:
            fitting = [w for w in self._workloads if w.namespace == namespace and w.selected_by(selector)]
            self._selected[key] = [self._place(w) for w in fitting]
        return self._selected[key]

    def _place(self, workload: Workload) -> Place:
        key = (workload.namespace, workload.name)
        if key not in self._places:
            account = f"{self._domain}/ns/{workload.namespace}/sa/{workload.service_account}"
            name = workload.labels.get(GATEWAY_LABEL)
            gateway = f"{workload.namespace}/{name}" if name is not None else None
            self._places[key] = Place(workload, self._proxy(workload), account, gateway)
        return self._places[key]

    def _proxy(self, workload: Workload) -> Proxy | None:
        gateways = self._istio.config.gateways
        if GATEWAY_LABEL in workload.labels or any(g.selector and workload.selected_by(g.selector) for g in gateways):
            return Proxy("gateway", workload.namespace, workload.labels, workload.addresses, workload)
        if not has_proxy(workload, self._store.namespaces.get(workload.namespace, {})):
            return None
        return Proxy("sidecar", workload.namespace, workload.labels, workload.addresses, workload)


def has_proxy(workload: Workload, namespace_labels: Mapping[str, str]) -> bool:
    """Whether a proxy of the mesh stands before the workload, as far as the objects tell."""
    annotations = workload.object.annotations if workload.object else {}
    if SIDECAR_STATUS in annotations or _has_container(workload):
        return True
    own = workload.labels.get(INJECT) or annotations.get(INJECT)
    if own is not None:
        return own.lower() in ("true", "yes", "y", "on", "1")
    ambient = workload.labels.get(AMBIENT) or namespace_labels.get(AMBIENT)
    if ambient is not None:
        return ambient == "ambient"
    injection = namespace_labels.get(NAMESPACE_INJECTION)
    if injection is not None:
        return injection == "enabled"
    return REVISION in workload.labels or REVISION in namespace_labels


def _has_container(workload: Workload) -> bool:
    if workload.object is None or workload.object.kind != "Pod":
        return False
    spec = workload.object.node.node("spec")
    if spec is None:
        return False
    containers = spec.nodes("containers") or []
    more = spec.nodes("initContainers") or []
    return any(container.text("name") == SIDECAR_CONTAINER for container in (*containers, *more))
