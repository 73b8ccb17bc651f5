"""Which answers can one field give to a list of matchers, all at once? Exactly, by running their automata side by side.

What    Every matcher on texts is a small deterministic automaton. Their product, run over one byte of each kind that a
        matcher can tell from others, reaches every combination of answers that some text gives, and no other one.
Why     A table of who may call whom must not depend on samples: that a path begins with /a and ends in b at once is
        found out here, and that it is /a and begins with /b is not.
Cost    The states reached times the automata that are still alive in them: for exact texts and prefixes about the
        length of all texts together; suffixes multiply.
Limits  ``MAX_STEPS``; beyond it, and for a regular expression of unknown make, there is no answer (None).
Example prefix "/a" and suffix "b" over paths: neither, the first, the second, both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from meshsieve.authz.model import Matcher, Network, Pattern, Ports, Present, Text
from meshsieve.authz.path_template import is_template

MAX_STEPS = 3_000_000
MAX_ANSWERS = 4096
Answer = frozenset[int]  # the positions of the matchers that say yes
Kind = Literal["path", "host", "line", "text"]
_LITERAL = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()+,;:@=*")
# Printable characters that a normalised path can hold.
_PATH = frozenset(range(0x21, 0x7F)) - frozenset(b'"<>^`{|}\\#?')


@dataclass(frozen=True, slots=True)
class _Automaton:
    start: Hashable
    step: Callable[[Hashable, int], Hashable]
    accepts: Callable[[Hashable], bool]


def text_answers(matchers: Sequence[Matcher], kind: Kind) -> set[Answer] | None:
    """Every combination of answers that one text gives.

    kind   which texts there are: normalised paths, hosts (not empty, without case), lines of a header, any text
    """
    folded = kind == "host"
    automata = []
    for matcher in matchers:
        automaton = _automaton(matcher, folded)
        if automaton is None:
            return None
        automata.append(automaton)
    automata.append(_VALID[kind])
    valid = len(automata) - 1
    alphabet = _alphabet(matchers, kind)
    # A state holds the automata that can still say yes; those that cannot are left out.
    start = tuple((i, a.start) for i, a in enumerate(automata))
    seen, waiting, out, left = {start}, [start], set(), MAX_STEPS
    while waiting:
        state = waiting.pop()
        yes = frozenset(i for i, s in state if automata[i].accepts(s))
        if valid in yes:
            out.add(yes - {valid})
        left -= len(state) * len(alphabet)
        if left < 0:
            return None
        for byte in alphabet:
            moved = ((i, automata[i].step(s, byte)) for i, s in state)
            following = tuple((i, s) for i, s in moved if s != _DEAD)
            if following and following[-1][0] == valid and following not in seen:
                seen.add(following)
                waiting.append(following)
    return out


def set_answers(single: Iterable[Answer], limit: int = MAX_ANSWERS) -> set[Answer] | None:
    """What several values give together, where one yes is a yes: every union, and nothing at all."""
    out: set[Answer] = {frozenset()}
    for answer in single:
        out |= {answer | other for other in out}
        if len(out) > limit:
            return None
    return out


def number_answers(
    matchers: Sequence[Matcher], values: Iterable[int] | None = None, without: Iterable[int] = ()
) -> set[Answer]:
    """Combinations for a port: of ``values``, or of every port but ``without``."""
    ports = [m for m in matchers if isinstance(m, Ports)]
    left_out = set(without)
    edges = {0, *(m.low for m in ports), *(m.high + 1 for m in ports), *(n + 1 for n in left_out)}
    # Behind an edge that is left out comes the next number that is not.
    edges |= {next(n for n in range(e, 65537) if n not in left_out) for e in edges if e <= 65535}
    candidates = values if values is not None else (e for e in edges if e <= 65535 and e not in left_out)
    return {
        frozenset(i for i, m in enumerate(matchers) if isinstance(m, Ports) and m.low <= value <= m.high)
        for value in candidates
    }


def address_answers(matchers: Sequence[Matcher]) -> set[Answer]:
    """Combinations for an address of either version."""
    out = set()
    for version, largest in ((4, 2**32 - 1), (6, 2**128 - 1)):
        nets = [m for m in matchers if isinstance(m, Network) and m.version == version]
        edges = {0, *(n.low for n in nets), *(n.high + 1 for n in nets)}
        for value in (e for e in edges if e <= largest):
            holds = (isinstance(m, Network) and m.version == version and m.low <= value <= m.high for m in matchers)
            out.add(frozenset(i for i, yes in enumerate(holds) if yes))
    return out


# --- automata

_DEAD: Hashable = -1


def _automaton(matcher: Matcher, folded: bool) -> _Automaton | None:
    match matcher:
        case Present():
            return _Automaton(0, lambda s, b: 0, lambda s: True)
        case Text(op, value):
            wanted = value.encode("utf-8", "surrogateescape")
            return _text(op, wanted.lower() if folded else wanted)
        case Pattern(_, "any"):
            return _Automaton(0, lambda s, b: -1 if b == 0x0A or s == -1 else 1, lambda s: s == 1)
        case Pattern(_, "template", (template,)) if is_template(template):
            return _template(template)
    return None


def _text(op: str, wanted: bytes) -> _Automaton:
    length = len(wanted)
    match op:
        case "exact":
            return _Automaton(0, lambda s, b: _next(s, b, wanted), lambda s: s == length)
        case "prefix":
            return _Automaton(0, lambda s, b: s if s == length else _next(s, b, wanted), lambda s: s == length)
    fail = _failures(wanted)

    def step(state: Hashable, byte: int) -> Hashable:
        assert isinstance(state, int)
        if op == "contains" and state == length:
            return state
        while state and (state == length or wanted[state] != byte):
            state = fail[state - 1]
        return state + 1 if state < length and wanted[state] == byte else state

    return _Automaton(0, step, lambda s: s == length)


def _next(state: Hashable, byte: int, wanted: bytes) -> Hashable:
    assert isinstance(state, int)
    return state + 1 if 0 <= state < len(wanted) and wanted[state] == byte else -1


def _failures(wanted: bytes) -> list[int]:
    """Knuth, Morris, Pratt: for each prefix the longest end of it that is a beginning."""
    out, k = [0] * len(wanted), 0
    for i in range(1, len(wanted)):
        while k and wanted[i] != wanted[k]:
            k = out[k - 1]
        k += wanted[i] == wanted[k]
        out[i] = k
    return out


def _template(template: str) -> _Automaton:
    """Positions in the template's elements: (kind, byte); ``+`` is one or more literal bytes, ``*`` any of them and
    slashes."""
    elements: list[tuple[str, int]] = []
    for segment in template[1:].split("/"):
        elements.append(("byte", 0x2F))
        if segment == "{*}":
            elements += [("plus", 0), ("star", 0)]
        elements += [("any", 0)] if segment == "{**}" else []
        elements += [("byte", b) for b in segment.encode()] if segment not in ("{*}", "{**}") else []

    def closed(positions: Iterable[int]) -> frozenset[int]:
        out, waiting = set(), list(positions)
        while waiting:
            at = waiting.pop()
            if at not in out:
                out.add(at)
                if at < len(elements) and elements[at][0] in ("star", "any"):
                    waiting.append(at + 1)
        return frozenset(out)

    def step(state: Hashable, byte: int) -> Hashable:
        assert isinstance(state, frozenset)
        following = []
        for at in state:
            kind, wanted = elements[at] if at < len(elements) else ("end", 0)
            if (kind == "byte" and byte == wanted) or (kind == "plus" and byte in _LITERAL):
                following.append(at + 1)
            elif (kind == "star" and byte in _LITERAL) or (kind == "any" and (byte in _LITERAL or byte == 0x2F)):
                following.append(at)
        return closed(following) if following else _DEAD

    return _Automaton(closed([0]), step, lambda s: isinstance(s, frozenset) and len(elements) in s)


def _valid_path(state: Hashable, byte: int) -> Hashable:
    """start, "/" (a segment begins), "." and ".." (which must not be all of a segment), "s"."""
    if byte not in _PATH or (state == "start" and byte != 0x2F):
        return _DEAD
    if byte == 0x2F:
        return _DEAD if state in (".", "..") else "/"
    if byte == 0x2E and state in ("/", "."):
        return "." if state == "/" else ".."
    return "s"


_VALID: dict[Kind, _Automaton] = {
    "path": _Automaton("start", _valid_path, lambda s: s in ("/", "s")),
    "host": _Automaton(0, lambda s, b: 1, lambda s: s == 1),
    "line": _Automaton(0, lambda s, b: _DEAD if b in b"\0\r\n" else 0, lambda s: True),
    "text": _Automaton(0, lambda s, b: 0, lambda s: True),
}


def _alphabet(matchers: Sequence[Matcher], kind: Kind) -> list[int]:
    """Every byte that a matcher names, and one of each kind of the others."""
    named = {0x2F, 0x2E, 0x0A} if kind == "path" or kind == "text" else {0x0A}
    for matcher in matchers:
        text = matcher.value if isinstance(matcher, Text) else "".join(getattr(matcher, "parts", ()))
        named |= set(text.encode("utf-8", "surrogateescape"))
    if kind == "host":
        named = set(bytes(named).lower())
    others = [next((b for b in group if b not in named), None) for group in (b"zqxvjkw0", b"[]", b"\x01", b"\xff\xfe")]
    return sorted(named | {b for b in others if b is not None})
