"""The rules of one table as a program of chains: conditions from meaning.py, verdicts from targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from meshsieve.errors import PolicyError
from meshsieve.importers.chains import ChainRule, Jump, Program, Return
from meshsieve.importers.conditions import FALSE, TRUE, Condition, conjunction, negation, unknown
from meshsieve.importers.iptables.meaning import Context, UninterpretableError, condition_of, nat_test_of, test_of
from meshsieve.importers.iptables.syntax import Chain, RuleLine, Table
from meshsieve.importers.iptables.targets import ASSIGNING_TARGETS, NAT_TARGETS, assignments, nat_rewrite
from meshsieve.importers.marks import Assign, Test
from meshsieve.model import Action, Source
from meshsieve.policy import Rewrite

_VERDICTS: dict[str, Action | Return] = {
    "ACCEPT": Action.ALLOW,
    "DROP": Action.DROP,
    "REJECT": Action.REJECT,
    "RETURN": Return(),
    # Decided by a program outside the kernel.
    "QUEUE": Action.UNDECIDED,
    "NFQUEUE": Action.UNDECIDED,
}
# Targets that do something beside and let the walk go on.
SIDE_EFFECTS = frozenset(
    """LOG NFLOG ULOG MARK CONNMARK TCPMSS TTL HL TOS DSCP ECN CLASSIFY NOTRACK CT SET TRACE AUDIT CHECKSUM CONNSECMARK
    SECMARK RATEEST HMARK TEE LED IDLETIMER TCPOPTSTRIP""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class NatTarget:
    """A rule of table nat that translates."""

    line: RuleLine
    obj: str
    condition: Condition


