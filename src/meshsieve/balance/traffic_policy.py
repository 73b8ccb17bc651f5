"""Istio's DestinationRule: which policy holds for a host, port and subset, and what it means to Envoy.

Look-up     the most specific host wins (exact, then the longest wildcard suffix), in the client's namespace, then the
            service's, then the root namespace.
Merging     a subset's setting replaces the rule's one group at a time (loadBalancer, connectionPool, outlierDetection,
            tls). portLevelSettings for the port, of the subset or else of the rule, replace all four: a group that is
            absent there has its default, not the rule's value.

Source: Istio API networking/v1 (DestinationRule), istio/istio pilot/pkg/networking/core/cluster_traffic_policy.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshsieve.balance.cluster import LEAST_REQUEST, RANDOM, ROUND_ROBIN, MaglevPolicy, Policy, RingHashPolicy
from meshsieve.balance.hash_policy import (
    CookieHash,
    HashPolicy,
    HeaderHash,
    QueryParameterHash,
    SourceIpHash,
    duration_seconds,
)
from meshsieve.balance.limits import NO_LIMIT, CircuitBreaker
from meshsieve.balance.locality import LocalitySetting, parse_weights
from meshsieve.balance.outlier import OutlierPolicy
from meshsieve.balance.rotation import SlowStart
from meshsieve.errors import BalanceError
from meshsieve.importers.typed import Node

GROUPS = ("loadBalancer", "connectionPool", "outlierDetection", "tls")
# Settings that choose no endpoint; they may stand beside the groups.
OTHER = ("tunnel", "proxyProtocol", "retryBudget", "portLevelSettings")
SIMPLE: dict[str, Policy] = {
    "UNSPECIFIED": LEAST_REQUEST,
    "LEAST_REQUEST": LEAST_REQUEST,
    "LEAST_CONN": LEAST_REQUEST,
    "ROUND_ROBIN": ROUND_ROBIN,
    "RANDOM": RANDOM,
}
HASH_KEYS = ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")


@dataclass(frozen=True)
class TrafficPolicy:
    """What a policy says, in Envoy's terms. balancer None: PASSTHROUGH, the original destination is kept."""

    balancer: Policy | None = LEAST_REQUEST
    hash_policy: HashPolicy = field(default_factory=HashPolicy)
    slow_start: SlowStart | None = None
    locality: LocalitySetting | None = None
    outlier: OutlierPolicy | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    panic_threshold: int = 0


@dataclass(frozen=True)
class DestinationRule:
    namespace: str
    name: str
    host: str
    export_to: tuple[str, ...]
    policy: Node | None
    subsets: Mapping[str, tuple[Mapping[str, str], Node | None]]
    where: str

    def visible(self, client: str) -> bool:
        """Whether a client in that namespace sees it (exportTo; nothing said is everybody)."""
        return not self.export_to or any(
            scope == "*" or scope == client or (scope == "." and client == self.namespace) for scope in self.export_to
        )


def read_destination_rule(node: Node, namespace: str, name: str) -> DestinationRule:
    spec = _spec(node).only("host", "trafficPolicy", "subsets", "exportTo", "workloadSelector")
    if spec.node("workloadSelector") is not None:
        reason = "a rule for some client workloads only cannot be expressed"
        raise spec.error(reason, "workloadSelector", "keep it out of the files that are read")
    subsets: dict[str, tuple[Mapping[str, str], Node | None]] = {}
    for entry in spec.nodes("subsets") or []:
        entry.only("name", "labels", "trafficPolicy")
        subset = entry.required_text("name")
        if subset in subsets:
            raise entry.error(f"subset {subset} is defined twice", "name")
        subsets[subset] = (entry.text_map("labels"), entry.node("trafficPolicy"))
    rule = DestinationRule(
        namespace,
        name,
        full_host(spec.required_text("host"), namespace),
        tuple(spec.texts("exportTo") or ()),
        spec.node("trafficPolicy"),
        subsets,
        node.data.where(),
    )
    for policy in (rule.policy, *(p for _, p in subsets.values())):
        check_policy(policy)
    return rule


def check_policy(policy: Node | None) -> None:
    """Read every group once, so that a mistake shows when loading and not when somebody asks."""
    if policy is None:
        return
    policy.only(*GROUPS, *OTHER)
    read_policy({group: policy.node(group) for group in GROUPS})
    for entry in policy.nodes("portLevelSettings") or []:
        entry.only("port", *GROUPS)
        _port_number(entry)
        read_policy({group: entry.node(group) for group in GROUPS})


