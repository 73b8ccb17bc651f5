"""Applications: their names, their attributes, NSX's words for them, and signatures of one's own.

>>> len(NAMES) > 100, "tls" in NAMES, ATTRIBUTES[:2]
(True, True, ('sni', 'alpn'))
>>> NSX_APP_IDS["SSL"].apps
('tls',)

How a flow's application is found, and what each attribute is: docs/apps.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshsieve import _core
from meshsieve.app_signatures import Signatures, load_signatures, parse_signatures
from meshsieve.nsx_app_ids import NSX_APP_IDS, NSX_SMB_VERSIONS, NSX_TLS_VERSIONS, NsxAppId

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
