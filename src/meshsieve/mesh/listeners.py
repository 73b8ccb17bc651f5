"""Listeners and filter chains: which handler takes a connection, as Envoy chooses it.

Listener  The one bound to the connection's own address and port, else the one on any address of that port.
Chain     Stage by stage: destination prefix (the longest), server name (exact, then the longest wildcard, then none),
          transport protocol, application protocols in the client's order, source prefix. Each stage keeps only chains
          of its best value and there is no way back; nothing left is the listener's default chain.
Source    Envoy listener_components.proto (FilterChainMatch), filter_chain_manager_impl.cc.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from meshsieve.model import Source
from meshsieve.routes.model import NOWHERE

ANY_ADDRESS = "0.0.0.0"
PLAIN = "raw_buffer"
TLS = "tls"


@dataclass(frozen=True, slots=True)
class HttpHandler:
    """The connection carries requests, routed by the route configuration of that name."""

    route_config: str


@dataclass(frozen=True, slots=True)
class TcpHandler:
    """The connection is forwarded as it is: (cluster, weight) pairs; none: it is closed."""

    clusters: tuple[tuple[str, int], ...]
    source: Source = NOWHERE


@dataclass(frozen=True, slots=True)
class FilterChain:
    """Empty criteria are free. tls: what the chain asks of the client: nothing, TLS, TLS with a certificate, or that it
    takes both."""

    handler: HttpHandler | TcpHandler
    prefixes: tuple[str, ...] = ()
    server_names: tuple[str, ...] = ()
    transport: str = ""
    protocols: tuple[str, ...] = ()
    source_prefixes: tuple[str, ...] = ()
    tls: Literal["", "tls", "mutual", "any"] = ""
    name: str = ""

    @property
    def matches_all(self) -> bool:
        criteria = (self.prefixes, self.server_names, self.transport, self.protocols, self.source_prefixes)
        return not any(criteria)

    def same_match(self, other: FilterChain) -> bool:
        return (self.prefixes, self.server_names, self.transport, self.protocols, self.source_prefixes) == (
            other.prefixes,
            other.server_names,
            other.transport,
            other.protocols,
            other.source_prefixes,
        )


@dataclass(frozen=True)
class Listener:
    name: str
    address: str
    port: int
    chains: tuple[FilterChain, ...]
    default: FilterChain | None = None

    def chain(self, connection: Connection) -> FilterChain | None:
        """The chain that takes the connection; None closes it."""
        return choose_chain(self.chains, connection) or self.default


@dataclass(frozen=True)
class Connection:
    """What is known when a connection opens. protocols: ALPN in the client's order, or what the bytes look like
    (http/1.1, h2c) where they are plain."""

    address: str = ""
    port: int = 0
    server_name: str = ""
    transport: str = PLAIN
    protocols: tuple[str, ...] = ()
    source: str = ""

    @cached_property
    def destination_ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        return ipaddress.ip_address(self.address) if self.address else None

    @cached_property
    def source_ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        return ipaddress.ip_address(self.source) if self.source else None


class Listeners:
    """Listeners by address and port."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._by_place = {(listener.address, listener.port): listener for listener in listeners}

    def choose(self, address: str, port: int) -> Listener | None:
        """The one on the address itself, else on any; address "": unknown, so that only those on any address fit."""
        for wanted in (address, "::" if ":" in address else ANY_ADDRESS, ANY_ADDRESS):
            if (wanted, port) in self._by_place:
                return self._by_place[wanted, port]
        return None


def choose_chain(chains: Sequence[FilterChain], connection: Connection) -> FilterChain | None:
    left = list(chains)
    for stage in (_by_destination, _by_server_name, _by_transport, _by_protocol, _by_source):
        left = stage(left, connection)
    return left[0] if left else None


def _by_destination(chains: list[FilterChain], connection: Connection) -> list[FilterChain]:
    return _by_prefix(chains, connection.destination_ip, lambda chain: chain.prefixes)


def _by_source(chains: list[FilterChain], connection: Connection) -> list[FilterChain]:
    return _by_prefix(chains, connection.source_ip, lambda chain: chain.source_prefixes)


def _by_prefix(
    chains: list[FilterChain],
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    prefixes: Callable[[FilterChain], tuple[str, ...]],
) -> list[FilterChain]:
    def length(chain: FilterChain) -> int | None:
        nets = [ipaddress.ip_network(text, strict=False) for text in prefixes(chain)]
        if not nets:
            return -1
        return max((n.prefixlen for n in nets if ip is not None and n.version == ip.version and ip in n), default=None)

    lengths = [(length(chain), chain) for chain in chains]
    best = max((found for found, _ in lengths if found is not None), default=None)
    return [chain for found, chain in lengths if found == best and found is not None]


def _by_server_name(chains: list[FilterChain], connection: Connection) -> list[FilterChain]:
    name = connection.server_name.lower()
    if name:
        wanted = [name]
        rest = name
        while "." in rest:
            rest = rest.partition(".")[2]
            wanted.append(f"*.{rest}")
        for pattern in wanted:
            found = [c for c in chains if pattern in c.server_names]
            if found:
                return found
    return [c for c in chains if not c.server_names]


def _by_transport(chains: list[FilterChain], connection: Connection) -> list[FilterChain]:
    exact = [c for c in chains if c.transport == connection.transport]
    return exact or [c for c in chains if not c.transport]


def _by_protocol(chains: list[FilterChain], connection: Connection) -> list[FilterChain]:
    for protocol in connection.protocols:
        found = [c for c in chains if protocol in c.protocols]
        if found:
            return found
    return [c for c in chains if not c.protocols]
