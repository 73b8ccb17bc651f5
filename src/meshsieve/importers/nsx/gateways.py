"""Gateways: NAT, firewall and north-south redirection, as points on the way between networks.

Order   At a gateway: destination NAT, firewall, source NAT. Which addresses the firewall sees follows from the NAT rule
        that a packet matches (``firewall_match``), so each NAT list stands before and behind the firewall, and each of
        its rules translates at one of the two: MATCH_INTERNAL_ADDRESS (the default) destinations before and sources
        behind, MATCH_EXTERNAL_ADDRESS the other way round. BYPASS passes by the firewall.
NAT     Lower number first; first match; NO_SNAT and NO_DNAT end the list untranslated. Networks of one length are
        mapped bit by bit; many sources onto one address lose their port, a pool loses the address too: both are then
        unknown, and never guessed. REFLEXIVE maps sources on the way out and destinations on the way in.
NAT64   The last 32 bits of an IPv6 destination in a /96 are the IPv4 destination; sources share a pool, as with SNAT.
        ICMPv6 echo becomes ICMP echo; what becomes of other ICMPv6 messages is not known.
Rules   A gateway rule holds where its scope names the gateway: every packet enters through one interface and leaves
        through another, so a direction does not restrict it. One that names single interfaces holds for packets that
        enter (IN) or leave (OUT) by one of them; where a packet may take one of several and the rule names only some,
        it is undecided. NAT rules for interfaces: DNAT where the packet enters, SNAT where it leaves.
Source  NSX-T 3.2 documentation of NAT; schema texts PolicyNatRule, NatFirewallMatch; RFC 6052, RFC 7915 (NAT64).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.addresses import Range, address_set, parse_range
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.edges import REDIRECTION, redirected, redirection_point
from meshsieve.importers.nsx.fields import LENIENT_HINT, Fields
from meshsieve.importers.nsx.objects import GATEWAY_CATEGORIES, Policy, Rule
from meshsieve.importers.nsx.order import placed
from meshsieve.importers.nsx.profiles import both_of
from meshsieve.importers.nsx.rules import RuleTranslator, is_any, rule_set
from meshsieve.importers.nsx.topology import DOWN, THROUGH, UP, Gateway, Place, Topology, side_text
from meshsieve.model import Action, Match, NameCodes, RuleSet, Source, ValueSet
from meshsieve.model import Rule as ModelRule
from meshsieve.policy import Diagnostic, Point, Rewrite, Shift

Side = Literal["src", "dst"]
_ACTIONS = ("SNAT", "DNAT", "REFLEXIVE", "NO_SNAT", "NO_DNAT", "NAT64")
_SIDES: dict[str, tuple[Side, ...]] = {
    "SNAT": ("src",), "NO_SNAT": ("src",), "DNAT": ("dst",), "NO_DNAT": ("dst",), "REFLEXIVE": ("src", "dst"),
    "NAT64": ("src",),
}  # fmt: skip
_NAT64_PREFIX = 96
_ECHO = {128: 8, 129: 0}  # ICMPv6 echo request and reply -> those of ICMP
_BY_ONE_OF_SEVERAL = "which of several interfaces the packet takes"
_SECTIONS = {"INTERNAL": 0, "USER": 1, "DEFAULT": 2}
_NAT_FIELDS: dict[Side, tuple[str]] = {"src": ("oif",), "dst": ("iif",)}
_FILTER = {"ALLOW": Action.ALLOW, "DROP": Action.DROP, "REJECT": Action.REJECT}


@dataclass(frozen=True, slots=True)
class NatRule:
    """networks: source, destination, translated; [] = any. problems: what could not be read (lenient import only)"""

    obj: Object
    label: str
    name: str
    action: str
    rank: tuple[int, int]
    source: list[Range]
    destination: list[Range]
    translated: list[Range]
    ports: tuple[int, int] | None
    service: str
    firewall: str
    scope: list[str]
    problems: list[PolicyError]

    def held(self) -> list[Range]:
        """Addresses outside the gateway's networks that are its own by this rule."""
        if self.action == "NAT64":
            return [*self.destination, *self.translated]
        return {"DNAT": self.destination, "SNAT": self.translated, "REFLEXIVE": self.translated}.get(self.action, [])


