"""Authorization as data: filters of rules, rules of clauses, clauses of matchers. Symbolic, immutable, comparable.

    Filter      one step that a request passes: an action, its rules in force, its dry-run rules
      Rule      a name, and two alternatives that must both hold: who asks (principals), what for (permissions)
        Alternatives   OR of conjunctions; () never holds
          Conjunction  AND of clauses; () always holds
            Clause     Test: some value of a field satisfies some matcher (or, negated, none does)
                       Group: alternatives once more (or none of them), for what one field cannot say
                       Envoy matchers that are not about one text, and conditions in CEL

This is the shape of Envoy's RBAC filter, and what Istio generates for it: a field's list is any-of, ``notX`` is a
negated Test. A field that a request lacks has no values, so a Test on it is false and its negation true.

Order   Filters in their order; a filter that denies ends the walk. Within a filter any matching rule decides, and the
        one *reported* is the first in byte order of names; ``Filter`` keeps its rules in that order.
Source  envoy.config.rbac.v3.RBAC; Istio's pilot/pkg/security/authz (names of fields and rules).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

from meshsieve.errors import ModelError
from meshsieve.model import Source

if TYPE_CHECKING:
    from meshsieve.authz.facts import Facts
    from meshsieve.routes.model import FilterStateMatch, HeaderMatch, MetadataMatch


class Action(Enum):
    """What a matching rule of a filter does."""

    CUSTOM = "CUSTOM"  # asks an external authorizer
    DENY = "DENY"
    ALLOW = "ALLOW"  # and a request that matches no rule of the filter is denied
    AUDIT = "AUDIT"  # marks the request; Envoy calls it LOG


FieldKind = Literal[
    "peer",  # text: URI SAN of the verified client certificate, "spiffe://..." included
    "source_ip",  # address: peer of the connection
    "remote_ip",  # address: client as X-Forwarded-For or the proxy protocol tell
    "destination_ip",  # address
    "destination_port",  # number
    "sni",  # text: requested server name
    "method",  # text
    "host",  # text: authority as sent, port included
    "path",  # text: normalised, without query
    "header",  # text, one value a line; key: (lower-case name,)
    "claim",  # text, one value an element of a list; key: path into the JWT payload
    "claim_text",  # text; the same, but a list has no value
    "metadata",  # text; key: (filter, key) of dynamic metadata
    "metadata_list",  # text, one value an element
]


@dataclass(frozen=True, slots=True)
class Field:
    """An attribute of a request. Every field has zero or more values."""

    kind: FieldKind
    key: tuple[str, ...] = ()

    def __str__(self) -> str:
        return FIELD_NAMES[self.kind] + "".join(f"[{part}]" for part in self.key)


# Names as users know them: Istio's condition keys where there is one.
FIELD_NAMES: dict[FieldKind, str] = {
    "peer": "source.principal",
    "source_ip": "source.ip",
    "remote_ip": "remote.ip",
    "destination_ip": "destination.ip",
    "destination_port": "destination.port",
    "sni": "connection.sni",
    "method": "method",
    "host": "host",
    "path": "path",
    "header": "request.headers",
    "claim": "request.auth.claims",
    "claim_text": "request.auth.claims",
    "metadata": "metadata",
    "metadata_list": "metadata",
}

PEER, SOURCE_IP, REMOTE_IP = Field("peer"), Field("source_ip"), Field("remote_ip")
DESTINATION_IP, DESTINATION_PORT, SNI = Field("destination_ip"), Field("destination_port"), Field("sni")
METHOD, HOST, PATH = Field("method"), Field("host"), Field("path")
HTTP_ONLY: frozenset[FieldKind] = frozenset({"method", "host", "path", "header", "claim", "claim_text"})


@dataclass(frozen=True, slots=True)
class Text:
    """A comparison of texts, byte by byte; ``ignore_case`` folds ASCII letters."""

    op: Literal["exact", "prefix", "suffix", "contains"]
    value: str
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression (RE2) that takes the whole value.

    ``kind`` and ``parts`` say what it was made from, for tables that can answer without running it:
    any ()                     one or more bytes, none a line feed
    namespace (pieces...)      the pieces of a namespace between its stars
    service_account (ns, sa)
    trust_domain (before, after)   of the star
    peer_suffix (text,)        spiffe:// then anything, ending in text
    template (text,)           URI template as Istio writes it
    """

    regex: str
    kind: Literal["regex", "any", "namespace", "service_account", "trust_domain", "peer_suffix", "template"] = "regex"
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Present:
    """Any value, even an empty one."""


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses low to high, both included, of one IP version. IPv4-mapped IPv6 is IPv4."""

    version: int
    low: int
    high: int

    @staticmethod
    def parse(text: str) -> Network:
        """An address or a CIDR; host bits are ignored.

        raises  ModelError
        """
        address, slash, length = text.partition("/")
        if slash and not re.fullmatch(r"0|[1-9][0-9]{0,2}", length, re.ASCII):
            raise ModelError(f"{text!r} is no address and no CIDR")
        try:
            net = ipaddress.ip_network(text if slash else address, strict=False)
        except ValueError:
            raise ModelError(f"{text!r} is no address and no CIDR") from None
        low, high = int(net.network_address), int(net.broadcast_address)
        if net.version == 6 and low >> 32 == 0xFFFF and net.prefixlen >= 96:
            return Network(4, low & 0xFFFFFFFF, high & 0xFFFFFFFF)
        return Network(net.version, low, high)

    def __str__(self) -> str:
        kind = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        length = (32 if self.version == 4 else 128) - (self.high - self.low).bit_length()
        return str(kind(self.low)) if self.low == self.high else f"{kind(self.low)}/{length}"


@dataclass(frozen=True, slots=True)
class Ports:
    """Numbers low to high, both included."""

    low: int
    high: int


Matcher = Text | Pattern | Present | Network | Ports


@dataclass(frozen=True, slots=True)
class Test:
    """Some value of ``field`` satisfies one of ``matchers``; with ``negated``, none does."""

    field: Field
    matchers: tuple[Matcher, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """One of the conjunctions holds; with ``negated``, none does."""

    alternatives: Alternatives
    negated: bool = False


@dataclass(frozen=True, slots=True)
class EnvoyTest:
    """A matcher of Envoy's that the route table knows too: of a header, of dynamic metadata, of filter state."""

    match: HeaderMatch | MetadataMatch | FilterStateMatch
    negated: bool = False


