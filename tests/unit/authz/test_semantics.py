"""What no stored case checks, each row a sentence of the specification: CUSTOM, selection, waypoints, TCP, SNI,
metadata, addresses, proxies, path normalisation, odd keys and values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.errors import ModelError, PolicyError, UsageError
from meshsieve.request import Request
from tests.unit.authz.test_policies import allow, by, deny, policy, to

REQUEST = Request(authority="h", path="/a", source_ip="10.0.0.1", destination_ip="10.1.0.1", destination_port=80)
MTLS = replace(REQUEST, principal="cluster.local/ns/a/sa/b")


def when(key: str, *values: str, **more: Any) -> dict[str, Any]:
    return {"when": [{"key": key, **({"values": list(values)} if values else {}), **more}]}


def custom(provider: str, *rules: Any, name: str = "c") -> dict[str, Any]:
    return policy({"action": "CUSTOM", "provider": {"name": provider}, "rules": list(rules)}, name)


ANY: dict[str, Any] = {}
DENY_ALL, ALLOW_ALL, ALLOW_NONE = policy(deny(ANY), "d"), policy(allow(ANY), "a"), policy({}, "a")

CUSTOM = [
    #  what it shows                                     policies                        answer  verdict           by
    ("a provider that nobody answers for", [custom("p", ANY)], None, "NEEDS_PROVIDER", "CUSTOM"),
    ("it allows", [custom("p", ANY)], True, "ALLOW", "default"),
    ("it denies", [custom("p", ANY)], False, "DENY", "CUSTOM"),
    ("it is not asked where no rule matches", [custom("p", to(methods=["PUT"]))], None, "ALLOW", "default"),
    ("DENY denies whatever it would answer", [custom("p", ANY), DENY_ALL], None, "DENY", "DENY"),
    ("DENY comes after it", [custom("p", ANY), DENY_ALL], False, "DENY", "CUSTOM"),
    ("ALLOW has to allow as well", [custom("p", ANY), ALLOW_NONE], True, "DENY", "no-allow-policy-matched"),
    ("... also without an answer", [custom("p", ANY), ALLOW_NONE], None, "DENY", "no-allow-policy-matched"),
    ("two providers: nobody can be asked", [custom("p", ANY), custom("q", ANY, name="e")], True, "DENY",
     "bad-CUSTOM-action"),
    ("two policies of one provider", [custom("p", ANY), custom("p", ANY, name="e")], True, "ALLOW", "default"),
]  # fmt: skip


@pytest.mark.parametrize(("says", "policies", "answer", "verdict", "by_"), CUSTOM, ids=[row[0] for row in CUSTOM])
def test_custom(says, policies, answer, verdict, by_):
    decision = from_kubernetes(policies).decide(REQUEST, provider=lambda name, rule: answer)
    assert (decision.action, decision.by, decision.allowed) == (verdict, by_, verdict == "ALLOW")


def test_an_unknown_provider_denies_what_it_would_be_asked_for():
    az = from_kubernetes([custom("p", to(methods=["GET"]))], extension_providers=["q"])
    assert az.decide(REQUEST, provider=lambda name, rule: True).by == "bad-CUSTOM-action"
    assert az.decide(replace(REQUEST, method="PUT")).by == "default"


def test_a_provider_is_asked_with_its_name_and_the_rule():
    asked = []
    az = from_kubernetes([custom("p", ANY)])
    az.decide(REQUEST, provider=lambda name, rule: asked.append((name, rule.name)))
    assert asked == [("p", "ns[foo]-policy[c]-rule[0]")]


def target(kind: str, name: str, group: str = "gateway.networking.k8s.io") -> dict[str, Any]:
    return {"targetRefs": [{"group": group, "kind": kind, "name": name}]}


GATEWAY = {"gateway.networking.k8s.io/gateway-name": "edge"}
WEB = {"namespace": "foo", "labels": {"app": "web"}}
EDGE = {"namespace": "foo", "labels": {"app": "web", **GATEWAY}}
WAYPOINT = {"namespace": "foo", "labels": {"app": "web", **GATEWAY}, "waypoint": True, "services": [
    {"namespace": "foo", "name": "cart"}, {"namespace": "bar", "name": "pay"},
    {"namespace": "foo", "name": "ext", "external": True}]}  # fmt: skip
SELECTS = {"selector": {"matchLabels": {"app": "web"}}}

SELECTION = [
    #  what it shows                          spec                         namespace      place     applies
    ("a policy without selector is for its namespace", {}, "foo", WEB, True),
    ("... and for no other", {}, "bar", WEB, False),
    ("in the root namespace it is for all", {}, "istio-system", WEB, True),
    ("a selector that fits", SELECTS, "foo", WEB, True),
    ("a selector in the root namespace", SELECTS, "istio-system", WEB, True),
    ("a label that differs", {"selector": {"matchLabels": {"app": "db"}}}, "foo", WEB, False),
    ("a label that is absent", {"selector": {"matchLabels": {"app": "web", "v": "1"}}}, "foo", WEB, False),
    ("an empty selector selects all", {"selector": {}}, "foo", WEB, True),
    ("targetRefs are not for sidecars", target("Gateway", "edge"), "foo", WEB, False),
    ("a gateway by its name", target("Gateway", "edge"), "foo", EDGE, True),
    ("targetRef, the older field", {"targetRef": target("Gateway", "edge")["targetRefs"][0]}, "foo", EDGE, True),
    ("another gateway", target("Gateway", "other"), "foo", EDGE, False),
    ("a gateway of Istio's own kind", target("Gateway", "edge", "networking.istio.io"), "foo", EDGE, False),
    ("a gateway is named from its own namespace only", target("Gateway", "edge"), "istio-system", EDGE, False),
    ("a gateway is selected by labels too", SELECTS, "foo", EDGE, True),
    ("a waypoint never is", SELECTS, "foo", WAYPOINT, False),
    ("... not even by a policy for all", {}, "foo", WAYPOINT, False),
    ("a waypoint by its name", target("Gateway", "edge"), "foo", WAYPOINT, True),
    ("a service behind it", target("Service", "cart", ""), "foo", WAYPOINT, True),
    ("a service of another namespace, from there", target("Service", "pay", ""), "bar", WAYPOINT, True),
    ("... not from here", target("Service", "pay", ""), "foo", WAYPOINT, False),
    ("a service that is not behind it", target("Service", "db", ""), "foo", WAYPOINT, False),
    ("a ServiceEntry", target("ServiceEntry", "ext", "networking.istio.io"), "foo", WAYPOINT, True),
    ("... is no Service", target("Service", "ext", ""), "foo", WAYPOINT, False),
    ("a service is nothing to a gateway", target("Service", "cart", ""), "foo", EDGE, False),
    ("all waypoints, from the root", target("GatewayClass", "istio-waypoint"), "istio-system", WAYPOINT, True),
    ("... not from elsewhere", target("GatewayClass", "istio-waypoint"), "foo", WAYPOINT, False),
    ("... and no gateways", target("GatewayClass", "istio-waypoint"), "istio-system", EDGE, False),
    ("another class", target("GatewayClass", "istio"), "istio-system", WAYPOINT, False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "spec", "namespace", "place", "applies"), SELECTION, ids=[r[0] for r in SELECTION])
def test_selection(says, spec, namespace, place, applies):
    az = from_kubernetes([policy({**spec, **deny(ANY)}, namespace=namespace)])
    assert az.decide(REQUEST, place).allowed is not applies


def test_the_root_namespace_is_an_option():
    az = from_kubernetes([policy(deny(ANY), namespace="mesh")], root_namespace="mesh")
    assert not az.decide(REQUEST, WEB).allowed


TCP = [
    #  what it shows                            action  rule                                           passes
    ("an ALLOW rule with a method is dropped", allow, to(methods=["GET"], ports=["80"]), False),
    ("an ALLOW rule with a port alone stays", allow, to(ports=["80"]), True),
    ("an ALLOW rule with a claim is dropped", allow, when("request.auth.claims[a]", "b"), False),
    ("one HTTP field in one of two sources drops all of it", allow,
     {"from": [{"source": {"namespaces": ["a"]}}, {"source": {"requestPrincipals": ["*"]}}]}, False),
    ("a DENY rule loses the method and denies more", deny, to(methods=["PUT"], ports=["80"]), False),
    ("... but keeps its port", deny, to(methods=["PUT"], ports=["81"]), True),
    ("DENY of a path alone denies all of TCP", deny, to(paths=["/admin"]), False),
    ("a header in DENY is dropped", deny, when("request.headers[x]", "1"), False),
    ("identity can be tested", allow, by(principals=["cluster.local/ns/a/sa/b"]), True),
    ("the server name can be tested", deny, when("connection.sni", "*.example"), False),
    ("metadata can be tested", deny, when("experimental.envoy.filters.f[k]", "v"), False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "action", "rule", "passes"), TCP, ids=[row[0] for row in TCP])
def test_tcp(says, action, rule, passes):
    metadata = {"envoy.filters.f": {"k": "v"}}
    connection = replace(MTLS, sni="a.example", dynamic_metadata=metadata, claims={"a": "b"})
    decision = from_kubernetes([policy(action(rule))]).decide(connection, tcp=True)
    assert decision.allowed is passes
    assert decision.status is None


VALUES = [
    #  what it shows                                    rule                                                     holds
    ("a server name", when("connection.sni", "a.example"), True),
    ("a server name's suffix", when("connection.sni", "*.example"), True),
    ("... compared with case", when("connection.sni", "A.example"), False),
    ("any server name", when("connection.sni", "*"), True),
    ("metadata", when("experimental.envoy.filters.f[k]", "v"), True),
    ("metadata's prefix", when("experimental.envoy.filters.f[k]", "v*"), True),
    ("an element of a list", when("experimental.envoy.filters.f[l]", "[b]"), True),
    ("a list is no text", when("experimental.envoy.filters.f[l]", "b"), False),
    ("a text is no list", when("experimental.envoy.filters.f[k]", "[v]"), False),
    ("metadata that is absent", when("experimental.envoy.filters.f[z]", notValues=["v"]), True),
    ("an IPv6 network", when("source.ip", "2001:db8::/32"), True),
    ("an IPv6 address", by(ipBlocks=["2001:db8::1"]), True),
    ("IPv4 is not IPv6", by(ipBlocks=["0.0.0.0/0"]), False),
    ("a mapped address is IPv4", by(remoteIpBlocks=["192.0.2.0/24"]), True),
    ("... also in the policy", by(remoteIpBlocks=["::ffff:192.0.2.0/120"]), True),
    ("host bits are ignored", when("destination.ip", "10.1.0.77/24"), True),
    ("an identity with a second namespace in it", by(namespaces=["x"]), True),
    ("... and the first", by(namespaces=["a"]), True),
    ("a service account in a path of its own", by(serviceAccounts=["x/s"]), True),
    ("a trust domain", by(trustDomains=["cluster.local"]), True),
    ("a trust domain's end", by(trustDomains=["*.local"]), True),
    ("a suffix that ends in a star is literal", by(principals=["*y*"]), False),
    ("a star inside is literal", to(paths=["/a*b"]), False),
    ("the host without its port", to(hosts=["shop.example"]), False),
    ("the host with any port", to(hosts=["SHOP.example:*"]), True),
    ("bare claims are an object", when("request.auth.claims", "x"), False),
    ("... so their not form holds", when("request.auth.claims", notValues=["x"]), True),
    ("a nested claim", when("request.auth.claims[a][b]", "c"), True),
    ("a claim that is a number", when("request.auth.claims[n]", "7"), False),
]


@pytest.mark.parametrize(("says", "rule", "holds"), VALUES, ids=[row[0] for row in VALUES])
def test_values(says, rule, holds):
    request = Request(
        authority="shop.example:80",
        path="/axb",
        source_ip="2001:db8::1",
        remote_ip="::ffff:192.0.2.7",
        destination_ip="10.1.0.1",
        principal="cluster.local/ns/a/ns/x/sa/s/y",
        sni="a.example",
        claims={"a": {"b": "c"}, "n": 7},
        dynamic_metadata={"envoy.filters.f": {"k": "v", "l": ["a", "b"]}},
    )
    assert from_kubernetes([policy(allow(rule))]).decide(request).allowed is holds
    assert from_kubernetes([policy(deny(rule))]).decide(request).allowed is not holds


UNUSABLE = [
    #  what it shows                                rule                                    allowed by ALLOW, by DENY
    ("a port that is none", to(ports=["http", "80"]), False, False),
    ("a port that is too large", to(ports=["65536"], methods=["PUT"]), False, True),
    ("only bad values are no condition for DENY", to(ports=["http"]), False, False),
    ("a bad address", by(ipBlocks=["10.0.0.0/33"]), False, False),
    ("a bad value in a not list", to(notPorts=["x"]), False, False),
    ("a bad value in another operation", {"to": [{"operation": {"methods": ["GET"]}}, {"operation": {"ports": ["x"]}}]},
     False, False),
    ("a header key without brackets", when("request.headers", "1"), False, False),
    ("a header key that is not closed", when("request.headers[a", "1"), False, False),
    ("a claim key that is not closed", when("request.auth.claims[a", "1"), False, False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "rule", "by_allow", "by_deny"), UNUSABLE, ids=[row[0] for row in UNUSABLE])
def test_unusable_values_narrow_allow_and_widen_deny(says, rule, by_allow, by_deny):
    one, other = from_kubernetes([policy(allow(rule))]), from_kubernetes([policy(deny(rule))])
    assert one.decide(REQUEST).allowed is by_allow
    assert other.decide(REQUEST).allowed is by_deny
    assert [d.code for d in (*one.diagnostics, *other.diagnostics)] == ["unusable-value"] * 2


def test_an_unknown_key_that_got_in_costs_the_rule_and_the_policy_still_counts():
    rule = when("request.body", "x")
    with pytest.raises(PolicyError, match=r"no condition key 'request.body'"):
        from_kubernetes([policy(allow(rule))])
    assert from_kubernetes([policy(allow(rule))], strict=False).decide(REQUEST).by == "no-allow-policy-matched"
    assert from_kubernetes([policy(deny(rule))], strict=False).decide(REQUEST).by == "default"


ABSENT = ["notPrincipals", "notNamespaces", "notTrustDomains", "notServiceAccounts", "notRequestPrincipals"]


@pytest.mark.parametrize("field", ABSENT)
def test_who_has_no_identity_passes_every_negation(field):
    assert from_kubernetes([policy(allow(by(**{field: ["x"]})))]).decide(REQUEST).allowed


ALIASES = [
    ("cluster.local/ns/a/sa/b", "old/ns/a/sa/b", True),
    ("old/ns/a/sa/b", "new/ns/a/sa/b", True),
    ("other/ns/a/sa/b", "old/ns/a/sa/b", False),
    ("old/ns/a/sa/b/c", "new/ns/a/sa/b/c", False),
    ("*/ns/a/sa/b", "anything/ns/a/sa/b", True),
    ("o*/ns/a/sa/b", "new/ns/a/sa/b", True),
    ("*", "odd", True),
]


@pytest.mark.parametrize(("written", "peer", "holds"), ALIASES)
def test_trust_domain_aliases(written, peer, holds):
    az = from_kubernetes([policy(allow(by(principals=[written])))], trust_domain="new", trust_domain_aliases=["old"])
    assert az.decide(replace(REQUEST, principal=peer)).allowed is holds


PATHS = [
    #  mode                       path sent     value              matches
    ("NONE", "/a/../b", "/b", False),
    ("NONE", "/a/../b", "/a/../b", True),
    ("NONE", "/%61", "/a", False),
    ("BASE", "/a/../b", "/b", True),
    ("BASE", "//b", "/b", False),
    ("BASE", "/%61?x=/c", "/a", True),
    ("MERGE_SLASHES", "//b///c", "/b/c", True),
    ("MERGE_SLASHES", "/b%2Fc", "/b/c", False),
    ("DECODE_AND_MERGE_SLASHES", "/b%2Fc", "/b/c", True),
    ("DECODE_AND_MERGE_SLASHES", "/b%5c..%2Fc", "/c", True),
]


@pytest.mark.parametrize(("mode", "path", "value", "holds"), PATHS)
def test_path_normalization(mode, path, value, holds):
    az = from_kubernetes([policy(allow(to(paths=[value])))], path_normalization=mode)
    assert az.decide(replace(REQUEST, path=path)).allowed is holds


TEMPLATES = [
    ("/a/{*}", "/a/b", True),
    ("/a/{*}", "/a/", False),
    ("/a/{*}", "/a/b/c", False),
    ("/a/{*}/", "/a/b/", True),
    ("/a/{**}", "/a/", True),
    ("/a/{**}", "/a", False),
    ("/store/{**}/cart", "/store//cart", True),
    ("/store/{**}/cart", "/store/a/b/cart", True),
    ("/store/{**}/cart", "/store/cart", False),
    ("/foo/{*}/bar/{**}", "/foo//bar/x", False),
    ("/foo/{**}/", "/foo/bar/", True),
    ("/foo/{**}/", "/foo/bar", False),
    ("/foo/{**}/", "/foo//", True),
    ("/a/{*}", "/a/b.c~d%20e", True),
    ("/a/{*}", "/a/b[c", False),
    ("/{**}", "/", True),
]


@pytest.mark.parametrize(("template", "path", "holds"), TEMPLATES)
def test_templates(template, path, holds):
    assert from_kubernetes([policy(allow(to(paths=[template])))]).decide(replace(REQUEST, path=path)).allowed is holds


def test_bad_requests_are_answered_before_any_policy():
    for path in ("/%00", "/a#b", "/é", "a"):
        decision = from_kubernetes([ALLOW_ALL]).decide(replace(REQUEST, path=path))
        assert (decision.by, decision.status, decision.allowed) == ("bad-request", 400, False)


PROXIES = [
    (0, "192.0.2.1", False),
    (1, "10.9.9.9, 192.0.2.1", True),
    (2, "192.0.2.1, 10.9.9.9", True),
    (2, "192.0.2.1", False),
    (1, "nonsense", False),
]


@pytest.mark.parametrize(("trusted", "forwarded", "holds"), PROXIES)
def test_trusted_proxies(trusted, forwarded, holds):
    az = from_kubernetes([policy(allow(by(remoteIpBlocks=["192.0.2.1"])))], trusted_proxies=trusted)
    assert az.decide(replace(REQUEST, headers=(("X-Forwarded-For", forwarded),))).allowed is holds


DRY = {"annotations": {"istio.io/dry-run": "true"}}


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_dry_run_is_reported_and_never_enforced(text):
    dry = policy(deny(ANY), annotations={"istio.io/dry-run": text})
    decision = from_kubernetes([dry]).decide(REQUEST)
    assert decision.by == "default"
    assert decision.dry_run == {
        "deny_shadow_engine_result": "denied",
        "deny_shadow_effective_policy_id": "ns[foo]-policy[x]-rule[0]",
    }


@pytest.mark.parametrize("text", ["false", "yes", "tRuE", " true", ""])
def test_any_other_text_is_no_dry_run(text):
    assert from_kubernetes([policy(deny(ANY), annotations={"istio.io/dry-run": text})]).decide(REQUEST).by == "DENY"


def test_dry_run_results_end_with_the_step_that_denies():
    shadows = [policy({"action": a, "rules": [ANY]}, f"s{a}", **DRY) for a in ("AUDIT", "DENY", "ALLOW")]
    az = from_kubernetes([*(replace_name(s) for s in shadows), DENY_ALL])
    assert sorted(k for k in az.decide(REQUEST).dry_run if "result" in k) == [
        "audit_shadow_engine_result",
        "deny_shadow_engine_result",
    ]
    az = from_kubernetes([*(replace_name(s) for s in shadows), ALLOW_NONE])
    assert "allow_shadow_engine_result" in az.decide(REQUEST).dry_run


def replace_name(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "name": obj["metadata"]["name"].lower()}}


def test_a_lone_dry_run_allow_does_not_turn_on_default_deny():
    assert from_kubernetes([policy({}, **DRY)]).decide(REQUEST).by == "default"


def test_audit_is_marked_on_denied_requests_too():
    audit = policy({"action": "AUDIT", "rules": [ANY, ANY]}, "au")
    decision = from_kubernetes([audit, DENY_ALL]).decide(REQUEST)
    assert (decision.audit, decision.audit_rule) == (True, "ns[foo]-policy[au]-rule[0]")


def test_mesh_configuration_among_the_objects_counts():
    mesh = """
