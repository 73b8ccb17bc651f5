"""What Istio refuses: each object with the reason, at its place. And fields that are accepted by name."""

from __future__ import annotations

import pytest

from meshsieve.errors import PolicyError
from tests.unit.mesh.objects import REVIEWS, Object, get, istio, mesh

ROUTE = "route: [{destination: {host: a}}]"


def http(rule: str, hosts: str = "[a]") -> tuple[str, str]:
    return "VirtualService", f"{{hosts: {hosts}, http: [{{{rule}}}]}}"


def l4(kind: str, match: str) -> tuple[str, str]:
    return "VirtualService", f"{{hosts: [a.b], {kind}: [{{match: [{match}], {ROUTE}}}]}}"


def servers(server: str) -> tuple[str, str]:
    return "Gateway", f"{{servers: [{{{server}}}]}}"


PORT = "port: {number: 80, name: h, protocol: HTTP}"
PORTS = "ports: [{number: 80, name: h}]"


@pytest.mark.parametrize(
    ("kind_and_spec", "reason"),
    [
        (("VirtualService", "{hosts: [a]}"), "needs http, tls or tcp rules"),
        (("VirtualService", f"{{hosts: [a], more: 1, http: [{{{ROUTE}}}]}}"), "spec.more: unknown field"),
        (http(ROUTE, "['a*']"), "is no host name"),
        (http(ROUTE, "['*a']"), "a star stands for whole labels"),
        (http(ROUTE, "['*']"), "cannot be bound to the mesh"),
        (http(ROUTE, "[a, a.default.svc.cluster.local]"), "is given twice"),
        (http(ROUTE + ", timeouts: 1s"), "http\\[0\\].timeouts: unknown field"),
        (http("match: [{uri: {prefix: /}}]"), "needs route, redirect, directResponse or delegate"),
        (http(ROUTE + ", redirect: {uri: /}"), "excludes route"),
        (http("redirect: {uri: /}, directResponse: {status: 200}"), "directResponse: excludes redirect"),
        (http("redirect: {uri: /}, fault: {abort: {httpStatus: 400}}"), "cannot be used with redirect"),
        (http("redirect: {uri: /}, rewrite: {uri: /}"), "cannot be used with redirect"),
        (http("redirect: {}"), "says nothing"),
        (http("redirect: {uri: /, redirectCode: 200}"), "200 is none of 301"),
        (http("redirect: {uri: /, port: 80, derivePort: FROM_REQUEST_PORT}"), "excludes port"),
        (http("redirect: {uri: /, uriPrefix: /}"), "excludes uri"),
        (http("directResponse: {status: 99}"), "outside 200..599"),
        (http("directResponse: {}"), "status: is missing"),
        (http("directResponse: {status: 200, body: {string: a, bytes: YQ==}}"), "excludes string"),
        (http("directResponse: {status: 200, body: {bytes: '%'}}"), "is not base64"),
        (http(ROUTE + ", rewrite: {}"), "needs uri"),
        (http(ROUTE + ", rewrite: {uri: /, uriRegexRewrite: {match: a}}"), "excludes uri"),
        (http(ROUTE + ", rewrite: {uriRegexRewrite: {match: '('}}"), "uriRegexRewrite"),
        (http(ROUTE + ", rewrite: {uriRegexRewrite: {match: a, rewrite: '\\1'}}"), "uriRegexRewrite"),
        (http(ROUTE + ", timeout: soon"), "is no duration"),
        (http(ROUTE + ", retries: {attempts: -1}"), "attempts: -1 is outside"),
        (http(ROUTE + ", retries: {perTryTimeout: x}"), "is no duration"),
        (http(ROUTE + ", retries: {tries: 1}"), "unknown field"),
        (http(ROUTE + ", fault: {}"), "needs delay or abort"),
        (http(ROUTE + ", fault: {delay: {percentage: {value: 101}, fixedDelay: 1s}}"), "0 to 100 percent"),
        (http(ROUTE + ", fault: {delay: {percentage: {value: 1}}}"), "fixedDelay: is missing"),
        (http(ROUTE + ", fault: {abort: {}}"), "exactly one of httpStatus and grpcStatus"),
        (http(ROUTE + ", mirror: {host: b}, mirrors: [{destination: {host: c}}]"), "excludes mirror"),
        (http(ROUTE + ", mirror: {host: b}, mirrorPercentage: {value: 101}"), "0 to 100 percent"),
        (http(ROUTE + ", mirror: {host: b}, mirrorPercent: 101"), "outside 0..100"),
        (http(ROUTE + ", headers: {request: {set: {'a b': c}}}"), "is no header name"),
        (http(ROUTE + ", headers: {request: {set: {a: 1}}}"), "expected text"),
        (http("route: [{destination: {host: '*.a'}}]"), "is no host of a destination"),
        (http("route: [{weight: 1}]"), "destination: is missing"),
        (http("route: [{destination: {host: a}, weight: -1}]"), "weight: -1"),
        (http("route: [{destination: {host: a}}, {destination: {host: b}}]"), "add up to 0"),
        (http("route: [{destination: {host: a, port: {}}}]"), "number: is missing"),
        (http(ROUTE + ", match: [{uri: {exact: a, prefix: b}}]"), "excludes exact"),
        (http(ROUTE + ", match: [{uri: {suffix: a}}]"), "unknown field"),
        (http(ROUTE + ", match: [{uri: {regex: '('}}]"), "regex"),
        (http(ROUTE + ", match: [{headers: {'a b': {}}}]"), "is no header name"),
        (http(ROUTE + ", match: [{headers: {a: b}}]"), "expected exact, prefix or regex"),
        (http(ROUTE + ", match: [{gateways: [a/b/c]}]"), "expected name or namespace/name"),
        (http(ROUTE + ", match: [{port: 65536}]"), "outside 0..65535"),
        (http("delegate: {name: d}, " + ROUTE), "delegate: excludes route"),
        (http("delegate: {name: d}, match: [{uri: {regex: a}}]"), "cannot match by regular expression"),
        (("VirtualService", "{http: [{delegate: {name: d}}]}"), "a delegate cannot delegate"),
        (("VirtualService", f"{{gateways: [g], http: [{{{ROUTE}}}]}}"), "without hosts is a delegate"),
        (("VirtualService", f"{{hosts: [a], exportTo: ['*', b], http: [{{{ROUTE}}}]}}"), "excludes everything else"),
        (("VirtualService", f"{{hosts: [a], tls: [{{{ROUTE}}}]}}"), "needs a match with sniHosts"),
        (l4("tls", "{port: 1}"), "at least one SNI host"),
        (l4("tls", "{sniHosts: [c.d]}"), "not among the hosts"),
        (("VirtualService", "{hosts: [a], tcp: [{match: [{port: 1}]}]}"), "route: is missing"),
        (l4("tcp", "{destinationSubnets: [x]}"), "destinationSubnets"),
        (l4("tcp", "{sourceSubnet: 1.1.1.1}"), "does not act on it"),
        (("Gateway", "{}"), "at least one server"),
        (servers("hosts: ['*']"), "port: is missing"),
        (servers(PORT), "at least one host"),
        (servers("port: {number: 0, name: h, protocol: HTTP}, hosts: ['*']"), "outside 1..65535"),
        (servers("port: {number: 1, name: h, protocol: UDP}, hosts: ['*']"), "expected one of"),
        (servers("port: {number: 1, name: h, protocol: HTTPS}, hosts: ['*']"), "needs TLS settings"),
        (servers(PORT + ", hosts: ['a/b/c']"), "expected host or namespace/host"),
        (servers(PORT + ", hosts: ['a*']"), "is no host name"),
        (servers(PORT + ", hosts: ['*'], tls: {mode: NONE}"), "expected one of PASSTHROUGH"),
        (servers(PORT + ", hosts: ['*'], bind: unix:///a"), "unix socket"),
        (("Gateway", f"{{servers: [{{{PORT}, hosts: [a]}}, {{{PORT}, hosts: [b]}}]}}"), "given twice in one Gateway"),
        (("Sidecar", "{egress: [{hosts: [a]}]}"), "expected namespace/host"),
        (("Sidecar", "{egress: [{hosts: []}]}"), "at least one host"),
        (("Sidecar", "{egress: [{hosts: ['*/*']}, {hosts: ['*/*']}]}"), "must be the last"),
        (("Sidecar", "{egress: [{port: {number: 1, protocol: HTTP_PROXY}, hosts: ['*/*']}]}"), "HTTP proxy"),
        (("Sidecar", "{outboundTrafficPolicy: {mode: SOME}}"), "expected one of"),
        (("ServiceEntry", f"{{{PORTS}}}"), "at least one host"),
        (("ServiceEntry", f"{{hosts: ['a*'], {PORTS}}}"), "is no host of a ServiceEntry"),
        (("ServiceEntry", f"{{hosts: [a.b], addresses: [x], {PORTS}}}"), "addresses"),
        (("ServiceEntry", f"{{hosts: [a.b], resolution: MAYBE, {PORTS}}}"), "expected one of"),
        (("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: a}, {number: 1, name: b}]}"), "given twice"),
        (("ServiceEntry", "{hosts: [a.b], ports: [{number: 1, name: a, protocol: X}]}"), "is no protocol"),
        (("DestinationRule", "{host: a, subsets: [{name: v}, {name: v}]}"), "defined twice"),
        (("DestinationRule", "{subsets: []}"), "host: is missing"),
    ],
)  # fmt: skip
def test_refused(kind_and_spec: tuple[str, str], reason: str) -> None:
    kind, spec = kind_and_spec
    with pytest.raises(PolicyError, match=reason) as caught:
        mesh(istio(kind, "x", spec))
    assert caught.value.where.startswith("<objects>:")
    assert caught.value.obj == f"{kind} default/x"


