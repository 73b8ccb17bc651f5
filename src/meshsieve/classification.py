"""Verdicts of whole captures: a stream of batches in bounded memory, and what they sum up to.

``Classification`` is lazy: each ``iter()`` reads the capture anew (standard input only once), and only the batch at
hand is in memory. ``to_arrow``, ``to_pandas`` and ``to_polars`` gather everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from meshsieve import apps, capture, flows
from meshsieve.columns import PacketColumns
from meshsieve.decision import ACTION_NAMES, NO_RULE, NOT_HERE, Decisions, DecisionTables
from meshsieve.errors import UsageError
from meshsieve.extras import require
from meshsieve.labels import Labels, TextTable
from meshsieve.output import Column
from meshsieve.policy import Verdict
from meshsieve.summary import Summary, Tally
from meshsieve.traffic_columns import endpoint_columns, flow_columns, flow_volume, packet_columns

Array = npt.NDArray[Any]

# Rows of a batch of flows; memory per batch is about 1 kB a row.
FLOW_BATCH = 16384
# Live flows at a time: keeps the whole command under 200 MB however long the capture. Beyond, the flow that was idle
# longest is written early, which the summary says.
MAX_FLOWS = 150_000

NEW = 1  # ct_state of a flow's first packet

_ACTIONS = TextTable(list(ACTION_NAMES))


class ClassifiedBatch(Mapping[str, Array]):
    """Some rows of a result. ``batch["rule"]`` is an array of n values; text columns are object arrays with None.

    columns    the same, as writers want them (meshsieve.output)
    headers    the fields by which the rows were judged
    decisions  rule indices and verdicts, also of each point
    """

    def __init__(self, columns: Sequence[Column], headers: PacketColumns, decisions: Decisions) -> None:
        self.columns = tuple(columns)
        self.headers = headers
        self.decisions = decisions
        self._by_name = {column.name: column for column in columns}

    def __getitem__(self, name: str) -> Array:
        return self._by_name[name].values()

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.headers)

    def row(self, i: int) -> dict[str, Any]:
        """One row as plain values."""
        return {column.name: column.value(i) for column in self.columns}

    def to_arrow(self) -> Any:
        """pyarrow.RecordBatch; needs the ``arrow`` extra."""
        from meshsieve.reports.arrow import record_batch

        return record_batch(self.columns)

    def __repr__(self) -> str:
        return f"<ClassifiedBatch of {len(self)} rows: {', '.join(self)}>"


def classified_packets(
    tables: DecisionTables, headers: PacketColumns, interfaces: Mapping[str, str]
) -> ClassifiedBatch:
    """Every packet of ``headers`` judged by itself."""
    labels = Labels(tables)
    decisions = tables.decide(headers, interfaces)
    deciders = labels.deciders_of(decisions)
    reasons = labels.reasons_of(headers, decisions, deciders)
    columns = [*endpoint_columns(headers), *verdict_columns(labels, decisions, deciders, reasons)]
    return ClassifiedBatch(columns, headers, decisions)


class Classification:
    """The verdicts of one capture or several; made by ``Engine.classify_pcap``, which describes the arguments.

    problem  after an iteration: None, or 'FILE: N packets read, then REASON at byte B'
    """

    def __init__(
        self,
        tables: DecisionTables,
        paths: Sequence[str | os.PathLike[str]],
        *,
        by: Literal["flow", "packet"],
        filter: str | None,
        count: int | None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        strict: bool,
        interfaces: Mapping[str, str],
        progress: Callable[[capture.CaptureReader], None] | None,
        signatures: apps.Signatures | None = None,
    ) -> None:
        if by not in ("flow", "packet"):
            raise UsageError(f"by is {by!r}; it must be 'flow' or 'packet'")
        self.tables = tables
        self.by = by
        self.problem: str | None = None
        self._paths = list(paths)
        self._choice: dict[str, Any] = {
            "filter": filter,
            "count": count,
            "start_ns": start_ns,
            "end_ns": end_ns,
            "strict": strict,
        }
        self._interfaces = dict(interfaces)
        self._progress = progress
        self._signatures = signatures
        self._summary: Summary | None = None

    def __iter__(self) -> Iterator[ClassifiedBatch]:
        """Batches of at least one row; flows in the order in which they end, packets in that of the capture."""
        options = flows.FlowOptions(
            max_flows=MAX_FLOWS,
            signatures=self._signatures,
            domain_names=any("fqdn" in table.point.rules.fields for table in self.tables.points),
        )
        table = flows.FlowTable(options)
        reader = capture.read(self._paths, flows=table, **self._choice)
        run = _Run(self.tables, reader, table)
        yield from self._by_flow(run) if self.by == "flow" else self._by_packet(run)
        self.problem = reader.problem
        self._summary = run.summary()

    def summary(self) -> Summary:
        """Totals by verdict and by rule; runs through the capture if no iteration has been completed yet."""
        if self._summary is None:
            for _ in self:
                pass
        assert self._summary is not None
        return self._summary

    def _batches(self, reader: capture.CaptureReader) -> Iterator[PacketColumns]:
        for batch in reader:
            if self._progress is not None:
                self._progress(reader)
            yield batch

    def _by_flow(self, run: _Run) -> Iterator[ClassifiedBatch]:
        for batch in self._batches(run.reader):
            self._keep_flowless(batch, run)
            if run.table.finished >= FLOW_BATCH:
                yield from self._flow_batches(run.table.take_finished(), run)
        self._count_flowless(run)
        yield from self._flow_batches(run.table.finish(), run)

    def _flow_batches(self, finished: flows.FlowColumns, run: _Run) -> Iterator[ClassifiedBatch]:
        for start in range(0, len(finished), FLOW_BATCH):
            headers = finished.take(np.arange(start, min(start + FLOW_BATCH, len(finished))))
            headers = headers.with_fields({"ct_state": [NEW]})
            decisions = self.tables.decide(headers, self._interfaces)
            packets, octets = flow_volume(headers)
            verdicts = run.judge(headers, decisions, np.ones(len(headers), np.uint8), packets, octets)
            yield ClassifiedBatch([*flow_columns(headers), *verdicts], headers, decisions)

    def _keep_flowless(self, batch: PacketColumns, run: _Run) -> None:
        """Packets that never get a flow have no row by flow: counted with their reasons, many at a time. (A later
        fragment that comes before its first one is counted in its flow, as soon as that is known.)"""
        rows = np.flatnonzero(
            (batch.extra["flow_slot"] == flows.NO_SLOT) & ~(batch.has("fragment") & (batch["fragment"] == 1))
        )
        if len(rows):
            run.flowless.append(batch.take(rows))
            if sum(map(len, run.flowless)) >= FLOW_BATCH:
                self._count_flowless(run)

    def _count_flowless(self, run: _Run) -> None:
        if not run.flowless:
            return
        headers = PacketColumns.joined(run.flowless)
        run.flowless.clear()
        decisions = self.tables.decide(headers, self._interfaces)
        none, one = np.zeros(len(headers), np.uint8), np.ones(len(headers), np.uint8)
        run.count(headers, decisions, none, one, headers.extra["length"])

    def _by_packet(self, run: _Run) -> Iterator[ClassifiedBatch]:
        flow_verdicts = FlowVerdicts(self.tables, self._interfaces)
        for headers in self._batches(run.reader):
            run.table.take_finished()  # what they would say is already on their packets
            decisions = flow_verdicts.of_packets(headers)
            extra = headers.extra
            one = np.ones(len(headers), np.uint8)
            verdicts = run.judge(headers, decisions, extra["new_flow"], one, extra["length"])
            yield ClassifiedBatch([*packet_columns(headers, run.table.app_names), *verdicts], headers, decisions)

    def empty_columns(self) -> tuple[Column, ...]:
        """The columns of a batch without rows: names and types are known before anything is read."""
        labels = Labels(self.tables)
        if self.by == "flow":
            none = flows.FlowTable().finish()
            headers: PacketColumns = none
            traffic = flow_columns(none)
        else:
            headers = _empty_packets()
            traffic = packet_columns(headers)
        decisions = self.tables.decide(headers, self._interfaces)
        deciders = labels.deciders_of(decisions)
        reasons = labels.reasons_of(headers, decisions, deciders)
        return (*traffic, *verdict_columns(labels, decisions, deciders, reasons))

    def to_arrow(self) -> Any:
        """Everything as a pyarrow.Table; needs the ``arrow`` extra and memory for all rows."""
        from meshsieve.reports.arrow import table

        return table(self)

    def to_pandas(self) -> Any:
        """Everything as a pandas.DataFrame; needs the ``pandas`` extra."""
        require("pandas", "pandas")
        return self.to_arrow().to_pandas()

    def to_polars(self) -> Any:
        """Everything as a polars.DataFrame; needs the ``polars`` extra."""
        return require("polars", "polars").from_arrow(self.to_arrow())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule protocol: DuckDB, polars and others read the rows without copies, batch by batch."""
        from meshsieve.reports.arrow import reader

        return reader(self).__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def __repr__(self) -> str:
        names = ", ".join(os.fspath(path) for path in self._paths)
        return f"<Classification of {names} by {self.by}: iterate it, or ask for summary()>"


