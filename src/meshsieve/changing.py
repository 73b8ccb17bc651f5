"""Lists that change: published versions, the table that is changed in place, and the compilation that follows.

A list starts compiled. Its first change puts it into a ``_core.LiveTable``, where a change costs microseconds
(csrc/src/l4/live_table.h says how); when the changes pause, a thread compiles the list anew with the engine asked for
and publishes that table. What a LiveTable does not take (skips, policies of large groups) is compiled for each change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from meshsieve import _core, _fast
from meshsieve.errors import CompileError, ModelError
from meshsieve.model import Rule, RuleSet, listed

QUIET = 0.2  # seconds without a change after which the list is compiled
LAST_CHANGES = 4  # publications
QUIET_BUILDS = 2.0  # or as many times what its compilation took last, where that is longer

Indices = npt.NDArray[np.int64]
Added = list[Rule] | RuleSet
Change = tuple[Indices, Indices, Added]  # indices removed, positions and rules put in


@dataclass(frozen=True, slots=True)
class Options:
    """What ``packets.compile`` was asked for."""

    engine: str
    backend: str
    budget_bytes: int


class History:
    """The rules of a LiveTable by slot: rows of a list, and numbers of what was put in since, kept as it came."""

    def __init__(self, base: RuleSet) -> None:
        self.base = base
        self._rows: Indices = np.arange(len(base))  # by slot, for the first of them; from len(base): what was put in
        self._later = 0  # from a later slot to its row
        self._batches: list[Added] = []
        self._starts: list[int] = []  # how much was put in before each batch
        self._size = 0

    def put(self, rules: Added) -> None:
        if len(rules):
            self._batches.append(rules)
            self._starts.append(self._size)
            self._size += len(rules)

    def listed(self, slots: npt.NDArray[np.int32]) -> RuleSet:
        """The list of these slots. Makes an object of every rule that was put in."""
        rows, is_added, batch, within = self._places(slots)
        added = [self._batches[b][i] for b, i in zip(batch.tolist(), within.tolist(), strict=True)]
        rows[is_added] = len(self.base) + np.arange(len(added))
        return self.base.arranged(added, rows)

    def of(self, slots: npt.NDArray[np.int32]) -> History:
        """With slots numbered as they stand here, without objects and batches of which all are gone. Makes no object of
        a rule, and so costs little of the GIL."""
        rows, is_added, batch, within = self._places(slots)
        as_columns = np.array([isinstance(b, RuleSet) for b in self._batches], bool)[batch]
        new = History(self.base)
        objects = [
            self._batches[b][i] for b, i in zip(batch[~as_columns].tolist(), within[~as_columns].tolist(), strict=True)
        ]
        new.put(objects)
        starts = np.zeros(len(self._batches), np.int64)
        for b in np.unique(batch[as_columns]).tolist():
            starts[b] = new._size
            new.put(self._batches[b])
        number = np.empty(len(batch), np.int64)
        number[~as_columns] = np.arange(len(objects))
        number[as_columns] = starts[batch[as_columns]] + within[as_columns]
        rows[is_added] = len(self.base) + number
        new._rows = rows
        new._later = len(self.base) + new._size - len(rows)
        return new

    def _places(self, slots: npt.NDArray[np.int32]) -> tuple[Indices, npt.NDArray[np.bool_], Indices, Indices]:
        """Rows; which of them were put in; and of those the batch and the place in it."""
        early = slots < len(self._rows)
        rows = slots.astype(np.int64) + self._later
        rows[early] = self._rows[slots[early]]
        is_added = rows >= len(self.base)
        number = rows[is_added] - len(self.base)
        batch = np.searchsorted(np.array(self._starts, np.int64), number, "right") - 1
        within = number - np.array(self._starts, np.int64)[batch]
        return rows, is_added, batch, within


@dataclass(slots=True)
class Version:
    """One published state: a list and the table that serves it. Never changed, but for the list, made when asked for.

    number   how many changes of the list were published before
    pending  rules put in and taken out since a table was compiled
    listed   the list; None until asked for, and then ``state`` and ``history`` say what it is
    """

    native: _core.Classifier | _core.LiveVersion
    lookup: _fast.Lookup
    options: Options
    size: int
    number: int = 0
    pending: int = 0
    listed: RuleSet | None = None
    state: _core.LiveVersion | None = None
    history: History | None = None

    @staticmethod
    def compiled(rules: RuleSet, options: Options) -> Version:
        native = _core.compile(rules.native, options.engine, options.backend, options.budget_bytes)
        return Version(native, _fast.Lookup(native.capsule), options, len(rules), listed=rules)

    @property
    def rules(self) -> RuleSet:
        state, history = self.state, self.history
        if self.listed is None and state is not None and history is not None:
            self.listed = history.listed(state.slots)
            self.state = self.history = None
        assert self.listed is not None  # what another thread may have set before it let the others go
        return self.listed

    def served_by(self, native: _core.Classifier) -> Version:
        """The same list, served by the table compiled from it."""
        state, history = self.state, self.history  # in this order: where they are gone, the list is there
        lookup = _fast.Lookup(native.capsule)
        return Version(native, lookup, self.options, self.size, self.number, 0, self.listed, state, history)

    def table(self) -> _core.Classifier:
        """A compiled table of the list: the one that serves it, else one made for the purpose."""
        if isinstance(self.native, _core.Classifier):
            return self.native
        return _built(self.native_rules(), self.options, self.options.engine)

    def native_rules(self) -> _core.RuleSet:
        """The rules for the C++ core; the GIL is free while a changed list is collected."""
        state = self.state
        return self.rules.native if state is None else state.rule_set()


class Writer:
    """The changes of one list. ``version`` is what is published; reading the attribute is all that readers do."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self._lock = threading.Lock()  # of everything below, and of setting `version`
        self._live: _core.LiveTable | None = None  # what it published last has the list of `version`
        self._history = History(RuleSet())
        self._since: list[Change] | None = None  # made while a LiveTable is built anew
        self._changed_at = 0.0
        self._build_seconds = 0.0
        self._settling: threading.Thread | None = None
        self._hurry = threading.Event()
        self._failure: BaseException | None = None

    def update(
        self, remove: Iterable[int], insert: Iterable[tuple[int, Rule]] | RuleSet, at: npt.ArrayLike | None = None
    ) -> None:
        gone = _integers("indices to remove", remove)
        positions, rules = _in_order(insert, at)
        with self._lock:
            try:
                self.version = self._changed(gone, positions, rules)
            except CompileError:  # not in a LiveTable
                self._live = self._since = None
                old = self.version
                pairs = zip(positions.tolist(), rules, strict=True)
                self.version = _compiled_like(old, old.rules.edited(remove=gone.tolist(), insert=pairs))
                return
            except ModelError:  # found before anything was changed
                if self._live is not None and self._live.broken:
                    self._live = self._since = None
                raise
            except BaseException:
                self._live = self._since = None
                raise
            self._changed_at = time.monotonic()
            self._start_settling()

    def _changed(self, gone: Indices, positions: Indices, rules: Added) -> Version:
        old = self.version
        if self._live is None:
            options, stats = old.options, old.native.stats
            self._live = _core.LiveTable(old.rules.native, options.backend, options.budget_bytes, stats)
            self._history = History(old.rules)
        state = self._live.apply(gone, positions, _native(rules))
        self._history.put(rules)
        if self._since is not None:
            self._since.append((gone, positions, rules))
        if self._live.crowded:
            state, self._history = self._live.renumber(), self._history.of(state.slots)
        return Version(
            native=state,
            lookup=_fast.Lookup(state.capsule),
            options=old.options,
            size=len(state),
            number=old.number + 1,
            pending=old.pending + len(gone) + len(rules),
            state=state,
            history=self._history,
        )

    def settle(self, timeout: float | None = None) -> bool:
        with self._lock:
            if self.version.pending:
                self._start_settling()
            thread = self._settling
        if thread is not None:
            self._hurry.set()
            thread.join(timeout)
        with self._lock:
            failure, self._failure = self._failure, None
            if failure is not None:
                raise failure
            return not self.version.pending

    def _start_settling(self) -> None:
        if self._settling is None:
            self._hurry.clear()
            self._settling = threading.Thread(target=self._settle, name="meshsieve-compile")
            self._settling.start()

    def _settle(self) -> None:
        """The thread: wait until the list is quiet, compile it, publish the table unless the list has changed again."""
        try:
            while True:
                live = self._live
                if live is not None and live.worn:
                    self._renew()
                quiet = max(QUIET, QUIET_BUILDS * self._build_seconds)
                wait = self._changed_at + quiet - time.monotonic()
                if not threading.main_thread().is_alive():
                    return  # the program ends
                if wait > 0 and not self._hurry.is_set():
                    self._hurry.wait(min(wait, 0.05))
                elif self._compile():
                    return
        except BaseException as failure:  # shown to whoever calls settle()
            with self._lock:
                self._failure, self._settling = failure, None

    def _compile(self) -> bool:
        version = self.version
        number, options, rules = version.number, version.options, version.native_rules()
        del version  # what is held keeps blocks of the LiveTable from being used again
        start = time.monotonic()
        native = _built(rules, options, options.engine)
        self._build_seconds = time.monotonic() - start
        with self._lock:
            if self.version.number != number:
                return False
            self.version, self._settling = self.version.served_by(native), None
            return True

    def _renew(self) -> None:
        """Puts a LiveTable that is built anew in the place of one on which many changes have left their mark."""
        with self._lock:
            version, self._since = self.version, []
        options, stats = version.options, version.native.stats
        state, history = version.state, version.history
        history = History(version.rules) if state is None or history is None else history.of(state.slots)
        try:
            rules = version.native_rules()
            del version, state  # as in _compile
            fresh = _core.LiveTable(rules, options.backend, options.budget_bytes, stats)
            del rules
            while self._catch_up(fresh, history):
                pass
        except CompileError:  # what the list has become is no list for it
            with self._lock:
                self._live = self._since = None

    def _catch_up(self, fresh: _core.LiveTable, history: History) -> bool:
        """Makes the changes that were made meanwhile; the last few of them while other writers wait, and False then."""
        with self._lock:
            since, self._since = self._since, []
            if since is None:
                self._since = None
                return False
            if len(since) <= LAST_CHANGES:
                _repeat(since, fresh, history)
                self._live, self._history, self._since = fresh, history, None
                return False
        _repeat(since, fresh, history)
        return True


