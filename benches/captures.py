"""``python -m benches captures``: reading captures against libpcap, tcpdump, tshark, nDPI, nfstream, dpkt
and scapy."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches import classbench, data, duel, rows, traffic
from benches.data import Case, Material
from benches.options import Options
from benches.process import Peer
from benches.report import Row

PCAP_LOOP = Peer("libpcap", source="pcap_loop.c", packages=("libpcap",))
PCAP_FILTER = Peer("libpcap_filter", source="pcap_loop.c", packages=("libpcap",))
TOOLS = {
    name: Peer(name, module="benches.peers.capture_tools", arguments=(name,))
    for name in ("tcpdump", "tshark", "dpkt", "scapy", "ndpiReader", "nfstream", "nfstream_flows")
}
# Each step of ours against those that do at least that much, or that people use for it.
STEPS: dict[str, list[Peer]] = {
    "read": [PCAP_LOOP, TOOLS["dpkt"], TOOLS["scapy"]],
    "filter": [PCAP_FILTER, TOOLS["tcpdump"]],
    "flows": [TOOLS["tcpdump"], TOOLS["dpkt"], TOOLS["nfstream_flows"]],
    "apps": [TOOLS["ndpiReader"], TOOLS["nfstream"], TOOLS["dpkt"]],
    "requests": [TOOLS["tshark"]],
    "classify": [TOOLS["tshark"], TOOLS["scapy"]],
    "export": [TOOLS["tshark"], TOOLS["scapy"]],
}
SUFFIXES = (".pcap", ".pcapng", ".cap")


def cases(options: Options) -> Iterator[Case]:
    if options.data is None:
        for packets in [100_000] if options.quick else [1_000_000]:
            facts = {"family": "made up", "asked": packets, "seed": 9}
            yield Case(f"traffic_{packets // 1000}k", "captures", facts, lambda n=packets: _made_up(n))
        return
    paths = [options.data] if options.data.is_file() else sorted(options.data.iterdir())
    for path in paths:
        if path.suffix in SUFFIXES:
            yield Case(path.stem, "captures", {"family": path.name}, lambda p=path: _given(p), folder=_key(path))


def _key(path: Path) -> str:
    return f"capture_{path.stem}_{path.stat().st_size}_{path.stat().st_mtime_ns}"


def _made_up(packets: int) -> Material:
    made = traffic.capture(packets)
    files = {
        "capture.pcap": made.pcap,
        "rules.u32": made.rules,
        "headers.u32": made.headers,
        "judged.u8": made.judged.view(np.uint8),
    }
    return Material(files, made.facts)


def _given(path: Path) -> Material:
    """A capture as it is, with the rules of the made-up one; tcpdump says how many packets it holds, so that a count of
    ours is held to something."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        raise FileNotFoundError("tcpdump is not installed; it counts the packets of given captures")

    def count(*arguments: str) -> int:
        command = [tcpdump, "--count", "-nn", "-r", str(path), *arguments]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])

    facts = {
        "packets": count(),
        "filter": traffic.FILTER,
        "matching": count(traffic.FILTER),
        "bytes": path.stat().st_size,
    }
    rules = classbench.rules(*traffic.RULES)
    return Material({"capture.pcap": np.fromfile(path, np.uint8), "rules.u32": rules}, {**facts, "rules": len(rules)})


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``."""
    return rows.collect("captures", cases(options), STEPS, _row, options)


def _row(case: Case, step: str, folder: Path, cache: Path, options: Options) -> Row:
    facts = data.about(folder)

    def environment(peer: Peer) -> dict[str, str]:
        filtered = peer is PCAP_FILTER
        counts = {"BENCH_PACKETS": facts["packets"], "BENCH_EXPECTED": facts["matching" if filtered else "packets"]}
        return {**{k: str(v) for k, v in counts.items()}, **({"BENCH_FILTER": facts["filter"]} if filtered else {})}

    ours = Peer("ours", module="benches.peers.own_capture", arguments=(step,))
    peers = [peer for peer in STEPS[step] if not options.peers or peer.name in options.peers]
    rounds = 3 if options.quick else 9
    entries = duel.run([ours, *peers], folder, cache=cache, rounds=rounds, patience=60, environment=environment)
    own = entries["ours"]
    speed = 1e3 / own["ns"] if own.get("ns") else None
    more = {"million_packets_a_second": speed, "peak_bytes": own.get("peak_bytes")}
    return rows.beside_peers(f"{case.name} {step}", case, facts, entries, **more)
