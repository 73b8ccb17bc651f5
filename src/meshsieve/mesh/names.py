"""Host names of the mesh: short names, wildcards, and which of two names is the more specific.

A wildcard ``*.x`` or ``*`` covers any number of labels, at least one character. Names are compared without case.
Source: istio/istio pkg/config/host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Generic, TypeVar

CLUSTER_DOMAIN = "cluster.local"
T = TypeVar("T")


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


class HostIndex(Generic[T]):
    """Items by the host patterns that they are for: exact names by look-up, wildcards one by one.

    >>> index = HostIndex([("a.x", 1), ("*.x", 2), ("b.x", 3)])
    >>> index.overlapping("a.x"), index.covering("c.x"), index.overlapping("*.x")
    ([1, 2], [2], [1, 2, 3])
    """

    def __init__(self, items: Iterable[tuple[str, T]]) -> None:
        self._all = list(items)
        self._exact: dict[str, list[int]] = {}
        self._wild: list[int] = []
        for i, (pattern, _) in enumerate(self._all):
            if pattern.startswith("*"):
                self._wild.append(i)
            else:
                self._exact.setdefault(pattern, []).append(i)

    def covering(self, name: str) -> list[T]:
        """Items whose pattern covers a name, in their order."""
        found = [*self._exact.get(name, ()), *(i for i in self._wild if covers(self._all[i][0], name))]
        return [self._all[i][1] for i in sorted(found)]

    def overlapping(self, name: str) -> list[T]:
        """Items whose pattern and ``name``, which may be a wildcard, have a name in common."""
        if not name.startswith("*"):
            return self.covering(name)
        return [item for pattern, item in self._all if overlap(pattern, name)]
