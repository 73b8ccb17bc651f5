"""From a host name to an endpoint, as Istio programs a client's Envoy: services, rules, localities, balancers.

    host, port, subset -> endpoints of the Service or ServiceEntry with the subset's labels -> DestinationRule's policy
      -> locality (distribute or failover) -> an Envoy cluster (cluster.py) and a hash policy (hash_policy.py)

Source: Istio API; istio/istio pilot/pkg/networking/core (cluster building, endpoint building).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from meshsieve.balance import locality as places
from meshsieve.balance.cluster import ChancePolicy, Cluster, ClusterSettings, MaglevPolicy
from meshsieve.balance.decision import Decision, Outcome, among
from meshsieve.balance.hosts import Host, Locality, canonical_address
from meshsieve.balance.kubernetes import Service, ServicePort, Services, documents, endpoint_host, services_of
from meshsieve.balance.locality import LocalitySetting, Proxy
from meshsieve.balance.splits import GATEWAY_ROUTES, Split, read_splits
from meshsieve.balance.traffic_policy import (
    DestinationRule,
    TrafficPolicy,
    find_rule,
    full_host,
    groups_for,
    host_specificity,
    read_destination_rule,
    read_policy,
)
from meshsieve.errors import BalanceError
from meshsieve.importers.sources import find_files, read_source
from meshsieve.importers.typed import Node
from meshsieve.policy import Diagnostic, SourceFile
from meshsieve.request import Request

ROOT_NAMESPACE = "istio-system"
KINDS = (
    "Service",
    "EndpointSlice",
    "Pod",
    "Node",
    "DestinationRule",
    "ServiceEntry",
    "VirtualService",
    *GATEWAY_ROUTES,
)


@dataclass(frozen=True)
class ServiceEntry:
    """Hosts outside of Kubernetes Services. endpoints have ports by name; none with resolution DNS means the host."""

    namespace: str
    name: str
    hosts: tuple[str, ...]
    ports: tuple[ServicePort, ...]
    resolution: str
    external: bool
    endpoints: tuple[tuple[Host, Mapping[str, int]], ...]
    where: str


@dataclass(frozen=True)
class Backend:
    """A destination as a client's Envoy sees it. cluster is None for PASSTHROUGH."""

    host: str
    port: int
    subset: str | None
    policy: TrafficPolicy
    cluster: Cluster | None
    diagnostics: tuple[Diagnostic, ...]
    explain: tuple[str, ...]
    where: str

    def decide(self, request: Request, attempt: int = 0) -> Decision:
        """The endpoint for a request: exact with consistent hashing, else the chances."""
        if self.cluster is None:
            return Decision(Outcome.PASSTHROUGH, explain=(*self.explain, "PASSTHROUGH: the original destination"))
        steps = list(self.explain)
        if not isinstance(self.cluster.policy, ChancePolicy):
            hashed = self.policy.hash_policy.hash(request)
            if hashed.value is not None:
                pick = self.cluster.explain(hashed.value, attempt)
                steps.append(f"hash {hashed.value:#018x}, priority {pick.priority}" + (", panic" if pick.panic else ""))
                hosts = [self.cluster.hosts[pick.host]] if pick.host >= 0 else []
                status = None if hosts else 503
                return Decision(**among(hosts), pool=self.name, status=status, explain=tuple(steps), source=self.where)
            steps.append("no hash: the pick is random")
        chosen = [(host, share) for host, share in zip(self.cluster.hosts, self.cluster.shares, strict=True) if share]
        found = among([host for host, _ in chosen], [share for _, share in chosen])
        status = None if chosen else 503
        return Decision(**found, pool=self.name, status=status, explain=tuple(steps), source=self.where)

    @property
    def name(self) -> str:
        """As Istio names it: ``outbound|port|subset|host``."""
        return f"outbound|{self.port}|{self.subset or ''}|{self.host}"


