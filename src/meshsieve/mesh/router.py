"""The router of a cluster: Istio, Gateway API and Ingress objects mixed, asked from where a request is seen.

A request is seen by a gateway (``gateway="namespace/name"``: an Istio Gateway or a Gateway API Gateway) or by the
sidecar of a client in the mesh (``source="namespace/workload"``, or a namespace and labels), or by that of the workload
that receives it (``receiver="namespace/workload"``). Without either, a
``source_ip`` that is a pod's means that pod; else the answer is that of the only gateway there is, or of a client
without labels in namespace ``default`` where the host is a Service of the mesh.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meshsieve.errors import UsageError
from meshsieve.mesh.gateway_api import Dialect, GatewayApi, dialect_of
from meshsieve.mesh.ingress import Ingresses
from meshsieve.mesh.istio.config import MeshOptions
from meshsieve.mesh.istio.mesh import DEFAULT_PORTS, IstioMesh, is_grpc, split_authority, with_claims
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import HostService
from meshsieve.mesh.match import MeshMatch
from meshsieve.mesh.objects import Objects, ObjectStore, read_objects
from meshsieve.mesh.workloads import Workload, find_workload
from meshsieve.policy import Diagnostic
from meshsieve.request import Request
from meshsieve.routes.model import Route
from meshsieve.routes.router import Match, Router

if TYPE_CHECKING:
    from meshsieve.explanation import Explanation

DEFAULT_NAMESPACE = "default"
INGRESS = "ingress:"


@dataclass(frozen=True)
class Viewpoint:
    """Where a request is seen: at a gateway (its name), or by the sidecar of a client."""

    gateway: str | None = None
    client: Proxy | None = None


class MeshRouter:
    """Routes of every proxy of a cluster.

    routes    every route met so far; ``Match.route_index`` is a position in it
    findings  what was dropped, is not evaluated, or is worth knowing
    """

    def __init__(self, store: ObjectStore, options: MeshOptions | None = None, dialect: Dialect | None = None) -> None:
        self.store = store
        self.istio = IstioMesh(store, options)
        self.gateway_api = GatewayApi(store, dialect or dialect_of(store), self.istio.http)
        self.ingresses = Ingresses(store, self.istio.http)
        self.routes: list[Route] = []
        self._bases: dict[int, int] = {}

    @property
    def findings(self) -> tuple[Diagnostic, ...]:
        return (*self.istio.findings, *self.gateway_api.diagnostics, *self.ingresses.findings)

    @property
    def gateways(self) -> list[str]:
        """Names of all gateways: Istio's, Gateway API's, and ``ingress:CLASS`` for each class of Ingress."""
        own = [g.key for g in self.istio.config.gateways]
        api = [f"{g.ref.namespace}/{g.ref.name}" for g in self.gateway_api.gateways]
        return [*own, *api, *(f"{INGRESS}{name}" for name in self.ingresses.classes)]

    def match(
        self,
        request: Request,
        *,
        gateway: str | None = None,
        source: str | None = None,
        source_namespace: str | None = None,
        source_labels: Mapping[str, str] | None = None,
        receiver: str | None = None,
        proxy: Proxy | None = None,
    ) -> Match:
        """What takes a request, as it is seen from one place.

        gateway           ``namespace/name`` of the gateway that it comes to, or ``ingress:CLASS``
        source            ``namespace/name`` of the client's pod or workload
        source_namespace, source_labels   of a client that is not among the objects
        receiver          ``namespace/name`` of the workload that it has come to; ``destination_port`` is the workload's
        proxy             the proxy itself, for callers that know it
        raises            UsageError for a place that does not exist, or is not given and cannot be told
        """
        seen = self.viewpoint(request, gateway, source, source_namespace, source_labels, receiver, proxy)
        return self._counted(*self.answer(request, seen))

    def explain(self, request: Request, **where: Any) -> Explanation:
        """Why a request takes its route: where it is seen and what takes it there, then each route of its virtual host
        in order with the conditions that fail. Arguments as for ``match``."""
        from meshsieve.mesh import explanation

        seen = self.viewpoint(request, **_places(where))
        return explanation.explain(request, seen, *self.answer(request, seen))

    def answer(self, request: Request, seen: Viewpoint) -> tuple[Match, Router | None]:
        """What takes a request as it is seen from a viewpoint, and the table that said so; None where no table was
        asked. Requests that differ only in what a table looks at (method, path, headers) meet the same table."""
        if seen.gateway is not None and any(g.key == seen.gateway for g in self.istio.config.gateways):
            return self.istio.answer(request, self.istio.gateway_proxy(seen.gateway))
        if seen.gateway is not None and seen.gateway.startswith(INGRESS):
            router = self.ingresses.router(seen.gateway.removeprefix(INGRESS))
            return router.match(request), router
        if seen.gateway is not None:
            found = self.gateway_api.match(request, gateway=seen.gateway)
            return found, self.gateway_api.router(request, gateway=seen.gateway)
        assert seen.client is not None
        return self._from_client(request, seen.client)

    def match_batch(self, requests: Iterable[Request], **where: Any) -> npt.NDArray[np.int32]:
        """int32 (n,): position in ``routes`` of what takes each request, -1 for none; arguments as for ``match``.
        Requests of one connection (host, scheme, addresses, ...) are asked of their table together."""
        asked = [with_claims(request) for request in requests]
        out = np.full(len(asked), -1, np.int32)
        connections: dict[Hashable, list[int]] = {}
        for number, request in enumerate(asked):
            connections.setdefault(_connection_key(request), []).append(number)
        tables: dict[int, tuple[Router, list[int]]] = {}
        for members in connections.values():
            first = asked[members[0]]
            _, router = self.answer(first, self.viewpoint(first, **_places(where)))
            if router is not None:
                tables.setdefault(id(router), (router, []))[1].extend(members)
        for router, members in tables.values():
            found = router.match_batch([asked[number] for number in members])
            out[members] = np.where(found < 0, -1, found + self._base(router))
        return out

    def viewpoint(
        self,
        request: Request,
        gateway: str | None = None,
        source: str | None = None,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        receiver: str | None = None,
        proxy: Proxy | None = None,
    ) -> Viewpoint:
        """raises  UsageError"""
        named = [place for place in (gateway, source, namespace or labels, receiver, proxy) if place]
        if len(named) > 1:
            raise UsageError(
                "a request is seen at a gateway, by a client's sidecar or by its receiver's: name one place"
            )
        if proxy is not None:
            return Viewpoint(client=proxy)
        if receiver is not None:
            return Viewpoint(client=replace(self._workload(receiver), kind="inbound"))
        if gateway is not None:
            if gateway not in self.gateways:
                known = ", ".join(self.gateways) or "none"
                raise UsageError(f"no gateway is called {gateway}; there are: {known}")
            return Viewpoint(gateway)
        if source is not None:
            return Viewpoint(client=self._workload(source))
        if namespace is not None or labels:
            return Viewpoint(client=Proxy("sidecar", namespace or DEFAULT_NAMESPACE, labels or {}))
        return self._told_by(request)

    def _workload(self, name: str) -> Proxy:
        home, slash, short = name.partition("/")
        if not slash:
            raise UsageError(f"'{name}' is not NAMESPACE/WORKLOAD")
        return _sidecar(find_workload(self.istio.config.workloads, home, short))

    def _told_by(self, request: Request) -> Viewpoint:
        if request.source_ip is not None:
            for workload in self.istio.config.workloads:
                if request.source_ip in workload.addresses:
                    return Viewpoint(client=_sidecar(workload))
        client = Proxy("sidecar", DEFAULT_NAMESPACE)
        gateways = self.gateways
        if not gateways or self._service(request, client) is not None:
            return Viewpoint(client=client)
        if len(gateways) == 1:
            return Viewpoint(gateways[0])
        raise UsageError(f"where is the request seen? name a gateway ({', '.join(gateways)}) or the client in the mesh")

    # --- clients in the mesh

    def _from_client(self, request: Request, client: Proxy) -> tuple[Match, Router | None]:
        """Routes that Gateway API attaches to the Service itself go first, then Istio's."""
        service = self._service(request, client) if client.kind == "sidecar" else None
        if service is not None and service.kubernetes and request.scheme == "http":
            port = request.destination_port or split_authority(request.authority)[1] or DEFAULT_PORTS["http"]
            name = f"{service.namespace}/{service.object.name}"
            if self._attached(name, port, client.namespace):
                table = self.gateway_api.mesh.table(name, port, client.namespace)
                found = self.gateway_api.mesh.match(request, service=name, port=port, client_namespace=client.namespace)
                return found, table.router
        return self.istio.answer(request, client)

    def _service(self, request: Request, client: Proxy) -> HostService | None:
        """The Service that a request is sent to: by its address, else by its host."""
        address = request.destination_ip
        if address is not None:
            return self.istio.config.registry.at_address(address)
        host, _ = split_authority(request.authority)
        return self.istio.service_named(host, client)

    def _attached(self, service: str, port: int, client: str) -> bool:
        """Whether a route is attached to the Service's port that applies to clients of the namespace."""
        namespace, _, name = service.partition("/")
        return any(
            (parent.namespace, parent.name) == (namespace, name)
            and parent.port in (None, port)
            and route.ref.namespace in (client, namespace)
            for route, parent in self.gateway_api.mesh.attached
        )

    def _counted(self, found: Match, router: Router | None) -> Match:
        """The same answer with its route counted over all tables."""
        if router is None or found.route_index < 0:
            return found
        return replace(found, route_index=self._base(router) + found.route_index)

    def _base(self, router: Router) -> int:
        """Position in ``routes`` of a table's first route."""
        if id(router) not in self._bases:
            self._bases[id(router)] = len(self.routes)
            self.routes += router.routes
        return self._bases[id(router)]


