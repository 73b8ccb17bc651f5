"""AuthorizationPolicy as written: read strictly, with where it stands.

Refused here are objects that Istio's API refuses and that nobody could judge safely: unknown fields, wrong types, an
unknown action, a condition without a key or values, empty lists (Istio takes them for absent, which would turn "nobody"
into "anybody"), selector together with targetRefs, malformed path templates. Values that no proxy can use (a port that
is none, an address that is none) and unknown condition keys are kept: what Istio makes of them is in ``generate``.
A policy of the group ``meshsieve.io`` is the same with one more field a rule: ``condition``, an expression in CEL.
Source: istio/api security/v1beta1/authorization_policy.proto, type/v1beta1/selector.proto.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshsieve.authz.cel import CelProgram, compile_expression
from meshsieve.authz.model import Action
from meshsieve.authz.path_template import check_template, is_template
from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping
from meshsieve.mesh.objects import ISTIO_SECURITY, MeshObject, ObjectStore
from meshsieve.model import Source

SOURCE_FIELDS = (
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "trustDomains",
    "ipBlocks",
    "remoteIpBlocks",
)
OPERATION_FIELDS = ("hosts", "methods", "paths", "ports")
OWN_GROUP = "meshsieve.io"
MAX_SERVICE_ACCOUNTS = 16
DRY_RUN = "istio.io/dry-run"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})

# Field -> (values, values of its not-form); at least one of the two is not empty.
Fields = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class When:
    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """``sources`` and ``operations``: one of each must hold; () is no condition. ``condition``: in policies of our own
    group, a CEL expression that must hold as well."""

    sources: tuple[Fields, ...]
    operations: tuple[Fields, ...]
    when: tuple[When, ...]
    source: Source
    condition: CelProgram | None = None


@dataclass(frozen=True, slots=True)
class TargetRef:
    group: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """Which workloads a policy is for. ``selector`` None: all of its namespace (or of the mesh)."""

    namespace: str
    name: str
    selector: dict[str, str] | None
    target_refs: tuple[TargetRef, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """``rules``: None stands for a null rule, which keeps its number and is skipped."""

    attachment: Attachment
    action: Action
    provider: str | None
    dry_run: bool
    rules: tuple[RuleSpec | None, ...]
    source: Source

    @property
    def title(self) -> str:
        return f"ns[{self.attachment.namespace}]-policy[{self.attachment.name}]"


def read_policies(store: ObjectStore) -> list[Policy]:
    """Istio's AuthorizationPolicy objects, and those of our own group, whose rules may hold a ``condition`` in CEL.

    raises  PolicyError with file:line:column
    """
    found = [*store.of("AuthorizationPolicy", ISTIO_SECURITY), *store.of("AuthorizationPolicy", OWN_GROUP)]
    seen: dict[tuple[str, str], MeshObject] = {}
    for obj in found:
        first = seen.setdefault((obj.namespace, obj.name), obj)
        if first is not obj:
            raise obj.node.error(
                f"has the name of the one at {first.where}", hint="their rules could not be told apart"
            )
    return [read_policy(obj) for obj in found]


def read_policy(obj: MeshObject) -> Policy:
    """An AuthorizationPolicy.

    raises  PolicyError with file:line:column
    """
    spec = obj.node.node("spec")
    attachment = read_attachment(obj, spec)
    dry_run = obj.annotations.get(DRY_RUN) in _TRUE
    if spec is None:
        return Policy(attachment, Action.ALLOW, None, dry_run, (), obj.source)
    spec.only("selector", "targetRef", "targetRefs", "action", "provider", "rules")
    action = Action(spec.choice("action", tuple(a.value for a in Action), "ALLOW"))
    provider = spec.node("provider")
    if provider is not None and action is not Action.CUSTOM:
        raise spec.error("only a CUSTOM policy asks a provider", "provider")
    if action is Action.CUSTOM and (provider is None or not provider.only("name").text("name")):
        raise spec.error("a CUSTOM policy needs provider.name", "provider")
    return Policy(
        attachment,
        action,
        provider.text("name") if provider else None,
        dry_run,
        tuple(_rules(spec, obj)),
        obj.source,
    )


def read_attachment(obj: MeshObject, spec: Node | None) -> Attachment:
    """What the three security kinds share: names, selector, targetRef(s)."""
    if spec is None:
        return Attachment(obj.namespace, obj.name, None, ())
    selector = spec.node("selector")
    labels = None if selector is None else selector.only("matchLabels").text_map("matchLabels")
    refs = list(spec.nodes("targetRefs") or ())
    single = spec.node("targetRef")
    if spec.sequence("targetRefs") is not None and not refs:
        raise empty_list(spec, "targetRefs")
    if single is not None:
        if refs:
            raise spec.error("excludes targetRefs", "targetRef")
        refs = [single]
    if refs and labels is not None:
        raise spec.error("a policy has either selector or targetRefs", "selector")
    return Attachment(obj.namespace, obj.name, labels, tuple(_target(ref, obj.namespace) for ref in refs))


def empty_list(node: Node, key: str) -> PolicyError:
    return node.error(
        "is an empty list, which Istio takes for no condition at all",
        key,
        "remove the field if that is meant; a policy that allows nobody has no rules",
    )


def _target(ref: Node, namespace: str) -> TargetRef:
    ref.only("group", "kind", "name", "namespace")
    if (ref.text("namespace") or namespace) != namespace:
        raise ref.error("a target in another namespace is not supported by Istio", "namespace")
    return TargetRef(ref.text("group") or "", ref.required_text("kind"), ref.required_text("name"))


def _rules(spec: Node, obj: MeshObject) -> Sequence[RuleSpec | None]:
    out: list[RuleSpec | None] = []
    items = spec.sequence("rules")
    for i, item in enumerate(items or ()):
        if item is None:
            out.append(None)
            continue
        if not isinstance(item, Mapping):
            raise spec.error(f"expected a mapping, got {item!r}", f"rules[{i}]")
        own = ("condition",) if obj.group == OWN_GROUP else ()
        rule = Node(item, spec.obj, f"{spec.path}.rules[{i}]").only("from", "to", "when", *own)
        out.append(
            RuleSpec(
                tuple(_parts(rule, "from", "source", SOURCE_FIELDS)),
                tuple(_parts(rule, "to", "operation", OPERATION_FIELDS)),
                tuple(_when(rule)),
                obj.source_of(rule),
                _condition(rule),
            )
        )
    return out


def _condition(rule: Node) -> CelProgram | None:
    text = rule.text("condition")
    if text is None:
        return None
    try:
        return compile_expression(text)
    except ModelError as error:
        raise rule.error(str(error), "condition") from None


def _parts(rule: Node, outer: str, inner: str, names: tuple[str, ...]) -> Sequence[Fields]:
    items = rule.nodes(outer)
    if items is not None and not items:
        raise empty_list(rule, outer)
    out = []
    for item in items or ():
        part = item.only(inner).node(inner)
        if part is None:
            raise item.error("is missing, which would take every request", inner)
        part.only(*names, *map(_not, names))
        fields: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        for name in names:
            values, nots = _values(part, name), _values(part, _not(name))
            if values or nots:
                fields[name] = (values, nots)
        if not fields:
            raise item.error("has no field, which would take every request", inner)
        _check_part(part, fields)
        out.append(fields)
    return out


def _not(name: str) -> str:
    return "not" + name[0].upper() + name[1:]


def _values(node: Node, key: str) -> tuple[str, ...]:
    values = node.texts(key)
    if values is None:
        return ()
    if not values:
        raise empty_list(node, key)
    if "" in values:
        raise node.error("an empty value", f"{key}[{values.index('')}]")
    return tuple(values)


def _check_part(part: Node, fields: Fields) -> None:
    accounts = [*fields.get("serviceAccounts", ((), ()))[0], *fields.get("serviceAccounts", ((), ()))[1]]
    if len(accounts) > MAX_SERVICE_ACCOUNTS:
        raise part.error(f"more than {MAX_SERVICE_ACCOUNTS} service accounts", "serviceAccounts")
    for account in accounts:
        if "*" in account or account.count("/") > 1:
            raise part.error(f"{account!r}: expected name or namespace/name, without *", "serviceAccounts")
    for name in fields.get("trustDomains", ((), ()))[0] + fields.get("trustDomains", ((), ()))[1]:
        if "/" in name or name.count("*") > 1 or "*" in name[1:-1]:
            raise part.error(f"{name!r}: expected a trust domain with at most one *, at an end", "trustDomains")
    for values in fields.get("paths", ()):
        for path in values:
            if is_template(path):
                try:
                    check_template(path)
                except ModelError as error:
                    raise part.error(str(error), "paths") from None


def _when(rule: Node) -> Sequence[When]:
    items = rule.nodes("when")
    if items is not None and not items:
        raise empty_list(rule, "when")
    out = []
    for item in items or ():
        item.only("key", "values", "notValues")
        key = item.required_text("key")
        values, nots = _values(item, "values"), _values(item, "notValues")
        if not values and not nots:
            raise item.error("a condition needs values or notValues")
        out.append(When(key, values, nots))
    return out
