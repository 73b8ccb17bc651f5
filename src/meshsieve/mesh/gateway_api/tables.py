"""Route tables of listeners and of Services: attached routes, sorted by precedence, in virtual hosts.

One virtual host stands for one effective host name on one listener. It holds the matches of the routes that have
exactly this name there; Envoy-based implementations do not go on to a less specific name, others may
(``fall_through``). A host name of a listener without any route for it is a virtual host without routes, so that no
wider listener answers in its stead (listener isolation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from meshsieve.mesh.gateway_api.actions import ERROR, Entrance, RuleAction, rule_action
from meshsieve.mesh.gateway_api.attachment import Attachment, most_specific_listener
from meshsieve.mesh.gateway_api.matches import (
    Rank,
    hostname_rank,
    match_problem,
    match_rank,
    position_rank,
    route_match,
)
from meshsieve.mesh.gateway_api.model import (
    BackendRef,
    Condition,
    Dialect,
    GrpcMatch,
    HttpMatch,
    Listener,
    Route,
    Rule,
)
from meshsieve.mesh.names import covers
from meshsieve.model import Source
from meshsieve.routes import model
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import DirectResponse, PathMatch, RouteConfiguration, RouteMatch, VirtualHost

Check = Callable[[Route, BackendRef], Condition]
MISDIRECTED = DirectResponse(421)
ANY_PATH = RouteMatch(PathMatch("prefix", b"/"))


class TableBuilder:
    """Builds tables; ``check`` says whether a route may use a backend."""

    def __init__(self, dialect: Dialect, check: Check) -> None:
        self.dialect = dialect
        self.check = check

    def listener_table(
        self, name: str, listener: Listener, port: Sequence[Listener], attached: Iterable[Attachment]
    ) -> RouteConfiguration:
        """The table behind one listener of a port, all listeners of which are ``port``: of an encrypted one, whose
        connection was chosen by SNI."""
        hosts = self._hosts(listener, [a for a in attached if a.listener is listener], port)
        if self.dialect.misdirected:
            hosts += self._misdirected(listener, port, {d for h in hosts for d in h.domains})
        return RouteConfiguration(name, tuple(hosts), ignore_port=True)

    def port_table(self, name: str, port: Sequence[Listener], attached: Sequence[Attachment]) -> RouteConfiguration:
        """The table of all plaintext listeners of one port: the Host header chooses the listener too."""
        hosts = [h for li in port for h in self._hosts(li, [a for a in attached if a.listener is li], port)]
        return RouteConfiguration(name, tuple(hosts), ignore_port=True)

    def service_table(self, name: str, port: int, routes: Sequence[Route], source: Source) -> RouteConfiguration:
        """What mesh clients of a Service's port meet; the Host header does not matter."""
        entries = self.entries([(route, "") for route in routes], Entrance("http", port))
        host = VirtualHost(name, (b"*",), entries, source=source)
        return RouteConfiguration(name, (host,), ignore_port=True)

    def _hosts(self, listener: Listener, attached: Sequence[Attachment], port: Sequence[Listener]) -> list[VirtualHost]:
        names = {name: None for a in attached for name in a.hostnames}
        names.setdefault(listener.hostname)
        entrance = Entrance("https" if listener.encrypted else "http", listener.port)
        out = []
        for name in sorted(names, key=hostname_rank):
            # A more specific listener of the port owns the names that it covers.
            if most_specific_listener(name or "*", port) is not listener and name:
                continue
            pairs = [(a.route, own) for a in attached for own in a.hostnames if self._meets(own, name)]
            domain = name or "*"
            out.append(
                VirtualHost(
                    f"{listener.title}/{domain}",
                    (encoded(domain),),
                    self.entries(pairs, entrance),
                    source=listener.source,
                )
            )
        return out

    def _meets(self, own: str, name: str) -> bool:
        """Whether a route with the host name ``own`` stands in the virtual host ``name``."""
        if own == name:
            return True
        return self.dialect.fall_through and (not own or (bool(name) and covers(own, name)))

    def _misdirected(self, listener: Listener, port: Sequence[Listener], taken: set[bytes]) -> list[VirtualHost]:
        """421 for a Host that another listener of this port would take (GEP-3567)."""
        out = []
        for other in port:
            domain = encoded(other.hostname or "*")
            if other is listener or domain in taken:
                continue
            taken.add(domain)
            answer = model.Route("misdirected", ANY_PATH, MISDIRECTED, source=other.source)
            out.append(
                VirtualHost(f"{listener.title}/misdirected/{other.title}", (domain,), (answer,), source=other.source)
            )
        return out

    # --- routes of one virtual host, in precedence order

    def entries(self, routes: Sequence[tuple[Route, str]], entrance: Entrance) -> tuple[model.Route, ...]:
        """Every match of every rule of (route, its host name) pairs, best first."""
        together = self.dialect.kind_clash == "merge"
        found: list[tuple[Rank, model.Route]] = []
        for route, hostname in routes:
            for i, rule in enumerate(route.rules):
                if any(match_problem(m) is not None for m in rule.matches):
                    continue  # no request can be tested against it, so it is not in force
                for j, match in enumerate(rule.matches):
                    rank = (
                        hostname_rank(hostname),
                        match_rank(match, self.dialect, together=together),
                        position_rank(route, i, j),
                    )
                    found.append((rank, self._entry(route, rule, (i, j), match, entrance)))
        return tuple(entry for _, entry in sorted(found, key=lambda item: item[0]))

    def _entry(
        self, route: Route, rule: Rule, position: tuple[int, int], match: HttpMatch | GrpcMatch, entrance: Entrance
    ) -> model.Route:
        matched = route_match(match)
        if rule_problems(rule):
            done = RuleAction(ERROR, model.HeaderEdits(), model.HeaderEdits())
        else:
            done = rule_action(
                rule, matched.path, entrance, lambda b: self.check(route, b), bad_mirror=self.dialect.bad_mirror
            )
        return model.Route(
            route_name(route, *position), matched, done.action, done.edits, done.response_edits, match.source,
            _settings(rule),
        )  # fmt: skip


