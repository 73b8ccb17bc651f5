"""Envoy clusters from configuration: bootstrap, list of clusters, CDS answer or a single cluster, as JSON or YAML.

Read strictly where a field decides which host is picked; fields about connections, TLS, DNS and the like are known and
left alone. Load balancers given as typed extensions (``load_balancing_policy``) and settings that are not modelled are
refused, never passed over.

Source: envoyproxy/data-plane-api config.cluster.v3, config.endpoint.v3.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from meshsieve.balance.cluster import (
    LEAST_REQUEST,
    RANDOM,
    ROUND_ROBIN,
    Cluster,
    ClusterSettings,
    MaglevPolicy,
    Policy,
    RingHashPolicy,
)
from meshsieve.balance.hash_policy import duration_seconds
from meshsieve.balance.hosts import Health, Host, Locality
from meshsieve.balance.limits import CircuitBreaker
from meshsieve.balance.outlier import FailurePercentage, OutlierPolicy, SuccessRate
from meshsieve.balance.priority import OVERPROVISIONING, PANIC_THRESHOLD, panic_threshold_of
from meshsieve.balance.subsets import Selector, Subsets
from meshsieve.errors import BalanceError, PolicyError
from meshsieve.importers.sources import find_files, read_source
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping as YamlMapping
from meshsieve.importers.yaml_source import load_documents
from meshsieve.policy import SourceFile

LB_NAMESPACE = "envoy.lb"
SIMPLE: dict[str, Policy] = {"ROUND_ROBIN": ROUND_ROBIN, "LEAST_REQUEST": LEAST_REQUEST, "RANDOM": RANDOM}
HEALTH = {
    "UNKNOWN": Health.HEALTHY,
    "HEALTHY": Health.HEALTHY,
    "DEGRADED": Health.DEGRADED,
    "UNHEALTHY": Health.UNHEALTHY,
    "DRAINING": Health.UNHEALTHY,
    "TIMEOUT": Health.UNHEALTHY,
}
# Fields of a cluster that do not decide which host is picked.
SILENT = (
    "name", "alt_stat_name", "type", "eds_cluster_config", "connect_timeout", "per_connection_buffer_limit_bytes",
    "health_checks", "max_requests_per_connection", "circuit_breakers", "http_protocol_options",
    "http2_protocol_options", "typed_extension_protocol_options", "dns_refresh_rate", "dns_lookup_family",
    "dns_resolvers", "respect_dns_ttl", "use_tcp_for_dns_lookups", "cleanup_interval", "upstream_bind_config",
    "transport_socket", "transport_socket_matches", "metadata", "protocol_selection",
    "upstream_connection_options", "filters", "track_timeout_budgets", "track_cluster_stats", "preconnect_policy",
    "connection_pool_per_downstream_connection", "close_connections_on_host_health_failure",
    "ignore_health_on_host_removal", "wait_for_warm_on_init",
)  # fmt: skip


@dataclass(frozen=True)
class EnvoyCluster:
    """One cluster of a configuration. subsets: None where it has no lb_subset_config."""

    name: str
    cluster: Cluster
    subsets: Subsets | None
    outlier: OutlierPolicy | None
    breaker: CircuitBreaker
    where: str

    def for_match(self, match: Mapping[str, str] | None) -> Cluster:
        """The hosts that a route's metadata_match leaves, as a cluster of their own."""
        return self.cluster if self.subsets is None else self.subsets.cluster(match or {})


def from_envoy(paths: Iterable[str | os.PathLike[str]]) -> dict[str, EnvoyCluster]:
    """Every cluster of files, folders, or "-", by name.

    raises  PolicyError with file:line:column and the field's path
    """
    return clusters_of([read_source(path) for path in find_files(paths)])


def clusters_of(sources: Iterable[SourceFile]) -> dict[str, EnvoyCluster]:
    """The same from texts."""
    found: dict[str, EnvoyCluster] = {}
    for source in sources:
        for document in load_documents(source.text, source.name):
            for node in _clusters(document, source.name):
                cluster = read_cluster(node)
                if cluster.name in found:
                    raise node.error(f"cluster {cluster.name} is defined twice, first at {found[cluster.name].where}")
                found[cluster.name] = cluster
    return found


