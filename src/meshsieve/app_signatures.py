"""Applications of one's own: a YAML file of signatures, compiled with the built-in dissectors.

    applications:
      - name: acme-telemetry
        signatures:
          - transport: tcp              # tcp or udp; absent: both
            ports: [9000, "9100-9199"]  # of the responder; absent: any
            starts_with: "ACME/"        # the first bytes of a direction, as text
          - transport: udp
            starts_with_hex: "ac 3e ?? 01"   # as bytes; ?? is any byte
          - hosts: [".acme.example", "telemetry.acme.test"]  # sni, http_host or dns_name; a leading dot: and below

A signature names ports, first bytes (``starts_with`` or ``starts_with_hex``) or both, which must all hold; or hosts,
which stand alone or with a transport. Patterns are anchored at the first byte. The first signature that holds wins,
before any built-in dissector; ``hosts`` is looked at when the built-ins have read the name, and keeps the attributes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshsieve import _core
from meshsieve.errors import PolicyError
from meshsieve.importers.yaml_source import Mapping, Sequence, load_documents

MAX_SIGNATURES = 1024
MAX_PATTERN = 64  # bytes

_PROTOS = {"tcp": 6, "udp": 17}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_HEX = re.compile(r"(?:[0-9a-f]{2}|\?\?)(?: ?(?:[0-9a-f]{2}|\?\?))*")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature. app: index into the file's names; prefix and mask: equally long; ports: inclusive ranges."""

    app: int
    proto: int = 0
    ports: tuple[tuple[int, int], ...] = ()
    prefix: bytes = b""
    mask: bytes = b""
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Signatures:
    """A compiled signature file. names: its applications, numbered behind the built-in ones."""

    names: tuple[str, ...]
    signatures: tuple[Signature, ...]

    def native(self) -> list[_core.UserSignature]:
        """For the core's flow table. An exact host and the names below it are two suffixes of the same list."""
        return [
            _core.UserSignature(s.app, s.proto, list(s.ports), s.prefix, s.mask, list(s.hosts)) for s in self.signatures
        ]


def load_signatures(path: str | os.PathLike[str]) -> Signatures:
    """The signatures of a file.

    raises  PolicyError with file:line:column for what is not understood, and for a file that cannot be read
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PolicyError(f"cannot be read: {reason}", where=os.fspath(path)) from None
    return parse_signatures(text, os.fspath(path))


def parse_signatures(text: str, file: str = "<text>") -> Signatures:
    """The signatures of a document, as ``load_signatures``."""
    documents = load_documents(text, file)
    if len(documents) != 1 or not isinstance(documents[0], Mapping):
        raise PolicyError("a signature file is one mapping with the key 'applications'", where=file)
    root = documents[0]
    _only(root, {"applications"})
    names: list[str] = []
    signatures: list[Signature] = []
    built_in = {name for name, _ in _core.APPS}
    for entry in _mappings(root, "applications"):
        _only(entry, {"name", "doc", "signatures"})
        name = _text(entry, "name")
        if not _NAME.fullmatch(name):
            _fail(entry, "name", f"'{name}' is no name: lower-case letters, digits, '.', '_' and '-', at most 64")
        if name in built_in or name in names:
            _fail(entry, "name", f"'{name}' is taken; an application of one's own has a name of its own")
        names.append(name)
        for signature in _mappings(entry, "signatures"):
            signatures.append(_signature(signature, len(names) - 1))
    if len(signatures) > MAX_SIGNATURES:
        raise PolicyError(f"over {MAX_SIGNATURES} signatures", where=file)
    return Signatures(tuple(names), tuple(signatures))


def _signature(entry: Mapping, app: int) -> Signature:
    _only(entry, {"transport", "ports", "starts_with", "starts_with_hex", "hosts"})
    if not set(entry) - {"transport"}:
        _fail(entry, None, "a signature names ports, first bytes or hosts; this one would hold for every flow")
    if "starts_with" in entry and "starts_with_hex" in entry:
        _fail(entry, "starts_with_hex", "starts_with and starts_with_hex exclude each other")
    if "hosts" in entry and len(set(entry) - {"transport", "hosts"}):
        _fail(entry, "hosts", "hosts are read by the built-in dissectors, so they stand alone or with transport")
    proto = 0
    if "transport" in entry:
        transport = _text(entry, "transport")
        if transport not in _PROTOS:
            _fail(entry, "transport", f"'{transport}' is neither tcp nor udp")
        proto = _PROTOS[transport]
    prefix, mask = _pattern(entry)
    ports = tuple(_port_range(entry, value) for value in _items(entry, "ports")) if "ports" in entry else ()
    hosts = tuple(host for value in _items(entry, "hosts") for host in _host(entry, value)) if "hosts" in entry else ()
    return Signature(app, proto, ports, prefix, mask, hosts)


def _pattern(entry: Mapping) -> tuple[bytes, bytes]:
    if "starts_with" in entry:
        prefix = _text(entry, "starts_with").encode()
        mask = b"\xff" * len(prefix)
    elif "starts_with_hex" in entry:
        text = _text(entry, "starts_with_hex").lower()
        if not _HEX.fullmatch(text):
            _fail(entry, "starts_with_hex", f"'{text}' is no list of bytes such as 'ac 3e ?? 01'")
        pairs = re.findall(r"[0-9a-f]{2}|\?\?", text)
        prefix = bytes(0 if pair == "??" else int(pair, 16) for pair in pairs)
        mask = bytes(0 if pair == "??" else 255 for pair in pairs)
    else:
        return b"", b""
    if not 0 < len(prefix) <= MAX_PATTERN or not any(mask):
        _fail(entry, None, f"a pattern has 1 to {MAX_PATTERN} bytes, not all of them '??'")
    return prefix, mask


def _port_range(entry: Mapping, value: Any) -> tuple[int, int]:
    first, _, last = str(value).partition("-")
    numbers = [int(text) if text.isascii() and text.isdigit() else -1 for text in (first, last or first)]
    if isinstance(value, bool) or not 0 <= numbers[0] <= numbers[1] <= 65535:
        _fail(entry, "ports", f"'{value}' is no port and no range such as 9100-9199")
    return numbers[0], numbers[1]


def _host(entry: Mapping, value: Any) -> Iterator[str]:
    """The core compares suffixes; a name without leading dot is compared whole, which it marks with '='."""
    if not isinstance(value, str) or not re.fullmatch(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", value):
        _fail(entry, "hosts", f"'{value}' is no host name")
    host = value.lower()
    if host.startswith("."):
        yield host
        yield "=" + host[1:]
    else:
        yield "=" + host


def _only(entry: Mapping, keys: set[str]) -> None:
    for key in entry:
        if key not in keys:
            _fail(entry, key, f"'{key}' is not known; keys: {', '.join(sorted(keys))}")


def _items(entry: Mapping, key: str) -> Sequence:
    value = entry[key]
    if not isinstance(value, Sequence) or not value:
        _fail(entry, key, f"{key} is a list with at least one entry")
    assert isinstance(value, Sequence)
    return value


def _mappings(entry: Mapping, key: str) -> Iterator[Mapping]:
    if key not in entry:
        _fail(entry, None, f"'{key}' is missing")
    for item in _items(entry, key):
        if not isinstance(item, Mapping):
            _fail(entry, key, f"{key} holds mappings")
        yield item


def _text(entry: Mapping, key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        _fail(entry, key if key in entry else None, f"'{key}' is a text")
    assert isinstance(value, str)
    return value


def _fail(entry: Mapping, key: str | None, message: str) -> None:
    raise PolicyError(message, where=entry.where(key))