trustDomain: new
trustDomainAliases: [old]
pathNormalization: {normalization: MERGE_SLASHES}
defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}
extensionProviders: [{name: p}]
"""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
              "data": {"mesh": mesh}}  # fmt: skip
    settings = from_kubernetes([config]).settings
    assert settings.trust_domains == ("new", "old")
    assert (settings.path_normalization, settings.trusted_proxies) == ("MERGE_SLASHES", 1)
    assert settings.extension_providers == {"p"}
    assert from_kubernetes([config], trust_domain="x", trust_domain_aliases=[]).settings.trust_domains == ("x",)


def test_wrong_questions_are_refused():
    az = from_kubernetes([])
    with pytest.raises(UsageError, match="namespace/name"):
        az.decide(REQUEST, "web")
    with pytest.raises(UsageError, match="no pod or workload"):
        az.decide(REQUEST, "foo/web")
    with pytest.raises(UsageError, match="no field label"):
        az.decide(REQUEST, {"namespace": "a", "label": {}})
    with pytest.raises(ModelError, match="no IP address"):
        az.decide(replace(REQUEST, source_ip="10.0.0"))


def test_a_batch_is_the_same_as_one_by_one():
    az = from_kubernetes([policy(allow(to(methods=["GET"]), to(methods=["PUT"])))])
    requests = [replace(REQUEST, method=m) for m in ("GET", "PUT", "POST")]
    allowed, rules = az.decide_batch(requests)
    assert allowed.tolist() == [True, True, False]
    assert [az.rules[i] if i >= 0 else None for i in rules] == [az.decide(r).rule for r in requests]


MONGO = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "db", "namespace": "foo"},
    "spec": {
        "selector": {"app": "web"},
        "ports": [
            {"name": "mongo", "port": 27017},
            {"name": "http-web", "port": 80, "targetPort": 8080},
            {"name": "x", "port": 90},
        ],
    },
}
PORTS = [
    #  what it shows                            port    of DENY paths [/admin]
    ("a port that its service calls TCP", 27017, False),
    ("a port that it calls HTTP", 8080, True),
    ("a port that it says nothing about", 90, True),
    ("a port that no service has", 70, True),
]


@pytest.mark.parametrize(("says", "port", "allowed"), PORTS, ids=[row[0] for row in PORTS])
def test_services_say_which_ports_are_tcp(says, port, allowed):
    az = from_kubernetes([MONGO, policy(deny(to(paths=["/admin"])))])
    request = replace(REQUEST, destination_port=port)
    assert az.decide(request, WEB).allowed is allowed
    assert az.decide_batch([request], WEB)[0].tolist() == [allowed]
    assert az.explain(request, WEB).decision.allowed is allowed


def test_an_identity_may_be_written_with_its_scheme():
    az = from_kubernetes([policy(deny(by(principals=["td/ns/a/sa/b"])))])
    assert not az.decide(replace(REQUEST, principal="spiffe://td/ns/a/sa/b")).allowed


def test_an_identity_in_a_column_may_be_written_with_its_scheme_too():
    az = from_kubernetes([policy(deny(by(principals=["td/ns/a/sa/b"])))])
    columns = {"path": ["/"] * 3, "principal": ["spiffe://td/ns/a/sa/b", "td/ns/a/sa/b", "td/ns/a/sa/c"]}
    assert az.decide_batch(columns)[0].tolist() == [False, False, True]
