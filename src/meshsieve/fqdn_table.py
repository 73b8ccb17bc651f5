"""Which domain names an address had when: what DNS answers in a capture told.

What    For each address the names under which DNS servers gave it, each from the instant of the answer until its TTL
        has passed (one second at least). Aliases (CNAME) count as names of the address at the end of their chain.
Why     A rule about domain names is decided by the addresses that clients were given; the table is one for all clients,
        as NSX keeps one for a host.
Cost    A dictionary look-up an address and a walk over the few answers about it.
Limits  ``most`` names of addresses; beyond, the oldest answers are forgotten, and counted in ``forgotten``.
Source  NSX 4.0 documentation of FQDN filtering; RFC 1035, section 3.2.1 (TTL).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

_NS = 10**9
_LEAST_TTL_S = 1


class FqdnTable:
    """Names by address and time. ``forgotten`` counts answers that made room for later ones."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.forgotten = 0
        self._most = most
        # (version, address) -> [from, until, name], by the time of the answer
        self._names: dict[tuple[int, int], list[tuple[int, int, str]]] = {}
        self._order: deque[tuple[int, int]] = deque()

    def add(self, answers: Iterable[tuple[int, int, bytes, str]]) -> None:
        """Answers in capture order: (time in ns, TTL in s, address of 4 or 16 bytes, name in lower case)."""
        for time_ns, ttl_s, packed, name in answers:
            key = (4 if len(packed) == 4 else 6, int.from_bytes(packed, "big"))
            until = time_ns + max(ttl_s, _LEAST_TTL_S) * _NS
            known = self._names.setdefault(key, [])
            # An answer within the life of an earlier one prolongs it.
            for i, (start, end, its_name) in enumerate(known):
                if its_name == name and start <= time_ns <= end:
                    known[i] = (start, max(end, until), name)
                    break
            else:
                known.append((time_ns, until, name))
                self._order.append(key)
                if len(self._order) > self._most:
                    self._forget_oldest()

    def names(self, version: int, address: int, time_ns: int) -> tuple[str, ...]:
        """The names that the address had at an instant, in alphabetical order."""
        known = self._names.get((version, address), ())
        return tuple(sorted({name for start, until, name in known if start <= time_ns <= until}))

    def __len__(self) -> int:
        """Number of (address, name, time) entries."""
        return len(self._order)

    def _forget_oldest(self) -> None:
        key = self._order.popleft()
        known = self._names[key]
        known.pop(0)
        self.forgotten += 1
        if not known:
            del self._names[key]
