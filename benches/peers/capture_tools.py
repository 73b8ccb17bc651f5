"""Programs and libraries that read captures: ``python -m benches.peers.capture_tools TOOL FOLDER``.

TOOL  tcpdump  ``tcpdump --count`` with the filter
      tshark   ``tshark -T fields`` with eight fields, on the first packets only (it takes microseconds a packet)
      ndpiReader   flows with nDPI's recognition, the whole capture
      nfstream, nfstream_flows   flows with and without nDPI's recognition, one meter, on the first packets only
      dpkt     every packet parsed into objects and counted in a dictionary of flows, on the first packets only
      scapy    every packet parsed into objects and its 5-tuple taken, on the first packets only
A pass of an outside program counts its CPU time from start to end, start-up included. What is checked is the number of
packets; nfstream leaves out those that it has no flow for, up to LEFT_OUT of them.
"""

from __future__ import annotations

import importlib
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches import data
from benches.peers.serve import Answers

SLICE = {"tshark": 20_000, "dpkt": 50_000, "scapy": 5_000, "nfstream": 100_000, "nfstream_flows": 100_000}
LEFT_OUT = 0.05
TSHARK_FIELDS = ("frame.time_epoch", "ip.src", "ip.dst", "ip.proto", "tcp.srcport", "tcp.dstport", "udp.srcport")

Pass = Callable[[], tuple[float, int]]  # CPU seconds, packets counted


def main() -> None:
    answers = Answers()
    tool, folder = sys.argv[1], Path(sys.argv[2])
    facts = data.about(folder)
    path = str(folder / "capture.pcap")
    packets = min(facts["packets"], SLICE.get(tool, facts["packets"]))
    try:
        once, note = TOOLS[tool](path, packets, facts)
    except (ImportError, FileNotFoundError) as error:
        answers.give_up(str(error))
    expected = facts["matching"] if tool == "tcpdump" else packets
    once()

    may_lack = LEFT_OUT * expected if tool.startswith("nfstream") else 0

    def passes(count: int) -> dict[str, Any]:
        return {"ns": [round(once()[0] / packets * 1e9, 3) for _ in range(count)]}

    def wrong(_: int) -> dict[str, Any]:
        lacks = expected - once()[1]
        return {"wrong": 0 if 0 <= lacks <= may_lack else abs(lacks), "checked": packets}

    answers.say({"headers": packets, "note": note})
    answers.serve({"pass": passes, "wrong": wrong})


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def _run(command: list[str], *, check: bool = True) -> tuple[float, str]:
    """CPU seconds of the program, children included, and its stdout."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=check)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def _tcpdump(path: str, packets: int, facts: dict[str, Any]) -> tuple[Pass, str]:
    command = [_program("tcpdump"), "--count", "-nn", "-r", path, facts["filter"]]

    def once() -> tuple[float, int]:
        seconds, out = _run(command)
        return seconds, int(out.split()[0])

    return once, f"--count, '{facts['filter']}'"


def _tshark(path: str, packets: int, facts: dict[str, Any]) -> tuple[Pass, str]:
    fields = [argument for name in TSHARK_FIELDS for argument in ("-e", name)]
    command = [_program("tshark"), "-n", "-r", path, "-c", str(packets), "-T", "fields", *fields]

    def once() -> tuple[float, int]:
        seconds, out = _run(command)
        return seconds, out.count("\n")

    return once, f"-T fields, first {packets:,} packets, start-up included"


def _ndpi_reader(path: str, packets: int, facts: dict[str, Any]) -> tuple[Pass, str]:
    command = [_program("ndpiReader"), "-i", path]

    def once() -> tuple[float, int]:
        seconds, out = _run(command)
        counts = re.search(r"IP packets:\s+(\d+)\s+of (\d+) packets", out)
        return seconds, int(counts[2]) if counts else 0

    version = re.search(r"[Nn]DPI[^\d]*([\d.]+)", _run([command[0], "-h"], check=False)[1])
    return once, f"nDPI {version[1] if version else ''}, its whole output"


def _nfstream(dissections: int) -> Callable[[str, int, dict[str, Any]], tuple[Pass, str]]:
    def tool(path: str, packets: int, facts: dict[str, Any]) -> tuple[Pass, str]:
        nfstream = importlib.import_module("nfstream")
        part = _first_packets(path, packets)

        def once() -> tuple[float, int]:
            before = _cpu_seconds()
            streamer = nfstream.NFStreamer(source=part, n_dissections=dissections, n_meters=1)
            count = sum(flow.bidirectional_packets for flow in streamer)
            return _cpu_seconds() - before, count

        return once, f"{nfstream.__version__}, n_dissections={dissections}, first {packets:,} packets"

    return tool


def _first_packets(path: str, packets: int) -> str:
    """A pcap file of the first records, beside the capture: nfstream cannot be told to stop."""
    part = Path(path).with_name(f"first-{packets}.pcap")
    if not part.exists():
        command = [_program("tcpdump"), "-r", path, "-c", str(packets), "-w", str(part)]
        subprocess.run(command, check=True, capture_output=True)
    return str(part)


def _cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _dpkt(path: str, packets: int, facts: dict[str, Any]) -> tuple[Pass, str]:
    dpkt = importlib.import_module("dpkt")

    def parse() -> int:
        flows: dict[Any, list[int]] = {}
        count = 0
        with open(path, "rb") as file:
            for count, (stamp, frame) in enumerate(dpkt.pcap.Reader(file), 1):
                ip = dpkt.ethernet.Ethernet(frame).data
                if isinstance(ip, dpkt.ip.IP | dpkt.ip6.IP6):
                    ports = getattr(ip.data, "sport", 0), getattr(ip.data, "dport", 0)
                    ends = (ip.src, ports[0]), (ip.dst, ports[1])
                    key = ip.p if isinstance(ip, dpkt.ip.IP) else ip.nxt, min(ends), max(ends)
                    flow = flows.setdefault(key, [stamp, 0, 0, 0])
                    flow[1] += 1
                    flow[2] += len(frame)
                    flow[3] = stamp
                if count == packets:
                    break
        return count

    return _timed(parse), f"{dpkt.__version__}, parsed and counted by flow, first {packets:,} packets"


def _scapy(path: str, packets: int, facts: dict[str, Any]) -> tuple[Pass, str]:
    scapy = importlib.import_module("scapy.all")

    def parse() -> int:
        count = 0
        with scapy.PcapReader(path) as reader:
            for count, packet in enumerate(reader, 1):
                ip = packet.payload
                _ = getattr(ip, "src", 0), getattr(ip, "dst", 0), getattr(ip.payload, "sport", 0)
                if count == packets:
                    break
        return count

    return _timed(parse), f"{scapy.conf.version}, PcapReader, first {packets:,} packets"


def _timed(parse: Callable[[], int]) -> Pass:
    def once() -> tuple[float, int]:
        start = time.process_time()
        count = parse()
        return time.process_time() - start, count

    return once


TOOLS: dict[str, Callable[[str, int, dict[str, Any]], tuple[Pass, str]]] = {
    "tcpdump": _tcpdump,
    "tshark": _tshark,
    "ndpiReader": _ndpi_reader,
    "nfstream": _nfstream(20),
    "nfstream_flows": _nfstream(0),
    "dpkt": _dpkt,
    "scapy": _scapy,
}

if __name__ == "__main__":
    main()
