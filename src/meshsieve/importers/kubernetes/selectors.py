"""Label selectors, and the pods that policies select (apimachinery's LabelSelector; docs/importers/kubernetes.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from meshsieve.importers.kubernetes.cluster import Cluster
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping, Sequence
from meshsieve.model import NameCodes, ValueSet
from meshsieve.policy import Diagnostic

Labels = dict[str, str]
Test = Callable[[Labels], bool]


def selector_test(selector: Node) -> Test:
    """All of matchLabels and matchExpressions; the empty selector is true for everything. NotIn and DoesNotExist are
    true where the key is absent.

    raises  PolicyError on unknown fields and operators, and on values that do not fit the operator
    """
    selector.only("matchLabels", "matchExpressions")
    equal = selector.text_map("matchLabels")
    tests = [_expression_test(e) for e in selector.nodes("matchExpressions") or []]
    return lambda labels: all(labels.get(k) == v for k, v in equal.items()) and all(test(labels) for test in tests)


def _expression_test(expression: Node) -> Test:
    expression.only("key", "operator", "values")
    key = expression.required_text("key")
    operator = expression.choice("operator", ("In", "NotIn", "Exists", "DoesNotExist"))
    values = set(expression.texts("values") or [])
    if operator in ("In", "NotIn") and not values:
        raise expression.error(f"operator {operator} needs at least one value", "values")
    if operator in ("Exists", "DoesNotExist") and values:
        raise expression.error(f"operator {operator} takes no values", "values")
    if operator == "In":
        return lambda labels: labels.get(key) in values
    if operator == "NotIn":
        return lambda labels: labels.get(key) not in values
    if operator == "Exists":
        return lambda labels: key in labels
    return lambda labels: key not in labels


def _named_domains(value: object) -> Iterator[str]:
    """Every text in a list ``domainNames`` below the value, read properly or not."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "domainNames" and isinstance(inner, Sequence):
                yield from (text for text in inner if isinstance(text, str))
            else:
                yield from _named_domains(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _named_domains(inner)


class PodSelection:
    """Selects pods of one cluster, as vNIC numbers or as addresses. ``findings`` collects what policies raise,
    ``domains`` numbers the domain names that they name."""

    def __init__(self, cluster: Cluster, host_network_pods: str) -> None:
        self.cluster = cluster
        self.findings: list[Diagnostic] = []
        named = [name.lower().rstrip(".") for policy in cluster.policies for name in _named_domains(policy.data)]
        self.domains = NameCodes.of(
            exact=["", *(n for n in named if not n.startswith("*"))],
            prefixes=[n[1:] for n in named if n.startswith("*.")],
            from_end=True,
        )
        # With "node" their traffic is node traffic: no selector sees them, neither as subject nor as peer.
        self.candidates = [
            i for i, pod in enumerate(cluster.pods) if host_network_pods == "pod" or not pod.host_network
        ]

    def in_namespace(self, namespace: str, pod_selector: Node | None) -> list[int]:
        """Pods of one namespace; a missing selector selects all of them."""
        return self._select(lambda name: name == namespace, pod_selector)

    def in_namespaces(self, namespace_selector: Node | None, pod_selector: Node | None) -> list[int]:
        """Pods of all namespaces whose labels fit; a missing selector selects everything on its level."""
        fits = selector_test(namespace_selector) if namespace_selector else (lambda labels: True)
        return self._select(lambda name: fits(self.cluster.namespaces[name]), pod_selector)

    def _select(self, namespace_fits: Callable[[str], bool], pod_selector: Node | None) -> list[int]:
        pod_fits = selector_test(pod_selector) if pod_selector else (lambda labels: True)
        homes = {name for name in self.cluster.namespaces if namespace_fits(name)}
        pods = self.cluster.pods
        return [i for i in self.candidates if pods[i].namespace in homes and pod_fits(pods[i].labels)]

    def addresses(self, pods: list[int]) -> ValueSet:
        chosen = [address for i in pods for address in self.cluster.pods[i].addresses]
        return address_set(chosen)

    def named_port(self, name: str) -> dict[tuple[int, int], list[int]]:
        """(protocol, number) -> the pods that give the name to that port."""
        out: dict[tuple[int, int], list[int]] = {}
        for i in self.candidates:
            for port in self.cluster.pods[i].ports:
                if port.name == name and i not in out.setdefault((port.protocol, port.number), []):
                    out[port.protocol, port.number].append(i)
        return out


def address_set(addresses: list[tuple[int, int]]) -> ValueSet:
    v4 = ValueSet.numbers(*(value for version, value in addresses if version == 4)).v4
    v6 = ValueSet.numbers(*(value for version, value in addresses if version == 6)).v4
    return ValueSet(v4, v6)
