"""Every object of a set of manifests in one store, each with its place: what all readers of a cluster share.

The store knows names, not meanings: readers ask it for a kind and read the object's ``spec`` strictly themselves.

>>> store = read_objects("apiVersion: v1\\nkind: Service\\nmetadata: {name: reviews, namespace: shop}\\n")
>>> str(store.find("Service", "shop", "reviews").source)
'<objects>:1 Service shop/reviews'
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import NAME_LABEL, objects
from meshsieve.importers.sources import find_files, read_source
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping, load_documents, located
from meshsieve.model import Source
from meshsieve.policy import SourceFile

CORE = ""
APPS = "apps"
ISTIO_NETWORKING = "networking.istio.io"
ISTIO_SECURITY = "security.istio.io"
GATEWAY_API = "gateway.networking.k8s.io"
KUBERNETES_NETWORKING = "networking.k8s.io"

# Kinds without a namespace, of the groups whose routing, policy or services anybody here reads.
CLUSTER_KINDS = frozenset({
    "Namespace", "Node", "GatewayClass", "IngressClass", "CustomResourceDefinition", "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "PersistentVolume", "StorageClass",
    "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy",
})  # fmt: skip
MAX_OBJECTS = 1_000_000
INLINE = "<objects>"

# What callers may hand over: a path ("-" is stdin), text, one object, or any number of these.
Objects = str | os.PathLike[str] | SourceFile | AnyMapping[str, object] | Iterable[object]

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:[Zz]|([+-]\d\d):?(\d\d))?\Z", re.ASCII)
EPOCH = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MeshObject:
    """One object.

    group       API group without version, "" for the core
    namespace   "" where the kind has none, "default" where a namespaced object names none
    created     creationTimestamp; the beginning of time where there is none, as in Go
    node        the whole object; its errors name ``Kind namespace/name``
    order       position in which it was read, over all files
    """

    kind: str
    group: str
    version: str
    namespace: str
    name: str
    labels: AnyMapping[str, str]
    annotations: AnyMapping[str, str]
    created: datetime
    node: Node
    order: int

    @property
    def spec(self) -> Node:
        """raises  PolicyError if the object has none"""
        spec = self.node.node("spec")
        if spec is None:
            raise self.node.error("is missing", "spec")
        return spec

    @property
    def title(self) -> str:
        return self.node.obj

    @property
    def where(self) -> str:
        """``file:line:column``."""
        return self.node.data.where()

    @property
    def source(self) -> Source:
        return self.source_of(self.node)

    def source_of(self, part: Node) -> Source:
        """Where a part of the object stands, such as one route of its list."""
        return Source(part.data.file, part.data.position[0], f"{self.title} {part.path}".strip())

    @property
    def age(self) -> tuple[datetime, str, str]:
        """Sorts oldest first, then by name, then by namespace: Istio's order of its configuration."""
        return self.created, self.name, self.namespace


@dataclass
class ObjectStore:
    """All objects in the order in which they were read; ``of`` and ``find`` look them up."""

    objects: list[MeshObject] = field(default_factory=list)

    def of(self, kind: str, group: str | None = None) -> list[MeshObject]:
        """Objects of a kind in reading order; ``group`` tells Istio's Gateway from Gateway API's."""
        return [o for o in self._by_kind.get(kind, ()) if group is None or o.group == group]

    def find(self, kind: str, namespace: str, name: str, group: str | None = None) -> MeshObject | None:
        for found in self._by_name.get((kind, namespace, name), ()):
            if group is None or found.group == group:
                return found
        return None

    @cached_property
    def namespaces(self) -> dict[str, dict[str, str]]:
        """Labels by namespace, always with the name label: of Namespace objects and of every namespace in use."""
        out = {o.name: {**o.labels, NAME_LABEL: o.name} for o in self.of("Namespace", CORE)}
        for o in self.objects:
            if o.namespace:
                out.setdefault(o.namespace, {NAME_LABEL: o.namespace})
        return out

    @cached_property
    def _by_kind(self) -> dict[str, list[MeshObject]]:
        out: dict[str, list[MeshObject]] = {}
        for o in self.objects:
            out.setdefault(o.kind, []).append(o)
        return out

    @cached_property
    def _by_name(self) -> dict[tuple[str, str, str], list[MeshObject]]:
        out: dict[tuple[str, str, str], list[MeshObject]] = {}
        for o in self.objects:
            out.setdefault((o.kind, o.namespace, o.name), []).append(o)
        return out


