"""Short ways to write the objects that the cases of this folder are about."""

from __future__ import annotations

from typing import Any

import yaml

from meshsieve.mesh.istio.config import MeshOptions
from meshsieve.mesh.istio.mesh import IstioMesh
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.match import MeshMatch
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request

Object = dict[str, Any]


def istio(kind: str, name: str, spec: str | Object, namespace: str = "default", **metadata: Any) -> Object:
    """spec: YAML text or a mapping. metadata: created, annotations, labels."""
    if "created" in metadata:
        metadata["creationTimestamp"] = f"{metadata.pop('created')}-01-01T00:00:00Z"
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": yaml.safe_load(spec) if isinstance(spec, str) else spec,
    }


def service(name: str, *ports: str, namespace: str = "default", ip: str = "", **spec: Any) -> Object:
    """ports: ``name:number`` or ``name:number:target``; ip "": headless."""
    entries = []
    for port in ports:
        label, number, *target = port.split(":")
        entry: Object = {"name": label, "port": int(number)}
        if target:
            entry["targetPort"] = int(target[0]) if target[0].isdigit() else target[0]
        entries.append(entry)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip or "None", "ports": entries, **spec},
    }


def pod(name: str, namespace: str = "default", ip: str = "", **labels: str) -> Object:
    status = {"status": {"podIP": ip}} if ip else {}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": []}, **status}


def mesh(*objects: Object | str, **options: Any) -> IstioMesh:
    return IstioMesh(read_objects(list(objects)), MeshOptions(**options))


def sidecar(namespace: str = "default", **labels: str) -> Proxy:
    return Proxy("sidecar", namespace, labels)


def gateway_proxy(namespace: str = "istio-system", **labels: str) -> Proxy:
    return Proxy("gateway", namespace, labels or {"istio": "ingressgateway"}, ("10.9.9.9",))


def get(world: IstioMesh, url: str, proxy: Proxy | None = None, **request: Any) -> MeshMatch:
    """GET of ``http://host[:port]/path``, seen by a sidecar in namespace default unless a proxy is given."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    asked = {"method": "GET", "scheme": scheme, "authority": authority, "path": slash + path or "/", **request}
    return world.match(Request(**asked), proxy or sidecar())


REVIEWS = service("reviews", "http:9080", ip="10.0.0.1")
"""A Service with one HTTP port, the subject of most cases."""
