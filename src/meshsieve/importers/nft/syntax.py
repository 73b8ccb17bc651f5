"""The structure of nft rulesets: tables, chains, sets and maps, and the words of each rule.

Both forms are read: blocks, as ``nft list ruleset`` prints them, and commands (``add rule inet t c ...``), as
kube-proxy writes them. They give the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from meshsieve.errors import PolicyError
from meshsieve.importers.nft.words import Word, split
from meshsieve.policy import SourceFile

FAMILIES = ("ip", "ip6", "inet", "bridge", "arp", "netdev")
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress", "egress")
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
# Objects that rules refer to by name and that decide nothing about a packet by themselves.
_OTHER_OBJECTS = frozenset({"flowtable", "counter", "quota", "limit", "synproxy", "secmark", "ct"})


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its key, one text a dimension, and in maps the words of its value."""

    key: tuple[str, ...]
    value: tuple[Word, ...] = ()


@dataclass(slots=True)
class NftSet:
    """A set or a map. ``dynamic`` ones are filled by packets, so their content cannot be known."""

    elements: list[Element] = field(default_factory=list)
    dynamic: bool = False


@dataclass(slots=True)
class Chain:
    """A base chain has a hook, others have none."""

    name: str
    line: int
    type: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = "accept"
    rules: list[list[Word]] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    family: str
    name: str
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, NftSet] = field(default_factory=dict)
    dormant: bool = False


def looks_like_nft(text: str) -> bool:
    """Whether the first statement is one of nft."""
    for line in text.split("\n"):
        words = line.split()
        if words and not words[0].startswith("#"):
            if words[0] in ("add", "create", "flush", "insert") and len(words) > 1:
                return words[1] in ("table", "chain", "rule", "set", "map", "element", "ruleset")
            return words[0] == "table" and len(words) > 1 and not words[1].startswith("<")  # that would be pf
    return False


def parse(source: SourceFile) -> list[Table]:
    """The tables in the order in which they appear.

    raises  PolicyError naming file, line and column
    """
    parser = _Parser(split(source.text, source.name), source.name)
    parser.ruleset()
    return list(parser.tables.values())


def elements_of(words: Sequence[Word]) -> list[Element]:
    """Elements between the braces of a set or map."""
    groups: list[list[Word]] = [[]]
    depth = 0
    for word in words:
        depth += (word.text == "{") - (word.text == "}")
        if word.text == "," and not word.quoted and depth == 0:
            groups.append([])
        else:
            groups[-1].append(word)
    return [_element(group) for group in groups if group]


def _element(words: Sequence[Word]) -> Element:
    colon = next((i for i, w in enumerate(words) if w.text == ":"), len(words))
    key: list[str] = []
    for i, word in enumerate(words[:colon]):
        if i % 2 == 0:
            key.append(word.text)
        elif word.text == "|":  # a value of flags: syn | ack
            key[-1] += "|" + words[i + 1].text
            return Element(("|".join(w.text for w in words[:colon] if w.text != "|"),), tuple(words[colon + 1 :]))
        elif word.text != ".":  # timeout, expires, counter, comment: about the element, not in its key
            break
    return Element(tuple(key), tuple(words[colon + 1 :]))


