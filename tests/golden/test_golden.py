"""Importers: what goes in and what comes out, as files (harness.py says how)."""

from pathlib import Path

import pytest

from tests.golden import harness


@pytest.mark.parametrize("case", harness.cases(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_the_outcome_is_what_the_case_expects(case: Path, request: pytest.FixtureRequest) -> None:
    harness.check(case, regen=bool(request.config.getoption("--regen", default=False)))


def test_a_changed_outcome_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tmp_path / "classbench" / "case"
    case.mkdir(parents=True)
    (case / "input.rules").write_text("@10.0.0.0/8 0.0.0.0/0 0 : 65535 80 : 80 0x06/0xFF\n")
    harness.check(case, regen=True)
    harness.check(case, regen=False)
    (case / "expected.rules").write_text((case / "expected.rules").read_text().replace("dport={80}", "dport={81}"))
    with pytest.raises(AssertionError, match="differs"):
        harness.check(case, regen=False)
