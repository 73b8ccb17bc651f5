"""What an importer delivers: enforcement layers made of rule lists, the inventory, and what it could not say.

A *layer* is one system that enforces policy (an NSX distributed firewall, one iptables table). It has *points*: places
where one rule list is walked once a connection. A connection passes a layer if every point that applies to it allows
it. NSX has two points, the sender's vNIC (OUT) and the receiver's (IN); iptables has one, the chain that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from meshsieve.columns import PacketColumns
from meshsieve.inventory import NO_VNIC, Inventory
from meshsieve.model import Action, RuleSet, ValueSet


class Verdict(IntEnum):
    """Answers of a walk, over all formats (docs/semantics.md). REJECT is a denial that the sender is told of."""

    ALLOW = 0
    DROP = 1
    REJECT = 2
    PENDING = 3
    UNDECIDED = 4
    NO_MATCH = 5


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about configuration: what, where, why it matters, what to do."""

    code: str
    message: str
    where: str = ""
    obj: str = ""
    hint: str = ""
    level: Literal["error", "warning", "note"] = "warning"

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        obj = f" [{self.obj}]" if self.obj else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.level} {self.code}: {self.message}{obj}{hint}"


@dataclass(frozen=True, slots=True)
class Shift:
    """Addresses mapped bit by bit: ``to + (value - start)``, of one IP version."""

    start: int
    to: int
    version: int


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the points behind see of a packet that matched a rule.

    values  field -> its new value; None = nobody can know it (a pool of addresses, a port of the gateway's choice)
    shifts  address field -> how its addresses are mapped
    bits    register (mark, ct_mark, ct_nat) -> (value, of): it becomes ``value`` XOR each register of ``of``, as the
            packet had it before, under its mask
    unsure  fields that get one of several values: the way is found by the value that stands here, while rules that ask
            for them are unknown
    skips   points of the same layer, by name, to which the packet then does not come
    choices  rewrites of which one happens, nobody knows which (backends): the packet's verdict is that of all of them
    defaults  field -> value of packets that lack it
    """

    values: Mapping[str, int | None] = field(default_factory=dict)
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    bits: Mapping[str, tuple[int, tuple[tuple[str, int], ...]]] = field(default_factory=dict)
    unsure: frozenset[str] = frozenset()
    skips: frozenset[str] = frozenset()
    choices: tuple[Rewrite, ...] = ()
    defaults: Mapping[str, int] = field(default_factory=dict)

    @property
    def touches(self) -> frozenset[str]:
        """Fields and registers that may change."""
        own = {*self.values, *self.shifts, *self.defaults, *self.bits}
        return frozenset(own.union(*(choice.touches for choice in self.choices)))


def bits_text(value: int, of: Sequence[tuple[str, int]]) -> str:
    """An entry of ``Rewrite.bits`` in words: ``0x1 ^ (mark & 0xfffffffe)``."""
    return " ^ ".join([f"{value:#x}"] * (bool(value) or not of) + [f"({name} & {mask:#x})" for name, mask in of])


class Crossing(Protocol):
    """Which packets come to a place on the way between two networks."""

    def comes(self, headers: PacketColumns) -> npt.NDArray[np.bool_]:
        """bool (n,)"""

    def between(self, version: int, src: int, dst: int) -> bool:
        """Whether packets between two addresses come."""

    def sides(self, headers: PacketColumns) -> Mapping[str, npt.NDArray[np.object_]]:
        """{"iif": texts, "oif": texts}, object (n,): through which interfaces packets enter and leave; {} where the
        place does not know."""

    def sides_between(self, version: int, src: int, dst: int) -> Mapping[str, str]:
        """The same for packets between two addresses."""

    def networks(self) -> Iterable[ValueSet]:
        """Sets of addresses; two that are in the same of them go the same ways."""


@dataclass(frozen=True, slots=True)
class Point:
    """One rule list and how packets come to it.

    name       "out", "in", or the chain
    rules      walked from rule 0
    default    effective verdict where no rule matches (the record still says NO_MATCH)
    constants  fields that every packet has at this point, such as direction
    vnic_of    fill the vnic field with the owner of this address; packets whose address no vNIC owns do not come here
    excluded   vNICs without a filter: their packets pass this point with reason "excluded"
    crossing   only packets that it lets come are judged here; None = all
    role       "filter": its verdict counts. "translate": it decides nothing, but its rules may rewrite the packet for
               the points behind (NAT, marks). "advise": its answer is shown and decides nothing (redirection)
    rewrites   by rule index
    stateless  rules that keep no state: packets of their flows are judged one by one, replies included
    tracks_algs  flows that another one announced (FTP data, TFTP) come with connection state RELATED
    hook       points of one such name stand side by side: each judges the packet as it came to the first of them
    once       translations of points with one such name happen once a packet: who has been rewritten by one of them
               does not come to the others
    """

    name: str
    rules: RuleSet
    default: Verdict = Verdict.ALLOW
    constants: Mapping[str, int] = field(default_factory=dict)
    vnic_of: Literal["src", "dst"] | None = None
    excluded: frozenset[int] = frozenset()
    crossing: Crossing | None = None
    role: Literal["filter", "translate", "advise"] = "filter"
    rewrites: Mapping[int, Rewrite] = field(default_factory=dict)
    once: str = ""
    hook: str = ""
    stateless: frozenset[int] = frozenset()
    tracks_algs: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One enforcing system. ``families``: the IP versions that it sees at all; other packets pass it unjudged."""

    name: str
    points: tuple[Point, ...]
    inventory: Inventory = field(default_factory=Inventory)
    families: frozenset[int] = frozenset({4, 6})


def owner_name(layers: Iterable[Layer], version: int, address: int) -> str | None:
    """Name of the machine that has the address, None if no layer's inventory knows it.

    Layers come from the outside in (NSX, Kubernetes, the host): the last that knows the address knows it best, a pod
    rather than the worker that carries it.
    """
    found = None
    for layer in layers:
        number = layer.inventory.owner(version, address)
        if number != NO_VNIC:
            found = layer.inventory.vnics[number].machine
    return found


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A configuration file as read: the name that errors show, and the text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read configuration.

    strict           what cannot be expressed exactly raises PolicyError; else the rule stays in its place, undecided
    mode             how UNKNOWN ends (docs/semantics.md): strict, or upper/lower bounds of what is accepted
    chain            iptables: the chain asked for; "auto" chooses by local_addresses, else FORWARD
    local_addresses  iptables: addresses of the host itself, as text; with a prefix length also their broadcast address
    table            iptables: the table asked for; "all" = every table in the order of the hooks, with NAT and marks;
                     nft: "all" = every hook of the way, with NAT
    with_nat         iptables: destination NAT before the table asked for
    limits           iptables, nft: what a rate limit, which needs a clock, is taken for
    unseen           iptables, nft: fields that no packet will carry (iif and oif in a capture); the bounds of the modes
                     upper and lower then treat what depends on them as unknown
    max_rules        iptables, nft: most rules that the chains of one walk may unfold to
    default_action   NSX: effective verdict where no rule matches
    recompute_groups NSX: evaluate group expressions even where the dump lists realized members
    chains_down      NSX: paths of service chains that are taken to be down, so that their failure policy decides
    time_zone        NSX: the hosts' time zone (IANA name), for schedules in local time; "" = not known
    document_bytes   NSX: largest JSON document
    document_nodes   NSX: most values in a JSON document
    host_network_pods  Kubernetes: "node": selectors never see pods of the host network (their traffic is the node's);
                     "pod": they are pods like any other
    allow_local_node Kubernetes: a pod accepts traffic from its own node whatever the policies say
    """

    strict: bool = True
    mode: Literal["strict", "upper", "lower"] = "strict"
    chain: str = "auto"
    local_addresses: tuple[str, ...] = ()
    table: str = "filter"
    with_nat: bool = False
    limits: Literal["unknown", "always_match", "never_match"] = "unknown"
    unseen: tuple[str, ...] = ()
    max_rules: int = 1_000_000
    default_action: Verdict = Verdict.ALLOW
    recompute_groups: bool = False
    chains_down: tuple[str, ...] = ()
    time_zone: str = ""
    document_bytes: int = 16 * 2**20
    document_nodes: int = 1_000_000
    host_network_pods: Literal["node", "pod"] = "node"
    allow_local_node: bool = True


@dataclass(frozen=True, slots=True)
class ImportResult:
    """Layers in the order in which a packet meets them, and findings; ``unsupported`` are the undecided clauses.

    sources  the files by the format that took them, where a whole folder was read: layers above 4 are built from these
    """

    layers: tuple[Layer, ...]
    diagnostics: tuple[Diagnostic, ...] = ()
    sources: Mapping[str, Sequence[SourceFile]] = field(default_factory=dict)

    @property
    def unsupported(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.diagnostics if d.code == "unsupported")


class Importer(Protocol):
    """One configuration format. ``load`` gets all files of its format at once, for objects that refer to each other."""

    name: str
    description: str

    def sniff(self, source: SourceFile) -> bool:
        """Whether the file is of this format, by content."""

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        """raises PolicyError naming file, line, object and what to do"""


ACTION_VERDICT = {
    Action.ALLOW: Verdict.ALLOW,
    Action.DROP: Verdict.DROP,
    Action.REJECT: Verdict.REJECT,
    Action.UNDECIDED: Verdict.UNDECIDED,
}