def _clusters(document: Any, file: str) -> Iterable[Node]:
    if isinstance(document, list):
        for item in document:
            yield from _clusters(item, file)
        return
    if not isinstance(document, YamlMapping):
        raise PolicyError("expected an Envoy configuration", where=file)
    node = Node(document, "")
    if static := node.node("static_resources"):
        yield from static.nodes("clusters") or []
    elif "resources" in document or "clusters" in document:
        yield from node.nodes("resources" if "resources" in document else "clusters") or []
    elif "name" in document:
        yield node
    else:
        raise node.error("expected a bootstrap, a list of clusters or a cluster")


def read_cluster(node: Node) -> EnvoyCluster:
    name = node.required_text("name")
    node = Node(node.data, f"cluster {name}")
    node.only(*SILENT, "lb_policy", "load_assignment", "maglev_lb_config", "ring_hash_lb_config", "common_lb_config",
              "least_request_lb_config", "round_robin_lb_config", "lb_subset_config", "outlier_detection",
              "@type")  # fmt: skip
    try:
        policy = _policy(node)
        hosts, weights, overprovisioning = _hosts(node)
        settings = _settings(node, weights, overprovisioning)
        cluster = Cluster(hosts, policy, settings)
        subsets = _subsets(node, hosts, policy, settings)
        return EnvoyCluster(name, cluster, subsets, _outlier(node), _breaker(node), node.data.where())
    except BalanceError as error:
        raise node.error(str(error)) from None


def _policy(node: Node) -> Policy:
    kind = node.choice("lb_policy", (*SIMPLE, "MAGLEV", "RING_HASH"), "ROUND_ROBIN")
    for key, owner in (("least_request_lb_config", "LEAST_REQUEST"), ("round_robin_lb_config", "ROUND_ROBIN")):
        config = node.node(key)
        if config is not None and kind == owner:
            config.only("choice_count", "active_request_bias", "slow_start_config", "locality_lb_config")
            if config.node("locality_lb_config") is not None:
                raise config.error("is not modelled here", "locality_lb_config", "use common_lb_config")
    if kind == "MAGLEV":
        config = node.node("maglev_lb_config")
        if config is None:
            return MaglevPolicy()
        size = config.only("table_size").integer("table_size", 0, 2**64 - 1)
        return MaglevPolicy(65537 if size is None else size)
    if kind == "RING_HASH":
        config = node.node("ring_hash_lb_config")
        if config is None:
            return RingHashPolicy()
        config.only("minimum_ring_size", "maximum_ring_size", "hash_function")
        low = config.integer("minimum_ring_size", 0, 2**64 - 1)
        high = config.integer("maximum_ring_size", 0, 2**64 - 1)
        function = config.choice("hash_function", ("XX_HASH", "MURMUR_HASH_2"), "XX_HASH")
        return RingHashPolicy(1024 if low is None else low, 8388608 if high is None else high, function.lower())
    return SIMPLE[kind]


def _hosts(node: Node) -> tuple[list[Host], dict[tuple[int, Locality], int], int]:
    """Hosts in the order of the configuration, locality weights, overprovisioning factor."""
    assignment = node.node("load_assignment")
    if assignment is None:
        return [], {}, OVERPROVISIONING
    assignment.only("cluster_name", "endpoints", "policy")
    factor = OVERPROVISIONING
    if policy := assignment.node("policy"):
        policy.only("overprovisioning_factor", "endpoint_stale_after")
        factor = policy.integer("overprovisioning_factor", 1, 2**32 - 1) or factor
    hosts: list[Host] = []
    weights: dict[tuple[int, Locality], int] = {}
    for group in assignment.nodes("endpoints") or []:
        group.only("locality", "lb_endpoints", "load_balancing_weight", "priority", "proximity")
        place = Locality()
        if locality := group.node("locality"):
            locality.only("region", "zone", "sub_zone")
            place = Locality(
                locality.text("region") or "", locality.text("zone") or "", locality.text("sub_zone") or ""
            )
        priority = group.integer("priority", 0, 127) or 0
        weight = group.integer("load_balancing_weight", 1, 2**32 - 1)
        weights[priority, place] = weights.get((priority, place), 0) + (weight or 0)
        hosts += [_host(entry, place, priority) for entry in group.nodes("lb_endpoints") or []]
    return hosts, weights, factor


