"""Which backend gets it: Envoy's balancers bit for bit, Kubernetes, Istio and NSX on top (docs/balance.md)."""

from meshsieve.balance.cluster import (
    LEAST_REQUEST,
    RANDOM,
    ROUND_ROBIN,
    Cluster,
    ClusterSettings,
    MaglevPolicy,
    Pick,
    RingHashPolicy,
)
from meshsieve.balance.hash_policy import HashPolicy, RequestHash
from meshsieve.balance.hosts import Health, Host, Locality
from meshsieve.balance.keys import hash_key, hash_keys
from meshsieve.balance.placement import Movement, host_down, moved_keys, placement_diff, placement_of, shares_by_name
from meshsieve.balance.priority import LevelCounts, PriorityLoads, priority_loads
from meshsieve.balance.rotation import LeastRequest, LeastRequestQueue, Random, RoundRobin, SlowStart
from meshsieve.balance.tables import IpHash, KatranMaglev, Maglev, RingHash, WeightedClusters

__all__ = [
    "LEAST_REQUEST",
    "RANDOM",
    "ROUND_ROBIN",
    "Cluster",
    "ClusterSettings",
    "HashPolicy",
    "Health",
    "Host",
    "IpHash",
    "KatranMaglev",
    "LeastRequest",
    "LeastRequestQueue",
    "LevelCounts",
    "Locality",
    "Maglev",
    "MaglevPolicy",
    "Movement",
    "Pick",
    "PriorityLoads",
    "Random",
    "RequestHash",
    "RingHash",
    "RingHashPolicy",
    "RoundRobin",
    "SlowStart",
    "WeightedClusters",
    "hash_key",
    "hash_keys",
    "host_down",
    "moved_keys",
    "placement_diff",
    "placement_of",
    "priority_loads",
    "shares_by_name",
]
