"""Our picks against the real Envoy's, for what the stored answers leave out: order of localities, IPv6 and host-name
keys, retries, generated cookies, odd panic thresholds, subsets. The configuration goes through our own importer."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from meshsieve.balance import HashPolicy
from meshsieve.balance.cluster import Cluster
from meshsieve.balance.envoy import EnvoyCluster, clusters_of
from meshsieve.balance.limits import retry_host
from meshsieve.balance.observed import split_check
from meshsieve.errors import PolicyError
from meshsieve.policy import SourceFile
from meshsieve.request import Request
from tests.differential import envoy

N_KEYS = 60
N_CHANCES = 1500
HASH = [{"header": {"header_name": "x-key"}}]
COOKIE = [{"cookie": {"name": "sid", "ttl": "60s", "path": "/"}}]
RETRY = {
    "retry_on": "5xx",
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 5,
}


def endpoint(address: str, port: int, **more: Any) -> dict[str, Any]:
    hostname = more.pop("hostname", "")
    inner = {"address": {"socket_address": {"address": address, "port_value": port}}}
    return {"endpoint": inner | ({"hostname": hostname} if hostname else {}), **more}


def cluster(name: str, localities: list[dict[str, Any]], policy: str = "MAGLEV", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": policy,
        "load_assignment": {"cluster_name": name, "endpoints": localities},
        **more,
    }


def clusters(port: int, six: list[int], failing: list[int]) -> list[dict[str, Any]]:
    """port answers on every 127.0.0.0/8 address; six on ::1; failing ports answer 503."""
    draw = random.Random(8)

    def hosts(third: int, n: int, **more: Any) -> list[dict[str, Any]]:
        return [endpoint(f"127.8.{third}.{i}", port, **more) for i in range(1, n + 1)]

    def weighted(third: int, n: int) -> list[dict[str, Any]]:
        return [h | {"load_balancing_weight": draw.randint(1, 9)} for h in hosts(third, n)]

    zones = [
        {"locality": {"zone": zone}, "load_balancing_weight": weight, "lb_endpoints": weighted(third, 3)}
        for zone, weight, third in (("c", 3, 1), ("a", 1, 2), ("b", 2, 3))
    ]
    by_locality = {"locality_weighted_lb_config": {}}
    sick = hosts(7, 2) + [h | {"health_status": "UNHEALTHY"} for h in hosts(8, 5)]
    mixed = [
        {"priority": 0, "lb_endpoints": hosts(9, 2) + [h | {"health_status": "DEGRADED"} for h in hosts(10, 2)]},
        {"priority": 1, "lb_endpoints": hosts(11, 1) + [h | {"health_status": "UNHEALTHY"} for h in hosts(12, 2)]},
        {"priority": 2, "lb_endpoints": hosts(13, 3)},
    ]

    named = [endpoint(f"127.8.5.{i}", port, hostname=f"h{i}.example") for i in range(1, 6)]
    by_hostname = {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}

    half_sick = [
        {"locality": {"zone": "a"}, "load_balancing_weight": 3, "lb_endpoints": hosts(16, 2)},
        {
            "locality": {"zone": "b"},
            "load_balancing_weight": 1,
            "lb_endpoints": [*hosts(17, 2), *(h | {"health_status": "UNHEALTHY"} for h in hosts(18, 2))],
        },
    ]

    def tagged(third: int, **labels: str) -> list[dict[str, Any]]:
        return hosts(third, 3, metadata={"filter_metadata": {"envoy.lb": labels}})

    return [
        cluster("maglev-zones", zones, common_lb_config=by_locality, maglev_lb_config={"table_size": 1009}),
        cluster("ring-zones-out-of-order", zones, "RING_HASH", common_lb_config=by_locality),
        cluster("ring-weighted", [{"lb_endpoints": weighted(4, 7)}], "RING_HASH"),
        cluster("maglev-ipv6", [{"lb_endpoints": [endpoint("::1", p) for p in six]}]),
        cluster("ring-ipv6", [{"lb_endpoints": [endpoint("::1", p) for p in six]}], "RING_HASH"),
        cluster("maglev-hostnames", [{"lb_endpoints": named}], common_lb_config=by_hostname) | {"type": "STRICT_DNS"},
        cluster(
            "panic-threshold-29",
            [{"lb_endpoints": sick}],
            common_lb_config={"healthy_panic_threshold": {"value": 29}},
        ),
        cluster("priorities-degraded", mixed),
        cluster("maglev-retries", [{"lb_endpoints": [endpoint("127.0.0.1", p) for p in failing]}]),
        cluster("ring-retries", [{"lb_endpoints": [endpoint("127.0.0.1", p) for p in failing]}], "RING_HASH"),
        cluster("maglev-cookie", [{"lb_endpoints": hosts(6, 9)}]),
        cluster("chance-random", mixed, "RANDOM"),
        cluster("chance-round-robin", mixed, "ROUND_ROBIN"),
        cluster("chance-least-request", mixed, "LEAST_REQUEST"),
        cluster("chance-zones", half_sick, "ROUND_ROBIN", common_lb_config=by_locality),
        cluster(
            "subset",
            [{"lb_endpoints": tagged(14, version="v1") + tagged(15, version="v2")}],
            lb_subset_config={"fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{"keys": ["version"]}]},
        ),
    ]  # fmt: skip


def two(first: int | None, second: int | None, **more: Any) -> dict[str, Any]:
    weights = [{} if weight is None else {"load_balancing_weight": weight} for weight in (first, second)]
    entries = [endpoint(f"10.0.0.{i}", 80, **weight) for i, weight in enumerate(weights)]
    return cluster("c", [{"lb_endpoints": entries}], **more)


def localities(first: int, second: int) -> dict[str, Any]:
    groups = [
        {"locality": {"zone": zone}, "load_balancing_weight": weight, "lb_endpoints": [endpoint(f"10.0.{i}.1", 80)]}
        for i, (zone, weight) in enumerate((("a", first), ("b", second)))
    ]
    return cluster("c", groups, common_lb_config={"locality_weighted_lb_config": {}})


def ring(**sizes: int) -> dict[str, Any]:
    return two(1, 1, policy="RING_HASH", ring_hash_lb_config=sizes)


def bounded(factor: int) -> dict[str, Any]:
    return two(1, 1, common_lb_config={"consistent_hashing_lb_config": {"hash_balance_factor": factor}})


TOP = 2**32 - 1
BAD = [
    #  what it shows, cluster, does Envoy take it
    ("equal hosts", two(None, None), True),
    ("no hosts", cluster("c", []), True),
    ("weight 0", two(0, 1), False),
    ("the largest sum of weights", two(TOP - 1, 1), True),
    ("a larger sum of weights", two(TOP, 1), False),
    ("a larger sum in round robin", two(TOP, 1, policy="ROUND_ROBIN"), True),
    ("the largest sum of localities", localities(TOP - 1, 1), True),
    ("a larger sum of localities", localities(TOP, 1), False),
    ("a table size that is prime", two(1, 1, maglev_lb_config={"table_size": 251}), True),
    ("a table size that is not", two(1, 1, maglev_lb_config={"table_size": 252}), False),
    ("the largest table", two(1, 1, maglev_lb_config={"table_size": 5000011}), True),
    ("a larger prime", two(1, 1, maglev_lb_config={"table_size": 5000081}), False),
    ("a ring of its limits", ring(minimum_ring_size=8388608), True),
    ("a ring above its limits", ring(minimum_ring_size=8388609), False),
    ("a minimum above the maximum", ring(maximum_ring_size=9), False),
    ("a balance factor of 100", bounded(100), True),
    ("a balance factor of 99", bounded(99), False),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=[case[0] for case in BAD])
def test_we_refuse_what_envoy_refuses(case: tuple[str, dict[str, Any], bool]) -> None:
    _, given, taken = case
    bootstrap = {"static_resources": {"clusters": [given]}, "node": {"id": "x", "cluster": "x"}}
    assert envoy.accepts(bootstrap) is taken
    try:
        clusters_of([SourceFile("envoy.json", json.dumps(bootstrap))])
        ours = True
    except PolicyError:
        ours = False
    assert ours is taken


@pytest.fixture(scope="module")
def judge() -> Iterator[tuple[int, int, dict[str, EnvoyCluster]]]:
    """(front port, upstream port, our clusters) of a running Envoy."""
    envoy.envoy_binary()
    front, port, *rest = envoy.free_ports(10)
    six, failing = rest[:4], rest[4:]
    config = clusters(port, six, failing)
    show = [
        {"header": {"key": "x-up", "value": "%UPSTREAM_HOST%"}},
        {"header": {"key": "x-from", "value": "%DOWNSTREAM_REMOTE_ADDRESS%"}},
        {"header": {"key": "x-at", "value": "%DOWNSTREAM_LOCAL_ADDRESS%"}},
    ]
    routes = []
    for c in config:
        for variant in _variants(c["name"]):
            match = {
                "prefix": "/",
                "headers": [{"name": "x-case", "string_match": {"exact": f"{c['name']}:{variant}"}}],
            }
            route: dict[str, Any] = {
                "cluster": c["name"],
                "hash_policy": COOKIE if c["name"].endswith("cookie") else HASH,
            }
            if c["name"].endswith("retries"):
                route["retry_policy"] = {**RETRY, "num_retries": int(variant)} if int(variant) else {}
            if c["name"] == "subset" and variant != "none":
                route["metadata_match"] = {"filter_metadata": {"envoy.lb": {"version": variant}}}
            routes.append({"match": match, "route": route, "response_headers_to_add": show})
    listeners = [
        envoy.listener("front", "127.0.0.1", front, routes),
        envoy.answering("up", "0.0.0.0", port),
        *(envoy.answering(f"six-{p}", "::1", p) for p in six),
        *(envoy.answering(f"failing-{p}", "127.0.0.1", p, 503) for p in failing),
    ]
    with envoy.running(listeners, config, front):
        ours = clusters_of([SourceFile("envoy.json", json.dumps(config))])
        yield front, port, ours


def _variants(name: str) -> list[str]:
    if name.endswith("retries"):
        return ["0", "1", "2", "3"]
    return ["v1", "v2", "v9", "none"] if name == "subset" else [""]


OWN = ("chance", "subset")  # with a test of their own
NAMES = [c["name"] for c in clusters(0, [1], [2])]


@pytest.mark.parametrize(
    "name", [n for n in NAMES if not n.endswith(("retries", "cookie")) and n.partition("-")[0] not in OWN]
)
def test_picks(judge: tuple[int, int, dict[str, EnvoyCluster]], name: str) -> None:
    front, _, ours = judge
    _compare(front, f"{name}:", ours[name].cluster)


@pytest.mark.parametrize("variant", _variants("subset"))
def test_subsets(judge: tuple[int, int, dict[str, EnvoyCluster]], variant: str) -> None:
    front, _, ours = judge
    match = {} if variant == "none" else {"version": variant}
    _compare(front, f"subset:{variant}", ours["subset"].for_match(match))


def _compare(front: int, case: str, ours: Cluster) -> None:
    client, policy = envoy.Client(front), HashPolicy.from_envoy(HASH)
    for i in range(N_KEYS):
        headers = [("x-case", case), ("x-key", f"key-{i * 7919}")]
        status, answer = client.get("/", headers)
        value = policy.hash(Request(headers=tuple(headers))).value
        assert value is not None
        host = ours.pick(value)
        assert (answer.get("x-up") if status == 200 else None) == (ours.hosts[host].name if host >= 0 else None)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("chance-")])
def test_chances(judge: tuple[int, int, dict[str, EnvoyCluster]], name: str) -> None:
    """Balancers without a hash: what Envoy does in many requests is plausible under our shares."""
    front, _, ours = judge
    client, chosen = envoy.Client(front), ours[name].cluster
    counts: Counter[str] = Counter()
    for _ in range(N_CHANCES):
        _, answer = client.get("/", [("x-case", f"{name}:")])
        counts[answer["x-up"]] += 1
    shares = {h.name: share for h, share in zip(chosen.hosts, chosen.shares, strict=True) if share}
    assert set(counts) <= set(shares)
    check = split_check(shares, counts, confidence=0.9999)
    assert check.consistent, check


@pytest.mark.parametrize("retries", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["maglev-retries", "ring-retries"])
def test_retries_go_to_other_hosts(judge: tuple[int, int, dict[str, EnvoyCluster]], name: str, retries: int) -> None:
    front, _, ours = judge
    client, policy, cluster = envoy.Client(front), HashPolicy.from_envoy(HASH), ours[name].cluster
    for i in range(20):
        headers = [("x-case", f"{name}:{retries}"), ("x-key", f"key-{i}")]
        _, answer = client.get("/", headers)
        value = policy.hash(Request(headers=tuple(headers))).value
        assert value is not None
        tried: list[int] = []
        for _ in range(retries + 1):
            tried.append(retry_host(cluster, value, tried))
        assert answer["x-up"] == cluster.hosts[tried[-1]].name


def test_generated_cookies(judge: tuple[int, int, dict[str, EnvoyCluster]]) -> None:
    front, _, ours = judge
    policy, cluster = HashPolicy.from_envoy(COOKIE), ours["maglev-cookie"].cluster
    for _ in range(10):
        client = envoy.Client(front)
        source_port = client.source_port
        _, answer = client.get("/", [("x-case", "maglev-cookie:")])
        request = Request(
            source_ip="127.0.0.1", source_port=source_port, destination_ip="127.0.0.1", destination_port=front
        )
        hashed = policy.hash(request)
        assert hashed.value is not None
        name, value, path, ttl = hashed.cookies_to_set[0]
        assert answer["set-cookie"].split("; ")[0] == f'{name}="{value}"'
        assert f"Max-Age={int(ttl)}" in answer["set-cookie"]
        assert f"Path={path}" in answer["set-cookie"]
        assert answer["x-up"] == cluster.hosts[cluster.pick(hashed.value)].name
