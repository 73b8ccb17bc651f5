"""All layers in one walk: configuration in, verdicts for packets, flows and whole captures out.

>>> engine = meshsieve.load(["nsx.json", "host.rules"])                # doctest: +SKIP
>>> for batch in engine.classify_pcap("traffic.pcap"):                 # doctest: +SKIP
...     print(batch["action"], batch["rule"])
>>> print(engine.explain("tcp 10.0.0.1:4242 > 10.0.0.2:443"))          # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

from meshsieve.app_signatures import Signatures
from meshsieve.classification import NEW, Classification, ClassifiedBatch, classified_packets
from meshsieve.columns import PacketColumns
from meshsieve.decision import DecisionTables, Mode
from meshsieve.errors import UsageError
from meshsieve.explanation import Explanation, explain
from meshsieve.importers.registry import load_policy
from meshsieve.packet_text import parse_packet
from meshsieve.policy import Diagnostic, ImportOptions, Layer, SourceFile
from meshsieve.request import Request
from meshsieve.request_text import looks_like_request, parse_request

if TYPE_CHECKING:
    from meshsieve.request_logs.batches import LogSource
    from meshsieve.walk.answers import RequestVerdicts
    from meshsieve.walk.captured import RequestClassification
    from meshsieve.walk.flow_walk import FlowExplanation
    from meshsieve.walk.mesh_policy import MeshPolicy
    from meshsieve.walk.request_walk import RequestWalk
    from meshsieve.walk.verdict import RequestVerdict

Path = str | os.PathLike[str]


class Engine:
    """Compiled layers, ready to be asked. Made by ``load``; ``Engine(layers)`` takes layers of your own.

    Threads: any number may ask at once; nothing is changed after the first call.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        mode: Mode = "strict",
        diagnostics: Sequence[Diagnostic] = (),
        mesh: MeshPolicy | None = None,
    ) -> None:
        """mesh: what the configuration says about requests."""
        self.layers = tuple(layers)
        self.mode = mode
        self.diagnostics = tuple(diagnostics)
        self.mesh = mesh

    @cached_property
    def tables(self) -> DecisionTables:
        """The layers' rule lists, compiled (when first needed)."""
        return DecisionTables(self.layers, mode=self.mode)

    @cached_property
    def request_walk(self) -> RequestWalk:
        """The layers that requests meet, layers 2-4 among them.

        raises  UsageError if the configuration says nothing about requests
        """
        from meshsieve.walk.request_walk import RequestWalk

        if self.mesh is None:
            raise UsageError(
                "the configuration says nothing about requests; read an Envoy route configuration, or Istio or Gateway "
                "API objects"
            )
        return RequestWalk(self.tables, self.mesh)

    @property
    def rule_count(self) -> int:
        """Number of rules over all points, a list that two points share counted once."""
        return sum(
            len(rules) for rules in {id(p.rules): p.rules for layer in self.layers for p in layer.points}.values()
        )

    def classify(self, headers: Any, *, iif: str | None = None, oif: str | None = None) -> ClassifiedBatch:
        """Judge every packet of ``headers`` by itself, each as the first of its connection unless it says otherwise.

        headers   PacketColumns, a dict of arrays, or Arrow data (``PacketColumns.of``)
        iif, oif  names of the incoming and outgoing interface of every packet, for rules that name interfaces
        """
        columns = PacketColumns.of(headers)
        if "ct_state" not in columns:
            columns = columns.with_fields({"ct_state": [NEW]})
        return classified_packets(self.tables, columns, _interfaces(iif, oif))

    def classify_pcap(
        self,
        path: Path | Sequence[Path],
        *,
        by: Literal["flow", "packet"] = "flow",
        filter: str | None = None,
        count: int | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        strict: bool = False,
        iif: str | None = None,
        oif: str | None = None,
        progress: Callable[[Any], None] | None = None,
        signatures: Signatures | None = None,
    ) -> Classification:
        """The verdicts of a capture, as a stream of batches in bounded memory; nothing is read before it is iterated.

        path      pcap or pcapng files, also compressed; "-" = standard input
        by        "flow": one row a conversation; "packet": one row a packet, with its flow's verdict
        filter    tcpdump expression; only packets that pass it are seen
        count     stop after so many packets
        start_ns  only packets from this instant on (nanoseconds since 1970) ...
        end_ns    ... and before this one
        strict    a capture that breaks off raises CaptureError after the rows that could be read; otherwise the rows
                  end and ``problem`` of the result says why
        iif, oif  as in ``classify``
        progress  called with the CaptureReader after every batch
        signatures  the user's own applications (``meshsieve.apps.load_signatures``)

        A flow is judged once, by its first packet as its initiator sent it; the verdict holds for all its packets in
        both directions. Packets without a flow (no IP, undecodable) have no rows by flow; ``summary()`` counts them.

        raises    CaptureError, FilterError when the iteration starts
        """
        paths = [path] if isinstance(path, str | os.PathLike) else list(path)
        return Classification(
            self.tables,
            paths,
            by=by,
            filter=filter,
            count=count,
            start_ns=start_ns,
            end_ns=end_ns,
            strict=strict,
            interfaces=_interfaces(iif, oif),
            progress=progress,
            signatures=signatures,
        )

    def judge_request(
        self,
        request: Request | str,
        *,
        client: str | None = None,
        server: str | None = None,
        assume_mtls: bool = False,
    ) -> RequestVerdict:
        """What every layer says to a request, in the order in which it meets them, and the final answer.

        request         a Request, or text such as ``GET http://reviews:9080/reviews/0``
        client, server  ``namespace/name`` of pods or workloads, where the request's addresses do not tell
        assume_mtls     between workloads with proxies, the client's service account is its identity: right for captures
                        of what applications see, where the proxies' mTLS is not visible

        raises  UsageError for names that are not known, ModelError for a request that cannot be read
        """
        asked = parse_request(request) if isinstance(request, str) else request
        return self.request_walk.judge(asked, client=client, server=server, assume_mtls=assume_mtls)

    def judge_requests(
        self,
        requests: Iterable[Request] | Mapping[str, Any] | Any,
        *,
        client: str | None = None,
        server: str | None = None,
        assume_mtls: bool = False,
    ) -> RequestVerdicts:
        """``judge_request`` for many: the same answers, worked out once for what requests share.

        requests  ``Request`` objects, or columns as ``RequestColumns.of`` takes them, which cost least. Batch after
                  batch, ``walk.batch.BatchWalk(engine.request_walk)`` keeps what it has found.

        raises    ColumnError for columns that do not fit together, UsageError and ModelError as ``judge_request``
        """
        from meshsieve.walk.batch import BatchWalk

        return BatchWalk(self.request_walk).judge(requests, client=client, server=server, assume_mtls=assume_mtls)

    def classify_requests(
        self,
        path: Path | Sequence[Path],
        *,
        assume_mtls: bool = False,
        filter: str | None = None,
        count: int | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        strict: bool = False,
        progress: Callable[[Any], None] | None = None,
    ) -> RequestClassification:
        """The HTTP and gRPC requests of captures, each with the verdict of every layer, as a stream of rows.

        Arguments as for ``classify_pcap`` and ``judge_request``. Nothing is read before it is iterated.

        raises  UsageError if the configuration says nothing about requests; CaptureError, FilterError when the
                iteration starts
        """
        from meshsieve.walk.captured import CaptureSource, RequestClassification

        paths = [path] if isinstance(path, str | os.PathLike) else list(path)
        how = {"filter": filter, "count": count, "start_ns": start_ns, "end_ns": end_ns, "strict": strict}
        source = CaptureSource(paths, progress, **how)
        return RequestClassification(self.request_walk, source, assume_mtls=assume_mtls)

    def classify_log(
        self,
        path: Path | Sequence[Path],
        *,
        format: str = "auto",
        header_fields: Mapping[str, str] | None = None,
        assume_mtls: bool = False,
        progress: Callable[[Any], None] | None = None,
    ) -> RequestClassification:
        """The requests of files (NDJSON, access logs, HAR), each with the verdict of every layer, as a stream of rows.

        format, header_fields  as for ``request_logs.read``
        Lines that hold no request, or one with addresses that are none, are counted and named in ``totals().notes``.

        raises  UsageError if the configuration says nothing about requests; when the iteration starts for a file that
                cannot be read or is of no known format
        """
        from meshsieve.walk.captured import RequestClassification

        source = self.log_source(path, format=format, header_fields=header_fields, progress=progress)
        return RequestClassification(self.request_walk, source, assume_mtls=assume_mtls)

    def log_source(
        self,
        path: Path | Sequence[Path],
        *,
        format: str = "auto",
        header_fields: Mapping[str, str] | None = None,
        progress: Callable[[Any], None] | None = None,
    ) -> LogSource:
        """The requests of files, unjudged, as ``classify_log`` reads them."""
        from meshsieve.request_logs.batches import LogSource

        paths = [path] if isinstance(path, str | os.PathLike) else list(path)
        topology = self.mesh.topology if self.mesh is not None else None
        return LogSource(paths, format, header_fields, progress, topology.knows if topology is not None else None)

    @overload
    def explain(
        self, asked: Mapping[str, Any], *, iif: str | None = None, oif: str | None = None, **who: Any
    ) -> Explanation: ...

    @overload
    def explain(
        self, asked: Request, *, iif: str | None = None, oif: str | None = None, **who: Any
    ) -> RequestVerdict: ...

    @overload
    def explain(
        self, asked: str, *, iif: str | None = None, oif: str | None = None, **who: Any
    ) -> Explanation | RequestVerdict: ...

    def explain(
        self, asked: str | Request | Mapping[str, Any], *, iif: str | None = None, oif: str | None = None, **who: Any
    ) -> Explanation | RequestVerdict:
        """Of a packet, every rule that it meets at every point, tested by the linear reference; of a request, what
        every layer says to it, as ``judge_request``.

        asked   text such as ``tcp 10.0.0.1:4242 > 10.0.0.2:443`` (meshsieve.packet_text) or ``GET http://host/path``, a
                Request, or a mapping from field names to values, addresses as text
        iif     interfaces of a packet; ``oif`` likewise
        who     of a request: client, server, assume_mtls, as for ``judge_request``

        raises  ModelError if the text or a value cannot be read; UsageError as ``judge_request``
        """
        if isinstance(asked, Request) or (isinstance(asked, str) and looks_like_request(asked)):
            return self.judge_request(asked, **who)
        if who:
            raise UsageError(f"{', '.join(who)}: for requests only, and {asked!r} is a packet")
        headers = parse_packet(asked) if isinstance(asked, str) else PacketColumns.of(asked)
        return explain(self.tables, headers, _interfaces(iif, oif))

    def explain_flow(
        self,
        path: Path | Sequence[Path],
        which: str | int,
        *,
        iif: str | None = None,
        oif: str | None = None,
        assume_mtls: bool = False,
        **how: Any,
    ) -> FlowExplanation:
        """One flow of a capture: its first packet as ``explain`` shows it, and every layer for each request it carried.

        which   the flow's number, its Community ID, or its ends such as ``tcp 10.0.0.1:4242 > 10.0.0.2:443``
        how     filter, count, start_ns, end_ns, strict, signatures, as for ``classify_pcap``

        raises  UsageError if the capture has no such flow; CaptureError, FilterError
        """
        from meshsieve.walk.flow_walk import explain_flow

        paths = [path] if isinstance(path, str | os.PathLike) else list(path)
        return explain_flow(self, paths, which, interfaces=_interfaces(iif, oif), assume_mtls=assume_mtls, **how)

    def __repr__(self) -> str:
        names = ", ".join(f"{t.title} ({len(t.point.rules)} rules)" for t in self.tables.points)
        return f"<Engine: {names}>"


