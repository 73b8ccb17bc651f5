"""meshsieve reading a capture: ``python -m benches.peers.own_capture STEP FOLDER``.

STEP  read      records read and decoded into columns
      filter    the same with the tcpdump filter of the case
      flows     read, and the flow table
      apps      read, and the flow table with the recognition of applications
      requests  read, and the HTTP requests out of the flows
      classify  read, flow table, and the rule that decides each packet (rules of the case)
      export    all of it: read, flow table, applications, the rule of each packet, and the flows as Arrow tables
The time is the CPU time of the whole process, helper threads included.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benches import data
from benches.peers.serve import Answers, peak_rss, reset_peak_rss
from meshsieve import capture, packets

EXPORTED_AT_ONCE = 16384  # flows


def main() -> None:
    answers = Answers()
    step, folder = sys.argv[1], Path(sys.argv[2])
    facts = data.about(folder)
    path = folder / "capture.pcap"
    verdicts: list[Any] = []
    if step in ("classify", "export"):
        classifier = packets.compile(data.load_rules(folder))

    def read() -> int:
        return sum(map(len, capture.read(path)))

    def filtered() -> int:
        return sum(map(len, capture.read(path, filter=facts["filter"])))

    def flows(apps: bool = False) -> int:
        of_flows = importlib.import_module("meshsieve.flows")
        reader = capture.read(path)
        for _ in of_flows.stream(reader, options=of_flows.FlowOptions(apps=apps)):
            pass
        return reader.packets_delivered

    def apps() -> int:
        return flows(apps=True)

    def requests() -> int:
        found = importlib.import_module("meshsieve.http_requests").read(path)
        for _ in found:
            pass
        return int(found.reader.packets_delivered)

    def classify() -> int:
        verdicts.clear()
        of_flows = importlib.import_module("meshsieve.flows")
        table = of_flows.FlowTable(of_flows.FlowOptions(apps=False))
        for batch in capture.read(path, flows=table):
            if table.finished >= EXPORTED_AT_ONCE:
                table.take_finished()
            verdicts.append(classifier.classify_batch(batch))
        return sum(map(len, verdicts))

    def export() -> int:
        verdicts.clear()
        table = importlib.import_module("meshsieve.flows").FlowTable()
        for batch in capture.read(path, flows=table):
            verdicts.append(classifier.classify_batch(batch))
            if table.finished >= EXPORTED_AT_ONCE:
                table.take_finished().to_arrow(addresses="binary")
        table.finish().to_arrow(addresses="binary")
        return sum(map(len, verdicts))

    steps: dict[str, Callable[[], int]] = {
        "read": read, "filter": filtered, "flows": flows, "apps": apps, "requests": requests, "classify": classify,
        "export": export,
    }  # fmt: skip
    once = steps[step]
    reset_peak_rss()
    before = peak_rss()
    try:
        once()
    except ImportError as error:
        answers.give_up(str(error))

    def passes(count: int) -> dict[str, Any]:
        ns = []
        for _ in range(count):
            start = time.process_time_ns()
            once()
            ns.append(round((time.process_time_ns() - start) / facts["packets"], 3))
        return {"ns": ns}

    def wrong(_: int) -> dict[str, Any]:
        expected = facts["matching"] if step == "filter" else facts["packets"]
        found = abs(once() - expected)
        if step in ("classify", "export") and (folder / "judged.u8").exists():
            judged = np.fromfile(folder / "judged.u8", np.bool_)
            found += int((np.concatenate(verdicts) != data.load_expected(folder))[judged].sum())
        return {"wrong": found, "checked": facts["packets"]}

    answers.say(
        {"headers": facts["packets"], "peak_bytes": peak_rss(), "grown_bytes": peak_rss() - before, "note": step}
    )
    answers.serve({"pass": passes, "wrong": wrong})


if __name__ == "__main__":
    main()
