"""The request hash: which parts of a request a route hashes, and how they combine.

In list order; the first hash is h, each later one gives h = rotl64(h, 1) ^ new. Absent parts add nothing. After a
policy marked terminal the list ends if any hash exists by then. Every part is xxHash64 with seed 0 unless noted.

Source: envoyproxy/envoy source/common/http/hash_policy.cc; checked on Envoy 1.40.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from meshsieve import _core
from meshsieve.errors import BalanceError, ModelError
from meshsieve.request import Request

MASK = 2**64 - 1


class RequestHash(NamedTuple):
    """value: the hash, or None when no part is present (the pick is then random). cookies_to_set: generated ones, as
    (name, value, path, ttl in seconds)."""

    value: int | None
    cookies_to_set: tuple[tuple[str, str, str, float], ...] = ()


@dataclass(frozen=True)
class HeaderHash:
    """The header's value, also when empty. Several lines: each is rewritten, they are sorted by bytes, and each hash is
    the seed of the next."""

    name: str
    rewrite: tuple[str, str] | None = None  # RE2 pattern, substitution with \\0 .. \\9
    terminal: bool = False
    _regex: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.rewrite is None:
            return
        pattern, substitution = self.rewrite
        try:
            regex = _core.Regex(_bytes(pattern))
            regex.check_substitution(_bytes(substitution))
        except ModelError as error:
            raise BalanceError(f"regex_rewrite of header {self.name}: {error}") from None
        object.__setattr__(self, "_regex", regex)

    def hash(self, request: Request) -> int | None:
        lines = [_bytes(value) for value in request.header(self.name)]
        if not lines:
            return None
        if self.rewrite is not None:
            lines = [self._regex.replace_all(line, _bytes(self.rewrite[1])) for line in lines]
        seed = 0
        for line in sorted(lines):
            seed = _core.xxh64(line, seed)
        return seed


@dataclass(frozen=True)
class CookieHash:
    """The first cookie of the name over all ``cookie`` lines, without surrounding double quotes; empty is absent.

    With ``ttl`` (seconds, 0 = session cookie) an absent cookie is generated: 16 hex digits, the xxHash64 of remote and
    local address.
    """

    name: str
    ttl: float | None = None
    path: str = ""
    terminal: bool = False

    def hash(self, request: Request) -> int | None:
        value = cookie_value(request, self.name)
        return _core.xxh64(_bytes(value)) if value else None

    def generate(self, request: Request) -> str:
        """The cookie that Envoy sets when it is absent and ttl is given."""
        addresses = _address_text(request.source_ip, request.source_port) + _address_text(
            request.destination_ip, request.destination_port
        )
        return f"{_core.xxh64(_bytes(addresses)):016x}"


@dataclass(frozen=True)
class SourceIpHash:
    """The text of the client's address, without port."""

    terminal: bool = False

    def hash(self, request: Request) -> int | None:
        return _core.xxh64(_bytes(request.source_ip)) if request.source_ip else None


@dataclass(frozen=True)
class QueryParameterHash:
    """The first parameter of the name, raw; only ``&`` separates; ``u=`` and bare ``u`` are the empty text, which is
    hashed."""

    name: str
    terminal: bool = False

    def hash(self, request: Request) -> int | None:
        value = query_parameter(request.path, self.name)
        return None if value is None else _core.xxh64(_bytes(value))


@dataclass(frozen=True)
class FilterStateHash:
    """A filter state object: an integer is its own hash (Envoy's Hashable objects), text is hashed."""

    key: str
    terminal: bool = False

    def hash(self, request: Request) -> int | None:
        value = request.filter_state.get(self.key)
        if value is None:
            return None
        return value & MASK if isinstance(value, int) else _core.xxh64(_bytes(str(value)))


Part = HeaderHash | CookieHash | SourceIpHash | QueryParameterHash | FilterStateHash


@dataclass(frozen=True)
class HashPolicy:
    """The hash policies of a route, in order.

    >>> policy = HashPolicy((HeaderHash("x-user", terminal=True), SourceIpHash()))
    >>> hex(policy.hash(Request(headers=[("x-user", "")])).value)
    '0xef46db3751d8e999'
    """

    parts: tuple[Part, ...] = ()

    def hash(self, request: Request) -> RequestHash:
        """The request's hash, and the cookies that Envoy would set on the way."""
        value: int | None = None
        cookies: list[tuple[str, str, str, float]] = []
        for part in self.parts:
            new = part.hash(request)
            if new is None and isinstance(part, CookieHash) and part.ttl is not None:
                generated = part.generate(request)
                cookies.append((part.name, generated, part.path, part.ttl))
                new = _core.xxh64(_bytes(generated))
            if new is not None:
                value = new if value is None else combine(value, new)
            if part.terminal and value is not None:
                break
        return RequestHash(value, tuple(cookies))

    @staticmethod
    def from_envoy(policies: Sequence[Mapping[str, Any]] | None) -> HashPolicy:
        """From ``hash_policy`` of Envoy's route API, as parsed from JSON or YAML.

        raises  BalanceError for anything that is not in the list of kinds, with the place in the list
        """
        return HashPolicy(tuple(_part(f"hash_policy[{i}]", policy) for i, policy in enumerate(policies or ())))


