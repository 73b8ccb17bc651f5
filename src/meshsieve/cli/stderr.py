"""Everything that is not a result: findings, what was left out, progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from meshsieve.reports.escape import printable

if TYPE_CHECKING:
    from meshsieve.capture import CaptureReader
    from meshsieve.policy import Diagnostic
    from meshsieve.request_logs.batches import LogSource
    from meshsieve.summary import Summary

_SHOWN_DIAGNOSTICS = 20
_FIRST_AFTER_S = 0.5
_AGAIN_AFTER_S = 0.1


def warn(text: str) -> None:
    """One line on standard error."""
    print(f"meshsieve: {printable(text)}", file=sys.stderr)


def show_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """The first findings about a policy; notes are only counted."""
    shown = [d for d in diagnostics if d.level != "note"]
    for diagnostic in shown[:_SHOWN_DIAGNOSTICS]:
        warn(str(diagnostic))
    if len(shown) > _SHOWN_DIAGNOSTICS:
        warn(f"{len(shown) - _SHOWN_DIAGNOSTICS} more findings; meshsieve convert lists them all")


def show_open(summary: Summary) -> None:
    """What got no verdict, for outputs that have no room for it."""
    for reason, count in summary.open.items():
        what = f"{count.flows:,} flows with {count.packets:,} packets" if count.flows else f"{count.packets:,} packets"
        warn(f"{what} not decided: {reason}")
    for note in summary.notes:
        warn(note)


class Progress:
    """A line on a terminal's standard error, after half a second: packets, share of the file, speed.

    Pass it as ``progress`` to ``Engine.classify_pcap`` and ``classify_log``; leaving the block wipes the line.
    """

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()
        self._started = time.monotonic()
        self._next = self._started + _FIRST_AFTER_S
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def __call__(self, reader: CaptureReader | LogSource) -> None:
        now = time.monotonic()
        if not self._on or now < self._next:
            return
        self._next = now + _AGAIN_AFTER_S
        self._shown = True
        seconds = now - self._started
        from meshsieve.request_logs.batches import LogSource

        if isinstance(reader, LogSource):
            self._show(f"{reader.requests:,} requests, {reader.requests / seconds / 1e3:.1f} k/s")
            return
        text = f"{reader.packets_read:,} packets, {reader.packets_read / seconds / 1e6:.2f} M/s"
        if reader.size_bytes:
            share = min(1.0, reader.bytes_read / reader.size_bytes)
            filled = int(share * 24)
            text = f"[{'#' * filled}{'.' * (24 - filled)}] {share:4.0%}  {text}"
        self._show(text)

    def _show(self, text: str) -> None:
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()
