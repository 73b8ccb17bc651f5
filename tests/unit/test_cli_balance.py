"""``meshsieve balance``: what it prints and how it ends."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from meshsieve.balance import Maglev
from meshsieve.cli.main import main


def clusters(hosts: int, policy: str = "MAGLEV", name: str = "cart") -> str:
    entries = [
        {"endpoint": {"address": {"socket_address": {"address": f"10.0.0.{i}", "port_value": 80}}}}
        for i in range(1, hosts + 1)
    ]
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": entries}]}
    return json.dumps([{"name": name, "lb_policy": policy, "load_assignment": assignment}])


ROUTE = """
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  http: [{route: [{destination: {host: a}, weight: %d}, {destination: {host: b}, weight: %d}]}]
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "old.json").write_text(clusters(3))
    (tmp_path / "new.json").write_text(clusters(2))
    (tmp_path / "route.yaml").write_text(ROUTE % (99, 1))
    (tmp_path / "route2.yaml").write_text(ROUTE % (90, 10))
    return tmp_path


def balance(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["balance", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_it_lists_shares(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = balance(capsys, "-p", files / "old.json", "-o", "ndjson")
    listed = rows(out)
    assert status == 0
    assert [row["host"] for row in listed] == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]
    assert sum(row["share"] for row in listed) == pytest.approx(1)
    assert {row["kind"] for row in listed} == {"maglev"}


def test_it_places_keys_from_arguments_and_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "keys.txt").write_text("user-2\nuser-3\n")
    status, out, _ = balance(
        capsys, "-p", files / "old.json", "--to", "cart", "user-1", "--keys", files / "keys.txt", "-o", "json"
    )
    table = Maglev([f"10.0.0.{i}:80" for i in (1, 2, 3)])
    keys = ["user-1", "user-2", "user-3"]
    assert status == 0
    assert [(row["key"], row["host"]) for row in json.loads(out)] == [
        (key, f"10.0.0.{table.pick_key(key) + 1}:80") for key in keys
    ]


def test_diff_counts_what_moves_and_names_the_keys(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"user-{i}" for i in range(50)]
    status, out, _ = balance(capsys, "--diff", files / "old.json", files / "new.json", *keys, "-o", "json")
    (row,) = json.loads(out)
    old, new = (Maglev([f"10.0.0.{i}:80" for i in range(1, n + 1)]) for n in (3, 2))
    moved = [key for key in keys if old.pick_key(key) != new.pick_key(key)]
    assert status == 1
    assert [entry["key"] for entry in row["keys"]] == moved
    assert row["share"] >= row["minimum"] == pytest.approx(1 / 3, abs=1e-4)


def test_down_says_what_moves(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = balance(capsys, "-p", files / "old.json", "--down", "10.0.0.2:80", "-o", "json")
    (row,) = json.loads(out)
    assert status == 0
    assert row["minimum"] == pytest.approx(1 / 3, abs=1e-4)
    assert {flow["from"] for flow in row["flows"][:2]} == {"10.0.0.2:80"}
    status, _, err = balance(capsys, "-p", files / "old.json", "--down", "10.0.0.9:80")
    assert status == 2
    assert "no destination has a host called 10.0.0.9:80" in err


def test_diff_as_text(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = balance(capsys, "--diff", files / "route.yaml", files / "route2.yaml")
    assert status == 1
    assert "9.0000% of the key space moves (at least 9.0000% must" in out
    status, out, _ = balance(capsys, "--diff", files / "old.json", files / "old.json")
    assert (status, out) == (0, "nothing moves\n")


def test_diff_says_what_came_and_went(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "other.json").write_text(clusters(2, name="shop"))
    status, out, _ = balance(capsys, "--diff", files / "old.json", files / "other.json")
    assert status == 1
    assert out == "cart\n  removed\nshop\n  added\n"


OBSERVED = [
    ("as declared", "a.shop.svc.cluster.local 9901\nb.shop.svc.cluster.local 99\n", 0),
    ("not as declared", "a.shop.svc.cluster.local 9000\nb.shop.svc.cluster.local 1000\n", 1),
    ("one line each", "a.shop.svc.cluster.local\n# a comment\n" * 20, 0),
    ("JSON lines", '{"cluster": "a.shop.svc.cluster.local"}\n' * 20, 0),
    ("somewhere undeclared", "c.shop.svc.cluster.local\n", 1),
]


@pytest.mark.parametrize(("text", "wanted"), [c[1:] for c in OBSERVED], ids=[c[0] for c in OBSERVED])
def test_observed(files: Path, capsys: pytest.CaptureFixture[str], text: str, wanted: int) -> None:
    (files / "seen.txt").write_text(text)
    status, out, _ = balance(capsys, "-p", files / "route.yaml", "--observed", files / "seen.txt")
    assert status == wanted
    assert ("NOT as declared" in out) is bool(wanted)


def test_observed_flows(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "flows.ndjson").write_text("".join(f'{{"dst": "10.0.0.{1 + i % 3}", "dport": 80}}\n' for i in range(300)))
    status, out, _ = balance(capsys, "-p", files / "old.json", "--observed", files / "flows.ndjson", "-o", "json")
    (check,) = json.loads(out)
    assert (status, check["total"], check["consistent"]) == (0, 300, True)


def test_keys_can_come_from_stdin(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"user-1\n")))
    status, out, _ = balance(capsys, "-p", files / "old.json", "--keys", "-", "-o", "ndjson")
    assert status == 0
    assert [row["key"] for row in rows(out)] == ["user-1"]


ERRORS = [
    ("nothing to read", [], "give either -p CONFIG or --diff"),
    ("a file that is not there", ["-p", "none.yaml"], "no such file"),
    ("an unknown destination", ["-p", "old.json", "--to", "x"], "'x' names 0 destinations; there are: cart"),
    ("keys of a die", ["-p", "die.json", "--to", "cart", "user-1"], "random, which looks at no key"),
    ("observed of several", ["-p", "old.json", "route.yaml", "--observed", "old.json"], "needs one destination, not 2"),
    ("a broken line", ["-p", "old.json", "--observed", "bad.ndjson"], r"bad.ndjson:1: not JSON"),
    ("a line without destination", ["-p", "old.json", "--observed", "odd.ndjson"], "neither upstream_host"),
]


@pytest.mark.parametrize(("arguments", "reason"), [c[1:] for c in ERRORS], ids=[c[0] for c in ERRORS])
def test_errors(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    monkeypatch.chdir(files)
    Path("die.json").write_text(clusters(2, "RANDOM"))
    Path("bad.ndjson").write_text("{]\n")
    Path("odd.ndjson").write_text("{}\n")
    status, out, err = balance(capsys, *arguments)
    assert (status, out) == (2, "")
    assert reason in err