def find_rule(
    rules: Sequence[DestinationRule], host: str, client: str, service: str, root: str = "istio-system"
) -> DestinationRule | None:
    """The rule that holds for ``host`` seen from namespace ``client``, of a service in namespace ``service``."""
    for namespace in dict.fromkeys((client, service, root)):
        fitting = [
            rule
            for rule in rules
            if rule.namespace == namespace and rule.visible(client) and host_specificity(rule.host, host) is not None
        ]
        if fitting:
            return max(fitting, key=lambda rule: host_specificity(rule.host, host) or (0, 0))
    return None


def host_specificity(pattern: str, host: str) -> tuple[int, int] | None:
    """Order of the patterns that match a host: exact before wildcard, longer before shorter; None if it does not."""
    if pattern == host:
        return (1, len(pattern))
    if pattern.startswith("*") and host.endswith(pattern[1:]) and len(host) > len(pattern) - 1:
        return (0, len(pattern))
    return None


def full_host(host: str, namespace: str) -> str:
    """Short names are services of the rule's own namespace."""
    return host if "." in host or host.startswith("*") else f"{host}.{namespace}.svc.cluster.local"


def groups_for(rule: DestinationRule, subset: str | None, port: int) -> dict[str, Node | None]:
    """The four groups that hold for a subset (None: the whole host) and a service port.

    raises  BalanceError for a subset that the rule does not have
    """
    own: Node | None = None
    if subset is not None:
        if subset not in rule.subsets:
            raise BalanceError(f"{rule.where}: DestinationRule {rule.name} has no subset '{subset}'")
        own = rule.subsets[subset][1]
    for policy in (own, rule.policy):
        for entry in (policy.nodes("portLevelSettings") if policy else None) or []:
            if _port_number(entry) == port:
                return {group: entry.node(group) for group in GROUPS}
    groups: dict[str, Node | None] = {}
    for group in GROUPS:
        groups[group] = (own.node(group) if own else None) or (rule.policy.node(group) if rule.policy else None)
    return groups


def read_policy(groups: Mapping[str, Node | None]) -> TrafficPolicy:
    """The groups in Envoy's terms.

    raises  PolicyError for unknown fields and for what Istio refuses
    """
    values: dict[str, Any] = {}
    if balancer := groups.get("loadBalancer"):
        values |= _load_balancer(balancer)
    if outlier := groups.get("outlierDetection"):
        values |= _outlier(outlier)
    if pool := groups.get("connectionPool"):
        values["breaker"] = _connection_pool(pool)
    return TrafficPolicy(**values)


def _load_balancer(node: Node) -> dict[str, Any]:
    node.only("simple", "consistentHash", "localityLbSetting", "warmupDurationSecs", "warmup")
    simple, consistent = node.text("simple"), node.node("consistentHash")
    if simple is not None and consistent is not None:
        raise node.error("'simple' and 'consistentHash' exclude each other", "simple")
    out: dict[str, Any] = {}
    if consistent is not None:
        out["balancer"], out["hash_policy"] = _consistent_hash(consistent)
    elif simple is not None:
        if simple not in (*SIMPLE, "PASSTHROUGH"):
            raise node.error(f"unknown balancer '{simple}'", "simple", f"known: {', '.join((*SIMPLE, 'PASSTHROUGH'))}")
        out["balancer"] = SIMPLE.get(simple)
    warmup, old = node.node("warmup"), node.text("warmupDurationSecs")
    if warmup is not None:
        warmup.only("duration", "minimumPercent", "aggression")
        out["slow_start"] = SlowStart(
            _seconds(warmup, "duration", None),
            _number(warmup, "minimumPercent", 10.0),
            _number(warmup, "aggression", 1.0),
        )
    elif old is not None:
        out["slow_start"] = SlowStart(_seconds(node, "warmupDurationSecs", None))
    if locality := node.node("localityLbSetting"):
        out["locality"] = read_locality(locality)
    return out


