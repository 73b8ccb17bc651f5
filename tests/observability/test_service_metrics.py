"""Istio's metrics as OpenMetrics text, read back by the Prometheus project's own parser."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.observability.calls import Call, Service, Workload
from meshsieve.observability.histogram import Histogram
from meshsieve.observability.service_metrics import ServiceMetrics

parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="pip install prometheus-client")

PRODUCT = Workload.of_labels("productpage-v1", "shop", {"app": "productpage", "version": "v1"}, cluster="c1")
REVIEWS = Workload.of_labels("reviews-v2", "shop", {"app": "reviews", "version": "v2"}, cluster="c1")
SERVICE = Service("reviews.shop.svc.cluster.local", "reviews", "shop")


def samples(*calls: Call) -> dict[str, list[tuple[dict[str, str], float]]]:
    metrics = ServiceMetrics()
    metrics.add(calls)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    family: Any
    for family in parser.text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_requests_are_counted_by_their_labels() -> None:
    call = Call(PRODUCT, REVIEWS, SERVICE, "http", 200, count=3, security="mutual_tls")
    found = samples(call, call, Call(PRODUCT, REVIEWS, SERVICE, "http", 503, flags="UH"))
    totals = {labels["response_code"]: value for labels, value in found["istio_requests_total"]}
    assert totals == {"200": 6, "503": 1}
    labels = next(labels for labels, _ in found["istio_requests_total"] if labels["response_code"] == "503")
    assert labels["source_workload"] == "productpage-v1"
    assert labels["destination_canonical_service"] == "reviews"
    assert labels["destination_canonical_revision"] == "v2"
    assert labels["destination_service"] == "reviews.shop.svc.cluster.local"
    assert labels["response_flags"] == "UH"
    assert labels["source_principal"] == "unknown"


def test_durations_and_sizes_fall_into_envoys_buckets() -> None:
    call = Call(
        PRODUCT,
        REVIEWS,
        SERVICE,
        "http",
        200,
        count=3,
        duration_ms=Histogram.of((0.5, 0.6, 4000)),
        request_sizes=Histogram.of((10, 2_000_000)),
    )
    found = samples(call)
    buckets = {labels["le"]: value for labels, value in found["istio_request_duration_milliseconds_bucket"]}
    assert (buckets["0.5"], buckets["1.0"], buckets["2500.0"], buckets["5000.0"], buckets["+Inf"]) == (1, 2, 2, 3, 3)
    assert found["istio_request_duration_milliseconds_sum"][0][1] == pytest.approx(4001.1)
    sizes = {labels["le"]: value for labels, value in found["istio_request_bytes_bucket"]}
    assert (sizes["1800000.0"], sizes["3600000.0"]) == (1, 2)


def test_tcp_has_connections_and_bytes_and_no_response_code() -> None:
    found = samples(Call(PRODUCT, REVIEWS, SERVICE, "tcp", count=5, closed=4, request_bytes=100, response_bytes=900))
    assert found["istio_tcp_connections_opened_total"][0][1] == 5
    assert found["istio_tcp_connections_closed_total"][0][1] == 4
    assert found["istio_tcp_received_bytes_total"][0][1] == 100
    assert found["istio_tcp_sent_bytes_total"][0][1] == 900
    assert "response_code" not in found["istio_tcp_sent_bytes_total"][0][0]


def test_grpc_has_its_own_status() -> None:
    found = samples(Call(PRODUCT, REVIEWS, SERVICE, "grpc", 200, grpc_status="14"))
    assert found["istio_requests_total"][0][0]["grpc_response_status"] == "14"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'x",evil="1', "\x1b[31m", "\u202e", "\ud800", "# EOF\n"])
def test_a_hostile_name_stays_one_label(name: str) -> None:
    found = samples(Call(Workload(name), REVIEWS, SERVICE, "http", 200))
    [(labels, value)] = found["istio_requests_total"]
    assert value == 1
    assert "evil" not in labels
    assert labels["source_workload"].startswith(name[0] if name.isprintable() else "")
