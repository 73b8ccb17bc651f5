"""The timeline as stacked areas: points of SVG polygons, one series a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from meshsieve.reports.page.model import SEVERITY, Times

WIDTH, HEIGHT, LEFT, BOTTOM = 1000, 190, 70, 24
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Area:
    verdict: str
    points: str
    packets: int


@dataclass(frozen=True, slots=True)
class Tick:
    position: float
    text: str


@dataclass(frozen=True, slots=True)
class TimelineChart:
    """Areas to be drawn in order; x ticks are times in UTC, y ticks packets a second."""

    width: int
    height: int
    areas: tuple[Area, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def timeline_chart(times: Times) -> TimelineChart:
    """The drawing; without areas where there is no traffic."""
    n = len(times.start_ns)
    names = [name for name in SEVERITY if name in times.series]
    seconds = times.width_ns / 1e9
    stacked = [0.0] * n
    tops = []
    for name in reversed(names):  # what is denied lies on top
        below = list(stacked)
        stacked = [a + b / seconds for a, b in zip(stacked, times.series[name], strict=True)]
        tops.append((name, below, list(stacked)))
    highest = max(stacked, default=0.0) or 1.0
    areas = tuple(
        Area(name, _polygon(below, above, highest), round(sum(times.series[name]))) for name, below, above in tops
    )
    return TimelineChart(WIDTH, HEIGHT + BOTTOM, areas, _x_ticks(times), _y_ticks(highest))


def _x(i: int, n: int) -> float:
    return round(LEFT + (WIDTH - LEFT) * i / max(n, 1), 1)


def _y(value: float, highest: float) -> float:
    return round(HEIGHT - (HEIGHT - 10) * value / highest, 1)


def _polygon(below: Sequence[float], above: Sequence[float], highest: float) -> str:
    """Steps: each bin is a flat piece."""
    n = len(above)
    upper = [f"{_x(i + side, n)},{_y(above[i], highest)}" for i in range(n) for side in (0, 1)]
    lower = [f"{_x(i + side, n)},{_y(below[i], highest)}" for i in reversed(range(n)) for side in (1, 0)]
    return " ".join(upper + lower)


def _x_ticks(times: Times) -> tuple[Tick, ...]:
    n = len(times.start_ns)
    if not n:
        return ()
    span = n * times.width_ns
    shape = "%H:%M:%S" if span < 86_400 * 10**9 else "%Y-%m-%d %H:%M"
    out = []
    for i in range(_TICKS):
        at = times.start_ns[0] + span * i // _TICKS
        out.append(Tick(round(LEFT + (WIDTH - LEFT) * i / _TICKS, 1), time_text(at, shape)))
    return tuple(out)


def _y_ticks(highest: float) -> tuple[Tick, ...]:
    return tuple(Tick(_y(highest * part / 4, highest), f"{highest * part / 4:,.3g}/s") for part in (0, 2, 4))


def time_text(ns: int, shape: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A time in UTC; times that no calendar holds as nanoseconds."""
    try:
        return datetime.fromtimestamp(ns // 10**9, UTC).strftime(shape)
    except (ValueError, OverflowError, OSError):
        return f"{ns} ns"
