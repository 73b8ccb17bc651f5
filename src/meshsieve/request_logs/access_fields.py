"""Fields of an access log as a request: the names that Envoy, Istio and Envoy Gateway give them by default.

A log tells only some headers. The others are unknown, not absent, so a route that asks for one may be answered wrong:
``header_fields`` names further fields that hold headers, for logs whose format has them.
Sources: Envoy's access log documentation (command operators, default format), Istio's and Envoy Gateway's default JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from meshsieve.errors import ModelError
from meshsieve.request import Request

ABSENT = "-"
# Normalised field name (lower case, _ for -, no leading colon) -> what it is; the first that is there counts.
METHOD = ("method", "request_method")
AUTHORITY = ("authority", "host")
PATH = ("x_envoy_original_path", "x_envoy_origin_path", "original_path", "path", "request_path")
SCHEME = ("scheme", "x_forwarded_proto")
SERVER_NAME = ("requested_server_name", "sni")
START = ("start_time", "timestamp")
HEADERS = {
    "x_forwarded_for": "x-forwarded-for",
    "user_agent": "user-agent",
    "request_id": "x-request-id",
    "x_request_id": "x-request-id",
    "x_forwarded_proto": "x-forwarded-proto",
    "referer": "referer",
    "content_type": "content-type",
}
OBSERVED = {
    "response_code": "status",
    "response_flags": "response_flags",
    "response_code_details": "response_code_details",
    "duration": "duration_ms",
    "bytes_received": "bytes_received",
    "bytes_sent": "bytes_sent",
    "upstream_host": "upstream_host",
    "upstream_cluster": "upstream_cluster",
    "route_name": "route_name",
    "protocol": "protocol",
}
NUMBERS = {"status", "duration_ms", "bytes_received", "bytes_sent"}
# Fields that tell an access log from a request in NDJSON.
MARKS = frozenset({"response_code", "response_flags", "start_time", "upstream_cluster", "upstream_host"})
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)


class NoRequestError(ModelError):
    """The line logs a connection that carried no request, as proxies of TCP write them."""


def field_name(key: str) -> str:
    return key.lower().lstrip(":").replace("-", "_")


def looks_like_access_log(keys: object) -> bool:
    """Whether a JSON object with these keys is a line of an access log."""
    return isinstance(keys, Mapping) and bool(MARKS & {field_name(k) for k in keys})


def request_of(fields: Mapping[str, Any], header_fields: Mapping[str, str]) -> Request:
    """``header_fields``: further fields, by their names in the log, and the headers that they hold.

    raises  NoRequestError, ModelError
    """
    values = {field_name(k): v for k, v in fields.items() if v not in (None, "", ABSENT)}
    method = _first(values, METHOD)
    if method is None:
        raise NoRequestError("a connection without a request")
    headers = [(name, _text(values, key)) for key, name in HEADERS.items() if key in values]
    headers += [(name, str(fields[key])) for key, name in header_fields.items() if fields.get(key) not in (None, "-")]
    source = _address(values, "downstream_direct_remote_address") or _address(values, "downstream_remote_address")
    remote = _address(values, "downstream_remote_address")
    local = _address(values, "downstream_local_address")
    server_name = _first(values, SERVER_NAME)
    return Request(
        method=method,
        scheme=_first(values, SCHEME) or ("https" if server_name is not None else "http"),
        authority=_first(values, AUTHORITY) or "",
        path=_first(values, PATH) or "",
        headers=tuple(headers),
        source_ip=source[0] if source else None,
        source_port=source[1] if source else None,
        remote_ip=remote[0] if remote else None,
        destination_ip=local[0] if local else None,
        destination_port=local[1] if local else None,
        sni=server_name,
        time_ns=time_ns(_first(values, START)),
        observed={name: _observed(values, key, name) for key, name in OBSERVED.items() if key in values},
    )


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values[key]
    if not isinstance(value, str | int | float):
        raise ModelError(f"{key} is {type(value).__name__}, not text")
    return str(value)


def _first(values: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((_text(values, key) for key in keys if key in values), None)


def _observed(values: Mapping[str, Any], key: str, name: str) -> str | int:
    text = _text(values, key)
    return int(text) if name in NUMBERS and text.isascii() and text.isdigit() and len(text) <= 18 else text


def _address(values: Mapping[str, Any], key: str) -> tuple[str, int | None] | None:
    """(address, port) of ``10.0.0.1:80`` or ``[::1]:80``; None for what has no IP address, such as a Unix socket."""
    return host_and_port(_text(values, key)) if key in values else None


def host_and_port(text: str) -> tuple[str, int] | None:
    """(address, port) of ``10.0.0.1:80`` or ``[::1]:80``; None for what has none, such as a Unix socket."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def time_ns(text: str | None) -> int | None:
    """Nanoseconds since 1970; None where the log gives no time that can be read."""
    found = _TIME.match(text) if text is not None else None
    if found is None:
        return None
    whole, fraction, zone = found.groups()
    try:
        seconds = datetime.fromisoformat(f"{whole}{'+00:00' if zone == 'Z' else zone}").timestamp()
    except ValueError:
        return None
    return int(seconds) * 10**9 + int((fraction or "0").ljust(9, "0"))
