"""NSX's words for applications: its App IDs and sub-attributes, and what each means here.

>>> NSX_APP_IDS["SSL"].apps, NSX_TLS_VERSIONS["TLS_V12"]
(('tls',), 'TLSv1.2')
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType


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
