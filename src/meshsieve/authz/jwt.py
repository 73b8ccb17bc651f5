"""JSON Web Tokens: reading them strictly, and checking signatures with keys that are given.

Nothing of a token ever stands in an error: reasons say what is wrong, not with which bytes.
Signatures need ``pip install 'meshsieve[jwt]'`` (cryptography), except HMAC. ``none`` is no algorithm here; a key is
used only with the algorithms of its type and, if it names one, with that one alone.
Limits  64 KiB a token; a JSON object with no name twice (which of two would count is a matter of the reader).
Source  RFC 7515 (JWS), 7517 (JWK), 7518 (JWA), 7519 (JWT), 8037 (EdDSA).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshsieve.errors import ModelError
from meshsieve.extras import require

MAX_BYTES = 64 * 1024
_HASHES = {"256": "SHA256", "384": "SHA384", "512": "SHA512"}
# Algorithm -> (key type, curve).
_KEY_TYPES: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), ("oct", None)),
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


class TokenError(ModelError):
    """A token that cannot be read."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A token in parts. Its repr shows none of them."""

    header: Mapping[str, Any]
    payload: Mapping[str, Any]
    signed: bytes
    signature: bytes

    def __repr__(self) -> str:
        return "<Token>"


def parse_token(text: bytes) -> Token:
    """raises  TokenError saying what is wrong, without a byte of the token"""
    if len(text) > MAX_BYTES:
        raise TokenError(f"longer than {MAX_BYTES} bytes")
    parts = text.split(b".")
    if len(parts) != 3:
        raise TokenError("not three parts with dots between them")
    header, payload = (_object(part, name) for part, name in zip(parts, ("header", "payload"), strict=False))
    if not isinstance(header.get("alg"), str):
        raise TokenError("the header names no algorithm")
    return Token(header, payload, parts[0] + b"." + parts[1], _decoded(parts[2], "signature"))


def read_jwks(text: str | Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The keys of a JSON Web Key Set.

    raises  ModelError
    """
    try:
        data = json.loads(text) if isinstance(text, str) else text
        keys = data["keys"]
        if not isinstance(keys, list) or not all(isinstance(key, Mapping) for key in keys):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError("not a JSON Web Key Set: an object with a list of keys is expected") from None
    return tuple(keys)


def signed_by(token: Token, keys: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of the keys made the signature; if the token names a key (``kid``), only that one may.

    raises  MissingExtraError where cryptography is needed and absent
    """
    kid, algorithm = token.header.get("kid"), token.header["alg"]
    kind = _KEY_TYPES.get(algorithm)
    if kind is None:
        return False
    for key in keys:
        if kid is not None and key.get("kid") not in (None, kid):
            continue
        usable = key.get("kty") == kind[0] and (kind[1] is None or key.get("crv") == kind[1])
        if usable and key.get("alg") in (None, algorithm) and key.get("use") in (None, "sig"):
            try:
                if _verifies(token, key, algorithm):
                    return True
            except (KeyError, TypeError, ValueError):
                continue  # a key that is none
    return False


def _verifies(token: Token, key: Mapping[str, Any], algorithm: str) -> bool:
    hash_name = _HASHES.get(algorithm[2:], "")
    if algorithm.startswith("HS"):
        secret = _decoded(key["k"].encode(), "key")
        return hmac.compare_digest(hmac.digest(secret, token.signed, hash_name.lower()), token.signature)
    from_crypto = "cryptography.hazmat.primitives"
    hashes = require(f"{from_crypto}.hashes", "jwt")
    invalid = require("cryptography.exceptions", "jwt").InvalidSignature
    public, arguments, signature = _public_key(key, algorithm, token.signature)
    if hash_name and algorithm.startswith("ES"):
        arguments = (require(f"{from_crypto}.asymmetric.ec", "jwt").ECDSA(getattr(hashes, hash_name)()),)
    elif hash_name:
        padding = require(f"{from_crypto}.asymmetric.padding", "jwt")
        hashing = getattr(hashes, hash_name)()
        pss = padding.PSS(padding.MGF1(hashing), hashing.digest_size)
        arguments = (pss if algorithm.startswith("PS") else padding.PKCS1v15(), hashing)
    try:
        public.verify(signature, token.signed, *arguments)
    except invalid:
        return False
    return True


def _public_key(key: Mapping[str, Any], algorithm: str, signature: bytes) -> tuple[Any, tuple[Any, ...], bytes]:
    asymmetric = "cryptography.hazmat.primitives.asymmetric"
    if algorithm == "EdDSA":
        ed25519 = require(f"{asymmetric}.ed25519", "jwt")
        return ed25519.Ed25519PublicKey.from_public_bytes(_decoded(key["x"].encode(), "key")), (), signature
    if algorithm.startswith("ES"):
        ec, utils = require(f"{asymmetric}.ec", "jwt"), require(f"{asymmetric}.utils", "jwt")
        curve = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}[key["crv"]]()
        size = (curve.key_size + 7) // 8
        if len(signature) != 2 * size:
            raise ValueError("an ECDSA signature is two numbers of the curve's size")
        numbers = ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), curve)
        pair = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        return numbers.public_key(), (), utils.encode_dss_signature(*pair)
    rsa = require(f"{asymmetric}.rsa", "jwt")
    return rsa.RSAPublicNumbers(_number(key["e"]), _number(key["n"])).public_key(), (), signature


def _number(text: str) -> int:
    return int.from_bytes(_decoded(text.encode(), "key"), "big")


def _decoded(part: bytes, name: str) -> bytes:
    if part.strip(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"):
        raise TokenError(f"the {name} is not base64url")
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise TokenError(f"the {name} is not base64url") from None


def _object(part: bytes, name: str) -> Mapping[str, Any]:
    try:
        value = json.loads(_decoded(part, name), object_pairs_hook=_once, parse_constant=_refuse)
    except TokenError:
        raise
    except (ValueError, RecursionError):
        raise TokenError(f"the {name} is not JSON, or says something twice") from None
    if not isinstance(value, dict):
        raise TokenError(f"the {name} is no object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name twice")
    return out


def _refuse(text: str) -> Any:
    raise ValueError(text)
