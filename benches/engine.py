"""``python -m benches engine``: the walk over all layers, beside the same walk in plain Python.

requests  through layers 2-4 at both ends, route, mTLS, authorization and endpoint, as routes and policies grow
capture   a whole capture under a firewall of 10,000 rules: flows with their applications, or every packet
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches import data, duel, meshes, rows, traffic
from benches.data import Case, Material
from benches.options import Options
from benches.process import Peer
from benches.report import Row

MODULE = "benches.peers.engines"
REQUEST_WAYS, CAPTURE_WAYS = ("batch", "objects", "one"), ("flows", "packets")
SIZES = (100, 1_000, 10_000)
REQUESTS = 20_000
RULES = 10_000
MACHINES = 1_000
# Beyond, the plain walk takes seconds a request.
MOST_FOR_PLAIN = 1_000


def cases(options: Options) -> Iterator[Case]:
    if options.data is None:
        for n in options.sizes or ([100] if options.quick else list(SIZES)):
            for hosts in ("shared",) if options.quick else ("shared", "own"):
                facts = {"routes": n, "policies": n, "rules": n, "hosts": hosts, "requests": REQUESTS, "seed": 1}
                yield Case(f"{data.short(n)}_{hosts}", "requests", facts, lambda f=facts: _requests(f))
        packets = 100_000 if options.quick else 1_000_000
        facts = {"rules": RULES, "family": "made up", "packets": packets, "seed": 9}
        yield Case(f"traffic_{packets // 1000}k", "capture", facts, lambda n=packets: _traffic(n))
    else:
        facts = {"rules": RULES, "family": options.data.name}
        folder = f"engine_{options.data.stem}_{options.data.stat().st_size}"
        yield Case(options.data.stem, "capture", facts, lambda p=options.data: _given(p), folder=folder)


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``."""
    return rows.collect("engine", cases(options), (*REQUEST_WAYS, *CAPTURE_WAYS), _row, options)


def _row(case: Case, way: str, folder: Path, cache: Path, options: Options) -> Row | None:
    if (way in REQUEST_WAYS) != (case.suite == "requests"):
        return None
    facts = data.about(folder)
    names = ["ours"]
    if case.suite == "capture" or facts["routes"] <= MOST_FOR_PLAIN:
        names += options.peers or ["plain"]
    peers = [Peer(name, module=MODULE, arguments=(name, way)) for name in names]
    entries = duel.run(peers, folder, cache=cache, rounds=2 if options.quick else 5, patience=options.patience)
    return rows.beside_peers(f"{case.name}, {way}", case, facts, entries, way=way)


def _requests(facts: dict[str, Any]) -> Material:
    """Mesh and requests follow from the facts; kept is what the plain walk answers to the first requests."""
    from benches.peers.engines import engine_of, requests_of
    from benches.plain_walk import PlainWalk

    judged = max(30, 20_000 // facts["policies"])
    plain = PlainWalk(engine_of(facts))
    expected = np.full(facts["requests"], -1, np.int32)
    requests = requests_of(facts)[:judged]
    expected[: len(requests)] = [plain.request(request) for request in requests]
    return Material({"expected.i32": expected})


def _traffic(packets: int) -> Material:
    made = traffic.capture(packets)
    return _with_firewall(made.pcap, _busiest(made.headers[:, :2]), {"bytes": len(made.pcap)})


def _given(path: Path) -> Material:
    """A capture as it is, and a firewall for the machines that it shows most of."""
    from meshsieve import capture

    addresses, packets = [], 0
    for batch in capture.read(path):
        packets += len(batch)
        for name in ("src_ip", "dst_ip") if packets < 500_000 else ():
            addresses.append(batch[name][batch["ip_ver"] == 4, 1].astype(np.uint32))
    facts = {"packets": packets, "bytes": path.stat().st_size}
    return _with_firewall(np.memmap(path, np.uint8), _busiest(np.concatenate(addresses)), facts)


def _with_firewall(pcap: Any, machines: list[str], facts: dict[str, Any]) -> Material:
    text = meshes.nsx(machines, RULES, seed=1, allowed=("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
    return Material({"capture.pcap": pcap, "nsx.json": np.frombuffer(text.encode(), np.uint8)}, facts)


def _busiest(addresses: Any) -> list[str]:
    values, counts = np.unique(addresses, return_counts=True)
    most = values[np.argsort(-counts, kind="stable")[:MACHINES]].tolist()
    return [".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0)) for value in most]
