"""Address texts as NSX writes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from meshsieve.errors import ModelError
from meshsieve.model import ValueSet
from meshsieve.value_sets import parse_address_range

Range = tuple[int, int, int]  # version, low, high


def parse_range(text: str) -> Range:
    """An address, a prefix or a ``low-high`` range. A prefix with host bits (172.16.10.10/16) stands for its network.

    raises  ModelError naming the text
    """
    try:
        return parse_address_range(text)
    except ModelError:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            pass
        else:
            return network.version, int(network.network_address), int(network.broadcast_address)
        raise


def looks_like_address(text: str) -> bool:
    """Whether a text that is no address was probably meant as one, rather than as a group's name."""
    return ("." in text or ":" in text) and not set(text) - set("0123456789abcdefABCDEF.:/- ")


def address_set(ranges: Iterable[Range]) -> ValueSet:
    v4: list[tuple[int, int]] = []
    v6: list[tuple[int, int]] = []
    for version, low, high in ranges:
        (v4 if version == 4 else v6).append((low, high))
    return ValueSet(ValueSet.numbers(*v4).v4, ValueSet.numbers(*v6).v4)
