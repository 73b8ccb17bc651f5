"""The distributed firewall as one layer of the rule model.

What    One rule list serves both enforcement points; ``direction`` and ``vnic`` tell where a rule is present (rules.py
        translates single rules). JUMP_TO_APPLICATION and the ALLOW of an Ethernet rule are skips.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.fields import LENIENT_HINT
from meshsieve.importers.nsx.objects import Policy
from meshsieve.importers.nsx.order import Placed, ambiguous, placed
from meshsieve.importers.nsx.profiles import APP_FIELDS
from meshsieve.importers.nsx.rules import NOTHING, RuleTranslator, is_any, rule_set
from meshsieve.model import Action, Source, ValueSet
from meshsieve.model import Rule as ModelRule
from meshsieve.policy import Diagnostic, Point
from meshsieve.value_sets import range_text

OUT, IN = 1, 2
MAX_CONFLICTS = 100  # findings about addresses that two interfaces share

_ACTIONS = {"ALLOW": Action.ALLOW, "DROP": Action.DROP, "REJECT": Action.REJECT}
_ACTIONS_IN = {
    "Ethernet": {**_ACTIONS, "ALLOW": Action.SKIP},  # the frame goes on to the L3 rules
    "Environment": {**_ACTIONS, "JUMP_TO_APPLICATION": Action.SKIP},
}


class Firewall:
    """The distributed firewall of a catalogue."""

    def __init__(self, translator: RuleTranslator) -> None:
        self.translator = translator
        self.catalogue = translator.catalogue
        self.groups = translator.groups
        self.options = translator.options

    def points(self) -> tuple[Point, Point]:
        """The points "out" and "in".

        raises  PolicyError
        """
        places: list[Placed] = []
        rules: list[ModelRule] = []
        for place in placed(self.catalogue.policies):
            made = self._rules(place)
            places += [place] * len(made)
            rules += made
        first_l3 = next((i for i, p in enumerate(places) if p.policy.category != "Ethernet"), len(places))
        # Where nothing is left to go to, a skip goes to the end.
        first_application = next(
            (i for i, p in enumerate(places) if p.policy.category in ("Application", "")), len(places)
        )
        for i, (place, rule) in enumerate(zip(places, rules, strict=True)):
            if rule.action is Action.SKIP:
                target = first_l3 if place.policy.category == "Ethernet" else first_application
                rules[i] = replace(rule, skip_to=target)
        excluded = self._excluded()
        default = self.options.default_action
        stateless = frozenset(i for i, place in enumerate(places) if not place.policy.stateful)
        table = rule_set(rules, self.translator.names)
        self._lint(places, rules, first_l3)
        return (
            Point("out", table, default, {"direction": OUT}, "src", excluded, stateless=stateless, tracks_algs=True),
            Point("in", table, default, {"direction": IN}, "dst", excluded, stateless=stateless, tracks_algs=True),
        )

    def _rules(self, place: Placed) -> list[ModelRule]:
        policy, rule = place.policy, place.rule
        if rule is None:
            return [self._preference(policy)]
        actions = _ACTIONS_IN.get(policy.category, _ACTIONS)
        return self.translator.rules(policy, rule, lambda: self.translator.scope(policy, rule), actions)

    def _preference(self, policy: Policy) -> ModelRule:
        """The any-any rule that ``connectivity_preference`` adds behind the policy's own rules."""
        unknown: list[str] = []
        vnics = self.translator.clause(lambda: self._preference_scope(policy), unknown, None)
        action = Action.DROP if policy.connectivity.startswith("ALLOWLIST") else Action.ALLOW
        for problem in policy.problems:
            self.translator.undecided(problem, unknown)
        number = f" rule_id={policy.default_rule_id}" if policy.default_rule_id else ""
        return ModelRule(
            match={} if vnics is None else {"vnic": vnics},
            action=Action.UNDECIDED if policy.problems else action,
            name=policy.default_rule_id or f"connectivity_preference of {policy.label}",
            source=Source(policy.obj.document.name, policy.obj.line, f"{policy.label} connectivity_preference{number}"),
            unknown=tuple(unknown),
            log=policy.connectivity.endswith("LOGGING"),
        )

    def _preference_scope(self, policy: Policy) -> ValueSet | None:
        if policy.category == "Ethernet":
            raise PolicyError(
                "connectivity_preference is for L3 policies, not for Ethernet",
                where=policy.obj.where(),
                obj=policy.label,
                hint="set the preference to NONE",
            )
        if is_any(policy.scope):
            if any(rule.is_default for rule in policy.rules):
                return NOTHING  # the default rule, which is listed, stands for the preference
            raise PolicyError(
                "connectivity_preference needs a scope",
                where=policy.obj.where("connectivity_preference"),
                obj=policy.label,
                hint="give the policy a scope, or set the preference to NONE",
            )
        return self.translator.vnics(policy.scope, policy, policy.label)

    def _excluded(self) -> frozenset[int]:
        """vNICs on the exclusion list."""
        out: set[int] = set()
        for holder, path in self.catalogue.excluded:
            out |= self.translator.clause(partial(self._excluded_by, path, holder), [], frozenset())
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
            self.translator.note(diagnostic)
        if not any(
            rule.certain and not rule.match and not rule.alternatives and rule.action is not Action.SKIP
            for rule in rules[first_l3:]
        ):
            self.translator.note(
                Diagnostic(
                    "no-default-rule",
                    "no rule matches everything; what no rule matches is "
                    f"{self.options.default_action.name} by the option default_action",
                    hint="export the default policy too",
                )
            )
        self._lint_profiles(places, rules)
        for policy in self.catalogue.policies:
            if policy.takes_part and not policy.stateful and policy.category != "Ethernet":
                self.translator.note(
                    Diagnostic(
                        "stateless-policy",
                        "packets of a stateless policy are judged one by one, replies included; a row by flow shows "
                        "the verdict of its first packet",
                        where=policy.obj.where(),
                        obj=policy.label,
                        hint="classify --by packet judges every packet",
                        level="note",
                    )
                )
            for rule in policy.rules:
                if not (policy.takes_part and rule.takes_part):
                    self.translator.note(
                        Diagnostic(
                            "takes-no-part",
                            f"rule '{rule.name}' is disabled or marked for deletion",
                            where=rule.obj.where(),
                            obj=rule.label,
                            level="note",
                        )
                    )
        for (version, address), first, second in self.groups.machines.inventory.conflicts[:MAX_CONFLICTS]:
            self.translator.note(
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
            self.translator.note(
                Diagnostic(
                    "vm-without-address",
                    f"{len(silent)} interface(s) have no address, so no packet is traced to them: "
                    f"{', '.join(silent[:10])}{more}",
                    hint="export /api/v1/fabric/vifs while the machines run",
                )
            )

    def _lint_profiles(self, places: list[Placed], rules: list[ModelRule]) -> None:
        """What users of context profiles trip over: first matches by ports alone, and names that nobody snooped."""
        dns = self.translator.names.codes["app"].exact("dns").v4[0][0]
        snooped = False
        for i, (place, rule) in enumerate(zip(places, rules, strict=True)):
            if place.rule is None or is_any(place.rule.profiles):
                continue
            asked = [{**rule.match, **alternative} for alternative in rule.alternatives or ({},)]
            snooped |= any("app" in match and match["app"].contains(dns) for match in asked)
            free = any(not match.keys() - set(APP_FIELDS) for match in asked)
            finding = ("", "", "")
            if free and i + 1 < len(rules):
                finding = (
                    "l7-any-any-before-other-rules",
                    "a rule with a profile and nothing else holds every packet until its application is known",
                    "give it sources, destinations or services, or move it to the end",
                )
            elif not snooped and any("fqdn" in match for match in asked):
                finding = (
                    "fqdn-without-dns-rule",
                    "NSX learns domain names from DNS answers, and no rule before this one has APP_ID DNS",
                    "put a rule with APP_ID DNS on port 53 above",
                )
            if finding[0]:
                code, message, hint = finding
                where = place.rule.obj.where("profiles")
                self.translator.note(Diagnostic(code, message, where=where, obj=place.rule.label, hint=hint))
