"""Meshes and requests for ``python -m benches engine``, made from their facts alone in every process.

What     Services with ten routes each, a server pod a service, client pods with sidecars, one gateway, policies spread
         over the servers, strict mTLS; and a distributed firewall under it that has every pod's machine.
         ``requests`` draws calls between pods (three in four) and calls from outside through the gateway.
Hosts    "shared": the names of the services. "own": every call through the gateway has a host that no other has, under
         the gateway's wildcard, and every call between pods one that no Service has, so that it passes through.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

ROUTES_A_SERVICE = 10
CLIENTS = 20
FIREWALL_RULES = 1_000
METHODS = ("GET", "POST", "PUT", "DELETE")


@dataclass(frozen=True)
class Mesh:
    routes: int
    policies: int
    seed: int = 1

    @property
    def services(self) -> int:
        return max(1, self.routes // ROUTES_A_SERVICE)

    def objects(self) -> str:
        """Kubernetes and Istio objects as a JSON list."""
        items = [_namespace(name) for name in ("shop", "edge")]
        items += [_pod("edge", "gateway", _address(2, 0), {"app": "gateway"})]
        items += [_pod("shop", f"client-{i}", _address(1, i), {"app": f"client-{i}"}) for i in range(CLIENTS)]
        for i in range(self.services):
            items += [_pod("shop", f"svc-{i}", _address(3, i), {"app": f"svc-{i}"}), _service(i)]
        items += [_virtual_service(i) for i in range(self.services)]
        items += [_gateway(), _tenants(), _peer_authentication()]
        rng = random.Random(self.seed)
        items += [_policy(i, i % self.services, rng) for i in range(self.policies)]
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})

    def firewall(self) -> str:
        """NSX configuration: a machine a pod, rules between groups of them and ranges outside."""
        pods = ["10.2.0.1", *(_address(1, i) for i in range(CLIENTS)), *(_address(3, i) for i in range(self.services))]
        return nsx(["10.2.0.0", *pods], FIREWALL_RULES, self.seed, allowed=("10.0.0.0/8",))

    def requests(self, count: int, hosts: str = "shared") -> list[dict[str, Any]]:
        """Calls as ``Request`` fields."""
        rng = random.Random(self.seed + 1)
        return [self._call(rng, i, hosts) for i in range(count)]

    def _call(self, rng: random.Random, number: int, hosts: str) -> dict[str, Any]:
        service = rng.randrange(self.services)
        path = _path(rng, service)
        headers = [("user-agent", "curl/8.1"), ("accept", "*/*"), ("x-request-id", f"{rng.getrandbits(64):016x}")]
        if rng.random() < 0.2:
            headers.append(("x-version", rng.choice(("canary", "beta"))))
        call = {
            "method": rng.choice(METHODS), "path": path, "headers": headers, "source_port": rng.randrange(1024, 65536),
            "destination_port": 8080,
        }  # fmt: skip
        if rng.random() < 0.25:
            name = f"tenant{number}.tenants.example" if hosts == "own" else f"svc-{service}.shop.example"
            return {
                **call,
                "authority": name,
                "source_ip": f"203.0.113.{rng.randrange(256)}",
                "destination_ip": _address(2, 0),
            }
        client = rng.randrange(CLIENTS)
        name = f"outside{number}.example:8080" if hosts == "own" else f"svc-{service}:8080"
        return {
            **call,
            "authority": name,
            "source_ip": _address(1, client),
            "destination_ip": _address(3, service),
            "principal": f"cluster.local/ns/shop/sa/client-{client}",
            "tls": {"presented": True, "validated": True},
        }


def nsx(addresses: list[str], rules: int, seed: int, allowed: tuple[str, ...] = ()) -> str:
    """A configuration with a machine an address; rules over 200 groups of ranges and machines, 60 sets of services, one
    rule in fifty for an application (``context profile``); then one that allows ``allowed``, then DROP."""
    rng = random.Random(seed)
    machines = [{"display_name": f"vm-{i}", "external_id": f"vm-{i}"} for i in range(len(addresses))]
    interfaces = [
        {
            "owner_vm_id": f"vm-{i}",
            "external_id": f"vif-{i}",
            "lport_attachment_id": f"port-{i}",
            "ip_address_info": [{"source": "VM_TOOLS", "ip_addresses": [address]}],
        }
        for i, address in enumerate(addresses)
    ]
    groups = [_group(g, addresses, rng) for g in range(200)]
    groups.append(_addresses("allowed", list(allowed) or ["0.0.0.0/0"]))
    entries = [_services(rng) for _ in range(60)]
    listed = [_rule(i, entries, rng) for i in range(rules - 2)]
    anything = {"direction": "IN_OUT", "scope": ["ANY"], "services": ["ANY"]}
    allowed_group = "/infra/domains/default/groups/allowed"
    ends = {"source_groups": ["ANY"], "destination_groups": [allowed_group]}
    listed.append({"display_name": "inside", "rule_id": 900_001, "action": "ALLOW", **ends, **anything})
    ends = {"source_groups": ["ANY"], "destination_groups": ["ANY"]}
    listed.append({"display_name": "rest", "rule_id": 900_002, "action": "DROP", **ends, **anything})
    policy = {"category": "Application", "display_name": "bench", "scope": ["ANY"], "rules": listed}
    return json.dumps(
        {
            "virtual_machines": machines,
            "virtual_network_interface": interfaces,
            "domains": [{"display_name": "default", "resources": {"security_policies": [policy], "groups": groups}}],
        }
    )


def _group(number: int, addresses: list[str], rng: random.Random) -> dict[str, Any]:
    """Some of the machines' addresses, and prefixes near them or anywhere."""
    ranges = rng.sample(addresses, min(len(addresses), rng.randrange(1, 5)))
    for _ in range(rng.randrange(3, 30)):
        base = rng.choice(addresses).split(".") if rng.random() < 0.5 else [str(rng.randrange(1, 224)) for _ in "1234"]
        length = rng.choice((24, 24, 28, 30, 32))
        octet = int(base[3]) & (0xFF << max(0, 32 - length)) & 0xFF
        ranges.append(f"{base[0]}.{base[1]}.{base[2]}.{octet if length > 24 else 0}/{length}")
    return _addresses(f"g{number}", ranges)


