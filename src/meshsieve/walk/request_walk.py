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

from dataclasses import dataclass, replace

from meshsieve.authz.decision import Decision
from meshsieve.columns import PacketColumns
from meshsieve.decision import ACTION_NAMES, DecisionTables
from meshsieve.errors import ModelError
from meshsieve.labels import Labels
from meshsieve.mesh.istio.mesh import split_authority
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.names import full_name
from meshsieve.packet_text import parse_packet
from meshsieve.policy import Verdict
from meshsieve.request import Request
from meshsieve.routes.router import Match
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.topology import Place
from meshsieve.walk.verdict import ALLOW, NONE, REJECT, UNDECIDED, LayerVerdict, RequestVerdict

ROUTE, AUTHORIZATION, ENDPOINT = "route", "authorization", "endpoint"
NO_MESH = "no mesh configuration was read"


@dataclass(frozen=True, slots=True)
class Ends:
    """Who asks and who is asked; None where nobody known has the address."""

    client: Place | None = None
    server: Place | None = None


class RequestWalk:
    """The layers that requests meet. Made by ``Engine``."""

    def __init__(self, tables: DecisionTables, policy: MeshPolicy) -> None:
        self._tables = tables
        self._policy = policy
        self._labels = Labels(tables)

    def judge(
        self, request: Request, *, client: str | None = None, server: str | None = None, assume_mtls: bool = False
    ) -> RequestVerdict:
        """Every layer's answer.

        client, server  ``namespace/name`` of the workloads, where the addresses do not tell

        raises  UsageError for workloads that are not known, ModelError for addresses that are none
        """
        ends = self._ends(request, client, server)
        at_gateway = ends.server is not None and ends.server.is_gateway
        match, route = self._route(request, ends, at_gateway)
        candidates = self._candidates(match, ends, at_gateway)
        if ends.server is None and candidates is not None and len(candidates) == 1:
            ends = Ends(ends.client, candidates[0])  # the only one that can be asked
        if assume_mtls and request.principal is None and _both_have_proxies(ends):
            assert ends.client is not None
            tls = {"presented": True, "validated": True}
            request = replace(request, principal=ends.client.identity, tls=tls)
        layers = self._connection(request, ends)
        authorization = self._authorization(request, ends)
        layers += [authorization, route] if at_gateway else [route, authorization]
        layers.append(_endpoint_verdict(match, candidates, None if at_gateway else ends.server))
        return RequestVerdict(_title(request), tuple(layers))

    # --- who

    def _ends(self, request: Request, client: str | None, server: str | None) -> Ends:
        topology = self._policy.topology
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
        if not self._tables.points:
            return []
        packet = _first_packet(request, ends)
        if packet is None:
            return [LayerVerdict("layers 2-4", NONE, "the request does not say both addresses and the port")]
        decisions = self._tables.decide(packet)
        out = []
        for number, (table, answer) in enumerate(zip(self._tables.points, decisions.points, strict=True)):
            code = int(self._labels.point_deciders(number, answer)[0])
            if code < 0:
                out.append(LayerVerdict(table.title, NONE, "does not judge this connection"))
                continue
            verdict = ACTION_NAMES[int(answer.verdict[0])]
            rule, source = self._labels.rules.texts[code], self._labels.sources.texts[code]
            reason = f"rule '{rule}'" if rule else f"no rule matched, default {table.point.default.name}"
            if int(answer.verdict[0]) in (Verdict.NO_MATCH, Verdict.PENDING):
                verdict = UNDECIDED
            out.append(LayerVerdict(table.title, verdict, reason, rule, source))
        return out

    # --- routes

    def _route(self, request: Request, ends: Ends, at_gateway: bool) -> tuple[Match | None, LayerVerdict]:
        if self._policy.routes is not None:
            found = self._policy.routes.match(request)
            return found, _route_verdict(found)
        mesh = self._policy.mesh
        if mesh is None:
            return None, LayerVerdict(ROUTE, NONE, NO_MESH)
        place = ends.server if at_gateway else ends.client
        if place is None or place.proxy is None:
            who = "the client" if place is None else place.title
            return None, LayerVerdict(ROUTE, NONE, f"{who} has no proxy that could choose a route")
        # A pod's own address is what an earlier choice came to: the route was chosen for the service's name.
        seen = request if at_gateway or ends.server is None else replace(request, destination_ip=None)
        if not at_gateway and ends.server is not None:
            port = split_authority(request.authority)[1]
            seen = replace(seen, destination_port=port or request.destination_port)
        found = mesh.match(seen, gateway=place.gateway) if place.gateway else mesh.match(seen, proxy=place.proxy)
        return found, _route_verdict(found)

    # --- identity and authorization

    def _authorization(self, request: Request, ends: Ends) -> LayerVerdict:
        authorizer = self._policy.authorizer
        if authorizer is None:
            return LayerVerdict(AUTHORIZATION, NONE, NO_MESH)
        if ends.server is None:
            return LayerVerdict(AUTHORIZATION, NONE, "which workload is asked is not known")
        if ends.server.proxy is None:
            return LayerVerdict(AUTHORIZATION, NONE, f"{ends.server.title} has no proxy that could enforce policy")
        return _authorization_verdict(authorizer.decide(request, ends.server.workload))

    # --- endpoints

    def _candidates(self, match: Match | None, ends: Ends, at_gateway: bool) -> list[Place] | None:
        """Workloads that the route may lead to; None where that is not known."""
        place = ends.server if at_gateway else ends.client
        if match is None or match.cluster is None or self._policy.mesh is None or place is None or place.proxy is None:
            return None
        return self._endpoints(match.cluster, place.proxy)

    def _endpoints(self, cluster: str, proxy: Proxy) -> list[Place] | None:
        """Workloads behind a cluster, as Istio names it (``outbound|PORT|SUBSET|HOST``) or as Gateway API backends are
        (``NAMESPACE/SERVICE:PORT``); None where it is no Service that the objects hold."""
        mesh, topology = self._policy.mesh, self._policy.topology
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


def _endpoint_verdict(match: Match | None, candidates: list[Place] | None, seen: Place | None) -> LayerVerdict:
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


def _title(request: Request) -> str:
    return f"{request.method} {request.scheme}://{request.authority}{request.path}"


def _both_have_proxies(ends: Ends) -> bool:
    return all(end is not None and end.proxy is not None for end in (ends.client, ends.server))


def _first_packet(request: Request, ends: Ends) -> PacketColumns | None:
    """The SYN of the request's connection; None where it cannot be known."""
    source = request.source_ip or _address_of(ends.client)
    destination = request.destination_ip or _address_of(ends.server)
    port = request.destination_port
    if source is None or destination is None or port is None:
        return None
    text = f"tcp {_end(source, request.source_port)} > {_end(destination, port)}"
    return parse_packet(text)


def _address_of(place: Place | None) -> str | None:
    return place.workload.addresses[0] if place is not None and place.workload.addresses else None


def _end(address: str, port: int | None) -> str:
    shown = f"[{address}]" if ":" in address else address
    return shown if port is None else f"{shown}:{port}"


def _route_verdict(found: Match) -> LayerVerdict:
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


def _authorization_verdict(found: Decision) -> LayerVerdict:
    verdict = ALLOW if found.allowed else UNDECIDED if found.action == "NEEDS_PROVIDER" else REJECT
    reason = found.reason + (f"; {found.nearest}" if found.nearest else "")
    rule = found.rule or (found.policy if not found.allowed else None)
    source = str(found.source) if found.source else None
    return LayerVerdict(AUTHORIZATION, verdict, reason, rule, source, found.status, (("by", found.by),))