class _Run:
    """One iteration over the capture: its reader, flow table, labels and counts."""

    def __init__(self, tables: DecisionTables, reader: capture.CaptureReader, table: flows.FlowTable) -> None:
        self.reader = reader
        self.table = table
        self.labels = Labels(tables)
        self.tally = Tally(self.labels)
        self.flowless: list[PacketColumns] = []  # packets without a flow that are not counted yet

    def judge(
        self, headers: PacketColumns, decisions: Decisions, flow_count: Array, packets: Array, octets: Array
    ) -> list[Column]:
        """The verdict columns of a batch, which is counted as well."""
        deciders, reasons = self.count(headers, decisions, flow_count, packets, octets)
        return verdict_columns(self.labels, decisions, deciders, reasons)

    def count(
        self, headers: PacketColumns, decisions: Decisions, flow_count: Array, packets: Array, octets: Array
    ) -> tuple[Array, Array]:
        """Counts a batch; who decided each row, and why."""
        deciders = self.labels.deciders_of(decisions)
        reasons = self.labels.reasons_of(headers, decisions, deciders)
        self.tally.add(decisions.action, deciders, reasons, flow_count, packets, octets)
        return deciders, reasons

    def summary(self) -> Summary:
        notes = [self.reader.problem] if self.reader.problem else []
        evicted = self.table.stats["evicted"]
        if evicted:
            notes.append(f"{evicted} flows were written early because the flow table was full; they may show twice")
        if lost := self.table.dns_answers_lost:
            notes.append(f"{lost} DNS answers were forgotten; rules about domain names may miss flows")
        return self.tally.summary(notes)


