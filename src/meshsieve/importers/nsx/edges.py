"""What stands beside the firewall at a machine's port: SpoofGuard before it, east-west service insertion behind it.

SpoofGuard   A port with a SpoofGuard profile that keeps an allow list lets only its address bindings speak.
Redirection  Rules are walked first-match after the firewall allowed a flow; east-west at the sender's port, north-south
             at a gateway's uplinks. The answer says whether the flow goes
             through the chain; it decides nothing, unless the option ``chains_down`` names a chain: then its failure
             policy does (BLOCK drops, ALLOW lets pass), and never turns a drop into an allow.
"""

from __future__ import annotations

from dataclasses import replace

from meshsieve.errors import PolicyError
from meshsieve.importers.nsx.addresses import address_set, parse_range
from meshsieve.importers.nsx.fields import Fields
from meshsieve.importers.nsx.objects import Policy, Port, Rule, mac_text
from meshsieve.importers.nsx.order import placed
from meshsieve.importers.nsx.rules import RuleTranslator, rule_set
from meshsieve.model import Action, RuleSet, Source, ValueSet
from meshsieve.model import Rule as ModelRule
from meshsieve.policy import Crossing, Diagnostic, ImportOptions, Point

REDIRECTION = {"REDIRECT": Action.ALLOW, "DO_NOT_REDIRECT": Action.ALLOW}


def spoofguard_points(translator: RuleTranslator) -> list[Point]:
    """The point "spoofguard", if some port is guarded.

    raises  PolicyError
    """
    catalogue, machines = translator.catalogue, translator.groups.machines
    guarded_places = {
        holder for holder, binding in catalogue.bindings if _guards(translator, binding.get("spoofguard_profile_path"))
    }
    rules: list[ModelRule] = []
    guarded: set[int] = set()
    for path, port in catalogue.ports.items():
        if not {path, port.segment} & guarded_places:
            continue
        vnics = machines.of_port.get(path, set())
        bound = _bindings(translator, port)
        if not bound:
            translator.note(
                Diagnostic(
                    "spoofguard-without-bindings",
                    "SpoofGuard guards this port by the addresses that it discovers, which the export does not hold",
                    where=port.obj.where(), obj=path, level="note",
                )
            )  # fmt: skip
            continue
        guarded |= vnics
        source = Source(port.obj.document.name, port.obj.line, f"{path} address_bindings")
        for match in bound:
            here = {"vnic": ValueSet.numbers(*vnics), **match}
            rules.append(ModelRule(here, name="address binding", source=source))
    if not guarded:
        return []
    rules.append(ModelRule({"vnic": ValueSet.numbers(*guarded)}, Action.DROP, name="SpoofGuard"))
    return [Point("spoofguard", rule_set(rules, translator.names), vnic_of="src")]


def _guards(translator: RuleTranslator, path: object) -> bool:
    profile = translator.catalogue.spoofguard_profiles.get(path) if isinstance(path, str) else None
    if profile is None:
        return False
    f = Fields(profile, "SpoofGuardProfile", str(path))
    return f.flag("address_binding_allowlist") or f.flag("address_binding_whitelist")


def _bindings(translator: RuleTranslator, port: Port) -> list[dict[str, ValueSet]]:
    out = []
    for obj in Fields(port.obj, "SegmentPort", port.path).objects("address_bindings"):
        f = Fields(obj, "address_binding", port.path)
        match: dict[str, ValueSet] = {}
        if text := f.text("ip_address"):
            match["src_ip"] = address_set([parse_range(text)])
        if mac := mac_text(f):
            match["src_mac"] = translator.names.macs([mac])
        vlan = f.number("vlan_id", 0, 4095)
        if vlan is not None:
            match["vlan"] = ValueSet.numbers(vlan)
        out.append(match)
    return out


def redirection_points(translator: RuleTranslator) -> list[Point]:
    """The point "redirection" at a sender's port, if there are east-west redirection rules.

    raises  PolicyError
    """
    rules: list[ModelRule] = []
    for place in placed(translator.catalogue.redirection_policies, ("",)):
        policy, rule = place.policy, place.rule
        if rule is None:
            continue
        if not policy.north_south:  # the others stand at gateways (gateways.py)
            rules += [
                redirected(translator, policy, rule, made) for made in translator.rules(policy, rule, dict, REDIRECTION)
            ]
    if not rules:
        return []
    point = redirection_point("redirection", rule_set(rules, translator.names), translator.options)
    return [replace(point, vnic_of="src")]


def redirection_point(name: str, rules: RuleSet, options: ImportOptions, crossing: Crossing | None = None) -> Point:
    """A point that tells which chain a flow goes through, and decides where the options name a chain that is down."""
    return Point(name, rules, crossing=crossing, role="filter" if options.chains_down else "advise")


def redirected(translator: RuleTranslator, policy: Policy, rule: Rule, made: ModelRule) -> ModelRule:
    """The rule's answer in words and, for a chain that is down, in its action.

    raises  PolicyError in a strict import where the chain is in no file
    """
    if rule.action == "REDIRECT":
        return _through_chain(translator, policy, made)
    return replace(made, name=f"{made.name}: not redirected")


def _through_chain(translator: RuleTranslator, policy: Policy, rule: ModelRule) -> ModelRule:
    chain = policy.redirect_to[0] if policy.redirect_to else ""
    known = translator.catalogue.service_chains.get(chain)
    if known is None:
        problem = PolicyError(
            f"the service chain '{chain}' is in no file, so what happens when it is down is not known",
            where=policy.obj.where("redirect_to"), obj=policy.label,
            hint="add the answer of .../service-chains, for north-south policies of .../service-instances",
        )  # fmt: skip
        if translator.options.strict:
            raise problem
        failure = "UNKNOWN"
    else:
        f = Fields(known, "service chain", chain)
        failure = f.choice("failure_policy", ("ALLOW", "BLOCK"), "ALLOW") or "ALLOW"
    name = f"{rule.name}: redirected to {chain.rpartition('/')[2]}, if it is down {failure}"
    if chain not in translator.options.chains_down:
        return replace(rule, name=name)
    action = {"ALLOW": Action.ALLOW, "BLOCK": Action.DROP}.get(failure, Action.UNDECIDED)
    return replace(rule, name=f"{name} (it is down)", action=action)
