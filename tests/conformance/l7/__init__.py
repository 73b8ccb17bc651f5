"""L7 routing cases (data/l7/README.md is the format): configurations, requests, and the answers of real proxies."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.l7 import envoy, router_check
from tests.conformance.report import Report


def run(folder: Path) -> Report:
    report = Report()
    for name, check in (
        ("envoy-probes", envoy.probes),
        ("envoy-config-impl", envoy.config_impl),
        ("envoy-router-check", router_check.run),
        ("envoy-gateway", envoy.gateway_configs),
    ):
        if (folder / name).is_dir():
            check(folder / name, report)
    for name in ("gateway-api", "istio"):
        if (folder / name).is_dir():
            report.skipped(name, "Istio and Gateway API objects are not read yet; only Envoy route configurations are")
    return report