class FlowVerdicts:
    """The verdict of each flow, kept by its slot in the flow table, for all packets of the flow."""

    def __init__(self, tables: DecisionTables, interfaces: Mapping[str, str]) -> None:
        self._tables = tables
        self._interfaces = interfaces
        # By slot, in the order of Decisions.arrays(); grows with the flow table, which is bounded.
        self._kept: list[Array] = tables.decide(_empty_packets()).arrays()
        points = [table.point for table in tables.points]
        self._stateless = [np.array(sorted(point.stateless), np.int32) for point in points]
        # Where a reply comes to, whose flow was judged at each point: the state of its first packet is there.
        self._opposite = [_opposite(tables, number) for number in range(len(points))]

    def of_packets(self, batch: PacketColumns) -> Decisions:
        """Each packet's verdict: its flow's, made by the flow's first packet; its own if it has no flow."""
        slots = batch.extra["flow_slot"].astype(np.int64)
        flowless = slots == flows.NO_SLOT
        new_flow = np.flatnonzero(batch.extra["new_flow"])
        alone = np.flatnonzero(flowless)
        judged = np.concatenate([new_flow, alone])
        headers = _from_initiator(batch.take(judged)).with_fields({"ct_state": [NEW]})
        fresh = self._tables.decide(headers, self._interfaces).arrays()
        self._grow(int(slots[~flowless].max(initial=-1)) + 1)
        slots[flowless] = 0
        # A slot that is given to a new flow has no packets of another one in this batch (FlowTable.update).
        out = []
        for kept, answer in zip(self._kept, fresh, strict=True):
            kept[slots[new_flow]] = answer[: len(new_flow)]
            column = kept[slots]
            column[alone] = answer[len(new_flow) :]
            out.append(column)
        decisions = Decisions.of_arrays(out)
        self._judge_stateless(batch, decisions)
        return decisions

    def _judge_stateless(self, batch: PacketColumns, decisions: Decisions) -> None:
        """Packets of flows that a stateless rule decided have no state there: each is judged by itself, as it was sent.
        Where the rule of the flow's first packet keeps state, its later packets and replies pass."""
        if not any(len(rules) for rules in self._stateless):
            return
        without = [np.isin(p.rule, rules) for p, rules in zip(decisions.points, self._stateless, strict=True)]
        rows = np.flatnonzero(np.logical_or.reduce(without) & ~batch.extra["new_flow"].astype(np.bool_))
        if not len(rows):
            return
        packets = batch.take(rows).with_fields({"ct_state": [NEW]})
        own = self._tables.decide(packets, self._interfaces)
        reply = packets.extra["reply"].astype(np.bool_)
        for number, answer in enumerate(own.points):
            for at, these in ((number, ~reply), (self._opposite[number], reply)):
                first = decisions.points[at]
                state = these & ~without[at][rows] & (first.verdict[rows] == Verdict.ALLOW)
                answer.rule[state], answer.verdict[state] = first.rule[rows][state], first.verdict[rows][state]
        action, point, rule = self._tables.combined(own.points, len(rows))
        decisions.action[rows], decisions.point[rows], decisions.rule[rows] = action, point, rule
        decisions.missing[rows] = own.missing
        for kept, answer in zip(decisions.points, own.points, strict=True):
            kept.rule[rows], kept.verdict[rows] = answer.rule, answer.verdict

    def _grow(self, size: int) -> None:
        """Room for ``size`` slots and at least one."""
        have = len(self._kept[0])
        if size > have or not have:
            more = max(size, 2 * have, 1024) - have
            self._kept = [np.concatenate([kept, np.zeros(more, kept.dtype)]) for kept in self._kept]


