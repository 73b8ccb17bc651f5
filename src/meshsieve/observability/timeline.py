"""Traffic over time, in a bounded number of bins however long the capture.

What     Each flow's volume is spread evenly between its first and its last packet. Bins are a power of two of
         nanoseconds wide; when the time covered outgrows their number, neighbours are joined and the width doubles.
Cost     per batch a few passes over its flows; memory is series x bins numbers.
Limits   Even spreading is an assumption about flows, not a measurement; totals are exact.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FIRST_WIDTH = 1 << 20  # ns, about a millisecond
_SHORTEST = 1e-5  # bins; a shorter flow is wholly in the bin where it starts, since its slope would lose digits


class Timeline:
    """``n_series`` amounts over time, in at most ``n_bins`` bins (an even number)."""

    def __init__(self, n_series: int, n_bins: int = 240) -> None:
        self._bins = np.zeros((n_series, n_bins))
        self.width_ns = _FIRST_WIDTH
        self._origin = 0  # index of the first bin: its time / width_ns
        self._span: tuple[int, int] | None = None  # first and last time so far

    def add(
        self,
        series: npt.NDArray[np.integer],
        first_ns: npt.NDArray[np.int64],
        last_ns: npt.NDArray[np.int64],
        amount: npt.NDArray[np.integer],
    ) -> None:
        """series (n,): below n_series; first_ns, last_ns (n,); amount (n,)."""
        if not len(series):
            return
        self._cover(int(first_ns.min()), int(last_ns.max()))
        n_bins = self._bins.shape[1]
        start = self._place(first_ns)
        end = np.maximum(self._place(last_ns), start)
        for one in np.unique(series):
            rows = series == one
            self._bins[one] += _spread(start[rows], end[rows], amount[rows].astype(float), n_bins)

    def _place(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Times in bins from the first one; never rounded into the next bin."""
        number, rest = np.divmod(times, self.width_ns)
        number = (number - self._origin).astype(np.float64)
        placed: npt.NDArray[np.float64] = np.minimum(number + rest / self.width_ns, np.nextafter(number + 1.0, 0.0))
        return placed

    def bins(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Start of each bin in ns, int64 (b,), and amounts, float64 (n_series, b), over the time that was covered."""
        if self._span is None:
            return np.zeros(0, np.int64), np.zeros((len(self._bins), 0))
        first, last = (time // self.width_ns for time in self._span)
        part = slice(first - self._origin, last + 1 - self._origin)
        return np.arange(first, last + 1) * self.width_ns, self._bins[:, part]

    def _cover(self, first: int, last: int) -> None:
        if self._span is None:
            self._origin = first // self.width_ns
        else:
            first, last = min(first, self._span[0]), max(last, self._span[1])
        self._span = first, last
        n_bins = self._bins.shape[1]
        while last // self.width_ns - first // self.width_ns >= n_bins:
            self._halve()
        low, high = first // self.width_ns, last // self.width_ns
        if low < self._origin or high >= self._origin + n_bins:
            self._shift(low)

    def _halve(self) -> None:
        bins = np.pad(self._bins, ((0, 0), (1, 1))) if self._origin % 2 else self._bins
        pairs = bins.reshape(len(bins), -1, 2).sum(axis=2)
        self._bins = np.pad(pairs, ((0, 0), (0, self._bins.shape[1] - pairs.shape[1])))
        self._origin //= 2  # of an odd origin, the bin before it
        self.width_ns *= 2

    def _shift(self, low: int) -> None:
        """Makes ``low`` the first bin; what is used so far has room from there on."""
        by, n_bins = self._origin - low, self._bins.shape[1]
        moved = np.zeros_like(self._bins)
        if abs(by) < n_bins:
            moved[:, max(by, 0) : n_bins + min(by, 0)] = self._bins[:, max(-by, 0) : n_bins - max(by, 0)]
        self._bins, self._origin = moved, low


def _spread(
    start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], amount: npt.NDArray[np.float64], n_bins: int
) -> npt.NDArray[np.float64]:
    """Amounts by bin, of flows from ``start`` to ``end`` (in bins). A flow is a ramp of what has been sent up to a
    time; the sum of ramps at the edges needs only, for each edge, the slopes that began or ended before it."""
    short = (np.floor(start) == np.floor(end)) | (end - start < _SHORTEST)
    out = np.bincount(start[short].astype(np.intp), weights=amount[short], minlength=n_bins)
    slope = amount[~short] / (end[~short] - start[~short])
    sent = np.zeros(n_bins + 1)
    for times, sign in ((start[~short], 1.0), (end[~short], -1.0)):
        edge = np.ceil(times).astype(np.intp)  # the first edge that is not before
        slopes = np.cumsum(np.bincount(edge, weights=slope, minlength=n_bins + 1)[: n_bins + 1])
        offsets = np.cumsum(np.bincount(edge, weights=slope * times, minlength=n_bins + 1)[: n_bins + 1])
        sent += sign * (np.arange(n_bins + 1) * slopes - offsets)
    rising: npt.NDArray[np.float64] = np.maximum(np.diff(sent), 0.0)  # below 0 is rounding
    return rising + out
