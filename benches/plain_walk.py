"""The walk in plain Python: what ``python -m benches engine`` puts beside the compiled one, and its judge.

Every layer is the linear reading of its rules: each point of layers 2-4 tries rule after rule, the route comes from
``routes.reference``, the authorization from ``authz.reference``. Only which table a request comes to is asked of the
mesh, as it is no part of what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from meshsieve import _core
from meshsieve.authz import reference as authz_reference
from meshsieve.authz.facts import Facts, is_mtls
from meshsieve.bounds import packet_words
from meshsieve.columns import PacketColumns
from meshsieve.decision import DecisionTables, PointTable
from meshsieve.engine import Engine
from meshsieve.model import Action, Match, Rule
from meshsieve.request import Request
from meshsieve.routes import reference
from meshsieve.routes.http_options import Refusal, view
from meshsieve.walk.request_walk import connection_of, first_packets, with_only_server

ALLOW, DROP, REJECT, NONE = range(4)
ACTIONS = ("ALLOW", "DROP", "REJECT", "NONE")


class PlainWalk:
    """Answers by rule after rule; for the objects and firewalls of ``benches.meshes``."""

    def __init__(self, engine: Engine) -> None:
        self._tables = engine.tables
        self._walk = engine.request_walk if engine.mesh is not None else None
        self._found: dict[Any, Any] = {}  # which table a connection comes to

    def packet(self, packet: PacketColumns) -> int:
        """The verdict of the one packet."""
        return packet_action(self._tables, packet)

    def request(self, request: Request) -> int:
        """The verdict of one request."""
        walk = self._walk
        assert walk is not None
        ends = walk.ends(request, None, None)
        at_gateway = ends.server is not None and ends.server.is_gateway
        key = (id(ends.client), id(ends.server), request.authority, request.destination_port)
        if key not in self._found:
            candidates = walk.route(request, ends, at_gateway)[2]
            self._found[key] = walk.table(request, ends, at_gateway), with_only_server(ends, candidates)
        router, ends = self._found[key]
        connection = connection_of(request, ends)
        found = [NONE if connection is None else packet_action(self._tables, first_packets([connection]))]
        if router is not None:
            found.append(_route_action(router.config, request, router.options))
        authorizer = walk.policy.authorizer
        if authorizer is not None and ends.server is not None and ends.server.proxy is not None:
            found.append(_authorization_action(authorizer, request, ends.server.workload))
        if at_gateway:
            found[1:] = found[:0:-1]
        denied = [action for action in found if action in (DROP, REJECT)]
        return denied[0] if denied else ALLOW if ALLOW in found else NONE


def _route_action(config: Any, request: Request, options: Any) -> int:
    seen = view(request, options)
    if isinstance(seen, Refusal):
        return REJECT
    host = reference.choose_virtual_host(config, seen)
    return REJECT if host is None or reference.choose_route(config, host, seen) is None else ALLOW


def _authorization_action(authorizer: Any, request: Request, workload: Any) -> int:
    place = authorizer.place(workload)
    mode = authorizer.mtls_modes(place).at(request.destination_port)
    if mode == "STRICT" and not is_mtls(request):
        return REJECT
    seen = view(request, authorizer.settings.http)
    if isinstance(seen, Refusal):
        return REJECT
    facts = Facts(request, seen, trusted_proxies=authorizer.settings.trusted_proxies)
    return ALLOW if authz_reference.walk(authorizer.chain(place), facts).allowed else REJECT


def packet_action(tables: DecisionTables, packet: PacketColumns) -> int:
    """The first denial of all points, in their order; NONE where no point judges the packet."""
    found = [_point_action(table, packet) for table in tables.points]
    denied = [action for action in found if action in (DROP, REJECT)]
    return denied[0] if denied else ALLOW if ALLOW in found else NONE


def _point_action(table: PointTable, packet: PacketColumns) -> int:
    here, vnic = table.who_comes(packet)
    if not here[0] or table.point.role != "filter":
        return NONE
    words = packet_words(table.at_point(packet, {}, vnic, np.array([0])), 0)
    values = {_core.FIELDS[field].name: high << 64 | low for field, high, low in words}
    for rule in table.point.rules:
        if _holds(rule, values):
            return {Action.ALLOW: ALLOW, Action.DROP: DROP, Action.REJECT: REJECT}[rule.action]
    return ACTIONS.index(table.point.default.name)


def _holds(rule: Rule, values: Mapping[str, int]) -> bool:
    return _match_holds(rule.match, values) and (
        not rule.alternatives or any(_match_holds(match, values) for match in rule.alternatives)
    )


def _match_holds(match: Match, values: Mapping[str, int]) -> bool:
    six = values.get("ip_ver") == 6
    for name, wanted in match.items():
        value = values.get(name)
        spans = wanted.v6 if six and name in ("src_ip", "dst_ip") else wanted.v4
        if value is None or not any(low <= value <= high for low, high in spans):
            return False
    return True
