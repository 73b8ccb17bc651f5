"""The http rules of a VirtualService as routes of one port of one proxy.

Each rule becomes one route a match, in order. Matches that ask for another port, gateway, source label or namespace are
left out: that is decided here and not by requests. After a route that takes everything nothing more is written.
Source: istio/istio pilot/pkg/networking/core/route/route.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from meshsieve._core import Regex
from meshsieve.balance.hash_policy import HashPolicy
from meshsieve.errors import ModelError, PolicyError
from meshsieve.mesh.istio.config import IstioConfig
from meshsieve.mesh.istio.destination_rules import hash_policy
from meshsieve.mesh.istio.model import (
    Destination,
    HeaderOperations,
    HttpMatch,
    HttpRedirect,
    HttpRule,
    Rewrite,
    Share,
    StringTest,
    VirtualService,
)
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.registry import HostService
from meshsieve.routes import formats
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import (
    Action,
    DirectResponse,
    Forward,
    HeaderEdit,
    HeaderEdits,
    HeaderMatch,
    MetadataMatch,
    PathMatch,
    PathRewrite,
    QueryMatch,
    Redirect,
    RegexRewrite,
    Route,
    RouteMatch,
    StringMatch,
    ValueMatch,
    WeightedCluster,
)

CLAIMS = "@request.auth.claims"
JWT_FILTER = "envoy.filters.http.jwt_authn"
DEFAULT_RETRIES = {"attempts": 2}
EVERYTHING = RouteMatch(PathMatch("prefix", b"/"))
Lookup = Callable[[str], HostService | None]


def cluster_name(to: Destination, service: HostService | None, listener_port: int) -> tuple[str, int]:
    """The cluster of a destination and its port: the one named, the service's only one, else the listener's."""
    host = service.alias_of if service is not None and service.alias_of else to.host
    port = listener_port
    if to.port is not None:
        port = to.port
    elif service is not None and len(service.ports) == 1:
        port = service.ports[0].number
    return f"outbound|{port}|{to.subset}|{host}", port


@dataclass(frozen=True)
class RouteBuilder:
    """port: the service's (sidecar) or server's (gateway) port; gateways: names that the proxy answers to on it;
    lookup: the service that a destination's host is, as far as the port is chosen by it; missing: clusters that do not
    exist, with the reason, filled while building."""

    config: IstioConfig
    proxy: Proxy
    port: int
    gateways: frozenset[str]
    tls: bool
    lookup: Lookup
    missing: dict[str, str]

    def routes(self, service: VirtualService) -> tuple[Route, ...]:
        out = []
        for route in self._routes(service):
            out.append(route)
            if takes_everything(route):
                break
        return tuple(out)

    def _routes(self, service: VirtualService) -> Iterator[Route]:
        for rule in service.http:
            if not rule.matches:
                yield self._route(rule, None)
                return
            for match in rule.matches:
                if self._applies(match):
                    yield self._route(rule, match)

    def _applies(self, match: HttpMatch) -> bool:
        if match.port not in (0, self.port):
            return False
        if match.gateways:
            return not self.gateways.isdisjoint(match.gateways)
        labels = self.proxy.labels
        return all(labels.get(key) == value for key, value in match.source_labels.items()) and (
            match.source_namespace in ("", self.proxy.namespace)
        )

    def _route(self, rule: HttpRule, match: HttpMatch | None) -> Route:
        name = rule.name + (f".{match.name}" if match is not None and match.name else "")
        edits, response_edits, authority = HeaderEdits(), HeaderEdits(), ""
        if rule.headers is not None:
            edits, authority = header_edits(rule.headers.request, rule)
            response_edits, _ = header_edits(rule.headers.response, rule)
        test = EVERYTHING if match is None else route_match(match)
        action: Action
        settings: dict[str, Any] = dict(rule.settings)
        if rule.redirect is not None:
            action = self._redirect(rule.redirect)
        elif rule.response is not None:
            action = DirectResponse(rule.response.status, rule.response.body)
        else:
            authority = (rule.rewrite.authority if rule.rewrite else "") or authority
            if len(rule.shares) == 1:
                # Headers of a single destination act on the route.
                own, own_authority = header_edits(rule.shares[0].headers.request, rule)
                own_response, _ = header_edits(rule.shares[0].headers.response, rule)
                edits, response_edits = _joined(edits, own), _joined(response_edits, own_response)
                authority = authority or own_authority
            action = self._forward(rule, authority)
            settings.setdefault("retries", DEFAULT_RETRIES)
            if rule.mirrors:
                named = [(self._cluster(m.destination), m.percent) for m in rule.mirrors]
                settings["mirrors"] = [{"cluster": cluster, "percentage": percent} for cluster, percent in named]
        return Route(name, test, action, edits, response_edits, rule.source, settings)

    def _cluster(self, to: Destination) -> str:
        name, port = cluster_name(to, self.lookup(to.host), self.port)
        reason = self.config.missing(to, port, self.proxy)
        if reason:
            self.missing[name] = reason
        return name

    def _forward(self, rule: HttpRule, authority: str) -> Forward:
        named: dict[str, Any] = {}
        hashes: list[HashPolicy] = []
        # Of several destinations those of weight 0 get nothing.
        shares = [s for s in rule.shares if len(rule.shares) == 1 or s.weight]
        for share in shares:
            hashes += hash_policy(self.config.rule(share.destination.host, self.proxy), share.destination)
        if len(rule.shares) == 1:
            named["cluster"] = self._cluster(rule.shares[0].destination)
        else:
            named["weighted"] = tuple(self._weighted(share, rule) for share in shares)
        parts = tuple(part for policy in hashes for part in policy.parts)
        return Forward(
            rewrite=path_rewrite(rule.rewrite),
            host_literal=encoded(authority) if authority else None,
            mirrors=tuple((self._cluster(m.destination), b"") for m in rule.mirrors),
            hash_policy=(HashPolicy(parts),) if parts else (),
            **named,
        )

    def _weighted(self, share: Share, rule: HttpRule) -> WeightedCluster:
        edits, authority = header_edits(share.headers.request, rule)
        response_edits, _ = header_edits(share.headers.response, rule)
        host = encoded(authority) if authority else None
        return WeightedCluster(self._cluster(share.destination), b"", share.weight, edits, response_edits, host)

    def _redirect(self, redirect: HttpRedirect) -> Redirect:
        port = self.port if redirect.port == "request" else redirect.port
        scheme = redirect.scheme or ("https" if self.tls else "http")
        if not isinstance(port, int) or (scheme, port) in (("http", 80), ("https", 443)):
            port = None
        return Redirect(
            scheme=redirect.scheme or None,
            host=encoded(redirect.authority) if redirect.authority else None,
            port=port,
            path=encoded(redirect.uri) if redirect.uri else None,
            rewrite=path_rewrite(Rewrite(redirect.uri_prefix, "", redirect.regex)),
            status=redirect.status,
        )


def takes_everything(route: Route) -> bool:
    """A route by ``/`` or ``.*`` without any other condition."""
    match = route.match
    path = match.path
    everything = (path.kind == "prefix" and path.value == b"/") or (path.kind == "regex" and path.value == b".*")
    return everything and not (match.headers or match.queries or match.metadata)


def route_match(match: HttpMatch) -> RouteMatch:
    headers: list[HeaderMatch] = []
    metadata: list[MetadataMatch] = []
    for tests, inverted in ((match.headers, False), (match.without_headers, True)):
        for name, test in tests.items():
            claim = claim_path(name)
            if claim is not None:
                metadata.append(MetadataMatch(JWT_FILTER, ("payload", *claim), _claim_value(test), inverted))
            else:
                # An absent header satisfies "without" whatever the text; presence inverted says that by itself.
                headers.append(_header(name, test, inverted, inverted and not test.presence))
    for name, pseudo in ((":method", match.method), (":authority", match.authority), (":scheme", match.scheme)):
        if pseudo is not None:
            headers.append(_header(name, pseudo, False, False))
    queries = [QueryMatch(encoded(n), None if t.presence else string_match(t)) for n, t in match.query.items()]
    return RouteMatch(_path(match), tuple(headers), tuple(queries), metadata=tuple(metadata))


def _path(match: HttpMatch) -> PathMatch:
    uri = match.uri
    if uri is None or uri.kind == "":
        return EVERYTHING.path
    if uri.kind == "regex":
        return PathMatch("regex", encoded(uri.value), Regex(encoded(uri.value)))
    kind = "path" if uri.kind == "exact" else "prefix"
    return PathMatch(kind, encoded(uri.value), case_sensitive=not match.ignore_uri_case)  # type: ignore[arg-type]


def string_match(test: StringTest) -> StringMatch:
    if test.kind == "regex":
        return StringMatch("regex", encoded(test.value), Regex(encoded(test.value)))
    return StringMatch(test.kind, encoded(test.value))  # type: ignore[arg-type]


def _header(name: str, test: StringTest, invert: bool, missing_as_empty: bool) -> HeaderMatch:
    key = encoded(name).lower()
    if test.presence:
        return HeaderMatch(key, "present", invert=invert)
    return HeaderMatch(key, "string", string=string_match(test), invert=invert, missing_as_empty=missing_as_empty)


def claim_path(name: str) -> tuple[str, ...] | None:
    """The path of a claim from ``@request.auth.claims.a.b`` or ``@request.auth.claims[a][b]``; None for a header.

    >>> claim_path("@request.auth.claims[group][id]"), claim_path("@request.auth.claims.sub"), claim_path("x")
    (('group', 'id'), ('sub',), None)
    """
    if not name.lower().startswith(CLAIMS):
        return None
    rest = name[len(CLAIMS) :]
    if rest.startswith(".") and len(rest) > 1:
        return tuple(rest[1:].split("."))
    if len(rest) > 2 and rest.startswith("[") and rest.endswith("]"):
        return tuple(rest[1:-1].split("]["))
    return None


def _claim_value(test: StringTest) -> ValueMatch:
    """A text, or a list that holds it."""
    if test.presence:
        return ValueMatch("present", True)
    text = ValueMatch("string", None, string_match(test))
    return ValueMatch("or", members=(ValueMatch("list", members=(text,)), text))


def header_edits(operations: HeaderOperations, rule: HttpRule) -> tuple[HeaderEdits, str]:
    """Edits without pseudo headers and host, and the authority that they set: ``set`` before ``add``.

    raises  PolicyError for a value with a % command that Envoy does not know
    """
    authority = ""
    add = []
    for values, action in ((operations.set, "OVERWRITE_IF_EXISTS_OR_ADD"), (operations.add, "APPEND_IF_EXISTS_OR_ADD")):
        for name, value in sorted(values.items()):
            if name.lower() in (":authority", "host"):
                authority = authority or value
            elif not name.startswith(":"):
                try:
                    formats.check(value, "header")
                except ModelError as error:
                    place = f"{rule.source.file}:{rule.source.line}"
                    raise PolicyError(f"headers: {name}: {error}", where=place, obj=rule.source.obj) from None
                add.append(HeaderEdit(encoded(name).lower(), value, action))
    kept = (encoded(n).lower() for n in operations.remove if not n.startswith(":") and n.lower() != "host")
    return HeaderEdits(tuple(add), tuple(kept)), authority


def _joined(first: HeaderEdits, second: HeaderEdits) -> HeaderEdits:
    return HeaderEdits(first.add + second.add, first.remove + second.remove)


def path_rewrite(rewrite: Rewrite | None) -> PathRewrite:
    if rewrite is None or not (rewrite.regex or rewrite.uri):
        return PathRewrite()
    if rewrite.regex is not None:
        pattern, substitution = rewrite.regex
        return PathRewrite(regex=RegexRewrite(Regex(encoded(pattern)), encoded(substitution)))
    return PathRewrite(prefix=encoded(rewrite.uri))
