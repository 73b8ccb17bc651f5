"""Rules of L3/L4 lists that never decide, because earlier rules take every packet that they match.

What    A rule is a union of conjunctions of sets. From each conjunction the earlier rules' are subtracted, one after
        another; where nothing is left, the rule is dead.
        - by rules of another action only in part or wholly: "rule-shadowed"
        - by rules of the same action only: "rule-redundant" (it can go, and nothing changes)
        - a rule with an empty set matches nothing to begin with: "rule-matches-nothing"
How     Subtracting a conjunction from another splits field by field: what lies outside in the first field, what lies
        inside there and outside in the second, and so on. A field that a packet lacks is a value of its own: a rule on
        a port does not take fragments, so it does not cover a rule without ports.
Cost    Bounding intervals choose the earlier rules that can touch a rule; looking for them and subtracting have
        budgets (MAX_ALONE, MAX_COVERS and MAX_PIECES for a rule; MAX_SCANNED and MAX_STEPS in all). What exceeds them
        is not reported as dead, and "rules-not-compared" says how many.
Limits  Earlier rules that are not certain, translate, or are skipped by a jump, cover nothing. Only filters are looked
        at. So every finding is true, and some dead rules may not be found.
Example [drop 10.0.0.0/9, drop 10.128.0.0/9, allow 10.0.0.0/8 tcp]: the third is shadowed by the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from meshsieve.model import Action, Match, Rule, Source, ValueSet
from meshsieve.policy import Diagnostic, Layer, Point
from meshsieve.value_sets import MAX_V4, MAX_V6

MAX_PIECES = 64
MAX_COVERS = 512
MAX_ALONE = 32
MAX_STEPS = 20_000_000  # intervals that are compared: a few seconds
MAX_SCANNED = 300_000_000
_BLOCK = 8192
_FIXED_STEPS = 16
SHOWN_COVERS = 3
TERMINAL = (Action.ALLOW, Action.DROP, Action.REJECT)

# What a field may be: its values, and whether the packet may lack it. A field that a piece does not name is free.
Cell = tuple[ValueSet, bool]
Piece = Mapping[str, Cell]
_Test = Callable[[str, ValueSet, slice], npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class DeadRule:
    """covers: positions of the rules that take its packets, () where it matches nothing."""

    index: int
    covers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DeadRules:
    """not_compared: rules that the budget did not allow to compare wholly."""

    rules: tuple[DeadRule, ...]
    not_compared: int


def lint_rules(layers: Iterable[Layer]) -> list[Diagnostic]:
    """Findings about every filter of every layer. A rule that stands in several lists of a layer, such as one for both
    directions, is found only if it is dead in all of them."""
    out: list[Diagnostic] = []
    for layer in layers:
        points = [point for point in layer.points if point.role == "filter"]
        seen: dict[tuple[str, Source], list[tuple[Point, DeadRule | None]]] = {}
        for point in points:
            found = dead_rules(point, layer.families)
            dead = {d.index: d for d in found.rules}
            for i, rule in enumerate(point.rules):
                seen.setdefault((rule.name, rule.source), []).append((point, dead.get(i)))
            if found.not_compared:
                message = f"{found.not_compared} of {len(point.rules)} rules of {point.name} were not compared wholly"
                out.append(Diagnostic("rules-not-compared", message, obj=layer.name, level="note"))
        for (name, source), places in seen.items():
            if all(d is not None for _, d in places):
                out.append(_diagnostic(layer, name, source, [(p, d) for p, d in places if d is not None]))
    return out


def _diagnostic(layer: Layer, name: str, source: Source, places: Sequence[tuple[Point, DeadRule]]) -> Diagnostic:
    label = name or source.obj or "the rule"
    where, obj = str(Source(source.file, source.line)), f"{layer.name} {'/'.join(p.name for p, _ in places)}: {label}"
    if not any(d.covers for _, d in places):
        return Diagnostic("rule-matches-nothing", "a set of it is empty, so no packet matches it", where, obj)
    point, dead = next((p, d) for p, d in places if d.covers)
    rule = point.rules[dead.index]
    covers = [point.rules[i] for i in dead.covers]
    shown = ", ".join(_shown(c) for c in covers[:SHOWN_COVERS])
    shown += f" and {len(covers) - SHOWN_COVERS} more" if len(covers) > SHOWN_COVERS else ""
    if all(c.action == rule.action for c in covers):
        message = f"never decides: {shown} take{'s' * (len(covers) == 1)} the same packets before, with the same action"
        return Diagnostic("rule-redundant", message, where, obj, level="note")
    actions = sorted({Action(c.action).name for c in covers})
    message = f"never decides: {shown} take{'s' * (len(covers) == 1)} all its packets before"
    return Diagnostic(
        "rule-shadowed", f"{message} ({', '.join(actions)}; it says {Action(rule.action).name})", where, obj
    )


def _shown(rule: Rule) -> str:
    return f"{rule.name or rule.source.obj or 'a rule'} ({rule.source.place})" if rule.source.file else rule.name


def dead_rules(point: Point, families: frozenset[int] = frozenset({4, 6})) -> DeadRules:
    """Rules of one list that no packet of the families reaches, in order."""
    return _Comparison(point, families).run()


@dataclass(frozen=True, slots=True)
class _Entry:
    rule: int
    match: Match


class _Comparison:
    def __init__(self, point: Point, families: frozenset[int]) -> None:
        self.point = point
        self.rules = list(point.rules)
        # Every packet here has addresses of the layer's families, and the point's constants.
        addresses = ValueSet(((0, MAX_V4),) if 4 in families else (), ((0, MAX_V6),) if 6 in families else ())
        self.base: dict[str, Cell] = {"src_ip": (addresses, False), "dst_ip": (addresses, False)}
        self.base |= {name: (ValueSet.numbers(value), False) for name, value in point.constants.items()}
        self.entries = [_Entry(i, match) for i, rule in enumerate(self.rules) for match in _alternatives(rule)]
        self._sizes = {id(e): sum(len(v.v4) + len(v.v6) for v in e.match.values()) for e in self.entries}
        self.steps = self.scanned = 0
        self._exhausted = False
        self._jumps = [(i, point.rules.skip_target(i)) for i, r in enumerate(self.rules) if r.action == Action.SKIP]
        self._bounds = {name: self._bounds_of(name) for name in sorted({n for e in self.entries for n in e.match})}
        self._rule_of = np.array([e.rule for e in self.entries], np.int64)
        self._covering = np.array([self._may_cover(e.rule) for e in self.entries], bool)

    def run(self) -> DeadRules:
        found: list[DeadRule] = []
        unsure = 0
        for i, rule in enumerate(self.rules):
            if self.scanned > MAX_SCANNED or self.steps > 2 * MAX_STEPS:
                unsure += len(self.rules) - i
                break
            covers: set[int] | None = set()
            for match in _alternatives(rule):
                piece = _intersection(self.base, match)
                if piece is None:
                    continue
                taken = self._covers(i, match, piece)
                if taken is None or covers is None:
                    unsure += taken is None and self._exhausted
                    covers = None
                    break
                covers |= taken
            if covers is not None:
                found.append(DeadRule(i, tuple(sorted(covers))))
        return DeadRules(tuple(found), unsure)

    def _covers(self, rule: int, match: Match, piece: Piece) -> set[int] | None:
        """Rules before ``rule`` that take all of the piece; None if something is left or the budget is spent."""
        self._exhausted = False
        # One rule alone is the common case, and the clearest finding.
        for entry in self._earlier(rule, match, self._encloses, MAX_ALONE):
            if all(name in match or name in self.base for name in entry.match) and not self._left([piece], entry):
                return {entry.rule}
        if self.steps > MAX_STEPS:
            self._exhausted = True
            return None
        left: list[Piece] = [piece]
        covers: set[int] = set()
        near = self._earlier(rule, match, self._touches, MAX_COVERS + 1)
        for entry in near[:MAX_COVERS]:
            rest = self._left(left, entry)
            if rest == left:
                continue
            covers.add(entry.rule)
            left = rest
            if not left:
                return covers
            if len(left) > MAX_PIECES or self.steps > MAX_STEPS:
                self._exhausted = True
                return None
        self._exhausted = len(near) > MAX_COVERS
        return None

    def _left(self, pieces: list[Piece], entry: _Entry) -> list[Piece]:
        for piece in pieces:
            held = sum(len(values.v4) + len(values.v6) for values, _ in piece.values())
            self.steps += _FIXED_STEPS + held + self._sizes[id(entry)]
        return [rest for piece in pieces for rest in _difference(piece, entry.match)]

    # --- which earlier entries can touch a conjunction

    def _earlier(self, rule: int, match: Match, test: _Test, count: int) -> list[_Entry]:
        """The first ``count`` earlier entries whose bounds pass the test for every field of the conjunction."""
        out: list[_Entry] = []
        end = int(np.searchsorted(self._rule_of, rule))
        for begin in range(0, end, _BLOCK):
            block = slice(begin, min(begin + _BLOCK, end))
            self.scanned += block.stop - begin
            mask = self._covering[block].copy()
            for name, values in match.items():
                if name in self._bounds:
                    mask &= test(name, values, block)
            for k in np.flatnonzero(mask):
                entry = self.entries[begin + int(k)]
                if not self._jumped(entry.rule, rule):
                    out.append(entry)
                if len(out) == count:
                    return out
        return out

    def _bounds_of(self, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Lowest and highest IPv4 address or number of each entry (everything where it is free), and whether it has
        IPv6 addresses."""
        low = np.zeros(len(self.entries), np.int64)
        high = np.full(len(self.entries), np.iinfo(np.int64).max, np.int64)
        v6 = np.ones(len(self.entries), bool)
        for k, entry in enumerate(self.entries):
            values = entry.match.get(name)
            if values is not None:
                low[k], high[k] = (values.v4[0][0], values.v4[-1][1]) if values.v4 else (1, 0)
                v6[k] = bool(values.v6)
        return low, high, v6

    def _touches(self, name: str, values: ValueSet, block: slice) -> npt.NDArray[np.bool_]:
        low, high, v6 = (column[block] for column in self._bounds[name])
        out = np.zeros(len(low), bool)
        if values.v4:
            out |= (low <= values.v4[-1][1]) & (high >= values.v4[0][0])
        return np.logical_or(out, v6) if values.v6 else out

    def _encloses(self, name: str, values: ValueSet, block: slice) -> npt.NDArray[np.bool_]:
        low, high, v6 = (column[block] for column in self._bounds[name])
        out = np.ones(len(low), bool)
        if values.v4:
            out &= (low <= values.v4[0][0]) & (high >= values.v4[-1][1])
        return np.logical_and(out, v6) if values.v6 else out

    def _may_cover(self, index: int) -> bool:
        rule = self.rules[index]
        return rule.certain and rule.action in TERMINAL and index not in self.point.rewrites

    def _jumped(self, cover: int, rule: int) -> bool:
        """Whether a jump leads packets past ``cover`` to ``rule``."""
        return any(at < cover < target <= rule for at, target in self._jumps)


def _alternatives(rule: Rule) -> Iterator[Match]:
    """The conjunctions of a rule; none where a set is empty."""
    for alternative in rule.alternatives or ({},):
        match = dict(rule.match)
        for name, values in alternative.items():
            match[name] = match[name].intersection(values) if name in match else values
        if all(match.values()):
            yield match


def _intersection(piece: Piece, match: Match) -> Piece | None:
    out = dict(piece)
    for name, values in match.items():
        inside = values if name not in out else out[name][0].intersection(values)
        if not inside:
            return None
        out[name] = (inside, False)
    return out


def _difference(piece: Piece, match: Match) -> Iterator[Piece]:
    """Disjoint pieces of what ``piece`` holds and ``match`` does not."""
    if _intersection(piece, match) is None:
        yield piece
        return
    rest = dict(piece)
    for name, values in match.items():
        held, absent = rest.get(name, (None, True))
        outside = values.complement(name) if held is None else held.intersection(values.complement(name))
        if outside or absent:
            yield {**rest, name: (outside, absent)}
        rest[name] = (values if held is None else held.intersection(values), False)