class TableReader:
    """Reads every rule of a table.

    program           chain name -> rules that decide something or assign to registers (marks.py)
    nat_targets       rules that translate, by their source
    uninterpretable   (chain, error) of each match or target that cannot be known; the rule is in its place, unknown
    without_verdict   (chain, target or "no target") of each rule that decides nothing
    raises            PolicyError for what is malformed, in whatever chain; if lenient, it is uninterpretable
    """

    def __init__(self, file: str, table: Table, context: Context) -> None:
        self.file, self.table, self.context = file, table, context
        self.uninterpretable: list[tuple[str, PolicyError]] = []
        self.without_verdict: list[tuple[str, str]] = []
        self.nat_targets: dict[Source, NatTarget] = {}
        self.program: Program = {name: self._chain(chain) for name, chain in table.chains.items()}

    def _chain(self, chain: Chain) -> list[ChainRule]:
        rules: list[ChainRule] = []
        for number, line in enumerate(chain.rules, 1):
            obj = f"{self.table.name}/{chain.name} rule {number}"
            unread: list[PolicyError] = []
            condition, tests = self._matches(line, obj, unread)
            verdict = self._verdict(line, obj, unread)
            told = f"{obj} {line.target} {line.extra}".rstrip()
            source = Source(self.file, line.line, told)
            assigns: tuple[Assign, ...] = ()
            if verdict is None:
                self.without_verdict.append((chain.name, line.target or "no target"))
                assigns = self._assigns(line, obj, unread)
                if not assigns:
                    continue
            elif line.target in NAT_TARGETS and verdict is Action.ALLOW:
                self.nat_targets[source] = NatTarget(line, obj, condition)
            self.uninterpretable += [(chain.name, error) for error in unread]
            name = line.comment or f"{chain.name}:{number}"
            made = ChainRule(condition, verdict, name, source, tests, assigns)
            rules += self._with_nat_states(made, line)
        return rules

    def _with_nat_states(self, rule: ChainRule, line: RuleLine) -> list[ChainRule]:
        """``--ctstate ESTABLISHED,DNAT`` is "ESTABLISHED or translated": two rules of which at most one matches; with
        ``!`` both must fail, which is one rule."""
        rules = [rule]
        for option in line.options:
            test = nat_test_of(option)
            if test is None:
                continue
            if option.negated:
                rules = [replace(r, tests=(*r.tests, test)) for r in rules]
                continue
            # The rule's condition holds the option's states already; the other half lacks them.
            try:
                states = condition_of(option, self.context)
            except ValueError:
                continue  # malformed, which has been told
            others = negation(states)
            assert others is not None  # one field
            rest, _ = self._matches(replace(line, options=tuple(o for o in line.options if o is not option)), "", [])
            without = conjunction(rest, others) or FALSE
            rules += [replace(r, condition=without, tests=(*r.tests, test)) for r in rules]
        return rules

    def _assigns(self, line: RuleLine, obj: str, unread: list[PolicyError]) -> tuple[Assign, ...]:
        if line.target not in ASSIGNING_TARGETS or line.goto:
            return ()
        try:
            return assignments(line.target, line.extra)
        except ValueError as error:
            malformed = self._error(str(error), line, line.target_column, obj)
            if not self.context.lenient:
                raise malformed from None
            unread.append(malformed)
            return tuple(Assign(register, lost=True) for register in ("mark", "ct_mark"))

    def nat_rewrites(self, own: Sequence[int], outbound: bool) -> dict[Source, Rewrite]:
        """What the NAT targets make of packets; ``own`` and ``outbound`` as in ``nat_rewrite``.

        raises  PolicyError for what is malformed
        """
        out = {}
        for source, nat in self.nat_targets.items():
            line = nat.line
            try:
                out[source] = nat_rewrite(
                    line.target or "", line.extra, nat.condition, self.context.family, own, outbound
                )
            except ValueError as error:
                raise self._error(str(error), line, line.target_column, nat.obj) from None
        return out

    def _matches(self, line: RuleLine, obj: str, unread: list[PolicyError]) -> tuple[Condition, tuple[Test, ...]]:
        """What the rule asks of the packet's fields, and of registers."""
        result = TRUE
        tests: list[Test] = []
        for option in line.options:
            try:
                test = test_of(option)
                if test is not None:
                    tests.append(test)
                    continue
                condition = condition_of(option, self.context)
            except UninterpretableError as error:
                unread.append(self._error(str(error), line, option.column, obj, error.hint))
                condition = unknown(option.text)
            except ValueError as error:
                malformed = self._error(f"{option.text}: {error}", line, option.column, obj)
                if not self.context.lenient:
                    raise malformed from None
                unread.append(malformed)
                condition = unknown(option.text)
            both = conjunction(result, condition)
            assert both is not None  # a rule has few options
            result = both
        return result, tuple(tests)

    def _verdict(self, line: RuleLine, obj: str, unread: list[PolicyError]) -> Action | Jump | Return | None:
        """None where the rule decides nothing."""
        target = line.target
        if target is None or (target in SIDE_EFFECTS and not line.goto):
            return None
        chain = self.table.chains.get(target)
        if chain is not None:
            if chain.policy is not None:
                raise self._error(f"a rule cannot call the built-in chain {target}", line, line.target_column, obj)
            return Jump(target, line.goto)
        if line.goto:
            raise self._error(f"no chain is called '{target}'", line, line.target_column, obj)
        if target in NAT_TARGETS and self.table.name == "nat":
            return Action.ALLOW
        if target not in _VERDICTS:
            hint = "use lenient import to keep the rule as undecided; a chain must be declared with :NAME or -N"
            unread.append(
                self._error(f"'{target}' is no chain and no known target", line, line.target_column, obj, hint)
            )
            return Action.UNDECIDED
        return _VERDICTS[target]

    def _error(self, message: str, line: RuleLine, column: int, obj: str, hint: str = "") -> PolicyError:
        default = "without strict the rule stays in its place as undecided; modes upper and lower bracket it"
        return PolicyError(message, where=f"{self.file}:{line.line}:{column}", obj=obj, hint=hint or default)


def reachable(program: Program, roots: Iterable[str]) -> frozenset[str]:
    """The chains that a walk from ``roots`` may enter."""
    found: set[str] = set()
    ahead = list(roots)
    while ahead:
        chain = ahead.pop()
        if chain not in found:
            found.add(chain)
            ahead += [rule.verdict.chain for rule in program.get(chain, ()) if isinstance(rule.verdict, Jump)]
    return frozenset(found)
