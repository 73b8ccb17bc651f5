"""Whether a backend reference may be used: its kind, the grant that it needs, and whether what it names is there."""

from __future__ import annotations

from collections.abc import Sequence

from meshsieve.mesh.gateway_api.model import NOT_PERMITTED, RESOLVED, BackendRef, Condition, Grant, Route
from meshsieve.mesh.objects import CORE, GATEWAY_API, ObjectStore
from meshsieve.mesh.services import Service, read_services

SERVICE_IMPORT = ("multicluster.x-k8s.io", "ServiceImport")
# Istio's backend by host name, which is no object.
HOSTNAME = ("networking.istio.io", "Hostname")


class Backends:
    """``assumed``: the objects hold no Service at all, so references to Services are taken as good."""

    def __init__(self, store: ObjectStore, grants: Sequence[Grant]) -> None:
        self.services: dict[tuple[str, str], Service] = {(s.namespace, s.name): s for s in read_services(store)}
        self.assumed = not self.services
        self._store = store
        self._grants = grants

    def check(self, backend: BackendRef, route: Route, *, mesh: bool = False) -> Condition:
        """RESOLVED, or why not. A mesh route needs no grant (GEP-1294)."""
        what = f"{backend.kind} {backend.namespace}/{backend.name}"
        kind = (backend.group, backend.kind)
        exists = self._store.find(backend.kind, backend.namespace, backend.name, backend.group) is not None
        if kind not in ((CORE, "Service"), SERVICE_IMPORT, HOSTNAME) and not exists:
            return Condition(False, "InvalidKind", f"no backend is of kind {backend.group}/{backend.kind}")
        if not mesh and not self.granted(
            (GATEWAY_API, route.kind, route.ref.namespace),
            (backend.group, backend.kind, backend.namespace, backend.name),
        ):
            message = f"no ReferenceGrant in {backend.namespace} lets {route.kind}s of {route.ref.namespace} use {what}"
            return Condition(False, NOT_PERMITTED, message)
        if kind == HOSTNAME:
            return RESOLVED
        if kind == (CORE, "Service"):
            return self._service(backend, what)
        return RESOLVED if exists else Condition(False, "BackendNotFound", f"{what} not found")

    def granted(self, source: tuple[str, str, str], target: tuple[str, str, str, str]) -> bool:
        """Whether objects of a (group, kind, namespace) may refer to a (group, kind, namespace, name): at home, or by a
        ReferenceGrant there."""
        group, kind, namespace, name = target
        if namespace == source[2]:
            return True
        return any(
            grant.namespace == namespace
            and source in grant.sources
            and any((g, k) == (group, kind) and n in (None, "", name) for g, k, n in grant.targets)
            for grant in self._grants
        )

    def _service(self, backend: BackendRef, what: str) -> Condition:
        if backend.port is None:
            return Condition(False, "PortNotSpecified", f"a port of {what} must be given")
        if self.assumed:
            return RESOLVED
        service = self.services.get((backend.namespace, backend.name))
        if service is None:
            return Condition(False, "BackendNotFound", f"{what} not found")
        if service.port(backend.port) is None:
            return Condition(False, "PortNotFound", f"{what} has no port {backend.port}")
        return RESOLVED
