"""NetworkPolicy and the admin tiers, literally: the API's sentences on plain dictionaries, one packet at a time.

Slow and plain on purpose, and written without the importer: it reads the YAML itself, keeps selectors as functions of
labels, and knows nothing of sets, vNICs or skips. Covered: NetworkPolicy, AdminNetworkPolicy,
BaselineAdminNetworkPolicy, ClusterNetworkPolicy; pods with addresses, namespaces, nodes. Not covered: domainNames,
Services, host-network pods (the caller leaves such clusters out).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import yaml

Json = dict[str, Any]
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


@dataclass
class Packet:
    src: str
    dst: str
    proto: int
    dport: int | None = None


@dataclass
class Pod:
    namespace: str
    labels: Json
    addresses: list[str]
    ports: list[Json]
    node: str


class Reference:
    """texts: YAML or JSON documents."""

    def __init__(self, texts: list[str]) -> None:
        self.namespaces: dict[str, Json] = {}
        self.pods: list[Pod] = []
        self.nodes: list[tuple[Json, list[str]]] = []
        self.policies: list[Json] = []
        for text in texts:
            for document in yaml.safe_load_all(text):
                self.add(document, None)
        for pod in self.pods:
            self.namespaces.setdefault(pod.namespace, {"kubernetes.io/metadata.name": pod.namespace})

    def add(self, obj: Json | None, kind: str | None) -> None:
        if not obj:
            return
        kind = obj.get("kind") or kind or ""
        if kind.endswith("List") and "items" in obj:
            for item in obj["items"]:
                self.add(item, kind.removesuffix("List"))
            return
        metadata = obj.get("metadata") or {}
        name, namespace = metadata.get("name", ""), metadata.get("namespace") or "default"
        labels = metadata.get("labels") or {}
        status = obj.get("status") or {}
        if kind == "Namespace":
            self.namespaces[name] = {**labels, "kubernetes.io/metadata.name": name}
        elif kind == "Pod":
            ips = [entry["ip"] for entry in status.get("podIPs") or []] or [status.get("podIP")]
            ports = [p for c in (obj.get("spec") or {}).get("containers") or [] for p in c.get("ports") or []]
            self.pods.append(Pod(namespace, labels, [ip for ip in ips if ip], ports, status.get("hostIP") or ""))
        elif kind == "Node":
            self.nodes.append((labels, [a["address"] for a in status.get("addresses") or []]))
        elif kind.endswith("NetworkPolicy"):
            self.policies.append({**obj, "kind": kind})

    # The verdict

    def allowed(self, packet: Packet) -> bool:
        src, dst = self.pod_of(packet.src), self.pod_of(packet.dst)
        for direction, me in (("egress", src), ("ingress", dst)):
            if me is not None and not self.direction_allows(direction, me, packet, src, dst):
                return False
        return True

    def direction_allows(self, direction: str, me: Pod, packet: Packet, src: Pod | None, dst: Pod | None) -> bool:
        peer, address = (src, packet.src) if direction == "ingress" else (dst, packet.dst)
        if peer is me:
            return True
        if direction == "ingress" and me.node and same(packet.src, me.node):
            return True
        verdict = self.tier("Admin", direction, me, packet, peer, address, dst)
        if verdict in ("Allow", "Deny"):
            return verdict == "Allow"
        mine = [
            p for p in self.policies
            if p["kind"] == "NetworkPolicy" and direction in types_of(p["spec"]) and self.selected_by(p, me)
        ]  # fmt: skip
        if mine:
            return any(
                self.entry_matches(entry, direction, (p["metadata"].get("namespace") or "default"), packet, peer,
                                   address, dst)
                for p in mine for entry in p["spec"].get(direction) or []
            )  # fmt: skip
        return self.tier("Baseline", direction, me, packet, peer, address, dst) != "Deny"

    # NetworkPolicy

    def selected_by(self, policy: Json, pod: Pod) -> bool:
        namespace = policy["metadata"].get("namespace") or "default"
        return pod.namespace == namespace and selects(policy["spec"].get("podSelector") or {}, pod.labels)

    def entry_matches(
        self, entry: Json, direction: str, namespace: str, packet: Packet, peer: Pod | None, address: str,
        dst: Pod | None,
    ) -> bool:  # fmt: skip
        peers = entry.get("from" if direction == "ingress" else "to")
        if peers and not any(self.peer_matches(p, namespace, peer, address) for p in peers):
            return False
        ports = entry.get("ports")
        return not ports or any(port_matches(p, packet, dst) for p in ports)

    def peer_matches(self, spec: Json, namespace: str, peer: Pod | None, address: str) -> bool:
        if spec.get("ipBlock") is not None:
            block = spec["ipBlock"]
            return inside(address, block["cidr"]) and not any(inside(address, e) for e in block.get("except") or [])
        if peer is None:
            return False
        if spec.get("namespaceSelector") is not None:
            if not selects(spec["namespaceSelector"], self.namespaces[peer.namespace]):
                return False
        elif peer.namespace != namespace:
            return False
        return spec.get("podSelector") is None or selects(spec["podSelector"], peer.labels)

    # Admin and Baseline

    def tier(
        self, tier: str, direction: str, me: Pod, packet: Packet, peer: Pod | None, address: str, dst: Pod | None
    ) -> str:
        """Allow, Deny, or "" for what the tier does not decide."""
        found = [p for p in self.policies if tier_of(p) == tier]
        found.sort(key=lambda p: (p["spec"].get("priority") or 0, p["metadata"]["name"]))
        for policy in found:
            if not self.chosen(policy["spec"]["subject"], me):
                continue
            for entry in policy["spec"].get(direction) or []:
                peers = entry["from" if direction == "ingress" else "to"]
                if not any(self.admin_peer(p, peer, address) for p in peers):
                    continue
                ports = entry.get("ports") or entry.get("protocols")
                if ports and not any(admin_port(p, packet, dst) for p in ports):
                    continue
                return {"Accept": "Allow", "Pass": ""}.get(entry["action"], entry["action"])
        return ""

    def chosen(self, spec: Json, pod: Pod | None) -> bool:
        """By ``namespaces`` or ``pods``."""
        if pod is None:
            return False
        if spec.get("namespaces") is not None:
            return selects(spec["namespaces"], self.namespaces[pod.namespace])
        pods = spec["pods"]
        return selects(pods.get("namespaceSelector") or {}, self.namespaces[pod.namespace]) and selects(
            pods.get("podSelector") or {}, pod.labels
        )

    def admin_peer(self, spec: Json, peer: Pod | None, address: str) -> bool:
        if "nodes" in spec:
            return any(selects(spec["nodes"] or {}, labels) and address in held for labels, held in self.nodes)
        if "networks" in spec:
            return any(inside(address, network) for network in spec["networks"])
        return self.chosen(spec, peer)

    def pod_of(self, address: str) -> Pod | None:
        return next((pod for pod in self.pods if any(same(address, a) for a in pod.addresses)), None)


def types_of(spec: Json) -> list[str]:
    named = [kind.lower() for kind in spec.get("policyTypes") or []]
    return named or (["ingress", "egress"] if spec.get("egress") else ["ingress"])


def tier_of(policy: Json) -> str:
    return {
        "AdminNetworkPolicy": "Admin",
        "BaselineAdminNetworkPolicy": "Baseline",
        "ClusterNetworkPolicy": policy["spec"].get("tier", ""),
    }.get(policy["kind"], "")


def selects(selector: Json, labels: Json) -> bool:
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, values = expression["key"], expression.get("values") or []
        if {
            "In": labels.get(key) not in values,
            "NotIn": labels.get(key) in values,
            "Exists": key not in labels,
            "DoesNotExist": key in labels,
        }[expression["operator"]]:
            return False
    return True


def port_matches(spec: Json, packet: Packet, dst: Pod | None) -> bool:
    protocol = PROTOCOLS[spec.get("protocol") or "TCP"]
    if packet.proto != protocol:
        return False
    port = spec.get("port")
    if port is None:
        return True
    if isinstance(port, str):
        return named(port, packet, dst)
    return packet.dport is not None and port <= packet.dport <= (spec.get("endPort") or port)


def admin_port(spec: Json, packet: Packet, dst: Pod | None) -> bool:
    if "namedPort" in spec or "destinationNamedPort" in spec:
        return named(spec.get("namedPort") or spec["destinationNamedPort"], packet, dst)
    if "portNumber" in spec:
        one = spec["portNumber"]
        return packet.proto == PROTOCOLS[one.get("protocol") or "TCP"] and packet.dport == one["port"]
    if "portRange" in spec:
        some = spec["portRange"]
        inside_range = packet.dport is not None and some["start"] <= packet.dport <= some["end"]
        return packet.proto == PROTOCOLS[some.get("protocol") or "TCP"] and inside_range
    ((name, body),) = spec.items()
    if packet.proto != PROTOCOLS[name.upper()]:
        return False
    destination = (body or {}).get("destinationPort")
    if not destination:
        return True
    if "number" in destination:
        return packet.dport == destination["number"]
    return packet.dport is not None and destination["range"]["start"] <= packet.dport <= destination["range"]["end"]


def named(name: str, packet: Packet, dst: Pod | None) -> bool:
    """A name is the number that the destination pod gives it."""
    return dst is not None and any(
        port.get("name") == name
        and port.get("containerPort") == packet.dport
        and PROTOCOLS[port.get("protocol") or "TCP"] == packet.proto
        for port in dst.ports
    )


def inside(address: str, prefix: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix, strict=False)


def same(one: str, other: str) -> bool:
    return ipaddress.ip_address(one) == ipaddress.ip_address(other)
