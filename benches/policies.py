"""``python -m benches.policies [dfw|connectivity|marks ...]``: large policies of people, imported, compiled, answered.

dfw           an NSX dump of 10,000 rules over 5,000 groups and 5,000 machines: import and compile. Wanted: below 5 s
connectivity  a cluster of 1,000 pods under 500 NetworkPolicies: who may reach whom, all pairs. Wanted: below 10 s
marks         iptables as Calico writes them for 100 workloads, whose chains decide by the marks that they set

Each runs in a process of its own: wall and CPU seconds, growth of the resident set, and what came out (so that nothing
is skipped unseen). Seeds are fixed.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from meshsieve.connectivity import connectivity
from meshsieve.decision import DecisionTables
from meshsieve.importers.registry import IMPORTERS
from meshsieve.policy import ImportOptions, ImportResult, SourceFile

Json = dict[str, Any]


def dfw_dump(rules: int = 10_000, groups: int = 5_000, machines: int = 5_000) -> str:
    draw = random.Random(5)
    vms: list[Json] = [
        {"external_id": f"vm-{i}", "display_name": f"vm-{i}", "tags": [{"scope": "app", "tag": f"t{i % groups}"}]}
        for i in range(machines)
    ]
    vifs = [
        {"external_id": f"vif-{i}", "owner_vm_id": f"vm-{i}", "lport_attachment_id": f"at-{i}",
         "ip_address_info": [{"ip_addresses": [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"]}]}
        for i in range(machines)
    ]  # fmt: skip

    def group(i: int) -> Json:
        tag = {"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS",
               "value": f"app|t{i}"}  # fmt: skip
        network = f"172.{16 + i % 16}.{i // 16 % 256}.0/24"
        addresses = {"resource_type": "IPAddressExpression", "ip_addresses": [network]}
        joined = {"resource_type": "ConjunctionOperator", "conjunction_operator": "OR"}
        return {"path": f"/infra/domains/default/groups/g{i}", "expression": [tag, joined, addresses]}

    def rule(i: int) -> Json:
        ends = [f"/infra/domains/default/groups/g{draw.randrange(groups)}" for _ in range(4)]
        port = {
            "resource_type": "L4PortSetServiceEntry",
            "l4_protocol": "TCP",
            "destination_ports": [str(1000 + i % 500)],
        }
        return {"path": f"/infra/domains/default/security-policies/p{i // 100}/rules/r{i}", "display_name": f"r{i}",
                "sequence_number": i % 100, "action": draw.choice(["ALLOW", "DROP"]), "source_groups": ends[:2],
                "destination_groups": ends[2:], "service_entries": [port]}  # fmt: skip

    policies = [
        {"path": f"/infra/domains/default/security-policies/p{p}", "category": "Application", "sequence_number": p,
         "rules": [rule(i) for i in range(p * 100, p * 100 + 100)]}
        for p in range(rules // 100)
    ]  # fmt: skip
    resources = {"security_policies": policies, "groups": [group(i) for i in range(groups)]}
    domains = [{"display_name": "default", "resources": resources}]
    return json.dumps({"virtual_machines": vms, "virtual_network_interface": vifs, "domains": domains})


def cluster(pods: int = 1_000, policies: int = 500) -> str:
    draw = random.Random(7)
    items: list[Json] = [
        {"apiVersion": "v1", "kind": "Pod",
         "metadata": {"name": f"p{i}", "namespace": f"ns{i % 20}", "labels": {"app": f"a{i % 100}"}},
         "status": {"podIP": f"10.{1 + (i >> 8)}.0.{i & 255}"}}
        for i in range(pods)
    ]  # fmt: skip
    for i in range(policies):
        peers: list[Json] = [
            {"podSelector": {"matchLabels": {"app": f"a{draw.randrange(100)}"}}, "namespaceSelector": {}},
            {"ipBlock": {"cidr": f"192.{draw.randrange(256)}.0.0/16"}},
        ]
        ports = [{"port": draw.choice([80, 443, 8080, 5432]), "protocol": "TCP"}]
        items.append({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": f"np{i}", "namespace": f"ns{i % 20}"},
            "spec": {"podSelector": {"matchLabels": {"app": f"a{draw.randrange(100)}"}}, "policyTypes": ["Ingress"],
                     "ingress": [{"from": peers, "ports": ports}]},
        })  # fmt: skip
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def marking_chains(workloads: int = 100, policies: int = 20) -> str:
    """Every workload has a chain that calls its policies, which set 0x10000 to allow, and drops what none allowed."""
    accept = "-m mark --mark 0x10000/0x10000"
    heads = [":FORWARD ACCEPT [0:0]", ":dispatch - [0:0]"]
    lines = ["-A FORWARD -j dispatch", f"-A FORWARD {accept} -j ACCEPT"]
    for w in range(workloads):
        heads.append(f":tw-{w} - [0:0]")
        lines += [f"-A dispatch -o cali{w} -g tw-{w}", f"-A tw-{w} -j MARK --set-xmark 0x0/0x30000"]
        for p in range(w % 3, w % 3 + 3):
            lines += [f"-A tw-{w} -m mark --mark 0x0/0x20000 -j pi-{p % policies}", f"-A tw-{w} {accept} -j RETURN"]
        lines.append(f"-A tw-{w} -j DROP")
    for p in range(policies):
        heads.append(f":pi-{p} - [0:0]")
        for port in range(4):
            match = f"-s 10.{p}.{port}.0/24 -p tcp -m tcp --dport {8000 + port}"
            lines += [f"-A pi-{p} {match} -j MARK --set-xmark 0x10000/0x10000", f"-A pi-{p} {accept} -j RETURN"]
    return "\n".join(["*filter", *heads, *lines, "COMMIT", ""])


def _imported(form: str, text: str) -> ImportResult:
    return IMPORTERS[form].load([SourceFile("generated", text)], ImportOptions())


def _compiled(form: str, text: str) -> str:
    tables = DecisionTables(_imported(form, text).layers)
    return f"{sum(len(t.point.rules) for t in tables.points)} rules in {len(tables.points)} lists"


def _reached(text: str) -> str:
    pairs = open_pairs = 0
    for reach in connectivity(_imported("kubernetes", text).layers):
        pairs += 1
        open_pairs += bool(reach.allowed)
    return f"{pairs} pairs, {open_pairs} of them with some connection"


CASES: dict[str, tuple[Callable[[], str], Callable[[str], str]]] = {
    "dfw": (dfw_dump, lambda text: _compiled("nsx", text)),
    "connectivity": (cluster, _reached),
    "marks": (marking_chains, lambda text: _compiled("iptables", text)),
}


def measure(name: str) -> str:
    made, answered = CASES[name]
    text = made()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    found = answered(text)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    return f"{name:13} {wall:6.2f} s wall  {cpu:6.2f} s CPU  {grown:4} MB more  {len(text) / 1e6:5.1f} MB read  {found}"


def main(names: list[str]) -> int:
    if unknown := set(names) - CASES.keys():
        print(f"no case is called {', '.join(sorted(unknown))}; cases: {', '.join(CASES)}", file=sys.stderr)
        return 2
    if len(names) == 1:
        print(measure(names[0]))
        return 0
    return max(subprocess.run([sys.executable, "-m", "benches.policies", name]).returncode for name in names or CASES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
