"""Route configurations that the real Envoy answered: envoy-probes and envoy-config-impl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meshsieve.errors import MeshsieveError
from meshsieve.importers.yaml_source import load_documents
from meshsieve.request import Request
from meshsieve.routes import HttpOptions, Match, Router, from_envoy
from tests.conformance.report import Report


def request_of(case: dict[str, Any]) -> Request:
    headers = tuple((name, value) for name, value in case.get("headers", ()))
    scheme = next((v for k, v in headers if k.lower() == "x-forwarded-proto"), case.get("scheme", "http"))
    return Request(
        method=case.get("method", "GET"),
        scheme=scheme,
        authority=case.get("authority", ""),
        path=case["path"],
        headers=headers,
        random_value=case.get("random_value"),
    )


def probes(folder: Path, report: Report) -> None:
    for probe in json.loads((folder / "probes.json").read_text())["probes"]:
        where = f"probe {probe['probe']}"
        try:
            router = from_envoy(probe["route_config"], HttpOptions(**probe.get("hcm_options", {})))
        except MeshsieveError as error:
            report.wrong(where, f"refused: {error}")
            continue
        for case in probe["requests"]:
            if "excluded" in case:
                continue
            found = router.match(request_of(case))
            # Every action of the probes is a direct response, so its status says which route answered.
            got = {"status": found.status, "vhost": found.virtual_host if found.matched else None}
            got |= {"route_index": _index_in_host(router, found), "name": found.route}
            expected = {key: case["envoy"][key] for key in got}
            report.check(
                where, f"{case['method']} {case['authority']}{case['path']} {case.get('headers', '')}", got, expected
            )


def config_impl(folder: Path, report: Report) -> None:
    for file in sorted(folder.glob("*.json")):
        for block in json.loads(file.read_text())["blocks"]:
            if block["envoy_verdict"] == "test-only extension" or "excluded" in block:
                continue
            where = f"{block['test']} block {block['block']}"
            try:
                router = from_envoy(block["route_config"])
                refusal = ""
            except MeshsieveError as error:
                refusal = str(error)
            accepted = block["envoy_verdict"] == "accepted"
            if not report.check(where, f"acceptance ({refusal or 'accepted'})", not refusal, accepted) or refusal:
                continue
            for case in block.get("requests", ()):
                if "excluded" not in case:
                    _answer(router, case, where, report)


# Two virtual hosts of these claim one domain, so the real Envoy refuses them (data/l7/README.md); others of the corpus
# that it refuses for filter settings are fine as to routing.
SHARED_DOMAIN = {
    "client-listener-scoped-timeout",
    "client-timeout",
    "multiple-listeners-same-port",
    "multiple-listeners-same-port-max-request-headers-kb",
}


def gateway_configs(folder: Path, report: Report) -> None:
    """Route configurations that Envoy Gateway generates: which of them load."""
    for file in sorted(folder.glob("*.yaml")):
        name = file.name.removesuffix(".routes.yaml")
        try:
            for config in load_documents(file.read_text(), file.name)[0]:
                from_envoy(config)
            refusal = ""
        except MeshsieveError as error:
            refusal = str(error)
        report.check(name, f"acceptance ({refusal or 'accepted'})", bool(refusal), name in SHARED_DOMAIN)


def _answer(router: Router, case: dict[str, Any], where: str, report: Report) -> None:
    found = router.match(request_of(case))
    envoy = case["envoy"]
    got: dict[str, Any] = {"matched": found.matched}
    if "vhost" in envoy:
        got["vhost"] = found.virtual_host if found.matched or envoy["vhost"] is not None else None
    if "route_index" in envoy:
        got["route_index"] = _index_in_host(router, found)
    if "status" in envoy:
        got["status"] = 200 if found.status is None else found.status
    if "cluster_one_of" in envoy:
        envoy = {**envoy, "cluster_one_of": sorted(envoy["cluster_one_of"])}
        got["cluster_one_of"] = sorted(name for name, weight in found.clusters if weight)
    elif "cluster" in envoy:
        # Where only chance decides, any cluster that it can choose is right.
        possible = {name for name, weight in found.clusters if weight}
        by_chance = found.cluster is None and envoy["cluster"] in possible
        got["cluster"] = envoy["cluster"] if by_chance else found.cluster
    for key, value in (("location", found.location), ("up_path", found.path), ("up_authority", found.authority)):
        if key in envoy:
            got[key] = value
    what = f"{case.get('method', 'GET')} {case.get('authority')}{case['path']} {case.get('headers', '')}"
    report.check(where, what, got, {key: envoy[key] for key in got})


def _index_in_host(router: Router, found: Match) -> int | None:
    """Position among the routes of its virtual host, as the facts count."""
    if not found.matched:
        return None
    from meshsieve.routes.model import host_routes

    position = found.route_index
    for host in router.config.virtual_hosts:
        count = len(list(host_routes(host)))
        if position < count:
            return position
        position -= count
    return None
