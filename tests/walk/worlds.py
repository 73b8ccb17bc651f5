"""Meshes with people in them, and random requests that meet their rules: for comparing ways of asking the walk.

``peopled`` gives any objects what a walk needs: namespaces with sidecars, a pod behind every Service and Gateway, and
clients. ``requests`` draws from the words of the objects themselves: hosts, paths, header values, identities, ports.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from meshsieve.request import Request

Object = dict[str, Any]
SECRET = b"an HMAC key of these tests, 32 b"
LABEL = "gateway.networking.k8s.io/gateway-name"
CLIENTS = 3


def documents(text: str) -> list[Object]:
    """The objects of YAML text; those in lists, too."""
    found = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    return [
        item for document in found for item in (document["items"] if document.get("kind") == "List" else [document])
    ]


def peopled(objects: list[Object]) -> list[Object]:
    namespaces = {_namespace(o) for o in objects if o.get("kind") != "Namespace"} | {"default"}
    known = {o["metadata"]["name"] for o in objects if o.get("kind") == "Namespace"}
    people = [
        _object("v1", "Namespace", name, None, {"istio-injection": "enabled"}) for name in sorted(namespaces - known)
    ]
    numbers = iter(range(1, 60_000))

    def pod(namespace: str, name: str, labels: Mapping[str, str]) -> Object:
        number = next(numbers)
        address = f"10.244.{number >> 8}.{number & 255}"
        made = _object("v1", "Pod", f"{name}-{number}", namespace, {**labels, "sidecar.istio.io/inject": "true"})
        spec = {"serviceAccountName": name, "containers": [{"name": "c", "image": "i"}]}
        return {**made, "spec": spec, "status": {"podIP": address, "podIPs": [{"ip": address}]}}

    for found in objects:
        spec = found.get("spec") or {}
        kind, namespace, name = found.get("kind"), _namespace(found), found["metadata"].get("name", "x")
        if kind == "Service" and spec.get("selector"):
            people.append(pod(namespace, name, spec["selector"]))
        elif kind == "Gateway" and "gateway.networking" in found["apiVersion"]:
            people.append(pod(namespace, name, {LABEL: name}))
        elif kind == "Gateway" and spec.get("selector"):
            people.append(pod(namespace, name, spec["selector"]))
    for namespace in sorted(namespaces):
        people += [pod(namespace, f"client{i}", {"app": f"client{i}"}) for i in range(CLIENTS)]
    return [*objects, *people]


def _namespace(found: Object) -> str:
    return str((found.get("metadata") or {}).get("namespace") or "default")


def _object(version: str, kind: str, name: str, namespace: str | None, labels: Mapping[str, str]) -> Object:
    metadata = {"name": name, "labels": dict(labels), **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def folders(data: Path) -> Iterator[list[Object]]:
    """Objects of the data sets about layer 7, with people."""
    for test in json.loads((data / "l7/istio/simulation.json").read_text())["tests"]:
        texts = [test.get(key) or "" for key in ("istio_yaml", "kubernetes_yaml", "kube_yaml")]
        yield peopled(documents("\n---\n".join(texts)))
    base = documents((data / "l7/gateway-api/manifests/base/manifests.yaml").read_text())
    for path in sorted((data / "l7/gateway-api/manifests/tests").rglob("*.yaml")):
        yield peopled([*base, *documents(path.read_text())])
    for path in sorted((data / "l7/istio/analyzers").glob("*.yaml")):
        yield peopled(documents(path.read_text()))


_WORD = re.compile(r"[A-Za-z0-9*][A-Za-z0-9.*-]*\.[A-Za-z*][A-Za-z0-9.*-]*|(?<=[\"' ,\[])/[^\"',\s\]]*")


class Draw:
    """Random requests for a set of objects."""

    def __init__(self, objects: list[Object], seed: int) -> None:
        self.rng = random.Random(seed)
        words = sorted(set(_WORD.findall(json.dumps(objects, default=str))))
        services = [o for o in objects if o.get("kind") == "Service"]
        names = [w.replace("*", "any") for w in words if not w.startswith("/")]
        self.hosts = ["nobody", "10.9.8.7", *names[:200]]
        for service in services:
            name, namespace = service["metadata"]["name"], _namespace(service)
            self.hosts += [name, f"{name}.{namespace}", f"{name}.{namespace}.svc.cluster.local"]
        self.paths = ["/", "/x?y=1", "*", "/%2e/x", "/a%2fb", *(w for w in words if w.startswith("/"))]
        self.ports = [80, 443, 8080, *(p["port"] for s in services for p in (s.get("spec") or {}).get("ports") or ())]
        pods = [o for o in objects if o.get("kind") == "Pod" and (o.get("status") or {}).get("podIP")]
        self.addresses = [o["status"]["podIP"] for o in pods]
        own = [(o.get("spec") or {}).get("clusterIP") for o in services]
        self.addresses += [address for address in own if address not in (None, "", "None")]
        accounts = [(_namespace(o), (o.get("spec") or {}).get("serviceAccountName", "default")) for o in pods]
        self.principals = [f"cluster.local/ns/{namespace}/sa/{account}" for namespace, account in accounts] or ["x"]
        self.headers = sorted({str(name): value for name, value in _headers(objects)}.items(), key=lambda item: item[0])

    def requests(self, n: int) -> list[Request]:
        return [self._request(number) for number in range(n)]

    def _request(self, number: int) -> Request:
        choice, random_ = self.rng.choice, self.rng.random
        port = choice([None, *self.ports])
        host = f"own{number}.example" if random_() < 0.1 else choice(self.hosts)
        headers = [choice(self.headers)] if self.headers and random_() < 0.5 else []
        if random_() < 0.1:
            headers.append(("Content-Type", choice(["application/grpc", "application/grpc+proto", "text/plain"])))
            if random_() < 0.3:
                headers.append(("content-type", choice(["application/grpc", "text/plain"])))
        if random_() < 0.15:
            headers.append(("Authorization", f"Bearer {token(self.rng)}"))
        https = random_() < 0.15
        tls = choice([None, None, {"presented": True, "validated": True}, {"presented": False}])
        return Request(
            method=choice(["GET", "GET", "POST", "DELETE", "PUT"]),
            scheme="https" if https else "http",
            authority=choice([host, f"{host}:{port or 80}", host.upper(), f"{host}."]),
            path=choice(self.paths) + choice(["", "", "", "/more", "?q=1"]),
            headers=tuple(headers),
            source_ip=choice([*self.addresses, *self.addresses, "203.0.113.9", None]),
            source_port=choice([None, 40_000 + number % 7]),
            destination_ip=choice([*self.addresses, None, None]),
            destination_port=port,
            principal=choice([None, None, *self.principals[:9]]),
            claims=choice([None] * 7 + [{"iss": "https://idp", "sub": "a", "groups": ["x", "admin"], "scope": "a b"}]),
            sni=choice([host, "", None]) if https else None,
            alpn=choice([None, "h2", "http/1.1,h2"]) if https else None,
            tls=tls,
            random_value=choice([None, 0, 1, 59, 60, self.rng.getrandbits(64)]),
            time_ns=choice([None, 1_900_000_000 * 10**9]),
        )


def _headers(value: Any) -> Iterator[tuple[str, str]]:
    """Header names and values that the objects speak of."""
    if isinstance(value, dict):
        if "name" in value and "value" in value:
            yield value["name"], str(value["value"])
        for name, found in (value.get("headers") or {}).items() if isinstance(value.get("headers"), dict) else ():
            if isinstance(found, dict) and (text := next(iter(found.values()), None)) and isinstance(text, str):
                yield name, text
        for inner in value.values():
            yield from _headers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _headers(inner)


def token(rng: random.Random) -> str:
    """A signed token of ``https://idp``, sometimes expired, for somebody else, or broken."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"iss": rng.choice(["https://idp", "https://idp", "https://other"]), "sub": rng.choice(["a", "b"])}
    claims |= {"exp": rng.choice([2_000_000_000, 2_000_000_000, 1_000_000_000]), "groups": rng.choice(["x", "admin"])}
    signed = part(json.dumps({"alg": "HS256"}).encode()) + "." + part(json.dumps(claims).encode())
    whole = signed + "." + part(hmac.digest(SECRET, signed.encode(), hashlib.sha256))
    return whole if rng.random() < 0.9 else whole[:-2]


def key_set() -> str:
    """The key of ``token``, as policies hold it."""
    key = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET).rstrip(b"=").decode()}
    return json.dumps({"keys": [key]})
