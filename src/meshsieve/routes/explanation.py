"""Why a request takes its route: each route of the virtual host in order, with the conditions that fail.

By the linear reference, not by the compiled table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from meshsieve.explanation import Explanation, PointExplanation, Trial
from meshsieve.request import Request
from meshsieve.routes.condition_text import failures
from meshsieve.routes.http_options import Refusal, RequestView
from meshsieve.routes.model import Forward, Redirect, Route, RouteConfiguration, VirtualHost, host_routes
from meshsieve.routes.reference import choose_virtual_host, tree_routes

if TYPE_CHECKING:
    from meshsieve.routes.router import Match


def explain(config: RouteConfiguration, seen: RequestView | Refusal, request: Request, found: Match) -> Explanation:
    """``seen``: the request as it was read; ``found``: the answer that is explained."""
    point = _before(seen) if isinstance(seen, Refusal) else _host_point(config, seen, found)
    name = _name(found.route or "", found.route_index) if found.matched else None
    source = str(found.source) if found.matched else None
    return Explanation(
        request_text(request), found.action, name, source, found.reason, () if point is None else (point,)
    )


def _before(refusal: Refusal) -> PointExplanation:
    return PointExplanation("before routing", "refused", refusal.reason, ())


def _host_point(config: RouteConfiguration, seen: RequestView, found: Match) -> PointExplanation | None:
    host = choose_virtual_host(config, seen)
    if host is None:
        return None
    title = f"virtual host {host.name} ({_domains(host)})"
    if host.require_tls != "NONE" and not seen.scheme:
        return PointExplanation(title, found.action, f"it requires TLS, and {found.reason}", ())
    if found.action == "redirect_to_https":
        return PointExplanation(title, found.action, "it requires TLS, so no route is looked at", ())
    routes: tuple[Route, ...] = host.routes
    way = found.reason
    if host.tree is not None:
        reached = tree_routes(host.tree, seen)
        routes = reached or ()
        way = "its match tree leads to no route" if reached is None else way
    first = _first_index(config, host)
    numbers = {id(route): first + i for i, route in enumerate(host_routes(host))}
    trials = []
    for route in routes:
        why = failures(config, route.match, seen)
        number = numbers[id(route)]
        truth: Literal["no", "yes"] = "no" if why else "yes"
        trials.append(Trial(number, _name(route.name, number), str(route.source), _action(route), truth, why))
        if not why:
            way = f"route '{_name(route.name, number)}'"
            break
    return PointExplanation(title, found.action, way, tuple(trials))


def request_text(request: Request) -> str:
    """METHOD URL"""
    return f"{request.method} {request.scheme}://{request.authority}{request.path}"


def _first_index(config: RouteConfiguration, host: VirtualHost) -> int:
    """Position of the host's first route in ``Router.routes``."""
    first = 0
    for other in config.virtual_hosts:
        if other is host:
            return first
        first += sum(1 for _ in host_routes(other))
    raise AssertionError("the host is one of the configuration")


def _domains(host: VirtualHost) -> str:
    shown = [domain.decode("utf-8", "surrogateescape") for domain in host.domains[:3]]
    return ", ".join(shown) + (", ..." if len(host.domains) > 3 else "")


def _name(name: str, index: int) -> str:
    return name or f"#{index}"


def _action(route: Route) -> str:
    action = route.action
    if isinstance(action, Forward):
        return f"to {action.cluster}" if action.cluster else "to a cluster"
    return "redirect" if isinstance(action, Redirect) else "answer"
