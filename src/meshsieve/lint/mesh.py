"""Findings about the objects of a cluster: Istio's analyzers, routes that Gateway API refuses, what readers found, and
routes that nothing reaches."""

from __future__ import annotations

from collections.abc import Iterator

from meshsieve.authz.lint import lint_authorization
from meshsieve.errors import MeshsieveError
from meshsieve.lint.routes import lint_tables
from meshsieve.mesh.gateway_api import GatewayApi
from meshsieve.mesh.gateway_api.mesh import is_mesh
from meshsieve.mesh.istio.analyzers import analyze
from meshsieve.mesh.istio.config import MeshOptions
from meshsieve.mesh.objects import ObjectStore
from meshsieve.mesh.router import MeshRouter
from meshsieve.mesh.tables import gateway_tables, service_tables
from meshsieve.policy import Diagnostic
from meshsieve.routes.model import RouteConfiguration

# Istio's analyzer says the same of a VirtualService's own rules, with Istio's words.
ISTIO_UNREACHABLE = "VirtualServiceUnreachableRule"


def lint_objects(store: ObjectStore) -> list[Diagnostic]:
    """Findings by Istio's analyzers, then by the readers and tables, then about authorization. Objects that cannot be
    read are findings too."""
    out = analyze(store)
    try:
        mesh = MeshRouter(store, MeshOptions(strict=False))
        out += [f for f in mesh.findings if f not in out]
        out += route_statuses(mesh.gateway_api)
        told = {f.obj for f in out if f.code == ISTIO_UNREACHABLE}
        out += [f for f in lint_tables(_tables(mesh)) if not any(f"{title} " in f"{f.obj} " for title in told)]
    except MeshsieveError as error:
        where, obj = getattr(error, "where", ""), getattr(error, "obj", "")
        message = f"{getattr(error, 'message', error)}: the routes of these objects were not looked at"
        out.append(Diagnostic("refused-object", message, where, obj, getattr(error, "hint", ""), "error"))
    # Istio's analyzers look for these two as well.
    by_istio = {(f.code, f.obj) for f in out}
    same = {"no-match-selector": "NoMatchingWorkloadsFound", "unknown-namespace": "ReferencedResourceNotFound"}
    out += [f for f in lint_authorization(store) if (same.get(f.code), f.obj.split(" spec")[0]) not in by_istio]
    return out


def _tables(mesh: MeshRouter) -> Iterator[tuple[str, RouteConfiguration]]:
    yield from gateway_tables(mesh)
    yield from service_tables(mesh)


def route_statuses(api: GatewayApi) -> list[Diagnostic]:
    """Routes that a parent refuses, with the reason that its status has; backends that cannot be used; parents that are
    not there."""
    out = []
    told = {(s.route, s.parent) for s in api.statuses}
    for route in api.routes:
        for parent in route.parents:
            if (route.ref, parent) not in told and not is_mesh(parent):
                message = f"its parent {parent} is not among the objects"
                out.append(Diagnostic("parent-not-found", message, _place(route.source), str(route.ref)))
    for status in api.statuses:
        if not status.accepted.status:
            message = f"{status.parent} does not accept it: {status.accepted.reason}: {status.accepted.message}"
            out.append(Diagnostic("route-refused", message, _place(status.source), str(status.route)))
        if not status.resolved.status:
            message = f"{status.resolved.reason}: {status.resolved.message}"
            found = Diagnostic("backend-unresolved", message, _place(status.source), str(status.route))
            out += [found] if found not in out else []
    return out


def _place(source: object) -> str:
    file, line = source.file, source.line  # type: ignore[attr-defined]
    return f"{file}:{line}" if line is not None else file
