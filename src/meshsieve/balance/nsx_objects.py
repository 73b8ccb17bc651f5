"""NSX load balancer objects, read from Policy API JSON: virtual servers, pools, rules, profiles.

Strict: an unknown field of an object that decides is refused. Monitors, services and SSL profiles are known and change
no decision (a monitor's verdict is an input of the replay). Groups are taken when they are plain addresses.

Source: NSX Policy API (LBVirtualServer, LBPool, LBRule ...), field by field in the Terraform provider for NSX.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from meshsieve.balance.hosts import canonical_address
from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.json_source import Object, read_json
from meshsieve.importers.nsx.addresses import Range, parse_range
from meshsieve.importers.nsx.fields import Fields
from meshsieve.importers.nsx.objects import label_of
from meshsieve.policy import SourceFile

ALGORITHMS = ("ROUND_ROBIN", "WEIGHTED_ROUND_ROBIN", "LEAST_CONNECTION", "WEIGHTED_LEAST_CONNECTION", "IP_HASH")
PHASES = ("TRANSPORT", "HTTP_ACCESS", "HTTP_REQUEST_REWRITE", "HTTP_FORWARDING", "HTTP_RESPONSE_REWRITE")
MATCH_TYPES = ("REGEX", "STARTS_WITH", "ENDS_WITH", "EQUALS", "CONTAINS")
PROFILES = {"LBFastTcpProfile": "tcp", "LBFastUdpProfile": "udp", "LBHttpProfile": "http"}
PERSISTENCE = ("LBSourceIpPersistenceProfile", "LBCookiePersistenceProfile", "LBGenericPersistenceProfile")
# Read by nobody here: they describe how traffic is checked or encrypted, not where it goes.
SILENT = (
    "LBService",
    "LBClientSslProfile",
    "LBServerSslProfile",
    "LBHttpMonitorProfile",
    "LBHttpsMonitorProfile",
    "LBTcpMonitorProfile",
    "LBUdpMonitorProfile",
    "LBIcmpMonitorProfile",
    "LBPassiveMonitorProfile",
)
MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class Member:
    """One pool member. port None: the virtual server's default, else the port the client used."""

    name: str
    address: str
    port: int | None
    weight: int
    admin: str
    backup: bool
    limit: int | None


@dataclass(frozen=True)
class Pool:
    path: str
    algorithm: str
    members: tuple[Member, ...]
    min_active: int
    snat: str
    snat_addresses: tuple[str, ...]
    weighted: bool  # some weight is not 1
    where: str


@dataclass(frozen=True)
class Condition:
    """kind: what is read (uri, header, ...); name: of the header, cookie or variable; value: the pattern or text."""

    kind: str
    name: str
    value: str
    match_type: str
    case_sensitive: bool
    inverse: bool
    where: str


@dataclass(frozen=True)
class RuleAction:
    kind: str
    values: Mapping[str, str]
    where: str


@dataclass(frozen=True)
class LbRule:
    name: str
    phase: str
    match_all: bool
    conditions: tuple[Condition, ...]
    actions: tuple[RuleAction, ...]
    where: str


@dataclass(frozen=True)
class AppProfile:
    """kind: tcp, udp or http; the redirects and x_forwarded_for are HTTP's."""

    path: str
    kind: str
    redirect_to_https: bool
    redirect_to: str
    x_forwarded_for: str


@dataclass(frozen=True)
class PersistenceProfile:
    path: str
    kind: str
    shared: bool
    timeout: int
    purge: bool
    cookie_name: str
    cookie_mode: str
    cookie_fallback: bool
    cookie_garble: bool


@dataclass(frozen=True)
class VirtualServer:
    path: str
    name: str
    enabled: bool
    address: str
    ports: tuple[tuple[int, int], ...]
    member_ports: tuple[tuple[int, int], ...]
    pool: str
    sorry_pool: str
    profile: str
    persistence: str
    access_action: str
    access_group: str
    max_connections: int | None
    max_rate: int | None
    rules: tuple[LbRule, ...]
    where: str


