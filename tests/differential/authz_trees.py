"""Random Envoy RBAC configurations, HTTP and network, read by us and enforced by the real Envoy.

HTTP: trees of permissions and principals over what a plain request shows. Network: connections judged by addresses and
ports when their first byte comes; Envoy closes those that it denies, and echoes the others.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from typing import Any

from meshsieve.authz import from_envoy
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions
from tests.differential import authz
from tests.differential.envoy import TYPE, free_ports, running

SOURCES = ("127.1.0.1", "127.1.2.3", "127.9.0.7")
TEXTS = ("/", "/a", "a", "/a/b", "b", "1", "GET", "x", "ab")
TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"


class Trees:
    """Permissions and principals that have a fair chance to hold."""

    def __init__(self, seed: int, ports: Sequence[int]) -> None:
        self.random = random.Random(seed)
        self.ports = ports

    def text(self) -> dict[str, Any]:
        r = self.random
        value = r.choice(TEXTS)
        kind = r.choice(("exact", "prefix", "suffix", "contains", "safe_regex"))
        if kind == "safe_regex":
            return {kind: {"regex": r.choice((".*", ".+", "/a.*", "[ab/]+", ".*b", "(?i)G.T"))}}
        return {kind: value, **({"ignore_case": True} if r.random() < 0.2 else {})}

    def header(self) -> dict[str, Any]:
        r = self.random
        out: dict[str, Any] = {"name": r.choice(("x-a", "x-b", ":method", ":path", ":authority", "X-A"))}
        kind = r.choice(("string_match", "string_match", "present_match", "range_match"))
        out[kind] = {"string_match": self.text(), "present_match": r.random() < 0.7,
                     "range_match": {"start": 0, "end": 5}}[kind]  # fmt: skip
        for flag in ("invert_match", "treat_missing_header_as_empty"):
            if r.random() < 0.2:
                out[flag] = True
        return {"header": out}

    def cidr(self, addresses: Sequence[str]) -> dict[str, Any]:
        r = self.random
        return {"address_prefix": r.choice((*addresses, "10.0.0.1", "::1")), "prefix_len": r.choice((0, 8, 16, 24, 32))}

    def leaf(self, side: str, network: bool) -> dict[str, Any]:
        r = self.random
        port = r.choice(self.ports)
        common: list[Any] = [{"any": True}]
        if not network:
            common += [self.header(), self.header(), {"url_path": {"path": self.text()}}]
        if side == "rules":
            span = {"start": port, "end": min(port + r.choice((1, 500, 20000)), 65536)}
            common += [{"destination_port": port}, {"destination_port_range": span}]
            common.append({"destination_ip": self.cidr(("127.0.0.1",))})
            if not network:
                template = r.choice(("/*", "/a/*", "/**", "/{x}/b"))
                typed = {"@type": TEMPLATE, "path_template": template}
                common.append({"uri_template": {"name": "t", "typed_config": typed}})
        else:
            common += [{"direct_remote_ip": self.cidr(SOURCES)}, {"remote_ip": self.cidr(SOURCES)},
                       {"source_ip": self.cidr(SOURCES)}, {"authenticated": {}}]  # fmt: skip
        return dict(r.choice(common))

    def tree(self, side: str, network: bool, depth: int = 0) -> dict[str, Any]:
        r = self.random
        if depth == 3 or r.random() < 0.4:
            return self.leaf(side, network)
        kind = "rule" if side == "rules" else "id"
        if r.random() < 0.3:
            return {f"not_{kind}": self.tree(side, network, depth + 1)}
        members = [self.tree(side, network, depth + 1) for _ in range(r.randint(1, 3))]
        return {f"{r.choice(('and', 'or'))}_{kind}s": {side: members}}

    def rbac(self, network: bool) -> dict[str, Any]:
        r = self.random
        policies = {
            f"p{i}": {
                "permissions": [self.tree("rules", network) for _ in range(r.randint(1, 2))],
                "principals": [self.tree("ids", network) for _ in range(r.randint(1, 2))],
            }
            for i in range(r.randint(0, 3))
        }
        return {"action": r.choice(("ALLOW", "DENY")), "policies": policies}

    def request(self) -> Request:
        r = self.random
        headers = [(r.choice(("x-a", "x-b")), r.choice(("1", "x", "", "7", "ab"))) for _ in range(r.randint(0, 3))]
        return Request(
            method=r.choice(("GET", "POST")),
            authority=r.choice(("a", "h.b")),
            path=r.choice(("/", "/a", "/a/b", "/b?x=/a", "/ab/b", "/a/[")),
            headers=tuple(headers),
            source_ip=r.choice(SOURCES),
            destination_ip="127.0.0.1",
            destination_port=r.choice(self.ports),
        )


def compare_http(seed: int, sets: int, requests: int) -> tuple[int, int, list[str]]:
    """Decisions, how many were allowed, and every difference in words."""
    ports = free_ports(3)
    trees = Trees(seed, ports)
    routes, asked, ours, configs = [], [], [], []
    for number in range(sets):
        config = trees.rbac(network=False)
        az = from_envoy(config, HttpOptions(normalize_path=True))
        per_route = {"@type": TYPE + "http.rbac.v3.RBACPerRoute", "rbac": {"rules": config}}
        match = {"prefix": "/", "headers": [{"name": "x-set", "string_match": {"exact": str(number)}}]}
        routes.append({"match": match, "direct_response": {"status": 200},
                       "typed_per_filter_config": {"rbac-allow": per_route}})  # fmt: skip
        configs.append(config)
        for _ in range(requests):
            request = trees.request()
            asked.append((number, request))
            ours.append(az.decide(request))
    answers = authz.ask(routes, asked, ports)
    wrong = []
    for i, ((number, request), decision) in enumerate(zip(asked, ours, strict=True)):
        theirs = int(answers[i]["code"]) if i in answers else None
        if theirs != (decision.status or 200):
            wrong.append(f"seed {seed}: Envoy {theirs}, ours {decision}\n  {request}\n  {configs[number]}")
    return len(asked), sum(d.allowed for d in ours), wrong


def compare_network(seed: int, sets: int) -> tuple[int, int, list[str]]:
    """One listener a configuration; one connection from each source."""
    ports = free_ports(sets)
    trees = Trees(seed, ports)
    configs = [trees.rbac(network=True) for _ in range(sets)]
    listeners = [_echo(f"l{i}", port, config) for i, (port, config) in enumerate(zip(ports, configs, strict=True))]
    wrong, allowed, asked = [], 0, 0
    ready = free_ports(1)[0]
    listeners.append(_echo("ready", ready, None))
    with running(listeners, [], ready):
        for port, config in zip(ports, configs, strict=True):
            az = from_envoy({"@type": TYPE + "network.rbac.v3.RBAC", "rules": config, "stat_prefix": "x"})
            for source in SOURCES:
                request = Request(source_ip=source, destination_ip="127.0.0.1", destination_port=port)
                ours, theirs = az.decide(request).allowed, _is_echoed(source, port)
                asked, allowed = asked + 1, allowed + ours
                if ours != theirs:
                    wrong.append(f"seed {seed}: Envoy allows {theirs}, ours {ours}\n  {request}\n  {config}")
    return asked, allowed, wrong


def _echo(name: str, port: int, rbac: dict[str, Any] | None) -> dict[str, Any]:
    filters: list[dict[str, Any]] = [{"name": "echo", "typed_config": {"@type": TYPE + "network.echo.v3.Echo"}}]
    if rbac is not None:
        typed = {"@type": TYPE + "network.rbac.v3.RBAC", "rules": rbac, "stat_prefix": name}
        filters.insert(0, {"name": "rbac", "typed_config": typed})
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def _is_echoed(source: str, port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 20, (source, 0)) as connection:
        try:
            connection.sendall(b"hello")
            return connection.recv(16) == b"hello"
        except ConnectionError:
            return False
