"""Load-balancing known answers: every pick of a set is a case; a round-robin sequence or Envoy unit vector is one case.

``*.json`` files hold lists of sets in the format of data/lb (hosts, lb, hash_policy, requests or picked_sequence), or
an object with ``ring`` and ``maglev`` vectors in the format of data/policies/lb.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meshsieve.balance import (
    Cluster,
    ClusterSettings,
    HashPolicy,
    Health,
    Host,
    Locality,
    Maglev,
    MaglevPolicy,
    RingHash,
    RingHashPolicy,
    RoundRobin,
    WeightedClusters,
)
from meshsieve.balance.priority import panic_threshold_of
from meshsieve.errors import MeshsieveError
from meshsieve.request import Request
from tests.conformance.case_files import judge_all
from tests.conformance.report import Report

UPSTREAM_PORT = 9100
KNOWN = {
    "id", "source", "lb", "hosts", "requests", "hash_policy", "table_size", "ring", "common", "zone_weights",
    "picked_sequence", "clusters", "header_name", "use_hash_policy",
}  # fmt: skip


def run(folder: Path) -> Report:
    return judge_all(folder, KNOWN, _set, _vectors)


def _set(report: Report, where: str, case: Mapping[str, Any]) -> None:
    kind = case["lb"]
    if kind == "WEIGHTED_CLUSTERS":
        _weighted(report, where, case)
    elif kind == "ROUND_ROBIN":
        _sequence(report, where, case)
    elif kind in ("MAGLEV", "RING_HASH"):
        _hashed(report, where, case, kind)
    else:
        report.skipped(where, f"unknown lb {kind}")


def _hashed(report: Report, where: str, case: Mapping[str, Any], kind: str) -> None:
    cluster = Cluster(in_envoy_order(case["hosts"]), _policy(case, kind), _settings(case))
    policy = HashPolicy.from_envoy(case["hash_policy"])
    for i, request in enumerate(case["requests"]):
        value = policy.hash(_request(request)).value
        if value is None:
            report.undecided(f"{where}[{i}]", "no part of the request is hashed: the pick is random")
            continue
        host = cluster.pick(value)
        report.check(f"{where}[{i}]", "picked", cluster.hosts[host].name if host >= 0 else None, request["picked"])


def _weighted(report: Report, where: str, case: Mapping[str, Any]) -> None:
    split = WeightedClusters([(name, weight) for name, weight in case["clusters"]])
    policy = HashPolicy.from_envoy(case["hash_policy"])
    for i, request in enumerate(case["requests"]):
        read = _request(request)
        value = policy.hash(read).value if case.get("use_hash_policy") else int(read.header(case["header_name"])[0])
        if value is None:
            report.undecided(f"{where}[{i}]", "no part of the request is hashed: the cluster is random")
        else:
            report.check(f"{where}[{i}]", "cluster", split.pick_name(value), request["cluster"])


def _sequence(report: Report, where: str, case: Mapping[str, Any]) -> None:
    """The observed start is random: the sequence must be a stretch of ours."""
    hosts = in_envoy_order(case["hosts"])
    observed = case["picked_sequence"]
    cycle = sum(host.weight for host in hosts)
    ours = [hosts[i].name for i in RoundRobin(hosts).take(2 * cycle + len(observed))]
    found = any(ours[start : start + len(observed)] == observed for start in range(2 * cycle))
    report.check(where, "sequence occurs in the cycle", found, True)


def _vectors(report: Report, name: str, content: Mapping[str, Any]) -> None:
    for kind in ("ring", "maglev"):
        for case in content.get(kind, []):
            where = f"{name}:{kind}:{case['name']}"
            try:
                table = _vector_ring(case) if kind == "ring" else _vector_maglev(case)
            except MeshsieveError as error:
                report.check(where, "refusal", case.get("expect_error", "none") in _normal(str(error)), True)
                continue
            if isinstance(table, RingHash):
                hashes, owners = table.ring
                got: list[Any] = [[int(h), int(i)] for h, i in zip(hashes, owners, strict=True)]
                wanted = case.get("expect_ring", got)
            else:
                owners = table.slots
                got, wanted = owners.tolist(), case.get("expect_table", owners.tolist())
            report.check(where, kind, got, wanted)
            counts = Counter(owners.tolist()).values()
            for field, value in (
                ("ring_size", len(owners)),
                *((f"min_{noun}_per_host", min(counts)) for noun in ("hashes", "entries")),
                *((f"max_{noun}_per_host", max(counts)) for noun in ("hashes", "entries")),
            ):
                if field in case:
                    report.check(where, field, value, case[field])
            for key_hash, host in case.get("picks", []):
                report.check(where, f"pick of {key_hash}", table.pick(key_hash), host)


def _vector_ring(case: Mapping[str, Any]) -> RingHash:
    sizes = case.get("minimum_ring_size", 1024), case.get("maximum_ring_size", 8388608)
    return RingHash(_vector_hosts(case), *sizes)


def _vector_maglev(case: Mapping[str, Any]) -> Maglev:
    return Maglev(_vector_hosts(case), case.get("table_size", 65537))


def _normal(message: str) -> str:
    return message.replace("the table size of Maglev", "table size").replace(" a prime", " prime")


def _vector_hosts(case: Mapping[str, Any]) -> list[tuple[str, int]]:
    hosts = case.get("hosts", ["127.0.0.1:90"])
    return list(zip(hosts, case.get("weights") or [1] * len(hosts), strict=True))


def in_envoy_order(hosts: list[dict[str, Any]]) -> list[Host]:
    """Hosts as a configuration lists them: grouped by (priority, zone) in order of first appearance."""
    groups: dict[tuple[int, str], list[Host]] = {}
    for host in hosts:
        health = {"UNHEALTHY": Health.UNHEALTHY, "DRAINING": Health.UNHEALTHY, "TIMEOUT": Health.UNHEALTHY}.get(
            host.get("health", ""), Health.DEGRADED if host.get("health") == "DEGRADED" else Health.HEALTHY
        )
        priority, zone = host.get("priority", 0), host.get("zone", "")
        groups.setdefault((priority, zone), []).append(
            Host(
                host["ip"],
                UPSTREAM_PORT,
                host.get("weight", 1),
                health,
                priority,
                Locality(zone=zone),
                hash_key=host.get("hash_key", ""),
            )
        )
    return [host for group in groups.values() for host in group]


def _policy(case: Mapping[str, Any], kind: str) -> MaglevPolicy | RingHashPolicy:
    if kind == "MAGLEV":
        return MaglevPolicy(case.get("table_size", 65537))
    ring = dict(case.get("ring") or {})
    policy = RingHashPolicy(
        ring.pop("minimum_ring_size", 1024),
        ring.pop("maximum_ring_size", 8388608),
        ring.pop("hash_function", "XX_HASH").lower(),
    )
    if ring:
        raise MeshsieveError(f"unknown ring settings: {', '.join(ring)}")
    return policy


def _settings(case: Mapping[str, Any]) -> ClusterSettings:
    common = dict(case.get("common") or {})
    threshold = common.pop("healthy_panic_threshold", {"value": 50}).get("value", 0)
    weights = None
    if common.pop("locality_weighted_lb_config", None) is not None:
        zones = {(host.get("priority", 0), host.get("zone", "")) for host in case["hosts"]}
        declared = case.get("zone_weights") or {}
        weights = {(priority, Locality(zone=zone)): declared.get(zone, 0) for priority, zone in zones}
    if common:
        raise MeshsieveError(f"unknown common settings: {', '.join(common)}")
    return ClusterSettings(panic_threshold_of(threshold), locality_weights=weights)


def _request(case: Mapping[str, Any]) -> Request:
    return Request(
        path=case.get("path", "/"), headers=case.get("headers") or {}, source_ip=case.get("src_ip", "127.0.0.1")
    )
