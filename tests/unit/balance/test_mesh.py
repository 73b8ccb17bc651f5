"""Kubernetes and Istio objects: from manifests to endpoints, by the written sentences."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from meshsieve.balance import LEAST_REQUEST, RANDOM, ROUND_ROBIN, Host, Locality, MaglevPolicy, RingHashPolicy
from meshsieve.balance.decision import Outcome
from meshsieve.balance.kubernetes import AffinityTable, Connection, read_services
from meshsieve.balance.limits import NO_LIMIT
from meshsieve.balance.locality import Proxy, distribute, failover, failover_priority, zone_aware
from meshsieve.balance.mesh import Mesh, mesh_of
from meshsieve.balance.splits import by_name
from meshsieve.errors import BalanceError, PolicyError
from meshsieve.policy import SourceFile
from meshsieve.request import Request

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.10
  externalIPs: [192.0.2.1]
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]
%s
"""
ENDPOINTS = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.1.0.1], nodeName: n1, zone: a, conditions: {ready: true}, hints: {forZones: [{name: a}]},
   targetRef: {kind: Pod, name: web-1}}
- {addresses: [10.1.0.2], nodeName: n2, zone: b, conditions: {ready: true}, hints: {forZones: [{name: b}]},
   targetRef: {kind: Pod, name: web-2}}
- {addresses: [10.1.0.3], nodeName: n2, zone: b, conditions: {ready: false, serving: true, terminating: true},
   hints: {forZones: [{name: b}]}}
