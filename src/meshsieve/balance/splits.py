"""Traffic splits of VirtualService and Gateway API routes: which destination a request of a rule gets.

Only the weights: which rule a request matches is the routing layer's question. VirtualService: weights are relative to
their sum; a single destination without a weight has all. Gateway API: a weight that is not said is 1. In both a weight
of 0 never gets a request; all zero gets none at all (Gateway API: HTTP 500).

Source: Istio API (VirtualService), Gateway API (HTTPRoute, GRPCRoute, TCPRoute, TLSRoute, UDPRoute).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from meshsieve.balance.limits import RetryPolicy
from meshsieve.balance.tables import WeightedClusters
from meshsieve.balance.traffic_policy import full_host
from meshsieve.errors import BalanceError
from meshsieve.importers.typed import Node

GATEWAY_ROUTES = ("HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute")
VIRTUAL_SERVICE_SECTIONS = ("http", "tls", "tcp")
MAX_WEIGHT = 1_000_000


@dataclass(frozen=True)
class Destination:
    """Where part of a rule's requests go. kind: "Service" unless a Gateway route names another."""

    host: str
    port: int | None = None
    subset: str | None = None
    kind: str = "Service"

    @property
    def name(self) -> str:
        """``host[:port][|subset]``."""
        port = f":{self.port}" if self.port is not None else ""
        return f"{self.host}{port}" + (f"|{self.subset}" if self.subset else "")


@dataclass(frozen=True)
class Split:
    """One rule of a route. name: ``Kind ns/name section[index]``, with the rule's own name where it has one."""

    name: str
    destinations: tuple[Destination, ...]
    weights: tuple[int, ...]
    retries: RetryPolicy | None
    where: str

    def balancer(self) -> WeightedClusters:
        """raises  BalanceError if all weights are 0: such a rule answers an error to every request"""
        if not any(self.weights):
            raise BalanceError(f"{self.where}: {self.name} has no destination with a weight above 0")
        totals: dict[str, int] = {}
        for destination, weight in zip(self.destinations, self.weights, strict=True):
            totals[destination.name] = totals.get(destination.name, 0) + weight
        return WeightedClusters(totals)

    def pick(self, value: int) -> Destination:
        """The destination for a random value or hash of 64 bits."""
        rest = value % sum(self.weights) if any(self.weights) else -1
        for destination, weight in zip(self.destinations, self.weights, strict=True):
            if 0 <= rest < weight:
                return destination
            rest -= weight
        raise BalanceError(f"{self.where}: {self.name} has no destination with a weight above 0")

    @property
    def shares(self) -> dict[str, Fraction]:
        return self.balancer().shares


def read_splits(kind: str, node: Node, namespace: str, name: str) -> list[Split]:
    """The splits of a VirtualService or Gateway API route."""
    spec = node.node("spec")
    if spec is None:
        raise node.error("is missing", "spec")
    if kind == "VirtualService":
        return _virtual_service(spec, namespace, name)
    return _gateway_route(kind, spec, namespace, name)


def _virtual_service(spec: Node, namespace: str, name: str) -> list[Split]:
    splits = []
    for section in VIRTUAL_SERVICE_SECTIONS:
        for i, rule in enumerate(spec.nodes(section) or []):
            entries = rule.nodes("route") or []
            if not entries:
                continue  # a redirect, direct response or delegate has no destination
            destinations, weights = [], []
            for entry in entries:
                target = entry.node("destination")
                if target is None:
                    raise entry.error("is missing", "destination")
                target.only("host", "subset", "port")
                port = target.node("port")
                destinations.append(
                    Destination(
                        full_host(target.required_text("host"), namespace),
                        port.only("number").integer("number", 1, 65535) if port else None,
                        target.text("subset"),
                    )
                )
                weights.append(_weight(entry, 100 if len(entries) == 1 else 0))
            label = rule.text("name") if section == "http" else None
            splits.append(
                Split(
                    f"VirtualService {namespace}/{name} {section}[{i}]" + (f" ({label})" if label else ""),
                    tuple(destinations),
                    tuple(weights),
                    _retries(rule) if section == "http" else None,
                    rule.data.where(),
                )
            )
    return splits


def _gateway_route(kind: str, spec: Node, namespace: str, name: str) -> list[Split]:
    splits = []
    for i, rule in enumerate(spec.nodes("rules") or []):
        destinations, weights = [], []
        for entry in rule.nodes("backendRefs") or []:
            backend = entry.text("kind") or "Service"
            home = entry.text("namespace") or namespace
            target = entry.required_text("name")
            host = f"{target}.{home}.svc.cluster.local" if backend == "Service" else f"{home}/{target}"
            destinations.append(Destination(host, entry.integer("port", 1, 65535), None, backend))
            weights.append(_weight(entry, 1))
        if destinations:
            label = rule.text("name")
            splits.append(
                Split(
                    f"{kind} {namespace}/{name} rules[{i}]" + (f" ({label})" if label else ""),
                    tuple(destinations),
                    tuple(weights),
                    None,
                    rule.data.where(),
                )
            )
    return splits


def _weight(entry: Node, default: int) -> int:
    value = entry.integer("weight", 0, MAX_WEIGHT)
    return default if value is None else value


def _retries(rule: Node) -> RetryPolicy:
    """Istio's retries: two more tries on failures before any work, unless the rule says otherwise."""
    node = rule.node("retries")
    if node is None:
        return RetryPolicy()
    attempts = node.integer("attempts", 0, 2**31 - 1)
    words = node.text("retryOn")
    try:
        if words is None:
            return RetryPolicy(2 if attempts is None else attempts)
        return RetryPolicy.parse(words, 2 if attempts is None else attempts)
    except BalanceError as error:
        raise node.error(str(error), "retryOn") from None


def by_name(splits: Sequence[Split], name: str) -> Split:
    """The split whose name is or starts with ``name``.

    raises  BalanceError if none or several do
    """
    found = [split for split in splits if split.name == name] or [s for s in splits if s.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join(split.name for split in (found or splits)[:10]) or "none"
        raise BalanceError(f"'{name}' names {len(found)} splits; there are: {known}")
    return found[0]
