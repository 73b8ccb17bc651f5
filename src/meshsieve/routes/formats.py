"""Envoy's format strings, as far as a request alone decides them.

``%REQ(name)%`` (first line of the header), ``%REQ(name?other)%``, ``:N`` cuts to N bytes, ``%PATH(NQ:PATH)%`` is the
path without query, ``%%`` a percent sign. Commands about the connection or the response cannot be filled in before
there is one: they stay in header values as written, and are refused in rewrites.
"""

from __future__ import annotations

import re
from typing import Literal

from meshsieve.errors import ModelError
from meshsieve.routes.http_options import RequestView, encoded

_COMMAND = re.compile(r"%([A-Z_]+)(?:\(([^)%]*)\))?(?::([0-9]{1,9}))?%", re.ASCII)
# Commands that Envoy knows; of those only REQ and PATH depend on the request alone.
KNOWN = frozenset(
    """
    REQ PATH RESP TRAILER PROTOCOL UPSTREAM_PROTOCOL START_TIME DURATION RESPONSE_CODE RESPONSE_CODE_DETAILS
    RESPONSE_FLAGS ROUTE_NAME VIRTUAL_CLUSTER_NAME UPSTREAM_HOST UPSTREAM_HOST_NAME UPSTREAM_CLUSTER HOSTNAME
    UPSTREAM_CLUSTER_RAW UPSTREAM_LOCAL_ADDRESS UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_PORT BYTES_RECEIVED
    BYTES_SENT UPSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_REMOTE_ADDRESS
    DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_ADDRESS
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_PORT CONNECTION_ID STREAM_ID REQUESTED_SERVER_NAME
    DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_PEER_SUBJECT
    DOWNSTREAM_PEER_ISSUER DOWNSTREAM_TLS_SESSION_ID DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_VERSION
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_FINGERPRINT_1 DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_CERT
    DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_CERT_V_END ENVIRONMENT DYNAMIC_METADATA CLUSTER_METADATA
    UPSTREAM_METADATA FILTER_STATE UPSTREAM_FILTER_STATE PER_REQUEST_STATE CEL QUERY_PARAM QUERY_PARAMS
    GRPC_STATUS GRPC_STATUS_NUMBER REQUEST_DURATION RESPONSE_DURATION UNIQUE_ID METADATA TRACE_ID
    LOCAL_REPLY_BODY CONNECTION_TERMINATION_DETAILS DOWNSTREAM_TRANSPORT_FAILURE_REASON COALESCE
    """.split()  # noqa: SIM905
)


# Commands that the request's own fields fill in.
_ADDRESSES = {
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": "source_ip",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": "source_ip",
    "DOWNSTREAM_REMOTE_PORT": "source_port",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": "destination_ip",
    "DOWNSTREAM_LOCAL_PORT": "destination_port",
}


def check(text: str, use: Literal["rewrite", "header"]) -> None:
    """raises  ModelError for an unclosed or unknown command, and in rewrites for one that no request decides"""
    rest = text.replace("%%", "")
    for found in _COMMAND.finditer(rest):
        name = found.group(1)
        if name not in KNOWN:
            raise ModelError(f"format {text!r}: there is no command {name}")
        if use == "rewrite" and name not in ("REQ", "PATH", *_ADDRESSES):
            raise ModelError(f"format {text!r}: {name} cannot be known from a request")
    if "%" in _COMMAND.sub("", rest):
        raise ModelError(f"format {text!r}: a percent sign begins no command that is closed; write %% for itself")


def fill(text: str, seen: RequestView, missing: bytes) -> bytes:
    """The text with its commands replaced; ``missing`` stands for an absent value."""

    def one(found: re.Match[str]) -> str:
        name, argument, limit = found.groups()
        if name == "REQ":
            names = (argument or "").split("?")
            value = next((lines[0] for n in names if (lines := seen.lines(encoded(n).lower()))), None)
        elif name in _ADDRESSES:
            address = getattr(seen.request, _ADDRESSES[name])
            value = None if address is None else encoded(str(address))
        elif name == "PATH":
            with_query = not (argument or "").startswith("NQ")
            value = seen.target if with_query else seen.path
        else:
            return found.group()
        value = missing if value is None else value
        cut = value if limit is None else value[: int(limit)]
        return cut.decode("utf-8", "surrogateescape")

    parts = text.split("%%")
    return encoded("%".join(_COMMAND.sub(one, part) for part in parts))
