"""Every route table of a cluster that can be told without a request: of gateways, ingress classes and Services with
routes of their own; and of the sidecar of a client."""

from __future__ import annotations

from collections.abc import Iterator

from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.listeners import HttpHandler, Listener
from meshsieve.mesh.router import INGRESS, MeshRouter
from meshsieve.routes.model import RouteConfiguration

Table = tuple[str, RouteConfiguration]


def gateway_tables(mesh: MeshRouter, gateway: str | None = None) -> Iterator[Table]:
    """(name, table) of every gateway, or of one; first Istio's, then Gateway API's, then ingress classes."""
    for own in mesh.istio.config.gateways:
        if gateway in (None, own.key):
            proxy = mesh.istio.gateway_proxy(own.key)
            state = mesh.istio.gateway(proxy)
            for name in _route_configs(state.listeners):
                config = state.route_configuration(name)
                if config is not None:
                    yield f"{own.key} {name}", config
    for port in mesh.gateway_api.ports:
        if gateway in (None, port.gateway):
            for title, router in port.routers.items():
                yield title or f"{port.gateway}:{port.number}", router.config
    for name, router in mesh.ingresses.routers.items():
        if gateway in (None, f"{INGRESS}{name}"):
            yield f"{INGRESS}{name}", router.config


def service_tables(mesh: MeshRouter) -> Iterator[Table]:
    """Tables of Services with Gateway API routes of their own, as clients of each namespace with one meet them."""
    seen = set()
    for route, parent in mesh.gateway_api.mesh.attached:
        service = f"{parent.namespace}/{parent.name}"
        known = mesh.gateway_api.backends.services.get((parent.namespace, parent.name))
        ports = [parent.port] if parent.port else [p.number for p in known.ports] if known else []
        for port in ports:
            key = (service, port, route.ref.namespace)
            if key in seen:
                continue
            seen.add(key)
            table = mesh.gateway_api.mesh.table(service, port, route.ref.namespace)
            if table.router is not None:
                yield f"Service {service}:{port} from {route.ref.namespace}", table.router.config


def sidecar_tables(mesh: MeshRouter, proxy: Proxy) -> Iterator[Table]:
    """Outbound tables of a client's sidecar."""
    state = mesh.istio.sidecar(proxy)
    for name in _route_configs(state.listeners):
        config = state.route_configuration(name)
        if config is not None:
            yield name, config


def _route_configs(listeners: tuple[Listener, ...]) -> list[str]:
    names: dict[str, None] = {}
    for listener in listeners:
        for chain in (*listener.chains, *([listener.default] if listener.default is not None else [])):
            if isinstance(chain.handler, HttpHandler):
                names[chain.handler.route_config] = None
    return list(names)
