"""A sidecar's inbound side: which local listener takes a connection to its workload.

Without ingress listeners every port that a Service of the workload leads to is one, the oldest Service first; with them
only those of the Sidecar are. An undetermined port looks at the first bytes. Requests have one route, to the
application; ports that nobody names pass through. Whether a peer may speak plain text is PeerAuthentication's.
Source: istio/istio pilot/pkg/networking/core/listener_inbound.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from meshsieve.mesh.istio.config import IstioConfig
from meshsieve.mesh.istio.http_routes import EVERYTHING
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.scope import choose_sidecar
from meshsieve.mesh.listeners import ANY_ADDRESS, FilterChain, HttpHandler, Listener, Listeners, TcpHandler
from meshsieve.mesh.services import AUTO, HTTP_PROTOCOLS
from meshsieve.model import Source
from meshsieve.routes.model import Forward, Route, RouteConfiguration, VirtualHost

PASSTHROUGH = "InboundPassthroughCluster"
HTTP_BYTES = ("http/1.0", "http/1.1", "h2c", "istio-http/1.0", "istio-http/1.1", "istio-h2")


class SidecarInbound:
    """Everything inbound of one sidecar."""

    def __init__(self, config: IstioConfig, proxy: Proxy) -> None:
        self.config, self.proxy = config, proxy
        self.missing: dict[str, str] = {}
        self.nobody = FilterChain(TcpHandler(((PASSTHROUGH, 1),)), tls="any", name="virtualInbound")
        self._routes: dict[str, RouteConfiguration] = {}

    @cached_property
    def listeners(self) -> tuple[Listener, ...]:
        out: dict[int, Listener] = {}
        for port, service_port, protocol, source in self._ports():
            if port not in out:
                out[port] = self._listener(port, service_port, protocol or AUTO, source)
        return tuple(out.values())

    @cached_property
    def places(self) -> Listeners:
        return Listeners(self.listeners)

    def _ports(self) -> Iterator[tuple[int, int, str, Source]]:
        """(port of the workload, of the Service, protocol, where it is written)."""
        sidecar = choose_sidecar(self.config, self.proxy)
        if sidecar is not None and sidecar.ingress:
            for entry in sidecar.ingress:
                yield entry.port, entry.port, entry.protocol, sidecar.object.source
            return
        workload = self.proxy.as_workload()
        for service in self.config.registry.services:
            for port in service.ports:
                target = service.target(port, workload)
                if target is not None and port.protocol != "udp":
                    yield target, port.number, port.protocol, service.object.source

    def _listener(self, port: int, service_port: int, protocol: str, source: Source) -> Listener:
        cluster = f"inbound|{port}||"
        forward = FilterChain(TcpHandler(((cluster, 1),), source), tls="any", name=f"{ANY_ADDRESS}_{port}")
        http = FilterChain(HttpHandler(cluster), tls="any", name=forward.name)
        route = Route("default", EVERYTHING, Forward(cluster), source=source)
        host = VirtualHost(f"inbound|http|{service_port}", (b"*",), (route,), source=source)
        self._routes[cluster] = RouteConfiguration(cluster, (host,))
        if protocol == AUTO:
            looking = FilterChain(http.handler, protocols=HTTP_BYTES, tls="any", name=forward.name)
            return Listener("virtualInbound", ANY_ADDRESS, port, (looking,), forward)
        return Listener("virtualInbound", ANY_ADDRESS, port, (), http if protocol in HTTP_PROTOCOLS else forward)

    def route_configuration(self, name: str) -> RouteConfiguration | None:
        return self._routes.get(name) if self.listeners else None