def test_when_not_strict_a_refused_object_is_left_out_as_the_api_server_would_with_a_finding():
    bad = istio("VirtualService", "bad", "{hosts: [reviews], http: [{}]}")
    good = istio(
        "VirtualService", "good", "{hosts: [reviews], http: [{name: g, route: [{destination: {host: reviews}}]}]}"
    )
    world = mesh(REVIEWS, bad, good, strict=False)
    assert [(f.code, f.obj) for f in world.findings] == [("refused-object", "VirtualService default/bad")]
    assert get(world, "http://reviews:9080/").route == "g"


@pytest.mark.parametrize("kind", ["EnvoyFilter", "ProxyConfig", "WasmPlugin"])
def test_kinds_that_change_proxies_and_are_not_evaluated_are_found(kind: str) -> None:
    found: Object = istio(kind, "x", "{}")
    assert [f.code for f in mesh(found).findings] == ["not-evaluated"]


def test_fields_of_the_api_that_do_not_route_are_accepted():
    spec = """
servers:
- port: {number: 443, name: s, protocol: HTTPS, targetPort: 8443}
  name: n
  hosts: [a]
  defaultEndpoint: 127.0.0.1:80
  tls:
    {mode: MUTUAL, serverCertificate: a, privateKey: b, caCertificates: c, subjectAltNames: [d], cipherSuites: [e],
     minProtocolVersion: TLSV1_2, maxProtocolVersion: TLSV1_3, verifyCertificateSpki: [f], verifyCertificateHash: [g]}
"""
    assert mesh(istio("Gateway", "g", spec)).config.gateways[0].servers[0].port == 443
