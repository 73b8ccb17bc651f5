"""Who may call whom under a new mesh policy but not under the old one, and the other way round: found by search, shown
by a request, and silent where nothing changes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import meshsieve
from meshsieve.changes.authorization import AuthorizationChanges
from meshsieve.changes.model import Change
from meshsieve.walk.mesh_policy import MeshPolicy

CLUSTER = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
"""
POD = """\
---
apiVersion: v1
kind: Pod
metadata: {name: %(name)s, namespace: shop, labels: {app: %(name)s}}
spec: {serviceAccountName: %(name)s, containers: [{name: c, ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.0.0.%(number)d}
---
apiVersion: v1
kind: Service
metadata: {name: %(name)s, namespace: shop}
spec: {selector: {app: %(name)s}, ports: [{name: http, port: 80, targetPort: 80}]}
"""
for number, name in enumerate(("web", "api", "db"), 1):
    CLUSTER += POD % {"name": name, "number": number}


def policy(rules: str, action: str = "ALLOW", name: str = "p") -> str:
    return f"""\
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{matchLabels: {{app: db}}}}
  action: {action}
  rules: {rules}
"""


def mesh(tmp_path: Path, text: str) -> MeshPolicy:
    path = tmp_path / "mesh.yaml"
    path.write_text(CLUSTER + text)
    found = meshsieve.load(path).mesh
    return found if found is not None else MeshPolicy()


def changes(tmp_path: Path, old: str, new: str) -> tuple[list[Change], list[str]]:
    found = AuthorizationChanges(mesh(tmp_path, old), mesh(tmp_path, new))
    return list(found.found()), found.notes


WEB = "source: {principals: [cluster.local/ns/shop/sa/web]}"
ANY = policy("[{}]")
CASES = [
    ("the same policy", ANY, ANY, []),
    ("a policy of another name says the same", ANY, policy("[{}]", name="q"), []),
    ("two rules in another order", policy(f"[{{from: [{WEB}]}}, {{to: [operation: {{methods: [GET]}}]}}]"),
     policy(f"[{{to: [operation: {{methods: [GET]}}]}}, {{from: [{WEB}]}}]"), []),
    ("a denial of what is denied anyway", policy(f"[{{from: [{WEB}]}}]"),
     policy(f"[{{from: [{WEB}]}}]") + policy("[{from: [source: {notPrincipals: ['*']}]}]", "DENY", "d"), []),
    ("everything is opened", policy("[]"), ANY, [("opened", 4, 7)]),
    ("everything is closed", ANY, policy("[]"), [("closed", 4, 7)]),
    ("one caller loses one method", policy(f"[{{from: [{WEB}]}}]"),
     policy(f"[{{from: [{WEB}], to: [operation: {{notMethods: [DELETE]}}]}}]"), [("closed", 1, 1)]),
    ("one path is opened to all", policy("[{to: [operation: {paths: [/a]}]}]"),
     policy("[{to: [operation: {paths: [/a, /b]}]}]"), [("opened", 4, 7)]),
    ("one path for another", policy("[{to: [operation: {paths: [/a]}]}]"),
     policy("[{to: [operation: {paths: [/b]}]}]"), [("closed", 4, 7), ("opened", 4, 7)]),
    ("a header more is asked for", policy("[{}]"), policy("[{when: [{key: 'request.headers[x]', values: [v]}]}]"),
     [("closed", 4, 7)]),
    ("no mesh before", "", policy("[]"), [("closed", 4, 7)]),
    ("no mesh afterwards", policy("[]"), "", [("opened", 4, 7)]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "old", "new", "expected"), CASES, ids=[case[0] for case in CASES])
def test_changes_by_kind_callers_and_methods(
    what: str, old: str, new: str, expected: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    found, notes = changes(tmp_path, old, new)
    assert sorted((c.kind, len(c.sources), c.what.count(",") + 1) for c in found) == sorted(expected)
    assert {c.destinations for c in found} <= {("shop/db",)}
    assert not notes


def random_policy(chance: random.Random) -> str:
    parts = []
    for number in range(chance.randint(0, 3)):
        rules = []
        for _ in range(chance.randint(0, 2)):
            fields = []
            if chance.random() < 0.5:
                account = chance.choice(["web", "api"])
                fields.append(f"from: [source: {{principals: [cluster.local/ns/shop/sa/{account}]}}]")
            if chance.random() < 0.7:
                methods = chance.choice(["methods: [GET]", "methods: [GET, PUT]", "notMethods: [DELETE]"])
                paths = chance.choice(["", ", paths: [/a, /b/*]", ", notPaths: [/a]", ", hosts: [db.shop]"])
                fields.append(f"to: [operation: {{{methods}{paths}}}]")
            rules.append("{" + ", ".join(fields) + "}")
        parts.append(policy("[" + ", ".join(rules) + "]", chance.choice(["ALLOW", "DENY"]), f"p{number}"))
    return "".join(parts)


@pytest.mark.parametrize("seed", range(40))
def test_no_request_changes_that_is_not_told_of(seed: int, tmp_path: Path) -> None:
    """Every request over all that the policies compare with; the outcome of each is asked of both sides."""
    chance = random.Random(seed)
    old, new = (mesh(tmp_path, random_policy(chance)) for _ in range(2))
    changes_found = AuthorizationChanges(old, new)
    found = list(changes_found.found())
    assert not changes_found.notes
    for account in ("web", "api", "db", None):
        caller = "(no identity)" if account is None else f"shop/{account}"
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            seen = set()
            for path in ("/a", "/b/x", "/b", "/c"):
                for host in ("db.shop", "db"):
                    request = meshsieve.Request(
                        method=method, authority=host, path=path, destination_port=80, destination_ip="10.0.0.3",
                        principal=None if account is None else f"cluster.local/ns/shop/sa/{account}",
                    )  # fmt: skip
                    allowed = [
                        side.authorizer is None or side.authorizer.decide(request, "shop/db").allowed
                        for side in (old, new)
                    ]
                    if allowed[0] != allowed[1]:
                        seen.add("opened" if allowed[1] else "closed")
            told = {c.kind for c in found if caller in c.sources and method in c.what}
            assert told == seen, (seed, caller, method)
