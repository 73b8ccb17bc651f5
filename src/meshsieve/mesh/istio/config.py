"""All Istio objects of a store, read once, with the mesh's own settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from meshsieve.errors import PolicyError
from meshsieve.importers.typed import Node
from meshsieve.mesh.istio.delegates import merge
from meshsieve.mesh.istio.destination_rules import DestinationRule, Rules, read_destination_rule
from meshsieve.mesh.istio.model import (
    Destination,
    Gateway,
    HttpMatch,
    HttpRule,
    L4Match,
    L4Rule,
    Sidecar,
    VirtualService,
)
from meshsieve.mesh.istio.proxy import Proxy
from meshsieve.mesh.istio.read_gateway import read_gateway
from meshsieve.mesh.istio.read_sidecar import read_sidecar
from meshsieve.mesh.istio.read_virtual_service import read_virtual_service
from meshsieve.mesh.istio.registry import Registry, read_service_entry
from meshsieve.mesh.mesh_config import mesh_config
from meshsieve.mesh.names import CLUSTER_DOMAIN
from meshsieve.mesh.objects import ISTIO_NETWORKING, MeshObject, ObjectStore
from meshsieve.mesh.workloads import Workload, read_workloads
from meshsieve.policy import Diagnostic

T = TypeVar("T")
# Kinds that change what proxies do and are not evaluated here; their presence is reported.
NOT_EVALUATED = ("EnvoyFilter", "ProxyConfig", "WasmPlugin")


@dataclass(frozen=True)
class MeshOptions:
    """domain: the cluster's DNS domain, "" for none. allow_any, export_*: of the mesh's configuration, where the
    objects hold none (ConfigMap ``istio`` of the root namespace)."""

    domain: str = CLUSTER_DOMAIN
    root_namespace: str = "istio-system"
    allow_any: bool = True
    export_virtual_services: tuple[str, ...] = ("*",)
    export_services: tuple[str, ...] = ("*",)
    export_destination_rules: tuple[str, ...] = ("*",)
    strict: bool = True


@dataclass
class IstioConfig:
    """Virtual services oldest first, delegates merged; ``findings`` tells what was dropped or is not evaluated."""

    options: MeshOptions
    store: ObjectStore
    registry: Registry
    workloads: list[Workload]
    virtual_services: list[VirtualService]
    gateways: list[Gateway]
    sidecars: list[Sidecar]
    rules: Rules
    allow_any: bool
    findings: list[Diagnostic] = field(default_factory=list)

    @cached_property
    def client_labels(self) -> frozenset[str]:
        """Labels by which the configuration of sidecars tells clients apart."""
        matches: list[HttpMatch | L4Match] = []
        for service in self.virtual_services:
            matches += [match for rule in service.http for match in rule.matches]
            matches += [match for rule in (*service.tls, *service.tcp) for match in rule.matches]
        found = {key for match in matches for key in match.source_labels}
        found |= {key for sidecar in self.sidecars for key in sidecar.selector}
        return frozenset(found) | self.rules.selector_labels

    @cached_property
    def headless_addresses(self) -> frozenset[str]:
        """Addresses that a headless service may listen on, which is not said to the sidecars that have them."""
        headless = [s for s in self.registry.services if s.resolution == "passthrough" and not s.addresses]
        own = {e.address for service in headless for e in service.endpoints}
        for service in headless:
            if service.kubernetes and service.selector:
                here = (w for w in self.workloads if w.namespace == service.namespace)
                own |= {a for w in here if w.selected_by(service.selector) for a in w.addresses}
        return frozenset(own)

    def virtual_services_for(self, namespace: str, gateway: str) -> list[VirtualService]:
        """Those bound to a gateway (or "mesh") that a proxy of the namespace sees: private ones first, then those
        exported to it by name, then public ones, each oldest first."""
        private, named, public = [], [], []
        for service in self.virtual_services:
            if gateway not in service.gateways:
                continue
            scopes = service.export_to
            if "*" in scopes:
                public.append(service)
            elif service.namespace == namespace and ("." in scopes or namespace in scopes):
                private.append(service)
            elif namespace in scopes:
                named.append(service)
        return private + named + public

    def rule(self, host: str, proxy: Proxy) -> DestinationRule | None:
        service = self.registry.named(host, proxy.namespace)
        home = service.namespace if service is not None else ""
        return self.rules.find(host, proxy.namespace, proxy.labels, home, self.options.root_namespace)

    def missing(self, to: Destination, port: int, proxy: Proxy) -> str:
        """Why the cluster of a destination does not exist, "" if it does. A host that nobody defines is not judged
        here: its Service may just not be among the objects (a finding says so)."""
        service = self.registry.named(to.host, proxy.namespace)
        if service is None:
            if self.registry.knows(to.host):
                return f"{to.host} is not visible to namespace {proxy.namespace}"
            return ""
        if not service.alias_of and service.port(port) is None:
            return f"{to.host} has no port {port}"
        rule = self.rule(to.host, proxy) if to.subset else None
        if to.subset and (rule is None or to.subset not in rule.subsets):
            return f"no DestinationRule defines subset {to.subset} of {to.host}"
        return ""


def read_istio(store: ObjectStore, options: MeshOptions | None = None) -> IstioConfig:
    """raises  PolicyError for what Istio refuses; unless ``options.strict`` such an object is left out instead, as the
    API server would, with a finding"""
    options = options or MeshOptions()
    findings: list[Diagnostic] = []
    allow_any = options.allow_any
    mesh = mesh_config(store, options.root_namespace)
    if mesh is not None:
        policy = mesh.node("outboundTrafficPolicy")
        if policy is not None:
            allow_any = (policy.text("mode") or "ALLOW_ANY") == "ALLOW_ANY"
        options = replace(
            options,
            export_virtual_services=_exports(mesh, "VirtualService") or options.export_virtual_services,
            export_services=_exports(mesh, "Service") or options.export_services,
            export_destination_rules=_exports(mesh, "DestinationRule") or options.export_destination_rules,
        )

    def read(kind: str, one: Callable[[MeshObject], T]) -> list[T]:
        out = []
        for found in sorted(store.of(kind, ISTIO_NETWORKING), key=lambda o: o.age):
            try:
                out.append(one(found))
            except PolicyError as error:
                if options.strict:
                    raise
                findings.append(Diagnostic("refused-object", error.message, error.where, found.title, error.hint))
        return out

    entries = read("ServiceEntry", lambda o: read_service_entry(o, store))
    services = [
        s if s.export_to else replace(s, export_to=options.export_virtual_services)
        for s in read("VirtualService", lambda o: read_virtual_service(o, options.domain))
    ]
    rules = [
        r if r.export_to else replace(r, export_to=options.export_destination_rules)
        for r in read("DestinationRule", lambda o: read_destination_rule(o, options.domain))
    ]
    config = IstioConfig(
        options,
        store,
        Registry(store, [s for found in entries for s in found], options.domain, options.export_services),
        read_workloads(store),
        merge(services, findings),
        read("Gateway", lambda o: read_gateway(o, options.domain)),
        read("Sidecar", lambda o: read_sidecar(o, options.domain)),
        Rules(rules),
        allow_any,
        findings,
    )
    findings += _not_evaluated(store)
    findings += _unknown_hosts(config)
    return config


def _exports(mesh: Node, kind: str) -> tuple[str, ...]:
    return tuple(mesh.texts(f"default{kind}ExportTo") or ())


def _not_evaluated(store: ObjectStore) -> list[Diagnostic]:
    return [
        Diagnostic("not-evaluated", f"{kind} changes proxies in ways that are not evaluated here", o.where, o.title)
        for kind in NOT_EVALUATED
        for o in store.of(kind)
    ]


def _unknown_hosts(config: IstioConfig) -> list[Diagnostic]:
    out = []
    for service in config.virtual_services:
        rules: list[HttpRule | L4Rule] = [*service.http, *service.tls, *service.tcp]
        for rule in rules:
            for share in rule.shares:
                host = share.destination.host
                if not config.registry.knows(host):
                    text = f"no Service or ServiceEntry defines {host}, so whether its cluster exists is not known"
                    finding = Diagnostic("unknown-host", text, str(rule.source), service.object.title, level="note")
                    out.append(finding)
    return out
