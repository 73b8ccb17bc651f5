"""Random authorization policies and requests, judged by us and by the real Envoy's RBAC filters on loopback.

``python -m tests.differential.authz --decisions 200000 --seed 1`` is the long form; it prints each difference.

How     Every policy set is a route of one Envoy, chosen by a header, with our filters as its RBAC configuration. The
        peer's identity comes in by a header, claims as a signed token through Envoy's own JWT filter, addresses as
        the loopback addresses that the connection really has. Envoy's access log says what each filter decided.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import hmac
import json
import random
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshsieve.authz import Authorizer, Decision, from_kubernetes
from meshsieve.authz.request_authentication import normalized
from meshsieve.authz.to_envoy import filter_config
from meshsieve.request import Request
from tests.differential.envoy import TYPE, PortTakenError, free_ports, running

KEY = b"a key that only this test knows!"
ACTIONS = ("AUDIT", "DENY", "ALLOW")
SOURCES = ("127.1.0.1", "127.1.2.3", "127.9.0.7")
DESTINATIONS = ("127.0.0.1", "127.0.4.4")
REMOTES = ("10.1.2.3", "10.9.0.1", "192.168.7.7", "2001:db8::5")
PORTS = (1, 2, 3)  # stand-ins, replaced by free ports
SET_REQUESTS = 60
SETS_AT_ONCE = 250


class World:
    """A generator of policy sets and of requests that have a fair chance to match them."""

    def __init__(self, seed: int, ports: Sequence[int]) -> None:
        self.random = random.Random(seed)
        self.ports = ports

    def some(self, pool: Sequence[str], most: int = 3) -> list[str]:
        return [self.random.choice(pool) for _ in range(self.random.randint(1, most))]

    def starred(self, text: str) -> str:
        """The text itself, or a prefix, suffix or any pattern that often takes it."""
        cut = self.random.randint(0, len(text))
        kinds = (text, text, text, text[:cut] + "*", "*" + text[cut:], "*", text + "x", "*" + text[cut:] + "*")
        return self.random.choice(kinds) or "*"

    def principal(self) -> str:
        r = self.random
        domain = r.choice(("cluster.local", "cluster.local", "old.example", "td2", "other"))
        forms = ("{d}/ns/{n}/sa/{s}", "{d}/ns/{n}/sa/{s}", "{d}/ns/{n}/x/sa/{s}", "{d}/ns/{n}/sa/{s}/y", "odd")
        return r.choice(forms).format(d=domain, n=r.choice(NAMESPACES), s=r.choice(ACCOUNTS))

    def path(self) -> str:
        r = self.random
        segments = [r.choice(SEGMENTS) for _ in range(r.randint(0, 4))]
        return "/" + "/".join(segments) + r.choice(("", "", "", "/"))

    def raw_path(self) -> str:
        r = self.random
        path = self.path()
        if r.random() < 0.2:
            at = r.randint(1, len(path))
            path = (
                path[:at]
                + r.choice(("%2e", "/../", "/./", "//", "%41", "%2f", "\\", "[", "{", "%", "..;x"))
                + path[at:]
            )
        return path + r.choice(("", "", "", "?q=/admin", "?"))

    def path_value(self) -> str:
        if self.random.random() > 0.4:
            return self.starred(self.path())
        segments = [self.random.choice((*SEGMENTS[:6], "{*}")) for _ in range(self.random.randint(0, 3))]
        if self.random.random() < 0.6:
            segments.append("{**}")
            segments += [self.random.choice(SEGMENTS[:6]) for _ in range(self.random.randint(0, 1))]
        return "/" + "/".join(segments or ["{*}"]) + self.random.choice(("", "", "/"))

    def claims(self) -> dict[str, Any]:
        r = self.random
        pool: dict[str, Any] = {
            "iss": r.choice(ISSUERS),
            "sub": r.choice(SUBJECTS),
            "aud": r.choice(("api", ["api", "web"], "web")),
            "azp": r.choice(("app", "cli")),
            "groups": r.choice(("dev", ["dev", "ops"], [["dev"], 7, "qa"], 7, {"dev": True}, [])),
            "org": r.choice(({"unit": "x"}, {"unit": ["x", "y"]}, {"unit": {"x": 1}}, "x")),
            "scope": r.choice(("read write", "read", ["read write"])),
        }
        return {name: value for name, value in pool.items() if r.random() < 0.8}

    def value(self, name: str) -> str:
        r = self.random
        match name:
            case "principals" | "source.principal":
                return self.starred(self.principal())
            case "requestPrincipals" | "request.auth.principal":
                return self.starred(f"{r.choice(ISSUERS)}/{r.choice(SUBJECTS)}")
            case "namespaces" | "source.namespace":
                return r.choice((*NAMESPACES, "pr*", "*a", "*", "t*m.a"))
            case "serviceAccounts" | "source.serviceAccount":
                return r.choice((r.choice(ACCOUNTS), f"{r.choice(NAMESPACES)}/{r.choice(ACCOUNTS)}"))
            case "trustDomains" | "source.trustDomain":
                return r.choice(("cluster.local", "old.example", "td2", "*", "td*", "*local"))
            case "ipBlocks" | "source.ip":
                return r.choice((*SOURCES, "127.1.0.0/16", "127.1.2.0/24", "::1", "127.0.0.0/8", "bad"))
            case "remoteIpBlocks" | "remote.ip":
                return r.choice((*REMOTES, "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "10.1.2.200/25"))
            case "destination.ip":
                return r.choice((*DESTINATIONS, "127.0.0.0/16", "300.1.1.1"))
            case "ports" | "destination.port":
                return str(r.choice((*self.ports, *self.ports, 80, 70000, "http")))
            case "hosts":
                return self.starred(r.choice(HOSTS))
            case "methods":
                return self.starred(r.choice(METHODS))
            case "paths":
                return self.path_value()
            case "request.auth.audiences":
                return self.starred(r.choice(("api", "web")))
            case "request.auth.presenter":
                return self.starred(r.choice(("app", "cli")))
        return self.starred(r.choice(("dev", "ops", "x", "read", "read write", "t1", "")) or "dev")

    def fields(self, names: Sequence[str]) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for name in self.random.sample(names, self.random.randint(1, 2)):
            negated = self.random.random() < 0.25
            key = "not" + name[0].upper() + name[1:] if negated else name
            out[key] = [self.value(name) for _ in range(self.random.randint(1, 3))]
        return out

    def rule(self) -> dict[str, Any] | None:
        r = self.random
        if r.random() < 0.02:
            return r.choice(({}, None))
        rule: dict[str, Any] = {}
        if r.random() < 0.6:
            rule["from"] = [{"source": self.fields(SOURCE)} for _ in range(r.randint(1, 2))]
        if r.random() < 0.6:
            rule["to"] = [{"operation": self.fields(OPERATION)} for _ in range(r.randint(1, 2))]
        if r.random() < 0.3 or not rule:
            key = r.choice(WHEN)
            part = r.choice(("values", "values", "notValues"))
            rule["when"] = [{"key": key, part: [self.value(key) for _ in range(r.randint(1, 3))]}]
        return rule

    def policies(self) -> list[dict[str, Any]]:
        r = self.random
        out = []
        for i in range(r.randint(1, 5)):
            metadata: dict[str, Any] = {"name": f"p{i}", "namespace": r.choice(("prod", "istio-system"))}
            if r.random() < 0.15:
                metadata["annotations"] = {"istio.io/dry-run": r.choice(("true", "1", "false", "yes"))}
            rules = [self.rule() for _ in range(r.choice((0, 1, 1, 2, 3, 12)))]
            spec = {"action": r.choice(("ALLOW", "ALLOW", "DENY", "AUDIT")), "rules": rules}
            header = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
            out.append({**header, "metadata": metadata, "spec": spec})
        return out

    def request(self) -> Request:
        r = self.random
        headers = [
            (r.choice(("x-env", "x-tenant", "X-Env")), r.choice(("dev", "ops", "", "t1")))
            for _ in range(r.randint(0, 2))
        ]
        return Request(
            method=r.choice(METHODS),
            authority=r.choice(HOSTS),
            path=self.raw_path(),
            headers=tuple(headers),
            source_ip=r.choice(SOURCES),
            destination_ip=r.choice(DESTINATIONS),
            destination_port=r.choice(self.ports),
            remote_ip=r.choice((None, *REMOTES)),
            principal=self.principal() if r.random() < 0.8 else None,
            claims=self.claims() if r.random() < 0.6 else None,
        )


NAMESPACES = ("prod", "prod-eu", "team.a", "dev")
ACCOUNTS = ("web", "api", "a+b", "batch")
SEGMENTS = ("api", "v1", "admin", "a.json", "x-y", "users", "42", "A", "a%2fb", "..", ".", "")
ODDITIES = ("%2e", "/../", "/./", "//", "%41", "%2f", "\\", "[", "{", "%", "..;x")
ISSUERS = ("issuer", "https://idp.example/x", "issuer@corp")
SUBJECTS = ("alice", "bob", "svc-1")
HOSTS = ("shop.example.org", "Shop.Example.org:8080", "api.example.com", "svc")
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS")
SOURCE = (
    "principals", "requestPrincipals", "namespaces", "serviceAccounts", "trustDomains", "ipBlocks", "remoteIpBlocks",
)  # fmt: skip
OPERATION = ("hosts", "methods", "paths", "ports")
WHEN = (
    "source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain", "source.ip", "remote.ip",
    "destination.ip", "destination.port", "request.auth.principal", "request.auth.audiences", "request.auth.presenter",
    "request.auth.claims[groups]", "request.auth.claims[org][unit]", "request.auth.claims[scope]",
    "request.auth.claims", "request.auth.claims[org", "request.headers[x-env]", "request.headers[X-Tenant]",
    "request.headers",
)  # fmt: skip


# --- asking Envoy


def token(claims: dict[str, Any]) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = part(b'{"alg":"HS256","kid":"k"}') + "." + part(json.dumps(claims).encode())
    return signed + "." + part(hmac.digest(KEY, signed.encode(), hashlib.sha256))


def route(number: int, authorizer: Authorizer) -> dict[str, Any]:
    config = {}
    for step in authorizer.chain().filters:
        message = filter_config(step, tcp=False, principal=_by_filter_state)
        prefix = step.action.value.lower()
        message.pop("@type")
        message["rules_stat_prefix"], message["shadow_rules_stat_prefix"] = prefix + "_", prefix + "_"
        per_route = {"@type": TYPE + "http.rbac.v3.RBACPerRoute", "rbac": message}
        config[f"rbac-{prefix}"] = per_route
    match = {"prefix": "/", "headers": [{"name": "x-set", "string_match": {"exact": str(number)}}]}
    return {"match": match, "direct_response": {"status": 200}, "typed_per_filter_config": config}


def _by_filter_state(match: dict[str, Any]) -> dict[str, Any]:
    return {"filterState": {"key": "io.istio.peer_principal", "stringMatch": match}}


def listener(routes: list[dict[str, Any]], ports: Sequence[int], log: Path) -> dict[str, Any]:
    k = base64.urlsafe_b64encode(KEY).rstrip(b"=").decode()
    keys = json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": k}]})
    jwt = {
        "@type": TYPE + "http.jwt_authn.v3.JwtAuthentication",
        "providers": {
            "p": {
                "local_jwks": {"inline_string": keys},
                "payload_in_metadata": "payload",
                "normalize_payload_in_metadata": {"space_delimited_claims": ["scope", "permission"]},
            }
        },
        "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
            {"provider_name": "p"}, {"allow_missing": {}}]}}}],
    }  # fmt: skip
    state = {
        "@type": TYPE + "http.set_filter_state.v3.Config",
        "on_request_headers": [{
            "object_key": "io.istio.peer_principal", "factory_key": "envoy.string", "skip_if_empty": True,
            "format_string": {"text_format_source": {"inline_string": "%REQ(x-peer)%"}, "omit_empty_values": True},
        }],
    }  # fmt: skip
    rbac = [
        {"name": f"rbac-{action.lower()}", "typed_config": {"@type": TYPE + "http.rbac.v3.RBAC"}} for action in ACTIONS
    ]
    manager = {
        "@type": TYPE + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "authz",
        "normalize_path": True,
        "use_remote_address": False,
        "generate_request_id": False,
        "access_log": [{"name": "file", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(log),
            "log_format": {"json_format": {
                "id": "%REQ(x-id)%", "code": "%RESPONSE_CODE%", "details": "%RESPONSE_CODE_DETAILS%",
                "rbac": "%DYNAMIC_METADATA(envoy.filters.http.rbac)%", "common": "%DYNAMIC_METADATA(envoy.common)%",
            }},
        }}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "jwt", "typed_config": jwt},
            {"name": "state", "typed_config": state},
            *rbac,
            {"name": "router", "typed_config": {"@type": TYPE + "http.router.v3.Router"}},
        ],
    }  # fmt: skip
    addresses = [{"socket_address": {"address": "0.0.0.0", "port_value": port}} for port in ports]
    return {
        "name": "authz",
        "address": addresses[0],
        "additional_addresses": [{"address": address} for address in addresses[1:]],
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def ask(routes: list[dict[str, Any]], asked: Sequence[tuple[int, Request]], ports: Sequence[int]) -> dict[int, Any]:
    """Envoy's log entry of each request, by its position in ``asked``: (number of the set, request)."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "access.log")
        with running([listener(routes, ports, log)], [], ports[0]):
            by_connection: dict[tuple[str, str, int], list[tuple[int, bytes]]] = {}
            for i, (number, request) in enumerate(asked):
                key = (request.source_ip or "", request.destination_ip or "", request.destination_port or 0)
                by_connection.setdefault(key, []).append((i, _encoded(i, number, request)))
            for (source, destination, port), texts in by_connection.items():
                send(source, destination, port, [text for _, text in texts])
        return {int(entry["id"]): entry for line in log.read_text().splitlines() if (entry := json.loads(line))["id"]}


