"""Reads an Envoy RouteConfiguration (v3). What Envoy refuses at load is refused here, for the same reason."""

from __future__ import annotations

from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.model import Source
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import (
    Action,
    OnMatch,
    OtherAction,
    Predicate,
    Route,
    RouteConfiguration,
    Tree,
    VirtualHost,
)
from meshsieve.routes.proto import Proto, document
from meshsieve.routes.read_action import (
    DEFAULT_MAX_BODY,
    EDIT_FIELDS,
    direct_response,
    forward,
    header_edits,
    mirror,
    one_line,
    redirect,
)
from meshsieve.routes.read_match import header_match, route_match, string_match

ACTIONS = ("route", "redirect", "direct_response", "filter_action", "non_forwarding_action")
CONFIGURATION_FIELDS = (
    "name", "virtual_hosts", "vhds", "internal_only_headers", *EDIT_FIELDS, "most_specific_header_mutations_wins",
    "validate_clusters", "max_direct_response_body_size_bytes", "cluster_specifier_plugins", "request_mirror_policies",
    "ignore_port_in_host_matching", "ignore_path_parameters_in_path_matching", "typed_per_filter_config", "metadata",
    "vhost_header",
)  # fmt: skip
HOST_FIELDS = (
    "name", "domains", "routes", "matcher", "require_tls", "virtual_clusters", "rate_limits", *EDIT_FIELDS, "cors",
    "typed_per_filter_config", "include_request_attempt_count", "include_attempt_count_in_response", "retry_policy",
    "retry_policy_typed_config", "hedge_policy", "include_is_timeout_retry_header", "per_request_buffer_limit_bytes",
    "request_body_buffer_limit", "request_mirror_policies", "metadata",
)  # fmt: skip
ROUTE_FIELDS = (
    "name", "match", *ACTIONS, "metadata", "decorator", "typed_per_filter_config", *EDIT_FIELDS, "tracing",
    "per_request_buffer_limit_bytes", "stat_prefix", "request_body_buffer_limit",
)  # fmt: skip


