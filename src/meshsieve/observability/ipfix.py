"""Flow records as IPFIX messages, which nfdump, tshark and every other collector read.

What     One data record a flow, by the element names of the NSX firewall exporter: endpoints, both directions' volume
         (the reply's as reverse elements), start and end, ``firewallEvent`` and the deciding rule's number. An options
         record for every rule says what its number stands for.
Layout   Messages of at most 64 KiB, one after the other: a file in this form is an "IPFIX file". Templates are repeated
         in every message, so that each can be read alone, also as a UDP datagram.
Limits   ``ruleId`` numbers rules in the order in which they decide something, from 1; 0 = no rule. ``flowId`` numbers
         the rows. A flow without IP has no record.
Source   RFC 7011 (messages), RFC 5103 (reverse elements, enterprise 29305), RFC 5655 (files), IANA's registry of
         elements; VMware's enterprise number 6876 and its ruleId 950: NSX-T 3.2 IPFIX firewall templates.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.decision import NOT_JUDGED
from meshsieve.output import Column
from meshsieve.policy import Verdict
from meshsieve.reports.escape import printable

Array = npt.NDArray[Any]

REVERSE, VMWARE = 29305, 6876
VERSION, TEMPLATE_SET, OPTIONS_TEMPLATE_SET = 10, 2, 3
FLOW_V4, FLOW_V6, RULE_NAMES = 256, 257, 258
VARIABLE = 0xFFFF
MAX_MESSAGE = 65_535
MAX_DATAGRAM = 1_400  # bytes of a message that fits an Ethernet frame
_NAME_BYTES = 1024  # of a rule's name; VMware's own names are shorter

# firewallEvent
IGNORED, CREATED, DELETED, DENIED = 0, 1, 2, 3
_EVENTS = np.full(NOT_JUDGED + 1, IGNORED, np.uint8)
_EVENTS[[Verdict.ALLOW, Verdict.NO_MATCH]] = DELETED  # a record is written when its flow has ended
_EVENTS[[Verdict.DROP, Verdict.REJECT]] = DENIED


@dataclass(frozen=True, slots=True)
class Element:
    """An information element: number, numpy format of its value, enterprise number (0 = IANA's)."""

    number: int
    format: str
    enterprise: int = 0

    @property
    def size(self) -> int:
        return np.dtype(self.format).itemsize


_COMMON = {
    "flowId": Element(148, ">u8"),
    "sourceTransportPort": Element(7, ">u2"),
    "destinationTransportPort": Element(11, ">u2"),
    "protocolIdentifier": Element(4, "u1"),
    "octetDeltaCount": Element(1, ">u8"),
    "packetDeltaCount": Element(2, ">u8"),
    "reverseOctetDeltaCount": Element(1, ">u8", REVERSE),
    "reversePacketDeltaCount": Element(2, ">u8", REVERSE),
    "flowStartMilliseconds": Element(152, ">u8"),
    "flowEndMilliseconds": Element(153, ">u8"),
    "vlanId": Element(58, ">u2"),
    "firewallEvent": Element(233, "u1"),
    "ruleId": Element(950, ">u4", VMWARE),
}
_V4 = {"sourceIPv4Address": Element(8, ">u4"), "destinationIPv4Address": Element(12, ">u4"), **_COMMON}
_V6 = {"sourceIPv6Address": Element(27, "V16"), "destinationIPv6Address": Element(28, "V16"), **_COMMON}
_DTYPES = {
    set_id: np.dtype([(name, element.format) for name, element in elements.items()])
    for set_id, elements in ((FLOW_V4, _V4), (FLOW_V6, _V6))
}


# Columns of rows that become elements as they are.
_NUMBERS = {
    "sourceTransportPort": "sport",
    "destinationTransportPort": "dport",
    "protocolIdentifier": "proto",
    "reverseOctetDeltaCount": "bytes_reply",
    "reversePacketDeltaCount": "packets_reply",
}
NEEDED = ("src", "dst", "packets", "bytes", "first_ns", "last_ns", *_NUMBERS.values())


class IpfixWriter:
    """Turns batches of rows, one a flow, into messages.

    domain       observation domain of every message
    max_message  bytes of a message at most; ``MAX_DATAGRAM`` for UDP
    """

    def __init__(self, domain: int = 0, max_message: int = MAX_MESSAGE) -> None:
        self._domain = domain
        self._max = max_message
        self._sequence = 0
        self._rows = 0
        self._named = 0
        self._templates = _template_sets()

    def messages(self, columns: Sequence[Column]) -> list[bytes]:
        """Messages with one record a row, and one for each rule that decides something for the first time.

        columns  of a flow (``NEEDED``), and where there is a verdict, action and rule

        raises   ValueError for columns that are no flow's
        """
        by_name = {column.name: column for column in columns}
        if missing := [name for name in NEEDED if name not in by_name]:
            raise ValueError(f"IPFIX records are made of flows; these rows lack {', '.join(missing)}")
        out = self._new_rules(by_name)
        numbers = np.arange(self._rows + 1, self._rows + 1 + len(by_name["src"]), dtype=np.uint64)
        self._rows += len(numbers)
        version = by_name["src"].version
        assert version is not None
        for ip, set_id in ((4, FLOW_V4), (6, FLOW_V6)):
            rows = np.flatnonzero(np.broadcast_to(version, (len(numbers),)) == ip)
            if len(rows):
                records = _records(by_name, rows, set_id, numbers[rows])
                out += self._messages(set_id, records.tobytes(), [records.dtype.itemsize] * len(rows), records)
        return out

    def _new_rules(self, columns: Mapping[str, Column]) -> list[bytes]:
        """Options records for the rules that are new in the rule column's table: number, name, where it is written."""
        if "rule" not in columns:
            return []
        rules, sources = columns["rule"].table, columns["source"].table
        assert rules is not None
        assert sources is not None
        pieces = []
        for code in range(self._named, len(rules.texts)):
            if rules.texts[code] is not None:
                words = f"{rules.texts[code]} {sources.texts[code] or ''}".strip()
                text = printable(words).encode()[:_NAME_BYTES]
                pieces.append(struct.pack("!IBH", code + 1, 255, len(text)) + text)
        self._named = len(rules.texts)
        return self._messages(RULE_NAMES, b"".join(pieces), [len(piece) for piece in pieces], None)

    def _messages(
        self, set_id: int, data: bytes, sizes: list[int], records: npt.NDArray[np.void] | None
    ) -> list[bytes]:
        room = self._max - 16 - len(self._templates) - 4
        out = []
        at = first = 0
        while first < len(sizes):
            end, last = at, first
            while last < len(sizes) and end + sizes[last] - at <= room:
                end += sizes[last]
                last += 1
            if last == first:
                raise ValueError(f"max_message {self._max} has no room for a record of {sizes[first]} bytes")
            exported = 0 if records is None else int(records["flowEndMilliseconds"][first:last].max()) // 1000
            out.append(self._message(set_id, data[at:end], last - first, exported))
            at, first = end, last
        return out

    def _message(self, set_id: int, data: bytes, count: int, exported: int) -> bytes:
        body = self._templates + struct.pack("!HH", set_id, 4 + len(data)) + data
        # The export time is the end of the newest flow: the same capture gives the same bytes whenever it is read.
        head = struct.pack(
            "!HHIII", VERSION, 16 + len(body), exported & 0xFFFFFFFF, self._sequence & 0xFFFFFFFF, self._domain
        )
        self._sequence += count
        return head + body


def _records(columns: Mapping[str, Column], rows: Array, set_id: int, numbers: Array) -> npt.NDArray[np.void]:
    n = len(rows)
    out = np.zeros(n, _DTYPES[set_id])
    out["flowId"] = numbers
    for name, end in (("source", "src"), ("destination", "dst")):
        address = columns[end].data[rows]
        if set_id == FLOW_V4:
            out[f"{name}IPv4Address"] = address[:, 1]
        else:
            out[f"{name}IPv6Address"] = np.ascontiguousarray(address, ">u8").view("V16").reshape(n)
    for element, name in _NUMBERS.items():
        out[element] = np.maximum(columns[name].data[rows], 0)  # -1: a protocol that could not be read
    for what in ("octet", "packet"):  # rows count both directions together
        both = columns["bytes" if what == "octet" else "packets"].data[rows]
        out[f"{what}DeltaCount"] = both - out[f"reverse{what.capitalize()}DeltaCount"]
    for element, name in (("flowStartMilliseconds", "first_ns"), ("flowEndMilliseconds", "last_ns")):
        out[element] = np.maximum(columns[name].data[rows], 0) // 1_000_000
    if (vlan := columns.get("vlan")) is not None:
        out["vlanId"] = vlan.data[rows] if vlan.valid is None else np.where(vlan.valid[rows], vlan.data[rows], 0)
    if (action := columns.get("action")) is not None:
        out["firewallEvent"] = _EVENTS[action.data[rows]]
        out["ruleId"] = _rule_numbers(columns["rule"])[rows]
    return out


def _rule_numbers(rule: Column) -> Array:
    """uint32 (n,): 1 + code of each row's rule; 0 where its text is None."""
    assert rule.table is not None
    named = np.array([text is not None for text in (*rule.table.texts, None)])  # the last one is where -1 points
    return np.where(named[rule.data], rule.data + 1, 0).astype(np.uint32)


def _template_sets() -> bytes:
    records = b""
    for set_id, elements in ((FLOW_V4, _V4), (FLOW_V6, _V6)):
        records += struct.pack("!HH", set_id, len(elements))
        records += b"".join(_specifier(e.number, e.size, e.enterprise) for e in elements.values())
    templates = struct.pack("!HH", TEMPLATE_SET, 4 + len(records)) + records
    # Scope: the rule's number; the option: selectorName (335), of variable length.
    options = struct.pack("!HHH", RULE_NAMES, 2, 1) + _specifier(950, 4, VMWARE) + _specifier(335, VARIABLE, 0)
    return templates + struct.pack("!HH", OPTIONS_TEMPLATE_SET, 4 + len(options)) + options


def _specifier(number: int, size: int, enterprise: int) -> bytes:
    if enterprise:
        return struct.pack("!HHI", number | 0x8000, size, enterprise)
    return struct.pack("!HH", number, size)