def read_objects(given: Objects, *, keep: str = "error") -> ObjectStore:
    """The objects of paths, folders, texts, mappings, or any mix of these in a list; ``List`` kinds are flattened.

    A str is text if it holds a line break or begins with a brace, else a path.

    keep    of two objects with one group, kind, namespace and name: "error" refuses, "last" takes the later, as
            applying both in turn does
    raises  PolicyError with file:line:column and the object
    """
    store = ObjectStore()
    seen: dict[tuple[str, str, str, str], MeshObject] = {}
    for document in _documents(given):
        for kind, node in objects(Node(document, "")):
            found = _object(kind, node, len(store.objects))
            key = (found.group, kind, found.namespace, found.name)
            first = seen.get(key)
            if first is not None and keep == "error":
                hint = "a cluster holds one object of a name: keep one"
                raise found.node.error(f"defined twice, first at {first.where}", hint=hint)
            if len(store.objects) >= MAX_OBJECTS:
                raise found.node.error(f"more than {MAX_OBJECTS} objects", hint="read fewer files")
            seen[key] = found
            store.objects.append(found)
    if keep == "last":
        kept = {id(o) for o in seen.values()}
        store.objects = [o for o in store.objects if id(o) in kept]
    return store


def _documents(given: object) -> Iterator[Mapping]:
    if isinstance(given, SourceFile):
        yield from _mappings(load_documents(given.text, given.name), given.name)
    elif isinstance(given, str) and ("\n" in given or given.lstrip()[:1] in ("{", "[")):
        yield from _mappings(load_documents(given, INLINE), INLINE)
    elif isinstance(given, str | os.PathLike):
        for path in find_files([given]):
            yield from _documents(read_source(path))
    elif isinstance(given, AnyMapping):
        yield from _mappings([located(given, INLINE)], INLINE)
    elif isinstance(given, Iterable):
        for item in given:
            yield from _documents(item)
    else:
        raise PolicyError(f"expected objects, text or paths, got {type(given).__name__}", where=INLINE)


def _mappings(documents: Iterable[object], file: str) -> Iterator[Mapping]:
    for document in documents:
        if isinstance(document, list):
            yield from _mappings(document, file)
        elif isinstance(document, Mapping):
            yield document
        else:
            raise PolicyError("expected a Kubernetes object", where=file, hint="an object has apiVersion and kind")


def _object(kind: str, node: Node, order: int) -> MeshObject:
    metadata = node.node("metadata")
    if metadata is None:
        raise Node(node.data, kind).error("is missing", "metadata")
    name = metadata.text("name")
    if name is None:
        raise Node(metadata.data, kind, "metadata").error("is missing", "name")
    namespace = "" if kind in CLUSTER_KINDS else metadata.text("namespace") or "default"
    node = Node(node.data, f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}")
    metadata = Node(metadata.data, node.obj, "metadata")
    group, slash, version = (node.text("apiVersion") or "").rpartition("/")
    return MeshObject(
        kind,
        group if slash else CORE,
        version,
        namespace,
        name,
        metadata.text_map("labels"),
        metadata.text_map("annotations"),
        _created(metadata),
        node,
        order,
    )


def _created(metadata: Node) -> datetime:
    text = metadata.text("creationTimestamp")
    if text is None:
        return EPOCH
    found = _TIMESTAMP.match(text)
    if found is None:
        raise metadata.error(f"{text!r} is no time", "creationTimestamp", "write it such as 2024-01-31T12:00:00Z")
    day, time, fraction, hours, minutes = found.groups()
    zone = f"{hours}:{minutes}" if hours else "+00:00"
    try:
        return datetime.fromisoformat(f"{day}T{time}{(fraction or '.0')[:7]:0<7}{zone}")
    except ValueError as error:
        raise metadata.error(f"{text!r} is no time: {error}", "creationTimestamp") from None