---
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: a}}
status: {addresses: [{type: InternalIP, address: 172.16.0.1}]}
---
kind: Node
metadata: {name: n2, labels: {topology.kubernetes.io/region: r2, topology.kubernetes.io/zone: b}}
---
{kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}}
---
{kind: Pod, metadata: {name: web-2, namespace: shop, labels: {app: web, version: v2}}}
"""


def services(spec: str = "", endpoints: str = ENDPOINTS) -> Any:
    return read_services([SourceFile("web.yaml", SERVICE % spec + endpoints)])


def mesh(*documents: str, spec: str = "") -> Mesh:
    return mesh_of([SourceFile("web.yaml", "---\n".join([SERVICE % spec + ENDPOINTS, *documents]))])


INSIDE = Connection("10.96.0.10", 80, node="n1", zone="a", source_ip="10.1.9.9")
BY_NODE_PORT = Connection("172.16.0.1", 30080, node="n1", source_ip="198.51.100.7")
FROM_N2, FROM_N9 = Connection("10.96.0.10", 80, node="n2"), Connection("10.96.0.10", 80, node="n9")
FROM_ZONE_C, EXTERNAL = Connection("10.96.0.10", 80, zone="c"), Connection("192.0.2.1", 80)
LOCAL, LOCAL_OUTSIDE = "  internalTrafficPolicy: Local", "  externalTrafficPolicy: Local"
CLOSE = "  trafficDistribution: PreferClose"
ONE, BOTH = (Outcome.ENDPOINT, ["10.1.0.1"]), (Outcome.CANDIDATES, ["10.1.0.1", "10.1.0.2"])
OTHER_ONE = (Outcome.ENDPOINT, ["10.1.0.2"])
DECISIONS = [
    #  what it shows, spec, connection, (outcome, endpoints), source that the server sees
    ("uniform among the ready", "", INSIDE, BOTH, "client"),
    ("the external address, too", "", EXTERNAL, BOTH, "node"),
    ("a node port is translated", "", BY_NODE_PORT, BOTH, "node"),
    ("internal Local stays", LOCAL, INSIDE, ONE, "client"),
    ("external Local keeps the client", LOCAL_OUTSIDE, BY_NODE_PORT, ONE, "client"),
    ("Local prefers the ready", LOCAL, FROM_N2, OTHER_ONE, "client"),
    ("Local without any is a drop", LOCAL, FROM_N9, (Outcome.DROP, []), "client"),
    ("a hint for the zone comes first", CLOSE, INSIDE, ONE, "client"),
    ("no hint for the zone: all", CLOSE, FROM_ZONE_C, BOTH, "client"),
]


@pytest.mark.parametrize("case", DECISIONS, ids=[case[0] for case in DECISIONS])
def test_service_decisions(case: tuple[Any, ...]) -> None:
    _, spec, connection, (outcome, addresses), source = case
    decision = services(spec).decide(connection)
    assert decision.outcome is outcome
    assert [host.address for host, _ in decision.candidates] == addresses
    assert all(host.port == 8080 and chance == Fraction(1, len(addresses)) for host, chance in decision.candidates)
    assert decision.snat.mode == source


OTHER_PORT, OTHER_ADDRESS = Connection("10.96.0.10", 81), Connection("10.96.0.11", 80)
OTHER_PROTOCOL = Connection("10.96.0.10", 80, "UDP")


@pytest.mark.parametrize("connection", [OTHER_PORT, OTHER_ADDRESS, OTHER_PROTOCOL])
def test_other_connections_are_to_no_service(connection: Connection) -> None:
    assert services().decide(connection) is None


def test_terminating_endpoints_serve_when_nobody_is_ready() -> None:
    nobody = ENDPOINTS.replace("ready: true", "ready: false, serving: false")
    decision = services("", nobody).decide(INSIDE)
    assert [host.address for host, _ in decision.candidates] == ["10.1.0.3"]


def test_no_endpoints_is_no_endpoint() -> None:
    assert services("", "").decide(INSIDE).outcome is Outcome.NO_ENDPOINT


def test_a_headless_service_is_only_names() -> None:
    text = (SERVICE % "").replace("10.96.0.10", "None").replace("  externalIPs: [192.0.2.1]\n", "") + ENDPOINTS
    found = read_services([SourceFile("web.yaml", text)])
    assert found.resolve("shop", "web") == ["10.1.0.1", "10.1.0.2"]
    assert found.decide(INSIDE) is None


def test_session_affinity_narrows_to_one_host_until_its_time_is_over() -> None:
    found = services("  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}")
    table = AffinityTable()
    first = found.decide(INSIDE, table, 0)
    assert (first.outcome, first.persistence) == (Outcome.CANDIDATES, "new")
    service = found.named("shop", "web")
    table.remember(service, service.ports[0], INSIDE.source_ip, first.candidates[1][0], 0)
    later = found.decide(INSIDE, table, 60)
    assert (later.endpoint.address, later.persistence) == ("10.1.0.2", "hit")
    assert found.decide(INSIDE, table, 61).persistence == "new"


RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  trafficPolicy: {%s}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
"""
WEB = "web.shop.svc.cluster.local"
CLIENT = Proxy("shop", Locality("r1", "a"))


def test_without_a_rule_requests_go_to_the_least_busy() -> None:
    backend = mesh().backend(WEB, 80)
    assert backend.cluster is not None
    assert backend.cluster.policy == LEAST_REQUEST
    assert backend.decide(Request()).answer_class == "distribution"


BALANCERS = [
    ("UNSPECIFIED", LEAST_REQUEST), ("LEAST_REQUEST", LEAST_REQUEST), ("LEAST_CONN", LEAST_REQUEST),
    ("ROUND_ROBIN", ROUND_ROBIN), ("RANDOM", RANDOM),
]  # fmt: skip


@pytest.mark.parametrize(("name", "policy"), BALANCERS)
def test_simple_balancers(name: str, policy: object) -> None:
    backend = mesh(RULE % f"loadBalancer: {{simple: {name}}}").backend("web", 80, proxy=CLIENT)
    assert backend.cluster is not None
    assert backend.cluster.policy == policy


