"""Conditions of group expressions: which machines, segments or ports a test on a tag or name selects.

What    The objects of one member type are indexed by tag and by name, so that a condition costs as much as there are
        distinct values, and EQUALS and IN a look-up; not a pass over all machines for each of thousands of groups.
Tags    ``scope|tag``, parted at the first bar; ``tag`` and ``|tag`` leave the scope free, ``scope|`` the tag. Case does
        not count in tags, and does in names. An object satisfies a tag condition if one of its tags does; NOTEQUALS and
        NOTIN hold if none does. MATCHES is a regular expression (RE2, linear time) over the whole tag or name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from meshsieve import _core
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.objects import Tag

T = TypeVar("T")

OPERATORS = ("EQUALS", "NOTEQUALS", "CONTAINS", "STARTSWITH", "ENDSWITH", "IN", "NOTIN", "MATCHES")
# Member type -> the keys that a condition on it may test here.
KEYS: Mapping[str, tuple[str, ...]] = {
    "VirtualMachine": ("Tag", "Name", "ComputerName", "OSName", "ALL"),
    "Segment": ("Tag", "Name", "ALL"),
    "LogicalSwitch": ("Tag", "Name", "ALL"),
    "SegmentPort": ("Tag", "Name", "ALL"),
    "LogicalPort": ("Tag", "Name", "ALL"),
}
_COMPARE: Mapping[str, Callable[[str, str], bool]] = {
    "CONTAINS": lambda text, value: value in text,
    "STARTSWITH": lambda text, value: text.startswith(value),
    "ENDSWITH": lambda text, value: text.endswith(value),
}
_POSITIVE = {"NOTEQUALS": "EQUALS", "NOTIN": "IN"}


@dataclass(slots=True)
class Population:
    """The objects of one member type, by identity."""

    everyone: set[str] = field(default_factory=set)
    by_tag: dict[str, dict[str, set[str]]] = field(default_factory=dict)  # tag, scope (folded) -> identities
    by_name: dict[str, dict[str, set[str]]] = field(default_factory=dict)  # key, name -> identities
    # Conditions that have been asked: thousands of groups repeat them. Only once the population is complete.
    known: dict[tuple[str, str, str, str], set[str]] = field(default_factory=dict)

    def add(self, identity: str, tags: Iterable[Tag], names: Mapping[str, str]) -> None:
        self.everyone.add(identity)
        for scope, tag in tags:
            self.by_tag.setdefault(tag.casefold(), {}).setdefault(scope.casefold(), set()).add(identity)
        for key, name in names.items():
            self.by_name.setdefault(key, {}).setdefault(name, set()).add(identity)

    def select(self, key: str, operator: str, scope_operator: str, value: str) -> set[str] | None:
        """Identities for which the condition holds; None for an empty value, with which NSX does not evaluate it.

        raises  ModelError for a regular expression that is none
        """
        if key == "ALL":
            return self.everyone
        if value in ("", "|"):
            return None
        asked = (key, operator, scope_operator, value)
        if asked not in self.known:
            self.known[asked] = self._select(key, operator, scope_operator, value)
        return self.known[asked]

    def _select(self, key: str, operator: str, scope_operator: str, value: str) -> set[str]:
        plain = _POSITIVE.get(operator, operator)
        found: set[str] = set()
        for wanted in [v.strip() for v in value.split(",")] if plain == "IN" else [value]:
            if key == "Tag":
                found |= self._tagged(wanted, plain, scope_operator == "EQUALS")
            else:
                for named in _chosen(self.by_name.get(key, {}), wanted, plain):
                    found |= named
        return found if plain == operator else self.everyone - found

    def _tagged(self, value: str, operator: str, same_scope: bool) -> set[str]:
        scope, bar, tag = value.partition("|")
        if not bar:
            scope, tag = "", value
        scope, tag = scope.casefold(), f"(?i){tag}" if operator == "MATCHES" and tag else tag.casefold()
        found: set[str] = set()
        for scopes in _chosen(self.by_tag, tag, operator) if tag else self.by_tag.values():
            for own_scope, identities in scopes.items():
                if not scope or (own_scope == scope) == same_scope:
                    found |= identities
        return found


def _chosen(index: Mapping[str, T], value: str, operator: str) -> Iterable[T]:
    if operator in ("EQUALS", "IN"):
        return [index[value]] if value in index else []
    if operator == "MATCHES":
        regex = _core.Regex(value.encode())
        return [held for text, held in index.items() if regex.full_match(text.encode())]
    compare = _COMPARE[operator]
    return [held for text, held in index.items() if compare(text, value)]


def populations(catalogue: Catalogue) -> dict[str, Population]:
    """One population for each member type of ``KEYS``."""
    machines, segments, ports = Population(), Population(), Population()
    for identity, machine in catalogue.machines.items():
        names = {"Name": machine.name, "ComputerName": machine.computer_name, "OSName": machine.os_name}
        machines.add(identity, machine.tags, names)
    for path, segment in catalogue.segments.items():
        segments.add(path, segment.tags, {"Name": segment.name})
    for path, port in catalogue.ports.items():
        ports.add(path, port.tags, {"Name": port.name})
    return {
        "VirtualMachine": machines,
        **dict.fromkeys(("Segment", "LogicalSwitch"), segments),
        **dict.fromkeys(("SegmentPort", "LogicalPort"), ports),
    }
