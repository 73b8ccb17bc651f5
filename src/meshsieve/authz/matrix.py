"""Who may call whom with which method, from the policies alone: allowed, denied, or depending on the rest of a request.

What    For every caller, callee and method the chain is decided symbolically. What a call between the two fixes
        (identity, addresses, method) is put in; every other field stands for all its values, of which those count as
        different that the policies tell apart (``classes``). A call is *allowed* if every request of that kind is,
        *denied* if none is, else *conditional*, with the fields that it depends on.
Limits  The answer is exact unless it says so: an expression in CEL, an Envoy matcher or a regular expression of unknown
        make counts as true or false at will, and beyond ``MAX_NODES`` combinations (fewer where rules are many) the
        answer is *unknown*.
        Assumed: callers of the mesh use mTLS with their service account; "(no identity)" stands for everybody else.
Cost    A search that stops as soon as a partial choice decides; callers, callees and methods that no rule tells apart
        share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from meshsieve.authz.authorizer import Authorizer
from meshsieve.authz.classes import address_answers, number_answers, set_answers, text_answers
from meshsieve.authz.facts import address
from meshsieve.authz.model import (
    Action,
    Alternatives,
    Chain,
    Clause,
    Condition,
    EnvoyTest,
    Field,
    Filter,
    Group,
    Matcher,
    Rule,
    Test,
)
from meshsieve.authz.peer_authentication import Mode, MtlsModes
from meshsieve.authz.reference import matches
from meshsieve.authz.selection import Place
from meshsieve.authz.service_ports import service_ports
from meshsieve.authz.words import field_text
from meshsieve.mesh.workloads import Workload

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_NODES, MAX_RULES_TESTED, MAX_VARIABLES = 20_000, 500_000, 200
NOBODY = "(no identity)"
State = Literal["allowed", "denied", "conditional", "unknown"]
Core = tuple[Field, tuple[Matcher, ...]]  # a Test without its sign
Variable = tuple[str, ...]
Key = Core | Clause | tuple[str, str] | str  # what has a truth: a core, an opaque clause, a provider's answer, a token
# One choice for a variable: the truth of every key that it decides.
Choice = dict[Key, bool]
PORT_NAME, TOKEN_NAME = "destination.port", "a token"


@dataclass(frozen=True, slots=True)
class Cell:
    """``depends_on``: fields that rules look at which are open for a conditional call. ``exact`` is False where
    something was taken at will."""

    source: str
    destination: str
    method: str
    state: State
    depends_on: tuple[str, ...] = ()
    exact: bool = True

    def to_dict(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "to": self.destination,
            "method": self.method,
            "state": self.state,
            "depends_on": list(self.depends_on),
            "exact": self.exact,
        }


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: principal as in ``Request``, None for somebody without identity; addresses that are known."""

    name: str
    principal: str | None
    addresses: tuple[str, ...]


def matrix(authorizer: Authorizer, methods: Sequence[str] = METHODS) -> Iterator[Cell]:
    """Every caller x callee x method, callees in the order of the objects.

    Callers and callees are the workloads among the objects, one a service account, and callers also ``NOBODY``.
    """
    callers = [*_callers(authorizer), Caller(NOBODY, None, ())]
    for name, workload in _callees(authorizer):
        place = authorizer.place(workload)
        assert place is not None
        question = Question(authorizer, place, workload)
        for caller in callers:
            for method in methods:
                found = question.decide(caller, method)
                yield Cell(caller.name, name, method, found.state, found.depends_on, found.exact)


def _callers(authorizer: Authorizer) -> list[Caller]:
    found: dict[tuple[str, str], list[str]] = {}
    for w in authorizer.workloads:
        found.setdefault((w.namespace, w.service_account), []).extend(w.addresses)
    domain = authorizer.settings.trust_domain
    return [
        Caller(f"{ns}/{account}", f"{domain}/ns/{ns}/sa/{account}", tuple(addresses))
        for (ns, account), addresses in found.items()
    ]


def _callees(authorizer: Authorizer) -> list[tuple[str, Workload]]:
    """Services with the workload behind them, then workloads that no service selects."""
    out, served = [], set()
    for service in authorizer.services:
        behind = [w for w in authorizer.workloads if w.namespace == service.namespace and service.selector]
        for w in (w for w in behind if w.selected_by(service.selector)):
            served.add(id(w))
            alone = sum(1 for o in behind if o.selected_by(service.selector)) == 1
            name = f"{service.namespace}/{service.name}"
            out.append((name if alone else f"{name} ({w.name})", w))
    return out + [(f"{w.namespace}/{w.name}", w) for w in authorizer.workloads if id(w) not in served]


