"""Where requests go under a new configuration but not under the old one: what changes is shown by a request, what only
looks different is not."""

from __future__ import annotations

from pathlib import Path

import pytest

import meshsieve
from meshsieve.changes.example_requests import example_requests
from meshsieve.changes.model import Change
from meshsieve.changes.routes import RouteChanges
from meshsieve.routes import from_envoy
from meshsieve.walk.mesh_policy import MeshPolicy

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo" / "policy"
SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: bookinfo}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings}}], timeout: TIMEOUT}]
"""


def side(routes: str, domains: str = "[shop.example]") -> MeshPolicy:
    text = f"name: edge\nvirtual_hosts:\n- name: shop\n  domains: {domains}\n  routes: {routes}\n"
    return MeshPolicy(from_envoy(text))


def route(match: str, to: str) -> str:
    return f"{{match: {match}, {to}}}"


def changes(old: MeshPolicy, new: MeshPolicy) -> list[Change]:
    return list(RouteChanges(old, new).found())


def shares(a: int, b: int) -> str:
    return f"route: {{weighted_clusters: {{clusters: [{{name: a, weight: {a}}}, {{name: b, weight: {b}}}]}}}}"


A, B = "route: {cluster: a}", "route: {cluster: b}"
ALL, CART = "{prefix: /}", "{prefix: /cart}"
WITH_HEADER = "{prefix: /, headers: [{name: x-v, string_match: {exact: '2'}}]}"
CASES = [
    ("nothing", f"[{route(ALL, A)}]", f"[{route(ALL, A)}]", []),
    ("another cluster", f"[{route(ALL, A)}]", f"[{route(ALL, B)}]", ["rerouted"]),
    ("a path of its own", f"[{route(ALL, A)}]", f"[{route(CART, B)}, {route(ALL, A)}]", ["rerouted"]),
    ("a route behind one that takes everything", f"[{route(ALL, A)}]", f"[{route(ALL, A)}, {route(CART, B)}]", []),
    ("another order", f"[{route(CART, B)}, {route(ALL, A)}]", f"[{route(ALL, A)}, {route(CART, B)}]", ["rerouted"]),
    ("a header that is asked for", f"[{route(ALL, A)}]", f"[{route(WITH_HEADER, B)}, {route(ALL, A)}]", ["rerouted"]),
    ("a regular expression", f"[{route(ALL, A)}]",
     "[" + route("{safe_regex: {regex: '/items/[0-9]+'}}", B) + f", {route(ALL, A)}]", ["rerouted"]),
    ("a route less", f"[{route(ALL, A)}]", f"[{route(CART, A)}]", ["closed"]),
    ("a route more", f"[{route(CART, A)}]", f"[{route(ALL, A)}]", ["opened"]),
    ("weights", f"[{route(ALL, shares(9, 1))}]", f"[{route(ALL, shares(5, 5))}]", ["rerouted"]),
    ("a header that is added", f"[{route(ALL, A)}]",
     f"[{route(ALL, A + ', request_headers_to_add: [{header: {key: x, value: v}}]')}]", ["rerouted"]),
    ("a rewrite", f"[{route(ALL, A)}]", f"[{route(ALL, 'route: {cluster: a, prefix_rewrite: /v2/}')}]", ["rerouted"]),
    ("a redirect", f"[{route(ALL, A)}]", f"[{route(ALL, 'redirect: {https_redirect: true}')}]", ["rerouted"]),
    ("another name of the route", f"[{route(ALL, A)}]", "[{name: all, match: {prefix: /}, route: {cluster: a}}]", []),
]  # fmt: skip


@pytest.mark.parametrize(("what", "old", "new", "kinds"), CASES, ids=[case[0] for case in CASES])
def test_what_becomes_of_requests(what: str, old: str, new: str, kinds: list[str]) -> None:
    found = changes(side(old), side(new))
    assert sorted({change.kind for change in found}) == kinds
    for change in found:
        assert change.witness.startswith("GET http://shop.example/")
        assert change.old.route != change.new.route or change.old.action != change.new.action


def test_settings_of_a_mesh_route_are_compared(tmp_path: Path) -> None:
    def mesh(timeout: str) -> MeshPolicy:
        path = tmp_path / "mesh.yaml"
        path.write_text((BOOKINFO / "cluster.yaml").read_text() + "---" + SERVICE.replace("TIMEOUT", timeout))
        found = meshsieve.load(path).mesh
        assert found is not None
        return found

    assert not changes(mesh("1s"), mesh("1s"))
    found = changes(mesh("1s"), mesh("2s"))
    assert {change.kind for change in found} == {"rerouted"}
    assert any("timeout" in change.new.route for change in found)


def test_a_table_more_is_told() -> None:
    (change,) = changes(MeshPolicy(), side(f"[{route(ALL, A)}]"))
    assert (change.kind, change.old.reason, change.new.route) == ("coverage", "there is no such table", "to a")


def test_every_route_is_tried_by_a_request_that_it_takes() -> None:
    """Of routes in an order in which each can act, every one is met by at least one request."""
    matches = [
        "{path: /a}",
        "{prefix: /b}",
        "{path_separated_prefix: /c}",
        "{safe_regex: {regex: '/d/\\d+/(x|y)'}}",
        "{prefix: /e, headers: [{name: ':method', string_match: {exact: POST}}]}",
        "{prefix: /f, headers: [{name: x, range_match: {start: 3, end: 9}}]}",
        "{prefix: /g, query_parameters: [{name: q, string_match: {exact: v}}]}",
        "{prefix: /h, headers: [{name: x, present_match: true}]}",
        "{prefix: /i, grpc: {}}",
        "{path_match_policy: {name: t, typed_config: {'@type': "
        "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, "
        "path_template: '/j/*/{v}'}}}",
    ]
    policy = side("[" + ", ".join(route(m, f"route: {{cluster: c{i}}}") for i, m in enumerate(matches)) + "]")
    assert policy.routes is not None
    found = policy.routes.match_batch(list(example_requests(policy.routes.config)))
    assert set(found.tolist()) >= set(range(len(matches)))
