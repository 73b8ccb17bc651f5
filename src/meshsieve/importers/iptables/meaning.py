"""What each match of an iptables rule says about a packet, as a condition over fields.

Every function here reads one option (``_READERS``). It returns a condition, raises ``UninterpretableError`` for what
depends on rate, time, content or data that was not given, and ``ValueError`` for a malformed value.

Semantics   iptables(8) and iptables-extensions(8). Two readings that are easily missed: an address keeps only the bits
            under its mask, so 10.0.0.5/24 is 10.0.0.0/24; and a port range given in falling order is swapped.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshsieve.importers.conditions import FALSE, TRUE, Condition, any_of, conjunction, constraint, negation, unknown
from meshsieve.importers.iptables.ipset import IpSet, UnreadableSetError
from meshsieve.importers.iptables.names import (
    CT_STATES,
    DSCP_CLASSES,
    ICMP_TYPES,
    ICMPV6_TYPES,
    NAT_STATES,
    PROTOCOLS,
    SERVICES,
    TCP_FLAGS,
    TOS_NAMES,
)
from meshsieve.importers.iptables.syntax import LIMIT, UNKNOWN, Option
from meshsieve.importers.iptables.targets import mark_and_mask
from meshsieve.importers.marks import Test
from meshsieve.model import NameCodes, ValueSet
from meshsieve.value_sets import parse_address_range

MULTIPORT_LIMIT = 15
# An address mask with holes stands for 2^holes ranges; beyond this the match is left uninterpreted.
_MASK_HOLES_LIMIT = 12
_MULTICAST = ValueSet.addresses(["224.0.0.0/4", "ff00::/8"])
# It notes the address, and matches every packet (Linux, net/netfilter/xt_recent.c).
_ONLY_REMEMBERS = re.compile(r"-m recent --set(?: --(?:name|mask) \S{1,64}| --rsource| --rdest){0,4}", re.ASCII)
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
GROUP_MACS = tuple(f"{high:x}{low:x}:" for high in range(16) for low in range(1, 16, 2))


class UninterpretableError(Exception):
    """A match that is well-formed but cannot be known offline; the message says why, ``hint`` what would help."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Context:
    """What the matches of a table are read with.

    family     4 or 6
    interfaces codes of the interface names of the table
    local      the host's own addresses, or None if not given
    broadcast  its broadcast addresses, or None
    sets       ipsets by name
    limits     what -m limit, which needs a clock, is taken for
    lenient    malformed values make their rule unknown
    macs       codes of the MAC addresses of the table
    """

    family: int
    interfaces: NameCodes = field(default_factory=NameCodes)
    local: ValueSet | None = None
    broadcast: ValueSet | None = None
    sets: Mapping[str, IpSet] = field(default_factory=dict)
    limits: Literal["unknown", "always_match", "never_match"] = "unknown"
    lenient: bool = False
    macs: NameCodes = field(default_factory=NameCodes)


def test_of(option: Option) -> Test | None:
    """The test of a register that ``-m mark`` and ``-m connmark`` are; None for any other option.

    raises  ValueError for a malformed value
    """
    register = {"mark": "mark", "connmark": "ct_mark"}.get(option.name)
    if register is None:
        return None
    value, mask = mark_and_mask(option.arguments[0])
    return Test(register, mask, frozenset({value}), option.negated, option.text)


def nat_test_of(option: Option) -> Test | None:
    """What ``--ctstate`` says of translations (SNAT, DNAT), beside its connection states; None: nothing."""
    if option.name != "ctstate":
        return None
    bits = sum({NAT_STATES[name] for name in option.arguments[0].upper().split(",") if name in NAT_STATES})
    return Test("ct_nat", bits, frozenset({0}), not option.negated, option.text) if bits else None


def condition_of(option: Option, context: Context) -> Condition:
    """The condition of one option, negation applied."""
    if option.name == UNKNOWN and _ONLY_REMEMBERS.fullmatch(option.text):
        return FALSE if option.negated else TRUE
    if option.name == UNKNOWN:
        raise UninterpretableError(f"'{option.text}' cannot be interpreted offline")
    condition = _READERS[option.name](option, context)
    if not option.negated:
        return condition
    negated = negation(condition)
    assert negated is not None  # one option has few terms
    return negated


def interface_pattern(option: Option) -> tuple[str, bool]:
    """(name, whether it is a prefix) of -i and -o."""
    name = option.arguments[0]
    return (name[:-1], True) if name.endswith("+") else (name, False)


def protocol_number(text: str) -> int | None:
    """None for every protocol. raises ValueError"""
    lower = text.lower()
    if lower in ("all", "0"):
        return None
    number = PROTOCOLS[lower] if lower in PROTOCOLS else _decimal(text, 255, "protocol")
    return number or None


