"""Attributes of flows against what other tools read in the same packets.

Truth: ``truth`` of a flow in ``expected.json``, lists of what each tool saw in the whole flow. We keep the first of
each kind, so ours must be *among* theirs; where ours is absent and theirs is not, the case is undecided.

Left out, with their reasons:
  HTTP/2 of a connection that began with HTTP/1: ours is the first request.
  TLS inside OpenVPN's control packets: it is the tunnel's own.
  JA4 of nDPI at that commit where only the destination or the ALPN differs: it writes "d" without a server name as
  well, and the first two characters of the protocol; the specification says "i", and the first and the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from meshsieve import flows
from tests.conformance.report import Report

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = {
    "0x0002": "SSLv2", "0x0300": "SSLv3", "0x0301": "TLSv1.0", "0x0302": "TLSv1.1", "0x0303": "TLSv1.2",
    "0x0304": "TLSv1.3", "0xfeff": "DTLSv1.0", "0xfefd": "DTLSv1.2", "0xfefc": "DTLSv1.3",
}  # fmt: skip
DIALECTS = {"0x0202": "2.0.2", "0x0210": "2.1", "0x0300": "3.0", "0x0302": "3.0.2", "0x0311": "3.1.1"}


@cache
def suites() -> dict[str, str]:
    """Names of cipher suites by hexadecimal number, from the core's own list."""
    text = (ROOT / "csrc/src/app/cipher_suites.def").read_text()
    return {f"0x{int(code, 16):04x}": name for code, name in re.findall(r"^SUITE\(0x(\w+), (\w+)\)", text, re.M)}


def _same(value: str) -> str:
    return value


def _version(value: str) -> str:
    return VERSIONS.get(value, value)


def _suite(value: str) -> str:
    return suites().get(value, value)


def _dialect(value: str) -> str:
    return DIALECTS.get(value, value)


def _name(value: str) -> str:
    return value.rstrip(".").lower() or "."


# (tool, its key, our attribute, how its value reads in our words)
COMPARED: list[tuple[str, str, str, Callable[[str], str]]] = [
    ("tshark", "sni", "sni", _name),
    ("tshark", "tls_version", "tls_version", _version),
    ("tshark", "tls_cipher", "tls_cipher", _suite),
    ("tshark", "ja3", "ja3", _same),
    ("tshark", "http_host", "http_host", _same),
    ("tshark", "http_uri", "http_path", _same),
    ("tshark", "http_method", "http_method", _same),
    ("tshark", "http_status", "http_status", _same),
    ("tshark", "dns_qname", "dns_name", _name),
    ("tshark", "smb2_dialect", "smb_dialect", _dialect),
    ("tshark", "h2_path", "http_path", _same),
    ("tshark", "h2_authority", "http_host", _same),
    ("ndpi", "ja3c", "ja3", _same),
    ("ndpi", "ja3s", "ja3s", _same),
    ("ndpi", "ja4", "ja4", _same),
    ("ndpi", "cipher", "tls_cipher", _same),
    ("zeek", "cipher", "tls_cipher", _same),
]


def check_attributes(report: Report, file: str, columns: flows.FlowColumns, i: int, truth: dict[str, Any]) -> None:
    """Compare flow ``i`` with what the tools say of it."""
    ours = columns.attributes(i)
    tunnel = columns.apps[i] == "openvpn"
    http1 = any(True for _ in _sayings(truth, "tshark", "http_uri"))

    def check(attribute: str, expected: Iterable[str], tool: str) -> None:
        wanted = [value for value in expected if value]
        got = ours.get(attribute, "")
        if attribute in ("sni", "dns_name"):
            got = _name(got) if got else ""
        if not wanted:
            return
        if got in wanted:
            report.right()
        elif not got:
            report.undecided(file, f"{attribute} not known, {tool} says {', '.join(wanted[:3])}: flow {i + 1}")
        elif attribute == "ja4" and tool == "ndpi" and any(_as_ndpi(got) == _as_ndpi(value) for value in wanted):
            report.note(f"{file}: {tool} writes destination or ALPN of a JA4 otherwise: {got}, {wanted[0]}")
        else:
            report.wrong(file, f"{attribute} is {got!r}, {tool} says {', '.join(wanted[:3])}: flow {i + 1}")

    for tool, key, attribute, reading in COMPARED:
        if tunnel and attribute in ("ja3", "tls_version", "tls_cipher"):
            continue
        if key.startswith("h2_") and http1:
            continue
        for said in _sayings(truth, tool, key):
            check(attribute, [reading(str(value)) for value in said], tool)
    for said in _sayings(truth, "tshark", "alpn"):
        offered = {*ours.get("alpn", "").split(","), ours.get("alpn_chosen", "")}
        if set(said) & offered:
            report.right()
        else:
            report.undecided(file, f"alpn {said} not among {sorted(offered)}: flow {i + 1}")
    for said in _sayings(truth, "arkime", "community_id"):
        report.check(file, "community_id", columns.community_ids[i], said[0])
    for entry in _entries(truth, "arkime"):
        for key in ("ja3", "ja3s", "ja4"):
            check(key, entry.get("tls", {}).get(key, []), "arkime")
        check("tls_cipher", entry.get("tls", {}).get("cipher", []), "arkime")


def _as_ndpi(ja4: str) -> tuple[str, str, str]:
    """Without what nDPI writes otherwise, and without the digest of no extensions at all."""
    head, _, tail = ja4.partition("_")
    return head[:3], head[4:-2], tail.replace("000000000000", "e3b0c44298fc")


def _entries(truth: dict[str, Any], tool: str) -> list[dict[str, Any]]:
    said = truth.get(tool, [])
    return said if isinstance(said, list) else [said]


def _sayings(truth: dict[str, Any], tool: str, key: str) -> Iterable[list[str]]:
    for entry in _entries(truth, tool):
        if entry.get(key):
            yield entry[key] if isinstance(entry[key], list) else [entry[key]]
