"""What Envoy's HTTP connection manager does to a request before routing: refusals, host forms, path normalisation.

One reading: routing and authorization see the request that comes out of here (``RequestView``); nothing is decoded
twice.
Sources: Envoy's http_connection_manager.proto and path utilities, and answers measured from Envoy 1.40.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from meshsieve.request import Headers, Request

EscapedSlashes = Literal["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"]


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Fields of HttpConnectionManager, with Envoy's defaults.

    listener_port  the port that ``strip_matching_host_port`` compares with
    codec          check what an HTTP/1 codec refuses before any route is looked at (bad targets and methods)
    """

    normalize_path: bool = False
    merge_slashes: bool = False
    path_with_escaped_slashes_action: EscapedSlashes = "KEEP_UNCHANGED"
    strip_any_host_port: bool = False
    strip_matching_host_port: bool = False
    strip_trailing_host_dot: bool = False
    listener_port: int | None = None
    codec: bool = True


@dataclass(slots=True)
class RequestView:
    """A request as bytes, read once.

    target     the raw path with its query, after normalisation
    headers    (lower-case name, value) a line
    """

    request: Request
    method: bytes
    scheme: bytes
    authority: bytes | None
    target: bytes
    headers: list[tuple[bytes, bytes]]

    @property
    def path(self) -> bytes:
        """The target up to the first ``?`` or ``#``."""
        return re.split(rb"[?#]", self.target, maxsplit=1)[0]

    @property
    def query(self) -> bytes | None:
        """What follows the first ``?``, or None."""
        _, mark, query = self.target.partition(b"?")
        return query if mark else None

    def lines(self, name: bytes) -> list[bytes]:
        """Values of every line of a header or pseudo header; ``host`` is ``:authority``."""
        match name:
            case b":method":
                return [self.method]
            case b":scheme":
                return [self.scheme] if self.scheme else []
            case b":path":
                return [self.target] if self.target else []
            case b":authority" | b"host":
                return [] if self.authority is None else [self.authority]
        return [value for key, value in self.headers if key == name]

    @property
    def is_grpc(self) -> bool:
        """Content type application/grpc or application/grpc+something."""
        kind = next(iter(self.lines(b"content-type")), b"")
        return kind == b"application/grpc" or kind.startswith(b"application/grpc+")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given before routing: 400, or 307 to the unescaped path."""

    status: int
    reason: str
    location: bytes | None = None


# Headers that Envoy keeps as one value: it joins their lines with a comma while it reads the request, so matchers see
# one line; an empty line adds nothing. Measured on Envoy 1.40.0; lines of every other header stay apart.
JOINED_HEADERS = frozenset(
    (
        b"accept accept-encoding access-control-request-headers access-control-request-method "
        b"access-control-request-private-network authorization cache-control content-encoding content-type expect "
        b"grpc-accept-encoding grpc-timeout if-match if-modified-since if-none-match if-range if-unmodified-since "
        b"origin pragma proxy-status referer user-agent via x-client-trace-id x-envoy-attempt-count "
        b"x-envoy-decorator-operation x-envoy-downstream-service-cluster x-envoy-downstream-service-node "
        b"x-envoy-external-address x-envoy-is-timeout-retry x-envoy-original-path x-envoy-original-host "
        b"x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id"
    ).split()
)

METHODS = frozenset(
    b"ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE MSEARCH M-SEARCH "
    b"NOTIFY OPTIONS PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK "
    b"UNLOCK UNSUBSCRIBE".split()
)


def view(request: Request, options: HttpOptions) -> RequestView | Refusal:
    """The request as routing sees it, or the answer that it gets instead."""
    seen = RequestView(
        request,
        encoded(request.method),
        encoded(request.scheme),
        encoded(request.authority) if request.authority else None,
        encoded(request.path),
        _header_lines(request.headers),
    )
    if options.codec and (reason := _codec_refuses(seen)):
        return Refusal(400, reason)
    if seen.authority is not None:
        seen.authority = _host(seen.authority, options)
    return _normalize(seen, options) if seen.method != b"CONNECT" else seen


def _header_lines(headers: Headers) -> list[tuple[bytes, bytes]]:
    lines = [(encoded(name).lower(), encoded(value).strip(b" \t")) for name, value in headers]
    out: list[tuple[bytes, bytes]] = []
    first: dict[bytes, int] = {}
    for name, value in lines:
        if name in JOINED_HEADERS and name in first:
            before = out[first[name]][1]
            out[first[name]] = name, before + b"," + value if before and value else before or value
        else:
            first.setdefault(name, len(out))
            out.append((name, value))
    return out


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _codec_refuses(seen: RequestView) -> str | None:
    if seen.method not in METHODS:
        return f"the method {seen.method!r} is not one that HTTP/1 knows"
    if seen.method == b"CONNECT":
        return "CONNECT takes host:port" if seen.target.startswith(b"/") else None
    absolute = re.match(rb"https?://([^/?]*)(.*)\Z", seen.target, re.DOTALL | re.IGNORECASE)
    if absolute:
        seen.authority = absolute.group(1)
        seen.target = absolute.group(2) if absolute.group(2).startswith(b"/") else b"/" + absolute.group(2)
    if any(byte < 0x21 or byte > 0x7E for byte in seen.target):
        return "the target holds a byte outside printable ASCII"
    if b"#" in seen.target:
        return "the target holds a fragment"
    if not seen.target.startswith(b"/"):
        return "the target does not begin with /"
    return None


def _host(host: bytes, options: HttpOptions) -> bytes:
    name, colon, port = host.rpartition(b":")
    has_port = bool(colon) and not port.endswith(b"]")
    if not has_port:
        name, port = host, b""
    if options.strip_trailing_host_dot and name.endswith(b"."):
        name = name[:-1]
    matching = options.strip_matching_host_port and port == b"%d" % (options.listener_port or 0)
    if has_port and not ((options.strip_any_host_port and port.isdigit()) or matching):
        return name + b":" + port
    return name


_ESCAPED_SLASH = re.compile(rb"%(2[fF]|5[cC])")
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
_HEX = re.compile(rb"[0-9a-fA-F]{2}")
# A dot segment's parameters. Only where both are written as such: Envoy cuts them before it decodes anything.
_PATH_PARAMETERS = re.compile(rb"((?:\A|(?<=/))\.{1,2});[^/]*")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_QUOTED = {byte: b"%%%02X" % byte for byte in b'"<>^`{|}'}


def _normalize(seen: RequestView, options: HttpOptions) -> RequestView | Refusal:
    path, mark, query = seen.target.partition(b"?")
    action = options.path_with_escaped_slashes_action
    if action != "KEEP_UNCHANGED" and _ESCAPED_SLASH.search(path):
        if action == "REJECT_REQUEST":
            return Refusal(200 if seen.is_grpc else 400, "the path holds an escaped slash")
        path = _ESCAPED_SLASH.sub(lambda m: b"/" if m.group(1)[:1] == b"2" else b"\\", path)
        if action == "UNESCAPE_AND_REDIRECT":
            normal = _normal_path(path, options)
            return normal if isinstance(normal, Refusal) else Refusal(307, "escaped slashes", normal + mark + query)
    normal = _normal_path(path, options)
    if isinstance(normal, Refusal):
        return normal
    seen.target = normal + mark + query
    return seen


def _normal_path(path: bytes, options: HttpOptions) -> bytes | Refusal:
    if options.normalize_path:
        if b"%00" in path:
            return Refusal(400, "the path holds an escaped NUL")
        path = _PATH_PARAMETERS.sub(rb"\1", path)
        path = _decode_unreserved(path).replace(b"\\", b"/")
        path = b"".join(_QUOTED.get(byte, bytes([byte])) for byte in path)
        path = _resolve_dots(path)
    if options.merge_slashes:
        # Measured: a path of nothing but slashes keeps two.
        path = b"//" if len(path) > 1 and not path.strip(b"/") else re.sub(rb"/+", b"/", path)
    return path


def _decode_unreserved(path: bytes) -> bytes:
    """Codes of unreserved characters decoded. A ``%`` that begins no code stays, unless a decoded character would make
    it begin one: then it is written ``%25``, so that nothing can be decoded twice.

    Source: googleurl's url_canon_path.cc (CheckForNestedEscapes), by which Envoy normalises.
    """
    out = bytearray()
    stray = -3  # position in out of the last % that begins no code
    at = 0
    while at < len(path):
        found = _ESCAPE.match(path, at)
        if found is None:
            if path[at] == 0x25:
                stray = len(out)
            out.append(path[at])
            at += 1
            continue
        at = found.end()
        byte = int(found.group(1), 16)
        if byte not in _UNRESERVED:
            out += found.group()
            continue
        out.append(byte)
        after = bytes(out[stray + 1 :]) if stray >= len(out) - 3 else b""
        if stray == len(out) - 2:
            after += path[at : at + 1]
        if len(after) == 2 and _HEX.fullmatch(after):
            out[stray + 1 : stray + 1] = b"25"
    return bytes(out)


def _resolve_dots(path: bytes) -> bytes:
    out: list[bytes] = []
    segments = path.split(b"/")[1:]
    for i, segment in enumerate(segments):
        last = i == len(segments) - 1
        if segment not in (b".", b".."):
            out.append(segment)
            continue
        if segment == b".." and out:
            out.pop()
        if last:
            out.append(b"")
    return b"/" + b"/".join(out)
