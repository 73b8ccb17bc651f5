"""Programs of chains, as iptables and nft have them, written out as one first-match list.

What    ``unfold`` walks a program from one chain and emits rules in the order in which a packet would meet them. A
        jump becomes the called chain's rules with the caller's condition ANDed to each; a RETURN ANDs its negation to
        the rest of its chain. Where a condition would grow beyond ``MAX_TERMS`` terms, a pair of skip rules does the
        same: "if it holds go on, else skip the block".
Unknown A packet may lack a field, and a rule may hold a clause that nobody can interpret. The walk carries a
        certainty ``here`` (docs/semantics.md): what decides about a rule is ``here AND match``, a called chain starts
        with it, and a RETURN leaves ``here AND NOT match``. In mode "strict" the conditions themselves carry this,
        since conjunction and negation are three-valued. For "upper" and "lower" each chain is written for ``here``
        TRUE and, where that can arise, for ``here`` UNKNOWN: an accepting rule counts in "upper" where it is possible,
        a denying one where it is certain; "lower" is the mirror image. Passing a chain first as TRUE and then as
        UNKNOWN is safe: what the first pass did not decide for a packet that is certain, the second does not either,
        because each rule that decides under UNKNOWN decides under TRUE as well.
Cost    Rules times calls. A chain that calls the next one twice, thirty deep, has 2^30 rules, so ``max_rules`` bounds
        the list. A chain is entered only where its condition can hold.
Limits  MAX_CALL_DEPTH, as spelled out by the error. In mode "strict" a skip that a packet leaves UNKNOWN ends the walk
        as undecided at the calling rule, where the fuller walk might still have decided: never the other way round.
Source  Diekmann, Michaelis, Haslbeck, Carle: Verified iptables firewall analysis, IFIP Networking 2016, for the bounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from meshsieve.errors import PolicyError
from meshsieve.importers.conditions import (
    FALSE,
    TRUE,
    Condition,
    certainly,
    conjunction,
    negation,
    possibly,
    rules_for,
)
from meshsieve.model import Action, Rule, Source

if TYPE_CHECKING:
    from meshsieve.importers.marks import Assign, Test

MAX_CALL_DEPTH = 1000
MAX_TERMS = 4

Mode = Literal["strict", "upper", "lower"]


@dataclass(frozen=True, slots=True)
class Jump:
    """Walk ``chain``; if it decides nothing go on after this rule, or (``goto``) as after a RETURN here."""

    chain: str
    goto: bool = False


@dataclass(frozen=True, slots=True)
class Return:
    """Go back to the caller of this chain."""


@dataclass(frozen=True, slots=True)
class ChainRule:
    """One rule of a chain. Verdict Action.UNDECIDED: one that nobody can know offline, such as that of NFQUEUE.

    tests    of registers, ANDed to the condition
    assigns  to registers, if the rule matches; then the verdict, None to go on. ``marks.resolve`` makes rules without
             tests and assignments, which is what ``unfold`` takes
    """

    condition: Condition
    verdict: Action | Jump | Return | None
    name: str
    source: Source
    tests: tuple[Test, ...] = ()
    assigns: tuple[Assign, ...] = ()


Program = Mapping[str, Sequence[ChainRule]]


def check_calls(program: Program, where: str) -> None:
    """Refuse what no kernel would load.

    raises  PolicyError for a call of a chain that does not exist, for chains that call each other in a circle, and for
            calls nested deeper than MAX_CALL_DEPTH
    """
    calls = {
        name: [(rule.verdict.chain, rule) for rule in rules if isinstance(rule.verdict, Jump)]
        for name, rules in program.items()
    }
    depth: dict[str, int] = {}
    for start in program:
        # Depth-first without recursion, for chains may nest deeper than Python's stack. `path` is in call order.
        path = {start: iter(calls[start])} if start not in depth else {}
        while path:
            chain = next(reversed(path))
            for callee, rule in path[chain]:
                if callee not in program:
                    raise PolicyError(f"no chain is called '{callee}'", where=str(rule.source))
                if callee in path:
                    circle = [*list(path)[list(path).index(callee) :], callee]
                    raise PolicyError(f"chains call each other in a circle: {' -> '.join(circle)}", where=where)
                if callee not in depth:
                    path[callee] = iter(calls[callee])
                    break
            else:
                path.popitem()
                depth[chain] = 1 + max((depth[callee] for callee, _ in calls[chain]), default=0)
                if depth[chain] > MAX_CALL_DEPTH:
                    raise PolicyError(f"calls nest deeper than {MAX_CALL_DEPTH} chains", where=where, obj=chain)


def unfold(
    program: Program,
    start: str,
    *,
    mode: Mode = "strict",
    unseen: frozenset[str] = frozenset(),
    max_rules: int = 1_000_000,
    where: str = "",
) -> list[Rule]:
    """The walk from chain ``start`` as one first-match list; a packet that no rule decides fell off its end.

    unseen  fields that no packet will carry; in the modes "upper" and "lower" a constraint on one is UNKNOWN
    where   the place that errors name
    raises  PolicyError if more than ``max_rules`` rules would be written or ten times as many visited. The program has
            passed ``check_calls``
    """
    unfolding = _Unfolding(program, mode, unseen, max_rules, where)
    # A trampoline: blocks yield the blocks that they call, so that depth is bounded by memory and not by recursion.
    stack = [unfolding.block(start, TRUE, mode != "strict")]
    while stack:
        called = next(stack[-1], None)
        if called is None:
            stack.pop()
        else:
            stack.append(called)
    return unfolding.finished()


class _Label:
    """A position in the list, known once it is placed."""

    __slots__ = ("position",)
    position: int


_Block = Iterator["_Block"]


class _Unfolding:
    def __init__(self, program: Program, mode: Mode, unseen: frozenset[str], max_rules: int, where: str) -> None:
        self.mode, self.unseen, self.max_rules, self.where = mode, unseen, max_rules, where
        self.program = {
            name: [(rule, *self.bounds(rule.condition)) for rule in rules] for name, rules in program.items()
        }
        self.rules: list[Rule] = []
        self.skips: list[tuple[int, _Label]] = []
        self.entered: Counter[str] = Counter()
        self.visited = 0

    def block(self, chain: str, guard: Condition, certain: bool, first: int = 0) -> _Block:
        """Write rules ``first`` and later of a chain, for packets of ``guard`` that are here for sure or not.

        In mode "strict" ``certain`` is always False: nothing is told apart, the conditions are three-valued.
        """
        self.entered[chain] += 1
        end, again = _Label(), _Label()
        rest_uncertain: tuple[int, Condition] | None = None
        for i in range(first, len(self.program[chain])):
            rule, surely, maybe = self.program[chain][i]
            self.visit()
            verdict = rule.verdict
            if isinstance(verdict, Action):
                self.decide(guard, surely, maybe, certain, rule, verdict)
                continue
            if isinstance(verdict, Jump):
                if self.mode == "strict":
                    yield from self.call(verdict.chain, guard, maybe, False, rule)
                else:
                    if certain:
                        yield from self.call(verdict.chain, guard, surely, True, rule)
                    if not certain or surely != maybe:
                        yield from self.call(verdict.chain, guard, maybe, False, rule)
                if not verdict.goto:
                    continue
            if certain and surely != maybe and rest_uncertain is None:
                rest_uncertain = (i, guard)
            # From the first uncertain RETURN on, who leaves meets the rest again as UNKNOWN, and leaves there for sure.
            to = end if rest_uncertain is None else again
            guard = self.without(guard, maybe if certain else surely, rule, to)
            if guard == FALSE:
                break
        self.place(again)
        if rest_uncertain is not None:
            after, its_guard = rest_uncertain
            yield self.block(chain, its_guard, False, after)
        self.place(end)

    def bounds(self, condition: Condition) -> tuple[Condition, Condition]:
        if self.mode == "strict":
            return condition, condition
        return certainly(condition, self.unseen), possibly(condition, self.unseen)

    def decide(
        self, guard: Condition, surely: Condition, maybe: Condition, certain: bool, rule: ChainRule, action: Action
    ) -> None:
        if self.mode != "strict":
            if action is Action.UNDECIDED:
                action = Action.ALLOW if self.mode == "upper" else Action.DROP
            counts_when_possible = (action is Action.ALLOW) == (self.mode == "upper")
            if not counts_when_possible and not certain:
                return
            maybe = maybe if counts_when_possible else surely
        behind = _Label()
        self.emit(self.narrowed(guard, maybe, rule, behind), action, rule)
        self.place(behind)

    def call(self, chain: str, guard: Condition, condition: Condition, certain: bool, rule: ChainRule) -> _Block:
        behind = _Label()
        inner = self.narrowed(guard, condition, rule, behind)
        if inner != FALSE:
            yield self.block(chain, inner, certain)
        self.place(behind)

    def without(self, guard: Condition, condition: Condition, rule: ChainRule, end: _Label) -> Condition:
        """``guard AND NOT condition``; where that is too long, a skip to ``end`` for the packets of ``condition``."""
        others = negation(condition, MAX_TERMS)
        remaining = None if others is None else conjunction(guard, others, MAX_TERMS)
        if remaining is not None:
            return remaining
        behind = _Label()
        self.skip(self.narrowed(guard, condition, rule, behind), end, rule)
        self.place(behind)
        return guard

    def narrowed(self, guard: Condition, condition: Condition, rule: ChainRule, behind: _Label) -> Condition:
        """``guard AND condition``; where that is too long, the guard as skips to ``behind``, and ``condition``."""
        both = conjunction(guard, condition, MAX_TERMS)
        if both is not None:
            return both
        inside = _Label()
        self.skip(guard, inside, rule)
        self.skip(TRUE, behind, rule)
        self.place(inside)
        return condition

    def emit(self, condition: Condition, action: Action, rule: ChainRule) -> int:
        if self.mode != "strict":  # all fields but the unseen are there, so an empty set is FALSE
            condition = tuple(t for t in condition if all(t.fields.values()))
        written = rules_for(condition, action, rule.name, rule.source)
        self.rules.extend(written)
        if len(self.rules) > self.max_rules:
            self.refuse(f"unfolds to more than {self.max_rules} rules")
        return len(written)

    def skip(self, condition: Condition, to: _Label, rule: ChainRule) -> None:
        written = self.emit(condition, Action.SKIP, rule)
        self.skips += [(len(self.rules) - 1 - back, to) for back in range(written)]

    def place(self, label: _Label) -> None:
        label.position = len(self.rules)

    def visit(self) -> None:
        self.visited += 1
        if self.visited > 10 * self.max_rules:
            self.refuse(f"visits more than {10 * self.max_rules} rules")

    def refuse(self, what: str) -> None:
        written: Counter[str] = Counter()
        for chain, count in self.entered.items():
            written[chain.partition("\0")[0]] += count
        often = ", ".join(f"{chain} {count} times" for chain, count in written.most_common(5))
        raise PolicyError(
            f"the walk {what}; most called chains: {often}",
            where=self.where,
            hint="call shared chains fewer times, or raise max_rules",
        )

    def finished(self) -> list[Rule]:
        for index, label in self.skips:
            self.rules[index] = replace(self.rules[index], skip_to=label.position)
        return self.rules
