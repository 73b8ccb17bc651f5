"""The list of importers, and reading any mix of configuration files through them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from meshsieve.errors import PolicyError
from meshsieve.importers.classbench import ClassBenchImporter
from meshsieve.importers.envoy_routes import EnvoyRoutesImporter
from meshsieve.importers.iptables import IptablesImporter
from meshsieve.importers.kubernetes.importer import KubernetesImporter
from meshsieve.importers.nft import NftImporter
from meshsieve.importers.nsx import NsxImporter
from meshsieve.importers.sources import find_files, read_source
from meshsieve.policy import Diagnostic, Importer, ImportOptions, ImportResult, Layer, SourceFile

# Layers come in this order where files of several formats are loaded together.
IMPORTERS: Mapping[str, Importer] = {
    importer.name: importer
    for importer in (
        NsxImporter(),
        KubernetesImporter(),
        IptablesImporter(),
        NftImporter(),
        ClassBenchImporter(),
        EnvoyRoutesImporter(),
    )
}


def load_policy(
    paths: Iterable[str | os.PathLike[str]], options: ImportOptions | None = None, *, format: str = "auto"
) -> ImportResult:
    """Read configuration files and folders, "-" for stdin, of any mix of formats.

    Each file goes to the importer that recognises its content (``format`` names one instead); an importer gets all
    its files at once, for objects that refer to each other. Layers come in the order of ``IMPORTERS``.

    raises  PolicyError for what cannot be read, for a file that no importer knows or several claim, and where an
            importer refuses; the message names the file and, as far as known, line, column and object
    """
    return load_sources([read_source(path) for path in find_files(paths)], options, format=format)


def load_sources(
    files: Iterable[SourceFile], options: ImportOptions | None = None, *, format: str = "auto"
) -> ImportResult:
    """``load_policy`` for files that are read already."""
    options = options or ImportOptions()
    if format != "auto" and format not in IMPORTERS:
        raise PolicyError(f"no format is called '{format}'", hint=f"formats: auto, {', '.join(IMPORTERS)}")
    sources: dict[str, list[SourceFile]] = {name: [] for name in IMPORTERS}
    diagnostics: list[Diagnostic] = []
    for source in files:
        sources[_format_of(source) if format == "auto" else format].append(source)
    if not any(sources.values()):
        raise PolicyError("there is no configuration to read", hint="name at least one file")
    layers: list[Layer] = []
    for name, importer in IMPORTERS.items():
        if sources[name]:
            result = importer.load(sources[name], options)
            layers.extend(result.layers)
            diagnostics.extend(result.diagnostics)
    return ImportResult(tuple(layers), tuple(diagnostics), sources)


def _format_of(source: SourceFile) -> str:
    if not source.text.strip():
        raise PolicyError("is empty", where=source.name, hint="an empty policy still needs its header, such as *filter")
    names = [name for name, importer in IMPORTERS.items() if importer.sniff(source)]
    known = "; ".join(f"{importer.name} ({importer.description})" for importer in IMPORTERS.values())
    if not names:
        raise PolicyError("is of no known format", where=source.name, hint=f"known formats: {known}")
    if len(names) > 1:
        raise PolicyError(f"could be {' or '.join(names)}", where=source.name, hint="name the format")
    return names[0]