@dataclass
class LbObjects:
    """By path. groups: address ranges of the groups that are plain addresses."""

    servers: dict[str, VirtualServer] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    profiles: dict[str, AppProfile] = field(default_factory=dict)
    persistence: dict[str, PersistenceProfile] = field(default_factory=dict)
    groups: dict[str, tuple[Range, ...]] = field(default_factory=dict)


Kept = TypeVar("Kept", VirtualServer, Pool, AppProfile, PersistenceProfile)


def read_objects(sources: Iterable[SourceFile], groups: Mapping[str, Iterable[str]] | None = None) -> LbObjects:
    """Every load balancer object of the files. groups: members of groups by path, as addresses, prefixes or ranges.

    raises  PolicyError with file:line:column and the object's path
    """
    found = LbObjects()
    for path, texts in (groups or {}).items():
        found.groups[path] = tuple(parse_range(text) for text in texts)
    everything = [pair for source in sources for pair in _walk(read_json(source.text, source.name), "")]
    # Groups first: pools may take their members from them.
    for obj, parent in everything:
        if obj.get("resource_type") == "Group":
            _group(found, obj, parent)
    for obj, parent in everything:
        _add(found, obj, parent)
    return found


def _walk(value: object, parent: str) -> Iterator[tuple[Object, str]]:
    """Objects of hierarchical bodies, lists and API answers."""
    if isinstance(value, list):
        for element in value:
            yield from _walk(element, parent)
    elif isinstance(value, Object):
        kind = str(value.get("resource_type", ""))
        if kind.startswith("Child"):
            inner = value.get(kind.removeprefix("Child"))
            yield from _walk(inner if inner is not None else value.get("children", []), parent)
            return
        if kind:
            yield value, parent
        path = str(value.get("path") or ("/infra" if kind == "Infra" else parent))
        for key in ("results", "children", "groups", "lb_virtual_servers", "lb_pools", "lb_app_profiles",
                    "lb_persistence_profiles"):  # fmt: skip
            yield from _walk(value.get(key, []), path)


def _add(found: LbObjects, obj: Object, parent: str) -> None:
    kind = str(obj.get("resource_type"))
    if obj.get("marked_for_delete") is True:
        return
    if kind == "LBVirtualServer":
        _keep(found.servers, _server(obj, label_of(obj, "/infra", "lb-virtual-servers")), obj)
    elif kind == "LBPool":
        _keep(found.pools, _pool(obj, label_of(obj, "/infra", "lb-pools"), found.groups), obj)
    elif kind in PROFILES:
        _keep(found.profiles, _profile(obj, label_of(obj, "/infra", "lb-app-profiles"), PROFILES[kind]), obj)
    elif kind in PERSISTENCE:
        profile = _persistence(obj, label_of(obj, "/infra", "lb-persistence-profiles"), kind)
        _keep(found.persistence, profile, obj)
    elif kind.startswith("LB") and kind not in SILENT:
        raise PolicyError(f"load balancer objects of kind {kind} are not known", where=obj.where("resource_type"))


def _keep(known: dict[str, Kept], new: Kept, obj: Object) -> None:
    if new.path in known:
        raise PolicyError(f"{new.path} is defined twice", where=obj.where(), hint="keep one")
    known[new.path] = new


def _group(found: LbObjects, obj: Object, parent: str) -> None:
    path = label_of(obj, parent or "/infra/domains/default", "groups")
    expression = Fields(obj, "Group", path).objects("expression")
    texts = []
    for part in expression:
        if part.get("resource_type") == "IPAddressExpression":
            texts += Fields(part, "IPAddressExpression", path).texts("ip_addresses")
        elif part.get("conjunction_operator") != "OR":
            return  # members that only an inventory knows; who refers to it is told so
    if path not in found.groups:
        found.groups[path] = tuple(_range(obj, text) for text in texts)


def _range(obj: Object, text: str) -> Range:
    try:
        return parse_range(text)
    except ModelError as error:
        raise PolicyError(str(error), where=obj.where()) from None


