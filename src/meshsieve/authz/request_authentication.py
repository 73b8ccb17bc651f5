"""RequestAuthentication: which tokens a workload accepts, and what a request's token proves.

What    Every rule of every policy that is for the workload is a provider. A provider looks at its places: those listed,
        else ``Authorization: Bearer`` and the query parameter ``access_token``.
        Of several tokens there, all must be valid (measured); the claims are those of the first.
        One provider: a valid token or none passes. Several: one valid token passes, or that no provider finds an
        invalid one. Requests without a token pass without claims: requiring one is AuthorizationPolicy's business.
Status  401 for a token that is malformed, expired, not yet valid, of an unknown issuer or not signed by its keys; 403
        where the token is good and its audience is not allowed.
Keys    ``jwks`` of the policy, or given by issuer. Without keys no signature can be checked, and the token counts as
        invalid unless the caller decides to trust tokens unseen.
Source  istio/api security/v1beta1/request_authentication.proto; istio pilot/pkg/security/authn; Envoy jwt_authn.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from meshsieve.authz.jwt import Token, TokenError, parse_token, read_jwks, signed_by
from meshsieve.authz.policy import Attachment, empty_list, read_attachment
from meshsieve.errors import ModelError
from meshsieve.importers.typed import Node
from meshsieve.mesh.objects import MeshObject
from meshsieve.model import Source
from meshsieve.routes.http_options import RequestView, encoded
from meshsieve.routes.reference import cookie

SKEW_SECONDS = 60
SPLIT_CLAIMS = ("scope", "permission")
Keys = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Provider:
    """keys: None where the policy names a place to fetch them from."""

    issuer: str
    audiences: tuple[str, ...] = ()
    keys: Keys | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    parameters: tuple[bytes, ...] = ()
    cookies: tuple[bytes, ...] = ()
    split_claims: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, ...]]:
        """Headers with what stands before the token, and query parameters; cookies beside them."""
        if not (self.headers or self.parameters or self.cookies):
            return ((b"authorization", b"Bearer "),), (b"access_token",)
        return self.headers, self.parameters

    def tokens(self, seen: RequestView) -> list[bytes]:
        """What stands at the provider's places."""
        headers, parameters = self.places
        out = [
            line.removeprefix(prefix)
            for name, prefix in headers
            for line in seen.lines(name)
            if line.startswith(prefix)
        ]
        for part in (seen.query or b"").split(b"&"):
            key, equals, value = part.partition(b"=")
            if equals and key in parameters:
                out.append(unquote_to_bytes(value))
        cookies = (cookie(seen, name) for name in self.cookies)
        return out + [value for value in cookies if value is not None]


