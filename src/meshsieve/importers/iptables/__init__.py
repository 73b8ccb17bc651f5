"""iptables-save and ip6tables-save dumps; see importer.py, and docs/importers/iptables.md for what is understood."""

from meshsieve.importers.iptables.importer import IptablesImporter

__all__ = ["IptablesImporter"]
