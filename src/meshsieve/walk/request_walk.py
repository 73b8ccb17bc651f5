"""One request through all layers.

Order     1. layers 2-4, at every point that judges the connection (its first packet)
          2. the route, where the client's own proxy chooses it (a sidecar); a gateway comes after its authorization
          3. at the server: mTLS mode, tokens and authorization
          4. the route, where the server is a gateway
          5. the endpoints of the destination, and whether the one that was seen is among them
Identity  A request's ``principal`` is taken as it is. With ``assume_mtls`` a request between two workloads with proxies
          has the identity of the client's service account: a capture on the applications' side of the proxies shows
          clear text although the proxies spoke mTLS between them.
Server    where the request does not say it, the only endpoint of its route; of several none is chosen
Limits    What is not known is not guessed: without addresses layers 2-4 are not asked, without a server nobody's
          authorization is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from meshsieve.authz.decision import Decision
from meshsieve.columns import PacketColumns
from meshsieve.decision import ACTION_NAMES, DecisionTables, PointTable
from meshsieve.errors import ModelError
from meshsieve.labels import Labels
from meshsieve.mesh.istio.mesh import split_authority
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.names import full_name
from meshsieve.observability.traceflow import End
from meshsieve.policy import Verdict
from meshsieve.request import Request
from meshsieve.routes.router import Match, Router
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.topology import Place
from meshsieve.walk.verdict import ALLOW, NONE, REJECT, UNDECIDED, LayerVerdict, RequestVerdict

CONNECTION, ROUTE, AUTHORIZATION, ENDPOINT = "layers 2-4", "route", "authorization", "endpoint"
NO_MESH = "no mesh configuration was read"
APPLICATION = "http"  # what recognition would say of the connection
NO_CONNECTION = LayerVerdict(CONNECTION, NONE, "the request does not say both addresses and the port")
_WORD = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Ends:
    """Who asks and who is asked; None where nobody known has the address."""

    client: Place | None = None
    server: Place | None = None


class RequestWalk:
    """The layers that requests meet. Made by ``Engine``."""

    def __init__(self, tables: DecisionTables, policy: MeshPolicy) -> None:
        self.tables = tables
        self.policy = policy
        self.labels = Labels(tables)

    def judge(
        self, request: Request, *, client: str | None = None, server: str | None = None, assume_mtls: bool = False
    ) -> RequestVerdict:
        """Every layer's answer.

        client, server  ``namespace/name`` of the workloads, where the addresses do not tell

        raises  UsageError for workloads that are not known, ModelError for addresses that are none
        """
        ends = self.ends(request, client, server)
        at_gateway = ends.server is not None and ends.server.is_gateway
        match, route, candidates = self.route(request, ends, at_gateway)
        ends = with_only_server(ends, candidates)
        if assume_mtls:
            request = with_identity(request, ends)
        layers = self._connection(request, ends)
        authorization = self.authorization(request, ends)
        layers += [authorization, route] if at_gateway else [route, authorization]
        layers.append(endpoint_verdict(match, candidates, None if at_gateway else ends.server))
        return RequestVerdict(_title(request), tuple(layers), trace_ends(request, ends))

    # --- who

    def ends(self, request: Request, client: str | None, server: str | None) -> Ends:
        """Who asks and who is asked, by name where one is given, else by address."""
        topology = self.policy.topology
        if topology is None:
            return Ends()
        try:
            found = topology.at(request.source_ip), topology.at(request.destination_ip)
        except ValueError as error:
            raise ModelError(f"an address of the request: {error}") from None
        return Ends(
            topology.named(client) if client is not None else found[0],
            topology.named(server) if server is not None else found[1],
        )

    # --- layers 2-4

    def _connection(self, request: Request, ends: Ends) -> list[LayerVerdict]:
        if not self.tables.points:
            return []
        connection = connection_of(request, ends)
        if connection is None:
            return [NO_CONNECTION]
        decisions = self.tables.decide(first_packets([connection]))
        return [
            point_verdict(
                table, self.labels, int(self.labels.point_deciders(number, answer)[0]), int(answer.verdict[0])
            )
            for number, (table, answer) in enumerate(zip(self.tables.points, decisions.points, strict=True))
        ]

    # --- routes

    def route(
        self, request: Request, ends: Ends, at_gateway: bool
    ) -> tuple[Match | None, LayerVerdict, list[Place] | None]:
        """What the proxy that chooses the route says, in words too, and the workloads that it may lead to (None: not
        known)."""
        if self.policy.routes is not None:
            found = self.policy.routes.match(request)
            return found, route_verdict(found), None
        if self.policy.mesh is None:
            return None, LayerVerdict(ROUTE, NONE, NO_MESH), None
        place = _chooser(ends, at_gateway)
        if place is None or place.proxy is None:
            return None, LayerVerdict(ROUTE, NONE, _no_chooser(ends)), None
        found, _ = self.policy.mesh.answer(seen_by_client(request, ends, at_gateway), place.viewpoint)
        candidates = None if found.cluster is None else self._endpoints(found.cluster, place.proxy)
        return found, route_verdict(found), candidates

    def table(self, request: Request, ends: Ends, at_gateway: bool) -> Router | None:
        """The table that a request comes to, as its chooser sees it; None where no table decides."""
        if self.policy.routes is not None:
            return self.policy.routes
        place = _chooser(ends, at_gateway)
        if self.policy.mesh is None or place is None or place.proxy is None:
            return None
        return self.policy.mesh.answer(seen_by_client(request, ends, at_gateway), place.viewpoint)[1]

    # --- identity and authorization

    def authorization(self, request: Request, ends: Ends) -> LayerVerdict:
        """What the server's proxy says."""
        authorizer = self.policy.authorizer
        if authorizer is None:
            return LayerVerdict(AUTHORIZATION, NONE, NO_MESH)
        if ends.server is None:
            return LayerVerdict(AUTHORIZATION, NONE, "which workload is asked is not known")
        if ends.server.proxy is None:
            return LayerVerdict(AUTHORIZATION, NONE, f"{ends.server.title} has no proxy that could enforce policy")
        return authorization_verdict(authorizer.decide(request, ends.server.workload))

    # --- endpoints

    def _endpoints(self, cluster: str, proxy: Proxy) -> list[Place] | None:
        """Workloads behind a cluster, as Istio names it (``outbound|PORT|SUBSET|HOST``) or as Gateway API backends are
        (``NAMESPACE/SERVICE:PORT``); None where it is no Service that the objects hold."""
        mesh, topology = self.policy.mesh, self.policy.topology
        assert mesh is not None
        assert topology is not None
        config = mesh.istio.config
        parts = cluster.split("|")
        subset = ""
        if len(parts) == 4 and parts[0] == "outbound":
            subset, host = parts[2:]
        else:
            namespace, slash, name = cluster.rpartition(":")[0].partition("/")
            if not slash:
                return None
            host = full_name(name, namespace, config.options.domain)
        service = config.registry.named(host, proxy.namespace)
        if service is None or not service.selector:
            return None
        wanted = dict(service.selector)
        rule = config.rule(host, proxy) if subset else None
        if rule is not None and subset in rule.subsets:
            wanted |= rule.subsets[subset].labels
        return topology.selected(service.namespace, wanted)


