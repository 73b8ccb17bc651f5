"""One packet written down: ``tcp 10.0.0.1:4242 > 10.0.0.2:443``, as tcpdump shows packets.

    PROTOCOL SOURCE[:PORT] > DESTINATION[:PORT] [FIELD VALUE]...

PROTOCOL is a name of meshsieve.protocols, ``ip-N`` or a number; an IPv6 address with a port stands in brackets. FIELD
is any number field of docs/fields.md, ``ct_mark`` (the mark of the connection), or a name field with its text
(``app tls fqdn www.example.com``; '' is "none").
What is not written is assumed to be the first packet of a new connection: TCP
flags SYN, ICMP echo request, connection state NEW, no fragment. Ports that are not written are unknown.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np

from meshsieve import _core
from meshsieve.columns import NAME_FIELDS, PacketColumns
from meshsieve.errors import ModelError
from meshsieve.model import FIELD_INDEX
from meshsieve.protocols import PROTOCOL_NUMBERS, WITH_PORTS

FORM = "'tcp 10.0.0.1:4242 > 10.0.0.2:443' or 'icmp 2001:db8::1 > 2001:db8::2 icmp_type 128'"
_ETHER_TYPE = {4: 0x0800, 6: 0x86DD}
_ECHO_REQUEST = {1: 8, 58: 128}
_SYN, _NEW = 2, 1
_REGISTERS = ("ct_mark",)  # columns that are no fields (rewriting.py)


def parse_packet(text: str) -> PacketColumns:
    """The packet as a batch of one row.

    raises  ModelError naming the word that cannot be read
    """
    words = text.replace(">", " > ").split()
    if len(words) < 4 or words[2] != ">":
        raise ModelError(f"'{text}' is not a packet; write {FORM}")
    proto = _protocol(words[0])
    source, sport = _endpoint(words[1], proto)
    destination, dport = _endpoint(words[3], proto)
    if source.version != destination.version:
        raise ModelError(f"'{text}': {source} and {destination} differ in IP version")
    fields: dict[str, int] = {
        "proto": proto,
        "ip_ver": source.version,
        "eth_type": _ETHER_TYPE[source.version],
        "fragment": 0,
        "ct_state": _NEW,
    }
    if proto == 6:
        fields["tcp_flags"] = _SYN
    if proto in _ECHO_REQUEST:
        fields |= {"icmp_type": _ECHO_REQUEST[proto], "icmp_code": 0}
    fields |= {name: port for name, port in (("sport", sport), ("dport", dport)) if port is not None}
    columns: dict[str, Any] = {name: [value] for name, value in {**fields, **_further(words[4:])}.items()}
    extra = {name: np.array(columns.pop(name), np.int64) for name in _REGISTERS if name in columns}
    return PacketColumns({"src_ip": _column(source), "dst_ip": _column(destination), **columns}, extra=extra)


def _protocol(word: str) -> int:
    name = word.lower()
    if name in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[name]
    if name.isascii() and name.isdigit() and int(name) < 256:
        return int(name)
    raise ModelError(f"'{word}' is no protocol; write a name such as tcp, udp or icmp, 'ip-N', or a number up to 255")


def _endpoint(word: str, proto: int) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int | None]:
    address, port = word, None
    if word.startswith("["):
        address, _, rest = word[1:].partition("]")
        port = rest.removeprefix(":") or None
    elif word.count(":") == 1:
        address, port = word.split(":")
    if port is not None and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ModelError(f"'{word}': '{port}' is no port; ports are numbers up to 65535")
    if port is not None and proto not in WITH_PORTS:
        raise ModelError(f"'{word}': this protocol has no ports")
    try:
        return ipaddress.ip_address(address), None if port is None else int(port)
    except ValueError as error:
        raise ModelError(f"'{word}': {error}; an IPv6 address with a port is written [2001:db8::1]:443") from None


def _further(words: list[str]) -> dict[str, int | str]:
    if len(words) % 2:
        raise ModelError(f"'{words[-1]}' has no value; after the addresses come pairs of a field and its value")
    fields: dict[str, int | str] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name in NAME_FIELDS:
            fields[name] = "" if value in ("''", '""') else value
            continue
        if name in _REGISTERS and value.isascii() and value.isdigit() and int(value[:11]) < 2**32:
            fields[name] = int(value)
            continue
        if name not in FIELD_INDEX or _core.FIELDS[FIELD_INDEX[name]].kind != "number":
            numbers = ", ".join(info.name for info in _core.FIELDS if info.kind != "address")
            raise ModelError(f"'{name}' is no field that can be given here; fields: {numbers}")
        if not (value.isascii() and value.isdigit()):
            raise ModelError(f"{name}: '{value}' is no number")
        fields[name] = int(value)
    return fields


def _column(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Any:
    number = int(address)
    if address.version == 4:
        return np.array([number], np.uint32)
    return np.array([[number >> 64, number & (2**64 - 1)]], np.uint64)
