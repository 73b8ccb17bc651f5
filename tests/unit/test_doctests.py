"""The examples in docstrings say what happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import meshsieve

MODULES = [
    found.name
    for found in pkgutil.walk_packages(meshsieve.__path__, "meshsieve.")
    if not found.name.endswith("__main__") and "._" not in found.name
]


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    with_examples = [test for test in finder.find(importlib.import_module("meshsieve.packets")) if test.examples]
    assert len(with_examples) >= 4


@pytest.mark.parametrize("name", MODULES)
def test_examples_of(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
