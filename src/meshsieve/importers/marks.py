"""Packet and connection marks: what a test of a mark says where rules of the same walk have changed it.

What    A program in which rules test and assign registers (``mark``, ``ct_mark``) becomes one without: every test is
        replaced by a condition over the packet's fields and over the registers as they were when the walk began.
How     The chains are walked symbolically. The state is a list of cases, the first whose condition holds counts; a case
        says of each register which bits are known and of which register's old value the rest is. An assignment adds the
        case of its rule in front; a test is true where a case says so. A chain that tests or assigns is written out for
        every state in which it is called.
Why     kube-proxy, Calico and firewalls with policy routing decide by marks that the same table has set.
Cost    Cases times calls. Where a condition or a state would have more than ``MOST_CASES`` terms, or a program takes
        more than ``MOST_WORK``, the registers are lost and their tests unknown: never guessed.
Example MARK --set-xmark 0x1/0x1 for TCP, then a test of 0x1/0x1: the test is "TCP, or bit 0 was set before".
Source  iptables-extensions(8): mark, connmark, MARK, CONNMARK, CT; nft(8): meta mark, ct mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from meshsieve.codes import MarkTest
from meshsieve.errors import PolicyError
from meshsieve.importers.chains import ChainRule, Jump, Program, Return
from meshsieve.importers.conditions import FALSE, TRUE, Condition, any_of, conjunction, constraint, negation, unknown
from meshsieve.model import Action, MarkCodes, Source
from meshsieve.policy import Rewrite, bits_text

ALL = 0xFFFFFFFF
# ct_nat: bit 0 destination NAT, bit 1 source NAT, set by translations. track: bit 0 the packet is not tracked.
REGISTERS = ("mark", "ct_mark", "ct_nat", "track")
MOST_CASES = 64
# Steps that one program may take, an interval of a set of marks each; beyond, what is not worked out yet is lost.
MOST_WORK = 500_000
UNTRACKED = 5  # ct_state


@dataclass(frozen=True, slots=True)
class Test:
    """``register & mask`` is one of ``values``, or (``negated``) none of them."""

    register: str
    mask: int
    values: frozenset[int]
    negated: bool
    text: str


@dataclass(frozen=True, slots=True)
class Assign:
    """``register = (register & ~mask) ^ value``; with ``source`` ``^ (source & value)``; ``lost``: nobody knows."""

    register: str
    mask: int = ALL
    value: int = 0
    source: str = ""
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Bits:
    """A register as XOR of ``bits`` and, for each register in the order of REGISTERS, its old value under ``masks``,
    which are disjoint; a bit in no mask is known. Nobody knows the bits ``lost``."""

    masks: tuple[int, ...]
    bits: int = 0
    lost: int = 0

    def assigned(self, mask: int, value: int) -> Bits:
        """``(self & ~mask) ^ value``"""
        kept = tuple(m & ~mask for m in self.masks)
        return Bits(kept, (self.bits & ~mask & ALL) ^ value, self.lost & ~mask)

    def copied(self, mask: int, source: Bits, source_mask: int) -> Bits:
        """``(self & ~mask) ^ (source & source_mask)``"""
        cleared = self.assigned(mask, source.bits & source_mask)
        taken = tuple(m & source_mask & mask for m in source.masks)
        # Where old bits would be XORed onto others, nobody knows the outcome.
        mixed = (source.old | source.lost) & source_mask & ~mask
        masks = tuple(mine | theirs for mine, theirs in zip(cleared.masks, taken, strict=True))
        return Bits(masks, cleared.bits, (cleared.lost | mixed | source.lost & source_mask) & ALL)

    @property
    def old(self) -> int:
        """The bits that come from old values."""
        total = 0
        for mask in self.masks:
            total |= mask
        return total


Registers = tuple[Bits, ...]  # in the order of REGISTERS
Case = tuple[Condition, Registers]
State = tuple[Case, ...]  # the last case holds always

_NONE = (0,) * len(REGISTERS)
_OLD: Registers = tuple(Bits(tuple(ALL if i == k else 0 for i in range(len(REGISTERS)))) for k in range(len(REGISTERS)))
_LOST: Registers = (Bits(_NONE, lost=ALL),) * len(REGISTERS)


@dataclass(frozen=True, slots=True)
class Resolved:
    """program: without tests and assignments. rewrites: of the rules that end a walk with other registers than it began
    with, by their source (``with_exits``). codes: of the tests of old values that the program's rules name."""

    program: Program
    rewrites: Mapping[Source, Rewrite]
    codes: MarkCodes


