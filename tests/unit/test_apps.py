"""Applications: names, NSX's vocabulary, signatures of one's own, and their tables in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshsieve import apps
from meshsieve.errors import PolicyError
from tools import app_docs

ROOT = Path(__file__).resolve().parents[2]


def test_names_are_unique_and_described() -> None:
    assert len(set(apps.NAMES)) == len(apps.NAMES)
    assert all(apps.DOCS.values())
    assert all(apps.ATTRIBUTE_DOCS.values())


def test_the_docs_have_the_tables_of_the_core() -> None:
    page = (ROOT / "docs/apps.md").read_text()
    assert app_docs.filled(page) == page


def test_every_nsx_app_id_means_applications_that_exist_or_says_why_not() -> None:
    assert len(apps.NSX_APP_IDS) == 58
    for name, meaning in apps.NSX_APP_IDS.items():
        assert set(meaning.apps) <= set(apps.NAMES), name
        assert meaning.apps or "no published specification" in meaning.note, name
        assert all(host.startswith(".") for host in meaning.hosts), name


PORTS = [
    ("HTTPS", 443, 6, "tls"),
    ("HTTP/3", 443, 17, "quic"),
    ("M3UA", 2905, 132, "m3ua"),
    ("first of a range", 5900, 6, "vnc"),
    ("last of a range", 5903, 6, "vnc"),
    ("nobody's", 4, 6, ""),
    ("a protocol without ports", 443, 1, ""),
]


@pytest.mark.parametrize(("port", "proto", "app"), [c[1:] for c in PORTS], ids=[c[0] for c in PORTS])
def test_a_port_suggests(port: int, proto: int, app: str) -> None:
    assert apps.by_port(port, proto=proto) == app


def one(signature: str) -> str:
    return f"applications: [{{name: mine, signatures: [{signature}]}}]"


REFUSED = [
    #  what is wrong                       document                                          message
    ("no applications", "{}", "'applications' is missing"),
    ("an unknown key", one("{ports: [1], port: 2}"), "'port' is not known"),
    ("a signature for everything", one("{transport: tcp}"), "would hold for every flow"),
    ("a transport that is none", one("{transport: sctp, ports: [1]}"), "neither tcp nor udp"),
    ("a port too large", one("{ports: [65536]}"), "'65536' is no port"),
    ("a range backwards", one('{ports: ["9-8"]}'), "'9-8' is no port"),
    ("an empty list", one("{ports: []}"), "at least one entry"),
    ("bytes that are none", one('{starts_with_hex: "zz"}'), "no list of bytes"),
    ("a pattern of nothing", one('{starts_with_hex: "?? ??"}'), "not all of them"),
    ("a pattern too long", one(f'{{starts_with: "{"x" * 65}"}}'), "1 to 64 bytes"),
    ("both patterns", one('{starts_with: "a", starts_with_hex: "61"}'), "exclude each other"),
    ("a host with a blank", one('{hosts: ["a b"]}'), "no host name"),
    ("hosts and ports", one('{hosts: ["a.b"], ports: [1]}'), "stand alone"),
    ("a built-in name", "applications: [{name: tls, signatures: [{ports: [1]}]}]", "'tls' is taken"),
    ("a name that is none", "applications: [{name: A B, signatures: [{ports: [1]}]}]", "is no name"),
    ("two documents", "a: 1\n---\nb: 2", "one mapping"),
]


@pytest.mark.parametrize(("document", "message"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_signature_file_is_refused(document: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        apps.parse_signatures(document)


def test_the_message_says_where() -> None:
    with pytest.raises(PolicyError, match=r"mine\.yaml:3:3"):
        apps.parse_signatures("applications:\n- name: x\n  bad: 1", "mine.yaml")


def test_the_example_loads() -> None:
    signatures = apps.load_signatures(ROOT / "examples/signatures.yaml")
    assert signatures.names == ("acme-telemetry", "acme-portal")


def test_protocols_that_are_not_published_are_guessed_by_port_alone() -> None:
    assert [apps.by_port(port) for port in (4172, 22443, 7210)] == ["pcoip", "blast", "maxdb"]
    assert all(not apps.NSX_APP_IDS[name].apps for name in ("PCOIP", "BLAST", "MAXDB", "EPIC"))
