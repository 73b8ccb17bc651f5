"""The rules of nft as programs of chains: conditions from matches, verdicts from statements and verdict maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from meshsieve.errors import PolicyError
from meshsieve.importers.chains import ChainRule, Jump, Program, Return
from meshsieve.importers.conditions import FALSE, TRUE, Condition, any_of, conjunction, constraint, negation, unknown
from meshsieve.importers.iptables.meaning import UninterpretableError
from meshsieve.importers.iptables.rules import SIDE_EFFECTS
from meshsieve.importers.iptables.targets import ASSIGNING_TARGETS, nat_rewrite
from meshsieve.importers.marks import ALL, REGISTERS, Assign, Test
from meshsieve.importers.nft.comparisons import MAX_TERMS, OPERATORS, ComparisonReader
from meshsieve.importers.nft.expressions import Expression, expressions
from meshsieve.importers.nft.registers import (
    read_assignment,
    read_nat_status,
    read_test,
    register_at,
    values_of,
)
from meshsieve.importers.nft.syntax import Chain, Element, Table
from meshsieve.importers.nft.words import Word
from meshsieve.model import Action, NameCodes, Source, ValueSet
from meshsieve.policy import Rewrite

_SIMPLE_VERDICTS: dict[str, Action | Return] = {
    "accept": Action.ALLOW,
    "drop": Action.DROP,
    "reject": Action.REJECT,
    "return": Return(),
    "queue": Action.UNDECIDED,
    # Verdict-like: they rewrite the packet and accept it.
    "masquerade": Action.ALLOW,
    "snat": Action.ALLOW,
    "dnat": Action.ALLOW,
    "redirect": Action.ALLOW,
    # What becomes of the packet is decided elsewhere.
    "tproxy": Action.UNDECIDED,
    "synproxy": Action.UNDECIDED,
    "fwd": Action.UNDECIDED,
}
# Statements without verdict; their words go up to the next statement.
_SIDE_EFFECTS = frozenset({"counter", "log", "notrack", "dup", "add", "update", "delete", "flow", "comment"})
_TRANSLATIONS = {
    "snat": ("SNAT", "--to-source"),
    "dnat": ("DNAT", "--to-destination"),
    "masquerade": ("MASQUERADE", "--to-ports"),
    "redirect": ("REDIRECT", "--to-ports"),
}
_VERDICT_WORDS = frozenset([*_SIMPLE_VERDICTS, "jump", "goto", "continue"])
# Verdicts whose words are no values of any match, as `dnat` is of `ct status`.
_PLAIN_VERDICTS = frozenset(["accept", "drop", "reject", "return", "jump", "goto", "continue", "queue"])
# First words of matches that nobody can interpret offline: those with a key behind them, and those without.
_KEYED = frozenset(
    """meta ct ether arp vlan fib ipsec socket osf numgen jhash symhash rt frag dst hbh mh exthdr tcp udp udplite sctp
    dccp th ip ip6 icmp icmpv6 igmp ah esp comp gre geneve vxlan""".split()  # noqa: SIM905
)
_KEYLESS = frozenset(["xt", "mark", "skuid", "skgid", "pkttype", "cpu", "iiftype", "oiftype", "cgroup", "quota"])


@dataclass(frozen=True, slots=True)
class Known:
    """What the rules of a ruleset are read with. lenient: a rule that is malformed is undecided in its place."""

    codes: NameCodes
    local: ValueSet | None
    limits: str
    lenient: bool = False

    def own(self, family: int) -> list[int]:
        """The host's addresses of one family, without loopback, as far as they are given."""
        span = () if self.local is None else self.local.v6 if family == 6 else self.local.v4
        return [low for low, high in span if low == high and not (family == 6 and low == 1)]


