"""The tiers of Kubernetes policy as one layer: egress at the sender's pod, ingress at the receiver's.

    services          translated to their pods first (services.py)
    a pod to itself   ALLOW
    the pod's node    ALLOW (ingress; option)
    Admin tier        AdminNetworkPolicy, ClusterNetworkPolicy tier Admin, by priority
    NetworkPolicy     allow rules, then a denial for every isolated pod
    Baseline tier     BaselineAdminNetworkPolicy, ClusterNetworkPolicy tier Baseline
    no match          allowed

One rule list a direction; Pass is a skip to the end of its tier, and the pods a policy is for are a set of vNICs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes import admin_policy, network_policy
from meshsieve.importers.kubernetes.cluster import Cluster, read_cluster
from meshsieve.importers.kubernetes.selectors import PodSelection, address_set
from meshsieve.importers.kubernetes.services import service_points
from meshsieve.importers.typed import Node
from meshsieve.model import Action, Rule, RuleSet, Source, ValueSet
from meshsieve.policy import Diagnostic, ImportOptions, ImportResult, Layer, Point, SourceFile, Verdict

_API_VERSION = re.compile(r"""^[\s"'{-]{0,64}apiVersion["']?\s{0,8}:""", re.MULTILINE)
OUT, IN = 1, 2


class KubernetesImporter:
    name = "kubernetes"
    description = "NetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy with their pods"

    def sniff(self, source: SourceFile) -> bool:
        return _API_VERSION.search(source.text[: 2**20]) is not None

    def load(self, sources: Sequence[SourceFile], options: ImportOptions) -> ImportResult:
        return build(read_cluster(sources), options)


def build(cluster: Cluster, options: ImportOptions) -> ImportResult:
    """The layer of a cluster, and findings.

    raises  PolicyError with file:line:column where a policy is invalid
    """
    selection = PodSelection(cluster, options.host_network_pods)
    unread = {} if options.strict else _unreadable(cluster, options)
    readable = [p for p in cluster.policies if id(p) not in unread]
    policies = [
        network_policy.read_policy(p, selection) for p in readable if p.required_text("kind") == "NetworkPolicy"
    ]
    tiers = [admin_policy.read_policy(p, selection) for p in readable if p.required_text("kind") != "NetworkPolicy"]
    admin_policy.check_single_baseline(tiers)
    of_pods = [_undecided(p, unread[id(p)], cluster) for p in _kept(cluster, unread, network=True)]
    of_tier: dict[str, list[tuple[int, Rule]]] = {"Admin": [], "Baseline": []}
    for policy in _kept(cluster, unread, network=False):
        tier, priority = admin_policy.place_of(policy)
        of_tier[tier].append((priority, _undecided(policy, unread[id(policy)], cluster)))

    def rule_list(direction: str) -> RuleSet:
        admin, baseline = (
            admin_policy.tier_rules([p for p in tiers if p.tier == tier], direction, selection, of_tier[tier])
            for tier in ("Admin", "Baseline")
        )
        pods = network_policy.tier_rules(policies, direction, selection, of_pods)
        rules = _always_allowed(cluster, direction, options)
        for tier in (admin, pods, baseline):
            end = len(rules) + len(tier)
            rules += [replace(rule, skip_to=end) if rule.action == Action.SKIP else rule for rule in tier]
        made = RuleSet(rules)
        if "fqdn" in made.fields:
            made.names["fqdn"] = selection.domains
        return made

    points = (
        *service_points(cluster),
        Point("egress", rule_list("Egress"), Verdict.ALLOW, {"direction": OUT}, "src"),
        Point("ingress", rule_list("Ingress"), Verdict.ALLOW, {"direction": IN}, "dst"),
    )
    layer = Layer("kubernetes", points, cluster.inventory())
    unsupported = [Diagnostic("unsupported", e.message, e.where, e.obj, e.hint) for e in unread.values()]
    return ImportResult((layer,), (*unsupported, *selection.findings, *_diagnostics(cluster, tiers)))


def _unreadable(cluster: Cluster, options: ImportOptions) -> dict[int, PolicyError]:
    """What a lenient import cannot read, by the policy's id: the first error of each."""
    out: dict[int, PolicyError] = {}
    for policy in cluster.policies:
        selection = PodSelection(cluster, options.host_network_pods)
        try:
            for direction in network_policy.DIRECTIONS:
                if policy.required_text("kind") == "NetworkPolicy":
                    network_policy.tier_rules([network_policy.read_policy(policy, selection)], direction, selection)
                else:
                    read = admin_policy.read_policy(policy, selection)
                    admin_policy.tier_rules([read], direction, selection)
        except PolicyError as error:
            out[id(policy)] = error
    return out


def _kept(cluster: Cluster, unread: dict[int, PolicyError], *, network: bool) -> list[Node]:
    found = [p for p in cluster.policies if id(p) in unread]
    return [p for p in found if (p.data.get("kind") == "NetworkPolicy") == network]


def _undecided(policy: Node, error: PolicyError, cluster: Cluster) -> Rule:
    """What stands in the place of a policy that cannot be read: it may hold for every pod of its namespace, and one of
    the cluster for every pod."""
    metadata = policy.node("metadata")
    namespace = (metadata.text("namespace") if metadata else None) or "default"
    everywhere = policy.data.get("kind") != "NetworkPolicy"
    pods = [i for i, pod in enumerate(cluster.pods) if everywhere or pod.namespace == namespace]
    source = Source(policy.data.file, policy.data.position[0], policy.obj)
    return Rule(
        {"vnic": ValueSet.numbers(*pods)}, Action.UNDECIDED, name=policy.obj, source=source, unknown=(error.message,)
    )


def _always_allowed(cluster: Cluster, direction: str, options: ImportOptions) -> list[Rule]:
    peer = "src_ip" if direction == "Ingress" else "dst_ip"
    rules = [
        Rule(
            {"vnic": ValueSet.numbers(i), peer: address_set(list(pod.addresses))},
            name="a pod reaches itself",
            source=Source(obj=f"Pod {pod.namespace}/{pod.name}"),
        )
        for i, pod in enumerate(cluster.pods)
        if pod.addresses
    ]
    if direction == "Ingress" and options.allow_local_node:
        homes: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for i, pod in enumerate(cluster.pods):
            if pod.host_addresses:
                homes.setdefault(pod.host_addresses, []).append(i)
        rules += [
            Rule({"vnic": ValueSet.numbers(*pods), peer: address_set(list(home))}, name="from the pod's own node")
            for home, pods in homes.items()
        ]
    return rules


def _diagnostics(cluster: Cluster, tiers: list[admin_policy.TierPolicy]) -> list[Diagnostic]:
    out = [
        Diagnostic("ignored-kind", f"{count} object(s) of kind {kind} take no part in L4 policy", level="note")
        for kind, count in sorted(cluster.ignored.items())
    ]
    without = [p for p in cluster.pods if not p.addresses]
    if without:
        out.append(
            Diagnostic(
                "pod-without-address",
                f"{len(without)} pod(s) or workload(s) have no address, so no packet is traced to them",
                where=without[0].where,
                obj=f"{without[0].namespace}/{without[0].name}",
                hint="export running pods with: kubectl get pods -A -o json",
            )
        )
    for first, second in admin_policy.ambiguous_priorities(tiers):
        out.append(
            Diagnostic(
                "same-priority-overlap",
                f"{first.source_name} and {second.source_name} share priority {first.priority} and pods; "
                "their order is undefined, here by name",
                where=second.spec.data.where("priority"),
                hint="give them different priorities",
            )
        )
    return out