def test_passthrough_keeps_the_destination() -> None:
    backend = mesh(RULE % "loadBalancer: {simple: PASSTHROUGH}").backend("web", 80, proxy=CLIENT)
    assert backend.decide(Request()).outcome is Outcome.PASSTHROUGH


HASHES = [
    ("a ring of 1024 unless said", "useSourceIp: true", RingHashPolicy(1024)),
    ("the old minimum", "useSourceIp: true, minimumRingSize: 2048", RingHashPolicy(2048)),
    ("the new minimum", "useSourceIp: true, ringHash: {minimumRingSize: 9}", RingHashPolicy(9)),
    ("Maglev", "useSourceIp: true, maglev: {}", MaglevPolicy(65537)),
    ("Maglev of a size", "useSourceIp: true, maglev: {tableSize: 251}", MaglevPolicy(251)),
]


@pytest.mark.parametrize(("text", "policy"), [case[1:] for case in HASHES], ids=[case[0] for case in HASHES])
def test_consistent_hash(text: str, policy: object) -> None:
    backend = mesh(RULE % f"loadBalancer: {{consistentHash: {{{text}}}}}").backend("web", 80, proxy=CLIENT)
    assert backend.cluster is not None
    assert backend.cluster.policy == policy
    request = Request(source_ip="10.0.0.9")
    decision = backend.decide(request)
    assert decision.outcome is Outcome.ENDPOINT
    hashed = backend.policy.hash_policy.hash(request).value
    assert hashed is not None
    assert decision.endpoint == backend.cluster.hosts[backend.cluster.pick(hashed)]


def test_consistent_hash_without_the_key_is_random() -> None:
    rule = RULE % "loadBalancer: {consistentHash: {httpHeaderName: x-user}}"
    assert mesh(rule).backend("web", 80, proxy=CLIENT).decide(Request()).answer_class == "distribution"


def test_a_subset_replaces_group_by_group() -> None:
    text = RULE % "loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 7}"
    v1, v2 = (mesh(text).backend("web", 80, subset, CLIENT) for subset in ("v1", "v2"))
    assert (v1.policy.balancer, v2.policy.balancer) == (ROUND_ROBIN, RANDOM)
    assert [b.policy.outlier and b.policy.outlier.consecutive_5xx for b in (v1, v2)] == [7, 7]
    assert [[h.address for h in b.cluster.hosts] for b in (v1, v2) if b.cluster] == [["10.1.0.1"], ["10.1.0.2"]]


def test_port_level_settings_replace_all_groups() -> None:
    ports = "portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]"
    text = RULE % f"outlierDetection: {{consecutive5xxErrors: 7}}, {ports}"
    for subset in (None, "v2"):
        policy = mesh(text).backend("web", 80, subset, CLIENT).policy
        assert (policy.balancer, policy.outlier) == (ROUND_ROBIN, None)


def test_an_unknown_subset_has_nobody() -> None:
    backend = mesh(RULE % "").backend("web", 80, "v9", CLIENT)
    assert (backend.decide(Request()).outcome, backend.decide(Request()).status) == (Outcome.NO_ENDPOINT, 503)
    assert [d.code for d in backend.diagnostics] == ["unknown-subset"]


def test_a_subset_of_unknown_labels_is_refused() -> None:
    without_pods = ENDPOINTS.replace("{kind: Pod, metadata", "{kind: ConfigMap, metadata")
    text = (SERVICE % "") + without_pods + "---\n" + RULE % ""
    with pytest.raises(BalanceError, match="needs the labels of"):
        mesh_of([SourceFile("web.yaml", text)]).backend("web", 80, "v1", CLIENT)


def test_defaults_of_limits_and_ejection_are_istios() -> None:
    policy = mesh(RULE % "outlierDetection: {}").backend("web", 80, proxy=CLIENT).policy
    assert (policy.breaker.max_requests, policy.breaker.max_retries) == (NO_LIMIT, NO_LIMIT)
    assert policy.outlier is not None
    assert (policy.outlier.consecutive_5xx, policy.outlier.consecutive_gateway) == (5, 0)
    assert (policy.outlier.interval, policy.outlier.base_ejection_time) == (10, 30)
    assert (policy.outlier.max_ejection_percent, policy.panic_threshold) == (10, 0)


