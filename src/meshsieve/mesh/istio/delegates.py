"""Delegates: a root VirtualService hands paths to other VirtualServices, whose rules are merged into it.

    root rule   match /a, delegate x/d       delegate x/d   match /a/b -> B; match /c -> C
    merged      match /a/b -> B              (/c conflicts with /a, so that rule is dropped)

Each match of the delegate is combined with every match of the root that it does not conflict with; a match that
conflicts with all of them drops the delegate's whole rule. Of actions and settings the delegate's own go first.
Source: istio/istio pilot/pkg/model/virtualservice.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from meshsieve.mesh.istio.model import HttpMatch, HttpRule, StringTest, VirtualService
from meshsieve.policy import Diagnostic


def merge(services: Iterable[VirtualService], findings: list[Diagnostic]) -> list[VirtualService]:
    """Services without delegates in their order, then the merged roots in theirs. ``findings`` collects what is
    dropped: delegates that do not exist or are not exported, and rules that conflict."""
    services = list(services)
    delegates = {(s.namespace, s.name): s for s in services if not s.hosts}
    roots = [s for s in services if s.hosts and any(rule.delegate for rule in s.http)]
    plain = [s for s in services if s.hosts and s not in roots]
    used = {rule.delegate for root in roots for rule in root.http if rule.delegate}
    for key, unused in delegates.items():
        if key not in used:
            findings.append(
                _finding("unused-delegate", unused, "no root delegates to it, so its rules take part in nothing")
            )
    return plain + [replace(root, http=tuple(_merged_rules(root, delegates, findings))) for root in roots]


def _merged_rules(
    root: VirtualService, delegates: dict[tuple[str, str], VirtualService], findings: list[Diagnostic]
) -> Iterator[HttpRule]:
    for rule in root.http:
        if rule.delegate is None:
            yield rule
            continue
        name = "/".join(rule.delegate)
        delegate = delegates.get(rule.delegate)
        if delegate is None:
            findings.append(
                _finding("delegate-not-found", root, f"delegate {name} does not exist; the rule is ignored")
            )
            continue
        scopes = delegate.export_to or ("*",)
        own = "." in scopes and delegate.namespace == root.namespace
        if not ("*" in scopes or root.namespace in scopes or own):
            text = f"delegate {name} is not exported to {root.namespace}; the rule is ignored"
            findings.append(_finding("delegate-not-exported", root, text))
            continue
        for below in delegate.http:
            merged = merge_rule(rule, below)
            if merged is None:
                text = f"a match conflicts with every match of root {root.key}; the rule is dropped"
                findings.append(Diagnostic("delegate-conflict", text, str(below.source), delegate.object.title))
            else:
                yield merged


def _finding(code: str, at: VirtualService, text: str) -> Diagnostic:
    return Diagnostic(code, text, at.object.where, at.object.title)


def merge_rule(root: HttpRule, delegate: HttpRule) -> HttpRule | None:
    """None if they conflict."""
    matches = _merged_matches(root.matches, delegate.matches)
    if matches is None:
        return None
    return replace(
        delegate,
        matches=matches,
        name="-".join(part for part in (root.name, delegate.name) if part),
        rewrite=delegate.rewrite or root.rewrite,
        mirrors=delegate.mirrors or root.mirrors,
        headers=delegate.headers or root.headers,
        settings={**root.settings, **delegate.settings},
    )


def _merged_matches(roots: tuple[HttpMatch, ...], delegates: tuple[HttpMatch, ...]) -> tuple[HttpMatch, ...] | None:
    if not roots or not delegates:
        return roots or delegates
    out = []
    for below in delegates:
        fitting = [root for root in roots if not conflict(root, below)]
        if not fitting:
            return None
        out += [_merged_match(root, below) for root in fitting]
    return tuple(out)


def _merged_match(root: HttpMatch, below: HttpMatch) -> HttpMatch:
    return replace(
        below,
        name="-".join(part for part in (root.name, below.name) if part),
        uri=below.uri or root.uri,
        scheme=below.scheme or root.scheme,
        method=below.method or root.method,
        authority=below.authority or root.authority,
        headers={**root.headers, **below.headers},
        without_headers={**root.without_headers, **below.without_headers},
        query={**root.query, **below.query},
        port=below.port or root.port,
        source_labels={**root.source_labels, **below.source_labels},
        source_namespace=below.source_namespace or root.source_namespace,
        gateways=below.gateways or root.gateways,
        stat_prefix=below.stat_prefix or root.stat_prefix,
    )


def conflict(root: HttpMatch, below: HttpMatch) -> bool:
    pairs = [
        (root.uri, below.uri),
        (root.scheme, below.scheme),
        (root.method, below.method),
        (root.authority, below.authority),
    ]
    for upper, lower in (
        (root.headers, below.headers),
        (root.without_headers, below.without_headers),
        (root.query, below.query),
    ):
        pairs += [(upper.get(key), value) for key, value in lower.items()]
    return (
        any(_text_conflict(upper, lower) for upper, lower in pairs)
        or root.ignore_uri_case != below.ignore_uri_case
        or bool(root.port and below.port and root.port != below.port)
        or bool(root.source_namespace and below.source_namespace != root.source_namespace)
        or any(root.source_labels.get(key, value) != value for key, value in below.source_labels.items())
        or bool(root.gateways and below.gateways and not set(below.gateways) <= set(root.gateways))
    )


def _text_conflict(root: StringTest | None, below: StringTest | None) -> bool:
    """Whether the delegate's text is not surely within the root's; regular expressions never are."""
    if root is None or below is None:
        return False
    if "regex" in (root.kind, below.kind) or not root.value or not below.value:
        return True
    if root.kind == "exact":
        return below != root
    return not below.value.startswith(root.value)