def _server(obj: Object, path: str) -> VirtualServer:
    f = Fields(obj, "LBVirtualServer", path)
    access, action, group = obj.get("access_list_control"), "", ""
    if isinstance(access, Object):
        a = Fields(access, "access_list_control", path)
        enabled = a.flag("enabled", True)
        action = a.choice("action", ("ALLOW", "DROP")) or ""
        group = a.text("group_path")
        a.finish()
        action = action if enabled else ""
    server = VirtualServer(
        path,
        f.text("display_name") or path,
        f.flag("enabled", True),
        _address(f),
        tuple(_ports(f, "ports")),
        tuple(_ports(f, "default_pool_member_ports")),
        f.text("pool_path"),
        f.text("sorry_pool_path"),
        f.text("application_profile_path"),
        f.text("lb_persistence_profile_path"),
        action,
        group,
        f.number("max_concurrent_connections", 1, MAX_COUNT),
        f.number("max_new_connection_rate", 1, MAX_COUNT),
        tuple(_rule(rule, f"{path} rules[{i}]") for i, rule in enumerate(f.objects("rules"))),
        obj.where(),
    )
    if not server.ports:
        f.fail("a virtual server needs ports")
    f.ignore("access_list_control", "lb_service_path", "client_ssl_profile_binding", "server_ssl_profile_binding",
             "access_log_enabled", "log_significant_event_only")  # fmt: skip
    f.finish()
    return server


def _address(f: Fields) -> str:
    text = f.text("ip_address")
    try:
        return canonical_address(str(ipaddress.ip_address(text)))
    except ValueError:
        f.fail(f"ip_address is '{text}', which is no address", "ip_address")
        return text


def _ports(f: Fields, key: str) -> Iterator[tuple[int, int]]:
    for i, text in enumerate(f.texts(key)):
        low, dash, high = text.partition("-")
        numbers = [int(n) if n.isascii() and n.isdigit() and len(n) <= 5 else 0 for n in (low, high if dash else low)]
        if not 1 <= numbers[0] <= numbers[1] <= 65535:
            f.fail(f"{key} holds '{text}', which is no port or range of ports", key, i)
        yield numbers[0], numbers[1]


def _pool(obj: Object, path: str, groups: Mapping[str, tuple[Range, ...]]) -> Pool:
    f = Fields(obj, "LBPool", path)
    members = [_member(member, path) for member in f.objects("members")]
    group = obj.get("member_group")
    if isinstance(group, Object):
        members += _group_members(group, path, groups)
    snat, addresses = "automap", []
    translation = obj.get("snat_translation")
    if isinstance(translation, Object):
        s = Fields(translation, "snat_translation", path)
        kind = s.choice("type", ("LBSnatAutoMap", "LBSnatDisabled", "LBSnatIpPool"), "LBSnatAutoMap") or ""
        snat = {"LBSnatAutoMap": "automap", "LBSnatDisabled": "client", "LBSnatIpPool": "pool"}[kind]
        for entry in s.objects("ip_addresses"):
            e = Fields(entry, "ip_addresses", path)
            prefix = e.number("prefix_length", 0, 128)
            addresses.append(e.text("ip_address") + (f"/{prefix}" if prefix is not None else ""))
            e.finish()
        s.finish()
    pool = Pool(
        path,
        f.choice("algorithm", ALGORITHMS, "ROUND_ROBIN") or "",
        tuple(members),
        f.number("min_active_members", 1, MAX_COUNT) or 1,
        snat,
        tuple(addresses),
        any(m.weight != 1 for m in members),
        obj.where(),
    )
    f.ignore("member_group", "snat_translation", "active_monitor_paths", "active_monitor_path", "passive_monitor_path",
             "tcp_multiplexing_enabled", "tcp_multiplexing_number")  # fmt: skip
    f.finish()
    return pool


def _member(obj: Object, path: str) -> Member:
    f = Fields(obj, "LBPoolMember", path)
    address = _address(f)
    port = f.text("port")
    if port and not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        f.fail(f"port is '{port}'; a member has one port", "port")
    member = Member(
        f.text("display_name") or address,
        address,
        int(port) if port else None,
        f.number("weight", 1, 255) or 1,
        f.choice("admin_state", ("ENABLED", "DISABLED", "GRACEFUL_DISABLED"), "ENABLED") or "",
        f.flag("backup_member"),
        f.number("max_concurrent_connections", 1, MAX_COUNT),
    )
    f.finish()
    return member