def resolve(program: Program, start: str, *, with_exits: bool = False, most_rules: int = 1_000_000) -> Resolved:
    """The program from chain ``start`` on with every test of a register decided.

    with_exits  rules that accept are written once for each case of the state, so that each has its own rewrite
    raises      PolicyError where the chains, written out, have more than ``most_rules`` rules
    """
    # The codes of tests depend on how many there are: the first pass finds which.
    first = _Resolver(program, None, with_exits, most_rules)
    first.chain(start, ((TRUE, _OLD),))
    codes = MarkCodes(tuple(first.needed)[: MarkCodes.MOST])
    second = _Resolver(program, codes, with_exits, most_rules)
    second.root(start)
    return Resolved(second.program, second.rewrites, codes)


class _Work:
    """Products and negations of conditions, within bounds: None beyond them."""

    def __init__(self) -> None:
        self.spent = 0

    def both(self, a: Condition, b: Condition) -> Condition | None:
        if a == TRUE or b == TRUE:
            return b if a == TRUE else a
        self.spent += len(a) * _size(b) + len(b) * _size(a)
        return None if self.spent > MOST_WORK else conjunction(a, b, MOST_CASES)

    def either(self, a: Condition, b: Condition) -> Condition | None:
        if a == FALSE or b == FALSE:
            return b if a == FALSE else a
        self.spent += (len(a) + len(b)) * (_size(a) + _size(b))
        return None if self.spent > MOST_WORK else any_of(a, b)

    def negated(self, condition: Condition) -> Condition | None:
        if self.spent > MOST_WORK:
            return None
        found = negation(condition, MOST_CASES)
        self.spent += _size(condition) * (MOST_CASES if found is None else len(found))
        return found


def _size(condition: Condition) -> int:
    """How much a condition is to walk through: sets of marks have up to half as many intervals as there are codes."""
    return sum(1 + len(term.fields["mark"].v4) if "mark" in term.fields else 1 for term in condition)


