"""Sides against each other in one run: every peer started, warmed up, then asked for short passes in turn.

Machines have slow phases that last seconds and hit every program. So no side is timed in one go: in each round every
side gets one turn of about TURN_SECONDS, rounds are repeated, and the best pass counts (the median is kept beside it).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benches.process import Peer, Running, Unavailable

TURN_SECONDS = 0.05
MOST_PASSES_A_TURN = 50

Entry = dict[str, Any]


def run(
    peers: list[Peer],
    folder: Path,
    *,
    cache: Path,
    rounds: int,
    patience: float,
    environment: Callable[[Peer], dict[str, str]] = lambda peer: {},
    extras: Callable[[Peer, Running], dict[str, Any]] = lambda peer, running: {},
) -> dict[str, Entry]:
    """By peer: best ns and median_ns per header, wrong, checked, and what it said of itself; or {"unavailable": why}.

    An entry with wrong answers keeps the count but no time. ``extras`` may ask a peer for more after the rounds.
    """
    entries: dict[str, Entry] = {}
    running: dict[str, Running] = {}
    times: dict[str, list[float]] = {}
    turn: dict[str, int] = {}
    by_name = {peer.name: peer for peer in peers}
    try:
        for peer in peers:
            try:
                started = Running(peer, folder, cache=cache, patience=patience, environment=environment(peer))
                running[peer.name] = started
                warm_up = started.ask("pass 2")["ns"][-1]
                pass_seconds = max(warm_up * started.about["headers"] * 1e-9, 1e-6)
                turn[peer.name] = max(1, min(MOST_PASSES_A_TURN, math.ceil(TURN_SECONDS / pass_seconds)))
                times[peer.name] = []
            except Unavailable as why:
                entries[peer.name] = {"unavailable": str(why)}
        for _ in range(rounds):
            for name in list(times):
                try:
                    times[name] += running[name].ask(f"pass {turn[name]}")["ns"]
                except Unavailable as why:
                    entries[name] = {"unavailable": str(why)}
                    del times[name]
        for name, ns in times.items():
            try:
                entry = {**running[name].about, **running[name].ask("wrong")}
                entry |= extras(by_name[name], running[name])
            except Unavailable as why:
                entries[name] = {"unavailable": str(why)}
                continue
            right = entry["wrong"] == 0
            entry["ns"] = min(ns) if right else None
            entry["median_ns"] = round(statistics.median(ns), 3) if right else None
            entry["passes"] = len(ns)
            entries[name] = entry
    finally:
        for process in running.values():
            process.close()
    return {peer.name: entries[peer.name] for peer in peers}
