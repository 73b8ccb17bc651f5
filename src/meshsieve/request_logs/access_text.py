"""The default text formats of Envoy's and Istio's access logs.

A line is tokens: first ``[time]``, then ``"quoted"`` and bare ones. Envoy does not escape a quotation mark inside a
quoted header, so a client can write tokens of its own. A quotation mark can only add tokens or break the grammar, never
take one away, so a line counts only if it has exactly the tokens of its format, and every other one is refused.
Sources: Envoy's access log documentation (default format string); Istio's default of meshConfig.accessLogFormat.
"""

from __future__ import annotations

from collections.abc import Iterator

from meshsieve.errors import ModelError

REQUEST = "request"  # method, path and protocol in one token
ENVOY = (
    "start_time", REQUEST, "response_code", "response_flags", "bytes_received", "bytes_sent", "duration",
    "upstream_service_time", "x_forwarded_for", "user_agent", "request_id", "authority", "upstream_host",
)  # fmt: skip
ISTIO = (
    "start_time", REQUEST, "response_code", "response_flags", "response_code_details",
    "connection_termination_details", "upstream_transport_failure_reason", "bytes_received", "bytes_sent", "duration",
    "upstream_service_time", "x_forwarded_for", "user_agent", "request_id", "authority", "upstream_host",
    "upstream_cluster", "upstream_local_address", "downstream_local_address", "downstream_remote_address",
    "requested_server_name", "route_name",
)  # fmt: skip
# Which tokens are quoted; the time stands in brackets.
QUOTED = {
    REQUEST, "x_forwarded_for", "user_agent", "request_id", "authority", "upstream_host",
    "upstream_transport_failure_reason",
}  # fmt: skip


def fields_of(line: str) -> dict[str, str]:
    """raises  ModelError for a line that is not exactly of one of the two formats"""
    tokens = list(_tokens(line))
    names = {len(ENVOY): ENVOY, len(ISTIO): ISTIO}.get(len(tokens))
    if names is None:
        expected = f"{len(ENVOY)} (Envoy) or {len(ISTIO)} (Istio)"
        raise ModelError(
            f"{len(tokens)} fields, expected {expected}: another format, or a header with a quotation mark"
        )
    for name, (quoted, _) in zip(names, tokens, strict=True):
        if quoted != (name in QUOTED):
            raise ModelError(f"field {name} is {'' if quoted else 'not '}quoted: another format")
    fields = {name: text for name, (_, text) in zip(names, tokens, strict=True)}
    parts = fields.pop(REQUEST).split(" ")
    if len(parts) != 3:
        raise ModelError("expected METHOD PATH PROTOCOL")
    return {**fields, **dict(zip(("method", "path", "protocol"), parts, strict=True))}


def _tokens(line: str) -> Iterator[tuple[bool, str]]:
    """(whether it is quoted, its text)."""
    at, end = 0, len(line)
    while at < end:
        opening = line[at]
        if opening == '"' or (opening == "[" and at == 0):  # later brackets are those of IPv6 addresses
            closing = line.find("]" if opening == "[" else '"', at + 1)
            if closing < 0:
                raise ModelError(f"{opening} is not closed")
            yield opening == '"', line[at + 1 : closing]
            at = closing + 1
        else:
            closing = line.find(" ", at)
            closing = end if closing < 0 else closing
            yield False, line[at:closing]
            at = closing
        if at < end and line[at] != " ":
            raise ModelError(f"expected a space at column {at + 1}: a header with a quotation mark?")
        at += 1
