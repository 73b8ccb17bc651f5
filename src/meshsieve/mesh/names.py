"""Host names of the mesh: short names, wildcards, and which of two names is the more specific.

A wildcard ``*.x`` or ``*`` covers any number of labels, at least one character. Names are compared without case.
Source: istio/istio pkg/config/host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

CLUSTER_DOMAIN = "cluster.local"


def full_name(host: str, namespace: str, domain: str = CLUSTER_DOMAIN) -> str:
    """``reviews`` becomes ``reviews.NAMESPACE.svc.DOMAIN``; whatever has a dot, ``*`` and addresses stay as they are.
    Without a domain it is ``reviews.NAMESPACE``.

    >>> full_name("reviews", "shop"), full_name("reviews.shop", "x"), full_name("*", "x")
    ('reviews.shop.svc.cluster.local', 'reviews.shop', '*')
    """
    if "." in host or "*" in host or is_address(host):
        return host
    return f"{host}.{namespace}.svc.{domain}" if domain else f"{host}.{namespace}"


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def covers(pattern: str, name: str) -> bool:
    """Whether every name that ``name`` stands for is one of ``pattern``'s.

    >>> covers("*.x.com", "a.x.com"), covers("*.x.com", "x.com"), covers("*.x.com", "*.b.x.com"), covers("b.x", "*.x")
    (True, False, True, False)
    """
    pattern, name = pattern.lower(), name.lower()
    if not pattern.startswith("*"):
        return pattern == name
    tail, rest = pattern[1:], name.removeprefix("*") if name.startswith("*") else name
    if not rest.endswith(tail):
        return False
    return name.startswith("*") or len(rest) > len(tail)


def overlap(first: str, second: str) -> bool:
    """Whether some name fits both.

    >>> overlap("*.example.org", "a.example.org"), overlap("*.b.com", "*.com"), overlap("a.com", "b.com")
    (True, True, False)
    """
    return covers(first, second) or covers(second, first)


def intersection(firsts: Iterable[str], seconds: Iterable[str]) -> list[str]:
    """The more specific of every pair that overlaps, in the order of the first list, each once."""
    seconds = list(seconds)
    out: dict[str, None] = {}
    for first in firsts:
        for second in seconds:
            if covers(second, first):
                out[first] = None
            elif covers(first, second):
                out[second] = None
    return list(out)


def specificity(host: str) -> tuple[int, int]:
    """Sorts the most specific name last: exact beats wildcard, a longer wildcard a shorter one."""
    return (0 if host.startswith("*") else 1), len(host)


def most_specific(name: str, patterns: Iterable[str]) -> str | None:
    """The most specific pattern that covers a name, None if none does."""
    return max((p for p in patterns if covers(p, name)), key=specificity, default=None)
