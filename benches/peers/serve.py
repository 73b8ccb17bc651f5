"""The Python end of the protocol in peer.h: what every peer written in Python shares."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TextIO

LONGEST_PASS_SECONDS = 0.4


class Answers:
    """The process's stdout, kept for answers; whatever a library prints goes to stderr."""

    def __init__(self) -> None:
        self._stream: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=self._stream, flush=True)

    def give_up(self, why: str) -> NoReturn:
        self.say({"unavailable": why})
        sys.exit(0)

    def serve(self, commands: dict[str, Callable[[int], dict[str, Any]]]) -> None:
        """Answer ``NAME [NUMBER]`` a line until stdin ends."""
        for line in sys.stdin:
            name, _, number = line.strip().partition(" ")
            try:
                self.say(commands[name](int(number or 0)))
            except Exception as error:  # the driver shows it in the row; a silent exit would say less
                self.give_up(f"{type(error).__name__} on '{name}': {error}")


def timed_passes(look_up: Callable[[], object], passes: int, headers: int) -> dict[str, Any]:
    """CPU nanoseconds per header of each pass."""
    ns = []
    for _ in range(passes):
        start = time.thread_time_ns()
        look_up()
        ns.append(round((time.thread_time_ns() - start) / headers, 3))
    return {"ns": ns}


def headers_a_pass(look_up: Callable[[int], object], total: int, probe: int = 256) -> int:
    """How many headers a pass of at most LONGEST_PASS_SECONDS can look up, judged by ``probe`` of them."""
    probe = min(total, probe)
    start = time.thread_time_ns()
    look_up(probe)
    affordable = int(LONGEST_PASS_SECONDS / ((time.thread_time_ns() - start) / 1e9 / probe + 1e-12)) + 1
    return min(affordable, total)


def reset_peak_rss() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss() -> int:
    """Highest resident set since the last reset, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
