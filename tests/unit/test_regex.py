"""Regular expressions: RE2 over bytes, as Envoy runs them."""

from __future__ import annotations

import pytest

from meshsieve._core import Regex
from meshsieve.errors import ModelError

FULL = [
    ("the whole text must match", b"/a.*b", b"/axxb", True),
    ("a part is not enough", b"a", b"ab", False),
    ("a dot takes one byte, not one letter", b".", "ü".encode(), False),
    ("a dot takes a lone invalid byte", b".", b"\xff", True),
    ("case can be ignored inside the pattern", b"(?i)/ab", b"/AB", True),
]


@pytest.mark.parametrize(("what", "pattern", "text", "matches"), FULL, ids=[row[0] for row in FULL])
def test_full_match(what: str, pattern: bytes, text: bytes, matches: bool) -> None:
    assert Regex(pattern).full_match(text) is matches


@pytest.mark.parametrize("pattern", [b"(?=a)", b"(a)\\1", b"(", b"((a{1000}){1000}){1000}"])
def test_what_re2_does_not_take_is_refused(pattern: bytes) -> None:
    with pytest.raises(ModelError, match="RE2"):
        Regex(pattern)


def test_groups_and_replacement() -> None:
    assert Regex(b"/(a+)/(b)?").groups(b"/aa/") == [b"/aa/", b"aa", b""]
    assert Regex(b"/(a)").groups(b"/b") == []
    assert Regex(b"b*").replace_all(b"/ab", b"-") == b"-/-a-"
    assert Regex(b"(a)(b)").replace_all(b"abxab", b"\\2\\1") == b"baxba"
    with pytest.raises(ModelError):
        Regex(b"(a)").check_substitution(b"\\2")