def endpoint_verdict(match: Match | None, candidates: list[Place] | None, seen: Place | None) -> LayerVerdict:
    """seen: the workload that was asked behind the route, where it is known."""
    if match is None or match.cluster is None:
        return LayerVerdict(ENDPOINT, NONE, "no single destination is known")
    if candidates is None:
        return LayerVerdict(ENDPOINT, NONE, f"cluster {match.cluster} is no Service that is known")
    names = ", ".join(c.title for c in candidates) or "nobody"
    facts = (("endpoints", names),)
    if seen is None:
        return LayerVerdict(
            ENDPOINT, ALLOW if candidates else NONE, f"{match.cluster} is served by {names}", facts=facts
        )
    if seen in candidates:
        return LayerVerdict(ENDPOINT, ALLOW, f"{seen.title} serves {match.cluster}", facts=facts)
    reason = f"{seen.title} was asked, but {match.cluster} is served by {names}"
    return LayerVerdict(ENDPOINT, NONE, reason, facts=facts)


def trace_ends(request: Request, ends: Ends) -> tuple[End, End]:
    """Both ends as a trace names them."""
    places = (request.source_ip, ends.client), (request.destination_ip, ends.server)
    source, destination = (
        End(address or _address_of(place), place.title if place is not None else None) for address, place in places
    )
    return source, destination


def _title(request: Request) -> str:
    return f"{request.method} {request.scheme}://{request.authority}{request.path}"


def _chooser(ends: Ends, at_gateway: bool) -> Place | None:
    """Whose proxy chooses the route. What a gateway sends on was routed where it came in, on another connection."""
    if at_gateway:
        return ends.server
    return None if ends.client is None or ends.client.is_gateway else ends.client


def _no_chooser(ends: Ends) -> str:
    if ends.client is None:
        return "no proxy of the mesh is known to have chosen a route"
    if ends.client.is_gateway:
        return f"{ends.client.title} chose the route where the request came in"
    return f"{ends.client.title} has no proxy that could choose a route"


def seen_by_client(request: Request, ends: Ends, at_gateway: bool) -> Request:
    """The request as the proxy saw it that chose its route. A pod's own address is what that choice came to: it was
    made for the name, and for the port of the service."""
    if at_gateway or ends.server is None:
        return request
    port = split_authority(request.authority)[1] or request.destination_port
    return replace(request, destination_ip=None, destination_port=port)


def with_only_server(ends: Ends, candidates: Sequence[Place] | None) -> Ends:
    """The only workload that a route may lead to is the server, where the request does not say another."""
    return Ends(ends.client, candidates[0]) if ends.server is None and candidates and len(candidates) == 1 else ends


