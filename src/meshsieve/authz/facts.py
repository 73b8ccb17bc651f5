"""What a request shows to authorization: the values of every field, read once.

One reading: the path and the headers come from ``meshsieve.routes.http_options.view``, which routing uses as well.
Texts are bytes, as Envoy compares them; addresses are (IP version, number); ports are numbers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from meshsieve.authz.model import Field
from meshsieve.errors import ModelError
from meshsieve.request import Request
from meshsieve.routes.http_options import RequestView, encoded

JWT_FILTER = "envoy.filters.http.jwt_authn"
Address = tuple[int, int]
Value = bytes | int | Address


class Facts:
    """The values of a request's fields.

    seen     None for a connection that is not read as HTTP: HTTP fields then have no values
    trusted_proxies   how many addresses at the right end of X-Forwarded-For are to be trusted; used where the request
                      does not say its ``remote_ip``
    attributes        what the caller adds for conditions: {"user": {...}, "data": {...}, "src": {...}, "dst": {...}}

    raises  ModelError for an address that is none
    """

    def __init__(
        self,
        request: Request,
        seen: RequestView | None,
        *,
        trusted_proxies: int = 0,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self.request = request
        self.seen = seen
        self.attributes = attributes or {}
        self.source_ip = address(request.source_ip, "source_ip")
        self.destination_ip = address(request.destination_ip, "destination_ip")
        self.remote_ip = self._remote(trusted_proxies)
        self.peer = None if request.principal is None else b"spiffe://" + encoded(request.principal)
        self.claims: Mapping[str, Any] | None = request.claims if seen is not None else None

    def values(self, field: Field) -> Sequence[Value]:
        """Every value that the field has; () where the request lacks it."""
        match field.kind:
            case "peer" | "source_ip" | "remote_ip" | "destination_ip":
                return _one(getattr(self, field.kind))
            case "destination_port":
                return _one(self.request.destination_port)
            case "sni":
                return _one(None if self.request.sni is None else encoded(self.request.sni))
            case "metadata" | "metadata_list":
                return context_values(self.request, field)
        if self.seen is None:
            return ()
        match field.kind:
            case "method":
                return (self.seen.method,)
            case "host":
                return _one(self.seen.authority)
            case "path":  # CONNECT has an authority and no path
                return (self.seen.path,) if self.seen.target.startswith(b"/") else ()
            case "header":
                return self.seen.lines(encoded(field.key[0]))
            case _:
                return context_values(self.request, field)

    @property
    def view(self) -> RequestView:
        """``seen``, or a view without anything of HTTP; claims stand in the metadata where Envoy's filter puts them."""
        seen = self.seen or RequestView(self.request, b"", b"", None, b"", [])
        if self.claims is None:
            return seen
        metadata = {JWT_FILTER: {"payload": self.claims}, **self.request.dynamic_metadata}
        return replace(seen, request=replace(self.request, dynamic_metadata=metadata))

    def _remote(self, trusted_proxies: int) -> Address | None:
        if self.request.remote_ip is not None:
            return address(self.request.remote_ip, "remote_ip")
        if trusted_proxies and self.seen is not None:
            hops = [hop.strip() for line in self.seen.lines(b"x-forwarded-for") for hop in line.split(b",")]
            if len(hops) >= trusted_proxies:
                try:
                    return address(hops[-trusted_proxies].decode("ascii", "replace"), "x-forwarded-for")
                except ModelError:
                    return self.source_ip  # Envoy falls back to the peer where the entry is no address
        return self.source_ip


def is_mtls(request: Request) -> bool:
    """Whether the connection came with a client certificate that was verified, as far as the request says."""
    return request.principal is not None or bool((request.tls or {}).get("validated"))


def is_tls(request: Request) -> bool:
    return is_mtls(request) or bool((request.tls or {}).get("presented"))


def context_values(request: Request, field: Field) -> Sequence[bytes]:
    """The values of a claim or of dynamic metadata: what many requests share, unlike paths."""
    match field.kind:
        case "claim" | "claim_text":
            return _texts(_inside(request.claims, field.key), lists=field.kind == "claim")
        case "metadata":
            return _texts(_inside(request.dynamic_metadata, field.key), lists=False)
        case _:
            value = _inside(request.dynamic_metadata, field.key)
            return _texts(value, lists=True) if isinstance(value, list | tuple) else ()


def address(text: str | None, name: str) -> Address | None:
    """(IP version, number); an IPv4 address mapped into IPv6 is IPv4.

    raises  ModelError
    """
    if text is None:
        return None
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        raise ModelError(f"{name}: {text!r} is no IP address") from None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.version, int(found)


def _one(value: Value | None) -> Sequence[Value]:
    return () if value is None else (value,)


def _inside(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any, *, lists: bool) -> Sequence[bytes]:
    """A text is itself; of a list the elements that are texts. Numbers, booleans and objects are no texts."""
    if isinstance(value, str):
        return (encoded(value),)
    if lists and isinstance(value, list | tuple):
        return tuple(encoded(item) for item in value if isinstance(item, str))
    return ()
