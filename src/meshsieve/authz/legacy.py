"""Istio's roles of 2019: ClusterRbacConfig, ServiceRole and ServiceRoleBinding, as rules of an ALLOW filter.

What    The configuration says which services are guarded; a guarded service denies what no role allows. A role's rule
        takes services, paths, methods and constraints; a binding gives the roles of its namespace to subjects.
        One rule here is one rule of a role with the subjects of all its bindings: ``ns[a]-policy[role]-rule[0]``.
Traps   ``user: "*"`` is everybody, with an identity or without; ``source.principal: "*"`` is everybody who has one.
        A role without binding allows nobody. AuthorizationPolicy beside it has to allow as well (the strict reading;
        the control plane of that time preferred one of the two).
Limits  What the 2019 API had beyond this (groups, permissive modes, not-fields) is refused, not skipped.
Source  istio/api rbac/v1alpha1/rbac.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshsieve.authz.generate import SCHEME, Generator, Unusable, text_matcher
from meshsieve.authz.model import PEER, Action, Alternatives, Clause, Conjunction, Filter, Rule, Test, Text
from meshsieve.authz.policy import empty_list
from meshsieve.authz.selection import Place
from meshsieve.importers.typed import Node
from meshsieve.mesh.objects import MeshObject, ObjectStore
from meshsieve.model import Source

GROUP = "rbac.istio.io"
MODES = ("OFF", "ON", "ON_WITH_INCLUSION", "ON_WITH_EXCLUSION")
_SUBJECT_KEYS = (
    "source.namespace", "source.principal", "source.ip", "request.auth.principal", "request.auth.audiences",
    "request.auth.presenter",
)  # fmt: skip
_CONSTRAINT_KEYS = ("destination.ip", "destination.port")
_HEADERS, _CLAIMS, _LABELS = "request.headers[", "request.auth.claims[", "destination.labels["


@dataclass(frozen=True, slots=True)
class RoleRule:
    """labels: (label, values) that the callee must have; permissions: what else must hold."""

    services: tuple[str, ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...]
    permissions: Conjunction
    source: Source


@dataclass(frozen=True, slots=True)
class Role:
    namespace: str
    name: str
    rules: tuple[RoleRule, ...]

    def rule_name(self, i: int) -> str:
        return f"ns[{self.namespace}]-policy[{self.name}]-rule[{i}]"


@dataclass(frozen=True, slots=True)
class LegacyRbac:
    """subjects: by (namespace, role), what one of the role's bindings takes."""

    mode: str
    services: tuple[str, ...]
    namespaces: tuple[str, ...]
    roles: tuple[Role, ...]
    subjects: dict[tuple[str, str], Alternatives]

    def guards(self, place: Place | None, hosts: Sequence[str]) -> bool:
        """Whether a workload, known by its namespace and the host names of its services, denies by default."""
        if place is None or self.mode in ("OFF", "ON"):
            return self.mode != "OFF"
        listed = place.namespace in self.namespaces or any(_takes(s, h) for s in self.services for h in hosts)
        return listed == (self.mode == "ON_WITH_INCLUSION")

    def filters(self, place: Place | None, hosts: Sequence[str]) -> Iterable[Filter]:
        if self.guards(place, hosts):
            yield Filter(Action.ALLOW, tuple(self._rules(place, hosts)), prefix="rbac_")

    def _rules(self, place: Place | None, hosts: Sequence[str]) -> Iterable[Rule]:
        for role in self.roles:
            if place is not None and role.namespace != place.namespace:
                continue
            for i, rule in enumerate(role.rules):
                subjects = self.subjects.get((role.namespace, role.name), ())
                if place is None or _is_for(rule, place, hosts):
                    yield Rule(role.rule_name(i), subjects, (rule.permissions,), rule.source)


def read_legacy(store: ObjectStore, trust_domains: Sequence[str]) -> LegacyRbac | None:
    """The objects of the group ``rbac.istio.io``; None where there is no configuration, which guards nothing.

    raises  PolicyError with file:line:column
    """
    configs = [*store.of("ClusterRbacConfig", GROUP), *store.of("RbacConfig", GROUP)]
    roles = tuple(_role(obj, Generator(trust_domains)) for obj in store.of("ServiceRole", GROUP))
    subjects: dict[tuple[str, str], Alternatives] = {}
    known = {(role.namespace, role.name) for role in roles}
    for obj in store.of("ServiceRoleBinding", GROUP):
        name, alternatives = _binding(obj, Generator(trust_domains))
        if (obj.namespace, name) not in known:
            raise obj.spec.error(f"there is no ServiceRole {obj.namespace}/{name}", "roleRef")
        subjects[obj.namespace, name] = subjects.get((obj.namespace, name), ()) + alternatives
    if not configs:
        return None
    if len(configs) > 1:
        raise configs[1].node.error(f"a mesh has one configuration, and another is at {configs[0].where}")
    spec = configs[0].spec.only("mode", "inclusion", "exclusion", "enforcementMode", "enforcement_mode")
    _enforced(spec)
    mode = spec.choice("mode", MODES, "OFF")
    key = {"ON_WITH_INCLUSION": "inclusion", "ON_WITH_EXCLUSION": "exclusion"}.get(mode)
    target = spec.node(key) if key else None
    if key and target is None:
        raise spec.error(f"{mode} needs it", key)
    services = _texts(target.only("services", "namespaces"), "services") if target else ()
    return LegacyRbac(mode, services, _texts(target, "namespaces") if target else (), roles, subjects)


