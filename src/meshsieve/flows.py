"""Flows: conversations out of packets, with both directions, counters and state.

>>> flows = meshsieve.flows.read("office.pcapng")                # doctest: +SKIP
>>> flows["dport"], flows.extra["packets"], flows.to_pandas()    # doctest: +SKIP

A flow is a bidirectional 5-tuple of the innermost IP header. Its source is the *initiator*: the sender of the SYN, the
receiver of the SYN+ACK if that comes first, else the sender of the first packet. docs/flows.md has the rules.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core, apps, capture, tables
from meshsieve.app_signatures import Signatures
from meshsieve.capture import STATUSES, TUNNELS, CaptureReader, Source
from meshsieve.columns import Array, PacketColumns
from meshsieve.errors import ColumnError, UsageError
from meshsieve.fqdn_table import FqdnTable
from meshsieve.labels import LateTextTable, TextTable

TCP_STATES: tuple[str, ...] = _core.TCP_STATES
ENDS: tuple[str, ...] = _core.FLOW_ENDS
NOTES: tuple[str, ...] = _core.FLOW_NOTES

# flow_slot of a packet without flow
NO_SLOT = 0xFFFFFFFF

_BATCH_OF_FLOWS = 16384
_PART_BYTES, _MOST_PARTS = 8 << 20, 4096  # of a capture that several threads decode


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """How packets become flows. Timeouts are in seconds of packet time; 0 never ends a flow.

    active_s     write a record of a flow that lasts longer so often, and go on counting from 0
    port_reuse   a SYN on a flow that FIN or RST closed starts another flow
    key_vlan     flows of different outermost VLANs are different
    key_vni      flows of different tunnels (kind and network identifier) are different
    max_flows    in the table at a time; beyond, the least recently used is evicted, and counted
    apps         recognise applications and read their attributes (docs/apps.md)
    signatures   the user's own applications, before the built-in ones (``meshsieve.apps.load_signatures``)
    apps_waiting_bytes  kept for flows whose recognition is not done; beyond, the oldest are given up, and
                        counted
    apps_attribute_bytes  of what all flows in the table have told; beyond, the least recently used are evicted
    domain_names keep which names DNS answers gave for addresses, which rules about domain names ask for

    raises       UsageError, when a table is made, for a number out of its range
    """

    tcp_syn_s: float = 120
    tcp_established_s: float = 43200
    tcp_closing_s: float = 120
    tcp_closed_s: float = 20
    udp_single_s: float = 30
    udp_reply_s: float = 60
    icmp_s: float = 20
    other_s: float = 600
    active_s: float = 0
    fragment_s: float = 30
    port_reuse: bool = True
    key_vlan: bool = False
    key_vni: bool = False
    max_flows: int = 860_000
    max_fragmented: int = 65_536
    apps: bool = True
    signatures: Signatures | None = None
    apps_waiting_bytes: int = 16 << 20
    apps_attribute_bytes: int = 256 << 20
    domain_names: bool = True

    @classmethod
    def one_per_tuple(cls) -> FlowOptions:
        """No timeout and no port reuse: one flow a 5-tuple and capture, as long as the table has room."""
        none = {name: 0 for name in cls.__dataclass_fields__ if name.endswith("_s")}
        return cls(**none, port_reuse=False)  # type: ignore[arg-type]

    def _native(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name == "domain_names":
                continue
            if name == "signatures":
                options["app_signatures"] = [] if value is None else value.native()
            elif name.endswith("_s"):
                if not 0 <= value <= 9e9:
                    raise UsageError(f"{name} is {value}; a timeout lies between 0 (never) and 9e9 seconds")
                options[name.removesuffix("_s") + "_ns"] = round(value * 1e9)
            else:
                options[name] = value
        for name, least, most in (
            ("max_flows", 1, 1 << 30),
            ("max_fragmented", 1, 1 << 30),
            ("apps_waiting_bytes", 0, 1 << 40),
            ("apps_attribute_bytes", 0, 1 << 40),
        ):
            if not least <= options[name] <= most:
                raise UsageError(f"{name} is {options[name]}; it must lie between {least} and {most}")
        return options


_ATTRIBUTE_OF_FIELD = {"tls_version": "tls_version", "tls_cipher": "tls_cipher", "smb_version": "smb_dialect"}


def _host_of(authority: str) -> str:
    """A Host header without its port."""
    return authority.rpartition(":")[0] if authority.rpartition(":")[2].isdigit() else authority


class FlowColumns(PacketColumns):
    """Flows as columns; a batch of keys that rules can judge.

    Fields are those of each flow's first packet, turned so that the source is the initiator. ``extra`` holds counters,
    times and states (csrc/include/meshsieve/flow_columns.def): flow_id, flow_slot, packets, bytes, packets_reply,
    bytes_reply, first_ns, last_ns, tcp_flags_or, tcp_flags_or_reply, tcp_state (``TCP_STATES``), retransmissions,
    retransmissions_reply, end_reason (``ENDS``), notes (bits, ``NOTES``), status (``capture.STATUSES``), number, file,
    and the outer columns of tunnels; app, app_how (``apps.HOWS``), app_by_port, and the attributes that any flow has,
    as codes (``attribute_codes``).
    ``app_names`` names of ``app``: ``apps.NAMES``, then those of user signatures
    ``texts``     texts of the attributes
    ``problem``   why the capture could not be read to its end, or None (``flows.read`` only)
    ``stats``     of the table that made them (``flows.read`` only)
    ``fqdn_table``  names that DNS answers of the capture gave for addresses, where known
    """

    problem: str | None = None
    stats: dict[str, int] | None = None
    app_names: tuple[str, ...] = apps.NAMES
    texts: TextTable = TextTable()
    fqdn_table: FqdnTable | None = None
    _records: Any = None  # the core's own batch, which these flows were taken from
    _rows: npt.NDArray[np.int64] | None = None  # of _records; None: all

    @property
    def apps(self) -> list[str]:
        """The application of each flow; "" where it is not known."""
        return [self.app_names[code] for code in self.extra["app"]]

    def attribute_codes(self, name: str) -> Array:
        """int32 (n,): each flow's ``name`` (one of ``apps.ATTRIBUTES``) as a code into ``texts``, -1 without one."""
        if name not in apps.ATTRIBUTES:
            raise ColumnError(f"no attribute is called '{name}'; attributes: {', '.join(apps.ATTRIBUTES)}")
        codes = self.extra.get(name)
        return np.full(len(self), -1, np.int32) if codes is None else codes

    def attribute(self, name: str) -> list[str | None]:
        """Each flow's ``name`` (one of ``apps.ATTRIBUTES``), None without one."""
        return [None if code < 0 else self.texts.texts[code] for code in self.attribute_codes(name)]

    def attributes(self, i: int) -> dict[str, str]:
        """All attributes of flow ``i``."""
        values = {name: self.attribute_codes(name)[i] for name in apps.ATTRIBUTES if name in self.extra}
        return {name: str(self.texts.texts[code]) for name, code in values.items() if code >= 0}

    def field_texts(self, name: str) -> Array | None:
        """What the flow told of the fields that rules know by name; "" where it told nothing to its end."""
        if name == "app":
            return np.array([*self.apps, None], object)[:-1]
        if name == "fqdn":
            return self._server_names()
        attribute = _ATTRIBUTE_OF_FIELD.get(name)
        if attribute is None:
            return super().field_texts(name)
        return np.array([*(text or "" for text in self.attribute(attribute)), None], object)[:-1]

    def _server_names(self) -> Array:
        """Object (n,): the server's name, a tuple where it has several: those that the flow tells itself (TLS, HTTP),
        and those that DNS answers gave for its address when the flow began; "" without any."""
        named = zip(self.attribute("sni"), self.attribute("http_host"), strict=True)
        out = np.array([*(sni or _host_of(host or "") for sni, host in named), None], object)[:-1]
        if self.fqdn_table is None or not len(self.fqdn_table) or not len(self):
            return out
        words, versions, started = self["dst_ip"], self["ip_ver"], self.extra["first_ns"]
        for i, told in enumerate(out):
            address = int(words[i, 0]) << 64 | int(words[i, 1])
            names = self.fqdn_table.names(int(versions[i]), address, int(started[i]))
            every = tuple(dict.fromkeys([*([told.lower().rstrip(".")] if told else ()), *names]))
            if every:
                out[i] = every[0] if len(every) == 1 else every
        return out

    def take(self, indices: Array) -> FlowColumns:
        """The flows at ``indices`` (integers or a boolean mask), in that order."""
        out = self._with_texts(super().take(indices))
        rows = np.flatnonzero(indices) if indices.dtype == np.bool_ else indices
        out._rows = self._record_rows()[rows]
        return out

    def with_fields(
        self, fields: Mapping[str, Any], where: Mapping[str, npt.NDArray[np.bool_]] | None = None
    ) -> FlowColumns:
        """The same flows with the given fields set, on every flow or where ``where`` says."""
        return self._with_texts(super().with_fields(fields, where))

    def _with_texts(self, columns: PacketColumns) -> FlowColumns:
        out = FlowColumns.__new__(FlowColumns)
        out.__dict__.update(columns.__dict__)
        out.app_names, out.texts, out.fqdn_table = self.app_names, self.texts, self.fqdn_table
        out._records, out._rows = self._records, self._rows
        return out

    def _record_rows(self) -> npt.NDArray[np.int64]:
        """Where in the flow table's own records each flow stands."""
        return np.arange(len(self), dtype=np.int64) if self._rows is None else self._rows

    @property
    def community_ids(self) -> list[str]:
        """Community ID version 1 of each flow, seed 0."""
        ids: list[str] = self._community_characters().view("S30")[:, 0].astype(str).tolist()
        return ids

    def _community_characters(self) -> Array:
        """int8 (n, 30): the community ids, ASCII."""
        if self._records is None:
            raise ColumnError("community ids are made from the flow table's own records; these columns have none")
        characters: Array = self._records.community_ids(self._record_rows())
        return characters

    def table_columns(self, *, addresses: tables.Addresses = "text") -> dict[str, Any]:
        """The columns of ``to_arrow``, by name: absent values are null, codes are names, times are time stamps."""
        extra, versions = self.extra, self["ip_ver"]
        columns: dict[str, Any] = {"flow_id": extra["flow_id"]}
        for name in ("src_ip", "dst_ip"):
            columns[name] = tables.addresses(self[name], versions, addresses)
        for name in self:
            if name not in columns:
                columns[name] = tables.optional(self[name], self.has(name))
        for name in ("packets", "bytes", "packets_reply", "bytes_reply"):
            columns[name] = extra[name]
        columns["first"], columns["last"] = tables.times(extra["first_ns"]), tables.times(extra["last_ns"])
        tcp = self.has("tcp_flags")
        for name in ("tcp_flags_or", "tcp_flags_or_reply", "retransmissions", "retransmissions_reply"):
            columns[name] = tables.optional(extra[name], tcp)
        columns["tcp_state"] = tables.names(extra["tcp_state"], TCP_STATES)
        columns["end_reason"] = tables.names(extra["end_reason"], ENDS)
        columns["notes"] = extra["notes"]
        columns["status"] = tables.names(extra["status"], STATUSES)
        columns["app"] = tables.names(extra["app"], ("", *self.app_names[1:]))
        columns["app_how"] = tables.names(extra["app_how"], apps.HOWS)
        columns["app_by_port"] = tables.names(extra["app_by_port"], apps.NAMES)
        texts = tables.text_array(self.texts.texts) if self._records is None else tables.buffered_texts(self._records)
        absent = tables.texts(np.full(len(self), -1, np.int32), texts)
        for name in apps.ATTRIBUTES:
            columns[name] = tables.texts(extra[name], texts) if name in extra else absent
        columns["tunnel"] = tables.names(extra["tunnel"], TUNNELS)
        tunnelled = extra["tunnel"] != 0
        columns["vni"] = tables.optional(extra["vni"], tunnelled)
        for name in ("outer_src_ip", "outer_dst_ip"):
            columns[name] = tables.addresses(extra[name], extra["outer_ip_ver"], addresses)
        for name in ("outer_sport", "outer_dport", "outer_proto"):
            columns[name] = tables.optional(extra[name], tunnelled)
        for name in ("number", "file"):
            columns[name] = extra[name]
        if self._records is not None:
            columns["community_id"] = tables.fixed_texts(self._community_characters())
        return columns

    def to_arrow(self, *, addresses: tables.Addresses = "text") -> Any:
        """A pyarrow.Table; ``addresses`` as text or as 16 bytes."""
        return tables.to_arrow(self.table_columns(addresses=addresses))

    def to_pandas(self) -> Any:
        """A pandas.DataFrame."""
        return tables.to_pandas(self.table_columns())

    def to_polars(self) -> Any:
        """A polars.DataFrame."""
        return tables.to_polars(self.table_columns())


