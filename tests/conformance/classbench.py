"""ClassBench sets: for every header of every trace, the compiled engine finds the expected rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from meshsieve import packets
from meshsieve.errors import PolicyError
from meshsieve.importers.classbench import read_rules, read_trace
from tests.conformance.report import Report

# Headers of one set that are listed one by one; the rest is counted in one line.
_LISTED = 10


def run(folder: Path) -> Report:
    """Every ``NAME.rules`` of the folder, gzip or plain, with its ``NAME.trace``."""
    report = Report()
    for rules_path in sorted(p for p in folder.rglob("*.rules*") if p.suffix in (".rules", ".gz")):
        traces = [rules_path.with_name(rules_path.name.split(".rules")[0] + end) for end in (".trace.gz", ".trace")]
        trace_path = next((path for path in traces if path.exists()), None)
        if trace_path is None:
            report.skipped(rules_path.name, "no trace of this name beside it")
        else:
            _check(rules_path, trace_path, report)
    return report


def _check(rules_path: Path, trace_path: Path, report: Report) -> None:
    name = rules_path.name
    try:
        rules, trace = read_rules(rules_path), read_trace(trace_path)
    except PolicyError as error:
        report.wrong(name, str(error))
        return
    if "expected" not in trace.extra:
        report.skipped(trace_path.name, "the trace holds no expected rules")
        return
    expected = trace.extra["expected"]
    got = packets.compile(rules).classify_batch(trace)
    wrong = np.flatnonzero(got != expected)
    report.right(len(expected) - len(wrong))
    for i in wrong[:_LISTED]:
        outcome = report.undecided if got[i] <= -2 else report.wrong
        outcome(name, f"{trace_path.name}:{i + 1}: rule {got[i]}, expected {expected[i]}")
    for i in wrong[_LISTED:]:
        report.counts["undecided" if got[i] <= -2 else "wrong"] += 1
    if len(wrong) > _LISTED:
        report.note(f"{name}: {len(wrong) - _LISTED} more headers are not right")