def _group_members(obj: Object, path: str, groups: Mapping[str, tuple[Range, ...]]) -> list[Member]:
    """The group's addresses, IPv4 before IPv6, sorted by number, cut to the limit."""
    f = Fields(obj, "member_group", path)
    group = f.text("group_path")
    families = {"IPV4": (4,), "IPV6": (6,), "IPV4_IPV6": (4, 6)}[
        f.choice("ip_revision_filter", ("IPV4", "IPV6", "IPV4_IPV6"), "IPV4") or "IPV4"
    ]
    port = f.number("port", 1, 65535)
    limit = f.number("max_ip_list_size", 0, MAX_COUNT)
    if group not in groups:
        f.fail(f"the members of group {group} are not known", "group_path", hint="give the group, or its addresses")
    if f.objects("customized_members"):
        f.fail("customized members of a group are not known here", "customized_members")
    f.finish()
    addresses: list[tuple[int, int]] = []
    most = limit if limit is not None else 10_000
    for version, low, high in sorted(groups.get(group, ())):
        if version in families:
            addresses += [(version, value) for value in range(low, min(high, low + most) + 1)]
    kinds = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}
    unique = sorted(set(addresses))
    if limit is not None:
        unique = unique[:limit]
    texts = [canonical_address(str(kinds[version](value))) for version, value in unique]
    return [Member(text, text, port, 1, "ENABLED", False, None) for text in texts]


def _profile(obj: Object, path: str, kind: str) -> AppProfile:
    f = Fields(obj, str(obj["resource_type"]), path)
    profile = AppProfile(
        path,
        kind,
        f.flag("http_redirect_to_https"),
        f.text("http_redirect_to"),
        f.choice("x_forwarded_for", ("INSERT", "REPLACE"), "") or "",
    )
    f.ignore("idle_timeout", "close_timeout", "ha_flow_mirroring_enabled", "flow_mirroring_enabled",
             "request_header_size", "response_header_size", "request_body_size", "response_timeout",
             "response_buffering", "ntlm", "server_keep_alive")  # fmt: skip
    f.finish()
    return profile


def _persistence(obj: Object, path: str, kind: str) -> PersistenceProfile:
    f = Fields(obj, kind, path)
    profile = PersistenceProfile(
        path,
        {"LBSourceIpPersistenceProfile": "source_ip", "LBCookiePersistenceProfile": "cookie"}.get(kind, "generic"),
        f.flag("persistence_shared"),
        f.number("timeout", 1, MAX_COUNT) or 300,
        f.choice("purge", ("FULL", "NO_PURGE"), "FULL") == "FULL",
        f.text("cookie_name", "NSXLB"),
        f.choice("cookie_mode", ("INSERT", "PREFIX", "REWRITE"), "INSERT") or "",
        f.flag("cookie_fallback", True),
        f.flag("cookie_garble", True),
    )
    f.ignore("cookie_domain", "cookie_path", "cookie_time", "cookie_httponly", "cookie_secure",
             "ha_persistence_mirroring_enabled")  # fmt: skip
    f.finish()
    return profile