class FlowTable:
    """The flow table, fed batch by batch.

    >>> table = FlowTable()                                             # doctest: +SKIP
    >>> for batch in capture.read("a.pcap", flows=table):               # doctest: +SKIP
    ...     batch.extra["flow_slot"], table.take_finished()

    Threads: one at a time.
    """

    def __init__(self, options: FlowOptions | None = None) -> None:
        options = options or FlowOptions()
        self._native = _core.FlowTable(options._native())
        self._fqdns = FqdnTable()
        self._keeps_names = options.domain_names
        self.app_names = apps.NAMES + (() if options.signatures is None else options.signatures.names)

    def update(self, batch: PacketColumns) -> PacketColumns:
        """The same packets with the columns of flows; call it once a batch, in capture order.

        batch    from ``capture.read`` (nothing is copied), or columns with at least src_ip, dst_ip, proto, ip_ver and
                 the extra columns time_ns and length
        returns  the packets with extra columns
                   flow_id    uint64 (n,), 1, 2, 3, ... in the order of first packets; 0 = no flow
                   flow_slot  uint32 (n,), place in the table: below ``slots``, used again after the flow has ended, but
                              never for two flows in one batch; ``NO_SLOT`` = no flow (a frame without IP, a header that
                              cannot be read, a later fragment that comes before its first one)
                   new_flow   bool (n,), the first packet of its flow
                   reply      bool (n,), sent by the responder
                   app        uint16 (n,), into ``app_names``: the flow's application, as far as it is known by then
                   app_how    uint8 (n,), into ``apps.HOWS``
                   ct_state   uint8 (n,), also as field: 1 NEW, 2 ESTABLISHED (both directions seen), 3 RELATED (ICMP
                              error about a known flow); 0 and absent without flow
        raises   ColumnError for missing columns
        """
        native = batch.native if isinstance(batch.native, _core.PacketBatch) else _native_batch(batch)
        self._native.update(native)
        columns = PacketColumns._of_batch(native)
        for name in batch.extra.keys() - columns.extra.keys():
            columns.extra[name] = batch.extra[name]
        return columns

    def take_finished(self) -> FlowColumns:
        """Records of flows that have ended since the last call, in the order of their ends (which depends on nothing
        but the packets and the options)."""
        return self._columns(self._native.take_finished(False))

    def finish(self) -> FlowColumns:
        """Ends every flow; returns all records not taken yet, by flow_id."""
        self._native.finish()
        return self._columns(self._native.take_finished(True))

    def _columns(self, native: Any) -> FlowColumns:
        fields, present, extra = native.arrays()
        codes = native.attributes()
        columns = FlowColumns._of_checked(fields, present, {**extra, **codes}, len(native), native)
        assert isinstance(columns, FlowColumns)
        columns.app_names, columns.texts, columns._records = self.app_names, LateTextTable(native.texts), native
        answers = self._native.take_dns_answers()
        if self._keeps_names:
            self._fqdns.add(answers)
        columns.fqdn_table = self._fqdns
        return columns

    @property
    def finished(self) -> int:
        """Number of records that ``take_finished`` would return."""
        return int(self._native.finished)

    @property
    def dns_answers_lost(self) -> int:
        """Names of addresses that had no room any more."""
        return self._fqdns.forgotten + int(self.stats["dns_answers_dropped"])

    @property
    def slots(self) -> int:
        """Every flow_slot so far is below this."""
        return int(self._native.slots)

    @property
    def stats(self) -> dict[str, int]:
        """Counts: packets (seen), flows (ever started), live, evicted, packets_without_flow, fragments_waiting (later
        fragments before their first one), fragments_unmatched, fragmented_evicted,
        apps_given_up (recognition ended early: too much waited), dns_answers_dropped, bytes (memory)."""
        stats: dict[str, int] = self._native.stats
        return stats


