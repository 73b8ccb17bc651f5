"""Files of requests on the command line: the options, and one NDJSON answer a request."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from meshsieve import request_logs
from meshsieve.cli.stderr import warn
from meshsieve.errors import UsageError
from meshsieve.request import Request

SHOWN_BAD_LINES = 20
EXIT_BAD_LINES = 2


def add_requests(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("requests", "a file of requests, as docs/request-logs.md says")
    group.add_argument(
        "--requests",
        metavar="FILE",
        help="NDJSON of requests, access logs of Envoy or Istio, HAR; - for standard input; answers are NDJSON",
    )
    group.add_argument("--requests-format", choices=request_logs.FORMATS, default="auto", help="default: auto")
    group.add_argument("--log-header", dest="log_headers", metavar="FIELD=HEADER", action="append", default=[],
                       help="a field of a JSON access log that holds a request header; may be repeated")  # fmt: skip


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
