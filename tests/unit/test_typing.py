"""The snippets of tests/typing pass mypy, and a wrong one would not."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
api = pytest.importorskip("mypy.api", reason="mypy is not installed")


def check(path: Path) -> tuple[str, int]:
    words = ["--config-file", str(ROOT / "pyproject.toml"), "--warn-unused-ignores", "--follow-imports", "silent"]
    out, _, status = api.run([*words, str(path)])
    return out, status


def test_snippets_have_the_types_they_assert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out, status = check(ROOT / "tests/typing/use_of_the_engine.py")
    assert status == 0, out


def test_a_wrong_type_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    snippet = tmp_path / "wrong.py"
    snippet.write_text("import meshsieve\nengine: int = meshsieve.load('nsx.json')\n")
    assert check(snippet)[1] == 1
