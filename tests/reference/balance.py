"""Envoy's balancing arithmetic, written a second time in plain Python, without the core and without speed.

Every function follows one paragraph of the written semantics (docs/balance.md); integers where Envoy has integers,
Python floats (doubles) where it has doubles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

MASK = 2**64 - 1


def rotl(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    p1, p2, p3, p4, p5 = (
        0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
    )  # fmt: skip

    def lane(acc: int, word: int) -> int:
        return rotl((acc + word * p2) & MASK, 31) * p1 & MASK

    i, n = 0, len(data)
    if n >= 32:
        acc = [(seed + p1 + p2) & MASK, (seed + p2) & MASK, seed, (seed - p1) & MASK]
        while i + 32 <= n:
            acc = [lane(a, int.from_bytes(data[i + 8 * k : i + 8 * k + 8], "little")) for k, a in enumerate(acc)]
            i += 32
        h = sum(rotl(a, bits) for a, bits in zip(acc, (1, 7, 12, 18), strict=True)) & MASK
        for a in acc:
            h = ((h ^ lane(0, a)) * p1 + p4) & MASK
    else:
        h = (seed + p5) & MASK
    h = (h + n) & MASK
    while i + 8 <= n:
        h = (rotl(h ^ lane(0, int.from_bytes(data[i : i + 8], "little")), 27) * p1 + p4) & MASK
        i += 8
    if i + 4 <= n:
        h = (rotl(h ^ (int.from_bytes(data[i : i + 4], "little") * p1 & MASK), 23) * p2 + p3) & MASK
        i += 4
    for byte in data[i:]:
        h = rotl(h ^ (byte * p5 & MASK), 11) * p1 & MASK
    h = (h ^ h >> 33) * p2 & MASK
    h = (h ^ h >> 29) * p3 & MASK
    return h ^ h >> 32


def murmur2(data: bytes, seed: int = 0xC70F6907) -> int:
    m, r = 0xC6A4A7935BD1E995, 47
    h = seed ^ (len(data) * m & MASK)
    whole = len(data) // 8 * 8
    for i in range(0, whole, 8):
        k = int.from_bytes(data[i : i + 8], "little") * m & MASK
        k = (k ^ k >> r) * m & MASK
        h = (h ^ k) * m & MASK
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & MASK
    h = (h ^ h >> r) * m & MASK
    return h ^ h >> r


def maglev(keys: Sequence[str], weights: Sequence[float], size: int) -> list[int]:
    """Slot -> index into keys; weights are shares."""
    order = sorted(range(len(keys)), key=lambda i: keys[i].encode())
    offset = {i: xxh64(keys[i].encode(), 0) % size for i in order}
    skip = {i: xxh64(keys[i].encode(), 1) % (size - 1) + 1 for i in order}
    most = max(weights)
    target, following = dict.fromkeys(order, 0.0), dict.fromkeys(order, 0)
    table: dict[int, int] = {}
    iteration = 1
    while len(table) < size:
        for i in order:
            if len(table) == size:
                break
            if iteration * weights[i] < target[i]:
                continue
            target[i] += most
            while True:
                slot = (offset[i] + skip[i] * following[i]) % size
                following[i] += 1
                if slot not in table:
                    break
            table[slot] = i
        iteration += 1
    return [table[slot] for slot in range(size)]


def maglev_pick(table: Sequence[int], h: int, attempt: int = 0) -> int:
    if attempt > 0:
        h ^= (MASK - attempt + 1) & MASK
    return table[h % len(table)]


def ring(
    keys: Sequence[str], weights: Sequence[float], minimum: int, maximum: int, murmur: bool = False
) -> list[tuple[int, int]]:
    """(hash, index into keys) in the order of the circle."""
    hash_of = murmur2 if murmur else xxh64
    least = min(weights)
    scale = min(math.ceil(least * minimum) / least, float(maximum))
    entries, current, target = [], 0.0, 0.0
    for host, key in enumerate(keys):
        i = 0
        target += scale * weights[host]
        while current < target:
            entries.append((hash_of(f"{key}_{i}".encode()), host))
            i += 1
            current += 1
    return sorted(entries, key=lambda entry: entry[0])


def ring_pick(entries: Sequence[tuple[int, int]], h: int, attempt: int = 0) -> int:
    at = next((i for i, (hash_, _) in enumerate(entries) if hash_ >= h), 0)
    return entries[(at + attempt) % len(entries)][1]


def edf(weights: Sequence[int], picks: int) -> list[int]:
    """Deadlines as integers, scaled by the least common multiple of the weights."""
    scale = math.lcm(*weights)
    queue = [(scale // weight, order, host) for order, (host, weight) in enumerate(enumerate(weights))]
    out = []
    for insertion in range(len(weights), len(weights) + picks):
        first = min(queue)
        queue.remove(first)
        deadline, _, host = first
        queue.append((deadline + scale // weights[host], insertion, host))
        out.append(host)
    return out


def smooth(weights: Sequence[int], picks: int) -> list[int]:
    current = [0] * len(weights)
    out = []
    for _ in range(picks):
        current = [c + w for c, w in zip(current, weights, strict=True)]
        best = current.index(max(current))
        current[best] -= sum(weights)
        out.append(best)
    return out


def katran(hashes: Sequence[int], weights: Sequence[int], size: int) -> list[int]:
    def permuted(host: int, n: int) -> int:
        offset = murmur3_pair(hashes[host], 42, 0) % size
        skip = murmur3_pair(hashes[host], 2718281828, 2307) % (size - 1) + 1
        return (offset + n * skip) % size

    table: dict[int, int] = {}
    following = [0] * len(hashes)
    turns = list(weights)
    while len(table) < size:
        for host in range(len(hashes)):
            for _ in range(turns[host]):
                if len(table) == size:
                    break
                while permuted(host, following[host]) in table:
                    following[host] += 1
                table[permuted(host, following[host])] = host
            turns[host] = 1
    return [table[slot] for slot in range(size)]


def murmur3_pair(a: int, b: int, seed: int) -> int:
    """First word of MurmurHash3_x64_128 over the 16 bytes of a and b, little endian."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F

    def finish(k: int) -> int:
        k = (k ^ k >> 33) * 0xFF51AFD7ED558CCD & MASK
        k = (k ^ k >> 33) * 0xC4CEB9FE1A85EC53 & MASK
        return k ^ k >> 33

    h1 = seed ^ (rotl(a * c1 & MASK, 31) * c2 & MASK)
    h1 = ((rotl(h1, 27) + seed) * 5 + 0x52DCE729) & MASK
    h2 = seed ^ (rotl(b * c2 & MASK, 33) * c1 & MASK)
    h2 = ((rotl(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    h1, h2 = h1 ^ 16, h2 ^ 16
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    return (finish(h1) + finish(h2)) & MASK


def loads(
    levels: Sequence[tuple[int, int, int]], overprovisioning: int, threshold: int
) -> tuple[list[int], list[int], list[bool]]:
    """(healthy loads, degraded loads, panic) of (healthy, degraded, total) levels."""

    def available(hosts: int, total: int) -> int:
        return 0 if total == 0 else min(100, overprovisioning * hosts // total)

    healthy = [available(h, t) for h, _, t in levels]
    degraded = [available(d, t) for _, d, t in levels]
    norm = min(100, sum(healthy) + sum(degraded))
    panic = [norm != 100 and (Fraction(100 * (h + d), t) if t else 0) < threshold for h, d, t in levels]
    none = [0] * len(levels)
    total = sum(t for _, _, t in levels)
    if all(panic) and total:
        out = [100 * t // total for _, _, t in levels]
        out[[t > 0 for _, _, t in levels].index(True)] += 100 - sum(out)
        return out, none, panic
    if norm == 0:
        return [100, *none[1:]], none, panic
    left, healthy_loads, degraded_loads = 100, [], []
    for h in healthy:
        healthy_loads.append(min(left, h * 100 // norm))
        left -= healthy_loads[-1]
    for d in degraded:
        degraded_loads.append(min(left, d * 100 // norm))
        left -= degraded_loads[-1]
    if any(healthy):
        healthy_loads[[h > 0 for h in healthy].index(True)] += left
    else:
        degraded_loads[[d > 0 for d in degraded].index(True)] += left
    return healthy_loads, degraded_loads, panic


def choose_level(healthy: Sequence[int], degraded: Sequence[int], h: int) -> tuple[int, bool]:
    x, cumulative = h % 100 + 1, 0
    for is_degraded, column in ((False, healthy), (True, degraded)):
        for level, load in enumerate(column):
            cumulative += load
            if cumulative >= x:
                return level, is_degraded
    raise AssertionError("loads do not sum to 100")


class Mt19937:
    """32-bit Mersenne Twister (Matsumoto, Nishimura 1998), as std::mt19937 seeds it."""

    def __init__(self, seed: int) -> None:
        self.state = [seed & 0xFFFFFFFF]
        for i in range(1, 624):
            previous = self.state[-1]
            self.state.append((1812433253 * (previous ^ previous >> 30) + i) & 0xFFFFFFFF)
        self.at = 624

    def next(self) -> int:
        if self.at == 624:
            for i in range(624):
                y = (self.state[i] & 0x80000000) | (self.state[(i + 1) % 624] & 0x7FFFFFFF)
                self.state[i] = self.state[(i + 397) % 624] ^ y >> 1 ^ (0x9908B0DF if y & 1 else 0)
            self.at = 0
        y = self.state[self.at]
        self.at += 1
        y ^= y >> 11
        y ^= y << 7 & 0x9D2C5680
        y ^= y << 15 & 0xEFC60000
        return (y ^ y >> 18) & 0xFFFFFFFF


def bounded(picked: int, weights: Sequence[float], active: Sequence[int], factor: int, h: int) -> int:
    total = ((sum(active) + 1) * factor + 99) // 100

    def overload(host: int) -> float:
        return active[host] / max(1, math.ceil(total * weights[host]))

    if overload(picked) <= 1:
        return picked
    draw, n = Mt19937(h), len(weights)
    index = list(range(n))
    best = picked
    for i in range(n):
        x = n - i
        while x >= n - i:
            x = draw.next() // (2**32 // (n - i))
        index[i], index[i + x] = index[i + x], index[i]
        host = index[i]
        if host == picked:
            continue
        if overload(host) <= 1:
            return host
        if overload(host) < overload(best):
            best = host
    return best


def combine(hashes: Sequence[int]) -> int | None:
    value: int | None = None
    for new in hashes:
        value = new if value is None else rotl(value, 1) ^ new
    return value