def read_route_configuration(config: Any, file: str = "<route configuration>") -> RouteConfiguration:
    """``config``: a mapping, or YAML or JSON text.

    raises  PolicyError naming the place, the field's path and what Envoy refuses
    """
    return _Reader(file).configuration(document(config, file))


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.max_body = DEFAULT_MAX_BODY

    def configuration(self, node: Proto) -> RouteConfiguration:
        node.only(*CONFIGURATION_FIELDS)
        self.max_body = node.whole("max_direct_response_body_size_bytes", 0, 2**32 - 1, DEFAULT_MAX_BODY) or 0
        hosts = tuple(self.virtual_host(h) for h in node.messages("virtual_hosts"))
        self.refuse_shared_domains(hosts, node.string("name"))
        header = one_line(node, "vhost_header")
        for policy in node.messages("request_mirror_policies"):
            mirror(policy)
        check_filters(node)
        return RouteConfiguration(
            node.string("name"),
            hosts,
            node.flag("ignore_port_in_host_matching"),
            node.flag("ignore_path_parameters_in_path_matching"),
            header.lower() if header else None,
            node.flag("most_specific_header_mutations_wins"),
            header_edits(node, "request"),
            header_edits(node, "response"),
        )

    def refuse_shared_domains(self, hosts: tuple[VirtualHost, ...], name: str) -> None:
        seen: set[bytes] = set()
        for host in hosts:
            for domain in host.domains:
                if domain in seen:
                    what = (
                        "Only a single wildcard domain is permitted"
                        if domain == b"*"
                        else (
                            f"Only unique values for domains are permitted. Duplicate entry of domain {domain.decode()}"
                        )
                    )
                    raise PolicyError(
                        f"{what} in route {name}", where=str(host.source), obj=f"virtual host {host.name}"
                    )
                seen.add(domain)

    def virtual_host(self, node: Proto) -> VirtualHost:
        node.only(*HOST_FIELDS)
        name = node.string("name")
        if not name:
            raise node.error("value length must be at least 1 character", "name")
        domains = node.strings("domains")
        if not domains:
            raise node.error("must contain at least 1 item", "domains")
        for policy in node.messages("request_mirror_policies"):
            mirror(policy)
        check_filters(node)
        routes = tuple(self.route(r) for r in node.messages("routes"))
        matcher = node.message("matcher")
        if matcher is not None and routes:
            raise node.error("cannot set both matcher and routes on virtual host", "matcher")
        return VirtualHost(
            name,
            tuple(encoded(d).lower() for d in domains),
            routes,
            self.tree(matcher) if matcher is not None else None,
            node.enum("require_tls", ("NONE", "EXTERNAL_ONLY", "ALL"), "NONE"),  # type: ignore[arg-type]
            tuple(self.virtual_cluster(c) for c in node.messages("virtual_clusters")),
            header_edits(node, "request"),
            header_edits(node, "response"),
            Source(self.file, node.data.position[0], f"virtual host {name}"),
        )

    def virtual_cluster(self, node: Proto) -> tuple[str, tuple[Any, ...]]:
        node.only("name", "headers")
        headers = node.messages("headers")
        if not headers:
            raise node.error("virtual clusters must define 'headers'", "headers")
        return node.string("name"), tuple(header_match(h) for h in headers)

    def route(self, node: Proto) -> Route:
        node.only(*ROUTE_FIELDS)
        match = node.message("match")
        if match is None:
            raise node.error("value is required", "match")
        matched = route_match(match)
        kind = node.one_of(*ACTIONS, required=True)
        assert kind is not None
        message = node.message(kind)
        assert message is not None
        action: Action
        if kind == "route":
            action = forward(message, matched.path)
        elif kind == "redirect":
            action = redirect(message, matched.path)
        elif kind == "direct_response":
            action = direct_response(message, self.max_body)
        else:
            action = OtherAction(kind)
        check_filters(node)
        name = node.string("name")
        source = Source(self.file, node.data.position[0], f"{node.path} {name}".strip())
        return Route(name, matched, action, header_edits(node, "request"), header_edits(node, "response"), source)

    # --- match trees (xds.type.matcher.v3.Matcher)

    def tree(self, node: Proto) -> Tree:
        node.only("matcher_list", "matcher_tree", "on_no_match")
        kind = node.one_of("matcher_list", "matcher_tree")
        fallback = node.message("on_no_match")
        no_match = self.on_match(fallback) if fallback is not None else None
        if kind is None:
            return Tree("list", no_match=no_match)
        message = node.message(kind)
        assert message is not None
        if kind == "matcher_list":
            entries = []
            for entry in message.only("matchers").messages("matchers"):
                predicate, on_match = (
                    entry.only("predicate", "on_match").message("predicate"),
                    entry.message("on_match"),
                )
                if predicate is None or on_match is None:
                    raise entry.error("needs predicate and on_match")
                entries.append((self.predicate(predicate), self.on_match(on_match)))
            return Tree("list", tuple(entries), no_match=no_match)
        message.only("input", "exact_match_map", "prefix_match_map", "custom_match")
        table = message.one_of("exact_match_map", "prefix_match_map", "custom_match", required=True)
        if table == "custom_match":
            raise message.error("custom matchers are extensions that are not known here", table)
        entries_map = message.message(table or "")
        assert entries_map is not None
        mapping = entries_map.only("map").message("map")
        if mapping is None:
            raise entries_map.error("value is required", "map")
        found = {encoded(key): self.on_match(_entry(mapping, key)) for key in mapping.data}
        kind_name = "exact" if table == "exact_match_map" else "prefix"
        return Tree(kind_name, (), self.header_input(message), found, no_match)  # type: ignore[arg-type]

    def predicate(self, node: Proto) -> Predicate:
        kind = node.only("single_predicate", "or_matcher", "and_matcher", "not_matcher").one_of(
            "single_predicate", "or_matcher", "and_matcher", "not_matcher", required=True
        )
        message = node.message(kind or "")
        assert message is not None
        if kind == "single_predicate":
            message.only("input", "value_match", "custom_match")
            value = message.message("value_match")
            if value is None:
                raise message.error("custom matchers are extensions that are not known here", "custom_match")
            # Match trees take the matchers of xds.type, whose regular expressions must name their engine.
            expression = value.message("safe_regex")
            if expression is not None and not expression.has("google_re2"):
                raise expression.error("value is required", "google_re2")
            return Predicate("single", self.header_input(message), string_match(value))
        if kind == "not_matcher":
            return Predicate("not", members=(self.predicate(message),))
        members = message.only("predicate").messages("predicate")
        if len(members) < 2:
            raise message.error("needs at least 2 items", "predicate")
        return Predicate("and" if kind == "and_matcher" else "or", members=tuple(self.predicate(m) for m in members))

    def header_input(self, node: Proto) -> bytes:
        message = node.message("input")
        config = message.only("name", "typed_config").message("typed_config") if message is not None else None
        kind = config.string("@type") if config is not None else ""
        if config is None or not kind.endswith(".HttpRequestHeaderMatchInput"):
            raise node.error(f"{kind or 'no input'} is not an input that is known here", "input",
                             "request headers are (HttpRequestHeaderMatchInput)")  # fmt: skip
        return encoded(config.only("@type", "header_name").string("header_name")).lower()

    def on_match(self, node: Proto) -> OnMatch:
        kind = node.only("matcher", "action", "keep_matching").one_of("matcher", "action", required=True)
        keep = node.flag("keep_matching")
        message = node.message(kind or "")
        assert message is not None
        if kind == "matcher":
            return OnMatch(None, self.tree(message), keep)
        config = message.only("name", "typed_config").message("typed_config")
        kind = config.string("@type") if config is not None else ""
        assert config is not None
        plain = Proto(config.data, config.obj, config.path)
        fields = [key for key in plain.data if key != "@type"]
        if kind.endswith(".Route"):
            return OnMatch((self.route(_without_type(plain)),), None, keep)
        if kind.endswith(".RouteList") and fields in ([], ["routes"]):
            return OnMatch(tuple(self.route(r) for r in plain.messages("routes")), None, keep)
        raise message.error(f"{kind or 'no type'} is not an action that is known here", "typed_config")


def _entry(mapping: Proto, key: str) -> Proto:
    message = mapping.message(key)
    if message is None:
        raise mapping.error("value is required", key)
    return message


def _without_type(node: Proto) -> Proto:
    from meshsieve.importers.yaml_source import Mapping

    data = Mapping(node.data.file, node.data.position)
    for key, value in node.data.items():
        if key != "@type":
            data[key] = value
            data.key_positions[key] = node.data.key_positions.get(key, node.data.position)
    return Proto(data, node.obj, node.path)


def check_filters(node: Proto) -> None:
    """``typed_per_filter_config``: its contents belong to filters; a FilterConfig without config is refused."""
    filters = node.message("typed_per_filter_config")
    for name in filters.data if filters is not None else ():
        assert filters is not None
        config = filters.message(name)
        wraps = config is not None and config.string("@type").endswith("route.v3.FilterConfig")
        if wraps and config is not None and not config.has("config") and not config.flag("disabled"):
            raise config.error(f"Empty route/virtual host per filter configuration for {name} filter")