def _opposite(tables: DecisionTables, number: int) -> int:
    """The point at the other end of the layer, for points at interfaces; else the point itself."""
    mine = tables.points[number]
    for other, table in enumerate(tables.points):
        ends = {mine.point.vnic_of, table.point.vnic_of}
        if (
            table.layer is mine.layer
            and ends == {"src", "dst"}
            and len(table.point.stateless) == len(mine.point.stateless)
        ):
            return other
    return number


def _empty_packets() -> PacketColumns:
    none = np.zeros(0, np.uint8)
    fields = {
        "src_ip": np.zeros((0, 2), np.uint64),
        "dst_ip": np.zeros((0, 2), np.uint64),
        "proto": none,
        "ip_ver": none,
    }
    extra: dict[str, Array] = {
        "number": np.zeros(0, np.uint64),
        "time_ns": np.zeros(0, np.int64),
        "length": np.zeros(0, np.uint32),
        "app": np.zeros(0, np.uint16),
        "app_how": none,
    }
    return PacketColumns(fields, extra=extra, length=0)


def _from_initiator(headers: PacketColumns) -> PacketColumns:
    """The packets as their flow's initiator would send them: source and destination swapped where they are replies."""
    reply = headers.extra["reply"]
    if not reply.any():
        return headers
    swapped: dict[str, Array] = {}
    for ours, theirs in (("src_ip", "dst_ip"), ("sport", "dport")):
        mask = reply[:, None] if headers[ours].ndim == 2 else reply
        swapped[ours] = np.where(mask, headers[theirs], headers[ours])
        swapped[theirs] = np.where(mask, headers[ours], headers[theirs])
    return PacketColumns({**headers, **swapped}, present=headers.present, extra=headers.extra, length=len(headers))


def verdict_columns(labels: Labels, decisions: Decisions, deciders: Array, reasons: Array) -> list[Column]:
    """action, rule, source, reason; where there are several points, also the rule and verdict of each."""
    columns = [
        Column.text("action", decisions.action, _ACTIONS),
        Column.text("rule", deciders, labels.rules),
        Column.text("source", deciders, labels.sources),
        Column.text("reason", reasons, labels.reasons),
    ]
    if len(decisions.points) < 2:
        return columns
    for number, (name, answer) in enumerate(zip(labels.tables.column_names, decisions.points, strict=True)):
        verdict = np.where(answer.rule == NO_RULE, np.uint8(Verdict.NO_MATCH), answer.verdict).astype(np.int32)
        columns.append(Column.text(f"{name}_rule", labels.point_deciders(number, answer), labels.rules))
        columns.append(Column.text(f"{name}_verdict", np.where(answer.rule == NOT_HERE, -1, verdict), _ACTIONS))
    return columns
