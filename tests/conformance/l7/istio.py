"""Istio objects and the listeners, virtual hosts and clusters that the real control plane makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from meshsieve.errors import MeshsieveError
from meshsieve.mesh.istio.config import MeshOptions
from meshsieve.mesh.istio.mesh import IstioMesh
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.listeners import PLAIN, TLS, Connection
from meshsieve.mesh.match import MeshMatch
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request
from meshsieve.routes.model import Forward, RouteConfiguration, VirtualHost
from tests.conformance.report import Report

# The proxies of the tests (data/l7/README.md).
GATEWAY = Proxy("gateway", "istio-system", {"istio": "ingressgateway"}, ("1.1.1.1",))
SIDECAR = Proxy("sidecar", "default", {}, ("1.1.1.1",))
ERRORS = {
    "no_listener": "ErrNoListener",
    "no_filter_chain": "ErrNoFilterChain",
    "tls_error": "ErrTLSError",
    "mtls_error": "ErrMTLSError",
    "protocol_error": "ErrProtocolError",
    "redirect_to_https": "ErrTLSRedirect",
}
RESULT_FIELDS = (
    "ListenerMatched", "FilterChainMatched", "RouteMatched", "RouteConfigMatched", "VirtualHostMatched",
    "ClusterMatched", "Error",
)  # fmt: skip


def run(folder: Path, report: Report) -> None:
    for name, check in (("simulation.json", simulation), ("sidecar_routes.json", sidecar_routes)):
        if (folder / name).is_file():
            check(folder / name, report)


def simulation(file: Path, report: Report) -> None:
    for number, test in enumerate(json.loads(file.read_text())["tests"]):
        where = f"{file.name} {test['func']} {test['name'] or number}"
        calls = [call for call in test["calls"] if "excluded" not in call]
        if not calls:
            continue
        at_gateway = "gateway_simulation" in test["source"]
        texts = [text for text in (test["istio_yaml"], test["kube_yaml"]) if text and text.strip()]
        try:
            mesh = IstioMesh(read_objects(texts), MeshOptions(domain="" if at_gateway else "cluster.local"))
        except MeshsieveError as error:
            report.wrong(where, f"refused: {error}")
            continue
        for call in calls:
            got = _result(_call(mesh, call["call"], GATEWAY if at_gateway else SIDECAR))
            expected = call["result"]
            asked = RESULT_FIELDS if expected.get("StrictMatch") else [k for k in RESULT_FIELDS if k in expected]
            report.check(
                f"{where}: {call['name']}",
                "answer",
                {k: got[k] for k in asked},
                {k: expected.get(k, "") for k in asked},
            )


def _call(mesh: IstioMesh, call: dict[str, Any], proxy: Proxy) -> MeshMatch:
    encrypted = call.get("TLS", "").lower() in ("tls", "mtls")
    presented = call.get("TLS", "").lower() == "mtls"
    alpn = call.get("Alpn") or ""
    if call.get("Protocol") == "TCP":
        protocols = (alpn,) if alpn else ()
        connection = Connection(
            call.get("Address", ""), call["Port"], call.get("Sni", ""), TLS if encrypted else PLAIN, protocols
        )
        return mesh.connect(connection, proxy, presented=presented, random_value=0)
    headers = [(name, value) for name, values in (call.get("Headers") or {}).items() for value in values]
    request = Request(
        scheme="https" if encrypted else "http",
        authority=call.get("HostHeader", ""),
        path=call.get("Path") or "/",
        headers=tuple(headers),
        destination_ip=call.get("Address"),
        destination_port=call["Port"],
        sni=call.get("Sni") or ("" if encrypted else None),
        alpn=alpn or None,
        tls={"presented": presented} if encrypted else None,
        random_value=0,
    )
    return mesh.match(request, proxy)


def _result(found: MeshMatch) -> dict[str, str]:
    error = ERRORS.get(found.action, "")
    if found.action == "no_route":
        error = "ErrNoRoute" if found.virtual_host is not None else "ErrNoVirtualHost"
    return {
        "ListenerMatched": found.listener,
        "FilterChainMatched": found.filter_chain,
        "RouteMatched": found.route or "",
        "RouteConfigMatched": found.route_config,
        "VirtualHostMatched": found.virtual_host or "",
        "ClusterMatched": found.cluster or "",
        "Error": error,
    }


def sidecar_routes(file: Path, report: Report) -> None:
    content = json.loads(file.read_text())
    for case in content["cases"]:
        if "excluded" in case:
            continue
        where = f"{file.name} {case['name']}"
        try:
            mesh = IstioMesh(read_objects([content["known_services_yaml"], *case["objects"]]))
            outbound = mesh.sidecar(Proxy("sidecar", case["proxy_namespace"]))
            names = {chain.handler.route_config for found in outbound.listeners for chain in found.chains
                     if hasattr(chain.handler, "route_config")}  # fmt: skip
            made = case["route_config"] in names
            config = outbound.route_configuration(case["route_config"]) if made else None
        except MeshsieveError as error:
            report.wrong(where, f"refused: {error}")
            continue
        expected = case["expected_vhost_clusters"]
        if expected is None:
            report.check(where, "route config", config, None)
            continue
        got = {name: _clusters(config, name, case["route_config"]) for name in expected}
        report.check(where, "clusters by virtual host", got, expected)


def _clusters(config: RouteConfiguration | None, name: str, port: str) -> list[str] | None:
    hosts: dict[str, VirtualHost] = {h.name: h for h in (config.virtual_hosts if config else ())}
    host = hosts.get(f"{name}:{port}") or hosts.get(name)
    if host is None:
        return None
    return [r.action.cluster or "" for r in host.routes if isinstance(r.action, Forward)]
