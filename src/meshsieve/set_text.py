"""Sets of addresses and numbers as people write them: prefixes where an interval is one, else ``low-high``."""

from __future__ import annotations

import ipaddress

from meshsieve.model import ValueSet


def address_text(version: int, number: int) -> str:
    """One address; IPv4 as dotted quad, IPv6 as RFC 5952 says."""
    return str(ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number))


def interval_texts(values: ValueSet, at_most: int | None = None) -> list[str]:
    """The set's intervals of addresses, IPv4 first: ``10.0.0.1``, ``10.0.0.0/8`` or ``10.0.0.1-10.0.0.9``."""
    intervals = [(4, lo, hi) for lo, hi in values.v4] + [(6, lo, hi) for lo, hi in values.v6]
    return [_interval(version, lo, hi) for version, lo, hi in intervals[:at_most]]


def number_texts(values: ValueSet, at_most: int | None = None) -> list[str]:
    """The set's intervals of numbers: ``80`` or ``1024-65535``."""
    return [str(lo) if lo == hi else f"{lo}-{hi}" for lo, hi in values.v4[:at_most]]


def _interval(version: int, lo: int, hi: int) -> str:
    size = hi - lo + 1
    if size == 1:
        return address_text(version, lo)
    if size & (size - 1) == 0 and lo % size == 0:
        bits = 32 if version == 4 else 128
        return f"{address_text(version, lo)}/{bits - size.bit_length() + 1}"
    return f"{address_text(version, lo)}-{address_text(version, hi)}"