class _Resolver:
    def __init__(self, program: Program, codes: MarkCodes | None, with_exits: bool, most_rules: int) -> None:
        self.source, self.codes, self.with_exits, self.most_rules = program, codes, with_exits, most_rules
        self.concerned = _concerned(program, with_exits)
        self.needed: dict[MarkTest, None] = {}
        self.program: dict[str, Sequence[ChainRule]] = {n: r for n, r in program.items() if n not in self.concerned}
        self.rewrites: dict[Source, Rewrite] = {}
        self.written = 0
        self.work = _Work()
        self._done: dict[tuple[str, tuple[tuple[int, Registers], ...]], tuple[str, State, State]] = {}

    def root(self, start: str) -> None:
        name, _ = self.chain(start, ((TRUE, _OLD),))
        self.program[start] = self.program[name]

    def chain(self, name: str, state: State) -> tuple[str, State]:
        """The name of the chain written out for the state, and the state of packets that come back from it."""
        if name not in self.concerned:
            return name, state
        key = (name, tuple((id(condition), registers) for condition, registers in state))
        if key not in self._done:
            written, after = self._write(name, state)
            self._done[key] = (written, after, state)  # the state is kept, so that its ids stay its own
        written, after, _ = self._done[key]
        return written, after

    def _write(self, name: str, state: State) -> tuple[str, State]:
        rules: list[ChainRule] = []
        leaving: list[tuple[Condition, State]] = []
        for rule in self.source[name]:
            condition, taken, rest = self._held(rule, state)
            if condition == FALSE:
                continue
            for assign in rule.assigns:
                taken = _assigned(taken, assign)
            verdict = rule.verdict
            if verdict is None:
                state = _either(self.work, condition, taken, rest)
                continue
            if isinstance(verdict, Jump):
                callee, after = self.chain(verdict.chain, taken)
                rules.append(replace(rule, condition=condition, verdict=replace(verdict, chain=callee)))
                if verdict.goto:
                    leaving.append((condition, after))
                    state = rest
                else:
                    state = _either(self.work, condition, after, rest)
                continue
            if isinstance(verdict, Return):
                leaving.append((condition, taken))
            rules += self._ending(rule, condition, taken)
            state = rest
        for condition, after in reversed(leaving):
            state = _either(self.work, condition, after, state)
        self.written += len(rules)
        if self.written > self.most_rules:
            raise PolicyError(
                f"chains that test marks unfold to more than {self.most_rules} rules",
                obj=name, hint="call shared chains fewer times, or raise max_rules",
            )  # fmt: skip
        written = f"{name}\0{len(self._done)}"
        plain = [replace(rule, tests=(), assigns=()) for rule in rules]
        self.program[written] = plain
        return written, state

    def _ending(self, rule: ChainRule, condition: Condition, state: State) -> list[ChainRule]:
        """The rule that ends the walk or the chain; where it accepts, once for each case."""
        rule = replace(rule, condition=condition)
        if not self.with_exits or rule.verdict is not Action.ALLOW:
            return [rule]
        out = []
        for case, registers in state:
            both = self.work.both(condition, case)
            if both is None:
                both, registers = condition, _LOST
            rewrite = _rewrite(registers)
            source = replace(rule.source, obj=f"{rule.source.obj} [{_told(rewrite)}]") if rewrite else rule.source
            if rewrite:
                self.rewrites[source] = rewrite
            out.append(replace(rule, condition=both, source=source))
            if registers is _LOST:
                break
        return out

    def _held(self, rule: ChainRule, state: State) -> tuple[Condition, State, State]:
        """When the rule matches; the state of packets that it matches, and of those that it does not."""
        condition, taken, rest = rule.condition, state, state
        for test in rule.tests:
            holds = [self._test(test, registers) for _, registers in state]
            both = self.work.both(condition, _overall(self.work, state, holds, test))
            condition = unknown(test.text) if both is None else both
            taken = _kept(taken, [self._test(test, registers) != FALSE for _, registers in taken])
            if rule.condition == TRUE and len(rule.tests) == 1:
                rest = _kept(rest, [hold != TRUE for hold in holds])
        return condition, taken, rest

    def _test(self, test: Test, registers: Registers) -> Condition:
        """What the test says of one case."""
        bits = registers[REGISTERS.index(test.register)]
        if test.mask & bits.lost:
            return unknown(test.text)
        found: list[Condition] = []
        for value in sorted(test.values):
            wanted = value ^ bits.bits
            if value & ~test.mask or wanted & test.mask & ~bits.old:
                continue
            holds: Condition = TRUE
            for register, mask in zip(REGISTERS, bits.masks, strict=True):
                if asked := mask & test.mask:
                    both = self.work.both(holds, self._old(register, wanted & asked, asked, test.text))
                    holds = unknown(test.text) if both is None else both
            found.append(holds)
        holds = any_of(*found)
        if not test.negated:
            return holds
        negated = self.work.negated(holds)
        return unknown(test.text) if negated is None else negated

    def _old(self, register: str, value: int, mask: int, text: str) -> Condition:
        asked = (value, mask, register)
        self.needed[asked] = None
        if self.codes is None or asked not in self.codes.tests:
            return unknown(text)
        return constraint(mark=self.codes.test(*asked))


def _concerned(program: Program, with_exits: bool) -> frozenset[str]:
    """Chains that test or assign, or call one that does; with exits also those that accept."""

    def own(rules: Iterable[ChainRule]) -> bool:
        return any(r.tests or r.assigns or (with_exits and r.verdict is Action.ALLOW) for r in rules)

    found = {name for name, rules in program.items() if own(rules)}
    callers: dict[str, set[str]] = {}
    for name, rules in program.items():
        for rule in rules:
            if isinstance(rule.verdict, Jump):
                callers.setdefault(rule.verdict.chain, set()).add(name)
    ahead = list(found)
    while ahead:
        for caller in callers.get(ahead.pop(), ()):
            if caller not in found:
                found.add(caller)
                ahead.append(caller)
    return frozenset(found)