@dataclass(frozen=True, slots=True)
class RequestAuthentication:
    attachment: Attachment
    providers: tuple[Provider, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class Checked:
    """claims: of the token that was accepted; None without one. status: of the refusal, None where the request passes.
    The repr shows no claim."""

    claims: Mapping[str, Any] | None = field(default=None, repr=False)
    status: int | None = None
    reason: str = ""


def read_request_authentication(obj: MeshObject) -> RequestAuthentication:
    """raises  PolicyError with file:line:column"""
    spec = obj.node.node("spec")
    attachment = read_attachment(obj, spec)
    if spec is None:
        return RequestAuthentication(attachment, (), obj.source)
    spec.only("selector", "targetRef", "targetRefs", "jwtRules")
    return RequestAuthentication(attachment, tuple(_provider(r) for r in spec.nodes("jwtRules") or ()), obj.source)


def check_tokens(
    providers: Sequence[Provider],
    seen: RequestView,
    *,
    keys: Mapping[str, Keys],
    trust: bool,
    now: float | None = None,
) -> Checked:
    """What the request's tokens prove to all providers together.

    keys   by issuer, for providers without their own
    trust  take the signature for good where there is no key to check it with
    now    seconds since 1970; by default the request's own time, else the clock
    """
    if not providers or _is_preflight(seen):
        return Checked()
    if now is None:
        now = seen.request.time_ns / 1e9 if seen.request.time_ns is not None else time.time()
    refused: Checked | None = None
    accepted: Checked | None = None
    for provider in providers:
        found = [_check(token, provider, keys, trust, now) for token in provider.tokens(seen)]
        bad = next((c for c in found if c.status is not None), None)
        if bad is None and found:
            accepted = accepted or found[0]
        elif bad is not None and (refused is None or refused.status == 401):
            refused = bad
    return accepted or refused or Checked()


def token_places(providers: Iterable[Provider]) -> tuple[set[bytes], set[bytes], set[bytes]]:
    """Where any of the providers looks: names of headers, of query parameters, of cookies."""
    headers: set[bytes] = set()
    parameters: set[bytes] = set()
    cookies: set[bytes] = set()
    for provider in providers:
        own, named = provider.places
        headers |= {name for name, _ in own}
        parameters |= set(named)
        cookies |= set(provider.cookies)
    return headers, parameters, cookies


def normalized(claims: Mapping[str, Any], split: Iterable[str] = ()) -> dict[str, Any]:
    """A payload as policies see it: ``scope``, ``permission`` and the named claims split at white space."""
    names = {*SPLIT_CLAIMS, *split}
    return {k: v.split() if k in names and isinstance(v, str) else v for k, v in claims.items()}


def _check(text: bytes, provider: Provider, keys: Mapping[str, Keys], trust: bool, now: float) -> Checked:
    try:
        token = parse_token(text)
    except TokenError as error:
        return Checked(None, 401, f"the token is malformed: {error}")
    payload = token.payload
    if payload.get("iss") != provider.issuer:
        return Checked(None, 401, f"the token is not from the issuer {provider.issuer}")
    for name in ("exp", "nbf"):
        at = payload.get(name)
        if at is None:
            continue
        if isinstance(at, bool) or not isinstance(at, int | float):
            return Checked(None, 401, f"the token's {name} is no number")
        if name == "exp" and now > at + SKEW_SECONDS:
            return Checked(None, 401, "the token has expired")
        if name == "nbf" and now < at - SKEW_SECONDS:
            return Checked(None, 401, "the token is not valid yet")
    if (refusal := _signature(token, provider, keys, trust)) is not None:
        return refusal
    audience = payload.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    allowed = set(map(_bare, provider.audiences))
    if allowed and not any(_bare(a) in allowed for a in audiences if isinstance(a, str)):
        return Checked(None, 403, "the token's audience is not allowed")
    return Checked(normalized(payload, provider.split_claims))


def _bare(audience: str) -> str:
    """Envoy compares audiences without a scheme at the beginning and a slash at the end (measured)."""
    return audience.removeprefix("https://").removeprefix("http://").removesuffix("/")


def _signature(token: Token, provider: Provider, keys: Mapping[str, Keys], trust: bool) -> Checked | None:
    usable = provider.keys if provider.keys is not None else keys.get(provider.issuer)
    if usable is None:
        if trust:
            return None
        return Checked(None, 401, f"no keys are given for {provider.issuer}, so the signature cannot be checked")
    if signed_by(token, usable):
        return None
    return Checked(None, 401, f"the token is not signed by a key of {provider.issuer}")


def _is_preflight(seen: RequestView) -> bool:
    asked = seen.lines(b"origin") and seen.lines(b"access-control-request-method")
    return seen.method == b"OPTIONS" and bool(asked)


def _provider(rule: Node) -> Provider:
    rule.only(
        "issuer", "audiences", "jwks", "jwksUri", "fromHeaders", "fromParams", "fromCookies", "forwardOriginalToken",
        "outputPayloadToHeader", "outputClaimToHeaders", "spaceDelimitedClaims", "timeout",
    )  # fmt: skip
    issuer = rule.required_text("issuer")
    if not issuer:
        raise rule.error("is empty", "issuer")
    text = rule.text("jwks")
    try:
        keys = None if not text else read_jwks(text)
    except ModelError as error:
        raise rule.error(str(error), "jwks") from None
    headers = []
    for place in rule.nodes("fromHeaders") or ():
        place.only("name", "prefix")
        headers.append((encoded(place.required_text("name")).lower(), encoded(place.text("prefix") or "")))
    return Provider(
        issuer,
        _texts(rule, "audiences"),
        keys,
        tuple(headers),
        tuple(map(encoded, _texts(rule, "fromParams"))),
        tuple(map(encoded, _texts(rule, "fromCookies"))),
        _texts(rule, "spaceDelimitedClaims"),
    )


def _texts(rule: Node, key: str) -> tuple[str, ...]:
    values = rule.texts(key)
    if values is not None and not values:
        raise empty_list(rule, key)
    return tuple(values or ())
