"""What Istio and Envoy Gateway make of Gateway API objects: the order of routes, where they go, and statuses.

Both add Services in their test code that no file holds. So a golden that says BackendNotFound cannot be told from one
that does not, and is noted instead of compared, except where the set's own README or its names say which are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from meshsieve.errors import MeshsieveError
from meshsieve.mesh.gateway_api import ENVOY_GATEWAY, ISTIO, GatewayApi
from meshsieve.mesh.names import intersection
from meshsieve.mesh.objects import read_objects
from meshsieve.routes.model import DirectResponse, Forward, Redirect, Route, VirtualHost
from tests.conformance.report import Report

# --- Istio: VirtualServices

# Istio's test code makes these; the goldens show their label.
NAMESPACES = tuple(
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"istio.io/test-name-part": name.partition("-")[0]}},
    }
    for name in ("allowed-1", "allowed-2", "group-namespace1", "group-namespace2", "default")
)


def istio(folder: Path, report: Report) -> None:
    for file in sorted(folder.glob("*.yaml")):
        try:
            api = GatewayApi(read_objects([file, *NAMESPACES]), ISTIO)
        except MeshsieveError as error:
            report.wrong(file.name, str(error))
            continue
        golden = _documents(folder / f"{file.name}.golden")
        for service in (d for d in golden if d["kind"] == "VirtualService"):
            _virtual_service(api, service, f"{file.name} {service['metadata']['name']}", report)
        for found in _documents(folder / f"{file.stem}.status.yaml.golden"):
            _istio_status(api, found, file.name, report)


def _documents(file: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(file.read_text()) if d]


def _virtual_service(api: GatewayApi, service: dict[str, Any], where: str, report: Report) -> None:
    spec = service["spec"]
    for gateway in spec["gateways"]:
        if "http" in spec:
            wanted = [_http_entry(entry) for entry in spec["http"]]
            if gateway == "mesh":
                got = _mesh_entries(api, service)
            else:
                got = _gateway_entries(api, gateway, spec["hosts"], {name for name, *_ in wanted})
            if gateway != "mesh" and not _meets(api, gateway, spec["hosts"]):
                continue
            known = {name: bool(shares) for name, *_, shares in wanted}
            got = [entry if known.get(entry[0]) else (*entry[:-1], []) for entry in got]
            report.check(f"{where} on {gateway}", "routes", got, wanted)
        for entry in spec.get("tls", ()):
            names = {name for match in entry["match"] for name in match["sniHosts"]}
            got = {h: b for h, b in _streams(api, gateway) if not h or h in names or "*" in names}
            report.check(
                f"{where} on {gateway}", f"backends for {sorted(names)}", list(got.values())[:1], [_shares(entry)]
            )
        for entry in spec.get("tcp", ()):
            got = [shares for _, shares in _streams(api, gateway)]
            report.check(f"{where} on {gateway}", "backends", got[:1], [_shares(entry)])


def _http_entry(entry: dict[str, Any]) -> tuple[Any, ...]:
    """(name of the rule, path kind, path, method, headers, query parameters, backends)."""
    match = entry.get("match", [{}])[0]
    kind, path = next(iter(match.get("uri", {"prefix": "/"}).items()))
    fields = [sorted(match.get(key, {})) for key in ("headers", "queryParams")]
    return entry["name"], kind, path, next(iter(match.get("method", {}).values()), None), *fields, _shares(entry)


def _shares(entry: dict[str, Any]) -> list[tuple[str, int]]:
    found = []
    for route in entry.get("route", ()):
        if "host" not in route["destination"]:
            continue  # a backend that may not be used; which Services exist only Istio's test code knows
        name, namespace, *_ = route["destination"]["host"].split(".")
        port = route["destination"].get("port", {}).get("number")
        found.append((f"{namespace}/{name}" + (f":{port}" if port else ""), route.get("weight", 1)))
    return [(name, 1) for name, _ in found] if len(found) == 1 else found


def _own_entry(route: Route) -> tuple[Any, ...]:
    _, namespace, name, _, rule, *_ = route.name.split("/")
    match = route.match
    kinds = {"path": "exact", "regex": "regex"}
    method = next((h.string.value.decode() for h in match.headers if h.name == b":method" and h.string), None)
    headers = sorted(h.name.decode() for h in match.headers if h.name != b":method")
    queries = sorted(q.name.decode() for q in match.queries)
    path = kinds.get(match.path.kind, "prefix"), match.path.value.decode()
    return f"{namespace}.{name}.{rule}", *path, method, headers, queries, _own_shares(route)


def _own_shares(route: Route) -> list[tuple[str, int]]:
    action = route.action
    if not isinstance(action, Forward):
        return []
    if action.cluster is not None:
        return [(_backend(action.cluster), 1)]
    return [(_backend(w.name), w.weight) for w in action.weighted if w.instead is None]


def _backend(cluster: str) -> str:
    return cluster.rpartition(" ")[2]


def _named(entries: Iterator[Route]) -> list[tuple[Any, ...]]:
    return [_own_entry(route) for route in entries]


def _virtual_hosts(api: GatewayApi, gateway: str) -> Iterator[tuple[str, VirtualHost]]:
    """(listener host, virtual host) of one listener that Istio calls NAMESPACE/GATEWAY~...~LISTENER."""
    namespace, _, name = gateway.partition("/")
    owner, _, listener = name.partition("~istio-autogenerated-k8s-gateway~")
    for li in api.listeners:
        if (li.owner.namespace, li.owner.name, li.name) != (namespace, owner, listener):
            continue
        for port in api.ports:
            router = port.router(li) if li in port.listeners else None
            for host in router.config.virtual_hosts if router is not None else ():
                if host.name.startswith(f"{li.title}/"):
                    yield li.hostname or "*", host


def _meets(api: GatewayApi, gateway: str, hosts: list[str]) -> bool:
    """Whether the listener takes any of a VirtualService's hosts; Istio writes some that no request can reach."""
    return any(intersection(hosts, [listener_host]) for listener_host, _ in _virtual_hosts(api, gateway))