def _host(entry: Node, place: Locality, priority: int) -> Host:
    entry.only("endpoint", "health_status", "load_balancing_weight", "metadata")
    endpoint = entry.node("endpoint")
    address = endpoint.node("address") if endpoint else None
    socket = address.node("socket_address") if address else None
    if endpoint is None or socket is None:
        raise entry.error("only socket addresses are modelled", "endpoint")
    labels, hash_key = {}, ""
    metadata = entry.node("metadata")
    filters = metadata.node("filter_metadata") if metadata else None
    own = filters.node(LB_NAMESPACE) if filters else None
    for key, value in (own.data if own else {}).items():
        if isinstance(value, str | bool | int | float):
            labels[key] = value if isinstance(value, str) else str(value)
        if key == "hash_key" and isinstance(value, str):
            hash_key = value
    return Host(
        socket.required_text("address"),
        socket.integer("port_value", 0, 65535) or 0,
        entry.integer("load_balancing_weight", 1, 2**32 - 1) or 1,
        HEALTH[entry.choice("health_status", tuple(HEALTH), "UNKNOWN")],
        priority,
        place,
        endpoint.text("hostname") or "",
        hash_key,
        labels,
    )


def _settings(node: Node, weights: dict[tuple[int, Locality], int], overprovisioning: int) -> ClusterSettings:
    common = node.node("common_lb_config")
    if common is None:
        return ClusterSettings(overprovisioning=overprovisioning)
    common.only("healthy_panic_threshold", "zone_aware_lb_config", "locality_weighted_lb_config", "update_merge_window",
                "ignore_new_hosts_until_first_hc", "close_connections_on_host_set_change",
                "consistent_hashing_lb_config")  # fmt: skip
    if common.node("zone_aware_lb_config") is not None:
        raise common.error("zone-aware clusters need the local cluster: ask balance.locality.zone_aware for shares",
                           "zone_aware_lb_config")  # fmt: skip
    threshold = PANIC_THRESHOLD
    if panic := common.node("healthy_panic_threshold"):
        threshold = panic_threshold_of(_percent(panic))
    hashing = common.node("consistent_hashing_lb_config")
    if hashing is not None:
        hashing.only("use_hostname_for_hashing", "hash_balance_factor")
    weighted = common.data.get("locality_weighted_lb_config") is not None
    return ClusterSettings(
        threshold,
        overprovisioning,
        weights if weighted else None,
        hashing.boolean("use_hostname_for_hashing") if hashing else False,
        (hashing.integer("hash_balance_factor", 100, 2**32 - 1) if hashing else None) or 0,
    )


def _subsets(node: Node, hosts: list[Host], policy: Policy, settings: ClusterSettings) -> Subsets | None:
    config = node.node("lb_subset_config")
    if config is None:
        return None
    config.only("fallback_policy", "default_subset", "subset_selectors")
    fallback = config.choice("fallback_policy", ("NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"), "NO_FALLBACK")
    selectors = []
    for entry in config.nodes("subset_selectors") or []:
        entry.only("keys", "fallback_policy", "fallback_keys_subset")
        choices = ("NOT_DEFINED", "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET", "KEYS_SUBSET")
        selectors.append(
            Selector(
                frozenset(entry.texts("keys") or []),
                entry.choice("fallback_policy", choices, "NOT_DEFINED"),
                frozenset(entry.texts("fallback_keys_subset") or []),
            )
        )
    return Subsets(hosts, policy, settings, tuple(selectors), fallback, config.text_map("default_subset"))