class Program(Protocol):
    """A compiled CEL expression."""

    @property
    def text(self) -> str: ...

    def holds(self, facts: Facts) -> bool | None:
        """Its value; None where it fails to evaluate or is no bool."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A CEL expression. ``on_error``: what it counts as where it fails to evaluate; the strict value is the one that
    admits less (False in ALLOW, True in DENY)."""

    program: Program
    on_error: bool


Clause = Test | Group | EnvoyTest | Condition
Conjunction = tuple[Clause, ...]
Alternatives = tuple[Conjunction, ...]
ALWAYS: Alternatives = ((),)
NEVER: Alternatives = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """``name`` is the id that Envoy reports: ``ns[foo]-policy[httpbin]-rule[0]``."""

    name: str
    principals: Alternatives = ALWAYS
    permissions: Alternatives = ALWAYS
    source: Source = field(default=Source(), compare=False)


def in_report_order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """By name in byte order; of several with one name the last counts, as in Envoy's map."""
    by_name = {rule.name: rule for rule in rules}
    return tuple(by_name[name] for name in sorted(by_name, key=lambda n: n.encode("utf-8", "surrogateescape")))


@dataclass(frozen=True, slots=True)
class Filter:
    """One step.

    rules    None: no policy of this action is in force (so an ALLOW filter lets everything pass); () : policies are in
             force and none has a rule that can match
    shadow   the same of dry-run policies: evaluated, reported, never enforced
    prefix   of the names under which dry-run results are reported
    provider CUSTOM: the external authorizer; None where Istio cannot tell which (matching requests are denied)
    """

    action: Action
    rules: tuple[Rule, ...] | None
    shadow: tuple[Rule, ...] | None = None
    shadow_action: Action | None = None
    prefix: str = ""
    provider: str | None = None

    def __post_init__(self) -> None:
        for name in ("rules", "shadow"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, in_report_order(getattr(self, name)))
        if self.shadow_action is None:
            object.__setattr__(self, "shadow_action", self.action)


@dataclass(frozen=True, slots=True)
class Chain:
    """What one workload port enforces: filters in order. ``tcp``: a connection is judged, HTTP cannot be seen."""

    filters: tuple[Filter, ...]
    tcp: bool = False
