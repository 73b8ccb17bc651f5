"""Where a virtual service's ``tcp`` and ``tls`` rules send a connection, for a sidecar and for a gateway alike."""

from __future__ import annotations

from meshsieve.mesh.istio.config import IstioConfig
from meshsieve.mesh.istio.http_routes import cluster_name
from meshsieve.mesh.istio.model import L4Rule
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.listeners import TcpHandler


def tcp_handler(rule: L4Rule, port: int, config: IstioConfig, proxy: Proxy, missing: dict[str, str]) -> TcpHandler:
    """The rule's clusters by weight. port: what the client asked for; clusters that do not exist are entered, with the
    reason, into ``missing``."""
    clusters = []
    # Of several destinations those of weight 0 get nothing.
    for share in [s for s in rule.shares if len(rule.shares) == 1 or s.weight]:
        to = share.destination
        name, number = cluster_name(to, config.registry.named(to.host, proxy.namespace), port)
        if reason := config.missing(to, number, proxy):
            missing[name] = reason
        clusters.append((name, share.weight or 1))
    return TcpHandler(tuple(clusters), rule.source)
