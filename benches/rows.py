"""The loop that subjects share: every case that is wanted, made once and asked in every way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benches import data, machine, report
from benches.data import Case
from benches.options import Options
from benches.report import Row

MakeRow = Callable[[Case, str, Path, Path, Options], Row | None]


def beside_peers(title: str, case: Case, facts: Mapping[str, Any], entries: dict[str, Any], **own: Any) -> Row:
    """The row of one case from what each side measured (``duel.run``).

    facts  what is known of the case; own: columns of this subject alone
    """
    ours = entries["ours"]
    peers = {name: entry for name, entry in entries.items() if name != "ours"}
    peers_ns = {name: entry.get("ns") for name, entry in peers.items()}
    return {
        "case": title,
        "suite": case.suite,
        **facts,
        **own,
        "ours_ns": ours.get("ns"),
        "ours_median_ns": ours.get("median_ns"),
        "peers_ns": peers_ns,
        "ratio": report.ratio(peers_ns, ours.get("ns")),
        "wrong": ours.get("wrong"),
        "checked": ours.get("checked"),
        "ours": ours,
        "peers": peers,
    }


def collect(
    subject: str, cases: Iterable[Case], ways: Sequence[str], make_row: MakeRow, options: Options, unrated: str = ""
) -> dict[str, Any]:
    """All rows, in the form of ``report.document``; progress goes to stderr, and an interrupt keeps the rows so far.

    make_row  (case, way, its folder, cache folder, options) -> row, or None for a way that is not the case's
    unrated   a way whose rows are left out of the summary
    """
    cache = data.cache_folder()
    facts = machine.describe()
    rows: list[Row] = []
    with options.until_interrupted(facts):
        for case in cases:
            if not options.wants(case.suite, case.name):
                continue
            print(f"{case.name} ...", file=sys.stderr, flush=True)
            folder = data.materialise(case, cache)
            made = (make_row(case, way, folder, cache, options) for way in ways)
            rows += [row for row in made if row is not None]
    rated = [row for row in rows if not unrated or row["way"] != unrated]
    return report.document(subject, facts, rows, report.summary(rated))
