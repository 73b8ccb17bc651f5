"""Authorization policies in the shape of a mesh's, and requests to them, from a seed.

A policy is data that every program under test is given in its own words: one rule with identity, methods, path, network
and a group of the caller's token. Names are spread so that about twenty policies are of one namespace.

    spread            60 % exact identities (one to three), 20 % a prefix of identities, 20 % a namespace; 1-2 methods;
                      paths 40 % exact, 40 % prefix, 10 % suffix, 10 % template; 20 % with a network, 20 % with a group
    broad_identities  the same, but half of the policies take any caller
    broad_paths       the same, but half of the policies take any path
    broad             the same, but all take any caller and one of a few path prefixes: nothing tells them apart early
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import asdict, dataclass
from typing import Any

from meshsieve.authz.generate import namespace_matcher, path_matcher, peer_matcher, text_matcher
from meshsieve.authz.model import (
    METHOD,
    PATH,
    PEER,
    SOURCE_IP,
    Action,
    Chain,
    Clause,
    Field,
    Filter,
    Network,
    Rule,
    Test,
)

FAMILIES = ("spread", "broad_identities", "broad_paths", "broad")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD")
GROUPS = tuple(f"group-{i}" for i in range(50))
DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Policy:
    """One rule. Identity, path: (kind, values); kind any takes all. ``network`` and ``group`` may be empty."""

    name: str
    deny: bool
    identity: tuple[str, tuple[str, ...]]  # any, exact, prefix, namespace
    methods: tuple[str, ...]
    path: tuple[str, str]  # any, exact, prefix, suffix, template
    network: str
    group: str


@dataclass(frozen=True)
class Call:
    principal: str
    method: str
    path: str
    source_ip: str
    group: str


def policies(family: str, n: int, seed: int = 1) -> list[Policy]:
    rng = random.Random(f"{family}/{n}/{seed}")
    return [_policy(rng, family, i, n) for i in range(n)]


def _policy(rng: random.Random, family: str, i: int, n: int) -> Policy:
    namespace = f"team-{rng.randrange(max(1, n // 20))}"
    kind = rng.choices(("exact", "prefix", "namespace"), (60, 20, 20))[0]
    if kind == "exact":
        values = tuple(_identity(namespace, rng.randrange(40)) for _ in range(rng.randint(1, 3)))
    elif kind == "prefix":
        values = (f"{DOMAIN}/ns/{namespace}/sa/svc-{rng.randrange(4)}",)
    else:
        values = (namespace,)
    base = f"/{namespace}/api/v{rng.randint(1, 3)}/res-{rng.randrange(200)}"
    path = rng.choices(("exact", "prefix", "suffix", "template"), (40, 40, 10, 10))[0]
    text = {
        "exact": f"{base}/items",
        "prefix": f"{base}/",
        "suffix": f"/res-{rng.randrange(200)}/{namespace}.json",
        "template": f"{base}/{{*}}/details",
    }[path]
    network = f"10.{rng.randrange(256)}.{rng.randrange(256)}.0/{rng.choice((8, 16, 24))}" if rng.random() < 0.2 else ""
    group = rng.choice(GROUPS) if rng.random() < 0.2 else ""
    half = rng.random() < 0.5
    identity = (kind, values)
    if family == "broad" or (family == "broad_identities" and half):
        identity = ("any", ())
    where = (path, text)
    if family == "broad":
        where = ("prefix", f"/{rng.choice(('api', 'app', 'admin', 'static'))}/")
        network = f"10.{rng.randrange(256)}.0.0/16"
    elif family == "broad_paths" and half:
        where = ("any", "")
    methods = tuple(rng.sample(METHODS, rng.randint(1, 2)))
    return Policy(f"p{i:06d}", rng.random() < 0.05, identity, methods, where, network, group)


def _identity(namespace: str, account: int) -> str:
    return f"{DOMAIN}/ns/{namespace}/sa/svc-{account}"


def calls(given: list[Policy], n: int, seed: int = 2) -> list[Call]:
    """Half are built to match some policy, half are drawn from the same names."""
    rng = random.Random(f"{len(given)}/{n}/{seed}")
    return [_call(rng, rng.choice(given), i % 2 == 0) for i in range(n)]


def _call(rng: random.Random, policy: Policy, matching: bool) -> Call:
    kind, values = policy.identity
    namespace = f"team-{rng.randrange(50)}"
    principal = _identity(namespace, rng.randrange(40))
    if kind == "exact":
        principal = rng.choice(values)
    elif kind == "prefix":
        principal = f"{values[0]}{rng.choice(('', '1', '7'))}"
    elif kind == "namespace":
        principal = _identity(values[0], rng.randrange(40))
    path = policy.path[1]
    match policy.path[0]:
        case "prefix":
            path += f"x{rng.randrange(1000)}"
        case "suffix":
            path = f"/files/{rng.randrange(1000)}{path}"
        case "template":
            path = path.replace("{*}", f"id{rng.randrange(1000)}")
        case "any":
            path = f"/{namespace}/api/v1/res-{rng.randrange(200)}"
    ip = f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
    if policy.network and matching:
        net = ipaddress.ip_network(policy.network, strict=False)
        ip = str(net[rng.randrange(1, net.num_addresses - 1)])
    group = policy.group if policy.group and matching else rng.choice(GROUPS)
    method = rng.choice(policy.methods) if matching else rng.choice(METHODS)
    if not matching and rng.random() < 0.5:
        principal = _identity(f"team-{rng.randrange(5000)}", rng.randrange(40))
    return Call(principal, method, path, ip, group)


def chain(given: list[Policy]) -> Chain:
    """The policies as a DENY and an ALLOW filter."""
    rules: dict[bool, list[Rule]] = {True: [], False: []}
    for policy in given:
        rules[policy.deny].append(rule_of(policy))
    return Chain((Filter(Action.DENY, tuple(rules[True])), Filter(Action.ALLOW, tuple(rules[False]))))


def rule_of(policy: Policy) -> Rule:
    kind, values = policy.identity
    who: list[Clause] = []
    if kind == "namespace":
        who.append(Test(PEER, tuple(map(namespace_matcher, values))))
    elif kind != "any":
        who.append(Test(PEER, tuple(peer_matcher(v + "*" * (kind == "prefix")) for v in values)))
    if policy.network:
        who.append(Test(SOURCE_IP, (Network.parse(policy.network),)))
    if policy.group:
        who.append(Test(Field("claim", ("groups",)), (text_matcher(policy.group),)))
    what: list[Clause] = [Test(METHOD, tuple(map(text_matcher, policy.methods)))]
    kind, text = policy.path
    if kind != "any":
        written = {"prefix": f"{text}*", "suffix": f"*{text}"}.get(kind, text)
        what.append(Test(PATH, (path_matcher(written),)))
    return Rule(f"ns[prod]-policy[{policy.name}]-rule[0]", (tuple(who),), (tuple(what),))


def columns(made: list[Call]) -> dict[str, Any]:
    """The calls as columns for ``CompiledChains.batch``; equal claims are one object."""
    claims = {group: {"groups": [group]} for group in GROUPS}
    return {
        "principal": [c.principal for c in made],
        "method": [c.method for c in made],
        "path": [c.path for c in made],
        "source_ip": [c.source_ip for c in made],
        "claims": [claims[c.group] for c in made],
    }


def matches(policy: Policy, call: Call) -> bool:
    """The policy by its words, sharing nothing with any program under test."""
    kind, values = policy.identity
    space = call.principal.split("/")[2]
    who = {
        "any": True,
        "exact": call.principal in values,
        "prefix": any(map(call.principal.startswith, values)),
        "namespace": space in values,
    }[kind]
    return who and call.method in policy.methods and _path_matches(policy.path, call.path) and _rest(policy, call)


def _path_matches(pattern: tuple[str, str], path: str) -> bool:
    kind, text = pattern
    match kind:
        case "exact":
            return path == text
        case "prefix":
            return path.startswith(text)
        case "suffix":
            return path.endswith(text)
        case "template":
            parts, wanted = path.split("/")[1:], text.split("/")[1:]
            return len(parts) == len(wanted) and all(w in (p, "{*}") and p for p, w in zip(parts, wanted, strict=True))
        case _:
            return True


def _rest(policy: Policy, call: Call) -> bool:
    if policy.group and policy.group != call.group:
        return False
    if not policy.network:
        return True
    return ipaddress.ip_address(call.source_ip) in ipaddress.ip_network(policy.network, strict=False)


def allowed(given: list[Policy], call: Call) -> bool:
    """DENY first, then any ALLOW."""
    hits = [p.deny for p in given if call.method in p.methods and matches(p, call)]
    return bool(hits) and not any(hits)


def as_rows(made: list[Any]) -> list[dict[str, Any]]:
    return [asdict(item) for item in made]
