"""The distributed firewall as one layer of the rule model.

What    One rule list serves both enforcement points; ``direction`` and ``vnic`` tell where a rule is present. Groups
        become address sets, services alternatives. JUMP_TO_APPLICATION and the ALLOW of an Ethernet rule are skips.
State   ``tcp_strict`` of a stateful policy becomes a condition on TCP flags (SYN without ACK) of those alternatives
        that name TCP. A rule without a service has none: NSX enforces strictness on rules with a TCP service only, so
        an any-any rule picks up connections in their middle.
Undecided  Each clause that cannot be expressed (a profile, a schedule, a group nobody can evaluate) stops a strict
        import; in a lenient one it is left out of the match, and the rule is not certain any more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.nsx.addresses import address_set, looks_like_address, parse_range
from meshsieve.importers.nsx.catalogue import Catalogue, unsupported
from meshsieve.importers.nsx.fields import LENIENT_HINT
from meshsieve.importers.nsx.groups import Groups
from meshsieve.importers.nsx.json_source import Object
from meshsieve.importers.nsx.objects import Policy, Rule
from meshsieve.importers.nsx.order import Placed, ambiguous, placed
from meshsieve.importers.nsx.services import TCP, Services, merged
from meshsieve.model import Action, Match, RuleSet, Source, ValueSet, range_text
from meshsieve.model import Rule as ModelRule
from meshsieve.policy import Diagnostic, ImportOptions, ImportResult, Layer, Point

T = TypeVar("T")

OUT, IN = 1, 2
_DIRECTIONS = {"OUT": ValueSet.numbers(OUT), "IN": ValueSet.numbers(IN)}
_VERSIONS = {"IPV4": ValueSet.numbers(4), "IPV6": ValueSet.numbers(6)}
_ACTIONS = {
    "ALLOW": Action.ALLOW,
    "DROP": Action.DROP,
    "REJECT": Action.REJECT,
    "JUMP_TO_APPLICATION": Action.SKIP,
}
SYN, ACK = 2, 16
SYN_WITHOUT_ACK = ValueSet.numbers(*(flags for flags in range(256) if flags & SYN and not flags & ACK))
_NOTHING = ValueSet()
MAX_CONFLICTS = 100  # findings about addresses that two interfaces share


class Firewall:
    """Translates a catalogue. Diagnostics are collected on the way."""

    def __init__(self, catalogue: Catalogue, options: ImportOptions) -> None:
        self.catalogue = catalogue
        self.options = options
        self.groups = Groups(catalogue, options.recompute_groups)
        self.services = Services(catalogue)
        self.diagnostics: list[Diagnostic] = []
        self._seen: set[tuple[str, str, str]] = set()
        self._scopes_without_vnic: set[str] = set()
        self._unions: dict[tuple[bool, tuple[str, ...]], ValueSet] = {}
        self._scopes: dict[tuple[str, ...], ValueSet] = {}
        self._alternatives: dict[tuple[bool, bool, tuple[str, ...]], tuple[Match, ...]] = {}

    def translate(self) -> ImportResult:
        """raises  PolicyError"""
        places = placed(self.catalogue.policies)
        rules = [self._rule(place) for place in places]
        first_l3 = next((i for i, p in enumerate(places) if p.policy.category != "Ethernet"), len(places))
        # Where nothing is left to go to, a skip goes to the end.
        first_application = next(
            (i for i, p in enumerate(places) if p.policy.category in ("Application", "")), len(places)
        )
        for i, (place, rule) in enumerate(zip(places, rules, strict=True)):
            if rule.action is Action.SKIP:
                target = first_l3 if place.policy.category == "Ethernet" else first_application
                rules[i] = _with_target(rule, target)
        excluded = self._excluded()
        rule_set = RuleSet(rules)
        self._lint(places, rules, first_l3)
        points = (
            Point("out", rule_set, self.options.default_action, {"direction": OUT}, "src", excluded),
            Point("in", rule_set, self.options.default_action, {"direction": IN}, "dst", excluded),
        )
        layer = Layer("nsx-dfw", points, self.groups.machines.inventory)
        found = [*self.catalogue.diagnostics, *self.diagnostics, *self.groups.diagnostics, *self.services.diagnostics]
        return ImportResult((layer,), tuple(found))

    # One rule

    def _rule(self, place: Placed) -> ModelRule:
        policy, rule = place.policy, place.rule
        if rule is None:
            return self._preference(policy)
        obj = f"{rule.label} rule_id={rule.rule_id}" if rule.rule_id else rule.label
        source = Source(rule.obj.document.name, rule.obj.line, obj)
        unknown: list[str] = []
        problems = [*policy.problems, *rule.problems]
        if problems:
            for problem in problems:
                self._undecided(problem, unknown)
            return ModelRule({}, Action.UNDECIDED, name=rule.name, source=source, unknown=tuple(unknown))

        match: dict[str, ValueSet] = {}

        def constrain(field: str, values: Callable[[], ValueSet | None]) -> None:
            found = self._clause(values, unknown, None)
            if found is not None:
                match[field] = found

        ethernet = policy.category == "Ethernet"
        if rule.direction in _DIRECTIONS:
            match["direction"] = _DIRECTIONS[rule.direction]
        if rule.ip_protocol in _VERSIONS:
            match["ip_ver"] = _VERSIONS[rule.ip_protocol]
        constrain("vnic", lambda: self._scope(policy, rule))
        for field, key, elements, excluded in (
            ("src_ip", "source_groups", rule.sources, rule.sources_excluded),
            ("dst_ip", "destination_groups", rule.destinations, rule.destinations_excluded),
        ):
            constrain(field, partial(self._end, rule, key, elements, excluded, ethernet))
        any_service: tuple[Match, ...] | None = ()
        alternatives = self._clause(lambda: self._services(policy, rule), unknown, any_service)
        if alternatives is None:
            match["proto"] = _NOTHING  # services without entries: nothing, and not "any"
            alternatives = ()
        self._clause(lambda: self._no_schedule(policy), unknown, None)
        self._clause(lambda: self._no_profile(rule), unknown, None)
        return ModelRule(
            match=match,
            action=self._clause(lambda: self._action(policy, rule), unknown, Action.UNDECIDED),
            alternatives=alternatives,
            name=rule.name,
            source=source,
            unknown=tuple(unknown),
            log=rule.logged,
        )

    def _preference(self, policy: Policy) -> ModelRule:
        """The any-any rule that ``connectivity_preference`` adds behind the policy's own rules."""
        unknown: list[str] = []
        vnics = self._clause(lambda: self._preference_scope(policy), unknown, None)
        action = Action.DROP if policy.connectivity.startswith("ALLOWLIST") else Action.ALLOW
        for problem in policy.problems:
            self._undecided(problem, unknown)
        number = f" rule_id={policy.default_rule_id}" if policy.default_rule_id else ""
        return ModelRule(
            match={} if vnics is None else {"vnic": vnics},
            action=Action.UNDECIDED if policy.problems else action,
            name=policy.default_rule_id or f"connectivity_preference of {policy.label}",
            source=Source(policy.obj.document.name, policy.obj.line, f"{policy.label} connectivity_preference{number}"),
            unknown=tuple(unknown),
            log=policy.connectivity.endswith("LOGGING"),
        )

    def _clause(self, evaluate: Callable[[], T], unknown: list[str], otherwise: T) -> T:
        """The clause's value; in a lenient import ``otherwise`` where it has none, and its text in ``unknown``."""
        try:
            return evaluate()
        except PolicyError as error:
            if self.options.strict:
                raise
            self._undecided(error, unknown)
            return otherwise

    def _undecided(self, error: PolicyError, unknown: list[str]) -> None:
        unknown.append(error.message)
        self._note(unsupported(error))

    def _note(self, diagnostic: Diagnostic) -> None:
        """Keep a finding; once, however many rules lead to it."""
        key = (diagnostic.code, diagnostic.where, diagnostic.message)
        if key not in self._seen:
            self._seen.add(key)
            self.diagnostics.append(diagnostic)

    # Clauses

    def _action(self, policy: Policy, rule: Rule) -> Action:
        action = _ACTIONS[rule.action or "ALLOW"]
        if action is Action.SKIP and policy.category != "Environment":
            raise PolicyError(
                f"JUMP_TO_APPLICATION is only legal in Environment, not in category '{policy.category}'",
                where=rule.obj.where("action"),
                obj=rule.label,
                hint=LENIENT_HINT,
            )
        if policy.category == "Ethernet" and action is Action.ALLOW:
            return Action.SKIP  # the frame goes on to the L3 rules
        if action is Action.DROP and not _is_any(rule.profiles):
            return Action.REJECT  # what a profile drops is reset, for the sender has been let through before
        return action

    def _scope(self, policy: Policy, rule: Rule) -> ValueSet | None:
        """The vNICs that the rule is applied to; None = every one. The policy's scope replaces the rule's."""
        if not _is_any(policy.scope):
            return self._vnics(policy.scope, policy, policy.label)
        return None if _is_any(rule.scope) else self._vnics(rule.scope, rule, rule.label)

    def _preference_scope(self, policy: Policy) -> ValueSet | None:
        if policy.category == "Ethernet":
            raise PolicyError(
                "connectivity_preference is for L3 policies, not for Ethernet",
                where=policy.obj.where(),
                obj=policy.label,
                hint="set the preference to NONE",
            )
        if _is_any(policy.scope):
            if any(rule.is_default for rule in policy.rules):
                return _NOTHING  # the default rule, which is listed, stands for the preference
            raise PolicyError(
                "connectivity_preference needs a scope",
                where=policy.obj.where("connectivity_preference"),
                obj=policy.label,
                hint="give the policy a scope, or set the preference to NONE",
            )
        return self._vnics(policy.scope, policy, policy.label)

    def _vnics(self, scope: list[str], holder: Policy | Rule, label: str) -> ValueSet:
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
            self._note(
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
        """The addresses of one end; None = any."""
        if _is_any(elements):
            if not excluded:
                return None
            self._note(
                Diagnostic(
                    "excluded-any",
                    "everything except ANY is nothing: the rule never matches",
                    where=rule.obj.where(key),
                    obj=rule.label,
                    hint="name the groups to exclude",
                )
            )
            return _NOTHING
        if ethernet:
            raise PolicyError(
                f"an Ethernet rule names {key}: MAC addresses are not evaluated",
                where=rule.obj.where(key),
                obj=rule.label,
                hint="import with --lenient: traffic that reaches this rule is then undecided",
            )
        union = (excluded, tuple(elements))
        if union not in self._unions:
            sets = [self._element(rule, key, index, text) for index, text in enumerate(elements)]
            together = sets[0] if len(sets) == 1 else _NOTHING.union(*sets)
            self._unions[union] = together.complement("src_ip") if excluded else together
        return self._unions[union]

    def _element(self, rule: Rule, key: str, index: int, text: str) -> ValueSet:
        if text in self.groups:
            return self.groups.addresses(text)
        if _means_any(text):
            raise _any_not_alone(rule, rule.label, key, index)
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
        if _is_any(names):
            if not rule.service_entries:
                return ()
            if names:
                self._note(
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

    def _no_schedule(self, policy: Policy) -> None:
        if policy.scheduler_path:
            raise PolicyError(
                f"the schedule {policy.scheduler_path} says when the policy is in force; that is not evaluated",
                where=policy.obj.where("scheduler_path"),
                obj=policy.label,
                hint="import with --lenient: traffic that reaches its rules is then undecided",
            )

    def _no_profile(self, rule: Rule) -> None:
        if not _is_any(rule.profiles):
            raise PolicyError(
                f"the rule depends on the application ({', '.join(rule.profiles)}), which addresses and ports do not "
                "tell",
                where=rule.obj.where("profiles"),
                obj=rule.label,
                hint="import with --lenient: traffic that reaches this rule is then undecided",
            )

    # The whole

    def _excluded(self) -> frozenset[int]:
        """vNICs on the exclusion list."""
        out: set[int] = set()
        for holder, path in self.catalogue.excluded:
            out |= self._clause(partial(self._excluded_by, path, holder), [], frozenset())
        return frozenset(out)

    def _excluded_by(self, path: str, holder: Object) -> frozenset[int]:
        if path in self.groups:
            return self.groups.vnics(path)
        found = self.groups.vnics_of(path)
        if found is None:
            raise PolicyError(
                f"the exclusion list names '{path}', which is in no file",
                where=holder.where("members"),
                hint=LENIENT_HINT,
            )
        return frozenset(found)

    def _lint(self, places: list[Placed], rules: list[ModelRule], first_l3: int) -> None:
        for diagnostic in ambiguous(places, rules):
            self._note(diagnostic)
        if not any(
            rule.certain and not rule.match and not rule.alternatives and rule.action is not Action.SKIP
            for rule in rules[first_l3:]
        ):
            self._note(
                Diagnostic(
                    "no-default-rule",
                    "no rule matches everything; what no rule matches is "
                    f"{self.options.default_action.name} by the option default_action",
                    hint="export the default policy too",
                )
            )
        for policy in self.catalogue.policies:
            if policy.takes_part and not policy.stateful and policy.category != "Ethernet":
                self._note(
                    Diagnostic(
                        "stateless-policy",
                        "packets of a stateless policy are judged one by one, replies included; the verdict of a flow "
                        "here is that of its first packet",
                        where=policy.obj.where(),
                        obj=policy.label,
                        hint="ask about the replies with explain",
                        level="note",
                    )
                )
            for rule in policy.rules:
                if not (policy.takes_part and rule.takes_part):
                    self._note(
                        Diagnostic(
                            "takes-no-part",
                            f"rule '{rule.name}' is disabled or marked for deletion",
                            where=rule.obj.where(),
                            obj=rule.label,
                            level="note",
                        )
                    )
        for (version, address), first, second in self.groups.machines.inventory.conflicts[:MAX_CONFLICTS]:
            self._note(
                Diagnostic(
                    "duplicate-address",
                    f"{range_text(address, address, version)} belongs to {first} and {second}; its packets count as "
                    f"those of {first}",
                    hint="load networks that reuse addresses by themselves",
                )
            )
        silent = [v.machine for v in self.groups.machines.inventory.vnics if not v.addresses]
        if silent:
            more = ", ..." if len(silent) > 10 else ""
            self._note(
                Diagnostic(
                    "vm-without-address",
                    f"{len(silent)} interface(s) have no address, so no packet is traced to them: "
                    f"{', '.join(silent[:10])}{more}",
                    hint="export /api/v1/fabric/vifs while the machines run",
                )
            )


def _with_target(rule: ModelRule, target: int) -> ModelRule:
    return ModelRule(rule.match, rule.action, rule.alternatives, target, rule.name, rule.source, rule.unknown, rule.log)


def _means_any(text: str) -> bool:
    return text.upper() == "ANY"


def _is_any(elements: list[str]) -> bool:
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
