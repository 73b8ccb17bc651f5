"""Files of requests on the command line: the options, and one NDJSON answer a request."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from meshsieve import request_logs
from meshsieve.cli.stderr import warn
from meshsieve.errors import UsageError
from meshsieve.request import Request

if TYPE_CHECKING:
    from meshsieve.engine import Engine
    from meshsieve.request_logs.batches import LogSource
    from meshsieve.walk.captured import RequestClassification

SHOWN_BAD_LINES = 20
EXIT_BAD_LINES = 2


def add_requests(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests", "a file of requests, as docs/request-logs.md says")
    group.add_argument(
        "--requests",
        metavar="FILE",
        help="NDJSON of requests, access logs of Envoy or Istio, HAR; - for standard input; answers are NDJSON",
    )
    _add_format(group)


def add_logs(parser: argparse.ArgumentParser, *, assume_mtls: bool = True) -> None:
    """Files of requests beside captures, or instead of them."""
    group = parser.add_argument_group("requests", "files of requests, as docs/request-logs.md says")
    group.add_argument(
        "--requests",
        metavar="FILE",
        nargs="+",
        action="extend",
        default=[],
        help="NDJSON of requests, access logs of Envoy or Istio, HAR, also .gz; - for standard input",
    )
    _add_format(group)
    if assume_mtls:
        group.add_argument(
            "--assume-mtls",
            action="store_true",
            help="requests between workloads with proxies have the identity of the client's service account: right for "
            "captures of what the applications see, and for logs that do not name the identity",
        )


def _add_format(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--requests-format", choices=request_logs.FORMATS, default="auto", help="default: auto")
    group.add_argument("--log-header", dest="log_headers", metavar="FIELD=HEADER", action="append", default=[],
                       help="a field of a JSON access log that holds a request header; may be repeated")  # fmt: skip


def check_traffic(options: argparse.Namespace, *, needed: bool = True) -> None:
    """raises  UsageError where neither captures nor logs are given, or standard input is to be both"""
    if needed and not options.captures and not options.requests:
        raise UsageError("which traffic? name captures with -r, or files of requests with --requests")
    if [*options.captures, *options.requests].count("-") > 1:
        raise UsageError("standard input can be read once only")


def classify_logs(engine: Engine, options: argparse.Namespace, progress: Any) -> RequestClassification:
    """The requests of ``--requests`` through all layers."""
    return engine.classify_log(
        options.requests,
        format=options.requests_format,
        header_fields=dict(map(_log_header, options.log_headers)),
        assume_mtls=options.assume_mtls,
        progress=progress,
    )


def log_source(engine: Engine, options: argparse.Namespace, progress: Any) -> LogSource:
    """The requests of ``--requests``, unjudged."""
    return engine.log_source(
        options.requests,
        format=options.requests_format,
        header_fields=dict(map(_log_header, options.log_headers)),
        progress=progress,
    )


def end_of_logs(result: RequestClassification) -> int:
    """Says on standard error which lines were no requests; returns the exit status for it."""
    totals = result.totals()
    for note in totals.notes:
        warn(note)
    return EXIT_BAD_LINES if totals.counts.get("bad_lines") else 0


def answer_all(
    options: argparse.Namespace,
    answer: Callable[[Request, Mapping[str, Any]], dict[str, Any]],
    extra_keys: tuple[str, ...] = (),
) -> int:
    """NDJSON answers in the order of the lines; a line that is no request is answered with its number and why.

    answer      of a request and the values of ``extra_keys``, which NDJSON lines may have besides the request's fields
    returns     the exit status: 2 if a line was no request
    """
    headers = dict(map(_log_header, options.log_headers))
    log = request_logs.read(options.requests, options.requests_format, headers, extra_keys=extra_keys)
    for line, found in log.records():
        if isinstance(found, Request):
            print(json.dumps({"line": line, **answer(found, log.extra)}))
        else:
            print(json.dumps({"line": line, "error": found.message}))
            if log.bad <= SHOWN_BAD_LINES:
                warn(f"{log.name}:{line}: not a request: {found.message}")
    if log.bad > SHOWN_BAD_LINES:
        warn(f"{log.name}: {log.bad - SHOWN_BAD_LINES} more lines are no requests")
    if log.unrequested:
        warn(f"{log.name}: {log.unrequested} lines are of connections without a request")
    return EXIT_BAD_LINES if log.bad else 0


def _log_header(text: str) -> tuple[str, str]:
    field, equals, header = text.partition("=")
    if not equals or not field or not header:
        raise UsageError(f"--log-header '{text}' is not FIELD=HEADER")
    return field, header