def _overall(work: _Work, state: State, holds: Sequence[Condition], test: Test) -> Condition:
    """The test over all cases, of which the first that applies counts."""
    result: Condition | None = FALSE
    for (case, _), hold in zip(reversed(state), reversed(holds), strict=True):
        if result is None:
            break
        if case == TRUE:
            result = hold
        elif hold == TRUE:
            result = work.either(case, result)
        else:
            others = work.negated(case) if result != FALSE else FALSE
            here, behind = work.both(case, hold), None
            if others is not None:
                behind = work.both(others, result)
            result = None if here is None or behind is None else work.either(here, behind)
        if result is not None and len(result) > MOST_CASES:
            result = None
    return unknown(test.text) if result is None else result


def _kept(state: State, keep: Sequence[bool]) -> State:
    """The cases that are still possible; the last of them holds for all that is left."""
    cases = [case for case, kept in zip(state, keep, strict=True) if kept]
    return _tidy([*cases[:-1], (TRUE, cases[-1][1])]) if cases else state


def _either(work: _Work, condition: Condition, taken: State, rest: State) -> State:
    """``taken`` where the condition holds, else ``rest``."""
    if taken == rest or condition == FALSE:
        return rest
    cases: list[Case] = []
    for case, registers in taken:
        both = work.both(condition, case)
        if both is None:
            return ((TRUE, _LOST),)
        if both != FALSE:
            cases.append((both, registers))
    return _tidy([*cases, *rest])


def _assigned(state: State, assign: Assign) -> State:
    at = REGISTERS.index(assign.register)
    cases: list[Case] = []
    for case, registers in state:
        bits = registers[at]
        if assign.lost:
            bits = replace(bits, lost=bits.lost | assign.mask)
        elif not assign.source:
            bits = bits.assigned(assign.mask, assign.value)
        else:
            bits = bits.copied(assign.mask, registers[REGISTERS.index(assign.source)], assign.value)
        cases.append((case, (*registers[:at], bits, *registers[at + 1 :])))
    return _tidy(cases)


def _tidy(cases: Sequence[Case]) -> State:
    """The same state in fewer cases; one that has grown too long is lost."""
    out: list[Case] = []
    for condition, registers in cases:
        if out and out[-1][1] == registers:
            out[-1] = (any_of(out[-1][0], condition), registers)
        else:
            out.append((condition, registers))
        if out[-1][0] == TRUE:
            break
    while len(out) > 1 and out[-2][1] == out[-1][1]:
        del out[-2]
    out[-1] = (TRUE, out[-1][1])
    if len(out) > MOST_CASES or any(len(condition) > MOST_CASES for condition, _ in out):
        return ((TRUE, _LOST),)
    return tuple(out)


def _rewrite(registers: Registers) -> Rewrite | None:
    """What the packet's registers become; None = nothing changes."""
    values: dict[str, int | None] = {}
    bits: dict[str, tuple[int, tuple[tuple[str, int], ...]]] = {}
    for name, register, before in zip(REGISTERS, registers, _OLD, strict=True):
        if name == "track":
            if register.lost & 1:
                values["ct_state"] = None
            elif register != before and register.bits & 1:
                values["ct_state"] = UNTRACKED
        elif register.lost:
            values[name] = None
        elif register != before:
            of = tuple((other, mask) for other, mask in zip(REGISTERS, register.masks, strict=True) if mask)
            bits[name] = (register.bits, of)
    return Rewrite(values, bits=bits) if values or bits else None


def _told(rewrite: Rewrite) -> str:
    parts = [f"{name} unknown" if value is None else f"{name} {value}" for name, value in rewrite.values.items()]
    return ", ".join(parts + [f"{name} {bits_text(*made)}" for name, made in rewrite.bits.items()])
