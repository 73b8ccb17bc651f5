"""From dumps to layers: one layer a file, with one point whose rule list is the unfolded walk of the chains asked for.

Which chain judges a packet depends on who is local: INPUT for packets to the host, OUTPUT for its own, FORWARD for the
rest. With ``local_addresses`` the rule list begins with a dispatch that says so; a packet of the host to itself passes
OUTPUT and then INPUT. Without, one chain is judged and a diagnostic says which. In INPUT a packet has no outgoing
interface, in OUTPUT no incoming one; the kernel compares with an empty name there, so ``! -o eth0`` holds in INPUT.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

from meshsieve.errors import PolicyError
from meshsieve.importers.chains import ChainRule, Jump, Mode, Program, check_calls, unfold
from meshsieve.importers.conditions import FALSE, TRUE, conjunction, constraint, with_value
from meshsieve.importers.iptables import ipset
from meshsieve.importers.iptables.meaning import (
    BROADCAST_MAC,
    GROUP_MACS,
    Context,
    interface_pattern,
    nat_test_of,
)
from meshsieve.importers.iptables.names import NAT_STATES
from meshsieve.importers.iptables.path import HostWay, stations
from meshsieve.importers.iptables.rules import TableReader, reachable
from meshsieve.importers.iptables.syntax import BUILT_IN_CHAINS, Chain, Dump, Table, looks_like_dump, parse
from meshsieve.importers.marks import Resolved, resolve
from meshsieve.model import Action, MarkCodes, NameCodes, Rule, RuleSet, Source, ValueSet
from meshsieve.policy import Diagnostic, ImportOptions, ImportResult, Layer, Point, Rewrite, SourceFile, Verdict

ALL_TABLES = "all"
NEW = 1  # ct_state: NAT tables see the first packet of a connection only

# The interface that packets of a chain do not have.
_MISSING_INTERFACE = {"PREROUTING": "oif", "INPUT": "oif", "OUTPUT": "iif", "POSTROUTING": "iif"}
_LOOPBACK = ("127.0.0.0/8", "::1")
_MULTICAST = ValueSet.addresses(["224.0.0.0/4", "ff00::/8"])


class IptablesImporter:
    name = "iptables"
    description = "iptables-save and ip6tables-save dumps, with ipset save files"

    def sniff(self, source: SourceFile) -> bool:
        return looks_like_dump(source.text) or ipset.looks_like_ipset(source.text)

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        """One layer a dump that has the table asked for; ipset files are content for the rules that match sets.

        raises  PolicyError naming file, line and column
        """
        sets = ipset.parse(s for s in sources if ipset.looks_like_ipset(s.text))
        layers: list[Layer] = []
        diagnostics: list[Diagnostic] = []
        for source in sources:
            if not ipset.looks_like_ipset(source.text):
                judge = _DumpReader(parse(source), options, sets)
                layers.extend(judge.layers())
                diagnostics.extend(judge.diagnostics)
        return ImportResult(tuple(layers), tuple(diagnostics))


class _DumpReader:
    def __init__(self, dump: Dump, options: ImportOptions, sets: Mapping[str, ipset.IpSet]) -> None:
        self.dump, self.options, self.sets = dump, options, sets
        self.diagnostics: list[Diagnostic] = []

    def layers(self) -> list[Layer]:
        if self.options.table not in (*BUILT_IN_CHAINS, ALL_TABLES):
            known = ", ".join((*BUILT_IN_CHAINS, ALL_TABLES))
            raise PolicyError(f"no table is called '{self.options.table}'", hint=f"tables: {known}")
        program = f"ip{6 if self.family == 6 else ''}tables"
        if self.options.table == ALL_TABLES:
            points = self._all_points()
        else:
            self._warn_of_other_tables()
            table = self.dump.tables.get(self.options.table)
            if table is None:
                self._note("no-table", f"there is no table {self.options.table}; nothing is judged by this file")
                return []
            context = self._context(table)
            reader = TableReader(self.dump.file, table, context)
            points = [*self._nat_before(table), self._point(table, reader, context)]
        name = f"{program} {self.options.table} {self.dump.file}"
        return [Layer(name, tuple(points), families=frozenset({self.family}))] if points else []

    @cached_property
    def family(self) -> int:
        return _family(self.dump)

    @cached_property
    def local(self) -> tuple[ValueSet, ValueSet] | None:
        """The host's own addresses and its broadcast addresses, if given."""
        return own_addresses(self.options.local_addresses) if self.options.local_addresses else None

    def _context(self, table: Table) -> Context:
        own, broadcast = self.local or (None, None)
        interfaces = _interface_codes(table)
        return Context(
            self.family,
            interfaces,
            own,
            broadcast,
            self.sets,
            self.options.limits,
            lenient=not self.options.strict,
            macs=_mac_codes(table),
        )

    # Several tables

    def _all_points(self) -> list[Point]:
        """Every table in the order of the hooks: who is local decides which chains a packet meets (path.py)."""
        points: list[Point] = []
        if self._tests_registers:
            points.append(arrival())
        asked = None if self.options.chain == "auto" else self.options.chain
        for name, hook, crossing in stations(self.local, asked):
            table = self.dump.tables.get(name)
            if table is not None and hook in table.chains:
                points += self._station(table, hook, crossing)
        if self.local is None and asked is None:
            self._note(
                "judged-chain",
                "every packet is taken to be forwarded",
                hint="give local_addresses, or ask for INPUT or OUTPUT with the option chain",
            )
        return points

    def _nat_before(self, table: Table) -> list[Point]:
        """Destination NAT before the table asked for, if the option with_nat asks for it."""
        nat = self.dump.tables.get("nat")
        if not self.options.with_nat or nat is None or table.name == "nat":
            return []
        asked = None if self.options.chain == "auto" else self.options.chain
        return [
            point
            for name, hook, crossing in stations(self.local, asked)
            if name == "nat" and hook in ("PREROUTING", "OUTPUT") and hook in nat.chains
            for point in self._station(nat, hook, crossing)
        ]

    @cached_property
    def _tests_registers(self) -> bool:
        """Whether some rule tests a mark, or whether a packet was translated."""
        return any(
            option.name in ("mark", "connmark") or nat_test_of(option) is not None
            for table in self.dump.tables.values()
            for chain in table.chains.values()
            for rule in chain.rules
            for option in rule.options
        )

    def _station(self, table: Table, hook: str, crossing: HostWay | None) -> list[Point]:
        """The points of one chain of one table: its verdict or translation, and what it does to registers."""
        context = self._context(table)
        reader = TableReader(self.dump.file, table, context)
        check_calls(reader.program, f"{self.dump.file}:{table.line}")
        self._report(reader, reachable(reader.program, [hook]))
        title = f"{table.name} {hook}"
        chain = table.chains[hook]
        program = self._hooked(reader, chain)
        points = [self._verdicts(title, reader, chain, program, crossing)]
        if any(rule.assigns for name in reachable(program, ["policy"]) for rule in program[name]):
            if table.name == "nat":  # which only first packets come to
                program = {name: [for_new(rule) for rule in rules] for name, rules in program.items()}
            resolved = resolve(program, "policy", with_exits=True, most_rules=self.options.max_rules)
            rules = self._unfolded(resolved, chain, context, "strict")
            rewrites = {i: resolved.rewrites[s] for i, s in enumerate(rules.sources()) if s in resolved.rewrites}
            if rewrites:
                name = f"{title} marks"
                points.append(Point(name, rules, crossing=crossing, role="translate", rewrites=rewrites, hook=title))
        return [point for point in points if point.role == "filter" or point.rewrites]

    def _verdicts(
        self, title: str, reader: TableReader, chain: Chain, program: Program, crossing: HostWay | None
    ) -> Point:
        context = reader.context
        if reader.table.name != "nat":
            resolved = resolve(program, "policy", most_rules=self.options.max_rules)
            rules = self._unfolded(resolved, chain, context, self.options.mode)
            return Point(title, rules, _default([chain]), crossing=crossing, hook=title)
        own = self.local[0].v4 if self.local and self.family == 4 else self.local[0].v6 if self.local else ()
        loopback = ValueSet.addresses(_LOOPBACK)
        mine = [low for low, high in own if low == high and not loopback.contains(low, self.family)]
        outbound = chain.name in ("POSTROUTING", "INPUT")
        translations = reader.nat_rewrites(mine, outbound)
        if self._tests_registers:
            translations = {s: translated(rewrite, outbound) for s, rewrite in translations.items()}
        program = {
            name: [for_new(rule) if rule.source in translations else rule for rule in rules]
            for name, rules in program.items()
        }
        rules = self._unfolded(resolve(program, "policy", most_rules=self.options.max_rules), chain, context, "strict")
        rewrites = {i: translations[source] for i, source in enumerate(rules.sources()) if source in translations}
        return Point(title, rules, crossing=crossing, role="translate", rewrites=rewrites, hook=title)

    def _hooked(self, reader: TableReader, chain: Chain) -> Program:
        """The program of one built-in chain from chain "policy" on."""
        program = hooked(reader.program, _MISSING_INTERFACE.get(chain.name), reader.context.interfaces)
        return {**program, **_with_policy(reader, chain, "")}

    def _unfolded(self, resolved: Resolved, chain: Chain, context: Context, mode: Mode) -> RuleSet:
        """The walk of one built-in chain to its policy, as one list."""
        rules = unfold(
            resolved.program,
            "policy",
            mode=mode,
            unseen=self._unseen,
            max_rules=self.options.max_rules,
            where=f"{self.dump.file}:{chain.line}",
        )
        return _rule_set(rules, context, resolved.codes)

    @property
    def _unseen(self) -> frozenset[str]:
        """Nobody tells a capture's packets the mark, so bounds take it as unknown."""
        return frozenset(self.options.unseen) | ({"mark"} if self.options.mode != "strict" else set())

    # One table

    def _point(self, table: Table, reader: TableReader, context: Context) -> Point:
        check_calls(reader.program, f"{self.dump.file}:{table.line}")
        chains = self._chains_asked(table)
        if len(chains) > 1:
            program, start, name = _dispatch(chains, reader, context), "", "+".join(c.name for c in chains)
        else:
            chain = chains[0]
            missing = _MISSING_INTERFACE.get(chain.name) if chain.policy is not None else None
            program, start, name = hooked(reader.program, missing, context.interfaces), chain.name, chain.name
            if chain.policy is not None:
                program, start = {**program, **_with_policy(reader, chain, "")}, "policy"
        resolved = resolve(program, start, most_rules=self.options.max_rules)
        roots = [chain.name for chain in chains]
        self._report(reader, reachable(reader.program, roots))
        rules = unfold(
            resolved.program,
            start,
            mode=self.options.mode,
            unseen=self._unseen,
            max_rules=self.options.max_rules,
            where=f"{self.dump.file}:{table.line}",
        )
        return Point(name, _rule_set(rules, context, resolved.codes), _default(chains))

    def _chains_asked(self, table: Table) -> list[Chain]:
        built_in = [table.chains[name] for name in BUILT_IN_CHAINS[table.name]]
        if self.options.chain != "auto":
            if self.options.chain not in table.chains:
                known = ", ".join(table.chains)
                raise PolicyError(
                    f"table {table.name} has no chain '{self.options.chain}'",
                    where=f"{self.dump.file}:{table.line}",
                    hint=f"chains: {known}",
                )
            return [table.chains[self.options.chain]]
        if self.options.local_addresses and {"INPUT", "FORWARD", "OUTPUT"} <= table.chains.keys():
            return [table.chains[name] for name in ("INPUT", "FORWARD", "OUTPUT")]
        candidates = [chain for chain in built_in if chain.declared] or built_in
        chosen = next((c for c in candidates if c.name == "FORWARD"), candidates[0])
        self._note(
            "judged-chain",
            f"chain {chosen.name} of table {table.name} judges every packet",
            hint="ask for another with the option chain, or give local_addresses to choose by who is local",
        )
        return [chosen]

    def _report(self, reader: TableReader, chains: frozenset[str]) -> None:
        """Raise or list what could not be interpreted in these chains, and count the rules that decide nothing."""
        for chain, error in reader.uninterpretable:
            if chain not in chains:
                continue
            if self.options.strict and self.options.mode == "strict":
                raise error
            self.diagnostics.append(
                Diagnostic("unsupported", error.message, error.where, error.obj, error.hint, level="warning")
            )
        self.diagnostics += _host_bits(reader, chains)
        without = Counter(target for chain, target in reader.without_verdict if chain in chains)
        if without:
            listed = ", ".join(f"{target} {count}" for target, count in sorted(without.items()))
            self._note("no-verdict", f"rules that only count, log or mark, and decide nothing: {listed}")

    def _warn_of_other_tables(self) -> None:
        for name, table in self.dump.tables.items():
            dropping = [
                chain.name
                for chain in table.chains.values()
                if chain.policy == "DROP" or any(rule.target in ("DROP", "REJECT") for rule in chain.rules)
            ]
            if name != self.options.table and dropping:
                self.diagnostics.append(
                    Diagnostic(
                        "other-table-drops",
                        f"table {name} also drops packets, in {', '.join(dropping)}; it is not judged",
                        f"{self.dump.file}:{table.line}",
                        hint="ask for it with the option table",
                    )
                )

    def _note(self, code: str, message: str, hint: str = "") -> None:
        self.diagnostics.append(Diagnostic(code, message, self.dump.file, hint=hint, level="note"))