class TableReader:
    """Every rule of a table; see iptables.rules.TableReader, whose members these are."""

    def __init__(self, file: str, table: Table, known: Known) -> None:
        self.file, self.table, self.known = file, table, known
        self.expressions = expressions(known.codes)
        self.uninterpretable: list[tuple[str, PolicyError]] = []
        self.rewrites: dict[Source, Rewrite] = {}
        self.deciding: dict[str, int] = {}  # chain -> rules that decide something or set a mark
        self.program: Program = {name: self._chain(chain) for name, chain in table.chains.items()}

    def _chain(self, chain: Chain) -> list[ChainRule]:
        rules: list[ChainRule] = []
        for number, words in enumerate(chain.rules, 1):
            obj = f"{self.table.family} {self.table.name} {chain.name} rule {number}"
            reader = _RuleReader(words, self, obj)
            try:
                verdicts = reader.read()
            except (ValueError, PolicyError) as error:
                malformed = error if isinstance(error, PolicyError) else reader.error(str(error))
                if not self.known.lenient:
                    raise malformed from None
                verdicts = [(unknown(malformed.message), Action.UNDECIDED, ())]
                reader.unread, reader.assigns = [malformed], ()
            if verdicts:
                self.deciding[chain.name] = self.deciding.get(chain.name, 0) + 1
                self.uninterpretable += [(chain.name, error) for error in reader.unread]
            source = Source(self.file, words[0].line, obj)
            name = reader.comment or f"{chain.name}:{number}"
            if reader.rewrite is not None:
                self.rewrites[source] = reader.rewrite
            rules += [
                ChainRule(condition, verdict, name, source, (*reader.tests, *tests), reader.assigns)
                for condition, verdict, tests in verdicts
            ]
        return rules


_Outcome = tuple[Condition, "Action | Jump | Return | None", tuple[Test, ...]]


