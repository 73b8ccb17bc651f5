"""meshsieve classify, flows, explain and convert on the demo: golden outputs, exit statuses, formats that agree.

After a wanted change: ``MESHSIEVE_REGEN=1 pytest tests/unit/test_cli_classify.py``, then read the diff.
"""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.test_cli_main import ENVIRONMENT, run

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "cli"
CAPTURE = "examples/demo/demo.pcap"
POLICIES = ["-p", "examples/demo/nsx.json", "examples/demo/edge.rules"]
CLASSIFY = ["classify", "-r", CAPTURE, *POLICIES]


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


GOLDEN_CASES = [
    ("classify.txt", [*CLASSIFY, "--limit", "30"]),
    ("classify.ndjson", [*CLASSIFY, "-o", "ndjson", "tcp", "port", "22", "or", "icmp6"]),
    ("classify.csv", [*CLASSIFY, "-o", "csv", "tcp port 445 or udp port 443"]),
    ("classify_packets.ndjson", [*CLASSIFY, "--by", "packet", "-o", "ndjson", "-c", "12", "tcp port 445"]),
    ("classify_packets.txt", [*CLASSIFY, "--by", "packet", "--limit", "6"]),
    ("flows.txt", ["flows", "-r", CAPTURE, "--limit", "12"]),
    ("explain.txt", ["explain", *POLICIES, "tcp 192.168.1.78:55770 > 192.168.1.53:445"]),
    ("explain.json", ["explain", *POLICIES, "--json", "udp [2001:db8:1::2]:5000 > [2001:db8:1::1]:80"]),
]