@dataclass
class Mesh:
    """Services, rules and routes of a set of manifests; ``ignored`` counts objects of other kinds."""

    services: Services = field(default_factory=Services)
    entries: list[ServiceEntry] = field(default_factory=list)
    rules: list[DestinationRule] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    root_namespace: str = ROOT_NAMESPACE
    locality: LocalitySetting = field(default_factory=LocalitySetting)
    allow_any: bool = True

    def backend(self, host: str, port: int, subset: str | None = None, proxy: Proxy | None = None) -> Backend:
        """The destination ``host:port`` (a short name is a service of the proxy's namespace).

        An unknown subset has no endpoints (503), with a diagnostic.

        raises  BalanceError for a host or port that nobody defines, or endpoints whose labels are not known when a
                subset asks for them
        """
        proxy = proxy or Proxy()
        host = full_host(host, proxy.namespace)
        home, hosts, redis, distribution, steps = self._endpoints(host, port)
        rule = find_rule(self.rules, host, proxy.namespace, home, self.root_namespace)
        policy, where = TrafficPolicy(), rule.where if rule else ""
        if subset is not None and (rule is None or subset not in rule.subsets):
            finding = Diagnostic("unknown-subset", f"no DestinationRule defines subset {subset}", where, host)
            empty = (*steps, f"subset {subset}: not defined, so no endpoints")
            return Backend(host, port, subset, policy, Cluster([]), (finding,), empty, where)
        if rule is not None:
            steps.append(f"DestinationRule {rule.namespace}/{rule.name} ({rule.where})")
            policy = read_policy(groups_for(rule, subset, port))
            if subset is not None:
                hosts = _with_labels(hosts, rule.subsets[subset][0], subset)
                steps.append(f"subset {subset}: {len(hosts)} endpoints")
        if policy.balancer is None:
            return Backend(host, port, subset, policy, None, (), tuple(steps), where)
        chosen, weights, step = self._localised([h for h, _ in hosts], policy, proxy, distribution)
        cluster = Cluster(
            chosen,
            MaglevPolicy() if redis and rule is None else policy.balancer,
            ClusterSettings(panic_threshold=policy.panic_threshold, locality_weights=weights),
        )
        findings = _lint(host, chosen, policy, where)
        return Backend(host, port, subset, policy, cluster, findings, (*steps, *step), where)

    def decide(
        self, host: str, port: int, request: Request, subset: str | None = None, proxy: Proxy | None = None
    ) -> Decision:
        """The endpoint of a request to ``host:port``. A host that nobody defines leaves the mesh unchanged
        (PassthroughCluster), or with REGISTRY_ONLY ends in the BlackHoleCluster (HTTP 502)."""
        if not self.defines(full_host(host, (proxy or Proxy()).namespace)):
            name = self.unknown_destination()
            if self.allow_any:
                return Decision(Outcome.PASSTHROUGH, pool=name, explain=(f"{host} is defined by nobody",))
            return Decision(Outcome.NO_ENDPOINT, pool=name, status=502, explain=(f"{host} is defined by nobody",))
        return self.backend(host, port, subset, proxy).decide(request)

    def decide_split(self, split: Split, value: int, request: Request, proxy: Proxy | None = None) -> Decision:
        """The endpoint of a request that the router gave to a rule: its split by the random value, then ``decide``.

        raises  BalanceError where a destination names no port and its service has not exactly one
        """
        chosen = split.pick(value)
        port = chosen.port
        if port is None:
            ports = [p.port for host, known in self._hosts() if host == chosen.host for p in known]
            if len(ports) != 1:
                raise BalanceError(f"{split.name}: {chosen.host} has {len(ports)} ports, and the rule names none")
            port = ports[0]
        decision = self.decide(chosen.host, port, request, chosen.subset, proxy)
        return replace(decision, explain=(f"{split.name} ({split.where}): {chosen.name}", *decision.explain))

    def defines(self, host: str) -> bool:
        """Whether a Service or ServiceEntry has the host."""
        patterns = (pattern for entry in self.entries for pattern in entry.hosts)
        return any(service.host == host for service in self.services.services) or any(
            host_specificity(pattern, host) is not None for pattern in patterns
        )

    def unknown_destination(self) -> str:
        """Where traffic to a host that nobody defines goes."""
        return "PassthroughCluster" if self.allow_any else "BlackHoleCluster"

    def backends(self, proxy: Proxy | None = None) -> list[Backend]:
        """Every host, port and subset, in the order of the manifests."""
        found = []
        for host, ports in self._hosts():
            for port in ports:
                home = self._endpoints(host, port.port)[0]
                rule = find_rule(self.rules, host, (proxy or Proxy()).namespace, home, self.root_namespace)
                for subset in (None, *(rule.subsets if rule else ())):
                    found.append(self.backend(host, port.port, subset, proxy))
        return found

    def _hosts(self) -> Iterable[tuple[str, tuple[ServicePort, ...]]]:
        for service in self.services.services:
            yield service.host, service.ports
        for entry in self.entries:
            for host in entry.hosts:
                if not host.startswith("*"):
                    yield host, entry.ports

    def _endpoints(self, host: str, port: int) -> tuple[str, list[tuple[Host, bool]], bool, str, list[str]]:
        """Namespace, (host, are its labels known), does the port speak Redis, trafficDistribution, steps."""
        for service in self.services.services:
            if service.host == host:
                chosen = _port(service.ports, port, host)
                hosts = [(endpoint_host(e, chosen), e.labels is not None) for e in service.usable(chosen)]
                step = f"Service {service.namespace}/{service.name} ({service.where}): {len(hosts)} endpoints"
                return service.namespace, hosts, _is_redis(chosen), service.distribution, [step]
        matching = [
            (specificity, entry)
            for entry in self.entries
            for pattern in entry.hosts
            if (specificity := host_specificity(pattern, host)) is not None
        ]
        if not matching:
            raise BalanceError(
                f"no Service or ServiceEntry defines {host}; traffic to it goes to {self.unknown_destination()}"
            )
        entry = max(matching, key=lambda pair: pair[0])[1]
        chosen = _port(entry.ports, port, host)
        step = f"ServiceEntry {entry.namespace}/{entry.name} ({entry.where})"
        if not entry.endpoints and entry.resolution.startswith("DNS"):
            return entry.namespace, [(Host(host, port), True)], _is_redis(chosen), "", [step]
        hosts = [
            (Host(h.address, ports.get(chosen.name, port), h.weight, locality=h.locality, labels=h.labels), True)
            for h, ports in entry.endpoints
        ]
        return entry.namespace, hosts, _is_redis(chosen), "", [step]

    def _localised(
        self, hosts: list[Host], policy: TrafficPolicy, proxy: Proxy, distribution: str
    ) -> tuple[list[Host], dict[tuple[int, Locality], int] | None, list[str]]:
        """Priorities and locality weights by the rule's setting, else trafficDistribution, else the mesh's."""
        setting, forced = policy.locality, False
        if setting is None and distribution:
            labels = places.SAME_NODE if distribution == "PreferSameNode" else places.SAME_ZONE
            setting, forced = LocalitySetting(failover_priority=labels), True
        setting = setting or self.locality
        if not setting.enabled:
            return hosts, None, ["locality: off"]
        if setting.distribute:
            spread, weights = places.distribute(hosts, proxy, setting.distribute)
            return spread, weights, [f"locality: distribute over {len(weights or {})} localities"]
        if policy.outlier is None and not forced:
            return hosts, None, []
        if setting.failover_priority:
            hosts = places.failover_priority(hosts, proxy, setting.failover_priority)
        else:
            hosts = places.failover(hosts, proxy, setting.failover)
        weights = None
        if setting.failover or setting.failover_priority:
            weights = {}
            for host in hosts:
                place = (host.priority, host.locality)
                weights[place] = weights.get(place, 0) + host.weight
        # Envoy wants priorities in order; hosts of one priority keep the order of the configuration.
        return sorted(hosts, key=lambda h: h.priority), weights, ["locality: failover by priority"]


