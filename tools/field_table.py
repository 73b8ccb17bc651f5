"""Writes docs/fields.md from ``meshsieve._core.FIELDS``; with ``--check``, says whether it is current (status 1)."""

from __future__ import annotations

import sys
from pathlib import Path

from meshsieve import _core

PAGE = Path(__file__).parent.parent / "docs" / "fields.md"

_HEAD = """\
# Fields

What a rule can look at. Generated from `csrc/include/meshsieve/fields.def` by `python -m tools.field_table`.

A packet says for each field whether it has it. A rule that names a field which the packet cannot have (the port of an
ICMP packet) does not match; a field that the packet has but that was not seen (the ports of a later fragment) makes the
rule *unknown*, and the packet undecided there.

| field | kind | bits | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page as it should be."""
    rows = [f"| `{f.name}` | {f.kind} | {f.bits} | {f.doc} |" for f in _core.FIELDS]
    return _HEAD + "\n".join(rows) + "\n"


def main(words: list[str]) -> int:
    if words == ["--check"]:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        print(f"{PAGE.name} is not current: run python -m tools.field_table", file=sys.stderr)
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
