"""Ingress as sentences: hosts, paths, default backends, classes."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.errors import UsageError
from meshsieve.mesh.ingress import Ingresses
from meshsieve.mesh.objects import read_objects
from meshsieve.request import Request


def ingress(name: str, *rules: Any, **spec: Any) -> Any:
    metadata = {"name": name, "creationTimestamp": spec.pop("created", None)}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata,
            "spec": {"rules": list(rules), **spec}}  # fmt: skip


def backend(service: str, /, **port: Any) -> Any:
    return {"service": {"name": service, "port": port or {"number": 80}}}


def rule(host: str | None, **paths: str) -> Any:
    """Keyword arguments are backends: ``exact`` or ``prefix`` and a number, the path comes first in the text."""
    out = []
    for kind, text in paths.items():
        path, _, name = text.partition(" ")
        out.append({"path": path, "pathType": kind.rstrip("0123456789").title(), "backend": backend(name)})
    return {**({"host": host} if host else {}), "http": {"paths": out}}


SHOP = [
    ingress(
        "shop",
        rule("a.com", prefix="/ root", prefix2="/foo foo", prefix3="/foo/bar/ bar", exact="/foo/bar one"),
        rule("*.b.com", prefix="/w wild"),
        rule("x.b.com", prefix="/x exact"),
        rule(None, prefix="/any any"),
        defaultBackend=backend("fallback"),
    )
]
ANSWERS = [
    ("a.com/", "root"),
    ("A.com:8080/foo", "foo"),
    ("a.com/foo/", "foo"),
    ("a.com/foobar", "root"),
    ("a.com/foo/bar", "one"),
    ("a.com/foo/bar/", "bar"),
    ("y.b.com/w", "wild"),
    ("x.b.com/w", "fallback"),
    ("x.b.com/x/1", "exact"),
    ("y.z.b.com/w", "fallback"),
    ("y.z.b.com/any", "any"),
    ("b.com/w", "fallback"),
    ("other.com/any", "any"),
    ("other.com/no", "fallback"),
]


@pytest.mark.parametrize(("url", "service"), ANSWERS)
def test_what_takes_a_request(url, service):
    host, slash, path = url.partition("/")
    found = Ingresses(read_objects(SHOP)).match(Request(authority=host, path=slash + path))
    assert found.cluster == f"default/{service}:80"


def test_without_a_default_backend_there_is_404():
    assert (
        Ingresses(read_objects([ingress("a", rule("a.com", prefix="/a b"))])).match(Request(authority="b")).status
        == 404
    )


def test_of_two_ingresses_with_one_path_the_older_counts():
    young = ingress("a", rule("a.com", prefix="/ young"), created="2026-02-01T00:00:00Z")
    old = ingress("b", rule("a.com", prefix="/ old"), created="2026-01-01T00:00:00Z")
    assert Ingresses(read_objects([young, old])).match(Request(authority="a.com")).cluster == "default/old:80"


def test_named_ports_are_looked_up_and_what_is_missing_is_503():
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
               "spec": {"ports": [{"name": "http", "port": 8080}]}}  # fmt: skip
    paths = [
        {"path": f"/{name}", "pathType": "Prefix", "backend": backend("web", name=name)} for name in ("http", "no")
    ]
    found = Ingresses(read_objects([service, ingress("a", {"http": {"paths": paths}})]))
    assert found.match(Request(authority="x", path="/http")).cluster == "default/web:8080"
    assert found.match(Request(authority="x", path="/no")).status == 503
    assert "is not there: its requests get 503" in str(found.findings[0])


def test_each_class_has_a_table_of_its_own():
    found = Ingresses(
        read_objects(
            [
                ingress("a", rule(None, prefix="/ one"), ingressClassName="one"),
                ingress("b", rule(None, prefix="/ two"), ingressClassName="two"),
            ]
        )
    )
    assert found.match(Request(authority="x"), "two").cluster == "default/two:80"
    with pytest.raises(UsageError, match="which ingress class\\? there are: 'one', 'two'"):
        found.match(Request())
    with pytest.raises(UsageError, match="no Ingress is of class 'three'"):
        found.match(Request(), "three")