def with_identity(request: Request, ends: Ends) -> Request:
    """The request with the identity of the client's service account, where both ends have proxies and it has none."""
    client, server = ends.client, ends.server
    if (
        request.principal is not None
        or client is None
        or server is None
        or client.proxy is None
        or server.proxy is None
    ):
        return request
    return request.with_peer(client.identity)


Connection = tuple[str, int | None, str, int]


def connection_of(request: Request, ends: Ends) -> Connection | None:
    """Source, its port, destination, its port; None where layers 2-4 cannot be asked."""
    source = request.source_ip or _address_of(ends.client)
    destination = request.destination_ip or _address_of(ends.server)
    port = request.destination_port
    if source is None or destination is None or port is None:
        return None
    return source, request.source_port, destination, port


def first_packets(connections: Sequence[Connection]) -> PacketColumns:
    """The SYN of each connection.

    raises  ModelError for an address that is none, or where the two ends differ in IP version
    """
    n = len(connections)
    words = np.zeros((2, n, 2), np.uint64)
    version = np.zeros(n, np.uint8)
    for i, (source, _, destination, _) in enumerate(connections):
        ends = _address(source), _address(destination)
        if ends[0].version != ends[1].version:
            raise ModelError(f"a connection from {source} to {destination}: the addresses differ in IP version")
        version[i] = ends[0].version
        for side, address in enumerate(ends):
            words[side, i] = int(address) >> 64, int(address) & _WORD
    sport = np.array([-1 if c[1] is None else c[1] for c in connections], np.int64)
    return syn_packets(words[0], words[1], version, sport, np.array([c[3] for c in connections], np.int64))


def syn_packets(
    source: npt.NDArray[np.uint64],
    destination: npt.NDArray[np.uint64],
    version: npt.NDArray[np.uint8],
    sport: npt.NDArray[np.int64],
    dport: npt.NDArray[np.int64],
) -> PacketColumns:
    """The SYN of n connections; addresses (n, 2), sport -1 where it is not known."""
    fields = {
        "src_ip": source,
        "dst_ip": destination,
        "ip_ver": version,
        "eth_type": np.where(version == 4, 0x0800, 0x86DD),
        "proto": [6],
        "dport": dport,
        "tcp_flags": [2],
        "fragment": [0],
        "ct_state": [1],
    }
    packets = PacketColumns(fields, length=len(version))
    packets = packets.with_fields({"sport": np.maximum(sport, 0)}, where={"sport": sport >= 0})
    packets.extra["app"] = np.full(len(version), APPLICATION, object)
    return packets


@lru_cache(65_536)
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise ModelError(f"an address of the request: {error}") from None


def _address_of(place: Place | None) -> str | None:
    return place.workload.addresses[0] if place is not None and place.workload.addresses else None


def point_verdict(table: PointTable, labels: Labels, decider: int, verdict: int) -> LayerVerdict:
    """What a point of layers 2-4 says; decider: code of ``Labels.point_deciders``."""
    if decider < 0:
        return LayerVerdict(table.title, NONE, "does not judge this connection")
    rule, source = labels.rules.texts[decider], labels.sources.texts[decider]
    reason = f"rule '{rule}'" if rule else f"no rule matched, default {table.point.default.name}"
    if table.point.role != "filter" and verdict != Verdict.UNDECIDED:
        return LayerVerdict(table.title, NONE, f"decides nothing; {reason}", rule, source)
    name = UNDECIDED if verdict in (Verdict.NO_MATCH, Verdict.PENDING) else ACTION_NAMES[verdict]
    return LayerVerdict(table.title, name, reason, rule, source)


def route_verdict(found: Match) -> LayerVerdict:
    facts = tuple(
        (name, str(value))
        for name, value in (
            ("virtual_host", found.virtual_host),
            ("cluster", found.cluster),
            ("clusters", ", ".join(f"{name} {weight}" for name, weight in found.clusters) or None),
            ("path", found.path),
            ("authority", found.authority),
            ("location", found.location),
        )
        if value is not None
    )
    source = str(found.source) or None
    if not found.matched or (found.cluster is not None and found.status is not None and found.status >= 500):
        reason = found.reason or found.action
        return LayerVerdict(ROUTE, REJECT, reason, found.route or None, source, found.status, facts)
    what = found.route or "route without a name"
    reason = {"redirect": "redirected by", "direct_response": "answered by"}.get(found.action, "taken by") + f" {what}"
    return LayerVerdict(ROUTE, ALLOW, reason, what, source, found.status, facts)


def authorization_verdict(found: Decision) -> LayerVerdict:
    verdict = ALLOW if found.allowed else UNDECIDED if found.action == "NEEDS_PROVIDER" else REJECT
    facts = (("by", found.by), *((("nearest", found.nearest),) if found.nearest else ()))
    rule = found.rule or (found.policy if not found.allowed else None)
    source = str(found.source) if found.source else None
    return LayerVerdict(AUTHORIZATION, verdict, found.reason, rule, source, found.status, facts)
