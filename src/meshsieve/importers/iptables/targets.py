"""Targets that change a packet: NAT and marks, as rewrites for the points behind.

Source  iptables-extensions(8): DNAT, SNAT, MASQUERADE, REDIRECT, NETMAP, MARK, CONNMARK.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from meshsieve.importers.conditions import Condition
from meshsieve.importers.marks import Assign
from meshsieve.model import ValueSet
from meshsieve.policy import Rewrite, Shift
from meshsieve.value_sets import Span

NAT_TARGETS = frozenset({"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"})
# Targets that change what later rules test.
ASSIGNING_TARGETS = frozenset({"MARK", "CONNMARK", "CT", "NOTRACK"})
# A range of addresses is a choice of so many outcomes at most; a wider one is not known.
MAX_CHOICES = 64
_ALL = 0xFFFFFFFF
_WORDS = re.compile(r'"[^"]*"|\S+')


def nat_rewrite(
    target: str, extra: str, condition: Condition, family: int, own: Sequence[int], outbound: bool
) -> Rewrite:
    """What a NAT target makes of a packet.

    condition  the rule's, from which NETMAP learns which network it maps
    own        the host's own addresses, without loopback, to one of which REDIRECT leads
    outbound   the chain translates sources (POSTROUTING, INPUT)
    raises     ValueError for what is malformed
    """
    options = _options(extra)
    address, port = ("src_ip", "sport") if outbound else ("dst_ip", "dport")
    if target == "NETMAP":
        return _netmap(options.get("--to", ""), condition, address, family)
    if target == "MASQUERADE":
        return Rewrite({"src_ip": None, "sport": _port(options.get("--to-ports", "-"))})
    if target == "REDIRECT":
        values: dict[str, int | None] = {"dst_ip": own[0] if len(own) == 1 else None}
        if "--to-ports" in options:
            values["dport"] = _port(options["--to-ports"])
        return Rewrite(values)
    text = options.get("--to-source" if target == "SNAT" else "--to-destination")
    if text is None:
        raise ValueError(f"{target} names no address")
    addresses, ports = _split(text, family)
    after = {port: _port(ports)} if ports else ({port: None} if outbound else {})
    if addresses is None:
        return Rewrite(after)
    low, high = addresses
    if low == high:
        return Rewrite({address: low, **after})
    if high - low >= MAX_CHOICES:
        return Rewrite({address: None, **after})
    return Rewrite(choices=tuple(Rewrite({address: value, **after}) for value in range(low, high + 1)))


def assignments(target: str, extra: str) -> tuple[Assign, ...]:
    """What MARK, CONNMARK, CT and NOTRACK do to registers; () = nothing.

    raises  ValueError for what is malformed
    """
    options = _options(extra)
    if target == "NOTRACK" or (target == "CT" and "--notrack" in options):
        return (Assign("track", 1, 1),)
    if target == "CT":
        return ()
    register = {"MARK": "mark", "CONNMARK": "ct_mark"}[target]
    for name in ("--save-mark", "--restore-mark"):
        if name in options and target == "CONNMARK":
            both = options.get("--mask", "0xffffffff")
            packet, connection = (_number(options.get(key, both)) for key in ("--nfmask", "--ctmask"))
            if name == "--save-mark":
                return (Assign("ct_mark", connection, packet, "mark"),)
            return (Assign("mark", packet, connection, "ct_mark"),)
    for name, text in options.items():
        value, mask = mark_and_mask(text) if name.startswith("--") and text else (0, _ALL)
        masks = {
            "--set-mark": (mask | value, value),
            "--set-xmark": (mask, value),
            "--and-mark": (~value & _ALL, 0),
            "--or-mark": (value, value),
            "--xor-mark": (0, value),
        }
        if name in masks:
            return (Assign(register, *masks[name]),)
    raise ValueError(f"{target} does not say what to set: '{extra}'")


def mark_and_mask(text: str) -> tuple[int, int]:
    """``value[/mask]``, decimal or 0x. raises ValueError"""
    parts = [_number(part) for part in text.split("/", 1)]
    return parts[0], parts[1] if len(parts) == 2 else _ALL


def _number(text: str) -> int:
    digits = text[2:] if text[:2].lower() == "0x" else text
    base = 16 if digits is not text else 10
    allowed = "0123456789abcdef" if base == 16 else "0123456789"
    if not digits or len(digits) > 10 or set(digits.lower()) - set(allowed) or int(digits, base) > _ALL:
        raise ValueError(f"'{text}' is no mark, a number of 32 bits")
    return int(digits, base)


def _options(extra: str) -> dict[str, str]:
    """Options of a target with their value, "" where there is none."""
    out: dict[str, str] = {}
    last = ""
    for word in _WORDS.findall(extra):
        if word.startswith("--"):
            last = word
            out[last] = ""
        elif last and not out[last]:
            out[last] = word.strip('"')
    return out


def _split(text: str, family: int) -> tuple[tuple[int, int] | None, str]:
    """(addresses, ports) of ``[address[-address]][:port[-port]]``."""
    if family == 6:
        if text.startswith("["):
            inside, _, rest = text[1:].partition("]")
            texts, ports = inside, rest.removeprefix(":")
        else:
            texts, ports = text, ""
    else:
        texts, _, ports = text.partition(":")
    if not texts:
        return None, ports
    ends = [ipaddress.ip_address(t) for t in texts.split("-", 1)]
    if any(end.version != family for end in ends) or int(ends[-1]) < int(ends[0]):
        raise ValueError(f"'{text}' is no address or range of IPv{family}")
    return (int(ends[0]), int(ends[-1])), ports


def _port(text: str) -> int | None:
    """One port; None for a range, of which the kernel picks."""
    if not text or "-" in text:
        return None
    if not (text.isascii() and text.isdecimal() and int(text[:6]) <= 0xFFFF):
        raise ValueError(f"'{text}' is no port")
    return int(text)


def _netmap(text: str, condition: Condition, address: str, family: int) -> Rewrite:
    network = ipaddress.ip_network(text, strict=False)
    spans: list[Span] = []
    for term in condition:
        values = term.fields.get(address, ValueSet())
        spans.append(values.v6 if family == 6 else values.v4)
    if len(spans) == 1 and len(spans[0]) == 1 and network.version == family:
        low, high = spans[0][0]
        if high - low + 1 == network.num_addresses:
            return Rewrite(shifts={address: Shift(low, int(network.network_address), family)})
    return Rewrite({address: None})