def _interfaces(iif: str | None, oif: str | None) -> dict[str, str]:
    return {field: name for field, name in (("iif", iif), ("oif", oif)) if name is not None}


def load(paths: Path | Iterable[Path], options: ImportOptions | None = None, **settings: Any) -> Engine:
    """Read configuration files and folders of any mix of supported formats, and compile them.

    paths     files, folders, "-" for standard input
    options   how to read; or give its fields as keywords: ``load("rules.v4", strict=False, chain="INPUT")``

    raises    PolicyError naming file, line, object and what to do
    """
    if settings:
        options = ImportOptions(**settings) if options is None else dataclasses.replace(options, **settings)
    options = options or ImportOptions()
    result = load_policy([paths] if isinstance(paths, str | os.PathLike) else paths, options)
    mesh = _mesh_policy(result.sources, options.strict)
    diagnostics = (*result.diagnostics, *(mesh.diagnostics if mesh is not None else ()))
    return Engine(result.layers, mode=options.mode, diagnostics=diagnostics, mesh=mesh)


def _mesh_policy(sources: Mapping[str, Sequence[SourceFile]], strict: bool) -> MeshPolicy | None:
    if not (sources.get("kubernetes") or sources.get("envoy")):
        return None  # and the rooms of layer 7 are not imported
    from meshsieve.walk.mesh_policy import read_mesh_policy

    return read_mesh_policy(sources, strict=strict) or None
