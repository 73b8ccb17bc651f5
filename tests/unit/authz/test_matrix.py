"""Who may call whom: every state once, correlated conditions, and random meshes against requests one by one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.authz.classes import number_answers, set_answers, text_answers
from meshsieve.authz.generate import host_matcher, path_matcher, port_matcher, text_matcher
from meshsieve.authz.matrix import NOBODY, matrix
from meshsieve.cli.main import main
from meshsieve.request import Request
from tests.differential.authz import World
from tests.unit.authz.test_peer_authentication import peer
from tests.unit.authz.test_policies import allow, by, deny, policy, to
from tests.unit.authz.test_tokens import authentication


def pod(name: str, account: str, ip: str = "", namespace: str = "shop") -> dict[str, Any]:
    spec = {"serviceAccountName": account, "containers": []}
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    status = {"podIP": ip} if ip else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def service(name: str, *ports: int) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"name": f"p{p}", "port": p} for p in ports or (80,)]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


MESH = [pod("web", "web", "10.0.0.1"), pod("db", "db", "10.0.0.2"), service("db")]
WEB, DB = "shop/web", "shop/db"


def ask(*policies: dict[str, Any], source: str = WEB, method: str = "GET", mesh: Any = MESH) -> Any:
    cells = [c for c in matrix(from_kubernetes([*mesh, *policies])) if (c.source, c.destination) == (source, DB)]
    return next(c for c in cells if c.method == method)


def p(spec: dict[str, Any], name: str = "x") -> dict[str, Any]:
    return policy(spec, name, "shop")


def when(key: str, *values: str, **more: Any) -> dict[str, Any]:
    return {"when": [{"key": key, **({"values": list(values)} if values else {}), **more}]}


FROM_WEB = by(serviceAccounts=["web"])
TWO = [("*", "/a*"), ("*", "/b*")]
CELLS = [
    #  what it shows                                       policies                                       state
    ("no policy", [], "allowed"),
    ("nothing allows", [p({})], "denied"),
    ("the caller is allowed", [p(allow(FROM_WEB))], "allowed"),
    ("another caller is", [p(allow(by(serviceAccounts=["other"])))], "denied"),
    ("some paths", [p(allow(to(paths=["/a*"])))], "conditional"),
    ("every path", [p(allow(to(paths=["/*"])))], "allowed"),
    ("a path and its opposite", [p(allow(to(paths=["/a*"]), to(notPaths=["/a*"])))], "allowed"),
    ("paths that none can be at once", [p(allow({"to": [{"operation": {"paths": ["/a*"], "notPaths": ["/*"]}}]}))],
     "denied"),
    ("a path that is never normalised", [p(allow(to(paths=["/a/../b"])))], "denied"),
    ("an exact path that a prefix denies", [p(allow(to(paths=["/a/b"]))), p(deny(to(paths=["/a*"])), "d")], "denied"),
    ("a template that a prefix denies", [p(allow(to(paths=["/a/{*}"]))), p(deny(to(paths=["/a*"])), "d")], "denied"),
    ("a template wider than what is denied", [p(allow(to(paths=["/a/{**}"]))), p(deny(to(paths=["/a/b"])), "d")],
     "conditional"),
    ("a prefix and a suffix may meet", [p(allow({"to": [{"operation": {"paths": ["/ab*"], "notPaths": ["*bc"]}}]}))],
     "conditional"),
    ("the method", [p(allow(to(methods=["GET"])))], "allowed"),
    ("another method", [p(allow(to(methods=["P*"])))], "denied"),
    ("the port that the service has", [p(allow(to(ports=["80"])))], "allowed"),
    ("a port that it has not", [p(allow(to(ports=["81"])))], "denied"),
    ("the caller's address", [p(allow(by(ipBlocks=["10.0.0.0/31"])))], "allowed"),
    ("an address that it has not", [p(allow(by(ipBlocks=["10.1.0.0/16"])))], "denied"),
    ("the callee's address", [p(allow(when("destination.ip", "10.0.0.2")))], "allowed"),
    ("without trusted proxies both addresses are one",
     [p(allow(by(ipBlocks=["10.0.0.1"], notRemoteIpBlocks=["10.0.0.1"])))], "denied"),
    ("a header", [p(allow(when("request.headers[x]", "1")))], "conditional"),
    ("several lines of one header", [p(allow({"when": [{"key": "request.headers[x]", "values": ["1"]},
     {"key": "request.headers[x]", "values": ["2"]}]}))], "conditional"),
    ("one line cannot both be and not be", [p(allow(when("request.headers[x]", "1", notValues=["1"])))], "denied"),
    ("hosts do not mind case", [p(allow(to(hosts=["DB"]), to(notHosts=["db"])))], "allowed"),
    ("claims, where no token is accepted", [p(allow(when("request.auth.claims[g]", "a")))], "denied"),
    ("claims, where one is", [authentication({"issuer": "i"}), p(allow(when("request.auth.claims[g]", "a")))],
     "conditional"),
    ("the issuer, where only one is accepted",
     [authentication({"issuer": "i"}), p(deny(by(notRequestPrincipals=["*"]))),
      p(allow(by(requestPrincipals=["i/*"])), "y")], "conditional"),
    ("another issuer", [authentication({"issuer": "i"}), p(allow(by(requestPrincipals=["j/*"])))], "denied"),
    ("an authorizer is asked", [p({"action": "CUSTOM", "provider": {"name": "q"}, "rules": [{}]})], "conditional"),
    ("AUDIT does not count", [p({"action": "AUDIT", "rules": [to(paths=["/a"])]})], "allowed"),
    ("dry run does not count", [policy(deny({}), "x", "shop", annotations={"istio.io/dry-run": "true"})], "allowed"),
    ("mTLS is no obstacle in the mesh", [peer("shop", "STRICT")], "allowed"),
    ("bytes without identity", [peer("shop", "DISABLE"), p(allow(FROM_WEB))], "denied"),
]  # fmt: skip


@pytest.mark.parametrize(("says", "policies", "state"), CELLS, ids=[row[0] for row in CELLS])
def test_cells(says, policies, state):
    policies = [{**o, "metadata": {**o["metadata"], "namespace": "shop"}} for o in policies]
    found = ask(*policies)
    assert found.state == state
    assert found.exact


def test_the_method_is_a_column():
    cells = [ask(p(allow(to(methods=["GET", "P*"]))), method=m).state for m in ("GET", "POST", "DELETE")]
    assert cells == ["allowed", "allowed", "denied"]


def test_who_has_no_identity():
    assert ask(p(allow(by(notPrincipals=["x"]))), source=NOBODY).state == "allowed"
    assert ask(p(allow(by(principals=["*"]))), source=NOBODY).state == "denied"
    assert ask(peer("shop", "STRICT"), source=NOBODY).state == "denied"


def test_a_port_with_a_mode_of_its_own_makes_the_call_depend_on_the_port():
    mesh = [*MESH[:2], service("db", 80, 81)]
    own = peer("shop", "STRICT", app="db", portLevelMtls={"81": {"mode": "PERMISSIVE"}})
    cell = ask(own, source=NOBODY, mesh=mesh)
    assert (cell.state, cell.depends_on) == ("conditional", ("destination.port",))


def test_what_a_call_depends_on_is_named():
    rule = {**to(paths=["/a"]), **when("request.headers[x]", "1")}
    assert set(ask(p(allow(rule))).depends_on) == {"path", "request.headers[x]"}


def test_an_expression_is_taken_at_will_and_that_is_said():
    own = {**p({"rules": [{"condition": "user.id == 'a'"}]}), "apiVersion": "meshsieve.io/v1"}
    cell = ask(own)
    assert (cell.state, cell.exact) == ("conditional", False)


ANSWERS = [
    #  matchers of paths                      combinations
    (["/a*", "*b"], [[], [0], [1], [0, 1]]),
    (["/a", "/b*"], [[], [0], [1]]),
    (["/ab", "/a*"], [[], [1], [0, 1]]),
    (["/*"], [[0]]),
    (["*"], [[0]]),
    (["a*", "/..", "/a/./b"], [[]]),
    (["/{*}", "/a/{*}", "/a*"], [[], [0], [2], [0, 2], [1, 2]]),
    (["/{**}", "/a/{**}"], [[], [0], [0, 1]]),
    (["*aa", "*aba"], [[], [0], [1]]),
]


@pytest.mark.parametrize(("values", "combinations"), ANSWERS, ids=[" ".join(row[0]) for row in ANSWERS])
def test_answers_that_one_path_gives(values, combinations):
    found = text_answers([path_matcher(v) for v in values], "path")
    assert found == {frozenset(c) for c in combinations}


def test_answers_of_other_fields():
    assert text_answers([host_matcher("A"), host_matcher("a*")], "host") == {
        frozenset(),
        frozenset({1}),
        frozenset({0, 1}),
    }
    assert text_answers([text_matcher("*")], "line") == {frozenset(), frozenset({0})}
    assert number_answers([port_matcher("80")], without=[80]) == {frozenset()}
    assert set_answers([frozenset({0}), frozenset({1})]) == {frozenset(s) for s in ((), (0,), (1,), (0, 1))}


def test_too_much_work_is_unknown_and_not_guessed(monkeypatch):
    monkeypatch.setattr("meshsieve.authz.matrix.MAX_NODES", 3)
    rules = [when(f"request.headers[x{i}]", "1") for i in range(5)]
    assert ask(p(deny({"when": [r["when"][0] for r in rules]}))).state in ("conditional", "unknown")
    monkeypatch.setattr("meshsieve.authz.classes.MAX_STEPS", 10)
    assert ask(p(allow(to(paths=["/a*"])))).exact is False


def test_random_meshes_agree_with_requests_one_by_one():
    """Every allowed cell allows, every denied cell denies, and conditional cells are mostly seen to do both."""
    states: dict[str, int] = {}
    both = conditional = 0
    for seed in range(25):
        world = World(seed, (80, 81, 82))
        policies = [{**o, "metadata": {**o["metadata"], "namespace": "prod"}} for o in world.policies()]
        names = {o["metadata"]["name"]: o for o in policies}
        mesh = [pod("web", "web", "127.1.2.3", "prod"), pod("db", "api", "127.0.0.1", "prod")]
        az = from_kubernetes([*mesh, *names.values()])
        for cell in matrix(az, ("GET", "PUT")):
            states[cell.state] = states.get(cell.state, 0) + 1
            account = cell.source.split("/")[-1] if cell.source != NOBODY else None
            who = None if account is None else f"cluster.local/ns/prod/sa/{account}"
            address = {"web": "127.1.2.3", "api": "127.0.0.1"}.get(account or "", "127.9.0.7")
            callee = cell.destination.removeprefix("prod/")
            seen = set()
            for _ in range(40):
                request: Request = replace(
                    world.request(), method=cell.method, principal=who, claims=None, source_ip=address, remote_ip=None,
                    destination_ip={"web": "127.1.2.3", "db": "127.0.0.1"}[callee],
                )  # fmt: skip
                seen.add(az.decide(request, f"prod/{callee}").allowed)
            if cell.state == "conditional":
                conditional += 1
                both += len(seen) == 2
            elif cell.state in ("allowed", "denied"):
                assert seen == {cell.state == "allowed"}, (seed, cell)
    assert min(states.get(s, 0) for s in ("allowed", "denied", "conditional")) > 10
    assert both > conditional / 4


def test_the_verb_prints_a_table_and_json(capsys, tmp_path):
    file = tmp_path / "mesh.json"
    file.write_text(json.dumps({"kind": "List", "items": [*MESH, p(allow(to(methods=["GET"], paths=["/a*"])))]}))
    assert main(["authz", "-p", str(file), "--matrix"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "FROM",
        "TO",
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "DEPENDS",
        "ON",
    ]
    assert lines[1].split() == ["shop/web", "shop/db", "if", "-", "-", "-", "-", "-", "-", "path"]
    assert main(["authz", "-p", str(file), "--matrix", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["state"] == "conditional"