def from_kubernetes(
    paths: Iterable[str | os.PathLike[str]], *, root_namespace: str = ROOT_NAMESPACE, allow_any: bool = True
) -> Mesh:
    """The mesh that manifests describe: files, folders, or "-"; objects of all kinds mixed.

    allow_any  outboundTrafficPolicy ALLOW_ANY (True) or REGISTRY_ONLY
    raises     PolicyError with file:line:column and the object
    """
    return mesh_of(
        [read_source(path) for path in find_files(paths)], root_namespace=root_namespace, allow_any=allow_any
    )


def mesh_of(sources: Sequence[SourceFile], *, root_namespace: str = ROOT_NAMESPACE, allow_any: bool = True) -> Mesh:
    """The same from texts."""
    found: dict[str, list[Node]] = {kind: [] for kind in KINDS}
    mesh = Mesh(root_namespace=root_namespace, allow_any=allow_any)
    for kind, node in documents(sources):
        if kind not in found:
            mesh.ignored[kind] = mesh.ignored.get(kind, 0) + 1
        else:
            found[kind].append(node)
    mesh.services = services_of(found)
    for node in found["DestinationRule"]:
        mesh.rules.append(read_destination_rule(node, *_named(node)))
    for node in found["ServiceEntry"]:
        mesh.entries.append(_service_entry(node, *_named(node)))
    for kind in ("VirtualService", *GATEWAY_ROUTES):
        for node in found[kind]:
            mesh.splits.extend(read_splits(kind, node, *_named(node)))
    return mesh