def read_nat_rules(catalogue: Catalogue) -> Iterator[NatRule]:
    """Every enabled one.

    raises  PolicyError
    """
    for label, obj in catalogue.nat_rules.items():
        problems: list[PolicyError] = []
        f = Fields(obj, "PolicyNatRule", label, problems if catalogue.lenient else None)
        placing = Fields(obj, "PolicyNatRule", label)  # where a rule stands is never guessed
        action = f.choice("action", _ACTIONS)
        if action is None:
            f.fail("PolicyNatRule.action is missing")
        number = placing.number("sequence_number", 0, 2**31 - 1)
        if number is None:
            number = placing.number("rule_priority", 0, 2**31 - 1)
        section = label.rpartition("/nat-rules/")[0].rpartition("/")[2]
        matches = ("MATCH_EXTERNAL_ADDRESS", "MATCH_INTERNAL_ADDRESS", "BYPASS")
        enabled = f.flag("enabled", True)
        rule = NatRule(
            obj=obj,
            label=label,
            name=f.text("display_name") or label.rpartition("/")[2],
            action=action or "",
            rank=(_SECTIONS.get(section, 1), 100 if number is None else number),
            source=_networks(f, "source_network"),
            destination=_networks(f, "destination_network"),
            translated=_networks(f, "translated_network"),
            ports=_ports(f, f.text("translated_ports")),
            service=f.text("service"),
            firewall=f.choice("firewall_match", matches, "MATCH_INTERNAL_ADDRESS") or "",
            scope=f.texts("scope"),
            problems=problems,
        )
        f.ignore("rule_priority", "sequence_number", "logging", "policy_based_vpn_mode", "gateway_path")
        f.finish()
        if enabled:
            yield rule


def _networks(f: Fields, key: str) -> list[Range]:
    """A text with commas, or a list of texts."""
    value = f.obj.get(key)
    texts = f.texts(key) if isinstance(value, list) else [t for t in f.text(key).split(",") if t.strip()]
    out = []
    for text in texts:
        if text.strip().upper() == "ANY":
            return []
        try:
            out.append(parse_range(text.strip()))
        except ModelError as error:
            f.fail(str(error), key, hint="correct the address")
    return out


def _ports(f: Fields, text: str) -> tuple[int, int] | None:
    if not text:
        return None
    low, _, high = text.partition("-")
    if not (text.isascii() and low.isdigit() and (high or "0").isdigit() and int(low) <= int(high or low) <= 65535):
        f.fail(f"'{text}' is no port or range of ports", "translated_ports", hint="correct the ports")
        return None
    return int(low), int(high or low)


