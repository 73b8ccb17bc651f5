"""What the rules of each family look like: the numbers behind benches/classbench.py.

The twelve names are those of the ClassBench literature (Taylor and Turner, ClassBench: A Packet Classification
Benchmark, IEEE/ACM Transactions on Networking, 2007): acl = access lists, fw = firewalls, ipc = IP chains. The
*parameters* of that paper are used (pairs of prefix lengths, port classes WC HI LO AR EM, protocol mix, branching and
skew of the address trees); the *values* are our own, set by what such rule bases hold in general. They are not taken
from its seed files, which may not be shipped. benches/README.md compares the outcome with sets ClassBench generated.
"""

from __future__ import annotations

from dataclasses import dataclass

# Prefix lengths by kind of address: length -> weight.
LENGTHS: dict[str, dict[int, float]] = {
    "any": {0: 1.0},
    "half": {0: 2.0, 1: 1.0, 2: 0.15},
    "site": {12: 0.3, 14: 0.7, 15: 1.4, 16: 3.0, 17: 2.0, 18: 0.6},
    "net": {20: 0.3, 21: 1.0, 22: 3.0, 23: 4.5, 24: 5.0, 25: 2.5, 26: 1.2},
    "subnet": {26: 0.8, 27: 1.2, 28: 1.0, 29: 1.2, 30: 2.6},
    "host": {30: 0.7, 31: 3.0, 32: 6.0},
}


@dataclass(frozen=True)
class Tree:
    """The tree of prefixes in which one side's addresses lie.

    distinct  (scale, power): about scale * n ** power different addresses are in use by n rules
    octets    how the branching is spread over the four octets of an address
    skew      0: both children of a branching node get equally many rules; towards 1: one gets nearly all
    """

    distinct: tuple[float, float]
    octets: tuple[float, float, float, float]
    skew: float


@dataclass(frozen=True)
class Family:
    """One kind of rule base.

    lengths   (kind of source, kind of destination) -> weight
    ports     (protocol or -1, class of source port, class of destination port) -> weight, classes as in ClassBench:
              W any, H 1024-65535, L 0-1023, A some range, E one port
    exact     how many different single ports are in use, (source, destination)
    ranges    how many different ranges are in use, (source, destination)
    """

    lengths: dict[tuple[str, str], float]
    ports: dict[tuple[int, str, str], float]
    exact: tuple[int, int]
    ranges: tuple[int, int]
    source: Tree
    destination: Tree


_ACL_LENGTHS = {
    ("host", "host"): 60,
    ("host", "net"): 15,
    ("net", "host"): 11,
    ("subnet", "host"): 5,
    ("host", "subnet"): 4,
    ("host", "site"): 3,
    ("host", "half"): 1,
    ("any", "host"): 1,
}
_ACL_PORTS = {
    (6, "W", "E"): 56,
    (6, "W", "W"): 20,
    (6, "W", "A"): 11,
    (-1, "W", "W"): 8,
    (1, "W", "W"): 3,
    (17, "W", "E"): 2,
}
_FW_LENGTHS = {
    ("half", "host"): 60,
    ("host", "half"): 18,
    ("subnet", "half"): 7,
    ("host", "host"): 6,
    ("net", "half"): 5,
    ("half", "net"): 2,
    ("half", "half"): 2,
}
_FW_PORTS = {
    (6, "W", "E"): 38,
    (17, "W", "E"): 20,
    (6, "E", "W"): 8,
    (6, "W", "W"): 9,
    (17, "H", "H"): 6,
    (47, "W", "W"): 5,
    (1, "W", "W"): 5,
    (17, "E", "E"): 3,
    (6, "H", "E"): 2,
    (17, "E", "H"): 2,
    (6, "W", "A"): 1,
    (-1, "W", "W"): 1,
}
_IPC_LENGTHS = {
    ("net", "net"): 24,
    ("net", "host"): 23,
    ("host", "host"): 14,
    ("host", "net"): 12,
    ("half", "host"): 6,
    ("site", "net"): 5,
    ("subnet", "net"): 4,
    ("half", "net"): 4,
    ("net", "site"): 4,
    ("site", "site"): 2,
    ("host", "half"): 1.5,
    ("any", "any"): 0.01,
}
_IPC_PORTS = {
    (-1, "W", "W"): 30,
    (17, "W", "E"): 20,
    (6, "W", "E"): 16,
    (17, "E", "W"): 10,
    (6, "W", "W"): 7,
    (6, "E", "W"): 5,
    (17, "W", "H"): 5,
    (17, "W", "A"): 2,
    (17, "A", "W"): 2,
    (1, "W", "W"): 1.3,
    (6, "E", "E"): 0.7,
    (50, "W", "W"): 0.3,
}


def _more(base: dict, **changes: float) -> dict:
    """``base`` with some weights changed; a key of two kinds is written source_destination."""
    return {**base, **{tuple(name.split("_")): weight for name, weight in changes.items()}}


