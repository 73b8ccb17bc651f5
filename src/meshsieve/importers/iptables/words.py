"""Cutting iptables-save lines into words, as iptables-restore does."""

from __future__ import annotations

from dataclasses import dataclass

from meshsieve.errors import PolicyError


@dataclass(frozen=True, slots=True)
class Word:
    """text without quotes, 1-based column, and whether any of it was quoted (then it is never an option)"""

    text: str
    column: int
    quoted: bool = False

    @property
    def is_option(self) -> bool:
        return self.text.startswith("-") and len(self.text) > 1 and not self.quoted

    @property
    def is_not(self) -> bool:
        return self.text == "!" and not self.quoted


def split(line: str, where: str) -> list[Word]:
    r"""The words of a line. ``"`` quotes; inside, ``\`` takes the next character as it is. A single quote is no quote.

    where   'file:line', to which errors add the column
    raises  PolicyError for a quote that does not end
    """
    words: list[Word] = []
    i, n = 0, len(line)
    while i < n:
        if line[i] in " \t\r":
            i += 1
            continue
        start, quoted, parts = i, False, []
        while i < n and line[i] not in " \t\r":
            if line[i] != '"':
                parts.append(line[i])
                i += 1
                continue
            quoted, opened = True, i
            i += 1
            while i < n and line[i] != '"':
                i += line[i] == "\\" and i + 1 < n
                parts.append(line[i])
                i += 1
            if i == n:
                raise PolicyError("a quote does not end", where=f"{where}:{opened + 1}")
            i += 1
        words.append(Word("".join(parts), start + 1, quoted))
    return words


def text_of(words: list[Word]) -> str:
    """Words as one would type them."""
    return " ".join(_quoted(word.text) if word.quoted or not word.text else word.text for word in words)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
