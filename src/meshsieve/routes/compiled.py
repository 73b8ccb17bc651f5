"""Compiles a route configuration: hands it piece by piece to the C++ core (csrc/include/meshsieve/route_table.h)."""

from __future__ import annotations

from typing import Any

from meshsieve import _core
from meshsieve._core import JoinKind, PathKind, RequireTls, TextMatch, TreeKind
from meshsieve.request import Request
from meshsieve.routes.facts import Facts
from meshsieve.routes.http_options import HttpOptions
from meshsieve.routes.model import (
    HeaderMatch,
    OnMatch,
    Predicate,
    Route,
    RouteConfiguration,
    RouteMatch,
    StringMatch,
    Tree,
    host_routes,
)

PATHS = {
    "path": PathKind.path,
    "prefix": PathKind.prefix,
    "path_separated_prefix": PathKind.path_separated_prefix,
    "regex": PathKind.regex,
    "template": PathKind.template,
    "connect": PathKind.connect,
}
TEXTS = {
    "exact": TextMatch.exact,
    "prefix": TextMatch.prefix,
    "suffix": TextMatch.suffix,
    "contains": TextMatch.contains,
    "regex": TextMatch.regex,
}
TLS = {"NONE": RequireTls.NONE, "EXTERNAL_ONLY": RequireTls.EXTERNAL_ONLY, "ALL": RequireTls.ALL}
JOINS = {"and": JoinKind.and_, "or": JoinKind.or_, "not": JoinKind.not_}
TREES = {"exact": TreeKind.exact, "prefix": TreeKind.prefix}

NativeOnMatch = tuple[str, int, bool]


def compile_routes(config: RouteConfiguration, options: HttpOptions) -> tuple[_core.RouteTable, Facts]:
    """The table, whose route numbers are positions in the configuration's order (those of a match tree in order of
    appearance), and the facts that it asks for.

    raises  CompileError for a configuration beyond the table's limits
    """
    compiler = _Compiler(config, options)
    for host in config.virtual_hosts:
        compiler.builder.begin_host(list(host.domains), TLS[host.require_tls])
        for route in host.routes:
            compiler.add(route)
        if host.tree is not None:
            compiler.builder.set_host_tree(compiler.tree(host.tree))
    return compiler.builder.build(), compiler.facts


class _Compiler:
    def __init__(self, config: RouteConfiguration, options: HttpOptions) -> None:
        self.facts = facts_of(config)
        self.builder = _core.RouteTableBuilder(
            _core.NativeHttpOptions(options),
            config.ignore_port,
            config.ignore_path_parameters,
            config.vhost_header,
            self.facts.of([Request()])[0].tolist(),
        )

    def add(self, route: Route) -> None:
        path = route.match.path
        regex = path.template.regex if path.template is not None else path.regex
        conditions = self.conditions(route.match) if _has_conditions(route.match) else []
        self.builder.add_route(PATHS[path.kind], path.value, path.case_sensitive, regex, conditions)

    def conditions(self, match: RouteMatch) -> list[int]:
        builder = self.builder
        out = [self.header(header) for header in match.headers]
        for query in match.queries:
            if query.string is not None:
                out.append(builder.query_text(query.name, self.text(query.string)))
            else:
                out.append(builder.query_present(query.name, query.present))
        out += [builder.cookie_text(c.name, self.text(c.string), c.invert) for c in match.cookies]
        if match.grpc:
            out.append(builder.grpc())
        out += [builder.tls(name == "validated", wanted) for name, wanted in match.tls]
        if match.runtime is not None:
            key = match.runtime.key
            fact = self.facts.number(key) if key else None
            out.append(builder.runtime(fact, match.runtime.numerator, match.runtime.denominator))
        out += [builder.fact(self.facts.number(fact)) for fact in match.metadata]
        out += [builder.fact(self.facts.number(fact)) for fact in match.filter_state]
        return list(dict.fromkeys(out))

    def header(self, match: HeaderMatch) -> int:
        end = (match.invert, match.missing_as_empty)
        if match.kind == "present":
            return self.builder.header_present(match.name, match.present, *end)
        if match.string is not None:
            return self.builder.header_text(match.name, self.text(match.string), *end)
        return self.builder.header_range(match.name, match.start, match.end, *end)

    def text(self, match: StringMatch) -> int:
        return self.builder.text(TEXTS[match.kind], match.value, match.ignore_case, match.regex)

    def tree(self, tree: Tree) -> int:
        """Groups are made in order of appearance, so that route numbers are those of ``Router.routes``."""
        if tree.kind == "list":
            entries = [(self.predicate(predicate), self.on_match(hit)) for predicate, hit in tree.entries]
            return self.builder.tree_list(entries, self._no_match(tree))
        table = [(key, self.on_match(hit)) for key, hit in tree.table.items()]
        return self.builder.tree_map(TREES[tree.kind], tree.input, table, self._no_match(tree))

    def _no_match(self, tree: Tree) -> NativeOnMatch | None:
        return None if tree.no_match is None else self.on_match(tree.no_match)

    def on_match(self, on_match: OnMatch) -> NativeOnMatch:
        if on_match.nested is not None:
            return "tree", self.tree(on_match.nested), on_match.keep
        group = self.builder.begin_group()
        for route in on_match.routes or ():
            self.add(route)
        return "group", group, on_match.keep

    def predicate(self, predicate: Predicate) -> int:
        if predicate.kind == "single":
            assert predicate.string is not None
            return self.builder.tree_text(predicate.input, self.text(predicate.string))
        return self.builder.tree_join(JOINS[predicate.kind], [self.predicate(p) for p in predicate.members])


def _has_conditions(match: RouteMatch) -> bool:
    return bool(
        match.headers
        or match.queries
        or match.cookies
        or match.grpc
        or match.tls
        or match.runtime
        or match.metadata
        or match.filter_state
    )


def facts_of(config: RouteConfiguration) -> Facts:
    """Every fact that a route of the configuration asks for."""
    facts = Facts()
    for host in config.virtual_hosts:
        for route in host_routes(host):
            match = route.match
            fact: Any
            for fact in (*match.metadata, *match.filter_state):
                facts.number(fact)
            if match.runtime is not None and match.runtime.key:
                facts.number(match.runtime.key)
    return facts
