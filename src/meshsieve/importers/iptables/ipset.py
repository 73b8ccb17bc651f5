"""The content of ipsets, in the format of ``ipset save``.

A set has one or more dimensions: addresses or networks (ip, net) and ports. An element holds one value of each; a
packet is in the set if its fields, source or destination as the rule says, are those of an element. In a set of
networks the longest network that holds the address decides, and one marked ``nomatch`` takes it out.

Limits  Elements with a timeout are taken as present. Sets of other kinds (mac, iface, mark) and sets of several
        dimensions that need more than MAX_TERMS terms are left uninterpreted.
Source  ipset(8)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from meshsieve.errors import PolicyError
from meshsieve.importers.conditions import FALSE, Condition, any_of, conjunction, constraint
from meshsieve.importers.iptables.names import PROTOCOLS
from meshsieve.importers.iptables.words import split
from meshsieve.model import ValueSet
from meshsieve.policy import SourceFile
from meshsieve.value_sets import parse_address_range

MAX_TERMS = 64
_PORT_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "udplite": 136, "dccp": 33}


class UnreadableSetError(Exception):
    """A set whose content is known but whose kind cannot be expressed."""


@dataclass(slots=True)
class IpSet:
    """kind: the dimensions of ``create NAME method:DIM,DIM``; elements: (texts, nomatch)"""

    name: str
    kind: tuple[str, ...]
    elements: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    members: list[IpSet] = field(default_factory=list)

    def condition(self, directions: Sequence[str]) -> Condition:
        """The packets in the set, seen from ``directions``: src or dst, one a dimension.

        raises  UnreadableSetError; ValueError for malformed elements or directions
        """
        if any(d not in ("src", "dst") for d in directions):
            raise ValueError(f"directions are src and dst, not '{','.join(directions)}'")
        if self.kind == ("set",):
            return any_of(*(member.condition(directions) for member in self.members))
        if len(directions) < len(self.kind):
            raise ValueError(f"set '{self.name}' has {len(self.kind)} dimensions, {len(directions)} are given")
        if any(dimension not in ("ip", "net", "port") for dimension in self.kind):
            raise UnreadableSetError(f"set '{self.name}' is of kind {','.join(self.kind)}")
        if len(self.kind) == 1:
            return _one_dimension(self, directions[0])
        return self._product(directions)

    def _product(self, directions: Sequence[str]) -> Condition:
        if any(nomatch for _, nomatch in self.elements):
            raise UnreadableSetError(f"set '{self.name}' has exceptions in several dimensions")
        # Elements that differ in their first dimension alone share a term.
        grouped: dict[tuple[str, ...], list[str]] = {}
        for (first, *rest), _ in self.elements:
            grouped.setdefault(tuple(rest), []).append(first)
        if len(grouped) > MAX_TERMS:
            raise UnreadableSetError(f"set '{self.name}' takes more than {MAX_TERMS} terms")
        terms = []
        for others, firsts in grouped.items():
            if self.kind[0] == "port":
                condition = any_of(*(_value("port", directions[0], text) for text in firsts))
            else:
                condition = constraint(**{f"{directions[0]}_ip": _union(firsts)})
            for dimension, direction, text in zip(self.kind[1:], directions[1:], others, strict=False):
                condition = conjunction(condition, _value(dimension, direction, text)) or FALSE
            terms.append(condition)
        return any_of(*terms)


def looks_like_ipset(text: str) -> bool:
    first = text.lstrip().split(maxsplit=3)
    return len(first) > 2 and first[0] == "create" and (":" in first[2])


def parse(sources: Iterable[SourceFile]) -> Mapping[str, IpSet]:
    """raises  PolicyError naming file and line"""
    sets: dict[str, IpSet] = {}
    for source in sources:
        for number, line in enumerate(source.text.split("\n"), 1):
            where = f"{source.name}:{number}"
            words = [word.text for word in split(line, where)]
            if words and not words[0].startswith("#"):
                _statement(words, sets, where)
    return sets


def _statement(words: Sequence[str], sets: dict[str, IpSet], where: str) -> None:
    command, *rest = words
    if command not in ("create", "add") or len(rest) < 2:
        raise PolicyError(
            f"'{' '.join(words)[:60]}' is no line of ipset save", where=where, hint="create NAME KIND, add NAME ELEMENT"
        )
    name = rest[0]
    if command == "create":
        if name in sets:
            raise PolicyError(f"set '{name}' exists already", where=where)
        sets[name] = IpSet(name, tuple(rest[1].partition(":")[2].split(",")))
    elif name not in sets:
        raise PolicyError(f"no set is called '{name}'", where=where)
    elif sets[name].kind == ("set",):
        if rest[1] not in sets:
            raise PolicyError(f"no set is called '{rest[1]}'", where=where)
        sets[name].members.append(sets[rest[1]])
    else:
        _add(sets[name], rest, where)


def _add(ipset: IpSet, rest: Sequence[str], where: str) -> None:
    parts = tuple(rest[1].split(","))
    if len(parts) != len(ipset.kind):
        raise PolicyError(f"'{rest[1]}' has not {len(ipset.kind)} parts", where=where, obj=ipset.name)
    try:
        for dimension, part in zip(ipset.kind, parts, strict=True):
            if dimension in ("ip", "net", "port"):
                _value(dimension, "src", part)
    except ValueError as error:
        raise PolicyError(str(error), where=where, obj=ipset.name) from None
    except UnreadableSetError:
        pass  # only a rule that uses the set minds
    ipset.elements.append((parts, "nomatch" in rest[2:]))


def _union(texts: Iterable[str]) -> ValueSet:
    return ValueSet().union(*(_address(text) for text in texts))


def _address(text: str) -> ValueSet:
    version, low, high = parse_address_range(text)
    return ValueSet(((low, high),)) if version == 4 else ValueSet(v6=((low, high),))


def _one_dimension(ipset: IpSet, direction: str) -> Condition:
    if ipset.kind == ("port",):
        return any_of(*(_value("port", direction, parts[0]) for parts, _ in ipset.elements))
    if not any(nomatch for _, nomatch in ipset.elements):
        return constraint(**{f"{direction}_ip": _union(parts[0] for parts, _ in ipset.elements)})
    inside = ValueSet()
    entries = [(_address(parts[0]), nomatch) for parts, nomatch in ipset.elements]
    for values, nomatch in sorted(entries, key=lambda e: -_size(e[0])):  # shortest network first, longest decides
        inside = inside.intersection(values.complement("src_ip")) if nomatch else inside.union(values)
    return constraint(**{f"{direction}_ip": inside})


def _size(values: ValueSet) -> int:
    return sum(hi - lo + 1 for lo, hi in values.v4 + values.v6)


def _value(dimension: str, direction: str, text: str) -> Condition:
    if dimension != "port":
        return constraint(**{f"{direction}_ip": _address(text)})
    protocol, colon, ports = text.partition(":")
    field_name = "sport" if direction == "src" else "dport"
    if not colon:  # bitmap:port, for TCP and UDP
        proto, ports = ValueSet.numbers(6, 17), text
    elif protocol in _PORT_PROTOCOLS:
        proto = ValueSet.numbers(_PORT_PROTOCOLS[protocol])
    elif protocol in PROTOCOLS:
        raise UnreadableSetError(f"element '{text}' is of protocol {protocol}")
    else:
        raise ValueError(f"'{protocol}' is not a protocol")
    low, _, high = ports.partition("-")
    if not all(t.isascii() and t.isdecimal() and int(t[:6]) <= 0xFFFF for t in (low, high or low)):
        raise ValueError(f"'{ports}' is not a port")
    return constraint(**{"proto": proto, field_name: ValueSet.numbers((int(low), int(high or low)))})
