"""The identity that a certificate proves: its SPIFFE id, read from the subject alternative name.

What    X.509 in DER or PEM. Of the extension's names the URIs count; an X.509-SVID has exactly one. Signature, dates
        and chain are not looked at: a proxy has accepted the certificate, or the caller says so.
Why     Hostile bytes come here (a capture): the few fields on the way are walked by length, each compared with what is
        left; nothing else of the certificate is read.
Limits  64 KiB a certificate, a trust domain of 255 and an id of 2,048 bytes.
Source  RFC 5280 (4.1, 4.2.1.6); SPIFFE X509-SVID 2, 4; Envoy's x-forwarded-client-cert.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator

from meshsieve.errors import ModelError

MAX_BYTES = 64 * 1024
_SUBJECT_ALTERNATIVE_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_SEQUENCE, _OCTETS, _OBJECT_ID, _VERSION, _EXTENSIONS, _URI = 0x30, 0x04, 0x06, 0xA0, 0xA3, 0x86
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*\Z", re.ASCII)
MAX_ID_BYTES = 2048


def principal_of_certificate(certificate: bytes) -> str | None:
    """The SPIFFE id without ``spiffe://``, as ``Request.principal`` has it; None where the certificate has no URI.

    certificate  DER, or PEM whose first certificate counts

    raises       ModelError for bytes that are no certificate, several URIs, and a URI that is no SPIFFE id
    """
    uris = list(_uris(_der(certificate)))
    if not uris:
        return None
    if len(uris) > 1:
        raise ModelError(f"the certificate has {len(uris)} URIs; an identity is one")
    return _principal(uris[0].decode("latin-1"))


def principal_of_forwarded_certificate(header: str) -> str | None:
    """The SPIFFE id in ``x-forwarded-client-cert``, of the last proxy that wrote an element; None where it names none.

    >>> principal_of_forwarded_certificate('By=spiffe://td/ns/b/sa/y;Hash=00;Subject="";URI=spiffe://td/ns/a/sa/x')
    'td/ns/a/sa/x'

    raises  ModelError for a header that breaks off inside quotes, several URIs, and a URI that is no SPIFFE id
    """
    uris: list[str] = []
    for key, value in _pairs(_split(header, ",")[-1]):
        if key.strip().lower() == "uri":
            uris.append(value)
    if len(uris) > 1:
        raise ModelError("x-forwarded-client-cert names several URIs; an identity is one")
    return _principal(uris[0]) if uris else None


def _principal(uri: str) -> str:
    if len(uri) > MAX_ID_BYTES or not _SPIFFE.match(uri):
        raise ModelError("the certificate's URI is no SPIFFE id")
    return uri.removeprefix("spiffe://")


def _der(certificate: bytes) -> bytes:
    if len(certificate) > 2 * MAX_BYTES:
        raise ModelError(f"longer than {MAX_BYTES} bytes")
    if b"-----BEGIN" in certificate:
        found = _PEM.search(certificate)
        try:
            certificate = base64.b64decode(found.group(1)) if found else b""
        except (binascii.Error, ValueError):
            certificate = b""
    if not certificate or len(certificate) > MAX_BYTES:
        raise ModelError("not a certificate")
    return certificate


def _uris(der: bytes) -> Iterator[bytes]:
    body = _only(der, _SEQUENCE)
    fields = list(_elements(_first(body, _SEQUENCE)))
    if fields and fields[0][0] == _VERSION:
        fields = fields[1:]
    # serial, algorithm, issuer, validity, subject, key; then what is optional.
    if len(fields) < 6:
        raise ModelError("not a certificate: fields are missing")
    extensions = [value for tag, value in fields[6:] if tag == _EXTENSIONS]
    for extension in extensions:
        for tag, value in _elements(_only(extension, _SEQUENCE)):
            parts = list(_elements(value)) if tag == _SEQUENCE else []
            if parts and parts[0] == (_OBJECT_ID, _SUBJECT_ALTERNATIVE_NAME) and parts[-1][0] == _OCTETS:
                names = _elements(_only(parts[-1][1], _SEQUENCE))
                yield from (name for kind, name in names if kind == _URI)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, contents) of each element of a sequence."""
    at = 0
    while at < len(data):
        tag, begin, end = _header(data, at)
        yield tag, data[begin:end]
        at = end


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, and where the contents begin and end."""
    broken = ModelError("not a certificate: it breaks off")
    if len(data) - at < 2:
        raise broken
    tag, length, begin = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise ModelError("not a certificate: a tag of more than one byte")
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 3 or len(data) - begin < count:
            raise broken
        length, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
    if length > len(data) - begin:
        raise broken
    return tag, begin, begin + length


def _first(data: bytes, tag: int) -> bytes:
    found, begin, end = _header(data, 0)
    if found != tag:
        raise ModelError("not a certificate: something else stands in its place")
    return data[begin:end]


def _only(data: bytes, tag: int) -> bytes:
    contents = _first(data, tag)
    if _header(data, 0)[2] != len(data):
        raise ModelError("not a certificate: bytes follow it")
    return contents


def _pairs(element: str) -> Iterator[tuple[str, str]]:
    for part in _split(element, ";"):
        key, _, value = part.partition("=")
        yield key, value.strip().removeprefix('"').removesuffix('"')


def _split(text: str, separator: str) -> list[str]:
    """At separators outside of double quotes; a backslash in quotes takes the next character as it is."""
    out, begin, quoted, at = [], 0, False, 0
    while at < len(text):
        if quoted and text[at] == "\\":
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] == separator and not quoted:
            out.append(text[begin:at])
            begin = at + 1
        at += 1
    if quoted:
        raise ModelError("x-forwarded-client-cert breaks off inside quotes")
    return [*out, text[begin:]]
