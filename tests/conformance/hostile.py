"""Evil captures: every file ends in a named outcome, in bounded time and memory, and says what is known of it.

Files: ``MANIFEST.csv`` of the folder; truth: ``FACTS.json`` (format: data/hostile). Each capture is read in a process
of its own (compressed ones in several), through decoder and flow table, so that a crash is one wrong case and not the
end of the run; a reading that takes a minute of CPU time, or five on the clock, is a hang and ends like a crash:
  - as it is: no crash, a result or a CaptureError, within 0.2 s + 1 s a MiB of CPU, and 64 MiB beside the flow table;
  - the stated facts: packets, whether an error is reported, 5-tuple, ports, text that must not be shown;
  - cut at every byte (files up to 4 KiB) and with 1,000 random changes of single bytes (seeded by the file's name):
    the same bounds.
Facts about server names and the files under ``text/`` are other subjects' (applications, policies): they are not
counted here, which the output says.
"""

from __future__ import annotations

import csv
import faulthandler
import itertools
import json
import os
import random
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from meshsieve import capture, flows, tables
from meshsieve.errors import CaptureError
from tests.conformance.report import Report

MAX_BYTES_TO_CUT = 4096
CHANGES = 1000
SECONDS = 0.2
SECONDS_PER_MIB = 1.0
EXTRA_BYTES = 64 << 20
CPU_SECONDS_OF_A_HANG = 60
WALL_SECONDS_OF_A_HANG = 300
BATCH_SIZE = 1024
PARTS_OF_COMPRESSED = 8  # a changed byte behind 64 MiB of good data is found behind 64 MiB
COMPRESSED = (".gz", ".zst")
UNCOUNTED_FACTS = {"sni", "sni_hex", "ech"}


@dataclass
class Outcome:
    """What became of one reading."""

    packets: int = 0
    problem: str | None = None
    tuples: list[list[Any]] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)


def read(path: str, *, want_tuples: bool = False) -> Outcome:
    """Read one capture to its end; only CaptureError is a named refusal."""
    table = flows.FlowTable()
    outcome = Outcome()
    try:
        with capture.read(path, flows=table, batch_size=BATCH_SIZE) as reader:
            for batch in reader:
                if want_tuples:
                    outcome.tuples += _tuples(batch)
            outcome.packets, outcome.problem = reader.packets_read, reader.problem
            outcome.statuses = reader.status_counts
    except CaptureError as error:
        outcome.problem = str(error)
    table.finish()
    return outcome


def _tuples(batch: Any) -> list[list[Any]]:
    known = np.flatnonzero(batch.has("sport"))
    src = tables.address_texts(batch["src_ip"], batch["ip_ver"])
    dst = tables.address_texts(batch["dst_ip"], batch["ip_ver"])
    return [
        [src[i], dst[i], int(batch["proto"][i]), int(batch["sport"][i]), int(batch["dport"][i])] for i in known[:1000]
    ]


def run(folder: Path) -> Report:
    report = Report()
    facts = {fact["file"]: fact for fact in json.loads((folder / "FACTS.json").read_text())}
    with open(folder / "MANIFEST.csv", newline="") as manifest:
        files = [row["file"] for row in csv.DictReader(manifest)]
    captures = [name for name in files if not name.startswith("text/")]
    report.note(f"{len(files) - len(captures)} files under text/ are policies and requests: not this subject")
    left_out = sum(1 for fact in facts.values() if UNCOUNTED_FACTS & fact.keys())
    report.note(f"{left_out} facts about server names belong to application recognition: not counted")
    jobs = [(name, part, parts) for name in captures for parts in [_parts(name)] for part in range(parts)]
    jobs.sort(key=lambda job: -job[2])  # what takes long begins first
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = [pool.submit(_isolated, folder / name, facts.get(name, {}), part, parts) for name, part, parts in jobs]
        for (name, _, _), findings in zip(jobs, done, strict=True):
            for holds, what in findings.result():
                if holds:
                    report.right()
                else:
                    report.wrong(name, what)
    return report


def _parts(name: str) -> int:
    return PARTS_OF_COMPRESSED if Path(name).suffix in COMPRESSED else 1


