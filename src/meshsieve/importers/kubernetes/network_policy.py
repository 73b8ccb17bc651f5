"""networking.k8s.io/v1 NetworkPolicy: allow rules, and a default denial for the pods that a policy isolates.

A policy selects pods of its namespace. In each direction that it names, the pods it selects are isolated: only what
some rule of some policy allows may pass. Policies only add. So the tier is a first-match list: every rule of every
policy as ALLOW, then one DROP a policy over its pods.
Source: the Kubernetes API reference, NetworkPolicy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from meshsieve.importers.kubernetes.cluster import OBJECT_META, PROTOCOLS
from meshsieve.importers.kubernetes.selectors import PodSelection
from meshsieve.importers.typed import Node
from meshsieve.model import Action, Match, Rule, Source, ValueSet
from meshsieve.policy import Diagnostic

DIRECTIONS = ("Ingress", "Egress")


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    name: str
    namespace: str
    subject: tuple[int, ...]
    types: tuple[str, ...]
    spec: Node

    def source(self, node: Node | None = None) -> Source:
        place = (node or self.spec).data
        return Source(place.file, place.position[0], self.spec.obj)


def read_policy(policy: Node, selection: PodSelection) -> NetworkPolicy:
    metadata, spec = policy.node("metadata"), policy.node("spec")
    if metadata is None or spec is None:
        raise policy.error("is missing", "spec")
    metadata.only(*OBJECT_META)
    spec.only("podSelector", "policyTypes", "ingress", "egress")
    namespace = metadata.text("namespace") or "default"
    selector = spec.node("podSelector")
    types = spec.texts("policyTypes")
    for kind in types or []:
        if kind not in DIRECTIONS:
            raise spec.error(f"expected Ingress or Egress, got {kind!r}", "policyTypes")
    if not types:
        types = ["Ingress", "Egress"] if spec.nodes("egress") else ["Ingress"]
    subject = tuple(selection.in_namespace(namespace, selector))
    return NetworkPolicy(f"{namespace}/{metadata.required_text('name')}", namespace, subject, tuple(types), spec)


def tier_rules(
    policies: list[NetworkPolicy], direction: str, selection: PodSelection, unread: list[Rule] | None = None
) -> list[Rule]:
    """The rules of one direction, to be walked first-match; nothing matches at pods that no policy isolates.

    unread  rules that stand for policies nobody can read: what others allow passes, what is left is theirs to say
    """
    active = [p for p in policies if direction in p.types]
    allows = [rule for p in active for rule in _allow_rules(p, direction, selection)]
    denials = [
        Rule({"vnic": ValueSet.numbers(*p.subject)}, Action.DROP, name=f"{p.name} isolates", source=p.source())
        for p in active
        if p.subject
    ]
    return [*allows, *(unread or ()), *denials]


def _allow_rules(policy: NetworkPolicy, direction: str, selection: PodSelection) -> Iterator[Rule]:
    list_key, peer_key, peer_field = (
        ("ingress", "from", "src_ip") if direction == "Ingress" else ("egress", "to", "dst_ip")
    )
    for number, entry in enumerate(policy.spec.nodes(list_key) or [], 1):
        entry.only(peer_key, "ports")
        match: dict[str, ValueSet] = {"vnic": ValueSet.numbers(*policy.subject)}
        peers = entry.nodes(peer_key)
        if peers:
            match[peer_field] = ValueSet().union(*(_peer(p, policy.namespace, selection) for p in peers))
        ports = entry.nodes("ports")
        alternatives = tuple(a for p in ports or [] for a in _port(p, direction, selection))
        # A set without members, or ports whose names no pod bears, match nothing: such a rule allows nothing.
        if all(match.values()) and (alternatives or not ports):
            name = f"{policy.name} {list_key} #{number}"
            yield Rule(match, Action.ALLOW, alternatives, name=name, source=policy.source(entry))


def _peer(peer: Node, namespace: str, selection: PodSelection) -> ValueSet:
    peer.only("ipBlock", "podSelector", "namespaceSelector")
    block, pods, namespaces = peer.node("ipBlock"), peer.node("podSelector"), peer.node("namespaceSelector")
    if block is not None:
        if pods is not None or namespaces is not None:
            raise peer.error(
                "ipBlock must stand alone", "ipBlock", "put the selectors into a list element of their own"
            )
        return _ip_block(block, selection)
    if namespaces is not None:
        return selection.addresses(selection.in_namespaces(namespaces, pods))
    if pods is not None:
        return selection.addresses(selection.in_namespace(namespace, pods))
    raise peer.error(
        "names neither ipBlock nor podSelector nor namespaceSelector", hint="write podSelector: {} for all"
    )


def _ip_block(block: Node, selection: PodSelection) -> ValueSet:
    block.only("cidr", "except")
    outer = cidr(block, "cidr", block.required_text("cidr"), selection)
    holes = ValueSet().union(*(cidr(block, "except", text, selection) for text in block.texts("except") or []))
    if holes.intersection(outer) != holes:
        raise block.error("an exception lies outside the cidr", "except")
    return outer.intersection(holes.complement("src_ip"))


def cidr(node: Node, key: str, text: str, selection: PodSelection) -> ValueSet:
    """One prefix. An address without a length is refused, as by the API; host bits are masked, as by the API, and
    reported."""
    address, slash, length = text.partition("/")
    try:
        if not slash or not length.isascii() or not length.isdigit():
            raise ValueError("a CIDR is written as address/length")
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise node.error(f"{text!r} is not a CIDR: {error}", key) from None
    if network.network_address != ipaddress.ip_address(address):
        selection.findings.append(
            Diagnostic(
                "host-bits", f"{text} has bits below its length; it means {network}", node.data.where(key), node.obj
            )
        )
    return ValueSet.addresses([str(network)])


def _port(port: Node, direction: str, selection: PodSelection) -> Iterator[Match]:
    port.only("protocol", "port", "endPort")
    protocol = PROTOCOLS[port.choice("protocol", tuple(PROTOCOLS), "TCP")]
    value = port.data.get("port")
    end = port.integer("endPort", 1, 65535)
    if isinstance(value, str):
        if end is not None:
            raise port.error("needs a numeric port", "endPort")
        yield from named_port(value, direction, selection, protocol)
        return
    number = port.integer("port", 1, 65535)
    match = {"proto": ValueSet.numbers(protocol)}
    if number is not None:
        if end is not None and end < number:
            raise port.error(f"{end} is below port {number}", "endPort")
        match["dport"] = ValueSet.numbers((number, number if end is None else end))
    elif end is not None:
        raise port.error("needs a port", "endPort")
    yield match


def named_port(name: str, direction: str, selection: PodSelection, protocol: int | None = None) -> Iterator[Match]:
    """A port name stands for the number that the destination pod gives it, so each number goes with its pods."""
    for (bearer_protocol, number), pods in selection.named_port(name).items():
        if protocol is not None and protocol != bearer_protocol:
            continue
        match = {"proto": ValueSet.numbers(bearer_protocol), "dport": ValueSet.numbers(number)}
        if direction == "Ingress":
            yield {**match, "vnic": ValueSet.numbers(*pods)}
        elif addresses := selection.addresses(pods):
            yield {**match, "dst_ip": addresses}
