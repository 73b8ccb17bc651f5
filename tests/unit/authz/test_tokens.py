"""RequestAuthentication: tokens, keys, places, claims; what Envoy says to the same is in tests/differential."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from typing import Any

import pytest

from meshsieve.authz import from_kubernetes
from meshsieve.authz.jwt import MAX_BYTES, TokenError, parse_token, signed_by
from meshsieve.authz.request_authentication import Checked, normalized
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from tests.unit.authz.test_policies import allow, by, policy

SECRET = b"an HMAC key of this test, 32 byte"
SUBJECT = "alice-7f3c91"  # must never be shown


def part(data: bytes | dict[str, Any]) -> str:
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    return part(value.to_bytes(size, "big"))


HMAC_KEY = {"kty": "oct", "kid": "h", "k": part(SECRET)}
CLAIMS = {"iss": "https://idp", "sub": SUBJECT, "aud": "api", "exp": 2_000_000_000, "scope": "read write"}


def token(claims: dict[str, Any], **header: Any) -> str:
    signed = part({"alg": "HS256", **header}) + "." + part(claims)
    return signed + "." + part(hmac.digest(SECRET, signed.encode(), hashlib.sha256))


def authentication(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    header = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication"}
    return {**header, "metadata": {"name": "jwt", "namespace": "foo"}, "spec": {"jwtRules": list(rules), **spec}}


RULE = {"issuer": "https://idp", "jwks": json.dumps({"keys": [HMAC_KEY]})}
NEED_TOKEN = policy(allow(by(requestPrincipals=["*"])))


def ask(rule: dict[str, Any], request: Request, *policies: dict[str, Any], **options: Any) -> Any:
    return from_kubernetes([authentication(rule), *policies], **options).decide(request)


def with_token(text: str, **fields: Any) -> Request:
    return Request(authority="h", headers={"authorization": f"Bearer {text}"}, time_ns=1_900_000_000 * 10**9, **fields)


def test_a_request_without_token_passes_and_authorization_must_require_one():
    plain = Request(authority="h")
    assert ask(RULE, plain).by == "default"
    assert ask(RULE, plain, NEED_TOKEN).by == "no-allow-policy-matched"
    assert ask(RULE, with_token(token(CLAIMS)), NEED_TOKEN).by == "ALLOW"


STATUSES = [
    ("expired", {**CLAIMS, "exp": 1_800_000_000}, 401, "expired"),
    ("not valid yet", {**CLAIMS, "nbf": 1_950_000_000}, 401, "not valid yet"),
    ("an expiry that is no number", {**CLAIMS, "exp": "soon"}, 401, "no number"),
    ("an expiry that is a boolean", {**CLAIMS, "exp": True}, 401, "no number"),
    ("an unknown issuer", {**CLAIMS, "iss": "https://evil"}, 401, "not from the issuer"),
    ("an audience that is not allowed", {**CLAIMS, "aud": "web"}, 403, "audience is not allowed"),
    ("an audience inside a list inside a list", {**CLAIMS, "aud": [["api"]]}, 403, "audience is not allowed"),
]


@pytest.mark.parametrize(("says", "claims", "status", "reason"), STATUSES, ids=[row[0] for row in STATUSES])
def test_status(says, claims, status, reason):
    decision = ask({**RULE, "audiences": ["api"]}, with_token(token(claims)))
    assert (decision.action, decision.by, decision.status) == ("UNAUTHENTICATED", "jwt", status)
    assert reason in decision.reason


def test_without_keys_a_token_counts_as_invalid_unless_the_caller_trusts_it():
    rule = {"issuer": "https://idp", "jwksUri": "https://idp/keys"}
    request = with_token(token(CLAIMS))
    assert ask(rule, request).status == 401
    assert ask(rule, request, trust_tokens=True).allowed
    assert ask(rule, request, jwt_keys={"https://idp": {"keys": [HMAC_KEY]}}).allowed
    assert ask(rule, request, jwt_keys={"https://idp": {"keys": []}}, trust_tokens=True).status == 401


PLACES = [
    ("a header of its own", {"fromHeaders": [{"name": "X-Token"}]}, {"x-token": "T"}, "/", True),
    ("a header with another prefix", {"fromHeaders": [{"name": "x", "prefix": "tok "}]}, {"x": "tok T"}, "/", True),
    ("a header without its prefix", {"fromHeaders": [{"name": "x", "prefix": "tok "}]}, {"x": "T"}, "/", False),
    ("a query parameter", {"fromParams": ["jwt"]}, {}, "/a?jwt=T", True),
    ("the default query parameter", {}, {}, "/a?access_token=T", True),
    ("a cookie", {"fromCookies": ["sid"]}, {"cookie": "a=b; sid=T"}, "/", True),
    ("places listed replace the default ones", {"fromCookies": ["s"]}, {"authorization": "Bearer T"}, "/", False),
]  # fmt: skip


@pytest.mark.parametrize(("says", "where", "headers", "path", "found"), PLACES, ids=[row[0] for row in PLACES])
def test_places(says, where, headers, path, found):
    text = token(CLAIMS)
    lines = {name: value.replace("T", text) for name, value in headers.items()}
    request = Request(authority="h", path=path.replace("T", text), headers=lines, time_ns=1_900_000_000 * 10**9)
    assert ask({**RULE, **where}, request, NEED_TOKEN).allowed == found


def test_a_preflight_needs_no_token():
    headers = {"authorization": "Bearer x", "origin": "https://a", "access-control-request-method": "PUT"}
    assert ask(RULE, Request(method="OPTIONS", authority="h", headers=headers)).allowed
    assert ask(RULE, Request(method="GET", authority="h", headers=headers)).status == 401


def test_scope_permission_and_named_claims_are_split_at_white_space():
    claims = {"scope": "a  b", "permission": "c", "roles": "d e", "sub": "f g", "aud": ["h i"]}
    expected = {"scope": ["a", "b"], "permission": ["c"], "roles": ["d", "e"], "sub": "f g", "aud": ["h i"]}
    assert normalized(claims, ["roles"]) == expected
    reads = policy(allow({"when": [{"key": "request.auth.claims[scope]", "values": ["read"]}]}))
    assert ask(RULE, with_token(token(CLAIMS)), reads).allowed


MALFORMED = [
    ("", "three parts"),
    ("a.b", "three parts"),
    ("a.b.c.d", "three parts"),
    ("!.b.c", "not base64url"),
    (part(b"[]") + ".e30.", "no object"),
    (part(b'{"alg":1}') + ".e30.", "no algorithm"),
    (part(b'{"alg":"HS256","alg":"none"}') + ".e30.", "twice"),
    (part({"alg": "HS256"}) + "." + part(b'{"a":NaN}') + ".", "not JSON"),
    (part({"alg": "HS256"}) + "." + part(b"[" * 30000) + ".", "not JSON"),
    ("a" * (MAX_BYTES + 1), "longer than"),
]


@pytest.mark.parametrize(("text", "says"), MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_tokens_are_refused_in_words_without_a_byte_of_them(text, says):
    with pytest.raises(TokenError, match=says):
        parse_token(text.encode())


def test_a_key_signs_with_the_algorithms_of_its_type_only():
    good = parse_token(token(CLAIMS, kid="h").encode())
    assert signed_by(good, [HMAC_KEY])
    assert not signed_by(good, [{**HMAC_KEY, "kid": "other"}])
    assert not signed_by(good, [{**HMAC_KEY, "alg": "HS512"}])
    assert not signed_by(good, [{**HMAC_KEY, "use": "enc"}])
    assert not signed_by(good, [{**HMAC_KEY, "kty": "RSA"}])
    assert not signed_by(good, [{"kty": "oct"}])
    assert not signed_by(parse_token(f"{part({'alg': 'none'})}.{part(CLAIMS)}.".encode()), [HMAC_KEY])


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_signatures_of_public_keys(algorithm):
    primitives = pytest.importorskip("cryptography.hazmat.primitives")
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

    assert primitives
    signed = f"{part({'alg': algorithm})}.{part(CLAIMS)}"
    message = signed.encode()
    hashing = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(algorithm[2:])
    key: dict[str, Any]
    if algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
        signature, key = private.sign(message), {"kty": "OKP", "crv": "Ed25519"}
        key["x"] = part(private.public_key().public_bytes_raw())
    elif algorithm.startswith("ES"):
        curve: Any = {"256": ec.SECP256R1(), "384": ec.SECP384R1(), "512": ec.SECP521R1()}[algorithm[2:]]
        on_curve = ec.generate_private_key(curve)
        size = (curve.key_size + 7) // 8
        assert hashing is not None
        pair = utils.decode_dss_signature(on_curve.sign(message, ec.ECDSA(hashing)))
        signature = b"".join(n.to_bytes(size, "big") for n in pair)
        numbers = on_curve.public_key().public_numbers()
        crv = {"256": "P-256", "384": "P-384", "512": "P-521"}[algorithm[2:]]
        key = {"kty": "EC", "crv": crv, "x": number(numbers.x, size), "y": number(numbers.y, size)}
    else:
        rsa_key = rsa.generate_private_key(65537, 2048)
        assert hashing is not None
        pss = padding.PSS(padding.MGF1(hashing), hashing.digest_size)
        signature = rsa_key.sign(message, pss if algorithm.startswith("PS") else padding.PKCS1v15(), hashing)
        modulus = rsa_key.public_key().public_numbers()
        key = {"kty": "RSA", "n": number(modulus.n, 256), "e": number(modulus.e, 3)}
    found = parse_token(f"{signed}.{part(signature)}".encode())
    assert signed_by(found, [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, key])
    changed = bytes([signature[0] ^ 1]) + signature[1:]
    assert not signed_by(parse_token(f"{signed}.{part(changed)}".encode()), [key])


def test_tokens_and_claims_are_shown_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    text = token(CLAIMS)
    shown = [repr(parse_token(text.encode())), repr(Checked(CLAIMS))]
    for rule in (RULE, {**RULE, "issuer": "x"}, {**RULE, "audiences": ["none"]}, {"issuer": "https://idp"}):
        for policies in ([], [NEED_TOKEN], [policy(allow(by(requestPrincipals=["nobody"])))]):
            decision = ask(rule, with_token(text), *policies)
            shown += [str(decision), repr(decision), json.dumps(decision.to_dict())]
    everything = "\n".join([*shown, caplog.text])
    for secret in (SUBJECT, text, *text.split(".")):
        assert secret not in everything


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"jwks": "{}"}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"issuer": "a", "jwks": "{}"}, "Key Set"),
        ({"issuer": "a", "audiences": []}, "empty list"),
        ({"issuer": "a", "audience": ["x"]}, "unknown field"),
        ({"issuer": "a", "fromHeaders": [{"prefix": "x"}]}, "name"),
    ],
)
def test_refused(rule, named):
    with pytest.raises(PolicyError, match=named):
        from_kubernetes([authentication(rule)])