def _addresses(name: str, ranges: list[str]) -> dict[str, Any]:
    expression = [{"resource_type": "IPAddressExpression", "ip_addresses": ranges}]
    return {"display_name": name, "path": f"/infra/domains/default/groups/{name}", "expression": expression}


def _services(rng: random.Random) -> list[dict[str, Any]]:
    ports = [str(rng.choice((22, 53, 80, 123, 443, 8080, rng.randrange(1, 65536)))) for _ in range(rng.randrange(1, 6))]
    if rng.random() < 0.2:
        low = rng.randrange(1024, 60_000)
        ports.append(f"{low}-{low + rng.randrange(1, 4000)}")
    protocol = rng.choice(("TCP", "TCP", "TCP", "UDP"))
    ports = list(dict.fromkeys(ports))
    return [{"resource_type": "L4PortSetServiceEntry", "l4_protocol": protocol, "destination_ports": ports}]


def _rule(number: int, entries: list[list[dict[str, Any]]], rng: random.Random) -> dict[str, Any]:
    def ends() -> list[str]:
        return [f"/infra/domains/default/groups/g{g}" for g in rng.sample(range(200), rng.randrange(1, 4))]

    rule: dict[str, Any] = {
        "display_name": f"r{number}",
        "rule_id": 10_000 + number,
        "action": rng.choice(("ALLOW", "ALLOW", "ALLOW", "DROP", "REJECT")),
        "direction": "IN_OUT",
        "scope": ["ANY"],
        "source_groups": ends(),
        "destination_groups": ends(),
        "service_entries": rng.choice(entries),
    }
    return rule


# --- objects of the cluster


def _address(net: int, i: int) -> str:
    return f"10.{net}.{i >> 8}.{i & 255}"