class _RuleReader(ComparisonReader):
    """One pass over the words of a rule: matches are ANDed until a verdict ends it.

    tests, assigns  of registers (marks.py), beside the condition and before the verdict
    """

    def __init__(self, words: Sequence[Word], reader: TableReader, obj: str) -> None:
        super().__init__(words, reader.file, reader.table, reader.expressions, obj)
        self.reader = reader
        self.condition: Condition = TRUE
        self.unread: list[PolicyError] = []
        self.comment = ""
        self.rewrite: Rewrite | None = None
        self.tests: list[Test] = []
        self.assigns: tuple[Assign, ...] = ()

    def read(self) -> list[_Outcome]:
        """The rule's outcomes, each with what it asks beside the rule's own tests; [] where it does nothing."""
        self.comment = next(
            (b.text for a, b in zip(self.words, self.words[1:], strict=False) if a.text == "comment" and b.quoted), ""
        )
        while self.at < len(self.words):
            word = self.peek()
            if word in _VERDICT_WORDS:
                verdict = self.verdict()
                if word in _TRANSLATIONS:
                    self.rewrite = self.translation(word)
                return [] if verdict is None and not self.assigns else [(self.condition, verdict, ())]
            if word == "notrack":
                self.assigns += (Assign("track", 1, 1),)
            if word in _SIDE_EFFECTS and not self.starts_match():
                self.side_effect()
            elif word == "limit":
                self.limit()
            else:
                mapped = self.match()
                if mapped is not None:
                    return [(both, verdict, tests) for c, verdict, tests in mapped if (both := self.both(c)) != FALSE]
        return [(self.condition, None, ())] if self.assigns else []

    # --- statements ---

    def verdict(self) -> Action | Jump | Return | None:
        word = self.take()
        if word == "continue":
            return None
        if word in ("jump", "goto"):
            chain = self.take()
            if chain not in self.table.chains:
                raise self.error(f"table {self.table.name} has no chain '{chain}'")
            return Jump(chain, goto=word == "goto")
        return _SIMPLE_VERDICTS[word]

    def translation(self, word: str) -> Rewrite:
        """``dnat [ip] to ADDRESS[:PORT]`` and its like; what is no plain address or port is not known."""
        rest = [w.text for w in self.words[self.at :]]
        to = rest[rest.index("to") + 1 :] if "to" in rest else []
        text = to[0] if to else ""
        family = 6 if "ip6" in rest[:1] or text.startswith("[") or text.count(":") > 1 else 4
        target, option = _TRANSLATIONS[word]
        extra = f"{option} {text.lstrip(':') if word in ('redirect', 'masquerade') else text}" if text else ""
        known = self.reader.known
        plain = len(to) <= 1 or not {"map", ".", "{"} & set(to)
        try:
            if plain and "prefix" not in rest:
                return nat_rewrite(target, extra, TRUE, family, known.own(family), word in ("snat", "masquerade"))
        except ValueError:
            if text and text[0].isdigit():
                raise self.error(f"'{text}' is no address and port") from None
        outbound = word in ("snat", "masquerade")
        return Rewrite({"src_ip": None, "sport": None} if outbound else {"dst_ip": None, "dport": None})

    def side_effect(self) -> None:
        self.at += 1
        while self.at < len(self.words):
            if self.peek() == "{":
                self.braces()
            elif self.starts_known():
                return
            else:
                self.at += 1

    def starts_known(self) -> bool:
        """Whether a statement or a match begins here."""
        word = self.peek()
        return (
            word == "limit"
            or word in _VERDICT_WORDS
            or word in _SIDE_EFFECTS
            or word in _KEYED
            or word in _KEYLESS
            or (word,) in self.expressions
        )

    def limit(self) -> None:
        start = self.at
        self.at += 1
        self.skip_to_statement()
        text = self.text_from(start)
        limits = self.reader.known.limits
        if limits == "unknown":
            self.uninterpretable(start, text, "depends on the clock", "option limits decides what it is taken for")
        elif limits == "never_match":
            self.condition = FALSE

    def skip_to_statement(self) -> None:
        while self.at < len(self.words) and not self.starts_known():
            if self.peek() == "{":
                self.braces()
            else:
                self.at += 1

    def text_from(self, start: int) -> str:
        return " ".join(w.text for w in self.words[start : self.at])

    def uninterpretable(self, start: int, text: str, why: str, hint: str = "") -> None:
        word = self.words[start]
        where = f"{self.file}:{word.line}:{word.column}"
        default = "without strict the rule stays in its place as undecided; modes upper and lower bracket it"
        self.unread.append(PolicyError(f"'{text}' {why}", where=where, obj=self.obj, hint=hint or default))
        self.condition = self.both(unknown(text))

    def both(self, condition: Condition) -> Condition:
        result = conjunction(self.condition, condition, MAX_TERMS * MAX_TERMS)
        if result is None:
            raise self.error("a rule of so many combinations cannot be expressed")
        return result

    # --- matches ---

    def match(self) -> list[_Outcome] | None:
        """Read one match and AND it; a verdict map gives its entries instead."""
        start = self.at
        register, count = register_at(self)
        if register and self.peek(count) != ".":
            self.at += count
            return self.register(register, start)
        if (self.peek(), self.peek(1)) == ("ct", "status"):
            self.at += 2
            test = read_nat_status(self, "ct status")
            if test is not None:
                self.add_test(replace(test, text=self.text_from(start)))
                return None
            self.at = start
        first = self.expression()
        if first is None:
            return self.unknown_match(start)
        parts = [first]
        while self.peek() == ".":
            self.at += 1
            further = self.expression()
            if further is None:
                return self.unknown_match(start)
            parts.append(further)
        if self.peek() == "set":  # writes the field, matches nothing
            self.at += 3 if self.peek(1) in _KEYED else 2
            self.skip_to_statement()
            return None
        if self.peek() == "vmap":
            self.at += 1
            return self.verdict_map(parts, start)
        try:
            self.condition = self.both(_where_it_is(parts, self.comparison(parts)))
        except UninterpretableError as error:
            self.skip_to_statement()
            self.uninterpretable(start, self.text_from(start), f"cannot be known: {error}", error.hint)
        return None

    def register(self, register: str, start: int) -> list[_Outcome] | None:
        """A test of a register, a verdict map by one, or an assignment to it; its name has been read."""
        if self.peek() == "set":
            self.take()
            assigned = read_assignment(self, register)
            self.skip_to_statement()
            self.assigns += (Assign(register, lost=True),) if assigned is None else assigned
            return None
        if self.peek() == "vmap":
            self.take()
            return self.map_of_marks(register, start)
        try:
            self.add_test(read_test(self, register, ""), start)
        except UninterpretableError as error:
            self.skip_to_statement()
            self.uninterpretable(start, self.text_from(start), f"cannot be known: {error}", error.hint)
        return None

    def add_test(self, test: Test, start: int | None = None) -> None:
        if start is not None:
            test = replace(test, text=self.text_from(start))
        if self.assigns:  # of what the rule itself has just set
            self.condition = self.both(unknown(test.text))
        else:
            self.tests.append(test)

    def map_of_marks(self, register: str, start: int) -> list[_Outcome]:
        entries: list[_Outcome] = []
        seen: frozenset[int] = frozenset()
        for element in sorted(self.elements(), key=lambda e: e.key == ("*",)):
            verdict = self.verdict_of(element)
            rest = element.key == ("*",)
            values = seen if rest else values_of([element])
            test = Test(register, ALL, values, rest, self.text_from(start))
            if verdict is not None or self.assigns:
                entries.append((TRUE, verdict, (test,)))
            seen |= values
        return entries

    def unknown_match(self, start: int) -> list[_Outcome] | None:
        self.at = start
        if self.peek() == "xt":
            return self.foreign(start)
        if self.peek() not in _KEYED | _KEYLESS:
            raise self.error(f"'{self.words[start].text}' begins no match or statement that is known")
        if (vmap := self.map_ahead()) is not None:
            self.at = vmap
            return self.map_of_unknown(start)
        if self.peek() == "fib":
            if not self.local_type(start):
                self.route_lookup(start)
            return None
        self.at += 2 if self.peek() in _KEYED else 1
        # The value, whatever word it is (`ct status dnat`), then the rest up to the next statement.
        if self.peek() in OPERATORS or self.peek() == "set":
            self.at += 1
        if self.peek() == "{":
            self.braces()
        elif self.at < len(self.words) and self.peek() not in _PLAIN_VERDICTS:
            self.at += 2 if self.peek() in _KEYED else 1
        self.skip_to_statement()
        words = [w.text for w in self.words[start : self.at]]
        if "set" not in words:  # `meta priority set 1` writes, and matches nothing
            self.uninterpretable(start, " ".join(words), "cannot be interpreted offline")
        return None

    def map_ahead(self) -> int | None:
        """Where "vmap" stands if what begins here is its key."""
        hashed = self.peek() in ("jhash", "symhash")
        for i in range(self.at + 1, len(self.words)):
            text = self.words[i].text
            if text == "vmap":
                return i
            starts = text in _KEYED or (text,) in self.expressions
            if text == "{" or (starts and not hashed and self.words[i - 1].text != "."):
                return None
        return None

    def route_lookup(self, start: int) -> None:
        """``fib saddr . iif oif missing``: what routes say is not known."""
        while self.at < len(self.words) and self.peek() not in ("oif", "oifname", "type"):
            self.at += 1
        self.at += 1  # the result that is asked for
        self.at += self.peek() in OPERATORS
        if self.peek() == "{":
            self.braces()
        else:
            self.at = min(self.at + 1, len(self.words))
        self.uninterpretable(start, self.text_from(start), "depends on routes")

    def foreign(self, start: int) -> list[_Outcome] | None:
        """``xt match "NAME"`` and ``xt target "NAME"``: extensions of iptables that nft cannot print."""
        self.take()
        kind = self.take()
        name = self.words[self.at].text if self.at < len(self.words) else ""
        self.at = min(self.at + 1, len(self.words))
        if name == "comment":
            return None
        if kind == "target" and name in ASSIGNING_TARGETS:
            self.assigns += tuple(Assign(register, lost=True) for register in REGISTERS)
        if kind == "target" and name in SIDE_EFFECTS:
            return None
        self.uninterpretable(start, self.text_from(start), "is an extension of iptables that nft does not spell out")
        return [(TRUE, Action.UNDECIDED, ())] if kind == "target" else None

    def local_type(self, start: int) -> bool:
        """``fib saddr|daddr [. iif] type [!=] local`` where the host's addresses are given."""
        words = [self.peek(i) for i in range(5)]
        negated = words[3] == "!="
        if words[1] not in ("saddr", "daddr") or words[2] != "type" or (words[4] if negated else words[3]) != "local":
            return False
        local = self.reader.known.local
        self.at += 5 if negated else 4
        if local is None:
            why = "depends on the host's addresses"
            self.uninterpretable(start, self.text_from(start), why, "give them as local_addresses")
            return True
        name = "src_ip" if words[1] == "saddr" else "dst_ip"
        self.condition = self.both(constraint(**{name: local.complement(name) if negated else local}))
        return True

    def verdict_map(self, parts: list[Expression], start: int) -> list[_Outcome]:
        try:
            elements = self.elements()
        except UninterpretableError as error:
            raise self.error(f"a verdict map that cannot be known: {error}") from None
        # A catch-all element counts where no other key does, so it comes last.
        entries: list[_Outcome] = []
        keys: list[Condition] = []
        for element in sorted(elements, key=lambda e: e.key == ("*",)):
            verdict = self.verdict_of(element)
            condition = _where_it_is(parts, self.one_of(parts, [element]))
            if element.key == ("*",):
                others = negation(any_of(*keys), MAX_TERMS)
                both = None if others is None else conjunction(condition, others, MAX_TERMS)
                if both is None and any(isinstance(v, Jump) for _, v, _ in entries):
                    raise self.error("what no key of this verdict map holds takes too many combinations")
                condition = condition if both is None else both
            elif verdict is None and any(e.key == ("*",) for e in elements):
                raise self.error("'continue' beside a catch-all in a verdict map is not read")
            keys.append(condition)
            if verdict is not None or self.assigns:
                entries.append((condition, verdict, ()))
        return entries

    def map_of_unknown(self, start: int) -> list[_Outcome]:
        """A verdict map by what nobody knows: any of its verdicts; ``numgen random mod 1`` has one only."""
        key = [w.text for w in self.words[start : self.at]]
        self.take()
        elements = self.elements()
        if key[:1] == ["numgen"] and key[2:4] == ["mod", "1"] and len(elements) == 1:
            return [(TRUE, self.verdict_of(elements[0]), ())]
        text = " ".join(key)
        self.uninterpretable(start, text, "cannot be known, so neither can the verdict of its map")
        return [(unknown(f"{text} is {'-'.join(e.key)}"), self.verdict_of(e), ()) for e in elements]

    def verdict_of(self, element: Element) -> Action | Jump | Return | None:
        if not element.value:
            raise self.error(f"'{' . '.join(element.key)}' maps to no verdict")
        return _RuleReader(element.value, self.reader, self.obj).verdict_of_element()

    def verdict_of_element(self) -> Action | Jump | Return | None:
        if self.peek() not in _VERDICT_WORDS:
            raise self.error(f"'{self.peek()}' is no verdict")
        return self.verdict()


def _where_it_is(parts: Sequence[Expression], comparison: Condition) -> Condition:
    """The comparison for packets that have the fields, UNKNOWN for those where it looks at something else."""
    result: Condition = comparison
    for part in parts:
        result = conjunction(result, part.implied) or FALSE
    return any_of(result, *(part.elsewhere for part in parts))
