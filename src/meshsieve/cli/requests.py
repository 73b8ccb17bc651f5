"""List the HTTP requests of a capture: clear-text HTTP/1, HTTP/2 and gRPC, on any port, with what was answered.

NDJSON rows are requests as `meshsieve route --requests -` reads them; what was seen of the answer stands under
"observed". Values of credential headers (Authorization, Cookie, ...) are masked unless --secrets is given.
Exit status: 0 when the capture was read to its end, 2 for wrong usage or a capture that cannot be read (further).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from meshsieve.cli.options import add_capture, add_output, capture_choice, take_trailing_words

if TYPE_CHECKING:
    from meshsieve.http_requests import CapturedRequests, RequestBatch

EXAMPLES = """\
examples:
  meshsieve requests -r traffic.pcap
  meshsieve requests -r traffic.pcapng.zst -o ndjson 'tcp port 8080' | jq -c '[.method, .path, .observed.status]'
  meshsieve requests -r traffic.pcap -o ndjson | meshsieve route -p routes.yaml --requests -
"""

# Counts that say what could not be read, with the words for them.
_LEFT_OUT = {
    "responses_unmatched": "responses whose request was not captured",
    "bad_start_line": "directions with something else where a message must begin: the rest of each is not read",
    "bad_body": "bodies that break their own framing: the rest of each direction is not read",
    "head_too_large": "heads over the limit: the rest of each direction is not read",
    "bad_frame": "HTTP/2 frames that cannot be: the rest of each direction is not read",
    "bad_compression": "HTTP/2 header blocks that cannot be decoded: the rest of each direction is not read",
    "incomplete_requests": "HTTP/2 requests without method or path: not shown",
    "ambiguous": "messages whose end can be read in two ways (see notes)",
    "conflicting": "connections in which bytes came twice and differed (the first copy is shown)",
    "evicted": "connections or requests given up early because a limit was reached",
    "gaps": "places where bytes were not captured",
    "unread_bytes": "bytes of HTTP connections that were not read",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_capture(parser)
    add_output(parser)
    parser.add_argument("--secrets", action="store_true", help="show the values of credential headers")


def run(options: argparse.Namespace) -> int:
    expression = take_trailing_words(options, ("captures",), "filter")

    from meshsieve import http_requests
    from meshsieve.cli.stderr import Progress, warn

    found = http_requests.read(options.captures, **capture_choice(options, expression))
    with Progress() as progress:
        found.on_packets = progress
        writers = {"table": _table, "json": _json, "ndjson": _ndjson}
        writers.get(options.format, _columns)(found, options)
    counts = found.counts
    sys.stdout.flush()
    for name, words in _LEFT_OUT.items():
        if counts[name]:
            warn(f"{counts[name]:,} {words}")
    if found.problem:
        warn(found.problem)
        return 2
    return 0


def _rows(batch: RequestBatch, options: argparse.Namespace) -> Iterator[bytes]:
    for i in range(len(batch)):
        yield json.dumps(batch.row(i, masked=not options.secrets), separators=(",", ":")).encode()


def _ndjson(found: CapturedRequests, options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import open_output

    with open_output(options.output) as file:
        for batch in found:
            file.writelines(row + b"\n" for row in _rows(batch, options))


def _json(found: CapturedRequests, options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import open_output

    with open_output(options.output) as file:
        file.write(b'{"rows":[')
        separator = b"\n"
        for batch in found:
            for row in _rows(batch, options):
                file.write(separator + row)
                separator = b",\n"
        file.write(b'\n],\n"summary":' + json.dumps(found.counts).encode() + b"}\n")


def _columns(found: CapturedRequests, options: argparse.Namespace) -> None:
    """CSV and Parquet."""
    from meshsieve.cli.sink import open_sink
    from meshsieve.http_requests import RequestReader

    with open_sink(options, RequestReader().take().output_columns()) as sink:
        for batch in found:
            sink.write(batch.output_columns(masked=not options.secrets))
        sink.end(found.counts)


def _table(found: CapturedRequests, options: argparse.Namespace) -> None:
    from meshsieve.cli.sink import print_text
    from meshsieve.cli.terminal import colours, columns
    from meshsieve.reports.text import bold, table_text

    wide, coloured = (columns(), colours()) if options.output is None else (None, False)
    cells: list[list[str]] = []
    count = 0
    for batch in found:
        for i in range(min(options.limit - len(cells), len(batch))):
            cells.append(_cells(batch.row(i)))
        count += len(batch)
    heads = ["FLOW", "SOURCE", "DESTINATION", "METHOD", "AUTHORITY AND PATH", "STATUS", "MS", "NOTES"]
    parts = [table_text(heads, cells, right=frozenset({0, 5, 6}), columns=wide, colours=coloured)]
    if count > len(cells):
        parts.append(bold(f"({len(cells)} of {count:,} requests; --limit N shows more, -o ndjson all)", coloured))
    c = found.counts
    parts.append(f"{count:,} requests in {c['connections']:,} connections, {c['http2_connections']:,} of them HTTP/2")
    print_text("\n".join(parts), options.output)


def _cells(row: dict[str, Any]) -> list[str]:
    seen = row["observed"]
    took = seen.get("response_time_ns")
    status = str(seen.get("status", ""))
    if "grpc_status" in seen:
        status += f" grpc {seen['grpc_status']}"
    return [
        str(row["flow"]),
        _endpoint(row, "source"),
        _endpoint(row, "destination"),
        row["method"],
        row["authority"] + row["path"],
        status,
        "" if took is None else f"{took / 1e6:.1f}",
        " ".join(seen.get("notes", ())),
    ]


def _endpoint(row: dict[str, Any], name: str) -> str:
    address = row[f"{name}_ip"]
    return f"[{address}]:{row[f'{name}_port']}" if ":" in address else f"{address}:{row[f'{name}_port']}"
