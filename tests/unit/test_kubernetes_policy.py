"""Kubernetes policies where no fact of the data set exists: each case shows one sentence of the API's definition.

The cluster: pods web (10.0.0.1, names port 8080 "http"), db (10.0.0.2) and dev/shell (10.0.1.1), whose namespace is
labelled team=dev; 192.0.2.9 is outside.
"""

from __future__ import annotations

import ipaddress

import pytest

from meshsieve.columns import PacketColumns
from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.kubernetes.cluster import read_cluster
from meshsieve.importers.kubernetes.importer import KubernetesImporter, build
from meshsieve.policy import ImportOptions, SourceFile
from tests.conformance.policies.k8s_judge import Judge

CLUSTER = """
apiVersion: v1
kind: Namespace
metadata: {name: dev, labels: {team: dev}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web, tier: front}}
spec: {containers: [{ports: [{name: http, containerPort: 8080}, {protocol: TCP}]}]}
status: {podIP: 10.0.0.1, hostIP: 172.16.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shell, namespace: dev}
status: {podIP: 10.0.1.1}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {role: edge}}
status: {addresses: [{type: InternalIP, address: 172.16.0.1}, {type: Hostname, address: n1}]}
---
"""
ADDRESSES = {"web": "10.0.0.1", "db": "10.0.0.2", "shell": "10.0.1.1", "outside": "192.0.2.9", "node": "172.16.0.1"}


def network_policy(spec: str, name: str = "p") -> str:
    head = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n"


def admin(spec: str, name: str = "a", kind: str = "AdminNetworkPolicy") -> str:
    head = f"---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: {kind}\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n"


def cnp(spec: str, name: str = "c") -> str:
    return admin(spec, name, "ClusterNetworkPolicy").replace("v1alpha1", "v1alpha2")


def judge(policies: str) -> Judge:
    return Judge(read_cluster([SourceFile("cluster.yaml", CLUSTER + policies)]))


WEB = "podSelector: {matchLabels: {app: web}}"
DENY_WEB = network_policy(f"{{{WEB}}}", "deny")
ALL_SUBJECT = "subject: {namespaces: {}}"
FROM_DEV = "from: [{namespaces: {matchLabels: {team: dev}}}]"