def _role(obj: MeshObject, generator: Generator) -> Role:
    spec = obj.spec.only("rules", "enforcementMode", "mode")
    _enforced(spec)
    rules = []
    for rule in spec.nodes("rules") or ():
        rule.only("services", "paths", "methods", "constraints")
        services = _texts(rule, "services")
        if not services:
            raise rule.error("is missing", "services")
        clauses: list[Clause] = []
        labels: list[tuple[str, tuple[str, ...]]] = []
        for key in ("paths", "methods"):
            values = _texts(rule, key)
            if values and "*" not in values:
                clauses.append(_clause(rule, generator, key, values, obj.namespace))
        for constraint in rule.nodes("constraints") or ():
            constraint.only("key", "values")
            key, values = constraint.required_text("key"), _texts(constraint, "values")
            if not values:
                raise constraint.error("is missing", "values")
            if key.startswith(_LABELS) and key.endswith("]"):
                labels.append((key.removeprefix(_LABELS)[:-1], values))
            elif key in _CONSTRAINT_KEYS or (key.startswith(_HEADERS) and key.endswith("]")):
                clauses.append(_clause(constraint, generator, key, values, obj.namespace))
            else:
                raise constraint.error(f"there is no constraint {key!r}", "key")
        rules.append(RoleRule(services, tuple(labels), tuple(clauses), obj.source_of(rule)))
    return Role(obj.namespace, obj.name, tuple(rules))


def _binding(obj: MeshObject, generator: Generator) -> tuple[str, Alternatives]:
    spec = obj.spec.only("subjects", "roleRef", "mode", "enforcementMode")
    _enforced(spec)
    ref = spec.node("roleRef")
    if ref is None:
        raise spec.error("is missing", "roleRef")
    ref.only("kind", "name", "apiGroup").choice("kind", ("ServiceRole",), "ServiceRole")
    subjects = spec.nodes("subjects")
    if not subjects:
        raise empty_list(spec, "subjects") if subjects is not None else spec.error("is missing", "subjects")
    return ref.required_text("name"), tuple(_subject(subject, obj.namespace, generator) for subject in subjects)


def _subject(subject: Node, namespace: str, generator: Generator) -> Conjunction:
    subject.only("user", "properties")
    user, properties = subject.text("user"), subject.text_map("properties")
    if not user and not properties:
        raise subject.error("names nobody: it needs user or properties")
    clauses: list[Clause] = []
    if user and user != "*":
        clauses.append(Test(PEER, (Text("exact", SCHEME + user),)))
    for key, value in properties.items():
        if key not in _SUBJECT_KEYS and not (key.startswith((_HEADERS, _CLAIMS)) and key.endswith("]")):
            raise subject.error(f"there is no property {key!r}", "properties")
        clauses.append(_clause(subject, generator, key, (value,), namespace))
    return tuple(clauses)


def _clause(node: Node, generator: Generator, key: str, values: Sequence[str], namespace: str) -> Clause:
    try:
        return generator.clause(key, values, namespace)
    except Unusable as error:
        raise node.error(str(error)) from None


def _is_for(rule: RoleRule, place: Place, hosts: Sequence[str]) -> bool:
    served = "*" in rule.services or any(_takes(s, h) for s in rule.services for h in hosts)
    return served and all(
        place.labels.get(name) is not None and any(_takes(v, place.labels[name]) for v in values)
        for name, values in rule.labels
    )


def _takes(pattern: str, text: str) -> bool:
    """Exact, prefix, suffix or any."""
    matcher = text_matcher(pattern)
    if not isinstance(matcher, Text):
        return bool(text)
    match matcher.op:
        case "prefix":
            return text.startswith(matcher.value)
        case "suffix":
            return text.endswith(matcher.value)
    return text == matcher.value


def _enforced(spec: Node) -> None:
    of_role = "rules" in spec.data or "roleRef" in spec.data  # there the same is called mode
    for key in ("enforcementMode", "enforcement_mode", *(["mode"] if of_role else [])):
        if spec.text(key) not in (None, "ENFORCED"):
            raise spec.error("only ENFORCED is read here", key)


def _texts(node: Node | None, key: str) -> tuple[str, ...]:
    values = node.texts(key) if node else None
    if node is not None and values is not None and (not values or "" in values):
        raise empty_list(node, key) if not values else node.error("an empty value", key)
    return tuple(values or ())