FAMILIES: dict[str, Family] = {
    # Access lists between a few server networks and many clients; one service a rule.
    "acl1": Family(
        _ACL_LENGTHS,
        _ACL_PORTS,
        (1, 100),
        (1, 6),
        Tree((0.03, 1.15), (1, 5, 4, 6), 0.5),
        Tree((40, 0.15), (2, 3, 2, 5), 0.5),
    ),
    # The same with many half-open rules, and ranges on both sides: the hardest of the access lists for trees.
    "acl2": Family(
        _more(_ACL_LENGTHS, host_half=11, half_host=11, any_net=6, net_any=5, half_half=1, host_host=30),
        {**_ACL_PORTS, (17, "W", "A"): 9, (6, "H", "E"): 6, (17, "A", "E"): 3},
        (12, 70),
        (8, 22),
        Tree((0.5, 0.86), (1, 4, 4, 4), 0.5),
        Tree((0.5, 0.84), (1, 4, 4, 4), 0.5),
    ),
    # Backbone lists: networks against networks with many service ranges.
    "acl3": Family(
        _more(_ACL_LENGTHS, net_net=22, site_net=9, net_site=7, host_host=28, half_net=2),
        {**_ACL_PORTS, (6, "W", "H"): 6, (17, "W", "A"): 5, (6, "A", "E"): 2},
        (10, 160),
        (10, 40),
        Tree((0.5, 0.9), (2, 4, 4, 4), 0.4),
        Tree((0.6, 0.9), (2, 4, 4, 4), 0.4),
    ),
    "acl4": Family(
        _more(_ACL_LENGTHS, net_net=16, site_net=5, net_site=5, host_host=38, any_host=3),
        {**_ACL_PORTS, (6, "W", "H"): 8, (17, "W", "E"): 9, (6, "A", "E"): 1},
        (8, 190),
        (8, 30),
        Tree((0.5, 0.92), (1, 4, 4, 4), 0.6),
        Tree((0.6, 0.88), (1, 4, 4, 4), 0.6),
    ),
    # Host pairs only: the easiest.
    "acl5": Family(
        {("host", "host"): 80, ("host", "net"): 12, ("subnet", "host"): 8},
        {(6, "W", "E"): 70, (17, "W", "E"): 14, (6, "W", "A"): 10, (1, "W", "W"): 6},
        (1, 40),
        (1, 10),
        Tree((2.0, 0.8), (1, 3, 4, 6), 0.4),
        Tree((2.0, 0.7), (1, 3, 4, 6), 0.4),
    ),
    # Firewalls: most rules leave one side nearly open, so that hundreds overlap at any point.
    "fw1": Family(
        _FW_LENGTHS,
        _FW_PORTS,
        (8, 36),
        (3, 4),
        Tree((0.3, 0.97), (2, 5, 4, 3), 0.4),
        Tree((0.7, 1.0), (2, 6, 3, 3), 0.3),
    ),
    "fw2": Family(
        {("half", "host"): 72, ("any", "host"): 14, ("any", "net"): 8, ("host", "any"): 4, ("site", "host"): 2},
        {(6, "W", "E"): 30, (-1, "W", "W"): 36, (17, "W", "E"): 12, (6, "E", "W"): 14, (1, "W", "W"): 8},
        (9, 14),
        (1, 2),
        Tree((0.2, 0.9), (2, 5, 4, 3), 0.4),
        Tree((0.9, 1.0), (2, 5, 4, 5), 0.3),
    ),
    "fw3": Family(
        _more(_FW_LENGTHS, half_host=66, host_half=14, half_site=4, site_half=3),
        {**_FW_PORTS, (6, "W", "E"): 52, (17, "W", "A"): 4},
        (6, 30),
        (3, 9),
        Tree((0.3, 0.94), (3, 5, 3, 3), 0.5),
        Tree((0.7, 1.0), (3, 5, 3, 3), 0.4),
    ),
    # Both sides in use, and many port ranges on both.
    "fw4": Family(
        _more(_FW_LENGTHS, half_host=38, host_half=34, site_half=4, half_site=4),
        {**_FW_PORTS, (6, "H", "E"): 8, (6, "E", "H"): 6, (17, "A", "A"): 2, (17, "H", "A"): 3},
        (20, 30),
        (10, 16),
        Tree((0.6, 0.96), (2, 5, 4, 3), 0.4),
        Tree((0.6, 0.98), (2, 5, 4, 3), 0.4),
    ),
    "fw5": Family(
        _more(_FW_LENGTHS, half_host=50, host_half=24, half_half=4),
        {**_FW_PORTS, (17, "W", "H"): 8, (6, "A", "E"): 3},
        (12, 26),
        (6, 8),
        Tree((0.5, 0.96), (2, 5, 4, 3), 0.5),
        Tree((0.6, 0.98), (2, 5, 4, 3), 0.4),
    ),
    # IP chains: every pair of kinds occurs.
    "ipc1": Family(
        _IPC_LENGTHS,
        _IPC_PORTS,
        (22, 40),
        (8, 10),
        Tree((0.2, 0.92), (2, 4, 4, 3), 0.6),
        Tree((0.35, 0.95), (2, 4, 4, 4), 0.5),
    ),
    "ipc2": Family(
        {("half", "host"): 46, ("host", "half"): 36, ("any", "net"): 8, ("net", "any"): 6, ("host", "host"): 4},
        {(-1, "W", "W"): 62, (17, "W", "E"): 14, (6, "W", "E"): 10, (6, "E", "W"): 9, (1, "W", "W"): 5},
        (4, 10),
        (1, 1),
        Tree((0.5, 1.0), (2, 5, 4, 4), 0.3),
        Tree((0.5, 1.0), (2, 5, 4, 4), 0.3),
    ),
}
