"""L7 routing cases (data/l7/README.md is the format): configurations, requests, and the answers of real proxies."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.l7 import envoy, gateway_api, istio, router_check
from tests.conformance.report import Report

SETS = {
    "envoy-probes": envoy.probes,
    "envoy-config-impl": envoy.config_impl,
    "envoy-router-check": router_check.run,
    "envoy-gateway": envoy.gateway_configs,
    "gateway-api": gateway_api.run,
    "istio": istio.run,
}


def run(folder: Path) -> Report:
    """The whole folder, or one of its sets by itself."""
    report = Report()
    if folder.name in SETS:
        SETS[folder.name](folder, report)
        return report
    for name, check in SETS.items():
        if (folder / name).is_dir():
            check(folder / name, report)
    return report