@pytest.mark.parametrize(("name", "words"), GOLDEN_CASES, ids=[c[0] for c in GOLDEN_CASES])
def test_output_is_the_golden_one(name: str, words: list[str]) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    golden = GOLDEN / name
    if os.environ.get("MESHSIEVE_REGEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(done.stdout)
    assert done.stdout == golden.read_text()


def rows_of(*words: str) -> list[dict[str, object]]:
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ndjson_has_the_names_of_the_contract() -> None:
    flow = rows_of(*CLASSIFY, "-o", "ndjson")[0]
    wanted = ["src", "dst", "sport", "dport", "proto", "packets", "bytes", "first_ns", "last_ns", "app"]
    assert {*wanted, "action", "rule", "source", "reason", "vlan", "vni"} <= set(flow)
    packet = rows_of(*CLASSIFY, "-o", "ndjson", "--by", "packet", "-c", "1")[0]
    assert {"number", "time_ns", "src", "dst", "sport", "dport", "proto", "action", "rule"} <= set(packet)


def test_all_formats_hold_the_same_rows(tmp_path: Path) -> None:
    lines = rows_of(*CLASSIFY, "-o", "ndjson")
    document = json.loads(run(*CLASSIFY, "-o", "json").stdout)
    assert document["rows"] == lines
    assert document["summary"]["total"]["flows"] == len(lines)
    cells = list(csv.DictReader(io.StringIO(run(*CLASSIFY, "-o", "csv").stdout)))
    assert [[c["src"], c["rule"], c["packets"]] for c in cells] == [
        [r["src"] or "", r["rule"] or "", str(r["packets"])] for r in lines
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run(*CLASSIFY, "-o", "parquet", "--output", str(tmp_path / "x.parquet")).returncode == 0
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == lines


def test_every_packet_is_in_the_summary_and_carries_the_verdict_of_its_flow() -> None:
    packets = rows_of(*CLASSIFY, "-o", "ndjson", "--by", "packet")
    summary = json.loads(run(*CLASSIFY, "-o", "json").stdout)["summary"]
    assert summary["total"]["packets"] == len(packets) == 4165
    by_action = Counter(str(p["action"]) for p in packets)
    assert by_action == {action: count["packets"] for action, count in summary["verdicts"].items()}


def test_upper_and_lower_mode_bracket_strict() -> None:
    strict = rows_of(*CLASSIFY, "-o", "ndjson")
    upper, lower = (rows_of(*CLASSIFY, "-o", "ndjson", "--mode", mode) for mode in ("upper", "lower"))
    for s, u, w in zip(strict, upper, lower, strict=True):
        assert (w["action"] == "ALLOW") <= (u["action"] == "ALLOW")
        assert s["action"] == "UNDECIDED" or s["action"] == u["action"] == w["action"]


def test_what_has_no_row_is_said_on_standard_error() -> None:
    done = run(*CLASSIFY, "-o", "ndjson")
    assert "3 packets not decided: no IP: no layer judges such frames" in done.stderr


def broken_capture(tmp_path: Path) -> Path:
    """The demo's first packets, then a record whose length cannot be."""
    data = (ROOT / CAPTURE).read_bytes()
    end = 24
    for _ in range(5):
        end += 16 + struct.unpack_from("<I", data, end + 8)[0]
    path = tmp_path / "broken.pcap"
    path.write_bytes(data[:end] + struct.pack("<IIII", 1, 0, 2**31, 2**31))
    return path


def test_a_capture_that_ends_badly_gives_its_rows_then_the_reason_and_status_2(tmp_path: Path) -> None:
    path = broken_capture(tmp_path)
    done = run("classify", "-r", str(path), *POLICIES, "-o", "ndjson", "--by", "packet")
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 5
    assert "broken.pcap: 5 packets read, then " in done.stderr
    assert "at byte " in done.stderr


def test_a_strict_capture_leaves_no_file(tmp_path: Path) -> None:
    path = broken_capture(tmp_path)
    out = tmp_path / "out.csv"
    words = ["classify", "-r", str(path), *POLICIES, "-o", "csv", "--output", str(out)]
    assert run(*words, "--strict-capture").returncode == 2
    assert not out.exists()
    assert run(*words).returncode == 2
    assert out.exists()


ERRORS = [
    # what it shows              words                                                             said
    ("no such capture", ["classify", "-r", "nowhere.pcap", *POLICIES], "nowhere.pcap"),
    ("no such policy", ["classify", "-r", CAPTURE, "-p", "nowhere.json"], "nowhere.json"),
    ("no such second policy", [*CLASSIFY, "nowhere.rules"], "nowhere.rules"),
    ("a capture as policy", ["classify", "-r", CAPTURE, "-p", CAPTURE], "demo.pcap"),
    ("a policy as capture", ["classify", "-r", "examples/demo/nsx.json", *POLICIES], "nsx.json"),
    ("a filter that is none", [*CLASSIFY, "tcp and nonsense ("], "nonsense"),
    ("two filters", ["classify", "-r", CAPTURE, "tcp", *POLICIES, "udp"], "neither a file nor"),
    ("a folder that is not there", [*CLASSIFY, "-o", "csv", "--output", "/nowhere/x.csv"], "/nowhere/x.csv"),
    ("a packet that is none", ["explain", *POLICIES, "tcp 10.0.0.1"], "is not a packet"),
    ("no packet", ["explain", *POLICIES], "which packet?"),
    ("an address with too many dots", ["explain", *POLICIES, "tcp 1.2.3.4.5:1 > 1.2.3.4:2"], "1.2.3.4.5"),
    ("a port too large", ["explain", *POLICIES, "tcp 1.2.3.4:1 > 1.2.3.4:65536"], "65536"),
    ("mixed versions", ["explain", *POLICIES, "udp 1.2.3.4 > ::1"], "differ in IP version"),
    ("a count of nothing", [*CLASSIFY, "-c", "0"], "positive"),
]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_slow_reader_gets_every_row(unbuffered: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "meshsieve", *CLASSIFY, "--by", "packet", "-o", "ndjson"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": unbuffered},
    )
    assert child.stdout is not None
    assert sum(1 for _ in child.stdout) == 4165
    assert child.wait(60) == 0


@pytest.mark.parametrize(("words", "said"), [c[1:] for c in ERRORS], ids=[c[0] for c in ERRORS])
def test_errors_name_what_is_wrong_and_end_with_2(words: list[str], said: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "meshsieve", *CLASSIFY, "--by", "packet", "-o", "ndjson"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read().count(b"Traceback") == 0
    assert child.wait(60) == 141


def test_a_capture_may_come_from_standard_input() -> None:
    with open(CAPTURE, "rb") as capture:
        done = subprocess.run(
            [sys.executable, "-m", "meshsieve", "flows", "-r", "-", "-o", "ndjson"],
            stdin=capture,
            capture_output=True,
            timeout=60,
            check=False,
            env=ENVIRONMENT,
        )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 189)


def test_hostile_file_names_are_shown_escaped(tmp_path: Path) -> None:
    name = tmp_path / "\x1b[31mred\nline.pcap"
    done = run("flows", "-r", str(name))
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\\x1b[31mred" in done.stderr


def test_convert_names_every_rule_and_set() -> None:
    document = json.loads(run("convert", *POLICIES).stdout)
    assert document["schema"] == "meshsieve.rules/1"
    assert [layer["name"].split()[0] for layer in document["layers"]] == ["nsx-dfw", "iptables"]
    numbers = range(len(document["sets"]))
    for layer in document["layers"]:
        for point in layer["points"]:
            for index, rule in enumerate(point["rules"]):
                assert rule["index"] == index
                assert rule["source"]["file"]
                for match in (rule["match"], *rule["alternatives"]):
                    assert all(number in numbers for number in match.values())


def test_convert_writes_a_file(tmp_path: Path) -> None:
    out = tmp_path / "rules.json"
    done = run("convert", *POLICIES, "-o", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads(out.read_text())["schema"] == "meshsieve.rules/1"


def test_doctor_says_what_is_there() -> None:
    known = json.loads(run("doctor", "--json").stdout)
    assert {"meshsieve", "python", "numpy", "engines", "backends", "extras"} <= set(known)
