"""Captures against what other tools read in them: packets, flows, applications and attributes.

Truth: ``expected.json`` beside the captures (format: data/pcaps). For every file the number of packets must be that of
capinfos. For files that are not malformed and whose flows are listed whole, our flows (one a 5-tuple of the innermost
IP header, no timeouts, compared without direction) must be the listed ones.

How the lists are made comparable, each step named in the output where it applied:
  Rows that tshark did not see (no ``frames``) are other tools' views of other layers, such as the outer headers of
  tunnels or ICMP types as ports: left out, as are rows with an address that the tools could not read.
  Rows without ports of a protocol with ports, and rows ``ip-44``, are fragments, or earlier frames of a reassembled
  datagram: tshark counts them apart, we count them in the flow of their first fragment. Such a row holds if we have a
  flow between the same addresses.
  Rows ``ah`` between IPv6 addresses hold likewise: AH is an IPv6 extension header, and we go on to what is behind it.

Applications: flows of tiers A and B that are not malformed; an answer in ``accept`` is right too, no answer counts as
undecided. A port guess is no answer. Attributes: tests/conformance/pcap_attributes.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meshsieve import flows, tables
from meshsieve.errors import MeshsieveError
from tests.conformance.pcap_attributes import check_attributes
from tests.conformance.report import Report

# IANA protocol numbers as expected.json calls them; others are ip-N.
PROTOCOLS = {
    1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 132: "sctp",
    136: "udplite",
}  # fmt: skip
WITH_PORTS = {"tcp", "udp", "sctp", "dccp", "udplite"}

Ends = tuple[tuple[str, int], tuple[str, int]]
Key = tuple[str, Ends]


def run(folder: Path) -> Report:
    report = Report()
    scored: Counter[str] = Counter()
    truth = json.loads((folder / "expected.json").read_text())
    for entry in truth["files"]:
        path = folder / entry["file"]
        if not path.exists():
            report.skipped(entry["file"], "the file is missing")
            continue
        try:
            columns = flows.read(path, options=flows.FlowOptions.one_per_tuple())
        except MeshsieveError as error:
            report.wrong(entry["file"], f"cannot be read: {error}")
            continue
        _packets(report, entry, columns)
        _flows(report, entry, columns)
        if entry["category"] != "malformed":
            _applications(report, scored, entry, columns)
    _accuracy(report, scored)
    return report


def _applications(report: Report, scored: Counter[str], entry: dict[str, Any], columns: flows.FlowColumns) -> None:
    ours = {key: i for i, key in enumerate(_keys(columns))}
    names = columns.apps
    for row in entry["flows"]:
        i = ours.get((row["proto"], _ends(row["src"], row["sport"], row["dst"], row["dport"])))
        if i is None:
            if row.get("tier") in ("A", "B"):
                report.note(
                    f"{entry['file']}: application of {row['proto']} {row['src']} {row['dst']} not scored: no flow"
                )
            continue
        if row.get("tier") in ("A", "B"):
            got, expected = names[i], row["app"]
            where = f"{_text((row['proto'], _ends(row['src'], row['sport'], row['dst'], row['dport'])))}"
            if got in {expected, *row.get("accept", ())}:
                scored["right"] += 1
                report.right()
            elif not got:
                scored["no answer"] += 1
                scored[f"{expected} -> no answer"] += 1
                report.undecided(entry["file"], f"application {expected} not known: {where}")
            else:
                scored["wrong"] += 1
                scored[f"{expected} -> {got}"] += 1
                report.wrong(entry["file"], f"application is {got}, expected {expected}: {where}")
        before = sum(report.counts.values())
        check_attributes(report, entry["file"], columns, i, row.get("truth", {}))
        scored["attributes"] += sum(report.counts.values()) - before


def _accuracy(report: Report, scored: Counter[str]) -> None:
    outcomes = ("right", "no answer", "wrong")
    total = sum(scored[outcome] for outcome in outcomes)
    if total:
        shares = ", ".join(f"{outcome} {scored[outcome]} ({scored[outcome] / total:.1%})" for outcome in outcomes)
        report.note(f"applications of {total} flows: {shares}; {scored['attributes']} attributes compared")
    # The bars: applications 95 % right and at most 1 % wrong, attributes 99 % exact.
    report.allowed["wrong"] = total // 100 + scored["attributes"] // 100
    report.allowed["undecided"] = total * 4 // 100 + scored["attributes"] // 100
    for confusion, n in scored.most_common():
        if "->" in confusion:
            report.note(f"confusion: {confusion}: {n}")


def _packets(report: Report, entry: dict[str, Any], columns: flows.FlowColumns) -> None:
    name = entry["file"]
    if columns.problem and not entry["capinfos"].get("error"):
        report.wrong(name, f"reading stopped, which capinfos does not report: {columns.problem}")
        return
    assert columns.stats is not None
    packets = int(entry["capinfos"].get("packets", entry["packets"]))
    report.check(name, "number of packets", columns.stats["packets"], packets)


def _flows(report: Report, entry: dict[str, Any], columns: flows.FlowColumns) -> None:
    name = entry["file"]
    if entry["category"] == "malformed":
        report.note(f"{name}: malformed, flows not compared")
        return
    if len(entry["flows"]) != entry["flow_count"]:
        # Only the number is known for all.
        report.check(name, "number of flows", len(columns), entry["flow_count"])
        return
    ours = set(_keys(columns))
    pairs = {_pair(key) for key in ours}
    expected, loose = set(), set()
    for row in entry["flows"]:
        if row.get("frames") is None or not (row["src"] and row["dst"]):
            report.note(f"{name}: left out: {row['proto']} {row['src']} {row['dst']}, not a flow that tshark shows")
            continue
        key = row["proto"], _ends(row["src"], row["sport"], row["dst"], row["dport"])
        portless = row["proto"] in WITH_PORTS and row["sport"] == row["dport"] == 0
        if key not in ours and (portless or row["proto"] == "ip-44" or (row["proto"] == "ah" and ":" in row["src"])):
            loose.add(key)
        else:
            expected.add(key)
    missing = [f"missing: {_text(key)}" for key in sorted(expected - ours)]
    missing += [f"missing: {_text(key)}" for key in sorted(loose) if _pair(key) not in pairs]
    # What stands behind AH is our name for a row that tshark calls ah.
    behind_ah = {_pair(key) for key in loose if key[0] == "ah"}
    extra = [f"not in the truth: {_text(key)}" for key in sorted(ours - expected) if _pair(key) not in behind_ah]
    if missing or extra:
        report.wrong(name, "flows: " + "; ".join(missing + extra))
    else:
        report.right()
    for key in sorted(loose):
        report.note(f"{name}: {_text(key)} counted in a flow with ports or of the protocol behind the header")


def _keys(columns: flows.FlowColumns) -> Iterable[Key]:
    src = tables.address_texts(columns["src_ip"], columns["ip_ver"])
    dst = tables.address_texts(columns["dst_ip"], columns["ip_ver"])
    for i in range(len(columns)):
        proto = int(columns["proto"][i])
        ends = _ends(src[i], int(columns["sport"][i]), dst[i], int(columns["dport"][i]))
        yield PROTOCOLS.get(proto, f"ip-{proto}"), ends


def _ends(src: str | None, sport: int, dst: str | None, dport: int) -> Ends:
    first, second = sorted([(src or "", sport), (dst or "", dport)])
    return first, second


def _pair(key: Key) -> frozenset[str]:
    return frozenset(address for address, _ in key[1])


def _text(key: Key) -> str:
    proto, ((a, a_port), (b, b_port)) = key
    return f"{proto} {a} {a_port} {b} {b_port}"
