"""meshsieve as a program under test: ``python -m benches.peers.own [--engine E] [--backend B] FOLDER``.

The time is that of what users call: ``classify_batch`` on prepared columns, 4,096 packets a call, results into an array
that exists. The Python boundary is inside.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from benches import boxes, data
from benches.peers.serve import Answers, headers_a_pass, peak_rss, reset_peak_rss, timed_passes
from meshsieve import packets
from meshsieve.columns import PacketColumns
from meshsieve.errors import MeshsieveError

BATCH = 4096
PUBLICATIONS = (1, 100, 1000, 10_000)  # rule changes together
BULK = 1000  # those that the table of results shows
BOUNDARY_BATCHES = (1, 16, 256, 4096)


class Batches:
    """A trace cut into calls of ``size`` packets, so that nothing but the calls is timed."""

    def __init__(self, columns: PacketColumns, size: int) -> None:
        self.results = np.empty(len(columns), np.int32)
        self._calls = [
            (columns.take(np.arange(begin, min(begin + size, len(columns)))), self.results[begin : begin + size])
            for begin in range(0, len(columns), size)
        ]

    def look_up(self, classifier: packets.PacketClassifier) -> None:
        for columns, out in self._calls:
            classifier.classify_batch(columns, out)


def main() -> None:
    answers = Answers()
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("folder", type=data.Path)
    options = parser.parse_args()
    rules = data.load_rules(options.folder)
    columns = data.load_columns(options.folder)
    expected = data.load_expected(options.folder)

    start = time.perf_counter()
    _ = rules.native  # reading the rules is not building the table, but it is reported
    rules_seconds = time.perf_counter() - start
    reset_peak_rss()
    before = peak_rss()
    start = time.perf_counter()
    try:
        classifier = packets.compile(rules, engine=options.engine, backend=options.backend)
    except MeshsieveError as error:
        answers.give_up(str(error))
    build_seconds = time.perf_counter() - start
    peak = peak_rss() - before
    stats = classifier.stats

    count = headers_a_pass(lambda n: classifier.classify_batch(columns.take(np.arange(n))), len(columns))
    columns, expected = columns.take(np.arange(count)), expected[:count]
    batches = Batches(columns, BATCH)

    def wrong(_: int) -> dict[str, Any]:
        batches.results.fill(-(2**31))
        batches.look_up(classifier)
        return {"wrong": int((batches.results != expected).sum()), "checked": count}

    answers.say(
        {
            "build_s": round(build_seconds, 6),
            "rules_s": round(rules_seconds, 6),
            "bytes": stats.bytes,
            "peak_bytes": peak,
            "headers": count,
            "engine": stats.engine,
            "backend": stats.backend,
            "worst_case_steps": stats.worst_case_steps,
            "note": f"{stats.engine}, {stats.backend}",
        }
    )
    answers.serve(
        {
            "pass": lambda passes: timed_passes(lambda: batches.look_up(classifier), passes, count),
            "wrong": wrong,
            "boundary": lambda rounds: _boundary(classifier, columns, max(rounds, 1)),
            "files": lambda rounds: _files(classifier, max(rounds, 1)),
            "threads": lambda rounds: _threads(classifier, columns, max(rounds, 1)),
            "updates": lambda seconds: _updates(
                classifier, rules, _load_boxes(options.folder), batches, max(seconds, 1)
            ),
        }
    )


def _load_boxes(folder: data.Path) -> boxes.Boxes:
    return np.fromfile(folder / "rules.u32", np.uint32).reshape(-1, 10)


def _as_columns(some: boxes.Boxes) -> packets.RuleSet:
    return packets.RuleSet.from_ranges(
        {name: (some[:, 2 * f], some[:, 2 * f + 1]) for f, name in enumerate(boxes.FIELDS)}
    )


def _boundary(classifier: packets.PacketClassifier, columns: PacketColumns, rounds: int) -> dict[str, Any]:
    """Best CPU ns a packet by batch size, of one call over everything, and of the scalar call."""
    best: dict[str, float] = {}
    few = columns.take(np.arange(min(len(columns), 4096)))
    scalar = [
        tuple(int(few[name][i]) for name in ("src_ip", "dst_ip", "sport", "dport", "proto")) for i in range(len(few))
    ]
    ways = {str(size): Batches(few if size < 256 else columns, size) for size in BOUNDARY_BATCHES}
    ways["whole"] = Batches(columns, len(columns))
    for _ in range(rounds):
        for name, batches in ways.items():
            ns = timed_passes(lambda batches=batches: batches.look_up(classifier), 1, len(batches.results))["ns"][0]
            best[name] = min(ns, best.get(name, ns))
        ns = timed_passes(lambda: [classifier.classify(*header) for header in scalar], 1, len(scalar))["ns"][0]
        best["scalar"] = min(ns, best.get("scalar", ns))
    return {"ns_by_batch": best}


def _files(classifier: packets.PacketClassifier, rounds: int) -> dict[str, Any]:
    """The table as a file: its bytes, and the best seconds of writing (flushed to disk), reading and mapping it."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "table")

        def seconds(call: Callable[[], object]) -> float:
            best = float("inf")
            for _ in range(rounds):
                start = time.perf_counter()
                call()
                best = min(best, time.perf_counter() - start)
            return round(best, 6)

        found = {
            "save_s": seconds(lambda: classifier.save(path)),
            "load_s": seconds(lambda: packets.load_table(path)),
            "load_mapped_s": seconds(lambda: packets.load_table(path, mapped=True)),
        }
        return {"file": found | {"bytes": os.path.getsize(path)}}


