"""Reads what a route does: cluster choices, redirects, direct responses, rewrites, header edits.

Fields that change neither the match nor what is returned (timeouts, retries, limits, tracing, ...) are accepted by name
and left unread, except where Envoy refuses a value.
"""

from __future__ import annotations

import re

from meshsieve._core import Regex
from meshsieve.balance.hash_policy import HashPolicy
from meshsieve.errors import BalanceError, ModelError
from meshsieve.routes import formats
from meshsieve.routes.http_options import encoded
from meshsieve.routes.model import (
    DirectResponse,
    Forward,
    HeaderEdit,
    HeaderEdits,
    PathMatch,
    PathRewrite,
    Redirect,
    RegexRewrite,
    WeightedCluster,
)
from meshsieve.routes.proto import Proto, plain
from meshsieve.routes.read_match import extension, regex
from meshsieve.routes.template import parse_rewrite

EDIT_FIELDS = (
    "request_headers_to_add",
    "request_headers_to_remove",
    "response_headers_to_add",
    "response_headers_to_remove",
)
REWRITES = ("prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "path_rewrite")
HOST_REWRITES = (
    "host_rewrite_literal",
    "auto_host_rewrite",
    "host_rewrite_header",
    "host_rewrite_path_regex",
    "host_rewrite",
)
CLUSTERS = (
    "cluster",
    "cluster_header",
    "weighted_clusters",
    "cluster_specifier_plugin",
    "inline_cluster_specifier_plugin",
)
FORWARD_UNREAD = (
    "metadata_match", "append_x_forwarded_host", "timeout", "idle_timeout", "flush_timeout", "early_data_policy",
    "retry_policy_typed_config", "priority", "rate_limits", "include_vh_rate_limits", "cors", "max_grpc_timeout",
    "grpc_timeout_offset", "internal_redirect_action", "max_internal_redirects", "hedge_policy", "max_stream_duration",
)  # fmt: skip
APPEND_ACTIONS = (
    "APPEND_IF_EXISTS_OR_ADD",
    "ADD_IF_ABSENT",
    "OVERWRITE_IF_EXISTS_OR_ADD",
    "OVERWRITE_IF_EXISTS",
)
REDIRECT_CODES = {
    "MOVED_PERMANENTLY": 301,
    "FOUND": 302,
    "SEE_OTHER": 303,
    "TEMPORARY_REDIRECT": 307,
    "PERMANENT_REDIRECT": 308,
}
NOT_FOUND_CODES = {"SERVICE_UNAVAILABLE": 503, "NOT_FOUND": 404, "INTERNAL_SERVER_ERROR": 500}
MAX_WEIGHT = 2**32 - 1
DEFAULT_MAX_BODY = 4096
_DURATION = re.compile(r"-?([0-9]+)(?:\.([0-9]{1,9}))?s\Z", re.ASCII)


def one_line(node: Proto, key: str) -> bytes | None:
    """A text that goes into a header: NUL, CR and LF are refused."""
    if not node.has(key):
        return None
    text = node.string(key)
    if any(c in text for c in "\0\r\n"):
        raise node.error(r"value does not match ^[^\x00\n\r]*$", key)
    return encoded(text)


def header_edits(node: Proto, side: str) -> HeaderEdits:
    """``request_headers_to_*`` or ``response_headers_to_*`` of a message."""
    add = tuple(_edit(option) for option in node.messages(f"{side}_headers_to_add"))
    key = f"{side}_headers_to_remove"
    remove = []
    for name in node.strings(key):
        refuse_protected(node, key, name)
        remove.append(encoded(name).lower())
    return HeaderEdits(add, tuple(remove))


def refuse_protected(node: Proto, key: str, name: str) -> None:
    if name.startswith(":") or name.lower() == "host":
        raise node.error(f":-prefixed or host headers may not be modified ({name})", key)


def _edit(option: Proto) -> HeaderEdit:
    option.only("header", "append", "append_action", "keep_empty_value")
    header = option.message("header")
    if header is None:
        raise option.error("value is required", "header")
    header.only("key", "value", "raw_value")
    name, value = header.string("key"), header.string("value")
    if not name:
        raise header.error("value length must be at least 1 character", "key")
    refuse_protected(header, "key", name)
    try:
        formats.check(value, "header")
    except ModelError as error:
        raise header.error(str(error), "value") from None
    # `append` is the older spelling: true appends, false overwrites.
    default = APPEND_ACTIONS[0] if option.flag("append", True) else APPEND_ACTIONS[2]
    action = option.enum("append_action", APPEND_ACTIONS, default)
    return HeaderEdit(encoded(name).lower(), value, action, option.flag("keep_empty_value"))


def regex_rewrite(node: Proto, key: str) -> RegexRewrite:
    message = node.message(key)
    assert message is not None
    message.only("pattern", "substitution")
    if message.message("pattern") is None:
        raise message.error("value is required", "pattern")
    pattern: Regex = regex(message, "pattern")
    substitution = one_line(message, "substitution") or b""
    try:
        pattern.check_substitution(substitution)
    except ModelError as error:
        raise message.error(str(error), "substitution") from None
    return RegexRewrite(pattern, substitution)


def format_text(node: Proto, key: str) -> str:
    """A rewrite given as a format string."""
    text = node.string(key)
    try:
        formats.check(text, "rewrite")
    except ModelError as error:
        raise node.error(str(error), key) from None
    return text


def path_rewrite(node: Proto, match: PathMatch, keys: tuple[str, ...]) -> PathRewrite:
    kind = node.one_of(*keys)
    if kind is None:
        return PathRewrite()
    if kind == "prefix_rewrite":
        if match.kind == "template":
            raise node.error("cannot be used with path_match_policy", kind)
        prefix = one_line(node, kind)
        return PathRewrite(prefix=prefix) if prefix else PathRewrite()
    if kind == "regex_rewrite":
        return PathRewrite(regex=regex_rewrite(node, kind))
    if kind == "path_rewrite":
        return PathRewrite(text=format_text(node, kind))
    message = node.message(kind)
    assert message is not None
    config = extension(message, "uri_template", "UriTemplateRewriteConfig")
    config.only("@type", "path_template_rewrite")
    if match.template is None:
        raise node.error("needs a path_match_policy of the same kind", kind)
    try:
        rewrite = parse_rewrite(config.string("path_template_rewrite"), match.template)
    except ModelError as error:
        raise config.error(str(error), "path_template_rewrite") from None
    return PathRewrite(template=rewrite)


def forward(node: Proto, match: PathMatch) -> Forward:
    """A RouteAction."""
    node.only(
        *CLUSTERS, *REWRITES, *HOST_REWRITES, *FORWARD_UNREAD, "cluster_not_found_response_code", "retry_policy",
        "request_mirror_policies", "hash_policy", "upgrade_configs", "internal_redirect_policy",
    )  # fmt: skip
    kind = node.one_of(*CLUSTERS, required=True)
    assert kind is not None
    _check_retry(node)
    _check_upgrades(node)
    _check_internal_redirect(node)
    code = node.enum("cluster_not_found_response_code", tuple(NOT_FOUND_CODES), "SERVICE_UNAVAILABLE")
    host = node.one_of(*HOST_REWRITES)
    weighted: tuple[WeightedCluster, ...] = ()
    weight_header, by_hash = None, False
    if kind == "weighted_clusters":
        weighted, weight_header, by_hash = _weighted(node)
    name = node.string("cluster") if kind == "cluster" else None
    if name == "":
        raise node.error("value length must be at least 1 character", "cluster")
    header = one_line(node, "cluster_header")
    if header == b"":
        raise node.error("value length must be at least 1 character", "cluster_header")
    host_header = one_line(node, "host_rewrite_header")
    return Forward(
        name,
        header.lower() if header else None,
        weighted,
        weight_header,
        by_hash,
        kind if kind.endswith("plugin") else None,
        NOT_FOUND_CODES[code],
        path_rewrite(node, match, REWRITES),
        one_line(node, "host_rewrite_literal"),
        host_header.lower() if host_header else None,
        regex_rewrite(node, "host_rewrite_path_regex") if host == "host_rewrite_path_regex" else None,
        format_text(node, "host_rewrite") if host == "host_rewrite" else None,
        node.flag("auto_host_rewrite"),
        tuple(mirror(m) for m in node.messages("request_mirror_policies")),
        _hash_policy(node),
    )


def _weighted(node: Proto) -> tuple[tuple[WeightedCluster, ...], bytes | None, bool]:
    message = node.message("weighted_clusters")
    assert message is not None
    message.only("clusters", "total_weight", "runtime_key_prefix", "header_name", "use_hash_policy")
    message.one_of("header_name", "use_hash_policy")
    entries = message.messages("clusters")
    if not entries:
        raise message.error("must contain at least 1 item", "clusters")
    clusters = tuple(_weighted_cluster(e) for e in entries)
    total = sum(c.weight for c in clusters)
    if not 0 < total <= MAX_WEIGHT:
        raise message.error(f"the sum of weights is {total}; it must be in 1..{MAX_WEIGHT}", "clusters")
    header = one_line(message, "header_name")
    return clusters, header.lower() if header else None, message.flag("use_hash_policy")


def _weighted_cluster(node: Proto) -> WeightedCluster:
    node.only(
        "name",
        "cluster_header",
        "weight",
        "metadata_match",
        "typed_per_filter_config",
        "host_rewrite_literal",
        *EDIT_FIELDS,
    )
    name, header = node.string("name"), one_line(node, "cluster_header") or b""
    if bool(name) == bool(header):
        raise node.error("exactly one of name and cluster_header must be given")
    weight = node.whole("weight", 0, MAX_WEIGHT)
    if weight is None:
        raise node.error("field is missing", "weight")
    return WeightedCluster(
        name,
        header.lower(),
        weight,
        header_edits(node, "request"),
        header_edits(node, "response"),
        one_line(node, "host_rewrite_literal") or None,
    )


def mirror(node: Proto) -> tuple[str, bytes]:
    """A request mirror policy: cluster name or cluster header."""
    node.only("cluster", "cluster_header", "runtime_fraction", "trace_sampled", "disable_shadow_host_suffix_append",
              "request_headers_mutations", "host_rewrite_literal")  # fmt: skip
    name, header = node.string("cluster"), one_line(node, "cluster_header") or b""
    if bool(name) == bool(header):
        raise node.error("exactly one of cluster and cluster_header must be given")
    return name, header.lower()


def _hash_policy(node: Proto) -> tuple[HashPolicy, ...]:
    entries = node.messages("hash_policy")
    if not entries:
        return ()
    try:
        return (HashPolicy.from_envoy([plain(e.data) for e in entries]),)
    except BalanceError as error:
        raise node.error(str(error), "hash_policy") from None


def _duration(node: Proto, key: str) -> float | None:
    if not node.has(key):
        return None
    found = _DURATION.match(node.string(key))
    if found is None:
        raise node.error(f"expected a duration such as 1.5s, got {node.value(key)!r}", key)
    return float(node.string(key)[:-1])


def _check_retry(node: Proto) -> None:
    policy = node.message("retry_policy")
    back_off = policy.message("retry_back_off") if policy is not None else None
    if back_off is None:
        return
    base, longest = _duration(back_off, "base_interval"), _duration(back_off, "max_interval")
    if base is not None and longest is not None and longest < base:
        raise back_off.error("must be greater than or equal to the base_interval", "max_interval")


def _check_upgrades(node: Proto) -> None:
    seen: set[str] = set()
    for config in node.messages("upgrade_configs"):
        config.only("upgrade_type", "enabled", "connect_config")
        name = config.string("upgrade_type")
        if not name:
            raise config.error("value length must be at least 1 character", "upgrade_type")
        if name.lower() in seen:
            raise config.error(f"{name} is given twice", "upgrade_type")
        seen.add(name.lower())
        if config.has("connect_config") and name.upper() not in ("CONNECT", "CONNECT-UDP"):
            raise config.error(f"does not go with the upgrade type {name}", "connect_config")


def _check_internal_redirect(node: Proto) -> None:
    policy = node.message("internal_redirect_policy")
    for name in policy.strings("response_headers_to_copy") if policy is not None else []:
        assert policy is not None
        refuse_protected(policy, "response_headers_to_copy", name)


def redirect(node: Proto, match: PathMatch) -> Redirect:
    """A RedirectAction."""
    paths = ("path_redirect", "prefix_rewrite", "regex_rewrite", "path_rewrite")
    node.only(
        "https_redirect", "scheme_redirect", "host_redirect", "port_redirect", *paths, "response_code", "strip_query"
    )
    node.one_of("https_redirect", "scheme_redirect")
    node.one_of(*paths)
    path = one_line(node, "path_redirect")
    return Redirect(
        node.flag("https_redirect"),
        node.string("scheme_redirect") or None,
        one_line(node, "host_redirect") or None,
        node.whole("port_redirect", 0, 65535) or None,
        path or None,
        path_rewrite(node, match, ("prefix_rewrite", "regex_rewrite", "path_rewrite")),
        node.flag("strip_query"),
        REDIRECT_CODES[node.enum("response_code", tuple(REDIRECT_CODES), "MOVED_PERMANENTLY")],
    )


def direct_response(node: Proto, largest: int) -> DirectResponse:
    """A DirectResponseAction; ``largest`` bytes of body are allowed."""
    node.only("status", "body", "body_format")
    status = node.whole("status", 200, 599)
    if status is None:
        raise node.error("value must be inside range [200, 600)", "status")
    body = node.message("body")
    text = b""
    if body is not None:
        body.only("filename", "inline_bytes", "inline_string", "environment_variable", "watched_directory")
        body.one_of("filename", "inline_bytes", "inline_string", "environment_variable", required=True)
        text = encoded(body.string("inline_string"))
        if len(text) > largest:
            raise body.error(f"response body size is {len(text)} bytes; maximum is {largest}")
    return DirectResponse(status, text)
