"""Configuration formats: one importer each, and ``load_policy``, which reads any mix of them."""

from meshsieve.importers.registry import IMPORTERS, load_policy

__all__ = ["IMPORTERS", "load_policy"]
