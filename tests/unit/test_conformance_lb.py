"""The conformance runner of load balancing notices a planted wrong expectation, and says what it cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshsieve.balance import Maglev
from tests.conformance import lb
from tests.conformance.__main__ import main

HOSTS = [{"ip": f"10.0.0.{i}"} for i in range(1, 4)]
TABLE = Maglev([f"10.0.0.{i}:9100" for i in range(1, 4)])


def picked(key: str) -> str:
    return TABLE.hosts[TABLE.pick_key(key)].name


HASHED = {
    "id": "hashed", "lb": "MAGLEV", "hosts": HOSTS, "hash_policy": [{"header": {"header_name": "x-key"}}],
    "requests": [{"headers": {"x-key": key}, "picked": picked(key)} for key in ("a", "b", "c")],
}  # fmt: skip
SPLIT = {
    "id": "split", "lb": "WEIGHTED_CLUSTERS", "clusters": [["a", 9], ["b", 1]], "header_name": "x-rand",
    "hash_policy": None,
    "requests": [{"headers": {"x-rand": "8"}, "cluster": "a"}, {"headers": {"x-rand": "9"}, "cluster": "b"}],
}  # fmt: skip
SEQUENCE = {
    "id": "sequence", "lb": "ROUND_ROBIN", "hosts": [{**HOSTS[0], "weight": 2}, HOSTS[1]], "hash_policy": None,
    "requests": [], "picked_sequence": [f"10.0.0.{i}:9100" for i in (1, 2, 1, 1, 2, 1)],
}  # fmt: skip


def changed(case: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(case)), **fields}


WRONG_PICK = changed(HASHED, requests=[{"headers": {"x-key": "a"}, "picked": "10.0.0.9:9100"}])
NOBODY = changed(HASHED, requests=[{"headers": {"x-key": "a"}, "picked": None}])
WRONG_SPLIT = changed(SPLIT, requests=[{"headers": {"x-rand": "9"}, "cluster": "a"}])
WRONG_SEQUENCE = changed(SEQUENCE, picked_sequence=[f"10.0.0.{i}:9100" for i in (1, 2, 2, 1)])
NO_HASH = changed(HASHED, requests=[{"headers": {}, "picked": "10.0.0.1:9100"}])
CASES = [
    #  what it shows, set, right, wrong, undecided, skipped
    ("right picks", HASHED, 3, 0, 0, 0),
    ("a right split", SPLIT, 2, 0, 0, 0),
    ("a stretch of the cycle", SEQUENCE, 1, 0, 0, 0),
    ("a planted wrong pick", WRONG_PICK, 0, 1, 0, 0),
    ("a planted 503", NOBODY, 0, 1, 0, 0),
    ("a planted wrong cluster", WRONG_SPLIT, 0, 1, 0, 0),
    ("a planted wrong sequence", WRONG_SEQUENCE, 0, 1, 0, 0),
    ("no hash: the pick is random", NO_HASH, 0, 0, 1, 0),
    ("an unknown balancer", changed(HASHED, lb="MAGIC"), 0, 0, 0, 1),
    ("an unknown field", changed(HASHED, colour="red"), 0, 0, 0, 1),
    ("a setting that is not known", changed(HASHED, common={"colour": "red"}), 0, 0, 0, 1),
    ("hosts that are refused", changed(HASHED, table_size=8), 0, 0, 0, 1),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_outcomes(tmp_path: Path, case: tuple[str, dict[str, Any], int, int, int, int]) -> None:
    _, given, *counts = case
    (tmp_path / "set.json").write_text(json.dumps([given]))
    report = lb.run(tmp_path)
    assert [report.counts[name] for name in ("right", "wrong", "undecided", "skipped")] == counts


def test_the_command_fails_on_a_planted_wrong_pick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "set.json").write_text(json.dumps([HASHED]))
    assert main(["lb", str(tmp_path)]) == 0
    (tmp_path / "more.json").write_text(json.dumps([WRONG_PICK]))
    assert main(["lb", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "lb: right 3 wrong 1 undecided 0 skipped 0"
