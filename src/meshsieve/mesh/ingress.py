"""Kubernetes Ingress: one route table for each ingress class.

Host    Exact before wildcard before none; ``*.x`` stands for one label. A rule without a host takes every host that no
        other rule names.
Path    Of one host's paths, over all Ingresses, the longest that matches wins, an exact one before a prefix of the same
        length, then the older Ingress. A prefix matches whole elements and ignores its last slash;
        ImplementationSpecific is read as a prefix, as most controllers do.
Else    What no rule takes goes to the default backend of the oldest Ingress that has one, else 404. A backend that is
        not there is 503.
Source  Kubernetes API, networking.k8s.io/v1 Ingress.

>>> from meshsieve.mesh.objects import read_objects
>>> ingresses = Ingresses(read_objects('''
... {apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: shop}, spec: {rules: [
...  {host: shop.example, http: {paths: [{path: /, pathType: Prefix,
...   backend: {service: {name: web, port: {number: 80}}}}]}}]}}
... '''))
>>> ingresses.match(Request(authority="shop.example")).cluster
'default/web:80'
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from meshsieve._core import Regex
from meshsieve.errors import UsageError
from meshsieve.importers.typed import Node
from meshsieve.mesh.names import specificity
from meshsieve.mesh.objects import KUBERNETES_NETWORKING, MeshObject, ObjectStore
from meshsieve.mesh.services import Service, read_services
from meshsieve.model import Source
from meshsieve.policy import Diagnostic
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions, encoded
from meshsieve.routes.model import (
    Action,
    DirectResponse,
    Forward,
    HeaderMatch,
    PathMatch,
    Route,
    RouteConfiguration,
    RouteMatch,
    StringMatch,
    VirtualHost,
)
from meshsieve.routes.router import Match, Router

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_CLASS_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
PATH_TYPES = ("Exact", "Prefix", "ImplementationSpecific")
MISSING = DirectResponse(503)
ANY_PATH = PathMatch("prefix", b"/")


@dataclass(frozen=True, slots=True)
class _Path:
    """One path of a rule. order: sorts the one that wins first."""

    host: str
    match: PathMatch
    action: Action
    name: str
    source: Source
    created: datetime

    @property
    def order(self) -> tuple[int, bool, datetime, str]:
        return -len(self.match.value), self.match.kind != "path", self.created, self.name


class Ingresses:
    """classes: names of all ingress classes in use, "" where an Ingress names none and there is no default."""

    def __init__(self, store: ObjectStore, options: HttpOptions | None = None) -> None:
        self.findings: list[Diagnostic] = []
        self._services = {(s.namespace, s.name): s for s in read_services(store)}
        by_class: dict[str, list[MeshObject]] = {}
        default = _default_class(store)
        for found in sorted(store.of("Ingress", KUBERNETES_NETWORKING), key=lambda o: (o.created, o.namespace, o.name)):
            by_class.setdefault(_class_of(found) or default, []).append(found)
        self.classes = sorted(by_class)
        self.routers = {
            name: Router(self._configuration(name, found), options) for name, found in sorted(by_class.items())
        }

    def match(self, request: Request, ingress_class: str | None = None) -> Match:
        """What takes a request that comes to the controller of a class; the class may be left out where there is one.

        raises  UsageError
        """
        return self.router(ingress_class).match(request)

    def router(self, ingress_class: str | None = None) -> Router:
        """raises  UsageError"""
        known = ", ".join(repr(name) for name in self.classes) or "none"
        if ingress_class is None and len(self.classes) == 1:
            return self.routers[self.classes[0]]
        if ingress_class is None:
            raise UsageError(f"which ingress class? there are: {known}")
        if ingress_class not in self.routers:
            raise UsageError(f"no Ingress is of class {ingress_class!r}; there are: {known}")
        return self.routers[ingress_class]

    def _configuration(self, name: str, ingresses: Sequence[MeshObject]) -> RouteConfiguration:
        paths: list[_Path] = []
        default: Route | None = None
        for found in ingresses:
            spec = found.spec.only("ingressClassName", "defaultBackend", "tls", "rules")
            backend = spec.node("defaultBackend")
            if backend is not None and default is None:
                source = found.source_of(backend)
                default = Route(
                    _name(found, "default"), RouteMatch(ANY_PATH), self._backend(backend, found), source=source
                )
            for i, rule in enumerate(spec.nodes("rules") or []):
                paths += self._rule(found, rule, i)
        last = (default,) if default is not None else ()
        free = tuple(_route(p) for p in sorted((p for p in paths if not p.host), key=lambda p: p.order))
        hosts = []
        for host in sorted({p.host for p in paths if p.host}, key=specificity):
            own = sorted((p for p in paths if p.host == host), key=lambda p: p.order)
            routes = tuple(_route(p) for p in own)
            # Envoy's *.x takes several labels, which here belong to rules without a host.
            rest = (*free, *last) if host.startswith("*") else last
            hosts.append(VirtualHost(host, (encoded(host),), (*routes, *rest), source=own[0].source))
        hosts.append(VirtualHost("*", (b"*",), (*free, *last)))
        return RouteConfiguration(f"ingress {name}".strip(), tuple(hosts), ignore_port=True)

    def _rule(self, found: MeshObject, rule: Node, number: int) -> list[_Path]:
        rule.only("host", "http")
        host = (rule.text("host") or "").lower()
        http = rule.node("http")
        if http is None:
            # All traffic of the host goes to the default backend, as that of any host without a path that matches.
            return []
        out = []
        for j, node in enumerate(http.only("paths").nodes("paths") or []):
            node.only("path", "pathType", "backend")
            kind = node.choice("pathType", PATH_TYPES)
            text = node.text("path") or "/"
            if not text.startswith("/"):
                raise node.error("must begin with /", "path")
            backend = node.node("backend")
            if backend is None:
                raise node.error("is missing", "backend")
            action = self._backend(backend, found)
            name = _name(found, f"rule/{number}/path/{j}")
            out.append(_Path(host, _path(kind, text), action, name, found.source_of(node), found.created))
        return out

    def _backend(self, node: Node, found: MeshObject) -> Action:
        node.only("service", "resource")
        service = node.node("service")
        if service is None:
            self._missing(node, found, "a resource backend is not known here")
            return MISSING
        service.only("name", "port")
        name, port = service.required_text("name"), service.node("port")
        known = self._services.get((found.namespace, name))
        number = _port(port, known)
        if self._services and (known is None or number is None or known.port(number) is None):
            self._missing(node, found, f"Service {found.namespace}/{name} or its port is not there")
            return MISSING
        shown = number if number is not None else port.text("name") if port else None
        return Forward(f"{found.namespace}/{name}:{shown}")

    def _missing(self, node: Node, found: MeshObject, message: str) -> None:
        self.findings.append(
            Diagnostic("ingress-backend", f"{message}: its requests get 503", str(found.source_of(node)), found.title)
        )


def _default_class(store: ObjectStore) -> str:
    marked = [o.name for o in store.of("IngressClass") if o.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"]
    return marked[0] if len(marked) == 1 else ""


def _class_of(found: MeshObject) -> str:
    return found.spec.text("ingressClassName") or found.annotations.get(CLASS_ANNOTATION, "")


def _port(port: Node | None, service: Service | None) -> int | None:
    if port is None:
        return None
    port.only("number", "name")
    name = port.text("name")
    if name is None:
        return port.integer("number", 1, 65535)
    return next((p.number for p in service.ports if p.name == name), None) if service else None


def _path(kind: str, text: str) -> PathMatch:
    if kind == "Exact":
        return PathMatch("path", encoded(text))
    elements = encoded(text.rstrip("/"))
    return PathMatch("path_separated_prefix", elements) if elements else ANY_PATH


def _route(path: _Path) -> Route:
    headers: tuple[HeaderMatch, ...] = ()
    if path.host.startswith("*."):
        rest = re.sub(r"([^0-9A-Za-z-])", r"\\\1", path.host[2:])
        pattern = encoded(rf"(?i)[^.]+\.{rest}(:[0-9]*)?")
        headers = (HeaderMatch(b":authority", "string", string=StringMatch("regex", pattern, Regex(pattern))),)
    return Route(path.name, RouteMatch(path.match, headers), path.action, source=path.source)


def _name(found: MeshObject, part: str) -> str:
    return f"ingress/{found.namespace}/{found.name}/{part}"
