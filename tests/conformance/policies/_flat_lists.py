"""First-match lists as verified iptables tools print them, in three spellings of a line::

    (-s 10.0.0.0/8 -p tcp ! -m tcp --dpts [22, 80:90] ~~-m limit~~, -j ACCEPT)
    -s 10.0.0.0/8 -p tcp --dport 22 -j ACCEPT
    ACCEPT  tcp  --  10.0.0.0/8  0.0.0.0/0  in: eth0  sports: 1:2  dports: 80

``~~...~~`` is a match that the tool does not know; ``!`` negates the match behind it. A ``(, -j DROP)`` is for every
packet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from meshsieve.importers.conditions import TRUE, Condition, any_of, conjunction, constraint, negation, rules_for
from meshsieve.importers.iptables.names import CT_STATES, PROTOCOLS, TCP_FLAGS
from meshsieve.model import Action, NameCodes, Rule, Source, ValueSet

ACTIONS = {"ACCEPT": Action.ALLOW, "DROP": Action.DROP, "REJECT": Action.REJECT}
_TOKEN = re.compile(r"~~.*?~~|\[[^\]]*\]|[^\s\[\]~]+")
_COLUMNS = re.compile(r"(ACCEPT|DROP|REJECT)\s+(\S+)\s+--\s+(\S+)\s+(\S+)\s*(.*)")
_PORTS_OF = {
    **dict.fromkeys(("--spts", "--sport", "--sports", "sports:", "spt:", "spts:"), ("sport",)),
    **dict.fromkeys(("--dpts", "--dport", "--dports", "dports:", "dpt:", "dpts:"), ("dport",)),
    "--ports": ("sport", "dport"),
}


@dataclass(frozen=True)
class Line:
    condition: Condition
    action: Action
    knows_all: bool
    text: str


def parse(lines: Iterable[str], codes: NameCodes, family: int = 4) -> list[Line]:
    """raises  ValueError naming the line"""
    return [_line(text.strip(), codes, family) for text in lines if text.strip() and not text.startswith("#")]


def interfaces(lines: Iterable[str]) -> list[str]:
    """The interface names and patterns (``eth+``) of a list."""
    return [name for line in lines for name in re.findall(r"(?:-[io]|\b(?:in|out):) (\S+?),?(?= |$)", line)]


def rules(lines: Iterable[Line], bound: str) -> list[Rule]:
    """The list as rules, where an unknown match counts as the bound "upper" or "lower" says."""
    out: list[Rule] = []
    for number, line in enumerate(lines, 1):
        favoured = (line.action is Action.ALLOW) == (bound == "upper")
        if line.knows_all or favoured:
            out += rules_for(line.condition, line.action, line.text, Source("list", number))
    return out


def _line(text: str, codes: NameCodes, family: int) -> Line:
    columns = _COLUMNS.fullmatch(text)
    if columns:
        action, protocol, source, destination, rest = columns.groups()
        tokens = ["-p", protocol, "-s", source, "-d", destination, *_TOKEN.findall(rest.replace(":", ": "))]
        tokens = _TOKEN.findall(re.sub(r"(?<=\d): (?=\d)", ":", " ".join(tokens)))
    else:
        inner = text[1:-1] if text.startswith("(") and text.endswith(")") else text
        tokens = _TOKEN.findall(re.sub(r",(?= -j )", " ", inner))
        if tokens[:1] == ["-A"]:
            tokens = tokens[2:]
        if tokens[-2:-1] != ["-j"]:
            raise ValueError(f"no verdict: {text}")
        action, tokens = tokens[-1], tokens[:-2]
    if action not in ACTIONS:
        raise ValueError(f"'{action}' is no verdict: {text}")
    try:
        condition, knows_all = _Matches(tokens, codes, family).read()
    except (IndexError, KeyError) as error:
        raise ValueError(f"{error}: {text}") from None
    return Line(condition, ACTIONS[action], knows_all, text)


class _Matches:
    def __init__(self, tokens: list[str], codes: NameCodes, family: int) -> None:
        self.tokens, self.codes, self.family, self.at = [t for t in tokens if t not in (",", "")], codes, family, 0

    def read(self) -> tuple[Condition, bool]:
        result: Condition | None = TRUE
        knows_all = True
        while self.at < len(self.tokens):
            negated = self.take_if("!")
            word = self.take()
            if word.startswith("~~"):
                knows_all = False
                continue
            condition: Condition | None = self.match(word)
            if negated:
                condition = negation(condition or ())
            result = conjunction(result or (), condition or ())
        return result or (), knows_all

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def take_if(self, word: str) -> bool:
        found = self.at < len(self.tokens) and self.tokens[self.at] == word
        self.at += found
        return found

    def match(self, word: str) -> Condition:
        if word == "-m":
            module, word = self.take(), self.take()
            ports = self.match(word)
            protocol = {"tcp": 6, "udp": 17, "sctp": 132}.get(module)
            return conjunction(ports, constraint(proto=ValueSet.numbers(protocol))) or () if protocol else ports
        if word in ("-s", "-d"):
            return constraint(**{"src_ip" if word == "-s" else "dst_ip": ValueSet.addresses([self.take()])})
        if word in ("--src-range", "--dst-range"):
            return constraint(**{"src_ip" if word == "--src-range" else "dst_ip": ValueSet.addresses([self.take()])})
        if word == "-p":
            name = self.take()
            if name in ("all", "any", "0"):
                return TRUE
            return constraint(proto=ValueSet.numbers(int(name) if name.isdigit() else PROTOCOLS[name]))
        if word in ("-i", "-o", "in:", "out:"):
            return self.interface("iif" if word in ("-i", "in:") else "oif", self.take())
        if word in _PORTS_OF:
            values = ValueSet.numbers(*map(_range, re.findall(r"[0-9:]+", self.take())))
            return any_of(*(constraint(**{name: values}) for name in _PORTS_OF[word]))
        if word == "--tcp-flags":
            mask, wanted = (_flags(self.take()) for _ in range(2))
            return constraint(tcp_flags=ValueSet.numbers(*(f for f in range(256) if f & mask == wanted)))
        if word in ("--state", "--ctstate"):
            return constraint(ct_state=ValueSet.numbers(*(CT_STATES[name] for name in self.take().split(","))))
        raise KeyError(f"'{word}' is no match of such a list")

    def interface(self, field: str, name: str) -> Condition:
        if name == "+":
            return TRUE
        return constraint(**{field: self.codes.prefix(name[:-1]) if name.endswith("+") else self.codes.exact(name)})


def _range(text: str) -> tuple[int, int]:
    low, colon, high = text.partition(":")
    return int(low or 0), int(high or 65535) if colon else int(low)


def _flags(text: str) -> int:
    names = re.findall(r"[A-Z]+", text.replace("TCP_", ""))
    return sum(TCP_FLAGS[name] for name in set(names))
