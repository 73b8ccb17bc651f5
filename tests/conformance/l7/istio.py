"""Istio objects and the listeners, virtual hosts and clusters that the real control plane makes of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from meshsieve.errors import MeshsieveError
from meshsieve.mesh.istio.analyzers import ANALYZERS
from meshsieve.mesh.istio.config import MeshOptions
from meshsieve.mesh.istio.mesh import IstioMesh
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.world import Finding, World
from meshsieve.mesh.listeners import PLAIN, TLS, Connection
from meshsieve.mesh.match import MeshMatch
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request
from meshsieve.routes.model import Forward, RouteConfiguration, VirtualHost
from tests.conformance.report import Report

# The proxies of the tests (data/l7/README.md).
GATEWAY = Proxy("gateway", "istio-system", {"istio": "ingressgateway"}, ("1.1.1.1",))
SIDECAR = Proxy("sidecar", "default", {}, ("1.1.1.1",))
ANY_CALL_ADDRESS = "1.3.3.7"  # where a call goes that names no address
# What clients of the tests offer, where a call does not say.
ALPN = {
    ("tls", "HTTP"): "http/1.1",
    ("tls", "HTTP2"): "h2",
    ("mtls", "HTTP"): "istio-http/1.1",
    ("mtls", "HTTP2"): "istio-h2",
    ("mtls", "TCP"): "istio",
}
ERRORS = {
    "no_listener": "ErrNoListener",
    "no_filter_chain": "ErrNoFilterChain",
    "tls_error": "ErrTLSError",
    "mtls_error": "ErrMTLSError",
    "protocol_error": "ErrProtocolError",
    "redirect_to_https": "ErrTLSRedirect",
}
AUTO_ALLOCATE = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true", ISTIO_META_DNS_AUTO_ALLOCATE: "true"}}
"""
RESULT_FIELDS = (
    "ListenerMatched", "FilterChainMatched", "RouteMatched", "RouteConfigMatched", "VirtualHostMatched",
    "ClusterMatched", "Error",
)  # fmt: skip


def run(folder: Path, report: Report) -> None:
    for name, check in (("simulation.json", simulation), ("sidecar_routes.json", sidecar_routes)):
        if (folder / name).is_file():
            check(folder / name, report)
    if (folder / "analyzers" / "expected.json").is_file():
        analyzers(folder / "analyzers", report)


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
    address = call.get("Address") or ("" if proxy.kind == "gateway" else ANY_CALL_ADDRESS)
    alpn = call.get("Alpn") or ALPN.get((call.get("TLS", "").lower(), call.get("Protocol", "")), "")
    if call.get("Protocol") == "TCP":
        protocols = (alpn,) if alpn else ()
        connection = Connection(address, call["Port"], call.get("Sni", ""), TLS if encrypted else PLAIN, protocols)
        return mesh.connect(connection, proxy, presented=presented, random_value=0)
    headers = [(name, value) for name, values in (call.get("Headers") or {}).items() for value in values]
    request = Request(
        scheme="https" if encrypted else "http",
        authority=call.get("HostHeader", ""),
        path=call.get("Path") or "/",
        headers=tuple(headers),
        destination_ip=address or None,
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


def analyzers(folder: Path, report: Report) -> None:
    """A test names the findings of one analyzer of Istio's, not which one: some analyzer of ours must find exactly
    these. Where it expects none, those of the most similar file that expects some must be silent, else all whose
    subject the file's name begins with."""
    tests = [t for t in json.loads((folder / "expected.json").read_text())["tests"] if "excluded" not in t]
    fitting: dict[str, str] = {}  # file -> analyzer that finds what is expected
    silent = []
    for test in tests:
        where, file = f"analyzers {test['name']}", test["files"][0]
        try:
            world = World(
                read_objects([*(folder / name for name in test["files"]), *_stated(test["name"])], keep="last")
            )
            found = {name: sorted(_shown(f) for f in analyzer(world)) for name, analyzer in ANALYZERS.items()}
        except MeshsieveError as error:
            report.wrong(where, str(error))
            continue
        expected = sorted((entry["code"], entry["resource"].replace(" default/", " ")) for entry in test["expected"])
        if not expected:
            silent.append((where, file, found))
            continue
        codes = {code for code, _ in expected}
        best = max(found, key=lambda name: (found[name] == expected, sum(code in codes for code, _ in found[name])))
        missing = [entry for entry in expected if entry not in found[best]]
        if missing and _taken_out(folder / file) and {code for code, _ in missing} == {"InvalidGatewayCredential"}:
            report.note(
                f"{where}: the certificates were taken out of the data, so whether one has expired is unknowable"
            )
        elif report.check(where, "findings", found[best], expected):
            fitting[where + file] = best
    for where, file, found in silent:
        near = max(fitting, key=lambda other: len(_words(where + file) & _words(other)))
        subject = file.replace("-", "_").split("_")[0]
        alike = len(_words(where + file) & _words(near)) > 1
        names = [fitting[near]] if alike else [n for n in found if n.split(".")[0].lower() == subject]
        report.check(where, "findings", {name: found[name] for name in names if found[name]}, {})


def _words(text: str) -> set[str]:
    """Words of a test's and a file's name, by their first letters."""
    words = re.findall(r"[A-Z]?[a-z]+", text.removesuffix(".yaml"))
    return {word.lower()[:7] for word in words if word != "analyzers"}


def _stated(name: str) -> list[str]:
    """Mesh configuration that a test's name states and its files do not hold."""
    if "ISTIO_META_DNS_AUTO_ALLOCATE enabled" not in name:
        return []
    return [AUTO_ALLOCATE]


def _taken_out(file: Path) -> bool:
    return "UkVEQUNURUQ=" in file.read_text()


def _shown(finding: Finding) -> tuple[str, str]:
    return finding.code, finding.object.title.replace(" default/", " ")
