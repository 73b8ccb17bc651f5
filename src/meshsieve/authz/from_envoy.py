"""Envoy's RBAC filter, read as Envoy reads it: HTTP and network filters, enforced and shadow rules, conditions in CEL.

What    One filter, a bare RBAC message, a list of filters, or what holds ``http_filters`` or ``filters``; of a list the
        RBAC filters count, in their order, and the others are named in a finding.
Refused extensions (``matcher``, ``custom``), unknown fields, lists that Envoy wants filled: nobody could judge them.
Identity ``authenticated`` is compared with the peer's URI SAN (``Request.principal``), as is filter state under
        ``io.istio.peer_principal``. Certificates with other names only are not known here.
Source  envoy.config.rbac.v3 (rbac.proto), extensions.filters.{http,network}.rbac.v3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from meshsieve.authz.cel import compile_expression
from meshsieve.authz.cel.dialect import Dialect, of_envoy
from meshsieve.authz.cel.tree import MAX_DEPTH
from meshsieve.authz.cel.tree import from_envoy as read_expression
from meshsieve.authz.chain_authorizer import ChainAuthorizer
from meshsieve.authz.facts import JWT_FILTER
from meshsieve.authz.generate import ANY_TEXT, any_of
from meshsieve.authz.model import (
    DESTINATION_IP,
    DESTINATION_PORT,
    HOST,
    METHOD,
    PATH,
    PEER,
    REMOTE_IP,
    SNI,
    SOURCE_IP,
    Action,
    Alternatives,
    Chain,
    Clause,
    Condition,
    Conjunction,
    EnvoyTest,
    Field,
    Filter,
    Group,
    Matcher,
    Network,
    Pattern,
    Ports,
    Present,
    Rule,
    Test,
    Text,
)
from meshsieve.authz.to_envoy import PAYLOAD
from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.yaml_source import located
from meshsieve.model import Source
from meshsieve.policy import Diagnostic
from meshsieve.routes.http_options import HttpOptions
from meshsieve.routes.model import HeaderMatch, MetadataMatch, StringMatch, ValueMatch
from meshsieve.routes.proto import Proto, document
from meshsieve.routes.read_match import (
    cidr_range,
    extension,
    filter_state_match,
    header_match,
    metadata_match,
    string_match,
)
from meshsieve.routes.template import parse_template

_ACTIONS = {"ALLOW": Action.ALLOW, "DENY": Action.DENY, "LOG": Action.AUDIT}
_PEER_STATE = "io.istio.peer_principal"
_PERMISSIONS = (
    "and_rules", "or_rules", "any", "header", "url_path", "destination_ip", "destination_port",
    "destination_port_range", "metadata", "not_rule", "requested_server_name", "matcher", "uri_template",
    "sourced_metadata",
)  # fmt: skip
_PRINCIPALS = (
    "and_ids", "or_ids", "any", "authenticated", "source_ip", "direct_remote_ip", "remote_ip", "header", "url_path",
    "metadata", "filter_state", "not_id", "sourced_metadata", "custom",
)  # fmt: skip
_ADDRESSES = {
    "destination_ip": DESTINATION_IP,
    "source_ip": SOURCE_IP,
    "direct_remote_ip": SOURCE_IP,
    "remote_ip": REMOTE_IP,
}
OnError = Literal["deny", "no-match"]


def from_envoy(
    config: Any,
    options: HttpOptions | None = None,
    *,
    file: str = "<rbac configuration>",
    on_error: OnError = "deny",
    trusted_proxies: int = 0,
) -> ChainAuthorizer:
    """An authorizer from Envoy configuration: a mapping, a list of filters, or YAML or JSON text.

    options   what the HTTP connection manager does before the filters
    on_error  what a DENY rule does where its condition fails to evaluate; an ALLOW rule then never matches

    raises    PolicyError naming the place and the field's path
    """
    if isinstance(config, list | tuple):
        config = {"filters": list(config)}
    filters: list[Filter] = []
    findings: list[Diagnostic] = []
    tcp = False
    for node in _filters(document(config, file), findings):
        network = node.string("@type").endswith("network.rbac.v3.RBAC")
        filters.append(_filter(node, on_error))
        tcp = tcp or network
    if not filters:
        raise PolicyError("holds no RBAC filter", where=file)
    return ChainAuthorizer(
        Chain(tuple(filters), tcp), options or HttpOptions(), diagnostics=findings, trusted_proxies=trusted_proxies
    )


def _filters(node: Proto, findings: list[Diagnostic]) -> Iterable[Proto]:
    if node.has("@type") or node.has("rules") or node.has("shadow_rules") or node.has("policies") or node.has("action"):
        if node.string("@type").endswith(("rbac.v3.RBAC", "")) and (node.has("policies") or node.has("action")):
            node = Proto(located({"rules": dict(node.data)}, node.data.file), node.obj, node.path)
        yield node
        return
    key = next((k for k in ("http_filters", "filters") if node.has(k)), None)
    if key is None:
        raise node.error("expected an RBAC filter, RBAC rules, or a list of filters")
    for item in node.messages(key):
        config = item.message("typed_config")
        if config is not None and config.string("@type").endswith("rbac.v3.RBAC"):
            yield config
            continue
        name = item.string("name") or "a filter"
        where = item.data.where()
        findings.append(Diagnostic("other-filter", f"{name} is no RBAC filter and is not judged", where, level="note"))


def _filter(node: Proto, on_error: OnError) -> Filter:
    node.only(
        "@type", "rules", "shadow_rules", "rules_stat_prefix", "shadow_rules_stat_prefix", "track_per_rule_stats",
        "stat_prefix", "enforcement_type", "delay_deny", "matcher", "shadow_matcher",
    )  # fmt: skip
    for key in ("matcher", "shadow_matcher"):
        if node.has(key):
            raise node.error("match trees are not read here", key, "write the policies as rules")
    action, rules = _rules(node.message("rules"), on_error)
    shadow_action, shadow = _rules(node.message("shadow_rules"), on_error)
    prefix = node.string("shadow_rules_stat_prefix")
    return Filter(action, rules, shadow, shadow_action, prefix)


def _rules(node: Proto | None, on_error: OnError) -> tuple[Action, tuple[Rule, ...] | None]:
    if node is None:
        return Action.ALLOW, None
    node.only("action", "policies", "audit_logging_options")
    action = _ACTIONS[node.enum("action", tuple(_ACTIONS), "ALLOW")]
    policies = node.message("policies")
    if policies is None:
        return action, ()
    return action, tuple(_policy(policies, name, action, on_error) for name in policies.data)


def _policy(policies: Proto, name: str, action: Action, on_error: OnError) -> Rule:
    found = policies.node(name)
    if found is None:
        raise policies.error("is empty", name)
    node = Proto(found.data, found.obj, found.path)
    node.only("permissions", "principals", "condition", "checked_condition", "cel_config")
    sides = []
    for key, members in (("principals", _PRINCIPALS), ("permissions", _PERMISSIONS)):
        items = node.messages(key)
        if not items:
            raise node.error("needs at least one item", key)
        sides.append(_alternatives([_clause(item, members, 0) for item in items]))
    condition = _condition(node, action is Action.DENY and on_error == "deny")
    permissions = sides[1] if condition is None else ((Group(sides[1]), condition),)
    where = node.data
    return Rule(name, sides[0], permissions, Source(where.file, where.position[0], f"policy {name}"))


def _condition(node: Proto, on_error: bool) -> Condition | None:
    key = node.one_of("condition", "checked_condition")
    dialect = _dialect(node)
    if key is None:
        return None
    try:
        if isinstance(node.value(key), str):
            return Condition(compile_expression(node.string(key), dialect=dialect), on_error)
        message = node.message(key)
        assert message is not None
        if key == "checked_condition":
            message = message.message("expr") or message
        text = f"condition at {message.path}"
        return Condition(compile_expression(read_expression(message), text=text, dialect=dialect), on_error)
    except ModelError as error:
        raise node.error(str(error), key) from None


def _dialect(node: Proto) -> Dialect:
    config = node.message("cel_config")
    if config is None:
        return of_envoy(string_conversion=False, text_concatenation=False)
    config.only("enable_string_conversion", "enable_string_concat", "enable_string_functions")
    return of_envoy(
        string_conversion=config.flag("enable_string_conversion"),
        text_concatenation=config.flag("enable_string_concat"),
    )


def _alternatives(clauses: Iterable[Clause]) -> Alternatives:
    """An OR of clauses: groups of one conjunction are opened, and what can never hold is left out."""
    conjunctions = (_opened(clause) for clause in clauses)
    return tuple(c for c in conjunctions if not any(map(_is_never, c)))


def _is_never(clause: Clause) -> bool:
    return isinstance(clause, Group) and (() in clause.alternatives if clause.negated else not clause.alternatives)


def _opened(clause: Clause) -> Conjunction:
    if isinstance(clause, Group) and not clause.negated and len(clause.alternatives) == 1:
        return clause.alternatives[0]
    return (clause,)


def _clause(node: Proto, members: tuple[str, ...], depth: int) -> Clause:
    """One Permission or Principal."""
    if depth > MAX_DEPTH:
        raise node.error(f"nested deeper than {MAX_DEPTH}")
    kind = node.only(*members).one_of(*members, required=True)
    assert kind is not None
    match kind:
        case "any":
            if not node.flag("any"):
                raise node.error("value must equal true", "any")
            return Group(((),))
        case "and_rules" | "and_ids":
            return Group((tuple(c for part in _inner(node, kind, members, depth) for c in _opened(part)),))
        case "or_rules" | "or_ids":
            return any_of([_opened(part) for part in _inner(node, kind, members, depth)], False)
        case "not_rule" | "not_id":
            message = node.message(kind)
            assert message is not None
            return _negated(_clause(message, members, depth + 1))
        case "destination_port":
            port = node.whole(kind, 0, 65535, 0) or 0
            return Test(DESTINATION_PORT, (Ports(port, port),))
        case "matcher" | "custom":
            raise node.error("extensions are not read here", kind)
    message = node.message(kind)
    assert message is not None
    return _leaf(node, kind, message)


def _inner(node: Proto, kind: str, members: tuple[str, ...], depth: int) -> list[Clause]:
    message = node.message(kind)
    key = "rules" if kind.endswith("rules") else "ids"
    assert message is not None
    items = message.only(key).messages(key)
    if not items:
        raise message.error("needs at least one item", key)
    return [_clause(item, members, depth + 1) for item in items]


def _negated(clause: Clause) -> Clause:
    match clause:
        case Test(field, matchers, negated):
            return Test(field, matchers, not negated)
        case Group(alternatives, negated):
            return Group(alternatives, not negated)
        case EnvoyTest(match, negated):
            return EnvoyTest(match, not negated)
    return Group(((clause,),), negated=True)


def _leaf(node: Proto, kind: str, message: Proto) -> Clause:
    match kind:
        case "header":
            return _header(header_match(message))
        case "url_path":
            inner = message.only("path").message("path")
            if inner is None:
                raise message.error("value is required", "path")
            return Test(PATH, (_text(string_match(inner)),))
        case "requested_server_name":
            return Test(SNI, (_text(string_match(message)),))
        case "authenticated":
            name = message.only("principal_name").message("principal_name")
            return Test(PEER, (Present() if name is None else _text(string_match(name)),))
        case "destination_port_range":
            message.only("start", "end")
            start, end = message.whole("start", 0, 65536, 0) or 0, message.whole("end", 0, 65536, 0) or 0
            if start >= end:
                raise message.error("is empty: start is below end, which is not included", "end")
            return Test(DESTINATION_PORT, (Ports(start, end - 1),))
        case "uri_template":
            config = extension(message, "uri_template", "UriTemplateMatchConfig")
            try:
                template = parse_template(config.only("@type", "path_template").string("path_template"))
            except ModelError as error:
                raise config.error(str(error), "path_template") from None
            return Test(PATH, (Pattern(template.regex.pattern.decode()),))
        case "metadata":
            return _metadata(metadata_match(message))
        case "sourced_metadata":
            message.only("metadata_matcher", "metadata_source")
            source = message.enum("metadata_source", ("DYNAMIC", "ROUTE"), "DYNAMIC")
            inner = message.message("metadata_matcher")
            if source != "DYNAMIC" or inner is None:
                raise message.error("only dynamic metadata is known here", "metadata_source")
            return _metadata(metadata_match(inner))
        case "filter_state":
            found = filter_state_match(message)
            if found.key == _PEER_STATE and found.string is not None:
                return Test(PEER, (_text(found.string),))
            return EnvoyTest(found)
    version, low, high = cidr_range(message)
    if version == 6 and low >> 32 == 0xFFFF and high >> 32 == 0xFFFF:
        version, low, high = 4, low & 0xFFFFFFFF, high & 0xFFFFFFFF
    return Test(_ADDRESSES[kind], (Network(version, low, high),))


def _text(match: StringMatch) -> Matcher:
    value = match.value.decode("utf-8", "surrogateescape")
    if match.kind == "regex":
        return ANY_TEXT if value == ".+" else Pattern(value)
    return Text(match.kind, value, match.ignore_case)


def _header(match: HeaderMatch) -> Clause:
    """As a Test where that says the same; an inverted match of an absent header is false, other than a negated Test."""
    if match.invert or match.missing_as_empty or match.kind == "range" or not match.present:
        return EnvoyTest(match)
    name = match.name.decode("utf-8", "surrogateescape").lower()
    field = {":method": METHOD, ":authority": HOST, "host": HOST}.get(name, Field("header", (name,)))
    return Test(field, (Present() if match.string is None else _text(match.string),))


def _metadata(match: MetadataMatch) -> Clause:
    """Claims and texts as Tests, whatever else a metadata matcher can say as it is."""
    is_payload = match.filter == JWT_FILTER and match.path[:1] == (PAYLOAD,)
    texts = _strings(match.value)
    if texts is not None and is_payload and len(match.path) > 1:
        return Test(Field("claim_text", match.path[1:]), texts, match.invert)
    either = match.value.members if match.value.kind == "or" else ()
    if is_payload and len(either) == 2 and either[0].kind == "list":
        texts = _strings(either[1])
        if texts is not None and texts == _strings(either[0].members[0]):
            return Test(Field("claim", match.path[1:]), texts, match.invert)
    if texts is not None and not is_payload:
        return Test(Field("metadata", (match.filter, *match.path)), texts, match.invert)
    return EnvoyTest(match)


def _strings(value: ValueMatch) -> tuple[Matcher, ...] | None:
    """The texts of a value matcher that is about texts alone."""
    if value.string is not None:
        return (_text(value.string),)
    if value.kind != "or":
        return None
    found = [_strings(member) for member in value.members]
    return tuple(m for texts in found for m in texts or ()) if None not in found else None
