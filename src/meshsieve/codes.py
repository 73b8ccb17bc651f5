"""Numbers for what packets have as text or as single bits, so that tests of it become ranges: names and marks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from meshsieve.value_sets import ValueSet


@dataclass(frozen=True, slots=True)
class NameCodes:
    """Numbers for the texts of a ``name`` field, so that prefix patterns (``eth+``) become ranges.

    Sorted texts at which membership in any rule's set can change; a name's code is the number of those that are
    <= it. Names unknown to the rules thus fall between and still match the right patterns.

    >>> codes = NameCodes.of(exact=["lo"], prefixes=["eth"])
    >>> codes.prefix("eth").contains(codes.code("eth7")), codes.exact("lo").contains(codes.code("eth7"))
    (True, False)
    """

    cuts: tuple[str, ...] = ()
    from_end: bool = False

    @staticmethod
    def of(exact: Iterable[str] = (), prefixes: Iterable[str] = (), *, from_end: bool = False) -> NameCodes:
        """from_end: names are read backwards and without regard to case, so that "prefixes" are endings: domains."""
        if from_end:
            exact, prefixes = ([_backwards(text) for text in texts] for texts in (exact, prefixes))
        cuts: set[str] = set()
        for name in exact:
            cuts |= {name, name + "\0"}
        for prefix in prefixes:
            cuts |= {prefix, prefix + "\U0010ffff"}
        return NameCodes(tuple(sorted(cuts)), from_end)

    def code(self, name: str) -> int:
        return bisect_right(self.cuts, _backwards(name) if self.from_end else name)

    def exact(self, name: str) -> ValueSet:
        return ValueSet.numbers(self.code(name))

    def prefix(self, prefix: str) -> ValueSet:
        """The names that start with ``prefix`` (``from_end``: that end with it); "" is every name."""
        if not prefix:
            return ValueSet.numbers((0, 2**32 - 1))
        last = "\U0010ffff" + prefix if self.from_end else prefix + "\U0010ffff"
        return ValueSet.numbers((self.code(prefix), self.code(last) - 1))


def _backwards(name: str) -> str:
    return name.lower()[::-1]


MarkTest = tuple[int, int, str]  # value, mask, register


@dataclass(frozen=True, slots=True)
class MarkCodes:
    """Numbers for packet marks, by which tests ``(value, mask, register)`` hold: a test on single bits would be
    millions of ranges of the mark itself. The registers are those of ``importers/marks.py``: mark, ct_mark, ct_nat.

    >>> codes = MarkCodes(((0x4000, 0x4000, "mark"),))
    >>> codes.test(0x4000, 0x4000, "mark"), codes.code({"mark": 0x4001})
    (ValueSet(1), 1)
    """

    tests: tuple[MarkTest, ...] = ()

    MOST: ClassVar[int] = 10  # tests of one rule list; a test is half of 2^tests codes

    def code(self, marks: Mapping[str, int]) -> int:
        return sum(1 << i for i, (value, mask, name) in enumerate(self.tests) if marks[name] & mask == value)

    @property
    def registers(self) -> frozenset[str]:
        return frozenset(name for _, _, name in self.tests)

    def test(self, value: int, mask: int, register: str) -> ValueSet:
        """The codes of the marks for which ``register & mask == value``, one of the tests."""
        bit = 1 << self.tests.index((value, mask, register))
        return ValueSet.numbers(*(code for code in range(1 << len(self.tests)) if code & bit))
