"""From rulesets to layers: one layer a base chain of the hook asked for, in the order in which they run.

Evaluation (nft(8)): at one hook the base chains of all tables run by rising priority. ``accept`` ends its base chain
only; ``drop`` ends everything; so a packet passes if every base chain accepts it, which is how layers combine. Base
chains of equal priority run in an order that the kernel does not define: here that of the input, with a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

from meshsieve.errors import PolicyError
from meshsieve.importers.chains import ChainRule, Jump, Mode, Program, check_calls, unfold
from meshsieve.importers.conditions import TRUE
from meshsieve.importers.iptables.importer import ALL_TABLES, arrival, for_new, hooked, own_addresses, translated
from meshsieve.importers.iptables.path import HostWay, stations
from meshsieve.importers.iptables.rules import reachable
from meshsieve.importers.marks import Resolved, resolve
from meshsieve.importers.nft.json_form import looks_like_json, parse_json
from meshsieve.importers.nft.rules import Known, TableReader
from meshsieve.importers.nft.syntax import HOOKS, Chain, Table, looks_like_nft, parse
from meshsieve.model import Action, NameCodes, RuleSet, Source
from meshsieve.policy import Diagnostic, ImportOptions, ImportResult, Layer, Point, SourceFile, Verdict

# Families whose packets have an IP header that the rules can be held against.
_VERSIONS = {"ip": frozenset({4}), "ip6": frozenset({6}), "inet": frozenset({4, 6})}
# The interface that packets of a hook do not have: its name is empty.
_MISSING_INTERFACE = {"prerouting": "oif", "input": "oif", "ingress": "oif", "output": "iif", "postrouting": "iif"}
_INTERFACE_WORDS = frozenset({"iif", "oif", "iifname", "oifname"})


class NftImporter:
    name = "nft"
    description = "nft list ruleset, as text and as JSON (nft -j)"

    def sniff(self, source: SourceFile) -> bool:
        return looks_like_nft(source.text) or looks_like_json(source.text)

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        """raises  PolicyError naming file, line and column"""
        layers: list[Layer] = []
        diagnostics: list[Diagnostic] = []
        for source in sources:
            reader = _RulesetReader(source, options)
            layers += reader.layers()
            diagnostics += reader.diagnostics
        return ImportResult(tuple(layers), tuple(diagnostics))


class _RulesetReader:
    def __init__(self, source: SourceFile, options: ImportOptions) -> None:
        self.file, self.options = source.name, options
        self.tables = [
            table for table in (parse_json if looks_like_json(source.text) else parse)(source) if not table.dormant
        ]
        self.diagnostics: list[Diagnostic] = []

    def layers(self) -> list[Layer]:
        if self.options.table == ALL_TABLES:
            return self._all_hooks()
        base = [(table, chain) for table in self.tables for chain in table.chains.values() if chain.hook]
        hook = self._hook({chain.hook for table, chain in base if table.family in _VERSIONS})
        judged = [(table, chain) for table, chain in base if chain.hook == hook and table.family in _VERSIONS]
        judged.sort(key=lambda pair: pair[1].priority)
        self._warn(base, judged, hook)
        readers: dict[int, TableReader] = {}
        return [self._layer(table, chain, readers) for table, chain in judged]

    def _all_hooks(self) -> list[Layer]:
        """The base chains of every hook of a packet's way, each hook's by rising priority; NAT rewrites on the way."""
        local = own_addresses(self.options.local_addresses) if self.options.local_addresses else None
        asked = None if self.options.chain == "auto" else self.options.chain.upper()
        base = [(table, chain) for table in self.tables for chain in table.chains.values() if chain.hook]
        readers: dict[int, TableReader] = {}
        layers: list[Layer] = []
        if self._tests_registers:
            layers.append(Layer(f"nft {self.file}", (arrival(),)))
        met: list[tuple[Table, Chain]] = []
        for hook, crossing in {hook: crossing for _, hook, crossing in stations(local, asked)}.items():
            here = [(t, c) for t, c in base if c.hook == hook.lower() and t.family in _VERSIONS]
            here.sort(key=lambda pair: pair[1].priority)
            met += here
            layers += [self._layer(table, chain, readers, crossing) for table, chain in here]
        self._warn(base, met, "")
        if local is None and asked is None:
            self._note("judged-chain", "every packet is taken to be forwarded; give local_addresses, or name a hook")
        return layers

    @cached_property
    def _tests_registers(self) -> bool:
        """Whether some rule speaks of a mark, or of whether a packet was translated."""
        words = {
            w.text for table in self.tables for chain in table.chains.values() for rule in chain.rules for w in rule
        }
        return bool(words & {"mark", "status"})

    def _hook(self, present: set[str]) -> str:
        if self.options.chain != "auto":
            if self.options.chain.lower() not in HOOKS:
                raise PolicyError(f"no hook is called '{self.options.chain}'", hint=f"hooks: {', '.join(HOOKS)}")
            return self.options.chain.lower()
        found = [hook for hook in ("forward", "input", "output") if hook in present]
        hook = found[0] if found else "forward"
        self._note(
            "judged-chain", f"the base chains of hook {hook} judge every packet; option chain names another hook"
        )
        return hook

    def _warn(self, base: list[tuple[Table, Chain]], judged: list[tuple[Table, Chain]], hook: str) -> None:
        if not judged:
            self._note("no-table", f"no base chain of an IP family at hook {hook}; nothing is judged by this file")
        for (a, first), (b, second) in pairwise(judged):
            same = first.hook == second.hook and first.priority == second.priority
            if same and _VERSIONS[a.family] & _VERSIONS[b.family]:
                names = f"{a.name} {first.name} and {b.name} {second.name}"
                self._note("equal-priority", f"{names} have equal priority; which runs first is not defined", "warning")
        elsewhere = ("prerouting", "postrouting", "ingress", "egress")
        for table, chain in base:
            dropping = chain.policy == "drop" or any(w.text in ("drop", "reject") for rule in chain.rules for w in rule)
            if table.family not in _VERSIONS:
                self._note("not-judged", f"family {table.family} is not judged: {table.name} {chain.name}", "warning")
            elif hook and chain.hook in elsewhere and chain.hook != hook and dropping:
                self._note("other-hook-drops", f"{table.name} {chain.name} also drops, at {chain.hook}", "warning")

    def _layer(
        self, table: Table, chain: Chain, readers: dict[int, TableReader], crossing: HostWay | None = None
    ) -> Layer:
        if id(table) not in readers:
            local, _ = own_addresses(self.options.local_addresses)
            own = local if self.options.local_addresses else None
            known = Known(_interface_codes(table), own, self.options.limits, not self.options.strict)
            readers[id(table)] = TableReader(self.file, table, known)
            check_calls(readers[id(table)].program, self.file)
        reader = readers[id(table)]
        chains = reachable(reader.program, [chain.name])
        for name, error in reader.uninterpretable:
            if name in chains:
                if self.options.strict and self.options.mode == "strict":
                    raise error
                self.diagnostics.append(Diagnostic("unsupported", error.message, error.where, error.obj, error.hint))
        idle = sum(
            len(table.chains[name].rules) - reader.deciding.get(name, 0) for name in chains if name in table.chains
        )
        if idle:
            where = f"{table.family} {table.name} {chain.name}"
            self._note("no-verdict", f"{where}: {idle} rules only match, count or log, and decide nothing")
        translates = chain.type == "nat" and self.options.table == ALL_TABLES
        source = Source(self.file, chain.line, f"{table.family} {table.name} {chain.name} policy {chain.policy}")
        policy = Action.ALLOW if chain.policy == "accept" else Action.DROP
        label = f"{chain.name} policy"
        walked = reader.program
        if translates:
            walked = {
                name: [for_new(rule) if rule.source in reader.rewrites else rule for rule in listed]
                for name, listed in walked.items()
            }
        outbound = chain.hook in ("postrouting", "input")
        if translates and self._tests_registers:
            reader_rewrites = {source: translated(rewrite, outbound) for source, rewrite in reader.rewrites.items()}
        else:
            reader_rewrites = reader.rewrites
        program = {
            **hooked(walked, _MISSING_INTERFACE.get(chain.hook), reader.known.codes),
            "": [ChainRule(TRUE, Jump(chain.name), label, source), ChainRule(TRUE, policy, label, source)],
        }
        codes = reader.known.codes
        default = Verdict.ALLOW if policy is Action.ALLOW else Verdict.DROP

        def walked_out(what: Program, mode: Mode, *, with_exits: bool = False) -> tuple[RuleSet, Resolved]:
            resolved = resolve(what, "", with_exits=with_exits, most_rules=self.options.max_rules)
            rules = unfold(
                resolved.program,
                "",
                mode=mode,
                unseen=frozenset(self.options.unseen) | ({"mark"} if mode != "strict" else set()),
                max_rules=self.options.max_rules,
                where=f"{self.file}:{chain.line}",
            )
            marks = resolved.codes if resolved.codes.tests else None
            return RuleSet(rules, names={"iif": codes, "oif": codes}, marks=marks), resolved

        rule_set, _ = walked_out(program, "strict" if translates else self.options.mode)
        point = Point(chain.name, rule_set, default, crossing=crossing, hook=chain.name)
        if translates and policy is Action.ALLOW:
            rewrites = {i: reader_rewrites[s] for i, s in enumerate(rule_set.sources()) if s in reader_rewrites}
            point = replace(point, role="translate", rewrites=rewrites)
        points = [point]
        assigning = any(rule.assigns for name in chains for rule in program.get(name, ()))
        if assigning and self.options.table == ALL_TABLES:
            if chain.type == "nat":  # which only first packets come to
                program = {name: [for_new(rule) for rule in listed] for name, listed in program.items()}
            rule_set, resolved = walked_out(program, "strict", with_exits=True)
            rewrites = {i: resolved.rewrites[s] for i, s in enumerate(rule_set.sources()) if s in resolved.rewrites}
            if rewrites:
                name = f"{chain.name} marks"
                points.append(Point(name, rule_set, default, crossing=crossing, role="translate", rewrites=rewrites,
                                    hook=chain.name))  # fmt: skip
        title = f"nft {table.family} {table.name} {chain.name}"
        return Layer(title, tuple(points), families=_VERSIONS[table.family])

    def _note(self, code: str, message: str, level: Literal["note", "warning"] = "note") -> None:
        self.diagnostics.append(Diagnostic(code, message, self.file, level=level))


def _interface_codes(table: Table) -> NameCodes:
    """Codes for every quoted or plain word that may be an interface name: those of rules that speak of interfaces."""
    names: set[str] = set()
    for chain in table.chains.values():
        for rule in chain.rules:
            if any(word.text in _INTERFACE_WORDS for word in rule):
                names |= {word.text for word in rule}
    for made in table.sets.values():
        names |= {text for element in made.elements for text in element.key}
    return NameCodes.of(
        exact=["", *(n for n in names if not n.endswith("*"))],
        prefixes=(n[:-1] for n in names if n.endswith("*") and n != "*"),
    )