class _Parser:
    def __init__(self, words: list[Word], file: str) -> None:
        self.words, self.file, self.at = words, file, 0
        self.tables: dict[tuple[str, str], Table] = {}

    # --- reading ---

    def error(self, message: str, hint: str = "") -> PolicyError:
        word = self.words[min(self.at, len(self.words) - 1)]
        return PolicyError(message, where=f"{self.file}:{word.line}:{word.column}", hint=hint)

    def peek(self) -> str:
        return self.words[self.at].text if self.at < len(self.words) else ""

    def take(self) -> Word:
        if self.at == len(self.words):
            raise self.error("the text ends early")
        self.at += 1
        return self.words[self.at - 1]

    def expect(self, text: str) -> None:
        if self.peek() != text:
            raise self.error(f"expected '{text}', found {self.peek()!r}")
        self.at += 1

    def skip_ends(self) -> None:
        while self.at < len(self.words) and self.words[self.at].ends:
            self.at += 1

    def statement(self) -> list[Word]:
        """The words up to the end of the statement; line ends inside braces are left out."""
        taken: list[Word] = []
        depth = 0
        while self.at < len(self.words):
            word = self.words[self.at]
            if depth == 0 and (word.ends or (word.text == "}" and not word.quoted)):
                break
            if not word.quoted:
                depth += (word.text in "{(" and bool(word.text)) - (word.text in "})" and bool(word.text))
            if not (word.ends and depth):
                taken.append(word)
            self.at += 1
        return taken

    def skip_statement(self) -> None:
        if not self.statement():
            raise self.error("a block does not end", "the file may be cut")

    def block(self, read: Callable[[], None]) -> None:
        self.skip_ends()
        self.expect("{")
        self.skip_ends()
        while self.peek() != "}":
            read()
            self.skip_ends()
            if self.at == len(self.words):
                raise self.error("a block does not end", "the file may be cut")
        self.at += 1

    # --- structure ---

    def ruleset(self) -> None:
        self.skip_ends()
        while self.at < len(self.words):
            word = self.take().text
            if word == "table":
                table = self.table_name()
                if self.peek() == "{":
                    self.block(lambda table=table: self.in_table(table))  # type: ignore[misc]
            elif word in ("add", "create", "insert"):
                self.command(word)
            elif word == "flush" and self.peek() == "ruleset":
                self.take()
                self.tables.clear()
            else:
                self.at -= 1
                raise self.error(f"'{word}' begins no statement that is read", "table blocks, add and create are")
            self.skip_ends()

    def table_name(self) -> Table:
        family = self.take().text if self.peek() in FAMILIES else "ip"
        name = self.take().text
        return self.tables.setdefault((family, name), Table(family, name))

    def known_table(self) -> Table:
        family = self.take().text if self.peek() in FAMILIES else "ip"
        name = self.take().text
        if (family, name) not in self.tables:
            raise self.error(f"there is no table {family} {name}")
        return self.tables[family, name]

    def command(self, verb: str) -> None:
        kind = self.take().text
        if kind == "table":
            table = self.table_name()
            if self.peek() == "{":
                self.block(lambda: self.in_table(table))
        elif kind == "chain":
            self.chain(self.known_table())
        elif kind in ("set", "map"):
            self.set_block(self.known_table())
        elif kind == "rule":
            chain = self.known_chain(self.known_table())
            self.add_rule(chain, 0 if verb == "insert" else len(chain.rules))
        elif kind == "element":
            table = self.known_table()
            name = self.take().text
            if name not in table.sets:
                raise self.error(f"no set is called '{name}'")
            table.sets[name].elements += elements_of(self.statement()[1:-1])
        else:
            raise self.error(f"'{verb} {kind}' is not read")

    def known_chain(self, table: Table) -> Chain:
        name = self.take().text
        if name not in table.chains:
            raise self.error(f"table {table.family} {table.name} has no chain '{name}'")
        return table.chains[name]

    def in_table(self, table: Table) -> None:
        word = self.take()
        if word.text == "chain":
            self.chain(table)
        elif word.text in ("set", "map"):
            self.set_block(table)
        elif word.text == "flags":
            table.dormant |= any(w.text == "dormant" for w in self.statement())
        elif word.text in _OTHER_OBJECTS:
            while self.peek() != "{":
                self.take()
            self.block(self.skip_statement)
        elif word.text == "comment":
            self.statement()
        else:
            self.at -= 1
            raise self.error(f"'{word.text}' is no part of a table")

    def chain(self, table: Table) -> None:
        word = self.take()
        chain = table.chains.setdefault(word.text, Chain(word.text, word.line))
        if self.peek() == "{":
            self.block(lambda: self.in_chain(chain))

    def in_chain(self, chain: Chain) -> None:
        first = self.peek()
        if first == "type":
            self.base(chain)
        elif first == "policy":
            words = [w.text for w in self.statement()]
            if len(words) != 2 or words[1] not in ("accept", "drop"):
                raise self.error(f"'{' '.join(words)}' is no policy", "accept or drop")
            chain.policy = words[1]
        elif first in ("comment", "devices", "device"):
            self.statement()
        else:
            self.add_rule(chain, len(chain.rules))

    def base(self, chain: Chain) -> None:
        """``type T hook H [device D] priority P``"""
        words = [w.text for w in self.statement()]
        if len(words) < 6 or words[2] != "hook" or "priority" not in words or words[3] not in HOOKS:
            raise self.error(f"'{' '.join(words)}' is no base chain", "type T hook H priority P;")
        chain.type, chain.hook = words[1], words[3]
        chain.priority = self.priority(words[words.index("priority") + 1 :])

    def priority(self, words: list[str]) -> int:
        total, sign = 0, 1
        for text in words:
            if text in ("+", "-"):
                sign = -1 if text == "-" else 1
            elif text in _PRIORITIES:
                total += sign * _PRIORITIES[text]
            elif text.lstrip("-").isdigit() and text.isascii():
                total += sign * int(text)
            else:
                raise self.error(f"'{' '.join(words)}' is no priority")
        return total

    def add_rule(self, chain: Chain, position: int) -> None:
        words = self.statement()
        if words and words[0].text in ("position", "index", "handle"):
            raise self.error(f"'{words[0].text}' places a rule by what is not in the text")
        if not words:
            raise self.error("an empty rule")
        chain.rules.insert(position, words)

    def set_block(self, table: Table) -> None:
        name = self.take().text
        made = table.sets.setdefault(name, NftSet())
        self.block(lambda: self.in_set(made))

    def in_set(self, made: NftSet) -> None:
        words = self.statement()
        if not words:
            raise self.error("expected a property of a set")
        if words[0].text == "elements":
            made.elements += elements_of(words[3:-1])
        elif words[0].text == "flags":
            made.dynamic |= any(w.text == "dynamic" for w in words)
