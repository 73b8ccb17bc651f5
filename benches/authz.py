"""``python -m benches authz``: authorization against cedarpy, casbin, oso, vakt and a plain Python loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches import authz_policies, data, duel, rows
from benches.data import Case, Material
from benches.options import Options
from benches.process import Peer
from benches.report import Row

MODULE = "benches.peers.authz_engines"
PEERS = ("cedarpy", "casbin", "oso", "vakt", "plain_loop")
WAYS = ("batch", "one", "build")
SIZES = (10, 100, 1_000, 10_000, 100_000)
# Beyond, a peer's pass takes seconds a call and its build minutes; growth is then ours alone.
MOST_FOR_PEERS = 10_000
CALLS = 2_000


def cases(options: Options) -> Iterator[Case]:
    sizes = options.sizes or ([1_000] if options.quick else list(SIZES))
    for n in sizes:
        # Few policies are told apart early whatever they look like.
        for family in authz_policies.FAMILIES if n >= 1_000 and not options.quick else ("spread",):
            facts = {"family": family, "rules": n, "calls": CALLS, "seed": 1}
            yield Case(f"{family}_{data.short(n)}", family, facts, lambda f=facts: _material(f))


def run(options: Options) -> dict[str, Any]:
    """All rows, in the form of ``report.document``."""
    return rows.collect("authz", cases(options), WAYS, _row, options, unrated="build")


def _row(case: Case, way: str, folder: Path, cache: Path, options: Options) -> Row:
    facts = data.about(folder)
    chosen = [name for name in options.peers or PEERS if way != "build" or name != "plain_loop"]
    names = chosen if facts["rules"] <= MOST_FOR_PEERS else []
    peers = [Peer(name, module=MODULE, arguments=(name, way)) for name in ("ours", *names)]
    rounds = 2 if options.quick else 5
    entries = duel.run(peers, folder, cache=cache, rounds=rounds, patience=options.patience)
    ours = entries["ours"]
    size = ours["bytes"] / facts["rules"] if "bytes" in ours else None
    return rows.beside_peers(f"{case.name}, {way}", case, facts, entries, way=way, bytes_per_rule=size)


def _material(facts: dict[str, Any]) -> Material:
    """Policies and calls follow from the facts; kept is what a plain loop answers to the first calls."""
    policies = authz_policies.policies(facts["family"], facts["rules"], facts["seed"])
    calls = authz_policies.calls(policies, facts["calls"])
    judged = min(len(calls), max(40, 2_000_000 // facts["rules"]))
    expected = np.full(len(calls), -1, np.int32)
    expected[:judged] = [authz_policies.allowed(policies, call) for call in calls[:judged]]
    return Material({"expected.i32": expected}, {"allowed": round(float(expected[:judged].mean()), 4)})