# (what it shows, policies, source, destination, protocol, port, allowed)
CASES = [
    ("no policy: everything is allowed", "", "outside", "web", "TCP", 80, True),
    ("a policy isolates the pods that it selects", DENY_WEB, "db", "web", "TCP", 80, False),
    ("and no others", DENY_WEB, "web", "db", "TCP", 80, True),
    ("a pod always reaches itself", DENY_WEB, "web", "web", "TCP", 80, True),
    (
        "policyTypes defaults to Ingress where egress has no rules",
        network_policy(f"{{{WEB}, egress: []}}"),
        "web", "db", "TCP", 80, True,
    ),
    (
        "and to both where it has one",
        network_policy(f"{{{WEB}, egress: [{{to: [{{podSelector: {{matchLabels: {{app: db}}}}}}]}}]}}"),
        "web", "shell", "TCP", 80, False,
    ),
    (
        "an empty rule allows everything",
        network_policy(f"{{{WEB}, ingress: [{{}}]}}"),
        "outside", "web", "UDP", 9, True,
    ),
    (
        "an empty from is any source",
        network_policy(f"{{{WEB}, ingress: [{{from: []}}]}}"),
        "outside", "web", "UDP", 9, True,
    ),
    (
        "a podSelector alone means pods of the policy's own namespace",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{podSelector: {{}}}}]}}]}}"),
        "shell", "web", "TCP", 80, False,
    ),
    (
        "a namespaceSelector alone means all pods of those namespaces",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: dev}}}}}}]}}]}}"),
        "shell", "web", "TCP", 80, True,
    ),
    (
        "NotIn is true where the label is absent",
        network_policy(
            "{podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}, ingress: []}"
        ),
        "web", "db", "TCP", 80, False,
    ),
    (
        "DoesNotExist leaves out pods that have the label",
        network_policy("{podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}, ingress: []}"),
        "db", "web", "TCP", 80, True,
    ),
    (
        "Exists selects them",
        network_policy("{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}, ingress: []}"),
        "db", "web", "TCP", 80, False,
    ),
    (
        "an exception is cut out of its block",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{ipBlock: {{cidr: 192.0.2.0/24, except: [192.0.2.8/30]}}}}]}}]"
                       "}"),
        "outside", "web", "TCP", 80, False,
    ),
    (
        "an ipBlock covers the addresses of pods as well",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/24}}}}]}}]}}"),
        "db", "web", "TCP", 80, True,
    ),
    (
        "a port without protocol is TCP",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: 53}}]}}]}}"),
        "db", "web", "UDP", 53, False,
    ),
    (
        "a protocol without port is all its ports",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{protocol: UDP}}]}}]}}"),
        "db", "web", "UDP", 53, True,
    ),
    (
        "endPort is included",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: 80, endPort: 90}}]}}]}}"),
        "db", "web", "TCP", 90, True,
    ),
    (
        "a rule with ports never matches ICMP",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: 80}}]}}]}}"),
        "db", "web", "ICMP", 0, False,
    ),
    (
        "a rule without ports does",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{podSelector: {{}}}}]}}]}}"),
        "db", "web", "ICMP", 0, True,
    ),
    (
        "a port name is the number that the destination pod gives it",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: http}}]}}]}}"),
        "db", "web", "TCP", 8080, True,
    ),
    (
        "a port name that the destination lacks allows nothing",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: other}}]}}]}}"),
        "db", "web", "TCP", 8080, False,
    ),
    (
        "policies only add",
        DENY_WEB + network_policy(f"{{{WEB}, ingress: [{{}}]}}", "allow"),
        "db", "web", "TCP", 80, True,
    ),
    (
        "the Admin tier decides before NetworkPolicy",
        DENY_WEB + admin(f"{{priority: 5, {ALL_SUBJECT}, ingress: [{{action: Allow, {FROM_DEV}}}]}}"),
        "shell", "web", "TCP", 80, True,
    ),
    (
        "Pass leaves the tier for NetworkPolicy",
        DENY_WEB
        + admin(
            f"{{priority: 5, {ALL_SUBJECT}, ingress: [{{action: Pass, {FROM_DEV}}}, {{action: Allow, {FROM_DEV}}}]}}"
        ),
        "shell", "web", "TCP", 80, False,
    ),
    (
        "a lower priority number comes first",
        admin(f"{{priority: 9, {ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}}}]}}", "late")
        + admin(f"{{priority: 1, {ALL_SUBJECT}, ingress: [{{action: Allow, {FROM_DEV}}}]}}", "soon"),
        "shell", "web", "TCP", 80, True,
    ),
    (
        "equal priorities are taken by name",
        admin(f"{{priority: 1, {ALL_SUBJECT}, ingress: [{{action: Allow, {FROM_DEV}}}]}}", "b")
        + admin(f"{{priority: 1, {ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}}}]}}", "a"),
        "shell", "web", "TCP", 80, False,
    ),
    (
        "the Baseline tier decides where no NetworkPolicy isolates",
        admin(f"{{{ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}}}]}}", "default", "BaselineAdminNetworkPolicy"),
        "shell", "web", "TCP", 80, False,
    ),
    (
        "but not where one does",
        network_policy(f"{{{WEB}, ingress: [{{}}]}}")
        + admin(f"{{{ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}}}]}}", "default", "BaselineAdminNetworkPolicy"),
        "shell", "web", "TCP", 80, True,
    ),
    (
        "networks of an egress peer match all traffic to them, ICMP too",
        admin(f"{{priority: 1, {ALL_SUBJECT}, egress: [{{action: Deny, to: [{{networks: [192.0.2.0/24]}}]}}]}}"),
        "web", "outside", "ICMP", 0, False,
    ),
    (
        "nodes of an egress peer are node addresses",
        admin(
            f"{{priority: 1, {ALL_SUBJECT}, egress: "
            "[{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}]}"
        ),
        "db", "node", "TCP", 80, False,
    ),
    (
        "a ClusterNetworkPolicy of tier Baseline gives way to NetworkPolicy",
        cnp(f"{{tier: Baseline, priority: 1, {ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}}}]}}")
        + network_policy(f"{{{WEB}, ingress: [{{}}]}}"),
        "shell", "web", "TCP", 80, True,
    ),
    (
        "a ClusterNetworkPolicy names protocols and port ranges",
        cnp(
            f"{{tier: Admin, priority: 1, {ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}, protocols: "
            "[{tcp: {destinationPort: {range: {start: 80, end: 90}}}}]}]}"
        ),
        "shell", "web", "TCP", 90, False,
    ),
    (
        "and leaves other protocols alone",
        cnp(
            f"{{tier: Admin, priority: 1, {ALL_SUBJECT}, ingress: [{{action: Deny, {FROM_DEV}, protocols: "
            "[{tcp: {destinationPort: {range: {start: 80, end: 90}}}}]}]}"
        ),
        "shell", "web", "UDP", 90, True,
    ),
    (
        "an unknown kind of peer denies where the rule is a denial",
        cnp(f"{{tier: Admin, priority: 1, {ALL_SUBJECT}, ingress: [{{action: Deny, from: [{{galaxies: {{}}}}]}}]}}"),
        "outside", "web", "TCP", 80, False,
    ),
    (
        "and matches nothing where it accepts",
        DENY_WEB
        + cnp(f"{{tier: Admin, priority: 1, {ALL_SUBJECT}, "
              "ingress: [{action: Accept, from: [{galaxies: {}}]}]}"),
        "outside", "web", "TCP", 80, False,
    ),
]  # fmt: skip
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132, "ICMP": 1}


