"""L2-L4 rules: compile an ordered rule list and ask which rule decides a packet.

>>> from meshsieve.model import Action, Rule, ValueSet
>>> web = Rule({"dst_ip": ValueSet.addresses(["10.0.0.0/24"]), "dport": ValueSet.numbers(443)})
>>> clf = compile([web, Rule(action=Action.DROP)])
>>> clf.classify("192.0.2.1", "10.0.0.7", 40000, 443, 6), clf.classify("192.0.2.1", "10.0.0.7", 40000, 80, 6)
(0, 1)

Results, everywhere: r >= 0, rule r decides; -1, no rule matches; -(r+2), the walk reached rule r and cannot decide it,
because the packet lacks a field that r names or r holds a clause that nobody can interpret (docs/semantics.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from meshsieve import _core, _fast, saved_tables
from meshsieve.changing import Options, Version, Writer
from meshsieve.columns import PacketColumns
from meshsieve.errors import ColumnError, ModelError, PolicyError
from meshsieve.importers.classbench import read_trace
from meshsieve.model import FIELD_INDEX, Action, Rule, RuleSet
from meshsieve.prefix_table import PrefixTable

__all__ = [
    "Explanation",
    "PacketClassifier",
    "PacketColumns",
    "PrefixTable",
    "Rule",
    "RuleSet",
    "RuleTest",
    "backend",
    "compile",
    "load_table",
    "read_rules",
    "read_trace",
]

RuleIds = npt.NDArray[np.int32]
Address = int | str | bytes | Any  # or an ipaddress object

NO_MATCH = -1
_FIELD_NAMES = tuple(FIELD_INDEX)
_ADDRESSES = ("src_ip", "dst_ip")


def compile(
    rules: RuleSet | Iterable[Rule], engine: str = "auto", backend: str = "auto", budget_bytes: int | None = None
) -> PacketClassifier:
    """An immutable table for ``rules``.

    engine        "auto", or a name of ``meshsieve._core.engines()`` (docs/classifier.md says when each wins)
    backend       "auto", or a SIMD backend by name; the environment variable MESHSIEVE_BACKEND sets what "auto" means
    budget_bytes  upper bound of the table; None is 256 bytes a rule + 2 MB (docs/classifier.md, Memory). "auto" and
                  "forest" never fail for it: they fall back to a smaller structure, at last to none
    raises        ModelError for rules that cannot be; BackendError for an unknown engine or backend; CompileError if
                  the engine named does not take these rules within the budget, which "auto" never raises
    """
    rules = rules if isinstance(rules, RuleSet) else RuleSet(rules)
    if budget_bytes is not None and not (isinstance(budget_bytes, int | np.integer) and 0 < budget_bytes < 1 << 63):
        raise ModelError(f"budget_bytes is {budget_bytes!r}; give a positive number of bytes, or None for the default")
    return PacketClassifier(Version.compiled(rules, Options(engine, backend, budget_bytes or 0)))


def load_table(
    path: str | os.PathLike[str], *, backend: str = "auto", mapped: bool = False, key: bytes | None = None
) -> PacketClassifier:
    """The table that ``PacketClassifier.save`` wrote, with its rules: ready without compiling, and it changes like any.

    The file is not trusted: every index in it is checked before the first look-up, and one that cannot be is refused.
    But who may write it decides what it answers; a ``key`` notices changes.

    backend  as in ``compile``
    mapped   read in place: processes share its memory, and nothing is copied. Whoever writes into the file afterwards
             changes the table under the look-ups, so only for files that are replaced as a whole, as ``save`` does;
             else the file is copied into memory of our own
    key      refuse what was not saved with this key
    raises   TableError naming the file and what is wrong; OSError; BackendError

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     compile([Rule(name="all")]).save(f"{folder}/table")
    ...     clf = load_table(f"{folder}/table")
    >>> clf.classify("10.0.0.1", "10.0.0.2", 1, 2, 6), clf.rules[0].name
    (0, 'all')
    """
    loaded = saved_tables.load(path, backend=backend, mapped=mapped, key=key)
    return PacketClassifier(
        Version(
            native=loaded.native,
            lookup=_fast.Lookup(loaded.native.capsule),
            options=Options(loaded.engine, backend, loaded.budget_bytes),
            size=len(loaded.rules),
            listed=loaded.rules,
        )
    )


def backend() -> str:
    """The SIMD backend that "auto" means: the best that this CPU runs, or what MESHSIEVE_BACKEND names.

    raises  BackendError if MESHSIEVE_BACKEND names none that there is, or one that this CPU lacks
    """
    return compile(()).stats.backend


def read_rules(path: str | os.PathLike[str], format: str = "auto") -> RuleSet:
    """The one rule list of a policy file; ``format`` names an importer, "auto" recognises the content.

    raises  PolicyError for what cannot be read, and for configuration that holds several rule lists (NSX has one for
            each direction): ``meshsieve.load`` takes those
    """
    from meshsieve.importers.registry import load_policy

    points = [point for layer in load_policy([path], format=format).layers for point in layer.points]
    if len(points) != 1:
        raise PolicyError(
            f"holds {len(points)} rule lists ({', '.join(p.name for p in points)}), not one",
            where=os.fspath(path),
            hint="meshsieve.load reads configuration with several lists and walks them all",
        )
    return points[0].rules


class PacketClassifier:
    """A compiled rule list. Any number of threads may look up while one or more change it.

    A change is published with everything that belongs to it in one step: look-ups never wait and each answer comes
    wholly from one version. Rule indices are those of the version asked; ``snapshot()`` holds one still.
    """

    def __init__(self, version: Version) -> None:
        self._writer = Writer(version)

    @property
    def rules(self) -> RuleSet:
        """The list that results are indices into. After changes it is made when asked for: ``len(clf)`` is cheaper than
        ``len(clf.rules)``."""
        return self._writer.version.rules

    def __len__(self) -> int:
        """Rules of the list."""
        return self._writer.version.size

    @property
    def version(self) -> int:
        """How many changes have been published since the list was compiled first."""
        return self._writer.version.number

    @property
    def pending(self) -> int:
        """Rules put in and taken out since the table was compiled last; 0 = look-ups are served by a compiled table."""
        return self._writer.version.pending

    @property
    def lookup(self) -> _fast.Lookup:
        """The ``meshsieve._fast.Lookup`` of this version, for tight loops and for Cython (`cimport` it)."""
        return self._writer.version.lookup

    def snapshot(self) -> PacketClassifier:
        """This version on its own: later changes to either do not reach the other. Costs nothing, and keeps the
        version's table in memory."""
        return PacketClassifier(self._writer.version)

    def save(self, path: str | os.PathLike[str], *, key: bytes | None = None) -> None:
        """Writes table and rules to a file, whole or not at all, for ``load_table``. A list that is being changed is
        compiled for it.

        key     any secret of yours: the file gets an authentication tag (HMAC-SHA-256) that ``load_table`` checks
        raises  OutputError
        """
        version = self._writer.version
        options = version.options
        saved_tables.save(
            path, version.rules, version.table(), engine=options.engine, budget_bytes=options.budget_bytes, key=key
        )

    def insert(self, rule: Rule, position: int) -> None:
        """Puts ``rule`` before the rule at ``position``; ``len(clf)`` appends. See ``update``."""
        self._writer.update((), ((position, rule),))

    def remove(self, index: int) -> None:
        """Takes rule ``index`` out; later rules move up by one. See ``update``."""
        self._writer.update((index,), ())

    def replace(self, index: int, rule: Rule) -> None:
        """Puts ``rule`` in the place of rule ``index``. See ``update``."""
        self._writer.update((index,), ((index, rule),))

    def update(
        self,
        *,
        remove: Iterable[int] = (),
        insert: Iterable[tuple[int, Rule]] | RuleSet = (),
        at: npt.ArrayLike | None = None,
    ) -> None:
        """Many changes in one publication.

        remove, insert  as ``RuleSet.edited``: all indices and positions count in the list before the call
        at              with a ``RuleSet`` to insert: integers (n,), the position of each of its rules. Its columns go
                        to the core as they are (``RuleSet.from_ranges``), and no ``Rule`` object is read
        cost            the first change builds a table that can be changed (0.1 to 0.5 s at 100,000 rules); then a
                        microsecond or two a rule and, a call, 1 ns a rule of the list: group changes. Lists with skips
                        and policies of large groups are compiled at each call
        afterwards      once the changes pause, a thread compiles the list and publishes that table; see ``settle``
        raises          ModelError; the published version is then the one before, as it is after KeyboardInterrupt
        threads         writers wait for each other, readers for nobody

        >>> clf = compile([Rule(name="a"), Rule(name="b")])
        >>> clf.update(remove=[0], insert=[(2, Rule(name="c"))])
        >>> [rule.name for rule in clf.rules]
        ['b', 'c']
        """
        self._writer.update(remove, insert, at)

    def settle(self, timeout: float | None = None) -> bool:
        """Waits until the list is served by a compiled table again; False if ``timeout`` seconds were not enough, or
        another thread changed the list meanwhile.

        raises  what compiling in the background raised
        """
        return self._writer.settle(timeout)

    def classify(
        self,
        src: Address | None = None,
        dst: Address | None = None,
        sport: int | None = None,
        dport: int | None = None,
        proto: int | None = None,
        **fields: int | str | None,
    ) -> int:
        """The rule that decides one packet: r >= 0; -1, none; -(r+2), undecided at rule r.

        src, dst  int (up to 32 bits is IPv4, unless ip_ver=6 is given), text, packed bytes or an ipaddress object
        fields    any other field of ``meshsieve._core.FIELDS`` by name, interfaces as text or number
        None      the packet lacks the field: a rule that names it is false where the packet cannot have it (ports of
                  ICMP), else unknown
        raises    ColumnError for values that are none of the field, or addresses of two families

        >>> compile([Rule()]).classify("10.0.0.1", b"\\x0a\\x00\\x00\\x02", 1, 2, 6)
        0
        """
        lookup = self._writer.version.lookup
        if not fields:
            return lookup.classify(src, dst, sport, dport, proto)
        numbers = {name: self._number(name, value) for name, value in fields.items()}
        return lookup.classify(src, dst, sport, dport, proto, **numbers)

    def classify_batch(self, headers: Any, out: RuleIds | None = None) -> RuleIds:
        """The same for n packets: int32 (n,). The GIL is released.

        headers  PacketColumns, a mapping of arrays by field name, or Arrow data with such columns
        out      int32 (n,), C-contiguous, to fill instead of a new array
        raises   ColumnError for columns or an ``out`` that do not fit
        """
        columns = PacketColumns.of(headers)
        if out is None:
            out = np.empty(len(columns), np.int32)
        elif not (isinstance(out, np.ndarray) and out.dtype == np.int32 and out.shape == (len(columns),)):
            raise ColumnError(f"out is {_described(out)}; it must be int32 ({len(columns)},)")
        elif not out.flags.carray:
            raise ColumnError("out is read-only or not contiguous; the results are written into it")
        self.lookup.batch(columns.pairs(), columns.present, out)
        return out

    @property
    def stats(self) -> _core.CompileStats:
        """engine, backend, rules, segments, bytes, bytes_per_rule, build_seconds, worst_case_steps (table reads and
        rule comparisons of the most expensive packet), candidates (what "auto" tried)."""
        return self._writer.version.native.stats

    def explain_compile(self) -> str:
        """What the compiler built and why it took what it took, a line an engine and segment of the list; before them,
        how many rules it left out because an earlier one covers them.

        >>> print(compile([Rule()], engine="forest").explain_compile())  # doctest: +ELLIPSIS
        rules 0-0: forest, ... bytes, built in ... ms, taken
        """
        stats = self.stats
        if not stats.rules:
            return "no rules, no table: every packet gets -1"
        hidden = (
            [f"{stats.hidden} of {stats.rules} rules in no table: an earlier rule covers them"] if stats.hidden else []
        )
        return "\n".join(hidden + [_candidate_text(candidate) for candidate in stats.candidates])

    def explain(
        self,
        src: Address | None = None,
        dst: Address | None = None,
        sport: int | None = None,
        dport: int | None = None,
        proto: int | None = None,
        **fields: int | str | None,
    ) -> Explanation:
        """Every rule that the walk tests for this packet and what failed, by the linear reference, not the table.

        Arguments and errors are those of ``classify``.
        """
        import ipaddress

        given: dict[str, Any] = {"sport": sport, "dport": dport, "proto": proto}
        given |= {name: self._number(name, value) for name, value in fields.items()}
        version = self._writer.version
        version.lookup.classify(src, dst, **given)  # refuses what classify refuses
        for name, address in zip(_ADDRESSES, (src, dst), strict=True):
            if address is None:
                continue
            as_v6 = isinstance(address, int) and given.get("ip_ver") == 6
            parsed = ipaddress.IPv6Address(address) if as_v6 else ipaddress.ip_address(address)
            given[name] = int(parsed)
            given["ip_ver"] = parsed.version
        words = [(FIELD_INDEX[n], v >> 64, v & (2**64 - 1)) for n, v in given.items() if v is not None]
        return Explanation(version.rules, _core.trace(version.rules.native, words))

    def _number(self, name: str, value: int | str | None) -> int | None:
        if not isinstance(value, str):
            return value
        if name not in FIELD_INDEX or _core.FIELDS[FIELD_INDEX[name]].kind != "name":
            raise ColumnError(f"{name} is {value!r}; the field holds a number")
        codes = self.rules.names.get(name)
        return 0 if codes is None else codes.code(value)

    def __repr__(self) -> str:
        return f"<PacketClassifier of {len(self)} rules: engine {self.stats.engine}, {self.stats.bytes} bytes>"