class Gateways:
    """The points of all gateways. Without gateways in the load their policies are named as not evaluated."""

    def __init__(self, translator: RuleTranslator) -> None:
        self.translator = translator
        self.catalogue = translator.catalogue
        self.nat: dict[str, list[NatRule]] = {}
        loose: list[NatRule] = []
        for rule in read_nat_rules(self.catalogue):
            path = self._gateway_of(rule)
            (self.nat.setdefault(path, []) if path else loose).append(rule)
        held = [(path, network) for path, rules in self.nat.items() for r in rules for network in r.held()]
        self.topology = Topology(self.catalogue, held)
        for nat_rule in loose:
            self._not_evaluated("PolicyNatRule", nat_rule.obj, nat_rule.label)

    def _gateway_of(self, rule: NatRule) -> str:
        named = rule.obj.get("gateway_path")
        paths = [named] if isinstance(named, str) else []
        return next(
            (p for p in self.catalogue.gateways if p in paths or rule.label.startswith(p + "/")),
            "",
        )

    def points(self) -> list[Point]:
        """raises  PolicyError"""
        gateways = self.topology.gateways.values()
        stages = [
            *((g, UP) for g in gateways if g.tier == 1),
            *((g, THROUGH) for g in gateways if g.tier == 0),
            *((g, DOWN) for g in gateways if g.tier == 1),
        ]
        self._lint()
        return [point for gateway, stage in stages for point in self._points_of(gateway, stage)]

    def _points_of(self, gateway: Gateway, stage: str) -> Iterator[Point]:
        title = f"{gateway.name} {stage}" if stage != THROUGH else gateway.name
        place = Place(self.topology, gateway.path, stage)
        firewall = f"{title} firewall"
        nat = {side: list(self._nat(gateway, side)) for side in ("dst", "src")}
        default = self.translator.options.default_action
        sides = self._sides(gateway)

        def translation(side: Side, before: bool) -> Iterator[Point]:
            rules = nat[side]
            # Inside addresses are those behind destination NAT and before source NAT.
            wanted = "MATCH_INTERNAL_ADDRESS" if (side == "dst") == before else "MATCH_EXTERNAL_ADDRESS"
            rewrites = {
                i: replace(rewrite, skips=frozenset({firewall}) if bypass else frozenset())
                for i, (_, rewrite, match) in enumerate(rules)
                for bypass in [match == "BYPASS"]
                if (rewrite.touches or bypass) and (match == wanted or (bypass and before))
            }
            if rewrites:
                kind = {"src": "snat", "dst": "dnat"}[side]
                name = f"{title} {kind}" if wanted == "MATCH_INTERNAL_ADDRESS" else f"{title} {kind} outside"
                yield Point(
                    name, self._rule_set([rule for rule, _, _ in rules], sides), crossing=place,
                    role="translate", rewrites=rewrites, once=f"{title} {kind}",
                )  # fmt: skip

        yield from translation("dst", True)
        yield from translation("src", True)
        if rules := self._firewall(gateway):
            yield Point(firewall, self._rule_set(rules, sides), default, crossing=place)
        if redirected := self._redirection(gateway):
            yield redirection_point(
                f"{title} redirection", self._rule_set(redirected, sides), self.translator.options, crossing=place
            )
        yield from translation("dst", False)
        yield from translation("src", False)

    # NAT

    def _nat(self, gateway: Gateway, side: Side) -> Iterator[tuple[ModelRule, Rewrite, str]]:
        rules = sorted(self.nat.get(gateway.path, ()), key=lambda rule: rule.rank)
        for rule in rules:
            if side not in _SIDES.get(rule.action, ("src", "dst")):
                continue
            unknown: list[str] = []
            nothing: Match = {}
            match = self.translator.clause(partial(self._nat_match, rule, gateway, side), unknown, nothing)
            entries: tuple[Match, ...] = ()
            if not is_any([rule.service] if rule.service else []):
                where = partial(rule.obj.where, "service")
                service = partial(self.translator.services.alternatives, rule.service, where, rule.label)
                entries = self.translator.clause(service, unknown, entries)
            source = Source(rule.obj.document.name, rule.obj.line, rule.label)
            made = ModelRule(match, Action.ALLOW, entries, -1, rule.name, source, tuple(unknown))
            for one in self._at_interfaces(made, self._interfaces(rule.scope, gateway), gateway, _NAT_FIELDS[side]):
                if rule.action == "NAT64":
                    yield from ((*translated, rule.firewall) for translated in _nat64(rule, one))
                else:
                    yield one, _rewrite(rule, side), rule.firewall

    def _nat_match(self, rule: NatRule, gateway: Gateway, side: Side) -> Match:
        if rule.problems:
            raise rule.problems[0]
        if rule.action == "NAT64" and not _is_nat64(rule):
            raise PolicyError(
                "NAT64 maps one IPv6 network of 96 bits onto IPv4 by its last 32 bits, and names an IPv4 pool",
                where=rule.obj.where("destination_network"), obj=rule.label, hint=LENIENT_HINT,
            )  # fmt: skip
        self._known_interfaces(rule.scope, gateway, rule.obj, rule.label)
        if rule.action == "REFLEXIVE" and side == "dst":
            return {"dst_ip": address_set(rule.translated)}
        match: dict[str, ValueSet] = {}
        for name, networks in (("src_ip", rule.source), ("dst_ip", rule.destination)):
            if networks:
                match[name] = address_set(networks)
        return match

    # Firewall

    def _firewall(self, gateway: Gateway) -> list[ModelRule]:
        rules: list[ModelRule] = []
        if self._is_off(gateway):
            return rules
        for place in placed(self.catalogue.gateway_policies, GATEWAY_CATEGORIES):
            policy, rule = place.policy, place.rule
            if rule is not None and self._is_for(policy, rule, gateway):
                rules += self._in_scope(policy, rule, gateway, _FILTER)
        return rules

    def _is_off(self, gateway: Gateway) -> bool:
        """Whether the gateway's firewall is switched off; a finding says so where policies are meant for it."""
        _, own = self.catalogue.gateways[gateway.path]
        if not Fields(own, f"Tier{gateway.tier}", gateway.path).flag("disable_firewall"):
            return False
        if any(
            self._is_for(policy, rule, gateway) for policy in self.catalogue.gateway_policies for rule in policy.rules
        ):
            self.translator.note(
                Diagnostic(
                    "gateway-firewall-off", "the firewall of this gateway is off, so its policies judge nothing",
                    where=own.where("disable_firewall"), obj=gateway.path,
                )
            )  # fmt: skip
        return True

    def _redirection(self, gateway: Gateway) -> list[ModelRule]:
        """North-south redirection at the gateway's uplinks."""
        rules: list[ModelRule] = []
        uplinks = frozenset(gateway.uplinks)
        for place in placed(self.catalogue.redirection_policies, ("",)):
            policy, rule = place.policy, place.rule
            if rule is None or not policy.north_south or not self._redirects_at(policy, rule, gateway):
                continue
            for made in self._in_scope(policy, rule, gateway, REDIRECTION):
                for one in self._at_interfaces(made, uplinks, gateway, ("iif", "oif")):
                    rules.append(redirected(self.translator, policy, rule, one))
        return rules

    def _redirects_at(self, policy: Policy, rule: Rule, gateway: Gateway) -> bool:
        scope = self._scope(policy, rule)
        named = policy.redirect_to if is_any(scope) else scope
        return any(p == gateway.path or p.startswith(gateway.path + "/") for p in named)

    def _in_scope(
        self, policy: Policy, rule: Rule, gateway: Gateway, actions: Mapping[str, Action]
    ) -> Iterator[ModelRule]:
        """The rule as it holds at the gateway: for the whole of it, or for those of its interfaces that it names."""
        scope = self._scope(policy, rule)

        def presence() -> Match:
            self._known_interfaces(scope, gateway, rule.obj, rule.label)
            return {}

        interfaces = None if policy.kind == "RedirectionPolicy" else self._interfaces(scope, gateway)
        fields = {"IN": ("iif",), "OUT": ("oif",)}.get(rule.direction, ("iif", "oif"))
        for made in self.translator.rules(policy, rule, presence, actions):
            yield from self._at_interfaces(made, interfaces, gateway, fields)

    # Interfaces

    def _named(self, scope: list[str]) -> set[str]:
        """The paths of a scope, labels resolved."""
        out: set[str] = set()
        for path in scope:
            label = self.catalogue.labels.get(path)
            out |= {path} if label is None else set(Fields(label, "PolicyLabel", path).texts("refs"))
        return out

    def _interfaces(self, scope: list[str], gateway: Gateway) -> frozenset[str] | None:
        """The interfaces of the gateway that a scope is restricted to; None = the whole gateway, also where one of them
        is in no file (the rule is then undecided, wherever packets enter)."""
        if is_any(scope):
            return None
        mine = {p for p in self._named(scope) if p == gateway.path or p.startswith(gateway.path + "/")}
        whole = any("/interfaces/" not in path for path in mine)
        return None if whole or mine - gateway.interfaces.keys() else frozenset(mine)

    def _known_interfaces(self, scope: list[str], gateway: Gateway, obj: Object, label: str) -> None:
        """raises  PolicyError for an interface of this gateway that is in no file"""
        for path in sorted(self._named(scope)):
            mine = path.startswith(gateway.path + "/")
            if mine and "/interfaces/" in path and path not in gateway.interfaces:
                raise PolicyError(
                    f"the interface '{path}' is in no file, so nobody knows which packets take it",
                    where=obj.where("scope"), obj=label, hint="add the answer of .../interfaces to the same load",
                )  # fmt: skip

    def _sides(self, gateway: Gateway) -> NameCodes:
        return NameCodes.of(exact=map(side_text, self.topology.possible_sides(gateway)))

    def _rule_set(self, rules: list[ModelRule], sides: NameCodes) -> RuleSet:
        made = rule_set(rules, self.translator.names)
        made.names |= {name: sides for name in ("iif", "oif") if name in made.fields}
        return made

    def _at_interfaces(
        self, rule: ModelRule, interfaces: frozenset[str] | None, gateway: Gateway, fields: Sequence[str]
    ) -> Iterator[ModelRule]:
        """The rule for packets that pass one of the interfaces, by the given fields; where a packet takes one of
        several and not all are named, undecided. None = the rule as it is."""
        if interfaces is None:
            yield rule
            return
        codes = self._sides(gateway)
        surely, perhaps = ValueSet(), ValueSet()
        for possible in self.topology.possible_sides(gateway):
            if possible <= interfaces:
                surely = surely.union(codes.exact(side_text(possible)))
            elif possible & interfaces:
                perhaps = perhaps.union(codes.exact(side_text(possible)))
        by_field = tuple({name: surely} for name in fields)
        yield replace(rule, alternatives=both_of(rule.alternatives, by_field))
        if perhaps:
            by_field = tuple({name: perhaps} for name in fields)
            alternatives = both_of(rule.alternatives, by_field)
            yield replace(rule, alternatives=alternatives, unknown=(*rule.unknown, _BY_ONE_OF_SEVERAL))

    @staticmethod
    def _scope(policy: Policy, rule: Rule) -> list[str]:
        return rule.scope if is_any(policy.scope) else policy.scope

    def _is_for(self, policy: Policy, rule: Rule, gateway: Gateway) -> bool:
        scope = self._scope(policy, rule)
        if is_any(scope):
            return True
        return any(p == gateway.path or p.startswith(gateway.path + "/") for p in self._named(scope))

    # Findings

    def _lint(self) -> None:
        gateways = self.topology.gateways.values()
        for policy in self.catalogue.gateway_policies:
            if not any(self._is_for(policy, rule, gateway) for rule in policy.rules for gateway in gateways):
                self._not_evaluated("GatewayPolicy", policy.obj, policy.label)
        for policy in self.catalogue.redirection_policies:
            rules = policy.rules if policy.north_south else []
            if rules and not any(self._redirects_at(policy, rule, gateway) for rule in rules for gateway in gateways):
                self._not_evaluated("RedirectionPolicy", policy.obj, policy.label)

    def _not_evaluated(self, kind: str, obj: Object, label: str) -> None:
        self.translator.note(
            Diagnostic(
                "not-evaluated",
                f"{kind}: the gateway that enforces it is in no file, so nobody knows which packets cross it",
                where=obj.where(),
                obj=label,
                hint="add the answers of .../tier-0s and .../tier-1s, and the segments",
                level="note",
            )
        )


