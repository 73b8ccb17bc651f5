"""What a set of configuration files says about requests: routes, authorization, and who is where."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshsieve.authz.authorizer import Authorizer, from_store
from meshsieve.authz.settings import read_settings
from meshsieve.errors import PolicyError
from meshsieve.mesh.objects import read_objects
from meshsieve.mesh.router import MeshRouter
from meshsieve.policy import Diagnostic, SourceFile
from meshsieve.routes.router import Router, from_envoy
from meshsieve.walk.topology import Topology

# Groups whose objects say something about requests; without any of them a cluster is about packets alone.
_MESH_GROUPS = re.compile(r"\b(?:networking\.istio\.io|security\.istio\.io|gateway\.networking\.k8s\.io)/")
_INGRESS = re.compile(r"""\bkind["']?\s{0,8}:\s{0,8}["']?Ingress\b""")


@dataclass(frozen=True)
class MeshPolicy:
    """routes: one Envoy route configuration, which takes every request; else ``mesh`` and what belongs to it."""

    routes: Router | None = None
    mesh: MeshRouter | None = None
    authorizer: Authorizer | None = None
    topology: Topology | None = None

    def __bool__(self) -> bool:
        return self.routes is not None or self.mesh is not None

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        mesh = self.mesh.findings if self.mesh is not None else ()
        return (*mesh, *(self.authorizer.diagnostics if self.authorizer is not None else ()))


def read_mesh_policy(sources: Mapping[str, Sequence[SourceFile]], *, strict: bool = True) -> MeshPolicy:
    """From files by their format (``ImportResult.sources``).

    raises  PolicyError naming file, line, object and what to do; for more than one route configuration, too
    """
    routes = sources.get("envoy", ())
    objects = sources.get("kubernetes", ())
    if len(routes) > 1:
        raise PolicyError(
            f"is the second route configuration, after {routes[0].name}",
            where=routes[1].name,
            hint="a listener has one: read them one at a time",
        )
    about_requests = any(_MESH_GROUPS.search(s.text) or _INGRESS.search(s.text) for s in objects)
    if routes and about_requests:
        raise PolicyError(
            "is a route configuration beside objects of a mesh, which have routes of their own",
            where=routes[0].name,
            hint="read one of the two: which of them takes a request cannot be told",
        )
    if routes:
        return MeshPolicy(from_envoy(routes[0].text, file=routes[0].name))
    if not about_requests:
        return MeshPolicy()
    store = read_objects(objects)
    settings = read_settings(store, None)
    mesh = MeshRouter(store)
    return MeshPolicy(None, mesh, from_store(store, settings, strict=strict), Topology(store, mesh.istio, settings))
