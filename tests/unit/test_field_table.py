"""docs/fields.md follows from fields.def."""

from pathlib import Path

import pytest

from tools import field_table


def test_the_page_is_current() -> None:
    assert field_table.PAGE.read_text(encoding="utf-8") == field_table.page()


def test_check_notices_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "fields.md"
    stale.write_text(field_table.page() + "| `extra` |\n")
    monkeypatch.setattr(field_table, "PAGE", stale)
    assert field_table.main(["--check"]) == 1
    assert field_table.main([]) == 0
    assert field_table.main(["--check"]) == 0
