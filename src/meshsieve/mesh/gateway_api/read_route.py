"""Reads routes: parents, hostnames, rules, matches and filters of HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute.

What cannot be a route (wrong types, unknown fields) is refused with its place. What can be read but no implementation
may accept (a regular expression that does not compile, two rewrites in one rule) becomes a problem of the rule, and so
the reason of a status: one bad route must not take the others of the cluster down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from meshsieve.importers.typed import Node
from meshsieve.mesh.gateway_api.model import (
    BackendRef,
    Filters,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Mirror,
    ParentRef,
    PathModifier,
    Ref,
    RequestRedirect,
    Route,
    Rule,
    UrlRewrite,
    ValueMatch,
)
from meshsieve.mesh.objects import GATEWAY_API, MeshObject

MAX_WEIGHT = 1_000_000
RULE_FIELDS = ("name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence")
ROUTE_FIELDS = ("parentRefs", "useDefaultGateways", "hostnames", "rules")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
REDIRECT_CODES = (301, 302, 303, 307, 308)
MATCH_TYPES = ("Exact", "RegularExpression")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")


def read_route(found: MeshObject) -> Route:
    """raises  PolicyError with the place of what cannot be read"""
    spec = found.spec.only(*ROUTE_FIELDS) if found.node.data.get("spec") is not None else None
    hostnames = (spec.texts("hostnames") if spec else None) or []
    rules = (spec.nodes("rules") if spec else None) or []
    parents = (spec.nodes("parentRefs") if spec else None) or []
    return Route(
        Ref(found.kind, found.namespace, found.name),
        tuple(_parent(node, found.namespace) for node in parents),
        tuple(name.lower() for name in hostnames),
        tuple(_rule(found, node) for node in rules),
        found.created,
        (spec.text("useDefaultGateways") if spec else None) == "All",
        found.source,
    )


def _parent(node: Node, namespace: str) -> ParentRef:
    node.only("group", "kind", "namespace", "name", "sectionName", "port")
    group = node.text("group")
    return ParentRef(
        GATEWAY_API if group is None else group,
        node.text("kind") or "Gateway",
        node.text("namespace") or namespace,
        node.required_text("name"),
        node.text("sectionName"),
        node.integer("port", 1, 65535),
    )


def _rule(found: MeshObject, node: Node) -> Rule:
    node.only(*RULE_FIELDS)
    reader = _RuleReader(found)
    matches: tuple[HttpMatch | GrpcMatch, ...] = ()
    if found.kind == "HTTPRoute":
        matches = tuple(reader.http_match(m) for m in node.nodes("matches") or []) or (
            HttpMatch(source=found.source_of(node)),
        )
    elif found.kind == "GRPCRoute":
        matches = tuple(reader.grpc_match(m) for m in node.nodes("matches") or []) or (
            GrpcMatch(source=found.source_of(node)),
        )
    return Rule(
        node.text("name") or "",
        matches,
        reader.filters(node.nodes("filters") or []),
        tuple(reader.backend(b) for b in node.nodes("backendRefs") or []),
        found.source_of(node),
        _texts_of(node, "timeouts"),
        _plain(node, "retry"),
        _plain(node, "sessionPersistence"),
    )


def _texts_of(node: Node, key: str) -> dict[str, str] | None:
    inner = node.node(key)
    return None if inner is None else node.text_map(key)


def _plain(node: Node, key: str) -> dict[str, Any] | None:
    inner = node.node(key)
    return None if inner is None else dict(inner.data)


class _RuleReader:
    def __init__(self, found: MeshObject) -> None:
        self.found = found

    # --- matches

    def http_match(self, node: Node) -> HttpMatch:
        node.only("path", "headers", "queryParams", "method")
        path = node.node("path")
        kind, value = "PathPrefix", "/"
        if path is not None:
            path.only("type", "value")
            kind = path.choice("type", ("Exact", "PathPrefix", "RegularExpression"), "PathPrefix")
            value = _given(path, "value", "/")
            if kind != "RegularExpression" and not value.startswith("/"):
                raise path.error("must begin with /", "value")
        method = node.text("method")
        return HttpMatch(
            kind,  # type: ignore[arg-type]
            value,
            _first_of_each((self._value(h) for h in node.nodes("headers") or []), fold=True),
            _first_of_each((self._value(q) for q in node.nodes("queryParams") or []), fold=False),
            None if method is None else node.choice("method", METHODS),
            self.found.source_of(node),
        )

    def grpc_match(self, node: Node) -> GrpcMatch:
        node.only("method", "headers")
        method = node.node("method")
        kind, service, name = "Exact", "", ""
        if method is not None:
            method.only("type", "service", "method")
            kind = method.choice("type", MATCH_TYPES, "Exact")
            service, name = _given(method, "service", ""), _given(method, "method", "")
        return GrpcMatch(
            kind,  # type: ignore[arg-type]
            service,
            name,
            _first_of_each((self._value(h) for h in node.nodes("headers") or []), fold=True),
            self.found.source_of(node),
        )

    def _value(self, node: Node) -> ValueMatch:
        node.only("type", "name", "value")
        kind = node.choice("type", MATCH_TYPES, "Exact")
        return ValueMatch(node.required_text("name"), kind, node.required_text("value"))  # type: ignore[arg-type]

    # --- backends and filters

    def backend(self, node: Node) -> BackendRef:
        node.only("group", "kind", "namespace", "name", "port", "weight", "filters")
        weight = node.integer("weight", 0, MAX_WEIGHT)
        return BackendRef(
            node.text("group") or "",
            node.text("kind") or "Service",
            node.text("namespace") or self.found.namespace,
            node.required_text("name"),
            node.integer("port", 1, 65535),
            1 if weight is None else weight,
            self.filters(node.nodes("filters") or []),
            self.found.source_of(node),
        )

    def filters(self, nodes: list[Node]) -> Filters:
        request: list[HeaderModifier] = []
        response: list[HeaderModifier] = []
        redirects: list[RequestRedirect] = []
        rewrites: list[UrlRewrite] = []
        mirrors: list[Mirror] = []
        other: list[Node] = []
        unknown: list[str] = []
        problems: list[str] = []
        for node in nodes:
            node.only(
                "type", "requestHeaderModifier", "responseHeaderModifier", "requestMirror", "requestRedirect",
                "urlRewrite", "cors", "externalAuth", "extensionRef",
            )  # fmt: skip
            kind = node.required_text("type")
            if kind == "ExtensionRef":
                ref = _content(node, "extensionRef").only("group", "kind", "name")
                unknown.append(f"{ref.text('group') or ''}/{ref.required_text('kind')} {ref.required_text('name')}")
            elif kind == "RequestHeaderModifier":
                request.append(_modifier(_content(node, "requestHeaderModifier"), kind, problems))
            elif kind == "ResponseHeaderModifier":
                response.append(_modifier(_content(node, "responseHeaderModifier"), kind, problems))
            elif kind == "RequestRedirect":
                redirects.append(_redirect(_content(node, "requestRedirect")))
            elif kind == "URLRewrite":
                rewrites.append(_rewrite(_content(node, "urlRewrite")))
            elif kind == "RequestMirror":
                mirrors.append(self._mirror(_content(node, "requestMirror")))
            elif kind in ("CORS", "ExternalAuth"):
                other.append(node)
            else:
                raise node.error(f"{kind!r} is not a type of filter", "type")
        for name, several in (("requestRedirect", redirects), ("urlRewrite", rewrites)):
            if len(several) > 1:
                problems.append(f"Cannot configure multiple {name} filters for a single rule")
        if redirects and rewrites:
            problems.append("URLRewrite and RequestRedirect exclude each other")
        for rewritten in rewrites:
            if rewritten.hostname is not None and not _is_hostname(rewritten.hostname):
                problems.append(f"hostname {rewritten.hostname!r} of URLRewrite is no host name")
        return Filters(
            tuple(request), tuple(response), redirects[0] if redirects else None, rewrites[0] if rewrites else None,
            tuple(mirrors), tuple(node.data for node in other), tuple(unknown), tuple(problems),
        )  # fmt: skip

    def _mirror(self, node: Node) -> Mirror:
        node.only("backendRef", "percent", "fraction")
        backend = self.backend(_content(node, "backendRef"))
        percent, fraction = node.integer("percent", 0, 100), node.node("fraction")
        if fraction is None:
            return Mirror(backend, 100 if percent is None else percent)
        if percent is not None:
            raise node.error("and percent exclude each other", "fraction")
        fraction.only("numerator", "denominator")
        numerator = fraction.integer("numerator", 0, 2**31 - 1)
        denominator = fraction.integer("denominator", 1, 2**31 - 1) or 100
        if numerator is None:
            raise fraction.error("is missing", "numerator")
        if numerator > denominator:
            raise fraction.error(f"{numerator} is more than the denominator, {denominator}", "numerator")
        return Mirror(backend, numerator, denominator)


def _content(node: Node, key: str) -> Node:
    inner = node.node(key)
    if inner is None:
        raise node.error("is missing", key)
    return inner


def _given(node: Node, key: str, default: str) -> str:
    value = node.text(key)
    return default if value is None else value


def _first_of_each(values: Iterable[ValueMatch], *, fold: bool) -> tuple[ValueMatch, ...]:
    """Of several entries with equivalent names only the first counts (the API's documentation)."""
    kept: dict[str, ValueMatch] = {}
    for value in values:
        kept.setdefault(value.name.lower() if fold else value.name, value)
    return tuple(kept.values())


def _modifier(node: Node, kind: str, problems: list[str]) -> HeaderModifier:
    node.only("set", "add", "remove")
    lists = {}
    for key in ("set", "add"):
        entries = node.nodes(key) or []
        for entry in entries:
            entry.only("name", "value")
        lists[key] = tuple((entry.required_text("name"), entry.text("value") or "") for entry in entries)
    remove = tuple(node.texts("remove") or [])
    for name in (*(name for name, _ in (*lists["set"], *lists["add"])), *remove):
        if not _TOKEN.match(name) or name.lower() == "host":
            problems.append(f"{kind} cannot name the header {name!r}")
    problems += [f"{kind} has no value for {name!r}" for name, value in (*lists["set"], *lists["add"]) if not value]
    return HeaderModifier(lists["set"], lists["add"], remove)


def _redirect(node: Node) -> RequestRedirect:
    node.only("scheme", "hostname", "path", "port", "statusCode")
    status = node.integer("statusCode", 300, 399)
    if status is not None and status not in REDIRECT_CODES:
        raise node.error(f"{status} is none of {', '.join(map(str, REDIRECT_CODES))}", "statusCode")
    scheme = node.text("scheme")
    return RequestRedirect(
        None if scheme is None else node.choice("scheme", ("http", "https")),
        node.text("hostname"),
        node.integer("port", 1, 65535),
        _path_modifier(node),
        status or 302,
    )


def _rewrite(node: Node) -> UrlRewrite:
    node.only("hostname", "path")
    return UrlRewrite(node.text("hostname"), _path_modifier(node))


def _path_modifier(node: Node) -> PathModifier | None:
    path = node.node("path")
    if path is None:
        return None
    path.only("type", "replaceFullPath", "replacePrefixMatch")
    kind = path.choice("type", ("ReplaceFullPath", "ReplacePrefixMatch"))
    key = kind[0].lower() + kind[1:]
    return PathModifier(kind, path.required_text(key))  # type: ignore[arg-type]


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z", re.ASCII)


def _is_hostname(text: str) -> bool:
    """A "precise hostname": RFC 1123, no wildcard, no address, no port."""
    if len(text) > 253 or not all(len(label) <= 63 and _LABEL.match(label) for label in text.split(".")):
        return False
    return not text.replace(".", "").isdigit()
