"""The columns that say what traffic a row is about: for flows, for packets, for bare headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from meshsieve import apps
from meshsieve.columns import PacketColumns
from meshsieve.labels import PlainTextTable, TextTable
from meshsieve.output import Column
from meshsieve.protocols import PROTOCOL_NAMES

if TYPE_CHECKING:
    from meshsieve.flows import FlowColumns

_PROTOCOLS = TextTable(list(PROTOCOL_NAMES))
_HOWS = TextTable([None, *apps.HOWS[1:]])
_BUILT_IN = TextTable([None, *apps.NAMES[1:]])
_NO_TEXTS = TextTable()

# The attributes that rows about verdicts show; rows about flows show all.
MAIN_ATTRIBUTES = ("sni", "alpn", "tls_version", "tls_cipher", "http_host", "http_path", "dns_name", "smb_dialect")


def endpoint_columns(headers: PacketColumns) -> list[Column]:
    """src, dst, sport, dport (0 where there is none), proto."""
    n = len(headers)
    version = np.broadcast_to(headers["ip_ver"] if "ip_ver" in headers else np.uint8(4), (n,))
    columns = []
    for name, field in (("src", "src_ip"), ("dst", "dst_ip")):
        if field in headers:
            address = np.broadcast_to(headers[field], (n, *headers[field].shape[1:]))
            columns.append(Column.address(name, address, version, headers.has(field)))
    for name in ("sport", "dport"):
        port = headers[name] if name in headers else np.zeros(1, np.uint16)
        columns.append(Column.number(name, np.where(headers.has(name), port, np.uint16(0))))
    proto = np.broadcast_to(headers["proto"] if "proto" in headers else np.uint8(0), (n,)).astype(np.int32)
    return [*columns, Column.text("proto", np.where(headers.has("proto"), proto, -1), _PROTOCOLS)]


def flow_columns(flows: FlowColumns, attributes: Sequence[str] = MAIN_ATTRIBUTES) -> list[Column]:
    """A flow's columns; packets and bytes are those of both directions together."""
    extra = flows.extra
    packets, octets = flow_volume(flows)
    return [
        *endpoint_columns(flows),
        Column.number("packets", packets),
        Column.number("bytes", octets),
        Column.number("packets_reply", extra["packets_reply"]),
        Column.number("bytes_reply", extra["bytes_reply"]),
        Column.number("first_ns", extra["first_ns"]),
        Column.number("last_ns", extra["last_ns"]),
        *app_columns(flows, attributes),
        Column.number("vlan", flows["vlan"], valid=flows.has("vlan")),
        Column.number("vni", extra["vni"], valid=extra["tunnel"] != 0),
        _community_ids(flows),
    ]


def _community_ids(flows: FlowColumns) -> Column:
    """Nearly every text is new, so each batch has a table of its own, and memory stays bounded."""
    return Column.text(
        "community_id", np.arange(len(flows), dtype=np.int32), PlainTextTable(lambda: flows.community_ids)
    )


def app_columns(flows: FlowColumns, attributes: Sequence[str]) -> list[Column]:
    """app, app_how, app_by_port, then the attributes, each by its name; what is not known is null."""
    names = _BUILT_IN if flows.app_names is apps.NAMES else TextTable([None, *flows.app_names[1:]])
    columns = [
        Column.text("app", flows.extra["app"].astype(np.int32), names),
        Column.text("app_how", flows.extra["app_how"].astype(np.int32), _HOWS),
        Column.text("app_by_port", flows.extra["app_by_port"].astype(np.int32), _BUILT_IN),
    ]
    for name in attributes:
        table = flows.texts if name in flows.extra else _NO_TEXTS
        columns.append(Column.text(name, flows.attribute_codes(name), table))
    return columns


def flow_volume(flows: PacketColumns) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Packets and bytes of both directions together."""
    extra = flows.extra
    return extra["packets"] + extra["packets_reply"], extra["bytes"] + extra["bytes_reply"]


def packet_columns(packets: PacketColumns, app_names: Sequence[str] = apps.NAMES) -> list[Column]:
    """A packet's columns: number and time in the capture, endpoints, length on the wire, and the application of its
    flow as far as it is known at this packet."""
    extra = packets.extra
    names = _BUILT_IN if app_names is apps.NAMES else TextTable([None, *app_names[1:]])
    return [
        Column.number("number", extra["number"]),
        Column.number("time_ns", extra["time_ns"]),
        *endpoint_columns(packets),
        Column.number("length", extra["length"]),
        Column.text("app", extra["app"].astype(np.int32), names),
        Column.text("app_how", extra["app_how"].astype(np.int32), _HOWS),
    ]
