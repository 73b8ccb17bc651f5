"""The walk over all layers: ``python -m benches.peers.engines LIBRARY WAY FOLDER``.

LIBRARY  ours, plain (benches.plain_walk)
WAY      batch    requests from columns
         objects  requests from ``Request`` objects, columns made anew each time
         one      a call a request
         flows    a capture, a verdict a flow: L2-L4 at every point, applications
         packets  a capture, a verdict a packet
Times of captures are CPU time of the whole process, helper threads included.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benches import data
from benches.meshes import Mesh
from benches.peers.serve import Answers, headers_a_pass, peak_rss, reset_peak_rss, timed_passes
from benches.plain_walk import ACTIONS, PlainWalk
from meshsieve import capture, flows, load
from meshsieve.engine import Engine
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns

SAMPLE = 500  # packets of a capture whose flows the plain walk judges


def main() -> None:
    answers = Answers()
    library, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    (of_capture if way in ("flows", "packets") else of_requests)(answers, library, way, folder)


def engine_of(facts: dict[str, Any]) -> Engine:
    mesh = Mesh(facts["routes"], facts["policies"], facts["seed"])
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "mesh.json").write_text(mesh.objects())
        (Path(name) / "nsx.json").write_text(mesh.firewall())
        return load(name)


def requests_of(facts: dict[str, Any]) -> list[Request]:
    mesh = Mesh(facts["routes"], facts["policies"], facts["seed"])
    return [Request(**fields) for fields in mesh.requests(facts["requests"], facts["hosts"])]


def of_requests(answers: Answers, library: str, way: str, folder: Path) -> None:
    facts = data.about(folder)
    expected = data.load_expected(folder)
    requests = requests_of(facts)
    reset_peak_rss()
    before = peak_rss()
    start = time.perf_counter()
    engine = engine_of(facts)
    actions: Callable[[int], list[int]]
    if library == "plain":
        plain = PlainWalk(engine)
        actions = lambda n: [plain.request(request) for request in requests[:n]]  # noqa: E731
        count = headers_a_pass(actions, len(requests), probe=4)
        look_up: Callable[[], object] = lambda: actions(count)  # noqa: E731
    else:
        from meshsieve.walk.batch import BatchWalk

        walk = BatchWalk(engine.request_walk)
        columns = RequestColumns.of(requests)
        count = len(requests)
        looks: dict[str, Callable[[], object]] = {
            "batch": lambda: walk.judge(columns),
            "objects": lambda: walk.judge(requests),
            "one": lambda: [engine.judge_request(request) for request in requests[:50]],
        }
        look_up = looks[way]

        def actions(n: int) -> list[int]:
            if way == "one":
                return [ACTIONS.index(engine.judge_request(request).action) for request in requests[:n]]
            found = walk.judge(columns if way == "batch" else requests)
            return [ACTIONS.index(found.action(i)) for i in range(n)]

        count = 50 if way == "one" else count
        look_up()
    seconds = time.perf_counter() - start

    def wrong(_: int) -> dict[str, Any]:
        judged = np.flatnonzero(expected >= 0)[: 50 if way == "one" else None]
        found = np.array(actions(len(judged)), np.int32)
        return {"wrong": int((found != expected[judged]).sum()), "checked": len(judged)}

    answers.say({"build_s": round(seconds, 3), "peak_bytes": peak_rss() - before, "headers": count})
    answers.serve({"pass": lambda passes: timed_passes(look_up, passes, count), "wrong": wrong})


def of_capture(answers: Answers, library: str, way: str, folder: Path) -> None:
    facts = data.about(folder)
    path = folder / "capture.pcap"
    start = time.perf_counter()
    engine = load(folder / "nsx.json")
    _ = engine.tables
    seconds = time.perf_counter() - start
    compiled = peak_rss()
    sample = None if library == "ours" else min(SAMPLE, facts["packets"])
    plain = PlainWalk(engine)

    def ours(count: int | None) -> np.ndarray[Any, Any]:
        verdicts = [
            batch.decisions.action for batch in engine.classify_pcap(path, by=way.removesuffix("s"), count=count)
        ]  # type: ignore[arg-type]
        return np.concatenate(verdicts)

    def by_plain(count: int | None) -> list[int]:
        """Verdicts of the flows, or of a packet a flow: the walk costs the same each time it is asked."""
        found = []
        table = flows.FlowTable(flows.FlowOptions(apps=way == "flows"))
        for batch in itertools.chain(capture.read(path, flows=table, count=count), [None]):
            ended = table.take_finished() if batch is not None else table.finish()
            found += [plain.packet(ended.take(np.array([i]))) for i in range(len(ended))]
        return found

    def passes(count: int) -> dict[str, Any]:
        ns = []
        for _ in range(count):
            begin = time.process_time_ns()
            ours(None) if library == "ours" else by_plain(sample)
            ns.append(round((time.process_time_ns() - begin) / (sample or facts["packets"]), 3))
        return {"ns": ns}

    def wrong(_: int) -> dict[str, Any]:
        rows = len(ours(None))
        if way == "packets":
            return {"wrong": abs(rows - facts["packets"]), "checked": rows}
        few = min(SAMPLE, facts["packets"])
        found = {"ALLOW": 0, "DROP": 0, "REJECT": 0}
        for batch in engine.classify_pcap(path, count=few):
            for action in batch["action"]:
                found[action] = found.get(action, 0) + 1
        judged = by_plain(few)
        off = sum(abs(found.get(name, 0) - judged.count(code)) for code, name in enumerate(ACTIONS))
        return {"wrong": off, "checked": len(judged)}

    reset_peak_rss()
    passes(1)
    answers.say({
        "build_s": round(seconds, 3), "headers": sample or facts["packets"], "peak_bytes": peak_rss(),
        "compiled_bytes": compiled,
    })  # fmt: skip
    answers.serve({"pass": passes, "wrong": wrong if library == "ours" else lambda _: {"wrong": 0, "checked": 0}})


if __name__ == "__main__":
    main()
