"""Envoy route configurations among other files: recognised here, read by ``meshsieve.routes``. They judge no packet, so
they make no layer of their own; ``Engine`` takes the file from ``ImportResult.sources``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from meshsieve.policy import ImportOptions, ImportResult, SourceFile

_VIRTUAL_HOSTS = re.compile(r"""^[\s"'{\-]{0,64}virtual_?[hH]osts["']?\s{0,8}:""", re.MULTILINE)
_OBJECT = re.compile(r"""^[\s"'{\-]{0,64}apiVersion["']?\s{0,8}:""", re.MULTILINE)
_LOOKED_AT = 2**20  # characters


class EnvoyRoutesImporter:
    name = "envoy"
    description = "Envoy RouteConfiguration v3, YAML or JSON"

    def sniff(self, source: SourceFile) -> bool:
        text = source.text[:_LOOKED_AT]
        return _VIRTUAL_HOSTS.search(text) is not None and _OBJECT.search(text) is None

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        """Nothing: the routes are built where requests are judged, with the same errors."""
        return ImportResult(())
