"""Sets made to hurt: each is the worst case of a class of structures (benches/README.md says which)."""

from __future__ import annotations

import numpy as np

from benches.boxes import LARGEST, Boxes


def short_prefixes(n: int = 2_000, seed: int = 3) -> Boxes:
    """Prefixes of 1 to 8 bits on both sides and random port ranges: hundreds of rules overlap everywhere, so trees
    replicate and bit vectors are full."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [_prefixes(rng, n, 1, 8), _prefixes(rng, n, 1, 8), _ranges(rng, n), _ranges(rng, n), _protocols(rng, n)], axis=1
    )


def port_ranges(n: int = 2_000, seed: int = 3) -> Boxes:
    """Only port ranges tell the rules apart: hashing by prefix lengths does not help at all."""
    rng = np.random.default_rng(seed)
    return np.concatenate([_free(n, 0), _free(n, 1), _ranges(rng, n), _ranges(rng, n), _protocols(rng, n)], axis=1)


def length_pairs(n: int = 10_000, seed: int = 3) -> Boxes:
    """All 1,024 pairs of prefix lengths: as many hash tables for tuple space search."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [_prefixes(rng, n, 1, 32), _prefixes(rng, n, 1, 32), _free(n, 2), _free(n, 3), _protocols(rng, n)], axis=1
    )


def identical(n: int = 100_000, seed: int = 3) -> Boxes:
    """n times the same rule: nothing separates them, only the first can ever win."""
    rng = np.random.default_rng(seed)
    one = np.concatenate(
        [_prefixes(rng, 1, 16, 16), _prefixes(rng, 1, 24, 24), _free(1, 2), _ranges(rng, 1), _protocols(rng, 1)], axis=1
    )
    return np.repeat(one, n, axis=0)


def _prefixes(rng: np.random.Generator, n: int, shortest: int, longest: int) -> np.ndarray:
    low_bits = (np.uint64(1) << (np.uint64(32) - rng.integers(shortest, longest + 1, n).astype(np.uint64))) - np.uint64(
        1
    )
    address = rng.integers(0, 2**32, n, dtype=np.uint64)
    return np.stack([address & ~low_bits, address | low_bits], axis=1).astype(np.uint32)


def _ranges(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.sort(rng.integers(0, 65536, (n, 2)), axis=1).astype(np.uint32)


def _protocols(rng: np.random.Generator, n: int) -> np.ndarray:
    one = rng.choice([6, 17], n)
    free = rng.random(n) < 0.5
    return np.stack([np.where(free, 0, one), np.where(free, LARGEST[4], one)], axis=1).astype(np.uint32)


def _free(n: int, field: int) -> np.ndarray:
    return np.tile(np.array([0, LARGEST[field]], np.uint32), (n, 1))
