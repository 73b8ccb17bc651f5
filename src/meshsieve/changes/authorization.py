"""Who may call whom with which method under one mesh policy but not under another.

What    For every workload whose policies differ, every caller and every method, both sides' policies are searched
        together for a request that they answer differently (``authz.matrix.what_changes``): exact. Requests made of
        everything that either side compares with then show the change, and which rules say so.
Limits  A change that none of these requests shows is told without a witness. What cannot be searched (an expression in
        CEL, an Envoy matcher, very many rules) is counted in ``notes``.
Cost    Workloads whose policies are the same on both sides cost one comparison; callers that no rule tells apart share
        an answer; at most ``MAX_TRIED`` requests are tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from meshsieve.authz.authorizer import Authorizer
from meshsieve.authz.matrix import METHODS, NOBODY, Caller, Question, what_changes
from meshsieve.authz.model import Chain
from meshsieve.changes.model import ALLOW, Answer, Change, answer_of, change_kind
from meshsieve.changes.routes import request_words
from meshsieve.mesh.workloads import Workload
from meshsieve.request import Request
from meshsieve.walk.candidates import candidate_requests, serving_ports
from meshsieve.walk.mesh_policy import MeshPolicy
from meshsieve.walk.request_walk import AUTHORIZATION, authorization_verdict

MAX_TRIED = 1_000_000
UNPROTECTED = Answer(ALLOW, AUTHORIZATION, reason="no proxy that could enforce policy")


@dataclass(frozen=True, slots=True)
class _Key:
    """What changes of callers are told together by."""

    destination: str
    kind: str
    old: Answer
    new: Answer
    methods: tuple[str, ...]


class AuthorizationChanges:
    """``found`` gives the changes; ``notes`` then says what was left out or could not be told."""

    def __init__(self, old: MeshPolicy, new: MeshPolicy) -> None:
        self._sides = _Side(old), _Side(new)
        self._tried = 0
        self.notes: list[str] = []

    def found(self) -> Iterator[Change]:
        """By workload in the order of the new side's objects."""
        callers = self._callers()
        unproven = 0
        for name, workload in self._callees():
            one, other = (side.at(name) for side in self._sides)
            if one is None or other is None:
                continue
            if one.enforced == other.enforced:
                continue
            groups: dict[_Key, tuple[list[str], str]] = {}
            for caller in callers:
                changes, proven = self._between(caller, name, workload, one, other)
                unproven += not proven
                for key, witness in changes:
                    groups.setdefault(key, ([], witness))[0].append(caller.name)
            for key, (names, witness) in groups.items():
                what = "requests with " + ", ".join(key.methods)
                yield Change(key.kind, "requests", tuple(names), (name,), what, key.old, key.new, witness)
        if unproven:
            self.notes.append(
                f"{unproven:,} pairs of caller and workload have policies that cannot be compared as a whole; of them "
                "what changes was found by trying requests, and more may change"
            )

    def _callers(self) -> list[Caller]:
        """Service accounts of both sides, and somebody without identity; more addresses are those of the new side."""
        found: dict[str, Caller] = {}
        for side in reversed(self._sides):
            for caller in side.callers():
                found.setdefault(caller.name, caller)
        return [*found.values(), Caller(NOBODY, None, ())]

    def _callees(self) -> list[tuple[str, Workload]]:
        names: dict[str, Workload] = {}
        for side in reversed(self._sides):
            for workload in side.workloads:
                names.setdefault(f"{workload.namespace}/{workload.name}", workload)
        for number, side in enumerate(self._sides):
            others = {f"{w.namespace}/{w.name}" for w in self._sides[1 - number].workloads}
            gone = [f"{w.namespace}/{w.name}" for w in side.workloads if f"{w.namespace}/{w.name}" not in others]
            if gone and others:
                shown = ", ".join(gone[:5]) + (f" and {len(gone) - 5} more" if len(gone) > 5 else "")
                where = ("old", "new")[number]
                self.notes.append(f"only the {where} policies know these workloads, which are not compared: {shown}")
        return list(names.items())

    def _between(
        self, caller: Caller, name: str, workload: Workload, one: _Asked, other: _Asked
    ) -> tuple[list[tuple[_Key, str]], bool]:
        """What changes for one caller, each with a witness; and whether that is known to be all."""
        expected = {method: _expected(one, other, caller, method) for method in METHODS}
        if all(found == frozenset() for found in expected.values()):
            return [], True
        shown: dict[tuple[str, Answer, Answer], dict[str, str]] = {}
        for request in self._requests(caller, workload, one, other):
            answers = one.answer(request), other.answer(request)
            kind = change_kind(*answers)
            if kind is not None:
                methods = shown.setdefault((kind, *answers), {})
                methods.setdefault(request.method, request_words(request))
        out = [
            (_Key(name, kind, before, after, tuple(methods)), next(iter(methods.values())))
            for (kind, before, after), methods in shown.items()
        ]
        for method, unlike in expected.items():
            for outcomes in sorted(unlike or ()):
                before, after = (_SOME[outcome] for outcome in outcomes)
                kind = change_kind(before, after)
                if not any(method in methods for (found, _, _), methods in shown.items() if found == kind):
                    assert kind is not None
                    out.append((_Key(name, kind, before, after, (method,)), ""))
        return out, None not in expected.values()

    def _requests(self, caller: Caller, workload: Workload, one: _Asked, other: _Asked) -> Iterator[Request]:
        services = [*self._sides[1].services, *self._sides[0].services]
        chains = [*one.chains, *other.chains]
        for port in serving_ports(services, workload) or (None,):
            for request in candidate_requests(chains, caller, workload, port):
                self._tried += 1
                if self._tried > MAX_TRIED:
                    note = f"more than {MAX_TRIED:,} requests would have to be tried; the rest was left out"
                    if note not in self.notes:
                        self.notes.append(note)
                    return
                yield request


