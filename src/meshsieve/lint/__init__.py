"""Findings about configuration that loads and still does not do what it says: rules and routes that nothing reaches,
duplicates, conflicts, refused routes. Codes and their meaning: docs/lint.md."""
