"""Cutting nft rulesets into words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from meshsieve.errors import PolicyError

# Possessive: no input makes this backtrack. A word ends at white space, quotes and the marks that nft sets apart.
_WORD = re.compile(
    r"""(?P<space>[ \t\r]++|\\\r?\n|\#[^\n]*+)|(?P<string>"[^"\n]*+")|(?P<end>\n|;)"""
    r"""|(?P<mark>==|!=|<=|>=|[{}(),=<>&|!])|(?P<word>[^\s"{}(),;=<>&|!]++)"""
)


@dataclass(frozen=True, slots=True)
class Word:
    """text (without quotes), whether it was quoted, whether it ends a statement, and its place"""

    text: str
    line: int
    column: int
    quoted: bool = False

    @property
    def ends(self) -> bool:
        return self.text in ("\n", ";") and not self.quoted


def split(text: str, file: str) -> list[Word]:
    """raises  PolicyError naming file, line and column"""
    words: list[Word] = []
    line, line_start, at = 1, 0, 0
    while at < len(text):
        found = _WORD.match(text, at)
        if found is None:
            where = f"{file}:{line}:{at - line_start + 1}"
            raise PolicyError(f"cannot read {text[at : at + 20]!r}", where=where)
        if found.lastgroup != "space":
            quoted = found.lastgroup == "string"
            words.append(Word(found[0][1:-1] if quoted else found[0], line, at - line_start + 1, quoted))
        newlines = found[0].count("\n")
        if newlines:
            line += newlines
            line_start = found.start() + found[0].rindex("\n") + 1
        at = found.end()
    return words