# What is said of a change that no request shows.
_SOME = {
    True: Answer(ALLOW, AUTHORIZATION, reason="the policies, for some such request"),
    False: Answer("REJECT", AUTHORIZATION, reason="the policies, for some such request"),
}


def _expected(one: _Asked, other: _Asked, caller: Caller, method: str) -> frozenset[tuple[bool, bool]] | None:
    """As ``what_changes``; a side that enforces nothing allows everything."""
    if one.question is not None and other.question is not None:
        return what_changes(one.question, other.question, caller, method)
    question = one.question or other.question
    assert question is not None
    state = question.decide(caller, method).state
    if state == "unknown":
        return None
    return frozenset() if state == "allowed" else frozenset({(one.question is None, other.question is None)})


class _Side:
    def __init__(self, policy: MeshPolicy) -> None:
        self._policy = policy
        authorizer = policy.authorizer
        self.workloads = authorizer.workloads if authorizer is not None else []
        self.services = authorizer.services if authorizer is not None else ()
        self._by_name = {f"{w.namespace}/{w.name}": w for w in self.workloads}

    def callers(self) -> Iterator[Caller]:
        authorizer = self._policy.authorizer
        domain = authorizer.settings.trust_domain if authorizer is not None else ""
        addresses: dict[tuple[str, str], list[str]] = {}
        for w in self.workloads:
            addresses.setdefault((w.namespace, w.service_account), []).extend(w.addresses)
        for (namespace, account), own in addresses.items():
            yield Caller(f"{namespace}/{account}", f"{domain}/ns/{namespace}/sa/{account}", tuple(own))

    def at(self, name: str) -> _Asked | None:
        """The workload's policy on this side; None where the side knows other workloads, but not this one."""
        authorizer, topology = self._policy.authorizer, self._policy.topology
        if authorizer is None or topology is None:
            return _Asked(None, None)
        workload = self._by_name.get(name)
        if workload is None:
            return None if self.workloads else _Asked(None, None)
        place = topology.named(name)
        return _Asked(authorizer, workload) if place.proxy is not None else _Asked(None, None)


class _Asked:
    """One workload's policy on one side; without an authorizer nothing is enforced."""

    def __init__(self, authorizer: Authorizer | None, workload: Workload | None) -> None:
        self._authorizer, self._workload = authorizer, workload

    @property
    def chains(self) -> tuple[Chain, ...]:
        return () if self._authorizer is None else (self._authorizer.chain(self._workload),)

    @cached_property
    def enforced(self) -> object:
        """Equal where the same is enforced."""
        authorizer, workload = self._authorizer, self._workload
        if authorizer is None:
            return None
        place = authorizer.place(workload)
        return (
            authorizer.chain(place),
            authorizer.chain(place, tcp=True),
            authorizer.mtls_modes(place),
            authorizer.token_providers(place),
            authorizer.tcp_ports(place),
            authorizer.settings.http,
        )

    @cached_property
    def question(self) -> Question | None:
        if self._authorizer is None or self._workload is None:
            return None
        place = self._authorizer.place(self._workload)
        assert place is not None
        return Question(self._authorizer, place, self._workload)

    def answer(self, request: Request) -> Answer:
        if self._authorizer is None:
            return UNPROTECTED
        decision = self._authorizer.decide(request, self._workload)
        # What would have to differ is another thing for every request; changes are told together without it.
        return answer_of(authorization_verdict(replace(decision, nearest=None)))
