"""Random filter chains and requests from one small vocabulary, so that they meet: every field, matcher and clause."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from meshsieve.authz.generate import (
    namespace_matcher,
    path_matcher,
    peer_matcher,
    request_principal_tests,
    service_account_matcher,
    text_matcher,
    trust_domain_matcher,
)
from meshsieve.authz.model import (
    Action,
    Alternatives,
    Chain,
    Clause,
    EnvoyTest,
    Field,
    FieldKind,
    Filter,
    Group,
    Matcher,
    Network,
    Pattern,
    Ports,
    Present,
    Rule,
    Test,
    Text,
)
from meshsieve.request import Request
from meshsieve.routes.model import HeaderMatch, StringMatch

SEGMENTS = ["a", "b", "api", "admin", "v1", "a.b", "%2f", "x[1]", "ns", "sa", "ü", ""]
NAMES = ["prod", "prod-eu", "dev", "a", "ns", "sa", "p*d", "x\ny"]
DOMAINS = ["cluster.local", "td.example", "td"]
HOSTS = ["shop.example", "SHOP.example", "shop.example:8080", "api.example", "[::1]:80", "", "Ü.example"]
METHODS = ["GET", "POST", "DELETE", "PUT"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "192.0.2.7", "2001:db8::1", "2001:db8::2", "::ffff:10.0.0.1"]
NETWORKS = ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.1", "10.0.0.0/30", "2001:db8::/32", "2001:db8::1", "::/0"]
WORDS = ["one", "two", "three", "on", "tw", "", "one two", "ONE", "three\n", "é"]
HEADERS = ["x-a", "x-b", "host", ":method", ":path", ":authority", ":scheme"]
CLAIMS = [("iss",), ("sub",), ("aud",), ("groups",), ("realm", "roles"), ("n",)]
METADATA = [("f", "k"), ("f", "list")]
TEXT_FIELDS: list[FieldKind] = ["peer", "sni", "method", "host", "path", "header", "claim", "claim_text", "metadata"]


@dataclass
class World:
    """One seed's chains and requests. ``depth``: of nested groups; ``opaque``: whether Python has to be asked."""

    rng: random.Random
    depth: int = 2
    opaque: bool = False

    def pick(self, *values: Any) -> Any:
        return self.rng.choice(values)

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    # --- chains

    def chain(self, rules: int = 12, tcp: bool = False) -> Chain:
        kinds = self.rng.choice(
            [
                [Action.DENY, Action.ALLOW],
                [Action.AUDIT, Action.DENY, Action.ALLOW],
                [Action.CUSTOM, Action.AUDIT, Action.DENY, Action.ALLOW],
                [Action.ALLOW],
                [Action.ALLOW, Action.DENY, Action.ALLOW, Action.AUDIT],
                [Action.DENY, Action.CUSTOM, Action.DENY, Action.ALLOW],
                [],
            ]
        )
        return Chain(tuple(self.filter(kind, i, rules) for i, kind in enumerate(kinds)), tcp)

    def filter(self, action: Action, number: int, rules: int) -> Filter:
        def some(most: int) -> tuple[Rule, ...]:
            return tuple(self.rule(number) for _ in range(self.rng.randint(0, most)))

        return Filter(
            action,
            some(rules) if self.chance(0.9) else None,
            some(4) if self.chance(0.4) else None,
            prefix=f"{number}_",
            provider=self.pick("ext", None) if action is Action.CUSTOM else None,
        )

    def filter_of_allow(self, rules: int) -> Filter:
        return Filter(Action.ALLOW, tuple(replace(self.rule(0), name=f"rule[{i}]") for i in range(rules)))

    def subset(self, step: Filter, number: int) -> Filter:
        """The rules of every chain, and each fourth chain's own."""
        return Filter(step.action, tuple(r for i, r in enumerate(step.rules or ()) if i % 8 in (0, number % 4)))

    def rule(self, number: int) -> Rule:
        name = (
            f"ns[{self.pick('a', 'b', 'é')}]-policy[{number}-{self.rng.randint(0, 30)}]-rule[{self.rng.randint(0, 11)}]"
        )
        return Rule(name, self.alternatives(self.depth), self.alternatives(self.depth))

    def alternatives(self, depth: int) -> Alternatives:
        if self.chance(0.3):
            return ((),)
        if self.chance(0.03):
            return ()
        return tuple(
            tuple(self.clause(depth) for _ in range(self.rng.randint(0 if self.chance(0.1) else 1, 3)))
            for _ in range(self.rng.randint(1, 2))
        )

    def clause(self, depth: int) -> Clause:
        if depth > 0 and self.chance(0.12):
            return Group(self.alternatives(depth - 1), self.chance(0.3))
        if self.chance(0.06):
            value = self.pick("iss1", "*", "*1", "iss*", "iss1/sub1", "*/sub1", "iss1/*", "iss1/su*", "a/b/c")
            return Group((request_principal_tests(value),), self.chance(0.3))
        if self.opaque and self.chance(0.1):
            word = self.pick(*WORDS).encode()
            return EnvoyTest(HeaderMatch(b"x-a", "string", string=StringMatch("prefix", word)), self.chance(0.3))
        field = self.field()
        matchers = [self.matcher(field) for _ in range(self.rng.randint(0 if self.chance(0.03) else 1, 3))]
        if self.chance(0.05):
            matchers += [self.matcher(field) for _ in range(12)]
        return Test(field, tuple(matchers), self.chance(0.25))

    def field(self) -> Field:
        kind = self.pick("peer", "path", "method", "host", *TEXT_FIELDS, "source_ip", "remote_ip", "destination_ip",
                         "destination_port", "metadata_list")  # fmt: skip
        match kind:
            case "header":
                return Field(kind, (self.pick(*HEADERS),))
            case "claim" | "claim_text":
                return Field(kind, self.pick(*CLAIMS))
            case "metadata" | "metadata_list":
                return Field(kind, self.pick(*METADATA))
            case _:
                return Field(kind)

    def matcher(self, field: Field) -> Matcher:
        if field.kind.endswith("_ip"):
            return Present() if self.chance(0.05) else self.network()
        if field.kind == "destination_port":
            low = self.pick(80, 443, 8080, 0, 65535)
            return Ports(low, self.pick(low, low, min(low + 1000, 65535)))
        if self.chance(0.04):
            return Present()
        if self.chance(0.05):
            return Pattern(self.pick("a.*", ".*e", "(GET|PUT)", ".*[0-9]", "spiffe://.*/sa/a", "[^/]+", ".*"))
        if field.kind == "peer" and self.chance(0.9):
            return self.peer_matcher()
        if field.kind == "path" and self.chance(0.9):
            return path_matcher(self.path_value())
        value = self.text(field)
        if self.chance(0.1):
            return Text("contains", value[: self.rng.randint(1, 3)], self.chance(0.3))
        return text_matcher(self.starred(value), self.chance(0.8) if field.kind == "host" else self.chance(0.1))

    def network(self) -> Network:
        if self.chance(0.1):  # a range that is no CIDR
            low = int.from_bytes(bytes([10, 0, 0, self.rng.randint(0, 3)]), "big")
            return Network(4, low, low + self.rng.randint(0, 300))
        return Network.parse(self.pick(*NETWORKS))

    def peer_matcher(self) -> Matcher:
        name, other, domain = self.pick(*NAMES), self.pick(*NAMES), self.pick(*DOMAINS)
        match self.rng.randint(0, 4):
            case 0:
                return peer_matcher(self.starred(self.peer() or "td/ns/a/sa/b"))
            case 1:
                return namespace_matcher(self.pick(name, name, name[:2] + "*", "*" + name[-2:], "*", "p*o*d", "a/sa"))
            case 2:
                return service_account_matcher(self.pick(name, f"{other}/{name}", f"{other}/{name}/x"), other)
            case 3:
                return trust_domain_matcher(self.pick(domain, domain[:3] + "*", "*" + domain[-3:], "*", "t*d", "*a*"))
            case _:
                return Text("exact", self.pick("spiffe://", "cluster.local/ns/a/sa/a", "spiffe://td/ns/a/sa/a"))

    def path_value(self) -> str:
        path = self.path()
        if not self.chance(0.35):
            return self.starred(path)
        parts = [p for p in path[1:].split("/") if p.replace(".", "").isalnum() and p.isascii()] or ["a"]
        if self.chance(0.5):
            parts[self.rng.randrange(len(parts))] = "{*}"
        if self.chance(0.5):
            rest = parts[self.rng.randrange(len(parts)) :]
            parts = parts[: -len(rest)] + ["{**}"] + [p for p in rest if p != "{*}" and self.chance(0.5)]
        return "/" + "/".join(parts) + self.pick("", "", "/") if parts[-1:] != ["{**}"] else "/" + "/".join(parts)

    def starred(self, value: str) -> str:
        cut = self.rng.randint(0, max(len(value) - 1, 0))
        return self.pick(value or "x", value or "x", value[:cut] + "*", "*" + value[cut:], "*", "*" + value[cut:] + "*")

    # --- requests

    def request(self) -> Request:
        headers = [(self.pick("x-a", "X-B", "host", "x-c"), self.pick(*WORDS)) for _ in range(self.rng.randint(0, 3))]
        if self.chance(0.3):
            hops = ", ".join(self.pick(*ADDRESSES, "none", "fe80::1%eth0") for _ in range(self.rng.randint(1, 3)))
            headers.append(("X-Forwarded-For", hops))
        return Request(
            method=self.pick(*METHODS, "GET", "get"),
            authority=self.pick(*HOSTS),
            path=self.path() + self.pick("", "", "?q=1", "?"),
            headers=tuple(headers),
            source_ip=self.pick(None, *ADDRESSES),
            remote_ip=self.pick(None, None, *ADDRESSES),
            destination_ip=self.pick(None, *ADDRESSES),
            destination_port=self.pick(None, 80, 443, 1443, 8080, 0, 65535),
            principal=self.peer(),
            claims=self.claims(),
            sni=self.pick(None, *HOSTS),
            dynamic_metadata=self.pick({}, {"f": {"k": self.pick(*WORDS), "list": [self.pick(*WORDS), 3, "one"]}}),
        )

    def peer(self) -> str | None:
        name, other, domain = self.pick(*NAMES), self.pick(*NAMES), self.pick(*DOMAINS)
        regular = f"{domain}/ns/{name}/sa/{other}"
        odd = self.pick(
            f"{regular}/x", f"{regular}/", f"{domain}/ns/{name}/x/sa/{other}", f"{domain}/ns/{name}//sa/{other}",
            f"ns/{name}/sa/{other}", f"{domain}/x/ns/{name}/ns/{other}/sa/{name}", f"/ns/{name}/sa/{other}", domain, "",
            f"t\nd/ns/{name}/sa/{other}", f"{domain}/ns/ns/sa/sa",
        )  # fmt: skip
        return self.pick(None, regular, regular, regular, odd)

    def path(self) -> str:
        return "/" + "/".join(self.pick(*SEGMENTS) for _ in range(self.rng.randint(0, 4)))

    def claims(self) -> dict[str, Any] | None:
        if self.chance(0.4):
            return None
        groups = self.pick("one", ["one", "two"], ["two", 7, ["one"]], 7, None, {"one": 1}, [])
        return {
            "iss": self.pick("iss1", "iss2", 7),
            "sub": self.pick("sub1", "su", ["sub1"], ""),
            "aud": self.pick("one", ["one", "three"]),
            "groups": groups,
            "realm": self.pick({"roles": groups}, "one"),
        }

    def text(self, field: Field) -> str:
        match field.kind:
            case "method":
                return self.pick(*METHODS)
            case "host" | "sni":
                return self.pick(*HOSTS) or "x"
            case "path":
                return self.path()
            case "peer":
                return f"spiffe://{self.peer()}"
            case "header" if field.key[0].startswith(":") or field.key[0] == "host":
                return self.pick("GET", "http", "shop.example", "/a/b")
            case "claim" | "claim_text" if field.key[0] in ("iss", "sub"):
                return self.pick("iss1", "sub1", "su")
            case _:
                return self.pick(*WORDS) or "one"


def world(seed: int, **settings: Any) -> World:
    return World(random.Random(seed), **settings)