def stream(
    path: Source | Sequence[Source] | CaptureReader, *, options: FlowOptions | None = None, **how: Any
) -> Iterator[FlowColumns]:
    """Flows in batches as they end, in bounded memory. Arguments as for ``read``; a CaptureReader is read on."""
    table = FlowTable(options)
    reader = _packets(path, table, how)
    while reader.follow():
        if table.finished >= _BATCH_OF_FLOWS:
            yield table.take_finished()
    last = table.finish()
    if len(last):
        yield last


def read(
    path: Source | Sequence[Source], *, options: FlowOptions | None = None, threads: int = 1, **how: Any
) -> FlowColumns:
    """All flows of one capture or several, by flow_id.

    options   default: timeouts of ``FlowOptions``
    threads   so many decode parts of one uncompressed capture; the flow table sees them in order, so the flows are the
              same for any number. Several captures, and ``count``, take one thread.
    how       further arguments of ``capture.read``: filter, count, start_ns, end_ns, merge, strict
    returns   FlowColumns; ``.problem`` says if the capture broke off, ``.stats`` what the table counted
    raises    what ``capture.read`` raises; UsageError for options that cannot be
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; at least one reads the capture")
    table = FlowTable(options)
    if threads > 1 and isinstance(path, str | bytes | os.PathLike) and how.get("count") is None:
        problem = _read_in_parts(path, table, threads, how)
    else:
        reader = _packets(path, table, how)
        while reader.follow():
            pass
        problem = reader.problem
    flows = table.finish()
    flows.problem, flows.stats = problem, table.stats
    return flows


def _read_in_parts(path: capture.Path, table: FlowTable, threads: int, how: dict[str, Any]) -> str | None:
    """Threads decode parts of the capture and keep the packets' bytes; the table takes the parts in order. At most
    ``threads`` + 1 parts are in memory. Returns the problem of the last one."""

    def decode(shard: capture.Shard) -> tuple[list[PacketColumns], str | None]:
        reader = capture.read(shard, keep_bytes=True, **how)
        return list(reader), reader.problem

    size = os.stat(path).st_size if path not in ("-", b"-") else 0
    shards = iter(capture.scan_shards(path, max(1, min(size // _PART_BYTES, _MOST_PARTS))))
    problem = None
    with ThreadPoolExecutor(threads) as pool:
        parts = deque(pool.submit(decode, shard) for shard in islice(shards, threads + 1))
        while parts:
            batches, problem = parts.popleft().result()
            for batch in batches:
                table._native.update(batch.native)
            parts.extend(pool.submit(decode, shard) for shard in islice(shards, 1))
    return problem


def _packets(path: Any, table: FlowTable, how: dict[str, Any]) -> CaptureReader:
    if isinstance(path, CaptureReader):
        if how:
            raise TypeError(f"a CaptureReader takes no further arguments: {', '.join(how)}")
        path.flows = table
        return path
    return capture.read(path, flows=table, **how)


def _native_batch(batch: PacketColumns) -> Any:
    """Columns that came from elsewhere, copied into the core's batch."""
    missing = [name for name in ("src_ip", "dst_ip", "proto", "ip_ver") if name not in batch]
    missing += [name for name in ("time_ns", "length") if name not in batch.extra]
    if missing:
        raise ColumnError(f"a flow table needs the columns {', '.join(missing)}")
    n = len(batch)
    columns: dict[str, Array] = dict(batch.extra)
    present = np.zeros(n, np.uint32)
    for i, info in enumerate(_core.FIELDS):
        if info.name in batch:
            column = batch[info.name]
            if info.kind == "address" and column.ndim == 1:
                column = np.column_stack([np.zeros(len(column), np.uint64), column.astype(np.uint64)])
            columns[info.name] = np.broadcast_to(column, (n, *column.shape[1:]))
            present |= batch.has(info.name).astype(np.uint32) << np.uint32(i)
    return _core.PacketBatch(n, columns, present)