def _connection_key(request: Request) -> Hashable:
    """Requests with the same key come to the same table."""
    presented = None if request.tls is None else bool(request.tls.get("presented"))
    return (request.scheme, request.authority, request.source_ip, request.destination_ip, request.destination_port,
            request.sni, request.alpn, presented, is_grpc(request))  # fmt: skip


def _places(where: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``match`` as those of ``viewpoint``."""
    return {key.removeprefix("source_"): value for key, value in where.items()}


def _sidecar(workload: Workload) -> Proxy:
    return Proxy("sidecar", workload.namespace, workload.labels, workload.addresses, workload)


def from_kubernetes(objects: Objects, options: MeshOptions | None = None, dialect: Dialect | None = None) -> MeshRouter:
    """A router from objects of a cluster: Istio, Gateway API, Ingress and core Kubernetes, mixed.

    objects  paths (files, folders, "-"), text, mappings, or any number of these in a list
    dialect  what Gateway API leaves to implementations (``mesh.gateway_api.DIALECTS``); default: that of the controller
             which the objects show, else the API's own text
    raises   PolicyError with file:line:column and the object for what cannot be read or what the cluster refuses

    >>> router = from_kubernetes('''
    ... {apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: edge},
    ...  spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}}
    ... ---
    ... {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: shop},
    ...  spec: {hosts: [shop.example], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}}
    ... ''')
    >>> router.match(Request(authority="shop.example"), gateway="default/edge").cluster
    'outbound|80||web.default.svc.cluster.local'
    """
    return MeshRouter(read_objects(objects), options, dialect)


__all__ = ["MeshMatch", "MeshOptions", "MeshRouter", "Proxy", "Viewpoint", "from_kubernetes"]