def _encoded(i: int, number: int, request: Request) -> bytes:
    lines = [
        f"{request.method} {request.path} HTTP/1.1",
        f"host: {request.authority}",
        f"x-set: {number}",
        f"x-id: {i}",
    ]
    if request.principal is not None:
        lines.append(f"x-peer: spiffe://{request.principal}")
    if request.remote_ip is not None:
        lines.append(f"x-forwarded-for: {request.remote_ip}")
    if request.claims is not None:
        lines.append(f"authorization: Bearer {token(dict(request.claims))}")
    lines += [f"{name}: {value}" for name, value in request.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def send(source: str, destination: str, port: int, texts: Sequence[bytes]) -> list[int]:
    """The status of each request, one after another over connections from ``source``."""
    connection, stream = None, None
    statuses = []
    for text in texts:
        if connection is None:
            connection = socket.create_connection((destination, port), 20, (source, 0))
            stream = connection.makefile("rb")
        connection.sendall(text)
        assert stream is not None
        statuses.append(int(stream.readline().split()[1]))
        length, close = 0, False
        while line := stream.readline().strip().lower():
            name, _, value = line.partition(b":")
            if name == b"content-length":
                length = int(value)
            close = close or (name == b"connection" and b"close" in value)
        stream.read(length)
        if close:
            connection.close()
            connection = None
    if connection is not None:
        connection.close()
    return statuses


def envoy_answer(entry: dict[str, Any]) -> dict[str, Any]:
    """What Envoy decided, in the words of ``our_answer``."""
    rbac, code = entry["rbac"] or {}, int(entry["code"])
    details = entry["details"] or ""
    out: dict[str, Any] = {"status": code, "audit": bool((entry["common"] or {}).get("access_log_hint"))}
    out["rule"] = rbac.get("allow_enforced_effective_policy_id") if code == 200 else None
    if "matched_policy[" in details:
        named = details.split("matched_policy[", 1)[1][:-1]
        out["rule"] = None if named == "none" else named
    out["dry_run"] = {key: value for key, value in rbac.items() if "_shadow_" in key}
    return out


def our_answer(decision: Decision) -> dict[str, Any]:
    return {
        "status": decision.status or 200,
        "audit": bool(decision.audit),
        "rule": decision.rule,
        "dry_run": dict(decision.dry_run),
    }


def compare(seed: int, sets: int) -> tuple[Counter[str], list[str]]:
    """``sets`` policy sets with their requests; how the decisions came out, and every difference in words."""
    for _ in range(3):
        with contextlib.suppress(PortTakenError):
            return _compare(seed, sets)
    return _compare(seed, sets)


def _compare(seed: int, sets: int) -> tuple[Counter[str], list[str]]:
    ports = free_ports(len(PORTS))
    world = World(seed, ports)
    routes, asked, ours, worlds = [], [], [], []
    for number in range(sets):
        policies = world.policies()
        authorizer = from_kubernetes(policies, trust_domain_aliases=["old.example"])
        routes.append(route(number, authorizer))
        worlds.append(policies)
        for _ in range(SET_REQUESTS):
            request = world.request()
            asked.append((number, request))
            # Envoy gets the token, and makes of its claims what RequestAuthentication makes of them.
            claims = None if request.claims is None else normalized(request.claims)
            ours.append(authorizer.decide(replace(request, claims=claims)))
    answers = ask(routes, asked, ports)
    tally: Counter[str] = Counter()
    wrong = []
    for i, ((number, request), decision) in enumerate(zip(asked, ours, strict=True)):
        tally[decision.by] += 1
        if i not in answers:
            wrong.append(f"set {number}: no answer for {request}")
            continue
        theirs, mine = envoy_answer(answers[i]), our_answer(decision)
        if theirs["status"] == 400 and mine["status"] == 400:
            continue
        if theirs != mine:
            wrong.append(
                f"seed {seed} set {number}: Envoy {theirs}, ours {mine}\n  {request}\n  {json.dumps(worlds[number])}"
            )
    return tally, wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.authz", description=__doc__)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    total: Counter[str] = Counter()
    different = 0
    left = -(-options.decisions // SET_REQUESTS)
    seed = options.seed
    while left > 0:
        tally, wrong = compare(seed, min(left, SETS_AT_ONCE))
        total += tally
        different += len(wrong)
        print(*wrong[:5], sep="\n", end="\n" if wrong else "")
        left -= SETS_AT_ONCE
        seed += 1
        print(f"{sum(total.values())} decisions so far, {different} different", flush=True)
    print(f"{sum(total.values())} decisions, {different} different; {dict(total)}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
