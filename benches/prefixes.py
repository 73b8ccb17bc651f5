"""Routing tables and addresses to look up in them, for the longest-prefix table and its peers.

``table(version, n, seed)`` gives n different prefixes. The share of each prefix length is about that of the Internet's
tables (most of IPv4 is /24 with /19 to /23 behind, most of IPv6 /48 with /32 to /44), and prefixes cluster: one in
three lies inside an earlier one. Addresses: nine in ten inside a random prefix, the others anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benches.data import Case, Material

LENGTHS = {
    4: {8: 0.2, 12: 0.4, 16: 1.4, 18: 1.3, 19: 2.4, 20: 4, 21: 4.5, 22: 11, 23: 10, 24: 60, 28: 1.5, 32: 3.3},
    6: {20: 0.2, 28: 0.6, 29: 2.5, 32: 12, 36: 4, 40: 9, 44: 12, 46: 4, 47: 3, 48: 48, 56: 2, 64: 2, 128: 0.7},
}
NESTED = 1 / 3
INSIDE = 0.9

Words = npt.NDArray[np.uint64]  # (n, 2): high and low word of an address; IPv4 in the low 32 bits


def cases(sizes: list[int], addresses: int, versions: tuple[int, ...] = (4, 6)) -> Iterator[Case]:
    for version in versions:
        for n in sizes:
            facts = {"family": f"IPv{version} prefixes", "version": version, "asked": n, "seed": 1, "trace": "uniform"}
            name = f"prefixes_v{version}_{n // 1000}k"
            yield Case(name, "prefixes", facts, lambda v=version, n=n: _material(v, n, addresses))


def table(version: int, n: int, seed: int = 1) -> tuple[Words, npt.NDArray[np.int64]]:
    """uint64 (m, 2) networks and int64 (m,) lengths of m different prefixes, m <= n (duplicates are dropped)."""
    rng = np.random.default_rng([seed, version, n])
    weights = np.array(list(LENGTHS[version].values()))
    lengths = np.sort(rng.choice(list(LENGTHS[version]), n, p=weights / weights.sum()))
    networks = _anywhere(rng, n, version)
    inside = np.flatnonzero(rng.random(n) < NESTED)
    inside = inside[inside > 0]
    parents = (rng.random(len(inside)) * inside).astype(np.int64)  # an earlier, so not a longer, prefix
    outer = mask(lengths[parents], version)
    networks[inside] = networks[parents] & outer | networks[inside] & ~outer
    networks &= mask(lengths, version)
    rows = np.column_stack([networks, lengths.astype(np.uint64)])
    _, first = np.unique(rows, axis=0, return_index=True)
    order = rng.permutation(first)
    return networks[order], lengths[order]


def mask(lengths: npt.NDArray[np.int64], version: int) -> Words:
    """uint64 (n, 2): network masks; for IPv4 of the low 32 bits alone."""

    def ones(bits: npt.NDArray[np.int64], of: int) -> npt.NDArray[np.uint64]:
        bits = np.clip(bits, 0, of)
        low = np.where(bits > 0, (np.uint64(1) << np.minimum(of - bits, 63).astype(np.uint64)) - np.uint64(1), 0)
        return np.where(bits > 0, np.uint64(2**of - 1) & ~low.astype(np.uint64), np.uint64(0))

    if version == 4:
        return np.column_stack([np.zeros(len(lengths), np.uint64), ones(lengths, 32)])
    return np.column_stack([ones(lengths, 64), ones(lengths - 64, 64)])


def longest(networks: Words, lengths: npt.NDArray[np.int64], addresses: Words, version: int) -> npt.NDArray[np.int32]:
    """int32 (m,): row of the longest prefix that holds each address, -1 for none. One pass a length, by definition."""
    found = np.full(len(addresses), -1, np.int32)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        keys = _packed(networks[rows])
        order = np.argsort(keys)
        wanted = _packed(addresses & mask(np.full(len(addresses), length), version))
        at = np.minimum(np.searchsorted(keys[order], wanted), len(rows) - 1)
        hit = keys[order][at] == wanted
        found[hit] = rows[order][at][hit]
    return found


def _material(version: int, n: int, count: int) -> Material:
    networks, lengths = table(version, n)
    rng = np.random.default_rng(7)
    addresses = _anywhere(rng, count, version)
    chosen = rng.integers(0, len(lengths), count)
    outer = mask(lengths[chosen], version)
    addresses = np.where((rng.random(count) < INSIDE)[:, None], networks[chosen] | addresses & ~outer, addresses)
    files = {
        "networks.u64": networks,
        "lengths.i64": lengths,
        "addresses.u64": addresses,
        "expected.i32": longest(networks, lengths, addresses, version),
    }
    return Material(files, {"rules": len(lengths), "headers": count})


def _anywhere(rng: np.random.Generator, n: int, version: int) -> Words:
    """IPv4: 1.0.0.0 to 223.255.255.255; IPv6: 2000::/3, as the Internet's unicast space is."""
    if version == 4:
        return np.column_stack([np.zeros(n, np.uint64), rng.integers(1 << 24, 224 << 24, n, dtype=np.uint64)])
    high = rng.integers(0x2 << 60, 0x4 << 60, n, dtype=np.uint64)
    return np.column_stack([high, rng.integers(0, 2**64, n, dtype=np.uint64)])


def _packed(words: Words) -> npt.NDArray[np.void]:
    """Both words as one value that sorts like the address."""
    return np.ascontiguousarray(words.astype(">u8")).view([("address", "S16")]).ravel()["address"]
