"""L7 routing cases (data/l7/README.md is the format): configurations, requests, and the answers of real proxies."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.l7 import envoy, gateway_api, gateway_goldens, istio, router_check
from tests.conformance.l7.twice import asked_twice
from tests.conformance.report import Report

SETS = {
    "envoy-probes": envoy.probes,
    "envoy-config-impl": envoy.config_impl,
    "envoy-router-check": router_check.run,
    "envoy-gateway/route-configs": envoy.gateway_configs,
    "envoy-gateway/gateway-api-to-ir": gateway_goldens.envoy_gateway,
    "gateway-api": gateway_api.run,
    "istio": istio.run,
    "istio/gateway-api-to-vs": gateway_goldens.istio,
}


def run(folder: Path) -> Report:
    """The whole folder, or some of its sets by themselves."""
    report = Report()
    for name, check in SETS.items():
        place = _place(folder, name)
        if place is not None:
            with asked_twice(report):
                check(place, report)
    return report


def _place(folder: Path, name: str) -> Path | None:
    """Where a set stands, if ``folder`` is all of the data, a part of it, or the set itself."""
    parts = name.split("/")
    for depth in range(len(parts) + 1):
        if depth and folder.name != parts[depth - 1]:
            continue
        place = folder.joinpath(*parts[depth:])
        if place.exists():
            return place
    return None