def hooked(program: Program, missing: str | None, interfaces: NameCodes) -> Program:
    """The program for packets that lack the interface ``missing`` ("iif", "oif"): there its name is empty."""
    if missing is None:
        return program
    nameless = interfaces.code("")
    return {
        name: [replace(rule, condition=with_value(rule.condition, missing, nameless)) for rule in rules]
        for name, rules in program.items()
    }


def for_new(rule: ChainRule) -> ChainRule:
    """The rule for first packets of connections, which alone come to table nat."""
    return replace(rule, condition=conjunction(rule.condition, constraint(ct_state=ValueSet.numbers(NEW))) or FALSE)


def arrival() -> Point:
    """A packet comes with mark 0, and the first of a connection with a new entry in the table of connections."""
    new = {"ct_state": ValueSet.numbers(NEW)}
    rules = RuleSet([Rule(new, name="first packet: marks are 0"), Rule(name="the packet's mark is 0")])
    every = {"mark": 0, "ct_mark": 0, "ct_nat": 0}
    rewrites = {0: Rewrite(defaults=every), 1: Rewrite(defaults={"mark": 0})}
    return Point("arrival", rules, role="translate", rewrites=rewrites)


def translated(rewrite: Rewrite, outbound: bool) -> Rewrite:
    """The translation with its trace in the connection's state."""
    bit = NAT_STATES["SNAT" if outbound else "DNAT"]
    bits = {"ct_nat": (bit, (("ct_nat", 0xFFFFFFFF & ~bit),))}
    return replace(rewrite, bits=bits, choices=tuple(replace(choice, bits=bits) for choice in rewrite.choices))