def _service_entry(node: Node, namespace: str, name: str) -> ServiceEntry:
    spec = node.node("spec")
    if spec is None:
        raise node.error("is missing", "spec")
    spec.only("hosts", "addresses", "ports", "location", "resolution", "endpoints", "workloadSelector", "exportTo",
              "subjectAltNames")  # fmt: skip
    if spec.node("workloadSelector") is not None:
        reason = "endpoints by workload selector need WorkloadEntry objects, which are not read"
        raise spec.error(reason, "workloadSelector", "list the endpoints")
    ports = []
    for port in spec.nodes("ports") or []:
        number = port.integer("number", 1, 65535)
        if number is None:
            raise port.error("is missing", "number")
        ports.append(
            ServicePort(port.required_text("name"), "TCP", number, None, (port.text("protocol") or "").lower())
        )
    endpoints = []
    for entry in spec.nodes("endpoints") or []:
        entry.only("address", "ports", "labels", "network", "locality", "weight", "serviceAccount")
        own = entry.node("ports")
        numbers = {key: own.integer(key, 1, 65535) or 0 for key in own.data} if own else {}
        labels = entry.text_map("labels")
        if network := entry.text("network"):
            labels = {**labels, places.NETWORK: network}
        host = Host(
            canonical_address(entry.required_text("address")),
            0,
            entry.integer("weight", 1, 2**32 - 1) or 1,
            locality=Locality.parse(entry.text("locality") or ""),
            labels=labels,
        )
        endpoints.append((host, numbers))
    return ServiceEntry(
        namespace,
        name,
        tuple(spec.texts("hosts") or ()),
        tuple(ports),
        spec.choice("resolution", ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"), "NONE"),
        spec.choice("location", ("MESH_EXTERNAL", "MESH_INTERNAL"), "MESH_EXTERNAL") == "MESH_EXTERNAL",
        tuple(endpoints),
        node.data.where(),
    )


def _with_labels(hosts: list[tuple[Host, bool]], labels: Mapping[str, str], subset: str) -> list[tuple[Host, bool]]:
    if unknown := [host.name for host, known in hosts if not known]:
        raise BalanceError(
            f"subset {subset} needs the labels of {', '.join(unknown[:5])}; give the Pods that the slices refer to"
        )
    return [(h, known) for h, known in hosts if all(h.labels.get(key) == value for key, value in labels.items())]


def _port(ports: Sequence[ServicePort], number: int, host: str) -> ServicePort:
    for port in ports:
        if port.port == number:
            return port
    raise BalanceError(f"{host} has no port {number}; it has: {', '.join(str(p.port) for p in ports) or 'none'}")


def _is_redis(port: ServicePort) -> bool:
    return port.app_protocol.lower() == "redis" or port.name.split("-")[0].lower() == "redis"


def _lint(host: str, hosts: Sequence[Host], policy: TrafficPolicy, where: str) -> tuple[Diagnostic, ...]:
    if policy.outlier is not None and policy.outlier.impossible(len(hosts)):
        percent = policy.outlier.max_ejection_percent
        return (
            Diagnostic(
                "ejection-impossible",
                f"{percent} % of {len(hosts)} hosts is less than one, so outlier detection never ejects any",
                where,
                host,
                f"set maxEjectionPercent to at least {-(-100 // max(1, len(hosts)))}",
            ),
        )
    return ()


def _named(node: Node) -> tuple[str, str]:
    metadata = node.node("metadata")
    if metadata is None:
        raise node.error("is missing", "metadata")
    return metadata.text("namespace") or "default", metadata.required_text("name")


__all__ = ["Backend", "Mesh", "Service", "ServiceEntry", "from_kubernetes", "mesh_of"]
