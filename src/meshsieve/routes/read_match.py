"""Reads route matches: path specifiers, headers, query parameters, cookies and the rest of Envoy's RouteMatch."""

from __future__ import annotations

import ipaddress

from meshsieve._core import Regex
from meshsieve.errors import ModelError
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import (
    CookieMatch,
    FilterStateMatch,
    HeaderMatch,
    MetadataMatch,
    PathMatch,
    QueryMatch,
    RouteMatch,
    RuntimeFraction,
    StringMatch,
    ValueMatch,
)
from meshsieve.routes.proto import Proto
from meshsieve.routes.template import parse_template

INT64 = (-(2**63), 2**63 - 1)
DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
PATHS = ("prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "path_match_policy")
MATCH_FIELDS = (
    *PATHS, "case_sensitive", "runtime_fraction", "headers", "query_parameters", "cookies", "grpc", "tls_context",
    "dynamic_metadata", "filter_state",
)  # fmt: skip


def regex(node: Proto, key: str) -> Regex:
    """A RegexMatcher."""
    message = node.message(key)
    assert message is not None
    message.only("regex", "google_re2")
    text = message.string("regex")
    if not text:
        raise message.error("value length must be at least 1 character", "regex")
    try:
        return Regex(encoded(text))
    except ModelError as error:
        raise message.error(str(error), "regex") from None


def string_match(node: Proto) -> StringMatch:
    """A StringMatcher."""
    node.only("exact", "prefix", "suffix", "safe_regex", "contains", "custom", "ignore_case")
    kind = node.one_of("exact", "prefix", "suffix", "safe_regex", "contains", "custom", required=True)
    ignore_case = node.flag("ignore_case")
    if kind == "custom":
        raise node.error("is an extension that is not known here", "custom")
    if kind == "safe_regex":
        if ignore_case:
            raise node.error("has no effect for safe_regex and is refused; write (?i)", "ignore_case")
        found = regex(node, "safe_regex")
        return StringMatch("regex", found.pattern, found)
    assert kind is not None
    text = node.string(kind)
    if not text and kind != "exact":
        raise node.error("value length must be at least 1 character", kind)
    return StringMatch(kind, encoded(text), None, ignore_case)  # type: ignore[arg-type]


OLD_HEADER_MATCHES = {
    "exact_match": "exact",
    "prefix_match": "prefix",
    "suffix_match": "suffix",
    "contains_match": "contains",
}


def header_match(node: Proto) -> HeaderMatch:
    """A HeaderMatcher."""
    kinds = (*OLD_HEADER_MATCHES, "safe_regex_match", "range_match", "present_match", "string_match")
    node.only("name", *kinds, "invert_match", "treat_missing_header_as_empty")
    kind = node.one_of(*kinds)
    name = node.string("name")
    if not name:
        raise node.error("value length must be at least 1 character", "name")
    if any(c in name for c in "\0\r\n"):
        raise node.error("holds NUL, CR or LF", "name")
    options = {
        "name": encoded(name).lower(),
        "invert": node.flag("invert_match"),
        "missing_as_empty": node.flag("treat_missing_header_as_empty"),
    }
    if kind is None or kind == "present_match":
        return HeaderMatch(kind="present", present=node.flag("present_match", True), **options)  # type: ignore[arg-type]
    if kind == "range_match":
        span = node.message("range_match")
        assert span is not None
        span.only("start", "end")
        start, end = (span.whole(k, *INT64, default=0) for k in ("start", "end"))
        return HeaderMatch(kind="range", start=start, end=end, **options)  # type: ignore[arg-type]
    if kind == "string_match":
        message = node.message("string_match")
        assert message is not None
        return HeaderMatch(kind="string", string=string_match(message), **options)  # type: ignore[arg-type]
    if kind == "safe_regex_match":
        found = regex(node, kind)
        return HeaderMatch(kind="string", string=StringMatch("regex", found.pattern, found), **options)  # type: ignore[arg-type]
    text = node.string(kind)
    if not text and kind != "exact_match":
        raise node.error("value length must be at least 1 character", kind)
    if not text:  # measured: the deprecated empty exact_match takes any present value
        return HeaderMatch(kind="present", **options)  # type: ignore[arg-type]
    string = StringMatch(OLD_HEADER_MATCHES[kind], encoded(text))  # type: ignore[arg-type]
    return HeaderMatch(kind="string", string=string, **options)  # type: ignore[arg-type]


def route_match(node: Proto) -> RouteMatch:
    """A RouteMatch."""
    node.only(*MATCH_FIELDS)
    kind = node.one_of(*PATHS, required=True)
    assert kind is not None
    tls = node.message("tls_context")
    if tls is not None:
        tls.only("presented", "validated")
    return RouteMatch(
        _path(node, kind),
        tuple(header_match(h) for h in node.messages("headers")),
        tuple(_query(q) for q in node.messages("query_parameters")),
        tuple(_cookie(c) for c in node.messages("cookies")),
        node.message("grpc") is not None,
        tuple((k, tls.flag(k)) for k in ("presented", "validated") if tls.has(k)) if tls else (),
        _runtime(node),
        tuple(metadata_match(m) for m in node.messages("dynamic_metadata")),
        tuple(filter_state_match(m) for m in node.messages("filter_state")),
    )


def _path(node: Proto, kind: str) -> PathMatch:
    case_sensitive = node.flag("case_sensitive", True)
    if kind == "connect_matcher":
        return PathMatch("connect")
    if kind == "safe_regex":
        found = regex(node, kind)
        return PathMatch("regex", found.pattern, found)
    if kind == "path_match_policy":
        message = node.message(kind)
        assert message is not None
        config = extension(message, "uri_template", "UriTemplateMatchConfig")
        config.only("@type", "path_template")
        try:
            template = parse_template(config.string("path_template"))
        except ModelError as error:
            raise config.error(str(error), "path_template") from None
        return PathMatch("template", encoded(template.text), None, template)
    text = node.string(kind)
    if kind == "path_separated_prefix" and (
        len(text) < 2 or "?" in text or "#" in text or text.endswith("/") or "\n" in text
    ):
        raise node.error("must match ^[^?#]+[^?#/]$", kind)
    return PathMatch(kind, encoded(text), case_sensitive=case_sensitive)  # type: ignore[arg-type]


def extension(node: Proto, name: str, message_type: str) -> Proto:
    """The typed_config of a TypedExtensionConfig of one known type."""
    node.only("name", "typed_config")
    config = node.message("typed_config")
    found = config.string("@type") if config is not None else ""
    if config is None or not found.endswith("." + message_type):
        raise node.error(f"expected {name} ({message_type}), got {found or 'nothing'}", "typed_config")
    return config


def _query(node: Proto) -> QueryMatch:
    node.only("name", "string_match", "present_match")
    node.one_of("string_match", "present_match")
    name = node.string("name")
    if not name:
        raise node.error("value length must be at least 1 character", "name")
    message = node.message("string_match")
    return QueryMatch(encoded(name), string_match(message) if message else None, node.flag("present_match", True))


def _cookie(node: Proto) -> CookieMatch:
    node.only("name", "string_match", "invert_match")
    message = node.message("string_match")
    if message is None:
        raise node.error("value is required", "string_match")
    name = node.string("name")
    if not name:
        raise node.error("value length must be at least 1 character", "name")
    return CookieMatch(encoded(name), string_match(message), node.flag("invert_match"))


def _runtime(node: Proto) -> RuntimeFraction | None:
    message = node.message("runtime_fraction")
    if message is None:
        return None
    message.only("default_value", "runtime_key")
    fraction = message.message("default_value")
    if fraction is None:
        raise message.error("value is required", "default_value")
    fraction.only("numerator", "denominator")
    denominator = fraction.enum("denominator", tuple(DENOMINATORS), "HUNDRED")
    numerator = fraction.whole("numerator", 0, 2**32 - 1, 0) or 0
    return RuntimeFraction(message.string("runtime_key"), numerator, DENOMINATORS[denominator])


def metadata_match(node: Proto) -> MetadataMatch:
    """A MetadataMatcher."""
    node.only("filter", "path", "value", "invert")
    path = []
    for segment in node.messages("path"):
        segment.only("key")
        path.append(segment.string("key"))
    value = node.message("value")
    if value is None or not path or not node.string("filter"):
        raise node.error("needs filter, path and value")
    return MetadataMatch(node.string("filter"), tuple(path), _value(value), node.flag("invert"))


def _value(node: Proto) -> ValueMatch:
    kinds = ("null_match", "double_match", "string_match", "bool_match", "present_match", "list_match", "or_match")
    kind = node.only(*kinds).one_of(*kinds, required=True)
    match kind:
        case "null_match":
            return ValueMatch("null")
        case "bool_match" | "present_match":
            return ValueMatch(kind.removesuffix("_match"), node.flag(kind))
        case "string_match":
            message = node.message(kind)
            assert message is not None
            return ValueMatch("string", None, string_match(message))
        case "double_match":
            return _double(node)
        case "list_match":
            message = node.message(kind)
            assert message is not None
            inner = message.only("one_of").message("one_of")
            if inner is None:
                raise message.error("value is required", "one_of")
            return ValueMatch("list", members=(_value(inner),))
    message = node.message("or_match")
    assert message is not None
    members = message.only("value_matchers").messages("value_matchers")
    if len(members) < 2:
        raise message.error("needs at least 2 items", "value_matchers")
    return ValueMatch("or", members=tuple(_value(m) for m in members))


def _double(node: Proto) -> ValueMatch:
    message = node.message("double_match")
    assert message is not None
    kind = message.only("exact", "range").one_of("exact", "range", required=True)
    if kind == "exact":
        return ValueMatch("exact", _number(message, "exact"))
    span = message.message("range")
    assert span is not None
    span.only("start", "end")
    return ValueMatch("range", (_number(span, "start"), _number(span, "end")))


def _number(node: Proto, key: str) -> float:
    value = node.value(key)
    if value is None:
        return 0.0
    try:
        return float(value)
    except (TypeError, ValueError):
        raise node.error(f"expected a number, got {value!r}", key) from None


def filter_state_match(node: Proto) -> FilterStateMatch:
    """A FilterStateMatcher."""
    node.only("key", "string_match", "address_match")
    kind = node.one_of("string_match", "address_match", required=True)
    key = node.string("key")
    if not key:
        raise node.error("value length must be at least 1 character", "key")
    message = node.message(kind or "")
    assert message is not None
    if kind == "string_match":
        return FilterStateMatch(key, string_match(message))
    message.only("ranges", "invert_match")
    return FilterStateMatch(
        key, None, tuple(cidr_range(r) for r in message.messages("ranges")), message.flag("invert_match")
    )


def cidr_range(node: Proto) -> tuple[int, int, int]:
    """(IP version, low, high) of a CidrRange; bits below the prefix are ignored, as Envoy does."""
    node.only("address_prefix", "prefix_len")
    text = node.string("address_prefix")
    try:
        version = ipaddress.ip_address(text).version
        length = node.whole("prefix_len", 0, 32 if version == 4 else 128, 0)
        net = ipaddress.ip_network(f"{text}/{length}", strict=False)
    except ValueError as error:
        raise node.error(str(error), "address_prefix") from None
    return version, int(net.network_address), int(net.broadcast_address)
