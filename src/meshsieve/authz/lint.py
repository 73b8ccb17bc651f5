"""What authorization policies say and do not do: selectors without workloads, identities that may be absent, rules that
nothing can reach.

Kinds follow Kiali's and istioctl's checks of the same objects. A check that needs to know the cluster (workloads,
namespaces, services) is left out where the objects hold none of that kind: absence of knowledge is no finding.
Source: kiali models/istio_validation.go (KIA01xx, KIA13xx); istio pkg/config/analysis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from meshsieve.authz.authorizer import Authorizer, from_store
from meshsieve.authz.classes import text_answers
from meshsieve.authz.generate import is_known_key, path_matcher
from meshsieve.authz.matrix import never_allows
from meshsieve.authz.model import Action, Chain, Filter, Rule
from meshsieve.authz.path_template import is_template
from meshsieve.authz.policy import DRY_RUN, Attachment, Policy, RuleSpec
from meshsieve.authz.selection import Place
from meshsieve.authz.settings import read_settings
from meshsieve.errors import MeshsieveError
from meshsieve.mesh.names import covers
from meshsieve.mesh.objects import CORE, ISTIO_NETWORKING, ISTIO_SECURITY, MeshObject, ObjectStore
from meshsieve.mesh.workloads import Workload
from meshsieve.model import Source
from meshsieve.policy import Diagnostic
from meshsieve.routes.http_options import METHODS

MAX_RULES_COMPARED = 60  # of one workload; pairs of rules are compared
IDENTITY = ("principals", "namespaces", "serviceAccounts", "trustDomains")
IDENTITY_KEYS = frozenset({"source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain"})
_GO_BOOLS = frozenset("1 t T true TRUE True 0 f F false FALSE False".split())  # noqa: SIM905
_KINDS = ("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication")
_UNRESERVED_CODE = re.compile(r"%(4[1-9A-Fa-f]|5[0-9Aa]|6[1-9A-Fa-f]|7[0-9Aa]|3[0-9]|2[DdEe]|5[Ff]|7[Ee])")


def lint_authorization(store: ObjectStore) -> list[Diagnostic]:
    """Findings about the security objects of a cluster, in the order of the checks below; one that cannot be read is a
    finding of its own."""
    if not any(store.of(kind, ISTIO_SECURITY) for kind in _KINDS):
        return []
    try:
        authorizer = from_store(store, read_settings(store, None), strict=False)
    except MeshsieveError as error:
        message = f"{getattr(error, 'message', error)}: authorization was not looked at"
        where, obj, hint = (getattr(error, name, "") for name in ("where", "obj", "hint"))
        return [Diagnostic("refused-object", message, where, obj, hint, "error")]
    mesh = _Mesh(store, authorizer)
    out = list(authorizer.diagnostics)
    for check in CHECKS:
        out += check(mesh)
    return out


@dataclass(frozen=True)
class _Mesh:
    store: ObjectStore
    az: Authorizer

    @property
    def places(self) -> list[Place]:
        return [Place(w.namespace, w.labels, w.name) for w in self.az.workloads]

    def places_of(self, attachment: Attachment) -> list[Place]:
        """Workloads that a selector takes, waypoints included."""
        root = self.az.settings.root_namespace
        return [
            place
            for place in self.places
            if attachment.namespace in (root, place.namespace)
            and all(place.labels.get(k) == v for k, v in (attachment.selector or {}).items())
        ]

    def rules(self, *actions: Action) -> Iterator[tuple[Policy, RuleSpec]]:
        for policy in self.az.policies:
            if not actions or policy.action in actions:
                for rule in policy.rules:
                    if rule is not None:
                        yield policy, rule


def _finding(code: str, message: str, source: Source, hint: str = "", *, note: bool = False) -> Diagnostic:
    where = f"{source.file}:{source.line}" if source.line is not None else source.file
    return Diagnostic(code, message, where, source.obj, hint, "note" if note else "warning")


# --- which workloads


def no_match_selector(mesh: _Mesh) -> Iterator[Diagnostic]:
    if not mesh.places:
        return
    for kind in _KINDS:
        for obj in mesh.store.of(kind, ISTIO_SECURITY):
            labels = _selector(obj)
            root = obj.namespace == mesh.az.settings.root_namespace
            if kind == "PeerAuthentication" and labels and root:
                message = "a PeerAuthentication of the root namespace that has a selector is ignored"
                yield _finding("root-selector-ignored", message, obj.source)
            elif labels and not mesh.places_of(Attachment(obj.namespace, obj.name, labels, ())):
                yield _finding("no-match-selector", "its selector takes none of the workloads", obj.source)


def selector_on_waypoint(mesh: _Mesh) -> Iterator[Diagnostic]:
    for policy in mesh.az.policies:
        chosen = mesh.places_of(policy.attachment) if policy.attachment.selector else []
        if any(place.is_waypoint for place in chosen):
            message = "it selects a waypoint by labels, and waypoints look at targetRefs only"
            yield _finding(
                "selector-on-waypoint", message, policy.source, "name the waypoint or a service in targetRefs"
            )


def several_peer_authentications(mesh: _Mesh) -> Iterator[Diagnostic]:
    levels: dict[str, list[MeshObject]] = {}
    for obj in mesh.store.of("PeerAuthentication", ISTIO_SECURITY):
        if not _selector(obj):
            levels.setdefault(obj.namespace, []).append(obj)
    for namespace, found in levels.items():
        level = "mesh" if namespace == mesh.az.settings.root_namespace else "namespace"
        oldest = min(found, key=lambda o: o.created)
        for obj in found:
            if obj is not oldest:
                message = f"a second policy at {level} level: {oldest.title} is older and counts"
                yield _finding("several-peer-authentications", message, obj.source)


def not_covered(mesh: _Mesh) -> Iterator[Diagnostic]:
    for workload, place in zip(mesh.az.workloads, mesh.places, strict=True):
        steps = mesh.az.chain(place).filters
        source = workload.object.source if workload.object else Source()
        if not steps:
            yield _finding("not-covered", "no authorization policy is for this workload", source, note=True)
        allow = [s for s in steps if s.action is Action.ALLOW and s.rules is not None]
        if allow and not any(rule.permissions and rule.principals for step in allow for rule in step.rules or ()):
            message = "ALLOW policies are in force and none of their rules can match: everything is denied"
            yield _finding("denies-all", message, source, note=True)


def dead_rules(mesh: _Mesh) -> Iterator[Diagnostic]:
    """ALLOW rules that DENY rules cover completely, and those that another ALLOW rule covers. Certain findings only."""
    seen: set[tuple[str, str]] = set()
    for workload, place in zip(mesh.az.workloads, mesh.places, strict=True):
        steps = {step.action: step.rules or () for step in mesh.az.chain(place).filters}
        allows, denies = steps.get(Action.ALLOW, ()), steps.get(Action.DENY, ())
        if len(allows) + len(denies) > MAX_RULES_COMPARED:
            continue
        for rule in allows:
            others = [o for o in allows if o is not rule and (rule.name, o.name) not in seen]
            for code, by in (("allow-rule-dead", denies), *(("allow-rule-subsumed", (o,)) for o in others)):
                if by and _covered(mesh, workload, rule, by):
                    named = by[0].name if len(by) == 1 else "DENY rules together"
                    if (rule.name, code) not in seen:
                        message = f"{rule.name} allows nothing at {place} that {named} does not cover"
                        yield _finding(code, message, rule.source)
                    seen |= {(rule.name, code), *((o.name, rule.name) for o in by)}
                    break


def _covered(mesh: _Mesh, workload: Workload, rule: Rule, by: tuple[Rule, ...]) -> bool:
    """Whether a rule takes something, and nothing that the others do not take."""
    alone = Filter(Action.ALLOW, (rule,))
    if never_allows(mesh.az, workload, Chain((alone,))):
        return False
    return never_allows(mesh.az, workload, Chain((Filter(Action.DENY, by), alone)))


# --- identity


def identity_may_be_absent(mesh: _Mesh) -> Iterator[Diagnostic]:
    """Plain text reaches the workload, so a positive identity condition fails for everybody who has none."""
    for policy, rule in mesh.rules(Action.ALLOW, Action.DENY):
        named = [f for part in rule.sources for f in IDENTITY if part.get(f, ((), ()))[0]]
        named += [w.key for w in rule.when if w.key in IDENTITY_KEYS and w.values]
        if not named:
            continue
        lax = [p for p in mesh.places_of(policy.attachment) if _takes_plain_text(mesh, p)]
        if lax:
            effect = "never takes plain text" if policy.action is Action.ALLOW else "is bypassed by plain text"
            message = f"{named[0]} is asked for, {lax[0]} takes plain text as well, and this rule {effect}"
            yield _finding("identity-may-be-absent", message, rule.source, "set PeerAuthentication to STRICT")


def negated_identity(mesh: _Mesh) -> Iterator[Diagnostic]:
    for _, rule in mesh.rules(Action.ALLOW):
        for part in rule.sources:
            positive = any(part.get(f, ((), ()))[0] for f in (*IDENTITY, "requestPrincipals"))
            negative = [f for f in (*IDENTITY, "requestPrincipals") if part.get(f, ((), ()))[1]]
            if negative and not positive:
                message = f"not {negative[0]} is the only identity condition, and who has no identity passes it"
                yield _finding("negated-identity-admits-unauthenticated", message, rule.source)


def claims_without_authentication(mesh: _Mesh) -> Iterator[Diagnostic]:
    for policy, rule in mesh.rules():
        asks = any("requestPrincipals" in part for part in rule.sources)
        asks = asks or any(w.key.startswith("request.auth.") for w in rule.when)
        chosen: list[Place | None] = [*mesh.places_of(policy.attachment)] or [None]
        if asks and not any(mesh.az.token_providers(place) for place in chosen):
            message = "it asks for a token's claims, and no RequestAuthentication accepts tokens there"
            yield _finding("claims-without-request-authentication", message, rule.source)


def unknown_callers(mesh: _Mesh) -> Iterator[Diagnostic]:
    """Exact names only; each check where the objects hold the kind."""
    namespaces = {o.name for o in mesh.store.of("Namespace", CORE)}
    accounts = {(o.namespace, o.name) for o in mesh.store.of("ServiceAccount", CORE)}
    accounts |= {(w.namespace, w.service_account) for w in mesh.az.workloads}
    for policy, rule in mesh.rules():
        for part in rule.sources:
            for name in (v for values in part.get("namespaces", ()) for v in values):
                if namespaces and "*" not in name and name not in namespaces:
                    yield _finding("unknown-namespace", f"there is no namespace {name}", rule.source)
            written: list[tuple[str, str, str]] = [
                (v, *_account(v, policy)) for values in part.get("serviceAccounts", ()) for v in values
            ]
            principals = [v for values in part.get("principals", ()) for v in values if "*" not in v]
            written += [(v, m.group(1), m.group(2)) for v in principals if (m := _PRINCIPAL.match(v))]
            for text, namespace, name in written:
                if accounts and (namespace, name) not in accounts:
                    message = f"there is no service account {namespace}/{name} ({text})"
                    yield _finding("unknown-service-account", message, rule.source)


_PRINCIPAL = re.compile(r"[^/]+/ns/([^/]+)/sa/([^/]+)\Z")


def _account(value: str, policy: Policy) -> tuple[str, str]:
    namespace, slash, name = value.partition("/")
    return (namespace, name) if slash else (policy.attachment.namespace, value)


# --- values


def odd_methods(mesh: _Mesh) -> Iterator[Diagnostic]:
    known = {m.decode() for m in METHODS}
    for _, rule in mesh.rules():
        for method in _operation_values(rule, "methods"):
            if "*" not in method and method not in known:
                hint = f"methods are compared with case: {method.upper()}" if method.upper() in known else ""
                yield _finding("unknown-method", f"{method} is no HTTP method", rule.source, hint)


def unknown_hosts(mesh: _Mesh) -> Iterator[Diagnostic]:
    known = [s.host for s in mesh.az.services]
    for obj in mesh.store.of("ServiceEntry", ISTIO_NETWORKING):
        known += obj.spec.texts("hosts") or []
    for obj in mesh.store.of("VirtualService", ISTIO_NETWORKING):
        known += obj.spec.texts("hosts") or []
    if not known:
        return
    short = {part for host in known for part in (host, host.split(".")[0], ".".join(host.split(".")[:2]))}
    for _, rule in mesh.rules():
        for host in _operation_values(rule, "hosts"):
            name = re.sub(r":[0-9]+\Z", "", host.lower())
            if "*" not in name and name not in short and not any(covers(k, name) for k in known):
                yield _finding("unknown-host", f"{host} is no host of the mesh", rule.source, note=True)


def host_without_port(mesh: _Mesh) -> Iterator[Diagnostic]:
    for _, rule in mesh.rules(Action.DENY):
        hosts = [h for part in rule.operations for h in part.get("hosts", ((), ()))[0]]
        for host in hosts:
            if "*" not in host and ":" not in host and f"{host}:*" not in hosts:
                message = f"{host} does not deny {host}:8080, which a client may send as well"
                yield _finding("host-without-port-variant", message, rule.source, f"add {host}:*")


def paths_that_never_match(mesh: _Mesh) -> Iterator[Diagnostic]:
    if mesh.az.settings.path_normalization == "NONE":
        return
    for _, rule in mesh.rules():
        for path in _operation_values(rule, "paths"):
            answers = text_answers([path_matcher(path)], "path")
            if _UNRESERVED_CODE.search(path) or answers == {frozenset()}:
                yield _finding("path-never-matches", f"no normalised path is {path}", rule.source)
            elif is_template(path) and path.endswith("/{**}/"):
                message = f"{path} takes no path without a slash at its end, though Istio's documentation shows one"
                yield _finding("template-ends-in-slash", message, rule.source, note=True)


def http_fields_on_tcp(mesh: _Mesh) -> Iterator[Diagnostic]:
    for policy, rule in mesh.rules(Action.ALLOW, Action.DENY, Action.CUSTOM):
        http = any(f in part for part in rule.operations for f in ("hosts", "methods", "paths"))
        http = http or any("requestPrincipals" in part for part in rule.sources)
        http = http or any(w.key.startswith("request.") and is_known_key(w.key) for w in rule.when)
        ports = next((p for place in mesh.places_of(policy.attachment) if (p := mesh.az.tcp_ports(place))), None)
        if http and ports:
            shown = ", ".join(map(str, sorted(ports)))
            code = "allow-http-fields-on-tcp" if policy.action is Action.ALLOW else "deny-http-fields-hit-tcp"
            effect = "never allows there" if policy.action is Action.ALLOW else "takes every connection there"
            message = f"it tests HTTP, port {shown} is TCP, and the rule {effect}"
            yield _finding(code, message, rule.source, "say the HTTP ports in the rule")


def odd_dry_run(mesh: _Mesh) -> Iterator[Diagnostic]:
    for obj in mesh.store.of("AuthorizationPolicy", ISTIO_SECURITY):
        text = obj.annotations.get(DRY_RUN)
        if text is not None and text not in _GO_BOOLS:
            message = f"{DRY_RUN}: {text!r} is neither true nor false: the policy is enforced"
            yield _finding("dry-run-not-recognised", message, obj.source)


# --- helpers


def _selector(obj: MeshObject) -> dict[str, str]:
    spec = obj.node.node("spec")
    selector = spec.node("selector") if spec else None
    return selector.text_map("matchLabels") if selector else {}


def _operation_values(rule: RuleSpec, field: str) -> Iterable[str]:
    return dict.fromkeys(v for part in rule.operations for values in part.get(field, ()) for v in values)


def _takes_plain_text(mesh: _Mesh, place: Place) -> bool:
    modes = mesh.az.mtls_modes(place)
    return modes.mode != "STRICT" or any(mode != "STRICT" for mode in modes.ports.values())


CHECKS: tuple[Callable[[_Mesh], Iterator[Diagnostic]], ...] = (
    no_match_selector,
    selector_on_waypoint,
    several_peer_authentications,
    not_covered,
    dead_rules,
    identity_may_be_absent,
    negated_identity,
    claims_without_authentication,
    unknown_callers,
    odd_methods,
    unknown_hosts,
    host_without_port,
    paths_that_never_match,
    http_fields_on_tcp,
    odd_dry_run,
)