def _gateway_entries(api: GatewayApi, gateway: str, hosts: list[str], names: set[str]) -> list[tuple[Any, ...]]:
    """Entries of the virtual host for a VirtualService's host, as far as the golden names their rules: several
    VirtualServices may share a name that the listener narrows."""
    for listener_host, host in _virtual_hosts(api, gateway):
        wanted = intersection(hosts, [listener_host])
        if wanted and [d.decode() for d in host.domains] == wanted:
            return [e for e in _named(iter(host.routes)) if e[0] in names]
    return []


def _mesh_entries(api: GatewayApi, service: dict[str, Any]) -> list[tuple[Any, ...]]:
    name, namespace, *_ = service["spec"]["hosts"][0].split(".")
    table = api.mesh.table(f"{namespace}/{name}", 80, service["metadata"]["namespace"])
    return _named(iter(table.router.routes)) if table.router is not None else []


def _streams(api: GatewayApi, gateway: str) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    namespace, _, name = gateway.partition("/")
    owner, _, listener = name.partition("~istio-autogenerated-k8s-gateway~")
    for port in api.ports:
        for li in port.listeners:
            if (li.owner.namespace, li.owner.name, li.name) == (namespace, owner, listener):
                for stream in port.streams.get(li.title, ()):
                    shares = [(_backend(name), weight) for name, weight, _ in stream.backends]
                    yield stream.hostname, [(n, 1) for n, _ in shares] if len(shares) == 1 else shares


# --- statuses


def _reason(conditions: list[dict[str, Any]], kind: str) -> tuple[bool, str]:
    found = next((c for c in conditions if c["type"] == kind), {"status": "True", "reason": kind})
    return found["status"] == "True", found["reason"]


