"""On a terminal: colours unless NO_COLOR, cut to its width, a progress line that goes away; interruption."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshsieve.cli import stderr
from tests.unit.test_cli_classify import POLICIES, ROOT
from tests.unit.test_cli_main import ENVIRONMENT

COMMAND = [sys.executable, "-m", "meshsieve", "classify", "-r", "examples/demo/demo.pcap", *POLICIES]


def on_terminal(columns: int, **environment: str) -> str:
    """The output of the command on a pseudo-terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        COMMAND,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "", **environment},
    )
    os.close(theirs)
    out = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        out += piece
    os.close(ours)
    assert child.wait(60) == 0
    return out.decode()


def test_verdicts_are_coloured_and_lines_fit() -> None:
    out = on_terminal(100)
    assert "\x1b[31mDROP\x1b[0m" in out
    assert "\x1b[32mALLOW\x1b[0m" in out
    plain = re.sub(r"\x1b\[\d+m", "", out)
    assert "\x1b" not in plain
    tables = [line for line in plain.splitlines() if not line.startswith("(")]
    assert max(map(len, tables)) <= 100


def test_no_color_is_obeyed() -> None:
    assert "\x1b" not in on_terminal(100, NO_COLOR="1")


class FakeReader:
    packets_read = 1000
    bytes_read = 50
    size_bytes = 100


def test_progress_shows_after_half_a_second_and_is_wiped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(stderr.time, "monotonic", lambda: now)
    with stderr.Progress() as progress:
        now = 100.4
        progress(FakeReader())  # type: ignore[arg-type]
        assert capsys.readouterr().err == ""
        now = 100.6
        progress(FakeReader())  # type: ignore[arg-type]
        assert " 50%  1,000 packets" in capsys.readouterr().err
    assert capsys.readouterr().err == "\r\x1b[K"


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with stderr.Progress() as progress:
        time.sleep(0.6)
        progress(FakeReader())  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_an_interrupted_run_ends_quietly_and_leaves_no_file(tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    words = [sys.executable, "-m", "meshsieve", "classify", "-r", "-", *POLICIES, "-o", "ndjson", "--output", str(out)]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT)
    assert child.stdin is not None
    assert child.stderr is not None
    child.stdin.write((ROOT / "examples/demo/demo.pcap").read_bytes()[:100_000])
    child.stdin.flush()
    waiting_until = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < waiting_until:
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    said = child.stderr.read()
    assert child.wait(60) == 130
    assert said == b"meshsieve: interrupted\n"
    assert list(tmp_path.iterdir()) == []
    child.stdin.close()
