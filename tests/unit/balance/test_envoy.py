"""Envoy clusters as configuration: what is read, and what is refused because it could change a pick."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshsieve.balance import Locality, MaglevPolicy, RingHashPolicy
from meshsieve.balance.envoy import EnvoyCluster, clusters_of
from meshsieve.balance.hosts import Health
from meshsieve.errors import PolicyError
from meshsieve.policy import SourceFile


def read(*clusters: dict[str, Any]) -> dict[str, EnvoyCluster]:
    return clusters_of([SourceFile("c.json", json.dumps(list(clusters), indent=1))])


def entry(last: int, **more: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": f"10.0.0.{last}", "port_value": 80}}
    return {"endpoint": {"address": address}, **more}


def cluster(*entries: dict[str, Any], **more: Any) -> dict[str, Any]:
    groups = more.pop("endpoints", [{"lb_endpoints": list(entries) or [entry(1), entry(2)]}])
    return {"name": "c", "lb_policy": "MAGLEV", "load_assignment": {"cluster_name": "c", "endpoints": groups}, **more}


def test_hosts_with_everything() -> None:
    metadata = {"filter_metadata": {"envoy.lb": {"hash_key": "k", "version": "v1", "canary": True}}}
    full = entry(1, load_balancing_weight=7, health_status="DEGRADED", metadata=metadata)
    place = {"region": "r", "zone": "z", "sub_zone": "s"}
    found = read(cluster(endpoints=[{"priority": 2, "locality": place, "lb_endpoints": [full]}]))["c"]
    host = found.cluster.hosts[0]
    assert (host.name, host.weight, host.health, host.priority) == ("10.0.0.1:80", 7, Health.DEGRADED, 2)
    assert (host.locality, host.hash_key) == (Locality("r", "z", "s"), "k")
    assert host.labels == {"hash_key": "k", "version": "v1", "canary": "True"}


@pytest.mark.parametrize("status", ["UNHEALTHY", "DRAINING", "TIMEOUT"])
def test_what_is_not_healthy(status: str) -> None:
    assert read(cluster(entry(1, health_status=status)))["c"].cluster.hosts[0].health is Health.UNHEALTHY


POLICIES = [
    ({"lb_policy": "MAGLEV"}, MaglevPolicy(65537)),
    ({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 251}}, MaglevPolicy(251)),
    ({"lb_policy": "RING_HASH"}, RingHashPolicy()),
    (
        {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 9, "hash_function": "MURMUR_HASH_2"}},
        RingHashPolicy(9, 8388608, "murmur_hash_2"),
    ),
]


@pytest.mark.parametrize(("more", "policy"), POLICIES)
def test_policies(more: dict[str, Any], policy: object) -> None:
    assert read(cluster(**more))["c"].cluster.policy == policy


def test_a_bootstrap_a_list_and_an_answer_are_read() -> None:
    one = cluster()
    for document in ({"static_resources": {"clusters": [one]}}, {"resources": [one]}, {"clusters": [one]}, one):
        assert list(clusters_of([SourceFile("c.yaml", json.dumps(document))])) == ["c"]


def test_common_settings() -> None:
    common = {
        "healthy_panic_threshold": {"value": 33.9},
        "locality_weighted_lb_config": {},
        "consistent_hashing_lb_config": {"hash_balance_factor": 150},
    }
    groups = [{"locality": {"zone": "a"}, "load_balancing_weight": 3, "lb_endpoints": [entry(1)]}]
    settings = read(cluster(endpoints=groups, common_lb_config=common))["c"].cluster.settings
    assert (settings.panic_threshold, settings.hash_balance_factor) == (33, 150)
    assert settings.locality_weights == {(0, Locality(zone="a")): 3}


def test_defaults_of_limits_and_ejection_are_envoys() -> None:
    found = read(cluster(outlier_detection={}))["c"]
    assert (found.breaker.max_connections, found.breaker.max_requests, found.breaker.max_retries) == (1024, 1024, 3)
    assert found.outlier is not None
    assert (found.outlier.consecutive_5xx, found.outlier.consecutive_gateway) == (5, 0)
    assert found.outlier.success_rate is not None
    assert found.outlier.failure_percentage is None


def test_thresholds() -> None:
    budget = {"budget_percent": {"value": 25}, "min_retry_concurrency": 1}
    found = read(cluster(circuit_breakers={"thresholds": [{"max_requests": 7, "retry_budget": budget}]}))["c"]
    assert found.breaker.max_requests == 7
    assert (found.breaker.retries_allowed(100), found.breaker.retries_allowed(0)) == (25, 1)


def tagged(last: int, **labels: str) -> dict[str, Any]:
    return entry(last, metadata={"filter_metadata": {"envoy.lb": labels}})


HOSTS = [tagged(1, v="1", stage="prod"), tagged(2, v="2", stage="prod"), tagged(3, v="2", stage="test")]
ANYBODY_ELSE = {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["v"]}]}
SUBSETS = [
    #  what it shows, lb_subset_config, match, last bytes of the addresses that may serve
    ("the hosts with the value", {"subset_selectors": [{"keys": ["v"]}]}, {"v": "2"}, [2, 3]),
    ("all keys of the selector", {"subset_selectors": [{"keys": ["v", "stage"]}]}, {"v": "2", "stage": "prod"}, [2]),
    ("keys of no selector: nobody", {"subset_selectors": [{"keys": ["v"]}]}, {"stage": "prod"}, []),
    ("no match, no fallback: nobody", {"subset_selectors": [{"keys": ["v"]}]}, {}, []),
    ("fall back to anybody", {"fallback_policy": "ANY_ENDPOINT"}, {"v": "9"}, [1, 2, 3]),
    ("to the default", {"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"stage": "test"}}, {}, [3]),
    ("a value of nobody", ANYBODY_ELSE, {"v": "9"}, [1, 2, 3]),
    (
        "the selector's own fallback",
        {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["v"], "fallback_policy": "NO_FALLBACK"}]},
        {"v": "9"},
        [],
    ),
    (
        "fewer keys",
        {
            "subset_selectors": [
                {"keys": ["v", "stage"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["v"]},
                {"keys": ["v"]},
            ]
        },
        {"v": "1", "stage": "test"},
        [1],
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", SUBSETS, ids=[case[0] for case in SUBSETS])
def test_subsets(case: tuple[str, dict[str, Any], dict[str, str], list[int]]) -> None:
    _, config, match, addresses = case
    chosen = read(cluster(*HOSTS, lb_subset_config=config))["c"].for_match(match)
    assert [int(host.address.rpartition(".")[2]) for host in chosen.hosts] == addresses


SMALL_RING = cluster(lb_policy="RING_HASH", ring_hash_lb_config={"maximum_ring_size": 5})
PANIC_101 = cluster(common_lb_config={"healthy_panic_threshold": {"value": 101}})
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown field", cluster(colour="red"), r"c\.json:\d+:\d+: colour: unknown field"),
    ("typed load balancers", cluster(load_balancing_policy={"policies": []}), "load_balancing_policy: unknown field"),
    ("a size that is not prime", cluster(maglev_lb_config={"table_size": 8}), r"prime number, not 8 \[cluster c\]"),
    ("weight 0", cluster(entry(1, load_balancing_weight=0)), "outside 1"),
    ("weights that overflow", cluster(entry(1, load_balancing_weight=2**32 - 1), entry(2)), "exceeds 4294967295"),
    ("a host twice", cluster(entry(1), entry(1)), "both 10.0.0.1:80"),
    ("a ring below its minimum", SMALL_RING, "is above"),
    ("zone-aware routing", cluster(common_lb_config={"zone_aware_lb_config": {}}), "need the local cluster"),
    ("pipes", cluster({"endpoint": {"address": {"pipe": {"path": "/x"}}}}), "only socket addresses"),
    ("original destinations", cluster(lb_policy="CLUSTER_PROVIDED"), "expected one of"),
    ("partial enforcement", cluster(outlier_detection={"enforcing_success_rate": 50}), "only 0 and 100 percent"),
    ("a panic threshold of 101", PANIC_101, "0 to 100 percent"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        read(given)


def test_a_cluster_twice_is_refused() -> None:
    with pytest.raises(PolicyError, match="defined twice"):
        read(cluster(), cluster())


def test_a_cluster_without_hosts_has_nobody() -> None:
    assert read({"name": "c", "lb_policy": "MAGLEV"})["c"].cluster.pick(1) == -1
