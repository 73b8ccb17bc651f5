"""Kubernetes policies against a literal walk of the API's sentences (tests/reference/kubernetes_walk.py): every cluster
of the data set, with an address for every pod, and packets between its pods, its nodes and outside addresses."""

from __future__ import annotations

import ipaddress
import random
from pathlib import Path

import numpy as np
import pytest

from meshsieve.columns import PacketColumns
from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import read_cluster
from meshsieve.importers.kubernetes.importer import build
from meshsieve.policy import ImportOptions, SourceFile
from tests.reference.kubernetes_walk import Packet, Pod, Reference
from tests.shared import packets_each, part, shared_data

PACKETS = packets_each(130, 150)
OUTSIDE = ["192.0.2.9", "10.0.0.1", "172.17.1.1", "0.0.0.0", "255.255.255.255", "104.154.0.1"]
PORTS = [1, 53, 80, 443, 5353, 8080, 8443, 9090, 5432, 65535]


def clusters() -> list[tuple[str, list[Path]]]:
    root = shared_data("policies") / "k8s"
    found = []
    for name in ("netpol-analyzer", "netpol-diff"):
        for folder in sorted(p for p in (root / name).rglob("*") if p.is_dir()):
            files = sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml", ".json"))
            if files:
                found.append((str(folder.relative_to(root)), files))
    return found


def compare(files: list[Path], seed: int) -> int:
    """Number of packets compared."""
    sources = [SourceFile(str(path), path.read_text()) for path in files]
    try:
        cluster = read_cluster(sources).with_addresses()
        cluster.services.clear()  # the reference knows no Services
        engine = Engine(build(cluster, ImportOptions(host_network_pods="pod")).layers)
    except PolicyError:
        return 0  # tests/conformance says which; not the question here
    reference = Reference([source.text for source in sources])
    # Pods as the importer sees them, workloads included, with their stand-in addresses.
    text = ipaddress.ip_address
    reference.pods = [
        Pod(
            pod.namespace,
            dict(pod.labels),
            [str(text(value)) for version, value in pod.addresses if version == 4],
            [{"name": p.name, "containerPort": p.number, "protocol": {6: "TCP", 17: "UDP", 132: "SCTP"}[p.protocol]}
             for p in pod.ports],
            next((str(text(value)) for version, value in pod.host_addresses if version == 4), ""),
        )
        for pod in cluster.pods
    ]  # fmt: skip
    reference.namespaces = {name: dict(labels) for name, labels in cluster.namespaces.items()}
    rng = random.Random(seed)
    ends = [a for pod in reference.pods for a in pod.addresses] + OUTSIDE
    ends += [a for _, listed in reference.nodes for a in listed if a.count(".") == 3 and a.replace(".", "").isdigit()]
    numbers = PORTS + [p["containerPort"] for pod in reference.pods for p in pod.ports]
    packets = [
        Packet(rng.choice(ends), rng.choice(ends), rng.choice((6, 6, 6, 17, 132)), rng.choice(numbers))
        for _ in range(PACKETS)
    ]
    columns = PacketColumns({
        "src_ip": [p.src for p in packets], "dst_ip": [p.dst for p in packets],
        "proto": [p.proto for p in packets], "dport": np.array([p.dport for p in packets], np.uint16),
        "sport": [40000] * PACKETS, "ip_ver": [4] * PACKETS,
    })  # fmt: skip
    actions = engine.classify(columns)["action"]
    for packet, action in zip(packets, actions, strict=True):
        expected = "ALLOW" if reference.allowed(packet) else "DROP"
        assert (action == "NONE" and expected == "ALLOW") or action == expected, (files, packet, action)
    return PACKETS


def test_the_importer_decides_as_the_literal_walk() -> None:
    found = clusters()
    if not found:
        pytest.skip("the shared data holds no clusters of Kubernetes policies; set MESHSIEVE_SHARED to its folder")
    mine = part(list(enumerate(found)))
    compared = [compare(files, seed) for seed, (_, files) in mine]
    assert sum(compared) >= 0.9 * PACKETS * len(mine)