def _istio_status(api: GatewayApi, found: dict[str, Any], file: str, report: Report) -> None:
    status = found.get("status") or {}
    meta = found["metadata"]
    if found["kind"] in ("Gateway", "ListenerSet", "XListenerSet"):
        for given in status.get("listeners", ()):
            _listener_status(api, found["kind"], meta, given, file, report)
    for given in status.get("parents", ()) if found["kind"].endswith("Route") else ():
        _route_status(api, found["kind"], meta, given, file, report)


def _listener_status(
    api: GatewayApi, kind: str, meta: dict[str, Any], given: dict[str, Any], file: str, report: Report
) -> None:
    own = (kind, meta["namespace"], meta["name"], given["name"])
    mine = [li for li in api.listeners if (li.owner.kind, li.owner.namespace, li.owner.name, li.name) == own]
    conditions = given["conditions"]
    if any(c["reason"] == "NoValidCACertificate" for c in conditions):
        report.note(f"{file}: {meta['name']}/{given['name']} is refused for certificates, which are not read here")
        return
    got = [(li.accepted.status, li.resolved.status) for li in mine]
    wanted = (_reason(conditions, "Accepted")[0], _reason(conditions, "ResolvedRefs")[0])
    if report.check(f"{file} listener {'/'.join(own)}", "accepted, resolved", got, [wanted]) and all(wanted):
        attached = {s.route for s in api.statuses if mine[0].title in s.listeners and s.accepted.status}
        counted = len(attached) if "attachedRoutes" in given else 0
        report.check(f"{file} listener {'/'.join(own)}", "attached routes", counted, given.get("attachedRoutes", 0))


def _route_status(
    api: GatewayApi, kind: str, meta: dict[str, Any], given: dict[str, Any], file: str, report: Report
) -> None:
    parent = given["parentRef"]
    where = f"{file} {kind} {meta.get('namespace', 'default')}/{meta['name']} on {parent}"
    mine = [
        s
        for s in api.statuses
        if (s.route.kind, s.route.namespace, s.route.name) == (kind, meta.get("namespace", "default"), meta["name"])
        and s.parent.name == parent["name"]
        and s.parent.section == parent.get("sectionName")
        and s.parent.port == parent.get("port")
        and s.parent.namespace == parent.get("namespace", meta.get("namespace", "default"))
    ]
    wanted = _reason(given["conditions"], "Accepted")
    report.check(where, "accepted", [(s.accepted.status, s.accepted.reason) for s in mine], [wanted])
    resolved = _reason(given["conditions"], "ResolvedRefs")
    if resolved[1] == "BackendNotFound" and all(s.resolved.status for s in mine):
        report.note(f"{where}: which Services exist only the test that made the golden knows")
    elif mine and wanted[0]:
        report.check(where, "resolved", (mine[0].resolved.status, mine[0].resolved.reason), resolved)


# --- Envoy Gateway: intermediate representation of listeners

# Envoy Gateway's own objects change what routes do; they are no part of Gateway API.
EXTENSIONS = ("httpFilters", "backendTrafficPolicies", "securityPolicies")
OWN_REASONS = {"UnsupportedAddressType", "InvalidBackendRef", "UnsupportedRefValue"}
NOT_COMPARED = {
    "httproute-with-cors-filter": "its CORS preflight routes are Envoy Gateway's way to do what a filter does",
    "httproute-with-query-match-diff-type": "a number where text is needed, which only the test's YAML reader takes",
    "grpcroute-with-method-match": "a method of any service is a header there and a path here",
    "tlsroute-dynamic-resolver-with-tls-terminate": "dynamic resolvers are backends of Envoy Gateway only",
}


def envoy_gateway(folder: Path, report: Report) -> None:
    for file in sorted(folder.glob("*.in.yaml")):
        name = file.name.removesuffix(".in.yaml")
        given = yaml.safe_load(file.read_text())
        golden = yaml.safe_load((folder / f"{name}.out.yaml").read_text())
        if reason := _not_compared(name, given, golden):
            report.note(f"{name}: {reason}")
            continue
        try:
            api = GatewayApi(read_objects(list(_objects(given))), ENVOY_GATEWAY)
        except MeshsieveError as error:
            report.wrong(name, str(error))
            continue
        for ir in golden["xdsIR"].values():
            for listener in ir.get("http") or ():
                _http_listener(api, listener, name, report)
        for key in ("httpRoutes", "grpcRoutes", "tlsRoutes", "tcpRoutes", "udpRoutes"):
            for route in golden.get(key) or ():
                for parent in route["status"]["parents"]:
                    _route_status(api, route["kind"], route["metadata"], parent, name, report)


