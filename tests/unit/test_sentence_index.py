"""tests/README.md names files and sentences that are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROW = re.compile(r"\| (?P<subject>[^|]+) \| (?P<files>[^|]+) \| (?P<sentences>[^|]+) \|")


def test_every_sentence_of_the_index_is_in_one_of_its_files() -> None:
    rows = [ROW.fullmatch(line) for line in (TESTS / "README.md").read_text().splitlines() if line.startswith("| ")]
    checked = 0
    for row in rows[1:]:
        assert row is not None
        texts = [(TESTS / file).read_text() for file in re.findall(r"`([^`]+)`", row["files"])]
        sentences = re.findall(r'"([^"]+)"|`(test_\w+)`', row["sentences"])
        assert texts, row["subject"]
        assert sentences, row["subject"]
        for sentence, function in sentences:
            assert any((sentence or f"def {function}(") in text for text in texts), (row["subject"], sentence, function)
            checked += 1
    assert checked > 60
