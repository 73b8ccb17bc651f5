"""Identities out of certificates and of the header in which proxies pass them on."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshsieve.authz.identity import MAX_BYTES, principal_of_certificate, principal_of_forwarded_certificate
from meshsieve.errors import ModelError

ID = "spiffe://cluster.local/ns/shop/sa/web"


def element(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + size + body


def certificate(*names: tuple[int, bytes], critical: bool = True, version: bool = True) -> bytes:
    """A certificate's shape: what is not on the way to the names is a placeholder."""
    san = element(0x30, *(element(tag, name) for tag, name in names))
    flag = [element(0x01, b"\xff")] if critical else []
    other = element(0x30, element(0x06, b"\x55\x1d\x0f"), element(0x04, element(0x03, b"\x05\xa0")))
    extension = element(0x30, element(0x06, b"\x55\x1d\x11"), *flag, element(0x04, san))
    fields = [element(0x02, b"\x01"), *(element(0x30) for _ in range(5))]
    head = [element(0xA0, element(0x02, b"\x02"))] if version else []
    tbs = element(0x30, *head, *fields, element(0xA3, element(0x30, other, extension)))
    return element(0x30, tbs, element(0x30), element(0x03, b"\x00" + b"x" * 300))


URI, DNS = 0x86, 0x82
GOOD = certificate((DNS, b"web"), (URI, ID.encode()))


def test_the_uri_is_the_identity():
    assert principal_of_certificate(GOOD) == "cluster.local/ns/shop/sa/web"
    assert principal_of_certificate(certificate((URI, ID.encode()), critical=False, version=False)) == ID[9:]
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(GOOD) + b"-----END CERTIFICATE-----\n"
    assert principal_of_certificate(pem * 2) == ID[9:]


def test_a_certificate_without_uri_has_no_identity():
    assert principal_of_certificate(certificate((DNS, b"web"))) is None
    bare = element(0x30, element(0x30, element(0x02, b"\x01"), *(element(0x30) for _ in range(5))))
    assert principal_of_certificate(bare) is None


REFUSED = [
    ("two identities", certificate((URI, ID.encode()), (URI, ID.encode())), "2 URIs"),
    ("another scheme", certificate((URI, b"https://a/b")), "no SPIFFE id"),
    ("an upper-case trust domain", certificate((URI, b"spiffe://TD/ns/a")), "no SPIFFE id"),
    ("an empty segment", certificate((URI, b"spiffe://td//a")), "no SPIFFE id"),
    ("a line break behind it", certificate((URI, ID.encode() + b"\n")), "no SPIFFE id"),
    ("a NUL in it", certificate((URI, b"spiffe://td/a\0b")), "no SPIFFE id"),
    ("nothing", b"", "not a certificate"),
    ("text", b"hello world", "not a certificate"),
    ("bytes behind it", GOOD + b"\0", "bytes follow"),
    ("an endless length", b"\x30\x84\xff\xff\xff\xff", "breaks off"),
    ("an indefinite length", b"\x30\x80\0\0", "breaks off"),
    ("too long", b"\x30" * (2 * MAX_BYTES + 1), "longer than"),
    ("an empty PEM", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "not a certificate"),
]


@pytest.mark.parametrize(("says", "data", "words"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(says, data, words):
    with pytest.raises(ModelError, match=words):
        principal_of_certificate(data)


def test_no_cut_of_a_certificate_is_another_one():
    for end in range(len(GOOD)):
        with pytest.raises(ModelError):
            principal_of_certificate(GOOD[:end])


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_changed_bytes_give_an_id_or_an_error(at, byte):
    changed = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        found = principal_of_certificate(changed)
    except ModelError:
        return
    assert found is None or not found.startswith("spiffe:")


def test_a_real_certificate_is_read_as_cryptography_reads_it():
    x509 = pytest.importorskip("cryptography.x509")
    import datetime

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(1))
    names = x509.SubjectAlternativeName([x509.DNSName("a"), x509.UniformResourceIdentifier(ID)])
    made = builder.add_extension(names, critical=True).sign(key, hashes.SHA256())
    for encoding in (Encoding.DER, Encoding.PEM):
        assert principal_of_certificate(made.public_bytes(encoding)) == ID[9:]


HEADERS = [
    (f"By=spiffe://td/b;Hash=00;Subject=\"CN=x,O=y;z\";URI={ID}", ID[9:]),
    ("URI=spiffe://td/ns/a/sa/x,By=spiffe://td/b;URI=spiffe://td/ns/c/sa/d", "td/ns/c/sa/d"),
    ('Subject="a\\"b,URI=spiffe://td/evil";uri=spiffe://td/good', "td/good"),
    ("Hash=00", None),
    ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("header", "principal"), HEADERS)
def test_forwarded_certificates(header, principal):
    assert principal_of_forwarded_certificate(header) == principal


@pytest.mark.parametrize("header", ['Subject="a', "URI=spiffe://a/b;URI=spiffe://a/c", "URI=https://a"])
def test_forwarded_certificates_that_are_refused(header):
    with pytest.raises(ModelError):
        principal_of_forwarded_certificate(header)
