"""The route table as data: what Envoy's RouteConfiguration says, read once, with where it stands.

Text is bytes, as Envoy compares it. Order is kept: the first route whose match holds wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from meshsieve._core import Regex
from meshsieve.model import Source
from meshsieve.routes.template import RewriteTemplate, Template

NOWHERE = Source()


@dataclass(frozen=True, slots=True)
class StringMatch:
    kind: Literal["exact", "prefix", "suffix", "contains", "regex"]
    value: bytes
    regex: Regex | None = None
    ignore_case: bool = False

    def holds(self, text: bytes) -> bool:
        if self.regex is not None:
            return self.regex.full_match(text)
        wanted = self.value
        if self.ignore_case:
            text, wanted = text.lower(), wanted.lower()
        match self.kind:
            case "exact":
                return text == wanted
            case "prefix":
                return text.startswith(wanted)
            case "suffix":
                return text.endswith(wanted)
            case _:
                return wanted in text


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """``kind``: present (``present`` says which way), string, or range [start, end)."""

    name: bytes
    kind: Literal["present", "string", "range"]
    present: bool = True
    string: StringMatch | None = None
    start: int = 0
    end: int = 0
    invert: bool = False
    missing_as_empty: bool = False


@dataclass(frozen=True, slots=True)
class QueryMatch:
    name: bytes
    string: StringMatch | None = None
    present: bool = True


@dataclass(frozen=True, slots=True)
class CookieMatch:
    name: bytes
    string: StringMatch
    invert: bool = False


@dataclass(frozen=True, slots=True)
class ValueMatch:
    """A MetadataMatcher's value. kind: null, exact (double), range, string, bool, present, list, or."""

    kind: str
    value: Any = None
    string: StringMatch | None = None
    members: tuple[ValueMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class MetadataMatch:
    filter: str
    path: tuple[str, ...]
    value: ValueMatch
    invert: bool = False


@dataclass(frozen=True, slots=True)
class FilterStateMatch:
    """``ranges``: (IP version, low, high) of address_match."""

    key: str
    string: StringMatch | None = None
    ranges: tuple[tuple[int, int, int], ...] = ()
    invert_ranges: bool = False


@dataclass(frozen=True, slots=True)
class RuntimeFraction:
    key: str
    numerator: int
    denominator: int


@dataclass(frozen=True, slots=True)
class PathMatch:
    kind: Literal["prefix", "path", "regex", "path_separated_prefix", "connect", "template"]
    value: bytes = b""
    regex: Regex | None = None
    template: Template | None = None
    case_sensitive: bool = True


@dataclass(frozen=True, slots=True)
class RouteMatch:
    path: PathMatch
    headers: tuple[HeaderMatch, ...] = ()
    queries: tuple[QueryMatch, ...] = ()
    cookies: tuple[CookieMatch, ...] = ()
    grpc: bool = False
    tls: tuple[tuple[str, bool], ...] = ()
    runtime: RuntimeFraction | None = None
    metadata: tuple[MetadataMatch, ...] = ()
    filter_state: tuple[FilterStateMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """append: APPEND_IF_EXISTS_OR_ADD, ADD_IF_ABSENT, OVERWRITE_IF_EXISTS_OR_ADD, OVERWRITE_IF_EXISTS."""

    name: bytes
    value: str
    append: str
    keep_empty: bool = False


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    add: tuple[HeaderEdit, ...] = ()
    remove: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class RegexRewrite:
    regex: Regex
    substitution: bytes


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """At most one is set. ``text`` is a format string."""

    prefix: bytes | None = None
    regex: RegexRewrite | None = None
    template: RewriteTemplate | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class WeightedCluster:
    """``instead``: what answers for this share in place of a cluster, as Gateway API's backends may (a redirect, or 500
    for a backend that does not exist)."""

    name: str
    cluster_header: bytes
    weight: int
    edits: HeaderEdits = HeaderEdits()
    response_edits: HeaderEdits = HeaderEdits()
    host_rewrite: bytes | None = None
    instead: Redirect | DirectResponse | Forward | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """``route``: to a cluster by name, by header, or by weight."""

    cluster: str | None = None
    cluster_header: bytes | None = None
    weighted: tuple[WeightedCluster, ...] = ()
    weight_header: bytes | None = None
    weight_by_hash: bool = False
    plugin: str | None = None
    not_found_status: int = 503
    rewrite: PathRewrite = PathRewrite()
    host_literal: bytes | None = None
    host_header: bytes | None = None
    host_path_regex: RegexRewrite | None = None
    host_text: str | None = None
    auto_host: bool = False
    mirrors: tuple[Any, ...] = ()
    hash_policy: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirect:
    """``port`` 0: without a port, whatever the request's authority says."""

    https: bool = False
    scheme: str | None = None
    host: bytes | None = None
    port: int | None = None
    path: bytes | None = None
    rewrite: PathRewrite = PathRewrite()
    strip_query: bool = False
    status: int = 301


@dataclass(frozen=True, slots=True)
class DirectResponse:
    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class OtherAction:
    """filter_action or non_forwarding_action."""

    kind: str


Action = Forward | Redirect | DirectResponse | OtherAction


@dataclass(frozen=True, slots=True)
class Route:
    """``settings``: what happens to a request on its way, as data in the words of the source: timeout, retries, fault,
    mirrors, CORS and the like."""

    name: str
    match: RouteMatch
    action: Action
    edits: HeaderEdits = HeaderEdits()
    response_edits: HeaderEdits = HeaderEdits()
    source: Source = NOWHERE
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


# A node of a match tree (VirtualHost.matcher).


@dataclass(frozen=True, slots=True)
class OnMatch:
    """Either routes (``Route`` or ``RouteList``) or a nested tree. ``keep``: go on looking after a hit."""

    routes: tuple[Route, ...] | None = None
    nested: Tree | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Predicate:
    """kind: single (header input and string), and, or, not."""

    kind: str
    input: bytes = b""
    string: StringMatch | None = None
    members: tuple[Predicate, ...] = ()


@dataclass(frozen=True, slots=True)
class Tree:
    """kind: list (``entries`` in order), exact or prefix (``table`` by the input header's value)."""

    kind: Literal["list", "exact", "prefix"]
    entries: tuple[tuple[Predicate, OnMatch], ...] = ()
    input: bytes = b""
    table: dict[bytes, OnMatch] = field(default_factory=dict)
    no_match: OnMatch | None = None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    name: str
    domains: tuple[bytes, ...]
    routes: tuple[Route, ...]
    tree: Tree | None = None
    require_tls: Literal["NONE", "EXTERNAL_ONLY", "ALL"] = "NONE"
    virtual_clusters: tuple[tuple[str, tuple[HeaderMatch, ...]], ...] = ()
    edits: HeaderEdits = HeaderEdits()
    response_edits: HeaderEdits = HeaderEdits()
    source: Source = NOWHERE


@dataclass(frozen=True, slots=True)
class RouteConfiguration:
    name: str
    virtual_hosts: tuple[VirtualHost, ...]
    ignore_port: bool = False
    ignore_path_parameters: bool = False
    vhost_header: bytes | None = None
    most_specific_edits_win: bool = False
    edits: HeaderEdits = HeaderEdits()
    response_edits: HeaderEdits = HeaderEdits()


def host_routes(host: VirtualHost) -> Iterator[Route]:
    """The routes of a virtual host in order; those of its match tree in order of appearance."""
    yield from host.routes
    if host.tree is not None:
        yield from _tree_routes(host.tree)


def _tree_routes(tree: Tree) -> Iterator[Route]:
    for on_match in (*(hit for _, hit in tree.entries), *tree.table.values(), tree.no_match):
        if on_match is not None:
            yield from on_match.routes or ()
            if on_match.nested is not None:
                yield from _tree_routes(on_match.nested)