@pytest.mark.parametrize(
    ("what", "policies", "src", "dst", "proto", "port", "allowed"), CASES, ids=[row[0] for row in CASES]
)
def test_verdict(what: str, policies: str, src: str, dst: str, proto: str, port: int, allowed: bool) -> None:
    source, destination = (int(ipaddress.IPv4Address(ADDRESSES[end])) for end in (src, dst))
    assert judge(policies).allowed([(source, destination, NUMBERS[proto], port)]) == [allowed]


def test_a_pod_accepts_its_own_node_unless_told_otherwise() -> None:
    cluster = read_cluster([SourceFile("c.yaml", CLUSTER + DENY_WEB)])
    names = [[rule.name for rule in build(cluster, options).layers[0].points[1].rules] for options in
             (ImportOptions(), ImportOptions(allow_local_node=False))]  # fmt: skip
    assert ["from the pod's own node" in listed for listed in names] == [True, False]


def test_rules_lead_back_to_their_line() -> None:
    policy = SourceFile("c.yaml", network_policy(f"{{{WEB}, ingress: [{{}}]}}"))
    cluster = read_cluster([policy, SourceFile("d.yaml", CLUSTER)])
    rules = build(cluster, ImportOptions()).layers[0].points[1].rules
    allow = next(rule for rule in rules if rule.name == "default/p ingress #1")
    assert (allow.source.file, allow.source.line, allow.source.obj) == ("c.yaml", 5, "NetworkPolicy default/p")


REFUSED = [
    ("an unknown field", network_policy(f"{{{WEB}, ingres: []}}"), "spec.ingres: unknown field"),
    ("a peer without any field", network_policy(f"{{{WEB}, ingress: [{{from: [{{}}]}}]}}"), "neither ipBlock nor"),
    (
        "endPort below port",
        network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: 9, endPort: 8}}]}}]}}"),
        "is below port",
    ),
    ("a port out of range", network_policy(f"{{{WEB}, ingress: [{{ports: [{{port: 65536}}]}}]}}"), "outside 1..65535"),
    (
        "an address for a CIDR",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.1}}}}]}}]}}"),
        "CIDR",
    ),
    (
        "an exception outside its block",
        network_policy(f"{{{WEB}, ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/24, except: [10.1.0.0/24]}}}}]}}]}}"),
        "lies outside the cidr",
    ),
    ("a label that is no text", network_policy("{podSelector: {matchLabels: {app: yes}}}"), "quote the value"),
    (
        "an empty list of peers",
        admin(f"{{priority: 1, {ALL_SUBJECT}, ingress: [{{action: Deny, from: []}}]}}"),
        "at least one",
    ),
    (
        "an unknown action",
        admin(f"{{priority: 1, {ALL_SUBJECT}, ingress: [{{action: Drop, {FROM_DEV}}}]}}"),
        "Allow, Deny, Pass",
    ),
    ("a priority out of range", admin(f"{{priority: 1001, {ALL_SUBJECT}}}"), "outside 0..1000"),
    ("a policy defined twice", network_policy(f"{{{WEB}}}") * 2, "defined twice"),
    (
        "a domain name with an empty label",
        admin(f"{{priority: 1, {ALL_SUBJECT}, egress: [{{action: Allow, to: [{{domainNames: [a..example]}}]}}]}}"),
        "is no domain name",
    ),
    (
        "a denial of domain names",
        admin(f"{{priority: 1, {ALL_SUBJECT}, egress: [{{action: Deny, to: [{{domainNames: [a.example]}}]}}]}}"),
        "only Allow and Accept rules may name domains",
    ),
]