def _not_compared(name: str, given: dict[str, Any], golden: dict[str, Any]) -> str | None:
    kinds = [key for key in EXTENSIONS if key in given]
    if kinds:
        return f"{', '.join(kinds)} are Envoy Gateway's own and decide"
    reasons = {
        c["reason"]
        for key, routes in golden.items()
        if key.endswith("Routes")
        for route in routes
        for parent in route["status"]["parents"]
        for c in parent["conditions"]
    }
    if reasons & OWN_REASONS:
        return f"{', '.join(sorted(reasons & OWN_REASONS))}: limits of Envoy Gateway's backends"
    return NOT_COMPARED.get(name)


def _objects(given: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of an input, and the Services that Envoy Gateway's test code adds to each."""
    seen = set()
    for items in given.values():
        for item in items if isinstance(items, list) else [items]:
            if isinstance(item, dict) and "kind" in item:
                item["metadata"].setdefault("name", item["kind"].lower())
                seen.add((item["kind"], item["metadata"].get("namespace", "default"), item["metadata"]["name"]))
                yield item
    for n in range(1, 5):
        if ("Service", "default", f"service-{n}") not in seen:
            metadata = {"name": f"service-{n}", "namespace": "default"}
            spec = {"ports": [{"name": "http", "port": 8080}, {"name": "https", "port": 8443}]}
            yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _http_listener(api: GatewayApi, listener: dict[str, Any], name: str, report: Report) -> None:
    title = listener["name"]
    hosts = [
        h
        for port in api.ports
        for router in port.routers.values()
        for h in router.config.virtual_hosts
        if h.name.startswith(f"{title}/")
    ]
    wanted: dict[str, list[Any]] = {}
    for route in listener.get("routes") or ():
        wanted.setdefault(route["hostname"], []).append(_golden_route(route))
    got = {h.domains[0].decode(): [_own_route(r) for r in h.routes] for h in hosts if h.routes}
    # Which routes there are, and their order as far as matches rank them: among equals the golden keeps the order of
    # the input, which Envoy Gateway sorts by age elsewhere.
    sets = [{k: sorted(v) for k, v in each.items()} for each in (got, wanted)]
    report.check(f"{name} {title}", "routes", *sets)
    ranks = [{k: [rank for _, rank, _ in v] for k, v in each.items()} for each in (got, wanted)]
    report.check(f"{name} {title}", "order", *ranks)


def _golden_route(route: dict[str, Any]) -> tuple[str, Any, str]:
    """(name, what ranks it, action); GRPC methods become paths in ways of their own, so only their kind counts."""
    path = route.get("pathMatch") or {"prefix": "/"}
    kind = next(k for k in ("exact", "prefix", "safeRegex") if k in path)
    action = next((k for k in ("directResponse", "redirect") if k in route), "destination")
    name = route["name"].rpartition("/")[0].replace("/match/-1", "/match/0")
    counts = len(route.get("headerMatches") or ()), len(route.get("queryParamMatches") or ())
    return name, (kind,) if name.startswith("grpc") else (kind, len(path[kind]), *counts), action


def _own_route(route: Route) -> tuple[str, Any, str]:
    match = route.match
    kind = {"path": "exact", "regex": "safeRegex"}.get(match.path.kind, "prefix")
    actions = {DirectResponse: "directResponse", Redirect: "redirect"}
    action = actions.get(type(route.action), "destination")  # type: ignore[call-overload]
    rank = (kind, len(match.path.value), len(match.headers), len(match.queries))
    return route.name, rank[:1] if route.name.startswith("grpc") else rank, action
