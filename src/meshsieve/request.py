"""A request as data: what routing, authorization and balancing read, once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from meshsieve.errors import ModelError

Headers = tuple[tuple[str, str], ...]
ALIASES = {"host": "authority", "src_ip": "source_ip", "dst_ip": "destination_ip", "dst_port": "destination_port"}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. None means absent, which is never "" or 0.

    headers     (name, value) pairs in order, repeated lines kept; a mapping is accepted, whose lists are several lines
    path        raw target, query included
    principal   SPIFFE id; ``spiffe://`` in front of it is left out
    claims      JWT payload
    observed    what a capture or a log says of the answer (status, times, counts); no rule reads it
    """

    method: str = "GET"
    scheme: str = "http"
    authority: str = ""
    path: str = "/"
    headers: Headers = ()
    source_ip: str | None = None
    source_port: int | None = None
    destination_ip: str | None = None
    destination_port: int | None = None
    remote_ip: str | None = None
    principal: str | None = None
    claims: Mapping[str, Any] | None = None
    sni: str | None = None
    alpn: str | None = None
    tls: Mapping[str, Any] | None = None
    random_value: int | None = None
    runtime: Mapping[str, Any] = field(default_factory=dict)
    dynamic_metadata: Mapping[str, Any] = field(default_factory=dict)
    filter_state: Mapping[str, Any] = field(default_factory=dict)
    time_ns: int | None = None
    flow: str | int | None = None
    observed: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", _header_lines(self.headers))
        if isinstance(self.principal, str):
            object.__setattr__(self, "principal", self.principal.removeprefix("spiffe://"))

    def with_peer(self, principal: str) -> Request:
        """The same request over mutual TLS with this identity. ``replace`` would read the headers once more."""
        out = object.__new__(Request)
        for name in _FIELDS:
            object.__setattr__(out, name, getattr(self, name))
        object.__setattr__(out, "principal", principal)
        object.__setattr__(out, "tls", {"presented": True, "validated": True})
        return out

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Request:
        """A request from JSON; ``host``, ``src_ip``, ``dst_ip`` and ``dst_port`` are read as aliases.

        raises  ModelError for a field that a request does not have, or has twice under two names, or of a wrong type
        """
        renamed = {ALIASES.get(name, name): value for name, value in values.items()}
        if len(renamed) != len(values):
            raise ModelError("a field is given twice, also under its other name")
        known = {f.name for f in fields(Request)}
        if unknown := sorted(set(renamed) - known):
            raise ModelError(f"a request has no field {', '.join(unknown)}; fields: {', '.join(sorted(known))}")
        for name, value in renamed.items():
            if value is not None:
                _check_type(name, value)
        # What must be there but is null is absent, and so has its default.
        return Request(**{k: v for k, v in renamed.items() if v is not None})

    def header(self, name: str) -> list[str]:
        """Values of every line of a header, in order; the name is compared without case."""
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]


_TEXTS = frozenset({"method", "scheme", "authority", "path", "source_ip", "destination_ip", "remote_ip", "principal",
                    "sni", "alpn"})  # fmt: skip
_MAPPINGS = frozenset({"claims", "tls", "runtime", "dynamic_metadata", "filter_state", "observed"})
_NUMBERS = {"source_port": 65535, "destination_port": 65535, "random_value": 2**64 - 1, "time_ns": 2**63 - 1}


def _check_type(name: str, value: Any) -> None:
    if name in _TEXTS and not isinstance(value, str):
        raise ModelError(f"{name} must be text, not {type(value).__name__}")
    if name in _MAPPINGS and not isinstance(value, Mapping):
        raise ModelError(f"{name} must be a mapping, not {type(value).__name__}")
    largest = _NUMBERS.get(name)
    if largest is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest):
        raise ModelError(f"{name} must be a whole number in 0..{largest}, not {value!r}"[:200])


_FIELDS = tuple(f.name for f in fields(Request))


def _header_lines(headers: Any) -> Headers:
    if isinstance(headers, Mapping):
        return tuple(
            (str(name), str(line))
            for name, value in headers.items()
            for line in (value if isinstance(value, list | tuple) else [value])
        )
    if not isinstance(headers, Sequence) or isinstance(headers, str):
        raise ModelError(f"headers must be pairs or a mapping, not {type(headers).__name__}")
    try:
        return tuple((str(name), str(value)) for name, value in headers)
    except (TypeError, ValueError):
        raise ModelError("headers must be pairs of name and value") from None