# resource type of a condition -> (kind, field of the name, field of the value)
CONDITIONS = {
    "LBHttpRequestMethodCondition": ("method", "", "method"),
    "LBHttpRequestUriCondition": ("uri", "", "uri"),
    "LBHttpRequestUriArgumentsCondition": ("uri_arguments", "", "uri_arguments"),
    "LBHttpRequestVersionCondition": ("version", "", "version"),
    "LBHttpRequestHeaderCondition": ("header", "header_name", "header_value"),
    "LBHttpResponseHeaderCondition": ("response_header", "header_name", "header_value"),
    "LBHttpRequestCookieCondition": ("cookie", "cookie_name", "cookie_value"),
    "LBHttpRequestBodyCondition": ("body", "", "body_value"),
    "LBHttpSslCondition": ("ssl", "", ""),
    "LBIpHeaderCondition": ("ip", "group_path", "source_address"),
    "LBTcpHeaderCondition": ("tcp", "", "source_port"),
    "LBSslSniCondition": ("sni", "", "sni"),
    "LBVariableCondition": ("variable", "variable_name", "variable_value"),
}
# resource type of an action -> (kind, its fields)
ACTIONS = {
    "LBSelectPoolAction": ("select_pool", ("pool_id", "pool_path")),
    "LBHttpRedirectAction": ("http_redirect", ("redirect_status", "redirect_url")),
    "LBHttpRejectAction": ("http_reject", ("reply_status", "reply_message")),
    "LBConnectionDropAction": ("connection_drop", ()),
    "LBHttpRequestHeaderRewriteAction": ("header_rewrite", ("header_name", "header_value")),
    "LBHttpRequestHeaderDeleteAction": ("header_delete", ("header_name",)),
    "LBHttpResponseHeaderRewriteAction": ("response_header_rewrite", ("header_name", "header_value")),
    "LBHttpResponseHeaderDeleteAction": ("response_header_delete", ("header_name",)),
    "LBHttpRequestUriRewriteAction": ("uri_rewrite", ("uri", "uri_arguments")),
    "LBJwtAuthAction": ("jwt_auth", ()),
    "LBSslModeSelectionAction": ("ssl_mode", ("ssl_mode",)),
    "LBVariableAssignmentAction": ("variable_assignment", ("variable_name", "variable_value")),
    "LBVariablePersistenceOnAction": ("persistence_on", ("variable_name", "persistence_profile_path")),
    "LBVariablePersistenceLearnAction": ("persistence_learn", ("variable_name", "persistence_profile_path")),
}


def _rule(obj: Object, label: str) -> LbRule:
    f = Fields(obj, "LBRule", label)
    rule = LbRule(
        f.text("display_name") or f.text("name") or label,
        f.choice("phase", PHASES, "HTTP_FORWARDING") or "",
        f.choice("match_strategy", ("ALL", "ANY"), "ANY") == "ALL",
        tuple(_condition(condition, label) for condition in f.objects("match_conditions")),
        tuple(_action(action, label) for action in f.objects("actions")),
        obj.where(),
    )
    f.finish()
    if not rule.actions:
        f.fail("a rule needs an action", "actions")
    return rule


def _type(f: Fields, known: Mapping[str, object]) -> str:
    chosen = f.choice("type", tuple(known))
    if chosen is None:
        f.fail("type is missing", "type")
    return str(chosen)


def _condition(obj: Object, label: str) -> Condition:
    f = Fields(obj, "match condition", label)
    kind, name, value = CONDITIONS[_type(f, CONDITIONS)]
    condition = Condition(
        kind,
        f.text(name) if name else "",
        f.text(value) if value else "",
        f.choice("match_type", MATCH_TYPES, "EQUALS" if kind in ("method", "version", "tcp", "ip") else "REGEX") or "",
        f.flag("case_sensitive", True),
        f.flag("inverse"),
        obj.where(),
    )
    if kind == "ssl":
        f.ignore("session_reused", "used_protocol", "used_ssl_cipher", "client_certificate_issuer_dn",
                 "client_certificate_subject_dn", "client_supported_ssl_ciphers")  # fmt: skip
    if kind == "ip" and not condition.name:
        _range(obj, condition.value)
    f.finish()
    return condition


def _action(obj: Object, label: str) -> RuleAction:
    f = Fields(obj, "action", label)
    kind, names = ACTIONS[_type(f, ACTIONS)]
    values = {name: text for name in names if (text := f.text(name))}
    for name in ("redirect_status", "reply_status"):
        status = values.get(name, "302")
        if not (status.isascii() and status.isdigit() and len(status) == 3):
            f.fail(f"{name} is '{status}'; a status is a number of three digits", name)
    if kind == "jwt_auth":
        f.ignore("key", "pass_jwt_to_pool", "realm", "tokens")
    if kind in ("persistence_on", "persistence_learn"):
        f.ignore("variable_hash_enabled")
    f.finish()
    return RuleAction(kind, values, obj.where())
