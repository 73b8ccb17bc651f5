"""The tables of docs/capture.md follow the code."""

from __future__ import annotations

from pathlib import Path

from meshsieve import _core, flows
from meshsieve.capture import STATUSES

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_status_is_described_with_the_words_of_the_code() -> None:
    text = (DOCS / "capture.md").read_text()
    for name, doc in _core.DECODE_STATUSES:
        assert f"| `{name}` | {doc} |" in text
    assert len(STATUSES) == len(set(STATUSES))


def test_every_flow_option_is_described() -> None:
    text = (DOCS / "flows.md").read_text()
    for name in flows.FlowOptions.__dataclass_fields__:
        assert f"`{name}`" in text or name == "fragment_s", name