@dataclass(frozen=True, slots=True)
class Answer:
    """A cell without its names."""

    state: State
    depends_on: tuple[str, ...] = ()
    exact: bool = True


@dataclass(frozen=True, slots=True)
class _Ports:
    """Ports of one mTLS mode that are read alike. ``numbers`` None: all but ``without``."""

    mode: Mode
    numbers: tuple[int, ...] | None
    without: tuple[int, ...] = ()
    tcp: bool = False


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Truth of the cores that pair, method and port decide; ``denied``: before any policy."""

    truths: Mapping[Core, bool]
    ports: _Ports
    denied: bool = False
    tcp: bool = False
    addresses: tuple[str, ...] = ()

    @property
    def key(self) -> object:
        return frozenset(self.truths.items()), self.ports, self.denied, self.tcp, self.addresses


def never_allows(authorizer: Authorizer, workload: Workload, chain: Chain) -> bool:
    """Whether no request at all passes a chain at a workload. False where that is not certain."""
    place = authorizer.place(workload)
    assert place is not None
    question = Question(authorizer, place, workload, {False: chain})
    return question.searched(_Fixed({}, _Ports("PERMISSIVE", None))).state == "denied"


class Question:
    """One callee: its chains, and the variables that its rules look at."""

    def __init__(
        self, authorizer: Authorizer, place: Place, workload: Workload, chains: Mapping[bool, Chain] | None = None
    ) -> None:
        self.authorizer = authorizer
        self.place = place
        self.workload = workload
        self.issuers = [p.issuer for p in authorizer.token_providers(place)]
        self.groups = _port_groups(
            authorizer.mtls_modes(place),
            service_ports(authorizer.services, workload.namespace, workload.labels, workload.ports),
        )
        self.known: dict[object, Answer] = {}
        self.chains = chains or {tcp: authorizer.chain(place, tcp=tcp) for tcp in (False, True)}
        self.cores = {tcp: list(dict.fromkeys(_cores(chain))) for tcp, chain in self.chains.items()}

    def decide(self, caller: Caller, method: str) -> Answer:
        """What becomes of calls with a method, over all ports; those of another mTLS mode are asked by themselves."""
        found = [self._decide(self._fixed(caller, method, group)) for group in self.groups]
        states = {answer.state for answer in found}
        exact = all(answer.exact for answer in found)
        depends = dict.fromkeys(name for answer in found for name in answer.depends_on)
        if len(states) == 1:
            return Answer(states.pop(), tuple(depends), exact)
        return Answer("unknown" if "unknown" in states else "conditional", (PORT_NAME, *depends), exact)

    def _fixed(self, caller: Caller, method: str, group: _Ports) -> _Fixed:
        """What the pair, the method and the port's mode decide."""
        if group.mode == "STRICT" and caller.principal is None:
            return _Fixed({}, group, denied=True)
        bare = group.mode == "DISABLE"  # nobody terminates mTLS here: bytes without identity
        tcp = group.tcp or (bare and caller.principal is not None)
        peer = None if caller.principal is None or bare else f"spiffe://{caller.principal}".encode()
        truths: dict[Core, bool] = {}
        for core in self.cores[tcp]:
            field, matchers = core
            if field.kind == "peer":
                truths[core] = peer is not None and any(matches(m, peer) for m in matchers)
            elif field.kind == "method":
                truths[core] = any(matches(m, method.encode()) for m in matchers)
            elif field.kind == "destination_ip" and len(self.workload.addresses) == 1:
                own = address(self.workload.addresses[0], "address")
                truths[core] = own is not None and any(matches(m, own) for m in matchers)
        asked = any(field.kind in ("source_ip", "remote_ip") for field, _ in self.cores[tcp])
        return _Fixed(truths, group, tcp=tcp, addresses=caller.addresses if asked else ())

    def _decide(self, fixed: _Fixed) -> Answer:
        found = self.known.get(fixed.key)
        if found is None:
            found = self.known[fixed.key] = self.searched(fixed)
        return found

    def searched(self, fixed: _Fixed) -> Answer:
        if fixed.denied:
            return Answer("denied")
        truths: dict[Key, bool] = {}
        truths.update(fixed.truths.items())
        chain = _reduced(self.chains[fixed.tcp], truths)
        search = _Search(chain, truths, *self._variables(chain, fixed))
        search.run()
        if search.exhausted:
            return Answer("unknown", (), False)
        if len(search.seen) == 2:
            return Answer("conditional", search.depends_on(), search.exact)
        return Answer("allowed" if True in search.seen else "denied", (), search.exact)

    def compared(
        self, old: Question, new: Question, caller: Caller, method: str, group: _Ports
    ) -> set[tuple[bool, bool]] | None:
        """``what_changes`` at the ports of one group, of a question that has both chains in one."""
        fixed = self._fixed(caller, method, group)
        if fixed.denied:
            return set()
        truths: dict[Key, bool] = {}
        truths.update(fixed.truths.items())
        chains = [_reduced(question.chains[fixed.tcp], truths) for question in (old, new)]
        both = Chain((*chains[0].filters, *chains[1].filters), fixed.tcp)
        search = _JointSearch(chains[0], chains[1], truths, *self._variables(both, fixed))
        search.run()
        known = search.left >= 0 and (search.exact or not search.unlike)
        return search.unlike if known else None

    def _variables(self, chain: Chain, fixed: _Fixed) -> tuple[list[tuple[str, list[Choice]]], bool]:
        """Every free variable of the chain with its choices; whether all of them are exact."""
        by_variable: dict[Variable, list[Core]] = {}
        for core in dict.fromkeys(_cores(chain)):
            if core not in fixed.truths:
                by_variable.setdefault(self._variable(core[0]), []).append(core)
        out: list[tuple[str, list[Choice]]] = []
        exact = True
        for name, cores in by_variable.items():
            shown = field_text(*cores[0])
            choices = self._choices(name, cores, fixed)
            if choices is None:
                exact = False
                out += [(shown, [{core: True}, {core: False}]) for core in cores]
            else:
                out.append((shown, choices))
        for clause in dict.fromkeys(_opaque(chain)):
            exact = False
            out.append(("a condition", [{clause: True}, {clause: False}]))
        for step in chain.filters:
            if step.action is Action.CUSTOM and step.provider is not None and step.rules:
                key = ("provider", step.provider)
                out.append((f"the answer of {step.provider}", [{key: True}, {key: False}]))
        out.sort(key=lambda variable: len(variable[1]))
        claims = [core for name, cores in by_variable.items() if name[0] == "claim" for core in cores]
        if claims and self.issuers:  # without a token there is no claim at all
            out.insert(0, (TOKEN_NAME, [dict.fromkeys(claims, False), {TOKEN_NAME: True}]))
        return out, exact

    def _variable(self, field: Field) -> Variable:
        """Fields that hang together are one variable."""
        match field.kind:
            case "remote_ip" if self.authorizer.settings.trusted_proxies == 0:
                return ("source_ip",)
            case "claim" | "claim_text":
                return ("claim", *field.key)
            case "metadata" | "metadata_list":
                return ("metadata", *field.key)
        return (field.kind, *field.key)

    def _choices(self, name: Variable, cores: list[Core], fixed: _Fixed) -> list[Choice] | None:
        matchers = [m for _, ms in cores for m in ms]
        owners = [i for i, (_, ms) in enumerate(cores) for _ in ms]

        def choices(answers: Iterable[frozenset[int]], seen_by: Sequence[bool] | None = None) -> list[Choice]:
            out: dict[tuple[bool, ...], None] = {}
            for answer in answers:
                true = {owners[i] for i in answer if seen_by is None or seen_by[owners[i]]}
                out[tuple(i in true for i in range(len(cores)))] = None
            return [dict(zip(cores, truths, strict=True)) for truths in out]

        nothing = [frozenset[int]()]
        match name[0]:
            case "destination_port":
                return choices(number_answers(matchers, fixed.ports.numbers, fixed.ports.without))
            case "source_ip" if fixed.addresses:
                held = [address(text, "address") for text in fixed.addresses]
                answers = {frozenset(i for i, m in enumerate(matchers) if matches(m, a)) for a in held if a is not None}
                return choices(answers)
            case "source_ip" | "remote_ip" | "destination_ip":
                return choices(address_answers(matchers))
            case "path" | "host":
                found = text_answers(matchers, "path" if name[0] == "path" else "host")
                return None if found is None else choices(found)
            case "header":
                found = text_answers(matchers, "line")
                lines = None if found is None else set_answers(found)
                return None if lines is None else choices(lines)
        if name[0] == "claim" and not self.issuers:
            return choices(nothing)
        found = text_answers(matchers, "text")
        if found is None:
            return None
        if name == ("claim", "iss"):
            found = _issuer_answers(matchers, self.issuers)
        absent = [] if name == ("claim", "iss") else nothing
        single = [f.kind not in ("metadata_list",) for f, _ in cores]
        listed = [f.kind not in ("claim_text", "metadata", "sni") for f, _ in cores]
        lists = set_answers(found) if any(listed) and name != ("claim", "iss") else set(absent)
        if lists is None:
            return None
        both = {tuple(c.items()): c for c in (*choices(absent), *choices(found, single), *choices(lists, listed))}
        return list(both.values())