def test_lint_says_when_ejection_is_impossible() -> None:
    backend = mesh(RULE % "outlierDetection: {}").backend("web", 80, proxy=CLIENT)
    assert [d.code for d in backend.diagnostics] == ["ejection-impossible"]


def test_connection_pools_and_warmup() -> None:
    text = (
        "connectionPool: {tcp: {maxConnections: 5}, "
        "http: {http1MaxPendingRequests: 6, http2MaxRequests: 7, maxRetries: 8}}, "
        "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 60s}}"
    )
    policy = mesh(RULE % text).backend("web", 80, proxy=CLIENT).policy
    breaker = policy.breaker
    assert (breaker.max_connections, breaker.max_pending, breaker.max_requests, breaker.max_retries) == (5, 6, 7, 8)
    assert policy.slow_start is not None
    assert (policy.slow_start.window_seconds, policy.slow_start.min_percent) == (60, 10)


def test_redis_ports_use_maglev() -> None:
    text = (SERVICE % "").replace("name: http, port: 80", "name: redis, port: 80") + ENDPOINTS.replace(
        "name: http", "name: redis"
    )
    backend = mesh_of([SourceFile("web.yaml", text)]).backend(WEB, 80)
    assert backend.cluster is not None
    assert backend.cluster.policy == MaglevPolicy()


def test_failover_needs_outlier_detection_or_a_distribution() -> None:
    def priorities(text: str, spec: str = "") -> list[int]:
        backend = mesh(RULE % text, spec=spec).backend("web", 80, proxy=CLIENT)
        assert backend.cluster is not None
        return [host.priority for host in backend.cluster.hosts]

    assert priorities("") == [0, 0]
    assert priorities("outlierDetection: {}") == [0, 1]
    assert priorities("", "  trafficDistribution: PreferClose") == [0, 1]
    off = "outlierDetection: {}, loadBalancer: {localityLbSetting: {enabled: false}}"
    assert priorities(off) == [0, 0]


def test_distribute_weighs_localities() -> None:
    setting = "localityLbSetting: {distribute: [{from: r1/*, to: {r1/*: 80, r2/b: 20}}]}"
    text = f"loadBalancer: {{consistentHash: {{useSourceIp: true, maglev: {{tableSize: 1009}}}}, {setting}}}"
    backend = mesh(RULE % text).backend("web", 80, proxy=CLIENT)
    assert backend.cluster is not None
    assert [float(share) for share in backend.cluster.shares] == pytest.approx([0.8, 0.2], abs=0.002)


ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com, "*.wild.example.com"]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: %s
  %s