def _breaker(node: Node) -> CircuitBreaker:
    """Thresholds of the default priority; Envoy's defaults are 1024, retries 3."""
    limits = {"max_connections": 1024, "max_pending_requests": 1024, "max_requests": 1024, "max_retries": 3}
    budget: dict[str, Any] = {}
    config = node.node("circuit_breakers")
    for entry in (config.nodes("thresholds") if config else None) or []:
        if entry.choice("priority", ("DEFAULT", "HIGH"), "DEFAULT") != "DEFAULT":
            continue
        for key in limits:
            value = entry.integer(key, 0, 2**32 - 1)
            limits[key] = limits[key] if value is None else value
        if retry := entry.node("retry_budget"):
            percent = retry.node("budget_percent")
            budget = {"retry_budget": _percent(percent) if percent else 20.0}
            minimum = retry.integer("min_retry_concurrency", 0, 2**32 - 1)
            if minimum is not None:
                budget["min_retry_concurrency"] = minimum
    return CircuitBreaker(
        max_requests=limits["max_requests"],
        max_connections=limits["max_connections"],
        max_pending=limits["max_pending_requests"],
        max_retries=limits["max_retries"],
        **budget,
    )


def _percent(node: Node) -> float:
    """Envoy's Percent: {value: 0 to 100}; nothing said is 0."""
    value = node.only("value").data.get("value", 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise node.error(f"expected 0 to 100 percent, got {value!r}", "value")
    return float(value)


def _outlier(node: Node) -> OutlierPolicy | None:
    """Envoy's own defaults differ from Istio's: gateway errors and failure percentage are not enforced."""
    config = node.node("outlier_detection")
    if config is None:
        return None

    def number(key: str, default: int) -> int:
        value = config.integer(key, 0, 2**32 - 1)
        return default if value is None else value

    def seconds(key: str, default: float) -> float:
        text = config.text(key)
        return default if text is None else duration_seconds(text, key)

    def enforced(key: str, default: int) -> bool:
        share = number(key, default)
        if share not in (0, 100):
            raise config.error("only 0 and 100 percent can be replayed exactly", key)
        return share == 100

    config.only(
        "consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent", "enforcing_consecutive_5xx",
        "enforcing_success_rate", "success_rate_minimum_hosts", "success_rate_request_volume",
        "success_rate_stdev_factor", "consecutive_gateway_failure", "enforcing_consecutive_gateway_failure",
        "split_external_local_origin_errors", "consecutive_local_origin_failure",
        "enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate",
        "failure_percentage_threshold", "enforcing_failure_percentage", "failure_percentage_minimum_hosts",
        "failure_percentage_request_volume", "max_ejection_time", "always_eject_one_host",
        "max_ejection_time_jitter",
    )  # fmt: skip
    success = SuccessRate(
        number("success_rate_minimum_hosts", 5),
        number("success_rate_request_volume", 100),
        number("success_rate_stdev_factor", 1900) / 1000,
    )
    failure = FailurePercentage(
        number("failure_percentage_threshold", 85),
        number("failure_percentage_minimum_hosts", 5),
        number("failure_percentage_request_volume", 50),
    )
    local = number("consecutive_local_origin_failure", 5)
    return OutlierPolicy(
        consecutive_5xx=number("consecutive_5xx", 5) if enforced("enforcing_consecutive_5xx", 100) else 0,
        consecutive_gateway=(
            number("consecutive_gateway_failure", 5) if enforced("enforcing_consecutive_gateway_failure", 0) else 0
        ),
        split_origins=config.boolean("split_external_local_origin_errors"),
        consecutive_local_origin=local if enforced("enforcing_consecutive_local_origin_failure", 100) else 0,
        interval=seconds("interval", 10.0),
        base_ejection_time=seconds("base_ejection_time", 30.0),
        max_ejection_time=seconds("max_ejection_time", 300.0),
        max_ejection_percent=min(100, number("max_ejection_percent", 10)),
        always_eject_one=config.boolean("always_eject_one_host"),
        success_rate=success if enforced("enforcing_success_rate", 100) else None,
        failure_percentage=failure if enforced("enforcing_failure_percentage", 0) else None,
    )
