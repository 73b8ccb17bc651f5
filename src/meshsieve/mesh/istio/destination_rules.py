"""DestinationRules: which one holds for a host, which subsets there are, how requests are hashed.

Look-up  the most specific host (exact before the longest wildcard), in the client's namespace, then the service's,
         then the root namespace. Rules of one namespace for one host are merged: subsets are added, the first
         trafficPolicy stays. A rule with a workloadSelector holds for the clients that it selects, before others.
Source: istio/istio pilot/pkg/model (destination_rule, push_context).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshsieve.balance.hash_policy import HashPolicy
from meshsieve.balance.traffic_policy import check_policy, read_policy
from meshsieve.importers.typed import Node
from meshsieve.mesh.istio.model import Destination
from meshsieve.mesh.istio.read_virtual_service import export_to
from meshsieve.mesh.names import HostIndex, full_name, specificity
from meshsieve.mesh.objects import MeshObject


@dataclass(frozen=True, slots=True)
class Subset:
    labels: Mapping[str, str]
    policy: Node | None


@dataclass(frozen=True, slots=True)
class DestinationRule:
    namespace: str
    name: str
    host: str
    export_to: tuple[str, ...]
    selector: Mapping[str, str] | None
    policy: Node | None
    subsets: Mapping[str, Subset]
    object: MeshObject

    def visible(self, client: str) -> bool:
        scopes = self.export_to or ("*",)
        return "*" in scopes or client in scopes or ("." in scopes and client == self.namespace)


class Rules:
    """All rules, oldest first, by namespace and host. selector_labels: labels that tell clients apart."""

    def __init__(self, rules: Iterable[DestinationRule]) -> None:
        rules = list(rules)
        self.selector_labels = frozenset(key for rule in rules for key in rule.selector or ())
        by_namespace: dict[str, list[tuple[str, DestinationRule]]] = {}
        for rule in rules:
            by_namespace.setdefault(rule.namespace, []).append((rule.host, rule))
        self._by_host = {namespace: HostIndex(own) for namespace, own in by_namespace.items()}

    def find(self, host: str, client: str, labels: Mapping[str, str], home: str, root: str) -> DestinationRule | None:
        """The rule for ``host`` (of a service in namespace ``home``) as a client with these labels sees it."""
        for namespace in dict.fromkeys((client, home, root)):
            own = self._by_host.get(namespace)
            here = [r for r in own.covering(host) if r.visible(client)] if own is not None else []
            # A selector is about workloads of the rule's own namespace.
            selecting = [
                r for r in here if r.selector is not None and namespace == client and _fits(r.selector, labels)
            ]
            here = selecting or [r for r in here if r.selector is None]
            if here:
                best = max((r.host for r in here), key=specificity)
                return _merged([r for r in here if r.host == best])
        return None


def hash_policy(rule: DestinationRule | None, to: Destination) -> tuple[HashPolicy, ...]:
    """How the destination's requests are hashed: by its subset's policy for the port, the subset's, the rule's for the
    port, or the rule's; () where none says consistentHash."""
    if rule is None:
        return ()
    subset = rule.subsets.get(to.subset)
    candidates = []
    for policy in (subset.policy if subset else None, rule.policy):
        if policy is not None:
            candidates += [_port_balancer(policy, to.port), policy.node("loadBalancer")]
    for balancer in candidates:
        if balancer is not None and balancer.node("consistentHash") is not None:
            return (read_policy({"loadBalancer": balancer}).hash_policy,)
    return ()


def _port_balancer(policy: Node, port: int | None) -> Node | None:
    for entry in policy.nodes("portLevelSettings") or []:
        number = entry.node("port")
        if port is not None and number is not None and number.integer("number", 1, 65535) == port:
            return entry.node("loadBalancer")
    return None


def _fits(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _merged(rules: list[DestinationRule]) -> DestinationRule:
    first = rules[0]
    subsets: dict[str, Subset] = {}
    for rule in rules:
        for name, subset in rule.subsets.items():
            subsets.setdefault(name, subset)
    policy = next((r.policy for r in rules if r.policy is not None), None)
    return DestinationRule(
        first.namespace, first.name, first.host, first.export_to, first.selector, policy, subsets, first.object
    )


def read_destination_rule(found: MeshObject, domain: str) -> DestinationRule:
    """raises  PolicyError with file:line:column for what Istio refuses"""
    spec = found.spec.only("host", "trafficPolicy", "subsets", "exportTo", "workloadSelector")
    selector = spec.node("workloadSelector")
    check_policy(spec.node("trafficPolicy"))
    subsets: dict[str, Subset] = {}
    for entry in spec.nodes("subsets") or []:
        entry.only("name", "labels", "trafficPolicy")
        name = entry.required_text("name")
        if name in subsets:
            raise entry.error(f"subset {name} is defined twice", "name")
        check_policy(entry.node("trafficPolicy"))
        subsets[name] = Subset(entry.text_map("labels"), entry.node("trafficPolicy"))
    return DestinationRule(
        found.namespace,
        found.name,
        full_name(spec.required_text("host"), found.namespace, domain).lower(),
        export_to(spec),
        selector.only("matchLabels").text_map("matchLabels") if selector else None,
        spec.node("trafficPolicy"),
        subsets,
        found,
    )
