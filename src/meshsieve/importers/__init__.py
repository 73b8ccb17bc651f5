"""Configuration formats: one importer each."""
