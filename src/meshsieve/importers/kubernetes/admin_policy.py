"""The tiers around NetworkPolicy: AdminNetworkPolicy, BaselineAdminNetworkPolicy (policy.networking.k8s.io/v1alpha1)
and ClusterNetworkPolicy (v1alpha2).

Rules of the Admin tier are walked by ascending priority before any NetworkPolicy, those of the Baseline tier after; in
a policy from top to bottom. Allow/Accept and Deny decide; Pass leaves the tier. The API leaves equal priorities
undefined: they are taken by name, and reported.
Source: the network-policy-api specification of both versions.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from dataclasses import dataclass

from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import OBJECT_META, PROTOCOLS
from meshsieve.importers.kubernetes.network_policy import cidr, named_port
from meshsieve.importers.kubernetes.selectors import PodSelection, address_set, selector_test
from meshsieve.importers.typed import Node
from meshsieve.model import Action, Match, Rule, Source, ValueSet

ACTIONS = {"Allow": Action.ALLOW, "Accept": Action.ALLOW, "Deny": Action.DROP, "Pass": Action.SKIP}
_LABEL_LETTERS = frozenset(string.ascii_letters + string.digits + "-_")
MAX_RULES = 25
PEER_FIELDS = {"Ingress": ("namespaces", "pods"), "Egress": ("namespaces", "pods", "nodes", "networks", "domainNames")}


@dataclass(frozen=True, slots=True)
class TierPolicy:
    """One policy of a tier; ``subject`` holds vNIC numbers."""

    kind: str
    name: str
    tier: str
    priority: int
    subject: tuple[int, ...]
    spec: Node
    source_name: str

    @property
    def current_api(self) -> bool:
        """Of v1alpha2, whose rules name protocols instead of ports."""
        return self.kind == "ClusterNetworkPolicy"


def read_policy(policy: Node, selection: PodSelection) -> TierPolicy:
    kind = policy.required_text("kind")
    metadata, spec = policy.node("metadata"), policy.node("spec")
    if metadata is None or spec is None:
        raise policy.error("is missing", "spec")
    name = metadata.only(*OBJECT_META).required_text("name")
    if kind == "BaselineAdminNetworkPolicy":
        spec.only("subject", "ingress", "egress")
        tier, priority = "Baseline", 0
        if name != "default":
            raise metadata.error(f"expected 'default', got {name!r}", "name", "a cluster has one baseline policy")
    else:
        spec.only("priority", "subject", "ingress", "egress", *(("tier",) if kind == "ClusterNetworkPolicy" else ()))
        tier = spec.choice("tier", ("Admin", "Baseline")) if kind == "ClusterNetworkPolicy" else "Admin"
        given = spec.integer("priority", 0, 1000)
        if given is None:
            raise spec.error("is missing", "priority")
        priority = given
    subject = spec.node("subject")
    if subject is None:
        raise spec.error("is missing", "subject")
    chosen = _selected(subject.only("namespaces", "pods"), selection)
    return TierPolicy(kind, name, tier, priority, tuple(chosen), spec, f"{kind} {name}")


def _selected(node: Node, selection: PodSelection) -> list[int]:
    """The pods that a subject or a peer selects by exactly one of ``namespaces`` and ``pods``."""
    namespaces, pods = node.node("namespaces"), node.node("pods")
    if (namespaces is None) == (pods is None):
        raise node.error("expected exactly one of namespaces and pods")
    if namespaces is not None:
        return selection.in_namespaces(namespaces, None)
    assert pods is not None
    pods.only("namespaceSelector", "podSelector")
    return selection.in_namespaces(pods.node("namespaceSelector"), pods.node("podSelector"))


def tier_rules(
    policies: list[TierPolicy],
    direction: str,
    selection: PodSelection,
    unread: list[tuple[int, Rule]] | None = None,
) -> list[Rule]:
    """The tier as a first-match list; ``skip_to`` of Pass rules is left for the caller, who knows the tier's end.

    unread  (priority, rule) that stands for a policy nobody can read
    """
    ordered = [((p.priority, p.name), list(_policy_rules(p, direction, selection))) for p in policies]
    ordered += [((priority, ""), [rule]) for priority, rule in unread or ()]
    return [rule for _, rules in sorted(ordered, key=lambda pair: pair[0]) for rule in rules]


def place_of(policy: Node) -> tuple[str, int]:
    """(tier, priority) of a policy that cannot be read: before all others where it does not say."""
    spec = policy.data.get("spec")
    fields = spec if isinstance(spec, dict) else {}
    baseline = policy.data.get("kind") == "BaselineAdminNetworkPolicy" or fields.get("tier") == "Baseline"
    priority = fields.get("priority")
    return "Baseline" if baseline else "Admin", priority if type(priority) is int and 0 <= priority <= 1000 else -1


def _policy_rules(policy: TierPolicy, direction: str, selection: PodSelection) -> Iterator[Rule]:
    list_key, peers_key = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    entries = policy.spec.nodes(list_key) or []
    if len(entries) > MAX_RULES:
        raise policy.spec.error(f"{len(entries)} rules; the API allows {MAX_RULES}", list_key)
    for number, entry in enumerate(entries, 1):
        ports_key = "protocols" if policy.current_api else "ports"
        entry.only("name", "action", peers_key, ports_key)
        words = ("Accept", "Deny", "Pass") if policy.current_api else ("Allow", "Deny", "Pass")
        action = ACTIONS[entry.choice("action", words if policy.tier == "Admin" or policy.current_api else words[:2])]
        peers = entry.nodes(peers_key)
        if not peers:
            raise entry.error("needs at least one peer", peers_key)
        ports = entry.nodes(ports_key)
        read_port = _protocol if policy.current_api else _port
        alternatives = tuple(a for p in ports or [] for a in read_port(p, direction, selection))
        if not policy.subject or (ports and not alternatives):
            continue  # selects no pod, or only names that no pod bears: matches nothing
        label = f"{policy.kind} {policy.name} {entry.text('name') or f'{list_key} #{number}'}"
        source = Source(entry.data.file, entry.data.position[0], policy.source_name)
        yield from _peer_rules(peers, direction, action, alternatives, policy, selection, label=label, source=source)


def _peer_rules(
    peers: list[Node],
    direction: str,
    action: Action,
    alternatives: tuple[Match, ...],
    policy: TierPolicy,
    selection: PodSelection,
    *,
    label: str,
    source: Source,
) -> Iterator[Rule]:
    """One rule over all peers that addresses express; one more where some peer is a domain name, which the field fqdn
    tells: by DNS answers of the capture, or by what the flow says itself."""
    subject = {"vnic": ValueSet.numbers(*policy.subject)}
    peer_field = "src_ip" if direction == "Ingress" else "dst_ip"
    known = ValueSet()
    domains: ValueSet | None = None
    for peer in peers:
        if not peer.data.keys() & {"namespaces", "pods", "nodes", "networks", "domainNames"}:
            # The API asks implementations to fail closed on a peer of a kind they do not know.
            if action == Action.ALLOW:
                continue
            yield Rule(subject, Action.DROP, alternatives, name=f"{label} (unknown peer)", source=source)
            return
        peer.only(*PEER_FIELDS[direction])
        if len(peer.data) != 1:
            raise peer.error("a peer names exactly one kind", hint=f"one of {', '.join(PEER_FIELDS[direction])}")
        if "domainNames" in peer.data:
            if action != Action.ALLOW:
                raise peer.error("only Allow and Accept rules may name domains", "domainNames")
            domains = (domains or ValueSet()).union(_domains(peer, selection))
        else:
            known = known.union(_peer_addresses(peer, selection))
    if known:
        yield Rule({**subject, peer_field: known}, action, alternatives, name=label, source=source)
    if domains is not None:
        yield Rule({**subject, "fqdn": domains}, action, alternatives, name=label, source=source)


def _domains(peer: Node, selection: PodSelection) -> ValueSet:
    """``*.x.y`` is one or more labels before x.y, and not x.y itself."""
    names = peer.texts("domainNames") or []
    if not 1 <= len(names) <= MAX_RULES:
        raise peer.error(f"expected 1 to {MAX_RULES} names, got {len(names)}", "domainNames")
    found = ValueSet()
    for name in names:
        labels = name.removeprefix("*.").removesuffix(".").split(".")
        if any(not 1 <= len(label) <= 63 or set(label) - _LABEL_LETTERS for label in labels):
            raise peer.error(
                f"'{name[:80]}' is no domain name", "domainNames", "such as www.example.com or *.example.com"
            )
        text = name.lower().rstrip(".")
        codes = selection.domains
        found = found.union(codes.prefix(text[1:]) if text.startswith("*.") else codes.exact(text))
    return found


def _peer_addresses(peer: Node, selection: PodSelection) -> ValueSet:
    networks = peer.texts("networks")
    if networks is not None:
        if not 1 <= len(networks) <= MAX_RULES:
            raise peer.error(f"expected 1 to {MAX_RULES} networks, got {len(networks)}", "networks")
        return ValueSet().union(*(cidr(peer, "networks", text, selection) for text in networks))
    nodes = peer.node("nodes")
    if nodes is not None:
        fits = selector_test(nodes)
        return address_set([a for labels, addresses in selection.cluster.nodes if fits(labels) for a in addresses])
    return selection.addresses(_selected(peer, selection))


def _port(port: Node, direction: str, selection: PodSelection) -> Iterator[Match]:
    port.only("portNumber", "portRange", "namedPort")
    number, span, name = port.node("portNumber"), port.node("portRange"), port.text("namedPort")
    if sum(x is not None for x in (number, span, name)) != 1:
        raise port.error("expected exactly one of portNumber, portRange and namedPort")
    if name is not None:
        yield from named_port(name, direction, selection)
    elif number is not None:
        number.only("protocol", "port")
        protocol = number.choice("protocol", tuple(PROTOCOLS), "TCP")
        yield _protocol_match(protocol, _required_port(number, "port"), None)
    else:
        assert span is not None
        span.only("protocol", "start", "end")
        yield _span_match(span, span.choice("protocol", tuple(PROTOCOLS), "TCP"))


def _protocol(entry: Node, direction: str, selection: PodSelection) -> Iterator[Match]:
    entry.only("tcp", "udp", "sctp", "destinationNamedPort")
    if len(entry.data) != 1:
        raise entry.error("expected exactly one of tcp, udp, sctp and destinationNamedPort")
    name = entry.text("destinationNamedPort")
    if name is not None:
        yield from named_port(name, direction, selection)
        return
    (key,) = entry.data
    protocol = entry.node(key)
    port = protocol.only("destinationPort").node("destinationPort") if protocol else None
    if port is None:
        yield {"proto": ValueSet.numbers(PROTOCOLS[key.upper()])}
        return
    port.only("number", "range")
    span = port.node("range")
    if (span is None) == ("number" not in port.data):
        raise port.error("expected exactly one of number and range")
    if span is not None:
        yield _span_match(span.only("start", "end"), key.upper())
    else:
        yield _protocol_match(key.upper(), _required_port(port, "number"), None)


def _span_match(span: Node, protocol: str) -> Match:
    start, end = _required_port(span, "start"), _required_port(span, "end")
    if end < start:
        raise span.error(f"{end} is below start {start}", "end")
    return _protocol_match(protocol, start, end)


def _required_port(node: Node, key: str) -> int:
    value = node.integer(key, 1, 65535)
    if value is None:
        raise node.error("is missing", key)
    return value


def _protocol_match(protocol: str, low: int, high: int | None) -> Match:
    return {
        "proto": ValueSet.numbers(PROTOCOLS[protocol]),
        "dport": ValueSet.numbers((low, low if high is None else high)),
    }


def ambiguous_priorities(policies: list[TierPolicy]) -> Iterator[tuple[TierPolicy, TierPolicy]]:
    """Pairs of one tier whose equal priority leaves their order to the implementation, and which share a subject."""
    ordered = sorted(policies, key=lambda p: (p.tier, p.priority, p.name))
    for first, second in itertools.pairwise(ordered):
        same = (first.tier, first.priority) == (second.tier, second.priority)
        if same and set(first.subject) & set(second.subject):
            yield first, second


def check_single_baseline(policies: list[TierPolicy]) -> None:
    old = [p for p in policies if p.kind == "BaselineAdminNetworkPolicy"]
    if len(old) > 1:
        raise PolicyError("a second BaselineAdminNetworkPolicy", where=old[1].spec.data.where(), obj=old[1].source_name)
