"""``python -m benches routes``: our route tables against routers, tries and automata that Python users can install, and
against the real Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches import data, duel, route_sets, rows
from benches.data import Case, Material
from benches.options import Options
from benches.process import Peer
from benches.report import Row

MODULE = "benches.peers.routers"
WAYS = ("batch", "one")
SIZES = (100, 1_000, 10_000, 100_000)
SEED = 11
PEERS = ("pymatchit", "falcon", "werkzeug", "re2_set", "marisa", "ahocorasick", "dict", "envoy")
# What each kind of table can be asked of.
OF_KIND = {
    "mixed": ("pymatchit", "falcon", "werkzeug", "envoy"),
    "prefixes": ("marisa", "ahocorasick", "pymatchit", "envoy"),
    "regex": ("re2_set", "envoy"),
    "regex_re2": ("re2_set", "envoy"),
    "header": ("dict", "envoy"),
}
# The largest table that a peer gets: beyond, it builds for ten seconds and more.
LARGEST = {"falcon": 1_000, "werkzeug": 1_000, "envoy": 10_000}


def cases(options: Options) -> Iterator[Case]:
    wanted = options.sizes or ([100, 1_000] if options.quick else list(SIZES))
    for kind in route_sets.KINDS:
        for n in wanted:
            if kind.startswith("regex") and n > 10_000:
                continue
            facts = {"kind": kind, "rules": n, "seed": SEED}
            yield Case(f"routes_{kind}_{n}", kind, facts, lambda kind=kind, n=n, facts=facts: _material(kind, n, facts))


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``."""
    return rows.collect("routes", cases(options), WAYS, _row, options)


def _row(case: Case, way: str, folder: Path, cache: Path, options: Options) -> Row:
    facts = data.about(folder)
    names = [
        name
        for name in OF_KIND[facts["kind"]]
        if name in (options.peers or PEERS)
        and facts["rules"] <= LARGEST.get(name, facts["rules"])
        and not (name == "envoy" and way == "one")
    ]
    peers = [Peer(name, module=MODULE, arguments=(name, way)) for name in ("ours", *names)]
    rounds = 3 if options.quick else 9
    entries = duel.run(peers, folder, cache=cache, rounds=rounds, patience=options.patience)
    return rows.beside_peers(
        f"{facts['kind']} {facts['rules']}, {way}",
        case,
        facts,
        entries,
        way=way,
        build_s=entries["ours"].get("build_s"),
    )


def _material(kind: str, n: int, facts: dict[str, Any]) -> Material:
    made = route_sets.make(kind, n, SEED)
    return Material({"expected.i32": np.array(made.expected, np.int32)}, facts)
