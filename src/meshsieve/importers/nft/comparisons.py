"""The right side of a match: what it compares a field with, as a condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshsieve import _core
from meshsieve.errors import PolicyError
from meshsieve.importers.conditions import FALSE, TRUE, Condition, any_of, conjunction, constraint, negation
from meshsieve.importers.iptables.meaning import UninterpretableError
from meshsieve.importers.nft.expressions import TCP_FLAGS, Expression, flag_bits, number_of
from meshsieve.importers.nft.syntax import Element, NftSet, Table, elements_of
from meshsieve.importers.nft.words import Word
from meshsieve.model import FIELD_INDEX, ValueSet

MAX_TERMS = 64
OPERATORS = ("==", "!=", "<", ">", "<=", ">=")


class ComparisonReader:
    """A place in the words of a rule, and how to read expressions and comparisons from there.

    table  whose sets may be named; obj: the rule, for messages
    """

    def __init__(
        self, words: Sequence[Word], file: str, table: Table, known: Mapping[tuple[str, ...], Expression], obj: str
    ) -> None:
        self.words, self.file, self.table, self.expressions, self.obj = words, file, table, known, obj
        self.at = 0

    def error(self, message: str, hint: str = "") -> PolicyError:
        word = self.words[min(self.at, len(self.words) - 1)]
        return PolicyError(message, where=f"{self.file}:{word.line}:{word.column}", obj=self.obj, hint=hint)

    def peek(self, ahead: int = 0) -> str:
        i = self.at + ahead
        return self.words[i].text if i < len(self.words) and not self.words[i].quoted else ""

    def take(self) -> str:
        if self.at == len(self.words):
            raise self.error("the rule ends early")
        self.at += 1
        return self.words[self.at - 1].text

    def braces(self) -> list[Word]:
        """The words inside the braces that begin here."""
        start, depth = self.at + 1, 0
        while self.at < len(self.words):
            depth += (self.peek() == "{") - (self.peek() == "}")
            self.at += 1
            if depth == 0:
                return list(self.words[start : self.at - 1])
        raise self.error("'{' does not end")

    def expression(self) -> Expression | None:
        for count in (2, 1):
            words = tuple(self.peek(i) for i in range(count))
            if words in self.expressions:
                self.at += count
                return self.expressions[words]
        return None

    def starts_match(self) -> bool:
        return tuple(self.peek(i) for i in range(2)) in self.expressions

    def comparison(self, parts: list[Expression]) -> Condition:
        operator = self.take() if self.peek() in (*OPERATORS, "!") else ""
        if self.peek() == "&":
            return self.masked(parts[0])
        if len(parts) == 1 and parts[0].text == "tcp flags":
            return self.tcp_flags(operator)
        if operator in ("<", ">", "<=", ">="):
            return self.ordered(parts[0], operator)
        condition = self.one_of(parts, self.elements())
        if operator not in ("!=", "!"):
            return condition
        negated = negation(condition, MAX_TERMS)
        if negated is None:
            raise UninterpretableError("its negation takes too many combinations")
        return negated

    def elements(self) -> list[Element]:
        """What stands on the right: a set, a reference, a list or one value."""
        if self.peek() == "{":
            return elements_of(self.braces())
        text = self.take()
        if text.startswith("@"):
            return self.named(text[1:]).elements
        key = [text]
        while self.peek() == ".":
            self.at += 1
            key.append(self.take())
        found = [Element(tuple(key))]
        while self.peek() == ",":  # ct state established,related
            self.at += 1
            found.append(Element((self.take(),)))
        return found

    def named(self, name: str) -> NftSet:
        if name not in self.table.sets:
            raise self.error(f"table {self.table.name} has no set '{name}'")
        found = self.table.sets[name]
        if found.dynamic:
            raise UninterpretableError(f"set '{name}' is filled by packets")
        return found

    def one_of(self, parts: list[Expression], elements: list[Element]) -> Condition:
        if len(parts) == 1:
            everything = any(e.key == ("*",) for e in elements)
            values = ValueSet().union(*(parts[0].values(self.single(e)) for e in elements if e.key != ("*",)))
            return TRUE if everything else constraint(**{parts[0].field: values})
        # Elements that differ in their first dimension alone share a term.
        grouped: dict[tuple[str, ...], list[str]] = {}
        for element in elements:
            if len(element.key) != len(parts):
                raise ValueError(f"'{' . '.join(element.key)}' has not {len(parts)} parts")
            grouped.setdefault(element.key[1:], []).append(element.key[0])
        if len(grouped) > MAX_TERMS:
            raise UninterpretableError("it takes too many combinations")
        terms: list[Condition] = []
        for rest, firsts in grouped.items():
            sets = [ValueSet().union(*(parts[0].values(text) for text in firsts))]
            sets += [part.values(text) for part, text in zip(parts[1:], rest, strict=True)]
            term: Condition = TRUE
            for part, values in zip(parts, sets, strict=True):
                term = conjunction(term, constraint(**{part.field: values})) or FALSE
            terms.append(term)
        return any_of(*terms)

    def single(self, element: Element) -> str:
        if len(element.key) != 1:
            raise ValueError(f"'{' . '.join(element.key)}' has more than one part")
        return element.key[0]

    def ordered(self, part: Expression, operator: str) -> Condition:
        if part.field in ("src_ip", "dst_ip", "iif", "oif", "ct_state"):
            raise ValueError(f"{part.text} has no order that is read")
        (low, high), *_ = part.values(self.take()).v4
        largest = 2 ** _core.FIELDS[FIELD_INDEX[part.field]].bits - 1
        low, high = {"<": (0, low - 1), "<=": (0, high), ">": (high + 1, largest), ">=": (low, largest)}[operator]
        return constraint(**{part.field: ValueSet.numbers(*([(low, high)] if low <= high else []))})

    def masked(self, part: Expression) -> Condition:
        """``& MASK == VALUE`` and ``& MASK != VALUE`` of TCP flags and of small numbers."""
        self.at += 1
        bits = _core.FIELDS[FIELD_INDEX[part.field]].bits
        if bits > 8 or part.field in ("iif", "oif", "ct_state"):
            raise UninterpretableError("a mask of this field")
        mask = self.bits()
        operator = self.take()
        wanted = self.bits()
        if operator not in ("==", "!="):
            raise ValueError(f"'{operator}' after a mask; == and != are read")
        values = ValueSet.numbers(*(v for v in range(2**bits) if (v & mask == wanted) == (operator == "==")))
        return constraint(**{part.field: values})

    def bits(self) -> int:
        """``syn``, ``0x12``, ``fin | syn`` or ``(fin|syn)``"""
        inside = self.peek() == "("
        self.at += inside
        total = number_of(self.take(), TCP_FLAGS, 255, "TCP flag")
        while self.peek() == "|":
            self.at += 1
            total |= number_of(self.take(), TCP_FLAGS, 255, "TCP flag")
        if inside and self.take() != ")":
            raise self.error("expected ')'")
        return total

    def tcp_flags(self, operator: str) -> Condition:
        """any of (no operator, or a list), exactly (==, sets), none of (!), and ``FLAGS / MASK``"""
        if self.peek() == "{" or self.peek().startswith("@"):
            values = ValueSet().union(*(parts for e in self.elements() for parts in [self.flag_set(e)]))
            return constraint(tcp_flags=values.complement("tcp_flags") if operator == "!=" else values)
        listed = [self.bits()]
        while self.peek() == ",":
            self.at += 1
            listed.append(self.bits())
        wanted = 0
        for bits in listed:
            wanted |= bits
        if self.peek() == "/":
            self.at += 1
            mask = self.bits()
            while self.peek() == ",":
                self.at += 1
                mask |= self.bits()
            matching = [v for v in range(256) if v & mask == wanted]
            negated = operator in ("!=", "!")
        elif operator == "==" or (operator == "!=" and len(listed) == 1):
            matching, negated = [wanted], operator == "!="
        else:
            matching, negated = [v for v in range(256) if v & wanted], operator in ("!", "!=")
        values = ValueSet.numbers(*matching)
        return constraint(tcp_flags=values.complement("tcp_flags") if negated else values)

    def flag_set(self, element: Element) -> ValueSet:
        return ValueSet.numbers(flag_bits(self.single(element).split("|")))
