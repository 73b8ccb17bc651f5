"""Authorization as people use it: build it from a mesh's objects, ask who may do what, and why.

>>> az = from_kubernetes(POLICIES)                                                     # doctest: +SKIP
>>> admin = Request(method="GET", path="/admin", principal="cluster.local/ns/a/sa/b")  # doctest: +SKIP
>>> az.decide(admin, workload="shop/web")                                              # doctest: +SKIP
Decision(allowed=False, action='DENY', by='DENY', status=403, policy='shop/no-admin', ...)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.authz.decision import Decision, mtls_required, unauthenticated
from meshsieve.authz.explain import Explanation, answer, trace
from meshsieve.authz.facts import Facts, is_mtls, is_tls
from meshsieve.authz.generate import Generator, UnknownKey
from meshsieve.authz.jwt import read_jwks
from meshsieve.authz.legacy import LegacyRbac, read_legacy
from meshsieve.authz.model import Action, Chain, Filter, Rule
from meshsieve.authz.peer_authentication import (
    MtlsModes,
    PeerAuthentication,
    mtls_modes,
    read_peer_authentication,
)
from meshsieve.authz.policy import Policy, RuleSpec, read_policies
from meshsieve.authz.reference import Provider
from meshsieve.authz.request_authentication import (
    Keys,
    RequestAuthentication,
    check_tokens,
    read_request_authentication,
)
from meshsieve.authz.request_authentication import (
    Provider as TokenProvider,
)
from meshsieve.authz.rows import decide_rows
from meshsieve.authz.selection import Place, ServiceRef, applies
from meshsieve.authz.service_ports import service_ports
from meshsieve.authz.settings import PATH_NORMALIZATIONS, MeshSettings, PathNormalization, read_settings
from meshsieve.authz.tables import ChainTables, own_attributes
from meshsieve.errors import MeshsieveError, PolicyError, UsageError
from meshsieve.mesh.objects import ISTIO_SECURITY, Objects, ObjectStore, read_objects
from meshsieve.mesh.services import Service, read_services
from meshsieve.mesh.workloads import Workload, find_workload, read_workloads
from meshsieve.policy import Diagnostic
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.http_options import Refusal, encoded, view

WorkloadLike = Place | Workload | Mapping[str, Any] | str | None
_PLACE_FIELDS = {"namespace", "labels", "name", "waypoint", "services"}


class Authorizer:
    """The policies of one mesh, ready to be asked. Made by ``from_kubernetes``.

    rules        name of every rule of every policy, in byte order: what ``decide_batch`` numbers
    diagnostics  what the policies hold that a proxy cannot use
    tables       compiled, made when they are first needed

    Threads: any number may ask at once.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        settings: MeshSettings,
        *,
        peer_authentications: Sequence[PeerAuthentication] = (),
        request_authentications: Sequence[RequestAuthentication] = (),
        jwt_keys: Mapping[str, Keys] | None = None,
        trust_tokens: bool = False,
        workloads: Sequence[Workload] = (),
        services: Sequence[Service] = (),
        legacy: LegacyRbac | None = None,
        diagnostics: Sequence[Diagnostic] = (),
        made: Made | None = None,
    ) -> None:
        self.policies = tuple(policies)
        self.settings = settings
        self.peer_authentications = tuple(peer_authentications)
        self.request_authentications = tuple(request_authentications)
        self.jwt_keys = dict(jwt_keys or {})
        self.trust_tokens = trust_tokens
        self.workloads = list(workloads)
        self.services = tuple(services)
        self.diagnostics = tuple(diagnostics)
        self.legacy = legacy
        self._generator = Generator(settings.trust_domains)
        self._chains: dict[object, Chain] = {}
        self._tcp_ports: dict[object, frozenset[int]] = {}
        self._rules_of: Made = made or {}
        self._in_namespace: dict[str, list[int]] = {}
        for i, policy in enumerate(self.policies):
            self._in_namespace.setdefault(policy.attachment.namespace, []).append(i)
        known = (Place(w.namespace, w.labels, w.name) for w in self.workloads)
        self.tables = ChainTables(self._chain, known, settings.http, settings.trusted_proxies)
        names = {f"{p.title}-rule[{i}]" for p in self.policies for i in range(len(p.rules))}
        for role in legacy.roles if legacy else ():
            names |= {role.rule_name(i) for i in range(len(role.rules))}
        self.rules: tuple[str, ...] = tuple(sorted(names, key=encoded))
        self._index = {name: i for i, name in enumerate(self.rules)}

    def decide(
        self,
        request: Request,
        workload: WorkloadLike = None,
        *,
        tcp: bool = False,
        provider: Provider | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Decision:
        """Whether ``request`` may reach ``workload``.

        workload  ``namespace/name`` of a pod or workload among the objects; a mapping with namespace and labels (and
                  name, waypoint, services); None: every policy is taken to be for it, whatever it selects
        tcp       the port is not read as HTTP: ``request`` stands for a connection. Where services say so of the
                  workload's port (``service_ports``), it need not be said here
        provider  asked (name, rule) for the answer of an external authorizer where a CUSTOM rule matches
        attributes  what conditions may ask beyond the request: {"user": ..., "data": ..., "src": ..., "dst": ...}

        raises    UsageError for a workload that is not known, ModelError for an address that is none
        """
        return self._decide(request, self.place(workload), tcp, provider, attributes)

    def decide_batch(
        self,
        requests: Iterable[Request] | Mapping[str, Any] | RequestColumns | Any,
        workload: WorkloadLike = None,
        *,
        tcp: bool = False,
        threads: int = 1,
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """``decide`` for many requests to one workload.

        requests  ``Request`` objects, or columns as ``RequestColumns.of`` takes them
        threads   at most so many run at once, without the interpreter's lock

        returns  allowed: bool, shape (n,); rule: int32, shape (n,), index into ``self.rules`` of the deciding rule, -1
                 where none matched
        raises   UsageError, ColumnError for columns that do not fit
        """
        columns = RequestColumns.of(requests)
        found = decide_rows(
            self, columns, [self.place(workload)], np.zeros(len(columns), np.int32), tcp=tcp, threads=threads
        )
        return found.allowed, found.rule

    def numbers_of(self, rules: tuple[Rule, ...]) -> npt.NDArray[np.int32]:
        """By a table's rule number, the rule's place in ``rules``; the last, -1, for none."""
        return self.tables.numbers(rules, self._index)

    @property
    def stats(self) -> dict[str, int]:
        """Sizes of the tables made so far, and what bounds the cost of a decision; see ``CompiledChains.stats``."""
        return self.tables.stats

    def chain(self, workload: WorkloadLike = None, *, tcp: bool = False) -> Chain:
        """What the workload enforces, as filters in order."""
        return self._chain(self.place(workload), tcp)

    def place(self, workload: WorkloadLike) -> Place | None:
        """The workload as policies see it.

        raises  UsageError
        """
        if workload is None or isinstance(workload, Place):
            return workload
        if isinstance(workload, str):
            namespace, slash, name = workload.partition("/")
            if not slash:
                raise UsageError(f"workload {workload!r}: write it as namespace/name")
            workload = self._named(namespace, name)
        if isinstance(workload, Place):
            return workload
        if isinstance(workload, Workload):
            return Place(workload.namespace, workload.labels, workload.name)
        if unknown := sorted(set(workload) - _PLACE_FIELDS):
            raise UsageError(
                f"a workload has no field {', '.join(unknown)}; fields: {', '.join(sorted(_PLACE_FIELDS))}"
            )
        services = tuple(s if isinstance(s, ServiceRef) else ServiceRef(**s) for s in workload.get("services") or ())
        return Place(
            workload.get("namespace") or "default",
            dict(workload.get("labels") or {}),
            workload.get("name") or "",
            workload.get("waypoint"),
            services,
        )

    def caller(self, who: str) -> tuple[str, str | None]:
        """The SPIFFE id (without scheme) and, if known, the address of a caller: an id as it is, or of a workload.

        raises  UsageError
        """
        who = who.removeprefix("spiffe://")
        if who.count("/") != 1:
            return who, None
        namespace, _, name = who.partition("/")
        found = find_workload(self.workloads, namespace, name)
        identity = f"{self.settings.trust_domain}/ns/{found.namespace}/sa/{found.service_account}"
        return identity, next(iter(found.addresses), None)

    def _named(self, namespace: str, name: str) -> Place | Workload:
        """A pod or workload, else the pods of a Service of that name."""
        try:
            return find_workload(self.workloads, namespace, name)
        except UsageError:
            service = next((s for s in self.services if (s.namespace, s.name) == (namespace, name)), None)
            if service is None or not service.selector:
                raise
        behind = (w for w in self.workloads if w.namespace == namespace and w.selected_by(service.selector))
        return next(behind, None) or Place(namespace, dict(service.selector), name)

    def mtls_modes(self, workload: WorkloadLike) -> MtlsModes:
        """What the workload's ports take: plain text, mTLS or both. Without a workload: both."""
        place = self.place(workload)
        if place is None:
            return MtlsModes()
        root = self.settings.root_namespace
        return mtls_modes((p for p in self.peer_authentications if p.selects(place, root)), root)

    def tcp_ports(self, place: Place | None) -> frozenset[int]:
        """The workload's ports that its services call TCP."""
        if place is None or not self.services:
            return frozenset()
        found = self._tcp_ports.get(place.key)
        if found is None:
            here = (w for w in self.workloads if w.namespace == place.namespace and w.labels == place.labels)
            named = next((w.ports for w in here), {})
            ports = service_ports(self.services, place.namespace, place.labels, named) or {}
            found = self._tcp_ports[place.key] = frozenset(port for port, tcp in ports.items() if tcp)
        return found

    def token_providers(self, place: Place | None) -> list[TokenProvider]:
        """Whose tokens a workload accepts."""
        root = self.settings.root_namespace
        chosen = (a for a in self.request_authentications if place is None or applies(a.attachment, place, root))
        return [provider for authentication in chosen for provider in authentication.providers]

    def _chain(self, place: Place | None, tcp: bool) -> Chain:
        key = (None if place is None else place.key, tcp)
        found = self._chains.get(key)
        if found is None:
            root = self.settings.root_namespace
            here = [p for p in self._near(place) if place is None or applies(p.attachment, place, root)]
            filters = list(self._filters(here, tcp))
            if self.legacy is not None:
                filters += self.legacy.filters(place, self._service_hosts(place))
            found = self._chains[key] = Chain(tuple(filters), tcp)
        return found

    def _near(self, place: Place | None) -> Iterable[Policy]:
        """The policies of the namespaces that matter to a place."""
        if place is None:
            return self.policies
        namespaces = {self.settings.root_namespace, place.namespace, *(service.namespace for service in place.services)}
        return (self.policies[i] for i in sorted(i for name in namespaces for i in self._in_namespace.get(name, ())))

    def _service_hosts(self, place: Place | None) -> list[str]:
        """Host names of the services that the workload is behind."""
        if place is None:
            return []
        here = (s for s in self.services if s.namespace == place.namespace and s.selector)
        return [s.host for s in here if all(place.labels.get(k) == v for k, v in s.selector.items())]

    def _filters(self, policies: Sequence[Policy], tcp: bool) -> Iterable[Filter]:
        custom = [p for p in policies if p.action is Action.CUSTOM]
        if custom:
            providers = {p.provider for p in custom}
            known = self.settings.extension_providers
            provider = next(iter(providers)) if len(providers) == 1 else None
            yield self._filter(custom, Action.CUSTOM, tcp, provider if known is None or provider in known else None)
        for action in (Action.AUDIT, Action.DENY, Action.ALLOW):
            chosen = [p for p in policies if p.action is action]
            if chosen:
                yield self._filter(chosen, action, tcp)

    def _filter(self, policies: Sequence[Policy], action: Action, tcp: bool, provider: str | None = None) -> Filter:
        in_force, dry_run = (
            tuple(r for p in policies if p.dry_run == dry for r in self._rules(p, tcp))
            if any(p.dry_run == dry for p in policies)
            else None
            for dry in (False, True)
        )
        return Filter(action, in_force, dry_run, prefix=f"{action.value.lower()}_", provider=provider)

    def _rules(self, policy: Policy, tcp: bool) -> tuple[Rule, ...]:
        """Made once, so that workloads share them."""
        found = self._rules_of.get((id(policy), tcp))
        if found is None:
            found = self._rules_of[id(policy), tcp] = tuple(self._generator.rules(policy, tcp=tcp))
        return found

    def explain(
        self,
        request: Request,
        workload: WorkloadLike = None,
        *,
        tcp: bool = False,
        provider: Provider | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Explanation:
        """``decide`` with every rule that the request meets, and what each that does not match lacks."""
        met = self._meet(request, self.place(workload), tcp, attributes)
        if isinstance(met, Decision):
            return Explanation(met, ())
        chain, facts = met
        return Explanation(answer(chain, facts, provider), trace(chain, facts))

    def _decide(
        self,
        request: Request,
        place: Place | None,
        tcp: bool,
        provider: Provider | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Decision:
        met = self._meet(request, place, tcp, attributes)
        if isinstance(met, Decision):
            return met
        chain, facts = met
        table, number = self.tables.find(place, chain.tcp)
        outcome = table.walk(facts.request, provider, chain=number, facts=facts)
        assert not isinstance(outcome, Refusal)
        return answer(chain, facts, provider, outcome)

    def _meet(
        self, request: Request, place: Place | None, tcp: bool, attributes: Mapping[str, Any] | None
    ) -> tuple[Chain, Facts] | Decision:
        """The chain that the request comes to and what it shows there, or the decision made before any policy."""
        if self.peer_authentications:
            modes = self.mtls_modes(place)
            mode = modes.at(request.destination_port)
            if mode == "STRICT" and not is_mtls(request):
                return mtls_required(modes.policy_at(request.destination_port))
            if mode == "DISABLE" and is_tls(request):
                # Nobody terminates the TLS here: it passes as opaque bytes, without identity.
                request, tcp = replace(request, principal=None, tls=None), True
        tcp = tcp or request.destination_port in self.tcp_ports(place)
        seen = None if tcp else view(request, self.settings.http)
        if isinstance(seen, Refusal):
            return Decision(False, "DENY", "bad-request", seen.status, reason=f"the proxy refuses it: {seen.reason}")
        if seen is not None and request.claims is None and self.request_authentications:
            checked = check_tokens(self.token_providers(place), seen, keys=self.jwt_keys, trust=self.trust_tokens)
            if checked.status is not None:
                return unauthenticated(checked.status, checked.reason)
            request = replace(request, claims=checked.claims)
        given = {**own_attributes(place), **(attributes or {})}
        facts = Facts(request, seen, trusted_proxies=self.settings.trusted_proxies, attributes=given)
        return self._chain(place, tcp), facts


def from_kubernetes(
    objects: Objects,
    *,
    root_namespace: str | None = None,
    trust_domain: str | None = None,
    trust_domain_aliases: Sequence[str] | None = None,
    path_normalization: PathNormalization | None = None,
    trusted_proxies: int | None = None,
    extension_providers: Iterable[str] | None = None,
    jwt_keys: Mapping[str, str | Mapping[str, Any]] | None = None,
    trust_tokens: bool = False,
    strict: bool = True,
) -> Authorizer:
    """An authorizer from Kubernetes and Istio objects: paths, text, mappings, or a mix of these.

    What is not given is read from the mesh configuration (ConfigMap ``istio`` in the root namespace), else it is
    Istio's default: istio-system, cluster.local, BASE, 0.

    jwt_keys      JSON Web Key Sets by issuer, for RequestAuthentication that names a place to fetch them from
    trust_tokens  take signatures for good where there is no key to check them with; else such a token is invalid
    strict   refuse policies that Istio refuses at admission because of an unknown condition key; else they count as
             the mesh counts them if they got in: the rule is dropped

    raises   PolicyError naming file, line, object and what to do
    """
    store = read_objects(objects)
    settings = read_settings(store, root_namespace)
    given = {
        "trust_domain": trust_domain,
        "trust_domain_aliases": None if trust_domain_aliases is None else tuple(trust_domain_aliases),
        "path_normalization": path_normalization,
        "trusted_proxies": trusted_proxies,
        "extension_providers": None if extension_providers is None else frozenset(extension_providers),
    }
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    if settings.path_normalization not in PATH_NORMALIZATIONS:
        raise UsageError(f"path normalization is one of {', '.join(PATH_NORMALIZATIONS)}")
    keys = {issuer: read_jwks(jwks) for issuer, jwks in (jwt_keys or {}).items()}
    return from_store(store, settings, jwt_keys=keys, trust_tokens=trust_tokens, strict=strict)


def from_store(
    store: ObjectStore,
    settings: MeshSettings,
    *,
    jwt_keys: Mapping[str, Keys] | None = None,
    trust_tokens: bool = False,
    strict: bool = True,
) -> Authorizer:
    """``from_kubernetes`` for objects and keys that are read already."""
    policies = read_policies(store)
    findings, made = _generated(policies, settings, strict)
    return Authorizer(
        policies,
        settings,
        peer_authentications=[read_peer_authentication(o) for o in store.of("PeerAuthentication", ISTIO_SECURITY)],
        request_authentications=[
            read_request_authentication(o) for o in store.of("RequestAuthentication", ISTIO_SECURITY)
        ],
        jwt_keys=jwt_keys,
        trust_tokens=trust_tokens,
        workloads=read_workloads(store),
        services=read_services(store),
        legacy=read_legacy(store, settings.trust_domains),
        diagnostics=findings,
        made=made,
    )


Made = dict[tuple[int, bool], tuple[Rule, ...]]  # by (id of the policy, for TCP)


def _generated(policies: Sequence[Policy], settings: MeshSettings, strict: bool) -> tuple[list[Diagnostic], Made]:
    """The rules of every policy for HTTP, and what of them no proxy can use."""
    generator = Generator(settings.trust_domains)
    found: list[Diagnostic] = []
    made: Made = {}
    for policy in policies:

        def tell(spec: RuleSpec, error: MeshsieveError, policy: Policy = policy) -> None:
            where = f"{spec.source.file}:{spec.source.line}"
            if strict and isinstance(error, UnknownKey):
                hint = "Istio refuses the policy; correct the key, or read with strict=False to see it as if it got in"
                raise PolicyError(str(error), where=where, obj=spec.source.obj, hint=hint)
            whole = policy.action is Action.ALLOW or isinstance(error, UnknownKey)
            effect = "the whole rule is dropped" if whole else "only this value is dropped: the rule takes more"
            found.append(Diagnostic("unusable-value", f"{error}; {effect}", where=where, obj=spec.source.obj))

        made[id(policy), False] = tuple(generator.rules(policy, tcp=False, dropped=tell))
    return found, made
