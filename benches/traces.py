"""Headers to look up, in the manner of ``data/classbench``: uniform rule hits, a skewed trace, headers that miss."""

from __future__ import annotations

import numpy as np

from benches.boxes import LARGEST, Boxes, Headers


def uniform(boxes: Boxes, count: int, seed: int = 7) -> Headers:
    """uint32 (count, 5): each header lies in a rule drawn uniformly. Each field is the rule's low end with probability
    1/4, its high end with 1/4, else uniform within; where the rule leaves the protocol free it is TCP, UDP or ICMP with
    0.6, 0.3, 0.1. No locality at all: harder than real traffic."""
    rng = np.random.default_rng(seed)
    chosen = boxes[rng.integers(0, len(boxes), count)].astype(np.int64)
    low, high = chosen[:, 0::2], chosen[:, 1::2]
    inside = low + np.floor(rng.random((count, 5)) * (high - low + 1)).astype(np.int64)
    corner = rng.random((count, 5))
    headers = np.where(corner < 0.25, low, np.where(corner < 0.5, high, inside))
    free = (low[:, 4] == 0) & (high[:, 4] == LARGEST[4])
    headers[:, 4] = np.where(free, rng.choice([6, 17, 1], count, p=[0.6, 0.3, 0.1]), headers[:, 4])
    return headers.astype(np.uint32)


def zipf_order(count: int, s: float, seed: int = 11) -> np.ndarray:
    """int64 (count,): rows of a trace of ``count`` headers, resampled so that the header of rank r has weight 1/r^s
    after one shuffle. The expected verdicts are resampled by the same rows."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(count)
    cumulative = np.cumsum(1 / np.arange(1, count + 1) ** s)
    return shuffled[np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")]


def mixed(boxes: Boxes, count: int, seed: int = 13) -> Headers:
    """uint32 (count, 5): every field by itself, from the ends of a random rule, one beyond them, or anywhere. Most
    headers lie in no narrow rule, many in none: what a scan or an attack looks like."""
    rng = np.random.default_rng(seed)
    headers = np.empty((count, 5), np.uint32)
    for f in range(5):
        ends = boxes[rng.integers(0, len(boxes), count), 2 * f + rng.integers(0, 2, count)].astype(np.int64)
        near = np.clip(ends + rng.integers(-1, 2, count), 0, LARGEST[f])
        anywhere = rng.integers(0, int(LARGEST[f]) + 1, count)
        headers[:, f] = np.where(rng.random(count) < 0.7, near, anywhere)
    return headers
