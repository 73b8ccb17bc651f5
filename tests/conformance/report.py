"""What a conformance run found: one row a case, and the counts that the last line prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

OUTCOMES = ("right", "wrong", "undecided", "skipped")


@dataclass(frozen=True)
class Case:
    """One case that is not right: where it stands, and why it counts as ``outcome``."""

    outcome: str
    file: str
    reason: str


@dataclass
class Report:
    """Counts of every case, the cases that are not right, and notes that are not counted.

    ``wrong``      the answer differs from the truth
    ``undecided``  we answered that we cannot know, where the truth knows
    ``skipped``    the case was not run (an unsupported format, a missing file)
    ``allowed``    how many cases of an outcome the subject's bar lets pass, where the bar is a share of all cases
    """

    counts: Counter[str] = field(default_factory=Counter)
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)

    def right(self, number: int = 1) -> None:
        self.counts["right"] += number

    def wrong(self, file: str, reason: str) -> None:
        self._add("wrong", file, reason)

    def undecided(self, file: str, reason: str) -> None:
        self._add("undecided", file, reason)

    def skipped(self, file: str, reason: str) -> None:
        self._add("skipped", file, reason)

    def check(self, file: str, what: str, got: Any, expected: Any) -> bool:
        """Count one comparison; True if it holds."""
        if got == expected:
            self.right()
            return True
        self.wrong(file, f"{what} is {got!r}, expected {expected!r}")
        return False

    def note(self, text: str) -> None:
        """Say something that is not counted, such as which facts this subject leaves to another."""
        self.notes.append(text)

    def add(self, other: Report) -> None:
        """Take in what another run found."""
        self.counts += other.counts
        self.cases += other.cases
        self.notes += other.notes
        self.allowed += other.allowed

    @property
    def passed(self) -> bool:
        """At least one case was right, and no more than allowed was anything else: an empty folder proves nothing."""
        return self.counts["right"] > 0 and all(self.counts[o] <= self.allowed[o] for o in OUTCOMES[1:])

    def summary(self, subject: str) -> str:
        return f"{subject}: " + " ".join(f"{outcome} {self.counts[outcome]}" for outcome in OUTCOMES)

    def _add(self, outcome: str, file: str, reason: str) -> None:
        self.counts[outcome] += 1
        self.cases.append(Case(outcome, file, reason))
