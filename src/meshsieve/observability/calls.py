"""What metrics and graphs count: calls from one workload to another, with what the proxies would report.

A *call* is a request (HTTP, gRPC) or a connection (TCP). ``Call`` is one group of equal calls; the labels are those of
Istio's standard metrics, where what is not known says ``unknown``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshsieve.observability.histogram import NO_VALUES, Histogram

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Workload:
    """One end of a call. principal: the identity that mutual TLS proved, ``spiffe://...``."""

    name: str = UNKNOWN
    namespace: str = UNKNOWN
    cluster: str = UNKNOWN
    app: str = UNKNOWN
    version: str = UNKNOWN
    canonical_service: str = UNKNOWN
    canonical_revision: str = "latest"
    principal: str = UNKNOWN

    @staticmethod
    def of_labels(
        name: str, namespace: str, labels: Mapping[str, str], *, cluster: str = UNKNOWN, principal: str = UNKNOWN
    ) -> Workload:
        """A workload by its labels: ``app`` and ``version``, and the canonical names as Istio derives them."""
        service = (
            labels.get("service.istio.io/canonical-name")
            or labels.get("app.kubernetes.io/name")
            or labels.get("app")
            or name
        )
        revision = (
            labels.get("service.istio.io/canonical-revision")
            or labels.get("app.kubernetes.io/version")
            or labels.get("version")
            or "latest"
        )
        app, version = labels.get("app") or UNKNOWN, labels.get("version") or UNKNOWN
        return Workload(name, namespace, cluster, app, version, service, revision, principal)


@dataclass(frozen=True, slots=True)
class Service:
    """The service that was called: its host name, and name and namespace where it is one of the cluster's."""

    host: str = UNKNOWN
    name: str = UNKNOWN
    namespace: str = UNKNOWN


@dataclass(frozen=True, slots=True)
class Call:
    """A group of equal calls.

    protocol       http, grpc, tcp
    response_code  of HTTP; 0 = no response was seen (Envoy's convention)
    flags          Envoy's response flags, "-" for none
    security       mutual_tls, none, or unknown (what the caller's side reports)
    reporter       source or destination: whose proxy would report it
    count          requests, or connections opened; closed: connections that ended
    duration_ms    of the requests whose responses were seen
    """

    source: Workload
    destination: Workload
    service: Service
    protocol: str
    response_code: int = 0
    grpc_status: str = ""
    flags: str = "-"
    security: str = UNKNOWN
    reporter: str = "destination"
    count: int = 1
    closed: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    duration_ms: Histogram = NO_VALUES
    request_sizes: Histogram = NO_VALUES
    response_sizes: Histogram = NO_VALUES

    @property
    def failed(self) -> bool:
        """An error by Kiali's default: a 4xx or 5xx status, a gRPC status other than 0, no response."""
        if self.protocol == "tcp":
            return False
        if self.protocol == "grpc" and self.grpc_status not in ("", "0"):
            return True
        return self.response_code >= 400 or self.response_code == 0