"""


def test_service_entries() -> None:
    static = "endpoints: [{address: 192.0.2.7, ports: {tls: 8443}, locality: r1/a, weight: 3}, {address: 192.0.2.8}]"
    backend = mesh(ENTRY % ("STATIC", static)).backend("api.example.com", 443)
    assert backend.cluster is not None
    assert [(h.name, h.weight) for h in backend.cluster.hosts] == [("192.0.2.7:8443", 3), ("192.0.2.8:443", 1)]
    by_dns = mesh(ENTRY % ("DNS", "")).backend("api.example.com", 443)
    assert by_dns.cluster is not None
    assert [h.name for h in by_dns.cluster.hosts] == ["api.example.com:443"]
    assert mesh(ENTRY % ("STATIC", static)).backend("x.wild.example.com", 443).cluster is not None


def test_an_unknown_destination_leaves_or_dies() -> None:
    known = mesh()
    assert known.decide("api.example.com", 443, Request()).pool == "PassthroughCluster"
    known.allow_any = False
    decision = known.decide("api.example.com", 443, Request())
    assert (decision.outcome, decision.status, decision.pool) == (Outcome.NO_ENDPOINT, 502, "BlackHoleCluster")
    with pytest.raises(BalanceError, match="BlackHoleCluster"):
        known.backend("api.example.com", 443)


LOOKUPS = [
    #  what it shows, [(namespace, host, exportTo)], the winner for a client in ns "c" of a service in "s"
    ("the client's namespace first", [("s", "w.s.svc.cluster.local", ""), ("c", "w.s.svc.cluster.local", "")], 1),
    ("then the service's", [("istio-system", "w.s.svc.cluster.local", ""), ("s", "w.s.svc.cluster.local", "")], 1),
    ("then the root", [("x", "w.s.svc.cluster.local", ""), ("istio-system", "w.s.svc.cluster.local", "")], 1),
    ("exact beats wildcard", [("c", "*.svc.cluster.local", ""), ("c", "w.s.svc.cluster.local", "")], 1),
    ("the longest wildcard", [("c", "*.cluster.local", ""), ("c", "*.s.svc.cluster.local", "")], 1),
    ("a near wildcard, a far exact one", [("s", "w.s.svc.cluster.local", ""), ("c", "*.s.svc.cluster.local", "")], 1),
    ("exportTo . hides it", [("s", "w.s.svc.cluster.local", "."), ("istio-system", "*", "")], 1),
    ("a short name is of the rule's namespace", [("s", "w", ""), ("x", "w", "")], 0),
    ("nobody fits", [("x", "w", "")], None),
]  # fmt: skip


@pytest.mark.parametrize("case", LOOKUPS, ids=[case[0] for case in LOOKUPS])
def test_which_rule_holds(case: tuple[str, list[tuple[str, str, str]], int | None]) -> None:
    from meshsieve.balance.traffic_policy import find_rule

    documents = [
        f"kind: DestinationRule\nmetadata: {{name: r{i}, namespace: {namespace}}}\n"
        f"spec: {{host: '{host}'{', exportTo: [' + repr(scope) + ']' if scope else ''}}}\n"
        for i, (namespace, host, scope) in enumerate(case[1])
    ]
    rules = mesh_of([SourceFile("rules.yaml", "---\n".join(documents))]).rules
    found = find_rule(rules, "w.s.svc.cluster.local", "c", "s")
    assert (found.name if found else None) == (None if case[2] is None else f"r{case[2]}")


ROUTES = """
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - name: beta
    match: [{headers: {end-user: {exact: jason}}}]
    route: [{destination: {host: web, subset: v2}}]
  - route:
    - {destination: {host: web, subset: v1}, weight: 99}
    - {destination: {host: web, subset: v2}, weight: 1}
    retries: {attempts: 5, retryOn: "gateway-error,503"}
  - redirect: {uri: /elsewhere}
---
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  rules:
  - backendRefs: [{name: web, port: 80}, {name: web-canary, port: 80, weight: 3}, {name: idle, port: 80, weight: 0}]
  - backendRefs: [{name: idle, port: 80, weight: 0}]
