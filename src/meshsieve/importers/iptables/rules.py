"""The rules of one table as a program of chains: conditions from meaning.py, verdicts from targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshsieve.errors import PolicyError
from meshsieve.importers.chains import ChainRule, Jump, Program, Return
from meshsieve.importers.conditions import TRUE, Condition, conjunction, unknown
from meshsieve.importers.iptables.meaning import Context, UninterpretableError, condition_of
from meshsieve.importers.iptables.syntax import Chain, RuleLine, Table
from meshsieve.importers.iptables.targets import MARK_TARGETS, NAT_TARGETS, mark_rewrite, nat_rewrite
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
_SIDE_EFFECTS = frozenset(
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

    program           chain name -> rules that decide something, and those of ``mark_rules``
    nat_targets       rules that translate, by their source
    mark_rules        rules that change the mark, by their source; ``marking`` says how they end a walk
    uninterpretable   (chain, error) of each match or target that cannot be known; the rule is in its place, unknown
    without_verdict   (chain, target or "no target") of each rule that decides nothing
    raises            PolicyError for what is malformed, in whatever chain; if lenient, it is uninterpretable
    """

    def __init__(self, file: str, table: Table, context: Context) -> None:
        self.file, self.table, self.context = file, table, context
        self.uninterpretable: list[tuple[str, PolicyError]] = []
        self.without_verdict: list[tuple[str, str]] = []
        self.nat_targets: dict[Source, NatTarget] = {}
        self.mark_rules: dict[Source, Rewrite] = {}
        self.program: Program = {name: self._chain(chain) for name, chain in table.chains.items()}

    def _chain(self, chain: Chain) -> list[ChainRule]:
        rules = []
        for number, line in enumerate(chain.rules, 1):
            obj = f"{self.table.name}/{chain.name} rule {number}"
            unread: list[PolicyError] = []
            condition = self._condition(line, obj, unread)
            verdict = self._verdict(line, obj, unread)
            told = f"{obj} {line.target} {line.extra}".rstrip()
            source = Source(self.file, line.line, told)
            if verdict is None:
                self.without_verdict.append((chain.name, line.target or "no target"))
                if not self.context.tracks_marks or not self._is_mark(line, source, obj):
                    continue
                verdict = Action.ALLOW
            elif line.target in NAT_TARGETS and verdict is Action.ALLOW:
                self.nat_targets[source] = NatTarget(line, obj, condition)
            self.uninterpretable += [(chain.name, error) for error in unread]
            name = line.comment or f"{chain.name}:{number}"
            rules.append(ChainRule(condition, verdict, name, source))
        return rules

    def _is_mark(self, line: RuleLine, source: Source, obj: str) -> bool:
        """Whether the rule changes the packet's mark; it is then noted in ``mark_rules``."""
        if line.target not in MARK_TARGETS or line.goto:
            return False
        try:
            rewrite = mark_rewrite(line.target, line.extra)
        except ValueError as error:
            raise self._error(str(error), line, line.target_column, obj) from None
        if rewrite is not None:
            self.mark_rules[source] = rewrite
        return rewrite is not None

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

    def marking(self, source: Source | None) -> Program:
        """The program in which of the mark rules that of ``source`` ends the walk and no other exists; None: none."""
        return {
            name: [rule for rule in rules if rule.source == source or rule.source not in self.mark_rules]
            for name, rules in self.program.items()
        }

    def _condition(self, line: RuleLine, obj: str, unread: list[PolicyError]) -> Condition:
        result = TRUE
        for option in line.options:
            try:
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
        return result

    def _verdict(self, line: RuleLine, obj: str, unread: list[PolicyError]) -> Action | Jump | Return | None:
        """None where the rule decides nothing."""
        target = line.target
        if target is None or (target in _SIDE_EFFECTS and not line.goto):
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
