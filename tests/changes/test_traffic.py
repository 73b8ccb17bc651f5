"""What a change does to the traffic of the example: counts are those of two classifications put side by side, and the
command's exit status says whether anything changes."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

import meshsieve
from meshsieve.changes.comparison import request_walks
from meshsieve.changes.model import KINDS, Answer, change_kind
from meshsieve.changes.traffic import FlowChanges, RequestChanges
from meshsieve.cli.main import main
from meshsieve.walk.captured import CaptureSource

EXAMPLES = Path(__file__).parents[2] / "examples"
BOOKINFO = EXAMPLES / "bookinfo"
OLD, NEW, CAPTURE, LOG = (str(BOOKINFO / name) for name in ("policy", "next", "bookinfo.pcap", "access.log.gz"))
Shown = pytest.CaptureFixture[str]

KIND_OF = [
    ("ALLOW", "ALLOW", None),
    ("ALLOW", "DROP", "closed"),
    ("REJECT", "ALLOW", "opened"),
    ("DROP", "REJECT", "answer"),
    ("ALLOW", "UNDECIDED", "undecided"),
    ("DROP", "PENDING", "undecided"),
    ("UNDECIDED", "PENDING", None),
    ("UNDECIDED", "ALLOW", "decided"),
    ("NONE", "ALLOW", "coverage"),
    ("DROP", "NO_MATCH", "coverage"),
]


@pytest.mark.parametrize(("old", "new", "kind"), KIND_OF)
def test_kinds_of_change(old: str, new: str, kind: str | None) -> None:
    assert change_kind(Answer(old, "a", "x"), Answer(new, "b", "y")) == kind


def test_an_allowed_request_that_goes_elsewhere_is_rerouted() -> None:
    assert change_kind(Answer("ALLOW", route="to a"), Answer("ALLOW", route="to b")) == "rerouted"
    assert change_kind(Answer("DROP", route="to a"), Answer("DROP", route="to b")) is None


@pytest.mark.parametrize(("old", "new"), [("nsx.json", "edge.rules"), ("edge.rules", "nsx.json"), ("nsx.json",) * 2])
def test_flows_are_those_of_two_classifications(old: str, new: str) -> None:
    engines = [meshsieve.load(EXAMPLES / "demo" / name) for name in (old, new)]
    capture = EXAMPLES / "demo" / "demo.pcap"
    expected: Counter[tuple[object, ...]] = Counter()
    rows = [[b.row(i) for b in e.classify_pcap(capture) for i in range(len(b))] for e in engines]
    for one, other in zip(*rows, strict=True):
        assert (one["src"], one["sport"], one["first_ns"]) == (other["src"], other["sport"], other["first_ns"])
        if one["action"] != other["action"]:
            key = (one["action"], one["rule"], one["source"], other["action"], other["rule"], other["source"])
            expected[*key, "flows"] += 1
            expected[*key, "packets"] += one["packets"]
            expected[*key, "bytes"] += one["bytes"]
    changes = FlowChanges(engines[0].tables, engines[1].tables)
    for batch in engines[0].classify_pcap(capture):
        changes.add(batch)
    found: Counter[tuple[object, ...]] = Counter()
    for c in changes.found():
        key = (c.old.action, c.old.rule, c.old.source, c.new.action, c.new.rule, c.new.source)
        for name in ("flows", "packets", "bytes"):
            found[*key, name] += getattr(c, name)
        before, after = (engine.explain(c.witness) for engine in engines)
        assert (before.action, after.action) == (c.old.action, c.new.action), c.witness
    assert +found == +expected
    assert changes.flows == len(rows[0])


def test_requests_are_those_of_the_two_verdicts() -> None:
    engines = [meshsieve.load(path) for path in (OLD, NEW)]
    changes = RequestChanges(*request_walks(engines), assume_mtls=True)
    for seen in CaptureSource([CAPTURE]).batches():
        changes.add(seen)
    found = {c.kind: c for c in changes.found()}
    assert changes.requests == 210
    assert {kind: c.requests for kind, c in found.items()} == {"opened": 6, "rerouted": 30}
    assert found["opened"].new.rule == "ns[bookinfo]-policy[ratings-for-reviews]-rule[0]"
    assert found["opened"].old.action == "REJECT"
    assert found["rerouted"].new.route.endswith("10 %, outbound|9080|v3|reviews.bookinfo.svc.cluster.local 90 %")
    assert all("?" not in c.witness for c in found.values())  # a query may hold what nobody should see


def diff(capfd: Shown, *words: str) -> tuple[int, str, str]:
    status = main(["diff", *words])
    shown = capfd.readouterr()
    return status, shown.out, shown.err


STATUS = [
    ([OLD, OLD], 0),
    ([OLD, NEW], 1),
    ([OLD, OLD, "-r", CAPTURE], 0),
    ([OLD, NEW, "-r", CAPTURE], 1),
    ([OLD, NEW, "--requests", LOG, "--assume-mtls"], 1),
    ([OLD, NEW, "--fail-on", "coverage", "decided"], 0),
    ([OLD, NEW, "--fail-on", "opened"], 1),
    ([OLD, NEW, "--fail-on", "never"], 0),
    ([OLD, NEW, "-r", "-"], 2),
    ([OLD, NEW, "--from", "traffic"], 2),
    ([OLD, "no/such/policy.yaml"], 2),
    ([f"{OLD}/nsx.json", f"{NEW}/nsx.json", "--requests", LOG], 2),
]


@pytest.mark.parametrize(("words", "status"), STATUS, ids=[" ".join(w[2:]) or w[1] for w, _ in STATUS])
def test_the_exit_status_says_whether_something_changes(words: list[str], status: int, capfd: Shown) -> None:
    assert diff(capfd, *words)[0] == status


def test_the_log_and_the_capture_of_one_hour_say_the_same(capfd: Shown) -> None:
    how = ["--assume-mtls", "-o", "json"]
    of_log = json.loads(diff(capfd, OLD, NEW, "--requests", LOG, "--log-header", "end_user=end-user", *how)[1])
    of_capture = json.loads(diff(capfd, OLD, NEW, "-r", CAPTURE, *how)[1])
    names = ("kind", "from", "to", "old", "new", "requests")
    wanted = [[c[n] for n in names] for c in of_capture["changes"] if c["subject"] == "logged requests"]
    assert [[c[n] for n in names] for c in of_log["changes"]] == wanted
    assert of_log["compared"] == {"requests": 206}


def test_both_questions_in_one_document(capfd: Shown) -> None:
    _, out, _ = diff(capfd, OLD, NEW, "-r", CAPTURE, "--assume-mtls", "--from", "both", "-o", "ndjson")
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["subject"] for row in rows} == {"connections", "requests", "routes", "flows", "logged requests"}
    assert [KINDS.index(row["kind"]) for row in rows] == sorted(KINDS.index(row["kind"]) for row in rows)


def test_a_firewall_without_a_mesh_is_compared_with_one_that_has_it(capfd: Shown) -> None:
    status, out, _ = diff(capfd, f"{OLD}/nsx.json", OLD, "--from", "both", "-r", CAPTURE, "--assume-mtls")
    assert status == 1
    assert "closed" in out


def test_markdown_is_of_tables_whose_cells_stay_cells(tmp_path: Path, capfd: Shown) -> None:
    new = tmp_path / "next"
    shutil.copytree(NEW, new)
    text = (new / "nsx.json").read_text()
    (new / "nsx.json").write_text(
        text.replace('"display_name": "tools-to-pages"', '"display_name": "a | <b> `c` \\u001b[1m"')
    )
    _, out, _ = diff(capfd, OLD, str(new), "--from", "both", "-r", CAPTURE, "--assume-mtls", "-o", "markdown")
    tables = [line for line in out.splitlines() if line.startswith("|")]
    assert len(tables) > 8
    for block in re.findall(r"(?:^\|.*\n)+", out, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "<b>" not in out
    assert "\x1b" not in out