def _consistent_hash(node: Node) -> tuple[Policy, HashPolicy]:
    node.only(*HASH_KEYS, "ringHash", "maglev", "minimumRingSize")
    named = [key for key in HASH_KEYS if node.data.get(key) is not None and node.data.get(key) is not False]
    if len(named) != 1:
        raise node.error(f"exactly one of {', '.join(HASH_KEYS)} must be given, not {len(named)}")
    key = named[0]
    if key == "httpHeaderName":
        part: Any = HeaderHash(node.required_text(key))
    elif key == "httpQueryParameterName":
        part = QueryParameterHash(node.required_text(key))
    elif key == "useSourceIp":
        node.boolean(key)
        part = SourceIpHash()
    else:
        cookie = node.node(key)
        assert cookie is not None
        cookie.only("name", "path", "ttl")
        ttl = None if cookie.text("ttl") is None else _seconds(cookie, "ttl", None)
        part = CookieHash(cookie.required_text("name"), ttl, cookie.text("path") or "")
    ring, maglev = node.node("ringHash"), node.node("maglev")
    if ring is not None and maglev is not None:
        raise node.error("'ringHash' and 'maglev' exclude each other", "ringHash")
    policy: Policy
    if maglev is not None:
        maglev.only("tableSize")
        policy = MaglevPolicy(maglev.integer("tableSize", 1, 5_000_011) or 65537)
    else:
        owner = ring.only("minimumRingSize") if ring is not None else node
        policy = RingHashPolicy(owner.integer("minimumRingSize", 0, 8_388_608) or 1024)
    return policy, HashPolicy((part,))


def read_locality(node: Node) -> LocalitySetting:
    node.only("distribute", "failover", "failoverPriority", "enabled")
    enabled = node.data.get("enabled") is None or node.boolean("enabled")
    entries = []
    for entry in node.nodes("distribute") or []:
        entry.only("from", "to")
        to = entry.node("to")
        if to is None:
            raise entry.error("is missing", "to")
        weights = {pattern: to.integer(pattern, 0, 100) or 0 for pattern in to.data}
        try:
            entries.append((entry.required_text("from"), parse_weights(weights)))
        except BalanceError as error:
            raise entry.error(str(error), "to") from None
    regions = []
    for entry in node.nodes("failover") or []:
        entry.only("from", "to")
        regions.append((entry.required_text("from"), entry.required_text("to")))
    priority = tuple(node.texts("failoverPriority") or ())
    if sum(map(bool, (entries, regions, priority))) > 1:
        raise node.error("distribute, failover and failoverPriority exclude each other", "distribute")
    return LocalitySetting(tuple(entries), tuple(regions), priority, enabled)


def _outlier(node: Node) -> dict[str, Any]:
    node.only(
        "splitExternalLocalOriginErrors",
        "consecutiveLocalOriginFailures",
        "consecutiveGatewayErrors",
        "consecutive5xxErrors",
        "consecutiveErrors",
        "interval",
        "baseEjectionTime",
        "maxEjectionPercent",
        "minHealthPercent",
    )

    def count(key: str, default: int) -> int:
        value = node.integer(key, 0, 2**32 - 1)
        return default if value is None else value

    policy = OutlierPolicy(
        consecutive_5xx=count("consecutive5xxErrors", 5),
        consecutive_gateway=count("consecutiveGatewayErrors", count("consecutiveErrors", 0)),
        split_origins=node.boolean("splitExternalLocalOriginErrors"),
        consecutive_local_origin=count("consecutiveLocalOriginFailures", 5),
        interval=_seconds(node, "interval", 10.0),
        base_ejection_time=_seconds(node, "baseEjectionTime", 30.0),
        max_ejection_percent=10 if (percent := node.integer("maxEjectionPercent", 0, 100)) is None else percent,
    )
    return {"outlier": policy, "panic_threshold": node.integer("minHealthPercent", 0, 100) or 0}


def _connection_pool(node: Node) -> CircuitBreaker:
    node.only("tcp", "http")
    tcp, http = node.node("tcp"), node.node("http")

    def limit(owner: Node | None, key: str) -> int:
        # Istio reads 0 as "not set".
        return (owner.integer(key, 0, 2**31 - 1) if owner else None) or NO_LIMIT

    return CircuitBreaker(
        max_requests=limit(http, "http2MaxRequests"),
        max_connections=limit(tcp, "maxConnections"),
        max_pending=limit(http, "http1MaxPendingRequests"),
        max_retries=limit(http, "maxRetries"),
    )


def _seconds(node: Node, key: str, default: float | None) -> float:
    text = node.text(key)
    if text is None:
        if default is None:
            raise node.error("is missing", key)
        return default
    try:
        return duration_seconds(text, key)
    except BalanceError as error:
        raise node.error(str(error), key) from None


def _number(node: Node, key: str, default: float) -> float:
    value = node.data.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise node.error(f"expected a number, got {value!r}", key)
    return float(value)


def _port_number(entry: Node) -> int:
    port = entry.node("port")
    number = port.only("number").integer("number", 1, 65535) if port else None
    if number is None:
        raise entry.error("is missing", "port.number")
    return number


def _spec(node: Node) -> Node:
    spec = node.node("spec")
    if spec is None:
        raise node.error("is missing", "spec")
    return spec
