"""PeerAuthentication: whether a workload's port takes plain text, mTLS, or both.

    PERMISSIVE   unless somebody says otherwise
    mesh         the policy of the root namespace that selects nothing
    namespace    the policy of the workload's namespace that selects nothing
    workload     the policy that selects the workload
    port         portLevelMtls of that policy, by the workload's port

Each level that sets a mode overrides the one before; UNSET and absence inherit. Of several policies at one level the
oldest counts, of equally old ones the first. A policy of the root namespace with a selector is ignored.
Source: istio/istio pilot/pkg/security/authn/policy_applier.go, pilot/pkg/model/authentication.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from meshsieve.authz.selection import Place
from meshsieve.importers.typed import Node
from meshsieve.mesh.objects import EPOCH, MeshObject
from meshsieve.model import Source

Mode = Literal["DISABLE", "PERMISSIVE", "STRICT"]
MODES: tuple[Mode, ...] = ("DISABLE", "PERMISSIVE", "STRICT")


@dataclass(frozen=True, slots=True)
class PeerAuthentication:
    """``mode`` and the modes of ``ports``: None inherits. ``selector`` {} selects nothing in particular."""

    namespace: str
    name: str
    selector: Mapping[str, str] = field(default_factory=dict)
    mode: Mode | None = None
    ports: Mapping[int, Mode | None] = field(default_factory=dict)
    created: datetime = EPOCH
    source: Source = field(default=Source(), compare=False)

    def selects(self, place: Place, root_namespace: str) -> bool:
        if self.namespace == root_namespace:
            return not self.selector
        labels = place.labels
        return self.namespace == place.namespace and all(labels.get(k) == v for k, v in self.selector.items())


@dataclass(frozen=True, slots=True)
class MtlsModes:
    """The mode of a workload, of the ports that have their own, and the policy that each was taken from."""

    mode: Mode = "PERMISSIVE"
    ports: Mapping[int, Mode] = field(default_factory=dict)
    source: PeerAuthentication | None = None
    workload_policy: PeerAuthentication | None = None

    def at(self, port: int | None) -> Mode:
        return self.mode if port is None else self.ports.get(port, self.mode)

    def policy_at(self, port: int | None) -> PeerAuthentication | None:
        own = self.workload_policy
        return own if own is not None and port is not None and own.ports.get(port) is not None else self.source


def read_peer_authentication(obj: MeshObject) -> PeerAuthentication:
    """raises  PolicyError with file:line:column"""
    spec = obj.node.node("spec")
    if spec is None:
        return PeerAuthentication(obj.namespace, obj.name, created=obj.created, source=obj.source)
    spec.only("selector", "mtls", "portLevelMtls")
    selector = spec.node("selector")
    labels = selector.only("matchLabels").text_map("matchLabels") if selector else {}
    ports = spec.node("portLevelMtls")
    if ports is not None and ports.data and not labels:
        raise spec.error("needs a selector with labels: ports belong to workloads", "portLevelMtls")
    by_port = _by_port(ports) if ports is not None else {}
    mode = _mode(spec.node("mtls"))
    return PeerAuthentication(obj.namespace, obj.name, labels, mode, by_port, obj.created, obj.source)


def mtls_modes(policies: Iterable[PeerAuthentication], root_namespace: str) -> MtlsModes:
    """What policies that all select one workload say together."""
    levels: list[PeerAuthentication | None] = [None, None, None]
    for policy in policies:
        in_root = policy.namespace == root_namespace
        if in_root and policy.selector:
            continue
        level = 2 if policy.selector else 0 if in_root else 1
        before = levels[level]
        if before is None or policy.created < before.created:
            levels[level] = policy
    mode: Mode = "PERMISSIVE"
    source = None
    for found in levels:
        if found is not None and found.mode is not None:
            mode, source = found.mode, found
    workload = levels[2]
    ports = {port: own or mode for port, own in workload.ports.items()} if workload else {}
    return MtlsModes(mode, ports, source, workload)


def _by_port(ports: Node) -> dict[int, Mode | None]:
    for key in ports.data:
        if not re.fullmatch(r"[1-9][0-9]{0,4}", key, re.ASCII) or int(key) > 65535:
            raise ports.error(f"{key!r} is no port", key)
    return {int(key): _mode(ports.node(key)) for key in ports.data}


def _mode(mtls: Node | None) -> Mode | None:
    if mtls is None:
        return None
    text = mtls.only("mode").choice("mode", ("UNSET", *MODES), "UNSET")
    return next((mode for mode in MODES if mode == text), None)
