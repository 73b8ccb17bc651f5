"""Policies whose objects all have names that somebody else chose."""

from __future__ import annotations

from collections.abc import Sequence


def rename_objects(document: object, names: Sequence[str], start: int = 0) -> int:
    """Gives every ``display_name`` inside the next of ``names``, numbered so that no two are alike; the next number."""
    if isinstance(document, dict):
        if isinstance(document.get("display_name"), str):
            document["display_name"] = f"{names[start % len(names)]} {start}"
            start += 1
        for item in document.values():
            start = rename_objects(item, names, start)
    elif isinstance(document, list):
        for item in document:
            start = rename_objects(item, names, start)
    return start
