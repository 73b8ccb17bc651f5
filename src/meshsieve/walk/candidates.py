"""Requests worth trying: made of what policies compare a request with, to the ports that a workload serves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

from meshsieve.authz.matrix import METHODS, Caller
from meshsieve.authz.model import HOST, METHOD, PATH, Chain, Clause, Group, Rule, Test, Text
from meshsieve.mesh.services import Service
from meshsieve.mesh.workloads import Workload
from meshsieve.request import Request


def serving_ports(services: Iterable[Service], workload: Workload) -> list[int]:
    """The workload's ports that Services lead to, those of UDP left out."""
    found = set()
    for service in services:
        if service.namespace == workload.namespace and service.selector and workload.selected_by(service.selector):
            for port in service.ports:
                target = port.target if port.target is not None else port.number
                number = workload.ports.get(target) if isinstance(target, str) else target
                if number is not None and port.protocol != "udp":
                    found.add(number)
    return sorted(found)


def candidate_requests(
    chains: Iterable[Chain], caller: Caller, server: Workload, port: int | None
) -> Iterator[Request]:
    """Requests to a workload made of what its policies name: methods, paths, hosts and headers that they compare with,
    and others."""
    texts: dict[str, list[str]] = {"method": [], "path": [], "host": []}
    fields = {METHOD: "method", PATH: "path", HOST: "host"}
    headers: dict[tuple[tuple[str, str], ...], None] = {(): None}
    for test in (t for chain in chains for step in chain.filters for rule in step.rules or () for t in _tests_of(rule)):
        if test.field in fields:
            texts[fields[test.field]] += [_example(m) for m in test.matchers if isinstance(m, Text)]
        elif test.field.kind == "header":
            for matcher in test.matchers:
                value = _example(matcher) if isinstance(matcher, Text) else "x"
                headers[((test.field.key[0], value),)] = None
    authority = f"{server.name}.{server.namespace}" + (f":{port}" if port is not None else "")
    base = Request(
        authority=authority,
        source_ip=caller.addresses[0] if caller.addresses else None,
        destination_ip=server.addresses[0] if server.addresses else None,
        destination_port=port,
        principal=caller.principal,
    )
    methods = dict.fromkeys([*texts["method"], *METHODS])
    paths = dict.fromkeys([*texts["path"], "/"])
    hosts = dict.fromkeys([authority, *texts["host"]])
    for method, path, host, lines in product(methods, paths, hosts, headers):
        target = path if path.startswith("/") else f"/{path}"
        yield replace(base, method=method, path=target, authority=host, headers=lines)


def _tests_of(rule: Rule) -> Iterator[Test]:
    for alternatives in (rule.principals, rule.permissions):
        for conjunction in alternatives:
            for clause in conjunction:
                yield from _tests(clause)


def _tests(clause: Clause) -> Iterator[Test]:
    if isinstance(clause, Test):
        yield clause
    elif isinstance(clause, Group):
        for conjunction in clause.alternatives:
            for inner in conjunction:
                yield from _tests(inner)


def _example(matcher: Text) -> str:
    """A text that the matcher takes."""
    return {"exact": "", "prefix": "x", "suffix": "", "contains": ""}[matcher.op].join((matcher.value, ""))