@pytest.mark.parametrize(("what", "policies", "message"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_with_its_place(what: str, policies: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        KubernetesImporter().load([SourceFile("k.yaml", CLUSTER + policies)], ImportOptions())
    assert message in str(caught.value)
    assert str(caught.value).startswith("k.yaml:")


NO_EGRESS = network_policy("{podSelector: {}, policyTypes: [Egress]}", "no-egress")
DOMAINS = [
    ("a name", "a.example", "fqdn a.example", "ALLOW"),
    ("in any case", "A.Example", "fqdn a.EXAMPLE", "ALLOW"),
    ("another name", "a.example", "fqdn b.example", "DROP"),
    ("no name at all", "a.example", "fqdn ''", "DROP"),
    ("*.x.y = one extra label", "'*.example.com'", "fqdn a.example.com", "ALLOW"),
    ("*.x.y = more extra labels", "'*.example.com'", "fqdn a.b.example.com", "ALLOW"),
    ("*.x.y = not x.y itself", "'*.example.com'", "fqdn example.com", "DROP"),
    ("*.x.y = no name that only ends so", "'*.example.com'", "fqdn badexample.com", "DROP"),
    ("a name that is not known yet", "a.example", "", "PENDING"),
]


@pytest.mark.parametrize(("sentence", "name", "known", "expected"), DOMAINS, ids=[row[0] for row in DOMAINS])
def test_domain_names(sentence: str, name: str, known: str, expected: str) -> None:
    allow = admin(f"{{priority: 1, {ALL_SUBJECT}, egress: [{{action: Allow, to: [{{domainNames: [{name}]}}]}}]}}")
    result = KubernetesImporter().load([SourceFile("k.yaml", CLUSTER + NO_EGRESS + allow)], ImportOptions())
    assert Engine(result.layers).explain(f"tcp 10.0.0.1:1 > 192.0.2.9:443 {known}").action == expected


FINDINGS = [
    (
        "host bits are masked and reported",
        admin(f"{{priority: 1, {ALL_SUBJECT}, egress: [{{action: Deny, to: [{{networks: [10.0.0.9/24]}}]}}]}}"),
        "host-bits",
    ),
    (
        "equal priorities over the same pods",
        admin(f"{{priority: 1, {ALL_SUBJECT}}}", "x1") + admin(f"{{priority: 1, {ALL_SUBJECT}}}", "x2"),
        "same-priority-overlap",
    ),
    ("other kinds are counted", "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: s}\n", "ignored-kind"),
    (
        "a workload without address",
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"
        "spec: {template: {metadata: {labels: {app: d}}}}\n",
        "pod-without-address",
    ),
]


@pytest.mark.parametrize(("what", "extra", "code"), FINDINGS, ids=[row[0] for row in FINDINGS])
def test_findings(what: str, extra: str, code: str) -> None:
    result = KubernetesImporter().load([SourceFile("k.yaml", CLUSTER + extra)], ImportOptions())
    assert [d.code for d in result.diagnostics if d.code == code]


def test_sniffing_needs_an_api_version() -> None:
    importer = KubernetesImporter()
    assert importer.sniff(SourceFile("a", CLUSTER))
    assert importer.sniff(SourceFile("a", '{"kind": "PodList",\n "apiVersion": "v1"}'))
    assert not importer.sniff(SourceFile("a", '{"resource_type": "Infra"}'))
    assert not importer.sniff(SourceFile("a", "*filter\n:INPUT ACCEPT [0:0]\n"))


def test_ipv6_pods_are_judged_by_their_addresses() -> None:
    pods = CLUSTER.replace("10.0.0.1,", "'2001:db8::1',").replace("10.0.0.2", "'2001:db8::2'")
    layer = build(read_cluster([SourceFile("k.yaml", pods + DENY_WEB)]), ImportOptions()).layers[0]
    packets = PacketColumns({"src_ip": ["2001:db8::2"], "dst_ip": ["2001:db8::1"], "ip_ver": [6], "proto": [6]})
    assert layer.inventory.owners(packets, "dst_ip").tolist() == [0]
