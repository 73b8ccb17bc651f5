"""The rule model as people and importers see it: rules, rule sets, and where each came from.

A *rule* is a conjunction over fields (``meshsieve._core.FIELDS``, from csrc/include/meshsieve/fields.def). Each field
is constrained to a ``ValueSet``. What is a disjunction, as services are ("TCP 80 or UDP 53"), goes into
``alternatives``: the rule matches if its match holds and, where it has alternatives, one of them does. Groups stay
groups: a set is stored once however many rules share it, and nothing is ever multiplied out.

Semantics (docs/semantics.md): the list is walked from the first rule; the first rule that does not certainly fail
decides; ``Action.SKIP`` continues at rule ``skip_to``. A rule that is not ``certain`` holds a clause nobody can
interpret offline, so where its match holds the packet is *undecided* at this rule: never a quiet allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.codes import MarkCodes, NameCodes
from meshsieve.errors import ModelError
from meshsieve.value_sets import FIELD_INDEX, MAX_V6, FlatSets, ValueSet, flatten

__all__ = [
    "FIELD_INDEX",
    "Action",
    "MarkCodes",
    "Match",
    "NameCodes",
    "Rule",
    "RuleSet",
    "Source",
    "ValueSet",
    "listed",
]


class Action(IntEnum):
    """What a rule does. The numbers are those of the C++ core."""

    ALLOW = 0
    DROP = 1
    REJECT = 2
    SKIP = 3
    UNDECIDED = 4


Match = Mapping[str, ValueSet]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a rule was written: ``str()`` gives ``file:line object``."""

    file: str = ""
    line: int | None = None
    obj: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        return f"{place} {self.obj}".strip()

    @property
    def place(self) -> str:
        """``file:line`` without folders, for tables."""
        file = self.file.rsplit("/", 1)[-1]
        return f"{file}:{self.line}" if self.line is not None else file


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Fields that ``match`` does not name are free.

    match         conjunction of field constraints
    alternatives  disjunction of further conjunctions; empty = no further condition
    action        what happens to a packet that matches
    skip_to       index at which the walk goes on, for ``Action.SKIP``
    name          what users call it (NSX rule id or display name, iptables comment or chain:number)
    source        where it is written
    unknown       texts of clauses that cannot be interpreted; the rule is then not certain
    log           it logs
    """

    match: Match = field(default_factory=dict)
    action: Action = Action.ALLOW
    alternatives: tuple[Match, ...] = ()
    skip_to: int = -1
    name: str = ""
    source: Source = Source()
    unknown: tuple[str, ...] = ()
    log: bool = False

    @property
    def certain(self) -> bool:
        return not self.unknown


def listed(rules: Iterable[Rule]) -> list[Rule]:
    """raises ModelError for what is no rule"""
    out = list(rules)
    for i, rule in enumerate(out):
        if not isinstance(rule, Rule):
            raise ModelError(f"rule {i} is {rule!r}; give Rule objects")
    return out


class RuleSet(Sequence[Rule]):
    """An ordered, immutable list of rules, kept as columns with interned sets.

    ``RuleSet(rules)`` takes any iterable of ``Rule``; importers of huge lists use ``RuleSet.from_columns``.
    ``names`` holds the ``NameCodes`` of the name fields that the rules use ({"iif": ..., "oif": ...}); ``marks`` those
    of the field mark, where the rules name codes instead of marks.

    raises  ModelError if a rule names an unknown field, a value beyond its field, or a skip that does not go forward
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        names: Mapping[str, NameCodes] | None = None,
        marks: MarkCodes | None = None,
    ) -> None:
        self.names: dict[str, NameCodes] = dict(names or {})
        self.marks = marks
        self._sets: list[ValueSet] = [ValueSet()]
        self._ids: dict[ValueSet, int] = {}
        rules = listed(rules)
        count = len(rules)
        self._common = np.zeros((count, len(FIELD_INDEX)), np.int32)
        self._action = np.fromiter((r.action for r in rules), np.uint8, count)
        self._skip_to = np.fromiter((r.skip_to for r in rules), np.int32, count)
        self._certain = np.fromiter((r.certain for r in rules), np.uint8, count)
        self._alternative_begin = np.zeros(count + 1, np.uint32)
        np.cumsum([len(r.alternatives) for r in rules], out=self._alternative_begin[1:])
        self._alternatives = np.zeros((int(self._alternative_begin[-1]), len(FIELD_INDEX)), np.int32)
        self._labels: Sequence[tuple[str, Source, tuple[str, ...], bool]] = [
            (r.name, r.source, r.unknown, r.log) for r in rules
        ]
        for i, rule in enumerate(rules):
            self._fill(self._common[i], rule.match, i)
            for a, alternative in enumerate(rule.alternatives, int(self._alternative_begin[i])):
                self._fill(self._alternatives[a], alternative, i)

    @classmethod
    def from_columns(
        cls,
        sets: Sequence[ValueSet],
        common: npt.NDArray[np.int32],
        action: npt.NDArray[np.uint8],
        labels: Sequence[tuple[str, Source, tuple[str, ...], bool]],
    ) -> RuleSet:
        """Rules without alternatives or skips, given as set ids.

        sets    interned sets; sets[0] stands for "any" and is not looked at
        common  int32 (n, len(FIELDS)): index into ``sets`` per rule and field, 0 = free
        action  uint8 (n,): values of ``Action``
        labels  n times (name, source, unknown, log); any sequence, it may be computed lazily
        """
        self = cls()
        count = len(common)
        self._sets = list(sets)
        self._common = np.ascontiguousarray(common, np.int32)
        self._action = np.ascontiguousarray(action, np.uint8)
        self._skip_to = np.full(count, -1, np.int32)
        self._certain = np.ones(count, np.uint8)
        self._alternative_begin = np.zeros(count + 1, np.uint32)
        self._labels = labels
        return self

    @classmethod
    def from_ranges(
        cls, ranges: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]], action: npt.ArrayLike = Action.ALLOW
    ) -> RuleSet:
        """Rules of at most one range a field, given as columns: no Python object is made for a rule.

        ranges  field name to (low, high), both ends inclusive: integers (n,), of addresses IPv4; or uint64 (n, 2), high
                and low word, IPv6 addresses. A range of all the field's values, of either family, leaves it free
        action  one ``Action`` for all, or uint8 (n,)
        raises  ModelError for an unknown field, columns that do not fit, and a range that ends before it starts

        >>> rules = RuleSet.from_ranges({"dst_ip": ([0x0A000000], [0x0AFFFFFF]), "dport": ([443], [443])})
        >>> rules[0].match
        {'dst_ip': ValueSet(10.0.0.0-10.255.255.255), 'dport': ValueSet(443)}
        """
        for name, (low, high) in ranges.items():
            if np.shape(low) != np.shape(high):
                raise ModelError(f"{name}: low ends of shape {np.shape(low)}, high ends of shape {np.shape(high)}")
        ends = {name: (_as_words(name, low), _as_words(name, high)) for name, (low, high) in ranges.items()}
        counts = {len(low) for low, _ in ends.values()}
        if len(counts) != 1:
            raise ModelError(f"the ranges have lengths {sorted(counts)}; give at least one field, and all of all rules")
        count = counts.pop()
        common = np.zeros((count, len(FIELD_INDEX)), np.int32)
        named, sizes = [np.empty((0, 4), np.uint64)], [np.zeros((1, 2), np.uint64)]  # set 0 stands for "any"
        known = 1
        for name, (low, high) in ends.items():
            is_v6 = low.ndim == 2
            largest = MAX_V6 if is_v6 else 2 ** min(_core.FIELDS[FIELD_INDEX[name]].bits, 32) - 1
            if not is_v6 and (high > np.uint64(largest)).any():
                raise ModelError(f"{name}: a range ends beyond {largest}")
            if _is_less(high, low).any():
                raise ModelError(f"{name}: a range ends before it starts")
            is_named = (low != 0) | (high != np.uint64(largest & 2**64 - 1))
            rows = np.flatnonzero(is_named.any(axis=1) if is_v6 else is_named)
            intervals = np.zeros((len(rows), 4), np.uint64)
            if is_v6:
                intervals[:, :2], intervals[:, 2:] = low[rows], high[rows]
            else:
                intervals[:, 1], intervals[:, 3] = low[rows], high[rows]
            common[rows, FIELD_INDEX[name]] = np.arange(known, known + len(rows), dtype=np.int32)
            named.append(intervals)
            sizes.append(np.tile(np.array([not is_v6, is_v6], np.uint64), (len(rows), 1)))
            known += len(rows)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes).ravel())]).astype(np.uint64)
        intervals = np.concatenate(named)
        sets = FlatSets(offsets, intervals)
        actions = np.broadcast_to(np.asarray(action, np.uint8), (count,))
        self = cls.from_columns((), common, actions, _NoLabels(count))
        self._sets = cast("list[ValueSet]", sets)  # made when they are looked at
        self._flat = offsets, intervals
        return self

    def _fill(self, row: npt.NDArray[np.int32], match: Match, index: int) -> None:
        for name, values in match.items():
            if name not in FIELD_INDEX:
                raise ModelError(f"rule {index}: no field is called '{name}'; fields: {', '.join(FIELD_INDEX)}")
            if values not in self._ids:
                self._ids[values] = len(self._sets)
                self._sets.append(values)
            row[FIELD_INDEX[name]] = self._ids[values]

    def _match(self, row: npt.NDArray[np.int32]) -> dict[str, ValueSet]:
        return {name: self._sets[row[i]] for name, i in FIELD_INDEX.items() if row[i]}

    def __len__(self) -> int:
        return len(self._common)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        name, source, unknown, log = self._labels[i]
        begin, end = self._alternative_begin[i], self._alternative_begin[i + 1]
        return Rule(
            match=self._match(self._common[i]),
            action=Action(int(self._action[i])),
            alternatives=tuple(self._match(row) for row in self._alternatives[begin:end]),
            skip_to=int(self._skip_to[i]),
            name=name,
            source=source,
            unknown=unknown,
            log=log,
        )

    def __iter__(self) -> Iterator[Rule]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<RuleSet of {len(self)} rules over {len(self._sets) - 1} sets>"

    def label(self, index: int) -> tuple[str, Source]:
        """Name and source of a rule, without building the ``Rule``."""
        name, source, _, _ = self._labels[index]
        return name, source

    @property
    def fields(self) -> frozenset[str]:
        """Names of the fields that some rule constrains."""
        used = np.logical_or(self._common.any(axis=0), self._alternatives.any(axis=0)).tolist()
        return frozenset(name for name, i in FIELD_INDEX.items() if used[i])

    def sources(self) -> list[Source]:
        """Where each rule is written."""
        return [labels[1] for labels in self._labels]

    @property
    def actions(self) -> npt.NDArray[np.uint8]:
        """uint8 (n,): values of ``Action``, one a rule."""
        return self._action

    def skip_target(self, index: int) -> int:
        """Where the walk goes on after rule ``index``, whose action is SKIP."""
        return int(self._skip_to[index])

    def edited(self, *, remove: Iterable[int] = (), insert: Iterable[tuple[int, Rule]] = ()) -> RuleSet:
        """A list with rules taken out and put in, all in one step; this one stays as it is.

        remove  indices of this list
        insert  (position, rule): the rule comes before the rule that has index ``position`` in this list; ``len(self)``
                appends. Rules with one position keep their order. Their ``skip_to`` counts in this list
        A skip goes on at the rule it went on at; where that is removed, at the next one that stays.

        raises  ModelError for an index out of range, and for rules that cannot be
        """
        count = len(self)
        gone = np.unique(np.fromiter(remove, np.int64))
        added = sorted(insert, key=lambda pair: pair[0])
        positions = np.array([position for position, _ in added], np.int64)
        if len(gone) and (gone[0] < 0 or gone[-1] >= count):
            raise ModelError(f"cannot remove rule {gone[0] if gone[0] < 0 else gone[-1]}: there are {count} rules")
        if len(added) and (positions[0] < 0 or positions[-1] > count):
            wrong = positions[0] if positions[0] < 0 else positions[-1]
            raise ModelError(f"cannot insert at {wrong}: positions are 0 to {count}")
        # Order of the new list as rows of this list followed by the added rules.
        order = np.insert(np.arange(count), positions, count + np.arange(len(added)))
        order = order[~np.isin(order, gone)] if len(gone) else order
        rules = [rule for _, rule in added]
        new = self.arranged(rules, order)
        stays = np.full(count + 1, len(order), np.int64)  # where a skip to each rule of this list goes
        of_old = order < count
        stays[order[of_old]] = np.flatnonzero(of_old)
        stays = np.minimum.accumulate(stays[::-1])[::-1]
        targets = np.concatenate([self._skip_to, np.array([r.skip_to for r in rules], np.int32)])[order]
        if len(targets) and targets.max() > count:
            raise ModelError(f"a skip goes to rule {targets.max()}: there are {count} rules")
        new._skip_to = np.where(targets < 0, -1, stays[np.maximum(targets, 0)]).astype(np.int32)
        return new

    def arranged(self, added: Sequence[Rule], order: npt.NDArray[np.integer[Any]]) -> RuleSet:
        """The rules ``order`` of this list followed by ``added``, in that order; without skips.

        order   indices; ``len(self) + i`` is ``added[i]``. Rules that it does not name are left out
        raises  ModelError for rules that cannot be
        """
        count = len(self)
        new = RuleSet.__new__(RuleSet)
        new.names, new.marks = self.names, self.marks
        new._sets, new._ids = list(self._sets), {}
        rows = np.zeros((len(added), len(FIELD_INDEX)), np.int32)
        alternatives = np.zeros((sum(len(r.alternatives) for r in added), len(FIELD_INDEX)), np.int32)
        at = iter(alternatives)
        for number, (rule, row) in enumerate(zip(added, rows, strict=True)):
            new._fill(row, rule.match, count + number)
            for alternative in rule.alternatives:
                new._fill(next(at), alternative, count + number)
        new._common = np.concatenate([self._common, rows])[order]
        new._action = np.concatenate([self._action, np.array([r.action for r in added], np.uint8)])[order]
        new._certain = np.concatenate([self._certain, np.array([r.certain for r in added], np.uint8)])[order]
        new._skip_to = np.full(len(order), -1, np.int32)
        lengths = np.concatenate([np.diff(self._alternative_begin), [len(r.alternatives) for r in added]]).astype(
            np.int64
        )
        begins = np.concatenate([[0], np.cumsum(lengths)])[order]
        lengths = lengths[order]
        new._alternative_begin = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint32)
        picked = np.repeat(begins - new._alternative_begin[:-1], lengths) + np.arange(int(lengths.sum()))
        new._alternatives = np.concatenate([self._alternatives, alternatives])[picked]
        labels = [(r.name, r.source, r.unknown, r.log) for r in added]
        new._labels = _PickedLabels.of(self._labels, labels, np.asarray(order, np.int64))
        new._flat = self._flat_with(new._sets[len(self._sets) :])
        if len(new._sets) > 1000 + 2 * (len(new._common) + len(new._alternatives)):
            new._drop_unused_sets()
        return new

    def _drop_unused_sets(self) -> None:
        used = np.unique(np.concatenate([[0], self._common.ravel(), self._alternatives.ravel()]))
        number = np.zeros(len(self._sets), np.int32)
        number[used] = np.arange(len(used))
        self._common, self._alternatives = number[self._common], number[self._alternatives]
        self._sets = [self._sets[i] for i in used.tolist()]
        self._flat = None

    _flat: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]] | None = None

    def _flat_with(self, more: Sequence[ValueSet]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """``_flatten`` of the sets and of further ones; what has been flattened once is kept."""
        if self._flat is None:
            self._flat = flatten(self._sets)
        offsets, intervals = self._flat
        if not more:
            return self._flat
        more_offsets, more_intervals = flatten(more)
        return (
            np.concatenate([offsets, more_offsets[1:] + offsets[-1]]),
            np.concatenate([intervals, more_intervals]),
        )

    @cached_property
    def native(self) -> _core.RuleSet:
        """The same rules in the C++ core, validated."""
        offsets, intervals = self._flat_with(())
        return _core.RuleSet(
            offsets,
            intervals,
            self._common,
            self._alternative_begin,
            self._alternatives,
            self._action,
            self._skip_to,
            self._certain,
        )


class _NoLabels(Sequence[tuple[str, Source, tuple[str, ...], bool]]):
    """Of rules without names."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return "", Source(), (), False


class _PickedLabels(Sequence[tuple[str, Source, tuple[str, ...], bool]]):
    """Labels of an edited list: rows of the first list it came from, then what was added since."""

    def __init__(self, base: Any, added: Any, order: npt.NDArray[np.int64]) -> None:
        self._base, self._added, self._order = base, added, order

    @staticmethod
    def of(labels: Any, added: Any, order: npt.NDArray[np.int64]) -> _PickedLabels:
        if not isinstance(labels, _PickedLabels):
            return _PickedLabels(labels, added, order)
        origin = np.concatenate([labels._order, len(labels._base) + len(labels._added) + np.arange(len(added))])
        return _PickedLabels(labels._base, [*labels._added, *added], origin[order])

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = int(self._order[index])
        return self._base[at] if at < len(self._base) else self._added[at - len(self._base)]


def _as_words(name: str, column: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """uint64 (n,), or (n, 2) for IPv6 addresses, high and low words."""
    if name not in FIELD_INDEX:
        raise ModelError(f"no field is called '{name}'; fields: {', '.join(FIELD_INDEX)}")
    values = np.asarray(column)
    is_v6 = values.ndim == 2 and values.shape[1] == 2 and _core.FIELDS[FIELD_INDEX[name]].kind == "address"
    if values.size == 0 and values.ndim == 1:
        values = values.astype(np.uint64)
    if values.dtype.kind not in "ui" or not (is_v6 or values.ndim == 1):
        raise ModelError(f"{name}: {values.dtype} {values.shape}; give integers (n,), or (n, 2) for IPv6 addresses")
    if values.dtype.kind == "i" and (values < 0).any():
        raise ModelError(f"{name}: {values.min()} is negative")
    return values.astype(np.uint64)


def _is_less(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Of numbers as _as_words makes them."""
    less = a < b
    if a.ndim == 2:
        less = less[:, 0] | ((a[:, 0] == b[:, 0]) & less[:, 1])
    return np.asarray(less, np.bool_)
