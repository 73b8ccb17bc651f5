"""A proxy of the mesh: what decides which configuration it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshsieve.mesh.workloads import Workload


@dataclass(frozen=True)
class Proxy:
    """kind "gateway": a workload that runs Gateways; "sidecar": the proxy beside an application, for what that sends;
    "inbound": the same for what comes to it."""

    kind: Literal["sidecar", "gateway", "inbound"]
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    workload: Workload | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Proxies with the same key get the same configuration."""
        return self.kind, self.namespace, tuple(sorted(self.labels.items())), self.addresses

    def as_workload(self) -> Workload:
        return self.workload or Workload(self.namespace, "", self.labels, addresses=self.addresses)
