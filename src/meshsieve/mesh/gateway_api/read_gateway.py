"""Reads what listens and what may refer: Gateways, ListenerSets, ReferenceGrants."""

from __future__ import annotations

from collections.abc import Callable

from meshsieve.importers.kubernetes.selectors import selector_test
from meshsieve.importers.typed import Node
from meshsieve.mesh.gateway_api.model import (
    ACCEPTED,
    INVALID_KINDS,
    KINDS_OF,
    RESOLVED,
    Condition,
    Gateway,
    Grant,
    Listener,
    ListenerSet,
    Ref,
)
from meshsieve.mesh.objects import GATEWAY_API, MeshObject

Labels = dict[str, dict[str, str]]
LISTENER_FIELDS = ("name", "hostname", "port", "protocol", "tls", "allowedRoutes")
GATEWAY_FIELDS = (
    "gatewayClassName", "listeners", "addresses", "infrastructure", "backendTLS", "allowedListeners", "tls",
    "defaultScope",
)  # fmt: skip


def read_gateway(found: MeshObject, namespaces: Labels) -> Gateway:
    """``namespaces``: labels by name, for selectors.

    raises  PolicyError
    """
    spec = found.spec.only(*GATEWAY_FIELDS)
    ref = Ref(found.kind, found.namespace, found.name)
    allowed = spec.node("allowedListeners")
    takes = _namespaces(allowed, "None", found.namespace, namespaces) if allowed else _nobody
    return Gateway(
        ref,
        spec.text("gatewayClassName") or "",
        tuple(_listener(found, node, ref, namespaces) for node in spec.nodes("listeners") or []),
        takes,
        spec.text("defaultScope") or "None",
        found.created,
        found.source,
    )


def read_listener_set(found: MeshObject, namespaces: Labels) -> ListenerSet:
    """raises  PolicyError"""
    spec = found.spec.only("parentRef", "listeners")
    parent = spec.node("parentRef")
    if parent is None:
        raise spec.error("is missing", "parentRef")
    parent.only("group", "kind", "namespace", "name")
    gateway = Ref(
        parent.text("kind") or "Gateway", parent.text("namespace") or found.namespace, parent.required_text("name")
    )
    listeners = tuple(_listener(found, node, gateway, namespaces) for node in spec.nodes("listeners") or [])
    return ListenerSet(Ref(found.kind, found.namespace, found.name), gateway, listeners, found.created, found.source)


def read_grant(found: MeshObject) -> Grant:
    """raises  PolicyError"""
    spec = found.spec.only("from", "to")
    sources = []
    for node in spec.nodes("from") or []:
        node.only("group", "kind", "namespace")
        sources.append((node.text("group") or "", node.required_text("kind"), node.required_text("namespace")))
    targets = []
    for node in spec.nodes("to") or []:
        node.only("group", "kind", "name")
        targets.append((node.text("group") or "", node.required_text("kind"), node.text("name")))
    return Grant(found.namespace, tuple(sources), tuple(targets))


def _nobody(namespace: str) -> bool:
    return False


def _namespaces(node: Node | None, default: str, own: str, labels: Labels) -> Callable[[str], bool]:
    """The test that a ``namespaces`` field below ``node`` stands for: from None, Same, All or Selector."""
    field = node.node("namespaces") if node else None
    if field is None:
        return _nobody if default == "None" else lambda name: name == own
    field.only("from", "selector")
    match field.choice("from", ("None", "Same", "All", "Selector"), default):
        case "All":
            return lambda name: True
        case "Same":
            return lambda name: name == own
        case "Selector":
            selector = field.node("selector")
            if selector is None:
                raise field.error("is missing", "selector", "from: Selector needs one")
            fits = selector_test(selector)
            return lambda name: fits(labels.get(name, {}))
    return _nobody


def _listener(found: MeshObject, node: Node, gateway: Ref, namespaces: Labels) -> Listener:
    node.only(*LISTENER_FIELDS)
    protocol = node.required_text("protocol")
    port = node.integer("port", 0, 65535)
    if port is None:
        raise node.error("is missing", "port")
    tls = node.node("tls")
    accepted, resolved = ACCEPTED, RESOLVED
    mode = ""
    if protocol in ("HTTPS", "TLS"):
        mode = tls.choice("mode", ("Terminate", "Passthrough"), "Terminate") if tls else "Terminate"
        accepted = _tls_condition(protocol, mode, tls) or accepted
    key = f"TLS/{mode}" if protocol == "TLS" else protocol
    supported = KINDS_OF.get(key, ())
    if key not in KINDS_OF:
        accepted = Condition(False, "UnsupportedProtocol", f"protocol {protocol} is not known")
    allowed = node.node("allowedRoutes")
    kinds = supported
    if allowed is not None:
        allowed.only("namespaces", "kinds")
        kinds, resolved = _kinds(allowed, supported, resolved)
    return Listener(
        gateway,
        Ref(found.kind, found.namespace, found.name),
        node.required_text("name"),
        port,
        protocol,
        (node.text("hostname") or "").lower(),
        mode,
        kinds,
        _namespaces(allowed, "Same", found.namespace, namespaces),
        found.source_of(node),
        _certificates(tls, found.namespace),
        accepted,
        resolved,
    )


def _certificates(tls: Node | None, namespace: str) -> tuple[tuple[str, str, str, str], ...]:
    out = []
    for ref in (tls.nodes("certificateRefs") if tls else None) or []:
        ref.only("group", "kind", "namespace", "name")
        home = ref.text("namespace") or namespace
        out.append((ref.text("group") or "", ref.text("kind") or "Secret", home, ref.required_text("name")))
    return tuple(out)


def _tls_condition(protocol: str, mode: str, tls: Node | None) -> Condition | None:
    references = (tls.nodes("certificateRefs") if tls else None) or []
    if tls is not None:
        tls.only("mode", "certificateRefs", "options", "frontendValidation")
    if protocol == "HTTPS" and mode == "Passthrough":
        return Condition(False, "Invalid", "an HTTPS listener cannot pass TLS through")
    if mode == "Passthrough" and references:
        return Condition(False, "Invalid", "certificateRefs do not go with TLS mode Passthrough")
    return None


def _kinds(allowed: Node, supported: tuple[str, ...], resolved: Condition) -> tuple[tuple[str, ...], Condition]:
    """The kinds that a listener takes: those that are listed and go with its protocol."""
    wanted = allowed.nodes("kinds")
    if not wanted:
        return supported, resolved
    kinds, bad = [], []
    for node in wanted:
        node.only("group", "kind")
        group, kind = node.text("group"), node.required_text("kind")
        if kind in supported and group in (None, GATEWAY_API):
            kinds.append(kind)
        else:
            bad.append(kind)
    if bad:
        resolved = Condition(False, INVALID_KINDS, f"the protocol does not take {', '.join(bad)}")
    return tuple(kinds), resolved