def _with_policy(reader: TableReader, chain: Chain, prefix: str) -> Program:
    """A chain ``policy``: walk ``chain``; RETURN and the end of it lead to its policy."""
    source = Source(reader.file, chain.line, f"{reader.table.name}/{chain.name} policy {chain.policy}")
    verdict = Action.ALLOW if chain.policy == "ACCEPT" else Action.DROP
    name = f"{chain.name} policy"
    return {
        f"{prefix}policy": [
            ChainRule(TRUE, Jump(prefix + chain.name), name, source),
            ChainRule(TRUE, verdict, name, source),
        ]
    }


def _dispatch(chains: Sequence[Chain], reader: TableReader, context: Context) -> Program:
    """The program that begins in chain "": it sends each packet where the kernel would."""
    program: dict[str, Sequence[ChainRule]] = {}
    for chain in chains:
        chains_here = hooked(reader.program, _MISSING_INTERFACE.get(chain.name), context.interfaces)
        program |= _renamed({**chains_here, **_with_policy(reader, chain, "")}, f"{chain.name}: ")
        if chain.name == "OUTPUT":  # to the host itself: what OUTPUT accepts, INPUT still judges
            looped = _renamed({**chains_here, **_with_policy(reader, chain, "")}, "loopback: ")
            program |= {
                name: [
                    replace(rule, verdict=Jump("INPUT: policy", goto=True)) if rule.verdict is Action.ALLOW else rule
                    for rule in rules
                ]
                for name, rules in looped.items()
            }
    assert context.local is not None
    assert context.broadcast is not None
    own = context.local
    to_host = own.union(context.broadcast, _MULTICAST)
    not_own = own.complement("src_ip")
    ways = (
        (constraint(src_ip=own, dst_ip=own), "loopback"),
        (constraint(src_ip=own), "OUTPUT"),
        (constraint(src_ip=not_own, dst_ip=to_host), "INPUT"),
        (TRUE, "FORWARD"),
    )
    source = Source(reader.file, reader.table.line, f"table {reader.table.name}")
    program[""] = [
        ChainRule(condition, Jump(f"{way}: policy", goto=True), f"to {way}", source) for condition, way in ways
    ]
    return program


