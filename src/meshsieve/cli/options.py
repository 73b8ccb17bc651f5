"""Arguments that several verbs share: captures, policies, output, and the words at the end of the line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from meshsieve.errors import UsageError

if TYPE_CHECKING:
    from meshsieve.engine import Engine

_FILE_ENDINGS = (".json", ".yaml", ".yml", ".rules", ".txt", ".pcap", ".pcapng", ".cap", ".gz", ".zst", ".lz4")
# Import settings without a flag of their own (meshsieve.policy.ImportOptions), and their values; None: a number.
_SETTINGS: dict[str, tuple[str, ...] | None] = {
    "with_nat": ("yes", "no"),
    "limits": ("unknown", "always_match", "never_match"),
    "max_rules": None,
    "default_action": ("ALLOW", "DROP", "REJECT"),
    "recompute_groups": ("yes", "no"),
    "chains_down": (),
    "time_zone": (),
    "document_bytes": None,
    "document_nodes": None,
    "host_network_pods": ("node", "pod"),
    "allow_local_node": ("yes", "no"),
}
FORMATS = ("table", "json", "ndjson", "csv", "parquet")
FLOW_FORMATS = (*FORMATS, "ipfix")


def add_capture(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """required: False where a verb takes requests from logs as well (``request_files.add_logs``)."""
    group = parser.add_argument_group("capture")
    group.add_argument(
        "-r",
        dest="captures",
        metavar="CAPTURE",
        nargs="+",
        required=required,
        default=None if required else [],
        action="extend",
        help="pcap or pcapng files, also .gz, .zst and .lz4; several are merged by time; - is standard input",
    )
    group.add_argument("-c", "--count", type=_positive, metavar="COUNT", help="stop after COUNT packets")
    for name, what in (("--since", "from this instant on"), ("--until", "before this instant")):
        group.add_argument(
            name,
            type=_instant,
            metavar="TIME",
            help=f"only packets {what}: 2026-01-31T12:00:00Z (without zone: UTC), or seconds since 1970",
        )
    group.add_argument(
        "--strict-capture",
        action="store_true",
        help="a capture that ends badly is an error at once: an --output file is then not written",
    )
    parser.add_argument(
        "filter", metavar="FILTER", nargs="*", help="tcpdump filter expression; only such packets are seen"
    )


def add_signatures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signatures",
        metavar="FILE",
        help="signatures of your own applications, before the built-in ones (docs/apps.md)",
    )


def add_policy(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """required: False where a verb names its policies in another way, and -p adds to them."""
    group = parser.add_argument_group("policy")
    group.add_argument(
        "-p",
        dest="policies",
        metavar="POLICY",
        nargs="+",
        required=required,
        default=None if required else [],
        action="extend",
        help="NSX exports, iptables-save dumps, Kubernetes policies, ClassBench rules; files, folders, or -",
    )
    group.add_argument(
        "--lenient",
        action="store_true",
        help="keep clauses that cannot be expressed exactly as undecided, instead of refusing the policy",
    )
    group.add_argument(
        "--mode",
        choices=("strict", "upper", "lower"),
        default="strict",
        help="unknown clauses: leave the packet undecided (strict), or take them at the most (upper) or the least "
        "(lower) that can be accepted",
    )
    group.add_argument(
        "--chain", default="auto", help="iptables: the chain to walk (default: by --local, else FORWARD)"
    )
    group.add_argument(
        "--table",
        default="filter",
        help="iptables: the table to judge; all = every table and nft hook in order, with NAT",
    )
    group.add_argument(
        "--local",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="iptables: an address of the host itself; may be repeated",
    )
    group.add_argument(
        "-O",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another import setting, may be repeated: " + ", ".join(_SETTINGS),
    )
    group.add_argument("--iif", metavar="NAME", help="interface by which the traffic comes in, for rules that ask")
    group.add_argument("--oif", metavar="NAME", help="interface by which it goes out")


def add_output(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--format", choices=formats, default="table", help="default: table")
    group.add_argument("--output", metavar="FILE", help="write here instead of to standard output; whole or not at all")
    group.add_argument("--limit", type=_positive, default=40, metavar="N", help="rows that a table shows (default 40)")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise argparse.ArgumentTypeError(f"'{text}' is not a positive number")
    return int(text)


def _instant(text: str) -> int:
    """Nanoseconds since 1970."""
    try:
        if "-" in text[1:]:
            time = datetime.fromisoformat(text)
            since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
            return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
        nanoseconds = int(Decimal(text) * 10**9) if text.isascii() else None
        if nanoseconds is not None and abs(nanoseconds) < 2**63:
            return nanoseconds
    except (ValueError, ArithmeticError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is neither a time such as 2026-01-31T12:00:00Z nor seconds since 1970")


def capture_choice(options: argparse.Namespace, expression: str) -> dict[str, Any]:
    """Which packets are wanted, as ``capture.read`` and ``Engine.classify_pcap`` take it.

    raises   UsageError for a time range that nothing lies in
    """
    if options.since is not None and options.until is not None and options.since >= options.until:
        raise UsageError("--until is not after --since, so no packet lies between; exchange the two times")
    return {
        "filter": expression or None,
        "count": options.count,
        "start_ns": options.since,
        "end_ns": options.until,
        "strict": options.strict_capture,
    }


def take_trailing_words(options: argparse.Namespace, lists: Sequence[str], trailing: str) -> str:
    """The words at the end of the line, out of the list options that swallowed them.

    ``-p nsx.json 'tcp and port 443'`` gives both words to -p. The first word of a list option is always a file; the
    first later one that names nothing that exists begins the trailing words, as do words after any other option.

    raises  UsageError if they stand in two places
    """
    places = [list(getattr(options, trailing) or [])]
    for name in lists:
        words = getattr(options, name)
        end = next((i for i, w in enumerate(words) if i and w != "-" and not os.path.lexists(w)), len(words))
        places.append(words[end:])
        setattr(options, name, words[:end])
    for words in places[1:]:
        if words and _looks_like_file(words[0]):
            raise UsageError(f"'{words[0]}' does not exist (and an expression, which would stand here, it is not)")
    found = [" ".join(words) for words in places if words]
    if len(found) > 1:
        raise UsageError(
            f"'{found[1]}' is neither a file nor, with '{found[0]}', one expression; put it into one place"
        )
    return found[0] if found else ""


def _looks_like_file(word: str) -> bool:
    return word.startswith(("/", "./", "../", "~")) or word.endswith(_FILE_ENDINGS)


def import_settings(words: Sequence[str]) -> dict[str, Any]:
    """The settings of -O as keywords of ImportOptions; chains_down gathers one path a word.

    raises  UsageError for a name or value that is not known
    """
    from meshsieve.policy import Verdict

    out: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _SETTINGS or not equals:
            raise UsageError(f"-O {word}: write NAME=VALUE, with one of {', '.join(_SETTINGS)}")
        allowed = _SETTINGS[name]
        if allowed is None:
            if not (value.isascii() and value.isdigit() and 0 < int(value) < 2**63):
                raise UsageError(f"-O {word}: '{value}' is not a positive number")
            out[name] = int(value)
        elif name == "chains_down":
            out[name] = (*out.get(name, ()), value)
        elif name == "time_zone":
            out[name] = value
        elif value not in allowed:
            raise UsageError(f"-O {word}: the value is one of {', '.join(allowed)}")
        else:
            out[name] = Verdict[value] if name == "default_action" else {"yes": True, "no": False}.get(value, value)
    return out


def load_engine(options: argparse.Namespace) -> Engine:
    """The engine that the policy options ask for; findings go to standard error."""
    from meshsieve.cli.stderr import show_diagnostics
    from meshsieve.engine import load

    # Bounds are exact only if the unfolding knows which fields no packet will carry.
    unseen = () if options.mode == "strict" else tuple(f for f in ("iif", "oif") if getattr(options, f) is None)
    engine = load(
        options.policies,
        strict=not options.lenient,
        mode=options.mode,
        chain=options.chain,
        local_addresses=tuple(options.local),
        unseen=unseen,
        table=options.table,
        **import_settings(options.settings),
    )
    show_diagnostics(engine.diagnostics)
    return engine
