"""Which policies are for which workload: selectors, targetRefs, gateways and waypoints.

    sidecar, plain proxy     selector (none: all); policies with targetRefs are not for it
    Gateway API gateway      targetRefs must name it; without targetRefs as a sidecar
    waypoint                 targetRefs only: its own Gateway, a service behind it, or GatewayClass istio-waypoint from
                             the root namespace

Policies are looked for in the root namespace, the workload's, and those of the services behind a waypoint.
Source: istio/istio pilot/pkg/model/policyattachment.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshsieve.authz.policy import Attachment, TargetRef
from meshsieve.mesh.objects import CORE, GATEWAY_API, ISTIO_NETWORKING

GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
WAYPOINT_CLASS = "istio-waypoint"
_MANAGED_LABEL, _MESH_CONTROLLER = "gateway.istio.io/managed", "istio.io-mesh-controller"


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """external: declared by a ServiceEntry."""

    namespace: str
    name: str
    external: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A workload as far as policies look at it.

    waypoint  None: its labels tell
    services  behind a waypoint; of a plain workload nobody asks
    """

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    waypoint: bool | None = None
    services: tuple[ServiceRef, ...] = ()

    @property
    def gateway(self) -> str | None:
        """Name of the Gateway API gateway that this proxy serves."""
        return self.labels.get(GATEWAY_LABEL)

    @property
    def is_waypoint(self) -> bool:
        if self.waypoint is not None:
            return self.waypoint
        return self.labels.get(_MANAGED_LABEL) == _MESH_CONTROLLER

    @property
    def key(self) -> object:
        """Equal for places that the same policies are for."""
        return self.namespace, frozenset(self.labels.items()), self.is_waypoint, self.services

    def __str__(self) -> str:
        if self.name:
            return f"{self.namespace}/{self.name}"
        labels = ",".join(f"{k}={v}" for k, v in sorted(self.labels.items()))
        return f"{self.namespace}/({labels})" if labels else self.namespace


def applies(policy: Attachment, place: Place, root_namespace: str) -> bool:
    namespaces = {root_namespace, place.namespace}
    if place.is_waypoint:
        namespaces |= {service.namespace for service in place.services}
    if policy.namespace not in namespaces:
        return False
    is_gateway = place.gateway is not None or place.is_waypoint
    if policy.target_refs:
        return is_gateway and any(_targets(ref, policy, place, root_namespace) for ref in policy.target_refs)
    if place.is_waypoint or policy.namespace not in (root_namespace, place.namespace):
        return False
    return all(place.labels.get(key) == value for key, value in (policy.selector or {}).items())


def _targets(ref: TargetRef, policy: Attachment, place: Place, root_namespace: str) -> bool:
    match ref.group, ref.kind:
        case (group, "Gateway") if group == GATEWAY_API:
            return ref.name == place.gateway and policy.namespace == place.namespace
        case (group, "GatewayClass") if group == GATEWAY_API:
            return place.is_waypoint and ref.name == WAYPOINT_CLASS and policy.namespace == root_namespace
        case (group, "Service") if group == CORE:
            wanted = ServiceRef(policy.namespace, ref.name)
        case (group, "ServiceEntry") if group == ISTIO_NETWORKING:
            wanted = ServiceRef(policy.namespace, ref.name, external=True)
        case _:
            return False
    return place.is_waypoint and wanted in place.services