def _settings(rule: Rule) -> dict[str, Any]:
    """What happens to a request on its way, as the route writes it."""
    given: dict[str, Any] = {
        "name": rule.name,
        "timeouts": rule.timeouts,
        "retry": rule.retry,
        "sessionPersistence": rule.session,
        "mirrors": [
            {"backend": str(m.backend), "numerator": m.numerator, "denominator": m.denominator}
            for m in rule.filters.mirrors
        ],
        "filters": [dict(f) for f in rule.filters.other],
    }
    return {key: value for key, value in given.items() if value}


def route_name(route: Route, rule: int, match: int) -> str:
    return f"{route.kind.lower()}/{route.ref.namespace}/{route.ref.name}/rule/{rule}/match/{match}"


def rule_problems(rule: Rule) -> list[str]:
    """Why an implementation cannot do what a rule asks for; its requests get 500 or, where not even the match can be
    read, the rule is not in force."""
    problems = [p for m in rule.matches if (p := match_problem(m)) is not None]
    problems += rule.filters.problems
    problems += [f"Invalid filter ExtensionRef: {name} is not known" for name in rule.filters.unknown]
    given = [rule.filters, *(b.filters for b in rule.backends)]
    paths = [f.redirect.path for f in given if f.redirect] + [f.rewrite.path for f in given if f.rewrite]
    by_prefix = any(p is not None and p.kind == "ReplacePrefixMatch" for p in paths)
    if by_prefix and any(isinstance(m, HttpMatch) and m.path_type != "PathPrefix" for m in rule.matches):
        problems.append("ReplacePrefixMatch needs matches of type PathPrefix")
    return problems