def address_range(text: str, family: int) -> ValueSet:
    """One address of -s and -d, with an optional mask (a length or an address); bits outside the mask do not count.

    raises  ValueError for what is no address; UninterpretableError for host names and masks with many holes
    """
    address_text, slash, mask_text = text.partition("/")
    if family == 4 and slash and address_text.count(".") < 3:
        # iptables completes a short network, 10/8, on the right.
        address_text += ".0" * (3 - address_text.count("."))
    try:
        if "%" in address_text:
            raise ValueError("a zone")
        address = ipaddress.ip_address(address_text)
    except ValueError:
        if address_text and not any(c in address_text for c in ":/") and not address_text.replace(".", "").isdigit():
            raise UninterpretableError(f"'{address_text}' is a host name", "give its addresses") from None
        raise ValueError(f"'{text}' is not an IPv{family} address") from None
    if address.version != family:
        raise ValueError(f"'{text}' is not an IPv{family} address")
    bits = 32 if family == 4 else 128
    mask = _mask(mask_text, bits) if slash else (1 << bits) - 1
    spans = _masked(int(address) & mask, mask, bits)
    return ValueSet(spans) if family == 4 else ValueSet(v6=spans)


def _mask(text: str, bits: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 3:
        if int(text) > bits:
            raise ValueError(f"prefix length {text} is beyond {bits}")
        return ((1 << int(text)) - 1) << (bits - int(text))
    mask = ipaddress.ip_address(text)
    if mask.max_prefixlen != bits:
        raise ValueError(f"mask '{text}' is of the other family")
    return int(mask)


def _masked(base: int, mask: int, bits: int) -> tuple[tuple[int, int], ...]:
    """The values v with v & mask == base as ranges: one for each choice of the free bits above the mask's lowest."""
    everything = (1 << bits) - 1
    low_free = (mask & -mask) - 1 if mask else everything
    holes = [1 << i for i in range(bits) if (everything & ~mask & ~low_free) >> i & 1]
    if len(holes) > _MASK_HOLES_LIMIT:
        raise UninterpretableError("an address mask with so many holes is too many ranges")
    starts = [base]
    for hole in holes:
        starts += [start | hole for start in starts]
    return ValueSet.numbers(*((start, start | low_free) for start in starts)).v4


def _addresses(option: Option, context: Context, name: str) -> Condition:
    texts = option.arguments[0].split(",")
    if option.negated and len(texts) > 1:
        raise ValueError("a list of addresses cannot be negated")
    return constraint(**{name: ValueSet().union(*(address_range(t, context.family) for t in texts))})


def _range(option: Option, context: Context, name: str) -> Condition:
    text = option.arguments[0]
    version, low, high = parse_address_range(text if "-" in text else f"{text}-{text}")
    if version != context.family:
        raise ValueError(f"'{text}' is not of IPv{context.family}")
    return constraint(**{name: ValueSet(((low, high),)) if version == 4 else ValueSet(v6=((low, high),))})


def _protocol(option: Option, _: Context) -> Condition:
    number = protocol_number(option.arguments[0])
    if number is None:
        return TRUE
    return constraint(proto=ValueSet.numbers(number))


def _interface(option: Option, context: Context, name: str) -> Condition:
    text, is_prefix = interface_pattern(option)
    if is_prefix and not text:
        return TRUE
    codes = context.interfaces
    return constraint(**{name: codes.prefix(text) if is_prefix else codes.exact(text)})


def _fragment(_: Option, context: Context) -> Condition:
    if context.family == 6:
        raise ValueError("-f is an option of IPv4")
    return constraint(fragment=ValueSet.numbers(1))


def _port(text: str) -> int:
    return SERVICES[text] if text in SERVICES else _decimal(text, 0xFFFF, "port")


def _port_range(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    ends = (_port(low) if low else 0, (_port(high) if high else 0xFFFF) if colon else _port(low))
    return min(ends), max(ends)


def _ports(option: Option, _: Context, name: str) -> Condition:
    if not option.arguments[0]:
        raise ValueError("an empty port")
    return constraint(**{name: ValueSet.numbers(_port_range(option.arguments[0]))})


def _multiport(option: Option, _: Context, *names: str) -> Condition:
    texts = option.arguments[0].split(",")
    if sum(1 + (":" in text) for text in texts) > MULTIPORT_LIMIT:
        raise ValueError(f"more than {MULTIPORT_LIMIT} ports, a range counting as 2")
    for text in texts:
        low, colon, high = text.partition(":")
        if colon and _port(low) > _port(high):
            raise ValueError(f"'{text}' ends before it starts")
    values = ValueSet.numbers(*((_port_range(text)) for text in texts))
    return any_of(*(constraint(**{name: values}) for name in names))


def _flag_mask(text: str) -> int:
    mask = 0
    for name in text.split(","):
        if name.upper() not in TCP_FLAGS:
            raise ValueError(f"'{name}' is not a TCP flag; flags: {', '.join(TCP_FLAGS)}")
        mask |= TCP_FLAGS[name.upper()]
    return mask


def _tcp_flags(option: Option, _: Context) -> Condition:
    mask, wanted = (_flag_mask(text) for text in option.arguments)
    return _flags(mask, wanted)


def _flags(mask: int, wanted: int) -> Condition:
    return constraint(tcp_flags=ValueSet.numbers(*(flags for flags in range(256) if flags & mask == wanted)))


def _icmp(option: Option, _: Context, names: Mapping[str, tuple[int, int | None]], protocol: int) -> Condition:
    text = option.arguments[0]
    proto = ValueSet.numbers(protocol)
    # Even "any" looks at the ICMP header, which later fragments lack (seen in Linux: it does not match them).
    every = constraint(proto=proto, icmp_type=ValueSet.numbers((0, 255)))
    if text == "any":
        return every
    if text in names:
        number, code = names[text]
    else:
        type_text, slash, code_text = text.partition("/")
        number = _decimal(type_text, 255, "ICMP type")
        code = _decimal(code_text, 255, "ICMP code") if slash else None
        if number == 255 and not slash and protocol == 1:
            return every  # iptables writes type 255 for any
    types = {"icmp_type": ValueSet.numbers(number)}
    codes = {"icmp_code": ValueSet.numbers(code)} if code is not None else {}
    return constraint(proto=proto, **types, **codes)


def _state(option: Option, _: Context) -> Condition:
    """The connection states; what is said of translations is ``nat_test_of``'s."""
    numbers: list[int] = []
    for name in option.arguments[0].split(","):
        if name.upper() in CT_STATES:
            numbers.append(CT_STATES[name.upper()])
        elif name.upper() not in NAT_STATES or option.name != "ctstate":
            raise ValueError(f"'{name}' is not a connection state; states: {', '.join(CT_STATES)}")
    return constraint(ct_state=ValueSet.numbers(*numbers)) if numbers else FALSE


def _address_type(option: Option, context: Context, name: str) -> Condition:
    result = FALSE
    for kind in option.arguments[0].upper().split(","):
        if kind == "MULTICAST":
            values = _MULTICAST
        elif kind not in ("LOCAL", "BROADCAST", "UNICAST"):
            raise UninterpretableError(
                f"'{option.text}' depends on routes", "only LOCAL, BROADCAST, MULTICAST, UNICAST are read"
            )
        elif context.local is None or context.broadcast is None:
            raise UninterpretableError(
                f"'{option.text}' depends on the host's addresses", "give them as local_addresses"
            )
        elif kind == "LOCAL":
            values = context.local
        elif kind == "BROADCAST":
            values = context.broadcast
        else:
            values = context.local.union(context.broadcast, _MULTICAST).complement(name)
        result = any_of(result, constraint(**{name: values}))
    return result


def _set(option: Option, context: Context) -> Condition:
    name, directions = option.arguments
    if name not in context.sets:
        raise UninterpretableError(
            f"the content of set '{name}' is not known", "give the output of `ipset save` as a further file"
        )
    try:
        return context.sets[name].condition(directions.split(","))
    except UnreadableSetError as error:
        raise UninterpretableError(str(error)) from None


def _ttl(option: Option, _: Context) -> Condition:
    value = _decimal(option.arguments[0], 255, "TTL")
    ranges = {"ttl-eq": [(value, value)], "ttl-lt": [(0, value - 1)], "ttl-gt": [(value + 1, 255)]}[option.name]
    return constraint(ttl=ValueSet.numbers(*(r for r in ranges if r[0] <= r[1])))


def _length(option: Option, _: Context) -> Condition:
    low, colon, high = option.arguments[0].partition(":")
    first = _decimal(low or "0", 0xFFFF, "length")
    last = _decimal(high or "65535", 0xFFFF, "length") if colon else first
    return constraint(ip_length=ValueSet.numbers((first, last)))


def _dscp(option: Option, _: Context) -> Condition:
    return constraint(dscp=ValueSet.numbers(_integer(option.arguments[0], 63, "DSCP")))


def _dscp_class(option: Option, _: Context) -> Condition:
    name = option.arguments[0].upper()
    if name not in DSCP_CLASSES:
        raise ValueError(f"'{name}' is not a DSCP class; classes: {', '.join(DSCP_CLASSES)}")
    return constraint(dscp=ValueSet.numbers(DSCP_CLASSES[name]))


def _tos(option: Option, _: Context) -> Condition:
    """The field dscp holds the upper six bits of the byte; what the rule says about the lower two stays unknown."""
    text = option.arguments[0]
    value_text, slash, mask_text = text.partition("/")
    if text in TOS_NAMES:
        value, mask = TOS_NAMES[text], 0x3F
    else:
        value = _integer(value_text, 255, "TOS")
        mask = _integer(mask_text, 255, "TOS mask") if slash else 0xFF
    upper = constraint(dscp=ValueSet.numbers(*(d for d in range(64) if d << 2 & mask == value & 0xFC)))
    if value & ~mask:
        return FALSE
    lower = unknown(f"{option.text}: the two ECN bits") if mask & 3 else TRUE
    both = conjunction(upper, lower)
    assert both is not None
    return both


def _mac_source(option: Option, context: Context) -> Condition:
    return constraint(src_mac=context.macs.exact(mac_address(option.arguments[0])))


def mac_address(text: str) -> str:
    """Lower case with colons. raises ValueError"""
    if not re.fullmatch(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", text):
        raise ValueError(f"'{text}' is no MAC address")
    return text.lower()


def _packet_type(option: Option, context: Context) -> Condition:
    """By the frame's destination: all ones is broadcast, an odd first byte multicast, all other unicast."""
    broadcast = context.macs.exact(BROADCAST_MAC)
    group = ValueSet().union(*(context.macs.prefix(start) for start in GROUP_MACS))
    kinds = {
        "broadcast": broadcast,
        "multicast": group.intersection(broadcast.complement("dst_mac")),
        "unicast": group.complement("dst_mac"),
        "host": group.complement("dst_mac"),
    }
    name = option.arguments[0].lower()
    if name not in kinds:
        raise UninterpretableError(
            f"'{option.text}' depends on who the host is", "unicast, broadcast, multicast are read"
        )
    return constraint(dst_mac=kinds[name])


def _limit(option: Option, context: Context) -> Condition:
    if context.limits == "unknown":
        raise UninterpretableError(
            f"'{option.text}' depends on the clock", "option limits decides what it is taken for"
        )
    return TRUE if context.limits == "always_match" else FALSE


def _decimal(text: str, largest: int, what: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or int(text) > largest:
        raise ValueError(f"'{text}' is not a {what}, a number up to {largest}")
    return int(text)


def _integer(text: str, largest: int, what: str) -> int:
    """Decimal or 0x hexadecimal."""
    if text[:2].lower() == "0x" and text.isascii() and text[2:].isalnum() and len(text) <= 6:
        try:
            value = int(text, 16)
        except ValueError:
            value = largest + 1
        if value <= largest:
            return value
        raise ValueError(f"'{text}' is not a {what}, a number up to {largest:#x}")
    return _decimal(text, largest, what)


_READERS: dict[str, Callable[[Option, Context], Condition]] = {
    "source": lambda o, c: _addresses(o, c, "src_ip"),
    "destination": lambda o, c: _addresses(o, c, "dst_ip"),
    "src-range": lambda o, c: _range(o, c, "src_ip"),
    "dst-range": lambda o, c: _range(o, c, "dst_ip"),
    "protocol": _protocol,
    "in-interface": lambda o, c: _interface(o, c, "iif"),
    "out-interface": lambda o, c: _interface(o, c, "oif"),
    "fragment": _fragment,
    "sport": lambda o, c: _ports(o, c, "sport"),
    "dport": lambda o, c: _ports(o, c, "dport"),
    "sports": lambda o, c: _multiport(o, c, "sport"),
    "dports": lambda o, c: _multiport(o, c, "dport"),
    "ports": lambda o, c: _multiport(o, c, "sport", "dport"),
    "tcp-flags": _tcp_flags,
    "syn": lambda o, c: _flags(
        TCP_FLAGS["FIN"] | TCP_FLAGS["SYN"] | TCP_FLAGS["RST"] | TCP_FLAGS["ACK"], TCP_FLAGS["SYN"]
    ),
    "icmp-type": lambda o, c: _icmp(o, c, ICMP_TYPES, 1),
    "icmpv6-type": lambda o, c: _icmp(o, c, ICMPV6_TYPES, 58),
    "state": _state,
    "ctstate": _state,
    "comment": lambda o, c: TRUE,
    "match-set": _set,
    "src-type": lambda o, c: _address_type(o, c, "src_ip"),
    "dst-type": lambda o, c: _address_type(o, c, "dst_ip"),
    "ttl-eq": _ttl,
    "ttl-lt": _ttl,
    "ttl-gt": _ttl,
    "length": _length,
    "dscp": _dscp,
    "dscp-class": _dscp_class,
    "tos": _tos,
    "mac-source": _mac_source,
    "pkt-type": _packet_type,
    LIMIT: _limit,
}