"""


def test_splits_of_routes() -> None:
    splits = mesh_of([SourceFile("routes.yaml", ROUTES)]).splits
    assert [split.name for split in splits] == [
        "VirtualService shop/web http[0] (beta)",
        "VirtualService shop/web http[1]",
        "HTTPRoute shop/web rules[0]",
        "HTTPRoute shop/web rules[1]",
    ]
    only, canary, gateway, none = splits
    assert only.shares == {f"{WEB}|v2": 1}
    assert [canary.pick(v).subset for v in (0, 98, 99, 100, 199)] == ["v1", "v1", "v2", "v1", "v2"]
    assert canary.retries is not None
    assert canary.retries.wants(5, status=503)
    assert not canary.retries.wants(6, status=503)
    assert gateway.shares["web-canary.shop.svc.cluster.local:80"] == Fraction(3, 4)
    assert gateway.shares["idle.shop.svc.cluster.local:80"] == 0
    with pytest.raises(BalanceError, match="no destination with a weight above 0"):
        none.pick(0)
    assert by_name(splits, "VirtualService shop/web http[1]") is canary
    with pytest.raises(BalanceError, match="names 2 splits"):
        by_name(splits, "HTTPRoute")


def test_a_split_leads_to_an_endpoint() -> None:
    known = mesh(RULE % "", ROUTES)
    canary = by_name(known.splits, "VirtualService shop/web http[1]")
    decisions = [known.decide_split(canary, value, Request(), CLIENT) for value in (98, 99)]
    assert [d.endpoint and d.endpoint.address for d in decisions] == ["10.1.0.1", "10.1.0.2"]
    assert decisions[1].explain[0].endswith(f"{WEB}|v2")


def test_a_split_to_a_service_of_several_ports_must_name_one() -> None:
    several = (SERVICE % "").replace("nodePort: 30080}]", "nodePort: 30080}, {name: admin, port: 81}]")
    known = mesh_of([SourceFile("web.yaml", "---\n".join([several + ENDPOINTS, RULE % "", ROUTES]))])
    with pytest.raises(BalanceError, match="has 2 ports, and the rule names none"):
        known.decide_split(known.splits[0], 0, Request(), CLIENT)


A, B, C = Locality("r1", "a"), Locality("r1", "b"), Locality("r2", "c")


def hosts(*localities: Locality, **labels: str) -> list[Host]:
    return [Host(f"10.0.0.{i}", 80, locality=place, labels=labels) for i, place in enumerate(localities)]


def test_distribute_by_the_sentence() -> None:
    spread, weights = distribute(hosts(A, A, B, C), Proxy(locality=A), [("r1/a", {"r1/*": 80, "r2": 20})])
    assert len(spread) == 4
    assert weights == {(0, A): 54, (0, B): 27, (0, C): 20}  # ceil(2 * 80 / 3), ceil(1 * 80 / 3), 20
    spread, weights = distribute(hosts(A, B, C), Proxy(locality=A), [("r9", {"*": 100}), ("*", {"r1/a": 100})])
    assert [h.locality for h in spread] == [A]
    assert distribute(hosts(A), Proxy(locality=C), [("r1", {"*": 100})])[1] is None


FAILOVERS = [
    ("distance, made gapless", Proxy(locality=A), (), [0, 1, 2]),
    ("from elsewhere all are far", Proxy(locality=Locality("r3", "z")), (), [0, 0, 0]),
    ("the named region before others", Proxy(locality=Locality("r3", "z")), (("r3", "r2"),), [1, 1, 0]),
    ("a failover of another region does nothing", Proxy(locality=A), (("r3", "r2"),), [0, 1, 2]),
]


@pytest.mark.parametrize("case", FAILOVERS, ids=[case[0] for case in FAILOVERS])
def test_failover(case: tuple[str, Proxy, tuple[tuple[str, str], ...], list[int]]) -> None:
    _, proxy, regions, priorities = case
    assert [h.priority for h in failover(hosts(A, B, C), proxy, regions)] == priorities


def test_failover_priority_by_the_sentence() -> None:
    proxy = Proxy(locality=A, labels={"version": "v1"}, network="n1")
    near = Host("10.0.0.1", 80, locality=A, labels={"version": "v1", "topology.istio.io/network": "n1"})
    zone = Host("10.0.0.2", 80, locality=B, labels={"version": "v1", "topology.istio.io/network": "n1"})
    away = Host("10.0.0.3", 80, locality=A, labels={"version": "v2", "topology.istio.io/network": "n2"})
    region_then_zone = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"]
    assert [h.priority for h in failover_priority([near, zone, away], proxy, region_then_zone)] == [0, 1, 0]
    assert [h.priority for h in failover_priority([near, zone, away], proxy, ["version=v2"])] == [1, 1, 0]
    network = ["topology.istio.io/network", "topology.kubernetes.io/region", "topology.kubernetes.io/zone"]
    # raw: 0; zone differs at j=2: 3 - 2 = 1; network adds 3 and nothing else differs
    assert [h.priority for h in failover_priority([near, zone, away], proxy, network)] == [0, 1, 2]


TWO_THIRDS = (Fraction(6666, 10000), Fraction(3334, 10000))
ZONES = [
    #  what it shows, clients by zone, upstream hosts by zone, shares of zones a, b for a client in a
    ("enough at home: all stay", {A: 1, B: 1}, {A: 3, B: 3}, (1, 0)),
    ("too little at home: the rest goes where there is room", {A: 3, B: 1}, {A: 3, B: 3}, TWO_THIRDS),
    ("fewer than six hosts: by hosts", {A: 1, B: 1}, {A: 1, B: 4}, (Fraction(1, 5), Fraction(4, 5))),
    ("nobody at home: by hosts", {A: 1, B: 1}, {A: 0, B: 6}, (0, 1)),
    ("one zone of clients: by hosts", {A: 2}, {A: 2, B: 4}, (Fraction(1, 3), Fraction(2, 3))),
]  # fmt: skip


@pytest.mark.parametrize("case", ZONES, ids=[case[0] for case in ZONES])
def test_zone_aware_routing(case: tuple[str, dict[Locality, int], dict[Locality, int], tuple[Any, Any]]) -> None:
    _, local, upstream, shares = case
    got = zone_aware(local, upstream, A)
    assert (got[A], got[B]) == shares
    assert sum(got.values()) == 1


def doc(kind: str, spec: str) -> str:
    return f"kind: {kind}\nmetadata: {{name: x}}\nspec: {{{spec}}}"


BALANCER = RULE % "loadBalancer: {%s}"
RETRY = "http: [{route: [{destination: {host: a}}], retries: {retryOn: 5xxx}}]"
SELECTOR = "hosts: [a.b], workloadSelector: {labels: {a: b}}"
TOO_LITTLE = "localityLbSetting: {distribute: [{from: '*', to: {a: 99}}]}"
REFUSED = [
    ("an unknown field", BALANCER % "colour: red", r"web\.yaml:\d+:\d+: .*colour: unknown field"),
    ("an unknown balancer", BALANCER % "simple: FAIR", "unknown balancer 'FAIR'"),
    ("two balancers", BALANCER % "simple: RANDOM, consistentHash: {useSourceIp: true}", "exclude each other"),
    ("two hash keys", BALANCER % "consistentHash: {useSourceIp: true, httpHeaderName: a}", "exactly one of"),
    ("no hash key", BALANCER % "consistentHash: {maglev: {}}", "exactly one of"),
    ("weights that are not 100", BALANCER % TOO_LITTLE, "sum to 100"),
    ("a duration without unit", RULE % "outlierDetection: {interval: '10'}", "is not a duration"),
    ("a percentage of 101", RULE % "outlierDetection: {maxEjectionPercent: 101}", r"outside 0\.\.100"),
    ("a DestinationRule without host", doc("DestinationRule", ""), "host: is missing"),
    ("a subset twice", doc("DestinationRule", "host: a, subsets: [{name: b}, {name: b}]"), "defined twice"),
    ("an unknown retry condition", doc("VirtualService", RETRY), "unknown retry conditions"),
    ("a negative weight", doc("HTTPRoute", "rules: [{backendRefs: [{name: a, weight: -1}]}]"), "outside 0"),
    ("workload selectors", doc("ServiceEntry", SELECTOR), "workload selector"),
]


@pytest.mark.parametrize(("text", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused_where_it_stands(text: str, reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        mesh_of([SourceFile("web.yaml", text)])