def _renamed(program: Program, prefix: str) -> Program:
    def verdict_of(rule: ChainRule) -> ChainRule:
        if not isinstance(rule.verdict, Jump):
            return rule
        return replace(rule, verdict=replace(rule.verdict, chain=prefix + rule.verdict.chain))

    return {prefix + name: [verdict_of(rule) for rule in rules] for name, rules in program.items()}


def _default(chains: Sequence[Chain]) -> Verdict:
    """Only a chain that users made can be left without a verdict: built-in ones end with their policy."""
    policies = {"ACCEPT": Verdict.ALLOW, "DROP": Verdict.DROP, None: Verdict.NO_MATCH}
    return policies[chains[0].policy] if len(chains) == 1 else Verdict.DROP


def _interface_codes(table: Table) -> NameCodes:
    patterns = [
        interface_pattern(option)
        for chain in table.chains.values()
        for rule in chain.rules
        for option in rule.options
        if option.name in ("in-interface", "out-interface")
    ]
    # The empty name is what the kernel compares with where a packet has no such interface.
    return NameCodes.of(
        exact=["", *(name for name, is_prefix in patterns if not is_prefix)],
        prefixes=(name for name, is_prefix in patterns if is_prefix and name),
    )


def _rule_set(rules: Sequence[Rule], context: Context, marks: MarkCodes) -> RuleSet:
    names = dict.fromkeys(("iif", "oif"), context.interfaces)
    if context.macs.cuts:
        names |= dict.fromkeys(("src_mac", "dst_mac"), context.macs)
    return RuleSet(rules, names=names, marks=marks if marks.tests else None)


