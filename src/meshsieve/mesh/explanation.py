"""Why a request to the mesh takes its route: where it is seen and what takes it there, then each route in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshsieve.explanation import Explanation, PointExplanation
from meshsieve.mesh.istio.mesh import with_claims
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.match import MeshMatch
from meshsieve.request import Request
from meshsieve.routes.explanation import request_text
from meshsieve.routes.router import Match, Router

if TYPE_CHECKING:
    from meshsieve.mesh.router import Viewpoint


def explain(request: Request, seen: Viewpoint, found: Match, router: Router | None) -> Explanation:
    """``found``: what takes the request; ``router``: the table that said so, None if none was asked."""
    points = [PointExplanation(_place(seen), found.action, _way(found), ())]
    rule = found.route
    if router is not None:
        inner = router.explain(with_claims(request))
        points += inner.points
        rule = inner.rule
    source = str(found.source) if found.matched else None
    return Explanation(request_text(request), found.action, rule, source, found.reason, tuple(points))


def _place(seen: Viewpoint) -> str:
    if seen.gateway is not None or seen.client is None:
        return f"gateway {seen.gateway}"
    name = _name(seen.client)
    if seen.client.kind == "inbound":
        return f"receiver {name}"
    return f"gateway {name}" if seen.client.kind == "gateway" else f"client {name}"


def _name(proxy: Proxy) -> str:
    if proxy.workload is not None and proxy.workload.name:
        return f"{proxy.namespace}/{proxy.workload.name}"
    labels = ", ".join(f"{key}={value}" for key, value in proxy.labels.items())
    return f"in namespace {proxy.namespace}" + (f" ({labels})" if labels else "")


def _way(found: Match) -> str:
    parts = [found.reason] if found.reason else []
    if isinstance(found, MeshMatch):
        named = (("listener", found.listener), ("filter chain", found.filter_chain), ("routes", found.route_config))
        parts += [f"{what} {name}" for what, name in named if name]
    return ", ".join(parts) or "its routes are asked"
