"""Golden cases of importers: ``tests/golden/FORMAT/CASE/`` holds what goes in and what must come out.

    input.*  or  input/     configuration, as files of any name
    options.json            fields of ImportOptions (optional)
    expected.rules          every point's rules as text, or the error
    expected.unsupported    the diagnostics, one a line

``pytest tests/golden --regen`` rewrites what is expected; the review is the diff. A case named ``wrong-...`` must be
refused.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

from meshsieve import _core
from meshsieve.errors import PolicyError
from meshsieve.importers import load_policy
from meshsieve.model import Action, Match, Rule, RuleSet, ValueSet
from meshsieve.policy import ImportOptions, Point

ROOT = Path(__file__).parent
_KINDS = {info.name: info.kind for info in _core.FIELDS}
_SHOWN_RANGES = 12


def cases() -> list[Path]:
    """Every folder below this one that holds an input."""
    return sorted(p for p in ROOT.glob("*/*") if p.is_dir() and (list(p.glob("input.*")) or (p / "input").is_dir()))


def check(case: Path, regen: bool) -> None:
    rules, unsupported = outcome(case)
    for name, text in (("expected.rules", rules), ("expected.unsupported", unsupported)):
        path = case / name
        if regen:
            path.write_text(text)
        assert path.exists(), f"{path} is missing; run with --regen"
        assert text == path.read_text(), f"{path} differs; see the diff, or run with --regen"
    assert rules.startswith("error: ") == case.name.startswith("wrong-"), f"{case.name}: refused or not"


def outcome(case: Path) -> tuple[str, str]:
    """(expected.rules, expected.unsupported) as they are now."""
    options_file = case / "options.json"
    options = json.loads(options_file.read_text()) if options_file.exists() else {}
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    inputs = sorted(case.glob("input.*")) or [case / "input"]
    try:
        result = load_policy(inputs, ImportOptions(**options))
    except PolicyError as error:
        return f"error: {_without(str(error), case)}\n", ""
    lines: list[str] = []
    for layer in result.layers:
        versions = ", ".join(f"IPv{v}" for v in sorted(layer.families))
        lines.append(f"layer {_without(layer.name, case)}: {versions}")
        for point in layer.points:
            lines.extend(_point(point, case))
    diagnostics = [_without(str(d), case) for d in result.diagnostics]
    return "".join(f"{line}\n" for line in lines), "".join(f"{line}\n" for line in diagnostics)


def _without(text: str, case: Path) -> str:
    return text.replace(f"{case}/", "")


def _point(point: Point, case: Path) -> Iterator[str]:
    yield f"point {point.name}: {len(point.rules)} rules, else {point.default.name}"
    for name, codes in sorted(point.rules.names.items()):
        if codes.cuts:
            yield f"  names of {name}: {', '.join(ascii(cut) for cut in codes.cuts)}"
    for index, rule in enumerate(point.rules):
        yield f"  {index}: {rule_text(rule, point.rules)}"
        yield f"      {_without(str(rule.source), case)}"


def rule_text(rule: Rule, rules: RuleSet) -> str:
    action = f"SKIP to {rule.skip_to}" if rule.action is Action.SKIP else rule.action.name
    parts = [f"{action} '{rule.name}':", _match(rule.match) or "any"]
    if rule.alternatives:
        parts.append("and one of (" + " | ".join(_match(m) or "any" for m in rule.alternatives) + ")")
    if rule.unknown:
        parts.append(f"and unknown {', '.join(rule.unknown)}")
    return " ".join(parts)


def _match(match: Match) -> str:
    return " ".join(f"{name}={_values(name, values)}" for name, values in sorted(match.items()))


def _values(name: str, values: ValueSet) -> str:
    if _KINDS[name] == "address":
        shown = [_addresses(lo, hi, 4) for lo, hi in values.v4] + [_addresses(lo, hi, 6) for lo, hi in values.v6]
    else:
        shown = [str(lo) if lo == hi else f"{lo}-{hi}" for lo, hi in values.v4]
    more = f",...{len(shown) - _SHOWN_RANGES} more" if len(shown) > _SHOWN_RANGES else ""
    return "{" + ",".join(shown[:_SHOWN_RANGES]) + more + "}"


def _addresses(low: int, high: int, version: int) -> str:
    make = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    first, last = make(low), make(high)
    networks = list(ipaddress.summarize_address_range(first, last))
    return str(networks[0]) if len(networks) == 1 else f"{first}-{last}"