def _is_nat64(rule: NatRule) -> bool:
    """One IPv6 network of 96 bits as destination, IPv4 addresses as pool, sources of IPv6."""
    one = len(rule.destination) == len(rule.translated) == 1
    return (
        one
        and rule.destination[0][0] == 6
        and rule.destination[0][1] & 0xFFFFFFFF == 0
        and _size(rule.destination[0]) == 2 ** (128 - _NAT64_PREFIX) - 1
        and rule.translated[0][0] == 4
        and all(version == 6 for version, _, _ in rule.source)
    )


def _nat64(rule: NatRule, made: ModelRule) -> Iterator[tuple[ModelRule, Rewrite]]:
    """The rule for ICMPv6 echo requests, echo replies, other ICMPv6, and all other protocols."""
    if made.unknown:
        yield made, Rewrite({"src_ip": None, "dst_ip": None, "ip_ver": 4})
        return
    pool = rule.translated[0]
    several = frozenset() if pool[1] == pool[2] else frozenset({"src_ip"})
    shift = {"dst_ip": Shift(rule.destination[0][1], 0, 6)}
    common: dict[str, int | None] = {"ip_ver": 4, "src_ip": pool[1]}
    icmp = ValueSet.numbers(58)
    kinds: list[tuple[Match, dict[str, int | None]]] = [
        ({"proto": icmp, "icmp_type": ValueSet.numbers(old)}, {"proto": 1, "icmp_type": new})
        for old, new in _ECHO.items()
    ]
    kinds.append(({"proto": icmp}, {"proto": 1, "icmp_type": None, "icmp_code": None}))
    kinds.append(({}, {"sport": None}))
    for match, values in kinds:
        alternatives = both_of(made.alternatives, (match,)) if match else made.alternatives
        yield replace(made, alternatives=alternatives), Rewrite({**common, **values}, shift, unsure=several)


def _rewrite(rule: NatRule, side: Side) -> Rewrite:
    if rule.action.startswith("NO_"):
        return Rewrite()
    original = rule.source if side == "src" else rule.destination
    translated = rule.translated
    if rule.action == "REFLEXIVE" and side == "dst":
        original, translated = rule.translated, rule.source
    address, port = f"{side}_ip", "sport" if side == "src" else "dport"
    values: dict[str, int | None] = {}
    shifts: dict[str, Shift] = {}
    one = len(translated) == 1
    if one and len(original) == 1 and _size(original[0]) == _size(translated[0]) and original[0][0] == translated[0][0]:
        shifts[address] = Shift(original[0][1], translated[0][1], original[0][0])
    elif one and translated[0][1] == translated[0][2]:
        values[address] = translated[0][1]
        if side == "src":
            values[port] = None  # several sources share the address, so the gateway picks ports
    else:
        values[address] = None
        if side == "src":
            values[port] = None
    if rule.ports is not None and rule.action != "REFLEXIVE":
        values[port] = rule.ports[0] if rule.ports[0] == rule.ports[1] else None
    return Rewrite(values, shifts)


def _size(network: Range) -> int:
    return network[2] - network[1]
