"""One request written down: ``GET http://host/path``, with header lines as curl takes them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from meshsieve.errors import UsageError
from meshsieve.request import Request

_LOOKS_LIKE = re.compile(r"\s*[A-Z][A-Z_-]*\s+(?:[a-z][a-z0-9+.-]*://|/|\*)", re.ASCII)


def looks_like_request(words: str) -> bool:
    """Whether ``words`` are meant as METHOD URL, not as a packet (``tcp A > B``).

    >>> looks_like_request("GET http://a/b"), looks_like_request("tcp 10.0.0.1:1 > 10.0.0.2:2")
    (True, False)
    """
    return _LOOKS_LIKE.match(words) is not None


def parse_request(words: str, header_lines: Sequence[str] = (), random_value: int | None = None) -> Request:
    """The request of ``METHOD URL`` and ``NAME: VALUE`` lines; a target without scheme and host is taken as a path.

    raises  UsageError
    """
    method, _, target = words.strip().partition(" ")
    target = target.strip()
    if not target or " " in target:
        raise UsageError(f"'{words}' is not METHOD URL; write it such as 'GET http://host/path'")
    scheme, separator, rest = target.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        authority, question, query = authority.partition("?")
        target = slash + path if slash else "/" + question + query
    else:
        scheme, authority = "http", ""
    headers = []
    for line in header_lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"-H '{line}' is not 'NAME: VALUE'")
        if name.strip().lower() == "host":
            authority = value.strip()
        else:
            headers.append((name.strip(), value.strip()))
    return Request(method, scheme.lower(), authority, target, tuple(headers), random_value=random_value)
