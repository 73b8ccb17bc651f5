"""Path templates of AuthorizationPolicy: ``{*}`` and ``{**}``.

What    ``{*}`` is one non-empty segment, ``{**}`` any run of characters and slashes, perhaps none. Each stands alone in
        its segment; ``{**}`` at most once and last among the operators. Envoy compiles them as ``*`` and ``**``.
Trap    The operators take the literal characters of a URI template only: a segment that holds ``[`` or ``]`` is not
        matched. ``/foo/{**}/`` takes /foo/bar/ and not /foo/bar, though Istio's API text lists a path of that kind.
Example /store/{**}/cart takes /store//cart and /store/a/b/cart, not /store/cart.
Source  Istio's pkg/config/security; Envoy's uri_template extension (meshsieve.routes.template).
"""

from __future__ import annotations

import re

from meshsieve.errors import ModelError
from meshsieve.routes.template import parse_template

_LITERALS = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]+\Z", re.ASCII)


def is_template(path: str) -> bool:
    return "{*}" in path or "{**}" in path


def check_template(path: str) -> None:
    """raises  ModelError saying what Istio refuses"""
    if not path.startswith("/"):
        raise ModelError(f"path template {path!r} does not begin with /")
    segments = path[1:].split("/")
    seen_any = False
    for i, segment in enumerate(segments):
        if segment in ("{*}", "{**}"):
            if seen_any:
                raise ModelError(f"path template {path!r}: no operator may follow {{**}}")
            seen_any = segment == "{**}"
        elif segment and not _LITERALS.match(segment):
            raise ModelError(f"path template {path!r}: segment {segment!r} is neither an operator nor literal text")
        elif not segment and i < len(segments) - 1:
            raise ModelError(f"path template {path!r} holds an empty segment")


def template_regex(path: str) -> str:
    """The expression that takes the whole path.

    raises  ModelError
    """
    check_template(path)
    return parse_template(path.replace("{**}", "**").replace("{*}", "*")).regex.pattern.decode()
