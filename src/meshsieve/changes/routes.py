"""Where requests go under one configuration but not under another: route tables of gateways, ingress classes, Services
and the sidecars of clients, table by table.

What    Tables of one name are asked about the same requests (``example_requests``), and their answers compared: route,
        clusters and weights, rewriting, redirects, answers of their own, timeouts and retries. Equal tables are not
        asked.
Limits  What is found is there; a change that none of these requests shows is not found (two regular expressions for
        which no text comes to mind, a condition on metadata). Of clients that differ in nothing but their address one
        is asked; of more than ``MAX_CLIENTS`` kinds of clients the first, and ``notes`` says so. Timeouts and retries
        of an Envoy route configuration are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from meshsieve.changes.example_requests import example_requests
from meshsieve.changes.model import Answer, Change, answer_of, change_kind
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.tables import gateway_tables, service_tables, sidecar_tables
from meshsieve.request import Request
from meshsieve.routes.model import Forward, RouteConfiguration
from meshsieve.routes.router import Match, Router
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.request_walk import route_verdict

MAX_CLIENTS = 200
SHOWN = 2  # requests that a change names
_HASH_LABEL = "pod-template-hash"
NO_TABLE = Answer("NONE", "route", reason="there is no such table")


class RouteChanges:
    """``found`` gives the changes; ``notes`` then says what was left out."""

    def __init__(self, old: MeshPolicy, new: MeshPolicy) -> None:
        self._policies = old, new
        self.notes: list[str] = []

    def found(self) -> Iterator[Change]:
        """Requests that change alike, in whatever tables, are told together; tables in the order of the new side."""
        before, after = (dict(self._tables(policy)) for policy in self._policies)
        groups: dict[tuple[str, Answer, Answer], tuple[dict[str, None], dict[str, None]]] = {}
        for name in dict.fromkeys([*after, *before]):
            one, other = before.get(name), after.get(name)
            if one != other:
                for key, request in _compared(one, other):
                    tables, requests = groups.setdefault(key, ({}, {}))
                    tables[name] = None
                    requests[request_words(request)] = None
        for (kind, old, new), (tables, requests) in groups.items():
            texts = list(requests)
            more = f" and {len(texts) - SHOWN:,} more that were tried" if len(texts) > SHOWN else ""
            what = "; ".join(texts[:SHOWN]) + more
            yield Change(kind, "routes", tuple(tables), (), what, old, new, texts[0], exact=False)

    def _tables(self, policy: MeshPolicy) -> Iterator[tuple[str, RouteConfiguration]]:
        if policy.routes is not None:
            yield f"route configuration {policy.routes.config.name}".strip(), policy.routes.config
        if policy.mesh is None:
            return
        yield from gateway_tables(policy.mesh)
        yield from service_tables(policy.mesh)
        for title, proxy in self._clients(policy):
            for name, config in sidecar_tables(policy.mesh, proxy):
                yield f"sidecar of {title}, {name}", config

    def _clients(self, policy: MeshPolicy) -> Iterator[tuple[str, Proxy]]:
        kinds: dict[object, tuple[str, Proxy]] = {}
        workloads = policy.authorizer.workloads if policy.authorizer is not None else []
        for workload in workloads:
            assert policy.topology is not None
            place = policy.topology.named(f"{workload.namespace}/{workload.name}")
            if place.proxy is not None and place.proxy.kind == "sidecar":
                labels = {k: v for k, v in workload.labels.items() if k != _HASH_LABEL}
                kinds.setdefault((workload.namespace, tuple(sorted(labels.items()))), (place.title, place.proxy))
        if len(kinds) > MAX_CLIENTS:
            self.notes.append(f"routes of {len(kinds) - MAX_CLIENTS:,} more kinds of clients were not compared")
        yield from list(kinds.values())[:MAX_CLIENTS]


def _compared(
    old: RouteConfiguration | None, new: RouteConfiguration | None
) -> Iterator[tuple[tuple[str, Answer, Answer], Request]]:
    """Requests whose answers differ, with what changes."""
    routers = [None if config is None else Router(config) for config in (old, new)]
    for request in example_requests(*(config for config in (new, old) if config is not None)):
        before, after = (None if router is None else _found(router, request) for router in routers)
        answers = _answers(request, before, after)
        kind = change_kind(*answers)
        if kind is not None:
            yield (kind, *answers), request


# What takes a request, and what else the route does with it, by name.
Found = tuple[Match, Mapping[str, object]]


def _found(router: Router, request: Request) -> Found:
    match = router.match(request)
    if match.route_index < 0:
        return match, match.settings
    route = router.routes[match.route_index]
    more: dict[str, object] = {"header edits": route.edits, "response header edits": route.response_edits}
    if isinstance(route.action, Forward):
        more |= {"mirrors": route.action.mirrors, "hash policy": route.action.hash_policy}
    return match, {**more, **match.settings}


def _answers(request: Request, old: Found | None, new: Found | None) -> tuple[Answer, Answer]:
    one, other = (NO_TABLE if found is None else _answer(request, found[0]) for found in (old, new))
    if old is None or new is None or one.route != other.route or old[1] == new[1]:
        return one, other
    differ = sorted(name for name in {**old[1], **new[1]} if old[1].get(name) != new[1].get(name))
    texts = [", ".join(f"{name}: {json.dumps(f[1].get(name), default=str)}" for name in differ) for f in (old, new)]
    return replace(one, route=f"{one.route}; {texts[0]}"), replace(other, route=f"{other.route}; {texts[1]}")


def _answer(request: Request, found: Match) -> Answer:
    verdict = route_verdict(found)
    return replace(answer_of(verdict), route=route_words(dict(verdict.facts), verdict.status, request))


def route_words(facts: Mapping[str, str], status: int | None, request: Request | None = None) -> str:
    """Where a request goes, in words; equal for two routes that do the same but for their settings.

    facts    of the route's ``LayerVerdict``
    request  the very request that they are of, for what is rewritten; None: where they may be another's
    """
    shares = dict(part.rsplit(" ", 1) for part in facts.get("clusters", "").split(", ") if part)
    total = sum(map(int, shares.values()))
    to = [f"{name} {round(100 * int(n) / total)} %" for name, n in sorted(shares.items()) if total and len(shares) > 1]
    clusters = ", ".join(to) or next(iter(shares), facts.get("cluster", ""))
    parts = [
        f"to {clusters}" if clusters else "",
        "redirect" + (f" to {facts['location']}" if request is not None else "") if "location" in facts else "",
        f"status {status}" if status is not None else "",
    ]
    for name in ("path", "authority") if clusters and request is not None else ():
        if facts.get(name, getattr(request, name)) != getattr(request, name):
            parts.append(f"{name} becomes {facts[name]}")
    return "; ".join(part for part in parts if part)


def request_words(request: Request) -> str:
    """As ``meshsieve explain`` reads it."""
    lines = "".join(f" -H '{name}: {value}'" for name, value in request.headers)
    return f"{request.method} {request.scheme}://{request.authority}{request.path}{lines}"