Findings = list[tuple[bool, str]]


def _isolated(path: Path, fact: dict[str, Any], part: int, parts: int) -> Findings:
    """``_examine`` in a child process; its death is a finding."""
    if not path.exists():
        return [(False, "the file is missing")]
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        faulthandler.disable()  # the parent names the death
        try:
            text = json.dumps(_examine(path, fact, part, parts))
        except BaseException:
            text = json.dumps([(False, traceback.format_exc(limit=-3))])
        os.write(send, text.encode()[:65536])
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not data:
        return [(False, f"the reading process died: {_death(status)}")]
    findings: Findings = [(holds, what) for holds, what in json.loads(data)]
    return findings


def _death(status: int) -> str:
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit status {os.WEXITSTATUS(status)}"


def _examine(path: Path, fact: dict[str, Any], part: int, parts: int) -> Findings:
    """The file as it is, and every ``parts``-th of its cuts and changes from number ``part`` on."""
    data = path.read_bytes()
    base_bytes = _peak_bytes()
    findings: Findings = []
    budget = SECONDS + SECONDS_PER_MIB * _decompressed_mib(path, data)
    seconds, outcome = _timed(lambda: read(str(path), want_tuples=True))
    findings.append((seconds <= budget, f"took {seconds:.2f} s of CPU, allowed are {budget:.2f}"))
    findings += _facts(fact, outcome)
    for what, changes in (("cut", _cuts(data)), ("change", _changes(path.name, data))):
        slowest = 0.0
        for changed in itertools.islice(changes, part, None, parts):
            seconds, _ = _timed(lambda changed=changed: _read_bytes(changed))  # type: ignore[misc]
            slowest = max(slowest, seconds)
        findings.append(
            (slowest <= budget, f"{what}: one reading took {slowest:.2f} s of CPU, allowed are {budget:.2f}")
        )
    grown = _peak_bytes() - base_bytes
    findings.append((grown <= EXTRA_BYTES, f"memory grew by {grown >> 20} MiB, allowed are {EXTRA_BYTES >> 20}"))
    return findings


def _facts(fact: dict[str, Any], outcome: Outcome) -> Findings:
    findings: Findings = []
    if "packets" in fact:
        expected = fact["packets"]
        findings.append((outcome.packets == expected, f"{outcome.packets} packets, expected {expected}"))
    if "error" in fact:
        reported = outcome.problem is not None
        findings.append((reported == fact["error"], f"error reported: {outcome.problem}, expected {fact['error']}"))
    if "five_tuple" in fact:
        holds = fact["five_tuple"] in outcome.tuples
        findings.append((holds, f"5-tuples {outcome.tuples[:3]}, expected {fact['five_tuple']}"))
    if "ports" in fact:
        holds = fact["ports"] in [ports[3:] for ports in outcome.tuples]
        findings.append((holds, f"5-tuples {outcome.tuples[:3]}, expected ports {fact['ports']}"))
    if "must_not_print" in fact:
        findings.append((fact["must_not_print"] not in repr(outcome), "a secret of the capture is shown"))
    return findings


def _cuts(data: bytes) -> Iterator[bytes]:
    if len(data) <= MAX_BYTES_TO_CUT:
        yield from (data[:n] for n in range(len(data)))


def _changes(name: str, data: bytes) -> Iterator[bytes]:
    chance = random.Random(name)
    for _ in range(CHANGES if data else 0):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        yield bytes(changed)


def _read_bytes(data: bytes) -> Outcome:
    """Read a capture that is in memory."""
    file = os.memfd_create("capture")
    try:
        os.write(file, data)
        return read(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def _timed(action: Callable[[], Outcome]) -> tuple[float, Outcome]:
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS_OF_A_HANG)
    signal.alarm(WALL_SECONDS_OF_A_HANG)
    begin = _cpu_seconds()
    outcome = action()
    return _cpu_seconds() - begin, outcome


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if sys.platform == "linux" else 1)


def _decompressed_mib(path: Path, data: bytes) -> float:
    """Compressed captures are judged by what they may grow to, at most 64 MiB."""
    return 64.0 if path.suffix in COMPRESSED else len(data) / (1 << 20)
