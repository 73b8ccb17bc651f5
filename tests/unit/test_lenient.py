"""What cannot be read: refused with its place; with ``strict=False`` (--lenient) undecided in its place, and counted.

A policy that cannot be read never widens what is allowed: behind the broken rule stands one that allows everything.
"""

from __future__ import annotations

import re

import pytest

from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.registry import IMPORTERS
from meshsieve.policy import ImportOptions, SourceFile

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, labels: {app: db}}
status: {podIP: 10.0.0.2}
"""
ALLOWED = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}
"""


def network_policy(spec: str) -> tuple[str, str]:
    head = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
    return "kubernetes", f"{PODS}{head}spec: {spec}\n"


def admin_policy(spec: str) -> tuple[str, str]:
    head = "---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}\n"
    return "kubernetes", f"{PODS}{head}spec: {spec}\n"


def iptables(rule: str) -> tuple[str, str]:
    return "iptables", f"*filter\n:FORWARD ACCEPT [0:0]\n{rule}\n-A FORWARD -j ACCEPT\nCOMMIT\n"


def nft(rule: str) -> tuple[str, str]:
    return "nft", f"table inet t {{\nchain f {{\ntype filter hook forward priority 0\n{rule}\naccept\n}}\n}}\n"


CASES = [
    ("an unknown field", network_policy("{podSelector: {}, foo: 1, policyTypes: [Ingress]}"), "foo: unknown field"),
    ("an unknown peer", network_policy("{podSelector: {}, ingress: [{from: [{podSelectr: {}}]}]}"), "podSelectr"),
    ("an unknown operator",
     network_policy("{podSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}}"), "got 'Is'"),
    ("an unknown type", network_policy("{podSelector: {}, policyTypes: [Inside]}"), "got 'Inside'"),
    ("an inverted range", network_policy("{podSelector: {}, ingress: [{ports: [{port: 90, endPort: 80}]}]}"),
     "80 is below port 90"),
    ("a prefix that is none", network_policy("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}"),
     "is not a CIDR"),
    ("an unknown action",
     admin_policy("{priority: 1, subject: {namespaces: {}}, ingress: [{action: Permit, from: [{namespaces: {}}]}]}"),
     "got 'Permit'"),
    ("a priority out of range",
     admin_policy("{priority: 9999, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"),
     "9999 is outside"),
    ("an empty list of peers",
     admin_policy("{priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: []}]}"), "least one peer"),
    ("an unknown match", iptables("-A FORWARD -m foo --bar 1 -j DROP"), "cannot be interpreted"),
    ("an unknown target", iptables("-A FORWARD -j TELEPORT"), "no known target"),
    ("a port past the last", iptables("-A FORWARD -p tcp --dport 70000 -j DROP"), "'70000' is not a port"),
    ("a broken address", iptables("-A FORWARD -s 10.0.0.300 -j DROP"), "is not an IPv4 address"),
    ("an unknown state", iptables("-A FORWARD -m state --state OLD -j DROP"), "not a connection state"),
    ("an unknown expression", nft("frob 1 drop"), "begins no match"),
    ("a port past the last", nft("tcp dport 70000 drop"), "beyond 65535"),
    ("an inverted range", nft("tcp dport 90-80 drop"), "ends before it starts"),
    ("a match on what nobody knows", nft("meta skuid 0 drop"), "cannot be interpreted"),
]  # fmt: skip
IDS = [f"{form}: {what}" for what, (form, _), _ in CASES]


@pytest.mark.parametrize(("what", "policy", "says"), CASES, ids=IDS)
def test_refused_or_undecided(what: str, policy: tuple[str, str], says: str) -> None:
    form, text = policy
    importer, source = IMPORTERS[form], SourceFile("file", text)
    with pytest.raises(PolicyError, match=re.escape(says)) as caught:
        importer.load([source], ImportOptions())
    assert re.match(r"file:\d+", caught.value.where)
    result = importer.load([source], ImportOptions(strict=False))
    assert len(result.unsupported) == 1
    assert Engine(result.layers).explain("tcp 10.0.0.2:40000 > 10.0.0.1:80").action == "UNDECIDED"


def test_what_another_network_policy_allows_passes_beside_one_that_cannot_be_read() -> None:
    """Policies only add."""
    _, text = network_policy("{podSelector: {}, foo: 1, policyTypes: [Ingress]}")
    result = IMPORTERS["kubernetes"].load([SourceFile("file", text + ALLOWED)], ImportOptions(strict=False))
    engine = Engine(result.layers)
    assert engine.explain("tcp 10.0.0.9:40000 > 10.0.0.1:80").action == "ALLOW"
    assert engine.explain("tcp 10.0.0.9:40000 > 10.0.0.1:81").action == "UNDECIDED"


def test_bits_below_a_mask_are_told() -> None:
    _, text = iptables("-A FORWARD -s 10.0.0.5/24 -j DROP")
    (found,) = [
        d for d in IMPORTERS["iptables"].load([SourceFile("file", text)], ImportOptions()).diagnostics
        if d.code == "host-bits"
    ]  # fmt: skip
    assert found.where == "file:3:12"
    assert "10.0.0.0/24" in found.message
