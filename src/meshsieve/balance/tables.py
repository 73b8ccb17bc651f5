"""Exact balancers over one list of hosts: the same hash goes to the same host for ever.

Each is immutable. ``pick(hash)`` and ``pick_batch(hashes)`` (uint64 (n,) -> int32 (n,)) answer an index into ``hosts``;
``pick_key`` and ``pick_keys`` hash first. To change hosts, build another and swap the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve._fast_balance import Picker
from meshsieve.balance.hosts import Host, Hosts, Locality, Shares, equal_or_weighted, locality_weighted, some_hosts
from meshsieve.balance.keys import hash_key, hash_keys
from meshsieve.errors import BalanceError

Indices = npt.NDArray[np.int32]
MAGLEV_TABLE_SIZE = 65537
RING_MINIMUM = 1024
RING_MAXIMUM = 8388608


class HashBalancer(Picker):
    """Shared by every exact balancer: hosts and keys around a frozen table of the core."""

    hosts: tuple[Host, ...]
    answer_class = "exact"

    def __init__(self, hosts: tuple[Host, ...], table: _core.HostTable) -> None:
        self.hosts = hosts
        self.table = table
        self._use(table.capsule)

    def pick_key(self, key: str | bytes) -> int:
        """``pick`` for the xxHash64 of a key."""
        return self.pick(hash_key(key))

    def pick_keys(self, keys: Any) -> Indices:
        """``pick_batch`` for a key column; see ``keys.hash_keys``."""
        return self.pick_batch(hash_keys(keys))

    @property
    def bytes(self) -> int:
        """Memory of the table."""
        return self.table.bytes

    def __len__(self) -> int:
        return len(self.hosts)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.hosts)} hosts, {self.bytes} bytes>"


class Maglev(HashBalancer):
    """Envoy's Maglev (spec of the table: csrc/include/meshsieve/balance/maglev.h).

    hosts             texts like "10.0.0.1:80", (text, weight) pairs, a mapping to weights, or Host objects
    table_size        prime, at most 5,000,011
    locality_weights  weight of each locality, to weigh localities first and hosts inside them

    raises  BalanceError for no hosts, duplicates, a size that is not prime, or weights whose sum passes 2^32-1

    >>> Maglev([f"127.0.0.1:{port}" for port in range(90, 96)], table_size=7).slots.tolist()
    [2, 4, 0, 1, 5, 0, 3]
    """

    table: _core.MaglevTable

    def __init__(
        self,
        hosts: Hosts,
        table_size: int = MAGLEV_TABLE_SIZE,
        *,
        locality_weights: Mapping[Locality, int] | None = None,
    ) -> None:
        known = some_hosts(hosts)
        self.shares_built_from = shares_of(known, range(len(known)), locality_weights)
        super().__init__(known, maglev_table(self.shares_built_from, table_size))

    @property
    def slots(self) -> Indices:
        """int32 (table_size,): the host of every slot; ``pick(h)`` is ``slots[h % table_size]``."""
        return self.table.slots

    def pick_bounded(self, key_hash: int, active: Sequence[int], factor: int, attempt: int = 0) -> int:
        """The pick with bounded loads (``hash_balance_factor``); see ``pick_bounded``."""
        return pick_bounded(self.table, self.shares_built_from, key_hash, active, factor, attempt)


class RingHash(HashBalancer):
    """Envoy's ring hash (spec of the ring: csrc/include/meshsieve/balance/ring_hash.h).

    hash_function   "xx_hash" or "murmur_hash_2", for the entries only: keys are always hashed by xxHash64

    raises  BalanceError for no hosts, duplicates, minimum above maximum, or sizes beyond 8,388,608
    """

    table: _core.RingTable

    def __init__(
        self,
        hosts: Hosts,
        minimum_ring_size: int = RING_MINIMUM,
        maximum_ring_size: int = RING_MAXIMUM,
        hash_function: str = "xx_hash",
        *,
        locality_weights: Mapping[Locality, int] | None = None,
    ) -> None:
        known = some_hosts(hosts)
        self.shares_built_from = shares_of(known, range(len(known)), locality_weights)
        super().__init__(known, ring_table(self.shares_built_from, minimum_ring_size, maximum_ring_size, hash_function))

    @property
    def ring(self) -> tuple[npt.NDArray[np.uint64], Indices]:
        """Hashes of the entries, ascending, and the host of each."""
        return self.table.hashes, self.table.hosts

    def pick_bounded(self, key_hash: int, active: Sequence[int], factor: int, attempt: int = 0) -> int:
        """The pick with bounded loads (``hash_balance_factor``); see ``pick_bounded``."""
        return pick_bounded(self.table, self.shares_built_from, key_hash, active, factor, attempt)


class KatranMaglev(HashBalancer):
    """Katran's Maglev, which differs from Envoy's in hash, order and the meaning of weights.

    hashes   the 64-bit hash that Katran's control plane keeps for each real; without them, the xxHash64 of the host's
             name stands in, and ``hash_assumed`` is true
    weight   turns in the first round of the filling only; 0 is not possible here

    ``pick`` takes the hash that the data plane computes of the packet.
    """

    table: _core.MaglevTable

    def __init__(
        self, hosts: Hosts, table_size: int = MAGLEV_TABLE_SIZE, *, hashes: Sequence[int] | None = None
    ) -> None:
        known = some_hosts(hosts)
        self.hash_assumed = hashes is None
        if hashes is None:
            hashes = [hash_key(host.key()) for host in known]
        super().__init__(known, _core.katran_table(list(hashes), [host.weight for host in known], table_size))

    @property
    def slots(self) -> Indices:
        """int32 (table_size,): the host of every slot."""
        return self.table.slots


class IpHash(HashBalancer):
    """NSX's IP_HASH: hash of the source address mod the total weight of the running servers, then cumulative weights.

    The hash that NSX uses is not published: ``pick_address`` uses xxHash64 of the packed address, so its answers are a
    stand-in (``hash_assumed``). With your own hash function, ``pick(hash)`` is exact.
    """

    hash_assumed = True

    def __init__(self, hosts: Hosts) -> None:
        known = some_hosts(hosts)
        super().__init__(known, _core.cumulative_table([host.weight for host in known]))

    def pick_address(self, packed: bytes) -> int:
        """The pick for a packed source address (4 or 16 bytes, network order)."""
        if len(packed) not in (4, 16):
            raise BalanceError(f"a packed address has 4 or 16 bytes, not {len(packed)}")
        return self.pick_key(packed)


class WeightedClusters(HashBalancer):
    """Envoy's traffic split: v mod total weight, then the first cumulative bound above it.

    clusters   name -> weight, or (name, weight) pairs; weight 0 is never picked
    ``pick(v)``: v is the random value (64 bits), or the request hash where the route uses its hash policy.

    raises  BalanceError for no clusters, duplicates, a total of 0 or above 2^32-1

    >>> split = WeightedClusters([("stable", 99), ("canary", 1)])
    >>> split.pick_name(98), split.pick_name(99), split.pick_name(100)
    ('stable', 'canary', 'stable')
    """

    def __init__(self, clusters: Mapping[str, int] | Sequence[tuple[str, int]]) -> None:
        pairs = tuple(clusters.items() if isinstance(clusters, Mapping) else clusters)
        self.names = tuple(name for name, _ in pairs)
        self.weights = tuple(weight for _, weight in pairs)
        if not pairs:
            raise BalanceError("no clusters: a split needs at least one")
        if len(set(self.names)) != len(self.names):
            raise BalanceError(f"a cluster is named twice among: {', '.join(self.names)}")
        for name, weight in pairs:
            if weight < 0:
                raise BalanceError(f"cluster {name} has weight {weight}; a weight is at least 0")
        super().__init__((), _core.cumulative_table(list(self.weights)))

    def pick_name(self, value: int) -> str:
        return self.names[self.pick(value)]

    @property
    def shares(self) -> dict[str, Fraction]:
        """Declared share of every cluster."""
        total = sum(self.weights)
        return {name: Fraction(weight, total) for name, weight in zip(self.names, self.weights, strict=True)}

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"WeightedClusters({list(zip(self.names, self.weights, strict=True))})"


def shares_of(
    hosts: Sequence[Host],
    ids: Sequence[int],
    locality_weights: Mapping[Locality, int] | None,
    *,
    use_hostname: bool = False,
) -> Shares:
    """Shares of hash tables: by host weight, or by locality first."""
    if locality_weights:
        return locality_weighted(hosts, ids, locality_weights, use_hostname=use_hostname)
    return equal_or_weighted(hosts, ids, use_hostname=use_hostname)


def maglev_table(shares: Shares, table_size: int) -> _core.MaglevTable:
    _check_size("table size", table_size)
    return _core.maglev_table(shares.keys, shares.weights, shares.ids, table_size)


def ring_table(shares: Shares, minimum: int, maximum: int, hash_function: str) -> _core.RingTable:
    if hash_function not in ("xx_hash", "murmur_hash_2"):
        raise BalanceError(f"no ring hash function is called '{hash_function}'; there are: xx_hash, murmur_hash_2")
    _check_size("minimum_ring_size", minimum)
    _check_size("maximum_ring_size", maximum)
    murmur2 = hash_function == "murmur_hash_2"
    return _core.ring_table(shares.keys, shares.weights, shares.ids, minimum, maximum, murmur2)


def pick_bounded(
    table: _core.HostTable, shares: Shares, key_hash: int, active: Sequence[int], factor: int, attempt: int = 0
) -> int:
    """Envoy's pick with bounded loads (``hash_balance_factor``).

    active   requests active now on each host, by index
    factor   percent of its fair share that a host may take, at least 100
    """
    if factor < 100:
        raise BalanceError(f"hash_balance_factor must be at least 100, not {factor}")
    return _core.pick_bounded(table, *shares, list(active), factor, key_hash, attempt)


def _check_size(name: str, value: int) -> None:
    if not 0 <= value < 2**32:
        raise BalanceError(f"{name} must be 0 to {2**32 - 1}, not {value}")
