"""Reads VirtualServices strictly: what Istio's validation refuses is refused, with the place.

Every field is kept: what routes a request, what changes it, and as data what happens to it on the way (timeout,
retries, fault, corsPolicy).
Source: Istio API networking/v1 VirtualService; istio/istio pkg/config/validation.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Literal

from meshsieve._core import Regex
from meshsieve.errors import ModelError
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping as YamlMapping
from meshsieve.importers.yaml_source import Sequence as YamlSequence
from meshsieve.mesh.istio.model import (
    MESH,
    Destination,
    HeaderOperations,
    Headers,
    HttpMatch,
    HttpRedirect,
    HttpRule,
    L4Match,
    L4Rule,
    Mirror,
    Response,
    Rewrite,
    Share,
    StringTest,
    VirtualService,
)
from meshsieve.mesh.names import covers, full_name
from meshsieve.mesh.objects import MeshObject
from meshsieve.routes.http_options import encoded

STATUSES = (200, 599)
REDIRECT_STATUSES = (301, 302, 303, 307, 308)
HTTP_FIELDS = (
    "name", "match", "route", "redirect", "directResponse", "delegate", "rewrite", "timeout", "retries", "fault",
    "mirror", "mirrorPercent", "mirrorPercentage", "mirrors", "corsPolicy", "headers",
)  # fmt: skip
MATCH_FIELDS = (
    "name", "uri", "scheme", "method", "authority", "headers", "port", "sourceLabels", "gateways", "queryParams",
    "ignoreUriCase", "withoutHeaders", "sourceNamespace", "statPrefix",
)  # fmt: skip
DATA_FIELDS: Mapping[str, tuple[str, ...]] = {
    "retries": (
        "attempts", "perTryTimeout", "retryOn", "retryRemoteLocalities", "retryIgnorePreviousHosts", "backoff",
    ),
    "fault": ("delay", "abort"),
    "corsPolicy": (
        "allowOrigin", "allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials",
        "unmatchedPreflights",
    ),
}  # fmt: skip
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{0,9})?(?:h|ms|m|s|us|µs|ns))+\Z", re.ASCII)
_HEADER_NAME = re.compile(r"[-A-Za-z0-9!#$%&'*+.^_`|~]+\Z", re.ASCII)
_METADATA_NAME = "@request.auth.claims"


def read_virtual_service(found: MeshObject, domain: str) -> VirtualService:
    """raises  PolicyError with file:line:column for what Istio refuses"""
    return _Reader(found, domain).read()


class _Reader:
    def __init__(self, found: MeshObject, domain: str) -> None:
        self.object, self.domain = found, domain

    def host(self, text: str) -> str:
        return full_name(text, self.object.namespace, self.domain).lower()

    def read(self) -> VirtualService:
        spec = self.object.spec.only("hosts", "gateways", "http", "tls", "tcp", "exportTo")
        hosts = spec.texts("hosts") or []
        delegate = not hosts
        gateways = spec.texts("gateways") or []
        http = [self.http_rule(rule, delegate) for rule in spec.nodes("http") or []]
        full_hosts = tuple(self.host(h) for h in hosts)
        if delegate:
            for key in ("gateways", "tls", "tcp"):
                if spec.data.get(key):
                    raise spec.error("a VirtualService without hosts is a delegate, which has http rules only", key)
        self.check_hosts(spec, hosts, full_hosts, gateways)
        virtual_service = VirtualService(
            self.object.namespace,
            self.object.name,
            full_hosts,
            self.gateway_names(spec, "gateways") or (MESH,),
            tuple(http),
            tuple(self.l4_rule(rule, full_hosts, tls=True) for rule in spec.nodes("tls") or []),
            tuple(self.l4_rule(rule, full_hosts, tls=False) for rule in spec.nodes("tcp") or []),
            export_to(spec),
            self.object,
        )
        if not (virtual_service.http or virtual_service.tls or virtual_service.tcp):
            raise spec.error("needs http, tls or tcp rules")
        return virtual_service

    def check_hosts(self, spec: Node, hosts: list[str], full: tuple[str, ...], gateways: list[str]) -> None:
        for i, host in enumerate(hosts):
            if not host or "*" in host.removeprefix("*") or (host.startswith("*") and host[1:2] not in ("", ".")):
                raise spec.error(f"{host!r} is no host name; a star stands for whole labels at the front", "hosts")
            if full[i] in full[:i]:
                raise spec.error(f"host {host} is given twice", "hosts")
            if host == "*" and (not gateways or MESH in gateways):
                raise spec.error("the host * cannot be bound to the mesh, only to gateways", "hosts")

    def gateway_names(self, node: Node, key: str) -> tuple[str, ...]:
        """``namespace/name``; also read: a name of the own namespace, ``./name``, and the old ``name.namespace...``."""
        own, out = self.object.namespace, []
        for name in node.texts(key) or []:
            parts = name.split("/")
            if len(parts) > 2 or not all(parts):
                raise node.error(f"expected name or namespace/name, got {name!r}", key)
            if len(parts) == 2:
                out.append(f"{own}/{parts[1]}" if parts[0] == "." else name)
            elif name == MESH:
                out.append(name)
            else:
                short, _, rest = name.partition(".")
                out.append(f"{rest.split('.')[0] or own}/{short}")
        return tuple(out)

    # --- http

    def http_rule(self, rule: Node, delegate: bool) -> HttpRule:
        rule.only(*HTTP_FIELDS)
        to = rule.node("delegate")
        shares = self.shares(rule, http=True)
        redirect, response = rule.node("redirect"), rule.node("directResponse")
        self.check_action(rule, to, bool(shares), delegate)
        rewrite, headers = rule.node("rewrite"), rule.node("headers")
        target = None
        if to is not None:
            to.only("name", "namespace")
            target = (to.text("namespace") or self.object.namespace, to.required_text("name"))
        return HttpRule(
            rule.text("name") or "",
            tuple(self.http_match(m, plain=delegate or to is not None) for m in rule.nodes("match") or []),
            shares,
            None if redirect is None else self.redirect(redirect),
            None if response is None else self.response(response),
            target,
            None if rewrite is None else self.rewrite(rewrite),
            self.mirrors(rule),
            None if headers is None else read_headers(headers),
            self.settings(rule),
            self.object.source_of(rule),
        )

    def check_action(self, rule: Node, to: Node | None, routed: bool, delegate: bool) -> None:
        """Exactly one of route, redirect, directResponse and delegate, and what goes with it."""
        given = [key for key in ("redirect", "directResponse") if rule.data.get(key) is not None]
        actions = (["route"] if routed else []) + given
        if to is not None:
            if delegate:
                raise rule.error("a delegate cannot delegate further", "delegate")
            if actions:
                raise rule.error(f"excludes {actions[0]}", "delegate")
            return
        if not actions:
            raise rule.error("needs route, redirect, directResponse or delegate")
        if len(actions) > 1:
            raise rule.error(f"excludes {actions[0]}", actions[1])
        for key in given:
            for other in ("fault", "rewrite"):
                if key == "redirect" and rule.data.get(other) is not None:
                    raise rule.error("cannot be used with redirect", other)

    def http_match(self, match: Node, plain: bool) -> HttpMatch:
        """plain: of a root or delegate, where regular expressions are refused."""
        match.only(*MATCH_FIELDS)

        def one(key: str) -> StringTest | None:
            node = match.node(key)
            return None if node is None else string_test(node, plain)

        def several(key: str, check: bool) -> dict[str, StringTest]:
            node = match.node(key)
            out = {}
            for name, value in (node.data if node else {}).items():
                assert node is not None
                if check and not (name.startswith(_METADATA_NAME) or _HEADER_NAME.match(name)):
                    raise node.error("is no header name", name)
                if not isinstance(value, YamlMapping):
                    raise node.error("expected exact, prefix or regex", name, "{} asks for presence")
                out[name] = string_test(Node(value, node.obj, f"{node.path}.{name}"), plain)
            return out

        return HttpMatch(
            match.text("name") or "",
            one("uri"),
            one("scheme"),
            one("method"),
            one("authority"),
            several("headers", True),
            several("withoutHeaders", True),
            several("queryParams", False),
            match.boolean("ignoreUriCase"),
            match.integer("port", 0, 65535) or 0,
            match.text_map("sourceLabels"),
            match.text("sourceNamespace") or "",
            self.gateway_names(match, "gateways"),
            match.text("statPrefix") or "",
        )

    def shares(self, rule: Node, http: bool) -> tuple[Share, ...]:
        out = []
        for entry in rule.nodes("route") or []:
            entry.only("destination", "weight", *(("headers",) if http else ()))
            to, headers = entry.node("destination"), entry.node("headers")
            if to is None:
                raise entry.error("is missing", "destination")
            weight = entry.integer("weight", 0, 2**31 - 1) or 0
            out.append(Share(self.destination(to), weight, read_headers(headers) if headers else Headers()))
        if len(out) > 1 and not any(share.weight for share in out):
            raise rule.error("the weights of several destinations add up to 0", "route")
        return tuple(out)

    def destination(self, node: Node) -> Destination:
        node.only("host", "subset", "port")
        host = node.required_text("host")
        if not host or "*" in host:
            raise node.error(f"{host!r} is no host of a destination", "host")
        port = node.node("port")
        if port is not None and port.only("number").integer("number", 1, 65535) is None:
            raise port.error("is missing", "number")
        number = port.integer("number", 1, 65535) if port is not None else None
        return Destination(self.host(host), node.text("subset") or "", number)

    def redirect(self, node: Node) -> HttpRedirect:
        node.only("uri", "uriPrefix", "uriRegexRewrite", "authority", "port", "derivePort", "scheme", "redirectCode")
        paths = [key for key in ("uri", "uriPrefix", "uriRegexRewrite") if node.data.get(key)]
        if len(paths) > 1:
            raise node.error(f"excludes {paths[0]}", paths[1])
        if not any(node.data.get(key) for key in (*paths, "authority", "port", "derivePort", "scheme", "redirectCode")):
            raise node.error("says nothing that a redirect could change")
        status = node.integer("redirectCode", 0, 599) or 301
        if status not in REDIRECT_STATUSES:
            raise node.error(f"{status} is none of {', '.join(map(str, REDIRECT_STATUSES))}", "redirectCode")
        port: int | Literal["request", "protocol"] | None = node.integer("port", 1, 65535)
        if node.data.get("derivePort") is not None:
            if port is not None:
                raise node.error("excludes port", "derivePort")
            derived = node.choice("derivePort", ("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"))
            port = "request" if derived == "FROM_REQUEST_PORT" else "protocol"
        return HttpRedirect(
            node.text("uri") or "",
            node.text("uriPrefix") or "",
            regex_rewrite(node),
            node.text("authority") or "",
            node.text("scheme") or "",
            port,
            status,
        )

    @staticmethod
    def response(node: Node) -> Response:
        node.only("status", "body")
        status = node.integer("status", *STATUSES)
        if status is None:
            raise node.error("is missing", "status")
        body = node.node("body")
        if body is None:
            return Response(status)
        body.only("string", "bytes")
        if body.data.get("string") is not None and body.data.get("bytes") is not None:
            raise body.error("excludes string", "bytes")
        packed = body.text("bytes")
        if packed is None:
            return Response(status, encoded(body.text("string") or ""))
        try:
            return Response(status, base64.b64decode(packed, validate=True))
        except (binascii.Error, ValueError):
            raise body.error("is not base64", "bytes") from None

    @staticmethod
    def rewrite(node: Node) -> Rewrite:
        node.only("uri", "authority", "uriRegexRewrite")
        found = Rewrite(node.text("uri") or "", node.text("authority") or "", regex_rewrite(node))
        if found.uri and found.regex:
            raise node.error("excludes uri", "uriRegexRewrite")
        if not (found.uri or found.authority or found.regex):
            raise node.error("needs uri, uriRegexRewrite or authority")
        return found

    def mirrors(self, rule: Node) -> tuple[Mirror, ...]:
        """``mirror`` with its percentage, then ``mirrors``; 0 percent mirrors nothing."""
        single, entries = rule.node("mirror"), rule.nodes("mirrors") or []
        if single is not None and entries:
            raise rule.error("excludes mirror", "mirrors")
        out = []
        if single is not None:
            share = percentage(rule, "mirrorPercentage")
            if share is None and rule.data.get("mirrorPercent") is not None:
                share = float(rule.integer("mirrorPercent", 0, 100) or 0)
            out.append(Mirror(self.destination(single), 100.0 if share is None else share))
        for entry in entries:
            to = entry.only("destination", "percentage").node("destination")
            if to is None:
                raise entry.error("is missing", "destination")
            share = percentage(entry, "percentage")
            out.append(Mirror(self.destination(to), 100.0 if share is None else share))
        return tuple(m for m in out if m.percent > 0)

    @staticmethod
    def settings(rule: Node) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if (timeout := duration(rule, "timeout")) is not None:
            out["timeout"] = timeout
        for key, allowed in DATA_FIELDS.items():
            node = rule.node(key)
            if node is not None:
                out[key] = plain_data(node.only(*allowed).data)
        if (retries := rule.node("retries")) is not None:
            retries.integer("attempts", 0, 2**31 - 1)
            duration(retries, "perTryTimeout")
        if (fault := rule.node("fault")) is not None:
            check_fault(fault)
        return out

    # --- tls, tcp

    def l4_rule(self, rule: Node, hosts: tuple[str, ...], tls: bool) -> L4Rule:
        rule.only("match", "route", "name")
        entries = rule.nodes("match") or []
        if tls and not entries:
            raise rule.error("a TLS rule needs a match with sniHosts", "match")
        shares = self.shares(rule, http=False)
        if not shares:
            raise rule.error("is missing", "route")
        return L4Rule(tuple(self.l4_match(m, hosts, tls) for m in entries), shares, self.object.source_of(rule))

    def l4_match(self, match: Node, hosts: tuple[str, ...], tls: bool) -> L4Match:
        own = ("sniHosts",) if tls else ("sourceSubnet",)
        match.only("destinationSubnets", "port", "sourceLabels", "gateways", "sourceNamespace", *own)
        if match.text("sourceSubnet"):
            raise match.error("Istio does not act on it", "sourceSubnet", "remove it, or match on sourceLabels")
        sni = tuple(name.lower() for name in match.texts("sniHosts") or []) if tls else ()
        if tls and not sni:
            raise match.error("at least one SNI host is needed", "sniHosts")
        for name in sni:
            if not any(covers(host, name) for host in hosts):
                raise match.error(f"{name} is not among the hosts of the VirtualService", "sniHosts")
        for subnet in match.texts("destinationSubnets") or []:
            try:
                ipaddress.ip_network(subnet, strict=False)
            except ValueError as error:
                raise match.error(str(error), "destinationSubnets") from None
        return L4Match(
            sni,
            tuple(match.texts("destinationSubnets") or ()),
            match.integer("port", 0, 65535) or 0,
            match.text_map("sourceLabels"),
            match.text("sourceNamespace") or "",
            self.gateway_names(match, "gateways"),
        )


# --- parts that other objects share


def export_to(spec: Node) -> tuple[str, ...]:
    """Namespaces that see the object; () is the mesh's default."""
    names = spec.texts("exportTo") or []
    if "~" in names and len(names) > 1:
        raise spec.error("~ (nobody) excludes everything else", "exportTo")
    if "*" in names and len(names) > 1:
        raise spec.error("* (everybody) excludes everything else", "exportTo")
    return tuple(names)


