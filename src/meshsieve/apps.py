"""Applications: their names, their attributes, NSX's words for them, and signatures of one's own.

>>> len(NAMES) > 100, "tls" in NAMES, ATTRIBUTES[:2]
(True, True, ('sni', 'alpn'))
>>> NSX_APP_IDS["SSL"].apps
('tls',)

How a flow's application is found, and what each attribute is: docs/apps.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from meshsieve import _core
from meshsieve.app_signatures import Signatures, load_signatures, parse_signatures

__all__ = [
    "ATTRIBUTES", "ATTRIBUTE_DOCS", "DOCS", "HOWS", "NAMES", "NSX_APP_IDS", "NSX_SMB_VERSIONS", "NSX_TLS_VERSIONS",
    "NsxAppId", "Signatures", "by_port", "load_signatures", "parse_signatures",
]  # fmt: skip

# Names by number, as in ``extra["app"]`` of flows; "" is what is not known.
NAMES: tuple[str, ...] = tuple(name for name, _ in _core.APPS)
# What each is, and the specification that its dissector follows.
DOCS: Mapping[str, str] = MappingProxyType(dict(_core.APPS))
# How an application is known, by number, as in ``extra["app_how"]``; from nothing to best.
HOWS: tuple[str, ...] = _core.APP_HOWS
ATTRIBUTES: tuple[str, ...] = tuple(name for name, _ in _core.APP_ATTRIBUTES)
ATTRIBUTE_DOCS: Mapping[str, str] = MappingProxyType(dict(_core.APP_ATTRIBUTES))


def by_port(port: int, *, proto: int = 6) -> str:
    """The application that a port suggests, "" without one; a guess, never more. proto: 6, 17 or 132."""
    return NAMES[_core.app_of_port(proto, port)]


@dataclass(frozen=True, slots=True)
class NsxAppId:
    """What an App ID of NSX means here.

    apps   our applications, any of them; empty: there is no dissector for it, so a rule that names it is undecided
    hosts  suffixes of the server's name (sni, http_host), any of them; empty: any name
    note   what else there is to know
    """

    apps: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    note: str = ""


def _nsx_vocabulary() -> tuple[Mapping[str, NsxAppId], Mapping[str, str], Mapping[str, tuple[str, ...]]]:
    data = json.loads(resources.files("meshsieve").joinpath("nsx_app_ids.json").read_text())
    ids = {
        name: NsxAppId(tuple(entry["apps"]), tuple(entry.get("hosts", ())), entry.get("note", ""))
        for name, entry in data["app_ids"].items()
    }
    smb = {name: tuple(dialects) for name, dialects in data["cifs_smb_version"].items()}
    return MappingProxyType(ids), MappingProxyType(data["tls_version"]), MappingProxyType(smb)


# The 58 App IDs; sub-attribute TLS_VERSION -> ``tls_version``; CIFS_SMB_VERSION -> any of ``smb_dialect``.
# TLS_CIPHER_SUITE has the IANA names of ``tls_cipher``.
NSX_APP_IDS, NSX_TLS_VERSIONS, NSX_SMB_VERSIONS = _nsx_vocabulary()
