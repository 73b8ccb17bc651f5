"""Cases of Gateway API's own conformance tests: manifests, a request, and what has to answer.

A backend is named by the beginning of its pods' names: the Deployments that the Service's selector picks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meshsieve.errors import MeshsieveError
from meshsieve.mesh.gateway_api import GatewayApi
from meshsieve.mesh.objects import ObjectStore, read_objects
from meshsieve.mesh.workloads import read_workloads
from meshsieve.policy import SourceFile
from meshsieve.request import Request
from meshsieve.routes import Match, Router
from meshsieve.routes.http_options import HttpOptions, RequestView, view
from meshsieve.routes.model import Forward
from meshsieve.routes.outcome import apply_edits
from tests.conformance.report import Report

MESH_NAMESPACE = "gateway-conformance-mesh"
GRPC_CODES = {404: "UNIMPLEMENTED"}
DEFAULT_PORTS = {"http": 80, "https": 443}


def run(folder: Path, report: Report) -> None:
    for file in sorted((folder / "cases").glob("*.json")):
        test = json.loads(file.read_text())
        for number, case in enumerate(test["cases"]):
            if "excluded" in case:
                continue
            where = f"{file.name} case {number} (line {case['line']})"
            try:
                answer = _Question(folder / "manifests", test["manifests"], case)
                problems = [p for gateway in answer.gateways() for p in answer.problems(gateway)]
            except MeshsieveError as error:
                problems = [str(error)]
            if problems:
                report.wrong(where, "; ".join(problems))
            else:
                report.right()


class _Question:
    def __init__(self, folder: Path, manifests: list[str], case: dict[str, Any]) -> None:
        files = [SourceFile(name, (folder / name).read_text()) for name in manifests]
        store = read_objects(files, keep="last")
        deleted = {tuple(each) for each in case.get("deleted", ())}
        objects = [o for o in store.objects if (o.kind, o.namespace, o.name) not in deleted]
        self.store = ObjectStore(objects)
        self.api = GatewayApi(self.store)
        self.case = case
        self.expect = case["expect"]
        self.given = case.get("request", {})

    def gateways(self) -> list[str | None]:
        if self.case.get("mesh_client"):
            return [None]
        several: list[str | None] = self.case.get("each_of_gateways") or [self.case["gateway"]]
        return several

    def request(self) -> Request:
        headers = tuple(self.given.get("headers", {}).items())
        grpc = "grpc" in self.given or self.given.get("protocol") == "grpc"
        if grpc:
            headers += (("content-type", "application/grpc"),)
        host = next((v for k, v in headers if k.lower() == "host"), self.given.get("host", "any.example"))
        return Request(
            method="POST" if grpc else self.given.get("method") or "GET",
            scheme="https" if "sni" in self.given else "http",
            authority=host,
            path="/" + self.given["grpc"] if "grpc" in self.given else self.given.get("path") or "/",
            headers=tuple((k, v) for k, v in headers if k.lower() != "host"),
            sni=self.given.get("sni"),
        )

    def match(self, gateway: str | None) -> tuple[Match, Router | None]:
        """The answer, and the table that it comes from."""
        request = self.request()
        if gateway is None:
            host, _, port = self.given["host"].partition(":")
            name, _, namespace = host.partition(".")
            service = f"{namespace or MESH_NAMESPACE}/{name}"
            client = self.case.get("client_namespace", MESH_NAMESPACE)
            found = self.api.mesh.match(request, service=service, port=int(port or 80), client_namespace=client)
            return found, self.api.mesh.table(service, int(port or 80), client).router
        listener = self.case.get("listener")
        if all(listener != li.name for li in self.api.listeners):
            listener = None  # listenerset-http-routing names one that its manifests do not define
        found = self.api.match(request, gateway=gateway, listener=listener)
        return found, self.api.router(request, gateway=gateway, listener=listener)

    def problems(self, gateway: str | None) -> Iterator[str]:
        found, router = self.match(gateway)
        expect = self.expect
        if "connection" in expect:
            if found.action != "closed":
                yield f"the connection is not closed but {found.action}"
            return
        status = 200 if found.status is None and found.action != "closed" else found.status
        if "status" in expect and status not in expect["status"]:
            yield f"status {status} ({found.reason}), expected {expect['status']}"
            return
        if "grpc_code" in expect and found.matched:
            yield f"taken by {found.route}, expected {expect['grpc_code']}"
        if "backend" in expect:
            yield from self._backend(found)
        if "weights" in expect:
            shares = self._shares(found)
            if any(abs(shares.get(k, 0.0) - v) > 1e-9 for k, v in expect["weights"].items()):
                yield f"shares {shares}, expected {expect['weights']}"
        if "redirect" in expect:
            yield from self._redirect(found)
        if router is not None and found.matched:
            yield from self._upstream(router, found, expect.get("upstream_request", {}))
            yield from self._response(router, found)

    # --- parts of an expectation

    def _pods(self, cluster: str) -> set[tuple[str, str]]:
        """(namespace, name) of the workloads behind a cluster called namespace/name:port."""
        namespace, _, rest = cluster.partition("/")
        service = self.api.backends.services.get((namespace, rest.partition(":")[0]))
        if service is None:
            return set()
        workloads = [w for w in read_workloads(self.store) if w.namespace == namespace]
        return {(w.namespace, w.name) for w in workloads if service.selector and w.selected_by(service.selector)}

    def _backend(self, found: Match) -> Iterator[str]:
        clusters = [found.cluster] if found.cluster else [name for name, weight in found.clusters if weight]
        pods = {pod for cluster in clusters for pod in self._pods(cluster)}
        wanted = self.expect["backend"]
        namespace = self.expect.get("namespace")
        right = [p for p in pods if p[1].startswith(wanted) and namespace in (None, p[0])]
        if not right:
            yield f"backends {sorted(pods)} of {clusters} ({found.reason}), expected {namespace}/{wanted}"

    def _shares(self, found: Match) -> dict[str, float]:
        clusters = found.clusters or ((found.cluster, 1),)
        total = sum(weight for _, weight in clusters)
        shares: dict[str, float] = {}
        for cluster, weight in clusters:
            for _, name in self._pods(cluster or ""):
                shares[name] = shares.get(name, 0.0) + weight / total
        return shares

    def _redirect(self, found: Match) -> Iterator[str]:
        scheme, _, rest = (found.location or "").partition("://")
        authority, slash, path = rest.partition("/")
        host, _, port = authority.partition(":")
        wanted, request = self.expect["redirect"], self.request()
        got = {"scheme": scheme, "host": host, "path": slash + path}
        expected = {"scheme": wanted.get("scheme", request.scheme), "path": wanted.get("path", request.path)}
        expected["host"] = wanted.get("host", host)
        if got != expected:
            yield f"redirect to {found.location}, expected {wanted}"
        default = DEFAULT_PORTS[expected["scheme"]]
        if int(port or default) != int(wanted.get("port") or default):
            yield f"redirect to {found.location}, expected {wanted}"

    def _upstream(self, router: Router, found: Match, wanted: dict[str, Any]) -> Iterator[str]:
        host = wanted.get("host", found.authority)
        if (found.path, found.authority) != (wanted.get("path", found.path), host):
            yield f"sent upstream {found.authority}{found.path}, expected {wanted}"
        seen = self._seen()
        edited = apply_edits(seen, [router.routes[found.route_index].edits, *_share_edits(router, found)])
        for name, value in wanted.get("headers", {}).items():
            got = b",".join(edited.lines(name.lower().encode())).decode()
            if got != value:
                yield f"header {name} is {got!r} upstream, expected {value!r}"
        for name in wanted.get("absent_headers", ()):
            if edited.lines(name.lower().encode()):
                yield f"header {name} is still there upstream"

    def _seen(self) -> RequestView:
        seen = view(self.request(), HttpOptions())
        assert isinstance(seen, RequestView)
        return seen

    def _response(self, router: Router, found: Match) -> Iterator[str]:
        wanted, absent = self.expect.get("response_headers", {}), self.expect.get("absent_response_headers", ())
        seen = self._seen()
        seen.headers = []
        edited = apply_edits(seen, [router.routes[found.route_index].response_edits])
        for name, value in wanted.items():
            if [value.encode()] != edited.lines(name.lower().encode()):
                yield f"response header {name} is {edited.lines(name.lower().encode())}, expected {value!r}"
        for name in absent:
            if edited.lines(name.lower().encode()):
                yield f"response header {name} is set"


def _share_edits(router: Router, found: Match) -> list[Any]:
    """Edits of the weighted cluster that took the request; all shares of one route where chance decides."""
    action = router.routes[found.route_index].action
    shares = action.weighted if isinstance(action, Forward) else ()
    chosen = [s for s in shares if found.cluster in (None, s.name)]
    return [s.edits for s in chosen[:1]]