def _namespace(name: str) -> dict[str, Any]:
    labels = {"istio-injection": "enabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _pod(namespace: str, name: str, address: str, labels: dict[str, str]) -> dict[str, Any]:
    container = {"name": "app", "ports": [{"containerPort": 8080}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"serviceAccountName": name, "containers": [container]},
        "status": {"podIP": address, "podIPs": [{"ip": address}]},
    }


def _service(i: int) -> dict[str, Any]:
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    spec = {"selector": {"app": f"svc-{i}"}, "clusterIP": _address(96, i), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"svc-{i}", "namespace": "shop"}, "spec": spec}


def _virtual_service(i: int) -> dict[str, Any]:
    def to(subset: int) -> list[dict[str, Any]]:
        return [{"destination": {"host": f"svc-{(i + subset) % (i + 1)}", "port": {"number": 8080}}}]

    http = [
        {"name": "items", "match": [{"uri": {"prefix": f"/s{i}/items/"}}], "route": to(0)},
        {"name": "one", "match": [{"uri": {"exact": f"/s{i}/one"}}], "route": to(0)},
        {"name": "new", "match": [{"uri": {"prefix": f"/s{i}/"}, "headers": {"x-version": {"exact": "canary"}}}],
         "rewrite": {"uri": "/canary/"}, "route": to(0)},
        {"name": "post", "match": [{"uri": {"prefix": f"/s{i}/w/"}, "method": {"exact": "POST"}}], "route": to(0)},
        {"name": "regex", "match": [{"uri": {"regex": f"/s{i}/v[0-9]+/.*"}}], "route": to(0)},
        *({"name": f"p{k}", "match": [{"uri": {"prefix": f"/s{i}/p{k}/"}}], "route": to(0)} for k in range(4)),
        {"name": "rest", "route": to(0)},
    ]  # fmt: skip
    hosts = [f"svc-{i}.shop.svc.cluster.local", f"svc-{i}.shop.example"]
    spec = {"hosts": hosts, "gateways": ["mesh", "edge/front"], "http": http}
    meta = {"name": f"vs-{i}", "namespace": "shop"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}


def _gateway() -> dict[str, Any]:
    server = {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    spec = {"selector": {"app": "gateway"}, "servers": [server]}
    meta = {"name": "front", "namespace": "edge"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": meta, "spec": spec}


def _tenants() -> dict[str, Any]:
    route = [{"destination": {"host": "svc-0.shop.svc.cluster.local", "port": {"number": 8080}}}]
    spec = {"hosts": ["*.tenants.example"], "gateways": ["edge/front"], "http": [{"name": "tenants", "route": route}]}
    meta = {"name": "tenants", "namespace": "shop"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta, "spec": spec}


def _peer_authentication() -> dict[str, Any]:
    meta = {"name": "default", "namespace": "shop"}
    spec = {"mtls": {"mode": "STRICT"}}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta, "spec": spec}


def _policy(number: int, service: int, rng: random.Random) -> dict[str, Any]:
    clients = rng.sample(range(CLIENTS), 3)
    callers = [f"cluster.local/ns/shop/sa/client-{c}" for c in clients]
    paths = [f"/s{service}/{rng.choice(('items/*', 'one', 'w/*', 'p0/*', 'p1/*', 'p2/*', 'v1/*'))}"]
    deny = rng.random() < 0.1
    operation = {"paths": paths, "methods": rng.sample(METHODS, 2)}
    rule: dict[str, Any] = {"from": [{"source": {"principals": callers}}], "to": [{"operation": operation}]}
    if rng.random() < 0.1:
        rule["when"] = [{"key": "request.headers[x-version]", "values": ["canary"]}]
    spec = {
        "selector": {"matchLabels": {"app": f"svc-{service}"}},
        "action": "DENY" if deny else "ALLOW",
        "rules": [rule],
    }
    meta = {"name": f"policy-{number}", "namespace": "shop"}
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": meta, "spec": spec}


def _path(rng: random.Random, service: int) -> str:
    words = ("items/{}", "one", "w/{}", "p0/{}", "p1/{}", "p2/{}", "p3/{}", "v1/{}", "other/{}?q=1")
    return f"/s{service}/" + rng.choice(words).format(rng.randrange(100_000))
