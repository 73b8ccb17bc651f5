"""Filter chains in the real Envoy: a PROXY protocol header says where a connection goes, a hand-made ClientHello its
SNI and ALPN, and each chain answers with its name.

Source: PROXY protocol version 2 (haproxy.org), RFC 8446 (ClientHello), RFC 6066 (SNI), RFC 7301 (ALPN).
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import socket
import struct
from collections.abc import Sequence
from typing import Any

from meshsieve.mesh.listeners import PLAIN, TLS, Connection, FilterChain, TcpHandler
from tests.differential.envoy import TYPE

ADDRESSES = ("10.0.0.1", "10.0.1.2", "10.1.0.3", "11.0.0.4")
# Without 0.0.0.0/0: beside a chain without prefixes, which of the two Envoy takes is left open.
PREFIXES = ("10.0.0.1/32", "10.0.0.0/16", "10.0.0.0/8")
NAMES = ("a.x.com", "b.x.com", "x.com", "q.a.x.com", "other.org")
PATTERNS = ("a.x.com", "*.x.com", "*.com", "x.com", "*.a.x.com")
PROTOCOLS = ("h2", "http/1.1", "istio")
CLOSED = "(closed)"


def random_chains(rng: random.Random, most: int = 8) -> list[FilterChain]:
    """Chains that Envoy takes together: no combination of criteria is in two of them."""
    out: list[FilterChain] = []
    taken: set[tuple[str, ...]] = set()
    for i in range(rng.randint(1, most)):
        chain = FilterChain(
            TcpHandler(((f"c{i}", 1),)),
            prefixes=tuple(rng.sample(PREFIXES, rng.choice((0, 0, 1, 2)))),
            server_names=tuple(rng.sample(PATTERNS, rng.choice((0, 0, 1, 2)))),
            transport=rng.choice(("", "", TLS, PLAIN)),
            protocols=tuple(rng.sample(PROTOCOLS, rng.choice((0, 0, 1, 2)))),
            source_prefixes=tuple(rng.sample(PREFIXES, rng.choice((0, 0, 0, 1)))),
        )
        parts = (chain.prefixes, chain.server_names, (chain.transport,), chain.protocols, chain.source_prefixes)
        leaves = set(itertools.product(*(part or ("",) for part in parts)))
        if not taken & leaves:
            taken |= leaves
            out.append(chain)
    return out


def random_connection(rng: random.Random) -> Connection:
    encrypted = rng.random() < 0.75
    name = rng.choice((*NAMES, "")) if encrypted else ""
    protocols = tuple(rng.sample(PROTOCOLS, rng.randint(0, 2))) if encrypted else ()
    source = rng.choice(ADDRESSES)
    return Connection(rng.choice(ADDRESSES), 443, name, TLS if encrypted else PLAIN, protocols, source)


def envoy_listener(port: int, chains: Sequence[FilterChain], default: bool) -> dict[str, Any]:
    """The listener on 127.0.0.1 whose chains answer with their cluster's name, the default one with "default"."""

    def answering(name: str) -> list[dict[str, Any]]:
        config = {"@type": TYPE + "network.direct_response.v3.Config", "response": {"inline_string": name}}
        return [{"name": "answer", "typed_config": config}]

    inspectors = [
        {"name": "proxy", "typed_config": {"@type": TYPE + "listener.proxy_protocol.v3.ProxyProtocol"}},
        {"name": "tls", "typed_config": {"@type": TYPE + "listener.tls_inspector.v3.TlsInspector"}},
    ]
    found: dict[str, Any] = {
        "name": f"l{port}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "listener_filters": inspectors,
        "filter_chains": [
            {"name": name_of(chain), "filter_chain_match": match_of(chain), "filters": answering(name_of(chain))}
            for chain in chains
        ],
    }
    if default:
        found["default_filter_chain"] = {"filters": answering("default")}
    return found


def name_of(chain: FilterChain) -> str:
    assert isinstance(chain.handler, TcpHandler)
    return chain.handler.clusters[0][0]


def match_of(chain: FilterChain) -> dict[str, Any]:
    def ranges(prefixes: tuple[str, ...]) -> list[dict[str, Any]]:
        nets = [ipaddress.ip_network(text) for text in prefixes]
        return [{"address_prefix": str(n.network_address), "prefix_len": n.prefixlen} for n in nets]

    out: dict[str, Any] = {
        "prefix_ranges": ranges(chain.prefixes),
        "server_names": list(chain.server_names),
        "application_protocols": list(chain.protocols),
        "source_prefix_ranges": ranges(chain.source_prefixes),
    }
    if chain.transport:
        out["transport_protocol"] = chain.transport
    return {key: value for key, value in out.items() if value}


def ask(port: int, connection: Connection) -> str:
    """The name of the chain that Envoy chooses."""
    with socket.create_connection(("127.0.0.1", port), 20) as peer:
        peer.sendall(_proxy_header(connection) + _first_bytes(connection))
        answer = b""
        try:
            while part := peer.recv(4096):
                answer += part
        except ConnectionResetError:
            pass
    return answer.decode() or CLOSED


def _proxy_header(connection: Connection) -> bytes:
    source, destination = (ipaddress.ip_address(a).packed for a in (connection.source, connection.address))
    body = source + destination + struct.pack("!HH", 4242, connection.port)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(body)) + body


def _first_bytes(connection: Connection) -> bytes:
    if connection.transport == PLAIN:
        return b"GET / HTTP/1.1\r\n\r\n"
    extensions = b""
    if connection.server_name:
        name = connection.server_name.encode()
        extensions += struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    if connection.protocols:
        offered = b"".join(bytes([len(p)]) + p.encode() for p in connection.protocols)
        extensions += struct.pack("!HHH", 16, len(offered) + 2, len(offered)) + offered
    extensions += struct.pack("!HHHH", 10, 4, 2, 0x1D) + struct.pack("!HHBH", 43, 3, 2, 0x0304)
    body = b"\x03\x03" + bytes(32) + b"\0" + struct.pack("!HH", 2, 0x1301) + b"\x01\0"
    body += struct.pack("!H", len(extensions)) + extensions
    hello = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(hello)) + hello