def string_test(node: Node, plain: bool = False) -> StringTest:
    node.only("exact", "prefix", "regex")
    given = [key for key in ("exact", "prefix", "regex") if node.data.get(key) is not None]
    if len(given) > 1:
        raise node.error(f"excludes {given[0]}", given[1])
    if not given:
        return StringTest("")
    kind = given[0]
    value = node.required_text(kind)
    if kind == "regex":
        if plain:
            raise node.error("roots and delegates cannot match by regular expression", kind)
        if value != "*":
            try:
                Regex(encoded(value))
            except ModelError as error:
                raise node.error(str(error), kind) from None
    return StringTest(kind, value)  # type: ignore[arg-type]


def read_headers(node: Node) -> Headers:
    node.only("request", "response")
    return Headers(_operations(node, "request"), _operations(node, "response"))


def _operations(node: Node, key: str) -> HeaderOperations:
    part = node.node(key)
    if part is None:
        return HeaderOperations()
    part.only("set", "add", "remove")
    found = HeaderOperations(part.text_map("set"), part.text_map("add"), tuple(part.texts("remove") or ()))
    for name in (*found.set, *found.add, *found.remove):
        if not _HEADER_NAME.match(name.removeprefix(":")):
            raise part.error(f"{name!r} is no header name")
    return found


