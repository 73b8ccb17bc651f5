"""A packet's way through the hooks of a Linux host: which chains of which tables it meets, in order.

    from the host   OUTPUT of raw, mangle, nat, filter, security
    arriving        PREROUTING of raw, mangle, nat
    then            to the host INPUT of mangle, filter, security, nat; through it FORWARD of mangle, filter, security
    leaving         POSTROUTING of mangle, nat

A packet of the host to itself leaves by OUTPUT and arrives at INPUT. Source  iptables(8), the tables' hooks; Linux,
include/uapi/linux/netfilter_ipv4.h for the priorities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meshsieve.columns import PacketColumns
from meshsieve.model import ValueSet

_STATIONS = (
    ("OUTPUT", ("raw", "mangle", "nat", "filter", "security")),
    ("PREROUTING", ("raw", "mangle", "nat")),
    ("INPUT", ("mangle", "filter", "security", "nat")),
    ("FORWARD", ("mangle", "filter", "security")),
    ("POSTROUTING", ("mangle", "nat")),
)
# Hooks of a packet by what is asked for, where nobody knows who is local.
_HOOKS = {
    "FORWARD": ("PREROUTING", "FORWARD", "POSTROUTING"),
    "INPUT": ("PREROUTING", "INPUT"),
    "OUTPUT": ("OUTPUT", "POSTROUTING"),
}
_MULTICAST = ValueSet.addresses(["224.0.0.0/4", "ff00::/8"])


@dataclass(frozen=True, slots=True)
class HostWay:
    """Packets that meet one hook, told by their addresses. own, to_host: with broadcast and multicast in the latter."""

    hook: str
    own: ValueSet
    to_host: ValueSet

    def comes(self, headers: PacketColumns) -> npt.NDArray[np.bool_]:
        return self._meet(_inside(headers, "src_ip", self.own), _inside(headers, "dst_ip", self.to_host))

    def between(self, version: int, src: int, dst: int) -> bool:
        ends = self.own.contains(src, version), self.to_host.contains(dst, version)
        return bool(self._meet(np.array([ends[0]]), np.array([ends[1]]))[0])

    def sides(self, headers: PacketColumns) -> dict[str, npt.NDArray[np.object_]]:
        return {}

    def sides_between(self, version: int, src: int, dst: int) -> dict[str, str]:
        return {}

    def networks(self) -> tuple[ValueSet, ...]:
        return (self.own, self.to_host)

    def _meet(self, mine: npt.NDArray[np.bool_], here: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        return {
            "OUTPUT": mine,
            "PREROUTING": ~mine | here,
            "INPUT": here,
            "FORWARD": ~mine & ~here,
            "POSTROUTING": mine | ~here,
        }[self.hook]


def stations(local: tuple[ValueSet, ValueSet] | None, asked: str | None) -> Iterator[tuple[str, str, HostWay | None]]:
    """(table, hook, who comes) in the order of the way.

    local  the host's own and broadcast addresses; None: the hooks of ``asked`` (FORWARD), for every packet
    """
    hooks = _HOOKS.get(asked or "FORWARD", (asked,))
    for hook, tables in _STATIONS:
        way = None
        if local is not None and asked is None:
            way = HostWay(hook, local[0], local[0].union(local[1], _MULTICAST))
        elif hook not in hooks:
            continue
        for table in tables:
            yield table, hook, way


def _inside(headers: PacketColumns, name: str, values: ValueSet) -> npt.NDArray[np.bool_]:
    """bool (n,): packets whose address is one of the set."""
    n = len(headers)
    if name not in headers:
        return np.zeros(n, np.bool_)
    column = headers[name]
    out = np.zeros(n, np.bool_)
    if column.ndim == 1:
        for low, high in values.v4:
            out |= (column >= np.uint32(low)) & (column <= np.uint32(high))
        return out
    column = np.broadcast_to(column, (n, 2))
    versions = np.broadcast_to(headers["ip_ver"] if "ip_ver" in headers else np.full(n, 6, np.uint8), (n,))
    for span, family in ((values.v4, 4), (values.v6, 6)):
        for low, high in span:
            above = _at_least(column, low)
            out |= (versions == family) & above & ~_at_least(column, high + 1)
    return out


def _at_least(column: npt.NDArray[np.uint64], bound: int) -> npt.NDArray[np.bool_]:
    if bound >= 1 << 128:
        return np.zeros(len(column), np.bool_)
    high, low = np.uint64(bound >> 64), np.uint64(bound & (2**64 - 1))
    out: npt.NDArray[np.bool_] = np.logical_or(column[:, 0] > high, (column[:, 0] == high) & (column[:, 1] >= low))
    return out
