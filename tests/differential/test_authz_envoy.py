"""Authorization against the real Envoy: random policies, and what its JWT filter says to tokens."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.request import Request
from tests.differential import authz, authz_trees, cel_expressions
from tests.differential.envoy import Client, free_ports, listener, running

DECISIONS = 20_000


def test_random_policies_are_decided_as_envoy_decides_them():
    sets = -(-DECISIONS // authz.SET_REQUESTS)
    tally, wrong = authz.compare(2024, sets)
    assert not wrong, wrong[0]
    assert sum(tally.values()) >= DECISIONS
    assert min(tally[by] for by in ("ALLOW", "DENY", "default", "no-allow-policy-matched")) > DECISIONS / 20


def test_random_trees_of_permissions_and_principals():
    asked, allowed, wrong = authz_trees.compare_http(7, 250, 20)
    assert not wrong, wrong[0]
    assert asked / 4 < allowed < asked * 3 / 4


def test_random_trees_of_a_network_filter():
    asked, allowed, wrong = authz_trees.compare_network(7, 60)
    assert not wrong, wrong[0]
    assert asked / 4 < allowed < asked * 3 / 4


def test_random_conditions_in_cel():
    tally, wrong = cel_expressions.compare(3, 600)
    assert not wrong, wrong[0]
    assert min(tally[word] for word in ("true", "false", "error")) > 60


NOW = int(time.time())
GOOD: dict[str, Any] = {"iss": "one", "sub": "alice", "aud": "api", "exp": NOW + 3600}
OTHER = {**GOOD, "iss": "two"}
UNSIGNED = (
    base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode() + "." + authz.token(GOOD).split(".")[1] + "."
)


def bearer(claims: dict[str, Any] | str) -> dict[str, str]:
    return {"authorization": "Bearer " + (claims if isinstance(claims, str) else authz.token(claims))}


TOKENS: list[tuple[str, dict[str, str], str]] = [
    ("no token", {}, "/"),
    ("a good one", bearer(GOOD), "/"),
    ("another issuer", bearer(OTHER), "/"),
    ("an issuer that nobody knows", bearer({**GOOD, "iss": "three"}), "/"),
    ("no issuer", bearer({"sub": "alice", "aud": "api"}), "/"),
    ("expired an hour ago", bearer({**GOOD, "exp": NOW - 3600}), "/"),
    ("expired, within the skew", bearer({**GOOD, "exp": NOW - 20}), "/"),
    ("not valid for an hour", bearer({**GOOD, "nbf": NOW + 3600}), "/"),
    ("not valid yet, within the skew", bearer({**GOOD, "nbf": NOW + 20}), "/"),
    ("an audience that is not allowed", bearer({**GOOD, "aud": "web"}), "/"),
    ("one of several audiences is", bearer({**GOOD, "aud": ["web", "api"]}), "/"),
    ("an audience written as a URL", bearer({**GOOD, "aud": "https://api/"}), "/"),
    ("an allowed one written as a URL", bearer({**GOOD, "aud": "http://api"}), "/"),
    ("no audience", bearer({"iss": "one", "sub": "alice"}), "/"),
    ("a signature changed", bearer(authz.token(GOOD)[:-6] + "AAAAAA"), "/"),
    ("unsigned", bearer(UNSIGNED), "/"),
    ("no token at all after the prefix", bearer("abc"), "/"),
    ("two parts", bearer("a.b"), "/"),
    ("without the prefix", {"authorization": authz.token(GOOD)}, "/"),
    ("a prefix in another case", {"authorization": "bearer " + authz.token(GOOD)}, "/"),
    ("in the query", {}, "/?x=1&access_token=" + authz.token(GOOD)),
    ("a bad one in the query", {}, "/?access_token=" + authz.token({**GOOD, "iss": "three"})),
    ("good in the header, bad in the query", bearer(GOOD), "/?access_token=a.b.c"),
    ("bad in the header, good in the query", bearer("a.b.c"), "/?access_token=" + authz.token(GOOD)),
]
AUDIENCES = ["api"]


def rule(issuer: str, audiences: list[str] | None = None) -> dict[str, Any]:
    key = {"kty": "oct", "alg": "HS256", "kid": "k", "k": base64.urlsafe_b64encode(authz.KEY).rstrip(b"=").decode()}
    out: dict[str, Any] = {"issuer": issuer, "jwks": json.dumps({"keys": [key]})}
    return {**out, "audiences": audiences} if audiences else out


def jwt_filter(rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Istio's translation: one provider or no token; of several any, or no token at all of theirs."""
    providers = {
        f"p{i}": {
            "issuer": r["issuer"],
            "audiences": r.get("audiences", []),
            "local_jwks": {"inline_string": r["jwks"]},
        }
        for i, r in enumerate(rules)
    }
    either = [{"provider_name": name} for name in providers]
    missing: dict[str, Any] = {"allow_missing": {}}
    if len(rules) > 1:
        each = [{"requires_any": {"requirements": [one, {"allow_missing": {}}]}} for one in either]
        missing = {"requires_all": {"requirements": each}}
    requires = {"requires_any": {"requirements": [*either, missing]}}
    return {
        "@type": authz.TYPE + "http.jwt_authn.v3.JwtAuthentication",
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        "bypass_cors_preflight": True,
    }


@pytest.mark.parametrize("rules", [[rule("one")], [rule("one", AUDIENCES)], [rule("one", AUDIENCES), rule("two")]])
def test_tokens_get_the_status_that_envoy_gives_them(rules):
    header = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication"}
    az = from_kubernetes([{**header, "metadata": {"name": "r", "namespace": "a"}, "spec": {"jwtRules": rules}}])
    (port,) = free_ports(1)
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    config = listener("jwt", "127.0.0.1", port, routes)
    filters = config["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    filters.insert(0, {"name": "jwt", "typed_config": jwt_filter(rules)})
    wrong = []
    with running([config], [], port):
        client = Client(port)
        for says, headers, path in TOKENS:
            theirs, _ = client.get(path, [("host", "h"), *headers.items()])
            ours = az.decide(Request(authority="h", path=path, headers=tuple(headers.items())))
            if (ours.status or 200) != theirs:
                wrong.append((says, theirs, ours.status, ours.reason))
    assert not wrong
