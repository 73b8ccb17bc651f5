"""Captures: pcap and pcapng files as batches of decoded packets.

>>> for batch in meshsieve.capture.read("office.pcapng"):        # doctest: +SKIP
...     print(len(batch), batch["dport"][:3], batch.extra["time_ns"][:3])

What a capture contains is never an exception: a packet that cannot be decoded is a row whose ``status`` says why, and a
file that breaks off ends the iteration with ``problem`` set (``strict=True`` makes that an exception). docs/capture.md
lists columns, link types, statuses and limits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

from meshsieve import _core
from meshsieve.columns import PacketColumns
from meshsieve.errors import CaptureError, UsageError

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]

STATUSES: tuple[str, ...] = tuple(name for name, _ in _core.DECODE_STATUSES)
TUNNELS: tuple[str, ...] = tuple(name for name, _ in _core.TUNNEL_KINDS)

DEFAULT_BATCH_SIZE = 8192
_MOST_NS = 2**63 - 1  # of a time stamp


class _Observer(Protocol):
    """What the packets go through in the native call that reads them."""

    _native: Any


class CaptureReader(Iterator[PacketColumns]):
    """An iterator of ``PacketColumns`` batches in the order of the capture. Made by ``read``.

    The arrays of a batch are views of native memory that stay valid as long as Python holds any of them.
    Threads: one at a time; the GIL is released while a batch is read.
    ``flows``     the flow table (``flows.FlowTable``) that the packets also go through, or None
    ``requests``  what reads HTTP requests out of the flows (``http_requests.RequestReader``), or None
    """

    def __init__(
        self, native: Any, *, batch_size: int, strict: bool, flows: _Observer | None = None, keep_bytes: bool = False
    ) -> None:
        self._native = native
        self.flows = flows
        self.requests: _Observer | None = None
        self._batch_size = batch_size
        self._keep_bytes = keep_bytes
        self._strict = strict

    def __iter__(self) -> CaptureReader:
        return self

    def __next__(self) -> PacketColumns:
        flows = None if self.flows is None else self.flows._native
        requests = None if self.requests is None else self.requests._native
        batch = self._native.next_batch(self._batch_size, flows, requests, self._keep_bytes)
        if batch is None:
            self._finish()
            raise StopIteration
        return PacketColumns._of_batch(batch)

    def follow(self) -> bool:
        """Read on without making columns, which is faster: the next packets, about 1 MiB of the capture, go through
        ``flows`` and ``requests`` only. False when those were the last ones.

        raises   UsageError without a flow table; CaptureError as iterating does
        """
        if self.flows is None:
            raise UsageError("packets without columns go through a flow table, and this reader has none")
        requests = None if self.requests is None else self.requests._native
        more = bool(self._native.follow(self.flows._native, requests))
        if not more:
            self._finish()
        return more

    def _finish(self) -> None:
        problems = self._native.problems
        if self._strict and problems:
            self._strict = False  # said once
            first = problems[0]
            raise CaptureError(self.problem or "", first.packets_read, first.offset)

    @property
    def packets_read(self) -> int:
        """Records taken from the files so far."""
        return int(self._native.packets_read)

    @property
    def packets_delivered(self) -> int:
        """Those of them that filter, time range and count let through."""
        return int(self._native.packets_delivered)

    @property
    def bytes_read(self) -> int:
        """Bytes read of the files so far, before decompression: comparable with ``size_bytes``."""
        return int(self._native.bytes_read)

    @property
    def size_bytes(self) -> int | None:
        """Size of all files together, None where it cannot be known (pipes)."""
        return int(self._native.size_bytes) or None

    @property
    def problem(self) -> str | None:
        """None, or 'FILE: N packets read, then REASON at byte B' for each file that could not be read to its end."""
        texts = [f"{p.name}: {p.text}" for p in self._native.problems]
        return "; ".join(texts) or None

    @property
    def status_counts(self) -> dict[str, int]:
        """Delivered packets by decode status, without zeros; names are those of ``STATUSES``."""
        return {name: n for name, n in zip(STATUSES, self._native.status_counts, strict=True) if n}

    def close(self) -> None:
        """Close the files; counts and ``problem`` can still be read. ``with`` does it."""
        self._native.close()

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a capture file that ``read`` takes in the place of a path; made by ``scan_shards``. Can be pickled.

    begin, end      bytes of the file that hold its records; ``end`` 0 = the whole file
    packets_before  packets of the file before it
    """

    path: Path
    begin: int = 0
    end: int = 0
    file_size: int = 0
    packets_before: int = 0
    time_ns: int = 0
    prologue: bytes = field(default=b"", repr=False)


