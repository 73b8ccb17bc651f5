"""IP protocol numbers and the names that results use."""

from __future__ import annotations

# Names of protocols that traffic commonly shows (IANA protocol numbers); every other one is "ip-N".
_NAMES = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    89: "ospf",
    103: "pim",
    112: "vrrp",
    132: "sctp",
    136: "udplite",
}

PROTOCOL_NAMES: tuple[str, ...] = tuple(_NAMES.get(number, f"ip-{number}") for number in range(256))
PROTOCOL_NUMBERS: dict[str, int] = {name: number for number, name in enumerate(PROTOCOL_NAMES)}

# Those whose header starts with two 16-bit ports.
WITH_PORTS = frozenset({6, 17, 33, 132, 136})
