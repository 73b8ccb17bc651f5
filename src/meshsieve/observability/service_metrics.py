"""Istio's standard metrics, computed from traffic instead of scraped from proxies, as OpenMetrics text.

What     ``istio_requests_total``, duration and size histograms for HTTP and gRPC, the byte and connection counters for
         TCP, with the labels that Istio puts on them.
Why      Dashboards and alerts that exist for a mesh work on a capture, and on what a policy change would make of it.
Source   istio.io, reference of standard metrics; OpenMetrics 1.0.0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from meshsieve.observability.calls import UNKNOWN, Call, Workload
from meshsieve.observability.histogram import BUCKETS, Histogram, HistogramCounter
from meshsieve.reports.escape import printable

_COUNTERS = {
    "istio_requests": "Requests handled.",
    "istio_tcp_sent_bytes": "Bytes sent in the direction of the response.",
    "istio_tcp_received_bytes": "Bytes received in the direction of the request.",
    "istio_tcp_connections_opened": "Connections opened.",
    "istio_tcp_connections_closed": "Connections closed.",
}
_HISTOGRAMS = {
    "istio_request_duration_milliseconds": "Time from a request to its response.",
    "istio_request_bytes": "Size of requests.",
    "istio_response_bytes": "Size of responses.",
}

Labels = tuple[tuple[str, str], ...]


class ServiceMetrics:
    """Sums of calls by their labels."""

    def __init__(self) -> None:
        self._counters: dict[str, dict[Labels, int]] = {name: defaultdict(int) for name in _COUNTERS}
        self._histograms: dict[str, dict[Labels, HistogramCounter]] = {
            name: defaultdict(HistogramCounter) for name in _HISTOGRAMS
        }

    def add(self, calls: Iterable[Call]) -> None:
        for call in calls:
            labels = call_labels(call)
            if call.protocol == "tcp":
                self._counters["istio_tcp_connections_opened"][labels] += call.count
                self._counters["istio_tcp_connections_closed"][labels] += call.closed
                self._counters["istio_tcp_received_bytes"][labels] += call.request_bytes
                self._counters["istio_tcp_sent_bytes"][labels] += call.response_bytes
                continue
            self._counters["istio_requests"][labels] += call.count
            for name, values in (
                ("istio_request_duration_milliseconds", call.duration_ms),
                ("istio_request_bytes", call.request_sizes),
                ("istio_response_bytes", call.response_sizes),
            ):
                if values.counts:
                    self._histograms[name][labels].merge(values)

    def text(self) -> str:
        """OpenMetrics text, series in a fixed order."""
        lines: list[str] = []
        for name, help_text in _COUNTERS.items():
            if series := self._counters[name]:
                lines += [f"# TYPE {name} counter", f"# HELP {name} {help_text}"]
                lines += [f"{name}_total{{{_text(labels)}}} {value}" for labels, value in sorted(series.items())]
        for name, help_text in _HISTOGRAMS.items():
            if histograms := self._histograms[name]:
                lines += [f"# TYPE {name} histogram", f"# HELP {name} {help_text}"]
                for labels, counter in sorted(histograms.items(), key=lambda item: item[0]):
                    lines += _histogram_lines(name, labels, counter.histogram)
        return "\n".join([*lines, "# EOF", ""])


def call_labels(call: Call) -> Labels:
    """The labels of a call's series, in Istio's order."""
    labels = [("reporter", call.reporter)]
    for side, workload in (("source", call.source), ("destination", call.destination)):
        labels += _workload_labels(side, workload)
    labels += [
        ("destination_service", call.service.host),
        ("destination_service_name", call.service.name),
        ("destination_service_namespace", call.service.namespace),
        ("request_protocol", call.protocol),
    ]
    if call.protocol != "tcp":
        labels.append(("response_code", str(call.response_code)))
    if call.protocol == "grpc":
        labels.append(("grpc_response_status", call.grpc_status))
    labels.append(("response_flags", call.flags))
    labels.append(("connection_security_policy", call.security))
    return tuple(labels)


def _workload_labels(side: str, workload: Workload) -> list[tuple[str, str]]:
    return [
        (f"{side}_workload", workload.name),
        (f"{side}_workload_namespace", workload.namespace),
        (f"{side}_principal", workload.principal),
        (f"{side}_app", workload.app),
        (f"{side}_version", workload.version),
        (f"{side}_cluster", workload.cluster),
        (f"{side}_canonical_service", workload.canonical_service),
        (f"{side}_canonical_revision", workload.canonical_revision),
    ]


def _histogram_lines(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines, seen = [], 0
    text = _text(labels)
    bounds = [*(repr(float(bound)) for bound in BUCKETS), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        seen += count
        lines.append(f'{name}_bucket{{{text},le="{bound}"}} {seen}')
    return [*lines, f"{name}_sum{{{text}}} {histogram.total:.6g}", f"{name}_count{{{text}}} {seen}"]


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value or UNKNOWN)}"' for name, value in labels)


def _escaped(value: str) -> str:
    return printable(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
