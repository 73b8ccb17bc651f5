"""Kubernetes Gateway API: which listener takes a route, which route takes a request, and what becomes of both."""

from meshsieve.mesh.gateway_api.cluster import GatewayApi, Port, dialect_of
from meshsieve.mesh.gateway_api.model import DIALECTS, ENVOY_GATEWAY, ISTIO, STANDARD, Dialect, RouteStatus

__all__ = [
    "DIALECTS",
    "ENVOY_GATEWAY",
    "ISTIO",
    "STANDARD",
    "Dialect",
    "GatewayApi",
    "Port",
    "RouteStatus",
    "dialect_of",
]