Source = Path | Shard


def scan_shards(path: Path, n: int) -> list[Shard]:
    """Split points for parallel work: at most ``n`` shards of about equal size, which hold every packet once.

    Exact is what is about one packet: ``read(shard)`` gives the packets of ``read(path)``, number and all, each decoded
    alike, so counts and verdicts by packet add up. A flow that goes on in the next shard is a flow in each of them: its
    packets and bytes add up too, but who started it, its state and its retransmissions are known only to a table that
    saw its shards in order: ``flows.read`` with ``threads`` does that. Compressed files and pipes
    cannot be split: one shard.

    raises  CaptureError as ``read``, and when a shard is read if the file has changed its size since
    """
    raw = os.fsencode(path)
    try:
        parts = _core.scan_shards(raw, max(n, 0))
    except CaptureError as error:
        raise CaptureError(f"{raw.decode('utf-8', 'backslashreplace')}: {error}") from None
    return [Shard(path, p.begin, p.end, p.file_size, p.packets_before, p.time_ns, p.prologue) for p in parts]


def read(
    path: Source | Sequence[Source],
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    filter: str | None = None,
    count: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    merge: bool = True,
    strict: bool = False,
    flows: _Observer | None = None,
    keep_bytes: bool = False,
) -> CaptureReader:
    """Open one capture or several and return an iterator of batches.

    path        one or several, also shards: pcap or pcapng, plain or compressed by gzip, Zstandard or LZ4, told apart
                by content; "-" = standard input
    batch_size  rows of a batch, 1..65536; the last one is shorter
    filter      tcpdump filter expression (pcap-filter(7)), applied to the raw records
    count       deliver at most so many packets
    start_ns    deliver packets from this instant on (nanoseconds since 1970) ...
    end_ns      ... and before this one
    merge       several files: by time (ties in the order given); False = one after another
    strict      a capture that breaks off raises CaptureError after the batches that could be read

    flows       also give every packet its flow (``FlowTable.update`` says which columns), in the same native call
    keep_bytes  batches keep what was captured, so that a flow table that gets them later recognises applications

    raises      CaptureError if a file cannot be opened or is no capture, FilterError, UsageError for a number
                beyond its range
    """
    for name, number, least, most in (
        ("batch_size", batch_size, 1, _core.MAX_BATCH),
        ("count", count, 0, _MOST_NS),
        ("start_ns", start_ns, -_MOST_NS, _MOST_NS),
        ("end_ns", end_ns, -_MOST_NS, _MOST_NS),
    ):
        if number is not None and not least <= number <= most:
            raise UsageError(f"{name} is {number}; it must lie in {least}..{most}")
    asked = [path] if isinstance(path, str | bytes | os.PathLike | Shard) else list(path)
    shards = [p if isinstance(p, Shard) else Shard(p) for p in asked]
    raw = [os.fsencode(shard.path) for shard in shards]
    names = [name.decode("utf-8", "backslashreplace") for name in raw]
    parts = [_core.CaptureShard(s.begin, s.end, s.file_size, s.packets_before, s.time_ns, s.prologue) for s in shards]
    native = _core.CaptureReader(raw, names, parts, merge, filter or "", count, start_ns, end_ns)
    return CaptureReader(native, batch_size=batch_size, strict=strict, flows=flows, keep_bytes=keep_bytes)