def combine(value: int, new: int) -> int:
    """rotl64(value, 1) ^ new."""
    return ((value << 1 | value >> 63) & MASK) ^ new


def cookie_value(request: Request, name: str) -> str | None:
    """The first cookie of the name over all ``cookie`` lines, without surrounding double quotes, or None."""
    for line in request.header("cookie"):
        for pair in line.split(";"):
            key, equals, value = pair.strip(" \t").partition("=")
            if equals and key == name:
                return value[1:-1] if len(value) >= 2 and value[0] == value[-1] == '"' else value
    return None


def query_parameter(path: str, name: str) -> str | None:
    """The first parameter of the name in a raw target, undecoded, or None."""
    for pair in path.partition("?")[2].partition("#")[0].split("&"):
        key, _, value = pair.partition("=")
        if key == name:
            return value
    return None


def _part(where: str, policy: Mapping[str, Any]) -> Part:
    kinds = [kind for kind in policy if kind != "terminal"]
    if len(kinds) != 1 or kinds[0] not in _READERS:
        raise BalanceError(f"{where}: expected one of {', '.join(_READERS)}, got {', '.join(kinds) or 'nothing'}")
    terminal = policy.get("terminal", False)
    if not isinstance(terminal, bool):
        raise BalanceError(f"{where}.terminal must be true or false")
    kind = kinds[0]
    return _READERS[kind](_Fields(f"{where}.{kind}", policy[kind]), terminal)


class _Fields:
    """A mapping that must be used up: what is left over is unknown and refused."""

    def __init__(self, where: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise BalanceError(f"{where} must be a mapping")
        self.where = where
        self.values = dict(values)

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        value = self.values.pop(name, default)
        if value is None:
            raise BalanceError(f"{self.where}.{name} is missing")
        if not isinstance(value, kind):
            raise BalanceError(f"{self.where}.{name} must be {kind.__name__}, not {value!r}")
        return value

    def optional(self, name: str) -> Any:
        return self.values.pop(name, None)

    def done(self) -> None:
        if self.values:
            raise BalanceError(f"{self.where} has unknown fields: {', '.join(sorted(self.values))}")


def _read_header(fields: _Fields, terminal: bool) -> HeaderHash:
    name = fields.take("header_name", str)
    rewrite = fields.optional("regex_rewrite")
    fields.done()
    if rewrite is None:
        return HeaderHash(name, None, terminal)
    inner = _Fields(f"{fields.where}.regex_rewrite", rewrite)
    pattern = _Fields(f"{inner.where}.pattern", inner.take("pattern", dict))
    substitution = inner.take("substitution", str, "")
    inner.done()
    regex = pattern.take("regex", str)
    pattern.optional("google_re2")
    pattern.done()
    return HeaderHash(name, (regex, substitution), terminal)


def _read_cookie(fields: _Fields, terminal: bool) -> CookieHash:
    name, path, ttl = fields.take("name", str), fields.take("path", str, ""), fields.optional("ttl")
    if fields.optional("attributes"):
        raise BalanceError(f"{fields.where}.attributes would change the cookie that is set; they are not modelled")
    fields.done()
    return CookieHash(name, None if ttl is None else duration_seconds(ttl, f"{fields.where}.ttl"), path, terminal)


def _read_connection(fields: _Fields, terminal: bool) -> SourceIpHash:
    if not fields.take("source_ip", bool, False):
        raise BalanceError(f"{fields.where}.source_ip must be true: nothing else of a connection can be hashed")
    fields.done()
    return SourceIpHash(terminal)


def _read_query(fields: _Fields, terminal: bool) -> QueryParameterHash:
    name = fields.take("name", str)
    fields.done()
    return QueryParameterHash(name, terminal)


def _read_filter_state(fields: _Fields, terminal: bool) -> FilterStateHash:
    key = fields.take("key", str)
    fields.done()
    return FilterStateHash(key, terminal)


_READERS: dict[str, Callable[[_Fields, bool], Part]] = {
    "header": _read_header,
    "cookie": _read_cookie,
    "connection_properties": _read_connection,
    "query_parameter": _read_query,
    "filter_state": _read_filter_state,
}


def duration_seconds(value: Any, where: str) -> float:
    """A protobuf duration ("1.5s") or an Istio one ("1h2m3s", "500ms") in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
    text = str(value)
    total, number, i = 0.0, "", 0
    while i < len(text):
        if text[i] in "0123456789.":
            number += text[i]
            i += 1
            continue
        unit = text[i : i + 2] if text[i : i + 2] in units else text[i]
        if unit not in units or not number or number.count(".") > 1 or number == ".":
            raise BalanceError(f"{where}: '{text}' is not a duration; write for example 30s")
        total += float(number) * units[unit]
        number, i = "", i + len(unit)
    if number or not text:
        raise BalanceError(f"{where}: '{text}' is not a duration; write for example 30s")
    return total


def _address_text(address: str | None, port: int | None) -> str:
    if address is None:
        return ""
    shown = f"[{address}]" if ":" in address else address
    return shown if port is None else f"{shown}:{port}"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
