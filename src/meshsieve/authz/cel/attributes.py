"""What an expression can ask about a request: Envoy's attribute names, and a few of our own.

An attribute that the request does not have is absent: selecting it is an error, ``has`` says so. Names that no table
below holds are refused when the expression is compiled.
Source  Envoy's documentation, architecture overview, attributes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from meshsieve.authz.cel.values import TYPES, EvaluationError, Message, Timestamp, Value
from meshsieve.authz.facts import Address, Facts

# Fields of each root; None: any.
ATTRIBUTES: dict[str, tuple[str, ...] | None] = {
    "request": (
        "path", "url_path", "host", "scheme", "method", "headers", "referer", "useragent", "time", "id", "protocol",
        "query", "size",
    ),
    "source": ("address", "port"),
    "destination": ("address", "port"),
    "connection": (
        "mtls", "requested_server_name", "tls_version", "uri_san_peer_certificate", "dns_san_peer_certificate",
        "subject_peer_certificate",
    ),
    "metadata": ("filter_metadata",),
    "jwt": ("claims",),
    "peer": ("trust_domain", "namespace", "service_account"),
    "user": ("id", "groups"),
    "data": ("classification",),
    "src": ("labels",),
    "dst": ("labels",),
}  # fmt: skip
_SPIFFE = re.compile(rb"spiffe://([^/]+)/ns/([^/]+)/sa/([^/]+)\Z")


class Attributes(Message):
    """The fields of one root, each worked out when it is asked for; absent ones are not in it."""

    def __init__(self, make: Mapping[str, Callable[[], Value]]) -> None:
        self._make = make

    def __getitem__(self, name: str) -> Value:
        value = self._make[name]() if name in self._make else None
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._make and self._make[name]() is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._make if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Headers(dict[str, Value]):
    """By lower-case names; found by names in any case, as HTTP has it."""

    def __getitem__(self, name: str) -> Value:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())


def root(facts: Facts, name: str) -> Value:
    """raises  EvaluationError for a name that is none of the roots"""
    made = _ROOTS.get(name)
    if made is None and name in TYPES:
        return TYPES[name]
    if made is None:
        raise EvaluationError(f"there is no {name}")
    return Attributes(made(facts))


def _request(facts: Facts) -> dict[str, Callable[[], Value]]:
    seen, request = facts.seen, facts.request
    time = {"time": lambda: None if request.time_ns is None else Timestamp(request.time_ns)}
    if seen is None:
        return time

    def line(name: bytes) -> Callable[[], Value]:
        return lambda: next((_text(value) for value in seen.lines(name)), None)

    def headers() -> Value:
        names = dict.fromkeys(name for name, _ in seen.headers)
        return Headers({_text(name): _text(b",".join(seen.lines(name))) for name in names})

    def size() -> Value:
        text = next(iter(seen.lines(b"content-length")), b"")
        return int(text) if re.fullmatch(rb"[0-9]{1,18}", text) else 0

    return {
        **time,
        "path": lambda: _text(seen.target),
        "url_path": lambda: _text(seen.path),
        "host": lambda: None if seen.authority is None else _text(seen.authority),
        "scheme": lambda: _text(seen.scheme) or None,
        "method": lambda: _text(seen.method),
        "headers": headers,
        "referer": line(b"referer"),
        "useragent": line(b"user-agent"),
        "id": line(b"x-request-id"),
        "protocol": lambda: "HTTP/2" if request.alpn == "h2" else "HTTP/1.1",
        "query": lambda: _text(seen.query or b""),
        "size": size,
    }


def _endpoint(address: Address | None, port: int | None) -> dict[str, Callable[[], Value]]:
    def text() -> Value:
        if address is None:
            return None
        kind = ipaddress.IPv4Address if address[0] == 4 else ipaddress.IPv6Address
        shown = str(kind(address[1])) if address[0] == 4 else f"[{kind(address[1])}]"
        return shown if port is None else f"{shown}:{port}"

    return {"address": text, "port": lambda: port}


def _connection(facts: Facts) -> dict[str, Callable[[], Value]]:
    state: Mapping[str, Any] = facts.request.tls or {}
    return {
        "mtls": lambda: facts.peer is not None or bool(state.get("validated")),
        "requested_server_name": lambda: facts.request.sni or "",
        "tls_version": lambda: state.get("version"),
        "uri_san_peer_certificate": lambda: None if facts.peer is None else _text(facts.peer),
        "dns_san_peer_certificate": lambda: state.get("dns_san"),
        "subject_peer_certificate": lambda: state.get("subject"),
    }


def _peer(facts: Facts) -> dict[str, Callable[[], Value]]:
    found = _SPIFFE.match(facts.peer or b"")
    names = ("trust_domain", "namespace", "service_account")
    parts = dict(zip(names, map(_text, found.groups()), strict=True)) if found else {}
    return {name: partial(parts.get, name) for name in names}


def _user(facts: Facts) -> dict[str, Callable[[], Value]]:
    """As the caller says, else as the token does."""
    given: Mapping[str, Any] = facts.attributes.get("user") or {}
    claims: Mapping[str, Any] = facts.claims or {}

    def groups() -> Value:
        value = given.get("groups", claims.get("groups"))
        return value if isinstance(value, list) and all(isinstance(g, str) for g in value) else None

    def name() -> Value:
        value = given.get("id", claims.get("sub"))
        return value if isinstance(value, str) else None

    return {"id": name, "groups": groups}


def _given(root: str, field: str) -> Callable[[Facts], dict[str, Callable[[], Value]]]:
    return lambda facts: {field: lambda: (facts.attributes.get(root) or {}).get(field)}


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


_ROOTS: dict[str, Callable[[Facts], Mapping[str, Callable[[], Value]]]] = {
    "request": _request,
    "source": lambda facts: _endpoint(facts.source_ip, facts.request.source_port),
    "destination": lambda facts: _endpoint(facts.destination_ip, facts.request.destination_port),
    "connection": _connection,
    "metadata": lambda facts: {"filter_metadata": lambda: facts.request.dynamic_metadata},
    "jwt": lambda facts: {"claims": lambda: facts.claims},
    "peer": _peer,
    "user": _user,
    "data": _given("data", "classification"),
    "src": _given("src", "labels"),
    "dst": _given("dst", "labels"),
}
