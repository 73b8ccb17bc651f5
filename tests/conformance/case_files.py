"""Folders of ``*.json`` files that hold lists of cases; a file that is an object is something else of the subject's."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from meshsieve.errors import MeshsieveError
from tests.conformance.report import Report

Judge = Callable[[Report, str, Mapping[str, Any]], None]


def judge_all(folder: Path, known: Collection[str], judge_case: Judge, judge_object: Judge) -> Report:
    """A case with a field that is not ``known``, or that we refuse, is skipped with the reason."""
    report = Report()
    for path in sorted(folder.rglob("*.json")):
        name = str(path.relative_to(folder))
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            judge_object(report, name, content)
            continue
        for case in content:
            where = f"{name}:{case.get('id') or case.get('name', '?')}"
            if unknown := sorted(set(case) - set(known)):
                report.skipped(where, f"fields that this runner does not know: {', '.join(unknown)}")
                continue
            try:
                judge_case(report, where, case)
            except MeshsieveError as error:
                report.skipped(where, str(error))
    return report