def regex_rewrite(node: Node) -> tuple[str, str] | None:
    part = node.node("uriRegexRewrite")
    if part is None:
        return None
    part.only("match", "rewrite")
    pattern, substitution = part.required_text("match"), part.text("rewrite") or ""
    try:
        Regex(encoded(pattern)).check_substitution(encoded(substitution))
    except ModelError as error:
        raise part.error(str(error)) from None
    return pattern, substitution


def percentage(node: Node, key: str) -> float | None:
    part = node.node(key)
    if part is None:
        return None
    value = part.only("value").data.get("value", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise part.error(f"expected 0 to 100 percent, got {value!r}", "value")
    return float(value)


def duration(node: Node, key: str) -> str | None:
    """The text of a duration such as 1.5s, checked."""
    text = node.text(key)
    if text is not None and not _DURATION.match(text):
        raise node.error(f"{text!r} is no duration", key, "write it such as 1.5s or 200ms")
    return text


def check_fault(node: Node) -> None:
    """A delay is fixed, an abort has one kind of error; percentages lie in 0..100."""
    delay, abort = node.node("delay"), node.node("abort")
    if delay is None and abort is None:
        raise node.error("needs delay or abort")
    if delay is not None:
        delay.only("percent", "percentage", "fixedDelay", "exponentialDelay")
        percentage(delay, "percentage")
        if duration(delay, "fixedDelay") is None:
            raise delay.error("is missing", "fixedDelay")
    if abort is not None:
        abort.only("percentage", "httpStatus", "grpcStatus", "http2Error")
        percentage(abort, "percentage")
        kinds = [key for key in ("httpStatus", "grpcStatus") if abort.data.get(key) is not None]
        if len(kinds) != 1:
            raise abort.error("needs exactly one of httpStatus and grpcStatus")
        if kinds == ["httpStatus"]:
            abort.integer("httpStatus", *STATUSES)


def plain_data(value: Any) -> Any:
    """The same as ordinary dict and list."""
    if isinstance(value, YamlMapping):
        return {key: plain_data(item) for key, item in value.items()}
    return [plain_data(item) for item in value] if isinstance(value, YamlSequence) else value