def _described(given: Any) -> str:
    return f"{given.dtype} {given.shape}" if isinstance(given, np.ndarray) else type(given).__name__


def _candidate_text(candidate: _core.Candidate) -> str:
    text = f"rules {candidate.begin}-{candidate.end - 1}: {candidate.engine}"
    if candidate.declined:
        return f"{text}: declined, {candidate.declined}"
    text += f", {candidate.bytes} bytes, built in {candidate.build_seconds * 1e3:.1f} ms"
    if candidate.engine != "linear" and not candidate.bytes:
        text += ", no table fits the budget: every rule in turn"
    if candidate.lookup_ns:
        text += f", {candidate.lookup_ns:.0f} ns a look-up"
    return f"{text}, taken" if candidate.taken else text


@dataclass(frozen=True, slots=True)
class RuleTest:
    """How one rule fared against one packet. ``failed`` and ``unknown`` name fields; where the rule has alternatives
    and none holds, those of all alternatives."""

    index: int
    rule: Rule
    truth: Literal["no", "maybe", "yes"]
    failed: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        why = f": {', '.join(self.failed)} differ" if self.failed else ""
        if self.truth == "maybe":
            reasons = [f"{', '.join(self.unknown)} not known"] if self.unknown else []
            why = ": " + "; ".join([*reasons, *self.rule.unknown])
        name = f" '{self.rule.name}'" if self.rule.name else ""
        return f"rule {self.index}{name} ({str(self.rule.source) or 'no source'}) {self.truth}{why}"


