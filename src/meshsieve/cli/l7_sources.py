"""What -p names for verbs about routes: Envoy route configurations, objects of a cluster, or neither."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from meshsieve.errors import MeshsieveError
from meshsieve.importers.sources import find_files, read_source
from meshsieve.importers.yaml_source import Mapping, load_documents
from meshsieve.policy import SourceFile
from meshsieve.routes.model import RouteConfiguration
from meshsieve.routes.read_envoy import read_route_configuration


@dataclass
class L7Sources:
    """envoy: (file, table); objects: files of a cluster's objects; other: files that are neither."""

    envoy: list[tuple[str, RouteConfiguration]] = field(default_factory=list)
    objects: list[SourceFile] = field(default_factory=list)
    other: list[SourceFile] = field(default_factory=list)


def read_l7(paths: Iterable[str]) -> L7Sources:
    """raises  PolicyError for files that cannot be read, and for route configurations that Envoy refuses"""
    out = L7Sources()
    for path in find_files(paths):
        source = read_source(path)
        documents = _documents(source)
        tables = [d for d in documents if isinstance(d, Mapping) and ("virtual_hosts" in d or "virtualHosts" in d)]
        if tables:
            for table in tables:
                config = read_route_configuration(table, source.name)
                out.envoy.append((f"{source.name} {config.name}".strip(), config))
        elif any(isinstance(d, Mapping) and "kind" in d and "apiVersion" in d for d in documents):
            out.objects.append(source)
        else:
            out.other.append(source)
    return out


def _documents(source: SourceFile) -> list[Any]:
    """Every mapping of a YAML or JSON file, lists flattened; [] for a file of another form."""
    try:
        found = load_documents(source.text, source.name)
    except MeshsieveError:
        return []
    return [item for d in found for item in (d if isinstance(d, list) else [d])]