def _repeat(changes: list[Change], live: _core.LiveTable, history: History) -> None:
    for gone, positions, rules in changes:
        live.apply(gone, positions, _native(rules))
        history.put(rules)


def _native(rules: Added) -> list[Rule] | _core.RuleSet:
    return rules.native if isinstance(rules, RuleSet) else rules


def _in_order(insert: Iterable[tuple[int, Rule]] | RuleSet, at: npt.ArrayLike | None) -> tuple[Indices, Added]:
    """Positions that ascend and the rules that go there; those of one position keep their order."""
    if isinstance(insert, RuleSet):
        if at is None:
            raise ModelError("rules are inserted without positions; give `at`, one a rule")
        positions = np.asarray(at)
        if positions.shape != (len(insert),) or (len(insert) and positions.dtype.kind not in "ui"):
            raise ModelError(f"at is {positions.dtype} {positions.shape}; give {len(insert)} integers, one a rule")
        positions = positions.astype(np.int64)
        if (positions[1:] >= positions[:-1]).all():
            return positions, insert
        order = np.argsort(positions, kind="stable")
        return positions[order], [insert[i] for i in order.tolist()]
    if at is not None:
        raise ModelError("`at` goes with a RuleSet; pairs have their positions")
    pairs = sorted(insert, key=itemgetter(0))
    return _integers("positions", [position for position, _ in pairs]), listed(rule for _, rule in pairs)


def _integers(what: str, given: Iterable[int]) -> Indices:
    numbers = given if isinstance(given, np.ndarray) else np.asarray(list(given))
    if numbers.size and (numbers.dtype.kind not in "ui" or numbers.ndim != 1):
        raise ModelError(f"{what} are {numbers.dtype} {numbers.shape}; give integers, one a rule")
    return numbers.astype(np.int64)


def _compiled_like(old: Version, rules: RuleSet) -> Version:
    """The list compiled, by the engine that served before where it takes it: choosing takes several builds."""
    engine = old.native.stats.engine if old.options.engine == "auto" else old.options.engine
    native = _built(rules.native, old.options, engine)
    return Version(native, _fast.Lookup(native.capsule), old.options, len(rules), old.number + 1, listed=rules)


def _built(rules: _core.RuleSet, options: Options, engine: str) -> _core.Classifier:
    """By the engine named; a changed list that it does not take gets another, as no change shall fail for that."""
    try:
        return _core.compile(rules, engine, options.backend, options.budget_bytes)
    except CompileError:
        return _core.compile(rules, "auto", options.backend, options.budget_bytes)