def _threads(classifier: packets.PacketClassifier, columns: PacketColumns, rounds: int) -> dict[str, Any]:
    """Wall-clock ns a packet of 1, 2, 4, ... threads up to the number of cores, each looking up the whole trace: the
    best of some rounds, all threads together. The process may use every core for this."""
    cores = os.cpu_count() or 1
    os.sched_setaffinity(0, range(cores))
    repeats = max(1, 1_000_000 // len(columns))
    found: dict[str, float] = {}
    for count in (1 << k for k in range(cores.bit_length()) if 1 << k <= cores):
        work = [Batches(columns, BATCH) for _ in range(count)]
        best = float("inf")
        with ThreadPoolExecutor(count) as pool:
            for _ in range(rounds + 1):  # the first starts the threads
                start = time.perf_counter()
                for done in [pool.submit(_look_up, batches, classifier, repeats) for batches in work]:
                    done.result()
                best = min(best, time.perf_counter() - start)
        found[str(count)] = round(best * 1e9 / (count * repeats * len(columns)), 3)
    return {"ns_by_threads": found}


def _look_up(batches: Batches, classifier: packets.PacketClassifier, repeats: int) -> None:
    for _ in range(repeats):
        batches.look_up(classifier)


def _updates(
    classifier: packets.PacketClassifier, rules: data.RuleSet, ranges: boxes.Boxes, batches: Batches, seconds: int
) -> dict[str, Any]:
    """Rule changes a second, alone and while another thread looks up without pause, and what they cost the look-ups.

    One change takes a rule at a random place out or puts it back: singly, and as many as PUBLICATIONS says in one
    publication. Rules come back as columns (`RuleSet.from_ranges`, which is timed too); singly, and in a row of its
    own, as ``Rule`` objects. Wall clock for the changes; for the look-ups the CPU time of their thread, which a busy
    machine does not distort. The process may use every core for this. In the end every rule is back:
    ``wrong_after_updates``.
    """
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    expected = batches.results.copy()
    random = np.random.default_rng(1)
    size = len(ranges)

    def cpu_ns_a_look_up(stop: threading.Event, seconds: float) -> float:
        done, deadline, start = 0, time.perf_counter() + seconds, time.thread_time_ns()
        while time.perf_counter() < deadline and not stop.is_set():
            batches.look_up(classifier)
            done += len(batches.results)
        return (time.thread_time_ns() - start) / max(done, 1)

    def changes(together: int, as_objects: bool) -> float:
        places = np.sort(random.choice(size, together, replace=False))
        back = places - np.arange(together)
        objects = list(zip(back.tolist(), [rules[i] for i in places.tolist()], strict=True)) if as_objects else []
        start = time.perf_counter()
        classifier.update(remove=places)
        if as_objects:
            classifier.update(insert=objects)
        else:
            classifier.update(insert=_as_columns(ranges[places]), at=back)
        return time.perf_counter() - start

    def updates_a_second(together: int, as_objects: bool) -> float:
        made, spent, deadline = 0, 0.0, time.perf_counter() + seconds
        while time.perf_counter() < deadline or not made:
            spent += changes(together, as_objects)
            made += 2 * together
        return round(made / spent, 1)

    def row(together: int, as_objects: bool = False) -> dict[str, float]:
        alone = updates_a_second(together, as_objects)
        stop, reader_ns = threading.Event(), []
        reader = threading.Thread(target=lambda: reader_ns.append(cpu_ns_a_look_up(stop, 3600)))
        reader.start()
        try:
            beside = updates_a_second(together, as_objects)
        finally:
            stop.set()
            reader.join()
        return {
            "alone_a_second": alone,
            "updates_a_second": beside,
            "lookup_ns": round(reader_ns[0], 2),
            "lookup_slowdown": round(reader_ns[0] / compiled_ns, 3),
        }

    compiled_ns = cpu_ns_a_look_up(threading.Event(), min(seconds, 2))
    first_seconds = changes(1, as_objects=False)
    rows = {str(together): row(together, together == 1) for together in PUBLICATIONS if together <= size // 2}
    rows[f"{min(BULK, size // 2)} objects"] = row(min(BULK, size // 2), as_objects=True)
    idle_ns = cpu_ns_a_look_up(threading.Event(), min(seconds, 2))
    bytes_meanwhile = classifier.stats.bytes
    start = time.perf_counter()
    classifier.settle()
    settle_seconds = time.perf_counter() - start
    batches.look_up(classifier)
    bulk = rows.get(str(BULK), rows["1"])
    return {
        "updates_a_second": rows["1"]["updates_a_second"],
        "bulk_updates_a_second": bulk["updates_a_second"],
        "lookup_slowdown": bulk["lookup_slowdown"],
        "by_publication": rows,
        "compiled_ns": round(compiled_ns, 2),
        "changeable_ns": round(idle_ns, 2),
        "first_change_s": round(first_seconds, 4),
        "settle_s": round(settle_seconds, 4),
        "bytes_while_changing": bytes_meanwhile,
        "wrong_after_updates": int((batches.results != expected).sum()),
    }


if __name__ == "__main__":
    main()
