"""One rule of any policy, firewall or redirection, as rules of the model.

What    Groups become address sets, services and profiles alternatives. What a policy kind adds (where a rule is
        present, what its actions do) is given by the caller.
State   ``tcp_strict`` of a stateful policy becomes a condition on TCP flags (SYN without ACK) of those alternatives
        that name TCP. A rule without a service has none: NSX enforces strictness on rules with a TCP service only, so
        an any-any rule picks up connections in their middle.
Undecided  Each clause that cannot be expressed (a local time zone, a group nobody can evaluate) stops a strict import;
        in a lenient one it is left out of the match, and the rule is not certain any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.nsx.addresses import address_set, looks_like_address, parse_range
from meshsieve.importers.nsx.catalogue import Catalogue, unsupported
from meshsieve.importers.nsx.fields import LENIENT_HINT
from meshsieve.importers.nsx.groups import Groups
from meshsieve.importers.nsx.objects import Policy, Rule
from meshsieve.importers.nsx.profiles import AccessProfile, Names, Variant, access_rules, both_of, variants
from meshsieve.importers.nsx.schedules import schedule_alternatives
from meshsieve.importers.nsx.services import TCP, Services, merged
from meshsieve.model import Action, Match, RuleSet, Source, ValueSet
from meshsieve.model import Rule as ModelRule
from meshsieve.policy import Diagnostic, ImportOptions

T = TypeVar("T")

_DIRECTIONS = {"OUT": ValueSet.numbers(1), "IN": ValueSet.numbers(2)}
_VERSIONS = {"IPV4": ValueSet.numbers(4), "IPV6": ValueSet.numbers(6)}
SYN, ACK = 2, 16
SYN_WITHOUT_ACK = ValueSet.numbers(*(flags for flags in range(256) if flags & SYN and not flags & ACK))
NOTHING = ValueSet()


class RuleTranslator:
    """Translates rules over one catalogue. Diagnostics are collected on the way."""

    def __init__(self, catalogue: Catalogue, groups: Groups, names: Names, options: ImportOptions) -> None:
        self.catalogue = catalogue
        self.options = options
        self.groups = groups
        self.names = names
        self.services = Services(catalogue)
        self.diagnostics: list[Diagnostic] = []
        self._seen: set[tuple[str, str, str]] = set()
        self._scopes_without_vnic: set[str] = set()
        self._unions: dict[tuple[bool, bool, tuple[str, ...]], ValueSet] = {}
        self._scopes: dict[tuple[str, ...], ValueSet] = {}
        self._alternatives: dict[tuple[bool, bool, tuple[str, ...]], tuple[Match, ...]] = {}

    def rules(
        self, policy: Policy, rule: Rule, presence: Callable[[], Mapping[str, ValueSet]], actions: Mapping[str, Action]
    ) -> list[ModelRule]:
        """A rule of the policy as one rule of the model; as several where it has an L7 access profile.

        presence  fields that say where the rule is in force; may raise PolicyError
        actions   what the policy's kind does on each action; one that is not listed is undecided
        raises    PolicyError in a strict import
        """
        obj = f"{rule.label} rule_id={rule.rule_id}" if rule.rule_id else rule.label
        source = Source(rule.obj.document.name, rule.obj.line, obj)
        unknown: list[str] = []
        if policy.problems or rule.problems:
            for problem in (*policy.problems, *rule.problems):
                self.undecided(problem, unknown)
            return [ModelRule({}, Action.UNDECIDED, name=rule.name, source=source, unknown=tuple(unknown))]

        ethernet = policy.category == "Ethernet"
        match: dict[str, ValueSet] = {}
        if rule.direction in _DIRECTIONS and policy.kind == "SecurityPolicy":
            match["direction"] = _DIRECTIONS[rule.direction]
        if rule.ip_protocol in _VERSIONS:
            match["ip_ver"] = _VERSIONS[rule.ip_protocol]
        nowhere: Mapping[str, ValueSet] = {}
        match |= self.clause(presence, unknown, nowhere)
        for field, key, elements, excluded in (
            ("src", "source_groups", rule.sources, rule.sources_excluded),
            ("dst", "destination_groups", rule.destinations, rule.destinations_excluded),
        ):
            found = self.clause(partial(self._end, rule, key, elements, excluded, ethernet), unknown, None)
            if found is not None:
                match[f"{field}_mac" if ethernet else f"{field}_ip"] = found
        any_service: tuple[Match, ...] | None = ()
        alternatives = self.clause(lambda: self._services(policy, rule), unknown, any_service)
        if alternatives is None:
            match["proto"] = NOTHING  # services without entries: nothing, and not "any"
            alternatives = ()
        always: tuple[Match, ...] = ()
        alternatives = both_of(alternatives, self.clause(lambda: self._schedule(policy), unknown, always))
        action = self.clause(lambda: self._action(policy, rule, actions), unknown, Action.UNDECIDED)
        if action is Action.DROP and not is_any(rule.profiles):
            action = Action.REJECT  # what a profile drops is reset, for the sender has been let through before
        made = ModelRule(match, action, alternatives, -1, rule.name, source, tuple(unknown), rule.logged)
        no_profile: list[Variant] = [("", (), action, ())]
        found_variants = self.clause(lambda: self._profiles(rule, action), unknown, no_profile)
        return [
            replace(
                made,
                action=decided,
                alternatives=both_of(alternatives, condition),
                name=f"{rule.name}: {name}" if name else rule.name,
                unknown=(*unknown, *further),
            )
            for name, condition, decided, further in found_variants
        ]

    def clause(self, evaluate: Callable[[], T], unknown: list[str], otherwise: T) -> T:
        """The clause's value; in a lenient import ``otherwise`` where it has none, and its text in ``unknown``."""
        try:
            return evaluate()
        except PolicyError as error:
            if self.options.strict:
                raise
            self.undecided(error, unknown)
            return otherwise

    def undecided(self, error: PolicyError, unknown: list[str]) -> None:
        unknown.append(error.message)
        self.note(unsupported(error))

    def note(self, diagnostic: Diagnostic) -> None:
        """Keep a finding; once, however many rules lead to it."""
        key = (diagnostic.code, diagnostic.where, diagnostic.message)
        if key not in self._seen:
            self._seen.add(key)
            self.diagnostics.append(diagnostic)

    # Clauses

    def _action(self, policy: Policy, rule: Rule, actions: Mapping[str, Action]) -> Action:
        named = rule.action or "ALLOW"
        if named not in actions:
            raise PolicyError(
                f"{named} is only legal in Environment, not in category '{policy.category}'",
                where=rule.obj.where("action"),
                obj=rule.label,
                hint=LENIENT_HINT,
            )
        return actions[named]

    def scope(self, policy: Policy, rule: Rule) -> dict[str, ValueSet]:
        """The vNICs that the rule is applied to, as a field. The policy's scope replaces the rule's."""
        if not is_any(policy.scope):
            return {"vnic": self.vnics(policy.scope, policy, policy.label)}
        return {} if is_any(rule.scope) else {"vnic": self.vnics(rule.scope, rule, rule.label)}

    def vnics(self, scope: list[str], holder: Policy | Rule, label: str) -> ValueSet:
        key = tuple(scope)
        if key not in self._scopes:
            vnics: set[int] = set()
            for index, path in enumerate(scope):
                vnics |= self._scope_element(path, index, holder, label)
            self._scopes[key] = ValueSet.numbers(*vnics)
        return self._scopes[key]

    def _scope_element(self, path: str, index: int, holder: Policy | Rule, label: str) -> set[int] | frozenset[int]:
        if _means_any(path):
            raise _any_not_alone(holder, label, "scope", index)
        if path in self.groups:
            found: set[int] | frozenset[int] = self.groups.vnics(path)
        else:
            other = self.groups.vnics_of(path)
            if other is None:
                raise _dangling(path, holder, label, "scope", index)
            found = other
        if not found and path not in self._scopes_without_vnic:
            self._scopes_without_vnic.add(path)
            self.note(
                Diagnostic(
                    "scope-without-vnic",
                    f"'{path}' has no vNIC, so applying a rule to it has no effect",
                    where=holder.obj.where("scope", index),
                    obj=label,
                    hint="apply the rule to a group of machines, segments or ports",
                )
            )
        return found

    def _end(self, rule: Rule, key: str, elements: list[str], excluded: bool, ethernet: bool) -> ValueSet | None:
        """The addresses of one end, in an Ethernet rule the MAC addresses; None = any."""
        if is_any(elements):
            if not excluded:
                return None
            self.note(
                Diagnostic(
                    "excluded-any",
                    "everything except ANY is nothing: the rule never matches",
                    where=rule.obj.where(key),
                    obj=rule.label,
                    hint="name the groups to exclude",
                )
            )
            return NOTHING
        union = (ethernet, excluded, tuple(elements))
        if union not in self._unions:
            sets = [self._element(rule, key, index, text, ethernet) for index, text in enumerate(elements)]
            together = sets[0] if len(sets) == 1 else NOTHING.union(*sets)
            self._unions[union] = together.complement("src_mac" if ethernet else "src_ip") if excluded else together
        return self._unions[union]

    def _element(self, rule: Rule, key: str, index: int, text: str, ethernet: bool) -> ValueSet:
        if text in self.groups:
            if self.catalogue.groups[text].identities and (key != "source_groups" or len(rule.sources) > 1):
                raise PolicyError(
                    "an identity group must stand alone in a rule's sources",
                    where=rule.obj.where(key, index),
                    obj=rule.label,
                    hint=LENIENT_HINT,
                )
            return self.names.macs(self.groups.macs(text)) if ethernet else self.groups.addresses(text)
        if _means_any(text):
            raise _any_not_alone(rule, rule.label, key, index)
        if ethernet:
            raise PolicyError(
                f"an Ethernet rule compares MAC addresses, and '{text}' is not a known group",
                where=rule.obj.where(key, index),
                obj=rule.label,
                hint=LENIENT_HINT,
            )
        try:
            return address_set([parse_range(text)])
        except ModelError as error:
            if looks_like_address(text):
                raise PolicyError(
                    str(error), where=rule.obj.where(key, index), obj=rule.label, hint="correct the address"
                ) from None
            raise _dangling(text, rule, rule.label, key, index) from None

    def _services(self, policy: Policy, rule: Rule) -> tuple[Match, ...] | None:
        """The alternatives; () = any service, None = services that have no entry at all."""
        names = rule.services
        if is_any(names):
            if not rule.service_entries:
                return ()
            if names:
                self.note(
                    Diagnostic(
                        "any-beside-inline-services",
                        "the services say ANY beside inline entries; the inline entries count",
                        where=rule.obj.where("services"),
                        obj=rule.label,
                        hint="remove ANY",
                    )
                )
            names = []
        key = (policy.category == "Ethernet", policy.tcp_strict, tuple(names))
        if rule.service_entries or key not in self._alternatives:
            found = self._entries(policy, rule, names)
            if rule.service_entries:
                return found or None
            self._alternatives[key] = found
        return self._alternatives[key] or None

    def _entries(self, policy: Policy, rule: Rule, names: list[str]) -> tuple[Match, ...]:
        found: list[Match] = []
        for index, name in enumerate(names):
            if _means_any(name):
                raise _any_not_alone(rule, rule.label, "services", index)
            found += self.services.alternatives(name, partial(rule.obj.where, "services", index), rule.label)
        for entry in rule.service_entries:
            found += self.services.entry(entry, rule.label)
        ethernet = policy.category == "Ethernet"
        for match in found:
            if ("eth_type" in match) != ethernet:
                raise PolicyError(
                    "an Ethernet rule can name EtherTypes only"
                    if ethernet
                    else "an EtherType can stand in an Ethernet rule only",
                    where=rule.obj.where("services" if rule.services else "service_entries"),
                    obj=rule.label,
                    hint=LENIENT_HINT,
                )
        if policy.tcp_strict:
            found = [{**m, "tcp_flags": SYN_WITHOUT_ACK} if m["proto"] == TCP else m for m in found]
        return merged(found)

    def _schedule(self, policy: Policy) -> tuple[Match, ...]:
        path = policy.scheduler_path
        if not path:
            return ()
        if path not in self.catalogue.schedules:
            raise PolicyError(
                f"the schedule '{path}', which says when the policy is in force, is in no file",
                where=policy.obj.where("scheduler_path"),
                obj=policy.label,
                hint="add the answer of .../firewall-schedulers to the same load, or import with --lenient",
            )
        when = schedule_alternatives(self.catalogue.schedules[path], path, self.options.time_zone)
        if when == ({},):
            return ()
        return when or ({"time": NOTHING},)  # in force at no time: nothing, and not "always"

    def _profiles(self, rule: Rule, action: Action) -> list[Variant]:
        """The rule's variants: those of its context profiles, or of its L7 access profile."""
        if is_any(rule.profiles):
            return [("", (), action, ())]
        alternatives: tuple[list[Match], list[Match]] = ([], [])
        entries: list[Variant] = []
        for index, path in enumerate(rule.profiles):
            profile = self.catalogue.profiles.get(path)
            if profile is None:
                raise PolicyError(
                    f"the profile '{path}' is in no file",
                    where=rule.obj.where("profiles", index),
                    obj=rule.label,
                    hint="add the answer of .../context-profiles to the same load, or import with --lenient",
                )
            if isinstance(profile, PolicyError):
                raise profile
            if isinstance(profile, AccessProfile):
                entries += access_rules(self.names, profile)
            else:
                for listed, further in zip(alternatives, self.names.alternatives(profile), strict=True):
                    listed.extend(further)
        if entries and any(alternatives):
            raise PolicyError(
                "a context profile and an L7 access profile in one rule",
                where=rule.obj.where("profiles"),
                obj=rule.label,
                hint=LENIENT_HINT,
            )
        found = entries or list(variants("", (tuple(alternatives[0]), tuple(alternatives[1])), action))
        return found or [("", ({"proto": NOTHING},), action, ())]  # a category without domains: nothing, and not "any"


def rule_set(rules: Sequence[ModelRule], names: Names) -> RuleSet:
    """The list, with the numbers of those texts that it asks for."""
    made = RuleSet(rules)
    made.names = {name: codes for name, codes in names.codes.items() if name in made.fields}
    return made


def _means_any(text: str) -> bool:
    return text.upper() == "ANY"


def is_any(elements: list[str]) -> bool:
    return not elements or (len(elements) == 1 and _means_any(elements[0]))


def _any_not_alone(holder: Policy | Rule, label: str, key: str, index: int) -> PolicyError:
    return PolicyError(
        "ANY must stand alone in its list",
        where=holder.obj.where(key, index),
        obj=label,
        hint="remove ANY, or everything else",
    )


def _dangling(path: str, holder: Policy | Rule, label: str, key: str, index: int) -> PolicyError:
    return PolicyError(
        f"group '{path}' is in no file",
        where=holder.obj.where(key, index),
        obj=label,
        hint="add the answer of .../groups to the same load, or import with --lenient",
    )
