"""nft rulesets; see importer.py, and docs/importers/nft.md for what is understood."""

from meshsieve.importers.nft.importer import NftImporter

__all__ = ["NftImporter"]
