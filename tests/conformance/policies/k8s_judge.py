"""Answers questions about one Kubernetes cluster with the compiled tables of its layer.

Readings of the facts' source: hostNetwork pods are pods like any other, and a pod's node is an outside address.
"""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import numpy as np

from meshsieve import _core, _fast
from meshsieve.columns import PacketColumns
from meshsieve.importers.kubernetes.cluster import Cluster
from meshsieve.importers.kubernetes.importer import build
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, Layer

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
OPTIONS = ImportOptions(host_network_pods="pod", allow_local_node=False, strict=False)
Question = tuple[int, int, int, int]  # source address, destination address, protocol, destination port (IPv4)


class Judge:
    """Answers questions about one cluster with the compiled tables of its layer."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster.with_addresses()
        layer = build(self.cluster, OPTIONS).layers[0]
        # The facts speak of pods, not of Service addresses.
        self.layer: Layer = replace(layer, points=tuple(p for p in layer.points if p.role == "filter"))
        self._lookups = [_fast.Lookup(_core.compile(p.rules.native).capsule) for p in self.layer.points]

    def allowed(self, questions: list[Question]) -> list[bool]:
        src, dst, proto, port = np.array(questions, np.int64).reshape(-1, 4).T
        packets = PacketColumns({"src_ip": src, "dst_ip": dst, "proto": proto, "dport": port, "sport": [40000]})
        passed = np.ones(len(questions), bool)
        for point, lookup in zip(self.layer.points, self._lookups, strict=True):
            owners = self.layer.inventory.owners(packets, f"{point.vnic_of}_ip")
            here = np.flatnonzero(owners >= 0)
            if not len(here):
                continue
            columns = packets.take(here).with_fields({**point.constants, "vnic": owners[here]})
            out = np.empty(len(here), np.int32)
            lookup.batch(columns.pairs(), columns.present, out)
            actions = point.rules.actions
            passed[here] &= [r == -1 or (r >= 0 and actions[r] != Action.DROP) for r in out.tolist()]
        return passed.tolist()

    def boundaries(self) -> set[int]:
        """The first port of every interval of ports on which all rules agree."""
        cuts = {1}
        for point in self.layer.points:
            for rule in point.rules:
                for match in (rule.match, *rule.alternatives):
                    for low, high in match["dport"].v4 if "dport" in match else ():
                        cuts |= {low, high + 1}
        return {cut for cut in cuts if 1 <= cut <= 65535}

    def address_of(self, name: str) -> list[int]:
        """Addresses to ask for a peer: all pods of a workload, or the ends of an outside range."""
        if name.endswith("[External]"):
            low, high = (int(ipaddress.IPv4Address(p)) for p in name.removesuffix("[External]").split("-"))
            inside = {value for pod in self.cluster.pods for _, value in pod.addresses}
            ends = [next(a for a in candidates if a not in inside) for candidates in _from_both_ends(low, high)]
            return sorted(set(ends))
        return [v for pod in self.cluster.pods if pod.owner == name for version, v in pod.addresses if version == 4]

    def workloads(self) -> list[str]:
        return sorted({pod.owner for pod in self.cluster.pods})


def _from_both_ends(low: int, high: int) -> tuple[range, range]:
    return range(low, high + 1), range(high, low - 1, -1)
