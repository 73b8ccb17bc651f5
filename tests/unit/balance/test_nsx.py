"""NSX virtual servers, rules, pools and persistence, by the written sentences."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshsieve.balance.decision import Decision, Outcome
from meshsieve.balance.nsx import LbState, NsxBalancer, lint, usable_members
from meshsieve.balance.nsx_objects import read_objects
from meshsieve.balance.tables import IpHash
from meshsieve.errors import PolicyError
from meshsieve.policy import SourceFile
from meshsieve.request import Request

HTTP = {"resource_type": "LBHttpProfile", "path": "/infra/lb-app-profiles/http", "id": "http"}
TCP = {"resource_type": "LBFastTcpProfile", "path": "/infra/lb-app-profiles/tcp", "id": "tcp"}
UDP = {"resource_type": "LBFastUdpProfile", "path": "/infra/lb-app-profiles/udp", "id": "udp"}
POOL, SORRY = "/infra/lb-pools/web", "/infra/lb-pools/sorry"


def member(last: int, **more: Any) -> dict[str, Any]:
    return {"ip_address": f"10.0.0.{last}", "port": "8080", "display_name": f"m{last}", **more}


def pool(*members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "resource_type": "LBPool",
        "path": POOL,
        "members": list(members) or [member(1), member(2), member(3)],
        **more,
    }


def server(**more: Any) -> dict[str, Any]:
    return {
        "resource_type": "LBVirtualServer", "path": "/infra/lb-virtual-servers/web", "display_name": "web",
        "ip_address": "192.0.2.10", "ports": ["80"], "pool_path": POOL,
        "application_profile_path": HTTP["path"], **more,
    }  # fmt: skip


def balancer(*objects: dict[str, Any], groups: dict[str, list[str]] | None = None) -> NsxBalancer:
    given = [o["path"] for o in objects]
    rest = [o for o in (HTTP, TCP, UDP, pool(), server()) if o["path"] not in given]
    text = json.dumps({"results": [*objects, *rest]}, indent=1)
    return NsxBalancer(read_objects([SourceFile("lb.json", text)], groups))


def request(path: str = "/", **more: Any) -> Request:
    return Request(
        **{"path": path, "source_ip": "198.51.100.7", "destination_ip": "192.0.2.10", "destination_port": 80, **more}
    )


def decide(lb: NsxBalancer, state: LbState | None = None, time: float = 0.0, **fields: Any) -> Decision:
    decision = lb.decide(request(**fields), LbState() if state is None else state, time=time)
    assert decision is not None
    return decision


def picks(lb: NsxBalancer, n: int, state: LbState | None = None, **fields: Any) -> str:
    state = LbState() if state is None else state
    return "".join(endpoint(decide(lb, state, **fields))[-1] for _ in range(n))


def endpoint(decision: Decision) -> str:
    assert decision.endpoint is not None
    return decision.endpoint.address


HEAVY_FIRST = [member(1, weight=5), member(2), member(3)]
ALGORITHMS = [
    #  what it shows, pool, picks of an idle pool
    ("round robin in list order", pool(), "123123"),
    ("round robin ignores weights", pool(member(1, weight=5), member(2)), "121212"),
    ("weighted round robin is smooth", pool(*HEAVY_FIRST, algorithm="WEIGHTED_ROUND_ROBIN"), "1121311"),
    ("least connection, ties in list order", pool(algorithm="LEAST_CONNECTION"), "111"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "wanted"), [c[1:] for c in ALGORITHMS], ids=[c[0] for c in ALGORITHMS])
def test_algorithms(members: dict[str, Any], wanted: str) -> None:
    assert picks(balancer(members), len(wanted)) == wanted


def test_least_connection_looks_at_connections_and_the_weighted_one_at_weights() -> None:
    state = LbState()
    state.active.update({(POOL, "m1"): 3, (POOL, "m2"): 2, (POOL, "m3"): 2})
    assert endpoint(decide(balancer(pool(algorithm="LEAST_CONNECTION")), state)) == "10.0.0.2"
    heavy = pool(member(1, weight=4), member(2), member(3), algorithm="WEIGHTED_LEAST_CONNECTION")
    assert endpoint(decide(balancer(heavy), state)) == "10.0.0.1"


def test_ip_hash_is_said_to_be_assumed() -> None:
    decision = decide(balancer(pool(algorithm="IP_HASH")))
    assert decision.answer_class == "distribution"
    assert "hash: assumed" in decision.explain
    expected = IpHash(["m1", "m2", "m3"]).pick_address(bytes([198, 51, 100, 7]))
    assert endpoint(decision) == f"10.0.0.{expected + 1}"


def test_a_decision_does_not_depend_on_when_the_state_was_copied() -> None:
    lb, state = balancer(), LbState()
    picks(lb, 2, state)
    other = state.copy()
    assert picks(lb, 3, state) == picks(lb, 3, other) == "312"


USABLE = [
    #  what it shows, members, what the state says, who may be chosen
    ("all enabled", [member(1), member(2)], {}, ["m1", "m2"]),
    ("not the disabled", [member(1, admin_state="DISABLED"), member(2)], {}, ["m2"]),
    ("not the draining", [member(1, admin_state="GRACEFUL_DISABLED"), member(2)], {}, ["m2"]),
    ("not those down", [member(1), member(2)], {"down": {(POOL, "m1")}}, ["m2"]),
    ("no backups while enough serve", [member(1), member(2, backup_member=True)], {}, ["m1"]),
    ("backups instead of nobody", [member(1), member(2, backup_member=True)], {"down": {(POOL, "m1")}}, ["m2"]),
]


@pytest.mark.parametrize("case", USABLE, ids=[case[0] for case in USABLE])
def test_who_may_be_chosen(case: tuple[str, list[dict[str, Any]], dict[str, Any], list[str]]) -> None:
    _, members, state, names = case
    found = balancer(pool(*members)).objects.pools[POOL]
    assert [m.name for m in usable_members(found, LbState(**state))] == names


def test_backups_join_below_the_minimum_of_active_members() -> None:
    lb = balancer(pool(member(1), member(2, backup_member=True), min_active_members=2))
    assert [m.name for m in usable_members(lb.objects.pools[POOL], LbState())] == ["m1", "m2"]


def test_a_member_at_its_limit_is_not_chosen() -> None:
    state = LbState()
    state.active[POOL, "m1"] = 1
    assert picks(balancer(pool(member(1, max_concurrent_connections=1), member(2))), 2, state) == "22"


def test_the_sorry_pool_serves_when_nobody_else_can() -> None:
    sorry = {**pool(member(9)), "path": SORRY}
    state = LbState(down={(POOL, "m1"), (POOL, "m2"), (POOL, "m3")})
    assert endpoint(decide(balancer(sorry, server(sorry_pool_path=SORRY)), state)) == "10.0.0.9"
    decision = decide(balancer(), state)
    assert (decision.outcome, decision.status) == (Outcome.NO_ENDPOINT, 503)


RANGES = server(ports=["8000-8009"], default_pool_member_ports=["9000-9009"])
PORTS = [
    #  what it shows, virtual server, member's port, port of the client, port of the server
    ("the member's own port", server(), "8080", 80, 8080),
    ("else the default for members", server(default_pool_member_ports=["9000"]), "", 80, 9000),
    ("a range beside the range of ports", RANGES, "", 8004, 9004),
    ("else the port that the client used", server(), "", 80, 80),
]  # fmt: skip


@pytest.mark.parametrize("case", PORTS, ids=[case[0] for case in PORTS])
def test_the_port_of_the_server(case: tuple[str, dict[str, Any], str, int, int]) -> None:
    _, virtual, own, used, wanted = case
    decision = decide(balancer(virtual, pool(member(1, port=own))), destination_port=used)
    assert decision.endpoint is not None
    assert decision.endpoint.port == wanted


NOT_OURS = [{"destination_port": 81}, {"destination_ip": "192.0.2.11"}]


@pytest.mark.parametrize("fields", NOT_OURS)
def test_other_destinations_are_nobodys(fields: dict[str, Any]) -> None:
    assert balancer().decide(request(**fields), LbState()) is None


def test_a_disabled_server_and_another_protocol_are_nobodys() -> None:
    assert balancer(server(enabled=False)).decide(request(), LbState()) is None
    udp = balancer(server(application_profile_path=UDP["path"]))
    assert udp.decide(request(), LbState()) is None
    assert udp.decide(request(), LbState(), protocol="UDP") is not None


GROUP = "/infra/domains/default/groups/office"
INSIDE, OUTSIDE = "198.51.100.7", "203.0.113.1"
ACCESS = [("ALLOW", INSIDE, True), ("ALLOW", OUTSIDE, False), ("DROP", INSIDE, False), ("DROP", OUTSIDE, True)]


@pytest.mark.parametrize(("action", "client", "passes"), ACCESS)
def test_access_lists(action: str, client: str, passes: bool) -> None:
    control = {"action": action, "group_path": GROUP, "enabled": True}
    lb = balancer(server(access_list_control=control), groups={GROUP: ["198.51.100.0/24"]})
    assert (decide(lb, source_ip=client).outcome is Outcome.ENDPOINT) is passes


def test_an_access_list_of_an_unknown_group_is_undecided() -> None:
    control = {"action": "ALLOW", "group_path": GROUP, "enabled": True}
    assert decide(balancer(server(access_list_control=control))).outcome is Outcome.UNDECIDED


def test_limits_of_the_server_drop() -> None:
    state = LbState()
    state.server_active["/infra/lb-virtual-servers/web"] = 5
    decision = decide(balancer(server(max_concurrent_connections=5)), state)
    assert (decision.outcome, decision.limits) == (Outcome.DROP, ("max_concurrent_connections",))


def rule(*conditions: dict[str, Any], actions: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    reject = [{"type": "LBHttpRejectAction", "reply_status": "418"}]
    return {"display_name": "r", "match_conditions": list(conditions), "actions": actions or reject, **more}


def uri(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "LBHttpRequestUriCondition", "uri": text, **more}


def header(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {"type": "LBHttpRequestHeaderCondition", "header_name": name, "header_value": value, **more}


COOKIE_IS_V = {"type": "LBHttpRequestCookieCondition", "cookie_name": "c", "cookie_value": "v"}
STARTS = {"match_type": "STARTS_WITH"}
CONDITIONS = [
    #  what it shows, rule, request, does the rule match (None: unknown)
    ("no condition is always true", rule(), request(), True),
    ("a pattern matches anywhere", rule(uri("img")), request("/a/img/b"), True),
    ("a pattern may be anchored", rule(uri("^/img")), request("/a/img"), False),
    ("arguments are not part of the URI", rule(uri("x=1")), request("/a?x=1"), False),
    ("starts with", rule(uri("/img", **STARTS)), request("/img/a"), True),
    ("ends with", rule(uri(".png", match_type="ENDS_WITH")), request("/a.png"), True),
    ("contains", rule(uri("b", match_type="CONTAINS")), request("/abc"), True),
    ("equals", rule(uri("/a", match_type="EQUALS")), request("/ab"), False),
    ("case counts", rule(uri("/IMG", **STARTS)), request("/img"), False),
    ("unless it does not", rule(uri("/IMG", case_sensitive=False, **STARTS)), request("/img"), True),
    ("inverse", rule(uri("/img", inverse=True, **STARTS)), request("/a"), True),
    ("any header of the name", rule(header("x", "^b$")), request(headers=[("x", "a"), ("X", "b")]), True),
    ("an absent header matches nothing", rule(header("x", ".*")), request(), False),
    ("ANY is the default", rule(uri("/no"), uri("/")), request("/yes"), True),
    ("ALL needs all", rule(uri("/no"), uri("/"), match_strategy="ALL"), request("/yes"), False),
    ("method", rule({"type": "LBHttpRequestMethodCondition", "method": "POST"}), request(method="POST"), True),
    ("arguments", rule({"type": "LBHttpRequestUriArgumentsCondition", "uri_arguments": "a=1"}), request("/?a=1"), True),
    ("cookie", rule(COOKIE_IS_V), request(headers=[("cookie", "c=v")]), True),
    ("source address", rule({"type": "LBIpHeaderCondition", "source_address": "198.51.100.0/24"}), request(), True),
    ("SNI", rule({"type": "LBSslSniCondition", "sni": "a.example"}), request(sni="a.example"), True),
    ("a body is not known", rule({"type": "LBHttpRequestBodyCondition", "body_value": "x"}), request(), None),
    ("back-references are unknown", rule(uri("(a)\\1")), request("/aa"), None),
    ("unknown does not matter to a true ANY", rule(uri("(a)\\1"), uri("/")), request(), True),
    ("unknown does not matter to a false ALL", rule(uri("(a)\\1"), uri("/no"), match_strategy="ALL"), request(), False),
]  # fmt: skip


@pytest.mark.parametrize("case", CONDITIONS, ids=[case[0] for case in CONDITIONS])
def test_conditions(case: tuple[str, dict[str, Any], Request, bool | None]) -> None:
    _, given, asked, matches = case
    decision = balancer(server(rules=[given])).decide(asked, LbState())
    assert decision is not None
    wanted = {True: Outcome.REJECT, False: Outcome.ENDPOINT, None: Outcome.UNDECIDED}
    assert decision.outcome is wanted[matches]


OTHER = "/infra/lb-pools/other"
SELECT = [{"type": "LBSelectPoolAction", "pool_id": OTHER}]


def with_rules(*rules: dict[str, Any], **more: Any) -> NsxBalancer:
    return balancer(server(rules=list(rules), **more), {**pool(member(7)), "path": OTHER})


def test_the_first_final_rule_of_a_phase_ends_it() -> None:
    assert endpoint(decide(with_rules(rule(actions=SELECT), rule()))) == "10.0.0.7"


def test_every_rewrite_rule_applies_and_sees_the_last() -> None:
    def rewrite(old: str, new: str) -> dict[str, Any]:
        actions = [{"type": "LBHttpRequestUriRewriteAction", "uri": new}]
        return rule(uri(old, match_type="EQUALS"), actions=actions, phase="HTTP_REQUEST_REWRITE")

    forward = rule(uri("/c", match_type="EQUALS"), actions=SELECT)
    assert endpoint(decide(with_rules(forward, rewrite("/a", "/b"), rewrite("/b", "/c")), path="/a")) == "10.0.0.7"


def test_phases_run_in_their_order_whatever_the_list_says() -> None:
    drop = rule(actions=[{"type": "LBConnectionDropAction"}], phase="HTTP_ACCESS")
    assert decide(with_rules(rule(), drop)).outcome is Outcome.DROP


def test_named_groups_are_variables_of_actions() -> None:
    redirect = [{"type": "LBHttpRedirectAction", "redirect_status": "301", "redirect_url": "https://$who.example$rest"}]
    decision = decide(with_rules(rule(uri("^/u/(?<who>[a-z]+)(?P<rest>/.*)"), actions=redirect)), path="/u/ann/x")
    assert (decision.outcome, decision.status) == (Outcome.REDIRECT, 301)
    assert decision.location == "https://ann.example/x"


def test_a_variable_can_be_assigned_and_tested() -> None:
    assign = [{"type": "LBVariableAssignmentAction", "variable_name": "v", "variable_value": "1"}]
    test = {"type": "LBVariableCondition", "variable_name": "v", "variable_value": "1"}
    assert decide(with_rules(rule(actions=assign, phase="HTTP_ACCESS"), rule(test))).outcome is Outcome.REJECT


def test_profile_redirects_come_before_forwarding_rules() -> None:
    lb = balancer({**HTTP, "http_redirect_to_https": True}, server(rules=[rule()]))
    decision = decide(lb, path="/a?b=1", authority="web.example:80")
    assert (decision.status, decision.location) == (302, "https://web.example/a?b=1")


def test_tokens_are_not_checked_here() -> None:
    assert (
        decide(with_rules(rule(actions=[{"type": "LBJwtAuthAction"}], phase="HTTP_ACCESS"))).outcome
        is Outcome.UNDECIDED
    )


def test_l4_servers_run_no_rules() -> None:
    assert decide(balancer(server(rules=[rule()], application_profile_path=TCP["path"]))).outcome is Outcome.ENDPOINT


STICKY = {"resource_type": "LBSourceIpPersistenceProfile", "path": "/infra/lb-persistence-profiles/p"}
COOKIE = {
    "resource_type": "LBCookiePersistenceProfile",
    "path": "/infra/lb-persistence-profiles/p",
    "cookie_garble": False,
}
PERSISTENT = server(lb_persistence_profile_path="/infra/lb-persistence-profiles/p")


def test_source_ip_persistence_holds_until_its_time() -> None:
    lb, state = balancer(STICKY, PERSISTENT), LbState()
    first, again = decide(lb, state, 0), decide(lb, state, 300)
    assert (first.persistence, again.persistence, endpoint(again)) == ("new", "hit", endpoint(first))
    assert decide(lb, state, 300, source_ip="198.51.100.8").persistence == "new"
    late = decide(lb, state, 601)
    assert (late.persistence, endpoint(late)) == ("new", "10.0.0.3")


def test_an_entry_of_a_member_that_is_down_is_replaced() -> None:
    lb, state = balancer(STICKY, PERSISTENT), LbState()
    decide(lb, state)
    state.down.add((POOL, "m1"))
    replaced = decide(lb, state)
    assert (replaced.persistence, endpoint(replaced)) == ("new", "10.0.0.2")
    state.down.clear()
    assert endpoint(decide(lb, state)) == "10.0.0.2"


def test_a_draining_member_keeps_its_clients_only() -> None:
    state = LbState()
    decide(balancer(STICKY, PERSISTENT), state)
    draining = balancer(STICKY, PERSISTENT, pool(member(1, admin_state="GRACEFUL_DISABLED"), member(2)))
    assert endpoint(decide(draining, state)) == "10.0.0.1"
    assert endpoint(decide(draining, state, source_ip="198.51.100.8")) == "10.0.0.2"


@pytest.mark.parametrize(("shared", "same"), [(True, True), (False, False)])
def test_a_shared_table_serves_all_virtual_servers(shared: bool, same: bool) -> None:
    second = {**PERSISTENT, "path": "/infra/lb-virtual-servers/two", "ports": ["81"]}
    lb, state = balancer({**STICKY, "persistence_shared": shared}, PERSISTENT, second), LbState()
    first = endpoint(decide(lb, state))
    assert (endpoint(decide(lb, state, destination_port=81)) == first) is same


def test_cookies_name_their_member() -> None:
    lb = balancer(COOKIE, PERSISTENT)
    hit = decide(lb, headers=[("cookie", "NSXLB=10.0.0.3:8080")])
    assert (hit.persistence, endpoint(hit)) == ("hit", "10.0.0.3")
    assert decide(lb).persistence == "new"
    prefix = balancer({**COOKIE, "cookie_mode": "PREFIX", "cookie_name": "sid"}, PERSISTENT)
    assert endpoint(decide(prefix, headers=[("cookie", "sid=10.0.0.2:8080~abc")])) == "10.0.0.2"


def test_a_cookie_of_a_server_that_is_gone_falls_back_or_not() -> None:
    state = LbState(down={(POOL, "m3")})
    gone = [("cookie", "NSXLB=10.0.0.3:8080")]
    assert decide(balancer(COOKIE, PERSISTENT), state, headers=gone).persistence == "new"
    strict = balancer({**COOKIE, "cookie_fallback": False}, PERSISTENT)
    assert decide(strict, state, headers=gone).outcome is Outcome.REJECT


def test_a_hidden_cookie_is_known_only_from_the_table() -> None:
    lb, state = balancer({**COOKIE, "cookie_garble": True}, PERSISTENT), LbState()
    headers = [("cookie", "NSXLB=f00")]
    assert decide(lb, state, headers=headers).outcome is Outcome.UNDECIDED
    state.tables[f"/infra/lb-persistence-profiles/p /infra/lb-virtual-servers/web {POOL}"] = {"f00": ("m2", 0)}
    assert endpoint(decide(lb, state, headers=headers)) == "10.0.0.2"


def test_persistence_of_a_rule_comes_before_the_profile() -> None:
    generic = {"resource_type": "LBGenericPersistenceProfile", "path": "/infra/lb-persistence-profiles/g"}
    on = {"type": "LBVariablePersistenceOnAction", "variable_name": "user", "persistence_profile_path": generic["path"]}
    sticky_user = rule(header("x-user", "(?<user>.+)"), actions=[on])
    lb = balancer(generic, STICKY, {**PERSISTENT, "rules": [sticky_user]})
    state = LbState()
    ann = decide(lb, state, headers=[("x-user", "ann")])
    assert endpoint(decide(lb, state, headers=[("x-user", "bob")])) != endpoint(ann)
    again = decide(lb, state, headers=[("x-user", "ann")], source_ip="203.0.113.9")
    assert (again.persistence, endpoint(again)) == ("hit", endpoint(ann))


TWO_SOURCES = [{"ip_address": "10.9.0.1"}, {"ip_address": "10.9.1.0", "prefix_length": 28}]
FROM_POOL = {"snat_translation": {"type": "LBSnatIpPool", "ip_addresses": TWO_SOURCES}}
SNATS = [
    ({}, "automap", ()),
    ({"snat_translation": {"type": "LBSnatDisabled"}}, "client", ()),
    (FROM_POOL, "pool", ("10.9.0.1", "10.9.1.0/28")),
]  # fmt: skip


@pytest.mark.parametrize(("more", "mode", "addresses"), SNATS)
def test_what_source_the_server_sees(more: dict[str, Any], mode: str, addresses: tuple[str, ...]) -> None:
    snat = decide(balancer(pool(**more))).snat
    assert snat is not None
    assert (snat.mode, snat.addresses) == (mode, addresses)


@pytest.mark.parametrize("how", ["INSERT", "REPLACE"])
def test_what_the_server_is_told_of_the_client(how: str) -> None:
    snat = decide(balancer({**HTTP, "x_forwarded_for": how})).snat
    assert snat is not None
    assert snat.forwarded_for == how


def test_a_group_of_members_is_sorted_by_number_and_cut() -> None:
    group = {"group_path": GROUP, "max_ip_list_size": 3, "port": 8080}
    lb = balancer(
        {**pool(), "members": [], "member_group": group}, groups={GROUP: ["10.0.0.9-10.0.0.11", "10.0.0.2", "::1"]}
    )
    assert [m.address for m in lb.objects.pools[POOL].members] == ["10.0.0.2", "10.0.0.9", "10.0.0.10"]


LINTS = [
    ("no-pool", [server(pool_path="")]),
    ("l7-rule-in-l4", [server(rules=[rule()], application_profile_path=TCP["path"])]),
    ("address-taken-twice", [server(), {**server(), "path": "/infra/lb-virtual-servers/two"}]),
    ("unreachable-rule", [server(rules=[rule(), rule(uri("^/a"))])]),
    ("unanchored-regex", [server(rules=[rule(uri("/img"))])]),
    ("regex-unsupported", [server(rules=[rule(uri("(a)\\1"))])]),
    ("min-active-too-high", [pool(min_active_members=4)]),
    ("weight-ignored", [pool(member(1, weight=2))]),
    ("nobody-to-serve", [pool(member(1, admin_state="DISABLED"))]),
]


@pytest.mark.parametrize(("code", "objects"), LINTS, ids=[case[0] for case in LINTS])
def test_lint(code: str, objects: list[dict[str, Any]]) -> None:
    assert [finding.code for finding in lint(balancer(*objects).objects)] == [code]


def test_a_sound_configuration_has_no_findings() -> None:
    assert lint(balancer().objects) == []


BAD_STATUS = [{"type": "LBHttpRejectAction", "reply_status": "x"}]
REFUSED = [
    ("an unknown field", server(colour="red"), r"lb\.json:\d+:\d+: .*'colour'"),
    ("an unknown algorithm", pool(algorithm="FASTEST"), "FASTEST"),
    ("a port that is none", server(ports=["80-"]), "no port or range of ports"),
    ("an inverted range", server(ports=["90-80"]), "no port or range of ports"),
    ("a virtual server without ports", server(ports=[]), "needs ports"),
    ("an address with a leading zero", server(ip_address="192.0.2.010"), "is no address"),
    ("a member without address", pool({"port": "80"}), "is no address"),
    ("a status that is none", server(rules=[rule(actions=BAD_STATUS)]), "three digits"),
    (
        "a source that is no address",
        server(rules=[rule({"type": "LBIpHeaderCondition", "source_address": "x"})]),
        "'x'",
    ),
    ("a rule without action", server(rules=[{"display_name": "r"}]), "needs an action"),
    ("an unknown condition", server(rules=[rule({"type": "LBMoonCondition"})]), "LBMoonCondition"),
    ("an unknown kind", {"resource_type": "LBMagic", "path": "/infra/x"}, "LBMagic are not known"),
    ("members of an unknown group", {**pool(), "member_group": {"group_path": GROUP}}, "are not known"),
]


@pytest.mark.parametrize(("given", "reason"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(PolicyError, match=reason):
        balancer(given)


def test_an_object_twice_is_refused() -> None:
    with pytest.raises(PolicyError, match="defined twice"):
        balancer(pool(), pool())


def test_hierarchical_bodies_are_read() -> None:
    body = {
        "resource_type": "Infra",
        "children": [
            {"resource_type": "ChildLBPool", "LBPool": pool()},
            {"resource_type": "ChildLBVirtualServer", "LBVirtualServer": server()},
            {"resource_type": "ChildLBHttpProfile", "LBHttpProfile": HTTP},
        ],
    }
    lb = NsxBalancer(read_objects([SourceFile("infra.json", json.dumps(body))]))
    assert endpoint(decide(lb)) == "10.0.0.1"