def what_changes(old: Question, new: Question, caller: Caller, method: str) -> frozenset[tuple[bool, bool]] | None:
    """Outcomes (under old, under new) that differ for some request with the method: both chains are searched together.

    returns  () if every request is answered alike; None where that is not known
    """
    if old.groups != new.groups or old.issuers != new.issuers:
        return None
    filters = {tcp: (*old.chains[tcp].filters, *new.chains[tcp].filters) for tcp in (False, True)}
    chains = {tcp: Chain(both, tcp) for tcp, both in filters.items()}
    joint = Question(new.authorizer, new.place, new.workload, chains)
    out: set[tuple[bool, bool]] = set()
    for group in joint.groups:
        found = joint.compared(old, new, caller, method, group)
        if found is None:
            return None
        out |= found
    return frozenset(out)


def _issuer_answers(matchers: Sequence[Matcher], issuers: Sequence[str]) -> set[frozenset[int]]:
    """A token that was accepted is of one of the issuers."""
    return {frozenset(i for i, m in enumerate(matchers) if matches(m, issuer.encode())) for issuer in issuers}


class _Search:
    """Tries every choice of every variable until the outcome is decided; ``seen``: outcomes met."""

    def __init__(
        self, chain: Chain, truths: dict[Key, bool], variables: list[tuple[str, list[Choice]]], exact: bool
    ) -> None:
        self.chain = chain
        self.truths = truths
        self.variables = variables
        self.exact = exact
        self.seen: set[bool] = set()
        rules = sum(1 for _ in _enforced(chain))
        self.left = min(MAX_NODES, MAX_RULES_TESTED // (rules + 1)) if len(variables) <= MAX_VARIABLES else -1

    @property
    def exhausted(self) -> bool:
        return self.left < 0 and len(self.seen) < 2

    def run(self, depth: int = 0) -> None:
        self.left -= 1
        if self.left < 0 or len(self.seen) == 2:
            return
        outcome = _chain_allows(self.chain, self.truths)
        if outcome is not None:
            self.seen.add(outcome)
            return
        self.branch(depth)

    def branch(self, depth: int) -> None:
        """Every choice of the next variable."""
        _, choices = self.variables[depth]
        if choices[0].keys() <= self.truths.keys():
            self.run(depth + 1)
            return
        for choice in choices:
            self.truths.update(choice)
            self.run(depth + 1)
            for key in choice:
                del self.truths[key]

    def depends_on(self) -> tuple[str, ...]:
        """The names of variables that have a say where the fixed truths leave the outcome open."""
        names = [name for name, choices in self.variables if len(choices) > 1 and self._matters(choices)]
        return tuple(dict.fromkeys(names))

    def _matters(self, choices: list[Choice]) -> bool:
        keys = set(choices[0])
        return any(key in keys for key in _open_keys(self.chain, self.truths))


class _JointSearch(_Search):
    """The same for two chains at once; ``unlike``: pairs of outcomes that differ."""

    def __init__(
        self, old: Chain, new: Chain, truths: dict[Key, bool], variables: list[tuple[str, list[Choice]]], exact: bool
    ) -> None:
        super().__init__(Chain((*old.filters, *new.filters), old.tcp), truths, variables, exact)
        self.chains = old, new
        self.unlike: set[tuple[bool, bool]] = set()

    def run(self, depth: int = 0) -> None:
        self.left -= 1
        if self.left < 0 or len(self.unlike) == 2:
            return
        before, after = (_chain_allows(chain, self.truths) for chain in self.chains)
        if before is not None and after is not None:
            if before != after:
                self.unlike.add((before, after))
            return
        self.branch(depth)


# --- three-valued evaluation: True, False, None for "not known yet"


def _and(values: Iterable[bool | None]) -> bool | None:
    out: bool | None = True
    for value in values:
        if value is False:
            return False
        out = None if value is None else out
    return out


def _or(values: Iterable[bool | None]) -> bool | None:
    out: bool | None = False
    for value in values:
        if value is True:
            return True
        out = None if value is None else out
    return out


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _clause(clause: Clause, truths: Mapping[Key, bool]) -> bool | None:
    match clause:
        case Test(field, matchers, negated):
            value = truths.get((field, matchers))
        case Group(alternatives, negated):
            value = _alternatives(alternatives, truths)
        case EnvoyTest() | Condition():
            return truths.get(clause)
    return _not(value) if negated else value


def _alternatives(alternatives: Alternatives, truths: Mapping[Key, bool]) -> bool | None:
    return _or(_and(_clause(c, truths) for c in conjunction) for conjunction in alternatives)


def _rule(rule: Rule, truths: Mapping[Key, bool]) -> bool | None:
    return _and((_alternatives(rule.principals, truths), _alternatives(rule.permissions, truths)))


def _step_allows(step: Filter, truths: Mapping[Key, bool]) -> bool | None:
    if step.rules is None or step.action is Action.AUDIT:
        return True
    found = _or(_rule(rule, truths) for rule in step.rules)
    if step.action is Action.ALLOW:
        return found
    if step.action is Action.CUSTOM and step.provider is not None:
        return _or((_not(found), truths.get(("provider", step.provider))))
    return _not(found)


def _reduced(chain: Chain, truths: Mapping[Key, bool]) -> Chain:
    """The chain without rules that cannot match any more."""
    steps = []
    for step in chain.filters:
        rules = None if step.rules is None else tuple(r for r in step.rules if _rule(r, truths) is not False)
        steps.append(Filter(step.action, rules, provider=step.provider))
    return Chain(tuple(steps), chain.tcp)


def _chain_allows(chain: Chain, truths: Mapping[Key, bool]) -> bool | None:
    return _and(_step_allows(step, truths) for step in chain.filters)


# --- what the rules look at


def _clauses(alternatives: Alternatives) -> Iterator[Clause]:
    for conjunction in alternatives:
        for clause in conjunction:
            if isinstance(clause, Group):
                yield from _clauses(clause.alternatives)
            else:
                yield clause


def _enforced(chain: Chain) -> Iterator[Rule]:
    return (r for step in chain.filters if step.action is not Action.AUDIT for r in step.rules or ())


def _all_clauses(rule: Rule) -> Iterator[Clause]:
    yield from _clauses(rule.principals)
    yield from _clauses(rule.permissions)


def _cores(chain: Chain) -> Iterator[Core]:
    return ((c.field, c.matchers) for rule in _enforced(chain) for c in _all_clauses(rule) if isinstance(c, Test))


def _opaque(chain: Chain) -> Iterator[Clause]:
    return (c for rule in _enforced(chain) for c in _all_clauses(rule) if isinstance(c, EnvoyTest | Condition))


def _open_keys(chain: Chain, truths: Mapping[Key, bool]) -> Iterator[Key]:
    """Keys without a truth in rules that are still open."""
    for step in chain.filters:
        if step.action is Action.CUSTOM and step.provider is not None and step.rules:
            yield ("provider", step.provider)
    for rule in _enforced(chain):
        if _rule(rule, truths) is None:
            for clause in _all_clauses(rule):
                key: Key = (clause.field, clause.matchers) if isinstance(clause, Test) else clause
                if key not in truths:
                    yield key


def _port_groups(modes: MtlsModes, ports: Mapping[int, bool] | None) -> list[_Ports]:
    """The workload's ports by what happens before any policy: their mTLS mode, and whether they are read as HTTP."""
    if ports:
        alike: dict[tuple[Mode, bool], list[int]] = {}
        for port, tcp in sorted(ports.items()):
            alike.setdefault((modes.at(port), tcp), []).append(port)
        return [_Ports(mode, tuple(numbers), tcp=tcp) for (mode, tcp), numbers in alike.items()]
    own = [_Ports(mode, (port,)) for port, mode in modes.ports.items()]
    return [_Ports(modes.mode, None, tuple(modes.ports)), *own]
