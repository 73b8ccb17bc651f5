"""The conformance runner fails when anything is not right, and when there was nothing to check."""

from __future__ import annotations

import pytest

from tests.conformance.report import Report


def _report(*outcomes: str) -> Report:
    report = Report()
    for outcome in outcomes:
        if outcome == "right":
            report.right()
        else:
            getattr(report, outcome)("a.pcap", "because")
    return report


CASES = [
    #  what it shows             outcomes                passes
    ("all right passes", ["right", "right"], True),
    ("one wrong fails", ["right", "wrong"], False),
    ("one undecided fails", ["right", "undecided"], False),
    ("one skipped fails", ["right", "skipped"], False),
    ("nothing checked fails", [], False),
]


@pytest.mark.parametrize(("outcomes", "passes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_run_passes_only_if_everything_is_right(outcomes: list[str], passes: bool) -> None:
    assert _report(*outcomes).passed is passes


def test_the_last_line_counts_every_outcome() -> None:
    assert _report("right", "wrong", "skipped").summary("pcaps") == "pcaps: right 1 wrong 1 undecided 0 skipped 1"


def test_a_planted_wrong_expectation_is_listed() -> None:
    report = Report()
    assert not report.check("a.pcap", "packets", 3, 4)
    assert report.cases[0].reason == "packets is 3, expected 4"
