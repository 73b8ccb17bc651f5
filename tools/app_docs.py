"""Write the tables of docs/apps.md from the core's own lists. ``--check`` only says whether they are current."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from meshsieve import apps

PAGE = Path(__file__).resolve().parents[1] / "docs" / "apps.md"


def filled(text: str) -> str:
    """The page with both tables as the core has them."""
    for mark, docs in (("attributes", apps.ATTRIBUTE_DOCS), ("applications", apps.DOCS)):
        rows = "\n".join(f"| `{name}` | {doc.replace('|', '/')} |" for name, doc in docs.items() if name)
        table = f"<!-- {mark} -->\n| | |\n|---|---|\n{rows}\n<!-- end -->"
        text = re.sub(rf"<!-- {mark} -->.*?<!-- end -->", lambda _: table, text, count=1, flags=re.S)  # noqa: B023
    return text


def main() -> int:
    page = PAGE.read_text()
    current = filled(page)
    if "--check" in sys.argv:
        return int(page != current)
    PAGE.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