class Explanation:
    """The walk of one packet. ``result`` is what ``classify`` returns; iterate for a ``RuleTest`` a tested rule.

    ``str()`` shows the last rules of a long walk.
    """

    def __init__(self, rules: RuleSet, rows: npt.NDArray[np.int64]) -> None:
        self._rules = rules
        self._rows = rows

    @property
    def result(self) -> int:
        if not len(self._rows):
            return NO_MATCH
        rule, truth = int(self._rows[-1, 0]), int(self._rows[-1, 1])
        if truth == 0 or (truth == 2 and self._rules.actions[rule] == Action.SKIP):
            return NO_MATCH
        return rule if truth == 2 else -rule - 2

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> RuleTest:
        index, truth, failed, unknown = (int(v) for v in self._rows[position])
        kind: Literal["no", "maybe", "yes"] = ("no", "maybe", "yes")[truth]
        return RuleTest(index, self._rules[index], kind, _names(failed), _names(unknown))

    def __iter__(self) -> Iterator[RuleTest]:
        return (self[i] for i in range(len(self)))

    def __str__(self, shown: int = 20) -> str:
        lines = [str(self[i]) for i in range(max(0, len(self) - shown), len(self))]
        if len(self) > shown:
            lines.insert(0, f"{len(self) - shown} rules before these failed or skipped")
        if self.result == NO_MATCH:
            lines.append("no rule matches")
        return "\n".join(lines)


def _names(mask: int) -> tuple[str, ...]:
    return tuple(name for i, name in enumerate(_FIELD_NAMES) if mask >> i & 1)