def _mac_codes(table: Table) -> NameCodes:
    options = [o for chain in table.chains.values() for rule in chain.rules for o in rule.options]
    macs = {o.arguments[0].lower() for o in options if o.name == "mac-source"}
    if any(o.name == "pkt-type" for o in options):
        return NameCodes.of(exact=[*macs, BROADCAST_MAC], prefixes=GROUP_MACS)
    return NameCodes.of(exact=macs)


def _host_bits(reader: TableReader, chains: frozenset[str]) -> Iterator[Diagnostic]:
    """Addresses with bits below their mask, which the kernel does not look at."""
    for name in sorted(chains & reader.table.chains.keys()):
        for rule in reader.table.chains[name].rules:
            for option in rule.options:
                if option.name not in ("source", "destination") or "/" not in option.arguments[0]:
                    continue
                for text in option.arguments[0].split(","):
                    with suppress(ValueError):
                        given = ipaddress.ip_interface(text)
                        if given.ip != given.network.network_address:
                            yield Diagnostic(
                                "host-bits",
                                f"{text} has bits below its mask; it means {given.network}",
                                f"{reader.file}:{rule.line}:{option.column}",
                            )


def own_addresses(texts: Sequence[str]) -> tuple[ValueSet, ValueSet]:
    """(the host's own addresses with loopback, its broadcast addresses)"""
    own, broadcast = list(_LOOPBACK), ["255.255.255.255"]
    for text in texts:
        try:
            interface = ipaddress.ip_interface(text)
        except ValueError:
            raise PolicyError(f"local address '{text}' is not an address") from None
        own.append(str(interface.ip))
        if interface.version == 4 and interface.network.prefixlen < 31:
            broadcast.append(str(interface.network.broadcast_address))
    return ValueSet.addresses(own), ValueSet.addresses(broadcast)


def _family(dump: Dump) -> int:
    """The family that the header names; else that of the addresses; else 6 if only matches of ip6tables appear."""
    if dump.generator_family is not None:
        return dump.generator_family
    found: dict[int, int] = {}
    hints_of_6 = False
    for table in dump.tables.values():
        for chain in table.chains.values():
            for rule in chain.rules:
                hints_of_6 |= rule.extra.startswith("--reject-with icmp6-")
                for option in rule.options:
                    hints_of_6 |= option.name == "icmpv6-type"
                    if option.name in ("source", "destination", "src-range", "dst-range"):
                        found.setdefault(6 if ":" in option.arguments[0] else 4, rule.line)
    if len(found) == 2:
        raise PolicyError(
            f"holds IPv4 addresses (line {found[4]}) and IPv6 addresses (line {found[6]})",
            where=dump.file,
            hint="a dump is of iptables or of ip6tables; split the file",
        )
    return next(iter(found), 6 if hints_of_6 else 4)
